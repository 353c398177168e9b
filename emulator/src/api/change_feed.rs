//! The change feed, in LatestVersion mode.
//!
//! Rules:
//! 1. The feed of a partition is its current documents in the order of their newest LSN. An update moves a document to
//!    the end; deletes and intermediate versions are not in it.
//! 2. A page ends between LSNs, never inside one, so a batch is never split. The page size is a hint below that.
//! 3. The continuation is the LSN up to which everything in scope was returned. It is the `etag` of every reply, and of
//!    304 too; a client sends it as `If-None-Match`.
//! 4. `If-None-Match: *` means "from now on". `If-Modified-Since` starts at the first change with `_ts` at that second
//!    or later.
//! 5. A page costs the documents returned (for a part of a partition: looked at), an idle poll costs nothing.

use std::time::UNIX_EPOCH;

use hyper::StatusCode;
use hyper::header::{IF_MODIFIED_SINCE, IF_NONE_MATCH};

use super::items::located;
use super::scope::{self, Piece};
use crate::http::{ApiError, ApiResult, Call, Reply, headers};
use crate::ids::now_seconds;
use crate::json::write_number;
use crate::ru::Charge;
use crate::store::{Container, Document};

/// Bytes after which a page ends, at the next LSN.
const PAGE_BYTES: usize = 4 * 1024 * 1024;

/// Where a read begins: after an LSN, and not before a second.
#[derive(Clone, Copy)]
struct Start {
    /// `None`: from now on.
    after: Option<u64>,
    since: Option<u32>,
}

/// `GET docs` with `A-IM`.
pub fn read(container: &Container, call: &Call<'_>) -> ApiResult {
    let mode = call.header(&headers::A_IM).unwrap_or_default();
    if mode.eq_ignore_ascii_case("Full-Fidelity Feed") {
        return Err(ApiError::unsupported(
            "the change feed mode AllVersionsAndDeletes",
        ));
    }
    if !mode.eq_ignore_ascii_case("Incremental Feed") {
        return Err(ApiError::bad_request(format!(
            "the A-IM value {mode} is unknown: use Incremental Feed"
        )));
    }
    let envelope = match call.header(&headers::WIRE_FORMAT) {
        None => false,
        Some("2021-09-15") => true,
        Some(other) => {
            return Err(ApiError::unsupported(format!(
                "the change feed wire format {other}"
            )));
        }
    };
    let most = call.page_items()?;
    let start = start(call)?;
    let pieces = scope::of(container, call)?;
    let [piece] = pieces.as_slice() else {
        return Err(ApiError::bad_request(
            "a change feed read needs one partition: send x-ms-documentdb-partitionkeyrangeid or a partition key",
        ));
    };
    let shard = piece.partition.read();
    let end = shard.lsn();
    let mut page = Page::new(container, piece, most, envelope);
    match start {
        Start { after: None, .. } => {}
        Start {
            after: Some(lsn), ..
        } if lsn > end => {
            return Err(ApiError::bad_request(format!(
                "the continuation {lsn} is ahead of this partition, which is at {end}: it comes from another container"
            )));
        }
        Start {
            after: Some(0),
            since: Some(ts),
        } => page.fill(shard.changes_since(ts)),
        Start {
            after: Some(lsn),
            since: Some(ts),
        } => {
            page.fill(
                shard
                    .changes_after(lsn)
                    .filter(|document| document.ts >= ts),
            );
        }
        Start {
            after: Some(lsn),
            since: None,
        } => page.fill(shard.changes_after(lsn)),
    }
    drop(shard);
    let resume = page.resume.unwrap_or(end);
    let etag = match start.since {
        // A start that is still to come must not be forgotten.
        Some(ts) if ts > now_seconds() => format!("\"{resume}@{ts}\""),
        _ => format!("\"{resume}\""),
    };
    let (items, charge) = (page.items, page.charge);
    let reply = match page.into_body() {
        None => Reply::empty(StatusCode::NOT_MODIFIED),
        Some(body) => {
            Reply::text(StatusCode::OK, body).put_number(&headers::ITEM_COUNT, items as u64)
        }
    };
    Ok(located(reply, container, piece.partition, end)
        .etag(etag)
        .charge(charge))
}

fn start(call: &Call<'_>) -> Result<Start, ApiError> {
    let foreign =
        || ApiError::bad_request("If-None-Match is no continuation of this server's change feed");
    match (
        call.header(&IF_NONE_MATCH).map(str::trim),
        call.header(&IF_MODIFIED_SINCE),
    ) {
        (Some("*"), _) => Ok(Start {
            after: None,
            since: None,
        }),
        (Some(token), _) => {
            let token = token.trim_matches('"');
            let (lsn, since) = match token.split_once('@') {
                Some((lsn, ts)) => (lsn, Some(ts.parse().map_err(|_| foreign())?)),
                None => (token, None),
            };
            Ok(Start {
                after: Some(lsn.parse().map_err(|_| foreign())?),
                since,
            })
        }
        (None, Some(date)) => {
            let time = httpdate::parse_http_date(date)
                .map_err(|_| ApiError::bad_request("If-Modified-Since must be an HTTP date"))?;
            let seconds = time
                .duration_since(UNIX_EPOCH)
                .map_or(0, |elapsed| elapsed.as_secs());
            Ok(Start {
                after: Some(0),
                since: Some(seconds.min(u64::from(u32::MAX)) as u32),
            })
        }
        (None, None) => Ok(Start {
            after: Some(0),
            since: None,
        }),
    }
}

struct Page<'a> {
    container: &'a Container,
    piece: &'a Piece<'a>,
    most: usize,
    envelope: bool,
    items: usize,
    /// LSN of the last item, if the page ended before the feed did.
    resume: Option<u64>,
    charge: Charge,
    body: Vec<u8>,
}

impl<'a> Page<'a> {
    fn new(container: &'a Container, piece: &'a Piece<'a>, most: usize, envelope: bool) -> Self {
        Self {
            container,
            piece,
            most,
            envelope,
            items: 0,
            resume: None,
            charge: Charge::PAGE,
            body: Vec::new(),
        }
    }

    fn fill<'d>(&mut self, changes: impl Iterator<Item = &'d Document>) {
        let whole = self.piece.is_whole();
        let mut last = 0;
        for document in changes {
            let full = self.items >= self.most || self.body.len() >= PAGE_BYTES;
            if full && document.lsn != last {
                self.resume = Some(last);
                return;
            }
            if !whole && !self.piece.range.contains(&document.epk) {
                continue;
            }
            last = document.lsn;
            self.push(document);
        }
    }

    fn push(&mut self, document: &Document) {
        let body = &mut self.body;
        if self.items == 0 {
            body.reserve((document.size() + 320) * self.most.min(1_000));
            body.extend_from_slice(b"{\"_rid\":\"");
            body.extend_from_slice(self.container.rid.as_bytes());
            body.extend_from_slice(b"\",\"Documents\":[");
        } else {
            body.push(b',');
        }
        if self.envelope {
            body.extend_from_slice(b"{\"current\":");
        }
        document.render(&self.container.rendering, true, body);
        if self.envelope {
            body.extend_from_slice(b",\"metadata\":{\"lsn\":");
            write_number(body, document.lsn);
            body.extend_from_slice(b",\"crts\":");
            write_number(body, document.ts);
            body.extend_from_slice(b"}}");
        }
        self.items += 1;
        self.charge += Charge::read(document.size());
    }

    fn into_body(mut self) -> Option<Vec<u8>> {
        if self.items == 0 {
            return None;
        }
        self.body.extend_from_slice(b"],\"_count\":");
        write_number(&mut self.body, self.items);
        self.body.push(b'}');
        Some(self.body)
    }
}
