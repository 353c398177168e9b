//! When to mint the next epoch: the one clock of a job, as a pure decision.
//!
//! The ticker runs on worker 0 alone; [`crate::dataflow::ticks`] drives it. It ticks when data waits and the last epoch is
//! sealed, so that under light load an epoch follows a change at once, and under more load each epoch holds whatever
//! arrived while the one before was made durable. Rules, in order of precedence:
//!
//! 1. Never while `max_in_flight_epochs` epochs or `max_in_flight_bytes` bytes are minted and not yet acknowledged by
//!    every sink. This is the backpressure: pages stay where they wait, there is no room for more, and the readers stop.
//! 2. Never while epochs are minted and not yet sealed, unless as much waits as that many epochs take: so under full load
//!    workers go on while the epochs before are packed and written. What waits may still be for an epoch that is minted
//!    already, so less would not be enough. Never sooner than `min` after the one before.
//! 3. At once when data waits; but while a feed range is being read for the first time, only when `load_bytes` wait, or
//!    `load` after the one before. So a first load goes into few large seals. It does not wait when a reader waits for
//!    room, for then no more arrives; and it ends with the last page of the last range, so nothing waits that is complete.
//! 4. Otherwise `max` after the one before, so that frontiers and idle tokens move on.
//!
//! So where data waits and nothing holds the ticker back, an epoch is minted after at most the longer of `min` and `load`.
//!
//! Epochs are wall-clock milliseconds but never go back and never repeat: if the clock stands or jumps back, the next
//! epoch is the last one plus one.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Epoch, Error, ErrorKind, Result};

/// How often epochs are minted and how far they may run ahead of the sinks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EpochConfig {
    /// Shortest time between two epochs, milliseconds; default 5, at most `max_ms`. Larger makes bigger batches and fewer
    /// seals; smaller lowers latency. Default: a guess between the 1 ms and 5 ms ticks that were measured at 2.9 ms and
    /// 6.3 ms from arrival to commit (99th percentile).
    pub min_ms: u64,
    /// Longest time between two epochs when nothing arrives, milliseconds; default 1000, 1 to 60000. Larger writes fewer
    /// idle tokens; smaller keeps the frontier of an idle job fresher. Default: a guess.
    pub max_ms: u64,
    /// Epochs minted and not yet acknowledged by every sink; default 4, 1 to 1000. Larger lets compute run further
    /// ahead of slow sinks; smaller bounds memory and the work repeated after a crash. Default: measured, more gained
    /// nothing.
    pub max_in_flight: usize,
    /// Bytes of records in those epochs; default 64 MiB, at least 1 MiB. The epoch that crosses the bound still goes.
    pub max_in_flight_bytes: u64,
    /// Bytes of records that one worker attaches to one epoch; default 8 MiB, at least 64 KiB. The page that crosses the
    /// bound still goes. Larger seals more at once; smaller keeps epochs short after a stall.
    pub max_bytes_per_worker: u64,
    /// Bytes of pages that are read and not yet attached, over all sources; default 32 MiB, 1 MiB or more and at least
    /// `load_bytes`. A single larger page still passes, alone, and each feed range may hold one page more that waits for its
    /// turn. Larger keeps readers busy through longer stalls; smaller needs less memory. Default: `load_bytes` twice, so
    /// that one epoch is read while the one before is sealed.
    pub max_waiting_bytes: u64,
    /// While feed ranges are read for the first time: bytes that call for an epoch, and that one worker attaches to it;
    /// default 16 MiB, 64 KiB to `max_in_flight_bytes`. The page that crosses the bound still goes. Larger makes fewer and
    /// larger seals; smaller needs less memory and repeats less after a crash. Default: a guess; with 32 MiB a million
    /// documents took half as long again as with 8 MiB.
    pub load_bytes: u64,
    /// The longest that data waits for more of it while feed ranges are read for the first time, milliseconds since the
    /// epoch before; default 1000, `min_ms` to 60000. Larger makes fewer seals of a slow source; smaller shows its documents
    /// sooner. Default: a guess.
    pub load_ms: u64,
}

impl Default for EpochConfig {
    fn default() -> Self {
        EpochConfig {
            min_ms: 5,
            max_ms: 1000,
            max_in_flight: 4,
            max_in_flight_bytes: 64 << 20,
            max_bytes_per_worker: 8 << 20,
            max_waiting_bytes: 32 << 20,
            load_bytes: 16 << 20,
            load_ms: 1000,
        }
    }
}

impl EpochConfig {
    /// Checks every field against its range.
    ///
    /// # Errors
    /// `Config`, naming the field and what is allowed.
    pub fn validate(&self) -> Result<()> {
        let wrong = |field: &str, allowed: &str| {
            Err(Error::new(
                ErrorKind::Config,
                format!("epoch.{field} is out of range: allowed is {allowed}"),
            ))
        };
        match self {
            c if !(1..=60_000).contains(&c.max_ms) => wrong("max_ms", "1 to 60000 milliseconds"),
            c if c.min_ms > c.max_ms => wrong("min_ms", "0 to epoch.max_ms"),
            c if !(1..=1000).contains(&c.max_in_flight) => {
                wrong("max_in_flight", "1 to 1000 epochs")
            }
            c if c.max_in_flight_bytes < 1 << 20 => {
                wrong("max_in_flight_bytes", "1048576 bytes or more")
            }
            c if c.max_bytes_per_worker < 64 << 10 => {
                wrong("max_bytes_per_worker", "65536 bytes or more")
            }
            c if !(64 << 10..=c.max_in_flight_bytes).contains(&c.load_bytes) => {
                wrong("load_bytes", "65536 bytes to epoch.max_in_flight_bytes")
            }
            c if c.max_waiting_bytes < c.load_bytes.max(1 << 20) => wrong(
                "max_waiting_bytes",
                "1048576 bytes or more, and not below epoch.load_bytes",
            ),
            c if !(c.min_ms..=60_000).contains(&c.load_ms) => {
                wrong("load_ms", "epoch.min_ms to 60000 milliseconds")
            }
            _ => Ok(()),
        }
    }
}

/// What the ticker looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Pages with records wait to be attached.
    pub data_waiting: bool,
    /// Bytes of those pages.
    pub waiting_bytes: u64,
    /// A reader waits for room: no more arrives before an epoch takes some of what waits.
    pub full: bool,
    /// A feed range is being read for the first time.
    pub loading: bool,
    /// Epochs minted and not yet sealed by this process.
    pub unsealed: usize,
    /// Epochs minted and not yet acknowledged by every sink.
    pub in_flight_epochs: usize,
    /// Bytes of records attached to those epochs.
    pub in_flight_bytes: u64,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Mint this epoch.
    Mint(Epoch),
    /// Look again after this long, or when something changes.
    WaitFor(Duration),
    /// Nothing to do until something changes: the seal or the acknowledgement that is awaited wakes the ticker.
    Blocked,
}

/// The mint of epochs.
#[derive(Debug)]
pub struct Ticker {
    min: Duration,
    max: Duration,
    load: Duration,
    load_bytes: u64,
    epoch_bytes: u64,
    max_in_flight_epochs: usize,
    max_in_flight_bytes: u64,
    last: Epoch,
    last_at: Option<Duration>,
}

impl Ticker {
    /// A ticker whose first epoch comes after `last`, the newest epoch that any earlier generation sealed or committed.
    pub fn new(config: &EpochConfig, last: Epoch) -> Self {
        Ticker {
            min: Duration::from_millis(config.min_ms),
            max: Duration::from_millis(config.max_ms),
            load: Duration::from_millis(config.load_ms),
            load_bytes: config.load_bytes,
            epoch_bytes: config.max_bytes_per_worker,
            max_in_flight_epochs: config.max_in_flight,
            max_in_flight_bytes: config.max_in_flight_bytes,
            last,
            last_at: None,
        }
    }

    /// Decides. `now` is monotonic time since any fixed moment, `wall_ms` the wall clock in UNIX milliseconds.
    pub fn poll(&mut self, now: Duration, wall_ms: u64, observed: Observed) -> Decision {
        let full_epoch = match observed.loading {
            true => self.load_bytes,
            false => self.epoch_bytes,
        };
        let full_waiting = observed.waiting_bytes / full_epoch;
        if observed.in_flight_epochs >= self.max_in_flight_epochs
            || observed.in_flight_bytes >= self.max_in_flight_bytes
            || observed.unsealed as u64 > full_waiting
        {
            return Decision::Blocked;
        }
        let spacing = self.spacing(observed);
        let since_last = self.last_at.map(|at| now.saturating_sub(at));
        match since_last {
            Some(since) if since < spacing => Decision::WaitFor(spacing - since),
            _ => {
                self.last = Epoch(wall_ms.max(self.last.0 + 1));
                self.last_at = Some(now);
                Decision::Mint(self.last)
            }
        }
    }

    /// How far the next epoch is from the last one.
    fn spacing(&self, observed: Observed) -> Duration {
        let more_comes = observed.loading && !observed.full;
        match observed.data_waiting {
            false => self.max,
            true if more_comes && observed.waiting_bytes < self.load_bytes => self.load,
            true => self.min,
        }
    }
}

#[cfg(test)]
mod liveness;

#[cfg(test)]
mod tests {
    use super::*;

    const WAITING: Observed = Observed {
        data_waiting: true,
        waiting_bytes: 1000,
        full: false,
        loading: false,
        unsealed: 0,
        in_flight_epochs: 0,
        in_flight_bytes: 0,
    };

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn data_is_ticked_at_once_but_not_sooner_than_min() {
        let mut ticker = Ticker::new(&EpochConfig::default(), Epoch(0));
        assert_eq!(ticker.poll(ms(0), 100, WAITING), Decision::Mint(Epoch(100)));
        assert_eq!(ticker.poll(ms(2), 102, WAITING), Decision::WaitFor(ms(3)));
        assert_eq!(ticker.poll(ms(5), 105, WAITING), Decision::Mint(Epoch(105)));
    }

    #[test]
    fn an_idle_job_ticks_at_max() {
        let mut ticker = Ticker::new(&EpochConfig::default(), Epoch(0));
        let idle = Observed::default();
        assert_eq!(ticker.poll(ms(0), 100, idle), Decision::Mint(Epoch(100)));
        assert_eq!(ticker.poll(ms(400), 500, idle), Decision::WaitFor(ms(600)));
        assert_eq!(
            ticker.poll(ms(1000), 1100, idle),
            Decision::Mint(Epoch(1100))
        );
    }

    #[test]
    fn a_first_load_waits_for_bytes_or_time_or_a_reader_without_room_or_its_end() {
        const LOADING: Observed = Observed {
            loading: true,
            ..WAITING
        };
        let enough = EpochConfig::default().load_bytes;
        for (waiting, at_ms) in [
            (LOADING, 1000),
            (
                Observed {
                    waiting_bytes: enough - 1,
                    ..LOADING
                },
                1000,
            ),
            (
                Observed {
                    waiting_bytes: enough,
                    ..LOADING
                },
                5,
            ),
            (
                Observed {
                    full: true,
                    ..LOADING
                },
                5,
            ),
            (
                Observed {
                    loading: false,
                    ..LOADING
                },
                5,
            ),
        ] {
            let mut ticker = Ticker::new(&EpochConfig::default(), Epoch(0));
            assert_eq!(ticker.poll(ms(0), 1, LOADING), Decision::Mint(Epoch(1)));
            let almost = ms(at_ms - 1);
            let wait = Decision::WaitFor(ms(1));
            assert_eq!(ticker.poll(almost, 2, waiting), wait, "{waiting:?}");
            let mint = Decision::Mint(Epoch(2));
            assert_eq!(ticker.poll(ms(at_ms), 2, waiting), mint, "{waiting:?}");
        }
    }

    #[test]
    fn unsealed_and_unacknowledged_epochs_hold_it_back() {
        let mut ticker = Ticker::new(&EpochConfig::default(), Epoch(0));
        for held in [
            Observed {
                unsealed: 1,
                ..WAITING
            },
            Observed {
                unsealed: 2,
                waiting_bytes: 9 << 20,
                ..WAITING
            },
            Observed {
                unsealed: 1,
                waiting_bytes: 9 << 20,
                loading: true,
                ..WAITING
            },
            Observed {
                in_flight_epochs: 4,
                ..WAITING
            },
            Observed {
                in_flight_bytes: 64 << 20,
                ..WAITING
            },
        ] {
            assert_eq!(ticker.poll(ms(9_999), 1, held), Decision::Blocked);
        }
        assert_eq!(
            ticker.poll(
                ms(9_999),
                1,
                Observed {
                    in_flight_epochs: 3,
                    ..WAITING
                }
            ),
            Decision::Mint(Epoch(1))
        );
        let another_waits = Observed {
            unsealed: 1,
            waiting_bytes: 9 << 20,
            ..WAITING
        };
        let next = ticker.poll(ms(10_004), 2, another_waits);
        assert_eq!(next, Decision::Mint(Epoch(2)));
    }

    #[test]
    fn epochs_grow_when_the_wall_clock_stands_or_jumps_back() {
        let mut ticker = Ticker::new(
            &EpochConfig {
                min_ms: 0,
                ..Default::default()
            },
            Epoch(500),
        );
        let minted: Vec<_> = [400, 400, 700, 10]
            .into_iter()
            .enumerate()
            .map(|(at, wall)| ticker.poll(ms(at as u64), wall, WAITING))
            .collect();
        assert_eq!(
            minted,
            [501, 502, 700, 701].map(|e| Decision::Mint(Epoch(e)))
        );
    }

    #[test]
    fn wrong_settings_name_the_field() {
        let report = |change: fn(&mut EpochConfig)| {
            let mut config = EpochConfig::default();
            change(&mut config);
            config.validate().expect_err("wrong").report()
        };
        assert_eq!(
            report(|c| c.max_in_flight = 0),
            "epoch.max_in_flight is out of range: allowed is 1 to 1000 epochs"
        );
        let begins = |field: &str, report: String| {
            let start = format!("epoch.{field} is out of range");
            assert!(report.starts_with(&start), "{report}");
        };
        begins("min_ms", report(|c| c.min_ms = 2000));
        begins("load_ms", report(|c| c.load_ms = 60_001));
        begins("load_ms", report(|c| c.load_ms = c.min_ms - 1));
        begins("load_bytes", report(|c| c.load_bytes = 1000));
        // An epoch of the load alone would be more than may be in flight.
        begins("load_bytes", report(|c| c.max_in_flight_bytes = 8 << 20));
        begins(
            "max_waiting_bytes",
            report(|c| c.max_waiting_bytes = 8 << 20),
        );
        EpochConfig::default().validate().expect("right");
    }
}
