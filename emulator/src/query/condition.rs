//! The condition of a partial update: `FROM c WHERE <expression>`, tested against one document.

use std::ops::ControlFlow;

use serde_json::Value;

use super::ast::Query;
use super::budget::Budget;
use super::parse::parse_condition;
use super::rows::expand;

/// A condition on one document.
#[derive(Clone, Debug)]
pub struct Condition(Query);

impl Condition {
    /// Reads `FROM <alias> WHERE <expression>`; keywords in any case.
    ///
    /// # Errors
    /// What is wrong with the text, or what is not supported.
    pub fn parse(text: &str) -> Result<Self, String> {
        parse_condition(text)
            .map(Self)
            .map_err(|error| error.to_string())
    }

    /// Whether the condition is true of a document; undefined is not true.
    pub fn holds(&self, document: &Value) -> bool {
        let mut holds = false;
        let _ = expand(&self.0, &[Some(document)], &Budget::default(), &mut |_| {
            holds = true;
            ControlFlow::Break(())
        });
        holds
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_true_holds() {
        let document = json!({"n": 3, "s": "x", "t": [1, 2]});
        for (text, expected) in [
            ("FROM c WHERE c.n = 3", true),
            ("from c where c.n > 3", false),
            ("FROM root r WHERE r.s = 'x' AND r.n < 4", true),
            ("FROM c WHERE c.missing = 3", false),
            ("FROM c WHERE NOT c.missing = 3", false),
            ("FROM c WHERE c.n", false),
            (
                "FROM c WHERE EXISTS(SELECT VALUE t FROM t IN c.t WHERE t = 2)",
                true,
            ),
            ("FROM c WHERE c.s LIKE '_' OR c.missing", true),
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
