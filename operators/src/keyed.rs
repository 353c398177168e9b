//! Keyed state as a plain structure: a step per key and epoch, the rows it changes, and the records that make it durable.
//!
//! A record's key is the key as JSON, its body `{"state":…,"output":…}`, each of the two left out when there is none, and no
//! body at all when both are gone. A key that is to be woken up by a watermark has `"wake_ms"` beside them. JSON, because a newer version of a job must be able to read what an older one wrote: a
//! new field of the state gets a serde default.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use differential_dataflow::consolidation::consolidate;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use tidefeed_runtime::{Error, ErrorKind, Record, Result};
use xxhash_rust::xxh3::{Xxh3Default, xxh3_128};

/// A key as JSON: what it is exchanged and kept by.
pub type KeyBytes = Box<[u8]>;

/// The updates of one epoch, by key.
pub type Updates<V> = BTreeMap<KeyBytes, Vec<(V, isize)>>;

/// How the watermark moves in an epoch, milliseconds since the UNIX epoch. Without a watermark it stays at 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// Before the epoch: what its rows are judged by.
    pub before_ms: u64,
    /// After it.
    pub now_ms: u64,
}

/// What a step leaves of a key beside its state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stepped<O> {
    /// Its output from now on.
    pub output: Option<O>,
    /// Step it again, with no changes if there are none, when the watermark comes here or beyond; each step says so anew.
    pub wake_ms: Option<u64>,
}

/// A step that knows no time, as one that does.
#[expect(
    clippy::type_complexity,
    reason = "a step's type, which a bound cannot name"
)]
pub fn untimed<K, V, S, O>(
    step: impl Fn(&K, &mut Option<S>, Vec<(V, isize)>) -> Option<O>,
) -> impl Fn(&K, &mut Option<S>, Option<&O>, Vec<(V, isize)>, Moment) -> Stepped<O> {
    move |key, state, _, changes, _| Stepped {
        output: step(key, state, changes),
        wake_ms: None,
    }
}

/// What an epoch came to.
#[derive(Debug)]
pub struct Outcome<K, O> {
    /// How the collection of outputs changed.
    pub rows: Vec<((K, O), isize)>,
    /// The new state of each key whose state or output changed, in order of the keys.
    pub records: Vec<Record>,
    /// Input rows that came minus those that went.
    pub input_rows: i64,
    /// The same sum over their hashes, modulo 2^128 (I8).
    pub input_hash: u128,
}

/// The state and the newest output of every key of one worker.
pub struct KeyedState<K, S, O, F> {
    name: String,
    step: F,
    keys: HashMap<KeyBytes, Slot<K, S, O>>,
    /// Keys that are to be woken up, by when.
    wakes: BTreeSet<(u64, KeyBytes)>,
    /// Keys that the checkpoint holds of an earlier life of this name, which ended.
    stale: Vec<Bytes>,
}

struct Slot<K, S, O> {
    key: K,
    state: Option<S>,
    output: Option<O>,
    wake_ms: Option<u64>,
    /// Hash of the body that is durable or on its way; `None` before there is one.
    saved: Option<u128>,
}

/// The body of a record. `Some` of something that is `null` in JSON, such as `()`, must come back as that.
#[derive(Serialize, Deserialize)]
#[serde(bound(deserialize = "S: DeserializeOwned, O: DeserializeOwned"))]
struct Body<S, O> {
    #[serde(
        default = "Option::default",
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    state: Option<S>,
    #[serde(
        default = "Option::default",
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    output: Option<O>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    wake_ms: Option<u64>,
}

fn present<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

impl<K, S, O, F> KeyedState<K, S, O, F>
where
    K: Clone + DeserializeOwned,
    S: Serialize + DeserializeOwned,
    O: Clone + PartialEq + Serialize + DeserializeOwned,
{
    /// Keyed state without a key.
    pub fn new(name: &str, step: F) -> Self {
        KeyedState {
            name: name.to_owned(),
            step,
            keys: HashMap::new(),
            wakes: BTreeSet::new(),
            stale: Vec::new(),
        }
    }

    /// Takes over what a checkpoint holds of some keys, and returns their outputs.
    ///
    /// # Errors
    /// `Data` when a key or its state does not decode.
    pub fn load(&mut self, records: Vec<Record>) -> Result<Vec<(K, O)>> {
        let mut rows = Vec::new();
        for record in records {
            let Some(body) = record.body else { continue };
            let key: K = self.decode("key", &record.key, &record.key)?;
            let Body {
                state,
                output,
                wake_ms,
            } = self.decode("state", &record.key, &body)?;
            let slot = Slot {
                key: key.clone(),
                state,
                output,
                wake_ms,
                saved: Some(xxh3_128(&body)),
            };
            rows.extend(slot.output.clone().map(|output| (key, output)));
            let key: KeyBytes = record.key.as_ref().into();
            self.wakes.extend(wake_ms.map(|at| (at, key.clone())));
            self.keys.insert(key, slot);
        }
        Ok(rows)
    }

    /// Takes note of what a checkpoint holds under this name from an earlier life: the next epoch removes it.
    pub fn discard(&mut self, records: Vec<Record>) {
        self.stale
            .extend(records.into_iter().map(|record| record.key));
    }

    /// Whether something is left to be removed.
    pub fn has_stale(&self) -> bool {
        !self.stale.is_empty()
    }

    /// What updates come to as input alone, for the comparison with the commit.
    ///
    /// # Errors
    /// `Data` when a value has no JSON form.
    pub fn observe<V: Ord + Serialize>(&self, updates: Updates<V>) -> Result<Outcome<K, O>> {
        let mut outcome = Outcome::default();
        for (key, mut values) in updates {
            consolidate(&mut values);
            self.observe_key(&mut outcome, &key, &values)?;
        }
        Ok(outcome)
    }

    fn observe_key<V: Serialize>(
        &self,
        outcome: &mut Outcome<K, O>,
        key: &[u8],
        values: &[(V, isize)],
    ) -> Result<()> {
        for (value, diff) in values {
            let value = self.encode("value", key, value)?;
            let mut hasher = Xxh3Default::new();
            hasher.update(key);
            // No JSON text on one line holds one, so no two pairs look alike.
            hasher.update(b"\n");
            hasher.update(&value);
            let row = hasher.digest128().wrapping_mul(*diff as i128 as u128);
            outcome.input_rows += *diff as i64;
            outcome.input_hash = outcome.input_hash.wrapping_add(row);
        }
        Ok(())
    }

    /// Runs the step for every key with a net change, and for every key that is to be woken up by a watermark that moves, in order
    /// of the keys' JSON. What wakes up is thus the same for any grouping of keys into workers.
    ///
    /// # Errors
    /// `Data` when a key does not decode, or a value, state or output has no JSON form.
    pub fn advance<V>(&mut self, mut updates: Updates<V>, moment: Moment) -> Result<Outcome<K, O>>
    where
        V: Ord + Serialize,
        F: Fn(&K, &mut Option<S>, Option<&O>, Vec<(V, isize)>, Moment) -> Stepped<O>,
    {
        let mut outcome = Outcome::default();
        let due = self.take_due(moment);
        for key in &due {
            updates.entry(key.clone()).or_default();
        }
        for (key, mut values) in updates {
            consolidate(&mut values);
            if values.is_empty() && !due.contains(&key) {
                continue;
            }
            self.observe_key(&mut outcome, &key, &values)?;
            self.step(&mut outcome, key, values, moment)?;
        }
        for key in std::mem::take(&mut self.stale) {
            if !self.keys.contains_key(key.as_ref()) {
                outcome.records.push(Record { key, body: None });
            }
        }
        Ok(outcome)
    }

    /// The keys that the watermark, if it moves, wakes up.
    fn take_due(&mut self, moment: Moment) -> BTreeSet<KeyBytes> {
        let mut due = BTreeSet::new();
        while let Some((at_ms, _)) = self.wakes.first()
            && *at_ms <= moment.now_ms
            && moment.before_ms < moment.now_ms
        {
            due.extend(self.wakes.pop_first().map(|(_, key)| key));
        }
        due
    }

    fn step<V>(
        &mut self,
        outcome: &mut Outcome<K, O>,
        key: KeyBytes,
        values: Vec<(V, isize)>,
        moment: Moment,
    ) -> Result<()>
    where
        F: Fn(&K, &mut Option<S>, Option<&O>, Vec<(V, isize)>, Moment) -> Stepped<O>,
    {
        let mut slot = match self.keys.remove(&key) {
            Some(slot) => slot,
            None => Slot {
                key: self.decode("key", &key, &key)?,
                state: None,
                output: None,
                wake_ms: None,
                saved: None,
            },
        };
        let Stepped { output, wake_ms } = (self.step)(
            &slot.key,
            &mut slot.state,
            slot.output.as_ref(),
            values,
            moment,
        );
        if let Some(before) = std::mem::replace(&mut slot.wake_ms, wake_ms) {
            self.wakes.remove(&(before, key.clone()));
        }
        self.wakes.extend(wake_ms.map(|at| (at, key.clone())));
        if slot.output != output {
            let gone = std::mem::replace(&mut slot.output, output);
            let row = |output| (slot.key.clone(), output);
            let come = slot.output.clone();
            outcome.rows.extend(gone.map(|output| (row(output), -1)));
            outcome.rows.extend(come.map(|output| (row(output), 1)));
        }
        let body = Body {
            state: slot.state.as_ref(),
            output: slot.output.as_ref(),
            wake_ms,
        };
        let body = match body.state.is_some() || body.output.is_some() || wake_ms.is_some() {
            true => Some(self.encode("state", &key, &body)?),
            false => None,
        };
        let saved = body.as_deref().map(xxh3_128);
        if saved != slot.saved {
            let record = Record {
                key: Bytes::copy_from_slice(&key),
                body: body.map(Bytes::from),
            };
            outcome.records.push(record);
        }
        if saved.is_some() {
            slot.saved = saved;
            self.keys.insert(key, slot);
        }
        Ok(())
    }

    fn decode<T: DeserializeOwned>(&self, what: &str, key: &[u8], json: &[u8]) -> Result<T> {
        serde_json::from_slice(json).map_err(|error| {
            let advice = "give new fields a serde default, or the state another name";
            self.wrong(key, format!("a {what} that does not decode: {advice}"))
                .with_source(error)
        })
    }

    fn encode<T: Serialize>(&self, what: &str, key: &[u8], value: &T) -> Result<Vec<u8>> {
        serde_json::to_vec(value).map_err(|error| {
            self.wrong(key, format!("a {what} without JSON form"))
                .with_source(error)
        })
    }

    fn wrong(&self, key: &[u8], what: String) -> Error {
        let key = String::from_utf8_lossy(key);
        Error::new(
            ErrorKind::Data,
            format!("keyed state {} has under key {key} {what}", self.name),
        )
    }
}

impl<K, O> Default for Outcome<K, O> {
    fn default() -> Self {
        Outcome {
            rows: Vec::new(),
            records: Vec::new(),
            input_rows: 0,
            input_hash: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn updates<V>(pairs: impl IntoIterator<Item = (&'static str, V, isize)>) -> Updates<V> {
        let mut updates = Updates::new();
        for (key, value, diff) in pairs {
            let key = serde_json::to_vec(key).expect("JSON").into();
            updates
                .entry(key)
                .or_insert_with(Vec::new)
                .push((value, diff));
        }
        updates
    }

    fn texts(records: &[Record]) -> Vec<(String, Option<String>)> {
        let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
        let pair = |record: &Record| (text(&record.key), record.body.as_ref().map(text));
        records.iter().map(pair).collect()
    }

    /// Counts what came; an output from two on, none below.
    fn count(_: &String, state: &mut Option<u32>, values: Vec<(u32, isize)>) -> Option<u32> {
        let come: isize = values.iter().map(|(_, diff)| diff).sum();
        let count = state
            .unwrap_or_default()
            .checked_add_signed(come as i32)
            .unwrap_or(0);
        *state = (count > 0).then_some(count);
        (*state).filter(|count| *count >= 2)
    }

    #[test]
    fn rows_and_records_follow_what_changed() {
        let mut state = KeyedState::<String, u32, u32, _>::new("s", untimed(count));
        let first = state
            .advance(
                updates([
                    ("b", 1, 1),
                    ("a", 1, 1),
                    ("a", 2, 1),
                    ("c", 1, 1),
                    ("c", 1, -1),
                ]),
                Moment::default(),
            )
            .expect("steps");
        assert_eq!(first.rows, [(("a".to_owned(), 2), 1)]);
        assert_eq!(first.input_rows, 3);
        let expected = [
            ("\"a\"", Some(r#"{"state":2,"output":2}"#)),
            ("\"b\"", Some(r#"{"state":1}"#)),
        ];
        assert_eq!(
            texts(&first.records),
            expected.map(|(key, body)| (key.to_owned(), body.map(str::to_owned)))
        );
        // A replaced value changes no count, so nothing is to be written.
        let same = state
            .advance(updates([("a", 2, -1), ("a", 3, 1)]), Moment::default())
            .expect("steps");
        assert!(same.rows.is_empty() && same.records.is_empty());
        assert_ne!(same.input_hash, 0);
        let last = state
            .advance(updates([("a", 3, -1), ("b", 1, -1)]), Moment::default())
            .expect("steps");
        assert_eq!(last.rows, [(("a".to_owned(), 2), -1)]);
        assert_eq!(last.records[1].body, None, "the state of b is gone");
        assert_eq!(state.keys.len(), 1);
    }

    #[test]
    fn values_come_sorted_and_consolidated() {
        let seen = |_: &String, _: &mut Option<()>, values: Vec<(u32, isize)>| Some(values);
        let mut state = KeyedState::new("s", untimed(seen));
        let outcome = state
            .advance(
                updates([
                    ("a", 9, 1),
                    ("a", 3, -1),
                    ("a", 9, 1),
                    ("a", 5, 1),
                    ("a", 5, -1),
                ]),
                Moment::default(),
            )
            .expect("steps");
        assert_eq!(outcome.rows, [(("a".to_owned(), vec![(3, -1), (9, 2)]), 1)]);
    }

    #[test]
    fn a_state_that_is_null_in_json_comes_back() {
        let seen = |_: &String, state: &mut Option<()>, _: Vec<(u32, isize)>| {
            state.replace(()).is_none().then_some(None::<u32>)
        };
        let mut state = KeyedState::new("s", untimed(seen));
        let outcome = state
            .advance(updates([("a", 1, 1)]), Moment::default())
            .expect("steps");
        assert_eq!(
            texts(&outcome.records)[0].1.as_deref(),
            Some(r#"{"state":null,"output":null}"#)
        );
        let mut state = KeyedState::new("s", untimed(seen));
        let rows = state.load(outcome.records).expect("loads");
        assert_eq!(rows, [("a".to_owned(), None)]);
        let outcome = state
            .advance(updates([("a", 2, 1)]), Moment::default())
            .expect("steps");
        assert_eq!(outcome.rows, [(("a".to_owned(), None), -1)]);
    }

    #[test]
    fn what_an_earlier_life_left_is_removed_unless_it_is_there_again() {
        let record = |key: &'static str| Record {
            key: Bytes::from_static(key.as_bytes()),
            body: Some("{\"state\":7}".into()),
        };
        let mut state = KeyedState::<String, u32, u32, _>::new("s", untimed(count));
        state.discard(vec![record("\"a\""), record("\"b\"")]);
        let outcome = state
            .advance(updates([("a", 1, 1)]), Moment::default())
            .expect("steps");
        let expected = [("\"a\"", Some(r#"{"state":1}"#)), ("\"b\"", None)];
        assert_eq!(
            texts(&outcome.records),
            expected.map(|(key, body)| (key.to_owned(), body.map(str::to_owned)))
        );
        assert!(!state.has_stale());
    }

    /// Keys ask for a moment, come back from a checkpoint with it, and are woken up once, whether anything of them changes or not.
    #[test]
    fn a_key_is_woken_up_when_the_watermark_comes_to_its_moment() {
        // Its output is how often it was stepped, and it wakes up 10 after the sum of what came.
        fn wake(
            _: &String,
            sum: &mut Option<u64>,
            steps: Option<&u32>,
            changes: Vec<(u64, isize)>,
            _: Moment,
        ) -> Stepped<u32> {
            let came: u64 = changes.iter().map(|(value, _)| value).sum();
            let sum = *sum.insert(sum.unwrap_or_default() + came);
            Stepped {
                output: Some(steps.map_or(1, |steps| steps + 1)),
                wake_ms: (!changes.is_empty()).then_some(sum + 10),
            }
        }
        let moment = |before_ms, now_ms| Moment { before_ms, now_ms };
        let mut state = KeyedState::<String, u64, u32, _>::new("s", wake);
        let first = updates([("a", 5, 1), ("b", 7, 1)]);
        let first = state.advance(first, moment(0, 0)).expect("steps");
        assert_eq!(
            texts(&first.records)[0].1.as_deref(),
            Some(r#"{"state":5,"output":1,"wake_ms":15}"#)
        );
        let mut state = KeyedState::<String, u64, u32, _>::new("s", wake);
        state.load(first.records).expect("loads");
        let nothing = || Updates::<u64>::new();
        let steps = |outcome: Outcome<String, u32>| -> Vec<(String, u32)> {
            let rows = outcome.rows.into_iter().filter(|(_, diff)| *diff > 0);
            rows.map(|(row, _)| row).collect()
        };
        let outcome = state.advance(nothing(), moment(0, 14)).expect("steps");
        assert_eq!(steps(outcome), [], "too soon");
        // One asks for another moment in time, the other is woken up.
        let outcome = state.advance(updates([("b", 9, 1)]), moment(14, 17));
        assert_eq!(
            steps(outcome.expect("steps")),
            [("a".to_owned(), 2), ("b".to_owned(), 2)]
        );
        let outcome = state.advance(nothing(), moment(17, 17)).expect("steps");
        assert_eq!(steps(outcome), []);
        let outcome = state.advance(nothing(), moment(17, 100)).expect("steps");
        assert_eq!(steps(outcome), [("b".to_owned(), 3)]);
        let outcome = state.advance(nothing(), moment(100, 900)).expect("steps");
        assert_eq!(steps(outcome), [], "nobody asked again");
    }

    #[test]
    fn the_input_hash_forgets_grouping_and_tells_pairs_apart() {
        let state = KeyedState::<String, u32, u32, _>::new("s", untimed(count));
        let hash = |pairs: &[(&'static str, u32, isize)]| {
            let outcome = state.observe(updates(pairs.iter().copied()));
            outcome.expect("observes").input_hash
        };
        let whole = hash(&[("a", 1, 1), ("b", 2, 1)]);
        let parts =
            hash(&[("a", 1, 1), ("b", 3, 1)]).wrapping_add(hash(&[("b", 3, -1), ("b", 2, 1)]));
        assert_eq!(whole, parts);
        assert_ne!(hash(&[("a", 1, 1)]), hash(&[("b", 1, 1)]));
        assert_ne!(hash(&[("a", 1, 1)]), hash(&[("a", 2, 1)]));
    }

    #[test]
    fn a_state_that_does_not_decode_is_named() {
        let mut state = KeyedState::<String, u32, u32, _>::new("visits", untimed(count));
        let record = Record {
            key: "\"anna\"".into(),
            body: Some("{\"state\":\"x\"}".into()),
        };
        let report = state.load(vec![record]).expect_err("no count").report();
        assert!(
            report.contains("visits") && report.contains("anna"),
            "{report}"
        );
    }
}
