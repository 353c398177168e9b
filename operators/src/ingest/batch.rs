//! The body of a request as records.

use bytes::Bytes;
use serde_json::value::RawValue;
use tidefeed_runtime::{Error, ErrorKind, Record, Result};

use crate::record_key::KeyFields;

/// What a request does with its documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Upsert,
    Remove,
}

/// The documents of a body: the elements of a JSON array, or JSON values one after the other.
///
/// # Errors
/// `Data`, naming the first document that is malformed or has no key, counted from 1.
pub(super) fn parse(body: &Bytes, key: &KeyFields, change: Change) -> Result<Vec<Record>> {
    let mut records = Vec::new();
    let mut add = |document: &RawValue| {
        let text = body.slice_ref(document.get().as_bytes());
        let key = key.key_of(&text);
        let key = key.map_err(|error| error.wrap(named(records.len())))?;
        let body = (change == Change::Upsert).then_some(text);
        records.push(Record { key, body });
        Ok(())
    };
    if body.trim_ascii_start().first() == Some(&b'[') {
        let documents: Vec<&RawValue> = serde_json::from_slice(body).map_err(|error| {
            let no_array = "the body begins like a JSON array and is none";
            Error::new(ErrorKind::Data, no_array).with_source(error)
        })?;
        documents.into_iter().try_for_each(add)?;
    } else {
        let values = serde_json::Deserializer::from_slice(body).into_iter::<&RawValue>();
        for (count, document) in values.enumerate() {
            let document = document.map_err(|error| {
                let malformed = Error::new(ErrorKind::Data, "it is no JSON").with_source(error);
                malformed.wrap(named(count))
            })?;
            add(document)?;
        }
    }
    Ok(records)
}

fn named(before: usize) -> String {
    format!("document {}", before + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str, change: Change) -> Result<Vec<(String, Option<String>)>> {
        let key = KeyFields::new("key", &["/id".to_owned()]).expect("a path");
        let records = parse(&Bytes::copy_from_slice(text.as_bytes()), &key, change)?;
        let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).expect("UTF-8");
        let records = records.iter();
        Ok(records
            .map(|r| (text(&r.key), r.body.as_ref().map(text)))
            .collect())
    }

    #[test]
    fn an_array_lines_and_one_object_are_documents() {
        let two = |a: &str, b: &str| {
            let of = |key: &str, text: &str| (key.to_owned(), Some(text.to_owned()));
            vec![of("[1]", a), of("[\"b\"]", b)]
        };
        let of_array = parsed(" [{\"id\":1}, {\"id\": \"b\"} ]\n", Change::Upsert);
        assert_eq!(
            of_array.expect("sound"),
            two("{\"id\":1}", "{\"id\": \"b\"}")
        );
        let of_lines = parsed("{\"id\":1}\n\n{\"id\": \"b\"}", Change::Upsert);
        assert_eq!(
            of_lines.expect("sound"),
            two("{\"id\":1}", "{\"id\": \"b\"}")
        );
        let pretty = "{\n  \"id\": 1\n}\n";
        let one = vec![("[1]".to_owned(), Some(pretty.trim().to_owned()))];
        assert_eq!(parsed(pretty, Change::Upsert).expect("sound"), one);
        for nothing in ["", " \n", "[]"] {
            assert_eq!(parsed(nothing, Change::Upsert).expect("sound"), []);
        }
        let removed = parsed("{\"id\":1,\"n\":2}", Change::Remove).expect("sound");
        assert_eq!(removed, [("[1]".to_owned(), None)]);
    }

    #[test]
    fn the_first_bad_document_is_named() {
        for (text, says) in [
            ("[{\"id\":1},{\"no\":1},2]", "document 2: its field /id"),
            (
                "{\"id\":1}\n{\"id\":2}\n[3]",
                "document 3: it is no JSON object",
            ),
            ("{\"id\":1}\n{\"id\":", "document 2: it is no JSON: EOF"),
            ("{\"id\":1}\nid=2", "document 2: it is no JSON: expected"),
            (
                "[{\"id\":1}",
                "the body begins like a JSON array and is none: EOF",
            ),
            (
                "[{\"id\":1}]\n[]",
                "the body begins like a JSON array and is none: trailing",
            ),
        ] {
            let report = parsed(text, Change::Upsert).expect_err("refused").report();
            assert!(report.starts_with(says), "{report}");
        }
        let broken = Bytes::from_static(b"{\"id\":\"\xff\"}");
        let key = KeyFields::new("key", &["/id".to_owned()]).expect("a path");
        assert!(parse(&broken, &key, Change::Upsert).is_err());
    }
}
