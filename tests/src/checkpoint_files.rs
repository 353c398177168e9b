//! What a checkpoint directory holds between two runs, read without the code that wrote it.

use std::path::{Path, PathBuf};

use serde_json::Value;

/// What a checkpoint directory says about the runs so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CheckpointFiles {
    /// The newest run that took over.
    pub generation: u64,
    /// The newest commit.
    pub commit: Option<Commit>,
}

/// A commit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Commit {
    /// Its number.
    pub number: u64,
    /// The run that wrote it.
    pub generation: u64,
    /// Everything up to this epoch is in the sinks.
    pub epoch: u64,
}

impl CheckpointFiles {
    /// Reads the folder of a job.
    ///
    /// # Panics
    /// When it holds something else.
    pub fn of(job: &Path) -> Self {
        let commit = newest(&job.join("commit")).map(|number| {
            let commit = read_object(&job.join(format!("commit/{number:012}")));
            let field = |name: &str| commit[name].as_u64().expect("a number");
            assert_eq!(field("number"), number);
            Commit {
                number,
                generation: field("generation"),
                epoch: field("epoch"),
            }
        });
        CheckpointFiles {
            generation: newest_generation(job),
            commit,
        }
    }

    /// Checks what one run made of what was there before it: commits go on, and a run that took over started from exactly the
    /// last commit of those before it.
    ///
    /// # Panics
    /// When it did not.
    pub fn check_after(&self, before: &Self, job: &Path) {
        if let (Some(then), Some(now)) = (before.commit, self.commit) {
            assert!(
                now == then || now.number > then.number && now.epoch > then.epoch,
                "commits go on: {then:?}, {now:?}"
            );
        }
        assert!(before.commit.is_none() || self.commit.is_some());
        if self.generation == before.generation {
            assert_eq!(before.commit, self.commit, "it never took over");
            return;
        }
        assert_eq!(self.generation, before.generation + 1);
        let start = start_file(job, self.generation);
        if !start.exists() {
            assert_eq!(before.commit, self.commit, "killed before its start");
            return;
        }
        let start = read_object(&start);
        let last = before.commit.map(|commit| commit.number);
        assert_eq!(start["fresh"], false);
        assert_eq!(start["commit"]["number"].as_u64(), last);
        assert_eq!(start["commits_after"].as_u64(), Some(last.unwrap_or(0)));
        if self.commit != before.commit {
            assert_eq!(self.commit.map(|c| c.generation), Some(self.generation));
        }
    }
}

/// The newest run that took over, 0 before the first.
pub fn newest_generation(job: &Path) -> u64 {
    newest(&job.join("generation")).unwrap_or(0)
}

fn start_file(job: &Path, generation: u64) -> PathBuf {
    job.join(format!("start/{generation:010}"))
}

/// The highest number among the names of objects in a folder.
fn newest(folder: &Path) -> Option<u64> {
    let entries = std::fs::read_dir(folder).ok()?;
    let name = |entry: std::fs::DirEntry| entry.file_name().to_str()?.parse().ok();
    entries.map_while(Result::ok).filter_map(name).max()
}

/// The JSON behind the first line of an object, which is its frame.
fn read_object(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).expect("an object is whole or not there");
    let (_, body) = text.split_once('\n').expect("a frame");
    serde_json::from_str(body).expect("JSON")
}
