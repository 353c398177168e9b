//! Files of JSON lines and CSV as a change feed: each record is an upsert of the document that its key fields name.
//!
//! 1. All files of a source are one range, read one after the other in the order of their names, so of two records with one key
//!    the later one wins: further on in a file, or in a file with a later name. That is the only order that files have.
//! 2. `partitioned` makes each file a range of its own, and files are read at the same time. The user promises that no key is in
//!    two files; between files there is no order. The files are those that are there at the start of a run, and with `follow`
//!    those that appear.
//! 3. A token names a file and a place in it, with a checksum of what was read. A file that was replaced or cut off is an error
//!    that says so. One that was read to its end may be deleted.
//! 4. `follow` goes on polling: for lines that are appended to the last file, and for files with later names. A line counts when
//!    it has its line break. A file counts as complete as soon as there is one with a later name, and is not looked at again then.
//!    With `partitioned` lines are awaited in every file, until it is gone.
//!    Compressed files are read once, so they must appear whole: write them elsewhere and rename them.
//! 5. A record that is no document, or has no key, ends the run with an error that names file and line. What becomes of one that
//!    does not decode as the job's row type is the source's [`DecodeErrors`](crate::decode::DecodeErrors).
//!
//! Files are read, decompressed and parsed on tokio's threads for blocking work, never on a worker or an I/O thread.
//!
//! # Limits
//!
//! One range is read by one thread; decoding into rows and everything after it is spread over the workers. A file that appears
//! later with a name *before* the one that is being read is never read. A file that is replaced while it is followed by one that
//! is not shorter is noticed at the next start only. A compressed file is decompressed from its beginning when a run goes on in
//! the middle of it. There are no removals. With `partitioned`, a file that is gone when a run begins is not missed, even if it had
//! not been read to its end; the checkpoint keeps the position of every file that was ever read, and each file that is followed is kept open.

mod input;
mod list;
mod position;
mod read;
mod shape;
mod split;

use std::collections::BTreeMap;

use async_trait::async_trait;
use tidefeed_runtime::{ContinuationToken, Error, ErrorKind, FeedRangeId, Result};
use tokio::task::JoinHandle;

use self::list::FileList;
use self::position::Position;
use self::read::FileReader;
use self::shape::Shape;
pub use self::shape::{ColumnType, Format};
use crate::feed::{ChangeFeed, Page, PageStream, Start};
use crate::projection::Projection;
use crate::record_key::KeyFields;

/// Which files, and how they are read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilesOptions {
    /// Paths, and patterns of paths with `*`, `?`, `[..]` and `**`.
    pub files: Vec<String>,
    /// How they are written; by default the end of each name says it: `.jsonl`, `.ndjson` or `.csv`, before `.gz` or `.zst`.
    pub format: Option<Format>,
    /// The fields that identify a document.
    pub key: Vec<String>,
    /// The properties of a document that are kept; `None` keeps all.
    pub fields: Option<Vec<String>>,
    /// Types of the columns of CSV that do not hold strings.
    pub types: BTreeMap<String, ColumnType>,
    /// Goes on polling for lines and files.
    pub follow: bool,
    /// Each file is a range of its own: no key is in two files.
    pub partitioned: bool,
    /// Records in a page, at most; at least one.
    pub page_size: usize,
}

/// The files of one source.
pub struct FileFeed {
    list: FileList,
    shape: Shape,
    options: FilesOptions,
}

/// The one range of files that are read in order.
const ALL: &str = "files";
/// Before the name of a file that is a range.
const ONE: &str = "file:";

impl FileFeed {
    /// The files of a source. `section` is where it is configured, for example `source.orders`.
    ///
    /// # Errors
    /// `Config`, naming the setting that is wrong.
    pub fn new(section: &str, options: FilesOptions) -> Result<Self> {
        Ok(FileFeed {
            list: FileList::new(&format!("{section}.files"), options.files.clone())?,
            shape: Shape {
                key: KeyFields::new(&format!("{section}.key"), &options.key)?,
                types: options.types.clone(),
                fields: Projection::new(&format!("{section}.fields"), options.fields.as_deref())?,
            },
            options,
        })
    }
}

#[async_trait]
impl ChangeFeed for FileFeed {
    async fn ranges(&self) -> Result<Vec<FeedRangeId>> {
        if !self.options.partitioned {
            return Ok(vec![FeedRangeId(ALL.to_owned())]);
        }
        let list = self.list.clone();
        let names = blocking(move || list.names())
            .await
            .and_then(|names| names)?;
        if names.is_empty() && !self.options.follow {
            return Err(self.list.none());
        }
        let range = |name: &String| FeedRangeId(format!("{ONE}{name}"));
        Ok(names.iter().map(range).collect())
    }

    fn ranges_tile(&self) -> bool {
        false
    }

    fn ranges_appear(&self) -> bool {
        self.options.partitioned && self.options.follow
    }

    async fn open(&self, range: &FeedRangeId, start: Start) -> Result<Box<dyn PageStream>> {
        let position = match &start {
            Start::Beginning => Position::default(),
            Start::Token(token) => position(range, token)?,
            Start::Now | Start::Time(_) => {
                let why = format!(
                    "feed range {range} is of files, which are read from the beginning only"
                );
                return Err(Error::new(ErrorKind::Config, why));
            }
        };
        let (shape, options) = (self.shape.clone(), self.options.clone());
        let list = self.list.clone();
        let name = range.0.strip_prefix(ONE).map(str::to_owned);
        let open = move || match name {
            Some(name) => FileReader::of_one(&name, shape, &options, position),
            None => FileReader::of_all(list, shape, &options, position),
        };
        let reader = blocking(open).await.and_then(|reader| reader)?;
        Ok(Box::new(FileStream {
            idle: Some(reader),
            reading: None,
        }))
    }
}

fn position(range: &FeedRangeId, token: &ContinuationToken) -> Result<Position> {
    let of_range = |position: &Position| match range.0.strip_prefix(ONE) {
        // Nothing was read of a file with half a header.
        Some(name) => position.file == name || position == &Position::default(),
        None => range.0 == ALL,
    };
    let position = Position::parse(token).ok().filter(of_range);
    position.ok_or_else(|| {
        Error::new(
            ErrorKind::Checkpoint,
            format!("the token for feed range {range} is not one of it"),
        )
    })
}

/// The records of a range's files, page by page. Dropping a `next_page` that has not finished is safe: the page that is read
/// comes out of the next call.
struct FileStream {
    idle: Option<FileReader>,
    reading: Option<JoinHandle<(FileReader, Result<Page>)>>,
}

#[async_trait]
impl PageStream for FileStream {
    async fn next_page(&mut self) -> Result<Page> {
        if let Some(mut reader) = self.idle.take() {
            self.reading = Some(tokio::task::spawn_blocking(move || {
                let page = reader.page();
                (reader, page)
            }));
        }
        let Some(reading) = &mut self.reading else {
            return Err(Error::internal("the reading of a file has failed before"));
        };
        let read = reading.await;
        self.reading = None;
        let (reader, page) = read.map_err(failed)?;
        self.idle = Some(reader);
        page
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(failed)
}

fn failed(error: tokio::task::JoinError) -> Error {
    Error::internal("the reading of a file did not end").with_source(error)
}

#[cfg(test)]
mod tests;
