//! Producers post to a job that dies again and again: what was acknowledged is in the views, and nothing else is but what may
//! have been taken without an answer.
//!
//! `TIDEFEED_SEED` is the seed of the orders and the moments, random by default and printed; `TIDEFEED_KILLS` is the number of
//! kills, 8 by default.

use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use serde_json::json;
use tidefeed::failpoint::{Failpoint, Side, Step};
use tidefeed_emulator::{FaultAction, FaultOperation, FaultRule};
use tidefeed_tests::place::{LOCAL, Place, differences};
use tidefeed_tests::process::{Run, SIGABRT, from_environment};
use tidefeed_tests::producer::{Outcome, Producer, exchange, free_address, posted_orders};
use tidefeed_tests::views::{Contents, Order, recompute};

/// A place whose orders are posted.
fn place(address: SocketAddr) -> Place {
    let place = Place::new();
    place.configure_source(&posted_orders(address), LOCAL);
    place
}

fn start(place: &Place, workers: usize, arguments: &[&str], point: Option<Failpoint>) -> Run {
    let mut program = place.program(env!("CARGO_BIN_EXE_shop"), workers);
    program.args(arguments);
    if let Some(point) = point {
        program.env("SHOP_FAILPOINT", point.to_string());
    }
    Run::start(program)
}

/// Lets a run write what is sealed, and end.
fn catch_up(place: &Place, workers: usize) -> Contents {
    let (status, lines) = start(place, workers, &["--until-caught-up"], None).end();
    assert_eq!(status.code(), Some(0), "{lines:#?}");
    place.found()
}

/// One producer sends one batch after the other until the job dies at a step. What the last one, which has no answer, became
/// depends on whether its seal was durable.
#[test]
fn a_batch_is_acknowledged_when_a_crash_cannot_lose_it() {
    let taken = [
        (Step::Attach, Side::Before, Some(false)),
        (Step::Attach, Side::After, None),
        (Step::SealPut, Side::Before, Some(false)),
        (Step::SealPut, Side::After, Some(true)),
        (Step::CapabilityDrop, Side::Before, None),
    ];
    for (step, side, taken) in taken {
        let address = free_address();
        let place = place(address);
        // Epochs come also while nothing does; seals come for something.
        let time = if step == Step::SealPut { 5 } else { 40 };
        let point = Failpoint { step, side, time };
        let mut run = start(&place, 2, &[], Some(point));
        let mut orders: Vec<Order> = Vec::new();
        // Until it listens.
        run.wait_until(|| exchange(address, "POST", "").is_ok_and(|answer| answer.status == 200));
        let unanswered = loop {
            let order = Order {
                id: format!("o{}", orders.len()),
                region: "r".to_owned(),
                customer: "c".to_owned(),
                cents: 1,
            };
            match exchange(address, "POST", &json!(order).to_string()) {
                Ok(answer) => assert_eq!(answer.status, 200, "{point}"),
                Err(_) => break order,
            }
            orders.push(order);
            assert!(orders.len() < 1000, "{point} is never met");
        };
        let (status, lines) = run.end();
        assert_eq!(status.signal(), Some(SIGABRT), "{point}: {lines:#?}");
        let found = catch_up(&place, 3);
        let without = recompute(&orders);
        orders.push(unanswered);
        let with = recompute(&orders);
        match taken {
            Some(false) => assert_eq!(
                differences(&found, &without),
                Vec::<String>::new(),
                "{point}"
            ),
            Some(true) => assert_eq!(differences(&found, &with), Vec::<String>::new(), "{point}"),
            None => assert!(found == without || found == with, "{point}: {found:#?}"),
        }
    }
}

/// What sends, and how much of it was acknowledged, and how much refused.
struct Sending {
    address: SocketAddr,
    producers: Vec<Mutex<Producer>>,
    acknowledged: AtomicU64,
    refused: AtomicU64,
}

/// Pause between two requests of a producer.
const PAUSE: Duration = Duration::from_millis(2);

impl Sending {
    /// To an address, from a producer for each of these regions.
    fn new(
        address: SocketAddr,
        regions: impl Iterator<Item = String>,
        random: &mut fastrand::Rng,
    ) -> Self {
        let producer = |region: String| Mutex::new(Producer::new(&region, random.u64(..)));
        Sending {
            address,
            producers: regions.map(producer).collect(),
            acknowledged: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Starts a thread for each producer, which ends when it is told to and has its answer.
    fn start<'scope>(&'scope self, threads: &'scope Scope<'scope, '_>) -> Senders<'scope> {
        let start = |producer: &'scope Mutex<Producer>| {
            let (stop, end) = channel();
            (stop, threads.spawn(move || self.run(producer, &end)))
        };
        let (stops, threads) = self.producers.iter().map(start).unzip();
        Senders { stops, threads }
    }

    /// Sends until the other end of the channel is gone, and then until nothing is pending.
    fn run(&self, producer: &Mutex<Producer>, end: &Receiver<()>) {
        loop {
            let mut producer = producer.lock().expect("no panic in between");
            let outcome = producer.send(self.address);
            // Whoever compares is waiting for it.
            drop(producer);
            let counted = match outcome {
                Outcome::Acknowledged => Some(&self.acknowledged),
                Outcome::Refused => Some(&self.refused),
                Outcome::Unknown => None,
            };
            if let Some(counted) = counted {
                counted.fetch_add(1, Ordering::Relaxed);
            }
            let waited = end.recv_timeout(PAUSE);
            if outcome == Outcome::Acknowledged && waited != Err(RecvTimeoutError::Timeout) {
                return;
            }
        }
    }

    /// Compares while nobody sends and no job runs. Returns how many batches are pending, and how many of them were taken.
    fn verify(&self, place: &Place, workers: usize, when: &str) -> (usize, usize) {
        let producers: Vec<_> = self
            .producers
            .iter()
            .map(|producer| producer.lock().expect("no panic in between"))
            .collect();
        let found = catch_up(place, workers);
        let possible: Vec<_> = producers
            .iter()
            .map(|producer| producer.possible())
            .collect();
        let pending = possible
            .iter()
            .filter(|possible| possible.len() > 1)
            .count();
        let mut nearest: Option<Vec<String>> = None;
        for choice in 0..1usize << producers.len() {
            let chosen = possible.iter().enumerate().map(|(at, possible)| {
                // Of a producer without a pending batch there is one set of orders.
                &possible[(choice >> at & 1).min(possible.len() - 1)]
            });
            let orders: Vec<&Order> = chosen.flatten().collect();
            let different = differences(&found, &recompute(orders));
            if different.is_empty() {
                return (pending, choice.count_ones() as usize);
            }
            if nearest
                .as_ref()
                .is_none_or(|nearest| different.len() < nearest.len())
            {
                nearest = Some(different);
            }
        }
        panic!("{when}: {nearest:#?}");
    }
}

/// The threads of producers.
struct Senders<'scope> {
    stops: Vec<Sender<()>>,
    threads: Vec<ScopedJoinHandle<'scope, ()>>,
}

impl Senders<'_> {
    /// Ends them over a job that lives, so that each has its answer.
    fn end(self, run: &mut Run) {
        drop(self.stops);
        let ended = || self.threads.iter().all(ScopedJoinHandle::is_finished);
        assert!(run.wait_until(ended), "the job ended by itself");
    }
}

#[test]
fn acknowledged_batches_survive_any_kill() {
    let seed = from_environment("TIDEFEED_SEED").unwrap_or_else(|| fastrand::u64(..));
    let kills = from_environment("TIDEFEED_KILLS").unwrap_or(8);
    eprintln!("TIDEFEED_SEED={seed} TIDEFEED_KILLS={kills}");
    let mut random = fastrand::Rng::with_seed(seed);
    let address = free_address();
    let place = place(address);
    let regions = (0..3).map(|number| format!("r{number}"));
    let sending = Sending::new(address, regions, &mut random);
    let (mut pending, mut taken) = (0, 0);
    std::thread::scope(|threads| {
        let senders = sending.start(threads);
        for kill in 0..kills {
            let workers = random.usize(1..=3);
            match random.bool() {
                true => {
                    let steps = [
                        Step::Attach,
                        Step::SealPut,
                        Step::CapabilityDrop,
                        Step::SinkWrite,
                        Step::CommitPut,
                    ];
                    let point = Failpoint {
                        step: steps[random.usize(..steps.len())],
                        side: Side::BOTH[random.usize(..2)],
                        time: random.u64(1..20),
                    };
                    let (status, lines) = start(&place, workers, &[], Some(point)).end();
                    assert_eq!(status.signal(), Some(SIGABRT), "{point}: {lines:#?}");
                }
                false => {
                    let mut run = start(&place, workers, &[], None);
                    let enough = sending.acknowledged() + random.u64(1..200);
                    assert!(
                        run.wait_until(|| sending.acknowledged() >= enough),
                        "kill {kill}: it ended by itself"
                    );
                    run.kill();
                }
            }
            let (more_pending, more_taken) =
                sending.verify(&place, random.usize(1..=3), &format!("after kill {kill}"));
            (pending, taken) = (pending + more_pending, taken + more_taken);
        }
        // With a job that lives, every producer has its answer.
        let mut run = start(&place, 2, &[], None);
        let enough = sending.acknowledged() + 20;
        run.wait_until(|| sending.acknowledged() >= enough);
        senders.end(&mut run);
        run.kill();
    });
    let last = sending.verify(&place, 1, "at the end");
    assert_eq!(last.0, 0, "nothing is pending");
    eprintln!(
        "{} batches acknowledged; of {pending} pending ones {taken} were taken",
        sending.acknowledged()
    );
}

/// Refusals that are awaited each time that a sink stands still, and how long; there are none where all batches happen to be small.
const REFUSALS: u64 = 50;
const REFUSED_WITHIN: Duration = Duration::from_secs(5);
/// More than batches that may wait to be durable, which are about three.
const PRODUCERS: usize = 8;

/// A sink stands still, so epochs do, and what is posted is not sealed: producers are told to come again, and lose nothing by it,
/// whether the job then goes on or dies.
#[test]
fn producers_are_told_to_wait_while_a_sink_stands_still() {
    let seed = from_environment("TIDEFEED_SEED").unwrap_or_else(|| fastrand::u64(..));
    eprintln!("TIDEFEED_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let address = free_address();
    let place = Place::new();
    let bounds = "max_body_bytes = 3072\nmax_unsealed_bytes = 3072\n";
    place.configure_source(&(posted_orders(address) + bounds), LOCAL);
    // Long names make batches of some size.
    let regions = (0..PRODUCERS).map(|number| format!("r{number}{}", "-".repeat(250)));
    let sending = Sending::new(address, regions, &mut random);
    std::thread::scope(|threads| {
        let senders = sending.start(threads);
        let mut run = start(&place, 2, &[], None);
        for dies in [false, true, false, true] {
            let flowing = sending.acknowledged() + 100;
            let flows = run.wait_until(|| sending.acknowledged() >= flowing);
            assert!(flows, "it ended by itself");
            let frozen = FaultRule::new(FaultAction::Freeze)
                .on(&[FaultOperation::Writes])
                .in_container(place.database(), "totals");
            let set = place.server().set_faults(1, vec![frozen]);
            set.expect("a valid rule");
            let refusals = sending.refused() + REFUSALS;
            let frozen = Instant::now();
            run.wait_until(|| {
                let refused = sending.refused() >= refusals;
                let stands = place.server().fault_hits()[0] > 0;
                stands && (refused || frozen.elapsed() > REFUSED_WITHIN)
            });
            if dies {
                run.kill();
                // What it had on the wire is carried out now, and not when another run writes.
                place.server().clear_faults();
                sending.verify(&place, random.usize(1..=3), "after a kill");
                run = start(&place, 2, &[], None);
            } else {
                place.server().clear_faults();
            }
        }
        senders.end(&mut run);
        run.kill();
    });
    let (pending, _) = sending.verify(&place, 1, "at the end");
    assert_eq!(pending, 0, "every producer has its answer");
    assert!(sending.refused() >= REFUSALS, "nobody had to wait");
}
