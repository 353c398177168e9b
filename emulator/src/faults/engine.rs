//! Which faults a request meets: a pure function of the rules, the seed and the requests so far.
//!
//! 1. A request meets the rules in order. A rule that does not match, or is spent, or spares it, lets it pass to the next.
//! 2. A delay adds up and lets the request pass on. Any other action is the end: later rules do not see the request.
//! 3. Every rule draws from random numbers of its own, so that what it does depends on the requests that it matched, and
//!    not on how they mixed with others.

use super::FaultOperation;
use super::injected::InjectedStatus;
use super::random::SplitMix;
use super::rule::{FaultAction, FaultPlan, FaultRule};

/// What rules ask about a request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Subject<'a> {
    /// What it asks for, if that has a name.
    pub operation: Option<FaultOperation>,
    /// Name of the database that it is about.
    pub database: Option<&'a str>,
    /// Name of the container that it is about.
    pub container: Option<&'a str>,
    /// Partition key range ids of the partitions that it is about.
    pub partitions: &'a [u32],
}

/// What happens to a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// How long it waits first, in milliseconds.
    pub delay_ms: u64,
    /// What happens then.
    pub end: End,
}

/// What happens to a request after its delay.
#[derive(Clone, Debug, PartialEq)]
pub enum End {
    /// It is carried out and answered.
    Proceed,
    /// It is refused.
    Refuse(InjectedStatus),
    /// It is carried out, and answered as if it had been refused.
    RefuseAfter(InjectedStatus),
    /// The connection is closed instead.
    DropBefore,
    /// It is carried out, and the connection is closed instead of an answer.
    DropAfter,
    /// It waits until the rules change.
    Freeze,
}

/// The rules in force, and what they did.
#[derive(Debug, Default)]
pub struct FaultEngine {
    seed: u64,
    rules: Vec<Armed>,
}

#[derive(Debug)]
struct Armed {
    rule: FaultRule,
    random: SplitMix,
    matches: u64,
    hits: u64,
}

impl FaultEngine {
    /// Puts rules in force; they must be valid.
    pub fn new(plan: FaultPlan) -> Self {
        let armed = |(stream, rule): (u64, FaultRule)| Armed {
            rule,
            random: SplitMix::new(plan.seed, stream),
            matches: 0,
            hits: 0,
        };
        Self {
            seed: plan.seed,
            rules: (0..).zip(plan.rules).map(armed).collect(),
        }
    }

    /// Seed of the random numbers.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The rules in order, each with its hits.
    pub fn rules(&self) -> impl Iterator<Item = (&FaultRule, u64)> {
        self.rules.iter().map(|armed| (&armed.rule, armed.hits))
    }

    /// Decides about a request, and counts it.
    pub fn decide(&mut self, subject: &Subject<'_>) -> Decision {
        let mut delay_ms = 0u64;
        for (index, armed) in self.rules.iter_mut().enumerate() {
            if !armed.hit(subject) {
                continue;
            }
            let end = match &armed.rule.action {
                FaultAction::Delay { ms, jitter_ms } => {
                    let jitter = armed.random.up_to(*jitter_ms);
                    delay_ms = delay_ms.saturating_add(ms.saturating_add(jitter));
                    continue;
                }
                FaultAction::Status {
                    status,
                    substatus,
                    retry_after_ms,
                    message,
                } => End::Refuse(InjectedStatus::new(
                    index,
                    *status,
                    *substatus,
                    *retry_after_ms,
                    message.as_deref(),
                )),
                FaultAction::StatusAfter { status, substatus } => {
                    End::RefuseAfter(InjectedStatus::new(index, *status, *substatus, None, None))
                }
                FaultAction::DropBefore => End::DropBefore,
                FaultAction::DropAfter => End::DropAfter,
                FaultAction::Freeze => End::Freeze,
            };
            return Decision { delay_ms, end };
        }
        Decision {
            delay_ms,
            end: End::Proceed,
        }
    }
}

impl Armed {
    fn hit(&mut self, subject: &Subject<'_>) -> bool {
        if self.rule.times.is_some_and(|most| self.hits >= most) || !self.matches(subject) {
            return false;
        }
        self.matches += 1;
        let hit = self.matches > self.rule.skip && self.random.happens(self.rule.probability);
        self.hits += u64::from(hit);
        hit
    }

    fn matches(&self, subject: &Subject<'_>) -> bool {
        let rule = &self.rule;
        let named = |wanted: &Option<String>, given: Option<&str>| {
            wanted.is_none() || wanted.as_deref() == given
        };
        rule.operations
            .iter()
            .any(|operation| operation.covers(subject.operation))
            && named(&rule.database, subject.database)
            && named(&rule.container, subject.container)
            && rule
                .partition
                .is_none_or(|id| subject.partitions.contains(&id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: u64 = 0x5EED;

    fn engine(rules: Vec<FaultRule>) -> FaultEngine {
        let plan = FaultPlan { seed: SEED, rules };
        plan.validate().unwrap();
        FaultEngine::new(plan)
    }

    fn subject(operation: FaultOperation) -> Subject<'static> {
        Subject {
            operation: Some(operation),
            database: Some("db"),
            container: Some("items"),
            partitions: &[1],
        }
    }

    fn hits(engine: &FaultEngine) -> Vec<u64> {
        engine.rules().map(|(_, hits)| hits).collect()
    }

    #[test]
    fn a_rule_is_about_what_it_names() {
        let drop = || FaultRule::new(FaultAction::DropBefore);
        let upsert = subject(FaultOperation::Upsert);
        let nameless = Subject::default();
        for (rule, hit, hit_nameless) in [
            (drop(), true, true),
            (drop().on(&[FaultOperation::Writes]), true, false),
            (
                drop().on(&[FaultOperation::Read, FaultOperation::Upsert]),
                true,
                false,
            ),
            (drop().on(&[FaultOperation::Read]), false, false),
            (drop().in_container("db", "items"), true, false),
            (drop().in_container("db", "other"), false, false),
            (drop().in_container("other", "items"), false, false),
            (drop().in_partition(1), true, false),
            (drop().in_partition(0), false, false),
        ] {
            for (subject, hit) in [(&upsert, hit), (&nameless, hit_nameless)] {
                let decision = engine(vec![rule.clone()]).decide(subject);
                assert_eq!(decision.end == End::DropBefore, hit, "{rule:?} {subject:?}");
            }
        }
    }

    #[test]
    fn skip_lets_the_first_pass_and_times_ends_the_rule() {
        let mut engine = engine(vec![FaultRule::new(FaultAction::Freeze).skip(2).times(3)]);
        let ends: Vec<bool> = (0..8)
            .map(|_| engine.decide(&subject(FaultOperation::Read)).end == End::Freeze)
            .collect();
        assert_eq!(ends, [false, false, true, true, true, false, false, false]);
        assert_eq!(hits(&engine), [3]);
    }

    #[test]
    fn delays_add_up_and_the_first_other_action_ends_it() {
        let mut engine = engine(vec![
            FaultRule::new(FaultAction::delay(5)),
            FaultRule::new(FaultAction::Delay {
                ms: 10,
                jitter_ms: 4,
            }),
            FaultRule::new(FaultAction::DropAfter).times(1),
            FaultRule::new(FaultAction::delay(1_000)),
        ]);
        let first = engine.decide(&subject(FaultOperation::Create));
        assert!((15..=19).contains(&first.delay_ms), "{first:?}");
        assert_eq!(first.end, End::DropAfter);
        assert_eq!(hits(&engine), [1, 1, 1, 0]);
        let second = engine.decide(&subject(FaultOperation::Create));
        assert!((1_015..=1_019).contains(&second.delay_ms), "{second:?}");
        assert_eq!(second.end, End::Proceed);
    }

    #[test]
    fn a_bulk_item_meets_only_the_rules_that_name_it() {
        let mut engine = engine(vec![
            FaultRule::new(FaultAction::DropBefore),
            FaultRule::new(FaultAction::status(503)).on(&[FaultOperation::Bulk]),
            FaultRule::new(FaultAction::status(429)).on(&[FaultOperation::BulkItem]),
        ]);
        let decision = engine.decide(&subject(FaultOperation::BulkItem));
        assert!(matches!(&decision.end, End::Refuse(refused) if refused.status == 429));
        assert_eq!(hits(&engine), [0, 0, 1]);
    }

    #[test]
    fn a_share_of_the_requests_is_hit() {
        const DRAWS: u64 = 100_000;
        for probability in [0.0, 0.01, 0.3, 1.0] {
            let rule = FaultRule::new(FaultAction::DropBefore).probability(probability);
            let mut engine = engine(vec![rule]);
            for _ in 0..DRAWS {
                engine.decide(&subject(FaultOperation::Read));
            }
            let expected = probability * DRAWS as f64;
            // Five standard deviations.
            let bound = 5.0 * (expected * (1.0 - probability)).sqrt();
            let found = hits(&engine)[0] as f64;
            assert!(
                (found - expected).abs() <= bound,
                "seed {SEED:#x}, probability {probability}: {found} hits"
            );
        }
    }

    #[test]
    fn the_same_seed_and_requests_meet_the_same_faults() {
        let rules = || {
            vec![
                FaultRule::new(FaultAction::DropAfter)
                    .on(&[FaultOperation::Upsert])
                    .probability(0.3),
                FaultRule::new(FaultAction::Delay {
                    ms: 0,
                    jitter_ms: 100,
                })
                .on(&[FaultOperation::Read]),
            ]
        };
        let run = |seed: u64, reads_between: bool| -> Vec<Decision> {
            let mut engine = FaultEngine::new(FaultPlan {
                seed,
                rules: rules(),
            });
            let mut upserts = Vec::new();
            for _ in 0..200 {
                if reads_between {
                    engine.decide(&subject(FaultOperation::Read));
                }
                upserts.push(engine.decide(&subject(FaultOperation::Upsert)));
            }
            upserts
        };
        assert_eq!(run(SEED, true), run(SEED, true));
        // A rule's draws do not depend on requests that it is not about.
        assert_eq!(run(SEED, true), run(SEED, false));
        assert_ne!(run(SEED, true), run(SEED + 1, true));
    }
}
