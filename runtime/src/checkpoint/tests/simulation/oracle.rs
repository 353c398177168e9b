//! What must hold, whatever goes wrong. Each check names the invariant that it is about.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::DeserializeOwned;

use super::feed::{
    Change, Feed, Position, RANGES, SOURCE, of_record, position_of, range_of, to_record,
};
use super::process::{State, sink_state};
use super::world::MOST_PROCESSES;
use super::*;
use crate::checkpoint::names::ObjectName;
use crate::{Generation, Record};

pub(super) type Verdict<T = ()> = std::result::Result<T, String>;

/// The collection that a run found, and the sealed epochs beyond it.
pub(super) type Found = (
    BTreeMap<String, BTreeMap<Bytes, Bytes>>,
    Vec<(Epoch, Vec<SealPart>)>,
);

/// A document of the model sink. A removed one stays, so that its version is known.
#[derive(Clone, Copy, Debug)]
struct Document {
    version: u64,
    live: bool,
    /// Which of all writes brought it here.
    write: u64,
}

/// A write to the model sink.
#[derive(Clone, Copy, Debug)]
pub(super) struct Write {
    pub(super) generation: Generation,
    pub(super) epoch: Epoch,
    pub(super) change: Change,
}

#[derive(Default)]
pub(super) struct Oracle {
    /// What a run is about to seal, by the name of the object.
    intended: BTreeMap<ObjectName, (Epoch, Vec<Change>)>,
    /// Epoch, key and version of everything in durable seals.
    sealed: BTreeSet<(Epoch, u64, u64)>,
    /// Positions that a run was told are sealed, and committed.
    told_sealed: Position,
    told_committed: Position,
    /// The lease record with the highest number, and who wrote it: only that one counts.
    newest_lease: (u64, Generation),
    newest_start: Generation,
    /// Who runs in each process.
    runs: [Generation; MOST_PROCESSES],
    newest_writer: Generation,
    writes: u64,
    documents: BTreeMap<u64, Document>,
    /// The newest version of each key that any write to the sink was begun with.
    visible: BTreeMap<u64, u64>,
}

impl Oracle {
    pub(super) fn born(&mut self, process: usize) {
        self.runs[process] = Generation(0);
    }

    pub(super) fn took_over(&mut self, process: usize, generation: Generation) -> Verdict {
        self.runs[process] = generation;
        Ok(())
    }

    /// I7: a run that has lost its lease begins no write to the store.
    pub(super) fn begin_mutation(&self, process: usize, path: &str) -> Verdict {
        let run = self.runs[process];
        if run < self.newest_lease.1 && !path.starts_with("job/lease/") {
            return Err(format!(
                "I7: generation {run} writes {path} after {} has taken over",
                self.newest_lease.1
            ));
        }
        Ok(())
    }

    pub(super) fn intend(&mut self, name: ObjectName, epoch: Epoch, changes: &[Change]) -> Verdict {
        self.intended.insert(name, (epoch, changes.to_vec()));
        Ok(())
    }

    /// An object has come into being.
    pub(super) fn stored(&mut self, feed: &Feed, path: &str, bytes: &Bytes) -> Verdict {
        let name = path.strip_prefix("job/").and_then(ObjectName::parse);
        let name = name.ok_or_else(|| format!("{path} is not a name"))?;
        match name {
            ObjectName::Lease(number) => {
                let lease: LeaseRecord = json(bytes);
                self.newest_lease = self.newest_lease.max((number, lease.generation));
            }
            ObjectName::Start(generation) => {
                self.newest_start = self.newest_start.max(generation);
            }
            ObjectName::Seal { .. } => {
                if let Some((epoch, changes)) = self.intended.remove(&name) {
                    let sealed = changes.iter().map(|c| (epoch, c.key, c.version));
                    self.sealed.extend(sealed);
                }
            }
            ObjectName::Commit { .. } => return self.committed(feed, path, &json(bytes)),
            ObjectName::Generation(_)
            | ObjectName::Request(_)
            | ObjectName::Base { .. }
            | ObjectName::Letter(_) => {}
        }
        Ok(())
    }

    /// I4: the sink holds everything that a commit says. What a run that was fenced commits late is never looked at.
    fn committed(&self, feed: &Feed, path: &str, commit: &CommitRecord) -> Verdict {
        if commit.generation < self.newest_start {
            return Ok(());
        }
        for (key, change) in feed.newest(position_of(&commit.tokens)) {
            let there = self.documents.get(&key).map_or(0, |d| d.version);
            if there < change.version {
                return Err(format!(
                    "I4: {path} covers version {} of key {key}, and the sink holds {there}",
                    change.version
                ));
            }
        }
        Ok(())
    }

    pub(super) fn told_sealed(&mut self, position: Position) -> Verdict {
        self.told_sealed = position;
        Ok(())
    }

    pub(super) fn told_committed(&mut self, position: Position) -> Verdict {
        self.told_committed = position;
        Ok(())
    }

    /// A write is sent. Returns its number.
    pub(super) fn begin_write(&mut self, write: &Write) -> Verdict<u64> {
        let Write {
            generation,
            epoch,
            change,
        } = *write;
        if generation < self.newest_writer {
            return Err(format!(
                "I7: generation {generation} begins a write after generation {}",
                self.newest_writer
            ));
        }
        if !self.sealed.contains(&(epoch, change.key, change.version)) {
            return Err(format!("I1: epoch {epoch} is written before it is sealed"));
        }
        self.newest_writer = generation;
        self.writes += 1;
        let visible = self.visible.entry(change.key).or_default();
        *visible = change.version.max(*visible);
        Ok(self.writes)
    }

    pub(super) fn carry_out(&mut self, write: &Write, number: u64) -> Verdict {
        let Change {
            key, version, live, ..
        } = write.change;
        if write.generation < self.newest_writer {
            return Err(format!(
                "I7: a write of generation {} is carried out after generation {} has begun to write",
                write.generation, self.newest_writer
            ));
        }
        let document = Document {
            version,
            live,
            write: number,
        };
        match self.documents.insert(key, document) {
            Some(before) if before.write >= number => Err(format!(
                "I5: a write of key {key} overtook another: {before:?}, then {document:?}"
            )),
            _ => Ok(()),
        }
    }

    /// How far into each range a reader of the sink may have seen.
    pub(super) fn visible(&self) -> Position {
        let mut position = Position::default();
        for (key, version) in &self.visible {
            let range = &mut position[range_of(*key)];
            *range = (*range).max(*version);
        }
        position
    }

    /// The newest version of each key that may have been seen so far.
    pub(super) fn seen(&self) -> BTreeMap<u64, u64> {
        self.visible.clone()
    }

    /// After a replay no document is older than readers have seen it before.
    pub(super) fn replayed(&self, seen: &BTreeMap<u64, u64>) -> Verdict {
        for (key, version) in seen {
            let there = self.documents.get(key).map_or(0, |d| d.version);
            if there < *version {
                return Err(format!(
                    "I3: key {key} was seen at version {version} and stays at {there}"
                ));
            }
        }
        Ok(())
    }

    /// What a run starts from, against the source.
    pub(super) fn resumed(&self, feed: &Feed, resume: &Resume, found: &Found) -> Verdict {
        let (collection, replay) = found;
        let none = Tokens::new();
        let commit = resume.commit.as_ref();
        let committed = position_of(commit.map_or(&none, |commit| &commit.tokens));
        let sealed = position_of(&resume.tokens);
        for range in 0..RANGES.len() {
            let [c, s] = [committed[range], sealed[range]];
            let [told_c, told_s] = [self.told_committed[range], self.told_sealed[range]];
            let visible = self.visible()[range];
            let name = RANGES[range];
            if c < told_c || s < told_s {
                return Err(format!(
                    "lost: range {name} resumes at {c} and {s}, and a run was told {told_c} and {told_s}"
                ));
            }
            if s < visible {
                return Err(format!(
                    "I3: range {name} resumes at {s}, and the sink has shown {visible}"
                ));
            }
        }
        let view = feed.view(committed);
        for source in [SOURCE, State::NAME] {
            let documents = collection.get(source).cloned().unwrap_or_default();
            if documents != documents_of(&view) {
                return Err(format!(
                    "I2: the collection of {source} as of {committed:?} is {documents:?}, not {view:?}"
                ));
            }
        }
        let recorded = commit.and_then(|commit| commit.sinks.get("view"));
        if recorded.is_some_and(|state| *state != sink_state(&view)) {
            return Err("I8: the view differs from what its commit says".to_owned());
        }
        check_replay(feed, committed, sealed, replay)
    }

    /// At the end, when all was read and written.
    pub(super) fn complete(&self, feed: &Feed) -> Verdict {
        let view: BTreeMap<u64, u64> = self
            .documents
            .iter()
            .filter(|(_, document)| document.live)
            .map(|(key, document)| (*key, document.version))
            .collect();
        let wanted = feed.view(feed.end());
        if view != wanted {
            return Err(format!("the sink holds {view:?} instead of {wanted:?}"));
        }
        Ok(())
    }
}

/// I2: the records of each sealed epoch are what its tokens cover.
fn check_replay(
    feed: &Feed,
    from: Position,
    to: Position,
    replay: &[(Epoch, Vec<SealPart>)],
) -> Verdict {
    let mut position = from;
    for (epoch, parts) in replay {
        let (changes, next) = replayed(feed, position, parts);
        let records = parts.iter().flat_map(|part| part.records.clone());
        let records: Vec<Record> = records.collect();
        let mut wanted: Vec<_> = changes.iter().map(to_record).collect();
        // Only the order within a key is kept.
        wanted.sort_by(|a, b| a.key.cmp(&b.key));
        if records != wanted {
            return Err(format!(
                "I2: epoch {epoch} holds {:?} between {position:?} and {next:?}",
                records.iter().map(of_record).collect::<Vec<_>>()
            ));
        }
        position = next;
    }
    if position != to {
        return Err(format!(
            "I2: the replay ends at {position:?} and the tokens say {to:?}"
        ));
    }
    Ok(())
}

/// The changes that the parts of a sealed epoch cover beyond `from`, and where they end.
pub(super) fn replayed(feed: &Feed, from: Position, parts: &[SealPart]) -> (Vec<Change>, Position) {
    let mut to = from;
    for (range, token) in parts.iter().flat_map(|part| &part.ranges) {
        let of = |name: &&str| **name == range.0;
        let range = RANGES.iter().position(of);
        let read: u64 = token.0.parse().expect("written by `token`");
        to[range.expect("one of the two")] = read;
    }
    let covered = |range: usize| {
        let most = to[range].saturating_sub(from[range]) as usize;
        feed.read(range, from[range], Duration::MAX, most)
    };
    let changes = (0..RANGES.len()).flat_map(covered).copied().collect();
    (changes, to)
}

fn documents_of(view: &BTreeMap<u64, u64>) -> BTreeMap<Bytes, Bytes> {
    let documents = view.iter().map(|(key, version)| {
        let key = Bytes::from(format!("{key:04}"));
        (key, Bytes::from(version.to_string()))
    });
    documents.collect()
}

/// The content behind the frame; what is stored is not damaged.
fn json<T: DeserializeOwned>(bytes: &Bytes) -> T {
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let body = &bytes[end.expect("a frame") + 1..];
    serde_json::from_slice(body).expect("an object of the checkpoint")
}
