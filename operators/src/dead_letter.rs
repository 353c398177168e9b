//! The port through which go the writes that can never succeed, and how they come back.
//!
//! ```text
//!     sink --write--> target --refused for good--> DeadLetters::put --durable--> acknowledged
//!                                                        |
//!                              deadletters list, show, replay --> Redeliver --> container, and the letter is removed
//! ```
//!
//! Letters are kept in the checkpoint store of their job ([`StoredDeadLetters`]), in a container
//! ([`ContainerDeadLetters`](crate::cosmos::ContainerDeadLetters)), or in memory for tests.
//!
//! # Rules
//!
//! 1. A refused write is acknowledged only when its letter is durable. A crash in between leaves the letter and an epoch that is
//!    not committed; the next run writes the document again, is refused again, and puts the same letter.
//! 2. A letter's name is a hash of sink, document, epoch, action and body. So there is one letter however often it is put, and
//!    whatever the server says the second time.
//! 3. A letter is removed only after its write is acknowledged ([`replay`]).
//! 4. Of several letters about one document only the newest is replayed. Those before it go with it.
//!
//! # Limits
//!
//! Replaying is for people. A letter does not know what became of its document since: by default it is written only if there
//! is no document of that key, so a newer value stays; but one that the view has deleted since comes back. Bringing the
//! whole container in line with its view (`--rebuild SINK`) is the way that is always right. A sink's letters have no epoch, as
//! a write may bring several at once: a document that is refused as X, then as Y and then as X again is replayed as Y.

mod memory;
mod stored;
#[cfg(test)]
mod tests;

pub use memory::MemoryDeadLetters;
pub use stored::StoredDeadLetters;

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tidefeed_runtime::checkpoint::LetterName;
use tidefeed_runtime::{Epoch, Error, Fence, Result};

/// What was to be done with a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LetterAction {
    /// Write it, whether it is there or not.
    Upsert,
    /// Write it if it is not there.
    Create,
    /// Write it if it is there.
    Replace,
    /// Change some of its properties; the body says which.
    Patch,
    /// Remove it; there is no body.
    Delete,
}

impl LetterAction {
    /// Its name, as letters and the command line have it.
    pub fn name(self) -> &'static str {
        match self {
            LetterAction::Upsert => "upsert",
            LetterAction::Create => "create",
            LetterAction::Replace => "replace",
            LetterAction::Patch => "patch",
            LetterAction::Delete => "delete",
        }
    }
}

/// A write that the service refuses for good, and what it said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeadLetter {
    /// The sink.
    pub sink: String,
    /// The document's partition key as a JSON array, for example `["EWR"]`.
    pub partition_key: String,
    /// The document's id.
    pub id: String,
    /// The epoch of the change, if the writer knows of epochs.
    pub epoch: Option<Epoch>,
    /// What was to be done.
    pub action: LetterAction,
    /// The HTTP status.
    pub status: u16,
    /// The service's sub-status, 0 for none.
    pub sub_status: u32,
    /// What the server said.
    pub message: String,
    /// The name of the attempt, for support.
    pub activity_id: String,
    /// Wall clock of the refusal, milliseconds since 1970.
    pub at_ms: u64,
    /// The document or patch as JSON; never empty.
    #[serde(skip)]
    pub body: Option<Bytes>,
}

impl DeadLetter {
    /// What the letter is called, whenever and however often it is put.
    pub fn name(&self) -> LetterName {
        let epoch = self.epoch.map(|epoch| epoch.0.to_le_bytes());
        LetterName::of([
            self.sink.as_bytes(),
            self.partition_key.as_bytes(),
            self.id.as_bytes(),
            epoch.as_ref().map_or(&[], |epoch| epoch.as_slice()),
            self.action.name().as_bytes(),
            self.body.as_deref().unwrap_or_default(),
        ])
    }
}

/// How many letters a minute may bring. More mean that something is wrong with all writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LetterRate {
    minute: u64,
    taken: u32,
}

impl LetterRate {
    /// Counts one more in the minute of `now`, a time since any one start; false if the minute has `most` already.
    pub(crate) fn take(&mut self, most: u32, now: Duration) -> bool {
        let minute = now.as_secs() / 60;
        if self.minute != minute {
            (self.minute, self.taken) = (minute, 0);
        }
        self.taken += 1;
        self.taken <= most
    }
}

/// Where letters go.
#[async_trait]
pub trait DeadLetters: Send + Sync + 'static {
    /// Keeps the letters. All of them are durable when it returns `Ok`; putting one again changes nothing.
    ///
    /// # Errors
    /// When not all of them could be kept. Then none of the writes they are about may be acknowledged.
    async fn put(&self, letters: &[DeadLetter]) -> Result<()>;

    /// Asked once, before the first letter: nothing may be kept once `fence` has closed (I7).
    ///
    /// The default does nothing, which is right where letters of a run that was fenced do no harm.
    fn guard(&self, _fence: &Fence) {}
}

/// A letter without its document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// What it is called.
    pub name: LetterName,
    /// The letter; its body is left out.
    #[serde(flatten)]
    pub letter: DeadLetter,
    /// Size of the body.
    pub body_bytes: usize,
}

impl Listed {
    /// What a listing shows of a letter.
    pub fn of(letter: DeadLetter) -> Self {
        Listed {
            name: letter.name(),
            body_bytes: letter.body.as_ref().map_or(0, Bytes::len),
            letter: DeadLetter {
                body: None,
                ..letter
            },
        }
    }
}

/// A letter's name, and the letter or why it cannot be read.
pub type Entry = (LetterName, Result<Listed>);

/// Letters that can be looked at and taken out again.
#[async_trait]
pub trait LetterBox: DeadLetters {
    /// The letters of these names, or all. What is not there is left out. Sorted by sink, epoch and time; those that cannot be
    /// read come last.
    ///
    /// # Errors
    /// When the letters cannot be listed.
    async fn list(&self, only: Option<&[LetterName]>) -> Result<Vec<Entry>>;

    /// A letter with its document.
    ///
    /// # Errors
    /// When it is gone or cannot be read, naming it.
    async fn load(&self, letter: &Listed) -> Result<DeadLetter>;

    /// Throws a letter away. One that is gone already counts as thrown away.
    ///
    /// # Errors
    /// When it could not be removed.
    async fn remove(&self, letter: &Listed) -> Result<()>;
}

/// Sorts as [`LetterBox::list`] says.
pub(crate) fn sort(letters: &mut [Entry]) {
    letters.sort_by(|(_, a), (_, b)| match (a, b) {
        (Ok(a), Ok(b)) => {
            let order = |listed: &Listed| (listed.letter.epoch, listed.letter.at_ms);
            let by_sink = a.letter.sink.cmp(&b.letter.sink);
            by_sink.then(order(a).cmp(&order(b)))
        }
        (a, b) => a.is_err().cmp(&b.is_err()),
    });
}

/// What became of a letter that was tried again.
#[derive(Debug)]
pub enum Redelivered {
    /// Its write is acknowledged, or the container was as if it were.
    Written,
    /// There is a document of that key, perhaps a newer one. Nothing was written.
    Occupied,
    /// It was refused again, or cannot be tried.
    Refused(Error),
}

/// A container in which letters are tried again. Nobody else writes to it meanwhile.
#[async_trait]
pub trait Redeliver: Send + Sync + 'static {
    /// Does what the letter says; with `overwrite` whatever the container holds, else only if it holds no document of that
    /// key. Passing faults are retried without limit.
    ///
    /// # Errors
    /// What stops all letters: the container is gone, the credentials are refused, another run holds the checkpoint.
    async fn redeliver(&self, letter: &DeadLetter, overwrite: bool) -> Result<Redelivered>;
}

/// What became of a letter.
#[derive(Debug)]
pub enum Replayed {
    /// Its write is acknowledged, and it is gone.
    Written,
    /// A newer one about the same document was written, and it is gone.
    Superseded,
    /// It is there still: the container holds a document of that key.
    Occupied,
    /// It is there still: its write was refused again.
    Refused(Error),
}

/// Tries the letters of one sink again, and removes those whose writes are acknowledged. Returns what became of each, in the
/// order in which they were tried. One document at a time is in memory.
///
/// # Errors
/// As [`Redeliver::redeliver`], and when a letter cannot be read or removed. Letters that were not written are there still,
/// and one that was written may be.
pub async fn replay(
    letters: &dyn LetterBox,
    chosen: Vec<Listed>,
    container: &dyn Redeliver,
    overwrite: bool,
) -> Result<Vec<(Listed, Replayed)>> {
    let mut by_document: BTreeMap<(String, String), Vec<Listed>> = BTreeMap::new();
    for listed in chosen {
        let letter = &listed.letter;
        let document = (letter.partition_key.clone(), letter.id.clone());
        by_document.entry(document).or_default().push(listed);
    }
    let mut done = Vec::new();
    for mut of_document in by_document.into_values() {
        of_document.sort_by_key(|listed| (listed.letter.epoch, listed.letter.at_ms));
        let Some(newest) = of_document.pop() else {
            continue;
        };
        let letter = letters.load(&newest).await?;
        let became = match container.redeliver(&letter, overwrite).await? {
            Redelivered::Written => Replayed::Written,
            Redelivered::Occupied => Replayed::Occupied,
            Redelivered::Refused(error) => Replayed::Refused(error),
        };
        if matches!(became, Replayed::Written) {
            // Oldest first: a crash midway must not leave an older one without the newer.
            for older in of_document {
                letters.remove(&older).await?;
                done.push((older, Replayed::Superseded));
            }
            letters.remove(&newest).await?;
        }
        done.push((newest, became));
    }
    Ok(done)
}
