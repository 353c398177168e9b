//! Known differences between the two servers, each with its reason and a script that shows it.
//!
//! A difference that is not here is a failure; an entry that no longer shows is one too.

use serde_json::json;

use crate::actions::{batch, follow, query, upsert, write};
use crate::keys::Shape;
use crate::outcome::{Deliveries, Outcome};
use crate::script::{Action, Operation, Scope, Start, Step, Tag, Write, WriteItem};

/// A known difference in the answer to one operation.
pub struct Known {
    pub name: &'static str,
    /// Why the server under test is right to differ, or why it does not matter.
    pub reason: &'static str,
    pub effect: Effect,
    /// A script whose last operation shows it.
    pub witness: fn() -> Vec<Action>,
}

/// What becomes of operations that a known difference is about.
pub enum Effect {
    /// Random scripts contain them; this takes the difference, and nothing else, out of an outcome.
    Forgotten(fn(&Action, &mut Outcome)),
    /// Random scripts do not contain them: the servers would hold different items afterwards, or other differences would
    /// go unseen. These are the two outcomes, in short.
    Avoided {
        ours: &'static str,
        oracle: &'static str,
    },
}

/// Takes all known differences out of an outcome.
pub fn forget_all(action: &Action, outcome: &mut Outcome) {
    for known in KNOWN {
        if let Effect::Forgotten(forget) = known.effect {
            forget(action, outcome);
        }
    }
}

/// All of them.
pub const KNOWN: &[Known] = &[
    Known {
        name: "the sub-status of a wrong partition key",
        reason: "the service says 1001 when an item's key is not the one in the header; the oracle says nothing",
        effect: Effect::Forgotten(|action, outcome| {
            if let (
                Action::Write(WriteItem {
                    other_key: Some(_), ..
                }),
                Outcome::Failed {
                    status: 400, sub, ..
                },
            ) = (action, outcome)
            {
                *sub = 0
            }
        }),
        witness: || {
            let mut write = write(json!({}));
            write.other_key = Some(1);
            vec![Action::Write(write)]
        },
    },
    Known {
        name: "the status of a batch with a read that was not modified",
        reason: "the oracle says 207 although it carried the batch out; 304 is no failure of the batch",
        effect: Effect::Forgotten(|_, outcome| match outcome {
            Outcome::Batch { status, results } if results.iter().any(|(code, ..)| *code == 304) => {
                *status = 0
            }
            _ => {}
        }),
        witness: || {
            let if_none_match = Some(Tag::Current);
            vec![
                upsert(json!({})),
                batch(Step::Read {
                    id: "a",
                    if_none_match,
                }),
            ]
        },
    },
    Known {
        name: "the entity tag of a deletion in a batch",
        reason: "the oracle repeats the tag of the item that is gone; a deletion outside of a batch has none",
        effect: Effect::Forgotten(|_, outcome| {
            if let Outcome::Batch { results, .. } = outcome {
                for (_, tag, _) in results.iter_mut().filter(|(code, ..)| *code == 204) {
                    *tag = None;
                }
            }
        }),
        witness: || {
            vec![
                upsert(json!({})),
                batch(Step::Delete {
                    id: "a",
                    if_match: None,
                }),
            ]
        },
    },
    Known {
        name: "the lsn of a read that was not modified",
        reason: "the oracle leaves the header out; clients may use what is there",
        effect: Effect::Forgotten(|_, outcome| {
            if let Outcome::Point {
                status: 304, lsns, ..
            } = outcome
            {
                lsns.0 = None;
            }
        }),
        witness: || {
            let if_none_match = Some(Tag::Current);
            vec![
                upsert(json!({})),
                Action::Read {
                    key: 0,
                    id: "a",
                    if_none_match,
                },
            ]
        },
    },
    Known {
        name: "LSNs after a split or merge",
        reason: "the oracle counts a split as a change, and starts a merged partition anew; here LSNs only ever mean changes",
        effect: Effect::Forgotten(|_, outcome| {
            if let Outcome::Point {
                reshaped: true,
                lsns,
                ..
            } = outcome
            {
                *lsns = (None, None);
            }
        }),
        witness: || vec![Action::Split(3), upsert(json!({}))],
    },
    Known {
        name: "an undefined row",
        reason: "SELECT VALUE of something undefined has no row in the service, and a null in the oracle",
        effect: Effect::Forgotten(|action, outcome| match (action, outcome) {
            (Action::Query { query, .. }, Outcome::Rows(rows))
                if query.text.contains(" VALUE ") =>
            {
                rows.retain(|row| !row.is_null());
            }
            _ => {}
        }),
        witness: || vec![upsert(json!({})), query("SELECT VALUE c.none FROM c")],
    },
    Known {
        name: "a sum of nothing",
        reason: "SDKs add up the sums of partitions, so an empty one must give 0; the oracle gives nothing",
        effect: Effect::Forgotten(|action, outcome| match (action, outcome) {
            (Action::Query { query, .. }, Outcome::Rows(rows)) if query.text.contains(" SUM(") => {
                rows.retain(|row| *row != json!(0) && !row.is_null());
            }
            _ => {}
        }),
        witness: || vec![query("SELECT VALUE SUM(c.n) FROM c")],
    },
    Known {
        name: "where pages of a change feed end",
        reason: "the service never splits what one batch wrote; the oracle does",
        effect: Effect::Forgotten(|_, outcome| {
            if let Outcome::Moved { items } = outcome {
                *items = 0;
            }
        }),
        witness: || {
            let write = |id| Step::Write {
                write: Write::Create,
                id,
                body: json!({}),
                if_match: None,
            };
            let steps = vec![write("a"), write("b")];
            let read = |pages| follow(Scope::Key(0), Start::Beginning, 1, pages);
            vec![read(None), Action::Batch { key: 0, steps }, read(Some(1))]
        },
    },
    Known {
        name: "the change feed after a merge",
        reason: "the oracle counts the LSNs of a merged partition from 1: readers with a token repeat changes and miss others",
        effect: Effect::Forgotten(|_, outcome| {
            if let Outcome::Drained {
                fresh,
                settled,
                missed,
                merged: true,
            } = outcome
            {
                (*fresh, *settled, *missed) = (None, Deliveries::new(), None);
            }
        }),
        witness: || {
            let read = || follow(Scope::Full, Start::Beginning, 10, None);
            let mut script: Vec<Action> = (0..4).map(|n| upsert(json!({"n": n}))).collect();
            script.extend([
                read(),
                Action::Delete {
                    key: 0,
                    id: "a",
                    if_match: None,
                },
                upsert(json!({})),
            ]);
            script.extend([Action::Merge(0), Action::Merge(0), Action::Merge(0), read()]);
            script
        },
    },
    Known {
        name: "the change feed below a prefix of a hierarchical key",
        reason: "the oracle reads all partitions with one LSN: it returns too much, and then misses changes",
        effect: Effect::Avoided {
            ours: "drained 0",
            oracle: "drained 1",
        },
        witness: || {
            let mut elsewhere = write(json!({}));
            elsewhere.key = 3;
            vec![
                Action::Write(elsewhere),
                follow(Scope::Prefix(0), Start::Beginning, 10, None),
            ]
        },
    },
    Known {
        name: "an upsert with If-None-Match: *",
        reason: "the service refuses it if the item exists; the oracle looks at the condition in batches only",
        effect: Effect::Avoided {
            ours: "412",
            oracle: "200",
        },
        witness: || {
            let mut second = write(json!({}));
            second.if_none_match = Some(Tag::Any);
            vec![upsert(json!({})), Action::Write(second)]
        },
    },
    Known {
        name: "a change feed from a point in time",
        reason: "the oracle starts at the beginning",
        effect: Effect::Avoided {
            ours: "drained 0",
            oracle: "drained 1",
        },
        witness: || {
            vec![
                upsert(json!({})),
                follow(Scope::Full, Start::Future, 10, None),
            ]
        },
    },
    Known {
        name: "text between double quotes",
        reason: "it is a string in the service's grammar, and a property name in the oracle's",
        effect: Effect::Avoided {
            ours: "1 rows",
            oracle: "0 rows",
        },
        witness: || {
            vec![
                upsert(json!({"n": "b"})),
                query("SELECT * FROM c WHERE c.n = \"b\""),
            ]
        },
    },
    Known {
        name: "membership of something undefined",
        reason: "IN and BETWEEN with an undefined operand are undefined, and so is their negation; the oracle says false",
        effect: Effect::Avoided {
            ours: "0 rows",
            oracle: "1 rows",
        },
        witness: || {
            vec![
                upsert(json!({})),
                query("SELECT * FROM c WHERE NOT (c.none IN (1, 2))"),
            ]
        },
    },
    Known {
        name: "a sum of values that are not numbers",
        reason: "SUM and AVG of anything but numbers are undefined in the service; the oracle passes over it",
        effect: Effect::Avoided {
            ours: "0 rows",
            oracle: "1 rows",
        },
        witness: || {
            vec![
                upsert(json!({"n": "text"})),
                query("SELECT VALUE SUM(c.n) FROM c"),
            ]
        },
    },
    Known {
        name: "functions that the oracle lacks",
        reason: "STRINGEQUALS, IS_PRIMITIVE and IS_INTEGER exist in the service",
        effect: Effect::Avoided {
            ours: "1 rows",
            oracle: "400",
        },
        witness: || {
            vec![
                upsert(json!({"n": 1})),
                query("SELECT * FROM c WHERE IS_PRIMITIVE(c.n)"),
            ]
        },
    },
];

impl Known {
    /// The script that shows it.
    pub fn script(&self) -> Vec<Operation> {
        let actions = (self.witness)();
        let below_prefix = |action: &Action| {
            matches!(
                action,
                Action::Follow {
                    scope: Scope::Prefix(_),
                    ..
                }
            )
        };
        let shape = if actions.iter().any(below_prefix) {
            Shape::Hierarchical
        } else {
            Shape::Single
        };
        actions
            .into_iter()
            .map(|action| Operation { shape, action })
            .collect()
    }

    /// Whether two outcomes of the last operation of its script differ in this, and in nothing else.
    pub fn explains(&self, action: &Action, ours: &Outcome, oracle: &Outcome) -> bool {
        match self.effect {
            Effect::Forgotten(forget) => {
                let (mut left, mut right) = (ours.clone(), oracle.clone());
                forget(action, &mut left);
                forget(action, &mut right);
                ours != oracle && left == right
            }
            Effect::Avoided {
                ours: left,
                oracle: right,
            } => ours.code() == left && oracle.code() == right,
        }
    }
}
