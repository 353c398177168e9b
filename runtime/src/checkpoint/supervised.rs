//! What a supervisor knows of the runs before the one that it starts: that none of their processes lives.
//!
//! The lease of a cluster cannot be taken because a lock is free, for the lock says nothing about processes other than 0. Who
//! started *all* processes of a run, and has waited for the end of each, knows more than any lock: nobody writes under that lease any
//! more, on any store. So:
//!
//! 1. A supervisor draws its number once, and numbers its runs from 1. It begins a run only after it has seen every process of
//!    the one before end: no process is left by then that could write, only what is on the wire.
//! 2. Process 0 writes both numbers into the records of its lease.
//! 3. A run takes a lease over at once, renewed or not, if it is of an earlier run of its own supervisor. For what is on the wire
//!    its sinks still wait, for [`LeaseConfig::settle`](super::LeaseConfig::settle) (I5, I7).
//!
//! Only processes that the supervisor started may belong to its runs: they alone know the secret of a run, which is new for each.
//!
//! A supervisor that was killed leaves its processes to themselves. The next one has another number, and waits like any run.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Error, ErrorKind, Result};

/// The environment variable that tells a process which run of a supervisor it belongs to.
pub const SUPERVISED_VARIABLE: &str = "TIDEFEED_SUPERVISED";

/// A run that was started by somebody who has seen every process of the runs before it end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Supervised {
    /// Who: drawn at random.
    pub by: u64,
    /// Which of its runs, from 1.
    pub run: u64,
}

impl Supervised {
    /// From [`SUPERVISED_VARIABLE`]; `None` when it is not set.
    ///
    /// # Errors
    /// `Config` when it holds something else.
    pub fn from_env() -> Result<Option<Supervised>> {
        let text = std::env::var(SUPERVISED_VARIABLE).ok();
        text.map(|text| text.parse()).transpose()
    }

    /// Whether this run was begun after every process of `other` had ended.
    pub(super) fn outlived(&self, other: &Supervised) -> bool {
        self.by == other.by && other.run < self.run
    }
}

impl fmt::Display for Supervised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}.{}", self.by, self.run)
    }
}

impl FromStr for Supervised {
    type Err = Error;

    fn from_str(text: &str) -> Result<Supervised> {
        let parts = text.split_once('.').and_then(|(by, run)| {
            Some(Supervised {
                by: u64::from_str_radix(by, 16).ok()?,
                run: run.parse().ok()?,
            })
        });
        parts.ok_or_else(|| {
            let what = format!(
                "{SUPERVISED_VARIABLE} is {text:?}, which no supervisor says: do not set it"
            );
            Error::new(ErrorKind::Config, what)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_earlier_runs_of_the_same_supervisor_are_known_to_be_dead() {
        let run = |by, run| Supervised { by, run };
        let now = run(u64::MAX, 3);
        assert!(now.outlived(&run(u64::MAX, 2)) && now.outlived(&run(u64::MAX, 1)));
        for other in [now, run(u64::MAX, 4), run(7, 1)] {
            assert!(!now.outlived(&other), "{other}");
        }
    }

    #[test]
    fn it_travels_as_text() {
        let supervised = Supervised {
            by: 0x1234_5678_9abc_def0,
            run: 17,
        };
        assert_eq!(
            supervised.to_string().parse::<Supervised>().ok(),
            Some(supervised)
        );
        for wrong in ["", "1", "x.1", "1.", "1.x", "1.2.3"] {
            assert!(wrong.parse::<Supervised>().is_err(), "{wrong}");
        }
    }
}
