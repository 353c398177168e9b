use super::super::ast::Select;
use super::*;
use crate::query::eval::Scope;
use serde_json::json;

fn value_of(text: &str, document: &Value) -> Option<Value> {
    let query = parse(
        &format!("SELECT VALUE {text} FROM c"),
        HashMap::from([("@p".to_owned(), json!(7))]),
    )
    .unwrap();
    let Select::Value(expr) = query.select else {
        panic!("VALUE")
    };
    Scope::document(document)
        .eval(&expr)
        .map(|value| value.into_owned())
}

#[test]
fn expressions_have_the_documented_values() {
    let document = json!({"a": 1, "b": "x", "n": null, "o": {"p": [10, 20]}, "t": true, "from": 3});
    for (text, expected) in [
        ("1 + 2 * 3 - -4", Some(json!(11))),
        ("(1 + 2) * 3", Some(json!(9))),
        ("1 / 0", None),
        ("c.a = 1 AND c.b = 'x'", Some(json!(true))),
        ("c.a = '1'", None),
        ("NOT c.a = 2", Some(json!(true))),
        ("NOT c.missing = 2", None),
        ("c.missing = 1 OR c.t", Some(json!(true))),
        ("c.missing = 1 AND false", Some(json!(false))),
        ("c.n = null", Some(json!(true))),
        ("c.missing ?? c.n ?? 5", Some(json!(null))),
        ("c.o.p[1]", Some(json!(20))),
        ("c['o']['p'][0]", Some(json!(10))),
        ("c.o.p[2]", None),
        ("c.a IN (3, 1)", Some(json!(true))),
        ("c.a NOT IN (3, 1)", Some(json!(false))),
        ("c.a BETWEEN 1 AND 2 AND true", Some(json!(true))),
        ("c.a > 0 ? 'yes' : 'no'", Some(json!("yes"))),
        ("IS_DEFINED(c.n)", Some(json!(true))),
        ("is_defined(c.missing)", Some(json!(false))),
        ("STARTSWITH(c.b, 'X', true)", Some(json!(true))),
        (
            "{\"x\": c.a, y: [c.b, c.missing]}",
            Some(json!({"x": 1, "y": ["x"]})),
        ),
        ("@p % 4", Some(json!(3))),
        ("'a' || c.b", Some(json!("ax"))),
        ("c.from", Some(json!(3))),
        ("'b' > 'a'", Some(json!(true))),
        ("[1, {a: 2}] = [1.0, {a: 2}]", Some(json!(true))),
    ] {
        assert_eq!(value_of(text, &document), expected, "{text}");
    }
}

#[test]
fn what_is_not_supported_is_named() {
    for (text, named) in [
        ("SELECT DISTINCT c.a FROM c", "DISTINCT"),
        ("SELECT c.a FROM c GROUP BY c.a", "GROUP BY"),
        ("SELECT * FROM c JOIN d IN c.d", "JOIN"),
        ("SELECT * FROM x IN c.d", "IN"),
        ("SELECT * FROM c WHERE c.a LIKE 'x'", "LIKE"),
        ("SELECT * FROM c WHERE EXISTS(SELECT 1)", "subquery"),
        ("SELECT udf.f(c) FROM c", "user-defined"),
        ("SELECT SOUNDEX(c.a) FROM c", "SOUNDEX"),
        ("SELECT * FROM c WHERE COUNT(1) > 1", "aggregate"),
        ("SELECT * FROM c WHERE d.a = 1", "d"),
        ("SELECT * FROM c WHERE c.a = @q", "@q"),
        ("SELECT * FROM c WHERE", "ends"),
        ("DELETE FROM c", "DELETE"),
        ("SELECT * FROM c c c", "c"),
        ("", "ends"),
    ] {
        let error = parse(text, HashMap::new()).unwrap_err();
        assert!(error.contains(named), "{text}: {error}");
    }
    let deep = format!(
        "SELECT VALUE {}1{} FROM c",
        "(".repeat(5_000),
        ")".repeat(5_000)
    );
    assert!(parse(&deep, HashMap::new()).unwrap_err().contains("deeper"));
    let deep = format!("SELECT VALUE {}1 FROM c", "NOT ".repeat(5_000));
    assert!(parse(&deep, HashMap::new()).unwrap_err().contains("deeper"));
    let deep = format!("SELECT VALUE {}1 FROM c", "- ".repeat(5_000));
    assert!(parse(&deep, HashMap::new()).unwrap_err().contains("deeper"));
}

#[test]
fn clauses_are_read() {
    let query = parse("select top 3 c.a, c.o.p as q, 1 from root c where c.a > 1 order by c.a desc offset 1 limit 2", HashMap::new()).unwrap();
    let Select::List(items) = &query.select else {
        panic!("a list")
    };
    assert_eq!(
        items
            .iter()
            .map(|(name, _)| name.as_str())
            .collect::<Vec<_>>(),
        ["a", "q", "$1"]
    );
    assert_eq!(
        (query.limit, query.offset, query.order.len()),
        (Some(2), 1, 1)
    );
    assert!(query.order[0].descending);
}
