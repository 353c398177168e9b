//! At most one row under each key of a view: of several rows that share a partition key and an id one is the document, and the
//! others are dead letters.
//!
//! ```text
//!     documents --one_row_each--> the row that stays --> upsert_documents
//!                      `--------> surplus rows -------> keep_letters --> dead letters
//! ```
//!
//! # Rules
//!
//! 1. The row whose JSON is the smallest stays. That depends on the rows alone, so every run agrees, and when it goes the next
//!    one takes its place.
//! 2. A row that becomes surplus in an epoch is kept as a dead letter of that epoch: see [`letters`](crate::letters).
//!
//! A letter stays when its row goes or becomes the document. It costs an arrangement of the view: its rows, in memory.

use differential_dataflow::AsCollection;
use serde::Deserialize;
use timely::dataflow::StreamVec;
use timely::dataflow::operators::vec::{Map, Partition};

use crate::document::ViewDocument;
use crate::fold::ViewUpdate;
use crate::letters::{Undelivered, UndeliveredUpdate};

type Key = (Box<str>, Box<str>);
type Body = Box<[u8]>;
/// A row by its key, and whether it stays.
type Ranked = ((Key, (Body, bool)), u64, isize);

/// Splits a view's documents: one row under each key, and the surplus ones.
pub fn one_row_each<'scope>(
    documents: StreamVec<'scope, u64, ViewUpdate>,
) -> (
    StreamVec<'scope, u64, ViewUpdate>,
    StreamVec<'scope, u64, UndeliveredUpdate>,
) {
    let by_key = |document: ViewDocument| ((document.partition_key, document.id), document.body);
    let ranked = documents.as_collection().map(by_key).reduce_named(
        "OneRow",
        |_key: &Key, rows: &[(&Body, isize)], ranked: &mut Vec<((Body, bool), isize)>| {
            // In the order of their JSON.
            let mut taken = 0;
            for (body, count) in rows.iter().filter(|(_, count)| *count > 0) {
                let stays = isize::from(taken == 0);
                ranked.extend((stays > 0).then(|| (((*body).clone(), true), 1)));
                let surplus = count - stays;
                ranked.extend((surplus > 0).then(|| (((*body).clone(), false), surplus)));
                taken += count;
            }
        },
    );
    let split = |(((partition_key, id), (body, stays)), time, diff): Ranked| {
        let document = ViewDocument {
            partition_key,
            id,
            position: 0,
            body,
        };
        (u64::from(!stays), (document, time, diff))
    };
    let mut parts = ranked.inner.partition(2, split).into_iter();
    let both = parts.next().zip(parts.next());
    let (kept, surplus) = both.expect("two parts were asked for");
    let surplus = surplus.map(|(document, time, diff)| {
        let why = "another row of the view has this partition key and id".into();
        (Undelivered { document, why }, time, diff)
    });
    (kept, surplus)
}

/// What becomes of rows of a view that share a partition key and an id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DuplicateRows {
    /// They end the run before anything of them is written. Costs 16 bytes and a count for each document.
    #[default]
    Fail,
    /// The row whose JSON is the smallest is the document, the others are dead letters. Costs the view's rows in memory.
    DeadLetters,
}
