//! Documents on their way to the worker that keeps them.
//!
//! timely sends records between processes by bincode, which reads back neither `serde_json::Value` nor a type with
//! `#[serde(flatten)]`, `#[serde(untagged)]` or `skip_serializing_if`; and it does not always notice. Documents are read from JSON, where
//! all of those are at home. So a document for another process travels as the JSON that the source read, and is read there once
//! more, into the same value. Within a process it travels as the value.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::json;
use crate::source::DocumentKey;
use crate::upsert::worker_hash;

/// A document, on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Portable<V> {
    /// As it was read, for a worker of this process.
    Here(V),
    /// As it is in the container, for a worker of another one. It can be read.
    Body(Bytes),
}

impl<V: DeserializeOwned> Portable<V> {
    /// The value.
    ///
    /// # Panics
    /// When the body cannot be read: whoever makes one has read it.
    pub fn into_value(self) -> V {
        match self {
            Portable::Here(value) => value,
            Portable::Body(body) => {
                json::from_slice(&body).expect("the source has read this document")
            }
        }
    }
}

impl<V> Serialize for Portable<V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Portable::Body(body) => serializer.serialize_bytes(body),
            Portable::Here(_) => Err(serde::ser::Error::custom(
                "a document for this process was sent to another one",
            )),
        }
    }
}

impl<'de, V: DeserializeOwned> Deserialize<'de> for Portable<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let body = <&[u8]>::deserialize(deserializer)?;
        let value = json::from_slice(body).map_err(serde::de::Error::custom)?;
        Ok(Portable::Here(value))
    }
}

/// Which workers are of other processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elsewhere {
    /// The number of this process's first worker.
    pub first: usize,
    /// How many workers this process has.
    pub here: usize,
    /// The workers of all processes.
    pub peers: usize,
}

impl Elsewhere {
    /// Whether a document's worker is of another process.
    pub(crate) fn has(&self, key: &DocumentKey) -> bool {
        let worker = (worker_hash(key) % self.peers.max(1) as u64) as usize;
        !(self.first..self.first + self.here).contains(&worker)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
    struct Inner {
        a: u8,
    }

    /// What bincode alone could not bring back.
    #[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
    struct Document {
        #[serde(flatten)]
        inner: Inner,
        #[serde(default)]
        none: Option<u8>,
        any: serde_json::Value,
    }

    #[test]
    fn a_document_comes_back_as_it_was_read() {
        let body = Bytes::from_static(br#"{"a":1,"any":{"b":[0.1,null]},"unknown":true}"#);
        let read: Document = json::from_slice(&body).expect("reads");
        let sent = bincode::serialize(&Portable::<Document>::Body(body.clone())).expect("sent");
        let found: Portable<Document> = bincode::deserialize(&sent).expect("found");
        assert_eq!(found, Portable::Here(read.clone()));
        assert_eq!(Portable::<Document>::Body(body).into_value(), read);
        assert!(bincode::serialize(&Portable::Here(read)).is_err());
    }

    #[test]
    fn every_document_is_here_in_one_process() {
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..200 {
            let (here, processes) = (random.usize(1..4), random.usize(1..4));
            let key = DocumentKey::from([random.u8(..), random.u8(..)].as_slice());
            let at = (0..processes).map(|process| Elsewhere {
                first: process * here,
                here,
                peers: processes * here,
            });
            assert_eq!(at.filter(|at| !at.has(&key)).count(), 1, "seed {seed}");
        }
    }
}
