//! What stands between operators: constants, names, calls, arrays and objects.

use serde_json::Value;

use super::super::aggregate::Aggregation;
use super::super::ast::Expr;
use super::super::function::Function;
use super::super::lex::Token;
use super::{MAX_PARAMETER_BYTES, Parser, unsupported};

impl Parser {
    pub(super) fn primary(&mut self) -> Result<Expr, String> {
        let token = self
            .peek()
            .cloned()
            .ok_or_else(|| self.unexpected("an expression"))?;
        self.position += 1;
        match token {
            Token::Number(number) => Ok(Expr::Literal(Value::Number(number))),
            Token::Text(text) => Ok(Expr::Literal(Value::String(text))),
            Token::Parameter(name) => self.parameter(&name),
            Token::Symbol("(") => {
                if self.is_word("SELECT") {
                    return Err(unsupported("a subquery"));
                }
                let expr = self.expr()?;
                self.expect(")")?;
                Ok(expr)
            }
            Token::Symbol("[") => {
                let mut items = Vec::new();
                while !self.take("]") {
                    if !items.is_empty() {
                        self.expect(",")?;
                    }
                    items.push(self.expr()?);
                }
                Ok(Expr::Array(items))
            }
            Token::Symbol("{") => self.object(),
            Token::Word(word) => self.word(&word),
            Token::Symbol(_) => {
                self.position -= 1;
                Err(self.unexpected("an expression"))
            }
        }
    }

    /// A parameter's value, which every place that names it gets a copy of.
    fn parameter(&mut self, name: &str) -> Result<Expr, String> {
        let value = self
            .parameters
            .get(name)
            .ok_or_else(|| format!("the query parameter {name} has no value"))?;
        self.parameter_bytes += match value {
            Value::String(text) => text.len(),
            Value::Array(_) | Value::Object(_) => value.to_string().len(),
            _ => 0,
        };
        if self.parameter_bytes > MAX_PARAMETER_BYTES {
            return Err("the query names large parameters too often: name each once".to_owned());
        }
        Ok(Expr::Literal(value.clone()))
    }

    pub(super) fn object(&mut self) -> Result<Expr, String> {
        let mut members = Vec::new();
        while !self.take("}") {
            if !members.is_empty() {
                self.expect(",")?;
            }
            let name = match self.peek() {
                Some(Token::Text(name) | Token::Word(name)) => name.clone(),
                _ => return Err(self.unexpected("a property name")),
            };
            self.position += 1;
            self.expect(":")?;
            members.push((name, self.expr()?));
        }
        Ok(Expr::Object(members))
    }

    pub(super) fn word(&mut self, word: &str) -> Result<Expr, String> {
        if self.alias.as_deref() == Some(word) && !matches!(self.peek(), Some(Token::Symbol("("))) {
            return Ok(Expr::Root);
        }
        let upper = word.to_ascii_uppercase();
        match upper.as_str() {
            "TRUE" => return Ok(Expr::Literal(Value::Bool(true))),
            "FALSE" => return Ok(Expr::Literal(Value::Bool(false))),
            "NULL" => return Ok(Expr::Literal(Value::Null)),
            "UNDEFINED" => return Ok(Expr::Undefined),
            "EXISTS" | "ARRAY" => return Err(unsupported("a subquery")),
            "UDF" => return Err(unsupported("a user-defined function")),
            _ => {}
        }
        if !self.take("(") {
            return Err(format!(
                "the query uses the name {word}, which is not its FROM alias"
            ));
        }
        let mut arguments = Vec::new();
        while !self.take(")") {
            if !arguments.is_empty() {
                self.expect(",")?;
            }
            if self.is_word("SELECT") {
                return Err(unsupported("a subquery"));
            }
            arguments.push(self.expr()?);
        }
        if let Some(aggregation) = Aggregation::by_name(&upper) {
            if arguments.len() != 1 {
                return Err(format!("{upper} takes one argument"));
            }
            self.aggregates
                .extend(arguments.pop().map(|argument| (aggregation, argument)));
            return Ok(Expr::Aggregate(self.aggregates.len() - 1));
        }
        let (function, arity) = Function::by_name(&upper)
            .ok_or_else(|| unsupported(&format!("the function {upper}")))?;
        if !arity.contains(&arguments.len()) {
            return Err(format!(
                "{upper} does not take {} arguments",
                arguments.len()
            ));
        }
        Ok(Expr::Call(function, arguments))
    }
}
