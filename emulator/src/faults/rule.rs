//! Fault rules as data, in Rust and in JSON.

use std::fmt;
use std::ops::RangeInclusive;

use serde::de::{Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::FaultOperation;

/// Statuses that a rule may answer.
const STATUSES: RangeInclusive<u16> = 400..=599;

/// Longest wait that a rule may ask for, in milliseconds: an hour.
const MAX_WAIT_MS: u64 = 3_600_000;

/// One fault: which requests, how often, and what happens to them.
///
/// A rule with nothing but an action is about every request. In JSON, unknown members are an error:
///
/// ```json
/// {
///   "operation": ["upsert", "batch"],
///   "database": "shop", "container": "orders", "partition": 0,
///   "skip": 10, "times": 3, "probability": 0.5,
///   "action": {"status": {"status": 429, "retry_after_ms": 50}}
/// }
/// ```
///
/// # Examples
///
/// ```
/// use tidefeed_emulator::{FaultAction, FaultOperation, FaultRule};
///
/// let rule = FaultRule::new(FaultAction::status(429))
///     .on(&[FaultOperation::Upsert, FaultOperation::Batch])
///     .in_container("shop", "orders")
///     .times(3);
/// assert_eq!(rule.times, Some(3));
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct FaultRule {
    /// Operations that it is about; in JSON one name or a list, `operation` or `operations`. Default: all.
    #[serde(
        rename = "operation",
        alias = "operations",
        default = "every_operation",
        deserialize_with = "one_or_many"
    )]
    pub operations: Vec<FaultOperation>,
    /// Name of the database. Default: any, and requests about none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// Name of the container. Default: any, and requests about none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// Partition key range id. A feed or query over several partitions is about each of them; a write that names neither
    /// a partition key nor a range in its headers is about none. Default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<u32>,
    /// How many matching requests pass before the first hit. Default 0.
    #[serde(default)]
    pub skip: u64,
    /// Most hits, after which the rule is spent. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u64>,
    /// Share of the matching requests that are hit, 0 to 1. Default 1.
    #[serde(default = "certain")]
    pub probability: f64,
    /// What happens to a request that is hit.
    pub action: FaultAction,
}

/// What happens to a request that a rule hits.
///
/// In JSON: `{"status": {"status": 503}}`, `{"status-after": {"status": 408}}`, `{"delay": {"ms": 200, "jitter_ms": 50}}`,
/// `"drop-before"`, `"drop-after"` or `"freeze"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum FaultAction {
    /// The request is refused and changes nothing.
    Status {
        /// HTTP status, 400 to 599.
        status: u16,
        /// Sub-status. Default: 3200 for 429, 1002 for 410, otherwise 0, which is not sent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        substatus: Option<u32>,
        /// Value of `x-ms-retry-after-ms`. Default: 10 for 429, otherwise not sent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after_ms: Option<u64>,
        /// Message in the body. Default: one that says that it was injected.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
    },
    /// The request is carried out and answered as if it had failed, whatever came of it: what a client gets from a gateway
    /// that lost the answer of the partition. A bulk item is carried out too, and its operation answered so.
    StatusAfter {
        /// HTTP status, 400 to 599; 408 and 503 are those that services answer so.
        status: u16,
        /// Sub-status. Default as for [`Status`](Self::Status).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        substatus: Option<u32>,
    },
    /// The request waits `ms`, and up to `jitter_ms` more, and then goes on, to later rules too.
    Delay {
        /// Milliseconds, at most an hour.
        ms: u64,
        /// Most milliseconds that are added, uniformly distributed. Default 0.
        #[serde(default)]
        jitter_ms: u64,
    },
    /// The connection is closed and nothing was applied. Other requests under way on it lose their replies too.
    DropBefore,
    /// The request is applied and the connection is closed without its reply. Other requests under way on it lose their
    /// replies too.
    DropAfter,
    /// The request waits until the rules change and is then judged by the new ones.
    Freeze,
}

/// Rules that are in force together, with the seed of their random numbers.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultPlan {
    /// Seed of probabilities and jitter.
    #[serde(default)]
    pub seed: u64,
    /// The rules, in order.
    pub rules: Vec<FaultRule>,
}

impl FaultAction {
    /// Refuses with `status` and the sub-status and retry time that clients expect with it.
    pub fn status(status: u16) -> Self {
        Self::Status {
            status,
            substatus: None,
            retry_after_ms: None,
            message: None,
        }
    }

    /// Carries out, and then answers `status` with the sub-status that clients expect with it.
    pub fn status_after(status: u16) -> Self {
        Self::StatusAfter {
            status,
            substatus: None,
        }
    }

    /// Delays by `ms` milliseconds.
    pub fn delay(ms: u64) -> Self {
        Self::Delay { ms, jitter_ms: 0 }
    }
}

impl FaultRule {
    /// A rule that hits every request, always.
    pub fn new(action: FaultAction) -> Self {
        Self {
            operations: every_operation(),
            database: None,
            container: None,
            partition: None,
            skip: 0,
            times: None,
            probability: 1.0,
            action,
        }
    }

    /// Only these operations.
    pub fn on(mut self, operations: &[FaultOperation]) -> Self {
        self.operations = operations.to_vec();
        self
    }

    /// Only this container, by name.
    pub fn in_container(
        mut self,
        database: impl Into<String>,
        container: impl Into<String>,
    ) -> Self {
        self.database = Some(database.into());
        self.container = Some(container.into());
        self
    }

    /// Only the partition with this range id.
    pub fn in_partition(mut self, id: u32) -> Self {
        self.partition = Some(id);
        self
    }

    /// Lets the first `count` matching requests pass.
    pub fn skip(mut self, count: u64) -> Self {
        self.skip = count;
        self
    }

    /// At most `count` hits.
    pub fn times(mut self, count: u64) -> Self {
        self.times = Some(count);
        self
    }

    /// Hits only a share of the matching requests, 0 to 1.
    pub fn probability(mut self, share: f64) -> Self {
        self.probability = share;
        self
    }

    /// Checks the values.
    ///
    /// # Errors
    /// One clause that names the field and its range.
    pub fn validate(&self) -> Result<(), String> {
        if self.operations.is_empty() {
            return Err("operation is an empty list: leave it out for all operations".to_owned());
        }
        if !(0.0..=1.0).contains(&self.probability) {
            return Err(format!(
                "probability is {}, but must be 0 to 1",
                self.probability
            ));
        }
        let (wait, name) = match &self.action {
            FaultAction::Status { status, .. } | FaultAction::StatusAfter { status, .. }
                if !STATUSES.contains(status) =>
            {
                return Err(format!(
                    "status is {status}, but must be {} to {}",
                    STATUSES.start(),
                    STATUSES.end()
                ));
            }
            FaultAction::Status { retry_after_ms, .. } => {
                (retry_after_ms.unwrap_or(0), "retry_after_ms")
            }
            FaultAction::Delay { ms, jitter_ms } => (ms.saturating_add(*jitter_ms), "the delay"),
            FaultAction::StatusAfter { .. }
            | FaultAction::DropBefore
            | FaultAction::DropAfter
            | FaultAction::Freeze => (0, ""),
        };
        if wait > MAX_WAIT_MS {
            return Err(format!(
                "{name} is {wait} ms, but must be at most {MAX_WAIT_MS}"
            ));
        }
        let items = self.operations.contains(&FaultOperation::BulkItem);
        let answers = matches!(
            self.action,
            FaultAction::Status { .. } | FaultAction::StatusAfter { .. }
        );
        if items && !answers {
            return Err(
                "bulk-item takes status and status-after only: use bulk for the others".to_owned(),
            );
        }
        Ok(())
    }
}

impl FaultPlan {
    /// Checks every rule.
    ///
    /// # Errors
    /// One clause that names the rule by its index, the field and its range.
    pub fn validate(&self) -> Result<(), String> {
        for (index, rule) in self.rules.iter().enumerate() {
            rule.validate()
                .map_err(|problem| format!("rules[{index}]: {problem}"))?;
        }
        Ok(())
    }
}

fn every_operation() -> Vec<FaultOperation> {
    vec![FaultOperation::All]
}

fn certain() -> f64 {
    1.0
}

fn one_or_many<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<FaultOperation>, D::Error> {
    struct OneOrMany;

    impl<'de> Visitor<'de> for OneOrMany {
        type Value = Vec<FaultOperation>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("the name of an operation, or a list of names")
        }

        fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Self::Value, E> {
            name.parse()
                .map(|operation| vec![operation])
                .map_err(E::custom)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut names: A) -> Result<Self::Value, A::Error> {
            let mut operations = Vec::new();
            while let Some(operation) = names.next_element()? {
                operations.push(operation);
            }
            Ok(operations)
        }
    }

    deserializer.deserialize_any(OneOrMany)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{from_value, json, to_value};

    #[test]
    fn a_rule_survives_a_round_trip_through_json() {
        let text = json!({
            "operation": ["upsert", "reads"], "database": "d", "container": "c", "partition": 2,
            "skip": 1, "times": 3, "probability": 0.25,
            "action": {"status": {"status": 404, "substatus": 1002, "retry_after_ms": 5, "message": "m"}},
        });
        let rule: FaultRule = from_value(text.clone()).unwrap();
        assert_eq!(rule.validate(), Ok(()));
        assert_eq!(to_value(&rule).unwrap(), text);
        let least: FaultRule = from_value(json!({"action": "freeze"})).unwrap();
        assert_eq!(least, FaultRule::new(FaultAction::Freeze));
        let after = json!({"operation": ["*"], "skip": 0, "probability": 1.0, "action": {"status-after": {"status": 408}}});
        let rule: FaultRule = from_value(after.clone()).unwrap();
        assert_eq!(rule, FaultRule::new(FaultAction::status_after(408)));
        assert_eq!(to_value(&rule).unwrap(), after);
        let one: FaultRule =
            from_value(json!({"operations": "*", "action": {"delay": {"ms": 5}}})).unwrap();
        assert_eq!(one, FaultRule::new(FaultAction::delay(5)));
    }

    #[test]
    fn unknown_members_and_names_are_named() {
        let error = |value| from_value::<FaultPlan>(value).unwrap_err().to_string();
        let rule = |rule| error(json!({"rules": [rule]}));
        for (message, expected) in [
            (error(json!({"rules": [], "sed": 1})), "`sed`"),
            (error(json!({"seed": 1})), "`rules`"),
            (rule(json!({"operation": "*"})), "`action`"),
            (
                rule(json!({"probabilty": 1, "action": "freeze"})),
                "`probabilty`",
            ),
            (
                rule(json!({"operation": "upsrt", "action": "freeze"})),
                "`upsrt`",
            ),
            (
                rule(json!({"operation": ["read", "x"], "action": "freeze"})),
                "`x`",
            ),
            (rule(json!({"operation": 1, "action": "freeze"})), "a list"),
            (rule(json!({"action": "explode"})), "`explode`"),
            (
                rule(json!({"action": {"status": {"code": 1}}})),
                "unknown field `code`",
            ),
            (
                rule(json!({"action": {"delay": {"ms": 1, "jitter": 1}}})),
                "`jitter`",
            ),
        ] {
            assert!(message.contains(expected), "{expected}: {message}");
        }
    }

    #[test]
    fn values_out_of_range_are_named() {
        let freeze = || FaultRule::new(FaultAction::Freeze);
        for (rule, expected) in [
            (freeze().probability(1.5), "probability is 1.5"),
            (freeze().probability(f64::NAN), "probability is NaN"),
            (freeze().on(&[]), "operation is an empty list"),
            (freeze().on(&[FaultOperation::BulkItem]), "bulk-item takes"),
            (
                FaultRule::new(FaultAction::status(304)),
                "status is 304, but must be 400 to 599",
            ),
            (
                FaultRule::new(FaultAction::status_after(600)),
                "status is 600, but must be 400 to 599",
            ),
            (
                FaultRule::new(FaultAction::Delay {
                    ms: 3_600_000,
                    jitter_ms: 1,
                }),
                "the delay is 3600001 ms",
            ),
        ] {
            let plan = FaultPlan {
                seed: 0,
                rules: vec![freeze(), rule],
            };
            let problem = plan.validate().unwrap_err();
            assert!(problem.starts_with("rules[1]: "), "{problem}");
            assert!(problem.contains(expected), "{expected}: {problem}");
        }
    }
}
