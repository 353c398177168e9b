//! Windows that are final: each result once, what comes later beside it, through failures, restarts and kills.

use std::collections::BTreeMap;

use serde_json::Value;
use tidefeed::config::JobConfig;
use tidefeed::{CheckpointStore, ErrorKind, Job, JobStatus, Result, RunningJob};
use tidefeed_tests::billed::{
    Bill, billed, billed_in, bills, event_time, ticks, ticks_in, with_late,
};
use tidefeed_tests::{Order, Shop, config_text, until};

fn order(id: &str, at_ms: u64) -> Order {
    order_of(id, "anna", at_ms)
}

fn order_of(id: &str, customer: &str, at_ms: u64) -> Order {
    Order {
        id: id.to_owned(),
        region: format!("r{}", id.len() % 3),
        customer: customer.to_owned(),
        cents: at_ms as i64,
    }
}

/// One in each feed range, however they are split: at most [`MAX_SPLITS`] times here.
const REGIONS: u32 = 512;
const MAX_SPLITS: usize = 3;

fn tick(shop: &Shop, at_ms: u64) {
    ticks_in(REGIONS, at_ms).for_each(|order| shop.put(&order));
}

fn start(shop: &Shop, store: &CheckpointStore, workers: usize, time: &str) -> Result<RunningJob> {
    let text = config_text("shop", "settle_ms = 0");
    let text = text.replacen("[source.orders]\n", &format!("[source.orders]\n{time}"), 1);
    let config = JobConfig::parse(&format!("workers = {workers}\n{text}")).expect("valid");
    Job::new("shop", config, shop.clone(), billed)
        .checkpoint_store(store.clone())
        .start()
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

fn results(shop: &Shop) -> BTreeMap<String, Bill> {
    billed_in(&rows_of(shop, "totals"))
}

/// Late orders by id, each with how often.
fn late(shop: &Shop) -> BTreeMap<String, i64> {
    let row = |row: Value| {
        let id = row["id"].as_str().expect("a text").to_owned();
        (id, row["times"].as_i64().expect("a number"))
    };
    rows_of(shop, "spent").into_iter().map(row).collect()
}

fn are_late(shop: &Shop, expected: &[(&str, i64)]) -> bool {
    let expected = expected
        .iter()
        .map(|(id, times)| ((*id).to_owned(), *times));
    late(shop) == expected.collect()
}

const NEVER_IDLE: u64 = 600_000;

#[test]
fn a_result_is_given_once_and_what_comes_later_is_late() {
    for workers in [1, 3] {
        let (shop, store) = (Shop::new(1), CheckpointStore::in_memory("shop"));
        let time = event_time(0, NEVER_IDLE);
        let run = |workers| start(&shop, &store, workers, &time).expect("starts");
        let job = run(workers);
        let first = [order("x1", 1_010), order("x2", 1_050)];
        first.iter().for_each(|order| shop.put(order));
        tick(&shop, 1_099);
        until("watermark", || {
            job.status()
                .watermarks
                .get("orders")
                .is_some_and(|at| at.at_ms == 1_099)
        });
        shop.put(&order("x3", 1_150));
        end(job);
        assert!(results(&shop).is_empty(), "the window is open");
        // With another number of workers.
        let job = run(4 - workers);
        tick(&shop, 1_100);
        let result = bills(&first);
        until("result", || results(&shop) == result);
        shop.put(&order("late", 1_020));
        until("late order", || are_late(&shop, &[("late 1020 1", 1)]));
        shop.delete("r2", "x1");
        let both = [("late 1020 1", 1), ("x1 1010 -1", -1)];
        until("late delete", || are_late(&shop, &both));
        let before = end(job);
        assert!(before.watermarks["orders"].lag.as_secs() > 3_600);
        assert_eq!(results(&shop), result, "it does not change");
        assert_eq!(shop.views["totals"].writes(), 1, "and is written once");
        let writes = || shop.views.values().map(|view| view.writes()).sum::<u64>();
        let written = writes();
        let nothing = end(run(workers));
        assert_eq!(writes(), written, "nothing is left to do");
        assert_eq!(nothing.epochs.sealed, 0, "nor to seal");
        // What was late may go, and what counts in the result may change: both are late.
        let job = run(4 - workers);
        shop.delete("r1", "late");
        shop.put(&order("x2", 1_060));
        let changed = [("x1 1010 -1", -1), ("x2 1050 -1", -1), ("x2 1060 1", 1)];
        until("late change", || are_late(&shop, &changed));
        tick(&shop, 1_200);
        until("second result", || results(&shop).len() == 2);
        end(job);
        assert_eq!(results(&shop)["anna 1000"], result["anna 1000"]);
        assert_eq!(results(&shop)["anna 1100"].orders, 1);
        let now = [order("x2", 1_060), order("x3", 1_150)];
        let all = with_late(results(&shop), &rows_of(&shop, "spent"));
        assert_eq!(all, bills(&now));
        assert_eq!(shop.violations(), Vec::<String>::new());
    }
}

/// Only one range has orders. The others hold the watermark until they count as idle, and a run that comes after remembers.
#[test]
fn ranges_without_anything_hold_the_watermark_until_they_are_idle() {
    let (shop, store) = (Shop::new(1), CheckpointStore::in_memory("shop"));
    let put = |id, at_ms| shop.put(&order(id, at_ms));
    put("x1", 1_010);
    put("x2", 1_310);
    end(start(&shop, &store, 2, &event_time(0, NEVER_IDLE)).expect("starts"));
    let job = start(&shop, &store, 2, &event_time(0, NEVER_IDLE)).expect("starts");
    put("x3", 1_320);
    until("both read", || job.status().changes_read == 1);
    let status = end(job);
    assert!(
        results(&shop).is_empty(),
        "the others may still bring something"
    );
    assert!(status.watermarks.is_empty());
    let job = start(&shop, &store, 2, &event_time(0, 30)).expect("starts");
    until("result", || results(&shop).len() == 1);
    let idle = |job: &RunningJob| {
        let ranges = job.status().ranges.remove("orders").expect("ranges");
        let marks = ranges.into_values().filter_map(|range| range.event_time);
        marks.filter(|mark| mark.idle).count()
    };
    until("idle ranges", || idle(&job) == 4);
    end(job);
    // All are idle: it stands where the fastest does.
    let job = start(&shop, &store, 3, &event_time(0, NEVER_IDLE)).expect("starts");
    until("watermark", || {
        job.status().watermarks.contains_key("orders")
    });
    assert_eq!(job.status().watermarks["orders"].at_ms, 1_320);
    assert_eq!(end(job).watermarks["orders"].without_event_time, 0);
}

#[test]
fn a_watermark_needs_a_source_whose_event_time_is_read() {
    let (shop, store) = (Shop::new(1), CheckpointStore::in_memory("shop"));
    let refused = start(&shop, &store, 1, "").err().expect("refused");
    assert_eq!(refused.kind(), ErrorKind::Config);
    assert!(
        refused.report().contains("source.orders.event_time"),
        "{}",
        refused.report()
    );
}

/// Runs end at random moments and in every way while ranges split, and the next one has another number of workers. Whenever anybody
/// looks, a result that was there is still there and the same; and at the end results and late orders are all orders. Where orders are
/// never out of order by more than the watermark waits for, none is late.
#[test]
fn results_never_change_through_any_number_of_failed_runs() {
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    for round in 0..8 {
        let mut random = fastrand::Rng::with_seed(seed ^ round);
        let (shop, store) = (Shop::new(round), CheckpointStore::in_memory("shop"));
        const JITTER_MS: u64 = 150;
        let time = event_time(if round % 2 == 0 { JITTER_MS } else { 0 }, NEVER_IDLE);
        let run = |workers| {
            // An injected failure may have been left over for the start.
            let first = start(&shop, &store, workers, &time);
            first
                .or_else(|_| start(&shop, &store, workers, &time))
                .expect("starts")
        };
        let (mut orders, mut seen) = (Vec::new(), BTreeMap::new());
        let mut look = || {
            let now = results(&shop);
            for (id, bill) in &seen {
                assert_eq!(now.get(id), Some(bill), "round {round}: {id} has changed");
            }
            seen = now;
        };
        let (mut now_ms, mut splits) = (1_000, 0);
        for life in 0..8 {
            let job = run(random.usize(1..=3));
            for _ in 0..random.u8(1..4) {
                for _ in 0..random.u8(..30) {
                    let at_ms = now_ms + random.u64(..=JITTER_MS);
                    let customer = format!("c{}", random.u8(..4));
                    let order = Order {
                        region: format!("r{}", random.u8(..20)),
                        ..order_of(&format!("o{}", orders.len()), &customer, at_ms)
                    };
                    shop.put(&order);
                    orders.push(order);
                }
                now_ms += random.u64(..120);
                tick(&shop, now_ms);
                look();
            }
            let (enough, splits_now) = (REGIONS as usize + 6, random.u8(..4) == 0);
            if splits_now && splits < MAX_SPLITS && shop.orders.contents().len() > enough {
                shop.orders.split(random.usize(..4));
                splits += 1;
            }
            match random.u8(..4) {
                0 => shop.orders.fail_next_page(ErrorKind::Unreachable),
                1 => shop.views["totals"].fail_next_batch(ErrorKind::Rejected),
                2 => job.stop(),
                _ => job.finish_when_caught_up(),
            }
            if random.bool() && life < 7 {
                // Whatever it has come to by now, or as soon as it is told.
                job.stop();
            }
            job.finish_when_caught_up();
            if let Err(error) = job.join() {
                let injected = [ErrorKind::Unreachable, ErrorKind::Rejected];
                assert!(injected.contains(&error.kind()), "{}", error.report());
            }
            look();
        }
        tick(&shop, now_ms + 10_000);
        // Each may meet one of the failures that are left.
        let ended = (0..12).any(|_| {
            let job = run(2);
            job.finish_when_caught_up();
            job.join().is_ok()
        });
        assert!(ended, "round {round}");
        if round % 2 == 1 {
            let late = order_of("late", "c0", 1_000);
            shop.put(&late);
            orders.push(late);
        }
        end(run(3));
        look();
        let late = rows_of(&shop, "spent");
        let all = with_late(results(&shop), &late);
        assert_eq!(all, bills(&orders), "round {round}");
        match round % 2 {
            0 => assert_eq!(late, Vec::<Value>::new(), "round {round}"),
            _ => assert!(!late.is_empty(), "round {round}"),
        }
        assert_eq!(shop.violations(), Vec::<String>::new());
    }
}

/// Killed at any moment, a job comes to the results of one that ran once and to its end, and writes nothing when it is started again.
#[cfg(unix)]
#[test]
fn killed_again_and_again_it_comes_to_what_an_uninterrupted_run_comes_to() {
    use std::os::unix::process::ExitStatusExt;
    use std::time::Duration;
    use tidefeed_tests::checkpoint_files::CheckpointFiles;
    use tidefeed_tests::place::{LOCAL, Place};
    use tidefeed_tests::process::{Run, SIGKILL, from_environment};
    use tidefeed_tests::views::OrderDocument;

    let seed = from_environment("TIDEFEED_SEED").unwrap_or_else(|| fastrand::u64(..));
    let kills = from_environment("TIDEFEED_KILLS").unwrap_or(12);
    eprintln!("TIDEFEED_SEED={seed} TIDEFEED_KILLS={kills}");
    let mut random = fastrand::Rng::with_seed(seed);
    const JITTER_MS: u64 = 150;
    let place = Place::new();
    let calm = Place::within(place.server(), "calm", LOCAL);
    for place in [&place, &calm] {
        place.configure_orders(&event_time(JITTER_MS, NEVER_IDLE));
    }
    let run = |place: &Place, workers, arguments: &[&str]| {
        let mut program = place.program(env!("CARGO_BIN_EXE_shop"), workers);
        program.args(arguments).env("SHOP_CODE", "billed");
        Run::start(program)
    };
    let mut orders: Vec<Order> = Vec::new();
    let document = |order: &Order| OrderDocument {
        order: order.clone(),
        deleted: false,
    };
    let write = |orders: &[Order]| {
        for place in [&place, &calm] {
            place.write(orders.iter().map(document).collect());
        }
    };
    let mut now_ms = 1_000;
    let mut more = |random: &mut fastrand::Rng, orders: &mut Vec<Order>| {
        let begin = orders.len();
        for number in begin..begin + 20 {
            let at_ms = now_ms + random.u64(..=JITTER_MS);
            let customer = format!("c{}", random.u8(..4));
            let order = Order {
                region: format!("r{}", random.u8(..20)),
                ..order_of(&format!("o{number}"), &customer, at_ms)
            };
            orders.push(order);
        }
        write(&orders[begin..]);
        now_ms += random.u64(..200);
        write(&ticks(now_ms).collect::<Vec<_>>());
        now_ms
    };
    let folder = place.checkpoint();
    let mut early = 0;
    for kill in 0..kills {
        let mut job = run(&place, random.usize(1..=3), &[]);
        let before = CheckpointFiles::of(&folder).commit;
        for burst in 0..3 {
            more(&mut random, &mut orders);
            if burst == 0 {
                job.wait_until(|| CheckpointFiles::of(&folder).commit != before);
            }
            job.wait_for(Duration::from_millis(random.u64(..200)));
        }
        let (status, lines) = job.kill();
        assert_eq!(status.signal(), Some(SIGKILL), "kill {kill}: {lines:#?}");
        assert_eq!(lines, Vec::<String>::new(), "kill {kill}");
        early += place.contents("totals").len();
    }
    assert!(early > 0, "no window was final before the end");
    // The marks of all ranges follow to clusters, from one to the next.
    let mut end_ms = 0;
    for processes in ["2", "3"] {
        end_ms = more(&mut random, &mut orders);
        let arguments = ["--processes", processes, "--until-caught-up"];
        let (status, lines) = run(&place, 1, &arguments).end();
        assert_eq!(status.code(), Some(0), "{processes}: {lines:#?}");
    }
    write(&ticks(end_ms + 10_000).collect::<Vec<_>>());
    let mut tags = Vec::new();
    for (what, of, workers) in [
        ("killed", &place, 2),
        ("again", &place, 3),
        ("calm", &calm, 1),
    ] {
        let (status, lines) = run(of, workers, &["--until-caught-up"]).end();
        assert_eq!(status.code(), Some(0), "{what}: {lines:#?}");
        let results = of.contents("totals");
        assert_eq!(billed_in(results.values()), bills(&orders), "{what}");
        assert!(of.contents("spent").is_empty(), "{what}");
        let etags = results.values().map(|row| row["_etag"].clone());
        tags.push(etags.collect::<Vec<_>>());
    }
    assert_eq!(tags[0], tags[1], "nothing was left to write");
}

/// The service says when it wrote a document, in a property that is taken off unless somebody asks for it.
#[cfg(unix)]
#[test]
fn event_time_may_be_when_the_service_wrote_a_document() {
    use tidefeed_tests::place::Place;
    use tidefeed_tests::process::Run;
    use tidefeed_tests::views::OrderDocument;

    let place = Place::new();
    place.configure_orders("event_time = { path = \"/_ts\", out_of_orderness_ms = 0 }\n");
    let orders: Vec<Order> = (0..20)
        .map(|number| order_of(&format!("o{number}"), "anna", 1_000 + number * 20))
        .collect();
    let document = |order: &Order| OrderDocument {
        order: order.clone(),
        deleted: false,
    };
    place.write(orders.iter().map(document).collect());
    // Something in every feed range.
    place.write(ticks(1_000).map(|order| document(&order)).collect());
    let mut program = place.program(env!("CARGO_BIN_EXE_shop"), 1);
    program.arg("--until-caught-up").env("SHOP_CODE", "billed");
    let (status, lines) = Run::start(program).end();
    assert_eq!(status.code(), Some(0), "{lines:#?}");
    let results = billed_in(place.contents("totals").values());
    assert!(!results.is_empty(), "no watermark came");
    let late = place.contents("spent");
    assert_eq!(with_late(results, late.values()), bills(&orders));
}
