//! Query plans, and what the queries they name return.

use super::*;

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
