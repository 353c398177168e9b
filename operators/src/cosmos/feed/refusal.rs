//! What a person is told about a feed range that cannot be read, and when a position has expired.

use std::time::Duration;

use azure_data_cosmos::options::ChangeFeedStartFrom;
use tidefeed_runtime::{Error, ErrorKind, FeedRangeId};

use super::CosmosFeed;
use super::config::{FeedMode, OnExpired};
use super::cursor::Place;
use super::stream::now;
use crate::cosmos::failure::Failure;
use crate::cosmos::status::Disposition;
use crate::feed::ExpiredPosition;

/// The shortest retention that continuous backup gives, which the properties of a container do not state.
const SHORTEST_BACKUP: Duration = Duration::from_secs(7 * 24 * 3600);

/// The error of a failure that no retry can mend. `at` is given for a position in the feed of all versions: when it was
/// current, in seconds since 1970.
pub(super) fn error(
    failure: Failure,
    feed: &CosmosFeed,
    id: &FeedRangeId,
    place: &Place,
    at: Option<u64>,
) -> Error {
    let container = &feed.container;
    let at_token = matches!(place, Place::Token(_));
    let age = at.map(|at| Duration::from_secs(now().saturating_sub(at)));
    match failure.disposition {
        Disposition::NoDocument | Disposition::NoContainer => failure.into_error(format!(
            "container {container} does not exist any more, or was created anew"
        )),
        // The SDK refuses a token that it cannot read, or that names another container, before it asks the service.
        Disposition::Rejected | Disposition::Broken if !failure.from_service && at_token => {
            Error::new(
                ErrorKind::Checkpoint,
                format!("the token for feed range {id} of container {container} is not usable"),
            )
            .with_source(failure.message)
        }
        _ if at_token && has_expired(&failure, age, feed.retention()) => {
            let age = age.map_or_else(String::new, |age| format!(" ({})", rough(age)));
            let reload = feed.config.on_expired == OnExpired::Reload;
            Error::new(
                ErrorKind::Checkpoint,
                format!(
                    "the position in feed range {id} of {container} is older than the retention of the feed{age}, and what changed \
                     since then is lost for good: start over with --fresh, or set on_expired = \"reload\" for the source"
                ),
            )
            .with_source(ExpiredPosition::new(reload, failure.message))
        }
        Disposition::Rejected if is_start_of_all_versions(feed, place) => {
            failure.into_error(format!(
                "cannot read all versions and deletes of container {container}: it needs continuous backup, or a retention in its \
                 change feed policy"
            ))
        }
        _ => failure.into_error(format!(
            "cannot read feed range {id} of container {container}"
        )),
    }
}

fn is_start_of_all_versions(feed: &CosmosFeed, place: &Place) -> bool {
    feed.config.mode == FeedMode::AllVersionsAndDeletes
        && matches!(place, Place::Start(ChangeFeedStartFrom::Now))
}

/// The service has no status of its own for this, and how it words it is not promised. So a position counts as expired when it
/// is refused and the refusal speaks of retention, or it is known to be older than that.
fn has_expired(failure: &Failure, age: Option<Duration>, retention: Option<Duration>) -> bool {
    let retention = retention.unwrap_or(SHORTEST_BACKUP);
    let refused = failure.from_service && failure.status == 400;
    let says_so = failure.message.to_lowercase().contains("retention");
    refused && age.is_some_and(|age| says_so || age >= retention)
}

/// Whether a position should worry whoever runs the job: half of its life is over.
pub(super) fn is_old(age: Duration, retention: Duration) -> bool {
    age > retention / 2
}

/// In the unit that a person would use.
pub(super) fn rough(age: Duration) -> String {
    match age.as_secs() {
        seconds @ 0..120 => format!("{seconds} s old"),
        seconds @ 120..7200 => format!("{} min old", seconds / 60),
        seconds @ 7200..172_800 => format!("{} h old", seconds / 3600),
        seconds => format!("{} days old", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, message: &str, from_service: bool) -> Failure {
        Failure {
            status,
            from_service,
            ..Failure::transient(message)
        }
    }

    #[test]
    fn a_position_has_expired_when_the_service_says_so_or_it_must_have() {
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        let vague = || refused(400, "BadRequest: no", true);
        let clear = || refused(400, "older than the Retention", true);
        for (failure, age, retention, expected) in [
            (clear(), Some(hours(1)), None, true),
            (clear(), None, None, false),
            (vague(), Some(hours(1)), None, false),
            (vague(), Some(hours(24 * 7)), None, true),
            (vague(), Some(hours(5)), Some(hours(4)), true),
            (vague(), Some(hours(5)), Some(hours(6)), false),
            (
                refused(400, "retention", false),
                Some(hours(99)),
                None,
                false,
            ),
            (
                refused(500, "retention", true),
                Some(hours(99)),
                None,
                false,
            ),
        ] {
            assert_eq!(
                has_expired(&failure, age, retention),
                expected,
                "{failure:?} {age:?}"
            );
        }
    }

    #[test]
    fn half_of_the_retention_is_old() {
        let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
        assert!(!is_old(minutes(29), minutes(60)));
        assert!(is_old(minutes(31), minutes(60)));
    }

    #[test]
    fn ages_are_in_a_unit_that_fits() {
        let said = |seconds| rough(Duration::from_secs(seconds));
        assert_eq!(said(90), "90 s old");
        assert_eq!(said(600), "10 min old");
        assert_eq!(said(36_000), "10 h old");
        assert_eq!(said(700_000), "8 days old");
    }
}
