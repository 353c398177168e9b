//! Letters in the checkpoint store of their job: a line of JSON with everything but the body, then the body as it is.

use std::sync::OnceLock;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use tidefeed_runtime::checkpoint::{LetterName, Letters};
use tidefeed_runtime::{Context, Error, ErrorKind, Fence, Result};

use super::{DeadLetter, DeadLetters, Entry, LetterBox, Listed, sort};

/// Letters in the checkpoint store of their job.
#[derive(Debug)]
pub struct StoredDeadLetters {
    letters: Letters,
    fence: OnceLock<Fence>,
}

/// Letters that are read or written at once: hides the latency of a remote store; a guess.
const IN_FLIGHT: usize = 8;

impl StoredDeadLetters {
    /// The letters of a job.
    pub fn new(letters: Letters) -> Self {
        StoredDeadLetters {
            letters,
            fence: OnceLock::new(),
        }
    }

    async fn read(&self, name: LetterName) -> Result<DeadLetter> {
        let content = self.letters.load(name).await?;
        let letter = decode(name, &content)?;
        if letter.name() == name {
            return Ok(letter);
        }
        let is = letter.name();
        Err(Error::new(
            ErrorKind::Checkpoint,
            format!("letter {name} holds the content of letter {is}: restore it from a copy"),
        ))
    }

    fn fenced(&self) -> Letters {
        match self.fence.get() {
            Some(fence) => self.letters.fenced(fence),
            None => self.letters.clone(),
        }
    }
}

#[async_trait]
impl DeadLetters for StoredDeadLetters {
    async fn put(&self, letters: &[DeadLetter]) -> Result<()> {
        let store = &self.fenced();
        let encoded = |letter: &DeadLetter| Ok((letter.name(), encode(letter)?));
        let contents = letters.iter().map(encoded).collect::<Result<Vec<_>>>()?;
        let puts = contents
            .into_iter()
            .map(|(name, content)| store.put(name, content));
        stream::iter(puts)
            .buffer_unordered(IN_FLIGHT)
            .try_collect()
            .await
    }

    fn guard(&self, fence: &Fence) {
        // Letters belong to one run, so there is nothing to replace.
        let _ = self.fence.set(fence.clone());
    }
}

#[async_trait]
impl LetterBox for StoredDeadLetters {
    async fn list(&self, only: Option<&[LetterName]>) -> Result<Vec<Entry>> {
        let mut names = self.letters.names().await?;
        names.retain(|name| only.is_none_or(|only| only.contains(name)));
        let loads = names.into_iter().map(|name| async move {
            let letter = self.read(name).await;
            (name, letter.map(Listed::of))
        });
        let mut letters: Vec<Entry> = stream::iter(loads).buffered(IN_FLIGHT).collect().await;
        sort(&mut letters);
        Ok(letters)
    }

    async fn load(&self, letter: &Listed) -> Result<DeadLetter> {
        self.read(letter.name).await
    }

    async fn remove(&self, letter: &Listed) -> Result<()> {
        self.fenced().remove(letter.name).await
    }
}

pub(super) fn encode(letter: &DeadLetter) -> Result<Bytes> {
    let mut content = serde_json::to_vec(letter).context(ErrorKind::Internal, || {
        format!("cannot encode the letter about document {}", letter.id)
    })?;
    content.push(b'\n');
    content.extend_from_slice(letter.body.as_deref().unwrap_or_default());
    Ok(content.into())
}

pub(super) fn decode(name: LetterName, content: &Bytes) -> Result<DeadLetter> {
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
