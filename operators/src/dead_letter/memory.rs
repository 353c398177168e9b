//! Letters in memory, for tests.

use std::collections::BTreeMap;

use async_trait::async_trait;
use parking_lot::Mutex;
use tidefeed_runtime::checkpoint::LetterName;
use tidefeed_runtime::{Error, ErrorKind, Result};

use super::{DeadLetter, DeadLetters, Entry, LetterBox, Listed, sort};

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

#[async_trait]
impl LetterBox for MemoryDeadLetters {
    async fn list(&self, only: Option<&[LetterName]>) -> Result<Vec<Entry>> {
        let letters = self.letters().into_iter();
        let mut entries: Vec<Entry> = letters
            .map(|letter| (letter.name(), Ok(Listed::of(letter))))
            .filter(|(name, _)| only.is_none_or(|only| only.contains(name)))
            .collect();
        sort(&mut entries);
        Ok(entries)
    }

    async fn load(&self, letter: &Listed) -> Result<DeadLetter> {
        let found = self.0.lock().get(&letter.name).cloned();
        found.ok_or_else(|| {
            let context = format!("there is no letter {}", letter.name);
            Error::new(ErrorKind::Checkpoint, context)
        })
    }

    async fn remove(&self, letter: &Listed) -> Result<()> {
        self.0.lock().remove(&letter.name);
        Ok(())
    }
}
