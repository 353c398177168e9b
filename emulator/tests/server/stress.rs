//! Writers, readers, splits and merges at once, on a server with several threads.
//!
//! Every writer has logical partitions of its own and knows what became of each of its writes. At the end every
//! acknowledged change is in AllVersionsAndDeletes once and in order, LatestVersion ended with the newest version of
//! every item, and what is read is what was written last. `TIDEFEED_STRESS_WRITES=n` writes n times per writer.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use crate::common::Random;
use crate::common::raw::{Raw, Reply};
use serde_json::{Value, json};
use tidefeed_emulator::{Emulator, EmulatorConfig};

const DOCS: &str = "/dbs/db/colls/items/docs";
const WRITERS: usize = 3;

/// Time for everything; a deadlock ends here.
const PATIENCE: Duration = Duration::from_secs(300);

/// Writes between two splits or merges.
const WRITES_PER_MOVE: u64 = 15;

/// By logical partition: the number that a change left in an item, `None` for a deletion.
type Changes = HashMap<String, Vec<(String, Option<u64>)>>;

/// What a thread brings back.
enum Report {
    Written(Changes),
    Read(&'static str, Changes),
    Moved(u64),
}

#[test]
fn nothing_is_lost_while_partitions_split_and_merge_under_load() {
    let writes = std::env::var("TIDEFEED_STRESS_WRITES").map_or(400, |text| text.parse().unwrap());
    let emulator = Emulator::start(EmulatorConfig {
        worker_threads: 4,
        partitions: 2,
        split_at_bytes: Some(60_000),
        ..EmulatorConfig::default()
    })
    .unwrap();
    let mut raw = Raw::connect(&emulator).unwrap();
    raw.prepare("/pk").unwrap();
    let modes = ["Incremental Feed", "Full-Fidelity Feed"];
    let starts = modes.map(|mode| start(&mut raw, mode));
    let (written, stop) = (AtomicBool::new(false), AtomicBool::new(false));
    let count = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let (reports, results) = channel();
        let (emulator, written, stop, count) = (&emulator, &written, &stop, &count);
        for writer in 0..WRITERS {
            let reports = reports.clone();
            scope.spawn(move || Writer::new(emulator, writer).run(writes, count, &reports));
        }
        for (mode, start) in modes.into_iter().zip(starts) {
            let reports = reports.clone();
            scope.spawn(move || {
                let mut raw = Raw::connect(emulator).unwrap();
                reports.send(Report::Read(mode, follow(&mut raw, mode, start, written)))
            });
        }
        scope.spawn(move || reports.send(Report::Moved(move_partitions(emulator, stop, count))));
        let (mut truth, mut read, mut writers, mut moves) = (Changes::new(), HashMap::new(), 0, 0);
        while moves == 0 {
            let Ok(report) = results.recv_timeout(PATIENCE) else {
                // A panic would wait for the threads.
                eprintln!("a thread hangs or has panicked");
                std::process::exit(101);
            };
            match report {
                Report::Written(changes) => {
                    truth.extend(changes);
                    writers += 1;
                    written.store(writers == WRITERS, Ordering::SeqCst);
                }
                Report::Read(mode, changes) => {
                    read.insert(mode, changes);
                    stop.store(read.len() == modes.len(), Ordering::SeqCst);
                }
                Report::Moved(count) => moves = count,
            }
        }
        assert!(moves > 4, "{moves} splits and merges");
        check(&mut raw, &truth, &read);
    });
}

fn check(raw: &mut Raw, truth: &Changes, read: &HashMap<&str, Changes>) {
    let all = &read["Full-Fidelity Feed"];
    let newest = &read["Incremental Feed"];
    assert_eq!(all.len(), truth.len());
    for (pk, changes) in truth {
        assert_eq!(all.get(pk), Some(changes), "all versions of {pk}");
        let mut left = BTreeMap::new();
        for (id, number) in changes {
            left.insert(id.as_str(), *number);
        }
        let followed = newest.get(pk).map_or(&[][..], Vec::as_slice);
        let key = json!([pk]).to_string();
        for (id, number) in left {
            let path = format!("{DOCS}/{id}");
            let key = [("x-ms-documentdb-partitionkey", key.as_str())];
            let reply = raw.call("GET", &path, &key, b"").unwrap();
            assert_eq!(reply.json()["n"].as_u64(), number, "{pk} {id}");
            if number.is_some() {
                let last = followed.iter().rfind(|(other, _)| other == id);
                assert_eq!(
                    last.and_then(|(_, number)| *number),
                    number,
                    "newest of {pk} {id}"
                );
            }
        }
    }
}

struct Writer {
    raw: Raw,
    random: Random,
    name: usize,
    number: u64,
    live: HashMap<(String, String), u64>,
    changes: Changes,
}

impl Writer {
    fn new(emulator: &Emulator, name: usize) -> Self {
        Self {
            raw: Raw::connect(emulator).unwrap(),
            random: Random::new(name as u64 + 11),
            name,
            number: 0,
            live: HashMap::new(),
            changes: HashMap::new(),
        }
    }

    fn run(mut self, writes: u64, count: &AtomicU64, reports: &Sender<Report>) {
        for _ in 0..writes {
            count.fetch_add(1, Ordering::SeqCst);
            let pk = format!("w{}-{}", self.name, self.random.below(9));
            match self.random.below(6) {
                0 => self.delete(&pk),
                1 => self.batch(&pk),
                2 => self.bulk(),
                _ => self.upsert(&pk),
            }
        }
        reports.send(Report::Written(self.changes)).unwrap();
    }

    fn item(&mut self, pk: &str) -> (String, u64, Value) {
        let id = format!("i{}", self.random.below(5));
        self.number += 1;
        let filler = "f".repeat(self.random.below(900));
        let item = json!({"id": id, "pk": pk, "n": self.number, "f": filler});
        (id, self.number, item)
    }

    fn happened(&mut self, pk: &str, id: String, number: Option<u64>) {
        match number {
            Some(number) => self.live.insert((pk.to_owned(), id.clone()), number),
            None => self.live.remove(&(pk.to_owned(), id.clone())),
        };
        self.changes
            .entry(pk.to_owned())
            .or_default()
            .push((id, number));
    }

    fn upsert(&mut self, pk: &str) {
        let (id, number, item) = self.item(pk);
        let upsert = [("x-ms-documentdb-is-upsert", "true")];
        let reply = self
            .raw
            .call("POST", DOCS, &upsert, item.to_string().as_bytes())
            .unwrap();
        let known = self.live.contains_key(&(pk.to_owned(), id.clone()));
        assert_eq!(
            reply.status,
            if known { 200 } else { 201 },
            "{}",
            reply.text()
        );
        self.happened(pk, id, Some(number));
    }

    fn delete(&mut self, pk: &str) {
        let id = format!("i{}", self.random.below(5));
        let (path, key) = (format!("{DOCS}/{id}"), json!([pk]).to_string());
        let key = [("x-ms-documentdb-partitionkey", key.as_str())];
        let reply = self.raw.call("DELETE", &path, &key, b"").unwrap();
        let known = self.live.contains_key(&(pk.to_owned(), id.clone()));
        assert_eq!(
            reply.status,
            if known { 204 } else { 404 },
            "{}",
            reply.text()
        );
        if known {
            self.happened(pk, id, None);
        }
    }

    /// Creates, deletes and creates an item that does not exist, or fails as a whole.
    fn batch(&mut self, pk: &str) {
        let (id, first, one) = self.item(pk);
        let (second, mut two) = (first + 1, one.clone());
        self.number = second;
        two["n"] = json!(second);
        let body = json!([
            {"operationType": "Create", "resourceBody": one},
            {"operationType": "Delete", "id": id},
            {"operationType": "Create", "resourceBody": two},
        ]);
        let key = json!([pk]).to_string();
        let headers = [
            ("x-ms-cosmos-is-batch-request", "true"),
            ("x-ms-documentdb-partitionkey", key.as_str()),
        ];
        let reply = self
            .raw
            .call("POST", DOCS, &headers, body.to_string().as_bytes())
            .unwrap();
        let known = self.live.contains_key(&(pk.to_owned(), id.clone()));
        assert_eq!(
            reply.status,
            if known { 207 } else { 200 },
            "{}",
            reply.text()
        );
        if !known {
            self.happened(pk, id.clone(), Some(first));
            self.happened(pk, id.clone(), None);
            self.happened(pk, id, Some(second));
        }
    }

    /// Upserts into all logical partitions, each wherever it is now.
    fn bulk(&mut self) {
        let mut open: Vec<(String, String, u64, Value)> = (0..9)
            .map(|index| {
                let pk = format!("w{}-{index}", self.name);
                let (id, number, item) = self.item(&pk);
                (pk, id, number, item)
            })
            .collect();
        while !open.is_empty() {
            for range in range_ids(&mut self.raw) {
                let operations: Vec<Value> = open
                    .iter()
                    .map(|(pk, _, _, item)| {
                        json!({"operationType": "Upsert", "partitionKey": json!([pk]).to_string(), "resourceBody": item})
                    })
                    .collect();
                if operations.is_empty() {
                    break;
                }
                let headers = [
                    ("x-ms-cosmos-is-batch-request", "true"),
                    ("x-ms-cosmos-batch-atomic", "false"),
                    ("x-ms-documentdb-partitionkeyrangeid", range.as_str()),
                ];
                let body = json!(operations).to_string();
                let reply = self
                    .raw
                    .call("POST", DOCS, &headers, body.as_bytes())
                    .unwrap();
                if reply.status == 410 {
                    continue;
                }
                let results = reply.json();
                for (index, (pk, id, number, item)) in
                    std::mem::take(&mut open).into_iter().enumerate()
                {
                    match results[index]["statusCode"].as_u64() {
                        Some(200 | 201) => self.happened(&pk, id, Some(number)),
                        Some(410) => open.push((pk, id, number, item)),
                        other => panic!("{other:?}: {}", reply.text()),
                    }
                }
            }
        }
    }
}

fn range_ids(raw: &mut Raw) -> Vec<String> {
    let reply = raw
        .call("GET", "/dbs/db/colls/items/pkranges", &[], b"")
        .unwrap()
        .json();
    let ranges = reply["PartitionKeyRanges"]
        .as_array()
        .expect("ranges")
        .iter();
    ranges
        .filter_map(|range| Some(range["id"].as_str()?.to_owned()))
        .collect()
}

fn page(raw: &mut Raw, mode: &str, token: &str) -> Reply {
    let headers = [
        ("a-im", mode),
        ("if-none-match", token),
        ("x-ms-max-item-count", "9"),
    ];
    let reply = raw.call("GET", DOCS, &headers, b"").unwrap();
    assert!(
        matches!(reply.status, 200 | 304),
        "{mode} {token}: {}",
        reply.text()
    );
    reply
}

fn start(raw: &mut Raw, mode: &str) -> String {
    let reply = page(raw, mode, "*");
    reply.header("etag").expect("a continuation").to_owned()
}

/// Follows the feed of the whole container until nothing comes after the last write.
fn follow(raw: &mut Raw, mode: &str, mut token: String, written: &AtomicBool) -> Changes {
    let mut changes = Changes::new();
    loop {
        let last = written.load(Ordering::SeqCst);
        let reply = page(raw, mode, &token);
        token = reply.header("etag").expect("a continuation").to_owned();
        if reply.status == 304 && last {
            return changes;
        }
        for item in reply.json()["Documents"].as_array().into_iter().flatten() {
            let current = if item["current"].is_object() {
                &item["current"]
            } else {
                item
            };
            let gone = item["metadata"]["operationType"] == "delete";
            let document = if gone { &item["previous"] } else { current };
            let text = |name: &str| document[name].as_str().expect("text").to_owned();
            let number = (!gone).then(|| document["n"].as_u64().expect("a number"));
            changes
                .entry(text("pk"))
                .or_default()
                .push((text("id"), number));
        }
    }
}

/// Splits and merges until it is told to stop; returns how often.
fn move_partitions(emulator: &Emulator, stop: &AtomicBool, count: &AtomicU64) -> u64 {
    let (mut random, mut raw) = (Random::new(7), Raw::connect(emulator).unwrap());
    let mut moves = 0;
    while !stop.load(Ordering::SeqCst) {
        if count.load(Ordering::SeqCst) < moves * WRITES_PER_MOVE {
            std::thread::yield_now();
            continue;
        }
        let ids: Vec<u32> = range_ids(&mut raw)
            .iter()
            .map(|id| id.parse().unwrap())
            .collect();
        let at = random.below(ids.len());
        // Another split, by size, may be first.
        let moved = if ids.len() < 3 || ids.len() < 8 && random.below(2) == 0 {
            emulator.split("db", "items", ids[at]).is_ok()
        } else {
            let at = at.min(ids.len() - 2);
            emulator
                .merge("db", "items", [ids[at], ids[at + 1]])
                .is_ok()
        };
        moves += u64::from(moved);
    }
    moves
}

#[test]
fn no_item_keeps_a_time_to_live_that_its_container_has_given_up() {
    let emulator = Emulator::start(EmulatorConfig {
        worker_threads: 4,
        ..EmulatorConfig::default()
    })
    .unwrap();
    Raw::connect(&emulator).unwrap().prepare("/pk").unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (emulator, stop) = (&emulator, &stop);
        let writers: Vec<_> = (0..3)
            .map(|writer| {
                scope.spawn(move || {
                    let (mut raw, mut count) = (Raw::connect(emulator).unwrap(), 0);
                    while !stop.load(Ordering::SeqCst) {
                        let item =
                            json!({"id": format!("w{writer}-{count}"), "pk": "p"}).to_string();
                        assert_eq!(
                            raw.call("POST", DOCS, &[], item.as_bytes()).unwrap().status,
                            201
                        );
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        let mut raw = Raw::connect(emulator).unwrap();
        for _ in 0..100 {
            for ttl in [json!(100_000), json!(null)] {
                let definition = json!({"id": "items", "partitionKey": {"paths": ["/pk"], "kind": "Hash", "version": 2}, "defaultTtl": ttl});
                let replaced = raw
                    .call(
                        "PUT",
                        "/dbs/db/colls/items",
                        &[],
                        definition.to_string().as_bytes(),
                    )
                    .unwrap();
                assert_eq!(replaced.status, 200, "{}", replaced.text());
            }
        }
        stop.store(true, Ordering::SeqCst);
        let written: usize = writers
            .into_iter()
            .map(|writer| writer.join().unwrap())
            .sum();
        emulator.advance_clock(Duration::from_secs(1_000_000));
        assert_eq!(page(&mut raw, "Incremental Feed", "0").status, 200);
        assert_eq!(emulator.stats().documents, written);
    });
}
