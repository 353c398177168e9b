//! Rows that come and go by time: by themselves while nothing is read, after a time down, and once whatever kills the job.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tidefeed::{CheckpointStore, ErrorKind, Job, JobStatus, RunningJob};
use tidefeed_tests::expiring::{LIFE_MS, expiring, kept, kept_counts};
use tidefeed_tests::{Order, Shop, config, until};

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("after 1970").as_millis() as u64
}

fn order(id: &str, customer: &str, from_ms: u64) -> Order {
    Order {
        id: id.to_owned(),
        region: "r".to_owned(),
        customer: customer.to_owned(),
        cents: from_ms as i64,
    }
}

fn start(shop: &Shop, store: &CheckpointStore, workers: usize) -> RunningJob {
    Job::new("shop", config(workers), shop.clone(), expiring)
        .checkpoint_store(store.clone())
        .start()
        .expect("starts")
}

fn end(job: RunningJob) -> JobStatus {
    job.finish_when_caught_up();
    job.join().expect("ends well")
}

fn rows_of(shop: &Shop, sink: &str) -> Vec<Value> {
    let contents = shop.views[sink].contents();
    let row = |body: &[u8]| serde_json::from_slice(body).expect("JSON");
    contents.values().map(|body| row(body)).collect()
}

/// The ids of the orders that are there.
fn there(shop: &Shop) -> BTreeSet<String> {
    let id = |row: Value| row["id"].as_str().expect("an id").to_owned();
    rows_of(shop, "large").into_iter().map(id).collect()
}

fn are_there(shop: &Shop, ids: &[&str]) -> bool {
    there(shop) == ids.iter().map(|id| (*id).to_owned()).collect()
}

/// The counts of a sink, without the zeros.
fn counts(rows: impl IntoIterator<Item = Value>) -> BTreeMap<String, i64> {
    let count = |row: Value| {
        let id = row["id"].as_str().expect("an id").to_owned();
        (id, row["cents"].as_i64().expect("a number"))
    };
    let counts = rows.into_iter().map(count);
    counts.filter(|(_, count)| *count != 0).collect()
}

fn counts_in(shop: &Shop, sink: &str) -> BTreeMap<String, i64> {
    counts(rows_of(shop, sink))
}

#[test]
fn rows_come_and_go_by_themselves_in_an_idle_job() {
    for workers in [1, 3] {
        let (shop, store) = (Shop::new(1), CheckpointStore::in_memory("shop"));
        let job = start(&shop, &store, workers);
        // Long enough from now for the slowest machine to see it come.
        let begin = now_ms() + 1_000;
        shop.put(&order("now", "keeper", 0));
        shop.put(&order("gone", "c", 0));
        shop.put(&order("comes", "keeper", begin));
        shop.put(&order("passes", "c", begin));
        until("first row", || are_there(&shop, &["now"]));
        // Nothing is read from here on. A batch is visible in part, so a row has gone when it was written a second time.
        let writes = |id: &str| shop.views["large"].writes_of(&format!(r#"["r","{id}"]"#));
        until("row that comes", || writes("comes") == 1);
        assert!(now_ms() >= begin, "it came too soon");
        until("end of the other", || writes("passes") == 2);
        assert!(now_ms() >= begin + LIFE_MS, "it went too soon");
        end(job);
        assert!(are_there(&shop, &["comes", "now"]), "{:?}", there(&shop));
        let two = BTreeMap::from([("keeper".to_owned(), 2)]);
        assert_eq!(counts_in(&shop, "spent"), two);
        let came = counts_in(&shop, "paid");
        assert_eq!(came["keeper"], 2, "each once");
        assert_eq!(shop.violations(), Vec::<String>::new());
    }
}

#[test]
fn what_falls_due_while_a_job_is_down_comes_when_it_starts_again() {
    let (shop, store) = (Shop::new(1), CheckpointStore::in_memory("shop"));
    let begin = now_ms() + 600;
    let job = start(&shop, &store, 2);
    shop.put(&order("now", "keeper", 0));
    shop.put(&order("comes", "keeper", begin));
    shop.put(&order("passes", "c", begin));
    until("first row", || there(&shop).contains("now"));
    end(job);
    until("time to pass", || now_ms() > begin + LIFE_MS);
    assert!(are_there(&shop, &["now"]), "the job is down");
    // With another number of workers, and nothing to read.
    end(start(&shop, &store, 3));
    assert!(are_there(&shop, &["comes", "now"]), "{:?}", there(&shop));
    assert_eq!(counts_in(&shop, "paid")["keeper"], 2);
    let writes = || shop.views.values().map(|view| view.writes()).sum::<u64>();
    let before = writes();
    let status = end(start(&shop, &store, 1));
    assert_eq!(writes(), before, "nothing more falls due");
    assert_eq!(status.epochs.sealed, 0, "so there is nothing to replay");
}

/// Rows come by time in an epoch in which nothing was read; a part of them is written, and the run fails. Before the next run they
/// are deleted in the source. Unless that epoch is replayed, nobody knows that they are in the container.
#[test]
fn what_time_brought_to_a_failed_run_is_taken_back() {
    let mut written = 0;
    for seed in 0..6 {
        let (shop, store) = (Shop::new(seed), CheckpointStore::in_memory("shop"));
        let begin = now_ms() + 500;
        let ids: Vec<String> = (0..8).map(|number| format!("o{number}")).collect();
        ids.iter()
            .for_each(|id| shop.put(&order(id, "keeper", begin)));
        shop.put(&order("now", "keeper", 0));
        let job = start(&shop, &store, 1 + seed as usize % 3);
        until("first row", || there(&shop).contains("now"));
        until("an idle job", || counts_in(&shop, "spent").len() == 1);
        shop.views["large"].fail_next_batch(ErrorKind::Rejected);
        let error = job.join().expect_err("the batch fails");
        assert_eq!(error.kind(), ErrorKind::Rejected);
        written += there(&shop).len() - 1;
        ids.iter().for_each(|id| shop.delete("r", id));
        end(start(&shop, &store, 1 + (seed as usize + 1) % 3));
        assert!(
            are_there(&shop, &["now"]),
            "seed {seed}: {:?}",
            there(&shop)
        );
        let one = BTreeMap::from([("keeper".to_owned(), 1)]);
        assert_eq!(counts_in(&shop, "spent"), one, "seed {seed}");
    }
    assert!(written > 0, "no failed batch wrote anything");
}

/// Killed at any moment, most of what falls due does so in epochs in which nothing is read. Sums by patches must be exact, and
/// each keeper's orders must have come once.
#[cfg(unix)]
#[test]
fn killed_again_and_again_everything_falls_due_once() {
    use std::os::unix::process::ExitStatusExt;
    use tidefeed_tests::checkpoint_files::CheckpointFiles;
    use tidefeed_tests::place::Place;
    use tidefeed_tests::process::{Run, SIGKILL, from_environment};
    use tidefeed_tests::views::OrderDocument;

    let seed = from_environment("TIDEFEED_SEED").unwrap_or_else(|| fastrand::u64(..));
    let kills = from_environment("TIDEFEED_KILLS").unwrap_or(12);
    eprintln!("TIDEFEED_SEED={seed} TIDEFEED_KILLS={kills}");
    let mut random = fastrand::Rng::with_seed(seed);
    let place = Place::new();
    let mut orders: Vec<Order> = Vec::new();
    let run = |workers, arguments: &[&str]| {
        let mut program = place.program(env!("CARGO_BIN_EXE_shop"), workers);
        program.args(arguments).env("SHOP_CODE", "expiring");
        Run::start(program)
    };
    let folder = place.checkpoint();
    for kill in 0..kills {
        let mut random = random.fork();
        let mut job = run(random.usize(1..=3), &[]);
        let before = CheckpointFiles::of(&folder).commit;
        for burst in 0..3 {
            let begin = orders.len();
            for number in begin..begin + 20 {
                let customer = match random.bool() {
                    true => format!("keeper{}", random.u8(..5)),
                    false => format!("c{}", random.u8(..5)),
                };
                let from_ms = now_ms() + random.u64(..900);
                let order = order(&format!("o{number}"), &customer, from_ms);
                orders.push(order);
            }
            let document = |order: &Order| OrderDocument {
                order: order.clone(),
                deleted: false,
            };
            place.write(orders[begin..].iter().map(document).collect());
            if burst == 0 {
                job.wait_until(|| CheckpointFiles::of(&folder).commit != before);
            }
            job.wait_for(Duration::from_millis(random.u64(..300)));
        }
        let (status, lines) = job.kill();
        assert_eq!(status.signal(), Some(SIGKILL), "kill {kill}: {lines:#?}");
        assert_eq!(lines, Vec::<String>::new(), "kill {kill}");
    }
    let last = now_ms() + 900 + LIFE_MS;
    until("everything to fall due", || now_ms() > last);
    for nothing_left in [false, true] {
        let (status, lines) = run(2, &["--until-caught-up"]).end();
        assert_eq!(status.code(), Some(0), "{lines:#?}");
        let what = format!("nothing left to do: {nothing_left}");
        let without_system_properties = |row: Value| {
            let mut row = row;
            if let Some(row) = row.as_object_mut() {
                row.retain(|name, _| !name.starts_with('_'));
            }
            row
        };
        let found = place.contents("large").into_iter();
        let found: BTreeMap<_, _> = found
            .map(|(key, row)| (key, without_system_properties(row)))
            .collect();
        assert_eq!(found, kept(&orders), "{what}");
        let counts_of = |sink| counts(place.contents(sink).into_values());
        assert_eq!(counts_of("spent"), kept_counts(&orders), "{what}");
        let mut came = counts_of("paid");
        came.retain(|customer, _| customer.starts_with("keeper"));
        assert_eq!(came, kept_counts(&orders), "{what}");
    }
}
