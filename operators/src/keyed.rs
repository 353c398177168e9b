//! Keyed state as a plain structure: a step per key and epoch, the rows it changes, and the records that make it durable.
//!
//! A record's key is the key as JSON, its body `{"state":…,"output":…}`, each of the two left out when there is none, and no
//! body at all when both are gone. A key that is to be woken up by a watermark has `"wake_ms"` beside them. JSON, because a newer
//! version of a job must be able to read what an older one wrote: a new field of the state gets a serde default.

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
    /// Of all keys and their bodies.
    bytes: usize,
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
    /// Of that body.
    bytes: usize,
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
            bytes: 0,
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
                bytes: body.len(),
            };
            rows.extend(slot.output.clone().map(|output| (key, output)));
            let key: KeyBytes = record.key.as_ref().into();
            self.wakes.extend(wake_ms.map(|at| (at, key.clone())));
            self.take(&key);
            self.keep(key, slot);
        }
        Ok(rows)
    }

    /// How many keys have a state, an output or a time to wake up.
    pub fn rows(&self) -> usize {
        self.keys.len()
    }

    /// Those keys and what they have, as JSON, as the checkpoint keeps it. In memory it is more or less, as the types are.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn keep(&mut self, key: KeyBytes, slot: Slot<K, S, O>) {
        self.bytes += key.len() + slot.bytes;
        self.keys.insert(key, slot);
    }

    fn take(&mut self, key: &KeyBytes) -> Option<Slot<K, S, O>> {
        let slot = self.keys.remove(key)?;
        self.bytes -= key.len() + slot.bytes;
        Some(slot)
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
        let mut slot = match self.take(&key) {
            Some(slot) => slot,
            None => Slot {
                key: self.decode("key", &key, &key)?,
                state: None,
                output: None,
                wake_ms: None,
                saved: None,
                bytes: 0,
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
        slot.bytes = body.as_ref().map_or(0, Vec::len);
        if saved != slot.saved {
            let record = Record {
                key: Bytes::copy_from_slice(&key),
                body: body.map(Bytes::from),
            };
            outcome.records.push(record);
        }
        if saved.is_some() {
            slot.saved = saved;
            self.keep(key, slot);
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
mod tests;
