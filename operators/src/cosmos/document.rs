//! From a document as the service sends it to a [`Record`](tidefeed_runtime::Record).
//!
//! Documents are not made into trees: their properties are looked at as the text that they are, and what is kept is copied as it
//! stands.

use azure_data_cosmos::models::ChangeFeedMetadata;
use serde_json::{Map, Value};
use tidefeed_runtime::{Error, ErrorKind, Result};

use super::feed::DeletedMark;
use super::partition_key::PartitionKeyPaths;
use crate::projection::Projection;
use crate::properties::{Property, find, properties, write_some};
use tidefeed_runtime::RecordsWriter;
// `_lsn` is there only in the change feed.
use crate::target::SERVICE_PROPERTIES;

/// How the documents of one container become records.
#[derive(Clone, Debug)]
pub(crate) struct DocumentShape {
    keys: PartitionKeyPaths,
    /// System properties that are taken off.
    dropped: Vec<&'static str>,
    /// Of the others, what is kept.
    fields: Projection,
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
            fields: Projection::default(),
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

    /// The same, where only these properties are kept.
    pub(super) fn with_fields(self, fields: Projection) -> Self {
        DocumentShape { fields, ..self }
    }

    /// Writes the document as a record: its key is the JSON array of its partition key values and, last, its id.
    ///
    /// # Errors
    /// [`ErrorKind::Data`] when it has no id, which the service does not allow.
    pub(crate) fn write(&self, document: &[Property<'_>], out: &mut RecordsWriter) -> Result<()> {
        let id = id_of(document)?;
        let deleted = self.deleted.as_ref();
        let deleted = deleted.is_some_and(|mark| mark.is_on(document));
        let kept = |name: &str| !self.dropped.contains(&name) && self.fields.keeps(name);
        let body = |out: &mut Vec<u8>| write_some(out, document, kept);
        let key = |out: &mut Vec<u8>| self.write_key(out, document, id);
        out.record(key, (!deleted).then_some(body));
        Ok(())
    }

    /// Writes that the document is gone, of which this is the last version.
    ///
    /// # Errors
    /// [`ErrorKind::Data`] when it has no id.
    pub(crate) fn write_removal(
        &self,
        document: &[Property<'_>],
        out: &mut RecordsWriter,
    ) -> Result<()> {
        let id = id_of(document)?;
        out.removal(|out| self.write_key(out, document, id));
        Ok(())
    }

    /// The same of a document of which only the metadata is left, where an undefined partition key may look like a null one.
    ///
    /// # Errors
    /// [`ErrorKind::Data`] when that lacks the id or the partition key.
    pub(crate) fn write_removal_of(
        &self,
        metadata: &ChangeFeedMetadata,
        out: &mut RecordsWriter,
    ) -> Result<()> {
        let id = metadata.id().ok_or_else(no_id)?;
        let paths = self.keys.paths();
        let values: Vec<Option<&Value>> = match metadata.partition_key() {
            Some(Value::Array(values)) if values.len() == paths.len() => {
                values.iter().map(Some).collect()
            }
            // By path, without the first slash.
            Some(Value::Object(fields)) => {
                let value = |path: &String| fields.get(path.trim_start_matches('/'));
                paths.iter().map(value).collect()
            }
            _ => {
                return Err(Error::new(
                    ErrorKind::Data,
                    "a delete in the change feed has no partition key",
                ));
            }
        };
        out.removal(|out| {
            out.push(b'[');
            for value in values {
                write_json(out, value.unwrap_or(&Value::Object(Map::new())));
                out.push(b',');
            }
            write_json(out, &Value::from(id));
            out.push(b']');
        });
        Ok(())
    }

    fn write_key(&self, out: &mut Vec<u8>, document: &[Property<'_>], id: &str) {
        out.push(b'[');
        for path in self.keys.segments() {
            write_value_at(out, document, path);
            out.push(b',');
        }
        write_scalar(out, id);
        out.push(b']');
    }
}

/// The id, as JSON.
fn id_of<'a>(document: &[Property<'a>]) -> Result<&'a str> {
    let id = find(document, "id").map(|id| id.get());
    id.filter(|id| id.starts_with('"')).ok_or_else(no_id)
}

fn no_id() -> Error {
    Error::new(ErrorKind::Data, "a document of the change feed has no id")
}

/// What is missing, or not a scalar, is `{}`, which is how Cosmos DB writes "undefined".
fn write_value_at(out: &mut Vec<u8>, document: &[Property<'_>], path: &[String]) {
    let found = path.split_first().and_then(|(first, rest)| {
        rest.iter().try_fold(find(document, first)?, |outer, name| {
            find(&properties(outer.get().as_bytes()).ok()?, name)
        })
    });
    match found {
        Some(value) if !value.get().starts_with(['{', '[']) => write_scalar(out, value.get()),
        _ => out.extend_from_slice(b"{}"),
    }
}

/// In one form: strings and numbers can be written in several ways.
fn write_scalar(out: &mut Vec<u8>, json: &str) {
    let is_plain = match json.as_bytes() {
        [b'"', ..] => !json.contains('\\'),
        [b'-' | b'0'..=b'9', ..] => {
            json.len() < 16 && json.bytes().all(|byte| byte.is_ascii_digit())
        }
        _ => true,
    };
    let value = match is_plain {
        true => None,
        // What has no other form, such as a number beyond all floats, stays as it is.
        false => serde_json::from_str::<Value>(json).ok(),
    };
    match value {
        Some(value) => write_json(out, &value),
        None => out.extend_from_slice(json.as_bytes()),
    }
}

fn write_json(out: &mut Vec<u8>, value: &Value) {
    serde_json::to_writer(out, value).expect("a JSON value with string keys always serializes");
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidefeed_runtime::Record;

    fn shape(paths: &[&str], keep: &[&str]) -> Result<DocumentShape> {
        let owned = |names: &[&str]| {
            names
                .iter()
                .map(|name| name.to_string())
                .collect::<Vec<_>>()
        };
        DocumentShape::new(PartitionKeyPaths::new(owned(paths))?, &owned(keep))
    }

    fn record(shape: &DocumentShape, document: &str) -> Result<Record> {
        let mut records = RecordsWriter::default();
        shape.write(&properties(document.as_bytes()).unwrap(), &mut records)?;
        let record = records.finish().into_iter().next();
        Ok(record.expect("one"))
    }

    const SENT: &str = r#"{"id":"id7","day":"EWR-2013-01-01","n": 1.50,"_rid":"r","_self":"s","_etag":"e",
        "_attachments":"a","_ts":12,"_lsn":3,"_mine":true}"#;

    #[test]
    fn a_record_has_the_key_values_and_id_and_no_system_properties() {
        let record = record(&shape(&["/day"], &[]).unwrap(), SENT).unwrap();
        assert_eq!(record.key, r#"["EWR-2013-01-01","id7"]"#);
        assert_eq!(
            record.body.unwrap(),
            r#"{"id":"id7","day":"EWR-2013-01-01","n":1.50,"_mine":true}"#
        );
    }

    #[test]
    fn asked_for_properties_stay_and_unknown_ones_are_refused() {
        let record = record(&shape(&["/day"], &["_ts"]).unwrap(), SENT).unwrap();
        let body: Value = serde_json::from_slice(&record.body.unwrap()).unwrap();
        assert_eq!(body["_ts"], 12);
        assert_eq!(body.get("_etag"), None);
        let error = shape(&["/day"], &["ts"]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
    }

    #[test]
    fn a_missing_key_field_is_undefined_and_a_null_one_is_null() {
        let shape = shape(&["/a", "/b/c"], &[]).unwrap();
        let key = |json| record(&shape, json).unwrap().key;
        assert_eq!(key(r#"{"id":"x","a":null}"#), r#"[null,{},"x"]"#);
        assert_eq!(key(r#"{"id":"x","a":1,"b":{"c":"d"}}"#), r#"[1,"d","x"]"#);
        assert_eq!(key(r#"{"id":"x","a":[1],"b":"c"}"#), r#"[{},{},"x"]"#);
    }

    #[test]
    fn a_key_has_one_form() {
        let shape = shape(&["/a"], &[]).unwrap();
        for (value, form) in [
            (r#""\u0061\/""#, r#""a/""#),
            (r#""\"""#, r#""\"""#),
            (r#""ä""#, r#""ä""#),
            ("1.50", "1.5"),
            ("15e-1", "1.5"),
            ("-7", "-7"),
            ("12345678901234567890123", "1.2345678901234568e+22"),
            ("true", "true"),
            // Neither can be said in another way.
            ("1e999", "1e999"),
            (r#""\ud800""#, r#""\ud800""#),
        ] {
            let document = format!(r#"{{"id":"x","a":{value}}}"#);
            let key = format!(r#"[{form},"x"]"#);
            assert_eq!(record(&shape, &document).unwrap().key, key, "{value}");
        }
        // The service keeps one of two that have the same name.
        assert_eq!(
            record(&shape, r#"{"id":"x","a":1,"a":2}"#).unwrap().key,
            r#"[2,"x"]"#
        );
    }

    #[test]
    fn a_document_without_an_id_is_an_error() {
        let shape = shape(&["/a"], &[]).unwrap();
        for document in [r#"{"a":1}"#, r#"{"a":1,"id":7}"#] {
            let error = record(&shape, document).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Data);
        }
    }
}
