//! From text to a tree, by recursive descent: [`clauses`] reads the clauses of a query, [`sources`] its `FROM` clause,
//! [`grouping`] checks what may stand beside aggregates, [`expressions`] reads what operators join, and [`operands`] what
//! stands between operators.
//!
//! Every recursion goes through [`Parser::enter`], which bounds it.

mod clauses;
mod expressions;
mod grouping;
mod operands;
mod sources;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use serde_json::Value;

use super::aggregate::Aggregation;
use super::ast::{Query, Spanned};
use super::error::{QueryError, Span};
use super::lex::{Lexeme, Token, tokens};

type Parsed<T> = Result<T, QueryError>;

/// Most bytes that parameters may come to where a query names them: as much as a request can hold twice.
const MAX_PARAMETER_BYTES: usize = 4 * 1024 * 1024;

/// Deepest nesting of expressions and subqueries; more would only exhaust the stack.
const MAX_DEPTH: usize = 64;

/// Words that cannot be an alias.
const RESERVED: [&str; 27] = [
    "AND", "ARRAY", "AS", "ASC", "BETWEEN", "BY", "DESC", "DISTINCT", "ESCAPE", "EXISTS", "FALSE",
    "FROM", "GROUP", "IN", "JOIN", "LIKE", "LIMIT", "NOT", "NULL", "OFFSET", "OR", "ORDER",
    "SELECT", "TOP", "TRUE", "VALUE", "WHERE",
];

/// Parses a query; parameters are put in at once.
///
/// # Errors
/// What is wrong and where, or what is not supported.
pub fn parse(text: &str, parameters: HashMap<String, Value>) -> Parsed<Query> {
    let mut parser = Parser::new(text, parameters)?;
    let query = parser.query()?;
    parser.end()?;
    Ok(query)
}

/// Parses `FROM <source> WHERE <expression>`.
///
/// # Errors
/// As for [`parse`].
pub fn parse_condition(text: &str) -> Parsed<Query> {
    let mut parser = Parser::new(text, HashMap::new())?;
    let query = parser.condition()?;
    parser.end()?;
    Ok(query)
}

struct Parser<'a> {
    text: &'a str,
    lexemes: Vec<Lexeme>,
    position: usize,
    parameters: HashMap<String, Value>,
    /// Names of sources in scope; the name at index `i` stands for slot `i + 1`.
    names: Vec<String>,
    aggregates: Vec<(Aggregation, Spanned)>,
    aggregates_allowed: bool,
    depth: usize,
    /// Bytes of the parameters put in so far.
    parameter_bytes: usize,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str, parameters: HashMap<String, Value>) -> Parsed<Self> {
        Ok(Self {
            text,
            lexemes: tokens(text)?,
            position: 0,
            parameters,
            names: Vec::new(),
            aggregates: Vec::new(),
            aggregates_allowed: false,
            depth: 0,
            parameter_bytes: 0,
        })
    }

    fn peek(&self) -> Option<&Token> {
        self.token(0)
    }

    /// The token some places ahead.
    fn token(&self, ahead: usize) -> Option<&Token> {
        self.lexemes
            .get(self.position + ahead)
            .map(|lexeme| &lexeme.token)
    }

    fn is_word(&self, word: &str) -> bool {
        self.is_word_at(0, word)
    }

    fn is_word_at(&self, ahead: usize, word: &str) -> bool {
        matches!(self.token(ahead), Some(Token::Word(found)) if found.eq_ignore_ascii_case(word))
    }

    fn take_word(&mut self, word: &str) -> bool {
        let found = self.is_word(word);
        self.position += usize::from(found);
        found
    }

    fn expect_word(&mut self, word: &str) -> Parsed<()> {
        if self.take_word(word) {
            Ok(())
        } else {
            Err(self.unexpected())
        }
    }

    /// A name that is no keyword.
    fn take_name(&mut self) -> Option<String> {
        let name = match self.peek() {
            Some(Token::Word(word)) if !is_reserved(word) => word.clone(),
            _ => return None,
        };
        self.position += 1;
        Some(name)
    }

    fn is(&self, symbol: &str) -> bool {
        matches!(self.peek(), Some(Token::Symbol(found)) if *found == symbol)
    }

    fn take(&mut self, symbol: &str) -> bool {
        let found = self.is(symbol);
        self.position += usize::from(found);
        found
    }

    fn expect(&mut self, symbol: &str) -> Parsed<()> {
        if self.take(symbol) {
            Ok(())
        } else {
            Err(self.unexpected())
        }
    }

    fn end(&self) -> Parsed<()> {
        if self.peek().is_none() {
            Ok(())
        } else {
            Err(self.unexpected())
        }
    }

    /// The error of a token that cannot stand here.
    fn unexpected(&self) -> QueryError {
        match self.lexemes.get(self.position) {
            None => QueryError::end_of_text(self.here()),
            Some(lexeme) => {
                QueryError::syntax(&self.text[lexeme.span.clone()], lexeme.span.clone())
            }
        }
    }

    fn unsupported(&self, what: &str) -> QueryError {
        QueryError::unsupported(what, self.here())
    }

    /// Where the next token stands.
    fn here(&self) -> Span {
        let end = self.text.len();
        self.lexemes
            .get(self.position)
            .map_or(end..end, |lexeme| lexeme.span.clone())
    }

    /// The text from token `start` to the last token taken.
    fn span_from(&self, start: usize) -> Span {
        let place = |index: usize| self.lexemes.get(index).map(|lexeme| lexeme.span.clone());
        match (place(start), self.position.checked_sub(1).and_then(place)) {
            (Some(first), Some(last)) => first.start..last.end.max(first.start),
            _ => self.here(),
        }
    }

    fn spanned(&mut self) -> Parsed<Spanned> {
        let start = self.position;
        let expr = self.expr()?;
        let span = self.span_from(start);
        Ok(Spanned { expr, span })
    }

    /// Runs a part of the parser one level deeper.
    fn enter<T>(&mut self, part: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(QueryError::at(
                format!("the query nests deeper than {MAX_DEPTH} levels"),
                self.here(),
            ));
        }
        let result = part(self);
        self.depth -= 1;
        result
    }

    /// The slot that a name stands for.
    fn slot(&self, name: &str) -> Option<usize> {
        self.names
            .iter()
            .rposition(|known| known == name)
            .map(|index| index + 1)
    }
}

fn is_reserved(word: &str) -> bool {
    RESERVED
        .iter()
        .any(|reserved| word.eq_ignore_ascii_case(reserved))
}
