//! Dead letters, counted as they are kept.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use tidefeed_operators::dead_letter::{DeadLetter, DeadLetters};
use tidefeed_runtime::line_limit::LineLimit;
use tidefeed_runtime::{Fence, Result};

/// How many letters were kept of what. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct LetterCounts(Arc<Mutex<BTreeMap<String, u64>>>);

impl LetterCounts {
    /// Of a sink by its name, or of a source by the name that its letters have.
    pub(crate) fn of(&self, name: &str) -> u64 {
        self.0.lock().get(name).copied().unwrap_or(0)
    }

    fn add(&self, letters: &[DeadLetter]) {
        let mut counts = self.0.lock();
        for letter in letters {
            *counts.entry(letter.sink.clone()).or_default() += 1;
        }
    }
}

/// Counts what another keeps.
pub(crate) struct Counted {
    letters: Arc<dyn DeadLetters>,
    counts: LetterCounts,
}

impl Counted {
    pub(crate) fn new(letters: Arc<dyn DeadLetters>, counts: LetterCounts) -> Self {
        Counted { letters, counts }
    }

    /// Names the first letter, by which `deadletters show` finds it, and nothing that is in it.
    fn tell(&self, letters: &[DeadLetter]) {
        static LIMIT: LineLimit = LineLimit::often();
        let Some(first) = letters.first() else {
            return;
        };
        if let Some(held_back) = LIMIT.take() {
            tracing::warn!(
                event = "dead_letter",
                of = first.sink,
                letter = %first.name(),
                epoch = first.epoch.map(|epoch| epoch.0),
                status = first.status,
                sub_status = first.sub_status,
                activity_id = first.activity_id,
                letters = letters.len(),
                total = self.counts.of(&first.sink),
                held_back,
                "documents that go no further went to the dead letters"
            );
        }
    }
}

#[async_trait]
impl DeadLetters for Counted {
    async fn put(&self, letters: &[DeadLetter]) -> Result<()> {
        self.letters.put(letters).await?;
        self.counts.add(letters);
        self.tell(letters);
        Ok(())
    }

    fn guard(&self, fence: &Fence) {
        self.letters.guard(fence);
    }
}
