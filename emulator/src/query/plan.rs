//! How a client has to run a query over several partitions: what it merges, and the query it sends to each of them.
//!
//! The query for one partition ("rewritten") returns what can be merged: sort keys beside rows, group keys and partial
//! aggregates. It is put together from pieces of the client's text, so that parameters keep their names.

use serde_json::{Map, Value, json};

use super::aggregate::Aggregation;
use super::ast::{Expr, Query, Select, Spanned};
use super::error::{QueryError, Span};
use super::rows::is_whole_source;

/// Where clients put a condition to resume a sorted query.
const FILTER_PLACEHOLDER: &str = "{documentdb-formattableorderbyquery-filter}";

/// Whether rows of several partitions cannot simply follow each other.
pub fn needs_merge(query: &Query) -> bool {
    query.distinct
        || query.top.is_some()
        || query.window.is_some()
        || !query.order.is_empty()
        || query.is_grouped()
}

/// Whether the query has an aggregate in another form than `SELECT VALUE <aggregate>`.
pub fn has_named_aggregate(query: &Query) -> bool {
    !query.aggregates.is_empty() && !matches!(query.select, Select::Value(_))
}

/// What a client has to be able to merge, by the names under which clients list it.
pub fn features(query: &Query) -> Vec<&'static str> {
    let with = |aggregation| {
        query
            .aggregates
            .iter()
            .any(|(known, _)| *known == aggregation)
    };
    let all = [
        (!query.aggregates.is_empty(), "Aggregate"),
        (with(Aggregation::CountIf), "CountIf"),
        (query.distinct, "Distinct"),
        (!query.groups.is_empty(), "GroupBy"),
        (query.aggregates.len() > 1, "MultipleAggregates"),
        (query.order.len() > 1, "MultipleOrderBy"),
        (has_named_aggregate(query), "NonValueAggregate"),
        (query.window.is_some(), "OffsetAndLimit"),
        (query.order.len() == 1, "OrderBy"),
        (query.top.is_some(), "Top"),
    ];
    all.into_iter()
        .filter_map(|(needed, name)| needed.then_some(name))
        .collect()
}

/// The `queryInfo` of a plan.
///
/// # Errors
/// If an aggregate is part of a larger expression, which clients cannot merge.
pub fn query_info(text: &str, query: &Query) -> Result<Value, QueryError> {
    check_compositions(query)?;
    let rewriter = Rewriter { text, query };
    let texts = |items: &mut dyn Iterator<Item = &Spanned>| -> Vec<&str> {
        items.map(|item| &text[item.span.clone()]).collect()
    };
    let order: Vec<&str> = query
        .order
        .iter()
        .map(|key| {
            if key.descending {
                "Descending"
            } else {
                "Ascending"
            }
        })
        .collect();
    let is_value = matches!(query.select, Select::Value(_));
    let aggregates: Vec<&str> = match is_value {
        true => query
            .aggregates
            .iter()
            .map(|(aggregation, _)| aggregation.plan_name())
            .collect(),
        // Named aggregates are merged by name.
        false => Vec::new(),
    };
    let by_name = aggregates_by_name(query);
    Ok(json!({
        "distinctType": distinct_type(query),
        "top": query.top,
        "offset": query.window.as_ref().map(|window| window.offset),
        "limit": query.window.as_ref().map(|window| window.limit),
        "orderBy": order,
        "orderByExpressions": texts(&mut query.order.iter().map(|key| &key.key)),
        "groupByExpressions": texts(&mut query.groups.iter()),
        "groupByAliases": by_name.keys().collect::<Vec<_>>(),
        "aggregates": aggregates,
        "groupByAliasToAggregateType": by_name,
        "rewrittenQuery": rewriter.rewritten().unwrap_or_default(),
        "hasSelectValue": is_value,
        "dCountInfo": null,
        "hasNonStreamingOrderBy": false,
    }))
}

/// The names of a grouped select list, each with its aggregate, or null for a group key.
fn aggregates_by_name(query: &Query) -> Map<String, Value> {
    let Select::List(items) = &query.select else {
        return Map::new();
    };
    let named = query.is_grouped().then_some(items).into_iter().flatten();
    named
        .map(|(name, item)| {
            let aggregate = called(query, item).map(|(aggregation, _)| aggregation.plan_name());
            (name.clone(), json!(aggregate))
        })
        .collect()
}

/// The aggregate that an item consists of.
fn called<'q>(query: &'q Query, item: &Spanned) -> Option<&'q (Aggregation, Spanned)> {
    match item.expr {
        Expr::Aggregate(number) => query.aggregates.get(number),
        _ => None,
    }
}

fn check_compositions(query: &Query) -> Result<(), QueryError> {
    let refused = |item: &Spanned| {
        (called(query, item).is_none() && has_aggregate(&mut item.expr.clone())).then(|| {
            QueryError::at(
                "Compositions of aggregates and other expressions are not allowed.",
                item.span.clone(),
            )
        })
    };
    let error = match &query.select {
        Select::Star => None,
        Select::Value(item) => refused(item),
        Select::List(items) => items.iter().find_map(|(_, item)| refused(item)),
    };
    error.map_or(Ok(()), Err)
}

fn has_aggregate(expr: &mut Expr) -> bool {
    matches!(expr, Expr::Aggregate(_)) || expr.parts_mut().into_iter().any(has_aggregate)
}

/// Doubles stand side by side only if rows are sorted by the one value they consist of.
fn distinct_type(query: &Query) -> &'static str {
    match (query.distinct, &query.select, query.order.as_slice()) {
        (false, _, _) => "None",
        (true, Select::Value(item), [key]) if item.expr == key.key.expr => "Ordered",
        (true, _, _) => "Unordered",
    }
}

struct Rewriter<'a> {
    text: &'a str,
    query: &'a Query,
}

impl Rewriter<'_> {
    fn piece(&self, span: &Span) -> &str {
        &self.text[span.clone()]
    }

    /// The query for one partition, unless it is the client's own.
    fn rewritten(&self) -> Option<String> {
        if self.query.is_grouped() {
            Some(self.grouped())
        } else if !self.query.order.is_empty() {
            Some(self.sorted())
        } else {
            self.windowed()
        }
    }

    /// Rows that the client skips can be in any partition, so each returns them.
    fn windowed(&self) -> Option<String> {
        let window = self.query.window.as_ref()?;
        Some(format!(
            "{}{}{}",
            &self.text[..window.span.start],
            self.whole_window()?,
            &self.text[window.span.end..]
        ))
    }

    fn whole_window(&self) -> Option<String> {
        let window = self.query.window.as_ref()?;
        let rows = window.offset.saturating_add(window.limit);
        Some(format!("OFFSET 0 LIMIT {rows}"))
    }

    fn from(&self) -> String {
        let from = self.query.from.as_ref();
        from.map_or_else(String::new, |span| format!("\n{}", self.piece(span)))
    }

    fn filter(&self) -> Option<String> {
        let filter = self.query.filter.as_ref()?;
        Some(format!("({})", self.piece(&filter.span)))
    }

    fn sorted(&self) -> String {
        let query = self.query;
        let source = query
            .sources
            .first()
            .map_or("root", |source| source.alias.as_str());
        let keys = self.items(&mut query.order.iter().map(|key| &key.key));
        let order: Vec<String> = query
            .order
            .iter()
            .map(|key| {
                let direction = if key.descending { "DESC" } else { "ASC" };
                format!("{} {direction}", self.piece(&key.key.span))
            })
            .collect();
        let payload = match &query.select {
            Select::Star => source.to_owned(),
            Select::Value(item) => self.piece(&item.span).to_owned(),
            Select::List(items) => self.object(
                &mut items
                    .iter()
                    .map(|(name, item)| (name, self.piece(&item.span).to_owned())),
            ),
        };
        // A row whose only value is undefined is no row, but would be one with its sort keys beside it.
        let defined = match &query.select {
            Select::Value(item) if !is_whole_source(query, &item.expr) => {
                Some(format!("IS_DEFINED({})", self.piece(&item.span)))
            }
            _ => None,
        };
        let placeholder = Some(format!("({FILTER_PLACEHOLDER})"));
        let conditions: Vec<String> = [self.filter(), defined, placeholder]
            .into_iter()
            .flatten()
            .collect();
        // With doubles among them, the first rows of a partition may be too few.
        let (top, window) = if query.distinct {
            (String::new(), None)
        } else {
            let top = query.top.map(|top| format!("TOP {top} "));
            (top.unwrap_or_default(), self.whole_window())
        };
        format!(
            "SELECT {top}{source}._rid, {keys} AS orderByItems, {payload} AS payload{}\nWHERE {}\nORDER BY {}{}",
            self.from(),
            conditions.join(" AND "),
            order.join(", "),
            window.map_or_else(String::new, |window| format!("\n{window}")),
        )
    }

    fn grouped(&self) -> String {
        let query = self.query;
        let filter = self.filter();
        let filter = filter.map_or_else(String::new, |filter| format!("\nWHERE {filter}"));
        let behind = format!("{}{filter}", self.from());
        let payload = match &query.select {
            Select::Star => String::new(),
            Select::Value(item) => match called(query, item) {
                Some(_) => format!("[{}]", self.partial(item)),
                None => self.partial(item),
            },
            Select::List(items) => {
                self.object(&mut items.iter().map(|(name, item)| (name, self.partial(item))))
            }
        };
        if query.groups.is_empty() {
            return match query.select {
                Select::Value(_) => format!("SELECT VALUE {payload}{behind}"),
                _ => format!("SELECT {payload} AS payload{behind}"),
            };
        }
        let groups: Vec<&str> = query
            .groups
            .iter()
            .map(|group| self.piece(&group.span))
            .collect();
        format!(
            "SELECT {} AS groupByItems, {payload} AS payload{behind}\nGROUP BY {}",
            self.items(&mut query.groups.iter()),
            groups.join(", ")
        )
    }

    /// A group key, or an aggregate in a form that can be merged with those of other partitions.
    fn partial(&self, item: &Spanned) -> String {
        let Some((aggregation, argument)) = called(self.query, item) else {
            return self.piece(&item.span).to_owned();
        };
        let argument = self.piece(&argument.span);
        let extreme = |name: &str, member: &str| {
            format!(
                "{{\"item\": {name}({argument}), \"item2\": {{\"{member}\": {name}({argument}), \"count\": COUNT({argument})}}}}"
            )
        };
        match aggregation {
            Aggregation::Count => format!("{{\"item\": COUNT({argument})}}"),
            Aggregation::CountIf => format!("{{\"item\": COUNTIF({argument})}}"),
            Aggregation::Sum => format!("{{\"item\": SUM({argument})}}"),
            Aggregation::Average => {
                format!("{{\"item\": {{\"sum\": SUM({argument}), \"count\": COUNT({argument})}}}}")
            }
            Aggregation::Least => extreme("MIN", "min"),
            Aggregation::Most => extreme("MAX", "max"),
        }
    }

    /// `[{"item": a}, {"item": b}]`.
    fn items(&self, items: &mut dyn Iterator<Item = &Spanned>) -> String {
        let items: Vec<String> = items
            .map(|item| format!("{{\"item\": {}}}", self.piece(&item.span)))
            .collect();
        format!("[{}]", items.join(", "))
    }

    fn object(&self, members: &mut dyn Iterator<Item = (&String, String)>) -> String {
        let members: Vec<String> = members
            .map(|(name, value)| format!("{}: {value}", json!(name)))
            .collect();
        format!("{{{}}}", members.join(", "))
    }
}
