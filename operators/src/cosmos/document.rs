//! From a document as the service sends it to a [`Record`].

use std::cell::Cell;

use azure_data_cosmos::models::{ChangeFeedItem, ChangeFeedMetadata, ChangeFeedOperationType};
use bytes::Bytes;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use tidefeed_runtime::{Error, ErrorKind, Record, Result};

use super::feed::DeletedMark;
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
    /// Documents with this are not there.
    deleted: Option<DeletedMark>,
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
        Ok(DocumentShape {
            keys,
            dropped,
            deleted: None,
        })
    }

    /// The same, where documents with this mark count as deleted.
    pub(super) fn with_deleted(self, mark: DeletedMark) -> Self {
        DocumentShape {
            deleted: Some(mark),
            ..self
        }
    }

    /// Takes the system properties off `document`.
    pub(crate) fn strip(&self, document: &mut Map<String, Value>) {
        for name in &self.dropped {
            document.remove(*name);
        }
    }

    /// A change of a feed, of either mode, as a record.
    ///
    /// # Errors
    /// [`ErrorKind::Data`] when it says neither what the document is nor which one is gone.
    pub(super) fn change(&self, item: &ChangeFeedItem<Taken>) -> Result<Record> {
        if item.operation_type() == Some(ChangeFeedOperationType::Delete) {
            return self.removal(item);
        }
        match item.current() {
            Some(document) => self.record(document.0.take()),
            None => Err(Error::new(
                ErrorKind::Data,
                "a change in the change feed has no document and is no delete",
            )),
        }
    }

    /// Which document is gone is told by its last version, or else by the metadata, where an undefined partition key may look like
    /// a null one.
    fn removal(&self, item: &ChangeFeedItem<Taken>) -> Result<Record> {
        let key = match (item.previous(), item.metadata()) {
            (Some(previous), _) => self.key(&previous.0.take())?,
            (None, Some(metadata)) => self.key_of_metadata(metadata)?,
            (None, None) => return Err(no_id()),
        };
        Ok(Record { key, body: None })
    }

    fn key_of_metadata(&self, metadata: &ChangeFeedMetadata) -> Result<Bytes> {
        let id = Value::from(metadata.id().ok_or_else(no_id)?);
        match metadata.partition_key() {
            Some(Value::Array(values)) if values.len() == self.keys.paths().len() => {
                Ok(key_json(values.iter().map(Some), &id))
            }
            // By path, without the first slash.
            Some(Value::Object(fields)) => {
                let value = |path: &String| fields.get(path.trim_start_matches('/'));
                Ok(key_json(self.keys.paths().iter().map(value), &id))
            }
            _ => Err(Error::new(
                ErrorKind::Data,
                "a delete in the change feed has no partition key",
            )),
        }
    }

    /// The document as a record: its key is the JSON array of its partition key values and, last, its id.
    ///
    /// # Errors
    /// [`ErrorKind::Data`] when it has no id, which the service does not allow.
    pub(crate) fn record(&self, mut document: Map<String, Value>) -> Result<Record> {
        let key = self.key(&document)?;
        if self
            .deleted
            .as_ref()
            .is_some_and(|mark| mark.is_on(&document))
        {
            return Ok(Record { key, body: None });
        }
        self.strip(&mut document);
        let mut body = Vec::with_capacity(256);
        write_json(&mut body, &document);
        Ok(Record {
            key,
            body: Some(Bytes::from(body)),
        })
    }

    fn key(&self, document: &Map<String, Value>) -> Result<Bytes> {
        match document.get("id") {
            Some(id @ Value::String(_)) => Ok(key_json(self.keys.values(document), id)),
            _ => Err(no_id()),
        }
    }
}

fn no_id() -> Error {
    Error::new(ErrorKind::Data, "a document of the change feed has no id")
}

fn key_json<'a>(values: impl Iterator<Item = Option<&'a Value>>, id: &Value) -> Bytes {
    let undefined = Value::Object(Map::new());
    let mut key = Vec::with_capacity(48);
    key.push(b'[');
    for value in values {
        write_json(&mut key, value.unwrap_or(&undefined));
        key.push(b',');
    }
    write_json(&mut key, id);
    key.push(b']');
    key.into()
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

    fn change(shape: &DocumentShape, json: &str) -> Result<(String, bool)> {
        let item: ChangeFeedItem<Taken> = serde_json::from_str(json).unwrap();
        let record = shape.change(&item)?;
        let key = String::from_utf8(record.key.to_vec()).unwrap();
        Ok((key, record.body.is_some()))
    }

    #[test]
    fn a_delete_is_known_by_its_last_version_or_its_metadata() {
        let one = shape(&["/pk"], &[]).unwrap();
        let deep = shape(&["/a/b", "/c"], &[]).unwrap();
        for (shape, json, key) in [
            (
                &one,
                r#"{"current":{},"previous":{"id":"x","n":1},"metadata":{"operationType":"delete","id":"x","partitionKey":{"pk":null}}}"#,
                r#"[{},"x"]"#,
            ),
            (
                &one,
                r#"{"current":{},"metadata":{"operationType":"delete","timeToLiveExpired":true,"id":"x","partitionKey":{"pk":7}}}"#,
                r#"[7,"x"]"#,
            ),
            (
                &one,
                r#"{"metadata":{"operationType":"delete","id":"x","partitionKey":["p"]}}"#,
                r#"["p","x"]"#,
            ),
            (
                &one,
                r#"{"current":{"id":"x","pk":"p"},"metadata":{"operationType":"delete","id":"x","partitionKey":["p"]}}"#,
                r#"["p","x"]"#,
            ),
            (
                &deep,
                r#"{"metadata":{"operationType":"delete","id":"x","partitionKey":{"a/b":1,"c":"d"}}}"#,
                r#"[1,"d","x"]"#,
            ),
        ] {
            assert_eq!(
                change(shape, json).unwrap(),
                (key.to_owned(), false),
                "{json}"
            );
        }
        let created =
            r#"{"current":{"id":"x","pk":"p"},"metadata":{"operationType":"create","lsn":4}}"#;
        assert_eq!(
            change(&one, created).unwrap(),
            (r#"["p","x"]"#.to_owned(), true)
        );
        for unknown in [
            r#"{"metadata":{"operationType":"delete","partitionKey":["p"]}}"#,
            r#"{"metadata":{"operationType":"delete","id":"x"}}"#,
            r#"{"metadata":{"operationType":"delete","id":"x","partitionKey":["p",1]}}"#,
            r#"{"metadata":{"operationType":"merge","id":"x","partitionKey":["p"]}}"#,
        ] {
            let error = change(&one, unknown).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Data, "{unknown}");
        }
    }

    #[test]
    fn a_marked_document_is_a_removal() {
        let mark = crate::cosmos::SoftDelete {
            path: "/isDeleted".to_owned(),
            value: None,
        };
        let shape = shape(&["/pk"], &[]).unwrap();
        let shape = shape.with_deleted(mark.compile().unwrap());
        let marked = r#"{"current":{"id":"x","pk":"p","isDeleted":true,"ttl":3600}}"#;
        assert_eq!(
            change(&shape, marked).unwrap(),
            (r#"["p","x"]"#.to_owned(), false)
        );
        let back = r#"{"current":{"id":"x","pk":"p","isDeleted":false}}"#;
        assert_eq!(
            change(&shape, back).unwrap(),
            (r#"["p","x"]"#.to_owned(), true)
        );
    }
}
