//! How a change feed is read.

use std::num::NonZeroU32;

use serde::Deserialize;
use serde_json::Value;
use tidefeed_runtime::{Error, ErrorKind, Result};

use crate::cosmos::backoff::BackoffConfig;
use crate::cosmos::partition_key::segments;
use crate::properties::{Property, find};

/// How a change feed is read.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FeedConfig {
    /// What the feed carries. Default: the latest versions.
    pub mode: FeedMode,
    /// The most documents a page should have; the service may send fewer, and more when it wrote them at once. Default
    /// 1000, a guess. Larger needs fewer requests and more memory per range; smaller has less delay within a burst. It is
    /// halved while the service answers that a page is too large or takes too long, and grows back slowly.
    pub page_size: NonZeroU32,
    /// Request units per second that reading may cost, shared by the ranges of the container; default none: no limit.
    /// Smaller leaves more for others; too small, and the feed is read slower than it is written.
    pub ru_per_second: Option<NonZeroU32>,
    /// Which documents count as deleted; default none.
    pub deleted: Option<SoftDelete>,
    /// What becomes of a position that is older than the retention of the feed. Default: the run ends.
    pub on_expired: OnExpired,
    /// System properties to leave in the documents, of `_rid`, `_self`, `_etag`, `_attachments`, `_ts` and `_lsn`. Default
    /// none.
    pub keep_system_properties: Vec<String>,
    /// The top-level properties of a document that are kept, beside its key; default none: all of them.
    pub fields: Option<Vec<String>>,
    /// Waits between attempts.
    pub backoff: BackoffConfig,
}

impl Default for FeedConfig {
    fn default() -> Self {
        FeedConfig {
            mode: FeedMode::default(),
            page_size: NonZeroU32::new(1000).expect("1000 is not zero"),
            ru_per_second: None,
            deleted: None,
            on_expired: OnExpired::default(),
            keep_system_properties: Vec::new(),
            fields: None,
            backoff: BackoffConfig::default(),
        }
    }
}

/// What a change feed carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeedMode {
    /// The latest version of each document. Deletes do not come, nor do versions that were overwritten before they were
    /// read; the feed reaches back for ever.
    #[default]
    LatestVersion,
    /// Every version, deletes, and the ends of documents that expire. The container needs continuous backup, or a retention in
    /// its change feed policy, and a position that is older than that is lost. A start at the beginning loads the latest
    /// versions first.
    AllVersionsAndDeletes,
}

/// What becomes of a position that is older than the retention of the feed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnExpired {
    /// The run ends with an error.
    #[default]
    Fail,
    /// The job starts over, as with `--fresh`: it reads the source from its start and brings its sinks in line. For jobs
    /// with the command line; a job that is started by code ends with the error.
    Reload,
}

/// A document that says of itself that it is deleted, for feeds that carry no deletes.
///
/// The usual way: whoever deletes sets the property and a `ttl` of some hours, so that the service removes the document later,
/// when every reader has seen it. A document that is written again without the property is there again. A condition that
/// needs more than one property is a `filter` on the collection in the job's code.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SoftDelete {
    /// Where the property is, `/isDeleted` or `/state/deleted`.
    pub path: String,
    /// The value that says so; default none: any but `false` and `null`. Numbers are compared as numbers.
    #[serde(default)]
    pub value: Option<Value>,
}

impl SoftDelete {
    /// Checks the path.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when it is malformed or the value is no scalar.
    pub fn validate(&self) -> Result<()> {
        self.compile().map(drop)
    }

    pub(in crate::cosmos) fn compile(&self) -> Result<DeletedMark> {
        let segments = segments(&self.path).map_err(|_| {
            Error::new(
                ErrorKind::Config,
                format!(
                    "deleted.path {:?} is malformed: it must look like /name or /outer/name",
                    self.path
                ),
            )
        })?;
        if matches!(self.value, Some(Value::Array(_) | Value::Object(_))) {
            return Err(Error::new(
                ErrorKind::Config,
                "deleted.value must be a string, a number or a boolean",
            ));
        }
        Ok(DeletedMark {
            segments,
            value: self.value.clone(),
        })
    }
}

/// A [`SoftDelete`] that is ready to be asked.
#[derive(Clone, Debug)]
pub(in crate::cosmos) struct DeletedMark {
    segments: Vec<String>,
    value: Option<Value>,
}

impl DeletedMark {
    pub(in crate::cosmos) fn is_on(&self, document: &[Property<'_>]) -> bool {
        let Some((first, rest)) = self.segments.split_first() else {
            return false;
        };
        let Some(outer) = find(document, first) else {
            return false;
        };
        // A value that no float can hold is one that is there.
        let outer: Value = serde_json::from_str(outer.get()).unwrap_or(Value::Bool(true));
        let mut rest = rest.iter();
        let found = rest.try_fold(&outer, |value, name| value.get(name));
        match (found, &self.value) {
            (None, _) => false,
            (Some(found), None) => !matches!(found, Value::Null | Value::Bool(false)),
            (Some(Value::Number(found)), Some(Value::Number(value))) => {
                found.as_f64() == value.as_f64()
            }
            (Some(found), Some(value)) => found == value,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::properties::properties;
    use serde_json::json;

    fn is_deleted(path: &str, value: Option<Value>, document: Value) -> bool {
        let path = path.to_owned();
        let mark = SoftDelete { path, value }.compile().unwrap();
        let document = document.to_string();
        mark.is_on(&properties(document.as_bytes()).unwrap())
    }

    #[test]
    fn any_value_but_false_and_null_is_a_mark() {
        for (document, expected) in [
            (json!({}), false),
            (json!({"gone": null}), false),
            (json!({"gone": false}), false),
            (json!({"gone": true}), true),
            (json!({"gone": 0}), true),
            (json!({"gone": "2026-01-31"}), true),
            (json!({"gone": {}}), true),
            (json!({"other": true}), false),
        ] {
            assert_eq!(
                is_deleted("/gone", None, document.clone()),
                expected,
                "{document}"
            );
        }
    }

    #[test]
    fn a_value_must_be_equal_and_may_be_deep() {
        let closed = || Some(json!("closed"));
        let deep = |state| json!({"meta": {"state": state}});
        assert!(is_deleted("/meta/state", closed(), deep("closed")));
        assert!(!is_deleted("/meta/state", closed(), deep("open")));
        assert!(!is_deleted(
            "/meta/state",
            closed(),
            json!({"meta": "closed"})
        ));
        assert!(!is_deleted("/meta/state", closed(), json!({})));
        assert!(is_deleted(
            "/n",
            Some(json!(1)),
            serde_json::from_str(r#"{"n":1.0}"#).unwrap()
        ));
        assert!(is_deleted("/n", Some(json!(false)), json!({"n": false})));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let refused = |path: &str, value: Option<Value>| {
            let path = path.to_owned();
            let error = SoftDelete { path, value }.validate().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
        };
        refused("gone", None);
        refused("", None);
        refused("/gone", Some(json!([1])));
    }
}
