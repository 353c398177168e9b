//! What the probes of an orchestrator are told.

use std::time::Duration;

use serde::Serialize;
use tidefeed_runtime::stall::{Culprit, Facts, RunState, explain};

use super::{Health, millis};

/// What a probe is told.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Answer<T> {
    /// Whether it is as the probe wants it.
    #[serde(skip)]
    pub(crate) well: bool,
    /// The same in a word.
    pub(crate) status: &'static str,
    pub(crate) state: RunState,
    /// For how long the state has been what it is.
    pub(crate) since_ms: u64,
    /// Why it is not well, in one sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    #[serde(flatten)]
    pub(crate) rest: T,
}

/// What `/healthz` says beside: `ok` or `stuck`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Liveness {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) culprit: Option<Culprit>,
}

/// What `/readyz` says beside: `ready` or `not-ready`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Readiness {
    /// The processes that have not come.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) waiting_for: Vec<WaitingFor>,
    /// How far it is behind, milliseconds, if that was asked for and is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) lag_ms: Option<u64>,
}

/// A process that has not come.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct WaitingFor {
    pub(crate) process: u32,
    pub(crate) name: String,
    pub(crate) since_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) why: Option<String>,
}

impl Health {
    /// Whether the process makes progress, or is right to wait.
    pub(crate) fn liveness(&self) -> Answer<Liveness> {
        let facts = self.facts();
        let found = explain(&facts);
        let stuck = found.stuck(self.limits.stuck_after_ms);
        Answer {
            well: stuck.is_none(),
            status: if stuck.is_some() { "stuck" } else { "ok" },
            state: found.state,
            since_ms: millis(facts.phase.1),
            reason: stuck.map(ToString::to_string),
            rest: Liveness {
                culprit: stuck.cloned(),
            },
        }
    }

    /// Whether the process is part of a run that does its work.
    pub(crate) fn readiness(&self) -> Answer<Readiness> {
        let facts = self.facts();
        let found = explain(&facts);
        let runs = matches!(found.state, RunState::Running | RunState::Idle);
        let failed = facts
            .ledger
            .as_ref()
            .and_then(|known| known.failure.clone());
        let lag = self
            .limits
            .ready_lag_ms
            .map(|most| (most, self.lag(&facts)));
        let behind = lag.filter(|(most, lag)| lag.is_none_or(|lag| millis(lag) > *most));
        let ready = runs && failed.is_none() && behind.is_none();
        let reason = match behind {
            Some((most, lag)) if runs && failed.is_none() => {
                let by = lag.map_or("an unknown time".to_owned(), |lag| {
                    format!("{} ms", millis(lag))
                });
                format!("it is behind by {by}, and may be by {most} ms")
            }
            _ => failed.unwrap_or_else(|| found.sentence.clone()),
        };
        let waiting_for = facts.awaited.iter().map(|awaited| WaitingFor {
            process: awaited.process,
            name: awaited.name.clone(),
            since_ms: millis(awaited.since),
            why: awaited.why.clone(),
        });
        Answer {
            well: ready,
            status: if ready { "ready" } else { "not-ready" },
            state: found.state,
            since_ms: millis(facts.phase.1),
            reason: (!ready).then_some(reason),
            rest: Readiness {
                waiting_for: waiting_for.collect(),
                lag_ms: lag.and_then(|(_, lag)| lag).map(millis),
            },
        }
    }

    /// How far the process is behind; `None` while a feed range has not caught up.
    fn lag(&self, facts: &Facts) -> Option<Duration> {
        let shared = self.state.lock().shared.clone()?;
        let oldest = facts.ledger.as_ref().and_then(|known| known.oldest);
        let mut lag = oldest.map_or(Duration::ZERO, |(_, age)| age);
        for counters in shared.sources.values() {
            for status in counters.ranges().into_values() {
                lag = lag.max(status.behind?);
            }
        }
        Some(lag)
    }
}
