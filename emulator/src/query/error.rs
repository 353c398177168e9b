//! What is wrong with a query, in the service's words and codes where they are known.

use std::ops::Range;

use serde_json::{Value, json};

/// Bytes of the query text, `[start, end)`.
pub type Span = Range<usize>;

/// A refused query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryError {
    /// The service's code, where there is one for it.
    code: Option<&'static str>,
    /// What is wrong.
    message: String,
    /// Where, if it is one place.
    location: Option<Span>,
}

impl QueryError {
    fn new(code: &'static str, message: String, location: Span) -> Self {
        Self {
            code: Some(code),
            message,
            location: Some(location),
        }
    }

    /// A token that cannot stand where it stands.
    pub fn syntax(near: &str, location: Span) -> Self {
        let message = format!("Syntax error, incorrect syntax near '{near}'.");
        Self::new("SC1001", message, location)
    }

    /// The text ends too early.
    pub fn end_of_text(location: Span) -> Self {
        let message = "Syntax error, unexpected end-of-file.".to_owned();
        Self::new("SC1002", message, location)
    }

    /// Text that is no token.
    pub fn token(what: &str, location: Span) -> Self {
        let message = format!("Syntax error, invalid token: {what}.");
        Self::new("SC1010", message, location)
    }

    /// A name that stands for nothing.
    pub fn unknown_name(name: &str, location: Span) -> Self {
        let message = format!("Identifier '{name}' could not be resolved.");
        Self::new("SC2001", message, location)
    }

    /// A call of a function that does not exist, or that this server does not have.
    pub fn unknown_function(name: &str, location: Span) -> Self {
        let message = format!("'{name}' is not a recognized built-in function name.");
        Self::new("SC2005", message, location)
    }

    /// Two values under one name.
    pub fn doubled_name(name: &str, location: Span) -> Self {
        let message =
            format!("The property name '{name}' is specified more than once: give one an alias.");
        Self::new("SC2022", message, location)
    }

    /// A call with too few or too many arguments.
    pub fn arity(name: &str, wanted: usize, location: Span) -> Self {
        let message = format!("The {name} function requires {wanted} argument(s).");
        Self::new("SC2050", message, location)
    }

    /// Anything else that is wrong at a place.
    pub fn at(message: impl Into<String>, location: Span) -> Self {
        Self {
            code: None,
            message: message.into(),
            location: Some(location),
        }
    }

    /// Anything else that is wrong with the query as a whole.
    pub fn whole(message: impl Into<String>) -> Self {
        Self {
            code: None,
            message: message.into(),
            location: None,
        }
    }

    /// The service can do it, this server cannot.
    pub fn unsupported(what: &str, location: Span) -> Self {
        Self::at(
            format!("{what} in a query is not supported yet by this server"),
            location,
        )
    }

    /// The message of the reply: a JSON document of errors, as the service writes it.
    pub fn to_message(&self) -> String {
        let mut error = json!({"severity": "Error", "message": self.message});
        if let Some(code) = self.code {
            error["code"] = Value::from(code);
        }
        if let Some(location) = &self.location {
            error["location"] = json!({"start": location.start, "end": location.end});
        }
        format!("Message: {}", json!({"errors": [error]}))
    }
}

impl std::fmt::Display for QueryError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_holds_the_services_document() {
        let message = QueryError::syntax("over", 20..24).to_message();
        let document: Value =
            serde_json::from_str(message.strip_prefix("Message: ").unwrap()).unwrap();
        assert_eq!(
            document,
            json!({"errors": [{
                "severity": "Error",
                "location": {"start": 20, "end": 24},
                "code": "SC1001",
                "message": "Syntax error, incorrect syntax near 'over'.",
            }]})
        );
        let whole = QueryError::whole("too much").to_message();
        assert!(!whole.contains("location") && whole.contains("too much"));
    }
}
