//! Which physical partition holds a document.
//!
//! A container's key space `["", FF)` is tiled by ranges, one for each physical partition. A document's place in it is its
//! effective partition key, a hash that others compute; this is only bytes and their order.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use smallvec::SmallVec;

/// An effective partition key, or a bound between ranges of them.
///
/// One of a container with one partition key path has 16 bytes, which need no allocation.
///
/// Zero bytes at the end have no meaning: the service sends the same bound with and without them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoutingKey(SmallVec<[u8; 16]>);

impl RoutingKey {
    /// The key with these bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self::trimmed(SmallVec::from_vec(bytes))
    }

    fn trimmed(mut bytes: SmallVec<[u8; 16]>) -> Self {
        // Without them, the order of the bytes is the order of the keys, however they were padded.
        let len = bytes
            .iter()
            .rposition(|&byte| byte != 0)
            .map_or(0, |at| at + 1);
        bytes.truncate(len);
        RoutingKey(bytes)
    }

    /// The key that the service writes as this hexadecimal text, of either case. `None` if it is no such text.
    pub fn from_hex(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let byte = |pair: &[u8]| Some((digit(pair[0])? << 4 | digit(pair[1])?) as u8);
        let pairs = digits.chunks_exact(2);
        if !pairs.remainder().is_empty() {
            return None;
        }
        pairs.map(byte).collect::<Option<_>>().map(Self::trimmed)
    }
}

impl RoutingKey {
    /// Its bytes, without zeros at the end.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for RoutingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02X}"))?;
        write!(f, "\"")
    }
}

/// The service's name of a physical partition.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RangeId(Arc<str>);

impl RangeId {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for RangeId {
    fn from(id: &str) -> Self {
        RangeId(id.into())
    }
}

impl fmt::Display for RangeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One physical partition as the service describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct RangeRecord {
    /// Its name.
    pub id: RangeId,
    /// Its lower bound, inclusive.
    pub lower: RoutingKey,
    /// Its upper bound, exclusive.
    pub upper: RoutingKey,
    /// The ranges that it came from.
    pub parents: Vec<RangeId>,
    /// Its share of the container's throughput, 0 to 1, if the service says.
    pub throughput_fraction: Option<f64>,
}

/// The ranges as they were read do not tile the key space: they changed while they were read. Read them again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoTiling(String);

impl fmt::Display for NoTiling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the partition key ranges do not tile the key space: {}",
            self.0
        )
    }
}

impl std::error::Error for NoTiling {}

/// The ranges of a container, in the order of their keys.
#[derive(Clone, Debug)]
pub struct RoutingMap {
    ranges: Vec<RangeRecord>,
    index: HashMap<RangeId, usize>,
}

impl RoutingMap {
    /// The map of these ranges. Ranges that others name as parents are gone, and are left out.
    ///
    /// # Errors
    /// When the rest does not tile the key space.
    pub fn of(records: Vec<RangeRecord>) -> Result<Self, NoTiling> {
        let parents = records.iter().flat_map(|record| &record.parents);
        let gone: HashSet<RangeId> = parents.cloned().collect();
        let mut ranges = records;
        ranges.retain(|record| !gone.contains(&record.id));
        ranges.sort_by(|a, b| (&a.lower, &a.id).cmp(&(&b.lower, &b.id)));
        tiles(&ranges)?;
        let ids = ranges.iter().map(|range| range.id.clone());
        let index: HashMap<_, _> = ids.zip(0..).collect();
        if index.len() < ranges.len() {
            return Err(NoTiling("two ranges have the same id".to_owned()));
        }
        Ok(RoutingMap { ranges, index })
    }

    /// The ranges in the order of their keys.
    pub fn ranges(&self) -> &[RangeRecord] {
        &self.ranges
    }

    /// The position in [`ranges`](Self::ranges) of the range that holds `key`.
    pub fn position_of(&self, key: &RoutingKey) -> usize {
        let after = self.ranges.partition_point(|range| range.lower <= *key);
        // The first lower bound is the least key of all.
        after.saturating_sub(1)
    }

    /// The position of the range with this name.
    pub fn position(&self, id: &RangeId) -> Option<usize> {
        self.index.get(id).copied()
    }
}

fn tiles(ranges: &[RangeRecord]) -> Result<(), NoTiling> {
    let mut reached = RoutingKey::new(Vec::new());
    for RangeRecord {
        id, lower, upper, ..
    } in ranges
    {
        if *lower != reached {
            let what = if *lower > reached {
                "a gap"
            } else {
                "an overlap"
            };
            return Err(NoTiling(format!("{what} at {reached:?} before range {id}")));
        }
        if upper <= lower {
            return Err(NoTiling(format!("range {id} is empty")));
        }
        reached = upper.clone();
    }
    let end = RoutingKey::new(vec![0xFF]);
    if reached != end {
        return Err(NoTiling(format!("they end at {reached:?}, not at {end:?}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(id: &str, lower: &str, upper: &str, parents: &[&str]) -> RangeRecord {
        RangeRecord {
            id: id.into(),
            lower: RoutingKey::from_hex(lower).unwrap(),
            upper: RoutingKey::from_hex(upper).unwrap(),
            parents: parents.iter().map(|&parent| parent.into()).collect(),
            throughput_fraction: None,
        }
    }

    fn hex(text: &str) -> RoutingKey {
        RoutingKey::from_hex(text).unwrap()
    }

    #[test]
    fn keys_compare_as_if_padded_with_zeros() {
        assert_eq!(hex("05c1"), hex("05C10000"));
        assert!(hex("05C1") < hex("05C10001"));
        assert!(hex("05C1FF") < hex("05C2"));
        assert!(hex("") < hex("01"));
        assert_eq!(hex(""), hex("0000"));
        assert_eq!(RoutingKey::from_hex("0"), None);
        assert_eq!(RoutingKey::from_hex("0G"), None);
        assert_eq!(RoutingKey::from_hex("é"), None);
        assert_eq!(format!("{:?}", hex("0a0B")), "\"0A0B\"");
    }

    #[test]
    fn a_key_is_in_the_range_that_begins_at_or_before_it() {
        let map = RoutingMap::of(vec![
            range("2", "1FFF", "FF", &["0"]),
            range("0", "", "FF", &[]),
            range("1", "", "1FFF", &["0"]),
        ])
        .unwrap();
        let ids: Vec<_> = map.ranges().iter().map(|range| range.id.as_str()).collect();
        assert_eq!(ids, ["1", "2"]);
        for (key, at) in [("", 0), ("1FFE", 0), ("1FFEFF", 0), ("1FFF", 1), ("3F", 1)] {
            assert_eq!(map.position_of(&hex(key)), at, "{key}");
        }
        assert_eq!(map.position(&"2".into()), Some(1));
        assert_eq!(map.position(&"0".into()), None);
    }

    /// Against a search that looks at every range.
    #[test]
    fn random_maps_route_as_a_search_does() {
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut bounds: Vec<u8> = (0..random.usize(0..20))
                .map(|_| random.u8(1..0xFF))
                .collect();
            bounds.sort_unstable();
            bounds.dedup();
            let uppers = bounds.iter().chain([&0xFF]);
            let lowers = [0].into_iter().chain(bounds.iter().copied());
            let mut records: Vec<_> = lowers
                .zip(uppers)
                .map(|(l, u)| {
                    range(
                        &l.to_string(),
                        &format!("{l:02x}"),
                        &format!("{u:02x}"),
                        &[],
                    )
                })
                .collect();
            random.shuffle(&mut records);
            let map = RoutingMap::of(records.clone()).unwrap();
            for _ in 0..50 {
                let key = RoutingKey::new(vec![random.u8(0..0x40), random.u8(..)]);
                let found = &map.ranges()[map.position_of(&key)];
                let expected = records.iter().find(|r| r.lower <= key && key < r.upper);
                assert_eq!(Some(found), expected, "seed {seed}");
            }
        }
    }

    #[test]
    fn what_does_not_tile_is_refused() {
        let refused = |ranges: &[RangeRecord]| RoutingMap::of(ranges.to_vec()).unwrap_err().0;
        let cases = [
            (vec![], "they end at"),
            (vec![range("0", "10", "FF", &[])], "a gap"),
            (vec![range("0", "", "10", &[])], "they end at"),
            (
                vec![range("0", "", "20", &[]), range("1", "10", "FF", &[])],
                "an overlap",
            ),
            (
                vec![range("0", "", "10", &[]), range("1", "20", "FF", &[])],
                "a gap",
            ),
            (
                vec![range("0", "", "FF", &[]), range("1", "", "10", &["0"])],
                "they end at",
            ),
            (
                vec![range("0", "", "10", &[]), range("1", "10", "10", &[])],
                "is empty",
            ),
            (
                vec![range("0", "", "10", &[]), range("0", "10", "FF", &[])],
                "same id",
            ),
        ];
        for (ranges, why) in cases {
            let said = refused(&ranges);
            assert!(said.contains(why), "{ranges:?}: {said}");
        }
    }
}
