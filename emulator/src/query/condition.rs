//! The condition of a partial update: `FROM c WHERE <expression>`, tested against one document.

use std::collections::HashMap;

use serde_json::Value;

use super::ast::Query;
use super::parse::parse;
use super::rows::row;

/// A condition on one document.
#[derive(Clone, Debug)]
pub struct Condition(Query);

impl Condition {
    /// Reads `FROM <alias> WHERE <expression>`; keywords in any case.
    ///
    /// # Errors
    /// One clause: what is wrong with the text, or what is not supported.
    pub fn parse(text: &str) -> Result<Self, String> {
        let query = parse(&format!("SELECT * {text}"), HashMap::new())?;
        let only_a_filter =
            query.filter.is_some() && query.order.is_empty() && query.limit.is_none();
        if only_a_filter {
            Ok(Self(query))
        } else {
            Err("a condition must be FROM <alias> WHERE <expression>, and nothing else".to_owned())
        }
    }

    /// Whether the condition is true of a document; undefined is not true.
    pub fn holds(&self, document: &Value) -> bool {
        row(&self.0, document).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_true_holds() {
        let document = json!({"n": 3, "s": "x"});
        for (text, expected) in [
            ("FROM c WHERE c.n = 3", true),
            ("from c where c.n > 3", false),
            ("FROM root r WHERE r.s = 'x' AND r.n < 4", true),
            ("FROM c WHERE c.missing = 3", false),
            ("FROM c WHERE NOT c.missing = 3", false),
            ("FROM c WHERE c.n", false),
        ] {
            assert_eq!(
                Condition::parse(text).map(|condition| condition.holds(&document)),
                Ok(expected),
                "{text}"
            );
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "WHERE c.n = 3",
            "FROM c",
            "c.n = 3",
            "FROM c WHERE",
            "FROM c WHERE c.n = 3 ORDER BY c.n",
            "FROM c WHERE COUNT(1) > 0",
            "FROM c WHERE c.n = @p",
        ] {
            assert!(Condition::parse(text).is_err(), "{text}");
        }
    }
}
