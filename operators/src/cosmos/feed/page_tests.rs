//! Pages as the service sends them, and random ones beside what the SDK reads in them.

use azure_data_cosmos::models::{ChangeFeedItem, ChangeFeedOperationType};
use serde_json::{Map, Value, json};

use super::*;
use crate::cosmos::SoftDelete;
use crate::cosmos::partition_key::PartitionKeyPaths;
use crate::target::SERVICE_PROPERTIES;

fn shape(paths: &[&str]) -> DocumentShape {
    let paths = paths.iter().map(|path| path.to_string()).collect();
    DocumentShape::new(PartitionKeyPaths::new(paths).unwrap(), &[]).unwrap()
}

fn page(items: &[&str]) -> String {
    let items = items.join(", ");
    format!(r#"{{"_rid":"r","Documents": [{items}],"_count":1}}"#)
}

/// The key, and whether there is a body.
fn change(shape: &DocumentShape, item: &str) -> Result<(String, bool)> {
    let records = changes(page(&[item]).as_bytes(), shape).unwrap()?.records;
    let record = records.iter().next().expect("one");
    let key = String::from_utf8(record.key.to_vec()).unwrap();
    Ok((key, record.body.is_some()))
}

#[test]
fn a_delete_is_known_by_its_last_version_or_its_metadata() {
    let one = shape(&["/pk"]);
    let deep = shape(&["/a/b", "/c"]);
    for (shape, item, key) in [
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
            change(shape, item).unwrap(),
            (key.to_owned(), false),
            "{item}"
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
        r#"{"current":null,"metadata":{"operationType":"create"}}"#,
        r#"{"current":[1]}"#,
        r#"{"current":{"id":"x"},"metadata":7}"#,
    ] {
        let error = change(&one, unknown).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data, "{unknown}");
    }
}

#[test]
fn a_marked_document_is_a_removal() {
    let mark = SoftDelete {
        path: "/isDeleted".to_owned(),
        value: None,
    };
    let shape = shape(&["/pk"]).with_deleted(mark.compile().unwrap());
    let key = r#"["p","x"]"#.to_owned();
    let marked = r#"{"current":{"id":"x","pk":"p","isDeleted":true,"ttl":3600}}"#;
    assert_eq!(change(&shape, marked).unwrap(), (key.clone(), false));
    let back = r#"{"current":{"id":"x","pk":"p","isDeleted":false}}"#;
    assert_eq!(change(&shape, back).unwrap(), (key, true));
}

#[test]
fn the_last_change_says_when_it_was_written() {
    let shape = shape(&["/pk"]);
    let items = [
        r#"{"current":{"id":"a"},"metadata":{"crts":7}}"#,
        r#"{"metadata":{"crts":9,"lsn":2},"current":{"id":"b"}}"#,
    ];
    let written_at = |items: &[&str]| {
        let changes = changes(page(items).as_bytes(), &shape).unwrap().unwrap();
        (changes.records.len(), changes.written_at)
    };
    assert_eq!(written_at(&items), (2, Some(9)));
    assert_eq!(written_at(&[items[0], r#"{"id":"c"}"#]), (2, None));
    assert_eq!(written_at(&[]), (0, None));
}

#[test]
fn what_is_no_page_is_an_error() {
    let shape = shape(&["/pk"]);
    let whole = page(&[r#"{"current":{"id":"a","pk":"ä"}}"#]);
    assert!(changes(whole.as_bytes(), &shape).is_ok());
    // Cut anywhere, also within a character.
    for length in 0..whole.len() {
        assert!(
            changes(&whole.as_bytes()[..length], &shape).is_err(),
            "{length}"
        );
    }
    for text in ["[]", "{}", r#"{"Documents":{}}"#, r#"{"Documents":[1]}"#] {
        assert!(changes(text.as_bytes(), &shape).is_err(), "{text}");
    }
}

/// What the SDK reads, made into a key and a body by way of a tree.
fn oracle(item: &str, paths: &[&[&str]]) -> (Value, Option<Value>) {
    let item: ChangeFeedItem<Map<String, Value>> = serde_json::from_str(item).unwrap();
    let is_delete = item.operation_type() == Some(ChangeFeedOperationType::Delete);
    let version = match is_delete {
        true => item.previous(),
        false => item.current(),
    };
    let document = Value::Object(version.unwrap().clone());
    let mut key: Vec<Value> = paths
        .iter()
        .map(|path| path.iter().fold(&document, |value, name| &value[*name]))
        .map(|value| match value {
            // The tree does not tell what is missing from what is null: no random document has a null.
            Value::Null | Value::Object(_) | Value::Array(_) => json!({}),
            scalar => scalar.clone(),
        })
        .collect();
    key.push(document["id"].clone());
    let Value::Object(mut body) = document else {
        unreachable!("it was made of an object")
    };
    body.retain(|name, _| !SERVICE_PROPERTIES.contains(&name.as_str()));
    (
        Value::Array(key),
        (!is_delete).then_some(Value::Object(body)),
    )
}

const NAMES: [&str; 9] = [
    "a", "b", "current", "metadata", "_ts", "_etag", "_lsn", "ä\"\\", "_mine",
];

fn random_value(random: &mut fastrand::Rng, depth: usize) -> Value {
    match random.u8(..if depth > 2 { 5 } else { 7 }) {
        0 => json!(random.i64(-1000..1000)),
        1 => json!(f64::from(random.i32(..)) / 64.0),
        2 => json!(random.bool()),
        3 => json!("plain"),
        4 => json!(
            std::iter::repeat_with(|| random.char(..))
                .take(6)
                .collect::<String>()
        ),
        5 => (0..random.u8(..3))
            .map(|_| random_value(random, depth + 1))
            .collect(),
        _ => Value::Object(random_object(random, depth + 1)),
    }
}

fn random_object(random: &mut fastrand::Rng, depth: usize) -> Map<String, Value> {
    let names = (0..random.usize(..6))
        .map(|_| NAMES[random.usize(..NAMES.len())].to_owned())
        .collect::<Vec<_>>();
    let value = |name| (name, random_value(random, depth));
    names.into_iter().map(value).collect()
}

fn random_item(random: &mut fastrand::Rng) -> Value {
    let mut document = random_object(random, 0);
    let id: String = std::iter::repeat_with(|| random.char('\0'..='\u{2ff}'))
        .take(4)
        .collect();
    document.insert("id".to_owned(), json!(id));
    let document = Value::Object(document);
    match random.u8(..4) {
        0 => document,
        1 => json!({ "current": document }),
        2 => json!({ "current": document, "metadata": {"operationType": "replace", "lsn": 3}}),
        _ => {
            json!({ "current": {}, "previous": document, "metadata": {"operationType": "delete"}})
        }
    }
}

#[test]
fn random_pages_are_read_as_the_sdk_reads_them() {
    let shape = shape(&["/a", "/b/a"]);
    for seed in 0..2000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let items: Vec<String> = (0..random.usize(1..5))
            .map(|_| match random.bool() {
                true => random_item(&mut random).to_string(),
                false => serde_json::to_string_pretty(&random_item(&mut random)).unwrap(),
            })
            .collect();
        let page = page(&items.iter().map(String::as_str).collect::<Vec<_>>());
        let read = changes(page.as_bytes(), &shape).unwrap().unwrap().records;
        assert_eq!(read.len(), items.len(), "seed {seed}");
        for (record, item) in read.iter().zip(&items) {
            let (key, body) = oracle(item, &[&["a"], &["b", "a"]]);
            assert_eq!(
                record.key,
                key.to_string().as_bytes(),
                "seed {seed}: {item}"
            );
            let read = record
                .body
                .map(|body| serde_json::from_slice::<Value>(body).unwrap());
            assert_eq!(read, body, "seed {seed}: {item}");
        }
    }
}
