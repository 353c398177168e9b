//! Where a record begins and ends in the bytes of a file: lines, or the records of CSV, whose quoted fields may hold line breaks.

use csv_core::ReadRecordResult;
use memchr::memchr;

/// Finds the ends of records in bytes that come piece by piece. It begins between two records.
pub(super) enum Splitter {
    /// A record is a line.
    Lines,
    /// A record is one of CSV, which is taken apart on the way.
    Csv(Box<CsvRecord>),
}

/// One record of CSV.
pub(super) struct CsvRecord {
    reader: csv_core::Reader,
    /// The fields one after the other, and where each ends.
    text: Vec<u8>,
    ends: Vec<usize>,
    text_length: usize,
    fields: usize,
    complete: bool,
}

impl Splitter {
    /// Reads on in the record: how many bytes, and whether it is complete with them. The bytes of an incomplete record are all
    /// read.
    pub(super) fn read(&mut self, bytes: &[u8]) -> (usize, bool) {
        match self {
            Splitter::Lines => match memchr(b'\n', bytes) {
                Some(at) => (at + 1, true),
                None => (bytes.len(), false),
            },
            Splitter::Csv(record) => record.read(bytes),
        }
    }

    /// Says that nothing comes after what was read.
    pub(super) fn end(&mut self) {
        if let Splitter::Csv(record) = self {
            record.read(&[]);
        }
    }
}

impl CsvRecord {
    pub(super) fn new() -> Self {
        CsvRecord {
            reader: csv_core::Reader::new(),
            text: Vec::new(),
            ends: Vec::new(),
            text_length: 0,
            fields: 0,
            complete: false,
        }
    }

    fn read(&mut self, bytes: &[u8]) -> (usize, bool) {
        if std::mem::take(&mut self.complete) {
            (self.text_length, self.fields) = (0, 0);
        }
        let mut taken = 0;
        loop {
            let text = &mut self.text[self.text_length..];
            let ends = &mut self.ends[self.fields..];
            let (result, read, written, ended) =
                self.reader.read_record(&bytes[taken..], text, ends);
            taken += read;
            self.text_length += written;
            self.fields += ended;
            match result {
                ReadRecordResult::OutputFull => self.text.resize(2 * self.text.len().max(512), 0),
                ReadRecordResult::OutputEndsFull => {
                    self.ends.resize(2 * self.ends.len().max(16), 0)
                }
                ReadRecordResult::InputEmpty => return (taken, false),
                ReadRecordResult::Record | ReadRecordResult::End => {
                    self.complete = true;
                    return (taken, true);
                }
            }
        }
    }

    /// The fields of the record, when it is complete.
    pub(super) fn fields(&self) -> impl Iterator<Item = &[u8]> {
        let ends = &self.ends[..self.fields];
        let starts = std::iter::once(&0).chain(ends);
        starts
            .zip(ends)
            .map(|(start, end)| &self.text[*start..*end])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Any cut of the input into pieces finds the records that the `csv` crate's own buffer would.
    #[test]
    fn csv_records_are_found_however_they_come() {
        let text = "a,b\r\n\"x\ny\",\"say \"\"hi\"\"\"\n5\" disk,\n,\nlast,one";
        let expected = [
            vec!["a", "b"],
            vec!["x\ny", "say \"hi\""],
            vec!["5\" disk", ""],
            vec!["", ""],
            vec!["last", "one"],
        ];
        for piece in 1..text.len() {
            let mut splitter = Splitter::Csv(Box::new(CsvRecord::new()));
            let mut found = Vec::new();
            let mut note = |splitter: &Splitter| {
                let Splitter::Csv(record) = splitter else {
                    unreachable!("made above")
                };
                let fields = record
                    .fields()
                    .map(|field| String::from_utf8_lossy(field).into_owned());
                found.push(fields.collect::<Vec<_>>());
            };
            for chunk in text.as_bytes().chunks(piece) {
                let mut rest = chunk;
                while !rest.is_empty() {
                    let (read, complete) = splitter.read(rest);
                    rest = &rest[read..];
                    if complete {
                        note(&splitter);
                    }
                }
            }
            splitter.end();
            note(&splitter);
            assert_eq!(found, expected, "pieces of {piece}");
        }
    }
}
