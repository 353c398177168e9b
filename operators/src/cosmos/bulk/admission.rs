//! Who may come in: memory is bounded, and a slow partition does not take the room of the others.
//!
//! 1. What is under way has at most `max_bytes`: what it takes in memory, with what is kept around the documents. A submission that is larger comes in by itself.
//! 2. A physical partition that holds half of that takes nothing more until it has less.
//! 3. Submissions come in as they came. One that waits for a partition lets those pass that have nothing to do with any
//!    partition for which an earlier one waits: so two submissions for one document never change places.
//! 4. One that waits for the total holds up all others, or a large one would never come in.

use std::collections::VecDeque;

/// What operations under way take in memory, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    /// In total.
    pub(crate) bytes: usize,
    /// In each physical partition, in the order of the map.
    pub(crate) partitions: Vec<usize>,
}

/// Where a submission has something to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Places {
    /// In these partitions.
    Some(Vec<usize>),
    /// Anywhere.
    All,
}

#[derive(Debug)]
struct Entrant<T> {
    what: T,
    bytes: usize,
    places: Places,
}

/// Submissions that wait for room.
#[derive(Debug)]
pub(crate) struct Admission<T> {
    max_bytes: usize,
    waiting: VecDeque<Entrant<T>>,
}

impl<T> Admission<T> {
    /// For so many bytes in total.
    pub(crate) fn new(max_bytes: usize) -> Self {
        Admission {
            max_bytes,
            waiting: VecDeque::new(),
        }
    }

    /// Whether nobody waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// A submission of so many bytes.
    pub(crate) fn push(&mut self, what: T, bytes: usize, places: Places) {
        self.waiting.push_back(Entrant {
            what,
            bytes,
            places,
        });
    }

    /// The partitions have changed.
    pub(crate) fn relocate(&mut self, places: impl Fn(&T) -> Places) {
        for entrant in &mut self.waiting {
            entrant.places = places(&entrant.what);
        }
    }

    /// Everyone, whether there is room or not.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = T> {
        std::mem::take(&mut self.waiting)
            .into_iter()
            .map(|entrant| entrant.what)
    }

    /// Takes out the next that may come in. To be called again with what is held then, until it returns `None`.
    pub(crate) fn next(&mut self, held: &Held) -> Option<T> {
        let mut awaited = vec![false; held.partitions.len()];
        let at = self.waiting.iter().position(|entrant| {
            let fits = held.bytes == 0 || held.bytes + entrant.bytes <= self.max_bytes;
            if !fits {
                awaited.fill(true);
                return false;
            }
            let full = |at: usize| held.partitions[at] > self.max_bytes / 2;
            let blocked = match &entrant.places {
                Places::Some(places) => places.iter().any(|&at| awaited[at] || full(at)),
                Places::All => (0..awaited.len()).any(|at| awaited[at] || full(at)),
            };
            if blocked {
                match &entrant.places {
                    Places::Some(places) => places.iter().for_each(|&at| awaited[at] = true),
                    Places::All => awaited.fill(true),
                }
            }
            !blocked
        })?;
        self.waiting.remove(at).map(|entrant| entrant.what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(partitions: &[usize]) -> Held {
        Held {
            bytes: partitions.iter().sum(),
            partitions: partitions.to_vec(),
        }
    }

    fn admission(entrants: &[(&'static str, usize, &[usize])]) -> Admission<&'static str> {
        let mut admission = Admission::new(100);
        for &(name, bytes, places) in entrants {
            admission.push(name, bytes, Places::Some(places.to_vec()));
        }
        admission
    }

    #[test]
    fn submissions_come_in_as_they_came_while_there_is_room() {
        let mut waiting = admission(&[("a", 60, &[0]), ("b", 30, &[1])]);
        assert_eq!(waiting.next(&held(&[0, 0])), Some("a"));
        assert_eq!(waiting.next(&held(&[0, 71])), None);
        assert_eq!(waiting.next(&held(&[0, 50])), Some("b"));
        assert!(waiting.is_empty());
    }

    #[test]
    fn one_that_is_larger_than_all_room_comes_in_by_itself() {
        let mut waiting = admission(&[("large", 1000, &[0]), ("b", 1, &[1])]);
        // Nobody passes it, or it would never come in.
        assert_eq!(waiting.next(&held(&[0, 1])), None);
        assert_eq!(waiting.next(&held(&[0, 0])), Some("large"));
    }

    #[test]
    fn a_full_partition_holds_up_its_own_only() {
        let waiting = || {
            admission(&[
                ("hot", 1, &[0]),
                ("both", 1, &[0, 1]),
                ("behind both", 1, &[1]),
                ("cold", 1, &[2]),
            ])
        };
        let mut passed = waiting();
        assert_eq!(passed.next(&held(&[51, 0, 0])), Some("cold"));
        assert_eq!(passed.next(&held(&[51, 0, 1])), None);
        assert_eq!(passed.next(&held(&[50, 0, 1])), Some("hot"));
        assert_eq!(passed.next(&held(&[50, 0, 1])), Some("both"));
        assert_eq!(passed.next(&held(&[50, 0, 1])), Some("behind both"));
        let mut strict = waiting();
        strict.relocate(|_| Places::All);
        assert_eq!(strict.next(&held(&[51, 0, 0])), None);
        assert_eq!(strict.drain().count(), 4);
    }

    /// Two for one partition never change places, and in the end everyone has come in.
    #[test]
    fn random_worlds_keep_the_order_in_each_partition() {
        for seed in 0..500 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut waiting = Admission::new(100);
            let mut inside: Vec<(usize, usize)> = Vec::new();
            let mut came: Vec<Vec<u32>> = vec![Vec::new(); 3];
            let (mut next, mut admitted) = (0, 0);
            while admitted < 60 {
                if next < 60 && random.bool() {
                    let mut places = vec![random.usize(0..3)];
                    places.extend((random.u8(0..4) == 0).then(|| random.usize(0..3)));
                    places.sort_unstable();
                    places.dedup();
                    let bytes = random.usize(1..70);
                    waiting.push((next, bytes, places.clone()), bytes, Places::Some(places));
                    next += 1;
                }
                let mut now = held(&[0; 3]);
                for &(at, bytes) in &inside {
                    now.partitions[at] += bytes;
                    now.bytes += bytes;
                }
                if let Some((number, bytes, places)) = waiting.next(&now) {
                    assert!(now.bytes == 0 || now.bytes + bytes <= 100, "seed {seed}");
                    admitted += 1;
                    places.iter().for_each(|&at| came[at].push(number));
                    inside.push((places[0], bytes));
                } else if !inside.is_empty() {
                    inside.swap_remove(random.usize(0..inside.len()));
                }
            }
            for numbers in came {
                assert!(numbers.is_sorted(), "seed {seed}: {numbers:?}");
            }
        }
    }
}
