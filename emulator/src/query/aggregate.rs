//! Aggregates over the rows of a group.

use std::cmp::Ordering;

use serde_json::Value;

use super::eval::number;
use super::order;

/// Which aggregate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Aggregation {
    Count,
    CountIf,
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
            "COUNTIF" => Self::CountIf,
            "SUM" => Self::Sum,
            "AVG" => Self::Average,
            "MIN" => Self::Least,
            "MAX" => Self::Most,
            _ => return None,
        })
    }

    /// The name that clients know it by in a query plan.
    pub fn plan_name(self) -> &'static str {
        match self {
            Self::Count => "Count",
            Self::CountIf => "CountIf",
            Self::Sum => "Sum",
            Self::Average => "Average",
            Self::Least => "Min",
            Self::Most => "Max",
        }
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

    /// Takes in a value; undefined ones do not count. A sum or average with anything but numbers is undefined.
    pub fn add(&mut self, value: Option<&Value>) {
        let Some(value) = value else { return };
        self.count +=
            u64::from(self.aggregation != Aggregation::CountIf || *value == Value::Bool(true));
        match self.aggregation {
            Aggregation::Count | Aggregation::CountIf => {}
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
            Aggregation::Count | Aggregation::CountIf => Some(Value::from(self.count)),
            Aggregation::Sum if !self.spoiled => number(self.sum),
            Aggregation::Average if !self.spoiled && self.count > 0 => {
                number(self.sum / self.count as f64)
            }
            Aggregation::Least | Aggregation::Most => self.extreme.clone(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn result(name: &str, values: &[Option<Value>]) -> Option<Value> {
        let mut accumulator = Accumulator::new(Aggregation::by_name(name).unwrap());
        values
            .iter()
            .for_each(|value| accumulator.add(value.as_ref()));
        accumulator.result()
    }

    #[test]
    fn aggregates_of_numbers_gaps_and_other_types() {
        let numbers = [Some(json!(3)), None, Some(json!(1.5)), Some(json!(6))];
        for (name, expected) in [
            ("COUNT", json!(3)),
            ("SUM", json!(10.5)),
            ("AVG", json!(3.5)),
            ("MIN", json!(1.5)),
            ("MAX", json!(6)),
            ("COUNTIF", json!(0)),
        ] {
            assert_eq!(result(name, &numbers), Some(expected), "{name}");
        }
        let mixed = [Some(json!(3)), Some(json!("x")), Some(json!(true))];
        for (name, expected) in [
            ("COUNT", Some(json!(3))),
            ("SUM", None),
            ("AVG", None),
            ("MIN", Some(json!(true))),
            ("MAX", Some(json!("x"))),
            ("COUNTIF", Some(json!(1))),
        ] {
            assert_eq!(result(name, &mixed), expected, "{name}");
        }
        for (name, expected) in [
            ("COUNT", Some(json!(0))),
            ("SUM", Some(json!(0))),
            ("AVG", None),
            ("MIN", None),
        ] {
            assert_eq!(result(name, &[None]), expected, "{name} of nothing");
        }
    }
}
