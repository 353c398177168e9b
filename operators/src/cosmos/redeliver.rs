//! Dead letters tried again, one document at a time through the SDK.
//!
//! A document is created, not upserted, unless it is to be overwritten. When there is one already, it is read: one that equals
//! the letter's is as good as written. That covers a create whose answer was lost, and a letter whose removal was.

use async_trait::async_trait;
use azure_data_cosmos::{CosmosError, PartitionKey};
use serde_json::Value;
use serde_json::value::RawValue;
use tidefeed_runtime::{Context, Error, ErrorKind, Fence, Result};

use super::container::Container;
use super::failure::Failure;
use super::point::{read, send};
use super::status::Disposition;
use crate::dead_letter::{DeadLetter, LetterAction, Redeliver, Redelivered};

/// A container for letters that are tried again.
#[derive(Clone, Debug)]
pub struct Redelivery {
    container: Container,
    fence: Fence,
}

impl Redelivery {
    /// Writes to `container` as long as `fence` is open.
    pub fn new(container: Container, fence: Fence) -> Self {
        Redelivery { container, fence }
    }

    async fn send<T, F>(
        &self,
        request: impl FnMut() -> F,
    ) -> Result<std::result::Result<T, Failure>>
    where
        F: Future<Output = std::result::Result<T, CosmosError>>,
    {
        send(&self.container, &self.fence, request).await
    }

    /// The document that the container holds, as the letter's document would be read.
    async fn held(&self, letter: &DeadLetter, key: &PartitionKey) -> Result<Option<Value>> {
        read(&self.container, &self.fence, key, &letter.id).await
    }

    async fn write(
        &self,
        letter: &DeadLetter,
        key: PartitionKey,
        overwrite: bool,
    ) -> Result<Redelivered> {
        let body = letter.body.as_deref().unwrap_or_default();
        let Ok(body) = serde_json::from_slice::<&RawValue>(body) else {
            return Ok(Redelivered::Refused(not_tried(
                letter,
                "its body is no JSON",
            )));
        };
        let client = self.container.client();
        let sent = match overwrite {
            true => {
                let upsert = || client.upsert_item(key.clone(), &letter.id, body, None);
                self.send(upsert).await?
            }
            false => {
                let create = || client.create_item(key.clone(), &letter.id, body, None);
                self.send(create).await?
            }
        };
        match sent {
            Ok(_) => Ok(Redelivered::Written),
            Err(failure) if failure.status == 409 && !overwrite => {
                let held = self.held(letter, &key).await?;
                let wanted: Value = serde_json::from_str(body.get())
                    .context(ErrorKind::Data, || format!("letter about {}", letter.id))?;
                Ok(match held {
                    Some(held) if held == wanted => Redelivered::Written,
                    // None: a unique key that another document has, or a document that has just expired.
                    Some(_) => Redelivered::Occupied,
                    None => Redelivered::Refused(self.refused(letter, failure)),
                })
            }
            Err(failure) => Ok(Redelivered::Refused(self.refused(letter, failure))),
        }
    }

    async fn delete(
        &self,
        letter: &DeadLetter,
        key: PartitionKey,
        overwrite: bool,
    ) -> Result<Redelivered> {
        if !overwrite {
            return Ok(match self.held(letter, &key).await? {
                Some(_) => Redelivered::Occupied,
                None => Redelivered::Written,
            });
        }
        let client = self.container.client();
        let delete = || client.delete_item(key.clone(), &letter.id, None);
        match self.send(delete).await? {
            Ok(_) => Ok(Redelivered::Written),
            Err(failure) if failure.disposition == Disposition::NoDocument => {
                Ok(Redelivered::Written)
            }
            Err(failure) => Ok(Redelivered::Refused(self.refused(letter, failure))),
        }
    }

    fn refused(&self, letter: &DeadLetter, failure: Failure) -> Error {
        failure.into_error(format!(
            "document {} is refused again by {}",
            letter.id, self.container
        ))
    }
}

fn not_tried(letter: &DeadLetter, why: &str) -> Error {
    Error::new(
        ErrorKind::Rejected,
        format!(
            "the letter about document {} cannot be replayed: {why}",
            letter.id
        ),
    )
}

#[async_trait]
impl Redeliver for Redelivery {
    async fn redeliver(&self, letter: &DeadLetter, overwrite: bool) -> Result<Redelivered> {
        let key = match self.container.keys().parse(&letter.partition_key) {
            Ok(key) => key,
            Err(error) => return Ok(Redelivered::Refused(error)),
        };
        match letter.action {
            LetterAction::Upsert | LetterAction::Create | LetterAction::Replace => {
                self.write(letter, key, overwrite).await
            }
            LetterAction::Delete => self.delete(letter, key, overwrite).await,
            LetterAction::Patch => {
                let why = "a patch fits only the document that it was made for; bring the container in line with --rebuild";
                Ok(Redelivered::Refused(not_tried(letter, why)))
            }
        }
    }
}
