//! The server's own share of a feed page: pages are read and counted, and not parsed.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::Outcome;
use crate::documents::DATABASE;
use crate::feed_pages::PAGE_SIZE;
use crate::raw_http::RawClient;
use crate::server::ServerProcess;

/// Reads a container's change feed from its beginning to its end, range after range, and over again.
pub struct RawFeed {
    client: RawClient,
    path: String,
    ranges: Vec<String>,
    /// Which range is read.
    range: usize,
    /// The continuation in it, if it is not at its beginning.
    position: Option<String>,
}

/// The map of ranges, as far as it matters here.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RangeMap {
    partition_key_ranges: Vec<Identified>,
}

/// A page, as far as it matters here.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Page {
    documents: Vec<Identified>,
}

#[derive(Deserialize)]
struct Identified {
    id: String,
}

/// The ids of a container's partition key ranges, in key order.
///
/// # Errors
/// When the server does not answer, or refuses.
pub fn range_ids(client: &mut RawClient, container: &str) -> Outcome<Vec<String>> {
    let path = format!("/dbs/{DATABASE}/colls/{container}/pkranges");
    let reply = client.send("GET", &path, &[], &[])?;
    reply.expect(&[200])?;
    let map: RangeMap = serde_json::from_slice(&reply.body)?;
    Ok(map
        .partition_key_ranges
        .into_iter()
        .map(|range| range.id)
        .collect())
}

impl RawFeed {
    /// Of a container of this server.
    ///
    /// # Errors
    /// When the server cannot be reached.
    pub fn connect(server: &ServerProcess, container: &str) -> Outcome<Self> {
        let mut client = RawClient::connect(server)?;
        Ok(RawFeed {
            ranges: range_ids(&mut client, container)?,
            client,
            path: format!("/dbs/{DATABASE}/colls/{container}/docs"),
            range: 0,
            position: None,
        })
    }

    /// The time of the next full page. Pages that are not full are read and not timed.
    ///
    /// # Errors
    /// When the server does not answer, or refuses.
    pub fn timed_page(&mut self) -> Outcome<Duration> {
        loop {
            match self.page()? {
                (0, _) => self.next_range(),
                (PAGE_SIZE, time) => return Ok(time),
                _ => {}
            }
        }
    }

    /// Reads to the end, and returns the time of a poll that finds nothing.
    ///
    /// # Errors
    /// When the server does not answer, or refuses.
    pub fn timed_idle_poll(&mut self) -> Outcome<Duration> {
        loop {
            if let (0, time) = self.page()? {
                return Ok(time);
            }
        }
    }

    /// How many different documents the feed has; this reads and parses all of it.
    ///
    /// # Errors
    /// When the server does not answer, or refuses, or a page does not hold what it says.
    pub fn distinct_documents(&mut self) -> Outcome<usize> {
        let mut ids = HashSet::new();
        for range in 0..self.ranges.len() {
            (self.range, self.position) = (range, None);
            loop {
                let (items, _) = self.page()?;
                if items == 0 {
                    break;
                }
                let page: Page = serde_json::from_slice(&self.client.reply().body)?;
                if page.documents.len() != items as usize {
                    return Err("a page does not hold as many documents as it says".into());
                }
                ids.extend(page.documents.into_iter().map(|document| document.id));
            }
        }
        self.next_range();
        Ok(ids.len())
    }

    fn next_range(&mut self) {
        self.range = (self.range + 1) % self.ranges.len();
        self.position = None;
    }

    /// Reads the next page: how many documents it says it has, and its time.
    fn page(&mut self) -> Outcome<(u32, Duration)> {
        let begun = Instant::now();
        let page_size = PAGE_SIZE.to_string();
        let mut headers = vec![
            ("a-im", "Incremental Feed"),
            (
                "x-ms-documentdb-partitionkeyrangeid",
                self.ranges[self.range].as_str(),
            ),
            ("x-ms-max-item-count", page_size.as_str()),
        ];
        headers.extend(
            self.position
                .iter()
                .map(|etag| ("if-none-match", etag.as_str())),
        );
        let reply = self.client.send("GET", &self.path, &headers, &[])?;
        let time = begun.elapsed();
        reply.expect(&[200, 304])?;
        let items = match reply.status {
            200 => reply.header("x-ms-item-count").parse()?,
            _ => 0,
        };
        self.position = Some(reply.header("etag").to_owned());
        Ok((items, time))
    }
}
