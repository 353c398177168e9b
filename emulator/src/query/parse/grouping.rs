//! What may stand beside aggregates and group keys.

use super::super::ast::{Expr, Query, Select, Spanned};
use super::super::error::QueryError;
use super::{Parsed, Parser};

impl Parser<'_> {
    /// Resolves group keys in the select list; anything else about a single document is refused there.
    pub(super) fn check_grouping(&self, query: &mut Query) -> Parsed<()> {
        if !query.is_grouped() {
            return Ok(());
        }
        if let Some(order) = query.order.first() {
            return Err(QueryError::unsupported(
                "ORDER BY with GROUP BY or an aggregate",
                order.key.span.clone(),
            ));
        }
        let groups = &query.groups;
        match &mut query.select {
            Select::Star => Err(QueryError::whole(
                "'SELECT *' cannot stand beside GROUP BY: name the group keys.",
            )),
            Select::Value(item) => self.resolve(item, groups),
            Select::List(items) => items
                .iter_mut()
                .try_for_each(|(_, item)| self.resolve(item, groups)),
        }
    }

    fn resolve(&self, item: &mut Spanned, groups: &[Spanned]) -> Parsed<()> {
        if resolved(&mut item.expr, groups) {
            return Ok(());
        }
        let text = &self.text[item.span.clone()];
        Err(QueryError::at(
            format!(
                "Property reference '{text}' is invalid in the select list because it is not contained in either \
                 an aggregate function or the GROUP BY clause."
            ),
            item.span.clone(),
        ))
    }
}

/// Whether an expression is made of group keys, aggregates and constants only; group keys are put in by number.
fn resolved(expr: &mut Expr, groups: &[Spanned]) -> bool {
    if let Some(number) = groups.iter().position(|group| group.expr == *expr) {
        *expr = Expr::GroupKey(number);
        return true;
    }
    match expr {
        Expr::Slot(_) | Expr::Exists(_) | Expr::Rows(_) | Expr::First(_) => false,
        _ => expr
            .parts_mut()
            .into_iter()
            .all(|part| resolved(part, groups)),
    }
}
