//! The plain feed of documents: everything in scope, in key order, page by page.
//!
//! The continuation is the place of the last document returned (key and number), so it survives writes between pages.

use hyper::StatusCode;

use super::items::located;
use super::scope;
use crate::epk::{from_hex, to_hex};
use crate::http::{ApiError, ApiResult, Call, Reply, headers};
use crate::json::write_number;
use crate::ru::Charge;
use crate::store::{Container, Document};

/// Bytes after which a page ends.
pub const PAGE_BYTES: usize = 4 * 1024 * 1024;

/// A place in the order of a container's documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// First component of the effective partition key.
    pub head: u128,
    /// Number of the document.
    pub rid: u64,
}

impl Place {
    /// The place of a document.
    pub fn of(document: &Document) -> Self {
        Self {
            head: document.epk.head(),
            rid: document.version.rid,
        }
    }

    /// The continuation that stands for it.
    pub fn to_token(self) -> String {
        format!("place:{}:{}", to_hex(&self.head.to_be_bytes()), self.rid)
    }

    /// Reads a continuation.
    pub fn from_token(token: &str) -> Option<Self> {
        let (head, rid) = token.strip_prefix("place:")?.split_once(':')?;
        let head: [u8; 16] = from_hex(head)?.try_into().ok()?;
        Some(Self {
            head: u128::from_be_bytes(head),
            rid: rid.parse().ok()?,
        })
    }

    /// As [`crate::store::Shard::scan`] wants it.
    pub fn key(self) -> (u128, u64) {
        (self.head, self.rid)
    }
}

fn place(call: &Call<'_>) -> Result<Option<Place>, ApiError> {
    let Some(token) = call.header(&headers::CONTINUATION) else {
        return Ok(None);
    };
    Place::from_token(token)
        .map(Some)
        .ok_or_else(|| ApiError::bad_request("the continuation is not one of this feed"))
}

/// `GET docs` without `A-IM`.
pub fn read(container: &Container, call: &Call<'_>) -> ApiResult {
    let most = call.page_items()?;
    let after = place(call)?;
    let map = container.map();
    let pieces = scope::of(container, &map, call)?;
    let mut page = Page::new(container);
    let (mut last, mut more) = (None, false);
    for piece in &pieces {
        let shard = container.reader(piece.partition)?;
        let charge = page.charge;
        for document in shard.scan(&piece.range, after.map(Place::key)) {
            if page.items >= most || page.body.len() >= PAGE_BYTES {
                more = true;
                break;
            }
            last = Some(Place::of(document));
            page.look_at(document);
            page.push(document);
        }
        piece.partition.consume(page.charge - charge);
        if more {
            break;
        }
    }
    let reply = match last {
        Some(last) if more => page
            .into_reply()
            .put(&headers::CONTINUATION, last.to_token()),
        _ => page.into_reply(),
    };
    Ok(match pieces.first() {
        Some(piece) => {
            piece.partition.consume(Charge::PAGE);
            located(reply, container, piece.partition, piece.partition.lsn())
        }
        None => reply,
    })
}

/// A page of documents or rows.
pub struct Page<'a> {
    container: &'a Container,
    /// Documents so far.
    pub items: usize,
    /// Bytes so far.
    pub body: Vec<u8>,
    /// What it has cost so far.
    pub charge: Charge,
}

impl<'a> Page<'a> {
    /// An empty page.
    pub fn new(container: &'a Container) -> Self {
        let body = format!("{{\"_rid\":\"{}\",\"Documents\":[", container.rid).into_bytes();
        Self {
            container,
            items: 0,
            body,
            charge: Charge::PAGE,
        }
    }

    /// Notes that a document was looked at, whether or not it will be on the page.
    pub fn look_at(&mut self, document: &Document) {
        self.charge += Charge::scan(document.version.size());
    }

    /// Adds a document.
    pub fn push(&mut self, document: &Document) {
        self.next_item();
        document
            .version
            .render(&self.container.rendering, false, &mut self.body);
    }

    fn next_item(&mut self) {
        if self.items > 0 {
            self.body.push(b',');
        }
        self.items += 1;
    }

    /// The finished page.
    pub fn into_reply(mut self) -> Reply {
        self.body.extend_from_slice(b"],\"_count\":");
        write_number(&mut self.body, self.items);
        self.body.push(b'}');
        Reply::text(StatusCode::OK, self.body)
            .charge(self.charge)
            .put_number(&headers::ITEM_COUNT, self.items as u64)
    }
}
