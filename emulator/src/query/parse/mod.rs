//! From tokens to a tree, by recursive descent: [`clauses`] reads a query, [`expressions`] what operators join, and
//! [`operands`] what stands between operators.

mod clauses;
mod expressions;
mod operands;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use serde_json::Value;

use super::aggregate::Aggregation;
use super::ast::{Expr, Query};
use super::lex::{Token, tokens};

/// Most bytes that parameters may come to where a query names them: as much as a request can hold twice.
const MAX_PARAMETER_BYTES: usize = 4 * 1024 * 1024;

/// Deepest nesting of expressions; more would only exhaust the stack.
const MAX_DEPTH: usize = 64;

/// Words that cannot be an alias.
const CLAUSES: [&str; 12] = [
    "FROM", "WHERE", "ORDER", "GROUP", "OFFSET", "LIMIT", "JOIN", "AS", "IN", "ASC", "DESC",
    "VALUE",
];

/// Parses a query; parameters are put in at once.
///
/// # Errors
/// One clause: what is wrong, or what is not supported.
pub fn parse(text: &str, parameters: HashMap<String, Value>) -> Result<Query, String> {
    let mut parser = Parser {
        tokens: tokens(text)?,
        position: 0,
        parameters,
        alias: None,
        aggregates: Vec::new(),
        depth: 0,
        parameter_bytes: 0,
    };
    parser.query()
}

struct Parser {
    tokens: Vec<Token>,
    position: usize,
    parameters: HashMap<String, Value>,
    alias: Option<String>,
    aggregates: Vec<(Aggregation, Expr)>,
    depth: usize,
    /// Bytes of the parameters put in so far.
    parameter_bytes: usize,
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.position)
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(self.peek(), Some(Token::Word(found)) if found.eq_ignore_ascii_case(word))
    }

    fn take_word(&mut self, word: &str) -> bool {
        let found = self.is_word(word);
        self.position += usize::from(found);
        found
    }

    fn take(&mut self, symbol: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Symbol(found)) if *found == symbol);
        self.position += usize::from(found);
        found
    }

    fn expect(&mut self, symbol: &str) -> Result<(), String> {
        if self.take(symbol) {
            Ok(())
        } else {
            Err(self.unexpected(symbol))
        }
    }

    fn unexpected(&self, wanted: &str) -> String {
        match self.peek() {
            None => format!("the query ends where {wanted} was expected"),
            Some(Token::Word(word)) => format!("the query has {word} where {wanted} was expected"),
            Some(Token::Symbol(symbol)) => {
                format!("the query has {symbol} where {wanted} was expected")
            }
            Some(_) => format!("the query has a constant where {wanted} was expected"),
        }
    }
}

fn unsupported(what: &str) -> String {
    format!("{what} in a query is not supported yet by this server")
}
