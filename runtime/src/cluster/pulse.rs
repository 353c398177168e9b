//! When to say something, and when a peer that says nothing is lost. Pure: the time comes in, since any fixed moment.

use std::time::Duration;

/// How often a process says something, and how long it waits to hear something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Beat {
    pub(super) interval: Duration,
    pub(super) timeout: Duration,
}

impl Beat {
    /// Five words fit into the time in which one must be heard: so a late one or two do not count. And ten into a lease, because
    /// what a member may do depends on a word that goes forth and one that comes back.
    pub(super) fn new(timeout: Duration, lease: Duration) -> Beat {
        Beat {
            interval: (timeout / 5).min(lease / 10).max(Duration::from_millis(1)),
            timeout,
        }
    }
}

/// What was heard from one peer and said to it.
#[derive(Debug)]
pub(super) struct Pulse {
    beat: Beat,
    heard: Duration,
    said: Duration,
}

impl Pulse {
    pub(super) fn new(beat: Beat, now: Duration) -> Pulse {
        Pulse {
            beat,
            heard: now,
            said: now,
        }
    }

    /// Anything came from the peer.
    pub(super) fn heard(&mut self, now: Duration) {
        self.heard = self.heard.max(now);
    }

    /// Something was said to the peer.
    pub(super) fn said(&mut self, now: Duration) {
        self.said = self.said.max(now);
    }

    pub(super) fn timeout(&self) -> Duration {
        self.beat.timeout
    }

    /// Whether the peer has been silent for too long.
    pub(super) fn lost(&self, now: Duration) -> bool {
        now >= self.heard + self.beat.timeout
    }

    /// Whether it is time to say something.
    pub(super) fn due(&self, now: Duration) -> bool {
        now >= self.said + self.beat.interval
    }

    /// How long nothing changes if nothing is heard or said.
    pub(super) fn rest(&self, now: Duration) -> Duration {
        let next = (self.heard + self.beat.timeout).min(self.said + self.beat.interval);
        next.saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn a_word_is_due_in_time_and_silence_is_noticed_in_time() {
        let beat = Beat::new(ms(5000), ms(100_000));
        let mut pulse = Pulse::new(beat, ms(0));
        assert!(!pulse.due(ms(999)) && pulse.due(ms(1000)));
        pulse.said(ms(1000));
        assert_eq!(pulse.rest(ms(1500)), ms(500));
        assert!(!pulse.lost(ms(4999)) && pulse.lost(ms(5000)));
        pulse.heard(ms(4999));
        assert!(!pulse.lost(ms(9998)) && pulse.lost(ms(9999)));
        assert_eq!(Beat::new(ms(5000), ms(1000)).interval, ms(100));
    }

    /// Two processes, of which each says something when it is due: as long as both get to run at all and words take less than
    /// two beats, neither takes the other for lost; when one stops, the other knows in time.
    #[test]
    fn only_silence_is_taken_for_death() {
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..200 {
            let beat = Beat::new(ms(500), ms(10_000));
            let mut pulses = [Pulse::new(beat, ms(0)), Pulse::new(beat, ms(0))];
            let mut on_the_way: Vec<(u64, usize)> = Vec::new();
            let dies_at = random.u64(100..3000);
            for now in 0..5000 {
                let alive = |at: usize| at == 0 || now < dies_at;
                on_the_way.retain(|(arrives, to)| {
                    if *arrives == now && alive(*to) {
                        pulses[*to].heard(ms(now));
                    }
                    *arrives > now
                });
                for (at, pulse) in pulses.iter_mut().enumerate() {
                    if !alive(at) {
                        continue;
                    }
                    let lost = pulse.lost(ms(now));
                    assert!(!lost || now >= dies_at, "seed {seed}");
                    if now >= dies_at + 500 + 200 {
                        assert!(lost, "seed {seed}");
                    }
                    // It does not run at every moment.
                    if pulse.due(ms(now)) && random.u8(0..20) == 0 {
                        pulse.said(ms(now));
                        on_the_way.push((now + random.u64(1..200), 1 - at));
                    }
                }
            }
        }
    }
}
