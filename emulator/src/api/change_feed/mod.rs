//! The change feed, in both modes.
//!
//! | | LatestVersion | AllVersionsAndDeletes |
//! |---|---|---|
//! | `A-IM` | `Incremental Feed` | `Full-Fidelity Feed` |
//! | what | current documents, in the order of their newest LSN | every change, in LSN order |
//! | deletes, expiries, versions in between | not there | there |
//! | starts | beginning, now, a second, a continuation | now, a continuation |
//! | reaches back | for ever | for the retention; beyond it 400 |
//!
//! Rules:
//! 1. A page ends between LSNs, never inside one, so a batch is never split. The page size is a hint below that.
//! 2. The continuation is the LSN up to which everything in scope was returned. It is the `etag` of every reply, and of
//!    304 too; a client sends it as `If-None-Match`. It stays good through splits and merges (see [`token`]).
//! 3. `If-None-Match: *` means "from now on". `If-Modified-Since` starts at the first change with `_ts` at that second
//!    or later; clients send it with every continuation, and it holds for every page.
//! 4. A page costs the documents returned (for a part of a partition: looked at), an idle poll costs nothing.
//! 5. AllVersionsAndDeletes is recorded from the first request for it. Nobody misses anything by that, because it cannot
//!    be started in the past.

mod page;
mod token;

use std::time::UNIX_EPOCH;

use hyper::StatusCode;
use hyper::header::{IF_MODIFIED_SINCE, IF_NONE_MATCH};

use self::page::Page;
use self::token::{Part, Position};
use super::items::located;
use super::scope::{self, Piece};
use super::session;
use crate::epk::EpkRange;
use crate::http::{ApiError, ApiResult, Call, Reply, headers};
use crate::ru::Charge;
use crate::store::{Container, PartitionMap, StoreError};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    LatestVersion,
    AllVersionsAndDeletes,
}

/// What a call asks for.
struct Request {
    mode: Mode,
    /// Documents in envelopes.
    envelope: bool,
    most: usize,
    start: Position,
    /// Nothing written before this second.
    since: Option<u32>,
}

/// A part of a partition, and where the read of it stands.
struct Reading<'a> {
    piece: Piece<'a>,
    after: u64,
}

/// `GET docs` with `A-IM`.
pub fn read(container: &Container, call: &Call<'_>) -> ApiResult {
    let request = request(call)?;
    if request.mode == Mode::AllVersionsAndDeletes && request.start == Position::Now {
        container.start_history()?;
    }
    let map = container.map();
    let pieces = scope::of(container, &map, call)?;
    if pieces.is_empty() {
        return Err(ApiError::bad_request("the key range is empty"));
    }
    let mut readings = readings(container, &map, pieces, &request.start)?;
    let mut page = Page::new(container, request.most, request.envelope);
    for reading in &mut readings {
        let charge = page.charge;
        reading.after = match read_one(container, call, &request, reading, &mut page) {
            // What is on the page already has been paid for.
            Err(error) if error.status == StatusCode::TOO_MANY_REQUESTS && page.items() > 0 => {
                break;
            }
            outcome => outcome?,
        };
        reading.piece.partition.consume(page.charge - charge);
        if page.is_full() {
            break;
        }
    }
    Ok(reply(container, &request, &readings, page))
}

fn request(call: &Call<'_>) -> Result<Request, ApiError> {
    let mode = match call.header(&headers::A_IM).unwrap_or_default() {
        mode if mode.eq_ignore_ascii_case("Incremental Feed") => Mode::LatestVersion,
        mode if mode.eq_ignore_ascii_case("Full-Fidelity Feed") => Mode::AllVersionsAndDeletes,
        mode => {
            return Err(ApiError::bad_request(format!(
                "the A-IM value {mode} is unknown: use Incremental Feed or Full-Fidelity Feed"
            )));
        }
    };
    let envelope = match call.header(&headers::WIRE_FORMAT) {
        None => mode == Mode::AllVersionsAndDeletes,
        Some("2021-09-15") => true,
        Some(other) => {
            return Err(ApiError::unsupported(format!(
                "the change feed wire format {other}"
            )));
        }
    };
    let start = match call.header(&IF_NONE_MATCH).map(str::trim) {
        None => Position::Beginning,
        Some("*") => Position::Now,
        Some(token) => Position::from_token(token).ok_or_else(|| {
            ApiError::bad_request("If-None-Match is no continuation of this server's change feed")
        })?,
    };
    let since = call.header(&IF_MODIFIED_SINCE).map(second).transpose()?;
    let begun = call.header(&IF_NONE_MATCH).and_then(token::since);
    if mode == Mode::AllVersionsAndDeletes && (since.is_some() || start == Position::Beginning) {
        return Err(ApiError::bad_request(
            "the change feed mode AllVersionsAndDeletes can be started now or at a continuation, not at the beginning or at a time",
        ));
    }
    Ok(Request {
        mode,
        envelope,
        most: call.page_items()?,
        start,
        since: since.or(begun),
    })
}

fn second(date: &str) -> Result<u32, ApiError> {
    let time = httpdate::parse_http_date(date)
        .map_err(|_| ApiError::bad_request("If-Modified-Since must be an HTTP date"))?;
    let seconds = time
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs());
    Ok(seconds.min(u64::from(u32::MAX)) as u32)
}

/// What is to be read in which order: the parts of the continuation, as far as they are in scope, cut where partitions
/// meet today.
fn readings<'a>(
    container: &Container,
    map: &'a PartitionMap,
    pieces: Vec<Piece<'a>>,
    start: &Position,
) -> Result<Vec<Reading<'a>>, ApiError> {
    let all = |after: &dyn Fn(&Piece<'a>) -> u64, pieces: Vec<Piece<'a>>| {
        let reading = |piece| Reading {
            after: after(&piece),
            piece,
        };
        pieces.into_iter().map(reading).collect::<Vec<_>>()
    };
    let readings = match start {
        Position::Now => {
            // What has expired by now is not to come: a reader sees to that before it looks.
            let now = |piece: Piece<'a>| {
                let after = container.reader(piece.partition)?.lsn();
                Ok(Reading { piece, after })
            };
            pieces
                .into_iter()
                .map(now)
                .collect::<Result<_, StoreError>>()?
        }
        Position::Beginning => all(&|_| 0, pieces),
        Position::After(lsn) => all(&|_| *lsn, pieces),
        Position::Parts(parts) => {
            let cut = |part: &Part| {
                let pieces = scope::pieces(map, &part.range);
                all(&|_| part.after, pieces)
            };
            let asked: Vec<EpkRange> = pieces.into_iter().map(|piece| piece.range).collect();
            parts
                .iter()
                .flat_map(cut)
                .flat_map(|reading| within(reading, &asked))
                .collect()
        }
    };
    for reading in &readings {
        let (partition, end) = (reading.piece.partition, reading.piece.partition.lsn());
        if reading.after > end {
            return Err(ApiError::bad_request(format!(
                "the continuation {} is ahead of partition {}, which is at {end}: it comes from another container",
                reading.after, partition.id
            )));
        }
    }
    Ok(readings)
}

fn within<'a>(reading: Reading<'a>, asked: &[EpkRange]) -> Vec<Reading<'a>> {
    let common = |range: &EpkRange| {
        Some(Reading {
            piece: Piece {
                partition: reading.piece.partition,
                range: reading.piece.range.intersect(range)?,
            },
            after: reading.after,
        })
    };
    asked.iter().filter_map(common).collect()
}

/// Reads one part; returns the LSN up to which it has been read then.
fn read_one(
    container: &Container,
    call: &Call<'_>,
    request: &Request,
    reading: &Reading<'_>,
    page: &mut Page<'_>,
) -> Result<u64, ApiError> {
    let (partition, range) = (reading.piece.partition, &reading.piece.range);
    if request.mode == Mode::AllVersionsAndDeletes {
        container.trim_history(partition);
    }
    let shard = container.reader(partition)?;
    session::check(call, partition, shard.lsn())?;
    let whole = reading.piece.is_whole();
    let in_range = |epk: &crate::epk::Epk| whole || range.contains(epk);
    let resume = match (request.mode, request.since) {
        (Mode::AllVersionsAndDeletes, _) => {
            let changes = shard
                .history()
                .after(reading.after, range)
                .ok_or_else(expired)?;
            page.fill_changes(changes.filter(|change| in_range(&change.epk)))
        }
        (Mode::LatestVersion, None) => {
            let documents = shard.changes_after(reading.after);
            page.fill(documents.filter(|document| in_range(&document.epk)))
        }
        (Mode::LatestVersion, Some(since)) if reading.after == 0 => {
            let documents = shard.changes_since(since);
            page.fill(documents.filter(|document| in_range(&document.epk)))
        }
        (Mode::LatestVersion, Some(since)) => {
            let documents = shard.changes_after(reading.after);
            page.fill(
                documents
                    .filter(|document| document.version.ts >= since && in_range(&document.epk)),
            )
        }
    };
    Ok(resume.unwrap_or_else(|| shard.lsn()))
}

/// What a continuation has to say: neighbours in one partition that stand at the same LSN are one part again, so that it
/// does not grow with every split and merge.
fn joined(readings: &[Reading<'_>]) -> Vec<(EpkRange, u64)> {
    let mut parts: Vec<(EpkRange, u64)> = Vec::with_capacity(readings.len());
    let mut last = None;
    for Reading { piece, after } in readings {
        let id = piece.partition.id;
        match parts.last_mut() {
            Some((range, lsn))
                if last == Some(id) && lsn == after && range.max == piece.range.min =>
            {
                range.max = piece.range.max.clone();
            }
            _ => parts.push((piece.range.clone(), *after)),
        }
        last = Some(id);
    }
    parts
}

fn expired() -> ApiError {
    ApiError::bad_request(
        "the continuation is older than the retention of AllVersionsAndDeletes: the changes behind it are gone, so start now and load the current items anew",
    )
}

fn reply(
    container: &Container,
    request: &Request,
    readings: &[Reading<'_>],
    page: Page<'_>,
) -> Reply {
    let now = container.environment().clock.now_seconds();
    // A start that is still to come must not be forgotten by clients that do not send it again.
    let since = request.since.filter(|since| *since > now);
    let parts = joined(readings);
    let etag = token::write(parts.iter().map(|(range, after)| (range, *after)), since);
    let (items, charge) = (page.items(), page.charge);
    let reply = match page.into_body() {
        None => Reply::empty(StatusCode::NOT_MODIFIED),
        Some(body) => {
            Reply::text(StatusCode::OK, body).put_number(&headers::ITEM_COUNT, items as u64)
        }
    };
    let reply = match readings.first() {
        Some(Reading { piece, .. }) => {
            let lsn = piece.partition.lsn();
            piece.partition.consume(Charge::PAGE);
            located(reply, container, piece.partition, lsn)
        }
        None => reply,
    };
    reply.etag(etag).charge(charge)
}
