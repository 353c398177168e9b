//! Queries over HTTP: plans, the queries that plans make, refusals, pages and errors.

mod pages;
mod plans;
mod refusals;

use crate::common::raw::{Raw, Reply};
use crate::common::server;
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
