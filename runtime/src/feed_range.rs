//! Names of feed ranges, and which keys they stand for.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ContinuationToken;

/// A name for a range of effective partition keys of one container, stable across runs: `min-max` in hexadecimal, the
/// interval being `[min, max)`. A name of another form stands for a range that overlaps only itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FeedRangeId(pub String);

impl fmt::Display for FeedRangeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Digits of a bound that [`FeedRangeId::divide`] computes with.
const DIGITS: usize = 16;

impl FeedRangeId {
    /// The range of the keys in `[min, max)`.
    pub fn of(min: &str, max: &str) -> Self {
        FeedRangeId(format!("{min}-{max}"))
    }

    /// The bounds `[min, max)`, in a form that compares as the keys do; `None` for a name of another form.
    pub fn bounds(&self) -> Option<(String, String)> {
        let (min, max) = self.0.split_once('-')?;
        let hexadecimal = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !hexadecimal(min) || !hexadecimal(max) {
            return None;
        }
        let (min, max) = (canonical(min), canonical(max));
        (min < max).then_some((min, max))
    }

    /// Whether a key can be in both.
    pub fn overlaps(&self, other: &FeedRangeId) -> bool {
        match (self.bounds(), other.bounds()) {
            (Some((min, max)), Some((other_min, other_max))) => min < other_max && other_min < max,
            _ => self == other,
        }
    }

    /// Whether every key of `other` is in this one.
    pub fn covers(&self, other: &FeedRangeId) -> bool {
        match (self.bounds(), other.bounds()) {
            (Some((min, max)), Some((other_min, other_max))) => {
                min <= other_min && other_max <= max
            }
            _ => self == other,
        }
    }

    /// The range in so many parts of about the same width, in key order; fewer where it is too narrow. `end` is the first
    /// value, of the leading 64 bits, that no key has: hashes need not fill the space up to `FF`.
    pub fn divide(&self, parts: usize, end: u64) -> Vec<FeedRangeId> {
        let Some((min, max)) = self.bounds() else {
            return vec![self.clone()];
        };
        let (from, to) = (
            u128::from(leading(&min)),
            u128::from(leading(&max).min(end)),
        );
        let parts = parts.max(1) as u128;
        let width = to.saturating_sub(from);
        if width < parts {
            return vec![self.clone()];
        }
        let cuts = (1..parts).map(|part| format!("{:0DIGITS$X}", from + width * part / parts));
        self.cut(cuts.map(|cut| canonical(&cut)))
    }

    /// The range cut at the bounds of `others` that lie inside it, in key order.
    pub fn cut_at<'a>(&self, others: impl IntoIterator<Item = &'a FeedRangeId>) -> Vec<Self> {
        let Some((min, max)) = self.bounds() else {
            return vec![self.clone()];
        };
        let bounds = others.into_iter().filter_map(FeedRangeId::bounds);
        let mut cuts: Vec<_> = bounds
            .flat_map(|(min, max)| [min, max])
            .filter(|cut| min < *cut && *cut < max)
            .collect();
        cuts.sort_unstable();
        cuts.dedup();
        self.cut(cuts)
    }

    /// The parts between these bounds, which lie inside the range, in order.
    fn cut(&self, cuts: impl IntoIterator<Item = String>) -> Vec<FeedRangeId> {
        let (min, max) = self.0.split_once('-').unwrap_or((&self.0, ""));
        let mut parts = Vec::new();
        let mut from = min.to_owned();
        for cut in cuts {
            parts.push(FeedRangeId::of(&from, &cut));
            from = cut;
        }
        parts.push(FeedRangeId::of(&from, max));
        parts
    }
}

/// Trailing zero bytes say nothing, and services hand out a bound with and without.
fn canonical(bound: &str) -> String {
    let mut bound = bound.to_ascii_uppercase();
    while bound.len().is_multiple_of(2) && bound.ends_with("00") {
        bound.truncate(bound.len() - 2);
    }
    bound
}

/// The leading 64 bits of a bound.
fn leading(bound: &str) -> u64 {
    let digits = &bound[..bound.len().min(DIGITS)];
    // It is hexadecimal and not too long; the empty one is the least of all.
    u64::from_str_radix(&format!("{digits:0<DIGITS$}"), 16).unwrap_or(0)
}

/// Moves the positions of a source's ranges forward (I6). A range that overlaps a moved one without being it was divided and
/// drops out: what replaces it is in `moved` as a whole.
pub(crate) fn advance(
    known: &mut BTreeMap<FeedRangeId, ContinuationToken>,
    moved: Vec<(FeedRangeId, ContinuationToken)>,
) {
    // Nearly always each is known already, and then nothing else can overlap it.
    if moved.iter().any(|(new, _)| !known.contains_key(new)) {
        let replaced =
            |id: &FeedRangeId| moved.iter().any(|(new, _)| new != id && new.overlaps(id));
        known.retain(|id, _| !replaced(id));
    }
    known.extend(moved);
}

/// Two ranges of one source that overlap, if there are any.
pub(crate) fn first_overlap<'a>(
    ranges: impl Iterator<Item = &'a FeedRangeId>,
) -> Option<(&'a FeedRangeId, &'a FeedRangeId)> {
    let mut sorted: Vec<_> = ranges
        .filter_map(|id| id.bounds().map(|bounds| (bounds, id)))
        .collect();
    sorted.sort_unstable();
    sorted
        .windows(2)
        .find(|pair| pair[1].0.0 < pair[0].0.1)
        .map(|pair| (pair[0].1, pair[1].1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> FeedRangeId {
        FeedRangeId(name.to_owned())
    }

    fn ids(names: &[&str]) -> Vec<FeedRangeId> {
        names.iter().map(|name| id(name)).collect()
    }

    fn positions(pairs: &[(&str, &str)]) -> Vec<(FeedRangeId, ContinuationToken)> {
        let position =
            |(range, token): &(&str, &str)| (id(range), ContinuationToken((*token).into()));
        pairs.iter().map(position).collect()
    }

    fn after(steps: &[&[(&str, &str)]]) -> Vec<(FeedRangeId, ContinuationToken)> {
        let mut known = BTreeMap::new();
        for step in steps {
            advance(&mut known, positions(step));
        }
        known.into_iter().collect()
    }

    #[test]
    fn divided_and_joined_ranges_replace_those_they_overlap() {
        assert_eq!(
            after(&[&[("-80", "1"), ("80-FF", "2")], &[("80-FF", "3")]]),
            positions(&[("-80", "1"), ("80-FF", "3")])
        );
        assert_eq!(
            after(&[
                &[("-80", "1"), ("80-FF", "2")],
                &[("80-C0", "3"), ("C0-FF", "4")]
            ]),
            positions(&[("-80", "1"), ("80-C0", "3"), ("C0-FF", "4")])
        );
        assert_eq!(
            after(&[&[("-80", "1"), ("80-FF", "2")], &[("-FF", "5")]]),
            positions(&[("-FF", "5")])
        );
        assert_eq!(
            after(&[&[("file", "1"), ("other-file", "2")], &[("file", "3")]]),
            positions(&[("file", "3"), ("other-file", "2")])
        );
    }

    #[test]
    fn overlaps_are_found_and_neighbours_are_none() {
        let overlapping = ids(&["80-FF", "-40", "30-50"]);
        assert!(first_overlap(overlapping.iter()).is_some());
        let tiled = ids(&["80-FF", "-40", "40-80", "file"]);
        assert_eq!(first_overlap(tiled.iter()), None);
        assert!(!id("-1000").overlaps(&id("10-20")), "the same bound");
        assert!(id("file").overlaps(&id("file")) && !id("file").overlaps(&id("-FF")));
    }

    #[test]
    fn parts_tile_what_they_are_parts_of() {
        for (range, parts, end) in [
            ("-FF", 3, 0x40 << 56),
            ("-FF", 2, u64::MAX),
            ("1FFFFFFFFFFFFFFF-3FFF", 5, 0x40 << 56),
            ("05C1-05C2", 7, u64::MAX),
        ] {
            let divided = id(range).divide(parts, end);
            assert_eq!(divided.len(), parts, "{range}");
            let bounds: Vec<_> = divided.iter().filter_map(FeedRangeId::bounds).collect();
            assert_eq!(bounds.len(), parts, "{divided:?}");
            assert!(bounds.windows(2).all(|pair| pair[0].1 == pair[1].0));
            let whole = id(range).bounds().expect("bounds");
            assert_eq!((&bounds[0].0, &bounds[parts - 1].1), (&whole.0, &whole.1));
            assert!(divided.iter().all(|part| id(range).covers(part)));
        }
        assert_eq!(id("-FF").divide(2, 0x40 << 56), ids(&["-20", "20-FF"]));
        for whole in ["10-1000000000000001", "file"] {
            assert_eq!(id(whole).divide(2, u64::MAX), ids(&[whole]));
        }
    }

    #[test]
    fn a_range_is_cut_where_others_begin_and_end_inside_it() {
        let live = ids(&["-20", "20-2800", "28-40", "40-FF"]);
        assert_eq!(
            id("10-60").cut_at(&live),
            ids(&["10-20", "20-28", "28-40", "40-60"])
        );
        assert_eq!(id("20-28").cut_at(&live), ids(&["20-28"]));
        assert_eq!(id("file").cut_at(&live), ids(&["file"]));
    }
}
