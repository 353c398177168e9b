//! From a document as the service sends it to a [`Record`].

use std::cell::Cell;

use bytes::Bytes;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use tidefeed_runtime::{Error, ErrorKind, Record, Result};

use super::partition_key::PartitionKeyPaths;
// `_lsn` is there only in the change feed.
use crate::target::SERVICE_PROPERTIES;

/// A decoded document that can be taken out of the SDK's envelope, which only lends it. The cell saves a deep copy.
pub(crate) struct Taken(pub(crate) Cell<Map<String, Value>>);

impl<'de> Deserialize<'de> for Taken {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Map::deserialize(deserializer).map(|fields| Taken(Cell::new(fields)))
    }
}

/// How the documents of one container become records.
#[derive(Clone, Debug)]
pub(crate) struct DocumentShape {
    keys: PartitionKeyPaths,
    /// System properties that are taken off.
    dropped: Vec<&'static str>,
}

impl DocumentShape {
    /// # Errors
    /// [`ErrorKind::Config`] when `keep` names something that is no system property.
    pub(crate) fn new(keys: PartitionKeyPaths, keep: &[String]) -> Result<Self> {
        if let Some(unknown) = keep
            .iter()
            .find(|name| !SERVICE_PROPERTIES.contains(&name.as_str()))
        {
            return Err(Error::new(
                ErrorKind::Config,
                format!(
                    "keep_system_properties: {unknown} is no system property; there are {}",
                    SERVICE_PROPERTIES.join(", ")
                ),
            ));
        }
        let dropped = SERVICE_PROPERTIES
            .into_iter()
            .filter(|name| !keep.iter().any(|kept| kept == name))
            .collect();
        Ok(DocumentShape { keys, dropped })
    }

    /// Takes the system properties off `document`.
    pub(crate) fn strip(&self, document: &mut Map<String, Value>) {
        for name in &self.dropped {
            document.remove(*name);
        }
    }

    /// The document as a record: its key is the JSON array of its partition key values and, last, its id.
    ///
    /// # Errors
    /// [`ErrorKind::Data`] when it has no id, which the service does not allow.
    pub(crate) fn record(&self, mut document: Map<String, Value>) -> Result<Record> {
        self.strip(&mut document);
        let Some(id @ Value::String(_)) = document.get("id") else {
            return Err(Error::new(
                ErrorKind::Data,
                "a document of the change feed has no id",
            ));
        };
        let undefined = Value::Object(Map::new());
        let mut key = Vec::with_capacity(48);
        key.push(b'[');
        for value in self.keys.values(&document) {
            write_json(&mut key, value.unwrap_or(&undefined));
            key.push(b',');
        }
        write_json(&mut key, id);
        key.push(b']');
        let mut body = Vec::with_capacity(256);
        write_json(&mut body, &document);
        Ok(Record {
            key: key.into(),
            body: Some(Bytes::from(body)),
        })
    }
}

fn write_json(bytes: &mut Vec<u8>, value: &impl serde::Serialize) {
    serde_json::to_writer(bytes, value).expect("a JSON value with string keys always serializes");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(paths: &[&str], keep: &[&str]) -> Result<DocumentShape> {
        let owned = |names: &[&str]| {
            names
                .iter()
                .map(|name| name.to_string())
                .collect::<Vec<_>>()
        };
        DocumentShape::new(PartitionKeyPaths::new(owned(paths))?, &owned(keep))
    }

    fn document(json: &str) -> Map<String, Value> {
        serde_json::from_str(json).unwrap()
    }

    const SENT: &str = r#"{"id":"id7","day":"EWR-2013-01-01","n":1.5,"_rid":"r","_self":"s","_etag":"e",
        "_attachments":"a","_ts":12,"_lsn":3,"_mine":true}"#;

    #[test]
    fn a_record_has_the_key_values_and_id_and_no_system_properties() {
        let record = shape(&["/day"], &[])
            .unwrap()
            .record(document(SENT))
            .unwrap();
        assert_eq!(record.key, r#"["EWR-2013-01-01","id7"]"#);
        assert_eq!(
            record.body.unwrap(),
            r#"{"_mine":true,"day":"EWR-2013-01-01","id":"id7","n":1.5}"#
        );
    }

    #[test]
    fn asked_for_properties_stay_and_unknown_ones_are_refused() {
        let record = shape(&["/day"], &["_ts"])
            .unwrap()
            .record(document(SENT))
            .unwrap();
        let body = document(std::str::from_utf8(&record.body.unwrap()).unwrap());
        assert_eq!(body["_ts"], 12);
        assert!(!body.contains_key("_etag"));
        let error = shape(&["/day"], &["ts"]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
    }

    #[test]
    fn a_missing_key_field_is_undefined_and_a_null_one_is_null() {
        let shape = shape(&["/a", "/b/c"], &[]).unwrap();
        let key = |json| shape.record(document(json)).unwrap().key;
        assert_eq!(key(r#"{"id":"x","a":null}"#), r#"[null,{},"x"]"#);
        assert_eq!(key(r#"{"id":"x","a":1,"b":{"c":"d"}}"#), r#"[1,"d","x"]"#);
    }

    #[test]
    fn a_document_without_an_id_is_an_error() {
        let error = shape(&["/a"], &[])
            .unwrap()
            .record(document(r#"{"a":1}"#))
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data);
    }
}
