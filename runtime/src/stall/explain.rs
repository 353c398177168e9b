//! What the facts come to.

use std::time::Duration;

use super::{
    Culprit, Doing, Explanation, Facts, Kind, LedgerFacts, MemberFact, Phase, RangeFact, RunState,
    SinkFact, Trouble, WorkerFact,
};

/// Operators of the job's code that are named at most.
const NAMED: usize = 10;

/// Says what holds the run, and what else takes long.
pub fn explain(facts: &Facts) -> Explanation {
    let mut all = culprits(facts);
    // The sort is stable, and the oldest of a kind is the first of it.
    all.sort_by_key(|one| (one.kind, std::cmp::Reverse(one.since_ms)));
    let state = state(facts);
    let mut all = all.into_iter();
    let culprit = all.next();
    let sentence = match &culprit {
        Some(culprit) => culprit.to_string(),
        None => going_on(facts, state),
    };
    Explanation {
        state,
        stalled: culprit.is_some(),
        sentence,
        culprit,
        also: all.collect(),
        process: facts.process,
        ask: facts
            .follows
            .then(|| "process 0, which knows of all processes".to_owned()),
    }
}

fn state(facts: &Facts) -> RunState {
    match facts.phase.0 {
        Phase::Starting => RunState::Starting,
        Phase::Assembling | Phase::Following => RunState::Assembling,
        Phase::Opening | Phase::TakingOver | Phase::Connecting => RunState::TakingOver,
        Phase::Ending => RunState::Ending,
        Phase::Ended => RunState::Ended,
        Phase::Running => match &facts.ledger {
            Some(known) if known.unverified.is_some() || known.unsettled.is_some() => {
                RunState::Resuming
            }
            Some(known) if known.oldest.is_some() || known.pages_waiting => RunState::Running,
            // Between two epochs of a busy job there is nothing to do either.
            Some(known) if known.committed.is_some_and(|age| age < facts.notice) => {
                RunState::Running
            }
            _ if facts.sinks.iter().any(|sink| sink.writing.is_some()) => RunState::Running,
            _ => RunState::Idle,
        },
    }
}

fn going_on(facts: &Facts, state: RunState) -> String {
    let doing = match state {
        RunState::Starting => "is starting",
        RunState::Assembling => "is finding the other processes",
        RunState::TakingOver => "is taking the checkpoint over",
        RunState::Resuming => "is resuming",
        RunState::Running => "runs, and nothing holds it",
        RunState::Idle => "runs, and has nothing to do",
        RunState::Ending => "is ending",
        RunState::Ended => "has ended",
    };
    format!("process {} {doing}", facts.process)
}

fn culprits(facts: &Facts) -> Vec<Culprit> {
    let mut all = Vec::new();
    let known = facts.ledger.as_ref();
    let failure = known.and_then(|known| known.failure.as_ref());
    if let Some(failure) = failure {
        let detail = format!("the run has failed: {failure}");
        all.push(facts.here(Kind::Failed, facts.phase.1, detail));
    }
    match facts.phase.0 {
        Phase::Running => {}
        Phase::Ended => return all,
        _ => {
            starting(facts, &mut all);
            return all;
        }
    }
    let Some(known) = known else { return all };
    all.extend(known.workers.iter().filter_map(|w| worker(facts, w)));
    all.extend(known.doing.iter().filter_map(|at| {
        let (kind, epoch, what) = match at.doing {
            Doing::Pack(epoch) => (Kind::Seal, Some(epoch), "the seal is being packed"),
            Doing::Seal(epoch) => (
                Kind::Seal,
                Some(epoch),
                "the checkpoint store has not taken the seal",
            ),
            Doing::State(epoch) => (
                Kind::State,
                Some(epoch),
                "the checkpoint store has not taken the keyed state",
            ),
            Doing::Commit(epoch) => (
                Kind::Commit,
                Some(epoch),
                "the checkpoint store has not taken the commit",
            ),
            Doing::Load => (Kind::Loading, None, "the checkpoint is being loaded"),
        };
        let one = facts.here(kind, facts.long(at.since)?, what.to_owned());
        let quiet_ms = millis(at.quiet);
        Some(Culprit {
            epoch,
            quiet_ms,
            ..one
        })
    }));
    gates(facts, known, &mut all);
    all.extend(facts.sinks.iter().filter_map(|s| sink(facts, s)));
    all.extend(known.members.iter().filter_map(|m| member(facts, known, m)));
    all.extend(facts.ranges.iter().filter_map(|r| range(facts, r)));
    all.extend(facts.ranges.iter().filter_map(|r| room(facts, r)));
    if let Some((epoch, age)) = known.oldest {
        let holds = |one: &&mut Culprit| one.epoch.is_none() && one.kind < Kind::Frontier;
        all.iter_mut()
            .filter(holds)
            .for_each(|one| one.epoch = Some(epoch));
        let unexplained = all.iter().all(|one| one.kind > Kind::Frontier);
        if let (Some(age), true) = (facts.long(age), unexplained) {
            let one = refused_now_and_then(facts, age).unwrap_or_else(|| {
                let detail = "an epoch is not acknowledged, and nothing that is known holds it";
                facts.here(Kind::Frontier, age, detail.to_owned())
            });
            all.push(Culprit {
                epoch: Some(epoch),
                ..one
            });
        }
    }
    all
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Facts {
    /// The age, if it is one that counts.
    fn long(&self, age: Duration) -> Option<Duration> {
        (age >= self.notice).then_some(age)
    }

    fn here(&self, kind: Kind, since: Duration, detail: String) -> Culprit {
        let since_ms = millis(since);
        Culprit {
            kind,
            name: None,
            process: self.process,
            worker: None,
            range: None,
            since_ms,
            quiet_ms: since_ms,
            epoch: None,
            detail,
        }
    }
}

/// What a start waits for. It says so at once: whoever asks meanwhile wants to know.
fn starting(facts: &Facts, all: &mut Vec<Culprit>) {
    let (phase, since) = facts.phase;
    for awaited in &facts.awaited {
        let why = awaited.why.as_ref().map(|why| format!(": {why}"));
        let detail = format!("waits for {}{}", awaited.name, why.unwrap_or_default());
        let one = facts.here(Kind::Assembling, awaited.since, detail);
        all.push(Culprit {
            name: Some(awaited.name.clone()),
            ..one
        });
    }
    if let Some(lease) = &facts.lease {
        let generation = lease.generation;
        let detail = format!(
            "waits out the lease of generation {generation}, which did not end in order, or runs elsewhere"
        );
        all.push(facts.here(Kind::Lease, lease.since, detail));
    }
    let (kind, step) = match phase {
        Phase::Following => (
            Kind::Assembling,
            "waits for process 0 to take the checkpoint over",
        ),
        Phase::Ending => (
            Kind::Ending,
            "is ending, and a task or a worker is not through",
        ),
        Phase::Opening => (Kind::Starting, "opens sources and sinks"),
        Phase::TakingOver => (Kind::Starting, "reads the checkpoint"),
        Phase::Connecting => (Kind::Starting, "connects with the other processes for data"),
        _ => (Kind::Starting, "looks at its code and its configuration"),
    };
    if let (Some(since), true) = (facts.long(since), all.is_empty()) {
        let one = facts.here(kind, since, step.to_owned());
        // How much there is to read, and how others get on, is not known here: whoever is at that is taken to move.
        let moves = matches!(phase, Phase::TakingOver | Phase::Connecting);
        all.push(Culprit {
            name: Some(step.to_owned()),
            quiet_ms: if moves { 0 } else { one.since_ms },
            ..one
        });
    }
}

fn worker(facts: &Facts, at: &WorkerFact) -> Option<Culprit> {
    let since = facts.long(at.since)?;
    let worker = at.worker;
    let (kind, name, detail) = match (&at.inside, at.building) {
        (_, true) => {
            let detail = format!("worker {worker} is still building its dataflow");
            (Kind::Worker, None, detail)
        }
        (Some(inside), _) => {
            let detail = format!("worker {worker} does not come back from operator {inside}");
            (Kind::Operator, Some(inside.clone()), detail)
        }
        (None, _) => {
            let after = at.passed.as_deref();
            let code = after_in_code(&facts.code, after);
            let within = match after {
                Some(after) => format!(" after operator {after}"),
                None => String::new(),
            };
            let detail = format!(
                "worker {worker} does not come back from the job's code{within}: it is in one of {code}"
            );
            (Kind::Operator, Some(code), detail)
        }
    };
    let one = facts.here(kind, since, detail);
    Some(Culprit {
        name,
        worker: Some(worker),
        ..one
    })
}

/// The operators of the job's code that may run after one of Tidefeed's, each once, in their order.
fn after_in_code(code: &[String], passed: Option<&str>) -> String {
    // In the plan of the code a source and a sink have stand-ins, which end with the same name.
    let name_of = |operator: &str| operator.split_once(": ").map(|(_, name)| name.to_owned());
    let is_stand_in = |one: &str| one.starts_with("ChangeFeed: ") || one.starts_with("Sink: ");
    let passed = passed
        .filter(|one| one.starts_with("Source: "))
        .and_then(name_of);
    let stands_for = |one: &String| one.starts_with("ChangeFeed: ") && name_of(one) == passed;
    let first = match &passed {
        Some(_) => code.iter().position(stands_for).map_or(0, |at| at + 1),
        None => 0,
    };
    let mut names: Vec<&str> = Vec::new();
    for one in code.iter().skip(first).filter(|one| !is_stand_in(one)) {
        if !names.contains(&one.as_str()) {
            names.push(one);
        }
    }
    let more = names.len().saturating_sub(NAMED);
    names.truncate(NAMED);
    match (names.is_empty(), more) {
        (true, _) => "its operators".to_owned(),
        (false, 0) => names.join(", "),
        (false, more) => format!("{} and {more} more", names.join(", ")),
    }
}

fn gates(facts: &Facts, known: &LedgerFacts, all: &mut Vec<Culprit>) {
    let loading = known.doing.iter().any(|at| at.doing == Doing::Load);
    if let Some(since) = known.unverified.and_then(|since| facts.long(since))
        && !loading
    {
        let what = match facts.follows {
            true => "sinks may not write before process 0 says so",
            false => "sinks may not write before the resumed views are compared with the commit",
        };
        all.push(facts.here(Kind::Verifying, since, what.to_owned()));
    }
    if let Some(since) = known.unsettled.and_then(|since| facts.long(since)) {
        let what = "sinks may not write before requests of the run before cannot act any more";
        all.push(facts.here(Kind::Settling, since, what.to_owned()));
    }
}

fn sink(facts: &Facts, sink: &SinkFact) -> Option<Culprit> {
    let name = &sink.name;
    let Some((worker, since)) = sink.writing else {
        let (worker, since) = sink.scanning?;
        let detail = format!("sink {name} reads its container, to bring it in line with the view");
        let one = facts.here(Kind::Sink, facts.long(since)?, detail);
        return Some(Culprit {
            name: Some(name.clone()),
            worker: Some(worker),
            // A container may be large, and the requests have limits of their own.
            quiet_ms: 0,
            ..one
        });
    };
    Some(writing(facts, sink, worker, facts.long(since)?))
}

/// A sink whose writes are refused now and then holds an epoch though no batch of it takes long: the batches come one after the other.
fn refused_now_and_then(facts: &Facts, age: Duration) -> Option<Culprit> {
    let refused = |sink: &&SinkFact| {
        let target = sink.target.as_ref();
        target.is_some_and(|target| target.last_failure.is_some())
    };
    let refused = facts.sinks.iter().filter(refused);
    let writes = |sink: &SinkFact| sink.writing.map(|(_, since)| since);
    let sink = refused.max_by_key(|sink| writes(sink))?;
    let (worker, since) = sink.writing?;
    let one = writing(facts, sink, worker, age);
    Some(Culprit {
        quiet_ms: one.quiet_ms.min(millis(since)),
        ..one
    })
}

fn writing(facts: &Facts, sink: &SinkFact, worker: usize, since: Duration) -> Culprit {
    let name = &sink.name;
    let mut detail = format!("sink {name} has writes of worker {worker} at its container");
    let mut quiet = since;
    if let Some(target) = &sink.target {
        quiet = target.quiet.min(since);
        detail += &match facts.long(quiet) {
            Some(quiet) => format!(", none acknowledged for {:.1} s", quiet.as_secs_f64()),
            None => ", which are being acknowledged".to_owned(),
        };
        if let Some((status, sub_status)) = target.last_failure {
            let partition = target.partition.as_deref().unwrap_or("?");
            detail += &match (status, sub_status) {
                (0, _) => format!("; partition {partition} last gave no answer"),
                (_, 0) => format!("; partition {partition} last answered {status}"),
                _ => format!("; partition {partition} last answered {status}/{sub_status}"),
            };
        }
        if target.failures > 0 {
            detail += &format!("; {} writes were repeated so far", target.failures);
        }
    }
    let one = facts.here(Kind::Sink, since, detail);
    Culprit {
        name: Some(name.clone()),
        worker: Some(worker),
        quiet_ms: millis(quiet),
        ..one
    }
}

/// What a member says of itself, or what is known of it where it says nothing.
fn member(facts: &Facts, known: &LedgerFacts, member: &MemberFact) -> Option<Culprit> {
    let of_it = |one: Culprit| Culprit {
        process: member.process,
        ..one
    };
    let silent = member.heard.filter(|heard| *heard >= facts.word_due);
    if let Some(silent) = silent.and_then(|heard| facts.long(heard)) {
        let detail = format!("{} has said nothing", member.name);
        let one = of_it(facts.here(Kind::Silent, silent, detail));
        return Some(Culprit {
            name: Some(member.name.clone()),
            ..one
        });
    }
    if let Some(holding) = &member.holding {
        return Some(of_it(holding.clone()));
    }
    let (epoch, age) = known.oldest?;
    let age = facts.long(age)?;
    if member.sealed_through >= epoch {
        return None;
    }
    let detail = format!(
        "{} has not sealed an epoch, and does not say why",
        member.name
    );
    let one = of_it(facts.here(Kind::Member, age, detail));
    Some(Culprit {
        name: Some(member.name.clone()),
        epoch: Some(epoch),
        ..one
    })
}

fn range(facts: &Facts, at: &RangeFact) -> Option<Culprit> {
    let since = facts.long(at.asked?)?;
    let (source, range) = (&at.source, &at.range);
    let (kind, what) = match &at.trouble {
        Some(Trouble::Throttled { attempts }) => (
            Kind::Throttled,
            format!("is throttled: {attempts} requests in a row"),
        ),
        Some(Trouble::Budget) => (
            Kind::Budget,
            "waits for the source's budget of request units".to_owned(),
        ),
        Some(Trouble::Failing { attempts, error }) => (
            Kind::Reader,
            format!("fails: {attempts} requests in a row, the last with {error}"),
        ),
        None => (Kind::Reader, "does not answer".to_owned()),
    };
    let last = match at.answered {
        Some(age) => format!("; its last answer came {:.1} s ago", age.as_secs_f64()),
        None => "; it has not answered yet".to_owned(),
    };
    let detail = format!("feed range {range} of source {source} {what}{last}");
    Some(of_range(at, facts.here(kind, since, detail)))
}

fn room(facts: &Facts, at: &RangeFact) -> Option<Culprit> {
    let since = facts.long(at.waits_for_room?)?;
    let (source, range) = (&at.source, &at.range);
    let detail = format!("a page of feed range {range} of source {source} waits for room");
    Some(of_range(at, facts.here(Kind::Room, since, detail)))
}

fn of_range(at: &RangeFact, one: Culprit) -> Culprit {
    Culprit {
        name: Some(at.source.clone()),
        worker: Some(at.worker),
        range: Some(at.range.to_string()),
        ..one
    }
}

#[cfg(test)]
mod tests;
