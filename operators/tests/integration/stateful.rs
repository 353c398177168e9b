//! The stateful operator with a committer behind it, and the state writer in the test's hand.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use differential_dataflow::input::{Input, InputSession};
use tidefeed_operators::stateful::{Stateful, StatefulParts};
use tidefeed_runtime::bridge::{ByteBudget, Inbox};
use tidefeed_runtime::checkpoint::{
    self, CheckpointStore, CommitRecord, CommitRequest, Opened, Options, RunIdentity, SealKind,
    SinkState,
};
use tidefeed_runtime::dataflow::{Resumed, SinkStart, commit};
use tidefeed_runtime::loader::{Chunk, Loaded};
use tidefeed_runtime::states::{StateWriter, state_source};
use tidefeed_runtime::{Epoch, Generation, Ledger, Record};
use timely::dataflow::ProbeHandle;
use timely::worker::Worker;
use tokio::sync::mpsc;

const COMMITTED: u64 = 5;

type Rows = Vec<((String, i64), u64, isize)>;

/// An operator that counts what came, on one worker.
struct Rig {
    input: InputSession<u64, (String, u32), isize>,
    rows: ProbeHandle<u64>,
    outputs: Arc<Mutex<Rows>>,
    requested: mpsc::UnboundedReceiver<CommitRequest>,
    writer: Option<StateWriter>,
    ledger: Ledger,
}

fn record(key: &str, body: &str) -> Record {
    Record {
        key: format!("{key:?}").into(),
        body: Some(body.to_owned().into()),
    }
}

fn resumed(known: bool, rows: u64, hash: u128) -> Resumed {
    let state = SinkState {
        rows,
        hash,
        ..SinkState::default()
    };
    let commit = CommitRecord {
        number: 1,
        previous: None,
        generation: Generation(1),
        epoch: Epoch(COMMITTED),
        loading: false,
        tokens: BTreeMap::new(),
        base: None,
        runs: Vec::new(),
        sinks: known
            .then(|| (state_source("s"), state))
            .into_iter()
            .collect(),
        marks: BTreeMap::new(),
        written_at_ms: 0,
    };
    Resumed {
        commit: Some(commit),
        replayed_through: Epoch(COMMITTED),
        ..fresh()
    }
}

fn fresh() -> Resumed {
    let start = SinkStart {
        checked: true,
        ..SinkStart::default()
    };
    Resumed {
        sinks: [(state_source("s"), start)].into(),
        ..Resumed::default()
    }
}

impl Rig {
    fn new(worker: &mut Worker, resumed: Resumed, saved: Vec<Record>) -> Rig {
        let at = resumed.commit.as_ref().map_or(Epoch(0), |c| c.epoch);
        let known = resumed.commit.iter().any(|c| !c.sinks.is_empty());
        let ledger = Ledger::new(at, at);
        let mut writer = StateWriter::default();
        let (sender, written) = writer.operator();
        let (outlet, load) = Inbox::new(2);
        futures::executor::block_on(async {
            let budget = ByteBudget::new(1 << 20);
            let chunk = Chunk::within(&budget, at, saved).await;
            assert!(outlet.send(Loaded::Records(chunk)).await);
            assert!(outlet.send(Loaded::All).await);
        });
        let parts = StatefulParts {
            name: "s".to_owned(),
            load,
            resumed: at,
            known,
            writer: sender,
            written,
            ledger: ledger.clone(),
        };
        let (requests, requested) = mpsc::unbounded_channel();
        let outputs = Arc::new(Mutex::new(Rows::new()));
        let rows = ProbeHandle::new();
        let (seen, probe, commits) = (Arc::clone(&outputs), rows.clone(), ledger.clone());
        let input = worker.dataflow(move |scope| {
            let (input, rows) = scope.new_collection();
            let count = |_: &String, count: &mut Option<i64>, values: Vec<(u32, isize)>| {
                let came: isize = values.iter().map(|(_, diff)| diff).sum();
                *count = Some(count.unwrap_or(0) + came as i64);
                *count
            };
            let (outputs, reports) = rows.stateful(parts, count);
            outputs
                .inspect(move |row| seen.lock().expect("not poisoned").push(row.clone()))
                .probe_with(&probe);
            commit(reports, resumed, commits, requests);
            input
        });
        Rig {
            input,
            rows,
            outputs,
            requested,
            writer: Some(writer),
            ledger,
        }
    }

    /// Mints an epoch with these keys in it, and closes it.
    fn epoch(&mut self, epoch: u64, keys: &[&str]) {
        self.input.advance_to(epoch);
        self.ledger.minted(Epoch(epoch), Instant::now());
        for key in keys {
            self.input.insert(((*key).to_owned(), 1));
        }
        self.input.advance_to(epoch + 1);
        self.input.flush();
    }

    fn step_while(&mut self, worker: &mut Worker, mut waits: impl FnMut(&mut Rig) -> bool) {
        let deadline = Instant::now() + std::time::Duration::from_secs(10);
        while waits(self) {
            assert!(Instant::now() < deadline, "nothing happens for 10 s");
            worker.step();
        }
        // And whatever else there is to do.
        for _ in 0..50 {
            worker.step();
        }
    }

    fn outputs(&self) -> Rows {
        let mut rows = self.outputs.lock().expect("not poisoned").clone();
        rows.sort();
        rows
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

fn row(key: &str, count: i64, epoch: u64, diff: isize) -> ((String, i64), u64, isize) {
    ((key.to_owned(), count), epoch, diff)
}

/// The rows are through long before their state is durable; the commit is not.
#[test]
fn no_commit_names_an_epoch_whose_state_is_not_durable() {
    timely::execute_directly(|worker| {
        let tokio = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let store = CheckpointStore::in_memory("job");
        let mut opened = tokio.block_on(open(&store));
        let mut rig = Rig::new(worker, fresh(), Vec::new());
        rig.epoch(1, &["a"]);
        rig.epoch(2, &["a", "b"]);
        rig.step_while(worker, |rig| rig.rows.less_than(&3));
        assert!(rig.requested.try_recv().is_err(), "nothing is durable");
        let writer = rig.writer.take().expect("not yet used");
        tokio.spawn(writer.run(opened.states, rig.ledger.clone()));
        // The epochs are committed one by one or together, as it happens.
        let mut runs = Vec::new();
        rig.step_while(worker, |rig| {
            let Ok(request) = rig.requested.try_recv() else {
                return true;
            };
            let last = request.epoch == Epoch(2);
            let record = tokio.block_on(opened.commits.commit(request));
            runs = record.expect("its state is all there, in order").runs;
            !last
        });
        let short = runs.iter().map(|run| (run.kind, run.first, run.last));
        assert_eq!(short.collect::<Vec<_>>(), [(SealKind::State, 1, 2)]);
        assert_eq!(rig.ledger.take_failure().map(|e| e.report()), None);
    });
}

/// As above, but each epoch is committed by itself or together with the next, whichever comes first.
fn commits(worker: &mut Worker, rig: &mut Rig, until: u64) -> Vec<CommitRequest> {
    let tokio = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let store = CheckpointStore::in_memory("other");
    let opened = tokio.block_on(open(&store));
    let writer = rig.writer.take().expect("not yet used");
    tokio.spawn(writer.run(opened.states, rig.ledger.clone()));
    let mut requests: Vec<CommitRequest> = Vec::new();
    rig.step_while(worker, |rig| {
        requests.extend(rig.requested.try_recv().ok());
        requests.last().is_none_or(|r| r.epoch < Epoch(until))
    });
    requests
}

#[test]
fn known_state_goes_on_where_it_was() {
    timely::execute_directly(|worker| {
        // What a run from nothing says of the same input.
        let mut first = Rig::new(worker, fresh(), Vec::new());
        first.epoch(1, &["a", "b"]);
        let view = commits(worker, &mut first, 1).remove(0).sinks;
        let state = &view[&state_source("s")];
        assert_eq!(state.rows, 2);

        let saved = vec![
            record("a", r#"{"state":7,"output":7}"#),
            record("b", r#"{"state":1}"#),
        ];
        let resumed = resumed(true, state.rows, state.hash);
        let mut rig = Rig::new(worker, resumed, saved);
        rig.epoch(COMMITTED, &["a", "b"]);
        rig.epoch(9, &["a", "b", "c"]);
        let requests = commits(worker, &mut rig, 9);
        assert!(rig.ledger.writable(), "the input was compared");
        assert_eq!(requests[0].seals[0].epoch, Epoch(9));
        assert_eq!(requests[0].sinks[&state_source("s")].rows, 5);
        let mut expected = vec![
            row("a", 7, COMMITTED, 1),
            row("a", 7, 9, -1),
            row("a", 8, 9, 1),
            row("b", 2, 9, 1),
            row("c", 1, 9, 1),
        ];
        expected.sort();
        assert_eq!(rig.outputs(), expected);
    });
}

#[test]
fn an_input_that_is_not_what_it_was_ends_the_run() {
    timely::execute_directly(|worker| {
        let mut rig = Rig::new(worker, resumed(true, 1, 12345), Vec::new());
        rig.epoch(COMMITTED, &["a"]);
        rig.step_while(worker, |rig| !rig.ledger.stopped());
        let report = rig.ledger.take_failure().expect("failed").report();
        assert!(
            report.contains("the input of state:s (1 rows now, 1 then)"),
            "{report}"
        );
    });
}

/// Its rows are changes to who is downstream, so they come after the commit; and what an earlier life left goes.
#[test]
fn unknown_state_sees_the_collection_once_after_the_commit() {
    timely::execute_directly(|worker| {
        let left = vec![
            record("a", r#"{"state":7,"output":7}"#),
            record("x", r#"{"state":1}"#),
        ];
        let mut rig = Rig::new(worker, resumed(false, 0, 0), left);
        rig.epoch(COMMITTED, &["a", "b"]);
        rig.epoch(9, &["b"]);
        let requests = commits(worker, &mut rig, 9);
        assert!(
            rig.ledger.writable(),
            "an unknown state is nothing to compare"
        );
        let epochs = requests.iter().flat_map(|r| &r.seals).map(|s| s.epoch.0);
        assert_eq!(epochs.collect::<Vec<_>>(), [COMMITTED + 1, 9]);
        let mut expected = vec![
            row("a", 1, COMMITTED + 1, 1),
            row("b", 1, COMMITTED + 1, 1),
            row("b", 1, 9, -1),
            row("b", 2, 9, 1),
        ];
        expected.sort();
        assert_eq!(rig.outputs(), expected);
    });
}
