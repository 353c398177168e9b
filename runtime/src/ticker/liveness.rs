//! Random worlds around the ticker: whatever waits is attached, within a time that can be said.
//!
//! A world has readers with pages to read, room for some bytes of them, and a seal and sinks that take their time. Nothing
//! else than the ticker makes epochs, and only epochs make room. Time jumps from one thing that happens to the next, so a
//! world that stands still is noticed at once.
//!
//! `TIDEFEED_SEED=17` lives one life again.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Decision, EpochConfig, Observed, Ticker};
use crate::Epoch;

const SEEDS: u64 = 2000;

fn config(random: &mut fastrand::Rng) -> EpochConfig {
    let max_ms = random.u64(1..2000);
    let min_ms = random.u64(0..=max_ms.min(20));
    let max_in_flight_bytes = random.u64(1 << 20..8 << 20);
    let load_bytes = random.u64(64 << 10..=max_in_flight_bytes);
    let max_waiting_bytes = (1 << 20).max(load_bytes * random.u64(1..3));
    let config = EpochConfig {
        min_ms,
        max_ms,
        max_in_flight: random.usize(1..6),
        max_in_flight_bytes,
        max_bytes_per_worker: random.u64(64 << 10..4 << 20),
        max_waiting_bytes,
        load_bytes,
        load_ms: random.u64(min_ms..3000),
    };
    config.validate().expect("a configuration that is allowed");
    config
}

/// A page with the time at which it can be read, and its bytes.
type Page = (u64, u64);

struct World {
    config: EpochConfig,
    ticker: Ticker,
    now: u64,
    wall: u64,
    /// What each range has left to read; the first load is over when all are empty.
    ranges: Vec<VecDeque<Page>>,
    /// Pages in the readers' hands, in the order in which they ask for room.
    wanting: VecDeque<(usize, u64)>,
    inbox: VecDeque<u64>,
    /// When each epoch that is not sealed will be, in order.
    unsealed: VecDeque<u64>,
    in_flight: VecDeque<(u64, u64)>,
    minted: Vec<(u64, Epoch, Observed)>,
}

impl World {
    fn new(random: &mut fastrand::Rng) -> World {
        let config = config(random);
        let largest = random.u64(1..2 * config.max_waiting_bytes);
        let pause = random.u64(1..3000);
        let pages = |random: &mut fastrand::Rng| {
            let mut at = 0;
            let count = random.usize(0..60);
            let page = |_| {
                at += random.u64(0..pause) * u64::from(random.u8(0..3) == 0);
                let small = random.u8(0..10) > 0;
                (
                    at,
                    random.u64(0..if small { largest.min(100_000) } else { largest }),
                )
            };
            (0..count).map(page).collect()
        };
        World {
            ticker: Ticker::new(&config, Epoch(50)),
            config,
            now: 0,
            wall: 0,
            ranges: (0..random.usize(1..6)).map(|_| pages(random)).collect(),
            wanting: VecDeque::new(),
            inbox: VecDeque::new(),
            unsealed: VecDeque::new(),
            in_flight: VecDeque::new(),
            minted: Vec::new(),
        }
    }

    /// Readers read what there is, and hand over what there is room for, in turn.
    fn read(&mut self) {
        loop {
            for (at, range) in self.ranges.iter_mut().enumerate() {
                let asks = self.wanting.iter().any(|(reader, _)| *reader == at);
                if !asks && let Some((_, bytes)) = range.pop_front_if(|(due, _)| *due <= self.now) {
                    self.wanting.push_back((at, bytes));
                }
            }
            let held: u64 = self.inbox.iter().sum();
            let fits = |page: &mut (usize, u64)| {
                held + page.1 <= self.config.max_waiting_bytes || self.inbox.is_empty()
            };
            match self.wanting.pop_front_if(fits) {
                Some((_, bytes)) => self.inbox.push_back(bytes),
                None => return,
            }
        }
    }

    fn observe(&self) -> Observed {
        let bytes = |pages: &mut dyn Iterator<Item = u64>| pages.sum::<u64>();
        let hands = bytes(&mut self.wanting.iter().map(|(_, bytes)| *bytes));
        Observed {
            data_waiting: !self.inbox.is_empty() || !self.wanting.is_empty(),
            waiting_bytes: hands + bytes(&mut self.inbox.iter().copied()),
            full: !self.wanting.is_empty(),
            loading: self.ranges.iter().any(|pages| !pages.is_empty()),
            unsealed: self.unsealed.len(),
            in_flight_epochs: self.in_flight.len(),
            in_flight_bytes: bytes(&mut self.in_flight.iter().map(|(_, bytes)| *bytes)),
        }
    }

    /// What has come to its end by now.
    fn settle(&mut self) {
        while self.unsealed.pop_front_if(|at| *at <= self.now).is_some() {}
        // An epoch is acknowledged after it is sealed, so those that are not stay.
        let due = |(at, _): &mut (u64, u64)| *at <= self.now;
        while self.in_flight.len() > self.unsealed.len()
            && self.in_flight.pop_front_if(due).is_some()
        {}
    }

    /// An epoch takes what waits, as a worker does.
    fn attach(&mut self, loading: bool, random: &mut fastrand::Rng) {
        let most = match loading {
            true => self.config.load_bytes,
            false => self.config.max_bytes_per_worker,
        };
        let mut bytes = 0;
        while bytes < most
            && let Some(page) = self.inbox.pop_front()
        {
            bytes += page;
        }
        let begins = self.unsealed.back().map_or(self.now, |before| *before);
        let sealed = begins + random.u64(1..100);
        self.unsealed.push_back(sealed);
        self.in_flight
            .push_back((sealed + random.u64(0..500), bytes));
    }

    /// When something happens next.
    fn next(&self, alarm: Option<u64>) -> Option<u64> {
        let pages = self
            .ranges
            .iter()
            .filter_map(|range| Some(range.front()?.0));
        let acknowledged = self.in_flight.front().map(|(at, _)| *at);
        let events = pages
            .chain(self.unsealed.front().copied())
            .chain(acknowledged)
            .chain(alarm);
        events.filter(|at| *at > self.now).min()
    }

    fn done(&self) -> bool {
        !self.observe().data_waiting && !self.observe().loading
    }

    /// One moment: returns when the ticker wants to be asked again.
    fn step(&mut self, random: &mut fastrand::Rng) -> Option<u64> {
        self.settle();
        self.read();
        // A clock that stands, jumps back, or goes on.
        self.wall = match random.u8(0..10) {
            0 => self.wall / 2,
            1 => self.wall,
            _ => self.wall + random.u64(0..1000),
        };
        let seen = self.observe();
        let decision = self
            .ticker
            .poll(Duration::from_millis(self.now), self.wall, seen);
        let full_epoch = match seen.loading {
            true => self.config.load_bytes,
            false => self.config.max_bytes_per_worker,
        };
        let held_back = seen.unsealed as u64 * full_epoch > seen.waiting_bytes
            || seen.in_flight_epochs >= self.config.max_in_flight
            || seen.in_flight_bytes >= self.config.max_in_flight_bytes;
        match decision {
            Decision::Blocked => {
                assert!(held_back, "blocked by nothing: {seen:?}");
                None
            }
            Decision::Mint(epoch) => {
                assert!(!held_back, "minted although {seen:?}");
                self.minted.push((self.now, epoch, seen));
                self.attach(seen.loading, random);
                None
            }
            Decision::WaitFor(delay) => {
                let last = self.minted.last().map_or(0, |(at, ..)| *at);
                let until = self.now + delay.as_millis() as u64;
                // A reader that waits for room brings nothing more, and after the load nothing is worth waiting for.
                let more_comes = seen.loading && !seen.full;
                let longest = match seen.data_waiting {
                    true if more_comes => self.config.min_ms.max(self.config.load_ms),
                    true => self.config.min_ms,
                    false => self.config.max_ms,
                };
                assert!(!held_back && until > self.now && until <= last + longest);
                Some(until)
            }
        }
    }

    /// Epochs grow, keep their distance, and are stretched unless there is a reason.
    fn check_minted(&self) {
        for pair in self.minted.windows(2) {
            let ((before, last, _), (at, epoch, seen)) = (pair[0], pair[1]);
            assert!(epoch > last && at >= before + self.config.min_ms);
            let enough = seen.waiting_bytes >= self.config.load_bytes;
            if seen.data_waiting && seen.loading && !seen.full && !enough {
                assert!(at >= before + self.config.load_ms, "too soon: {seen:?}");
            }
        }
    }
}

fn live(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut world = World::new(&mut random);
    let mut steps = 0;
    while !world.done() {
        let alarm = world.step(&mut random);
        if let Some(next) = world.next(alarm) {
            world.now = next;
        } else {
            // Nothing happens by itself any more: only the ticker could go on, and an epoch that it has just minted.
            assert!(world.done(), "stands still: {:?}", world.observe());
        }
        steps += 1;
        assert!(steps < 100_000, "no end: {:?}", world.observe());
    }
    world.check_minted();
}

/// Says which life it was that went wrong.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("for this life again: TIDEFEED_SEED={}", self.0);
        }
    }
}

#[test]
fn whatever_waits_is_attached_in_finite_time() {
    let seeds = match std::env::var("TIDEFEED_SEED") {
        Ok(seed) => {
            let seed = seed.parse().expect("TIDEFEED_SEED is a number");
            seed..seed + 1
        }
        Err(_) => {
            let first = fastrand::u64(..1 << 40);
            first..first + SEEDS
        }
    };
    for seed in seeds {
        let seed = Seed(seed);
        live(seed.0);
    }
}
