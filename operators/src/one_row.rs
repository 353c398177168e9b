//! At most one row under each key of a view: of several rows that share a partition key and an id one is the document, and the
//! others are dead letters.
//!
//! ```text
//!     documents --one_row_each--> the row that stays --> upsert_documents
//!                      `--------> surplus rows -------> keep_surplus --> dead letters
//! ```
//!
//! # Rules
//!
//! 1. The row whose JSON is the smallest stays. That depends on the rows alone, so every run agrees, and when it goes the next
//!    one takes its place.
//! 2. A row that becomes surplus in an epoch is kept as a dead letter of that epoch. Its epoch is held until the letter is
//!    durable (I4); a replay puts the same letters again, under the same names. What was surplus at the commit that a run
//!    resumes from has its letter already.
//! 3. No letter leaves before the rebuilt views were compared with the commit (I8).
//! 4. More letters in a minute than are allowed end the run: then something is wrong with all rows, and a view must not drain
//!    into the dead letters.
//!
//! A letter stays when its row goes or becomes the document. It costs an arrangement of the view: its rows, in memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use differential_dataflow::AsCollection;
use serde::Deserialize;
use tidefeed_runtime::bridge::{Inbox, InboxSender, Tasks, Waker};
use tidefeed_runtime::dataflow::Report;
use tidefeed_runtime::{Epoch, Error, ErrorKind, Ledger, Result};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::Operator;
use timely::dataflow::operators::vec::Partition;

use crate::dead_letter::{DeadLetter, DeadLetters, LetterAction, LetterRate};
use crate::document::ViewDocument;
use crate::fold::ViewUpdate;

type Key = (Box<str>, Box<str>);
type Body = Box<[u8]>;
/// A row by its key, and whether it stays.
type Ranked = ((Key, (Body, bool)), u64, isize);

/// Splits a view's documents: one row under each key, and the surplus ones.
pub fn one_row_each<'scope>(
    documents: StreamVec<'scope, u64, ViewUpdate>,
) -> (
    StreamVec<'scope, u64, ViewUpdate>,
    StreamVec<'scope, u64, ViewUpdate>,
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
    both.expect("two parts were asked for")
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

/// What keeps the surplus rows of a sink, on one worker.
#[derive(Clone)]
pub struct SurplusParts {
    /// The sink's name.
    pub sink: String,
    /// Where the letters go.
    pub letters: Arc<dyn DeadLetters>,
    /// The most letters of a minute, for each worker.
    pub per_minute: u32,
    /// Runs the puts.
    pub tasks: Tasks,
    /// The epoch of the commit that the run resumes from; 0 on a fresh start.
    pub resumed: Epoch,
    /// The process's ledger.
    pub ledger: Ledger,
}

/// Keeps surplus rows as dead letters.
pub trait KeepSurplus<'scope> {
    /// Returns no reports: only the stream's frontier counts, which passes an epoch when its letters are durable.
    fn keep_surplus(self, parts: SurplusParts) -> StreamVec<'scope, u64, Report>;
}

impl<'scope> KeepSurplus<'scope> for StreamVec<'scope, u64, ViewUpdate> {
    fn keep_surplus(self, parts: SurplusParts) -> StreamVec<'scope, u64, Report> {
        let name = format!("Surplus: {}", parts.sink);
        let scope = self.scope();
        type Nothing = CapacityContainerBuilder<Vec<Report>>;
        self.unary_frontier::<Nothing, _, _, _>(Pipeline, &name, move |_cap, info| {
            let address = info.address.to_vec();
            let waker = Waker::default();
            waker.attach(scope.worker().sync_activator_for(address.clone()));
            parts.ledger.wake_when_writable(waker);
            let (sender, kept) = Inbox::new(1);
            kept.attach(scope.worker().sync_activator_for(address));
            let mut surplus = Surplus {
                rate: LetterRate::default(),
                begun: Instant::now(),
                parts,
                sender,
                kept,
                waiting: BTreeMap::new(),
                under_way: None,
            };
            move |(input, frontier), _output| {
                input.for_each(|cap, updates| {
                    for (document, time, diff) in updates.drain(..) {
                        // Has its letter. Not held either: the views can only be verified when nobody holds such an epoch.
                        if Epoch(time) <= surplus.parts.resumed {
                            continue;
                        }
                        let new = || (cap.delayed(&time, 0), BTreeMap::new());
                        let (_, rows) = surplus.waiting.entry(time).or_insert_with(new);
                        *rows.entry(document).or_default() += diff;
                    }
                });
                surplus.acknowledge();
                surplus.start(frontier.frontier().as_option().copied());
            }
        })
    }
}

/// Surplus rows of one epoch by how often they came, and the capability that holds the epoch.
type Waiting = (Capability<u64>, BTreeMap<ViewDocument, isize>);

struct Surplus {
    parts: SurplusParts,
    rate: LetterRate,
    begun: Instant,
    sender: InboxSender<Result<()>>,
    kept: Inbox<Result<()>>,
    waiting: BTreeMap<u64, Waiting>,
    under_way: Option<Vec<Capability<u64>>>,
}

impl Surplus {
    fn acknowledge(&mut self) {
        match self.kept.try_next() {
            Some(Ok(())) => self.under_way = None,
            // The capabilities stay: these letters are not durable.
            Some(Err(error)) => self.fail(error),
            None => {}
        }
    }

    fn fail(&self, error: Error) {
        let sink = &self.parts.sink;
        let error = error.wrap(format!("cannot keep surplus rows of sink {sink}"));
        self.parts.ledger.fail(error);
    }

    /// Keeps the letters of the epochs that are complete.
    fn start(&mut self, bound: Option<u64>) {
        let ledger = &self.parts.ledger;
        if self.under_way.is_some() || !ledger.writable() || ledger.stopped() {
            return;
        }
        let later = bound.map_or_else(BTreeMap::new, |bound| self.waiting.split_off(&bound));
        let complete = std::mem::replace(&mut self.waiting, later);
        let (mut caps, mut letters) = (Vec::new(), Vec::new());
        for (epoch, (cap, rows)) in complete {
            let came = rows.into_iter().filter(|(_, count)| *count > 0);
            letters.extend(came.map(|(row, _)| self.parts.letter(Epoch(epoch), row)));
            caps.push(cap);
        }
        let most = self.parts.per_minute;
        let now = self.begun.elapsed();
        if !letters.iter().all(|_| self.rate.take(most, now)) {
            return self.fail(Error::new(
                ErrorKind::Data,
                format!(
                    "more than {most} rows in a minute share their key with another row: make the ids unique, or allow more \
                     dead letters"
                ),
            ));
        }
        if !letters.is_empty() {
            self.under_way = Some(caps);
            self.parts.put(letters, self.sender.clone());
        }
    }
}

impl SurplusParts {
    fn letter(&self, epoch: Epoch, row: ViewDocument) -> DeadLetter {
        let at = SystemTime::now().duration_since(UNIX_EPOCH);
        let at = at.unwrap_or_default().as_millis();
        tracing::warn!(
            sink = self.sink,
            id = &*row.id,
            partition_key = &*row.partition_key,
            "another row of the view has the same key: this one goes to the dead letters"
        );
        DeadLetter {
            sink: self.sink.clone(),
            partition_key: row.partition_key.into(),
            id: row.id.into(),
            epoch: Some(epoch),
            action: LetterAction::Upsert,
            status: 0,
            sub_status: 0,
            message: "another row of the view has this partition key and id".to_owned(),
            activity_id: String::new(),
            at_ms: u64::try_from(at).unwrap_or(u64::MAX),
            body: Some(Bytes::from(row.body)),
        }
    }

    fn put(&self, letters: Vec<DeadLetter>, sender: InboxSender<Result<()>>) {
        let place = Arc::clone(&self.letters);
        let fence = self.ledger.fence().clone();
        let name = format!("the surplus rows of sink {}", self.sink);
        let put = async move { fence.guard(place.put(&letters)).await.and_then(|put| put) };
        self.tasks.spawn_into(name, sender, put);
    }
}
