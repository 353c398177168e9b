//! The clauses of a query.

use serde_json::Value;

use super::super::ast::{Expr, OrderKey, Query, Select};
use super::super::lex::Token;
use super::{CLAUSES, Parser, unsupported};

impl Parser {
    pub(super) fn query(&mut self) -> Result<Query, String> {
        if !self.take_word("SELECT") {
            return Err(self.unexpected("SELECT"));
        }
        if self.is_word("DISTINCT") {
            return Err(unsupported("DISTINCT"));
        }
        let top = if self.take_word("TOP") {
            Some(self.count()?)
        } else {
            None
        };
        // The alias is needed to read the select list, but stands behind it.
        self.alias = self.find_alias();
        let select = self.select()?;
        self.from()?;
        let filter = if self.take_word("WHERE") {
            Some(self.plain_expr()?)
        } else {
            None
        };
        if self.is_word("GROUP") {
            return Err(unsupported("GROUP BY"));
        }
        let order = self.order()?;
        let (mut offset, mut limit) = (0, top);
        if self.take_word("OFFSET") {
            offset = self.count()?;
            if !self.take_word("LIMIT") {
                return Err(self.unexpected("LIMIT"));
            }
            let rows = self.count()?;
            limit = Some(limit.map_or(rows, |top| top.min(rows)));
        }
        if self.peek().is_some() {
            return Err(self.unexpected("the end"));
        }
        if !self.aggregates.is_empty() && !order.is_empty() {
            return Err(unsupported("ORDER BY with an aggregate"));
        }
        Ok(Query {
            select,
            limit,
            offset,
            filter,
            order,
            aggregates: std::mem::take(&mut self.aggregates),
        })
    }

    /// The name that stands for the document: the last word of the FROM clause at the top level.
    pub(super) fn find_alias(&self) -> Option<String> {
        let mut depth = 0usize;
        for (index, token) in self.tokens.iter().enumerate().skip(self.position) {
            match token {
                Token::Symbol("(" | "[" | "{") => depth += 1,
                Token::Symbol(")" | "]" | "}") => depth = depth.saturating_sub(1),
                Token::Word(word)
                    if depth == 0
                        && word.eq_ignore_ascii_case("FROM")
                        && !matches!(self.tokens[index - 1], Token::Symbol(".")) =>
                {
                    let word_at = |index: usize| match self.tokens.get(index) {
                        Some(Token::Word(word)) => Some(word.clone()),
                        _ => None,
                    };
                    let is_clause = |word: &String| {
                        CLAUSES
                            .iter()
                            .any(|clause| word.eq_ignore_ascii_case(clause))
                    };
                    let source = word_at(index + 1)?;
                    let explicit =
                        word_at(index + 2).filter(|word| word.eq_ignore_ascii_case("AS"));
                    return match explicit {
                        Some(_) => word_at(index + 3),
                        None => word_at(index + 2)
                            .filter(|word| !is_clause(word))
                            .or(Some(source)),
                    };
                }
                _ => {}
            }
        }
        None
    }

    pub(super) fn from(&mut self) -> Result<(), String> {
        if !self.take_word("FROM") {
            return Ok(());
        }
        let Some(Token::Word(_)) = self.peek() else {
            return Err(self.unexpected("a name"));
        };
        self.position += 1;
        if self.is_word("IN") {
            return Err(unsupported("FROM ... IN"));
        }
        if self.take(".") || self.take("[") {
            return Err(unsupported("a path in FROM"));
        }
        if self.take_word("AS")
            || matches!(self.peek(), Some(Token::Word(word)) if !CLAUSES.iter().any(|c| word.eq_ignore_ascii_case(c)))
        {
            let Some(Token::Word(_)) = self.peek() else {
                return Err(self.unexpected("an alias"));
            };
            self.position += 1;
        }
        if self.is_word("IN") {
            return Err(unsupported("FROM ... IN"));
        }
        if self.is_word("JOIN") || self.take(",") {
            return Err(unsupported("JOIN"));
        }
        Ok(())
    }

    pub(super) fn count(&mut self) -> Result<u64, String> {
        let number = match self.peek() {
            Some(Token::Number(number)) => number.as_u64(),
            Some(Token::Parameter(name)) => self.parameters.get(name).and_then(Value::as_u64),
            _ => None,
        };
        let number = number.ok_or_else(|| self.unexpected("a whole number"))?;
        self.position += 1;
        Ok(number)
    }

    pub(super) fn select(&mut self) -> Result<Select, String> {
        if self.take("*") {
            return Ok(Select::Star);
        }
        if self.take_word("VALUE") {
            return Ok(Select::Value(self.expr()?));
        }
        let mut items: Vec<(String, Expr)> = Vec::new();
        let mut unnamed = 0;
        loop {
            let expr = self.expr()?;
            let named = self.take_word("AS");
            let alias = match self.peek() {
                Some(Token::Word(word))
                    if named
                        || !CLAUSES
                            .iter()
                            .any(|clause| word.eq_ignore_ascii_case(clause)) =>
                {
                    Some(word.clone())
                }
                Some(Token::Text(text)) if named => Some(text.clone()),
                _ if named => return Err(self.unexpected("an alias")),
                _ => None,
            };
            self.position += usize::from(alias.is_some());
            let name = match alias {
                Some(alias) => alias,
                None => inferred_name(&expr, self.alias.as_deref()).unwrap_or_else(|| {
                    unnamed += 1;
                    format!("${unnamed}")
                }),
            };
            items.push((name, expr));
            if !self.take(",") {
                return Ok(Select::List(items));
            }
        }
    }

    pub(super) fn order(&mut self) -> Result<Vec<OrderKey>, String> {
        let mut keys = Vec::new();
        if !self.take_word("ORDER") {
            return Ok(keys);
        }
        if !self.take_word("BY") {
            return Err(self.unexpected("BY"));
        }
        if self.is_word("RANK") {
            return Err(unsupported("ORDER BY RANK"));
        }
        loop {
            let expr = self.plain_expr()?;
            let descending = self.take_word("DESC");
            if !descending {
                self.take_word("ASC");
            }
            keys.push(OrderKey { expr, descending });
            if !self.take(",") {
                return Ok(keys);
            }
        }
    }

    /// An expression in a place where aggregates have no meaning.
    pub(super) fn plain_expr(&mut self) -> Result<Expr, String> {
        let before = self.aggregates.len();
        let expr = self.expr()?;
        if self.aggregates.len() > before {
            return Err("an aggregate can stand only in the SELECT clause".to_owned());
        }
        Ok(expr)
    }
}

fn inferred_name(expr: &Expr, alias: Option<&str>) -> Option<String> {
    match expr {
        Expr::Member(_, name) => Some(name.clone()),
        Expr::Root => alias.map(str::to_owned),
        _ => None,
    }
}
