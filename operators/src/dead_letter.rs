//! The port through which go the writes that can never succeed, and how they come back.
//!
//! ```text
//!     sink --write--> target --refused for good--> DeadLetters::put --durable--> acknowledged
//!                                                        |
//!                              deadletters list, show, replay --> Redeliver --> container, and the letter is removed
//! ```
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
//! whole container in line with its view (`--rebuild SINK`) is the way that is always right.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tidefeed_runtime::checkpoint::{LetterName, Letters};
use tidefeed_runtime::{Context, Epoch, Error, ErrorKind, Fence, Result};

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

    /// A line of JSON with everything but the body, then the body as it is.
    fn encode(&self) -> Result<Bytes> {
        let mut content = serde_json::to_vec(self).context(ErrorKind::Internal, || {
            format!("cannot encode the letter about document {}", self.id)
        })?;
        content.push(b'\n');
        content.extend_from_slice(self.body.as_deref().unwrap_or_default());
        Ok(content.into())
    }

    fn decode(name: LetterName, content: &Bytes) -> Result<Self> {
        let unreadable = || {
            format!(
                "letter {name} is of another version or damaged: look at it with the version that wrote it"
            )
        };
        let line = content.iter().position(|byte| *byte == b'\n');
        let line = line.ok_or_else(|| Error::new(ErrorKind::Checkpoint, unreadable()))?;
        let letter: DeadLetter =
            serde_json::from_slice(&content[..line]).context(ErrorKind::Checkpoint, unreadable)?;
        let body = content.slice(line + 1..);
        Ok(DeadLetter {
            body: (!body.is_empty()).then_some(body),
            ..letter
        })
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

/// Letters in the checkpoint store of their job.
#[derive(Debug)]
pub struct StoredDeadLetters {
    letters: Letters,
    fence: std::sync::OnceLock<Fence>,
}

/// Letters that are written at once: hides the latency of a remote store; a guess.
const PUTS_IN_FLIGHT: usize = 8;

impl StoredDeadLetters {
    /// The letters of a job.
    pub fn new(letters: Letters) -> Self {
        StoredDeadLetters {
            letters,
            fence: std::sync::OnceLock::new(),
        }
    }

    /// Every letter there is, by name, or why it cannot be read. Sorted by sink, epoch and time; those that cannot be read
    /// come last.
    ///
    /// # Errors
    /// When the store cannot be listed.
    pub async fn list(&self) -> Result<Vec<(LetterName, Result<DeadLetter>)>> {
        let names = self.letters.names().await?;
        let loads = names.into_iter().map(|name| async move {
            let letter = self.load(name).await;
            (name, letter)
        });
        let mut letters: Vec<_> = stream::iter(loads).buffered(PUTS_IN_FLIGHT).collect().await;
        letters.sort_by(|(_, a), (_, b)| match (a, b) {
            (Ok(a), Ok(b)) => (&a.sink, a.epoch, a.at_ms).cmp(&(&b.sink, b.epoch, b.at_ms)),
            (a, b) => a.is_err().cmp(&b.is_err()),
        });
        Ok(letters)
    }

    /// One letter.
    ///
    /// # Errors
    /// `Checkpoint` when there is no such letter or it cannot be read, naming it.
    pub async fn load(&self, name: LetterName) -> Result<DeadLetter> {
        let content = self.letters.load(name).await?;
        let letter = DeadLetter::decode(name, &content)?;
        if letter.name() == name {
            return Ok(letter);
        }
        let is = letter.name();
        Err(Error::new(
            ErrorKind::Checkpoint,
            format!("letter {name} holds the content of letter {is}: restore it from a copy"),
        ))
    }
}

#[async_trait]
impl DeadLetters for StoredDeadLetters {
    async fn put(&self, letters: &[DeadLetter]) -> Result<()> {
        let store = match self.fence.get() {
            Some(fence) => &self.letters.fenced(fence),
            None => &self.letters,
        };
        let encoded = |letter: &DeadLetter| Ok((letter.name(), letter.encode()?));
        let contents = letters.iter().map(encoded).collect::<Result<Vec<_>>>()?;
        let puts = contents
            .into_iter()
            .map(|(name, content)| store.put(name, content));
        stream::iter(puts)
            .buffer_unordered(PUTS_IN_FLIGHT)
            .try_collect()
            .await
    }

    fn guard(&self, fence: &Fence) {
        // Letters belong to one run, so there is nothing to replace.
        let _ = self.fence.set(fence.clone());
    }
}

/// Letters in memory, for tests.
#[derive(Debug, Default)]
pub struct MemoryDeadLetters(Mutex<BTreeMap<LetterName, DeadLetter>>);

impl MemoryDeadLetters {
    /// Every letter there is.
    pub fn letters(&self) -> Vec<DeadLetter> {
        self.0.lock().values().cloned().collect()
    }
}

#[async_trait]
impl DeadLetters for MemoryDeadLetters {
    async fn put(&self, letters: &[DeadLetter]) -> Result<()> {
        let mut kept = self.0.lock();
        for letter in letters {
            kept.entry(letter.name()).or_insert_with(|| letter.clone());
        }
        Ok(())
    }
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
/// order in which they were tried.
///
/// # Errors
/// As [`Redeliver::redeliver`], and when a letter cannot be removed. Letters that were not written are there still, and one
/// that was written may be.
pub async fn replay(
    letters: &Letters,
    chosen: Vec<DeadLetter>,
    container: &dyn Redeliver,
    overwrite: bool,
) -> Result<Vec<(DeadLetter, Replayed)>> {
    let mut by_document: BTreeMap<(String, String), Vec<DeadLetter>> = BTreeMap::new();
    for letter in chosen {
        let document = (letter.partition_key.clone(), letter.id.clone());
        by_document.entry(document).or_default().push(letter);
    }
    let mut done = Vec::new();
    for mut of_document in by_document.into_values() {
        of_document.sort_by_key(|letter| (letter.epoch, letter.at_ms));
        let Some(newest) = of_document.pop() else {
            continue;
        };
        let became = match container.redeliver(&newest, overwrite).await? {
            Redelivered::Written => Replayed::Written,
            Redelivered::Occupied => Replayed::Occupied,
            Redelivered::Refused(error) => Replayed::Refused(error),
        };
        if matches!(became, Replayed::Written) {
            // Oldest first: a crash midway must not leave an older one without the newer.
            for older in of_document {
                letters.remove(older.name()).await?;
                done.push((older, Replayed::Superseded));
            }
            letters.remove(newest.name()).await?;
        }
        done.push((newest, became));
    }
    Ok(done)
}

#[cfg(test)]
mod tests;
