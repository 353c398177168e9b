//! Where a stateful operator finds what the checkpoint holds of its state: the one place that knows how that comes.

use std::sync::Arc;

use tidefeed_runtime::Record;
use tidefeed_runtime::checkpoint::Rehydrated;
use tidefeed_runtime::states::state_source;

use crate::stateful::route;

/// Records looked at in one activation.
const CHUNK: usize = 8192;

/// Some of what the checkpoint holds.
#[derive(Debug)]
pub enum Piece {
    /// Records as of the commit, one for each key, of this worker's keys only.
    Records(Vec<Record>),
    /// There is no more.
    End,
}

/// One worker's share of the saved state of one name, in pieces.
pub struct SavedState {
    checkpoint: Arc<Rehydrated>,
    source: String,
    index: u64,
    peers: u64,
    at: usize,
}

impl SavedState {
    /// The share of worker `index` of `peers` of the state `name`.
    pub fn new(checkpoint: Arc<Rehydrated>, name: &str, index: usize, peers: usize) -> Self {
        SavedState {
            checkpoint,
            source: state_source(name),
            index: index as u64,
            peers: peers as u64,
            at: 0,
        }
    }

    /// The next piece, and what it was read from is freed with the last one.
    pub fn next_piece(&mut self) -> Piece {
        let records = self.checkpoint.collection.get(&self.source);
        let rest = records.map_or(&[][..], |records| &records[self.at..]);
        if rest.is_empty() {
            self.checkpoint = Arc::default();
            self.at = 0;
            return Piece::End;
        }
        let chunk = &rest[..rest.len().min(CHUNK)];
        let mine = |record: &&Record| route(&record.key) % self.peers == self.index;
        let piece = chunk.iter().filter(mine).cloned().collect();
        self.at += chunk.len();
        Piece::Records(piece)
    }
}
