//! Queries over HTTP: plans, the queries that plans make, refusals, pages and errors.

mod common;

use common::raw::{Raw, Reply};
use common::server;
use serde_json::{Value, json};

type Outcome = Result<(), Box<dyn std::error::Error>>;
type Headers<'a> = Vec<(&'a str, &'a str)>;

const DOCS: &str = "/dbs/db/colls/items/docs";
const QUERY: (&str, &str) = ("x-ms-documentdb-isquery", "true");
const ANYWHERE: (&str, &str) = ("x-ms-documentdb-query-enablecrosspartition", "True");
const PLAN: (&str, &str) = ("x-ms-cosmos-is-query-plan-request", "True");
const FEATURES: (&str, &str) = (
    "x-ms-cosmos-supported-query-features",
    "Aggregate, CountIf, Distinct, GroupBy, MultipleAggregates, MultipleOrderBy, NonValueAggregate, OffsetAndLimit, OrderBy, Top",
);
const RANGES: [&str; 3] = ["0", "1", "2"];
const KEY_A: (&str, &str) = ("x-ms-documentdb-partitionkey", "[\"a\"]");

/// Documents `d0`.. with `n` from 0, in seven logical partitions.
fn documents() -> Vec<Value> {
    (0..40)
        .map(|n| {
            let mut document = json!({
                "id": format!("d{n}"), "pk": format!("p{}", n % 7), "n": n, "g": format!("g{}", n % 3),
                "tags": [format!("t{}", n % 2), format!("t{}", n % 5)],
            });
            if n % 4 == 0 {
                document["quarter"] = json!(n / 4);
            }
            document
        })
        .collect()
}

fn filled(raw: &mut Raw) -> Outcome {
    raw.prepare("/pk")?;
    for document in documents() {
        create(raw, &document)?;
    }
    Ok(())
}

fn create(raw: &mut Raw, document: &Value) -> Outcome {
    let reply = raw.call("POST", DOCS, &[], document.to_string().as_bytes())?;
    assert_eq!(reply.status, 201, "{}", reply.text());
    Ok(())
}

fn ask(raw: &mut Raw, headers: &Headers<'_>, text: &str) -> std::io::Result<Reply> {
    let mut all = vec![QUERY];
    all.extend_from_slice(headers);
    raw.call(
        "POST",
        DOCS,
        &all,
        json!({"query": text}).to_string().as_bytes(),
    )
}

fn plan(raw: &mut Raw, text: &str) -> std::io::Result<Value> {
    let body = json!({"query": text, "parameters": [{"name": "@two", "value": 2}]}).to_string();
    let reply = raw.call("POST", DOCS, &[PLAN, FEATURES], body.as_bytes())?;
    assert_eq!(reply.status, 200, "{text}: {}", reply.text());
    Ok(reply.json())
}

/// All rows of a query, page by page.
fn pages(
    raw: &mut Raw,
    headers: &Headers<'_>,
    text: &str,
    size: usize,
    mut between: impl FnMut(&mut Raw) -> Outcome,
) -> Result<Vec<Value>, Box<dyn std::error::Error>> {
    let (mut rows, mut token, size) = (Vec::new(), String::new(), size.to_string());
    for _ in 0..1_000 {
        let mut headers = headers.clone();
        headers.push(("x-ms-max-item-count", &size));
        if !token.is_empty() {
            headers.push(("x-ms-continuation", &token));
        }
        let reply = ask(raw, &headers, text)?;
        assert_eq!(reply.status, 200, "{text}: {}", reply.text());
        let page = reply.json()["Documents"].as_array().unwrap().clone();
        assert!(page.len() <= size.parse()?, "{text}");
        assert_eq!(
            reply.header("x-ms-item-count"),
            Some(&*page.len().to_string())
        );
        rows.extend(page);
        match reply.header("x-ms-continuation") {
            Some(next) => token = next.to_owned(),
            None => return Ok(rows),
        }
        between(raw)?;
    }
    panic!("{text} has no end");
}

fn quietly(_: &mut Raw) -> Outcome {
    Ok(())
}

fn sorted(mut rows: Vec<Value>) -> Vec<Value> {
    rows.sort_by_key(Value::to_string);
    rows
}

#[test]
fn plans_tell_what_to_merge_and_what_to_send() -> Outcome {
    let emulator = server(3);
    let mut raw = Raw::connect(&emulator)?;
    raw.prepare("/pk")?;
    let filter = "{documentdb-formattableorderbyquery-filter}";
    let cases = [
        (
            "SELECT c.a FROM c WHERE c.n > @two",
            json!({"rewrittenQuery": "", "distinctType": "None", "top": null}),
        ),
        (
            "SELECT TOP @two * FROM c",
            json!({"top": 2, "rewrittenQuery": ""}),
        ),
        (
            "SELECT * FROM c OFFSET 3 LIMIT 4",
            json!({"offset": 3, "limit": 4, "rewrittenQuery": "SELECT * FROM c OFFSET 0 LIMIT 7"}),
        ),
        (
            "SELECT * FROM c ORDER BY c.n",
            json!({
                "orderBy": ["Ascending"], "orderByExpressions": ["c.n"], "hasSelectValue": false,
                "rewrittenQuery": format!("SELECT c._rid, [{{\"item\": c.n}}] AS orderByItems, c AS payload\nFROM c\nWHERE ({filter})\nORDER BY c.n ASC"),
            }),
        ),
        (
            "SELECT TOP 5 c.a, c.b AS \"x y\" FROM root c JOIN t IN c.tags WHERE c.n > @two OR t = 'x' ORDER BY c.n DESC, c['m'] OFFSET 1 LIMIT 2",
            json!({
                "top": 5, "offset": 1, "limit": 2,
                "orderBy": ["Descending", "Ascending"], "orderByExpressions": ["c.n", "c['m']"],
                "rewrittenQuery": format!(
                    "SELECT TOP 5 c._rid, [{{\"item\": c.n}}, {{\"item\": c['m']}}] AS orderByItems, {{\"a\": c.a, \"x y\": c.b}} AS payload\n\
                     FROM root c JOIN t IN c.tags\nWHERE (c.n > @two OR t = 'x') AND ({filter})\nORDER BY c.n DESC, c['m'] ASC\nOFFSET 0 LIMIT 3"),
            }),
        ),
        (
            "SELECT DISTINCT VALUE c.a FROM c ORDER BY c.a",
            json!({
                "distinctType": "Ordered",
                "rewrittenQuery": format!("SELECT c._rid, [{{\"item\": c.a}}] AS orderByItems, c.a AS payload\nFROM c\nWHERE IS_DEFINED(c.a) AND ({filter})\nORDER BY c.a ASC"),
            }),
        ),
        (
            "SELECT DISTINCT c.a FROM c",
            json!({"distinctType": "Unordered", "rewrittenQuery": ""}),
        ),
        (
            "SELECT VALUE COUNT(1) FROM c",
            json!({"aggregates": ["Count"], "hasSelectValue": true, "rewrittenQuery": "SELECT VALUE [{\"item\": COUNT(1)}]\nFROM c"}),
        ),
        (
            "SELECT VALUE AVG(c.n) FROM c WHERE c.x",
            json!({
                "aggregates": ["Average"],
                "rewrittenQuery": "SELECT VALUE [{\"item\": {\"sum\": SUM(c.n), \"count\": COUNT(c.n)}}]\nFROM c\nWHERE (c.x)",
            }),
        ),
        (
            "SELECT VALUE MAX(c.n) FROM c",
            json!({
                "aggregates": ["Max"],
                "rewrittenQuery": "SELECT VALUE [{\"item\": MAX(c.n), \"item2\": {\"max\": MAX(c.n), \"count\": COUNT(c.n)}}]\nFROM c",
            }),
        ),
        (
            "SELECT c.g, SUM(c.n) AS total FROM c GROUP BY c.g",
            json!({
                "aggregates": [], "groupByExpressions": ["c.g"], "groupByAliases": ["g", "total"],
                "groupByAliasToAggregateType": {"g": null, "total": "Sum"},
                "rewrittenQuery": "SELECT [{\"item\": c.g}] AS groupByItems, {\"g\": c.g, \"total\": {\"item\": SUM(c.n)}} AS payload\nFROM c\nGROUP BY c.g",
            }),
        ),
        (
            "SELECT COUNT(1) AS n FROM c",
            json!({
                "aggregates": [], "groupByAliasToAggregateType": {"n": "Count"},
                "rewrittenQuery": "SELECT {\"n\": {\"item\": COUNT(1)}} AS payload\nFROM c",
            }),
        ),
        (
            "SELECT VALUE COUNT(1) FROM c GROUP BY c.g",
            json!({
                "aggregates": ["Count"],
                "rewrittenQuery": "SELECT [{\"item\": c.g}] AS groupByItems, [{\"item\": COUNT(1)}] AS payload\nFROM c\nGROUP BY c.g",
            }),
        ),
    ];
    for (text, expected) in cases {
        let plan = plan(&mut raw, text)?;
        assert_eq!(plan["partitionedQueryExecutionInfoVersion"], 2);
        assert_eq!(
            plan["queryRanges"],
            json!([{"min": "", "max": "FF", "isMinInclusive": true, "isMaxInclusive": false}]),
            "{text}"
        );
        for (name, value) in expected.as_object().unwrap() {
            assert_eq!(plan["queryInfo"][name], *value, "{text}: {name}");
        }
        assert_eq!(plan["queryInfo"]["hasNonStreamingOrderBy"], false);
        assert!(
            plan["queryInfo"]
                .as_object()
                .unwrap()
                .contains_key("dCountInfo")
        );
    }
    Ok(())
}

#[test]
fn a_plan_names_the_range_of_a_key_that_the_filter_fixes() -> Outcome {
    let emulator = server(3);
    let mut raw = Raw::connect(&emulator)?;
    filled(&mut raw)?;
    let text = "SELECT VALUE c.n FROM c WHERE c.n >= 0 AND c.pk = 'p3' ORDER BY c.n";
    let plan = plan(&mut raw, text)?;
    let range = &plan["queryRanges"][0];
    assert_eq!(range["min"], range["max"]);
    assert_eq!(range["isMaxInclusive"], true);
    let ranges = raw
        .call("GET", "/dbs/db/colls/items/pkranges", &[], b"")?
        .json();
    let point = range["min"].as_str().unwrap();
    let owner = ranges["PartitionKeyRanges"]
        .as_array()
        .unwrap()
        .iter()
        .find(|range| {
            let bound = |name: &str| range[name].as_str().unwrap().to_owned();
            bound("minInclusive").as_str() <= point && point < bound("maxExclusive").as_str()
        })
        .unwrap();
    let there = [(
        "x-ms-documentdb-partitionkeyrangeid",
        owner["id"].as_str().unwrap(),
    )];
    let found = pages(&mut raw, &there.to_vec(), text, 2, quietly)?;
    assert_eq!(json!(found), json!([3, 10, 17, 24, 31, 38]));
    // The server needs neither plan nor permission for it.
    assert_eq!(pages(&mut raw, &vec![], text, 4, quietly)?, found);
    Ok(())
}

#[test]
fn rewritten_queries_of_all_ranges_make_the_whole() -> Outcome {
    let emulator = server(3);
    let mut raw = Raw::connect(&emulator)?;
    filled(&mut raw)?;
    let everything = documents();
    let mut parts = |text: &str| -> Result<Vec<Value>, Box<dyn std::error::Error>> {
        let plan = plan(&mut raw, text)?;
        let rewritten = plan["queryInfo"]["rewrittenQuery"].as_str().unwrap();
        let rewritten = rewritten.replace("{documentdb-formattableorderbyquery-filter}", "true");
        let text = if rewritten.is_empty() {
            text
        } else {
            &rewritten
        };
        let mut rows = Vec::new();
        for id in RANGES {
            let there = vec![("x-ms-documentdb-partitionkeyrangeid", id), ANYWHERE];
            rows.extend(pages(&mut raw, &there, text, 3, quietly)?);
        }
        Ok(rows)
    };
    let numbers: Vec<i64> = (0..40).collect();

    let counts = parts("SELECT VALUE COUNT(1) FROM c WHERE c.n < 30")?;
    let sum = |rows: &[Value], path: &str| -> i64 {
        rows.iter()
            .filter_map(|row| row.pointer(path)?.as_i64())
            .sum()
    };
    assert_eq!((counts.len(), sum(&counts, "/0/item")), (3, 30));
    let averages = parts("SELECT VALUE AVG(c.quarter) FROM c")?;
    assert_eq!(
        (
            sum(&averages, "/0/item/sum"),
            sum(&averages, "/0/item/count")
        ),
        (45, 10)
    );
    let most = parts("SELECT VALUE MAX(c.n) FROM c")?;
    assert_eq!(
        most.iter()
            .filter_map(|row| row[0]["item2"]["max"].as_i64())
            .max(),
        Some(39)
    );

    let ordered = parts("SELECT * FROM c WHERE c.n > 4 ORDER BY c.g DESC, c.n")?;
    assert_eq!(ordered.len(), 35);
    for row in &ordered {
        let n = row["payload"]["n"].as_i64().unwrap();
        assert_eq!(
            row["orderByItems"],
            json!([{"item": format!("g{}", n % 3)}, {"item": n}])
        );
        assert_eq!(row["_rid"], row["payload"]["_rid"]);
    }
    let gaps = parts("SELECT c.id FROM c ORDER BY c.quarter")?;
    let empty = gaps
        .iter()
        .filter(|row| row["orderByItems"] == json!([{}]))
        .count();
    assert_eq!((gaps.len(), empty), (40, 30));

    let groups = parts("SELECT c.g, COUNT(1) AS k, MIN(c.n) AS least FROM c GROUP BY c.g")?;
    for g in ["g0", "g1", "g2"] {
        let of_g: Vec<Value> = groups
            .iter()
            .filter(|row| row["payload"]["g"] == g)
            .cloned()
            .collect();
        let naive: Vec<i64> = numbers
            .iter()
            .copied()
            .filter(|n| g == format!("g{}", n % 3))
            .collect();
        assert!(
            of_g.iter()
                .all(|row| row["groupByItems"] == json!([{"item": g}]))
        );
        assert_eq!(sum(&of_g, "/payload/k/item"), naive.len() as i64);
        let least = of_g
            .iter()
            .filter_map(|row| row["payload"]["least"]["item"].as_i64())
            .min();
        assert_eq!(least, naive.iter().copied().min());
    }
    let mut distinct = parts("SELECT DISTINCT VALUE t FROM c JOIN t IN c.tags")?;
    assert!(distinct.len() <= 15);
    distinct = sorted(distinct);
    distinct.dedup();
    assert_eq!(json!(distinct), json!(["t0", "t1", "t2", "t3", "t4"]));
    assert_eq!(parts("SELECT * FROM c")?.len(), everything.len());
    Ok(())
}

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

#[test]
fn a_hierarchical_key_is_narrowed_by_any_prefix() -> Outcome {
    let emulator = server(4);
    let mut raw = Raw::connect(&emulator)?;
    raw.call("POST", "/dbs", &[], br#"{"id":"db"}"#)?;
    let body =
        br#"{"id":"items","partitionKey":{"paths":["/t","/u"],"kind":"MultiHash","version":2}}"#;
    assert_eq!(raw.call("POST", "/dbs/db/colls", &[], body)?.status, 201);
    for n in 0..60 {
        let document =
            json!({"id": format!("d{n}"), "t": format!("t{}", n % 3), "u": n % 10, "n": n});
        create(&mut raw, &document)?;
    }
    for (filter, is_one_key, naive) in [
        (
            "c.t = 't1'",
            false,
            (0..60).filter(|n| n % 3 == 1).collect::<Vec<i64>>(),
        ),
        (
            "c.t = 't1' AND c.u = 4",
            true,
            (0..60).filter(|n| n % 3 == 1 && n % 10 == 4).collect(),
        ),
        ("c.u = 4", false, (0..60).filter(|n| n % 10 == 4).collect()),
    ] {
        let text = format!("SELECT VALUE c.n FROM c WHERE {filter}");
        let found = pages(&mut raw, &vec![ANYWHERE], &text, 3, quietly)?;
        let naive: Vec<Value> = naive.into_iter().map(Value::from).collect();
        assert_eq!(sorted(found), sorted(naive), "{filter}");
        let range = plan(&mut raw, &text)?["queryRanges"][0].clone();
        assert_eq!(range["isMaxInclusive"], is_one_key, "{filter}");
        let refused = ask(&mut raw, &vec![], &text)?.status == 400;
        assert_eq!(refused, !is_one_key, "{filter}");
    }
    Ok(())
}
