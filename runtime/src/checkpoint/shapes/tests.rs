use bytes::Bytes;
use fastrand::Rng;

use super::super::records::REMOVAL;
use super::*;
use crate::{Record, Records, RecordsWriter};

fn packed(records: &Records) -> Vec<u8> {
    let mut encoder = Encoder::new(b"before".to_vec());
    records.iter().for_each(|record| encoder.push(record));
    let packed = encoder.finish();
    packed.strip_prefix(b"before").expect("it stays").to_vec()
}

/// The rows that must come back, made without shapes.
fn rows(records: &Records) -> Vec<u8> {
    let mut rows = Vec::new();
    for record in records.iter() {
        let body = record.body.map_or(REMOVAL, |body| body.len() as u32);
        rows.extend_from_slice(&(record.key.len() as u32).to_le_bytes());
        rows.extend_from_slice(&body.to_le_bytes());
        rows.extend_from_slice(record.key);
        rows.extend_from_slice(record.body.unwrap_or_default());
    }
    rows
}

fn come_back(records: &Records) -> Vec<u8> {
    let (packed, rows) = (packed(records), rows(records));
    let decoded = decode(&packed, rows.len()).expect("what was written");
    assert!(decoded == rows, "{records:?}");
    packed
}

fn of(key: &str, body: Option<&str>) -> Record {
    Record {
        key: Bytes::copy_from_slice(key.as_bytes()),
        body: body.map(|body| Bytes::copy_from_slice(body.as_bytes())),
    }
}

/// The bytes that the module's documentation promises.
#[test]
fn a_shape_is_written_once_and_of_values_what_differs() {
    let records = Records::from(vec![
        of(r#"["a"]"#, Some(r#"{"n":1}"#)),
        of(r#"["b"]"#, Some(r#"{"n":12}"#)),
        of(r#"["b"]"#, None),
        of(r#"["b"]"#, Some(r#"{"n":1234567890123456}"#)),
        of(r#"["b"]"#, Some(r#"{"n":1234567890123456}"#)),
        of(r#"["b"]"#, Some(r#"{"n":1987654321098765}"#)),
    ]);
    let mut expected = b"\x01\x01\x02\x02[\"\x02\"]\x05{\"n\":\x01}\x01a\x011".to_vec();
    expected.extend_from_slice(b"\x02\x01b\x112");
    expected.extend_from_slice(b"\x01\x01\x00\x02[\"\x02\"]\x01b");
    expected.extend_from_slice(b"\x02\x10\x2e34567890123456");
    expected.extend_from_slice(b"\x02\x10\xf16");
    expected.extend_from_slice(b"\x02\x10\xff\x01\x0f987654321098765");
    assert_eq!(packed(&records), expected);
    come_back(&records);
}

/// A document that is like others, or like no other; what a document can be, and what none is.
fn document(rng: &mut Rng) -> Vec<u8> {
    let text = |rng: &mut Rng, most| {
        let length = rng.usize(0..=most);
        let from = br#"ab01-."\,}{]:/ "#;
        let bytes = (0..length).map(|_| from[rng.usize(..from.len())]);
        bytes.collect::<Vec<u8>>()
    };
    let string = |rng: &mut Rng, most| {
        let text = String::from_utf8(text(rng, most)).expect("ASCII");
        serde_json::to_string(&text).expect("a string")
    };
    let number = rng.i32(-200..100_000);
    let document = match rng.u8(0..12) {
        0..4 => format!(
            r#"{{"region":"region-{:02}","amount":{number}}}"#,
            rng.u8(0..32)
        ),
        4 | 5 => {
            let status = ["\"placed\"", "null", "true", "7"][rng.usize(..4)];
            let tags = (0..rng.usize(0..4)).map(|_| string(rng, 20));
            let tags = tags.collect::<Vec<_>>().join(",");
            format!(r#"{{"status":{status},"tags":[{tags}],"at":{{"x":{number}}}}}"#)
        }
        6 | 7 => format!(
            r#"{{"id":{},"_etag":"\"{:08x}-0000-0700\"","_ts":{number}}}"#,
            string(rng, 40),
            rng.u32(..)
        ),
        8 => format!(r#"{{"same":1,"last":{}}}"#, string(rng, 6)),
        9 => format!(r#"{{ {} : {number} }}"#, string(rng, 5)),
        10 => return text(rng, 60),
        _ => return (0..rng.usize(0..50)).map(|_| rng.u8(..)).collect(),
    };
    document.into_bytes()
}

fn key(rng: &mut Rng) -> Vec<u8> {
    match rng.u8(0..8) {
        0..6 => format!("[\"o-{}\"]", rng.u32(0..100_000)).into_bytes(),
        6 => format!("[{},true]", rng.u8(..)).into_bytes(),
        _ => (0..rng.usize(0..20)).map(|_| rng.u8(..)).collect(),
    }
}

/// In pages of both layouts, and each by itself.
fn random_records(rng: &mut Rng) -> Records {
    let mut all = Records::new();
    for _ in 0..rng.usize(0..4) {
        let mut page = RecordsWriter::default();
        for _ in 0..rng.usize(0..120) {
            let (key, body) = (key(rng), document(rng));
            match rng.u8(0..10) {
                0 => page.removal(|to| to.extend_from_slice(&key)),
                1..4 => page.record(
                    |to| to.extend_from_slice(&key),
                    Some(|to: &mut Vec<u8>| to.extend_from_slice(&body)),
                ),
                4 => {
                    let (key, body) = (key.into(), Some(body.into()));
                    all.push(Record { key, body });
                }
                _ => {
                    let wrote = page.body_and_key(|to| {
                        to.extend_from_slice(&body);
                        to.extend_from_slice(&key);
                        Ok::<_, ()>(body.len())
                    });
                    wrote.expect("no error");
                }
            }
        }
        all.append(page.finish());
    }
    all
}

#[test]
fn any_records_come_back() {
    for seed in 0..2_000 {
        println!("seed {seed}");
        come_back(&random_records(&mut Rng::with_seed(seed)));
    }
}

#[test]
fn documents_that_are_alike_take_what_their_values_take() {
    let mut rng = Rng::with_seed(7);
    let mut order = |number: usize| {
        let (region, amount) = (rng.u8(0..32), rng.u32(0..100_000));
        let body = format!(r#"{{"region":"region-{region:02}","amount":{amount}}}"#);
        of(&format!("[\"o-{number}\"]"), Some(&body))
    };
    let records: Records = (100_000..101_000).map(&mut order).collect();
    let packed = come_back(&records);
    // The shape's number, and of three values how long they are: of the id a digit or two, of the region two, of the amount five.
    assert!(packed.len() <= 1_000 * 13 + 100, "{}", packed.len());
}

#[test]
fn shapes_that_take_turns_are_told_apart() {
    let document = |number: usize| match number % 3 {
        0 => of("[1]", Some(&format!(r#"{{"a":{number},"b":"x"}}"#))),
        1 => of(
            "[1]",
            Some(&format!(r#"{{"a":{number},"b":"x","c":"y{number}"}}"#)),
        ),
        _ => of("[1]", None),
    };
    let records: Records = (10_000..13_000).map(document).collect();
    let packed = come_back(&records);
    assert!(packed.len() < 3_000 * 8, "{}", packed.len());
}

#[test]
fn documents_that_are_like_no_other_take_little_more_than_before() {
    let body = |number: usize| format!(r#"{{"name {number}":{{"x":[{number}]}}}}"#);
    let many_shapes = |number| of("[1]", Some(&body(number)));
    let many_slots = |number: usize| {
        let numbers = vec![number.to_string(); MOST_SLOTS + 1 + number % 2];
        of("[1]", Some(&format!("[{}]", numbers.join(","))))
    };
    let large_shapes = |number: usize| {
        let name = "n".repeat(MOST_SHAPE_BYTES);
        of("[1]", Some(&format!(r#"{{"{name}":{number}}}"#)))
    };
    for records in [
        (0..2_000).map(many_shapes).collect::<Records>(),
        (0..70).map(many_slots).collect(),
        (0..70).map(large_shapes).collect(),
    ] {
        let packed = come_back(&records);
        let rows = rows(&records);
        assert!(
            packed.len() < rows.len() + 6_000,
            "{} of {}",
            packed.len(),
            rows.len()
        );
    }
}

/// Whatever is damaged is refused, or read as something else that is no larger than was asked for; the checksum tells it.
#[test]
fn what_is_damaged_is_never_more_than_was_asked_for() {
    for seed in 0..200 {
        println!("seed {seed}");
        let mut rng = Rng::with_seed(seed);
        let records = random_records(&mut rng);
        let (mut packed, most) = (packed(&records), rows(&records).len());
        assert_eq!(decode(&packed, most.saturating_sub(1)).is_some(), most == 0);
        for _ in 0..50.min(packed.len()) {
            let at = rng.usize(..packed.len());
            let was = packed[at];
            packed[at] = rng.u8(..);
            let decoded = decode(&packed, most);
            assert!(decoded.is_none_or(|rows| rows.len() <= most));
            let cut = decode(&packed[..at], most);
            assert!(cut.is_none_or(|rows| rows.len() <= most));
            packed[at] = was;
        }
    }
}

#[test]
fn what_no_encoder_writes_is_refused() {
    for bytes in [
        &[2][..],
        &[0, 1],
        &[0, 1, 1],
        &[0, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 2],
        &[1, 0x81, 0x80, 0x80, 0x80, 1, 0],
        // A value that begins as none before it did.
        &[1, 1, 0, 0, 0, 0x10],
        &[1, 1, 0, 0, 0, LONG, 1, 0],
    ] {
        assert_eq!(decode(bytes, 1 << 20), None, "{bytes:?}");
    }
    let shape = [NEW_SHAPE, 0, 0, 0];
    let most = shape.repeat(MOST_SHAPES);
    assert_eq!(
        decode(&most, 1 << 20).map(|rows| rows.len()),
        Some(8 * MOST_SHAPES)
    );
    assert_eq!(decode(&[most, shape.to_vec()].concat(), 1 << 20), None);
}
