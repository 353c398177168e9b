//! Reads the files of a range one after the other, as pages.

use std::collections::VecDeque;

use tidefeed_runtime::{Error, ErrorKind, Result};

use super::FilesOptions;
use super::input::{Compression, OpenFile};
use super::list::FileList;
use super::position::Position;
use super::shape::{Format, Shape};
use crate::feed::Page;
use tidefeed_runtime::RecordsWriter;

/// Bytes of records in a page, about; the record that crosses it still goes.
const PAGE_BYTES: usize = 1 << 20;

/// Reads files in the order of their names. Blocks.
pub(super) struct FileReader {
    list: FileList,
    shape: Shape,
    format: Option<Format>,
    /// Whether files may grow, and more may appear.
    follow: bool,
    /// The one file is a range of its own: what becomes of it is no matter of the others.
    alone: bool,
    /// The current file is gone, so what is left of it is all that there will be.
    gone: bool,
    page_size: usize,
    /// Bytes and records of the page before.
    usual: (usize, usize),
    /// After `position`, in order.
    names: VecDeque<String>,
    current: Option<OpenFile>,
    position: Position,
}

impl FileReader {
    /// All files of a list, after `position`.
    ///
    /// # Errors
    /// `Data` when the file of the position is gone though it had not ended, or is another.
    pub(super) fn of_all(
        list: FileList,
        shape: Shape,
        options: &FilesOptions,
        position: Position,
    ) -> Result<Self> {
        Self::new(list, false, shape, options, position)
    }

    /// One file, which is a range of its own, after `position`.
    ///
    /// # Errors
    /// As for all of them.
    pub(super) fn of_one(
        name: &str,
        shape: Shape,
        options: &FilesOptions,
        position: Position,
    ) -> Result<Self> {
        Self::new(FileList::of(name), true, shape, options, position)
    }

    fn new(
        list: FileList,
        alone: bool,
        shape: Shape,
        options: &FilesOptions,
        position: Position,
    ) -> Result<Self> {
        let names = list.names()?;
        let there = names.contains(&position.file);
        let mut reader = FileReader {
            list,
            shape,
            format: options.format,
            follow: options.follow,
            alone,
            gone: false,
            page_size: options.page_size.max(1),
            usual: (0, 0),
            names: VecDeque::new(),
            current: None,
            position,
        };
        let at = &reader.position;
        if there {
            let format = format_of(&at.file, reader.format)?;
            reader.current = Some(OpenFile::resume(at, format, &reader.shape)?);
        } else if !(at.file.is_empty() || at.ended || alone && options.follow) {
            return Err(Error::new(
                ErrorKind::Data,
                format!(
                    "{} is gone, and only {} bytes of it were read: put it back, or start over with --fresh",
                    at.file, at.offset
                ),
            ));
        }
        reader.note(names);
        if reader.position.file.is_empty() && reader.names.is_empty() && !reader.follow {
            return Err(reader.list.none());
        }
        Ok(reader)
    }

    /// The next records. Empty and caught up when there are none for now.
    ///
    /// # Errors
    /// `Data`, naming file and line.
    pub(super) fn page(&mut self) -> Result<Page> {
        let mut page = RecordsWriter::with_capacity(self.usual.0, self.usual.1);
        let mut caught_up = false;
        while page.records() < self.page_size && page.bytes() < PAGE_BYTES {
            let last = self.is_last_word(&self.position.file);
            let Some(file) = &mut self.current else {
                caught_up = !self.open_next()?;
                if caught_up {
                    break;
                }
                continue;
            };
            match file.next(&self.shape, last, &mut page)? {
                true => {}
                false if last => {
                    self.position = Position {
                        ended: true,
                        ..file.position()
                    };
                    self.current = None;
                }
                false => {
                    self.gone = self.alone && file.is_gone();
                    if self.gone {
                        continue;
                    }
                    file.check_same()?;
                    let names = self.list.names()?;
                    self.note(names);
                    // With a successor the file is looked at once more: it was complete before that one was there.
                    caught_up = self.names.is_empty();
                    if caught_up {
                        break;
                    }
                }
            }
        }
        if let Some(file) = &mut self.current {
            self.position = file.position();
        }
        self.usual = (page.bytes(), page.records());
        Ok(Page {
            records: page.finish(),
            caught_up,
            ..Page::at(self.position.token())
        })
    }

    /// Opens the file after the current one; false when there is none yet.
    fn open_next(&mut self) -> Result<bool> {
        if self.names.is_empty() && self.follow {
            let names = self.list.names()?;
            self.note(names);
        }
        let Some(name) = self.names.pop_front() else {
            return Ok(false);
        };
        let format = format_of(&name, self.format)?;
        let last = self.is_last_word(&name);
        match OpenFile::begin(&name, format, &self.shape, last)? {
            Some(mut file) => {
                self.position = file.position();
                self.current = Some(file);
                Ok(true)
            }
            None => {
                self.names.push_front(name);
                Ok(false)
            }
        }
    }

    /// Whether a file is as it will be. What ends without a line break may still be written, but not when something follows.
    fn is_last_word(&self, name: &str) -> bool {
        let grows = self.follow && !self.gone && Compression::of(name).0 == Compression::None;
        !grows || !self.names.is_empty()
    }

    fn note(&mut self, names: Vec<String>) {
        let after = |name: &String| *name > self.position.file;
        self.names = names.into_iter().filter(after).collect();
    }
}

/// The format of a file, by the end of its name if it is not configured.
pub(super) fn format_of(name: &str, configured: Option<Format>) -> Result<Format> {
    let plain = Compression::of(name).1;
    let by_name = || match plain.rsplit_once('.')?.1 {
        "jsonl" | "ndjson" => Some(Format::Jsonl),
        "csv" => Some(Format::Csv),
        _ => None,
    };
    configured.or_else(by_name).ok_or_else(|| {
        Error::new(
            ErrorKind::Config,
            format!("the name of {name} says no format: set format to \"jsonl\" or \"csv\""),
        )
    })
}
