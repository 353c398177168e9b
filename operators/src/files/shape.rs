//! What the records of files become: documents with keys.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Number, Value};
use tidefeed_runtime::{Error, ErrorKind, Result};

use super::split::CsvRecord;
use crate::projection::Projection;
use crate::record_key::KeyFields;
use crate::scan::{Scan, scan};
use tidefeed_runtime::RecordsWriter;

/// How the contents of a file are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// A JSON object on each line. Empty lines count for nothing.
    Jsonl,
    /// CSV with a header and commas, as in RFC 4180. Each record becomes an object with the names of the header.
    Csv,
}

/// What the texts of a column of CSV stand for. An empty text is a string too, and null for every other type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ColumnType {
    /// Themselves.
    String,
    /// Whole numbers.
    Integer,
    /// Any numbers.
    Number,
    /// `true` and `false`.
    Boolean,
}

/// How records become documents.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) key: KeyFields,
    /// Of columns that do not hold strings.
    pub(super) types: BTreeMap<String, ColumnType>,
    /// What is kept of a document.
    pub(super) fields: Projection,
}

/// The columns of a file of CSV.
pub(super) struct Columns(Vec<(String, ColumnType)>);

impl Columns {
    /// # Errors
    /// `Data` when the header is no text, names a column twice, or has none of a name that has a type.
    pub(super) fn new(header: &CsvRecord, types: &BTreeMap<String, ColumnType>) -> Result<Self> {
        let mut columns: Vec<(String, ColumnType)> = Vec::new();
        for (at, name) in header.fields().enumerate() {
            let name = text(name, "the header")?;
            let name = match at {
                0 => name.strip_prefix('\u{feff}').unwrap_or(name),
                _ => name,
            };
            if columns.iter().any(|(known, _)| known == name) {
                return Err(data(format!("the header names {name:?} twice")));
            }
            let of_type = types.get(name).copied().unwrap_or(ColumnType::String);
            columns.push((name.to_owned(), of_type));
        }
        let unknown = types
            .keys()
            .find(|name| columns.iter().all(|(known, _)| known != *name));
        match unknown {
            Some(name) => Err(data(format!(
                "the header has no column {name:?}, which has a type"
            ))),
            None => Ok(Columns(columns)),
        }
    }
}

impl Shape {
    /// Adds a line as a document; nothing for an empty one.
    ///
    /// # Errors
    /// `Data` when it is no JSON object, or has no key.
    pub(super) fn add_line(&self, line: &[u8], page: &mut RecordsWriter) -> Result<()> {
        let line = line.trim_ascii();
        if line.is_empty() {
            return Ok(());
        }
        let scanned = page.body_and_key(|text| {
            let mut key = self.key.scanned();
            let mut body = self.fields.begin(line, text);
            let end = scan(line, |property| {
                key.see(property);
                body.see(property);
            });
            let body = body.end();
            match end == Scan::Whole && key.write(text) {
                true => Ok(body),
                false => Err(()),
            }
        });
        scanned.or_else(|()| self.add_parsed(line, page))
    }

    /// Adds a record of CSV as a document.
    ///
    /// # Errors
    /// `Data` when it has not as many fields as the header, one does not fit its type, or it has no key.
    pub(super) fn add_csv(
        &self,
        columns: &Columns,
        record: &CsvRecord,
        page: &mut RecordsWriter,
    ) -> Result<()> {
        let Columns(columns) = columns;
        let found = record.fields().count();
        if found != columns.len() {
            let expected = columns.len();
            return Err(data(format!(
                "it has {found} fields, and the header {expected}"
            )));
        }
        let mut document = Map::new();
        for ((name, of_type), field) in columns.iter().zip(record.fields()) {
            let text = text(field, name)?;
            let value = value(text, *of_type)
                .ok_or_else(|| data(format!("{text:?} in column {name} does not fit its type")))?;
            document.insert(name.clone(), value);
        }
        self.add_parsed(Value::Object(document).to_string().as_bytes(), page)
    }

    /// Adds a document of any kind, or says what is wrong with it.
    fn add_parsed(&self, document: &[u8], page: &mut RecordsWriter) -> Result<()> {
        let key = self.key.key_of(document)?;
        page.body_and_key(|text| {
            let body = self.fields.write(document, text)?;
            text.extend_from_slice(&key);
            Ok(body)
        })
    }
}

fn text<'a>(field: &'a [u8], what: &str) -> Result<&'a str> {
    std::str::from_utf8(field).map_err(|_| data(format!("{what} is no UTF-8 text")))
}

fn value(text: &str, of_type: ColumnType) -> Option<Value> {
    Some(match of_type {
        ColumnType::String => Value::from(text),
        _ if text.is_empty() => Value::Null,
        ColumnType::Integer => Value::from(text.parse::<i64>().ok()?),
        // As it is written: through a float it could come out otherwise.
        ColumnType::Number => Value::Number(serde_json::from_str::<Number>(text).ok()?),
        ColumnType::Boolean => Value::from(text.parse::<bool>().ok()?),
    })
}

fn data(what: String) -> Error {
    Error::new(ErrorKind::Data, what)
}
