//! Pages, continuations, charges and metrics.

use super::*;

#[test]
fn every_page_size_returns_the_same_rows() -> Outcome {
    let emulator = server(1);
    let mut raw = Raw::connect(&emulator)?;
    raw.prepare("/pk")?;
    for n in 0..30 {
        create(
            &mut raw,
            &json!({"id": format!("d{n}"), "pk": "a", "n": n, "g": n % 4, "s": if n % 3 == 0 { json!(null) } else { json!(n % 5) }, "tags": [n % 2, n % 3, n % 2]}),
        )?;
    }
    for (text, expected) in [
        ("SELECT VALUE c.n FROM c", 30),
        ("SELECT VALUE [c.n, t] FROM c JOIN t IN c.tags", 90),
        (
            "SELECT VALUE [c.n, t] FROM c JOIN t IN c.tags OFFSET 4 LIMIT 50",
            50,
        ),
        (
            "SELECT TOP 17 VALUE [c.n, t] FROM c JOIN t IN c.tags WHERE t > 0",
            17,
        ),
        ("SELECT DISTINCT VALUE [c.g, t] FROM c JOIN t IN c.tags", 12),
        (
            "SELECT DISTINCT VALUE [c.g, t] FROM c JOIN t IN c.tags OFFSET 2 LIMIT 7",
            7,
        ),
        ("SELECT VALUE c.n FROM c ORDER BY c.s, c.g DESC", 30),
        (
            "SELECT VALUE [c.n, t] FROM c JOIN t IN c.tags ORDER BY t DESC, c.g",
            90,
        ),
        (
            "SELECT VALUE c.n FROM c ORDER BY c.s DESC OFFSET 5 LIMIT 20",
            20,
        ),
        ("SELECT DISTINCT VALUE c.g FROM c ORDER BY c.s DESC", 4),
        ("SELECT DISTINCT TOP 3 c.g, c.s FROM c ORDER BY c.s DESC", 3),
        (
            "SELECT c.g, t, COUNT(1) AS k FROM c JOIN t IN c.tags GROUP BY c.g, t",
            12,
        ),
        (
            "SELECT c.g, COUNT(1) AS k FROM c GROUP BY c.g OFFSET 1 LIMIT 2",
            2,
        ),
        ("SELECT DISTINCT VALUE COUNT(1) FROM c GROUP BY c.g", 2),
        ("SELECT VALUE MAX(c.n) FROM c", 1),
        ("SELECT VALUE 1", 1),
    ] {
        let whole = pages(&mut raw, &vec![KEY_A], text, 1_000, quietly)?;
        assert_eq!(whole.len(), expected, "{text}");
        for size in [1, 2, 7, 29, 30, 31] {
            let rows = pages(&mut raw, &vec![KEY_A], text, size, quietly)?;
            assert_eq!(rows, whole, "{text} in pages of {size}");
        }
    }
    Ok(())
}

#[test]
fn continuations_survive_writes_between_pages() -> Outcome {
    for text in [
        "SELECT VALUE c.n FROM c WHERE c.n < 100",
        "SELECT VALUE c.n FROM c WHERE c.n < 100 ORDER BY c.n",
        "SELECT VALUE c.n FROM c WHERE c.n < 100 ORDER BY c.n DESC",
        "SELECT VALUE c.n FROM c JOIN t IN c.tags WHERE c.n < 100",
        "SELECT DISTINCT VALUE c.n FROM c WHERE c.n < 100",
        "SELECT VALUE c.n FROM c WHERE c.n < 100 GROUP BY c.n",
    ] {
        let emulator = server(1);
        let mut raw = Raw::connect(&emulator)?;
        raw.prepare("/pk")?;
        for n in 0..20 {
            create(
                &mut raw,
                &json!({"id": format!("d{n}"), "pk": "a", "n": n, "tags": [1]}),
            )?;
        }
        // Documents that the query does not return come and go around those that it does.
        let mut round = 1_000;
        let rows = pages(&mut raw, &vec![KEY_A], text, 3, |raw| {
            round += 1;
            let other = json!({"id": format!("x{round}"), "pk": "a", "n": round, "tags": [1]});
            create(raw, &other)?;
            if round % 2 == 0 {
                let path = format!("{DOCS}/x{}", round - 1);
                assert_eq!(raw.call("DELETE", &path, &[KEY_A], b"")?.status, 204);
            }
            Ok(())
        })?;
        let numbers: Vec<Value> = (0..20).map(Value::from).collect();
        assert_eq!(sorted(rows), sorted(numbers), "{text}");
    }
    Ok(())
}

#[test]
fn metrics_come_when_asked_for_and_charges_always() -> Outcome {
    let emulator = server(1);
    let mut raw = Raw::connect(&emulator)?;
    filled(&mut raw)?;
    let text = "SELECT c.zeta, c.n, c.g AS alpha FROM c WHERE c.n < 3";
    let here = ("x-ms-documentdb-partitionkeyrangeid", "0");
    let plain = ask(&mut raw, &vec![here], text)?;
    assert_eq!(plain.header("x-ms-documentdb-query-metrics"), None);
    assert!(
        plain.text().contains(r#"{"n":0,"alpha":"g0"}"#),
        "members keep the order of the list"
    );
    let measured = ask(
        &mut raw,
        &vec![here, ("x-ms-documentdb-populatequerymetrics", "True")],
        text,
    )?;
    let metrics = measured.header("x-ms-documentdb-query-metrics").unwrap();
    assert!(metrics.contains("retrievedDocumentCount=40;"), "{metrics}");
    assert!(metrics.contains("outputDocumentCount=3;"), "{metrics}");
    for reply in [&plain, &measured] {
        let charge: f64 = reply.header("x-ms-request-charge").unwrap().parse()?;
        assert!(
            (5.9..=6.1).contains(&charge),
            "2 for the page, 0.1 for each document: {charge}"
        );
    }
    Ok(())
}
