//! Which feed ranges a run reads, and from where (invariant I6).

use std::collections::BTreeMap;

use tidefeed_operators::feed::{ChangeFeed, Start};
use tidefeed_runtime::{ContinuationToken, Error, ErrorKind, FeedRangeId, Result};

/// The ranges of a source and where each starts: [`tiling_starts`] where they tile, else each by itself. Of independent ranges
/// one that is saved and has gone is not read, and its token is kept in case it comes back.
///
/// # Errors
/// `Checkpoint` when ranges that tile do not any more.
pub(crate) fn starts(
    source: &str,
    feed: &dyn ChangeFeed,
    saved: &BTreeMap<FeedRangeId, ContinuationToken>,
    live: &[FeedRangeId],
    fresh: &Start,
) -> Result<Vec<(FeedRangeId, Start)>> {
    if feed.ranges_tile() {
        return tiling_starts(source, saved, live, fresh);
    }
    let start = |range: &FeedRangeId| match saved.get(range) {
        Some(token) => Start::Token(token.clone()),
        None => fresh.clone(),
    };
    let starts = live.iter().map(|range| (range.clone(), start(range)));
    Ok(starts.collect())
}

/// A saved range resumes at its token, as it was saved: the service still knows a range that it has split since. What of the live
/// ranges no saved range overlaps was never read, so it begins where a fresh run would: a run may have ended before every range
/// that it began had a durable position, and partitions may have merged since, or ranges have been parts of them from the
/// start. Together they must tile the key space.
///
/// # Errors
/// `Checkpoint` when saved ranges overlap, or lie where no live range is.
fn tiling_starts(
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
        .flat_map(|range| range.cut_at(saved.keys()))
        .filter(|part| !saved.keys().any(|saved| saved.overlaps(part)));
    let begun = never_read.map(|range| (range, fresh.clone()));
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
    use tidefeed_operators::files::{FileFeed, FilesOptions};

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
        let starts = tiling_starts("s", &BTreeMap::new(), &live, &Start::Beginning).expect("tiles");
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
        let starts = tiling_starts(
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
        let starts = tiling_starts(
            "s",
            &saved(&["80-FF"]),
            &ids(&["-80", "80-FF"]),
            &Start::Beginning,
        )
        .expect("tiles");
        assert_eq!(starts[0], (FeedRangeId("-80".into()), Start::Beginning));
    }

    /// A run that died before every range that it began had a durable position could not be gone on with, if partitions had
    /// merged by then, or its ranges were parts of partitions.
    #[test]
    fn what_is_missing_of_a_range_begins_afresh() {
        for (kept, live, begun) in [
            (
                &["-10", "20-30", "30-FF"][..],
                &["-10", "1000-3000", "30-FF"][..],
                &["1000-20"][..],
            ),
            (&["20-40"], &["-FF"], &["-20", "40-FF"]),
            (&["-60"], &["-80", "80-FF"], &["60-80", "80-FF"]),
        ] {
            let starts = tiling_starts("s", &saved(kept), &ids(live), &Start::Beginning);
            let starts = starts.expect("tiles");
            let fresh = starts
                .iter()
                .filter(|(_, start)| *start == Start::Beginning);
            let fresh: Vec<_> = fresh.map(|(range, _)| range.clone()).collect();
            assert_eq!(fresh, ids(begun));
            assert_eq!(starts.len(), kept.len() + begun.len());
        }
    }

    #[test]
    fn what_does_not_tile_is_refused() {
        for (kept, live) in [
            (&["-80", "60-FF"][..], &["-80", "80-FF"][..]),
            (&["-80", "80-FF"], &["-80"]),
        ] {
            let error = tiling_starts("s", &saved(kept), &ids(live), &Start::Beginning)
                .expect_err("no tiling");
            assert!(error.report().contains("source s"), "{}", error.report());
        }
    }

    #[test]
    fn ranges_that_are_independent_start_each_by_itself() {
        let options = FilesOptions {
            files: vec!["*".to_owned()],
            key: vec!["/id".to_owned()],
            partitioned: true,
            ..FilesOptions::default()
        };
        let feed = FileFeed::new("source.s", options).expect("sound");
        let (saved, live) = (saved(&["file:a", "file:gone"]), ids(&["file:a", "file:b"]));
        let starts = starts("s", &feed, &saved, &live, &Start::Beginning).expect("any");
        let at = ContinuationToken("at file:a".to_owned());
        let expected = [Start::Token(at), Start::Beginning];
        assert_eq!(starts, live.into_iter().zip(expected).collect::<Vec<_>>());
    }
}
