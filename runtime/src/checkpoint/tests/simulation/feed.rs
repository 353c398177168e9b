//! The model source: two feed ranges, each a list of changes that become readable as time goes on.
//!
//! A token is the number of changes of its range that were read. The version of a change is its place in its range, from 1,
//! so a token covers exactly the versions up to it, and the versions of a key only rise.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;

pub(super) const SOURCE: &str = "feed";
pub(super) const RANGES: [&str; 2] = ["-80", "80-FF"];

/// How far each range was read.
pub(super) type Position = [u64; RANGES.len()];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) key: u64,
    pub(super) version: u64,
    /// False removes the document.
    pub(super) live: bool,
    at: Duration,
}

pub(super) struct Feed {
    ranges: [Vec<Change>; RANGES.len()],
}

impl Feed {
    /// Changes of `keys` keys in each range, spread over `span`.
    pub(super) fn new(rng: &mut fastrand::Rng, span: Duration, keys: u64) -> Feed {
        let mut range = |index: u64| {
            let mut times: Vec<u64> = (0..rng.usize(60..240))
                .map(|_| rng.u64(0..millis(span)))
                .collect();
            times.sort_unstable();
            let change = |(place, at): (usize, u64)| Change {
                key: rng.u64(0..keys) * RANGES.len() as u64 + index,
                version: place as u64 + 1,
                live: rng.u8(0..4) > 0,
                at: Duration::from_millis(at),
            };
            times.into_iter().enumerate().map(change).collect()
        };
        Feed {
            ranges: [range(0), range(1)],
        }
    }

    /// At most `most` changes of a range beyond `from`, as far as they can be read at `now`.
    pub(super) fn read(&self, range: usize, from: u64, now: Duration, most: usize) -> &[Change] {
        let rest = &self.ranges[range][from as usize..];
        let there = rest.iter().take(most).take_while(|change| change.at <= now);
        &rest[..there.count()]
    }

    pub(super) fn end(&self) -> Position {
        [0, 1].map(|range: usize| self.ranges[range].len() as u64)
    }

    /// The newest change of each key up to a position.
    pub(super) fn newest(&self, position: Position) -> BTreeMap<u64, Change> {
        let read = |range: usize| &self.ranges[range][..position[range] as usize];
        let changes = (0..RANGES.len()).flat_map(read);
        changes.map(|change| (change.key, *change)).collect()
    }

    /// The documents as of a position, key to version: what a view of the source must be.
    pub(super) fn view(&self, position: Position) -> BTreeMap<u64, u64> {
        let newest = self.newest(position).into_values();
        let live = newest.filter(|change| change.live);
        live.map(|change| (change.key, change.version)).collect()
    }
}

pub(super) fn range_of(key: u64) -> usize {
    (key % RANGES.len() as u64) as usize
}

pub(super) fn tokens_of(position: Position) -> Tokens {
    let ranges = RANGES.iter().zip(position).filter(|(_, read)| *read > 0);
    let tokens = ranges.map(|(range, read)| token(range, read)).collect();
    Tokens::from([(SOURCE.to_owned(), tokens)])
}

pub(super) fn token(range: &str, read: u64) -> (FeedRangeId, ContinuationToken) {
    let token = ContinuationToken(read.to_string());
    (FeedRangeId(range.to_owned()), token)
}

pub(super) fn position_of(tokens: &Tokens) -> Position {
    RANGES.map(|range| {
        let ranges = tokens.get(SOURCE);
        let token = ranges.and_then(|ranges| ranges.get(&FeedRangeId(range.to_owned())));
        token.map_or(0, |token| token.0.parse().expect("written by `token`"))
    })
}

pub(super) fn to_record(change: &Change) -> Record {
    let version = change.version.to_string();
    record(
        &format!("{:04}", change.key),
        change.live.then_some(version.as_str()),
    )
}

/// Key and version, `None` for a removal.
pub(super) fn of_record(record: &Record) -> (u64, Option<u64>) {
    let number = |bytes: &Bytes| {
        let text = std::str::from_utf8(bytes).expect("written by `to_record`");
        text.parse().expect("written by `to_record`")
    };
    (number(&record.key), record.body.as_ref().map(number))
}
