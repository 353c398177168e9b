//! The clauses of a query.

use serde_json::Value;

use super::super::ast::{Expr, OrderKey, Query, Select, Source, Spanned, Step, Window};
use super::super::error::{QueryError, Span};
use super::super::lex::Token;
use super::{Parsed, Parser, is_reserved};

impl Parser<'_> {
    pub(super) fn query(&mut self) -> Parsed<Query> {
        self.expect_word("SELECT")?;
        let names_outside = self.names.len();
        let aggregates_outside = std::mem::take(&mut self.aggregates);
        let allowed_outside = std::mem::replace(&mut self.aggregates_allowed, true);

        let distinct = self.take_word("DISTINCT");
        let top = if self.take_word("TOP") {
            Some(self.count()?)
        } else {
            None
        };
        let (select, sources, from) = self.select_and_from()?;
        self.aggregates_allowed = false;
        let filter = if self.take_word("WHERE") {
            Some(self.spanned()?)
        } else {
            None
        };
        let groups = self.groups()?;
        let order = self.order()?;
        let window = self.window()?;

        self.names.truncate(names_outside);
        self.aggregates_allowed = allowed_outside;
        let mut query = Query {
            distinct,
            top,
            select,
            first_slot: names_outside + 1,
            sources,
            from,
            filter,
            groups,
            order,
            window,
            aggregates: std::mem::replace(&mut self.aggregates, aggregates_outside),
        };
        self.check_grouping(&mut query)?;
        Ok(query)
    }

    /// `FROM <source> WHERE <expression>`.
    pub(super) fn condition(&mut self) -> Parsed<Query> {
        let sources = self.sources()?;
        self.expect_word("WHERE")?;
        let filter = self.spanned()?;
        Ok(Query {
            distinct: false,
            top: None,
            select: Select::Star,
            first_slot: 1,
            sources,
            from: None,
            filter: Some(filter),
            groups: Vec::new(),
            order: Vec::new(),
            window: None,
            aggregates: Vec::new(),
        })
    }

    /// The select list uses the names of the `FROM` clause, which stands behind it and is therefore read first.
    fn select_and_from(&mut self) -> Parsed<(Select, Vec<Source>, Option<Span>)> {
        let list = self.position;
        let Some(from) = self.find_from() else {
            let select = self.select(&[])?;
            return Ok((select, Vec::new(), None));
        };
        self.position = from;
        let allowed = std::mem::replace(&mut self.aggregates_allowed, false);
        let sources = self.sources()?;
        self.aggregates_allowed = allowed;
        let (span, behind) = (self.span_from(from), self.position);
        self.position = list;
        let select = self.select(&sources)?;
        if self.position != from {
            return Err(self.unexpected());
        }
        self.position = behind;
        Ok((select, sources, Some(span)))
    }

    fn select(&mut self, sources: &[Source]) -> Parsed<Select> {
        if self.is("*") {
            if sources.len() != 1 {
                return Err(QueryError::at(
                    "'SELECT *' is only valid with a single input set.",
                    self.here(),
                ));
            }
            self.position += 1;
            return Ok(Select::Star);
        }
        if self.take_word("VALUE") {
            return Ok(Select::Value(self.spanned()?));
        }
        let mut items: Vec<(String, Spanned)> = Vec::new();
        let mut unnamed = 0;
        loop {
            let item = self.spanned()?;
            let name = match self.item_alias()? {
                Some(alias) => alias,
                None => self.own_name(&item.expr).unwrap_or_else(|| {
                    unnamed += 1;
                    format!("${unnamed}")
                }),
            };
            if items.iter().any(|(known, _)| *known == name) {
                return Err(QueryError::doubled_name(&name, item.span));
            }
            items.push((name, item));
            if !self.take(",") {
                return Ok(Select::List(items));
            }
        }
    }

    fn item_alias(&mut self) -> Parsed<Option<String>> {
        let named = self.take_word("AS");
        let alias = match self.peek() {
            Some(Token::Word(word)) if !is_reserved(word) => word.clone(),
            Some(Token::Text(text)) if named => text.clone(),
            _ if named => return Err(self.unexpected()),
            _ => return Ok(None),
        };
        self.position += 1;
        Ok(Some(alias))
    }

    fn own_name(&self, expr: &Expr) -> Option<String> {
        match expr {
            Expr::Path(_, steps) => match steps.last()? {
                Step::Member(name) => Some(name.clone()),
                Step::Computed(_) => None,
            },
            Expr::Slot(slot) => self.names.get(slot.checked_sub(1)?).cloned(),
            _ => None,
        }
    }

    fn count(&mut self) -> Parsed<u64> {
        let number = match self.peek() {
            Some(Token::Number(number)) => number.as_u64(),
            Some(Token::Parameter(name)) => self.parameters.get(name).and_then(Value::as_u64),
            _ => None,
        };
        let number = number.ok_or_else(|| self.unexpected())?;
        self.position += 1;
        Ok(number)
    }

    fn groups(&mut self) -> Parsed<Vec<Spanned>> {
        let mut groups = Vec::new();
        if !self.take_word("GROUP") {
            return Ok(groups);
        }
        self.expect_word("BY")?;
        loop {
            groups.push(self.spanned()?);
            if !self.take(",") {
                return Ok(groups);
            }
        }
    }

    fn order(&mut self) -> Parsed<Vec<OrderKey>> {
        let mut order = Vec::new();
        if !self.take_word("ORDER") {
            return Ok(order);
        }
        self.expect_word("BY")?;
        // A source may have this name.
        if self.is_word("RANK") && self.slot("RANK").is_none() && self.slot("rank").is_none() {
            return Err(self.unsupported("ORDER BY RANK"));
        }
        loop {
            let key = self.spanned()?;
            let descending = self.take_word("DESC");
            if !descending {
                self.take_word("ASC");
            }
            order.push(OrderKey { key, descending });
            if !self.take(",") {
                return Ok(order);
            }
        }
    }

    fn window(&mut self) -> Parsed<Option<Window>> {
        let start = self.position;
        if !self.take_word("OFFSET") {
            return Ok(None);
        }
        let offset = self.count()?;
        self.expect_word("LIMIT")?;
        let limit = self.count()?;
        let span = self.span_from(start);
        Ok(Some(Window {
            offset,
            limit,
            span,
        }))
    }
}
