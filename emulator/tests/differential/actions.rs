//! Short ways to write operations by hand.

use serde_json::Value;

use crate::query::QueryText;
use crate::script::{Action, Scope, Start, Step, Write, WriteItem};

/// Moves a reader of the change feed on.
pub fn follow(scope: Scope, start: Start, page: u32, pages: Option<usize>) -> Action {
    Action::Follow {
        scope,
        start,
        page,
        pages,
    }
}

/// A batch of one operation.
pub fn batch(step: Step) -> Action {
    Action::Batch {
        key: 0,
        steps: vec![step],
    }
}

/// A query of the first key.
pub fn query(text: &str) -> Action {
    Action::Query {
        scope: Scope::Key(0),
        query: QueryText::plain(text),
        page: 100,
    }
}

/// An upsert of the item `a` under the first key.
pub fn upsert(body: Value) -> Action {
    Action::Write(write(body))
}

/// The same, to be changed.
pub fn write(body: Value) -> WriteItem {
    WriteItem {
        write: Write::Upsert,
        key: 0,
        id: "a",
        other_key: None,
        body,
        if_match: None,
        if_none_match: None,
        content: false,
    }
}
