//! Documents that go no further, kept as dead letters behind the frontier: rows of a view that share a key, documents of a source
//! that do not decode.
//!
//! # Rules
//!
//! 1. A document that comes in an epoch is kept as a letter of that epoch. Its epoch is held until the letter is durable (I4); a
//!    replay puts the same letters again, under the same names. What came by the commit that a run resumes from has its letter
//!    already.
//! 2. No letter leaves before the rebuilt views were compared with the commit (I8).
//! 3. More letters in a minute than are allowed end the run: then something is wrong with all documents, and a job must not
//!    drain into the dead letters.
//!
//! A letter stays when its document goes or is mended.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tidefeed_runtime::bridge::{Inbox, InboxSender, Tasks, Waker};
use tidefeed_runtime::dataflow::Report;
use tidefeed_runtime::{Epoch, Error, ErrorKind, Ledger, Result};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::Operator;

use crate::dead_letter::{DeadLetter, DeadLetters, LetterAction, LetterRate};
use crate::document::ViewDocument;

/// A document that is to be kept as a letter, and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Undelivered {
    /// The document.
    pub document: ViewDocument,
    /// Why it goes no further, one clause.
    pub why: Box<str>,
}

/// What stands before the name of a source in the letters about its documents.
pub const OF_SOURCE: &str = "source:";

/// Documents that come, or go again before their epoch is complete.
pub type UndeliveredUpdate = (Undelivered, u64, isize);

/// What keeps the letters of a sink or a source, on one worker.
#[derive(Clone)]
pub struct LetterParts {
    /// What the letters are said to be of: the sink's name, or [`OF_SOURCE`] and the source's.
    pub of: String,
    /// What is wrong when there are too many, and what to do; goes on after "more than 5".
    pub advice: &'static str,
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

/// Keeps documents that go no further as dead letters.
pub trait KeepLetters<'scope> {
    /// Returns no reports: only the stream's frontier counts, which passes an epoch when its letters are durable.
    fn keep_letters(self, parts: LetterParts) -> StreamVec<'scope, u64, Report>;
}

impl<'scope> KeepLetters<'scope> for StreamVec<'scope, u64, UndeliveredUpdate> {
    fn keep_letters(self, parts: LetterParts) -> StreamVec<'scope, u64, Report> {
        let name = format!("Letters: {}", parts.of);
        let scope = self.scope();
        type Nothing = CapacityContainerBuilder<Vec<Report>>;
        self.unary_frontier::<Nothing, _, _, _>(Pipeline, &name, move |_cap, info| {
            let address = info.address.to_vec();
            let waker = Waker::default();
            waker.attach(scope.worker().sync_activator_for(address.clone()));
            parts.ledger.wake_when_writable(waker);
            let (sender, kept) = Inbox::new(1);
            kept.attach(scope.worker().sync_activator_for(address));
            let mut letters = Letters {
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
                        if Epoch(time) <= letters.parts.resumed {
                            continue;
                        }
                        let new = || (cap.delayed(&time, 0), BTreeMap::new());
                        let (_, rows) = letters.waiting.entry(time).or_insert_with(new);
                        *rows.entry(document).or_default() += diff;
                    }
                });
                letters.acknowledge();
                letters.start(frontier.frontier().as_option().copied());
            }
        })
    }
}

/// Documents of one epoch by how often they came, and the capability that holds the epoch.
type Waiting = (Capability<u64>, BTreeMap<Undelivered, isize>);

struct Letters {
    parts: LetterParts,
    rate: LetterRate,
    begun: Instant,
    sender: InboxSender<Result<()>>,
    kept: Inbox<Result<()>>,
    waiting: BTreeMap<u64, Waiting>,
    under_way: Option<Vec<Capability<u64>>>,
}

impl Letters {
    fn acknowledge(&mut self) {
        match self.kept.try_next() {
            Some(Ok(())) => self.under_way = None,
            // The capabilities stay: these letters are not durable.
            Some(Err(error)) => self.fail(error),
            None => {}
        }
    }

    fn fail(&self, error: Error) {
        let error = error.wrap(format!("cannot keep the dead letters of {}", self.parts.of));
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
                format!("more than {most} {}", self.parts.advice),
            ));
        }
        if !letters.is_empty() {
            self.under_way = Some(caps);
            self.parts.put(letters, self.sender.clone());
        }
    }
}

impl LetterParts {
    fn letter(&self, epoch: Epoch, undelivered: Undelivered) -> DeadLetter {
        let Undelivered { document, why } = undelivered;
        let at = SystemTime::now().duration_since(UNIX_EPOCH);
        let at = at.unwrap_or_default().as_millis();
        DeadLetter {
            sink: self.of.clone(),
            partition_key: document.partition_key.into(),
            id: document.id.into(),
            epoch: Some(epoch),
            action: LetterAction::Upsert,
            status: 0,
            sub_status: 0,
            message: why.into(),
            activity_id: String::new(),
            at_ms: u64::try_from(at).unwrap_or(u64::MAX),
            body: Some(Bytes::from(document.body)),
        }
    }

    fn put(&self, letters: Vec<DeadLetter>, sender: InboxSender<Result<()>>) {
        let place = Arc::clone(&self.letters);
        let fence = self.ledger.fence().clone();
        let name = format!("the dead letters of {}", self.of);
        let put = async move { fence.guard(place.put(&letters)).await.and_then(|put| put) };
        self.tasks.spawn_into(name, sender, put);
    }
}
