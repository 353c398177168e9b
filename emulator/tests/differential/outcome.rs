//! What an operation did, without what two servers may freely choose: resource ids, clocks, texts of errors.
//!
//! An entity tag is replaced by the number of tags that its client saw before it. Two servers agree if they change
//! tags at the same operations.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::{Map, Value, json};

/// System properties that are free, and the member that the SDK adds to items that it patches.
const FREE: [&str; 6] = [
    "_rid",
    "_self",
    "_ts",
    "_attachments",
    "_lsn",
    "_azsdkPatchTracking",
];

/// A text for people: all are equal.
#[derive(Clone)]
pub struct Note(pub String);

impl fmt::Debug for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl PartialEq for Note {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// What an operation did.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The SDK returned an error.
    Failed { status: u16, sub: u16, text: Note },
    /// A point operation.
    Point {
        status: u16,
        tag: Option<usize>,
        body: Option<Value>,
        range: Option<String>,
        /// Of the partition, and of the item.
        lsns: (Option<u64>, Option<u64>),
        /// Whether partitions of the container were split or merged before.
        reshaped: bool,
    },
    /// A batch: its status, and status, tag and item of each operation.
    Batch {
        status: u16,
        results: Vec<(u16, Option<usize>, Option<Value>)>,
    },
    /// Rows of a query.
    Rows(Vec<Value>),
    /// A reader of the change feed was moved on by some pages.
    Moved { items: usize },
    /// A reader of the change feed reached the end.
    Drained {
        /// What it found since it was at the end before, by partition key, if it went there in one go.
        fresh: Option<Deliveries>,
        /// The newest versions among all that it ever found.
        settled: Deliveries,
        /// The ids that should be there, if they are not what is there.
        missed: Option<Ids>,
        /// Whether partitions of the container were merged before.
        merged: bool,
    },
    /// Bounds of the physical partitions.
    Ranges(Vec<(String, String)>),
    /// The partitions were changed.
    Reshaped,
}

impl Outcome {
    /// Status and sub-status in short.
    pub fn code(&self) -> String {
        match self {
            Self::Failed { status, sub: 0, .. } => status.to_string(),
            Self::Failed { status, sub, .. } => format!("{status}/{sub}"),
            Self::Point { status, .. } => status.to_string(),
            Self::Batch { status, results } => {
                let codes: Vec<String> =
                    results.iter().map(|(code, ..)| code.to_string()).collect();
                format!("{status} [{}]", codes.join(" "))
            }
            Self::Rows(rows) => format!("{} rows", rows.len()),
            Self::Moved { items } => format!("moved by {items}"),
            Self::Drained { settled, .. } => {
                format!("drained {}", settled.values().map(Vec::len).sum::<usize>())
            }
            Self::Ranges(ranges) => format!("{} ranges", ranges.len()),
            Self::Reshaped => "reshaped".to_owned(),
        }
    }
}

impl Outcome {
    /// Whether it is wrong whatever another server does: a change feed without all that was written.
    pub fn is_wrong(&self) -> bool {
        matches!(
            self,
            Self::Drained {
                missed: Some(_),
                ..
            }
        )
    }

    /// The class of outcomes that this one belongs to: what a good set of scripts has some of.
    pub fn class(&self) -> String {
        let some = |empty: bool| if empty { "none" } else { "some" };
        match self {
            Self::Failed { .. } => format!("failed {}", self.code()),
            Self::Point { status, body, .. } => format!("point {status} {}", some(body.is_none())),
            Self::Batch { status, .. } => format!("batch {status}"),
            Self::Rows(rows) => format!("rows {}", some(rows.is_empty())),
            Self::Moved { .. } => "moved".to_owned(),
            Self::Drained { fresh: None, .. } => "drained later".to_owned(),
            Self::Drained {
                fresh: Some(fresh), ..
            } => format!("drained {}", some(fresh.is_empty())),
            Self::Ranges(_) => "ranges".to_owned(),
            Self::Reshaped => "reshaped".to_owned(),
        }
    }
}

/// Ids of items in the order of their newest versions, by partition key.
pub type Ids = BTreeMap<String, Vec<String>>;

/// Versions of items in the order of their arrival, by partition key.
pub type Deliveries = BTreeMap<String, Vec<Delivery>>;

/// A version of an item in a change feed.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    /// The operation that wrote it, if its tag is known.
    pub step: Option<usize>,
    pub id: String,
    pub body: Value,
}

/// Puts what one operation wrote in the order of ids: the change feed promises none inside a batch.
pub fn unorder_batches(deliveries: &mut [Delivery]) {
    let same = |a: &Delivery, b: &Delivery| a.step.is_some() && a.step == b.step;
    for batch in deliveries.chunk_by_mut(same) {
        batch.sort_by(|a, b| a.id.cmp(&b.id));
    }
}

/// The last arrival of each item that passes.
pub fn last_arrivals(all: &[Delivery], keep: impl Fn(&Delivery) -> bool) -> Vec<Delivery> {
    let mut seen = BTreeSet::new();
    let mut last: Vec<Delivery> = all
        .iter()
        .rev()
        .filter(|delivery| keep(delivery) && seen.insert(delivery.id.clone()))
        .cloned()
        .collect();
    last.reverse();
    last
}

/// A document or row without what is free; `tag` gives the number of an entity tag.
pub fn canonical(value: Value, tag: &impl Fn(&str) -> Option<usize>) -> Value {
    match value {
        Value::Number(number) => match number.as_f64() {
            // One form for 1 and 1.0: binary JSON does not keep them apart.
            Some(double) if double.fract() == 0.0 && double.abs() < 9e15 => json!(double as i64),
            Some(double) => json!(double),
            None => Value::Number(number),
        },
        Value::Array(items) => items.into_iter().map(|item| canonical(item, tag)).collect(),
        Value::Object(members) => {
            let members = members
                .into_iter()
                .filter(|(name, _)| !FREE.contains(&name.as_str()));
            let members: Map<String, Value> = members
                .map(|(name, value)| match (name.as_str(), value.as_str()) {
                    ("_etag", Some(text)) => (name, json!(tag(text))),
                    _ => (name, canonical(value, tag)),
                })
                .collect();
            Value::Object(members)
        }
        other => other,
    }
}

/// Rows without an order.
pub fn multiset(mut rows: Vec<Value>) -> Vec<Value> {
    rows.sort_by_key(Value::to_string);
    rows
}
