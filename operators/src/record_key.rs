//! The keys of documents that come from elsewhere than a container: the values of some of their fields.
//!
//! A container says itself what identifies a document. For files and posted documents the configuration says it, `key =
//! ["/customer", "/id"]`, and a key is the JSON array of these values, with numbers in the one form of
//! [`partition_key_json`]. Each must be there and be a string, a number or a boolean: what identifies a document cannot be
//! missing in some.

use bytes::Bytes;
use serde_json::Value as Json;
use smallvec::{SmallVec, smallvec};
use tidefeed_runtime::{Error, ErrorKind, Result};

use crate::document::{fields_of, partition_key_json, values_at};
use crate::scan::{Kind, Name, Scanned, Value};

/// The fields that make the keys of a source's documents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFields {
    names: Vec<String>,
    paths: Vec<Vec<String>>,
    /// What a scan looks for, of each path that is a property of the document itself; another is found by a parser.
    fields: Vec<Option<Name>>,
}

impl KeyFields {
    /// The fields at these paths, for example `/id`. `setting` is where they are configured.
    ///
    /// # Errors
    /// `Config`, naming the setting, when there are none or one does not begin with a slash.
    pub fn new(setting: &str, paths: &[String]) -> Result<Self> {
        if paths.is_empty() {
            return Err(Error::new(
                ErrorKind::Config,
                format!(
                    "{setting} is empty: name the fields that identify a document, as in [\"/id\"]"
                ),
            ));
        }
        let names = paths.to_vec();
        let paths = paths.iter().map(|path| fields_of(setting, path));
        let paths: Vec<_> = paths.collect::<Result<_>>()?;
        let field = |path: &Vec<String>| match path.as_slice() {
            [field] => Some(Name::new(field)),
            _ => None,
        };
        Ok(KeyFields {
            names,
            fields: paths.iter().map(field).collect(),
            paths,
        })
    }

    /// The key of a document.
    ///
    /// # Errors
    /// `Data` when it is no JSON object, or a field of the key is missing or is no string, number or boolean.
    pub fn key_of(&self, document: &[u8]) -> Result<Bytes> {
        let no_object =
            |error| Error::new(ErrorKind::Data, "it is no JSON object").with_source(error);
        let (values, _) = values_at(document, &self.paths, &[]).map_err(no_object)?;
        let mut key = Vec::with_capacity(values.len());
        for (value, name) in values.into_iter().zip(&self.names) {
            match value {
                Some(value @ (Json::String(_) | Json::Number(_) | Json::Bool(_))) => {
                    key.push(value)
                }
                found => {
                    let found = match found {
                        None => "is missing",
                        Some(_) => "is no string, number or boolean",
                    };
                    return Err(Error::new(
                        ErrorKind::Data,
                        format!("its field {name}, which is part of the key, {found}"),
                    ));
                }
            }
        }
        Ok(Bytes::from(partition_key_json(key)))
    }
}

/// Looks for the fields of a key in a scan.
pub(crate) struct ScannedKey<'k, 'a> {
    key: &'k KeyFields,
    values: SmallVec<[Option<Value<'a>>; 2]>,
}

impl KeyFields {
    /// Looks for them in a scan that begins.
    pub(crate) fn scanned<'a>(&self) -> ScannedKey<'_, 'a> {
        ScannedKey {
            key: self,
            values: smallvec![None; self.paths.len()],
        }
    }
}

impl<'a> ScannedKey<'_, 'a> {
    /// Takes note of a property.
    #[inline(always)]
    pub(crate) fn see(&mut self, property: Scanned<'a>) {
        for (field, found) in self.key.fields.iter().zip(&mut self.values) {
            if field.as_ref().is_some_and(|field| property.is(field)) {
                *found = Some(property.value);
            }
        }
    }

    /// Writes the key, or nothing: a value that is not in its only form is a parser's.
    pub(crate) fn write(&self, to: &mut Vec<u8>) -> bool {
        let one_form = |value: &Option<Value<'_>>| {
            let kind = value.map(|value| value.kind);
            matches!(kind, Some(Kind::Plain | Kind::Integer | Kind::Boolean))
        };
        if !self.values.iter().all(one_form) {
            return false;
        }
        for (at, value) in self.values.iter().flatten().enumerate() {
            to.push(if at == 0 { b'[' } else { b',' });
            to.extend_from_slice(value.text);
        }
        to.push(b']');
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::{Scan, scan};

    fn key(paths: &[&str], document: &str) -> Result<String> {
        let paths: Vec<_> = paths.iter().map(|path| (*path).to_owned()).collect();
        let key = KeyFields::new("source.s.key", &paths)?.key_of(document.as_bytes())?;
        Ok(String::from_utf8(key.to_vec()).expect("JSON"))
    }

    #[test]
    fn a_key_is_made_of_fields_in_one_form() {
        let two = ["/at/customer", "/id"];
        let document = r#"{"id": 2.0, "x": [1], "at": {"customer": "c"}}"#;
        assert_eq!(key(&two, document).expect("a key"), r#"["c",2]"#);
        assert_eq!(key(&["/id"], r#"{"id":true}"#).expect("a key"), "[true]");
    }

    /// A key that a scan finds is the one that a parser finds.
    #[test]
    fn a_scanned_key_is_the_same() {
        let paths = ["/a".to_owned(), "/b".to_owned()];
        let key = KeyFields::new("source.s.key", &paths).expect("paths");
        let values = [
            r#""x""#,
            r#""\/""#,
            r#""é\n""#,
            "0",
            "-0",
            "7",
            "-7",
            "1e3",
            "2.0",
            "true",
            "null",
            "[]",
            "9007199254740993",
            "123456789012345",
            "\"\u{7f}\"",
            r#""""#,
        ];
        let mut scanned = 0;
        for a in values {
            for b in values {
                for document in [
                    format!(r#"{{"a":{a},"b":{b}}}"#),
                    format!(r#"{{"b":{b},"x":1,"a":1,"a":{a}}}"#),
                ] {
                    let mut found = key.scanned();
                    let end = scan(document.as_bytes(), |property| found.see(property));
                    assert_eq!(end, Scan::Whole, "{document}");
                    let mut text = Vec::new();
                    if found.write(&mut text) {
                        let parsed = key.key_of(document.as_bytes()).expect("a key");
                        assert_eq!(text, parsed, "{document}");
                        scanned += 1;
                    }
                }
            }
        }
        assert!(scanned >= 50, "{scanned}");
    }

    #[test]
    fn what_has_no_key_is_refused() {
        for (document, says) in [
            ("{}", "its field /id, which is part of the key, is missing"),
            (
                r#"{"id":null}"#,
                "/id, which is part of the key, is no string",
            ),
            (r#"{"id":["a"]}"#, "is no string, number or boolean"),
            ("[1]", "it is no JSON object: "),
            (r#"{"id":"a"} {"id":"b"}"#, "it is no JSON object: trailing"),
            (r#"{"id":"a""#, "it is no JSON object: EOF"),
        ] {
            let error = key(&["/id"], document).expect_err("no key");
            assert_eq!(error.kind(), ErrorKind::Data);
            assert!(error.report().contains(says), "{}", error.report());
        }
        assert!(
            key(&[], "{}")
                .expect_err("none")
                .report()
                .starts_with("source.s.key is empty")
        );
        assert!(
            key(&["id"], "{}")
                .expect_err("no path")
                .report()
                .starts_with("source.s.key is \"id\"")
        );
    }
}
