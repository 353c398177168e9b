//! What is in the directory of a server, and what happens when it is not what a server wrote.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidefeed_emulator::{Emulator, EmulatorConfig};

use super::program::{Directory, Program, prepare, refused};
use crate::common::raw::Raw;
use crate::common::{Random, from_environment};

const DOCS: &str = "/dbs/db/colls/items/docs";

const KEY: (&str, &str) = ("x-ms-documentdb-partitionkey", "[\"k\"]");

fn create(raw: &mut Raw, id: &str, pad: usize) -> (u16, Value) {
    let body = json!({"id": id, "pk": "k", "pad": "x".repeat(pad)}).to_string();
    let reply = raw.call("POST", DOCS, &[KEY], body.as_bytes()).unwrap();
    (reply.status, reply.json())
}

fn read(raw: &mut Raw, id: &str) -> Option<Value> {
    let path = format!("{DOCS}/{id}");
    let reply = raw.call("GET", &path, &[KEY], b"").unwrap();
    match reply.status {
        200 => Some(reply.json()),
        404 => None,
        _ => panic!("{}", reply.text()),
    }
}

fn restart(program: Program, directory: &Directory) -> Program {
    program.kill();
    Program::start(directory, &[])
}

fn length(path: &Path) -> u64 {
    path.metadata().unwrap().len()
}

/// The files of a directory with what is in them.
fn contents(directory: &Directory) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = std::fs::read_dir(&directory.0).unwrap();
    entries
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), std::fs::read(path).unwrap()))
        .collect()
}

fn seed() -> u64 {
    let seed = from_environment("TIDEFEED_SEED", 1);
    eprintln!("seed {seed}");
    seed
}

/// A journal of ten documents, and where each begins.
struct Sample {
    directory: Directory,
    /// Name and bytes of the journal.
    journal: (PathBuf, Vec<u8>),
    /// Lengths of the journal before each write, and after the last.
    lengths: Vec<usize>,
    documents: Vec<Value>,
}

impl Sample {
    fn new(name: &str) -> Self {
        let directory = Directory::new(name).unwrap();
        let program = Program::start(&directory, &[]);
        let mut raw = program.connect();
        prepare(&mut raw, json!({}));
        let path = directory.journal();
        let mut sample = Self {
            lengths: vec![length(&path) as usize],
            documents: Vec::new(),
            journal: (path, Vec::new()),
            directory,
        };
        for number in 0..10 {
            let (status, document) = create(&mut raw, &format!("d{number}"), 10 * number);
            assert_eq!(status, 201);
            sample.documents.push(document);
            sample.lengths.push(length(&sample.journal.0) as usize);
        }
        program.kill();
        sample.journal.1 = std::fs::read(&sample.journal.0).unwrap();
        sample
    }

    /// Puts this in the place of the journal.
    fn put(&self, bytes: &[u8]) {
        std::fs::remove_dir_all(&self.directory.0).unwrap();
        std::fs::create_dir(&self.directory.0).unwrap();
        std::fs::write(&self.journal.0, bytes).unwrap();
    }

    /// A server over these bytes has the first `count` documents, and takes more.
    fn check_first(&self, bytes: &[u8], count: usize) {
        self.put(bytes);
        for _ in 0..2 {
            let program = Program::start(&self.directory, &[]);
            let mut raw = program.connect();
            for (number, document) in self.documents.iter().enumerate() {
                let found = read(&mut raw, &format!("d{number}"));
                assert_eq!(found.as_ref(), (number < count).then_some(document));
            }
            program.kill();
            self.directory.journal();
        }
    }
}

#[test]
fn a_torn_tail_loses_only_the_last_record() {
    let sample = Sample::new("torn");
    let mut random = Random::new(seed());
    let (last, end) = (sample.lengths[9], sample.lengths[10]);
    sample.check_first(&sample.journal.1, 10);
    let mut cuts = vec![last, last + 1, last + 15, last + 16, end - 1];
    cuts.extend((0..8).map(|_| last + random.below(end - last)));
    for cut in cuts {
        eprintln!("cut at {cut} of {last} to {end}");
        sample.check_first(&sample.journal.1[..cut], 9);
        let mut zeros = sample.journal.1.clone();
        zeros[cut..].fill(0);
        sample.check_first(&zeros, 9);
        zeros.resize(end + random.below(10_000), 0);
        sample.check_first(&zeros, 9);
    }
}

#[test]
fn damage_elsewhere_is_named_and_nothing_is_overwritten() {
    let sample = Sample::new("damage");
    let mut random = Random::new(seed());
    let last = sample.lengths[9];
    // The magic, then the four parts of the first frame after it, and anywhere; the lengths of all records.
    let mut places: Vec<usize> = vec![0, 7, 8, 11, 12, 16, 23, 24];
    places.extend(sample.lengths[..9].iter().flat_map(|at| [*at, *at + 3]));
    places.extend((0..30).map(|_| random.below(last)));
    for place in places {
        let bit = random.below(8);
        eprintln!("bit {bit} of byte {place} of {last}");
        let mut bytes = sample.journal.1.clone();
        bytes[place] ^= 1 << bit;
        sample.put(&bytes);
        let output = refused(&sample.directory);
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let start = format!("error: {} is damaged at byte ", sample.journal.0.display());
        let rest = said.strip_prefix(&start);
        let rest = rest.unwrap_or_else(|| panic!("{said}"));
        let (offset, _) = rest.split_once(' ').unwrap();
        let offset: usize = offset.parse().unwrap();
        assert!(offset <= place, "{offset} is behind {place}");
        let mut kept = contents(&sample.directory);
        kept.retain(|path, _| !path.ends_with("lock"));
        assert_eq!(kept, BTreeMap::from([(sample.journal.0.clone(), bytes)]));
    }
}

#[test]
fn a_beginning_that_is_cut_short_is_damage() {
    let sample = Sample::new("beginning");
    Program::start(&sample.directory, &[]).kill();
    let (path, bytes) = (sample.directory.journal(), contents(&sample.directory));
    let bytes = &bytes[&path];
    std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    let output = refused(&sample.directory);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("its beginning is cut short"), "{said}");
}

#[test]
fn a_directory_has_one_server() {
    let directory = Directory::new("second").unwrap();
    let program = Program::start(&directory, &[]);
    let output = refused(&directory);
    assert_eq!(output.status.code(), Some(1));
    let line = format!(
        "error: {} is in use by another server: stop it, or choose another directory\n",
        directory.0.display()
    );
    assert_eq!(String::from_utf8_lossy(&output.stderr), line);
    // The first one does not mind.
    prepare(&mut program.connect(), json!({}));
    assert_eq!(program.terminate(), Some(0));
    let program = Program::start(&directory, &[]);
    assert_eq!(create(&mut program.connect(), "a", 0).0, 201);
}

#[test]
fn an_embedded_server_gives_its_directory_free_when_it_is_dropped() {
    let directory = Directory::new("embedded").unwrap();
    for number in 0..10 {
        let emulator = Emulator::start(EmulatorConfig {
            data: Some(directory.0.clone()),
            worker_threads: 4,
            ..EmulatorConfig::default()
        })
        .unwrap();
        let mut raw = Raw::connect(&emulator).unwrap();
        if number == 0 {
            prepare(&mut raw, json!({}));
        }
        assert_eq!(create(&mut raw, &format!("d{number}"), 0).0, 201);
        assert_eq!(emulator.stats().documents, number + 1);
    }
}

#[test]
fn a_full_disk_is_503_and_leaves_what_was_acknowledged() {
    let directory = Directory::new("full").unwrap();
    let mut random = Random::new(seed());
    let program = Program::start_on_small_disk(&directory, 64);
    let mut raw = program.connect();
    prepare(&mut raw, json!({}));
    let mut documents: BTreeMap<String, Option<Value>> = BTreeMap::new();
    let (mut refused, mut taken_after) = (0, 0);
    for number in 0..300 {
        let id = format!("d{number}");
        let (status, document) = create(&mut raw, &id, random.below(2_000));
        match status {
            201 => {
                taken_after += usize::from(refused > 0);
                documents.insert(id, Some(document));
            }
            503 => {
                refused += 1;
                assert_eq!(document["code"], "ServiceUnavailable", "{document}");
                documents.insert(id, None);
            }
            _ => panic!("{document}"),
        }
    }
    assert!(refused > 100, "{refused}");
    assert!(
        taken_after > 0,
        "a small write fits where a large one did not"
    );
    let path = directory.journal();
    let check = |raw: &mut Raw| {
        for (id, document) in &documents {
            assert_eq!(read(raw, id), *document);
        }
    };
    check(&mut raw);
    let half = raw.call(
        "POST",
        "/dbs",
        &[("x-ms-offer-throughput", "400")],
        br#"{"id":"half"}"#,
    );
    let half = half.unwrap().status == 201;
    program.kill();
    assert!(length(&path) <= 64 * 1024);
    let program = Program::start(&directory, &[]);
    let mut raw = program.connect();
    check(&mut raw);
    let found = raw.call("GET", "/dbs/half", &[], b"").unwrap();
    assert_eq!(found.status == 200, half);
    assert_eq!(create(&mut raw, "more", 2_000).0, 201);
}

#[test]
fn a_start_leaves_one_journal_of_what_is_there() {
    let directory = Directory::new("compaction").unwrap();
    let program = Program::start(&directory, &[]);
    let mut raw = program.connect();
    prepare(&mut raw, json!({}));
    for _ in 0..500 {
        let (status, _) = create(&mut raw, "same", 1_000);
        assert_eq!(status, 201);
        let deleted = raw.call("DELETE", &format!("{DOCS}/same"), &[KEY], b"");
        assert_eq!(deleted.unwrap().status, 204);
    }
    let (_, kept) = create(&mut raw, "kept", 1_000);
    program.kill();
    let old = directory.journal();
    let bytes = std::fs::read(&old).unwrap();
    assert!(bytes.len() > 500_000);
    // A start that was killed while it wrote.
    std::fs::write(directory.0.join("journal-00000002.new"), b"unfinished").unwrap();
    let program = Program::start(&directory, &[]);
    assert_eq!(read(&mut program.connect(), "kept").as_ref(), Some(&kept));
    assert!(length(&directory.journal()) < 4_000);
    let (_, newer) = create(&mut program.connect(), "newer", 0);
    program.kill();
    // A start that was killed between its journal and the end of the old one.
    std::fs::write(&old, bytes).unwrap();
    let program = Program::start(&directory, &[]);
    let mut raw = program.connect();
    assert_eq!(read(&mut raw, "kept"), Some(kept));
    assert_eq!(read(&mut raw, "newer"), Some(newer));
    assert_eq!(read(&mut raw, "same"), None);
    directory.journal();
}

#[test]
fn what_is_created_again_under_its_name_is_new() {
    let directory = Directory::new("again").unwrap();
    let program = Program::start(&directory, &[]);
    let mut raw = program.connect();
    prepare(&mut raw, json!({}));
    create(&mut raw, "old", 0);
    assert_eq!(raw.call("DELETE", "/dbs/db", &[], b"").unwrap().status, 204);
    prepare(&mut raw, json!({"defaultTtl": 1_000}));
    let (_, first) = create(&mut raw, "first", 0);
    let path = "/dbs/db/colls/items";
    assert_eq!(raw.call("DELETE", path, &[], b"").unwrap().status, 204);
    let body = br#"{"id":"items","partitionKey":{"paths":["/pk"],"kind":"Hash"}}"#;
    let made = raw.call("POST", "/dbs/db/colls", &[], body).unwrap();
    assert_eq!(made.status, 201);
    let (_, second) = create(&mut raw, "second", 0);
    assert_ne!(first["_rid"], second["_rid"]);
    let mut program = program;
    for _ in 0..2 {
        program = restart(program, &directory);
        let mut raw = program.connect();
        assert_eq!(read(&mut raw, "second").as_ref(), Some(&second));
        assert_eq!(read(&mut raw, "first"), None);
        assert_eq!(read(&mut raw, "old"), None);
    }
}

#[test]
fn requests_that_outlive_their_container_do_no_harm() {
    let directory = Directory::new("outlive").unwrap();
    let program = Program::start(&directory, &[]);
    let mut raw = program.connect();
    prepare(&mut raw, json!({}));
    let moving = br#"{"moving_ms":100}"#;
    let path = "/_emulator/dbs/db/colls/items/ranges/0/split";
    assert_eq!(raw.call("POST", path, &[], moving).unwrap().status, 202);
    assert_eq!(raw.call("DELETE", "/dbs/db", &[], b"").unwrap().status, 204);
    let journal = directory.journal();
    let (before, begun) = (length(&journal), Instant::now());
    while length(&journal) == before {
        assert!(begun.elapsed() < Duration::from_secs(30), "no split");
        std::thread::yield_now();
    }
    prepare(&mut raw, json!({}));
    let (_, document) = create(&mut raw, "a", 0);
    program.kill();
    let program = Program::start(&directory, &[]);
    assert_eq!(read(&mut program.connect(), "a"), Some(document));
}

#[test]
fn properties_as_deep_as_the_parser_allows_come_back() {
    let directory = Directory::new("deep").unwrap();
    let program = Program::start(&directory, &[]);
    let mut raw = program.connect();
    let deep = (0..126).fold(json!(1), |inner, _| json!([inner]));
    prepare(
        &mut raw,
        json!({"indexingPolicy": {"indexingMode": "consistent"}, "deep": deep}),
    );
    let path = "/dbs/db/colls/items";
    let before = raw.call("GET", path, &[], b"").unwrap().text();
    let mut program = program;
    for _ in 0..2 {
        program = restart(program, &directory);
        let found = program.connect().call("GET", path, &[], b"").unwrap();
        assert_eq!(found.text(), before);
    }
}

#[test]
fn offers_are_enforced_after_a_restart() {
    let directory = Directory::new("offers").unwrap();
    let flags = ["--throughput", "400", "--partitions", "1"];
    let program = Program::start(&directory, &flags);
    let mut raw = program.connect();
    prepare(&mut raw, json!({}));
    let mut offer = raw.call("GET", "/offers", &[], b"").unwrap().json()["Offers"][0].clone();
    assert_eq!(offer["content"]["offerThroughput"], 400);
    offer["content"]["offerThroughput"] = json!(1_500);
    let path = format!("/offers/{}", offer["id"].as_str().unwrap());
    let body = offer.to_string();
    let replaced = raw.call("PUT", &path, &[], body.as_bytes()).unwrap();
    assert_eq!(replaced.status, 200, "{}", replaced.text());
    program.kill();
    let program = Program::start(&directory, &flags);
    let mut raw = program.connect();
    let found = raw.call("GET", &path, &[], b"").unwrap();
    assert_eq!(found.json(), replaced.json());
    let (begun, mut units) = (Instant::now(), 0.0);
    while create(&mut raw, &units.to_string(), 0).0 == 201 {
        units += 5.5;
        assert!(units < 1_500.0 * (2.0 + begun.elapsed().as_secs_f64()));
    }
    assert!(units >= 1_500.0, "{units}");
}
