//! Records of a page in one piece of memory, of which each is a part.
//!
//! A record by itself would be two allocations, and as many to free; most records live exactly as long as their page does.

use std::ops::Range;

use bytes::Bytes;
use tidefeed_runtime::Record;

/// Records that are being written, one behind the other.
#[derive(Debug, Default)]
pub(crate) struct RecordsWriter {
    bytes: Vec<u8>,
    /// Keys and bodies.
    written: Vec<(Range<usize>, Option<Range<usize>>)>,
}

impl RecordsWriter {
    /// With room for so many bytes.
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        RecordsWriter {
            bytes: Vec::with_capacity(bytes),
            written: Vec::new(),
        }
    }

    pub(crate) fn records(&self) -> usize {
        self.written.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn finish(mut self) -> Vec<Record> {
        self.bytes.shrink_to_fit();
        let bytes = Bytes::from(self.bytes);
        let written = self.written.into_iter();
        written
            .map(|(key, body)| Record {
                key: bytes.slice(key),
                body: body.map(|body| bytes.slice(body)),
            })
            .collect()
    }

    /// Writes a removal: its key.
    pub(crate) fn removal(&mut self, write_key: impl FnOnce(&mut Vec<u8>)) {
        let key = self.written_by(write_key);
        self.written.push((key, None));
    }

    /// Writes a key, and then a body if there is one.
    pub(crate) fn record(
        &mut self,
        write_key: impl FnOnce(&mut Vec<u8>),
        write_body: Option<impl FnOnce(&mut Vec<u8>)>,
    ) {
        let key = self.written_by(write_key);
        let body = write_body.map(|write| self.written_by(write));
        self.written.push((key, body));
    }

    /// Writes a body and then its key in one go: `write` says how many bytes the body has. What it leaves with an error does not count.
    pub(crate) fn body_and_key<E>(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>) -> Result<usize, E>,
    ) -> Result<(), E> {
        let start = self.bytes.len();
        match write(&mut self.bytes) {
            Ok(body) => {
                let middle = start + body;
                self.written
                    .push((middle..self.bytes.len(), Some(start..middle)));
                Ok(())
            }
            Err(error) => {
                self.bytes.truncate(start);
                Err(error)
            }
        }
    }

    fn written_by(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Range<usize> {
        let start = self.bytes.len();
        write(&mut self.bytes);
        start..self.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_as_they_were_written() {
        let mut writer = RecordsWriter::with_capacity(4);
        let write = |text: &'static str| |to: &mut Vec<u8>| to.extend_from_slice(text.as_bytes());
        writer.record(write("key 1"), Some(write("body 1")));
        writer.removal(write("key 2"));
        let failed = writer.body_and_key(|to| {
            to.extend_from_slice(b"lost");
            Err("why")
        });
        assert_eq!(failed, Err("why"));
        let written = writer.body_and_key(|to| {
            to.extend_from_slice(b"body 3key 3");
            Ok::<_, ()>(6)
        });
        assert_eq!(written, Ok(()));
        assert_eq!((writer.records(), writer.bytes()), (3, 27));
        let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).expect("text");
        let records: Vec<_> = writer
            .finish()
            .iter()
            .map(|r| (text(&r.key), r.body.as_ref().map(text)))
            .collect();
        let of = |key: &str, body: Option<&str>| (key.to_owned(), body.map(str::to_owned));
        assert_eq!(
            records,
            [
                of("key 1", Some("body 1")),
                of("key 2", None),
                of("key 3", Some("body 3"))
            ]
        );
    }
}
