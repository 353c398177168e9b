//! Which feed ranges a run reads, and from where (invariant I6).

use std::collections::BTreeMap;

use tidefeed_operators::feed::Start;
use tidefeed_runtime::{ContinuationToken, Error, ErrorKind, FeedRangeId, Result};

/// A feed range and where to start in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RangeStart {
    pub(crate) range: FeedRangeId,
    pub(crate) start: Start,
}

/// A saved range resumes at its token, as it was saved: the service still knows a range that it has split since. A live range
/// that no saved range overlaps was never read, so it begins where a fresh run would. Together they must tile the key
/// space.
///
/// # Errors
/// `Checkpoint` when saved and live ranges leave a gap or overlap.
pub(crate) fn starts(
    source: &str,
    saved: &BTreeMap<FeedRangeId, ContinuationToken>,
    live: &[FeedRangeId],
    fresh: &Start,
) -> Result<Vec<RangeStart>> {
    let mut starts: Vec<_> = saved
        .iter()
        .map(|(range, token)| RangeStart {
            range: range.clone(),
            start: Start::Token(token.clone()),
        })
        .collect();
    for range in live {
        if !saved.keys().any(|saved| overlap(saved, range)) {
            starts.push(RangeStart {
                range: range.clone(),
                start: fresh.clone(),
            });
        }
    }
    starts.sort_by(|a, b| bounds(&a.range).cmp(&bounds(&b.range)));
    let tiles = starts
        .windows(2)
        .all(|pair| bounds(&pair[0].range).1 == bounds(&pair[1].range).0);
    let ends = |ranges: &[&FeedRangeId]| {
        let lower = ranges
            .iter()
            .map(|range| bounds(range).0)
            .min()
            .map(str::to_owned);
        let upper = ranges
            .iter()
            .map(|range| bounds(range).1)
            .max()
            .map(str::to_owned);
        (lower, upper)
    };
    let started: Vec<_> = starts.iter().map(|start| &start.range).collect();
    if !tiles || ends(&started) != ends(&live.iter().collect::<Vec<_>>()) {
        let names = |ranges: &[&FeedRangeId]| {
            ranges
                .iter()
                .map(|r| r.0.as_str())
                .collect::<Vec<_>>()
                .join(", ")
        };
        return Err(Error::new(
            ErrorKind::Checkpoint,
            format!(
                "the feed ranges saved for source {source} ({}) and those of its container now ({}) do not cover every \
                 key exactly once: was the container deleted and created again? start over with --fresh",
                names(&saved.keys().collect::<Vec<_>>()),
                names(&live.iter().collect::<Vec<_>>()),
            ),
        ));
    }
    Ok(starts)
}

/// The range as `[lower, upper)`. Bounds are hexadecimal strings that compare as text.
fn bounds(range: &FeedRangeId) -> (&str, &str) {
    range.0.split_once('-').unwrap_or((&range.0, ""))
}

fn overlap(a: &FeedRangeId, b: &FeedRangeId) -> bool {
    let ((a_lower, a_upper), (b_lower, b_upper)) = (bounds(a), bounds(b));
    a_lower < b_upper && b_lower < a_upper
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(names: &[&str]) -> Vec<FeedRangeId> {
        names
            .iter()
            .map(|name| FeedRangeId((*name).to_owned()))
            .collect()
    }

    fn saved(names: &[&str]) -> BTreeMap<FeedRangeId, ContinuationToken> {
        ids(names)
            .into_iter()
            .map(|range| (range.clone(), ContinuationToken(format!("at {range}"))))
            .collect()
    }

    #[test]
    fn a_fresh_run_reads_the_live_ranges() {
        let live = ids(&["-80", "80-FF"]);
        let starts = starts("s", &BTreeMap::new(), &live, &Start::Beginning).expect("tiles");
        assert_eq!(
            starts.iter().map(|s| s.range.clone()).collect::<Vec<_>>(),
            live
        );
        assert!(starts.iter().all(|s| s.start == Start::Beginning));
    }

    #[test]
    fn a_saved_range_is_resumed_even_if_it_has_been_split() {
        let starts = starts(
            "s",
            &saved(&["-80", "80-FF"]),
            &ids(&["-40", "40-80", "80-FF"]),
            &Start::Now,
        )
        .expect("tiles");
        assert_eq!(starts.len(), 2);
        assert!(starts.iter().all(|s| matches!(s.start, Start::Token(_))));
    }

    #[test]
    fn a_range_that_was_never_read_begins_afresh() {
        let starts = starts(
            "s",
            &saved(&["80-FF"]),
            &ids(&["-80", "80-FF"]),
            &Start::Beginning,
        )
        .expect("tiles");
        assert_eq!(
            starts[0],
            RangeStart {
                range: FeedRangeId("-80".into()),
                start: Start::Beginning
            }
        );
    }

    #[test]
    fn gaps_and_overlaps_are_refused() {
        for (kept, live) in [
            (&["-60"][..], &["-80", "80-FF"][..]),
            (&["-80", "60-FF"], &["-80", "80-FF"]),
        ] {
            let error =
                starts("s", &saved(kept), &ids(live), &Start::Beginning).expect_err("no tiling");
            assert!(error.report().contains("source s"), "{}", error.report());
        }
    }
}
