//! What stands between operators: constants, names, calls, arrays, objects and subqueries.

use serde_json::Value;

use super::super::aggregate::Aggregation;
use super::super::ast::Expr;
use super::super::error::{QueryError, Span};
use super::super::function::Function;
use super::super::lex::Token;
use super::{MAX_PARAMETER_BYTES, Parsed, Parser, is_reserved};

impl Parser<'_> {
    pub(super) fn primary(&mut self) -> Parsed<Expr> {
        let location = self.here();
        let token = self.peek().cloned().ok_or_else(|| self.unexpected())?;
        if token == Token::Symbol("(") && self.is_word_at(1, "SELECT") {
            return Ok(Expr::First(self.subquery()?));
        }
        self.position += 1;
        match token {
            Token::Number(number) => Ok(Expr::Literal(Value::Number(number))),
            Token::Text(text) => Ok(Expr::Literal(Value::String(text))),
            Token::Parameter(name) => self.parameter(&name, location),
            Token::Symbol("(") => {
                let expr = self.expr()?;
                self.expect(")")?;
                Ok(expr)
            }
            Token::Symbol("[") => Ok(Expr::Array(self.list("]")?)),
            Token::Symbol("{") => self.object(),
            Token::Word(word) => self.word(&word, location),
            Token::Symbol(_) => {
                self.position -= 1;
                Err(self.unexpected())
            }
        }
    }

    /// Expressions between commas, up to a closing symbol.
    fn list(&mut self, close: &str) -> Parsed<Vec<Expr>> {
        let mut items = Vec::new();
        while !self.take(close) {
            if !items.is_empty() {
                self.expect(",")?;
            }
            items.push(self.expr()?);
        }
        Ok(items)
    }

    /// A parameter's value, which every place that names it gets a copy of.
    fn parameter(&mut self, name: &str, location: Span) -> Parsed<Expr> {
        let Some(value) = self.parameters.get(name) else {
            return Err(QueryError::unknown_name(name, location));
        };
        self.parameter_bytes += match value {
            Value::String(text) => text.len(),
            Value::Array(_) | Value::Object(_) => value.to_string().len(),
            _ => 0,
        };
        if self.parameter_bytes > MAX_PARAMETER_BYTES {
            let message = "the query names large parameters too often: name each once";
            return Err(QueryError::at(message, location));
        }
        Ok(Expr::Literal(value.clone()))
    }

    fn object(&mut self) -> Parsed<Expr> {
        let mut members = Vec::new();
        while !self.take("}") {
            if !members.is_empty() {
                self.expect(",")?;
            }
            let name = match self.peek() {
                Some(Token::Text(name) | Token::Word(name)) => name.clone(),
                _ => return Err(self.unexpected()),
            };
            self.position += 1;
            self.expect(":")?;
            members.push((name, self.expr()?));
        }
        Ok(Expr::Object(members))
    }

    fn word(&mut self, word: &str, location: Span) -> Parsed<Expr> {
        let is_call = self.is("(");
        if let (false, Some(slot)) = (is_call, self.slot(word)) {
            return Ok(Expr::Slot(slot));
        }
        let upper = word.to_ascii_uppercase();
        match upper.as_str() {
            "TRUE" => return Ok(Expr::Literal(Value::Bool(true))),
            "FALSE" => return Ok(Expr::Literal(Value::Bool(false))),
            "NULL" => return Ok(Expr::Literal(Value::Null)),
            "UNDEFINED" => return Ok(Expr::Undefined),
            "EXISTS" if is_call => return Ok(Expr::Exists(self.subquery()?)),
            "ARRAY" if is_call => return Ok(Expr::Rows(self.subquery()?)),
            "UDF" => {
                return Err(QueryError::unsupported("a user-defined function", location));
            }
            _ => {}
        }
        if is_reserved(word) {
            self.position -= 1;
            return Err(self.unexpected());
        }
        if !self.take("(") {
            return Err(QueryError::unknown_name(word, location));
        }
        if let Some(aggregation) = Aggregation::by_name(&upper) {
            return self.aggregate(aggregation, &upper, location);
        }
        let arguments = self.list(")")?;
        let (function, arity) = Function::by_name(&upper)
            .ok_or_else(|| QueryError::unknown_function(word, location.clone()))?;
        if !arity.contains(&arguments.len()) {
            return Err(QueryError::arity(&upper, *arity.start(), location));
        }
        Ok(Expr::Call(function, arguments))
    }

    fn aggregate(&mut self, aggregation: Aggregation, name: &str, location: Span) -> Parsed<Expr> {
        if !self.aggregates_allowed {
            return Err(QueryError::at(
                format!(
                    "{name} can stand only in the SELECT clause, and not within another aggregate."
                ),
                location,
            ));
        }
        if self.is(")") {
            return Err(QueryError::arity(name, 1, location));
        }
        self.aggregates_allowed = false;
        let argument = self.spanned()?;
        self.aggregates_allowed = true;
        if self.is(",") {
            return Err(QueryError::arity(name, 1, location));
        }
        self.expect(")")?;
        self.aggregates.push((aggregation, argument));
        Ok(Expr::Aggregate(self.aggregates.len() - 1))
    }
}
