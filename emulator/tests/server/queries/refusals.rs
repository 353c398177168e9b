//! What is refused, and how.

use super::*;

#[test]
fn what_a_gateway_cannot_serve_is_refused_with_the_plan() -> Outcome {
    let emulator = server(3);
    let mut raw = Raw::connect(&emulator)?;
    filled(&mut raw)?;
    for text in [
        "SELECT * FROM c ORDER BY c.n",
        "SELECT TOP 1 * FROM c",
        "SELECT * FROM c OFFSET 1 LIMIT 1",
        "SELECT DISTINCT c.g FROM c",
        "SELECT VALUE COUNT(1) FROM c",
        "SELECT VALUE c.g FROM c GROUP BY c.g",
    ] {
        let reply = ask(&mut raw, &vec![ANYWHERE], text)?;
        assert_eq!(
            (reply.status, reply.header("x-ms-substatus")),
            (400, Some("1004")),
            "{text}"
        );
        let body = reply.json();
        assert!(
            body["message"]
                .as_str()
                .unwrap()
                .contains("can not be directly served by the gateway")
        );
        let inside: Value = serde_json::from_str(body["additionalErrorInfo"].as_str().unwrap())?;
        assert_eq!(inside, plan(&mut raw, text)?, "{text}");
        // The same query is served where nothing has to be merged.
        for addressed in [("x-ms-documentdb-partitionkeyrangeid", "1"), KEY_A] {
            assert_eq!(ask(&mut raw, &vec![addressed], text)?.status, 200, "{text}");
        }
    }
    for text in [
        "SELECT COUNT(1) AS n FROM c",
        "SELECT c.g, COUNT(1) AS n FROM c GROUP BY c.g",
    ] {
        let reply = ask(&mut raw, &vec![ANYWHERE], text)?;
        assert_eq!(
            (reply.status, reply.header("x-ms-substatus")),
            (400, None),
            "{text}"
        );
        let message = reply.json()["message"].as_str().unwrap().to_owned();
        assert!(
            message.contains("Cross partition query only supports 'VALUE <AggregateFunc>'"),
            "{message}"
        );
    }
    for (headers, status) in [(vec![], 400), (vec![ANYWHERE], 200)] {
        let reply = ask(
            &mut raw,
            &headers,
            "SELECT c.id, t FROM c JOIN t IN c.tags WHERE c.id IN ('d1')",
        )?;
        assert_eq!(reply.status, status, "{}", reply.text());
    }
    let narrow = [PLAN, ("x-ms-cosmos-supported-query-features", "OrderBy")];
    let body = json!({"query": "SELECT TOP 1 c.g, COUNT(1) AS n FROM c GROUP BY c.g"}).to_string();
    let reply = raw.call("POST", DOCS, &narrow, body.as_bytes())?;
    let message = reply.json()["message"].as_str().unwrap().to_owned();
    for feature in ["GroupBy", "NonValueAggregate", "Top"] {
        assert!(message.contains(&format!(
            "Query contained {feature}, which the calling client does not support."
        )));
    }
    assert_eq!((reply.status, message.contains("OrderBy")), (400, false));
    Ok(())
}

#[test]
fn errors_carry_code_and_place() -> Outcome {
    let emulator = server(1);
    let mut raw = Raw::connect(&emulator)?;
    raw.prepare("/pk")?;
    for (text, code, start, end) in [
        ("SELEC * FROM c", "SC1001", 0, 5),
        ("SELECT * FROM c WHERE", "SC1002", 21, 21),
        ("SELECT * FROM c WHERE c.a = # 1", "SC1010", 28, 29),
        ("SELECT * FROM c WHERE d.a = 1", "SC2001", 22, 23),
        ("SELECT VALUE FOO(1) FROM c", "SC2005", 13, 16),
        ("SELECT c.a, c.b AS a FROM c", "SC2022", 12, 15),
        ("SELECT VALUE ABS() FROM c", "SC2050", 13, 16),
    ] {
        for headers in [vec![KEY_A], vec![PLAN, FEATURES], vec![ANYWHERE]] {
            let reply = ask(&mut raw, &headers, text)?;
            let body = reply.json();
            assert_eq!(
                (reply.status, &body["code"]),
                (400, &json!("BadRequest")),
                "{text}"
            );
            let message = body["message"].as_str().unwrap().to_owned();
            let document: Value = serde_json::from_str(message.strip_prefix("Message: ").unwrap())?;
            let error = &document["errors"][0];
            assert_eq!(error["code"], code, "{text}: {error}");
            assert_eq!(
                error["location"],
                json!({"start": start, "end": end}),
                "{text}: {error}"
            );
            assert_eq!(error["severity"], "Error");
        }
    }
    let deep = format!(
        "SELECT VALUE {}1{} FROM c",
        "(".repeat(9_000),
        ")".repeat(9_000)
    );
    let reply = ask(&mut raw, &vec![KEY_A], &deep)?;
    assert_eq!((reply.status, reply.text().contains("deeper")), (400, true));
    let reply = ask(
        &mut raw,
        &vec![KEY_A, ("x-ms-continuation", "x")],
        "SELECT * FROM c",
    )?;
    assert_eq!(
        (
            reply.status,
            reply.text().contains("Invalid Continuation Token")
        ),
        (400, true)
    );
    create(
        &mut raw,
        &json!({"id": "big", "pk": "a", "l": vec![1; 100]}),
    )?;
    let joined = "SELECT VALUE 1 FROM c JOIN a IN c.l JOIN b IN c.l JOIN d IN c.l JOIN e IN c.l";
    for text in [
        joined,
        &format!("{joined} ORDER BY a"),
        "SELECT VALUE COUNT(1) FROM c JOIN a IN c.l JOIN b IN c.l JOIN d IN c.l JOIN e IN c.l",
    ] {
        let reply = ask(
            &mut raw,
            &vec![KEY_A, ("x-ms-max-item-count", "100000000")],
            text,
        )?;
        assert_eq!(
            (reply.status, reply.text().contains("too many rows")),
            (400, true),
            "{text}"
        );
    }
    Ok(())
}
