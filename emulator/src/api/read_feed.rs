//! The plain feed of documents: everything in scope, in key order, page by page.
//!
//! The continuation is the place of the last document returned (key and number), so it survives writes between pages.

use hyper::StatusCode;

use super::items::located;
use super::page_body::PageBody;
use super::scope;
use crate::epk::{from_hex, to_hex};
use crate::http::{ApiError, ApiResult, Call, Reply, headers};
use crate::ru::Charge;
use crate::store::{Container, Document};

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
    let mut page = PageBody::new(&container.rid);
    let mut charge = Charge::PAGE;
    let (mut last, mut more) = (None, false);
    for piece in &pieces {
        let shard = container.reader(piece.partition)?;
        let before = charge;
        for document in shard.scan(&piece.range, after.map(Place::key)) {
            if page.is_full(most) {
                more = true;
                break;
            }
            last = Some(Place::of(document));
            charge += Charge::scan(document.version.size());
            let version = &document.version;
            version.render(&container.rendering, false, page.next());
        }
        piece.partition.consume(charge - before);
        if more {
            break;
        }
    }
    let items = page.items() as u64;
    let reply = Reply::text(StatusCode::OK, page.finish())
        .charge(charge)
        .put_number(&headers::ITEM_COUNT, items);
    let reply = match last {
        Some(last) if more => reply.put(&headers::CONTINUATION, last.to_token()),
        _ => reply,
    };
    Ok(match pieces.first() {
        Some(piece) => {
            piece.partition.consume(Charge::PAGE);
            located(reply, container, piece.partition, piece.partition.lsn())
        }
        None => reply,
    })
}
