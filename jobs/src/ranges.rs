//! Which feed ranges a run reads, and from where (invariant I6).

use std::collections::BTreeMap;

use tidefeed_operators::feed::Start;
use tidefeed_runtime::{ContinuationToken, Error, ErrorKind, FeedRangeId, Result};

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
) -> Result<Vec<(FeedRangeId, Start)>> {
    let resumed = saved
        .iter()
        .map(|(range, token)| (range.clone(), Start::Token(token.clone())));
    let never_read = live
        .iter()
        .filter(|range| !saved.keys().any(|saved| saved.overlaps(range)));
    let begun = never_read.map(|range| (range.clone(), fresh.clone()));
    let mut starts: Vec<_> = resumed.chain(begun).collect();
    starts.sort_by_cached_key(|(range, _)| range.bounds());
    let whole = tile(live.iter());
    if whole.is_some() && tile(starts.iter().map(|(range, _)| range)) == whole {
        return Ok(starts);
    }
    let names = |ranges: &mut dyn Iterator<Item = &FeedRangeId>| {
        let names: Vec<_> = ranges.map(|range| range.0.as_str()).collect();
        names.join(", ")
    };
    Err(Error::new(
        ErrorKind::Checkpoint,
        format!(
            "the feed ranges saved for source {source} ({}) and those of its container now ({}) do not cover every \
             key exactly once: was the container deleted and created again? start over with --fresh",
            names(&mut saved.keys()),
            names(&mut live.iter()),
        ),
    ))
}

/// The bounds of what ranges in key order tile; `None` where they leave a gap or overlap.
fn tile<'a>(ranges: impl Iterator<Item = &'a FeedRangeId>) -> Option<(String, String)> {
    ranges
        .map(FeedRangeId::bounds)
        .reduce(|tiled, next| {
            let ((min, end), (begin, max)) = tiled.zip(next)?;
            (end == begin).then_some((min, max))
        })
        .flatten()
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
            starts
                .iter()
                .map(|(range, _)| range.clone())
                .collect::<Vec<_>>(),
            live
        );
        assert!(starts.iter().all(|(_, start)| *start == Start::Beginning));
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
        assert!(
            starts
                .iter()
                .all(|(_, start)| matches!(start, Start::Token(_)))
        );
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
        assert_eq!(starts[0], (FeedRangeId("-80".into()), Start::Beginning));
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
