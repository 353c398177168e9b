//! Rows of a view as documents: JSON with the partition key and the id read out of it.

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;
use tidefeed_runtime::Ledger;
use tidefeed_runtime::{Error, ErrorKind, Result};
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;

use crate::properties::without_properties;
use crate::target::{EPOCH_PROPERTY, SERVICE_PROPERTIES};

/// A view's row as it is written: identity and JSON body.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ViewDocument {
    /// The partition key as a JSON array.
    pub partition_key: Box<str>,
    /// The document's id.
    pub id: Box<str>,
    /// The whole document as JSON.
    pub body: Box<[u8]>,
    /// Where the record stands among those of its epoch, in a plain stream; 0 in a view.
    pub position: u64,
}

/// Turns rows into documents of one container.
#[derive(Clone, Debug)]
pub struct DocumentEncoder {
    /// What is encoded, for errors.
    what: String,
    /// The id first, then each path of the partition key, split at its slashes.
    paths: Vec<Vec<String>>,
    /// Properties that are taken off.
    dropped: Vec<&'static str>,
}

impl DocumentEncoder {
    /// An encoder for the sink's container, whose partition key has these paths, for example `/origin`.
    ///
    /// # Errors
    /// `Config` when a path does not begin with a slash.
    pub fn new(sink: &str, partition_key_paths: &[String]) -> Result<Self> {
        let setting = format!("sink.{sink}.partition_key");
        let encoder = Self::of(
            format!("a row of sink {sink}"),
            &setting,
            partition_key_paths,
        )?;
        Ok(DocumentEncoder {
            dropped: reserved().collect(),
            ..encoder
        })
    }

    /// The same encoder, which leaves `_etag` in the rows: for strategies that read it there.
    pub fn keep_etag(mut self) -> Self {
        self.dropped.retain(|name| *name != "_etag");
        self
    }

    /// An encoder of `what`, whose partition key is configured as `setting`. It takes no properties off.
    pub(crate) fn of(what: String, setting: &str, partition_key_paths: &[String]) -> Result<Self> {
        let mut paths = vec![vec!["id".to_owned()]];
        for path in partition_key_paths {
            paths.push(fields_of(setting, path)?);
        }
        Ok(DocumentEncoder {
            what,
            paths,
            dropped: Vec::new(),
        })
    }

    /// The row as a document, without the properties that are the service's or the sink's own.
    ///
    /// # Errors
    /// `Data` when the row is not a JSON object, or has no string `id`.
    pub fn encode<R: Serialize>(&self, row: &R) -> Result<ViewDocument> {
        let wrong = |what: &str| Error::new(ErrorKind::Data, format!("{} {what}", self.what));
        let body = serde_json::to_vec(row)
            .map_err(|error| wrong("is no JSON document").with_source(error))?;
        let (found, drops) = values_at(&body, &self.paths, &self.dropped)
            .map_err(|error| wrong("is no JSON object").with_source(error))?;
        let mut found = found.into_iter();
        let Some(Some(Value::String(id))) = found.next() else {
            return Err(wrong(
                "has no string field \"id\": every view document needs one",
            ));
        };
        // An absent component is what Cosmos DB calls undefined, which its JSON form writes as an empty object.
        let components =
            found.map(|value| value.unwrap_or_else(|| Value::Object(Default::default())));
        let stripped = match drops {
            true => without_properties(&body, &self.dropped),
            false => None,
        };
        Ok(ViewDocument {
            partition_key: partition_key_json(components).into(),
            id: id.into(),
            body: stripped.unwrap_or(body).into(),
            position: 0,
        })
    }
}

/// Properties that rows cannot have in a container.
fn reserved() -> impl Iterator<Item = &'static str> {
    SERVICE_PROPERTIES.into_iter().chain([EPOCH_PROPERTY])
}

/// The values of a partition key as a JSON array, in one form for each key: a service keeps numbers as 64-bit floats, so `2`
/// and `2.0` are one key, and the workers must agree on whose it is.
pub fn partition_key_json(values: impl IntoIterator<Item = Value>) -> String {
    let one_form = |value: Value| match value.as_f64() {
        // Whole numbers up to 2^53 are exact in both forms, and shorter in this one.
        Some(number) if number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0 => {
            Value::from(number as i64)
        }
        Some(number) => Value::from(number),
        None => value,
    };
    Value::Array(values.into_iter().map(one_form).collect()).to_string()
}

/// The fields that a path such as `/at/airport` leads through.
///
/// # Errors
/// `Config`, naming the setting, when it does not begin with a slash.
pub(crate) fn fields_of(setting: &str, path: &str) -> Result<Vec<String>> {
    match path.strip_prefix('/').filter(|fields| !fields.is_empty()) {
        Some(fields) => Ok(fields.split('/').map(str::to_owned).collect()),
        None => Err(Error::new(
            ErrorKind::Config,
            format!("{setting} is {path:?}: a path begins with a slash, as in \"/id\""),
        )),
    }
}

/// The values at these paths of a JSON object, and whether it has one of the properties in `dropped`.
///
/// # Errors
/// When the text is no JSON object.
pub(crate) fn values_at(
    object: &[u8],
    paths: &[Vec<String>],
    dropped: &[&'static str],
) -> serde_json::Result<(Vec<Option<Value>>, bool)> {
    let mut found = vec![None; paths.len()];
    let wanted = paths.iter().enumerate();
    let mut drops = false;
    let fields = FieldsAt {
        wanted: wanted.map(|(at, path)| (at, path.as_slice())).collect(),
        found: &mut found,
        dropped,
        drops: &mut drops,
    };
    let mut text = serde_json::Deserializer::from_slice(object);
    fields.deserialize(&mut text)?;
    text.end()?;
    Ok((found, drops))
}

/// Reads the values at a few paths of a JSON object and skips the rest without building it.
struct FieldsAt<'a, 'p> {
    wanted: Vec<(usize, &'p [String])>,
    found: &'a mut Vec<Option<Value>>,
    dropped: &'p [&'static str],
    /// Set when one of `dropped` is there.
    drops: &'a mut bool,
}

impl<'de> DeserializeSeed<'de> for FieldsAt<'_, '_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for FieldsAt<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            *self.drops |= key.starts_with('_') && self.dropped.contains(&key.as_str());
            let at_key = self
                .wanted
                .iter()
                .filter(|(_, path)| path.first() == Some(&key));
            let (ends, deeper): (Vec<_>, Vec<_>) =
                at_key.copied().partition(|(_, path)| path.len() == 1);
            if !ends.is_empty() {
                let value: Value = map.next_value()?;
                ends.iter()
                    .for_each(|(at, _)| self.found[*at] = Some(value.clone()));
            } else if !deeper.is_empty() {
                let wanted = deeper.iter().map(|(at, path)| (*at, &path[1..])).collect();
                map.next_value_seed(FieldsAt {
                    wanted,
                    found: self.found,
                    dropped: &[],
                    drops: self.drops,
                })?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

/// Encodes the rows of a view.
pub trait EncodeDocuments<'scope> {
    /// The same updates with each row as a document. A row that is no document ends the run with an error that says why.
    fn encode_documents(
        self,
        encoder: DocumentEncoder,
        ledger: Ledger,
    ) -> StreamVec<'scope, u64, (ViewDocument, u64, isize)>;
}

impl<'scope, R: Serialize + Clone + 'static> EncodeDocuments<'scope>
    for StreamVec<'scope, u64, (R, u64, isize)>
{
    fn encode_documents(
        self,
        encoder: DocumentEncoder,
        ledger: Ledger,
    ) -> StreamVec<'scope, u64, (ViewDocument, u64, isize)> {
        let update = |_epoch, (row, time, diff)| (0, row, time, diff);
        encode(self, "EncodeDocuments", encoder, ledger, update)
    }
}

/// Encodes the records of a plain stream.
pub trait EncodeRecords<'scope> {
    /// Each record, given with its position, as the arrival of a document in the epoch in which it came. A record that is no
    /// document ends the run with an error that says why.
    fn encode_records(
        self,
        encoder: DocumentEncoder,
        ledger: Ledger,
    ) -> StreamVec<'scope, u64, (ViewDocument, u64, isize)>;
}

impl<'scope, R: Serialize + Clone + 'static> EncodeRecords<'scope>
    for StreamVec<'scope, u64, (u64, R)>
{
    fn encode_records(
        self,
        encoder: DocumentEncoder,
        ledger: Ledger,
    ) -> StreamVec<'scope, u64, (ViewDocument, u64, isize)> {
        let arrival = |epoch, (position, record)| (position, record, epoch, 1);
        encode(self, "EncodeRecords", encoder, ledger, arrival)
    }
}

/// Encodes what `update` makes of each item and its epoch: a position, a row, and when and how often it comes.
fn encode<'scope, T: Clone + 'static, R: Serialize>(
    items: StreamVec<'scope, u64, T>,
    name: &str,
    encoder: DocumentEncoder,
    ledger: Ledger,
    update: impl Fn(u64, T) -> (u64, R, u64, isize) + 'static,
) -> StreamVec<'scope, u64, (ViewDocument, u64, isize)> {
    let operator = format!("{name}: {}", encoder.what);
    let mark = ledger.operator(items.scope().index(), &operator);
    items.unary(Pipeline, name, move |_cap, _info| {
        move |input, output| {
            let _inside = mark.enter();
            input.for_each(|cap, items| {
                let epoch = *cap.time();
                let mut session = output.session(&cap);
                for item in items.drain(..) {
                    let (position, row, time, diff) = update(epoch, item);
                    match encoder.encode(&row) {
                        Ok(document) => {
                            let document = ViewDocument {
                                position,
                                ..document
                            };
                            session.give((document, time, diff));
                        }
                        Err(error) => ledger.fail(error),
                    }
                }
            });
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn encoder(paths: &[&str]) -> DocumentEncoder {
        let paths: Vec<_> = paths.iter().map(|path| (*path).to_owned()).collect();
        DocumentEncoder::new("view", &paths).expect("valid paths")
    }

    #[test]
    fn identity_is_read_from_the_row() {
        let row = json!({"skip": [1, {"id": "no"}], "id": "a", "at": {"airport": "EWR", "gate": 3}, "n": 2});
        let document = encoder(&["/at/airport", "/n", "/absent"])
            .encode(&row)
            .expect("a document");
        assert_eq!(
            (&*document.id, &*document.partition_key),
            ("a", r#"["EWR",2,{}]"#)
        );
        assert_eq!(
            serde_json::from_slice::<Value>(&document.body).expect("JSON"),
            row
        );
    }

    #[test]
    fn a_partition_key_may_be_the_id() {
        let document = encoder(&["/id"])
            .encode(&json!({"id": "a"}))
            .expect("a document");
        assert_eq!(&*document.partition_key, r#"["a"]"#);
    }

    #[test]
    fn what_belongs_to_the_service_is_taken_off() {
        let row =
            json!({"_ts": 1, "id": "a", "n": 1.50, "_epoch": 7, "_etag": "x", "in": {"_ts": 2}});
        let body = |encoder: DocumentEncoder| -> Value {
            let document = encoder.encode(&row).expect("a document");
            serde_json::from_slice(&document.body).expect("JSON")
        };
        let plain = json!({"id": "a", "n": 1.50, "in": {"_ts": 2}});
        assert_eq!(body(encoder(&["/in/_ts"])), plain);
        let with_etag = json!({"id": "a", "n": 1.50, "_etag": "x", "in": {"_ts": 2}});
        assert_eq!(body(encoder(&["/id"]).keep_etag()), with_etag);
    }

    #[test]
    fn a_number_is_one_partition_key_however_it_is_written() {
        let key = |n: Value| {
            let row = json!({"id": "a", "n": n});
            encoder(&["/n"])
                .encode(&row)
                .expect("a document")
                .partition_key
        };
        assert_eq!(key(json!(2.0)), key(json!(2)));
        assert_eq!(&*key(json!(-0.0)), "[0]");
        assert_eq!(&*key(json!(2.5)), "[2.5]");
        assert_eq!(
            key(json!(9_007_199_254_740_993_u64)),
            key(json!(9_007_199_254_740_992_u64))
        );
    }

    #[test]
    fn rows_that_are_no_documents_are_named() {
        let report = |row: Value| {
            encoder(&["/id"])
                .encode(&row)
                .expect_err("no document")
                .report()
        };
        assert!(
            report(json!({"x": 1})).starts_with("a row of sink view has no string field \"id\"")
        );
        assert!(report(json!({"id": 1})).contains("has no string field"));
        assert!(report(json!([1])).starts_with("a row of sink view is no JSON object"));
        assert!(
            DocumentEncoder::new("view", &["id".into()])
                .expect_err("no slash")
                .report()
                .contains("sink.view.partition_key")
        );
    }
}
