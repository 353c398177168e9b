//! Flights without a server: documents as records, made from a number, and a change feed of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tidefeed_operators::feed::{ChangeFeed, Page, PageStream, Start};
use tidefeed_operators::target::DocumentWrite;
use tidefeed_runtime::{ContinuationToken, Error, FeedRangeId, Record, Result};

const RANGE: &str = "-FF";
const PAGE: u64 = 1000;

/// A number that looks random, the same for the same number.
pub fn mixed(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20
}

/// A change of the flight `key`, about 250 bytes of JSON.
pub fn flight(number: u64, key: u64) -> Record {
    let mixed = mixed(number);
    let body = format!(
        "{{\"id\":\"flight-{key}\",\"carrier\":\"C{}\",\"origin\":\"A{}\",\"destination\":\"B{}\",\"delay\":{},\"status\":\"departed\",\
         \"tail\":\"N{mixed:012x}\",\"scheduled\":\"2024-05-{:02}T{:02}:{:02}:00Z\",\"distance\":{},\"aircraft\":\"B737-{}\",\"gate\":\"G{}\"}}",
        key % 17,
        key % 300,
        mixed % 299,
        mixed % 180,
        1 + mixed % 28,
        mixed % 24,
        mixed % 60,
        mixed % 9000,
        mixed % 900,
        mixed % 80,
    );
    Record {
        key: Bytes::from(format!("[\"C{}\",\"flight-{key}\"]", key % 17)),
        body: Some(Bytes::from(body)),
    }
}

/// The flight of this number as it is written to a container whose partition key is the carrier.
pub fn flight_document(number: usize) -> DocumentWrite {
    let number = number as u64;
    let body = flight(number, number).body.unwrap_or_default();
    let partition_key = format!("[\"C{}\"]", number % 17);
    DocumentWrite::upsert(partition_key, format!("flight-{number}"), body)
}

/// What the benchmarks' dataflows read of a flight.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Flight {
    /// Identity.
    pub id: String,
    /// One of 17.
    pub carrier: String,
    /// Minutes.
    pub delay: i64,
}

/// A change feed with one range: change `n` is of flight `n`, or of a random one once there are `keys` flights. Clones share
/// what has been written.
#[derive(Clone)]
pub struct FlightFeed {
    /// Changes written so far.
    pub written: Arc<AtomicU64>,
    keys: u64,
    /// The first changes, which then come again and again; without any, each is made when it is read.
    made: Arc<[Record]>,
}

impl FlightFeed {
    /// A feed in which nothing is written yet, with so many changes made in advance.
    pub fn new(keys: u64, made: u64) -> Self {
        let mut feed = FlightFeed {
            written: Arc::default(),
            keys,
            made: Arc::default(),
        };
        feed.made = (0..made).map(|number| feed.change(number)).collect();
        feed
    }

    /// Itself, for whoever takes any change feed.
    pub fn shared(&self) -> Arc<dyn ChangeFeed> {
        Arc::new(self.clone())
    }

    fn change(&self, number: u64) -> Record {
        if !self.made.is_empty() {
            return self.made[(number % self.made.len() as u64) as usize].clone();
        }
        if number < self.keys {
            flight(number, number)
        } else {
            flight(number, mixed(number) % self.keys)
        }
    }
}

#[async_trait]
impl ChangeFeed for FlightFeed {
    async fn ranges(&self) -> Result<Vec<FeedRangeId>> {
        Ok(vec![FeedRangeId(RANGE.into())])
    }

    async fn open(&self, _range: &FeedRangeId, start: Start) -> Result<Box<dyn PageStream>> {
        let next = match start {
            Start::Token(token) => token
                .0
                .parse()
                .map_err(|error| Error::internal("a token is a number").with_source(error))?,
            _ => 0,
        };
        let feed = self.clone();
        Ok(Box::new(FlightPages { feed, next }))
    }
}

struct FlightPages {
    feed: FlightFeed,
    next: u64,
}

#[async_trait]
impl PageStream for FlightPages {
    async fn next_page(&mut self) -> Result<Page> {
        let written = self.feed.written.load(Ordering::Acquire);
        let end = written.min(self.next + PAGE).max(self.next);
        let records = (self.next..end).map(|n| self.feed.change(n)).collect();
        self.next = end;
        Ok(Page {
            records,
            // A token may be ahead of a feed that was made anew: nothing is left then.
            caught_up: end >= written,
            ..Page::at(ContinuationToken(end.to_string()))
        })
    }
}
