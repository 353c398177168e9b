//! Letters in the checkpoint store, and how they are tried again.

use bytes::Bytes;
use parking_lot::Mutex;
use tidefeed_runtime::checkpoint::CheckpointStore;
use tidefeed_runtime::{Error, ErrorKind};

use super::stored::{decode, encode};
use super::*;

fn letter(id: &str, epoch: u64, body: &'static str) -> DeadLetter {
    DeadLetter {
        sink: "totals".into(),
        partition_key: r#"["EWR"]"#.into(),
        id: id.into(),
        epoch: Some(Epoch(epoch)),
        action: LetterAction::Upsert,
        status: 413,
        sub_status: 0,
        message: "too large\n\"by far\"".into(),
        activity_id: "a-1".into(),
        at_ms: 1000 + epoch,
        body: Some(Bytes::from_static(body.as_bytes())),
    }
}

fn delete(id: &str, epoch: u64) -> DeadLetter {
    DeadLetter {
        action: LetterAction::Delete,
        body: None,
        ..letter(id, epoch, "")
    }
}

fn store() -> (CheckpointStore, StoredDeadLetters) {
    let store = CheckpointStore::in_memory("job");
    let letters = StoredDeadLetters::new(store.letters());
    (store, letters)
}

async fn listed(letters: &dyn LetterBox) -> Vec<Listed> {
    let entries = letters.list(None).await.unwrap().into_iter();
    entries.map(|(_, letter)| letter.unwrap()).collect()
}

async fn readable(letters: &dyn LetterBox) -> Vec<DeadLetter> {
    let mut readable = Vec::new();
    for letter in listed(letters).await {
        readable.push(letters.load(&letter).await.unwrap());
    }
    readable
}

/// Refuses documents whose body says so, and keeps the others.
#[derive(Default)]
struct Desk {
    documents: Mutex<BTreeMap<String, Option<Bytes>>>,
    writes: Mutex<Vec<u64>>,
}

#[async_trait]
impl Redeliver for Desk {
    async fn redeliver(&self, letter: &DeadLetter, overwrite: bool) -> Result<Redelivered> {
        if letter.body.as_deref() == Some(b"\"bad\"") {
            return Ok(Redelivered::Refused(Error::new(ErrorKind::Rejected, "bad")));
        }
        let mut documents = self.documents.lock();
        let held = documents.get(&letter.id).cloned().flatten();
        if !overwrite && held.is_some() && held != letter.body {
            return Ok(Redelivered::Occupied);
        }
        documents.insert(letter.id.clone(), letter.body.clone());
        self.writes.lock().extend(letter.epoch.map(|epoch| epoch.0));
        Ok(Redelivered::Written)
    }
}

#[test]
fn a_letter_reads_back_and_its_name_says_what_it_is_about() {
    let one = letter("a", 7, "{\"id\":\"a\",\n\"x\":1}");
    for letter in [
        one.clone(),
        delete("a", 7),
        DeadLetter {
            epoch: None,
            ..one.clone()
        },
    ] {
        let content = encode(&letter).unwrap();
        assert_eq!(decode(letter.name(), &content).unwrap(), letter);
    }
    let later = DeadLetter {
        status: 400,
        message: "other".into(),
        activity_id: "b".into(),
        at_ms: 1,
        ..one.clone()
    };
    assert_eq!(later.name(), one.name());
    for other in [
        DeadLetter {
            sink: "other".into(),
            ..one.clone()
        },
        DeadLetter {
            partition_key: "[1]".into(),
            ..one.clone()
        },
        DeadLetter {
            id: "b".into(),
            ..one.clone()
        },
        DeadLetter {
            epoch: None,
            ..one.clone()
        },
        DeadLetter {
            epoch: Some(Epoch(8)),
            ..one.clone()
        },
        DeadLetter {
            action: LetterAction::Create,
            ..one.clone()
        },
        letter("a", 7, "{}"),
    ] {
        assert_ne!(other.name(), one.name(), "{other:?}");
    }
}

#[tokio::test]
async fn a_letter_put_twice_is_one_in_every_store() {
    let (store, stored) = store();
    let memory = MemoryDeadLetters::default();
    let again = DeadLetter {
        message: "said otherwise".into(),
        at_ms: 5,
        ..letter("a", 1, "1")
    };
    let both = [letter("a", 1, "1"), letter("b", 2, "2")];
    for letters in [&stored as &dyn LetterBox, &memory] {
        letters.put(&both).await.unwrap();
        letters.put(&[]).await.unwrap();
        // As a run does that was killed before the acknowledgement.
        letters.put(&[again.clone(), delete("a", 1)]).await.unwrap();
    }
    let mut expected = [both.to_vec(), vec![delete("a", 1)]].concat();
    let mut found = [readable(&memory).await, readable(&stored).await];
    expected.sort_by_key(DeadLetter::name);
    for found in &mut found {
        found.sort_by_key(DeadLetter::name);
        assert_eq!(*found, expected);
    }
    // The next run has a handle of its own.
    let next = StoredDeadLetters::new(store.letters());
    let [one, ..] = listed(&next)
        .await
        .try_into()
        .map(|all: [Listed; 3]| all)
        .unwrap();
    for letters in [&next as &dyn LetterBox, &memory] {
        let only = [one.name, letter("never put", 1, "1").name()];
        let entries = letters.list(Some(&only)).await.unwrap();
        assert_eq!(entries.len(), 1);
        assert_eq!(entries[0].1.as_ref().unwrap(), &one);
        for _ in 0..2 {
            letters.remove(&one).await.unwrap();
        }
        assert_eq!(listed(letters).await.len(), 2);
        let error = letters.load(&one).await.unwrap_err();
        assert!(error.report().contains(&one.name.to_string()), "{error:?}");
    }
}

#[tokio::test]
async fn letters_that_cannot_be_read_are_named_and_hide_no_others() {
    let (store, stored) = store();
    let sound = letter("a", 1, "1");
    stored.put(std::slice::from_ref(&sound)).await.unwrap();
    let (empty, mixed_up) = (letter("b", 1, "1").name(), letter("c", 1, "1").name());
    let raw = store.letters();
    raw.put(empty, Bytes::new()).await.unwrap();
    raw.put(mixed_up, encode(&sound).unwrap()).await.unwrap();
    let listed = stored.list(None).await.unwrap();
    assert_eq!(listed.len(), 3);
    assert_eq!(listed[0].1.as_ref().unwrap(), &Listed::of(sound));
    for (name, letter) in &listed[1..] {
        let error = letter.as_ref().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Checkpoint);
        assert!(error.report().contains(&name.to_string()), "{error:?}");
    }
    assert!(listed[1..].iter().any(|(name, _)| *name == mixed_up));
}

#[tokio::test]
async fn the_newest_letter_of_a_document_is_tried_and_takes_the_others_with_it() {
    let (_, stored) = store();
    let all = [
        letter("a", 2, "2"),
        letter("a", 3, "3"),
        letter("a", 1, "1"),
        letter("b", 1, "1"),
        letter("bad", 1, "1"),
        letter("bad", 2, "\"bad\""),
        letter("taken", 1, "1"),
        delete("gone", 4),
    ];
    stored.put(&all).await.unwrap();
    let desk = Desk::default();
    let theirs = Bytes::from_static(b"theirs");
    desk.documents
        .lock()
        .insert("taken".into(), Some(theirs.clone()));
    let done = replay(&stored, listed(&stored).await, &desk, false)
        .await
        .unwrap();
    let mut became: Vec<String> = done
        .iter()
        .map(|(listed, became)| {
            let letter = &listed.letter;
            let became = format!("{became:?}");
            let epoch = letter.epoch.unwrap_or_default().0;
            format!(
                "{} {epoch} {}",
                letter.id,
                became.split('(').next().unwrap_or_default()
            )
        })
        .collect();
    became.sort();
    let expected = [
        "a 1 Superseded",
        "a 2 Superseded",
        "a 3 Written",
        "b 1 Written",
        "bad 2 Refused",
        "gone 4 Written",
        "taken 1 Occupied",
    ];
    assert_eq!(became, expected);
    let left = readable(&stored).await;
    let mut left: Vec<(&str, u64)> = left
        .iter()
        .map(|letter| (&*letter.id, letter.epoch.unwrap_or_default().0))
        .collect();
    left.sort_unstable();
    assert_eq!(left, [("bad", 1), ("bad", 2), ("taken", 1)]);
    assert_eq!(desk.documents.lock()["a"], Some(Bytes::from_static(b"3")));
    assert_eq!(desk.documents.lock()["taken"], Some(theirs));

    let done = replay(&stored, listed(&stored).await, &desk, true)
        .await
        .unwrap();
    let written = |became: &Replayed| matches!(became, Replayed::Written);
    assert_eq!(done.iter().filter(|(_, became)| written(became)).count(), 1);
    assert_eq!(
        desk.documents.lock()["taken"],
        Some(Bytes::from_static(b"1"))
    );
    assert_eq!(readable(&stored).await.len(), 2);
}

/// A replay that dies after any of its steps, and is done again: every letter's document is written, by the newest.
#[tokio::test]
async fn a_replay_that_is_cut_short_loses_nothing() {
    let all = [
        letter("a", 1, "1"),
        letter("a", 2, "2"),
        letter("b", 3, "3"),
    ];
    for steps in 0..6 {
        let (_, stored) = store();
        stored.put(&all).await.unwrap();
        let desk = Cut {
            desk: Desk::default(),
            left: Mutex::new(steps),
        };
        // Each write is a step; each removal happens with the write after it or not at all.
        let cut = replay(&stored, listed(&stored).await, &desk, false).await;
        assert_eq!(cut.is_err(), steps < 2, "{steps}");
        let done = replay(&stored, listed(&stored).await, &desk.desk, false).await;
        assert!(
            done.unwrap()
                .iter()
                .all(|(_, became)| { matches!(became, Replayed::Written | Replayed::Superseded) })
        );
        assert_eq!(readable(&stored).await, []);
        let documents = desk.desk.documents.lock();
        assert_eq!(documents["a"], Some(Bytes::from_static(b"2")));
        assert_eq!(documents["b"], Some(Bytes::from_static(b"3")));
    }
}

/// Writes, and then fails as if the answer had been lost, once so many writes are done.
struct Cut {
    desk: Desk,
    left: Mutex<u32>,
}

#[async_trait]
impl Redeliver for Cut {
    async fn redeliver(&self, letter: &DeadLetter, overwrite: bool) -> Result<Redelivered> {
        let done = self.desk.redeliver(letter, overwrite).await?;
        let mut left = self.left.lock();
        match left.checked_sub(1) {
            Some(less) => *left = less,
            None => return Err(Error::new(ErrorKind::Unreachable, "the answer was lost")),
        }
        Ok(done)
    }
}
