//! Bodies of requests: sound ones of each kind, with odd values in them.

use serde_json::{Map, Value, json};

use super::{Random, values};

const PATHS: [&str; 10] = [
    "/n", "/v", "/list/0", "/list/-", "/list/99", "/a~1b", "/id", "/pk", "", "n",
];

const DEFINITIONS: [&str; 16] = [
    r#"{"id":"ITEMS","partitionKey":{"paths":["/pk"],"kind":"Hash"}}"#,
    r#"{"id":"ITEMS","partitionKey":{"paths":["/pk","/q"],"kind":"MultiHash","version":2}}"#,
    r#"{"id":"ITEMS","partitionKey":{"paths":["/pk"]},"defaultTtl":1}"#,
    r#"{"id":"ITEMS","partitionKey":{"paths":["/pk"]},"defaultTtl":-1}"#,
    r#"{"id":"ITEMS","partitionKey":{"paths":["/pk"]},"defaultTtl":9223372036854775807}"#,
    r#"{"id":"ITEMS","partitionKey":{"paths":["/pk"]},"uniqueKeyPolicy":{"uniqueKeys":[{"paths":["/n"]}]}}"#,
    r#"{"id":"ITEMS","partitionKey":{"paths":["/pk"]},"uniqueKeyPolicy":{"uniqueKeys":[{"paths":["n"]}]}}"#,
    r#"{"id":"ITEMS","partitionKey":{"paths":["/a/b/c"]}}"#,
    r#"{"id":"ITEMS","partitionKey":{"paths":["/id"]}}"#,
    r#"{"id":"ITEMS","partitionKey":{"paths":["/\"x"]}}"#,
    r#"{"id":"ITEMS","partitionKey":{"paths":[]}}"#,
    r#"{"id":"ITEMS","partitionKey":[]}"#,
    r#"{"id":"ITEMS"}"#,
    r#"{"id":"ITEMS","partitionKey":{"paths":["/pk"]},"changeFeedPolicy":{"retentionDuration":18446744073709551615}}"#,
    r#"{"id":"ITEMS","partitionKey":{"paths":["/pk"]},"indexingPolicy":7,"defaultTtl":null}"#,
    r#"{"id":"\u0000","partitionKey":{"paths":["/pk"]}}"#,
];

const QUERIES: [&str; 30] = [
    "SELECT * FROM c",
    "SELECT VALUE COUNT(1) FROM c",
    "SELECT c.id, c.n FROM c WHERE c.n > 1 ORDER BY c.n DESC",
    "SELECT VALUE c FROM c ORDER BY c.v, c.n OFFSET 1 LIMIT 2",
    "SELECT TOP 3 c.id AS x FROM c",
    "SELECT VALUE SUM(c.n) FROM c WHERE c.n BETWEEN -1 AND @p",
    "SELECT AVG(c.n) AS a, MIN(c.v) AS b, MAX(c.v) AS c FROM c",
    "SELECT VALUE {\"a\": [c.n, c.v ?? @p], 'b': c.v || 'x'} FROM c",
    "SELECT * FROM c WHERE c.n IN (1, 2, 'x', null, undefined)",
    "SELECT * FROM c WHERE NOT (c.n = 1 AND c.v != -@p)",
    "SELECT * FROM c WHERE CONTAINS(c.v, 'a', true) OR STARTSWITH(c.id, 'd')",
    "SELECT VALUE SUBSTRING(c.v, -1, 1e300) FROM c",
    "SELECT VALUE c.n % 0 FROM c",
    "SELECT VALUE ABS(-9223372036854775808) FROM c",
    "SELECT VALUE c.list[1e300] FROM c",
    "SELECT VALUE c['list'][0] FROM c",
    "SELECT DISTINCT VALUE c.n FROM c",
    "SELECT c.n, COUNT(1) FROM c GROUP BY c.n",
    "SELECT * FROM c JOIN t IN c.list",
    "SELECT VALUE t FROM t IN c.list",
    "SELECT * FROM c WHERE c.v LIKE 'a%'",
    "SELECT * FROM c WHERE EXISTS(SELECT VALUE t FROM t IN c.list)",
    "SELECT VALUE (c.n ? 1 : 2) FROM c OFFSET 18446744073709551615 LIMIT 18446744073709551615",
    "SELECT * FROM c OFFSET 18446744073709551616 LIMIT 1",
    "SELECT VALUE 'it''s \\ud83d' FROM c",
    "SELECT VALUE COUNT(1) FROM c ORDER BY c.n",
    "SELECT * FROM root WHERE root.offerResourceId = @p",
    "SELECT",
    "FROM c",
    "",
];

/// Any JSON value.
pub fn value(random: &mut Random, depth: usize) -> Value {
    match random.below(if depth > 4 { 9 } else { 12 }) {
        0 => Value::Null,
        1 => json!(random.once_in(2)),
        2 => json!(random.below(5)),
        3 => json!([i64::MIN, i64::MAX, 1 << 53, (1 << 53) + 1, -1][random.below(5)]),
        4 => json!([u64::MAX, 1 << 63][random.below(2)]),
        5 => json!([1e308, -0.0, 5e-324, 0.1, 9_007_199_254_740_992.0][random.below(5)]),
        6 => json!(["", "a", "\u{0}", "\u{1F600}", "\u{ffff}", "/", "\\\"", "É"][random.below(8)]),
        7 => json!("x".repeat(random.below(300))),
        8 => json!(values::id(random)),
        9 => (0..random.below(4))
            .map(|_| value(random, depth + 1))
            .collect(),
        10 => (0..random.below(4))
            .map(|index| (format!("m{index}"), value(random, depth + 1)))
            .collect::<Map<String, Value>>()
            .into(),
        _ => (0..random.below(120)).fold(json!(1), |inner, _| json!([inner])),
    }
}

/// An item.
pub fn item(random: &mut Random) -> Value {
    let mut item = json!({"id": values::id(random), "pk": format!("p{}", random.below(3))});
    for name in ["n", "v", "list", "q", "ttl", "_ts", "a", "_etag", "\u{e9}"] {
        if random.once_in(3) {
            item[name] = match name {
                "ttl" => json!([1, -1, 100, 0, i64::MAX][random.below(5)]),
                "q" => json!(format!("q{}", random.below(2))),
                _ => value(random, 0),
            };
        }
    }
    item
}

/// Text of an item, perhaps with what no value tree can hold.
pub fn item_text(random: &mut Random) -> String {
    let text = item(random).to_string();
    let odd = match random.below(24) {
        0 => "\"x\":\"\\ud800\"",
        1 => "\"x\":1e999",
        2 => "\"x\":-1e-999",
        3 => "\"id\":\"d0\",\"id\":\"d1\"",
        4 => "\"pk\":\"p0\"",
        5 => "\"x\":0.1e+00000000000000000001",
        6 => {
            let depth = 100 + random.below(60);
            let nested = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
            return format!("{},\"deep\":{nested}}}", &text[..text.len() - 1]);
        }
        7 => {
            let digits = "9".repeat(300 + random.below(20));
            return format!("{},\"long\":{digits}}}", &text[..text.len() - 1]);
        }
        8 if random.once_in(8) => {
            let filler = "f".repeat(2_100_000 - random.below(60_000));
            return format!("{},\"f\":\"{filler}\"}}", &text[..text.len() - 1]);
        }
        _ => return text,
    };
    format!("{},{odd}}}", &text[..text.len() - 1])
}

pub fn patch(random: &mut Random) -> Value {
    let operations: Vec<Value> = (0..1 + random.below(11))
        .map(|_| {
            let op = random.pick(&["add", "set", "replace", "remove", "incr", "move", "x"]);
            json!({"op": op, "path": random.pick(&PATHS), "from": random.pick(&PATHS),
                   "value": value(random, 2)})
        })
        .collect();
    match random.below(3) {
        0 => json!(operations),
        1 => json!({"operations": operations}),
        _ => {
            let condition = random.pick(&[
                "FROM c WHERE c.n > 0",
                "FROM c",
                "WHERE",
                "from r where r.id = 'd1'",
            ]);
            json!({"operations": operations, "condition": condition})
        }
    }
}

pub fn batch(random: &mut Random) -> String {
    let count = if random.once_in(12) {
        101
    } else {
        random.below(12)
    };
    let mut operations = Vec::new();
    for _ in 0..count {
        let kind = random.pick(&[
            "Create", "Upsert", "Replace", "Read", "Delete", "Patch", "X",
        ]);
        let body = match kind {
            "Patch" => patch(random).to_string(),
            _ => item_text(random),
        };
        let key = random.pick(&[
            "[\\\"p0\\\"]",
            "[\\\"p1\\\"]",
            "[]",
            "x",
            "[\\\"p0\\\",\\\"q0\\\"]",
        ]);
        let mut operation = format!("{{\"operationType\":\"{kind}\",\"partitionKey\":\"{key}\"");
        if !random.once_in(5) {
            operation.push_str(&format!(",\"id\":\"{}\"", values::id(random)));
        }
        if !random.once_in(6) {
            operation.push_str(&format!(",\"resourceBody\":{body}"));
        }
        if random.once_in(6) {
            operation.push_str(",\"ifMatch\":\"*\",\"ifNoneMatch\":null");
        }
        operation.push('}');
        operations.push(operation);
    }
    format!("[{}]", operations.join(","))
}

pub fn query(random: &mut Random) -> Value {
    let mut text = random.pick(&QUERIES).to_owned();
    if random.once_in(20) {
        let depth = 10 + random.below(3_000);
        text = match random.below(4) {
            0 => format!(
                "SELECT VALUE {}1{} FROM c",
                "(".repeat(depth),
                ")".repeat(depth)
            ),
            1 => format!("SELECT * FROM c WHERE {}c.n", "NOT ".repeat(depth)),
            2 => format!("SELECT * FROM c WHERE c.n{}", " IN (1)".repeat(depth)),
            _ => format!("SELECT VALUE 1{} FROM c", " + 1".repeat(depth)),
        };
    }
    let mut body = json!({"query": text});
    if !random.once_in(4) {
        body["parameters"] = json!([{"name": "@p", "value": value(random, 1)}]);
    }
    if random.once_in(6) {
        body["resumeFilter"] = json!({"value": [value(random, 3)], "rid": "AAAAAYAAAAIBAAAAAAAAAA==",
                                      "exclude": random.once_in(2)});
    }
    body
}

/// The definition of a container with this name, by and large.
pub fn definition(random: &mut Random, name: &str) -> String {
    random.pick(&DEFINITIONS).replace("ITEMS", name)
}

/// A plan of faults that passes quickly.
pub fn faults(random: &mut Random) -> Value {
    let action = random.choose(&[
        json!({"status": {"status": 503}}),
        json!({"status": {"status": 429, "retry_after_ms": 1}}),
        json!({"delay": {"ms": 3, "jitter_ms": 3}}),
        json!("drop-before"),
        json!("drop-after"),
        json!({"status-after": {"status": 408}}),
        json!("freeze"),
        json!({"status": {"status": 200}}),
        json!("x"),
    ]);
    let operation = random.pick(&[
        "*",
        "writes",
        "reads",
        "create",
        "bulk-item",
        "change-feed",
        "x",
    ]);
    let mut rule = json!({"operation": operation, "action": action});
    if random.once_in(2) {
        rule["times"] = json!(random.below(3));
        rule["probability"] = json!([0.5, 1.0, 2.0][random.below(3)]);
        rule["partition"] = json!(random.below(4));
    }
    json!({"seed": random.next(), "rules": [rule]})
}
