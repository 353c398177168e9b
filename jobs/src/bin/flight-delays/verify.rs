//! Comparing the documents of a view with what they should be.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::Value;

use crate::oracle::Documents;
use crate::text_table::grouped;

/// Differences that are described; more are only counted.
const DESCRIBED: usize = 5;
/// Fields of one row that are described.
const FIELDS_DESCRIBED: usize = 3;

/// The outcome for one view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The view's name.
    pub view: String,
    /// Documents found in the view.
    pub rows: u64,
    /// Of these, equal to what is expected.
    pub verified: u64,
    /// Documents that are missing, that should not be there, or that differ.
    pub differences: u64,
    /// The first of the differences, a line each.
    pub described: Vec<String>,
}

impl Verdict {
    /// True when the view is exactly what is expected.
    pub fn is_right(&self) -> bool {
        self.differences == 0
    }

    fn add(&mut self, describe: impl FnOnce() -> String) {
        if self.described.len() < DESCRIBED {
            self.described.push(describe());
        }
        self.differences += 1;
    }
}

/// Compares every document of a view with what is expected, both ways.
///
/// Properties that begin with an underscore belong to the service and are left out. Numbers are equal when their values
/// are: a service may write `12.0` as `12`.
pub fn compare(view: &str, expected: &Documents, actual: &[Value]) -> Verdict {
    let mut verdict = Verdict {
        view: view.to_owned(),
        rows: actual.len() as u64,
        verified: 0,
        differences: 0,
        described: Vec::new(),
    };
    let mut found = BTreeSet::new();
    for document in actual {
        let Some(id) = document["id"].as_str() else {
            verdict.add(|| format!("a document without an id: {document}"));
            continue;
        };
        if !found.insert(id) {
            verdict.add(|| format!("{id}: stored twice"));
            continue;
        }
        match expected.get(id) {
            None => verdict.add(|| format!("{id}: should not be there")),
            Some(right) => {
                let fields = different_fields(right, document);
                if fields.is_empty() {
                    verdict.verified += 1;
                } else {
                    verdict.add(|| format!("{id}: {}", describe_fields(&fields, right, document)));
                }
            }
        }
    }
    for id in expected.keys().filter(|id| !found.contains(id.as_str())) {
        verdict.add(|| format!("{id}: missing"));
    }
    verdict
}

/// The names of the fields that differ, in order.
fn different_fields<'a>(expected: &'a Value, actual: &'a Value) -> Vec<&'a str> {
    let names = |value: &'a Value| {
        value
            .as_object()
            .into_iter()
            .flat_map(|fields| fields.keys())
    };
    let all: BTreeSet<&str> = names(expected)
        .chain(names(actual))
        .map(String::as_str)
        .collect();
    all.into_iter()
        .filter(|name| !name.starts_with('_'))
        .filter(|name| match (expected.get(name), actual.get(name)) {
            (Some(right), Some(found)) => !equal(right, found),
            _ => true,
        })
        .collect()
}

fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        _ => a == b,
    }
}

fn describe_fields(names: &[&str], expected: &Value, actual: &Value) -> String {
    let text = |value: Option<&Value>| value.map_or("absent".to_owned(), Value::to_string);
    let mut described: Vec<String> = names
        .iter()
        .take(FIELDS_DESCRIBED)
        .map(|name| {
            format!(
                "{name} is {}, expected {}",
                text(actual.get(name)),
                text(expected.get(name))
            )
        })
        .collect();
    if names.len() > FIELDS_DESCRIBED {
        described.push(format!(
            "and {} more fields",
            names.len() - FIELDS_DESCRIBED
        ));
    }
    described.join("; ")
}

/// One line for the view, and one for each difference that is described.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let view = &self.view;
        if self.is_right() {
            return write!(f, "{view:<15} right: {} rows verified", grouped(self.rows));
        }
        let (rows, verified) = (grouped(self.rows), grouped(self.verified));
        write!(
            f,
            "{view:<15} WRONG: {} differences; {rows} rows, {verified} verified",
            grouped(self.differences)
        )?;
        for line in &self.described {
            write!(f, "\n  {line}")?;
        }
        let more = self.differences - self.described.len() as u64;
        if more > 0 {
            write!(f, "\n  and {} more", grouped(more))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn expected() -> Documents {
        ["AA", "DL", "UA"]
            .into_iter()
            .map(|id| {
                (
                    id.to_owned(),
                    json!({"id": id, "flights": 3, "mean": 12.0, "name": null}),
                )
            })
            .collect()
    }

    fn stored() -> Vec<Value> {
        expected()
            .into_values()
            .map(|mut document| {
                document["mean"] = json!(12);
                document["_etag"] = json!("\"0\"");
                document
            })
            .collect()
    }

    #[test]
    fn equal_views_are_right_whatever_the_service_adds() {
        let verdict = compare("carrier_delays", &expected(), &stored());
        assert!(verdict.is_right(), "{verdict}");
        assert_eq!((verdict.rows, verdict.verified), (3, 3));
        assert_eq!(
            verdict.to_string(),
            "carrier_delays  right: 3 rows verified"
        );
    }

    #[test]
    fn each_kind_of_difference_is_found() {
        let line = |documents: &[Value]| {
            let verdict = compare("v", &expected(), documents);
            assert_eq!(verdict.differences, 1);
            assert!(!verdict.is_right());
            verdict.described.join("")
        };
        let mut documents = stored();
        documents[1]["mean"] = json!(12.01);
        assert_eq!(line(&documents), "DL: mean is 12.01, expected 12.0");
        documents[1]["mean"] = json!("12");
        assert_eq!(line(&documents), "DL: mean is \"12\", expected 12.0");
        documents[1] = json!({"id": "DL", "flights": 4, "mean": 1, "name": 1, "zone": 1});
        assert_eq!(
            line(&documents),
            "DL: flights is 4, expected 3; mean is 1, expected 12.0; name is 1, expected null; and 1 more fields"
        );
        documents[1] = json!({"id": "DL", "flights": 3, "mean": 12});
        assert_eq!(line(&documents), "DL: name is absent, expected null");
        assert_eq!(line(&stored()[..2]), "UA: missing");
        let with = |document: Value| {
            let mut documents = stored();
            documents.push(document);
            line(&documents)
        };
        assert_eq!(with(json!({"id": "XX"})), "XX: should not be there");
        assert_eq!(with(json!({"id": "UA"})), "UA: stored twice");
        assert_eq!(
            with(json!({"no": 1})),
            r#"a document without an id: {"no":1}"#
        );
    }

    #[test]
    fn many_differences_are_counted() {
        let none = compare("carrier_delays", &expected(), &[]);
        assert_eq!((none.rows, none.verified, none.differences), (0, 0, 3));
        let strangers: Vec<Value> = (0..2_000).map(|id| json!({"id": id.to_string()})).collect();
        let verdict = compare("airborne", &Documents::new(), &strangers);
        let text = verdict.to_string();
        assert!(
            text.starts_with("airborne        WRONG: 2,000 differences; 2,000 rows, 0 verified\n"),
            "{text}"
        );
        assert!(
            text.ends_with("\n  4: should not be there\n  and 1,995 more"),
            "{text}"
        );
    }
}
