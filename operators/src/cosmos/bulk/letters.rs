//! Writes that the service refuses for good, on their way to the dead letters.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tidefeed_runtime::Result;

use super::operation::Action;
use super::output::Letter;
use crate::dead_letter::{DeadLetter, DeadLetters, LetterAction};

/// Where the letters of a writer go.
#[derive(Clone)]
pub(super) struct Letters {
    /// Whose they are.
    pub(super) sink: String,
    pub(super) place: Arc<dyn DeadLetters>,
}

impl Letters {
    /// Keeps a letter. It is durable when this returns `Ok`.
    ///
    /// # Errors
    /// When it could not be kept.
    pub(super) async fn put(&self, letter: &Letter) -> Result<()> {
        let letter = self.letter(letter, SystemTime::now());
        let id = letter.id.clone();
        let put = self.place.put(&[letter]).await;
        put.map_err(|error| {
            error.wrap(format!(
                "document {id} was refused, and its letter cannot be kept"
            ))
        })
    }

    fn letter(&self, letter: &Letter, now: SystemTime) -> DeadLetter {
        let (operation, refusal) = (&letter.operation, &letter.refusal);
        let action = match operation.action {
            Action::Upsert(_) => LetterAction::Upsert,
            Action::Create(_) => LetterAction::Create,
            Action::Replace(_) => LetterAction::Replace,
            Action::Patch { .. } => LetterAction::Patch,
            Action::Delete => LetterAction::Delete,
        };
        let at = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        DeadLetter {
            sink: self.sink.clone(),
            partition_key: operation.key.partition_key.to_string(),
            id: operation.key.id.to_string(),
            // A write may bring several epochs at once.
            epoch: None,
            action,
            status: refusal.status,
            sub_status: refusal.sub_status,
            message: refusal.message.to_string(),
            activity_id: refusal.activity_id.to_string(),
            at_ms: u64::try_from(at.as_millis()).unwrap_or(u64::MAX),
            body: operation.action.body().cloned(),
        }
    }
}
