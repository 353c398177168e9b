//! Makes the changes of keyed state durable: one object for each epoch in which a stateful operator of this process changed
//! anything.
//!
//! ```text
//!   operator on worker 0 --changes, frontier--+
//!   operator on worker 1 --changes, frontier--+--> writer --object per epoch--> store
//!          ^                                        |
//!          +---------- written, with the seal ------+
//! ```
//!
//! 1. Operators say how they changed in an epoch, and which epochs they are through with, changed or not.
//! 2. An epoch is written when every operator of the process is through with it, and after all epochs below it. Workers do
//!    not keep step, and neither do two operators of which one feeds the other: writing each change as it comes would put a
//!    lower epoch behind a higher one, and a commit between the two could not name its objects as an unbroken run.
//! 3. Whoever changed in the epoch holds it (I4) until it hears that the object is durable. Exactly one of them is handed the
//!    seal to report, at that epoch; so the seal is reported before the frontier behind the reports can pass the epoch.
//! 4. A failed write fails the run, and nobody is told: the epoch stays held, and no commit comes.
//!
//! Being through with an epoch depends on inputs and on computing, never on what was written. So the writer waits for
//! nothing that waits for it.

use std::collections::BTreeMap;

use tokio::sync::mpsc;

use crate::bridge::{Inbox, InboxSender};
use crate::checkpoint::{SealPart, SealRef, SealWriter};
use crate::stall::Doing;
use crate::{Epoch, Ledger, Result};

/// Answers that may wait for an operator; the writer waits when it is behind. A guess.
const ANSWERS: usize = 64;

/// The name under which a checkpoint keeps the keyed state `name`, beside the names of the sources.
pub fn state_source(name: &str) -> String {
    format!("state:{name}")
}

/// Whether this is the name of keyed state, and not of a source or sink.
pub fn is_state(name: &str) -> bool {
    name.starts_with("state:")
}

/// The changes of an epoch are durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// The epoch.
    pub epoch: Epoch,
    /// The object, for the one operator that is to report it.
    pub seal: Option<SealRef>,
}

/// What one stateful operator says.
#[derive(Debug)]
enum Said {
    /// How it changed.
    Changed(Epoch, SealPart),
    /// It will say nothing more of epochs below this one; `None` of any.
    Passed(Option<Epoch>),
}

/// Where one stateful operator of one worker leaves what it changed. Never blocks; the ticker bounds what is under way.
#[derive(Debug)]
pub struct StateSender {
    operator: usize,
    said: mpsc::UnboundedSender<(usize, Said)>,
}

impl StateSender {
    /// Hands over how the operator changed in `epoch`. It will hear of it.
    pub fn changed(&self, epoch: Epoch, part: SealPart) {
        self.say(Said::Changed(epoch, part));
    }

    /// The operator will change nothing more in epochs below `frontier`, or in any if there is none.
    pub fn passed(&self, frontier: Option<Epoch>) {
        self.say(Said::Passed(frontier));
    }

    fn say(&self, said: Said) {
        // The writer is gone only when the run has failed, and then its failure is already known.
        let _ = self.said.send((self.operator, said));
    }
}

/// Writes the keyed state of one process.
pub struct StateWriter {
    sender: mpsc::UnboundedSender<(usize, Said)>,
    said: mpsc::UnboundedReceiver<(usize, Said)>,
    operators: Vec<InboxSender<Written>>,
}

impl Default for StateWriter {
    fn default() -> Self {
        let (sender, said) = mpsc::unbounded_channel();
        StateWriter {
            sender,
            said,
            operators: Vec::new(),
        }
    }
}

impl StateWriter {
    /// Both ends for one more operator of one worker. Every epoch waits for it from now on.
    pub fn operator(&mut self) -> (StateSender, Inbox<Written>) {
        let (answers, written) = Inbox::new(ANSWERS);
        let sender = StateSender {
            operator: self.operators.len(),
            said: self.sender.clone(),
        };
        self.operators.push(answers);
        (sender, written)
    }

    /// Writes until every operator is gone or the run has failed.
    pub async fn run(self, mut states: SealWriter, ledger: Ledger) {
        let StateWriter {
            sender,
            mut said,
            operators,
        } = self;
        // The operators have the others: when they are gone, there is nothing to wait for.
        drop(sender);
        let mut assembly = Assembly::new(operators.len());
        while let Some((operator, what)) = said.recv().await {
            assembly.take(operator, what);
            while let Some((epoch, changes)) = assembly.next_complete() {
                let _writing = ledger.at_work(Doing::State(epoch));
                if let Err(error) = write(&mut states, &operators, epoch, changes).await {
                    return ledger.fail(error.wrap(format!("cannot write state of epoch {epoch}")));
                }
            }
        }
    }
}

async fn write(
    states: &mut SealWriter,
    operators: &[InboxSender<Written>],
    epoch: Epoch,
    changes: Changes,
) -> Result<()> {
    let (from, parts): (Vec<_>, Vec<_>) = changes.into_iter().unzip();
    let mut seal = Some(states.write(epoch, parts).await?);
    for operator in from {
        let seal = seal.take();
        operators[operator].send(Written { epoch, seal }).await;
    }
    Ok(())
}

/// What changed in an epoch, by operator.
type Changes = BTreeMap<usize, SealPart>;

/// Collects the changes of epochs until each is complete.
#[derive(Debug)]
struct Assembly {
    /// What each operator may still change; `None` for nothing.
    frontiers: Vec<Option<Epoch>>,
    open: BTreeMap<Epoch, Changes>,
}

impl Assembly {
    fn new(operators: usize) -> Self {
        Assembly {
            frontiers: vec![Some(Epoch(0)); operators],
            open: BTreeMap::new(),
        }
    }

    fn take(&mut self, operator: usize, said: Said) {
        match said {
            Said::Changed(epoch, part) => {
                self.open.entry(epoch).or_default().insert(operator, part);
            }
            Said::Passed(frontier) => self.frontiers[operator] = frontier,
        }
    }

    /// The lowest epoch with changes, if every operator is through with it.
    fn next_complete(&mut self) -> Option<(Epoch, Changes)> {
        let lowest = self.open.first_entry()?;
        let epoch = *lowest.key();
        let open = self.frontiers.iter().flatten().any(|at| *at <= epoch);
        (!open).then(|| (epoch, lowest.remove()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{self, CheckpointStore, Opened, Options, RunIdentity};
    use crate::{ErrorKind, Record};

    fn part(key: &str) -> SealPart {
        SealPart {
            source: state_source("s"),
            ranges: Vec::new(),
            records: vec![Record {
                key: key.to_owned().into(),
                body: Some("{}".into()),
            }]
            .into(),
            marks: Default::default(),
        }
    }

    #[test]
    fn an_epoch_is_complete_when_every_operator_is_through_with_it() {
        let mut assembly = Assembly::new(3);
        let complete = |assembly: &mut Assembly| {
            let next = assembly.next_complete();
            next.map(|(epoch, changes)| (epoch.0, changes.into_keys().collect::<Vec<_>>()))
        };
        // Operator 1 runs ahead.
        assembly.take(1, Said::Changed(Epoch(5), part("a")));
        assembly.take(1, Said::Changed(Epoch(6), part("a")));
        assembly.take(1, Said::Passed(Some(Epoch(7))));
        assembly.take(2, Said::Passed(None));
        assert_eq!(complete(&mut assembly), None, "operator 0 may still change");
        assembly.take(0, Said::Changed(Epoch(5), part("b")));
        assembly.take(0, Said::Passed(Some(Epoch(5))));
        assert_eq!(complete(&mut assembly), None, "a frontier is a lower bound");
        assembly.take(0, Said::Passed(Some(Epoch(6))));
        assert_eq!(complete(&mut assembly), Some((5, vec![0, 1])));
        assert_eq!(complete(&mut assembly), None);
        assembly.take(0, Said::Passed(None));
        assert_eq!(complete(&mut assembly), Some((6, vec![1])));
        assert_eq!(complete(&mut assembly), None);
    }

    async fn open(store: &CheckpointStore) -> Opened {
        let identity = RunIdentity {
            job: "job".into(),
            fingerprint: Default::default(),
            processes: 1,
            workers_per_process: 2,
        };
        let opened = checkpoint::open(store, &identity, Options::default()).await;
        opened.expect("opens")
    }

    #[tokio::test]
    async fn everyone_who_changed_is_told_and_one_is_handed_the_seal() {
        let store = CheckpointStore::in_memory("job");
        let mut writer = StateWriter::default();
        let mut operators: Vec<_> = (0..3).map(|_| writer.operator()).collect();
        for (epoch, key) in [(4, "a"), (7, "b")] {
            operators[0].0.changed(Epoch(epoch), part(key));
        }
        operators[2].0.changed(Epoch(4), part("c"));
        operators.iter().for_each(|(sender, _)| sender.passed(None));
        let mut answers = Vec::new();
        let mut inboxes = Vec::new();
        for (sender, inbox) in operators.drain(..) {
            drop(sender);
            inboxes.push(inbox);
        }
        let ledger = Ledger::new(Epoch(0), Epoch(0));
        writer.run(open(&store).await.states, ledger.clone()).await;
        assert!(ledger.take_failure().is_none());
        for (operator, inbox) in inboxes.iter_mut().enumerate() {
            while let Some(Written { epoch, seal }) = inbox.try_next() {
                answers.push((operator, epoch.0, seal.map(|seal| seal.sequence)));
            }
        }
        assert_eq!(answers, [(0, 4, Some(1)), (0, 7, Some(2)), (2, 4, None)]);
    }

    #[tokio::test]
    async fn nobody_is_told_of_a_write_that_failed() {
        let store = CheckpointStore::in_memory("job");
        let mut states = open(&store).await.states;
        states.write(Epoch(9), vec![]).await.expect("writes");
        let mut writer = StateWriter::default();
        let (sender, mut written) = writer.operator();
        // Below what is written already: the writer refuses it.
        sender.changed(Epoch(8), part("a"));
        sender.passed(None);
        let ledger = Ledger::new(Epoch(0), Epoch(0));
        writer.run(states, ledger.clone()).await;
        let failure = ledger.take_failure().expect("the run has failed");
        assert_eq!(failure.kind(), ErrorKind::Internal);
        let report = failure.report();
        assert!(report.contains("cannot write state of epoch 8"), "{report}");
        assert_eq!(written.try_next(), None);
    }
}
