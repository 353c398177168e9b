//! Known differences between the two servers, each with its reason and a script that shows it.
//!
//! A difference that is not here is a failure; an entry that no longer shows is one too.

use serde_json::json;

use crate::keys::Shape;
use crate::outcome::Outcome;
use crate::script::{Action, Operation, Tag, Write};

/// A known difference in the answer to one operation.
pub struct Known {
    pub name: &'static str,
    /// Why the server under test is right to differ, or why it does not matter.
    pub reason: &'static str,
    /// Status and sub-status of the server under test.
    pub ours: &'static str,
    /// Those of the oracle.
    pub oracle: &'static str,
    /// Whether both servers hold the same afterwards. If not, random scripts must not contain the operation.
    pub harmless: bool,
    /// Operations that it is about.
    pub applies: fn(&Action) -> bool,
    /// A script whose last operation shows it.
    pub witness: fn() -> Vec<Action>,
}

/// All of them.
pub const KNOWN: &[Known] = &[
    Known {
        name: "the sub-status of a wrong partition key",
        reason: "the service says 1001 when an item's key is not the one in the header; the oracle leaves it out",
        ours: "400/1001",
        oracle: "400",
        harmless: true,
        applies: |action| {
            matches!(
                action,
                Action::Write {
                    other_key: Some(_),
                    ..
                }
            )
        },
        witness: || {
            let mut write = upsert(0);
            if let Action::Write { other_key, .. } = &mut write {
                *other_key = Some(1);
            }
            vec![write]
        },
    },
    Known {
        name: "an upsert with If-None-Match: *",
        reason: "the service refuses it if the item exists; the oracle looks at the condition in batches only",
        ours: "412",
        oracle: "200",
        harmless: false,
        applies: |action| {
            matches!(
                action,
                Action::Write {
                    if_none_match: Some(_),
                    ..
                }
            )
        },
        witness: || {
            let mut second = upsert(1);
            if let Action::Write { if_none_match, .. } = &mut second {
                *if_none_match = Some(Tag::Any);
            }
            vec![upsert(0), second]
        },
    },
];

fn upsert(n: i32) -> Action {
    Action::Write {
        write: Write::Upsert,
        key: 0,
        id: "a",
        other_key: None,
        body: json!({"n": n}),
        if_match: None,
        if_none_match: None,
        content: false,
    }
}

impl Known {
    /// Whether this is the difference between two outcomes.
    pub fn explains(&self, action: &Action, ours: &Outcome, oracle: &Outcome) -> bool {
        (self.applies)(action) && ours.code() == self.ours && oracle.code() == self.oracle
    }

    /// The script that shows it.
    pub fn script(&self) -> Vec<Operation> {
        let shape = Shape::Single;
        (self.witness)()
            .into_iter()
            .map(|action| Operation { shape, action })
            .collect()
    }
}
