//! Queries over documents and over other resources.
//!
//! Documents are looked at in key order, partition by partition ([`documents`]). Three kinds of queries differ in how
//! their pages follow each other: [`streamed`] rows as the documents come, [`sorted`] rows, and [`grouped`] rows. Every
//! continuation names a place in an order that writes between pages do not change.
//!
//! A query that is not addressed to a partition or a partition key is answered in one go only if its rows need no merging.
//! Otherwise the reply is the service's: 400/1004 with the plan by which clients run it themselves ([`plan`]).

mod documents;
mod grouped;
mod page;
mod plan;
mod sorted;
mod streamed;
mod tokens;

use std::collections::HashMap;
use std::ops::ControlFlow;

use hyper::StatusCode;
use serde_json::{Value, json};

pub use plan::plan;

use super::items::located;
use super::scope::{self, Piece};
use crate::epk::EpkRange;
use crate::http::{ApiError, ApiResult, Call, Reply, headers};
use crate::partition_key::parse_components;
use crate::query::ast::Query;
use crate::query::budget::Budget;
use crate::query::parse::parse;
use crate::query::plan::{has_named_aggregate, needs_merge};
use crate::query::rows::{Collector, expand};
use crate::query::sorting::Resume;
use crate::query::target::fixed_key;
use crate::ru::Charge;
use crate::store::Container;

/// A feed of resources other than documents, in one page.
pub fn resource_feed(name: &str, rid: &str, resources: &[Value]) -> Reply {
    let body = json!({"_rid": rid, "_count": resources.len(), name: resources});
    Reply::json(StatusCode::OK, &body)
        .charge(Charge::METADATA)
        .put_number(&headers::ITEM_COUNT, resources.len() as u64)
}

/// A query over resources other than documents, in one page.
pub fn over_resources(name: &str, rid: &str, resources: Vec<Value>, call: &Call<'_>) -> ApiResult {
    let request = Request::read(call)?;
    let mut collector = Collector::new(&request.query);
    let budget = Budget::default();
    for resource in &resources {
        let slots = [Some(resource)];
        let flow = expand(&request.query, &slots, &budget, &mut |scope| {
            collector.add(scope)
        });
        if flow.is_break() {
            break;
        }
    }
    let rows = collector.finish(&budget);
    within(&budget)?;
    Ok(resource_feed(name, rid, &rows))
}

/// `POST docs` with a query.
pub fn execute(container: &Container, call: &Call<'_>) -> ApiResult {
    let request = Request::read(call)?;
    let target = if is_addressed(call) {
        None
    } else {
        let target = fixed_range(container, &request.query);
        let is_one_key = target.as_ref().is_some_and(|(_, whole)| *whole);
        if !is_one_key && let Some(refusal) = refusal(container, call, &request)? {
            return Ok(refusal);
        }
        target.map(|(range, _)| range)
    };
    let map = container.map();
    let mut pieces = scope::of(container, &map, call)?;
    if let Some(target) = &target {
        pieces = narrowed(pieces, target);
    }
    let job = Job {
        container,
        call,
        query: &request.query,
        pieces: &pieces,
        most: call.page_items()?,
    };
    let reply = if request.query.is_grouped() || request.query.sources.is_empty() {
        grouped::page(&job)?
    } else if !request.query.order.is_empty() {
        sorted::page(&job, request.resume.as_ref())?
    } else {
        streamed::page(&job)?
    };
    Ok(match pieces.first() {
        Some(piece) => {
            piece.partition.consume(Charge::PAGE);
            located(reply, container, piece.partition, piece.partition.lsn())
        }
        None => reply,
    })
}

/// A query to be answered with a page.
struct Job<'a> {
    container: &'a Container,
    call: &'a Call<'a>,
    query: &'a Query,
    pieces: &'a [Piece<'a>],
    most: usize,
}

impl Job<'_> {
    /// The continuation, read by `parse`.
    fn continuation<T>(&self, parse: impl Fn(&str) -> Option<T>) -> Result<Option<T>, ApiError> {
        let Some(token) = self.call.header(&headers::CONTINUATION) else {
            return Ok(None);
        };
        parse(token).map(Some).ok_or_else(|| {
            ApiError::bad_request("Invalid Continuation Token: it is not one of this query")
        })
    }
}

/// The body of a query request.
struct Request {
    text: String,
    query: Query,
    resume: Option<Resume>,
}

impl Request {
    fn read(call: &Call<'_>) -> Result<Self, ApiError> {
        let body = call.json_value()?;
        let text = body["query"]
            .as_str()
            .ok_or_else(|| ApiError::bad_request("the body has no query"))?;
        let parameters: HashMap<String, Value> = body["parameters"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|parameter| {
                let name = parameter["name"].as_str()?.to_owned();
                Some((name, parameter["value"].clone()))
            })
            .collect();
        let query =
            parse(text, parameters).map_err(|error| ApiError::bad_request(error.to_message()))?;
        let resume = match &body["resumeFilter"] {
            Value::Null => None,
            filter => Some(tokens::resume(filter, &query)?),
        };
        Ok(Self {
            text: text.to_owned(),
            query,
            resume,
        })
    }
}

/// Whether a call names a partition key, a partition or an interval of keys.
fn is_addressed(call: &Call<'_>) -> bool {
    let has_key = call
        .header(&headers::PARTITION_KEY)
        .is_some_and(|key| key.trim() != "[]");
    has_key
        || [
            &headers::PARTITION_KEY_RANGE_ID,
            &headers::START_EPK,
            &headers::END_EPK,
        ]
        .into_iter()
        .any(|name| call.header(name).is_some())
}

/// The keys that the filter fixes, and whether they are one logical partition.
fn fixed_range(container: &Container, query: &Query) -> Option<(EpkRange, bool)> {
    let values = fixed_key(query, container.key.paths());
    if values.is_empty() {
        return None;
    }
    let components = parse_components(&Value::from(values).to_string()).ok()?;
    let range = container.key.range(&components).ok()?;
    Some((range, components.len() == container.key.len()))
}

fn narrowed<'a>(pieces: Vec<Piece<'a>>, target: &EpkRange) -> Vec<Piece<'a>> {
    pieces
        .into_iter()
        .filter_map(|piece| {
            Some(Piece {
                range: piece.range.intersect(target)?,
                partition: piece.partition,
            })
        })
        .collect()
}

/// The reply to a query that is not addressed and that a gateway cannot answer in one go.
fn refusal(
    container: &Container,
    call: &Call<'_>,
    request: &Request,
) -> Result<Option<Reply>, ApiError> {
    if request.query.sources.is_empty() {
        return Ok(None);
    }
    if !call.flag(&headers::ENABLE_CROSS_PARTITION) {
        return Err(ApiError::bad_request(
            "Cross partition query is required but disabled. Please set x-ms-documentdb-query-enablecrosspartition to \
             true, specify x-ms-documentdb-partitionkey, or revise your query to avoid this exception.",
        ));
    }
    if has_named_aggregate(&request.query) {
        return Err(ApiError::bad_request(
            "Cross partition query only supports 'VALUE <AggregateFunc>' for aggregates.",
        ));
    }
    if !needs_merge(&request.query) {
        return Ok(None);
    }
    plan::not_servable(container, request).map(Some)
}

/// Refuses a query that asked for more than it may spend.
fn within(budget: &Budget) -> Result<(), ApiError> {
    if budget.is_exhausted() {
        Err(ApiError::bad_request(
            "the query makes too many rows or too large values of one item: join less, or filter within the join",
        ))
    } else {
        Ok(())
    }
}

/// Goes on, with the type that visitors of documents have.
const GO_ON: ControlFlow<()> = ControlFlow::Continue(());
