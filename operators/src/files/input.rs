//! One file that is read: its contents, decompressed, and the records in them with their places.

use std::fs::File;
use std::io::{ErrorKind as IoKind, Read, Seek, SeekFrom};
use std::path::Path;

use memchr::memchr_iter;
use tidefeed_runtime::{Context, Error, ErrorKind, Result};

use super::position::{CHECKED_BYTES, Position, Seen};
use super::shape::{Columns, Format, Shape};
use super::split::{CsvRecord, Splitter};
use tidefeed_runtime::RecordsWriter;

/// Bytes asked for at once.
const READ_BYTES: usize = 128 << 10;

/// Bytes that a record may have: a bound on what one that never ends takes of the memory.
const MAX_RECORD_BYTES: usize = 64 << 20;

/// How the contents of a file are stored, by the end of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    /// The compression of a file, and its name without what says so.
    pub(super) fn of(name: &str) -> (Compression, &str) {
        if let Some(name) = name.strip_suffix(".gz") {
            return (Compression::Gzip, name);
        }
        match name.strip_suffix(".zst") {
            Some(name) => (Compression::Zstd, name),
            None => (Compression::None, name),
        }
    }
}

/// A file and the place between two of its records that the reading has come to.
pub(super) struct OpenFile {
    name: String,
    contents: Box<dyn Read + Send>,
    splitter: Splitter,
    /// Of CSV.
    columns: Option<Columns>,
    buffer: Vec<u8>,
    /// Where what was read ends in the buffer.
    filled: usize,
    /// Where the current record begins. What comes before `scanned` was looked at for its end.
    start: usize,
    scanned: usize,
    /// Up to here the buffer is in the next three. They are brought up to the current record when they are asked for, and when the
    /// buffer is filled.
    noted: usize,
    offset: u64,
    lines: u64,
    seen: Seen,
}

impl OpenFile {
    /// Opens a file at its beginning; `None` when its header is not whole and may still be written, as it may if not `complete`.
    ///
    /// # Errors
    /// `Data` when it cannot be read, or a header is missing or does not fit.
    pub(super) fn begin(
        name: &str,
        format: Format,
        shape: &Shape,
        complete: bool,
    ) -> Result<Option<Self>> {
        let mut file = OpenFile {
            name: name.to_owned(),
            contents: contents(name)?,
            splitter: Splitter::Lines,
            columns: None,
            buffer: Vec::new(),
            filled: 0,
            start: 0,
            scanned: 0,
            noted: 0,
            offset: 0,
            lines: 0,
            seen: Seen::default(),
        };
        if format == Format::Csv {
            file.splitter = Splitter::Csv(Box::new(CsvRecord::new()));
            if !file.find_record(complete)? {
                return match complete {
                    true => Err(file.wrong("has no header")),
                    false => Ok(None),
                };
            }
            let Splitter::Csv(header) = &file.splitter else {
                return Err(Error::internal("CSV is split as CSV"));
            };
            let columns = Columns::new(header, &shape.types);
            file.columns = Some(columns.map_err(|error| file.at(error))?);
            file.start = file.scanned;
        }
        Ok(Some(file))
    }

    /// Opens a file after what was read of it before.
    ///
    /// # Errors
    /// As for the beginning, and when it does not begin with what was read.
    pub(super) fn resume(at: &Position, format: Format, shape: &Shape) -> Result<Self> {
        let mut file = Self::begin(&at.file, format, shape, true)?
            .ok_or_else(|| Error::internal("a file that is complete can be read"))?;
        if at.offset == 0 {
            return Ok(file);
        }
        let mut seen = Seen::default();
        let read = read_to(&at.file, at.offset, &mut seen);
        let contents = read.context(ErrorKind::Data, || format!("cannot read {}", at.file))?;
        let Some(contents) = contents.filter(|_| seen.checksum() == at.seen) else {
            return Err(Error::new(
                ErrorKind::Data,
                format!(
                    "{} is not the file any more of which {} bytes were read: put it back, or give new contents a new name; \
                     --fresh reads every file again",
                    at.file, at.offset
                ),
            ));
        };
        file.contents = contents;
        (file.filled, file.start, file.scanned, file.noted) = (0, 0, 0, 0);
        (file.offset, file.lines, file.seen) = (at.offset, at.lines, seen);
        file.check_last_line()?;
        Ok(file)
    }

    /// A last line without a line break was read as it was. It must not have become longer since.
    fn check_last_line(&mut self) -> Result<()> {
        if self
            .seen
            .last_byte()
            .is_none_or(|byte| byte == b'\n' || byte == b'\r')
        {
            return Ok(());
        }
        self.fill()?;
        match self.buffer[..self.filled].first() {
            None | Some(b'\n' | b'\r') => Ok(()),
            Some(_) => Err(self.wrong(&format!(
                "has more now in line {}, which was its last, without a line break, and was read: end lines with a line break",
                self.lines + 1
            ))),
        }
    }

    /// Where the reading is.
    pub(super) fn position(&mut self) -> Position {
        self.note();
        Position {
            file: self.name.clone(),
            offset: self.offset,
            lines: self.lines,
            seen: self.seen.checksum(),
            ended: false,
        }
    }

    /// Adds the next record to the page; false when there is none, or the beginning of one only. At the end of what there is, what
    /// has no line break counts as a record only if `complete`.
    ///
    /// # Errors
    /// `Data`, naming file and line.
    pub(super) fn next(
        &mut self,
        shape: &Shape,
        complete: bool,
        page: &mut RecordsWriter,
    ) -> Result<bool> {
        let before = page.records();
        while self.find_record(complete)? {
            let added = match (&self.splitter, &self.columns) {
                (Splitter::Csv(record), Some(columns)) => shape.add_csv(columns, record, page),
                _ => {
                    let line = &self.buffer[self.start..self.scanned];
                    let mark = "\u{feff}".as_bytes();
                    let first = self.offset == 0 && self.noted == self.start;
                    let plain = line.strip_prefix(mark).filter(|_| first);
                    shape.add_line(plain.unwrap_or(line), page)
                }
            };
            added.map_err(|error| self.at(error))?;
            self.start = self.scanned;
            // An empty line is none.
            if page.records() > before {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Finds the end of the current record, and reads on until it is there.
    fn find_record(&mut self, complete: bool) -> Result<bool> {
        self.skip_line_breaks();
        loop {
            if self.scanned < self.filled {
                let unread = &self.buffer[self.scanned..self.filled];
                let (read, found) = self.splitter.read(unread);
                self.scanned += read;
                if found {
                    return Ok(true);
                }
            }
            if self.scanned - self.start > MAX_RECORD_BYTES {
                self.note();
                let line = self.lines + 1;
                return Err(self.wrong(&format!(
                    "has a record in line {line} that does not end within {MAX_RECORD_BYTES} bytes"
                )));
            }
            if self.fill()? == 0 {
                let left = self.scanned > self.start;
                if left && complete {
                    self.splitter.end();
                }
                return Ok(left && complete);
            }
            self.skip_line_breaks();
        }
    }

    /// Between two records line breaks say nothing: empty lines, or what is left of the one before.
    fn skip_line_breaks(&mut self) {
        if self.scanned > self.start {
            return;
        }
        let breaks = self.buffer[self.start..self.filled].iter();
        self.scanned += breaks
            .take_while(|byte| matches!(byte, b'\n' | b'\r'))
            .count();
        self.start = self.scanned;
    }

    /// Notes what is dealt with.
    fn note(&mut self) {
        let passed = &self.buffer[self.noted..self.start];
        self.seen.push(passed);
        self.offset += passed.len() as u64;
        self.lines += memchr_iter(b'\n', passed).count() as u64;
        self.noted = self.start;
    }

    fn fill(&mut self) -> Result<usize> {
        self.note();
        self.buffer.copy_within(self.start..self.filled, 0);
        self.filled -= self.start;
        self.scanned -= self.start;
        (self.start, self.noted) = (0, 0);
        if self.buffer.len() < self.filled + READ_BYTES {
            self.buffer.resize(self.filled + READ_BYTES, 0);
        }
        let read = read_some(&mut self.contents, &mut self.buffer[self.filled..]);
        self.filled += *read.as_ref().unwrap_or(&0);
        read.context(ErrorKind::Data, || format!("cannot read {}", self.name))
    }

    /// Whether there is no file of this name any more. What was written to it can still be read.
    pub(super) fn is_gone(&self) -> bool {
        std::fs::metadata(&self.name).is_err_and(|error| error.kind() == IoKind::NotFound)
    }

    /// Whether the file of this name has become another one, or shorter than what was read of it. Of files that are not
    /// compressed.
    pub(super) fn check_same(&mut self) -> Result<()> {
        let now = std::fs::metadata(&self.name);
        let now = now.context(ErrorKind::Data, || {
            format!("{} is gone while it is read", self.name)
        })?;
        self.note();
        if now.len() < self.offset {
            return Err(self.wrong(
                "is shorter than what was read of it: give new contents a new name; --fresh reads every file again",
            ));
        }
        Ok(())
    }

    fn wrong(&self, what: &str) -> Error {
        Error::new(ErrorKind::Data, format!("{} {what}", self.name))
    }

    /// The error with the place of the current record.
    fn at(&mut self, error: Error) -> Error {
        self.note();
        error.wrap(format!("{}, line {}", self.name, self.lines + 1))
    }
}

fn contents(name: &str) -> Result<Box<dyn Read + Send>> {
    let opened = File::open(name).and_then(|file| decompressed(name, file));
    opened.context(ErrorKind::Data, || format!("cannot open {name}"))
}

fn decompressed(name: &str, file: File) -> std::io::Result<Box<dyn Read + Send>> {
    Ok(match Compression::of(name).0 {
        Compression::None => Box::new(file),
        // A file may be several, one after the other.
        Compression::Gzip => Box::new(flate2::read::MultiGzDecoder::new(file)),
        Compression::Zstd => Box::new(zstd::stream::read::Decoder::new(file)?),
    })
}

/// The contents of a file from `offset` on, and what is before; `None` when the file is shorter.
fn read_to(
    name: &str,
    offset: u64,
    seen: &mut Seen,
) -> std::io::Result<Option<Box<dyn Read + Send>>> {
    let mut file = File::open(Path::new(name))?;
    let checked = CHECKED_BYTES as u64;
    if Compression::of(name).0 == Compression::None && offset > 2 * checked {
        let whole = read_through(&mut file, checked, seen)?;
        file.seek(SeekFrom::Start(offset - checked))?;
        let whole = whole && read_through(&mut file, checked, seen)?;
        return Ok(whole.then(|| Box::new(file) as Box<dyn Read + Send>));
    }
    let mut contents = decompressed(name, file)?;
    let whole = read_through(&mut contents, offset, seen)?;
    Ok(whole.then_some(contents))
}

/// Reads so many bytes; false if there are fewer.
fn read_through(from: &mut impl Read, bytes: u64, seen: &mut Seen) -> std::io::Result<bool> {
    let mut buffer = vec![0; READ_BYTES];
    let mut left = bytes;
    while left > 0 {
        let most = usize::try_from(left).map_or(READ_BYTES, |left| left.min(READ_BYTES));
        match read_some(from, &mut buffer[..most])? {
            0 => return Ok(false),
            read => {
                seen.push(&buffer[..read]);
                left -= read as u64;
            }
        }
    }
    Ok(true)
}

fn read_some(from: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    loop {
        match from.read(buffer) {
            Err(error) if error.kind() == IoKind::Interrupted => {}
            read => return read,
        }
    }
}
