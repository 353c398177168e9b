//! What a checkpoint directory holds between two runs, read without the code that wrote it.

use std::collections::BTreeSet;
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
    /// Whether the sources had yet to catch up for the first time.
    pub loading: bool,
    /// Feed ranges with a position.
    pub ranges: usize,
    /// Those of all versions whose newest versions had been loaded in part.
    pub ranges_loading: usize,
    /// Bytes of all positions.
    pub token_bytes: usize,
}

impl CheckpointFiles {
    /// Reads the folder of a job.
    ///
    /// # Panics
    /// When it holds something else.
    pub fn of(job: &Path) -> Self {
        // A run that died on the way to its first commit leaves an empty folder.
        let folders = numbers(&job.join("commit")).into_iter().rev();
        let mut newest_of = folders.filter_map(|generation| {
            let folder = job.join(format!("commit/{generation:010}"));
            newest(&folder).map(|number| folder.join(format!("{number:012}")))
        });
        let commit = newest_of.next().map(|file| {
            let commit = read_object(&file);
            let field = |name: &str| commit[name].as_u64().expect("a number");
            let number = field("number");
            assert!(file.ends_with(format!("{number:012}")));
            let sources = commit["tokens"].as_object().expect("of each source");
            let ranges = sources.values().flat_map(|ranges| ranges.as_object());
            let tokens = ranges.flat_map(|ranges| ranges.values());
            let tokens: Vec<_> = tokens.filter_map(Value::as_str).collect();
            let in_part = |token: &&&str| {
                token.contains("\"phase\":\"load\"") && token.contains("\"latest\":")
            };
            Commit {
                number,
                generation: field("generation"),
                epoch: field("epoch"),
                loading: commit["loading"].as_bool().expect("yes or no"),
                ranges: tokens.len(),
                ranges_loading: tokens.iter().filter(in_part).count(),
                token_bytes: tokens.iter().map(|token| token.len()).sum(),
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
        assert!(self.generation > before.generation);
        let start = start_file(job, self.generation);
        if !start.exists() {
            assert_eq!(before.commit, self.commit, "killed before its start");
            return;
        }
        let start = read_object(&start);
        let from = |field: &str| start["commit"][field].as_u64();
        assert_eq!(start["fresh"], false);
        assert_eq!(from("number"), before.commit.map(|commit| commit.number));
        let generation = before.commit.map(|commit| commit.generation);
        assert_eq!(from("generation"), generation);
        assert!(start["first_commit"].as_u64() > from("number"));
        if self.commit != before.commit {
            assert_eq!(self.commit.map(|c| c.generation), Some(self.generation));
        }
    }
}

/// The newest run that took over, 0 before the first.
pub fn newest_generation(job: &Path) -> u64 {
    newest(&job.join("generation")).unwrap_or(0)
}

/// The names of everything in the folder of a job that is an object: what is not yet published has a `#` in its name.
pub fn objects(job: &Path) -> BTreeSet<PathBuf> {
    let mut names = BTreeSet::new();
    let mut folders = vec![job.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).expect("a folder of the checkpoint");
        for path in entries.map(|entry| entry.expect("readable").path()) {
            if path.is_dir() {
                folders.push(path);
            } else if !path.to_string_lossy().contains('#') {
                let name = path.strip_prefix(job).expect("it is in the folder");
                names.insert(name.to_owned());
            }
        }
    }
    names
}

fn start_file(job: &Path, generation: u64) -> PathBuf {
    job.join(format!("start/{generation:010}"))
}

/// The highest number among the names of objects in a folder.
fn newest(folder: &Path) -> Option<u64> {
    numbers(folder).pop_last()
}

/// The names in a folder that are numbers.
fn numbers(folder: &Path) -> BTreeSet<u64> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return BTreeSet::new();
    };
    let name = |entry: std::fs::DirEntry| entry.file_name().to_str()?.parse().ok();
    entries.map_while(Result::ok).filter_map(name).collect()
}

/// The JSON behind the first line of an object, which is its frame.
fn read_object(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).expect("an object is whole or not there");
    let (_, body) = text.split_once('\n').expect("a frame");
    serde_json::from_str(body).expect("JSON")
}
