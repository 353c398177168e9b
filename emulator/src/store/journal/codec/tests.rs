use serde_json::{Value, json};

use super::*;
use crate::store::account::Offer;
use crate::store::history::Change;
use crate::store::journal::{ContainerState, PartitionState};
use crate::store::shard::Draft;

const TARGET: Target = Target {
    container: 7,
    partition: 9,
};

fn version(number: u64) -> Version {
    Version {
        text: Arc::from(format!("{{\"n\":{number}").as_bytes()),
        rid: number,
        etag: u64::MAX - number,
        lsn: number << 40,
        ts: u32::MAX,
    }
}

/// A key of one component, and of three.
fn epk(components: usize) -> Epk {
    Epk::from_hashes(&vec![0x2A; 16 * components])
}

fn put(number: u64, components: usize) -> Mutation {
    Mutation::Put {
        draft: Draft {
            id: format!("\u{e6}{number}").into(),
            epk: epk(components),
            text: version(number).text,
            ttl: None,
            unique: Box::default(),
        },
        version: version(number),
    }
}

fn remove(kind: ChangeKind) -> Mutation {
    Mutation::Remove {
        epk: epk(1),
        id: "gone".into(),
        kind,
        stamp: Stamp { lsn: 3, ts: 4 },
    }
}

fn deep(levels: usize) -> Value {
    (0..levels).fold(json!("x"), |inner, _| json!([inner]))
}

fn events() -> Vec<Event> {
    let properties = || json!({"id": "c", "partitionKey": {"paths": ["/pk"]}, "deep": deep(120)});
    vec![
        Event::Opened {
            salt: 1,
            numbers: 2,
        },
        Event::DatabaseCreated {
            id: "d\u{e6}\"".to_owned(),
            number: 1,
            etag: "\"t\"".to_owned(),
            ts: 5,
        },
        Event::DatabaseDeleted { number: 1 },
        Event::ContainerCreated {
            database: 1,
            number: 2,
            partitions: 4,
            properties: properties(),
            ts: 5,
        },
        Event::ContainerReplaced {
            container: 2,
            properties: properties(),
            etag: 8,
            ts: 6,
        },
        Event::ContainerDeleted { container: 2 },
        Event::ContainerState(ContainerState {
            database: 1,
            number: 2,
            properties: properties(),
            ts: 7,
            rids: 8,
            etags: 9,
            map_version: 10,
            next_partition: 11,
            partitions: vec![PartitionState {
                id: 3,
                min: String::new(),
                max: "FF".to_owned(),
                parents: vec![1, 2],
                lsn: 12,
                ts: 13,
                floors: vec![(String::new(), "FF".to_owned(), 4)],
            }],
        }),
        Event::Complete,
        Event::OfferSet(Offer {
            id: "o".to_owned(),
            resource_rid: "r".to_owned(),
            resource_link: "l".to_owned(),
            content: json!({"offerThroughput": 400, "deep": deep(120)}),
            etag: "\"t\"".to_owned(),
            ts: 1,
        }),
        Event::Split {
            container: 2,
            partition: 3,
            at: "0".repeat(32),
        },
        Event::Merged {
            container: 2,
            partitions: [4, 5],
        },
        Event::HistoryStarted { container: 2 },
    ]
}

/// One payload of every kind.
fn payloads() -> Vec<Vec<u8>> {
    let mut all = vec![Vec::new(); 4];
    encode_events(&mut all[0], &events()).unwrap();
    let mutations = [
        put(1, 1),
        put(2, 3),
        remove(ChangeKind::Delete),
        remove(ChangeKind::Expire),
    ];
    encode_writes(&mut all[1], 7, 9, &mutations);
    let document = Document {
        id: "a".into(),
        epk: epk(2),
        version: version(5),
        expiry: 0,
        log_position: 0,
    };
    encode_documents(&mut all[2], TARGET, &[&document]);
    let kinds = [
        (ChangeKind::Create, Some(version(1)), None),
        (ChangeKind::Replace, Some(version(2)), Some(version(1))),
        (ChangeKind::Delete, None, Some(version(2))),
        (ChangeKind::Expire, None, Some(version(3))),
    ];
    let changes: Vec<Change> = kinds.into_iter().map(change).collect();
    encode_changes(&mut all[3], TARGET, &changes.iter().collect::<Vec<_>>());
    all
}

fn change((kind, current, previous): (ChangeKind, Option<Version>, Option<Version>)) -> Change {
    Change {
        kind,
        id: "a".into(),
        epk: epk(1),
        current,
        previous,
        stamp: Stamp { lsn: 6, ts: 7 },
    }
}

/// Writes a record again, to compare it with what it was read from.
fn again(record: Record) -> Vec<u8> {
    let mut out = Vec::new();
    let mutation = |written: Written| match written.outcome {
        Ok(version) => Mutation::Put {
            draft: Draft {
                id: written.id,
                epk: written.epk,
                text: version.text.clone(),
                ttl: None,
                unique: Box::default(),
            },
            version,
        },
        Err((kind, stamp)) => Mutation::Remove {
            epk: written.epk,
            id: written.id,
            kind,
            stamp,
        },
    };
    match record {
        Record::Events(events) => encode_events(&mut out, &events).unwrap(),
        Record::Writes(target, writes) => {
            let mutations: Vec<Mutation> = writes.into_iter().map(mutation).collect();
            encode_writes(&mut out, target.container, target.partition, &mutations);
        }
        Record::Documents(target, writes) => {
            let mutations: Vec<Mutation> = writes.into_iter().map(mutation).collect();
            encode_writes(&mut out, target.container, target.partition, &mutations);
            // Documents are written as writes are, under another letter.
            out[0] = b'D';
        }
        Record::Changes(target, changes) => {
            encode_changes(&mut out, target, &changes.iter().collect::<Vec<_>>());
        }
    }
    out
}

#[test]
fn every_kind_of_record_is_read_as_it_was_written() {
    for payload in payloads() {
        let record = decode(&payload).expect("a record");
        assert_eq!(again(record), payload, "kind {:?}", char::from(payload[0]));
    }
}

#[test]
fn every_event_is_read_as_it_was_written() {
    for event in events() {
        let mut payload = Vec::new();
        let expected = format!("{event:?}");
        encode_events(&mut payload, &[event]).unwrap();
        let Some(Record::Events(read)) = decode(&payload) else {
            panic!("{expected} cannot be read");
        };
        assert_eq!(format!("{read:?}"), format!("[{expected}]"));
    }
}

#[test]
fn a_record_that_is_cut_short_or_too_long_is_none() {
    for payload in payloads() {
        for length in 0..payload.len() {
            assert!(decode(&payload[..length]).is_none(), "{length}");
        }
        let mut longer = payload.clone();
        longer.push(0);
        assert!(decode(&longer).is_none());
    }
}

/// Whatever the bytes say, nothing panics, and no number in them is believed before that much is there: a count of four
/// thousand million with nothing behind it would otherwise ask for the memory at once.
#[test]
fn arbitrary_bytes_are_refused_without_harm() {
    let mut random = xorshift(0x5EED);
    for payload in payloads() {
        for _ in 0..2_000 {
            let mut damaged = payload.clone();
            for _ in 0..=random() % 4 {
                let at = random() as usize % damaged.len();
                damaged[at] = random() as u8;
            }
            let _ = decode(&damaged);
        }
    }
    for kind in *b"EWDHX" {
        for length in 0..200 {
            let mut bytes = vec![kind];
            bytes.extend((0..length).map(|_| random() as u8));
            let _ = decode(&bytes);
        }
        let mut bytes = vec![kind];
        bytes.extend_from_slice(&[0xFF; 40]);
        assert!(decode(&bytes).is_none());
    }
}

fn xorshift(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state >> 11
    }
}
