//! Sinks and the physical partitions that they write to in a report.

use std::time::Duration;

use tidefeed_operators::sink::SinkCounters;
use tidefeed_operators::traffic::{PartitionTraffic, Traffic};

use super::look::{Rate, millis};
use super::report::{Partition, Sink};
use crate::running::SinkStatus;

/// What a sink has counted.
#[derive(Clone, Debug, Default)]
pub(crate) struct SinkLook {
    pub(super) counted: SinkStatus,
    pub(super) dead_letters: u64,
    pub(super) writing: Option<Duration>,
    /// None of a target that does not count its requests.
    pub(super) traffic: Option<Traffic>,
}

impl SinkLook {
    pub(super) fn of(counters: &SinkCounters, dead_letters: u64, traffic: Option<Traffic>) -> Self {
        SinkLook {
            counted: SinkStatus::of(counters),
            dead_letters,
            writing: counters.writing().map(|(_, since)| since),
            traffic,
        }
    }

    /// With what it counted in earlier runs of this process, so that nothing goes back.
    pub(super) fn after(mut self, past: Option<&SinkLook>) -> Self {
        let Some(past) = past else { return self };
        self.counted += past.counted;
        self.dead_letters += past.dead_letters;
        for (partition, past) in past.traffic.iter().flatten() {
            let all = self.traffic.get_or_insert_default();
            let all = all.entry(partition.clone()).or_default();
            all.documents += past.documents;
            all.requests += past.requests;
            all.throttled += past.throttled;
            all.charge_ru += past.charge_ru;
        }
        self
    }

    /// When the run has ended: nothing is under way any more.
    pub(super) fn ended(&mut self) {
        self.writing = None;
        for partition in self.traffic.iter_mut().flat_map(Traffic::values_mut) {
            partition.in_flight = 0;
        }
    }

    /// Requests in flight, if the target counts them.
    pub(super) fn in_flight(&self) -> Option<u64> {
        let traffic = self.traffic.as_ref()?;
        Some(traffic.values().map(|partition| partition.in_flight).sum())
    }

    pub(super) fn report(
        &self,
        name: &str,
        budget: Option<f64>,
        before: Option<&SinkLook>,
        rate: Rate,
    ) -> Sink {
        let counted = &self.counted;
        let was = |of: fn(&SinkStatus) -> u64| before.map(|before| of(&before.counted));
        let documents = |counted: &SinkStatus| counted.upserts + counted.deletes;
        Sink {
            name: name.to_owned(),
            kind: "cosmos".to_owned(),
            upserts: counted.upserts,
            deletes: counted.deletes,
            documents_per_s: rate.of(documents(counted), was(documents)),
            ignored: counted.ignored,
            ru: counted.charge_ru,
            ru_per_s: rate.of_f64(
                counted.charge_ru,
                before.map(|before| before.counted.charge_ru),
            ),
            ru_budget_per_s: budget,
            requests: counted.requests,
            requests_per_s: rate.of(counted.requests, was(|counted| counted.requests)),
            in_flight: self.in_flight(),
            throttled: counted.throttled,
            throttled_share: share_since(
                (counted.throttled, counted.requests),
                before.map(|before| (before.counted.throttled, before.counted.requests)),
            ),
            dead_letters: self.dead_letters,
            writing_ms: self.writing.map(millis),
            partitions: self.partitions(before, rate),
        }
    }

    fn partitions(&self, before: Option<&SinkLook>, rate: Rate) -> Vec<Partition> {
        let before = before.and_then(|before| before.traffic.as_ref());
        let partition = |(name, now): (&String, &PartitionTraffic)| {
            // One that was not there had sent nothing.
            let before = before.map(|all| all.get(name).copied().unwrap_or_default());
            Partition {
                partition: name.clone(),
                documents_per_s: rate.of(now.documents, before.map(|one| one.documents)),
                ru_per_s: rate.of_f64(now.charge_ru, before.map(|one| one.charge_ru)),
                in_flight: now.in_flight,
                throttled_share: share_since(
                    (now.throttled, now.requests),
                    before.map(|one| (one.throttled, one.requests)),
                ),
            }
        };
        self.traffic.iter().flatten().map(partition).collect()
    }
}

/// Of the requests since the last look, the share that was throttled; 0 without a last look.
fn share_since(now: (u64, u64), before: Option<(u64, u64)>) -> f64 {
    let before = before.unwrap_or(now);
    let (throttled, requests) = (
        now.0.saturating_sub(before.0),
        now.1.saturating_sub(before.1),
    );
    throttled as f64 / requests.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(requests: u64, throttled: u64) -> SinkLook {
        SinkLook {
            counted: SinkStatus {
                requests,
                throttled,
                ..SinkStatus::default()
            },
            ..SinkLook::default()
        }
    }

    #[test]
    fn a_throttled_share_is_of_the_requests_since_the_last_look() {
        let rate = Rate::between(Some(0), 1_000);
        let first = look(100, 90).report("v", Some(400.0), None, rate);
        assert_eq!(
            (first.throttled_share, first.ru_budget_per_s),
            (0.0, Some(400.0))
        );
        let then = look(200, 115).report("v", None, Some(&look(100, 90)), rate);
        assert_eq!((then.throttled_share, then.requests_per_s), (0.25, 100.0));
        let anew = look(0, 0).report("v", None, Some(&look(200, 115)), rate);
        assert_eq!((anew.throttled_share, anew.requests_per_s), (0.0, 0.0));
        assert_eq!(anew.in_flight, None, "its target does not count");
    }

    fn traffic(documents: u64, in_flight: u64) -> PartitionTraffic {
        PartitionTraffic {
            documents,
            requests: documents / 10,
            throttled: documents / 100,
            charge_ru: documents as f64 * 6.0,
            in_flight,
        }
    }

    fn sends(partitions: &[(&str, PartitionTraffic)]) -> SinkLook {
        let named = |(name, one): &(&str, PartitionTraffic)| ((*name).to_owned(), *one);
        SinkLook {
            traffic: Some(partitions.iter().map(named).collect()),
            ..SinkLook::default()
        }
    }

    #[test]
    fn partitions_have_rates_of_their_own_and_one_that_comes_begins_at_nothing() {
        let before = sends(&[("0", traffic(1_000, 7))]);
        let now = sends(&[("0", traffic(3_000, 2)), ("1", traffic(500, 3))]);
        let rate = Rate::between(Some(1_000), 3_000);
        let report = now.report("v", None, Some(&before), rate);
        assert_eq!(report.in_flight, Some(5));
        let partition = |name: &str, per_s: f64, in_flight| Partition {
            partition: name.to_owned(),
            documents_per_s: per_s,
            ru_per_s: per_s * 6.0,
            in_flight,
            throttled_share: 0.1,
        };
        let expected = vec![partition("0", 1_000.0, 2), partition("1", 250.0, 3)];
        assert_eq!(report.partitions, expected);
        let first = now.report("v", None, None, rate).partitions;
        assert!(
            first.iter().all(|one| one.documents_per_s == 0.0),
            "{first:?}"
        );
    }

    #[test]
    fn what_was_in_flight_ends_with_the_run_and_what_was_sent_stays() {
        let mut past = sends(&[("0", traffic(1_000, 7)), ("1", traffic(100, 1))]);
        past.ended();
        assert_eq!(past.in_flight(), Some(0));
        let now = sends(&[("0", traffic(200, 4))]).after(Some(&past));
        let all = now.traffic.clone().expect("counted");
        assert_eq!(all["0"], traffic(1_200, 4));
        assert_eq!(all["1"], traffic(100, 0));
        assert_eq!(now.in_flight(), Some(4));
    }
}
