//! Which partition key a filter fixes.

use serde_json::Value;

use super::ast::{Expr, Operator, Query, Step};

/// The values of the first partition key paths that the filter fixes by equality with a constant; rows with any other
/// value cannot pass it. Fewer values than paths mean that the rest is free.
pub fn fixed_key(query: &Query, paths: &[Vec<String>]) -> Vec<Value> {
    let (Some(filter), Some(source)) = (&query.filter, query.sources.first()) else {
        return Vec::new();
    };
    if !source.is_document() {
        return Vec::new();
    }
    let mut fixed = Vec::new();
    equalities(&filter.expr, query.first_slot, &mut fixed);
    paths
        .iter()
        .map_while(|path| {
            let found = fixed.iter().find(|(fixed, _)| fixed == path);
            found.map(|(_, value)| (*value).clone())
        })
        .collect()
}

/// The paths of `slot` that must equal a constant.
fn equalities<'e>(expr: &'e Expr, slot: usize, found: &mut Vec<(Vec<String>, &'e Value)>) {
    let Expr::Chain(first, rest) = expr else {
        return;
    };
    if rest.iter().all(|(operator, _)| *operator == Operator::And) {
        equalities(first, slot, found);
        rest.iter()
            .for_each(|(_, operand)| equalities(operand, slot, found));
    } else if let [(Operator::Equal, second)] = rest.as_slice() {
        let pair = equality(first, second, slot).or_else(|| equality(second, first, slot));
        found.extend(pair);
    }
}

fn equality<'e>(path: &Expr, value: &'e Expr, slot: usize) -> Option<(Vec<String>, &'e Value)> {
    let (Expr::Path(base, steps), Expr::Literal(value)) = (path, value) else {
        return None;
    };
    if **base != Expr::Slot(slot) || value.is_array() || value.is_object() {
        return None;
    }
    let names: Option<Vec<String>> = steps
        .iter()
        .map(|step| match step {
            Step::Member(name) => Some(name.clone()),
            Step::Computed(_) => None,
        })
        .collect();
    Some((names?, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::parse::parse;
    use serde_json::json;
    use std::collections::HashMap;

    #[test]
    fn only_what_every_row_must_have_is_fixed() {
        let paths = [vec!["t".to_owned()], vec!["a".to_owned(), "b".to_owned()]];
        for (filter, expected) in [
            ("c.t = 'x'", json!(["x"])),
            ("'x' = c.t", json!(["x"])),
            ("c.n > 1 AND (c.t = 'x' AND c.a.b = @p)", json!(["x", 7])),
            ("c.t = null AND c['a']['b'] = true", json!([null, true])),
            ("c.a.b = 1", json!([])),
            ("c.t = 'x' OR c.n = 1", json!([])),
            ("NOT (c.t = 'x')", json!([])),
            ("(c.t = 'x') = true", json!([])),
            ("c.t = 'x' = true", json!([])),
            ("c.t = c.n", json!([])),
            ("c.t = [1]", json!([])),
            ("c.t IN ('x')", json!([])),
            ("c.t != 'x'", json!([])),
        ] {
            let text = format!("SELECT * FROM c WHERE {filter}");
            let parameters = HashMap::from([("@p".to_owned(), json!(7))]);
            let query = parse(&text, parameters).unwrap();
            assert_eq!(json!(fixed_key(&query, &paths)), expected, "{filter}");
        }
        for text in [
            "SELECT * FROM c",
            "SELECT * FROM c IN c.list WHERE c.t = 'x'",
            "SELECT VALUE 1 FROM c JOIN d IN c.list WHERE d.t = 'x'",
        ] {
            let query = parse(text, HashMap::new()).unwrap();
            assert_eq!(fixed_key(&query, &paths), Vec::<Value>::new(), "{text}");
        }
    }
}
