//! Dead letters in a container, for whoever wants to query them or to keep those of several jobs in one place.
//!
//! ```text
//! {"id": "JOB.NAME", "job": JOB, "sink": SINK, "letter": {..}, "body": "the document as text", "body_bytes": n, "pieces": 0}
//! ```
//!
//! The partition key is `/sink`. A body is text, because the service has refused it as a document. A long one, which is what is
//! refused most, does not fit into a document either: its text is in pieces then, documents of their own called `JOB.NAME.0`
//! and so on. They are written before the letter, which says how many there are; so a letter that is there is whole.
//!
//! Everything is created and never overwritten. What exists has the same content, because its name is a hash of it.
//!
//! Limits: a letter that is removed in the middle of a crash can leave pieces behind; they show in no listing. Listing reads the
//! whole container. A sink has room for 20 GB of letters.

use std::sync::OnceLock;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tidefeed_runtime::checkpoint::LetterName;
use tidefeed_runtime::{Context, Error, ErrorKind, Fence, Result};

use super::container::Container;
use super::indexing::Indexing;
use super::point::send;
use super::provision::ContainerSpec;
use super::reader::CosmosReader;
use super::status::Disposition;
use crate::dead_letter::{DeadLetter, DeadLetters, Entry, LetterBox, Listed, sort};
use crate::document::partition_key_json;

/// The path of the partition key.
const PARTITION_KEY: &str = "/sink";
/// Bytes of text in a document. In a JSON string it is twice as much at most, since JSON has no bare control characters but
/// ends of lines; the service's limit is 2 MB.
const PIECE_BYTES: usize = 512 * 1024;

/// The dead letters of a job in a container.
#[derive(Debug)]
pub struct ContainerDeadLetters {
    container: Container,
    job: String,
    fence: OnceLock<Fence>,
}

/// A letter as it is stored.
#[derive(Serialize, Deserialize)]
struct Document {
    id: String,
    job: String,
    sink: String,
    /// Of a piece there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    letter: Option<DeadLetter>,
    #[serde(default)]
    body: String,
    #[serde(default)]
    body_bytes: usize,
    #[serde(default)]
    pieces: usize,
}

impl ContainerDeadLetters {
    /// What the container has to be. Texts of documents are not indexed.
    pub fn spec(database: impl Into<String>, container: impl Into<String>) -> ContainerSpec {
        ContainerSpec {
            indexing: Some(Indexing::Paths {
                included: vec!["/*".to_owned()],
                excluded: vec!["/body/?".to_owned()],
            }),
            ..ContainerSpec::new(database, container, PARTITION_KEY)
        }
    }

    /// The letters of `job` in `container`, which is as [`spec`](Self::spec) says.
    pub fn new(container: Container, job: impl Into<String>) -> Self {
        ContainerDeadLetters {
            container,
            job: job.into(),
            fence: OnceLock::new(),
        }
    }

    fn id_of(&self, name: LetterName) -> String {
        format!("{}.{name}", self.job)
    }

    fn fence(&self) -> Fence {
        self.fence.get().cloned().unwrap_or_default()
    }

    fn failed(&self, doing: &str, id: &str) -> String {
        format!("cannot {doing} letter {id} in {}", self.container)
    }

    /// Creates a document. That it exists already is as good.
    async fn create(&self, document: &Document) -> Result<()> {
        let key = self.container.keys().parse(&key_of(&document.sink))?;
        let client = self.container.client();
        let create = || client.create_item(key.clone(), &document.id, document, None);
        match send(&self.container, &self.fence(), create).await? {
            Err(failure) if failure.status != 409 => {
                Err(failure.into_error(self.failed("write", &document.id)))
            }
            _ => Ok(()),
        }
    }

    /// A document, `None` if it is not there.
    async fn read(&self, sink: &str, id: &str) -> Result<Option<Document>> {
        let key = self.container.keys().parse(&key_of(sink))?;
        let client = self.container.client();
        let read = || client.read_item(key.clone(), id, None);
        match send(&self.container, &self.fence(), read).await? {
            Ok(answer) => {
                let unreadable = |_| {
                    let context = format!("letter {id} in {} is damaged", self.container);
                    Error::new(ErrorKind::Checkpoint, context)
                };
                answer.into_model().map(Some).map_err(unreadable)
            }
            Err(failure) if failure.disposition == Disposition::NoDocument => Ok(None),
            Err(failure) => Err(failure.into_error(self.failed("read", id))),
        }
    }

    async fn delete(&self, sink: &str, id: &str) -> Result<()> {
        let key = self.container.keys().parse(&key_of(sink))?;
        let client = self.container.client();
        let delete = || client.delete_item(key.clone(), id, None);
        match send(&self.container, &self.fence(), delete).await? {
            Err(failure) if failure.disposition != Disposition::NoDocument => {
                Err(failure.into_error(self.failed("remove", id)))
            }
            _ => Ok(()),
        }
    }

    fn missing(&self, id: &str) -> Error {
        Error::new(
            ErrorKind::Checkpoint,
            format!("letter {id} is missing or not whole in {}", self.container),
        )
    }

    async fn put_one(&self, letter: &DeadLetter) -> Result<()> {
        let id = self.id_of(letter.name());
        let body = letter.body.as_deref().unwrap_or_default();
        let text = std::str::from_utf8(body).context(ErrorKind::Data, || {
            format!("the document of letter {id} is no JSON")
        })?;
        let document = |id: String, body: &str| Document {
            id,
            job: self.job.clone(),
            sink: letter.sink.clone(),
            letter: None,
            body: body.to_owned(),
            body_bytes: body.len(),
            pieces: 0,
        };
        let (mut own, mut pieces) = (text, 0);
        if text.len() > PIECE_BYTES {
            own = "";
            for piece in split(text) {
                self.create(&document(piece_id(&id, pieces), piece)).await?;
                pieces += 1;
            }
        }
        let listed = Listed::of(letter.clone());
        self.create(&Document {
            letter: Some(listed.letter),
            body_bytes: listed.body_bytes,
            pieces,
            ..document(id, own)
        })
        .await
    }
}

fn key_of(sink: &str) -> String {
    partition_key_json([sink.into()])
}

fn piece_id(id: &str, number: usize) -> String {
    format!("{id}.{number}")
}

/// Pieces of at most so many bytes, cut between characters.
fn split(mut text: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    while !text.is_empty() {
        let mut end = text.len().min(PIECE_BYTES);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let (piece, rest) = text.split_at(end);
        pieces.push(piece);
        text = rest;
    }
    pieces
}

#[async_trait]
impl DeadLetters for ContainerDeadLetters {
    async fn put(&self, letters: &[DeadLetter]) -> Result<()> {
        for letter in letters {
            self.put_one(letter).await?;
        }
        Ok(())
    }

    fn guard(&self, fence: &Fence) {
        // Letters belong to one run, so there is nothing to replace.
        let _ = self.fence.set(fence.clone());
    }
}

#[async_trait]
impl LetterBox for ContainerDeadLetters {
    async fn list(&self, only: Option<&[LetterName]>) -> Result<Vec<Entry>> {
        let mut entries: Vec<Entry> = Vec::new();
        let reader = CosmosReader::new(self.container.clone());
        reader
            .for_each(|_, body| {
                entries.extend(entry(&self.job, body));
                Ok(())
            })
            .await?;
        entries.retain(|(name, _)| only.is_none_or(|only| only.contains(name)));
        sort(&mut entries);
        Ok(entries)
    }

    async fn load(&self, letter: &Listed) -> Result<DeadLetter> {
        let (sink, id) = (&letter.letter.sink, self.id_of(letter.name));
        let document = self.read(sink, &id).await?;
        let document = document.ok_or_else(|| self.missing(&id))?;
        let mut body = document.body;
        for number in 0..document.pieces {
            let piece_id = piece_id(&id, number);
            let piece = self.read(sink, &piece_id).await?;
            body += &piece.ok_or_else(|| self.missing(&piece_id))?.body;
        }
        let found = document.letter.ok_or_else(|| self.missing(&id))?;
        let found = DeadLetter {
            body: (!body.is_empty()).then(|| body.into()),
            ..found
        };
        match found.name() == letter.name {
            true => Ok(found),
            false => Err(self.missing(&id)),
        }
    }

    async fn remove(&self, letter: &Listed) -> Result<()> {
        let (sink, id) = (&letter.letter.sink, self.id_of(letter.name));
        let Some(document) = self.read(sink, &id).await? else {
            return Ok(());
        };
        self.delete(sink, &id).await?;
        for number in 0..document.pieces {
            self.delete(sink, &piece_id(&id, number)).await?;
        }
        Ok(())
    }
}

/// What a document says; `None` for a piece, another job's letter, and what is no letter at all.
fn entry(job: &str, document: &[u8]) -> Option<Entry> {
    let members: serde_json::Value = serde_json::from_slice(document).ok()?;
    let id = members["id"].as_str()?.strip_prefix(job)?;
    let name: LetterName = id.strip_prefix('.')?.parse().ok()?;
    let document: Result<Document> = serde_json::from_value(members)
        .context(ErrorKind::Checkpoint, || {
            format!("letter {name} is damaged")
        });
    let listed = document.and_then(|document| {
        let body_bytes = document.body_bytes;
        let letter = document.letter.ok_or_else(|| {
            Error::new(ErrorKind::Checkpoint, format!("letter {name} is damaged"))
        })?;
        Ok(Listed {
            name,
            letter,
            body_bytes,
        })
    });
    Some((name, listed))
}
