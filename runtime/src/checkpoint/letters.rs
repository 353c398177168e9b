//! Letters: what could not be delivered, kept beside the checkpoint until somebody deals with it.
//!
//! A letter is an object like the others, framed, checksummed and created if absent, and no part of the protocol: no commit
//! names it, recovery does not read it, collecting garbage and starting over leave it, and so does a run that goes back to an
//! older commit. [`inspect::verify`](super::inspect::verify) checks its frame. What is inside is for whoever writes it.
//!
//! 1. The writer chooses a name that says what the letter is about ([`LetterName::of`]). So a run that repeats an epoch after
//!    a crash puts the same letter again, and there is still one.
//! 2. A letter that is there already is kept as it is, if it can be read. Of what a name does not say, such as the time, the
//!    first one counts.
//! 3. A letter is durable when [`Letters::put`] returns.
//!
//! All letters of a job are in one folder: names are unique across sinks, and what a sink is called may not go into a path.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use serde::{Serialize, Serializer};
use xxhash_rust::xxh3::Xxh3;

use super::frame::{Framed, unframe};
use super::names::ObjectName;
use super::store::CheckpointStore;
use crate::fence::Fence;
use crate::{Error, ErrorKind, Result};

/// Which letter: a hash of what it is about; 32 hexadecimal digits in text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LetterName(u128);

impl LetterName {
    /// The name of a letter about all of `parts`.
    pub fn of<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut hasher = Xxh3::new();
        for part in parts {
            // Its length first, so that no other split of the same bytes has the same name.
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        LetterName(hasher.digest128())
    }
}

impl fmt::Display for LetterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl Serialize for LetterName {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FromStr for LetterName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let name = u128::from_str_radix(text, 16).ok().map(LetterName);
        // One spelling for each, as a listing has it.
        name.filter(|name| name.to_string() == text).ok_or_else(|| {
            Error::new(
                ErrorKind::Config,
                format!("{text:?} is not the name of a letter: it must be 32 hexadecimal digits"),
            )
        })
    }
}

/// The letters of a job. Clones are the same.
#[derive(Clone, Debug)]
pub struct Letters {
    store: CheckpointStore,
}

impl CheckpointStore {
    /// The job's letters. Writing is as fenced as this store is.
    pub fn letters(&self) -> Letters {
        Letters {
            store: self.clone(),
        }
    }
}

impl Letters {
    /// The same letters for a run that may write as long as `fence` is open.
    pub fn fenced(&self, fence: &Fence) -> Self {
        self.store.fenced(fence.clone()).letters()
    }

    /// Keeps a letter; durable when it returns.
    ///
    /// # Errors
    /// `Fenced` when the fence is closed, `Checkpoint` or `Unreachable` when the store does not take it, and `Checkpoint`
    /// naming the letter when it is there and cannot be read.
    pub async fn put(&self, name: LetterName, content: Bytes) -> Result<()> {
        let name = ObjectName::Letter(name);
        let framed = Framed::new(name, content);
        match self.store.put_unless_there(&framed).await? {
            Some(there) => match unframe(name, &there) {
                Ok(_) => Ok(()),
                Err(damage) => Err(self.store.damaged(name, &damage)),
            },
            None => Ok(()),
        }
    }

    /// The names of all letters, sorted.
    ///
    /// # Errors
    /// `Checkpoint` or `Unreachable` when the store cannot be listed, and `Checkpoint` when something else is among them.
    pub async fn names(&self) -> Result<Vec<LetterName>> {
        let names = self.store.list_letters().await?.into_iter();
        let letter = |name| match name {
            ObjectName::Letter(name) => Some(name),
            _ => None,
        };
        Ok(names.filter_map(letter).collect())
    }

    /// What is in a letter.
    ///
    /// # Errors
    /// `Checkpoint` when there is no such letter or it is damaged, `Unreachable` when the store does not answer.
    pub async fn load(&self, name: LetterName) -> Result<Bytes> {
        Ok(self.store.load(ObjectName::Letter(name)).await?.body)
    }

    /// Throws a letter away. One that is gone already counts as thrown away.
    ///
    /// # Errors
    /// `Fenced` when the fence is closed, `Checkpoint` or `Unreachable` when the store does not do it.
    pub async fn remove(&self, name: LetterName) -> Result<()> {
        self.store.delete(ObjectName::Letter(name)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Epoch;
    use crate::checkpoint::inspect::{self, verify};
    use crate::checkpoint::tests::{Place, commit_of, identity};
    use crate::checkpoint::{LeaseConfig, Options, open};

    fn name(about: &str) -> LetterName {
        LetterName::of([about.as_bytes()])
    }

    #[test]
    fn a_name_tells_parts_apart_and_reads_back() {
        let of = |parts: &[&str]| LetterName::of(parts.iter().map(|part| part.as_bytes()));
        assert_eq!(of(&["a", "b"]), of(&["a", "b"]));
        for other in [["ab", ""], ["", "ab"], ["b", "a"]] {
            assert_ne!(of(&["a", "b"]), of(&other));
        }
        assert_ne!(of(&["a"]), of(&["a", ""]));
        let text = name("a").to_string();
        assert_eq!(text.parse::<LetterName>().unwrap(), name("a"));
        // Names never change: a later version must find the letters of an earlier one.
        assert_eq!(text, "ea7daf8b8b8e0899adea399fbae36cb2");
        for wrong in ["", "a", &text[1..], &text.to_uppercase(), "../commit"] {
            let error = wrong.parse::<LetterName>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_letter_put_twice_is_one_and_the_first_counts() {
        for place in Place::both() {
            let letters = place.store.letters();
            assert_eq!(letters.names().await.unwrap(), []);
            for content in ["first", "first", "second"] {
                letters.put(name("a"), content.into()).await.unwrap();
            }
            letters.put(name("b"), Bytes::new()).await.unwrap();
            let letters = place.reopened().letters();
            let mut names = [name("a"), name("b")];
            names.sort_unstable();
            assert_eq!(letters.names().await.unwrap(), names);
            assert_eq!(letters.load(name("a")).await.unwrap(), "first");
            assert_eq!(letters.load(name("b")).await.unwrap(), "");
            for _ in 0..2 {
                letters.remove(name("a")).await.unwrap();
            }
            assert_eq!(letters.names().await.unwrap(), [name("b")]);
            let error = letters.load(name("a")).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Checkpoint);
            assert!(error.report().contains("is missing"), "{error:?}");
        }
    }

    /// To acknowledge it would be to lose it.
    #[tokio::test]
    async fn a_damaged_letter_is_named_and_not_taken_for_put() {
        for place in Place::both() {
            let letters = place.store.letters();
            letters.put(name("a"), "content".into()).await.unwrap();
            let object = ObjectName::Letter(name("a"));
            place.overwrite(object, b"junk").await;
            let put = letters.put(name("a"), "content".into()).await;
            let loaded = letters.load(name("a")).await.map(drop);
            let damage = verify(&place.store, |_, _| {}).await.unwrap().damage;
            for error in [put.unwrap_err(), loaded.unwrap_err()] {
                assert_eq!(error.kind(), ErrorKind::Checkpoint);
                let text = error.report();
                let says = format!("job/deadletters/{} is damaged", name("a"));
                assert!(
                    text.contains(&says) && text.contains("--rebuild SINK"),
                    "{text}"
                );
                assert_eq!(damage, [text]);
            }
        }
    }

    #[tokio::test]
    async fn a_run_that_is_fenced_puts_and_removes_nothing() {
        let place = Place::memory();
        let letters = place.store.letters();
        letters.put(name("a"), Bytes::new()).await.unwrap();
        let fence = Fence::unlimited();
        let fenced = letters.fenced(&fence);
        fenced.put(name("b"), Bytes::new()).await.unwrap();
        fence.close("another run holds the checkpoint");
        let put = fenced.put(name("c"), Bytes::new()).await.unwrap_err();
        let removed = fenced.remove(name("a")).await.unwrap_err();
        for error in [put, removed] {
            assert_eq!(error.kind(), ErrorKind::Fenced);
        }
        assert_eq!(letters.names().await.unwrap().len(), 2);
    }

    /// Everything that changes a checkpoint leaves the letters alone.
    #[tokio::test]
    async fn letters_outlive_runs_garbage_rewinding_and_starting_over() {
        for place in Place::both() {
            place
                .store
                .letters()
                .put(name("a"), "kept".into())
                .await
                .unwrap();
            for fresh in [false, true, false] {
                let store = place.reopened();
                let options = Options {
                    fresh,
                    ..Options::default()
                };
                let mut opened = open(&store, &identity(), options).await.unwrap();
                let floor = opened.resume.last_sealed.map_or(0, |epoch| epoch.0);
                for epoch in floor + 1..=floor + 3 {
                    let seal = opened.seals.write(Epoch(epoch), vec![]).await.unwrap();
                    opened
                        .commits
                        .commit(commit_of(epoch, &[seal]))
                        .await
                        .unwrap();
                }
                opened.commits.collect_garbage().await.unwrap();
                opened.lease.release().await.unwrap();
            }
            let lease = LeaseConfig::default();
            let kept = inspect::overview(&place.store).await.unwrap().commits;
            let number = kept[1].number;
            inspect::rewind(&place.store, number, lease).await.unwrap();
            let report = inspect::collect_garbage(&place.store, 1, lease)
                .await
                .unwrap();
            let letters = place.reopened().letters();
            assert_eq!(letters.load(name("a")).await.unwrap(), "kept");
            let found = verify(&place.store, |_, _| {}).await.unwrap();
            assert_eq!(found.damage, Vec::<String>::new());
            // All that is left, and the letter, which collecting does not even look at.
            assert_eq!(found.objects, report.listed - report.deleted + 1);
        }
    }
}
