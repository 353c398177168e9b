//! How far the player has come, and the file that remembers it.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tidefeed_runtime::{Context, Error, ErrorKind, Result};

use crate::lifecycle::Fingerprint;

/// The name of the file, in the checkpoint directory.
pub const MARK_FILE: &str = "player.json";

/// The low-water mark of acknowledgements that arrive in any order.
///
/// Every event below the mark is acknowledged; those acknowledged above it wait for the gaps to close.
#[derive(Debug)]
pub struct LowWater {
    mark: u64,
    above: BTreeSet<u64>,
}

impl LowWater {
    /// Everything below `mark` is acknowledged.
    pub fn new(mark: u64) -> LowWater {
        LowWater {
            mark,
            above: BTreeSet::new(),
        }
    }

    /// The first event that is not acknowledged.
    pub fn mark(&self) -> u64 {
        self.mark
    }

    /// Takes note that an event is acknowledged.
    pub fn acknowledge(&mut self, event: u64) {
        if event > self.mark {
            self.above.insert(event);
        } else if event == self.mark {
            self.mark += 1;
            while self.above.remove(&self.mark) {
                self.mark += 1;
            }
        }
    }
}

/// The file `player.json`: which events are being played, and the mark up to which they are acknowledged.
///
/// It is replaced as a whole, so a crash leaves the old mark or the new one. A mark may be older than what was
/// acknowledged, never newer: playing from it repeats some writes and leaves none out.
#[derive(Clone, Debug)]
pub struct MarkFile {
    path: PathBuf,
    fingerprint: Fingerprint,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    version: u32,
    flights: u64,
    events: u64,
    hash: String,
    acknowledged: u64,
}

const VERSION: u32 = 1;

impl MarkFile {
    /// The file in this directory, for the events with this fingerprint.
    pub fn new(directory: &Path, fingerprint: Fingerprint) -> MarkFile {
        MarkFile {
            path: directory.join(MARK_FILE),
            fingerprint,
        }
    }

    /// The mark to resume from; zero when there is no file.
    ///
    /// # Errors
    /// `Checkpoint` when the file is damaged or remembers other flights.
    pub fn load(&self) -> Result<u64> {
        let name = self.path.display();
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
            Err(error) => {
                let context = format!("cannot read {name}");
                return Err(Error::new(ErrorKind::Checkpoint, context).with_source(error));
            }
        };
        let content: Content =
            serde_json::from_slice(&bytes).context(ErrorKind::Checkpoint, || damaged(&name))?;
        if content.version != VERSION {
            let context = format!(
                "{name} has format {}, this program has {VERSION}",
                content.version
            );
            return Err(Error::new(ErrorKind::Checkpoint, context));
        }
        let ours = self.content(content.acknowledged);
        if (content.flights, content.events, &content.hash)
            != (ours.flights, ours.events, &ours.hash)
        {
            let context = format!(
                "{name} belongs to other flights: it remembers {} flights with hash {}, these are {} with hash {}; \
                 use another directory, or those flights",
                content.flights, content.hash, ours.flights, ours.hash
            );
            return Err(Error::new(ErrorKind::Checkpoint, context));
        }
        if content.acknowledged > content.events {
            return Err(Error::new(ErrorKind::Checkpoint, damaged(&name)));
        }
        Ok(content.acknowledged)
    }

    /// Makes `mark` durable.
    ///
    /// # Errors
    /// `Checkpoint` when the directory cannot be written.
    pub fn save(&self, mark: u64) -> Result<()> {
        self.replace(mark).context(ErrorKind::Checkpoint, || {
            format!("cannot write {}", self.path.display())
        })
    }

    fn replace(&self, mark: u64) -> std::io::Result<()> {
        let next = self.path.with_extension("json.next");
        let mut file = fs::File::create(&next)?;
        file.write_all(&serde_json::to_vec(&self.content(mark))?)?;
        // Before the rename: else a power cut could leave the new name on an empty file.
        file.sync_all()?;
        fs::rename(&next, &self.path)
    }

    fn content(&self, acknowledged: u64) -> Content {
        Content {
            version: VERSION,
            flights: self.fingerprint.flights,
            events: self.fingerprint.events,
            hash: format!("{:016x}", self.fingerprint.hash),
            acknowledged,
        }
    }
}

/// Without the file every event is written again, which changes no document in the end.
fn damaged(name: &impl Display) -> String {
    format!("{name} is damaged: remove it to write all flights again")
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINGERPRINT: Fingerprint = Fingerprint {
        flights: 3,
        events: 9,
        hash: 0xfeed,
    };

    #[test]
    fn the_mark_waits_for_gaps_to_close() {
        let mut water = LowWater::new(2);
        let marks: Vec<u64> = [4, 3, 6, 0, 2, 2, 5]
            .into_iter()
            .map(|event| {
                water.acknowledge(event);
                water.mark()
            })
            .collect();
        assert_eq!(marks, [2, 2, 2, 2, 5, 5, 7]);
    }

    #[test]
    fn a_mark_comes_back_and_other_files_are_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = MarkFile::new(directory.path(), FINGERPRINT);
        assert_eq!(file.load().expect("no file"), 0);
        file.save(7).expect("saved");
        file.save(9).expect("saved again");
        assert_eq!(file.load().expect("a mark"), 9);

        let other = Fingerprint {
            hash: 1,
            ..FINGERPRINT
        };
        let error = MarkFile::new(directory.path(), other)
            .load()
            .expect_err("other flights");
        assert_eq!(error.kind(), ErrorKind::Checkpoint);
        assert!(
            error.report().ends_with(
                "player.json belongs to other flights: it remembers 3 flights with hash 000000000000feed, \
                 these are 3 with hash 0000000000000001; use another directory, or those flights"
            ),
            "{error:?}"
        );

        fs::write(directory.path().join(MARK_FILE), "{\"version\":1").expect("written");
        let error = file.load().expect_err("torn");
        assert!(
            error.report().contains("player.json is damaged"),
            "{error:?}"
        );
        let error = MarkFile::new(Path::new("/no/such/directory"), FINGERPRINT).save(1);
        assert_eq!(
            error.expect_err("no directory").kind(),
            ErrorKind::Checkpoint
        );
    }
}
