//! What the objects say: the readable JSON ones and the references between them.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::frame::Checksum;
use super::names::{CommitName, ObjectName};
use crate::watermarks::Watermarks;
use crate::{ContinuationToken, Epoch, FeedRangeId, Generation};

/// Resume positions: source, feed range, token.
pub type Tokens = BTreeMap<String, BTreeMap<FeedRangeId, ContinuationToken>>;

/// What a job is made of, as far as a checkpoint depends on it: name to description or hash.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fingerprint {
    /// The sources, whose documents the seals hold.
    pub sources: BTreeMap<String, String>,
    /// The sinks, whose views a resumed run carries on.
    pub sinks: BTreeMap<String, String>,
    /// The reference tables that the job reads.
    pub tables: BTreeMap<String, String>,
}

impl Fingerprint {
    /// The first source whose container is another one than in `other`, the state's own fingerprint, in one line. What was
    /// sealed from it belongs to the other container, so there is nothing to resume. Sinks and tables may differ: their
    /// views can be rebuilt.
    pub(super) fn moved_source(&self, other: &Fingerprint) -> Option<String> {
        self.sources.iter().find_map(|(name, now)| {
            let before = other.sources.get(name).filter(|before| *before != now)?;
            Some(format!("source {name} was {before} and is now {now}"))
        })
    }
}

/// `generation/<g>`: who runs. Written before anything else of its generation but its lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenerationRecord {
    /// Name of the job that the folder belongs to.
    pub job: String,
    /// The number of this run.
    pub generation: Generation,
    /// Processes of the cluster.
    pub processes: u32,
    /// Workers in each process.
    pub workers_per_process: u32,
    /// What the job was made of.
    pub fingerprint: Fingerprint,
    /// Process id of process 0, for people.
    pub pid: u32,
    /// Wall clock at the start, for people.
    pub started_at_ms: u64,
}

/// `start/<g>`: what a generation starts from. Recovery believes it over any listing made later (I3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartRecord {
    /// The generation that starts.
    pub generation: Generation,
    /// Whether it started over; whatever was there before is never looked at again.
    pub fresh: bool,
    /// The commit it starts from; `None` starts from nothing.
    pub commit: Option<CommitRef>,
    /// The number of this generation's first commit: above that of every commit there was.
    pub first_commit: u64,
    /// The exact seals of inputs beyond the commit.
    pub runs: Vec<SealRun>,
    /// Sinks whose containers may hold something else than their view as of the commit: this run brings them in line.
    pub rebuild: BTreeSet<String>,
}

/// A commit by name and checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommitRef {
    /// The generation that wrote it.
    pub generation: Generation,
    /// Its place in the chain.
    pub number: u64,
    /// Checksum of its object.
    pub checksum: Checksum,
}

impl CommitRef {
    pub(super) fn name(&self) -> CommitName {
        (self.generation, self.number)
    }
}

/// What a sealed object holds.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum SealKind {
    /// Inputs of an epoch with their tokens (`seal/`); recovery replays those beyond the commit.
    #[default]
    Input,
    /// How keyed state changed in an epoch (`state/`). What lies beyond the commit is not read: the replay computes it anew.
    State,
}

impl SealKind {
    /// Whether a seal of `epoch` may follow one of `before`: several changes of keyed state may belong to one epoch.
    pub(super) fn may_follow(self, epoch: Epoch, before: Epoch) -> bool {
        match self {
            SealKind::Input => epoch > before,
            SealKind::State => epoch >= before,
        }
    }
}

/// One process of one generation, and one kind of what it seals: who counts a sequence of seals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Series {
    pub(super) kind: SealKind,
    pub(super) generation: Generation,
    pub(super) process: u32,
}

impl Series {
    pub(super) fn name(self, sequence: u64) -> ObjectName {
        ObjectName::Seal {
            kind: self.kind,
            generation: self.generation,
            process: self.process,
            sequence,
        }
    }
}

/// An unbroken run of one process's seals, `first..=last`. Seals chain checksums, so naming the last one pins them all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealRun {
    /// What the seals hold.
    pub kind: SealKind,
    /// The generation that sealed.
    pub generation: Generation,
    /// The process that sealed.
    pub process: u32,
    /// First sequence of the run.
    pub first: u64,
    /// Last sequence of the run, inclusive.
    pub last: u64,
    /// Epoch of the last seal.
    pub last_epoch: Epoch,
    /// Checksum of the last seal.
    pub last_checksum: Checksum,
}

impl SealRun {
    pub(super) fn series(&self) -> Series {
        Series {
            kind: self.kind,
            generation: self.generation,
            process: self.process,
        }
    }

    pub(super) fn contains(&self, series: Series, sequence: u64) -> bool {
        self.series() == series && (self.first..=self.last).contains(&sequence)
    }
}

/// One durable seal: what a process tells worker 0, so that the next commit can name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealRef {
    /// What it holds.
    pub kind: SealKind,
    /// The generation that sealed.
    pub generation: Generation,
    /// The process that sealed.
    pub process: u32,
    /// Its number, from 1, without gaps within (generation, process).
    pub sequence: u64,
    /// The epoch whose inputs it holds.
    pub epoch: Epoch,
    /// Checksum of its object.
    pub checksum: Checksum,
    /// Size of its object in bytes, without the frame.
    pub bytes: u64,
}

impl SealRef {
    pub(super) fn series(&self) -> Series {
        Series {
            kind: self.kind,
            generation: self.generation,
            process: self.process,
        }
    }

    pub(super) fn name(&self) -> ObjectName {
        self.series().name(self.sequence)
    }
}

/// A base: the collection as of one commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaseRef {
    /// The generation that wrote it.
    pub generation: Generation,
    /// The epoch of the commit that it holds the collection of.
    pub epoch: Epoch,
    /// Its objects, one per key bucket.
    pub buckets: Vec<BucketRef>,
    /// The last seal of each process that the base contains, as far as somebody may still have to know.
    pub covers: Vec<SealRun>,
}

/// One object of a base.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BucketRef {
    /// Which key bucket.
    pub bucket: u8,
    /// Size of its object in bytes, without the frame.
    pub length: u64,
    /// Checksum of its object.
    pub checksum: Checksum,
}

/// What a sink's view held as of a commit (I8).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SinkState {
    /// Rows of the view.
    pub rows: u64,
    /// Order-independent hash over the rows; 32 hexadecimal digits in text.
    #[serde(serialize_with = "to_hex", deserialize_with = "from_hex")]
    pub hash: u128,
    /// What the view is computed by, as far as it shows: see [`Fingerprint::sinks`].
    pub fingerprint: String,
    /// Whether the container is still to be brought in line with the view.
    pub rebuilding: bool,
}

fn to_hex<S: Serializer>(value: &u128, serializer: S) -> Result<S::Ok, S::Error> {
    Checksum(*value).serialize(serializer)
}

fn from_hex<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u128, D::Error> {
    Checksum::deserialize(deserializer).map(|checksum| checksum.0)
}

/// `commit/<g>/<n>`: everything up to `epoch` is in the sinks and durable (I4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommitRecord {
    /// Its place in the chain, from 1, over all generations.
    pub number: u64,
    /// The commit before it; `None` for the first one and after starting over.
    pub previous: Option<CommitRef>,
    /// The generation that committed.
    pub generation: Generation,
    /// Every epoch up to this one, inclusive.
    pub epoch: Epoch,
    /// Whether the sources had not caught up for the first time yet.
    pub loading: bool,
    /// Where each feed range stands as of the epoch.
    pub tokens: Tokens,
    /// The compacted part of the state, if there is one.
    pub base: Option<BaseRef>,
    /// The seals since the base; base and runs together are the state as of the epoch.
    pub runs: Vec<SealRun>,
    /// What each sink's view held as of the epoch, and under `state:NAME` what keyed state was made from.
    pub sinks: BTreeMap<String, SinkState>,
    /// How far the event times of each source have come, of those whose are read.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub marks: BTreeMap<String, Watermarks>,
    /// Wall clock at the commit, for people.
    pub written_at_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_that_moved_is_named() {
        let map = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
                .collect::<BTreeMap<_, _>>()
        };
        let then = Fingerprint {
            sources: map(&[("flights", "db/flights")]),
            sinks: map(&[("board", "v1")]),
            tables: map(&[("airports", "3f")]),
        };
        assert_eq!(then.moved_source(&then), None);
        let mut now = then.clone();
        now.sinks = map(&[("board", "v2")]);
        now.sources = map(&[("flights", "db/flights"), ("weather", "db/weather")]);
        assert_eq!(now.moved_source(&then), None);
        now.sources = map(&[("flights", "db/flights2")]);
        assert_eq!(
            now.moved_source(&then).unwrap(),
            "source flights was db/flights and is now db/flights2"
        );
    }

    /// Commits of builds that knew no event time.
    #[test]
    fn a_commit_without_marks_reads() {
        let without = r#"{"number":1,"previous":null,"generation":1,"epoch":5,"loading":false,
            "tokens":{},"base":null,"runs":[],"sinks":{},"written_at_ms":0}"#;
        let commit: CommitRecord = serde_json::from_str(without).unwrap();
        assert!(commit.marks.is_empty());
        assert!(!serde_json::to_string(&commit).unwrap().contains("marks"));
    }

    #[test]
    fn a_hash_reads_back_from_its_digits() {
        let state = SinkState {
            rows: 3,
            hash: u128::MAX - 1,
            ..SinkState::default()
        };
        let text = serde_json::to_string(&state).unwrap();
        assert!(text.contains("fffffffffffffffffffffffffffffffe"));
        assert_eq!(serde_json::from_str::<SinkState>(&text).unwrap(), state);
    }
}
