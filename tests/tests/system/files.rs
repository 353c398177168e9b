//! Orders come from files: views against a recomputation from the same lines, through runs that stop anywhere.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::json;
use tempfile::TempDir;
use tidefeed::{CheckpointStore, Job, JobConfig, RunningJob};
use tidefeed_tests::orders::Orders;
use tidefeed_tests::views::{Order, OrderDocument, recompute};
use tidefeed_tests::{Shop, config_text_with, until, views};

fn start(shop: &Shop, store: &CheckpointStore, workers: usize, keys: &str) -> RunningJob {
    let source =
        format!("workers = {workers}\n[source.orders]\n{keys}\npoll_ms = 1\npoll_max_ms = 5\n");
    let text = config_text_with(&source, "shop", "settle_ms = 0");
    let config = JobConfig::parse(&text).expect("parses");
    let job = Job::new("shop", config, shop.clone(), views).checkpoint_store(store.clone());
    job.start()
        .unwrap_or_else(|error| panic!("{}", error.report()))
}

fn catch_up(job: RunningJob) -> u64 {
    job.finish_when_caught_up();
    let status = job
        .join()
        .unwrap_or_else(|error| panic!("{}", error.report()));
    status.changes_read
}

fn lines(documents: Vec<OrderDocument>) -> String {
    documents.iter().fold(String::new(), |mut text, document| {
        let line = serde_json::to_string(document).expect("JSON");
        writeln!(text, "{line}").expect("in memory");
        text
    })
}

fn in_folder(folder: &Path, pattern: &str) -> String {
    let pattern = folder.join(pattern);
    format!(
        "files = \"{}\"\nkey = [\"/region\", \"/id\"]",
        pattern.display()
    )
}

/// Documents change from file to file; whatever number of runs read them, the last line about each counts.
#[test]
fn the_last_line_about_a_document_counts() {
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let folder = tempfile::tempdir().expect("a folder");
    let mut orders = Orders::new(random.u64(..));
    let mut write = |name: &str, parts: usize| {
        let text: String = (0..parts).map(|_| lines(orders.change(10))).collect();
        std::fs::write(folder.path().join(name), &text).expect("written");
        text.lines().count() as u64
    };
    for file in 10..15 {
        write(&format!("{file}.jsonl"), 200);
    }
    let (shop, store) = (Shop::new(1), CheckpointStore::in_memory("shop"));
    let keys = in_folder(folder.path(), "*.jsonl") + "\npage_size = 50";
    for _ in 0..4 {
        let job = start(&shop, &store, random.usize(1..=3), &keys);
        let enough = random.u64(1..1500);
        until("reading", || {
            job.status().changes_read >= enough || job.status().epochs.committed > 3
        });
        job.stop();
        job.join()
            .unwrap_or_else(|error| panic!("{}", error.report()));
    }
    catch_up(start(&shop, &store, 2, &keys));
    // A later run reads what is new, and only that.
    let new = write("15.jsonl", 5);
    assert_eq!(catch_up(start(&shop, &store, 1, &keys)), new);
    assert_eq!(shop.found(), orders.expected());
    assert_eq!(catch_up(start(&shop, &store, 3, &keys)), 0);
    assert_eq!(shop.violations(), Vec::<String>::new());
}

/// A job reads what it needs, and what it needs is all that is kept. A run that would need more does not go on with less.
#[test]
fn only_the_fields_that_are_named_are_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut orders = Orders::new(5);
    let padded =
        lines(orders.change(300)).replace("{\"id\"", "{\"pad\":[\"é\\u00e9\",1.5e3],\"id\"");
    assert!(padded.contains("pad"), "{padded:.100}");
    std::fs::write(folder.path().join("1.jsonl"), padded).expect("written");
    let checkpoint = tempfile::tempdir().expect("a folder");
    let store = CheckpointStore::local(checkpoint.path(), "shop").expect("a store");
    let shop = Shop::new(1);
    let all = in_folder(folder.path(), "*.jsonl");
    let some =
        format!("{all}\nfields = [\"id\", \"region\", \"customer\", \"cents\", \"deleted\"]");
    catch_up(start(&shop, &store, 2, &some));
    assert_eq!(shop.found(), orders.expected());
    std::fs::write(folder.path().join("2.jsonl"), lines(orders.change(300))).expect("written");
    catch_up(start(&shop, &store, 1, &some));
    assert_eq!(shop.found(), orders.expected());
    let config = config_text_with(&format!("[source.orders]\n{all}\n"), "shop", "");
    let config = JobConfig::parse(&config).expect("parses");
    let job = Job::new("shop", config, shop.clone(), views).checkpoint_store(store.clone());
    let refused = job.start().err().expect("it needs more").report();
    assert!(
        refused.contains("of it cents,customer,deleted,id,region") && refused.contains("--fresh"),
        "{refused}"
    );
}

#[test]
fn what_is_appended_and_what_is_new_is_read_by_a_running_job() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut orders = Orders::new(3);
    let (shop, store) = (Shop::new(1), CheckpointStore::in_memory("shop"));
    let keys = in_folder(folder.path(), "*.jsonl") + "\nfollow = true";
    let job = start(&shop, &store, 2, &keys);
    for name in ["a.jsonl", "b.jsonl"] {
        for _ in 0..3 {
            let file = File::options()
                .append(true)
                .create(true)
                .open(folder.path().join(name));
            let text = lines(orders.change(20));
            file.and_then(|mut file| file.write_all(text.as_bytes()))
                .expect("written");
            let expected = orders.expected();
            until("the views of the orders", || shop.found() == expected);
        }
    }
    catch_up(job);
    assert_eq!(shop.found(), orders.expected());
}

/// Columns have types, and each file is read by itself.
#[test]
fn csv_files_are_read_at_the_same_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut live: BTreeMap<String, Order> = BTreeMap::new();
    for file in 0..6 {
        let mut text = "id,region,customer,cents\n".to_owned();
        for line in 0..300 {
            let id = format!("o{file}-{}", line % 200);
            let order = Order {
                id: id.clone(),
                region: format!("r{file}"),
                customer: format!("c, \"{}\"", line % 7),
                cents: line * 3,
            };
            let customer = order.customer.replace('"', "\"\"");
            writeln!(text, "{id},{},\"{customer}\",{}", order.region, order.cents)
                .expect("in memory");
            live.insert(id, order);
        }
        let packed = zstd::encode_all(text.as_bytes(), 1).expect("in memory");
        std::fs::write(folder.path().join(format!("{file}.csv.zst")), packed).expect("written");
    }
    let (shop, store) = (Shop::new(1), CheckpointStore::in_memory("shop"));
    let keys = in_folder(folder.path(), "*.csv.zst")
        + "\ntypes = { cents = \"integer\" }\npartitioned = true";
    let job = start(&shop, &store, 2, &keys);
    assert_eq!(catch_up(job), 1800);
    assert_eq!(shop.found(), recompute(live.values()));
    assert_eq!(catch_up(start(&shop, &store, 3, &keys)), 0);
}

/// Orders of files that are read at the same time. No order is in two files.
struct Growing {
    folder: TempDir,
    random: fastrand::Rng,
    files: usize,
    live: BTreeMap<String, Order>,
}

impl Growing {
    fn path(&self, file: usize) -> PathBuf {
        self.folder.path().join(format!("{file}.jsonl"))
    }

    /// Adds lines to a file, which may not be there yet.
    fn append(&mut self, file: usize) {
        let mut text = String::new();
        for _ in 0..self.random.usize(1..30) {
            let order = Order {
                id: format!("o{file}-{}", self.random.u8(..20)),
                region: format!("r{file}"),
                customer: format!("c{}", self.random.u8(..5)),
                cents: self.random.i64(1..1000),
            };
            writeln!(text, "{}", json!(order)).expect("in memory");
            self.live.insert(order.id.clone(), order);
        }
        let opened = File::options()
            .append(true)
            .create(true)
            .open(self.path(file));
        let written = opened.and_then(|mut file| file.write_all(text.as_bytes()));
        written.expect("written");
    }

    /// Adds lines to files that are there, and to one that is not.
    fn grow(&mut self) {
        for _ in 0..2 {
            let file = self.random.usize(..self.files + 1);
            // Those with even numbers are deleted when they have been read.
            if file % 2 == 1 {
                self.append(file);
            }
        }
        self.files += 1;
        self.append(self.files);
    }
}

/// Files appear while a job runs and while it is down, grow, and go when they were read.
#[test]
fn files_that_appear_are_read_at_the_same_time() {
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut growing = Growing {
        folder: tempfile::tempdir().expect("a folder"),
        random: random.fork(),
        files: 0,
        live: BTreeMap::new(),
    };
    let keys = in_folder(growing.folder.path(), "*.jsonl") + "\nfollow = true\npartitioned = true";
    let (shop, store) = (Shop::new(1), CheckpointStore::in_memory("shop"));
    for round in 0..4 {
        // At first there is nothing at all.
        if round > 0 {
            growing.grow();
        }
        let job = start(
            &shop,
            &store,
            random.usize(1..=3),
            &(keys.clone() + "\nrefresh_ms = 10"),
        );
        for _ in 0..3 {
            growing.grow();
            let expected = recompute(growing.live.values());
            until("the views of the orders", || shop.found() == expected);
            if growing.files.is_multiple_of(2) {
                std::fs::remove_file(growing.path(growing.files)).expect("there");
            }
        }
        match random.bool() {
            true => drop(catch_up(job)),
            false => {
                job.stop();
                job.join()
                    .unwrap_or_else(|error| panic!("{}", error.report()));
            }
        }
    }
    // Nobody looks for files within an hour, but when the end is asked for.
    let job = start(&shop, &store, 2, &(keys + "\nrefresh_ms = 3600000"));
    growing.grow();
    catch_up(job);
    assert_eq!(shop.found(), recompute(growing.live.values()));
    assert_eq!(shop.violations(), Vec::<String>::new());
}

#[test]
fn a_line_that_is_no_document_ends_the_job_with_its_place() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(
        folder.path().join("a.jsonl"),
        "{\"region\":\"r\",\"id\":\"1\"\n",
    )
    .expect("written");
    let (shop, store) = (Shop::new(1), CheckpointStore::in_memory("shop"));
    let job = start(&shop, &store, 1, &in_folder(folder.path(), "*.jsonl"));
    job.finish_when_caught_up();
    let error = job.join().expect_err("a bad line");
    assert_eq!(error.kind(), tidefeed::ErrorKind::Data);
    assert!(
        error
            .report()
            .contains("a.jsonl, line 1: it is no JSON object"),
        "{}",
        error.report()
    );
}
