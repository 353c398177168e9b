//! The `FROM` clause.

use super::super::ast::{DOCUMENT, Expr, Query, Source, Step, Values};
use super::super::error::QueryError;
use super::super::lex::Token;
use super::{Parsed, Parser};

/// Most sources of a `FROM` clause: each join multiplies the rows.
const MAX_SOURCES: usize = 11;

impl Parser<'_> {
    /// The place of the `FROM` of the query whose select list begins here.
    pub(super) fn find_from(&self) -> Option<usize> {
        let mut depth = 0usize;
        for (index, lexeme) in self.lexemes.iter().enumerate().skip(self.position) {
            match &lexeme.token {
                Token::Symbol("(" | "[" | "{") => depth += 1,
                Token::Symbol(")" | "]" | "}") if depth == 0 => return None,
                Token::Symbol(")" | "]" | "}") => depth -= 1,
                // A property may have this name too.
                Token::Word(word)
                    if depth == 0
                        && word.eq_ignore_ascii_case("FROM")
                        && !matches!(self.lexemes[index - 1].token, Token::Symbol(".")) =>
                {
                    return Some(index);
                }
                _ => {}
            }
        }
        None
    }

    /// `FROM <source> [JOIN <source> ...]`; the names stay in scope.
    pub(super) fn sources(&mut self) -> Parsed<Vec<Source>> {
        self.expect_word("FROM")?;
        let mut sources = Vec::new();
        loop {
            if sources.len() == MAX_SOURCES {
                return Err(QueryError::at(
                    format!("the query joins more than {MAX_SOURCES} sources"),
                    self.here(),
                ));
            }
            let source = self.source()?;
            self.names.push(source.alias.clone());
            sources.push(source);
            if !self.take_word("JOIN") {
                return Ok(sources);
            }
        }
    }

    fn source(&mut self) -> Parsed<Source> {
        if self.is("(") {
            let values = Values::Rows(self.rows_of_source()?);
            let alias = self
                .alias()?
                .ok_or_else(|| self.unsupported("a subquery without an alias in FROM"))?;
            return Ok(Source { alias, values });
        }
        if self.is_word_at(1, "IN") {
            let alias = self.take_name().ok_or_else(|| self.unexpected())?;
            self.position += 1;
            let values = if self.is("(") {
                Values::Rows(self.rows_of_source()?)
            } else {
                Values::Elements(self.source_path()?.0)
            };
            return Ok(Source { alias, values });
        }
        let (expr, last_name) = self.source_path()?;
        let alias = self.alias()?.unwrap_or(last_name);
        let values = Values::One(expr);
        Ok(Source { alias, values })
    }

    /// `[AS] <name>`.
    fn alias(&mut self) -> Parsed<Option<String>> {
        let named = self.take_word("AS");
        let alias = self.take_name();
        if named && alias.is_none() {
            return Err(self.unexpected());
        }
        Ok(alias)
    }

    /// A path and the name it ends with. Outside of any name, the first one stands for the document.
    fn source_path(&mut self) -> Parsed<(Expr, String)> {
        let location = self.here();
        let name = self.take_name().ok_or_else(|| self.unexpected())?;
        let slot = match self.slot(&name) {
            Some(slot) => slot,
            None if self.names.is_empty() => DOCUMENT,
            None => return Err(QueryError::unknown_name(&name, location)),
        };
        let steps = self.steps()?;
        let last = match steps.last() {
            Some(Step::Member(member)) => member.clone(),
            _ => name,
        };
        let base = Expr::Slot(slot);
        Ok(if steps.is_empty() {
            (base, last)
        } else {
            (Expr::Path(base.into(), steps), last)
        })
    }

    /// `(SELECT ...)` as a source.
    fn rows_of_source(&mut self) -> Parsed<Box<Query>> {
        let location = self.here();
        let over_documents = self.names.is_empty();
        let query = self.subquery()?;
        let row_by_row = !query.distinct
            && !query.is_grouped()
            && query.order.is_empty()
            && query.top.is_none()
            && query.window.is_none();
        // Documents are looked at one by one, so a subquery over all of them cannot be evaluated on its own.
        if over_documents && !row_by_row {
            return Err(QueryError::unsupported(
                "DISTINCT, GROUP BY, ORDER BY, TOP, OFFSET or an aggregate in a subquery over the whole container",
                location,
            ));
        }
        Ok(query)
    }

    /// `(SELECT ...)`.
    pub(super) fn subquery(&mut self) -> Parsed<Box<Query>> {
        self.expect("(")?;
        let query = self.enter(Self::query)?;
        self.expect(")")?;
        Ok(query.into())
    }
}
