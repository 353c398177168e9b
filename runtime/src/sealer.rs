//! Gathers the parts of an epoch from a process's workers and makes them durable, one seal at a time.
//!
//! Each source operator of each worker contributes one part to every epoch, an empty one if nothing arrived, so an
//! epoch is complete when all parts are there. Epochs are sealed in order. An epoch in which no part holds a record or
//! a token needs no object: it counts as sealed as soon as it is complete.

use std::collections::BTreeMap;

use tokio::sync::mpsc;

use crate::checkpoint::{SealPart, SealWriter};
use crate::{Epoch, Ledger};

/// What one source operator attached to one epoch.
#[derive(Debug)]
pub struct Part {
    /// The epoch.
    pub epoch: Epoch,
    /// Records and tokens, or `None` if nothing had arrived.
    pub seal: Option<SealPart>,
}

/// Where source operators leave their parts. Never blocks; the ticker bounds what is under way.
pub type PartSender = mpsc::UnboundedSender<Part>;

/// Collects the parts of epochs until each is complete.
#[derive(Debug)]
struct Assembly {
    parts_per_epoch: usize,
    open: BTreeMap<Epoch, (usize, Vec<SealPart>)>,
}

impl Assembly {
    fn new(parts_per_epoch: usize) -> Self {
        Assembly {
            parts_per_epoch,
            open: BTreeMap::new(),
        }
    }

    fn add(&mut self, part: Part) {
        let (count, seals) = self.open.entry(part.epoch).or_default();
        *count += 1;
        seals.extend(part.seal);
    }

    /// The oldest epoch, if it is complete. A younger complete epoch waits for its elders.
    fn next_complete(&mut self) -> Option<(Epoch, Vec<SealPart>)> {
        let oldest = self.open.first_entry()?;
        if oldest.get().0 < self.parts_per_epoch {
            return None;
        }
        let (epoch, (_, parts)) = oldest.remove_entry();
        Some((epoch, parts))
    }
}

/// Seals until the senders are gone or the run ends. `parts_per_epoch` is local workers times sources.
pub async fn run(
    mut parts: mpsc::UnboundedReceiver<Part>,
    parts_per_epoch: usize,
    mut seals: SealWriter,
    ledger: Ledger,
) {
    let mut assembly = Assembly::new(parts_per_epoch);
    while let Some(part) = parts.recv().await {
        assembly.add(part);
        while let Some((epoch, parts)) = assembly.next_complete() {
            // Whatever completes the load has attached its last page before its part came here.
            seals.set_loading(ledger.in_first_load(epoch));
            let seal = if parts.is_empty() {
                Ok(None)
            } else {
                seals.write(epoch, parts).await.map(Some)
            };
            match seal {
                Ok(seal) => ledger.sealed(epoch, seal),
                Err(error) => return ledger.fail(error.wrap(format!("cannot seal epoch {epoch}"))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(epoch: u64) -> Part {
        Part {
            epoch: Epoch(epoch),
            seal: None,
        }
    }

    #[test]
    fn epochs_complete_in_order_and_only_with_every_part() {
        let mut assembly = Assembly::new(2);
        assembly.add(part(1));
        assembly.add(part(2));
        assembly.add(part(2));
        assert!(
            assembly.next_complete().is_none(),
            "epoch 2 is complete but epoch 1 is not"
        );
        assembly.add(part(1));
        assert_eq!(assembly.next_complete().map(|(e, _)| e), Some(Epoch(1)));
        assert_eq!(assembly.next_complete().map(|(e, _)| e), Some(Epoch(2)));
        assert!(assembly.next_complete().is_none());
    }
}
