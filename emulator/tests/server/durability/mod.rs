//! A server that is killed at any moment comes back with everything it acknowledged.
//!
//! Clients write to a program with `--data` until it is killed, and each keeps what it was told. After the restart every
//! acknowledged write is there as it was, the one request of each client that had no reply happened wholly or not at all,
//! and readers of both change feed modes go on where they were: nothing twice, nothing left out.
//!
//! `TIDEFEED_DURABILITY_SEEDS=n` runs n seeds, `TIDEFEED_DURABILITY_KILLS=k` kills k times in each, `TIDEFEED_SEED=s`
//! begins at another seed.

mod clerk;
mod figures;
mod files;
mod program;
mod writer;

use std::collections::{BTreeMap, HashMap};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::json;

use self::clerk::Clerk;
use self::program::{Directory, Program, prepare};
use self::writer::{Place, Stored, TTL, Writer, everything};
use crate::common::raw::Raw;
use crate::common::{Random, from_environment};
use crate::feed_property::reader::{self, Mode, Reader};

/// How long a server may take for what it does in milliseconds.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_killed_server_comes_back_with_all_it_acknowledged() {
    let first = from_environment("TIDEFEED_SEED", 1);
    let seeds = from_environment("TIDEFEED_DURABILITY_SEEDS", 3);
    let kills = from_environment("TIDEFEED_DURABILITY_KILLS", 5);
    for seed in first..first + seeds {
        eprintln!("seed {seed}");
        let directory = Directory::new(&format!("kill-{seed}")).unwrap();
        let threads = if seed % 2 == 0 { "4" } else { "1" };
        let mut run = Run::new(Program::start(&directory, &["--threads", threads]), seed);
        for _ in 0..kills {
            run.work_until_killed();
            run.program = Some(Program::start(&directory, &["--threads", threads]));
            run.check();
        }
        run.finish();
        eprintln!("  {} requests acknowledged", run.acknowledged());
    }
}

struct Run {
    program: Option<Program>,
    random: Random,
    writers: Vec<Writer>,
    clerk: Clerk,
    readers: Vec<Reader>,
}

impl Run {
    fn new(program: Program, seed: u64) -> Self {
        let mut raw = program.connect();
        prepare(
            &mut raw,
            json!({"defaultTtl": -1, "uniqueKeyPolicy": {"uniqueKeys": [{"paths": ["/u"]}]}}),
        );
        let modes = [Mode::AllVersionsAndDeletes, Mode::LatestVersion];
        Self {
            random: Random::new(seed),
            writers: (0..3).map(|number| Writer::new(number, seed)).collect(),
            clerk: Clerk::new(&mut raw, seed).unwrap(),
            readers: modes
                .map(|mode| Reader::new(&mut raw, mode).unwrap())
                .into(),
            program: Some(program),
        }
    }

    fn connect(&self) -> Raw {
        self.program.as_ref().expect("a program").connect()
    }

    fn acknowledged(&self) -> u64 {
        self.writers.iter().map(|writer| writer.acknowledged).sum()
    }

    /// Lets everybody work, and kills the server after some replies.
    fn work_until_killed(&mut self) {
        let program = self.program.take().expect("a program");
        let (replied, replies) = mpsc::channel();
        let enough = 1 + self.random.below(600);
        std::thread::scope(|scope| {
            for writer in &mut self.writers {
                let (mut raw, replied) = (program.connect(), replied.clone());
                scope.spawn(move || {
                    while writer.step(&mut raw).is_ok() {
                        // Nobody counts any more once the server has been killed.
                        let _ = replied.send(());
                    }
                });
            }
            let (clerk, mut raw) = (&mut self.clerk, program.connect());
            scope.spawn(move || while clerk.step(&mut raw).is_ok() {});
            let (readers, mut raw) = (&mut self.readers, program.connect());
            scope.spawn(move || {
                let read = |reader: &mut Reader| reader.read_page(&mut raw, 5).map(drop);
                let mut read = read;
                while readers.iter_mut().try_for_each(&mut read).is_ok() {}
            });
            for _ in 0..enough {
                replies.recv_timeout(PATIENCE).expect("a reply");
            }
            program.kill();
        });
    }

    fn check(&mut self) {
        let mut raw = self.connect();
        let found: BTreeMap<Place, Stored> = everything(&mut raw).unwrap();
        for writer in &mut self.writers {
            writer.check(&mut raw, &found);
        }
        let known: usize = self
            .writers
            .iter()
            .map(|writer| writer.documents.len())
            .sum();
        assert_eq!(found.len(), known);
        let tags: usize = self.writers.iter().map(|writer| writer.tags.len()).sum();
        let mut all: Vec<&String> = self
            .writers
            .iter()
            .flat_map(|writer| &writer.tags)
            .collect();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), tags, "two writers were given the same tag");
        self.clerk.check(&mut raw);
    }

    /// Lets everything expire that will, and compares what the readers saw with what happened.
    fn finish(&mut self) {
        let mut raw = self.connect();
        let body = json!({"advance_ms": (TTL + 1) * 1_000}).to_string();
        let reply = raw
            .call("POST", "/_emulator/clock", &[], body.as_bytes())
            .unwrap();
        assert_eq!(reply.status, 200, "{}", reply.text());
        for writer in &mut self.writers {
            writer.expire();
        }
        self.check();
        let mut truth = HashMap::new();
        for writer in &self.writers {
            truth.extend(writer.changes.clone());
        }
        for reader in &mut self.readers {
            reader.drain(&mut raw).unwrap();
            match reader.mode {
                Mode::AllVersionsAndDeletes => assert_eq!(reader.seen, truth),
                Mode::LatestVersion => check_latest(reader, &truth, &self.writers),
            }
        }
    }
}

/// What is seen is a subsequence of what was written, none twice, with the newest version of all that is left.
fn check_latest(reader: &Reader, truth: &HashMap<String, Vec<reader::Change>>, writers: &[Writer]) {
    for (key, changes) in &reader.seen {
        let mut written = truth[key].iter().map(|change| change.2);
        for change in changes {
            assert!(
                written.any(|number| number == change.2),
                "{change:?} of {key} is out of order, or twice"
            );
        }
    }
    for ((key, id), (body, _)) in writers.iter().flat_map(|writer| &writer.documents) {
        let seen = reader.seen.get(key).into_iter().flatten();
        let last = seen.rev().find(|change| change.1 == *id);
        assert_eq!(
            last.map(|change| change.2),
            body["n"].as_u64(),
            "{key}/{id}"
        );
    }
}
