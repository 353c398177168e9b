//! Documents that producers post over HTTP, as a change feed.
//!
//! ```text
//!   producer --POST--> request: checked, parsed --batch--> queue --page--> reader, source --seal--> receipt --200--> producer
//! ```
//!
//! `POST` brings documents and `DELETE` removes them; the body is a JSON array, or JSON values one after the other, as in JSON
//! lines. Of what is to be removed only the fields of the key are read. Rules:
//!
//! 1. A batch, which is the body of a request, is taken whole or not at all. What is in it that is no document is named in the
//!    answer, 400.
//! 2. The answer is 200 when the epoch that holds the batch is sealed, so a crash cannot lose it any more. It is not in the views yet then.
//! 3. Every other answer, and none, says: send it again. A batch without an answer may have been taken all the same, and is taken
//!    once more then. That changes nothing, unless something else was sent about the same documents meanwhile: an upsert sets what
//!    a document is, it adds nothing. So who sends about a document waits for one answer before the next request.
//! 4. Batches are applied in the order in which they were received whole. Two requests at the same time have no order.
//! 5. Memory is bounded: by the bytes of a body (413), and by the bytes of all batches that are not sealed (429, with
//!    `Retry-After`), which is also how a slow checkpoint store reaches the producers.
//! 6. A token counts batches. Nothing is read again from it: what was not sealed was not acknowledged, so its producer has it.
//!
//! | answer | when |
//! |---|---|
//! | 200 `{"taken":N}` | so many documents are durable |
//! | 400 | a document is malformed or has no key; nothing of the batch is taken |
//! | 401 | the bearer token is missing or another |
//! | 403 | no token is configured, and a web page asks |
//! | 404, 405, 415 | another path, another method, a content encoding |
//! | 408 | the body did not come within 30 s |
//! | 413 | the body is too large |
//! | 429 | too much waits to be sealed |
//! | 503 | it was not sealed in time, or the job ends; it may have been taken |
//!
//! The server listens when the source is opened, which is when the job has taken over its checkpoint; before, connections are
//! refused. Until the checkpoint is loaded requests wait, as for any seal. When the job ends, or a bounded run has caught up, requests
//! under way get their answers and no other is taken.
//!
//! # Limits
//!
//! HTTP/1.1 without TLS: on an address that others can reach, put a proxy with TLS in front, and a token is required. What is
//! JSON and has its key is taken; if it does not decode as the job's row type, that is for the source's
//! [`DecodeErrors`](crate::decode::DecodeErrors) to settle. Where that ends the job, the batch was not sealed, and its producer,
//! who has no answer, ends the next run too by sending it again.

mod batch;
mod request;
mod server;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tidefeed_runtime::bridge::{ByteBudget, Room};
use tidefeed_runtime::{Context, ContinuationToken, Error, ErrorKind, FeedRangeId, Record, Result};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

use self::server::Server;
use crate::feed::{ChangeFeed, Page, PageStream, Receipt, Start};
use crate::record_key::KeyFields;

/// Bytes of documents in a page, about; the batch that crosses it still goes.
const PAGE_BYTES: usize = 1 << 20;

/// What producers prove themselves with. It never appears in `Debug`, errors or logs.
#[derive(Clone, PartialEq, Eq)]
pub struct BearerToken(String);

impl BearerToken {
    /// Wraps the token, without the spaces around it.
    ///
    /// # Errors
    /// `Config` when nothing is left, or it has characters that no header can carry.
    pub fn new(token: &str) -> Result<Self> {
        let token = token.trim();
        let visible = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
        match visible {
            true => Ok(BearerToken(token.to_owned())),
            false => Err(Error::new(
                ErrorKind::Config,
                "the bearer token is empty, or has other characters than letters, digits and punctuation",
            )),
        }
    }
}

impl fmt::Debug for BearerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BearerToken(..)")
    }
}

/// Where documents are posted to, and how many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IngestOptions {
    /// The address to listen on.
    pub listen: SocketAddr,
    /// The path of the requests.
    pub path: String,
    /// The fields that identify a document.
    pub key: Vec<String>,
    /// What producers prove themselves with; may be missing on loopback only.
    pub token: Option<BearerToken>,
    /// The largest body that is taken.
    pub max_body_bytes: u64,
    /// Bytes of bodies that are not sealed yet.
    pub max_unsealed_bytes: u64,
    /// How long a request waits for its seal.
    pub answer_within: Duration,
}

/// Documents that producers post.
pub struct IngestFeed {
    section: String,
    options: IngestOptions,
    key: KeyFields,
}

/// The name of the one range.
const POSTS: &str = "posts";

impl IngestFeed {
    /// The documents posted to a source. `section` is where it is configured, for example `source.orders`.
    ///
    /// # Errors
    /// `Config`, naming the setting that is wrong.
    pub fn new(section: &str, options: IngestOptions) -> Result<Self> {
        let wrong = |what: &str| Err(Error::new(ErrorKind::Config, format!("{section}.{what}")));
        if !options.path.starts_with('/') {
            return wrong("path must begin with a slash, as in \"/ingest\"");
        }
        if options.token.is_none() && !options.listen.ip().is_loopback() {
            return wrong(
                "token_env is not set: whoever listens to other machines needs a bearer token",
            );
        }
        if options.max_unsealed_bytes < options.max_body_bytes {
            return wrong(
                "max_unsealed_bytes is less than max_body_bytes: the largest body must fit",
            );
        }
        Ok(IngestFeed {
            key: KeyFields::new(&format!("{section}.key"), &options.key)?,
            section: section.to_owned(),
            options,
        })
    }
}

#[async_trait]
impl ChangeFeed for IngestFeed {
    async fn ranges(&self) -> Result<Vec<FeedRangeId>> {
        Ok(vec![FeedRangeId(POSTS.to_owned())])
    }

    fn ranges_tile(&self) -> bool {
        false
    }

    async fn open(&self, range: &FeedRangeId, start: Start) -> Result<Box<dyn PageStream>> {
        let batches = match &start {
            Start::Beginning | Start::Now | Start::Time(_) => 0,
            Start::Token(token) => batches_of(token).ok_or_else(|| {
                let why = format!("the token for feed range {range} is not one of it");
                Error::new(ErrorKind::Checkpoint, why)
            })?,
        };
        let address = self.options.listen;
        let listener = TcpListener::bind(address).await;
        let listener = listener.context(ErrorKind::Config, || {
            format!("{}: cannot listen on {address}", self.section)
        })?;
        let (sender, queue) = mpsc::unbounded_channel();
        let producers = Producers {
            options: self.options.clone(),
            key: self.key.clone(),
            budget: ByteBudget::new(self.options.max_unsealed_bytes),
            queue: sender,
        };
        let server = Server::start(listener, Arc::new(producers));
        Ok(Box::new(PostedPages {
            server,
            queue,
            next: None,
            batches,
        }))
    }
}

fn batches_of(token: &ContinuationToken) -> Option<u64> {
    token.0.strip_prefix(POSTS)?.strip_prefix('@')?.parse().ok()
}

/// What the requests of all producers share.
struct Producers {
    options: IngestOptions,
    key: KeyFields,
    /// Room for batches that are not sealed.
    budget: ByteBudget,
    queue: mpsc::UnboundedSender<Batch>,
}

/// The documents of a request.
struct Batch {
    records: Vec<Record>,
    /// Held until the batch is sealed.
    room: Room,
    /// Dropped if it is not.
    sealed: oneshot::Sender<()>,
}

/// What was posted, as pages. While it lives, the server listens.
struct PostedPages {
    server: Server,
    /// Bounded by the room that each batch holds.
    queue: mpsc::UnboundedReceiver<Batch>,
    /// Taken from the queue already.
    next: Option<Batch>,
    /// Batches of all pages so far, of earlier runs too.
    batches: u64,
}

impl PostedPages {
    fn take(&mut self) -> Option<Batch> {
        self.next.take().or_else(|| self.queue.try_recv().ok())
    }
}

#[async_trait]
impl PageStream for PostedPages {
    async fn next_page(&mut self) -> Result<Page> {
        if self.server.ended() {
            return Err(Error::internal("the server for posted documents has ended"));
        }
        let (mut records, mut sealed, mut bytes) = (Vec::new(), Vec::new(), 0);
        let mut caught_up = false;
        while bytes < PAGE_BYTES && !caught_up {
            match self.take() {
                Some(batch) => {
                    bytes += batch.records.iter().map(Record::size_bytes).sum::<usize>();
                    records.extend(batch.records);
                    sealed.push((batch.sealed, batch.room));
                }
                None => caught_up = true,
            }
        }
        self.batches += sealed.len() as u64;
        let receipt = Receipt::new(move || {
            for (sealed, room) in sealed {
                drop(room);
                // A producer that waits no longer sends again.
                let _ = sealed.send(());
            }
        });
        let token = ContinuationToken(format!("{POSTS}@{}", self.batches));
        Ok(Page {
            receipt: (!records.is_empty()).then_some(receipt),
            records: records.into(),
            caught_up,
            ..Page::at(token)
        })
    }

    async fn news(&mut self) {
        if self.next.is_none() {
            self.next = self.queue.recv().await;
        }
        if self.next.is_none() {
            // Nobody is left to send; the next page says so.
            std::future::pending().await
        }
    }
}

#[cfg(test)]
mod tests;
