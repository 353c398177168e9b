//! Pages that are too much, and a budget of request units.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use tidefeed_emulator::{FaultAction, FaultOperation, FaultRule};
use tidefeed_operators::cosmos::{BackoffConfig, FeedConfig};
use tidefeed_operators::feed::Start;
use tidefeed_runtime::ErrorKind;

use super::super::conformance::numbered;
use super::*;

fn quick(most: u32) -> FeedConfig {
    FeedConfig {
        backoff: BackoffConfig {
            initial: Duration::from_millis(1),
            max: Duration::from_millis(5),
            jitter: 0.5,
        },
        ..page_size(most)
    }
}

fn refusing(place: &Place, action: FaultAction, times: u64) {
    let rule = FaultRule::new(action).on(&[FaultOperation::ChangeFeed]);
    let rule = rule.in_container(DATABASE, CONTAINER).times(times);
    place.server.set_faults(1, vec![rule]).unwrap();
}

fn too_large() -> FaultAction {
    FaultAction::Status {
        status: 400,
        substatus: None,
        retry_after_ms: None,
        message: Some("The response is too large. Reduce page size and try again.".to_owned()),
    }
}

async fn filled() -> Place {
    let place = Place::with(1).await;
    place.write_each(numbered(0..400, 400, 0)).await;
    place
}

#[tokio::test]
async fn a_page_that_is_too_much_is_asked_for_in_halves() {
    // A timeout is repeated by the SDK first, so it takes many until one is told.
    for (action, times) in [
        (FaultAction::status(413), 3),
        (too_large(), 3),
        (FaultAction::status(408), 24),
    ] {
        let place = filled().await;
        let feed = place.feed(quick(64));
        refusing(&place, action.clone(), times);
        let (_, mut stream) = open_all(&feed, Start::Beginning).await.remove(0);
        let pages = read_up(&mut stream).await.unwrap();
        let sizes: Vec<usize> = pages.iter().map(|page| page.records.len()).collect();
        let all: usize = sizes.iter().sum();
        assert_eq!(all, 400, "{action:?}");
        let first = sizes[0];
        assert!(first < 64, "{action:?}: {sizes:?}");
        let largest = sizes.iter().max().unwrap();
        assert!(largest > &first && *largest <= 64, "{action:?}: {sizes:?}");
    }
}

/// Every page tells how far it is to the end, and what it took to get it.
#[tokio::test]
async fn pages_tell_what_remains_and_how_often_they_were_put_off() {
    let place = filled().await;
    let feed = place.feed(quick(64));
    let throttled = FaultAction::Status {
        status: 429,
        substatus: Some(3200),
        retry_after_ms: Some(1),
        message: None,
    };
    refusing(&place, throttled, 5);
    let (_, mut stream) = open_all(&feed, Start::Beginning).await.remove(0);
    let pages = read_up(&mut stream).await.unwrap();
    let mut left = 400;
    for page in &pages {
        left -= page.records.len() as u64;
        assert_eq!(page.remaining, Some(left), "{page:?}");
    }
    let throttled: Vec<u64> = pages.iter().map(|page| page.spent.throttled).collect();
    assert_eq!(throttled[0], 5);
    assert_eq!(throttled.iter().sum::<u64>(), 5);
}

#[tokio::test]
async fn a_page_of_one_that_is_too_large_ends_the_run() {
    let place = filled().await;
    let feed = place.feed(quick(64));
    refusing(&place, FaultAction::status(413), 1000);
    let (range, mut stream) = open_all(&feed, Start::Beginning).await.remove(0);
    let error = read_up(&mut stream).await.expect_err("it never fits");
    assert_eq!(error.kind(), ErrorKind::Rejected, "{error:?}");
    assert!(error.report().contains(&range.0), "{}", error.report());
    // 64, 32, 16, 8, 4, 2 and 1.
    assert_eq!(place.server.fault_hits(), [7]);
}

/// All ranges together spend what the budget allows, and not more: beyond the first second of it, charges take their time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ranges_of_a_source_share_its_budget() {
    const BUDGET: f64 = 150.0;
    let place = Place::with(3).await;
    place.write_each(numbered(0..300, 300, 0)).await;
    let feed = place.feed(FeedConfig {
        ru_per_second: NonZeroU32::new(BUDGET as u32),
        ..quick(5)
    });
    let started = Instant::now();
    let mut reading = Vec::new();
    for (_, mut stream) in open_all(&feed, Start::Beginning).await {
        reading.push(tokio::spawn(
            async move { read_up(&mut stream).await.unwrap() },
        ));
    }
    let (mut charge, mut largest, mut found) = (0.0, 0.0f64, 0);
    for reading in reading {
        for page in reading.await.unwrap() {
            charge += page.spent.charge_ru;
            largest = largest.max(page.spent.charge_ru);
            found += page.records.len();
        }
    }
    let elapsed = started.elapsed().as_secs_f64();
    assert_eq!(found, 300);
    assert!(charge > 2.0 * BUDGET, "{charge} RU: the test tests nothing");
    let least = (charge - BUDGET - 3.0 * largest) / BUDGET;
    assert!(elapsed >= least, "{charge} RU in {elapsed} s");
}
