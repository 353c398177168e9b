//! The newest sealed token of every feed range, through splits and merges. Pure.

use super::objects::Tokens;
use crate::{ContinuationToken, FeedRangeId};

/// Moves the ranges of one sealed part forward. A range that overlaps a moved one without being it was split or merged
/// away and drops out.
pub(super) fn advance(
    tokens: &mut Tokens,
    source: &str,
    moved: &[(FeedRangeId, ContinuationToken)],
) {
    let known = tokens.entry(source.to_owned()).or_default();
    let replaced = |id: &FeedRangeId| moved.iter().any(|(new, _)| new != id && overlap(new, id));
    known.retain(|id, _| !replaced(id));
    known.extend(moved.iter().cloned());
}

/// Two ranges of one source that overlap, if there are any.
pub(super) fn first_overlap<'a>(
    ranges: impl Iterator<Item = &'a FeedRangeId>,
) -> Option<(&'a FeedRangeId, &'a FeedRangeId)> {
    let mut sorted: Vec<_> = ranges
        .filter_map(|id| interval(id).map(|bounds| (bounds, id)))
        .collect();
    sorted.sort_unstable();
    sorted
        .windows(2)
        .find(|pair| pair[1].0.0 < pair[0].0.1)
        .map(|pair| (pair[0].1, pair[1].1))
}

/// `[min, max)` of a range named `min-max`; `None` for a name of another form, which overlaps only itself.
fn interval(id: &FeedRangeId) -> Option<(String, String)> {
    let (min, max) = id.0.split_once('-')?;
    let hexadecimal = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let (min, max) = (min.to_ascii_uppercase(), max.to_ascii_uppercase());
    (hexadecimal(&min) && hexadecimal(&max) && min < max).then_some((min, max))
}

fn overlap(a: &FeedRangeId, b: &FeedRangeId) -> bool {
    match (interval(a), interval(b)) {
        (Some((a_min, a_max)), Some((b_min, b_max))) => a_min < b_max && b_min < a_max,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moved(pairs: &[(&str, &str)]) -> Vec<(FeedRangeId, ContinuationToken)> {
        pairs
            .iter()
            .map(|(id, token)| {
                (
                    FeedRangeId((*id).into()),
                    ContinuationToken((*token).into()),
                )
            })
            .collect()
    }

    fn after(steps: &[&[(&str, &str)]]) -> Vec<(String, String)> {
        let mut tokens = Tokens::new();
        for step in steps {
            advance(&mut tokens, "s", &moved(step));
        }
        tokens["s"]
            .iter()
            .map(|(id, token)| (id.0.clone(), token.0.clone()))
            .collect()
    }

    #[test]
    fn splits_and_merges_replace_the_ranges_they_overlap() {
        let own = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(id, token)| ((*id).to_owned(), (*token).to_owned()))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            after(&[&[("-80", "1"), ("80-FF", "2")], &[("80-FF", "3")]]),
            own(&[("-80", "1"), ("80-FF", "3")])
        );
        assert_eq!(
            after(&[
                &[("-80", "1"), ("80-FF", "2")],
                &[("80-C0", "3"), ("C0-FF", "4")]
            ]),
            own(&[("-80", "1"), ("80-C0", "3"), ("C0-FF", "4")])
        );
        assert_eq!(
            after(&[&[("-80", "1"), ("80-FF", "2")], &[("-FF", "5")]]),
            own(&[("-FF", "5")])
        );
        assert_eq!(
            after(&[&[("file", "1"), ("other-file", "2")], &[("file", "3")]]),
            own(&[("file", "3"), ("other-file", "2")])
        );
    }

    #[test]
    fn overlaps_are_found_and_neighbours_are_none() {
        let ids = |names: &[&str]| {
            names
                .iter()
                .map(|name| FeedRangeId((*name).into()))
                .collect::<Vec<_>>()
        };
        let overlapping = ids(&["80-FF", "-40", "30-50"]);
        assert!(first_overlap(overlapping.iter()).is_some());
        let tiled = ids(&["80-FF", "-40", "40-80", "file"]);
        assert_eq!(first_overlap(tiled.iter()), None);
    }
}
