//! Aggregates over everything in scope.

use std::cmp::Ordering;

use serde_json::Value;

use super::eval::number;
use super::order;

/// Which aggregate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Aggregation {
    Count,
    Sum,
    Average,
    Least,
    Most,
}

impl Aggregation {
    /// The aggregate of a name in upper case.
    pub fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "COUNT" => Self::Count,
            "SUM" => Self::Sum,
            "AVG" => Self::Average,
            "MIN" => Self::Least,
            "MAX" => Self::Most,
            _ => return None,
        })
    }
}

/// An aggregate that is being computed.
#[derive(Clone, Debug)]
pub struct Accumulator {
    aggregation: Aggregation,
    count: u64,
    sum: f64,
    /// A value that cannot be added was seen; the result is undefined.
    spoiled: bool,
    extreme: Option<Value>,
}

impl Accumulator {
    /// Starts an aggregate.
    pub fn new(aggregation: Aggregation) -> Self {
        Self {
            aggregation,
            count: 0,
            sum: 0.0,
            spoiled: false,
            extreme: None,
        }
    }

    /// Takes in a value; undefined ones do not count.
    pub fn add(&mut self, value: Option<&Value>) {
        let Some(value) = value else { return };
        self.count += 1;
        match self.aggregation {
            Aggregation::Count => {}
            Aggregation::Sum | Aggregation::Average => match value.as_f64() {
                Some(number) => self.sum += number,
                None => self.spoiled = true,
            },
            Aggregation::Least => self.keep(value, Ordering::Less),
            Aggregation::Most => self.keep(value, Ordering::Greater),
        }
    }

    fn keep(&mut self, value: &Value, wanted: Ordering) {
        if self
            .extreme
            .as_ref()
            .is_none_or(|extreme| order::compare(Some(value), Some(extreme)) == wanted)
        {
            self.extreme = Some(value.clone());
        }
    }

    /// The result; undefined if there is none.
    pub fn result(&self) -> Option<Value> {
        match self.aggregation {
            Aggregation::Count => Some(Value::from(self.count)),
            Aggregation::Sum if !self.spoiled => number(self.sum),
            Aggregation::Average if !self.spoiled && self.count > 0 => {
                number(self.sum / self.count as f64)
            }
            Aggregation::Least | Aggregation::Most => self.extreme.clone(),
            _ => None,
        }
    }
}
