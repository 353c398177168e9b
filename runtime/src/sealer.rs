//! Gathers the parts of an epoch from a process's workers and makes them durable, one seal at a time.
//!
//! ```text
//!   sources --parts--> assembly --whole epochs--> pack --packed, in order--> put --> ledger: sealed through
//! ```
//!
//! While one seal is written the next is packed: the one waits for a disk and the other needs a processor. Whatever packing
//! runs ahead, seals become durable one after the other, and an epoch counts as sealed only when its own is (I1).
//!
//! Each source operator of each worker contributes one part to every epoch, an empty one if nothing arrived, so an
//! epoch is complete when all parts are there. Epochs are sealed in order. An epoch in which no part holds a record,
//! a token or a mark of event time needs no object: it counts as sealed as soon as it is complete.
//!
//! Unless rows change in it by the passing of time alone: then it is visible outside, so it must be replayed after a crash (I3),
//! and gets a seal without parts. Whether they do, each temporal filter of each worker says of each epoch ([`Due`]). Only an epoch
//! without records and tokens waits for that.

use std::collections::BTreeMap;
use std::pin::pin;

use tokio::sync::mpsc;

use crate::checkpoint::{PackedSeal, SealPacker, SealPart, SealPutter, SealWriter};
use crate::stall::Doing;
use crate::{Epoch, Error, Ledger};

/// What one source operator attached to one epoch.
#[derive(Debug)]
pub struct Part {
    /// The epoch.
    pub epoch: Epoch,
    /// Records, tokens and marks, or `None` if nothing had arrived.
    pub seal: Option<SealPart>,
}

/// Where source operators leave their parts. Never blocks; the ticker bounds what is under way.
pub type PartSender = mpsc::UnboundedSender<Part>;

/// What one temporal filter of one worker says of an epoch when it is through with all epochs before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// The epoch. Of one that is sealed already it may say anything.
    pub epoch: Epoch,
    /// Whether rows come or go in the epoch because time has passed.
    pub any: bool,
}

/// Where temporal filters leave what they say. Never blocks; the ticker bounds what is under way.
pub type DueSender = mpsc::UnboundedSender<Due>;

/// What the temporal filters of a process say.
#[derive(Debug)]
pub struct Dues {
    said: mpsc::UnboundedReceiver<Due>,
    per_epoch: usize,
}

impl Dues {
    /// Of so many filters of each worker, on so many workers, and where they leave what they say.
    pub fn of(filters: usize, workers: usize) -> (DueSender, Dues) {
        let (sender, said) = mpsc::unbounded_channel();
        let per_epoch = filters * workers;
        (sender, Dues { said, per_epoch })
    }

    /// Of a dataflow without temporal filters.
    pub fn none() -> Dues {
        Dues::of(0, 0).1
    }
}

/// Collects the parts of epochs until each is complete.
#[derive(Debug)]
struct Assembly {
    parts_per_epoch: usize,
    dues_per_epoch: usize,
    /// What is said of epochs through this one comes too late to matter.
    taken_through: Epoch,
    open: BTreeMap<Epoch, Open>,
}

/// What has come of an epoch.
#[derive(Debug, Default)]
struct Open {
    parts: usize,
    seals: Vec<SealPart>,
    dues: usize,
    any_due: bool,
}

impl Assembly {
    fn new(parts_per_epoch: usize, dues_per_epoch: usize, taken_through: Epoch) -> Self {
        Assembly {
            parts_per_epoch,
            dues_per_epoch,
            taken_through,
            open: BTreeMap::new(),
        }
    }

    fn add(&mut self, part: Part) {
        let open = self.open.entry(part.epoch).or_default();
        open.parts += 1;
        open.seals.extend(part.seal);
    }

    fn hear(&mut self, due: Due) {
        if due.epoch > self.taken_through {
            let open = self.open.entry(due.epoch).or_default();
            open.dues += 1;
            open.any_due |= due.any;
        }
    }

    /// The oldest epoch, if it is complete, with its parts if it needs a seal. A younger complete epoch waits for its elders.
    fn next_complete(&mut self) -> Option<(Epoch, Option<Vec<SealPart>>)> {
        let oldest = self.open.first_entry()?;
        let open = oldest.get();
        let needs_seal = open.any_due || !open.seals.is_empty();
        if open.parts < self.parts_per_epoch || !needs_seal && open.dues < self.dues_per_epoch {
            return None;
        }
        let (epoch, open) = oldest.remove_entry();
        self.taken_through = epoch;
        Some((epoch, needs_seal.then_some(open.seals)))
    }
}

/// Seals until the senders are gone or the run ends. `parts_per_epoch` is local workers times sources.
pub async fn run(
    parts: mpsc::UnboundedReceiver<Part>,
    parts_per_epoch: usize,
    dues: Dues,
    seals: SealWriter,
    ledger: Ledger,
) {
    let (packer, putter) = seals.split();
    // One that is packed waits while another is written; beyond that records rather wait where they are.
    let (packed, ready) = mpsc::channel(1);
    let sealed_before = ledger.sealed_through();
    let assembly = Assembly::new(parts_per_epoch, dues.per_epoch, sealed_before);
    let packing = pin!(pack(parts, dues.said, assembly, packer, packed, &ledger));
    let mut putting = pin!(put(ready, putter, &ledger));
    tokio::select! {
        // It ends before the other only when it has failed.
        () = &mut putting => {}
        () = packing => putting.await,
    }
}

/// An epoch that is to count as sealed, in its turn: with a seal, or without anything to keep.
enum Ready {
    Seal(PackedSeal),
    Empty(Epoch),
}

/// The first step: packs each epoch that is complete.
async fn pack(
    mut parts: mpsc::UnboundedReceiver<Part>,
    mut dues: mpsc::UnboundedReceiver<Due>,
    mut assembly: Assembly,
    mut packer: SealPacker,
    packed: mpsc::Sender<Ready>,
    ledger: &Ledger,
) {
    loop {
        tokio::select! {
            part = parts.recv() => match part {
                Some(part) => assembly.add(part),
                None => return,
            },
            Some(due) = dues.recv() => assembly.hear(due),
        }
        while let Some((epoch, parts)) = assembly.next_complete() {
            // Whatever completes the load has attached its last page before its part came here.
            packer.set_loading(ledger.in_first_load(epoch));
            let ready = match parts {
                None => Ready::Empty(epoch),
                Some(parts) => {
                    let _packing = ledger.at_work(Doing::Pack(epoch));
                    match packer.pack(epoch, parts).await {
                        Ok(seal) => Ready::Seal(seal),
                        Err(error) => return cannot_seal(epoch, error, ledger),
                    }
                }
            };
            if packed.send(ready).await.is_err() {
                return;
            }
        }
    }
}

/// The second step: makes them durable, one after the other, and only then says so.
async fn put(mut ready: mpsc::Receiver<Ready>, mut putter: SealPutter, ledger: &Ledger) {
    while let Some(ready) = ready.recv().await {
        match ready {
            Ready::Empty(epoch) => ledger.sealed(epoch, None),
            Ready::Seal(seal) => {
                let epoch = seal.epoch();
                let _sealing = ledger.at_work(Doing::Seal(epoch));
                match putter.put(seal).await {
                    Ok(seal) => ledger.sealed(epoch, Some(seal)),
                    Err(error) => return cannot_seal(epoch, error, ledger),
                }
            }
        }
    }
}

fn cannot_seal(epoch: Epoch, error: Error, ledger: &Ledger) {
    ledger.fail(error.wrap(format!("cannot seal epoch {epoch}")));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{self, CheckpointStore, Opened, Options, RunIdentity};
    use crate::{ContinuationToken, ErrorKind, FeedRangeId, Record};

    fn part(epoch: u64) -> Part {
        Part {
            epoch: Epoch(epoch),
            seal: None,
        }
    }

    #[test]
    fn epochs_complete_in_order_and_only_with_every_part() {
        let mut assembly = Assembly::new(2, 0, Epoch(0));
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

    /// What time changes in an epoch is to be replayed; but no epoch that is sealed anyway waits to hear of it.
    #[test]
    fn an_epoch_without_parts_waits_for_what_temporal_filters_say() {
        let mut assembly = Assembly::new(1, 2, Epoch(3));
        let due = |epoch, any| Due {
            epoch: Epoch(epoch),
            any,
        };
        let taken = |assembly: &mut Assembly| {
            let (epoch, parts) = assembly.next_complete()?;
            Some((epoch.0, parts.map(|parts| parts.len())))
        };
        // Of an epoch that an earlier run sealed.
        assembly.hear(due(3, true));
        for epoch in [4, 5, 7] {
            assembly.add(part(epoch));
        }
        assembly.add(sealable(6));
        assembly.hear(due(4, false));
        assert_eq!(taken(&mut assembly), None, "the other may find something");
        assembly.hear(due(4, false));
        assert_eq!(taken(&mut assembly), Some((4, None)));
        assert_eq!(taken(&mut assembly), None);
        assembly.hear(due(5, true));
        assert_eq!(taken(&mut assembly), Some((5, Some(0))), "that is enough");
        assert_eq!(taken(&mut assembly), Some((6, Some(1))), "it has records");
        for late in [5, 6, 6] {
            assembly.hear(due(late, true));
        }
        assert_eq!(taken(&mut assembly), None);
        for _ in 0..2 {
            assembly.hear(due(7, false));
        }
        assert_eq!(taken(&mut assembly), Some((7, None)));
        assert!(assembly.open.is_empty(), "{assembly:?}");
    }

    fn sealable(epoch: u64) -> Part {
        let token = ContinuationToken(epoch.to_string());
        let record = Record {
            key: format!("k{epoch}").into(),
            body: Some("{}".into()),
        };
        Part {
            epoch: Epoch(epoch),
            seal: Some(SealPart {
                source: "s".into(),
                ranges: vec![(FeedRangeId("-FF".into()), token)],
                records: vec![record].into(),
                marks: Default::default(),
            }),
        }
    }

    async fn open(store: &CheckpointStore) -> Opened {
        let identity = RunIdentity {
            job: "job".into(),
            fingerprint: Default::default(),
            processes: 1,
            workers_per_process: 1,
        };
        let opened = checkpoint::open(store, &identity, Options::default()).await;
        opened.expect("opens")
    }

    /// Packing runs ahead of writing. What is packed behind a seal that cannot be written must neither be written nor count
    /// as sealed, and nor may an epoch that needs no seal.
    #[tokio::test]
    async fn nothing_is_sealed_behind_a_seal_that_is_not_durable() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = CheckpointStore::local(folder.path(), "job").expect("a store");
        let seals = open(&store).await.seals;
        let of = |sequence: u64| {
            let name = format!("job/seal/0000000001/00000/{sequence:012}");
            folder.path().join(name)
        };
        let (sender, parts) = mpsc::unbounded_channel();
        let ledger = Ledger::new(Epoch(0), Epoch(0));
        sender.send(sealable(1)).expect("there");
        let sealing = tokio::spawn(super::run(parts, 1, Dues::none(), seals, ledger.clone()));
        while ledger.sealed_through() < Epoch(1) && !ledger.stopped() {
            tokio::task::yield_now().await;
        }
        assert!(of(1).is_file(), "seals are elsewhere: {:?}", of(1));
        // Another run wrote the second.
        std::fs::write(of(2), b"another").expect("writes");
        for part in [sealable(2), part(3), sealable(4), sealable(5)] {
            let _ = sender.send(part);
        }
        sealing.await.expect("no panic");
        assert_eq!(ledger.sealed_through(), Epoch(1));
        assert!(!of(3).exists());
        let failure = ledger.take_failure().expect("the run has failed");
        assert_eq!(failure.kind(), ErrorKind::Fenced);
        assert!(failure.report().contains("cannot seal epoch 2"));
    }

    #[tokio::test]
    async fn what_was_packed_ahead_is_written_when_the_sources_are_gone() {
        let store = CheckpointStore::in_memory("job");
        let seals = open(&store).await.seals;
        let (sender, parts) = mpsc::unbounded_channel();
        let ledger = Ledger::new(Epoch(0), Epoch(0));
        for part in [sealable(1), part(2), sealable(3), sealable(4), part(5)] {
            sender.send(part).expect("there");
        }
        drop(sender);
        super::run(parts, 1, Dues::none(), seals, ledger.clone()).await;
        assert_eq!(ledger.sealed_through(), Epoch(5));
        let seals = ledger.take_seals(Epoch(5));
        let found: Vec<_> = seals.iter().map(|s| (s.epoch.0, s.sequence)).collect();
        assert_eq!(found, [(1, 1), (3, 2), (4, 3)]);
        let run = open(&store).await;
        assert_eq!(run.resume.last_sealed, Some(Epoch(4)), "the chain is whole");
    }

    /// Positions are sealed as ever, so that commits go on; there is nothing to replay.
    #[tokio::test]
    async fn a_volatile_store_keeps_no_records() {
        let store = CheckpointStore::volatile("job");
        let seals = open(&store).await.seals;
        let (sender, parts) = mpsc::unbounded_channel();
        let ledger = Ledger::new(Epoch(0), Epoch(0));
        sender.send(sealable(1)).expect("there");
        drop(sender);
        super::run(parts, 1, Dues::none(), seals, ledger.clone()).await;
        assert_eq!(ledger.sealed_through(), Epoch(1));
        let resume = open(&store).await.resume;
        let mut replay = resume.replay(&store, checkpoint::Share::WHOLE);
        let (epoch, parts) = replay.next().await.expect("reads").expect("a seal");
        assert_eq!((epoch, parts.len()), (Epoch(1), 1));
        assert!(parts[0].records.is_empty() && !parts[0].ranges.is_empty());
    }

    #[tokio::test]
    async fn an_epoch_in_which_only_time_passed_is_replayed() {
        let store = CheckpointStore::in_memory("job");
        let seals = open(&store).await.seals;
        let (sender, parts) = mpsc::unbounded_channel();
        let (due_sender, dues) = Dues::of(1, 1);
        let ledger = Ledger::new(Epoch(0), Epoch(0));
        let sealing = tokio::spawn(super::run(parts, 1, dues, seals, ledger.clone()));
        for (epoch, any) in [(1, false), (2, true), (3, false)] {
            sender.send(part(epoch)).expect("there");
            let epoch = Epoch(epoch);
            due_sender.send(Due { epoch, any }).expect("there");
            while ledger.sealed_through() < epoch && !ledger.stopped() {
                tokio::task::yield_now().await;
            }
        }
        drop(sender);
        sealing.await.expect("no panic");
        assert_eq!(ledger.take_seals(Epoch(3)).len(), 1);
        let resume = open(&store).await.resume;
        assert_eq!(resume.last_sealed, Some(Epoch(2)));
        let mut replay = resume.replay(&store, checkpoint::Share::WHOLE);
        let sealed = replay.next().await.expect("reads");
        assert_eq!(sealed, Some((Epoch(2), Vec::new())));
        assert_eq!(replay.next().await.expect("reads"), None);
    }
}
