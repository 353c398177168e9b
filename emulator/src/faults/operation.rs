//! Operations by the names that fault rules use.

use std::fmt;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Serialize, Serializer};

/// What a request asks for, or a group of such.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FaultOperation {
    /// `*`: every request of the data API.
    All,
    /// `reads`: [`Read`](Self::Read), [`Query`](Self::Query), [`QueryPlan`](Self::QueryPlan),
    /// [`ReadFeed`](Self::ReadFeed) and [`ChangeFeed`](Self::ChangeFeed).
    Reads,
    /// `writes`: [`Create`](Self::Create), [`Upsert`](Self::Upsert), [`Replace`](Self::Replace),
    /// [`Delete`](Self::Delete), [`Patch`](Self::Patch), [`Batch`](Self::Batch) and [`Bulk`](Self::Bulk).
    Writes,
    /// `account`: the account read.
    Account,
    /// `databases`: anything on databases.
    Databases,
    /// `containers`: anything on containers.
    Containers,
    /// `pkranges`: the map of physical partitions.
    PkRanges,
    /// `offers`: anything on throughput.
    Offers,
    /// `create`: an item is created.
    Create,
    /// `upsert`: an item is created or replaced.
    Upsert,
    /// `replace`: an item is replaced.
    Replace,
    /// `delete`: an item is deleted.
    Delete,
    /// `read`: an item is read.
    Read,
    /// `patch`: an item is patched.
    Patch,
    /// `query`: a query over items.
    Query,
    /// `query-plan`: the plan of a query is asked for.
    QueryPlan,
    /// `read-feed`: the plain feed of items.
    ReadFeed,
    /// `change-feed`: the change feed.
    ChangeFeed,
    /// `batch`: a transactional batch.
    Batch,
    /// `bulk`: a batch that is not atomic.
    Bulk,
    /// `bulk-item`: one operation inside a bulk batch, whose other operations go on. No group includes it, and its only
    /// actions are a status, instead of the operation or after it.
    BulkItem,
}

/// Every name, in the order in which messages list them.
const NAMES: [(&str, FaultOperation); 21] = [
    ("*", FaultOperation::All),
    ("reads", FaultOperation::Reads),
    ("writes", FaultOperation::Writes),
    ("account", FaultOperation::Account),
    ("databases", FaultOperation::Databases),
    ("containers", FaultOperation::Containers),
    ("pkranges", FaultOperation::PkRanges),
    ("offers", FaultOperation::Offers),
    ("create", FaultOperation::Create),
    ("upsert", FaultOperation::Upsert),
    ("replace", FaultOperation::Replace),
    ("delete", FaultOperation::Delete),
    ("read", FaultOperation::Read),
    ("patch", FaultOperation::Patch),
    ("query", FaultOperation::Query),
    ("query-plan", FaultOperation::QueryPlan),
    ("read-feed", FaultOperation::ReadFeed),
    ("change-feed", FaultOperation::ChangeFeed),
    ("batch", FaultOperation::Batch),
    ("bulk", FaultOperation::Bulk),
    ("bulk-item", FaultOperation::BulkItem),
];

impl FaultOperation {
    /// Its name in JSON.
    pub fn name(self) -> &'static str {
        NAMES
            .iter()
            .find(|(_, operation)| *operation == self)
            .map_or("", |(name, _)| name)
    }

    /// Whether a rule for `self` is about a request of kind `request`; `None` is a request with no name of its own.
    pub(crate) fn covers(self, request: Option<Self>) -> bool {
        match (self, request) {
            (_, Some(Self::BulkItem)) => self == Self::BulkItem,
            (Self::All, _) => true,
            (Self::Reads, Some(request)) => matches!(
                request,
                Self::Read | Self::Query | Self::QueryPlan | Self::ReadFeed | Self::ChangeFeed
            ),
            (Self::Writes, Some(request)) => matches!(
                request,
                Self::Create
                    | Self::Upsert
                    | Self::Replace
                    | Self::Delete
                    | Self::Patch
                    | Self::Batch
                    | Self::Bulk
            ),
            (this, request) => Some(this) == request,
        }
    }
}

impl fmt::Display for FaultOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for FaultOperation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = NAMES.iter().find(|(name, _)| *name == text);
        known.map(|(_, operation)| *operation).ok_or_else(|| {
            let names: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
            format!(
                "unknown operation `{text}`, expected one of {}",
                names.join(", ")
            )
        })
    }
}

impl Serialize for FaultOperation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for FaultOperation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_lead_back_to_their_operation() {
        for (index, (name, operation)) in NAMES.iter().enumerate() {
            assert_eq!(operation.name(), *name);
            assert_eq!(name.parse(), Ok(*operation));
            assert!(NAMES[index + 1..].iter().all(|(other, _)| other != name));
        }
        let unknown = "upsrt".parse::<FaultOperation>().unwrap_err();
        assert!(unknown.contains("`upsrt`") && unknown.contains("upsert, replace"));
    }

    #[test]
    fn groups_cover_their_members_and_never_a_bulk_item() {
        use FaultOperation as Op;
        assert!(Op::All.covers(None) && Op::All.covers(Some(Op::Bulk)));
        assert!(Op::Reads.covers(Some(Op::ChangeFeed)) && !Op::Reads.covers(Some(Op::Upsert)));
        assert!(Op::Writes.covers(Some(Op::Batch)) && !Op::Writes.covers(Some(Op::Read)));
        assert!(!Op::Writes.covers(None) && !Op::Create.covers(None));
        assert!(!Op::Reads.covers(Some(Op::Databases)) && !Op::Writes.covers(Some(Op::Offers)));
        for (_, operation) in NAMES {
            let item = operation.covers(Some(Op::BulkItem));
            assert_eq!(item, operation == Op::BulkItem, "{operation}");
        }
    }
}
