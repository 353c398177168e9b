use serde_json::json;

use super::super::rows::rows;
use super::*;
use crate::query::ast::Select;
use crate::query::budget::Budget;

fn query(text: &str) -> Parsed<Query> {
    let parameters = HashMap::from([("@p".to_owned(), json!(7))]);
    parse(text, parameters)
}

fn rows_of(text: &str, document: &Value) -> Vec<Value> {
    let query = query(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    rows(&query, &[Some(document)], &Budget::default())
}

fn value_of(text: &str, document: &Value) -> Option<Value> {
    rows_of(&format!("SELECT VALUE {text} FROM c"), document).pop()
}

#[test]
fn expressions_have_the_documented_values() {
    let document = json!({"a": 1, "b": "x", "n": null, "o": {"p": [10, 20]}, "t": true, "from": 3, "select": 4});
    for (text, expected) in [
        ("1 + 2 * 3 - -4", Some(json!(11))),
        ("(1 + 2) * 3", Some(json!(9))),
        ("10 - 3 - 2", Some(json!(5))),
        ("1 / 0", None),
        ("c.a = 1 AND c.b = 'x'", Some(json!(true))),
        ("false AND c.missing OR true", Some(json!(true))),
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
        ("c.a NOT BETWEEN 2 AND 3", Some(json!(true))),
        ("c.b LIKE '_' AND c.b NOT LIKE 'y%'", Some(json!(true))),
        ("'5%' LIKE '5!%' ESCAPE '!'", Some(json!(true))),
        ("c.a LIKE '1'", None),
        ("c.a > 0 ? 'yes' : 'no'", Some(json!("yes"))),
        ("c.missing ? 'yes' : 'no'", Some(json!("no"))),
        ("IS_DEFINED(c.n)", Some(json!(true))),
        ("is_defined(c.missing)", Some(json!(false))),
        ("STARTSWITH(c.b, 'X', true)", Some(json!(true))),
        (
            "{\"x\": c.a, y: [c.b, c.missing]}",
            Some(json!({"x": 1, "y": ["x"]})),
        ),
        ("@p % 4", Some(json!(3))),
        ("'a' || c.b || 'c'", Some(json!("axc"))),
        ("c.from + c.select", Some(json!(7))),
        ("'b' > 'a'", Some(json!(true))),
        ("[1, {a: 2}] = [1.0, {a: 2}]", Some(json!(true))),
        ("{a: 1}.a", Some(json!(1))),
        ("-c.a", Some(json!(-1))),
        ("- -1", Some(json!(1))),
    ] {
        assert_eq!(value_of(text, &document), expected, "{text}");
    }
}

#[test]
fn functions_have_the_documented_values() {
    let document =
        json!({"s": " A\u{e6}\u{1F600}b ", "l": [3, 1, {"k": 1, "m": 2}, 3], "o": {"y": 1}});
    for (text, expected) in [
        ("ABS(-1.5)", Some(json!(1.5))),
        ("CEILING(1.2) + FLOOR(-1.2)", Some(json!(0))),
        ("ROUND(2.5)", Some(json!(3))),
        ("ROUND(2.345, 2)", Some(json!(2.35))),
        ("ROUND(1234, -2)", Some(json!(1200))),
        ("ROUND(1.5, 400)", Some(json!(1.5))),
        (
            "POWER(2, 10) + SQRT(9) + SQUARE(2) + SIGN(-3) + TRUNC(2.9)",
            Some(json!(1032)),
        ),
        ("LOG(8, 2)", Some(json!(3))),
        ("LOG(-1)", None),
        ("ABS('x')", None),
        (
            "IS_NUMBER(1) AND IS_INTEGER(2.0) AND NOT IS_INTEGER(2.5)",
            Some(json!(true)),
        ),
        (
            "IS_STRING(c.s) AND IS_ARRAY(c.l) AND IS_OBJECT(c.o)",
            Some(json!(true)),
        ),
        (
            "IS_BOOL(c.missing) OR IS_NULL(c.missing) OR IS_PRIMITIVE(c.l)",
            Some(json!(false)),
        ),
        ("LENGTH(c.s)", Some(json!(7))),
        ("LOWER(TRIM(c.s))", Some(json!("a\u{e6}\u{1F600}b"))),
        (
            "LTRIM('xxaxx', 'x') || RTRIM('xxaxx', 'x')",
            Some(json!("axxxxa")),
        ),
        ("SUBSTRING('abcdef', 1, 3)", Some(json!("bcd"))),
        ("SUBSTRING('abc', -5, 2)", Some(json!("ab"))),
        (
            "LEFT('abc', 2) || RIGHT('abc', 2) || RIGHT('abc', 9)",
            Some(json!("abbcabc")),
        ),
        ("CONCAT('a', 'b', 'c')", Some(json!("abc"))),
        ("CONCAT('a', 1)", None),
        (
            "CONTAINS('abc', 'B', true) AND NOT CONTAINS('abc', 'B')",
            Some(json!(true)),
        ),
        ("ENDSWITH('abc', 'bc')", Some(json!(true))),
        ("STRINGEQUALS('ABC', 'abc', true)", Some(json!(true))),
        ("INDEX_OF('abcabc', 'b', 2)", Some(json!(4))),
        ("INDEX_OF('abc', 'x')", Some(json!(-1))),
        ("REPLACE('banana', 'an', 'AN')", Some(json!("bANANa"))),
        ("REPLACE('a', '', 'b')", Some(json!("a"))),
        ("REPLICATE('ab', 3)", Some(json!("ababab"))),
        ("REPLICATE('ab', 1000000)", None),
        ("REVERSE('abc')", Some(json!("cba"))),
        (
            "ToString(1.5) || ToString(true) || ToString('x') || ToString([1])",
            Some(json!("1.5truex[1]")),
        ),
        ("StringToNumber('1e2')", Some(json!(100))),
        ("StringToNumber('x')", None),
        ("StringToArray('[1]')[0]", Some(json!(1))),
        ("StringToObject('[1]')", None),
        ("ARRAY_LENGTH(c.l)", Some(json!(4))),
        ("ARRAY_CONTAINS(c.l, 1)", Some(json!(true))),
        ("ARRAY_CONTAINS(c.l, {k: 1})", Some(json!(false))),
        ("ARRAY_CONTAINS(c.l, {k: 1}, true)", Some(json!(true))),
        (
            "ARRAY_CONTAINS_ALL(c.l, 1, 3) AND NOT ARRAY_CONTAINS_ANY(c.l, 8, 9)",
            Some(json!(true)),
        ),
        ("ARRAY_CONCAT([1], [2, 3])", Some(json!([1, 2, 3]))),
        ("ARRAY_SLICE([1, 2, 3, 4], 1, 2)", Some(json!([2, 3]))),
        ("ARRAY_SLICE([1, 2, 3, 4], -2)", Some(json!([3, 4]))),
        ("SETUNION([1, 2], [2.0, 3])", Some(json!([1, 2, 3]))),
        ("SETINTERSECT([1, 2, 1], [1])", Some(json!([1]))),
        ("CHOOSE(2, 'a', 'b')", Some(json!("b"))),
        ("CHOOSE(0, 'a', 'b')", None),
        ("IIF(c.missing, 1, 2)", Some(json!(2))),
        ("ObjectToArray(c.o)", Some(json!([{"k": "y", "v": 1}]))),
    ] {
        assert_eq!(value_of(text, &document), expected, "{text}");
    }
}

#[test]
fn joins_and_subqueries_have_the_documented_rows() {
    let document = json!({
        "id": "d", "tags": ["x", "y", "x"], "none": [], "n": 2, "a": {"list": [{"v": 1}, {"v": 2}, {}]},
    });
    for (text, expected) in [
        (
            "SELECT VALUE t FROM c JOIN t IN c.tags",
            json!(["x", "y", "x"]),
        ),
        (
            "SELECT c.id, t FROM c JOIN t IN c.tags WHERE t = 'y'",
            json!([{"id": "d", "t": "y"}]),
        ),
        (
            "SELECT VALUE [a, b] FROM c JOIN a IN c.tags JOIN b IN c.tags WHERE a < b",
            json!([["x", "y"], ["x", "y"]]),
        ),
        ("SELECT VALUE 1 FROM c JOIN t IN c.none", json!([])),
        ("SELECT VALUE 1 FROM c JOIN t IN c.missing", json!([])),
        ("SELECT * FROM c.a.list", json!([[{"v": 1}, {"v": 2}, {}]])),
        ("SELECT VALUE list[0].v FROM c.a.list", json!([1])),
        ("SELECT VALUE e.v FROM e IN c.a.list", json!([1, 2])),
        (
            "SELECT DISTINCT VALUE t FROM c JOIN t IN c.tags",
            json!(["x", "y"]),
        ),
        (
            "SELECT VALUE t FROM c JOIN t IN c.tags ORDER BY t DESC OFFSET 1 LIMIT 1",
            json!(["x"]),
        ),
        (
            "SELECT TOP 2 VALUE t FROM c JOIN t IN c.tags",
            json!(["x", "y"]),
        ),
        ("SELECT VALUE COUNT(1) FROM c JOIN t IN c.tags", json!([3])),
        (
            "SELECT t, COUNT(1) AS n FROM c JOIN t IN c.tags WHERE t = 'x' GROUP BY t",
            json!([{"t": "x", "n": 2}]),
        ),
        (
            "SELECT VALUE {k: t} FROM c JOIN t IN c.none GROUP BY t",
            json!([]),
        ),
        (
            "SELECT VALUE EXISTS(SELECT VALUE t FROM t IN c.tags WHERE t = 'y') FROM c",
            json!([true]),
        ),
        (
            "SELECT VALUE EXISTS(SELECT VALUE t FROM t IN c.tags WHERE t = 'z') FROM c",
            json!([false]),
        ),
        (
            "SELECT VALUE ARRAY(SELECT VALUE e.v FROM e IN c.a.list WHERE e.v > 1) FROM c",
            json!([[2]]),
        ),
        (
            "SELECT VALUE (SELECT VALUE COUNT(1) FROM t IN c.tags) FROM c",
            json!([3]),
        ),
        (
            "SELECT VALUE (SELECT VALUE SUM(e.v) FROM e IN c.a.list) + c.n FROM c",
            json!([5]),
        ),
        (
            "SELECT VALUE t FROM c JOIN t IN (SELECT VALUE t FROM t IN c.tags WHERE t != 'x')",
            json!(["y"]),
        ),
        (
            "SELECT VALUE s.m FROM c JOIN (SELECT MAX(e.v) AS m FROM e IN c.a.list) AS s",
            json!([2]),
        ),
        (
            "SELECT VALUE s.k FROM (SELECT c.id AS k FROM c WHERE c.n = 2) AS s",
            json!(["d"]),
        ),
        (
            "SELECT VALUE c.id FROM root c WHERE EXISTS(SELECT 1 FROM t IN c.tags JOIN u IN c.tags WHERE t < u)",
            json!(["d"]),
        ),
        ("SELECT 1 + 1, 'x' AS y", json!([{"$1": 2, "y": "x"}])),
    ] {
        assert_eq!(json!(rows_of(text, &document)), expected, "{text}");
    }
}

#[test]
fn what_is_wrong_or_not_supported_is_named() {
    for (text, named) in [
        ("SELECT udf.f(c) FROM c", "user-defined"),
        (
            "SELECT SOUNDEX(c.a) FROM c",
            "'SOUNDEX' is not a recognized built-in function name",
        ),
        ("SELECT ABS(1, 2) FROM c", "ABS function requires 1"),
        ("SELECT COUNT() FROM c", "COUNT function requires 1"),
        ("SELECT COUNT(1, 2) FROM c", "COUNT function requires 1"),
        ("SELECT COUNT(SUM(c.a)) FROM c", "aggregate"),
        ("SELECT * FROM c WHERE COUNT(1) > 1", "COUNT"),
        ("SELECT * FROM c ORDER BY COUNT(1)", "COUNT"),
        (
            "SELECT c.a, COUNT(1) FROM c",
            "'c.a' is invalid in the select list",
        ),
        ("SELECT c.b FROM c GROUP BY c.a", "'c.b' is invalid"),
        ("SELECT * FROM c GROUP BY c.a", "GROUP BY"),
        (
            "SELECT c.a FROM c GROUP BY c.a ORDER BY c.a",
            "ORDER BY with GROUP BY",
        ),
        (
            "SELECT c.a, c.b AS a FROM c",
            "'a' is specified more than once",
        ),
        ("SELECT * FROM c JOIN t IN c.t", "single input set"),
        ("SELECT * FROM c JOIN t IN d.t", "Identifier 'd'"),
        ("SELECT * FROM c WHERE d.a = 1", "Identifier 'd'"),
        ("SELECT * FROM c WHERE c.a = @q", "Identifier '@q'"),
        (
            "SELECT * FROM c WHERE c.a IN (SELECT VALUE 1)",
            "IN (SELECT",
        ),
        (
            "SELECT VALUE COUNT(1) FROM (SELECT DISTINCT c.a FROM c) AS s",
            "subquery over the whole container",
        ),
        ("SELECT * FROM c WHERE c.a & 1 = 1", "operator &"),
        ("SELECT * FROM c ORDER BY RANK RRF(1)", "ORDER BY RANK"),
        ("SELECT * FROM c WHERE c.a IN (1) IN (true)", "near 'IN'"),
        ("SELECT * FROM c WHERE", "end-of-file"),
        ("SELECT c.a AS value FROM c", "near 'value'"),
        ("SELECT TOP -1 * FROM c", "near '-'"),
        ("SELECT TOP @q * FROM c", "near '@q'"),
        ("DELETE FROM c", "near 'DELETE'"),
        ("SELECT * FROM c c c", "near 'c'"),
        ("SELECT * FROM c OFFSET 1", "end-of-file"),
        ("", "end-of-file"),
    ] {
        let error = query(text).unwrap_err().to_string();
        assert!(error.contains(named), "{text}: {error}");
    }
    let many = format!("SELECT VALUE 1 FROM c {}", "JOIN t IN c.t ".repeat(11));
    assert!(query(&many).unwrap_err().to_string().contains("joins more"));
}

#[test]
fn nesting_is_refused_before_it_exhausts_the_stack() {
    let n = 2_000;
    let nested = |open: &str, close: &str| {
        format!("SELECT VALUE {}1{} FROM c", open.repeat(n), close.repeat(n))
    };
    for text in [
        nested("(", ")"),
        nested("[", "]"),
        nested("{a:", "}"),
        nested("NOT ", ""),
        nested("- ", ""),
        nested("+ ", ""),
        nested("ABS(", ")"),
        nested("1 ? ", " : 1"),
        nested("true ? 1 : ", ""),
        nested("c[", "]"),
        nested("(SELECT VALUE ", ")"),
        nested("EXISTS(SELECT VALUE ", ")"),
        nested("1 BETWEEN (", ") AND 1"),
        nested("1 IN (", ")"),
        format!(
            "SELECT VALUE 1 FROM {}c{}",
            "(SELECT VALUE c FROM ".repeat(n),
            ") AS c".repeat(n)
        ),
    ] {
        let error = query(&text).unwrap_err().to_string();
        assert!(error.contains("deeper"), "{}: {error}", &text[..60]);
    }
}

#[test]
fn long_chains_do_not_nest() {
    let document = json!({"a": {"a": 1}, "t": true});
    let chain = |part: &str, between: &str| vec![part; 4_000].join(between);
    assert_eq!(value_of(&chain("1", " + "), &document), Some(json!(4_000)));
    assert_eq!(
        value_of(&chain("c.t", " AND "), &document),
        Some(json!(true))
    );
    assert_eq!(value_of(&chain("c.x", " ?? "), &document), None);
    assert_eq!(
        value_of(&format!("c{}", ".a".repeat(8_000)), &document),
        None
    );
}

#[test]
fn one_item_cannot_ask_for_everything() {
    let document = json!({"l": vec![1; 200], "s": "x".repeat(100_000)});
    for text in [
        "SELECT VALUE 1 FROM c JOIN a IN c.l JOIN b IN c.l JOIN d IN c.l JOIN e IN c.l",
        "SELECT VALUE REPLACE(c.s, 'x', c.s) FROM c",
        &format!("SELECT VALUE [{}] FROM c", vec!["c.s"; 4_000].join(",")),
        &format!("SELECT VALUE {} FROM c", vec!["c.s"; 4_000].join("||")),
        "SELECT VALUE ARRAY(SELECT VALUE c FROM a IN c.l JOIN b IN c.l) FROM c",
    ] {
        let budget = Budget::default();
        rows(&query(text).unwrap(), &[Some(&document)], &budget);
        assert!(budget.is_exhausted(), "{}", &text[..60]);
    }
}

#[test]
fn clauses_are_read() {
    let query = query(
        "select distinct top 3 c.a, c.o.p as q, 1 from root c where c.a > 1 order by c.a desc, c.b offset 1 limit 2",
    )
    .unwrap();
    let Select::List(items) = &query.select else {
        panic!("a list")
    };
    let names: Vec<&str> = items.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["a", "q", "$1"]);
    assert_eq!(
        (query.limit(), query.offset(), query.order.len()),
        (2, 1, 2)
    );
    assert!(query.distinct && query.order[0].descending && !query.order[1].descending);
    assert_eq!(items[1].1.span, 27..32);
}
