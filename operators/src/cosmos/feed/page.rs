//! A page of the change feed, read in one pass over its text.
//!
//! Each change comes in an envelope: `current`, `previous` and `metadata`. Servers that do not know envelopes send the bare
//! document, which has other properties than these.

use std::fmt;

use azure_data_cosmos::models::{ChangeFeedMetadata, ChangeFeedOperationType};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use tidefeed_runtime::{Error, ErrorKind, Records, Result};

use crate::cosmos::document::DocumentShape;
use crate::properties::{PropertiesInto, Property, find};
use tidefeed_runtime::RecordsWriter;

/// The changes of a page.
#[derive(Default)]
pub(super) struct Changes {
    pub(super) records: Records,
    /// When the last of them was written, in seconds since 1970, if the service says so.
    pub(super) written_at: Option<u64>,
}

/// Reads a page. The inner error is of a document that no record can be made of; it is [`ErrorKind::Data`].
///
/// # Errors
/// When the text is no page.
pub(super) fn changes(page: &[u8], shape: &DocumentShape) -> serde_json::Result<Result<Changes>> {
    let mut reading = Reading {
        shape,
        records: RecordsWriter::with_capacity(page.len(), 0),
        item: Vec::new(),
        document: Vec::new(),
        last: None,
        error: None,
    };
    let mut text = serde_json::Deserializer::from_slice(page);
    (&mut reading).deserialize(&mut text)?;
    text.end()?;
    if let Some(error) = reading.error {
        return Ok(Err(error));
    }
    let last = reading.last.map(|last| last.get());
    let last = last.and_then(|last| serde_json::from_str::<ChangeFeedMetadata>(last).ok());
    let written_at = last.and_then(|last| last.conflict_resolution_timestamp());
    Ok(Ok(Changes {
        records: reading.records.finish(),
        written_at: written_at.map(|time| time.as_secs()),
    }))
}

struct Reading<'s, 'a> {
    shape: &'s DocumentShape,
    records: RecordsWriter,
    /// Room for the properties of an envelope and of the document in it.
    item: Vec<Property<'a>>,
    document: Vec<Property<'a>>,
    /// The metadata of the newest change.
    last: Option<&'a RawValue>,
    /// The first one; what comes after it is not looked at.
    error: Option<Error>,
}

/// What was done.
#[derive(Deserialize)]
struct Operation {
    #[serde(rename = "operationType", default)]
    operation: Option<ChangeFeedOperationType>,
}

impl Reading<'_, '_> {
    /// Makes a record of the item whose properties were read.
    fn take(&mut self) -> Result<()> {
        let is_envelope =
            |(name, _): &Property<'_>| matches!(name.as_ref(), "current" | "previous" | "metadata");
        self.last = None;
        if self.item.is_empty() || !self.item.iter().all(is_envelope) {
            return self.shape.write(&self.item, &mut self.records);
        }
        let metadata = find(&self.item, "metadata");
        self.last = metadata;
        let operation = metadata
            .map(|metadata| serde_json::from_str::<Operation>(metadata.get()))
            .transpose()
            .map_err(|error| unreadable("metadata").with_source(error))?;
        let operation = operation.and_then(|operation| operation.operation);
        if operation == Some(ChangeFeedOperationType::Delete) {
            return self.removal();
        }
        match self.document("current")? {
            true => self.shape.write(&self.document, &mut self.records),
            false => Err(Error::new(
                ErrorKind::Data,
                "a change in the change feed has no document and is no delete",
            )),
        }
    }

    /// Which document is gone is told by its last version, or else by the metadata.
    fn removal(&mut self) -> Result<()> {
        if self.document("previous")? {
            return self.shape.write_removal(&self.document, &mut self.records);
        }
        let metadata = self.last.map_or("{}", |metadata| metadata.get());
        let metadata = serde_json::from_str(metadata)
            .map_err(|error| unreadable("metadata").with_source(error))?;
        self.shape.write_removal_of(&metadata, &mut self.records)
    }

    /// Reads the properties of a version of the document; false if it is not there, which an empty object says as well.
    fn document(&mut self, version: &'static str) -> Result<bool> {
        let Some(document) = find(&self.item, version) else {
            return Ok(false);
        };
        if document.get() == "null" {
            return Ok(false);
        }
        let mut text = serde_json::Deserializer::from_str(document.get());
        PropertiesInto(&mut self.document)
            .deserialize(&mut text)
            .map_err(|error| unreadable(version).with_source(error))?;
        Ok(!self.document.is_empty())
    }
}

fn unreadable(what: &str) -> Error {
    Error::new(
        ErrorKind::Data,
        format!("the {what} of a change in the change feed cannot be read"),
    )
}

impl<'de> DeserializeSeed<'de> for &mut Reading<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for &mut Reading<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a page of a change feed")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut found = false;
        while let Some(name) = map.next_key::<String>()? {
            match name.as_str() {
                "Documents" => {
                    found = true;
                    map.next_value_seed(Items(self))?;
                }
                _ => map.next_value::<IgnoredAny>().map(drop)?,
            }
        }
        match found {
            true => Ok(()),
            false => Err(serde::de::Error::missing_field("Documents")),
        }
    }
}

/// The changes, one by one.
struct Items<'r, 's, 'a>(&'r mut Reading<'s, 'a>);

impl<'de> DeserializeSeed<'de> for Items<'_, '_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Items<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of changes")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let reading = self.0;
        while items
            .next_element_seed(PropertiesInto(&mut reading.item))?
            .is_some()
        {
            if reading.error.is_none() {
                reading.error = reading.take().err();
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "page_tests.rs"]
mod tests;
