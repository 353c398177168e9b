//! Many records, those of a page in one piece of memory.
//!
//! A record by itself would be two allocations, and two counts of who uses them; most records live exactly as long as their page does. So
//! sources write the records of a page one behind the other, and what a seal keeps is pages.

use std::mem::take;

use bytes::Bytes;

use crate::Record;

/// Records in order. To add another one's is to add its pages.
#[derive(Clone, Default)]
pub struct Records {
    pieces: Vec<Piece>,
    length: usize,
}

#[derive(Clone)]
enum Piece {
    /// One behind the other.
    Page(Bytes, Vec<Place>),
    Loose(Vec<Record>),
}

/// Where a record is in its page: behind the one before, its parts behind each other. Small, as there is one for each record of
/// every page that waits to be sealed.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// Where its second part begins, with [`Parts`] in the highest bits.
    middle: u32,
    end: u32,
}

#[derive(Clone, Copy, Debug)]
enum Parts {
    /// Up to the middle; nothing follows.
    Key = 0,
    KeyAndBody = 1,
    BodyAndKey = 2,
}

/// What of a place are positions.
const POSITION: u32 = u32::MAX >> Parts::BITS;
/// A page has no more bytes, so that places can tell them.
const MOST_PAGE_BYTES: usize = POSITION as usize;

impl Parts {
    /// So many bits say which they are.
    const BITS: u32 = 2;
}

impl Place {
    /// In a page of [`MOST_PAGE_BYTES`] at most.
    fn new(parts: Parts, middle: usize, end: usize) -> Self {
        Place {
            middle: ((parts as u32) << POSITION.count_ones()) | middle as u32,
            end: end as u32,
        }
    }

    fn middle(&self) -> usize {
        (self.middle & POSITION) as usize
    }

    fn end(&self) -> usize {
        self.end as usize
    }

    fn parts(&self) -> Parts {
        match self.middle >> POSITION.count_ones() {
            0 => Parts::Key,
            1 => Parts::KeyAndBody,
            _ => Parts::BodyAndKey,
        }
    }
}

/// A record where it is.
#[derive(Clone, Copy)]
pub struct RecordRef<'a> {
    /// Identity of the document within its source.
    pub key: &'a [u8],
    /// The document after the change, or `None` for a removal.
    pub body: Option<&'a [u8]>,
    home: Home<'a>,
}

#[derive(Clone, Copy)]
enum Home<'a> {
    Page(&'a Bytes),
    Record(&'a Record),
}

impl<'a> RecordRef<'a> {
    /// Bytes of key and body, the unit of the memory budgets.
    pub fn size_bytes(&self) -> usize {
        self.key.len() + self.body.map_or(0, <[u8]>::len)
    }

    /// The body, which keeps its page in memory.
    pub fn shared_body(&self) -> Option<Bytes> {
        match self.home {
            Home::Page(page) => self.body.map(|body| page.slice_ref(body)),
            Home::Record(record) => record.body.clone(),
        }
    }

    /// By itself; it keeps its page in memory.
    pub fn to_record(&self) -> Record {
        match self.home {
            Home::Page(page) => Record {
                key: page.slice_ref(self.key),
                body: self.shared_body(),
            },
            Home::Record(record) => record.clone(),
        }
    }

    /// A part of this record, and what follows it in its page.
    pub(crate) fn with_what_follows(&self, part: &'a [u8]) -> &'a [u8] {
        let Home::Page(page) = self.home else {
            return part;
        };
        let at = (part.as_ptr() as usize).checked_sub(page.as_ptr() as usize);
        at.and_then(|at| page.get(at..)).unwrap_or(part)
    }

    fn in_page(page: &'a Bytes, start: usize, place: &Place) -> Self {
        let first = &page[start..place.middle()];
        let second = &page[place.middle()..place.end()];
        let (key, body) = match place.parts() {
            Parts::Key => (first, None),
            Parts::KeyAndBody => (first, Some(second)),
            Parts::BodyAndKey => (second, Some(first)),
        };
        RecordRef {
            key,
            body,
            home: Home::Page(page),
        }
    }
}

impl<'a> From<&'a Record> for RecordRef<'a> {
    fn from(record: &'a Record) -> Self {
        RecordRef {
            key: &record.key,
            body: record.body.as_deref(),
            home: Home::Record(record),
        }
    }
}

impl Records {
    /// None.
    pub const fn new() -> Self {
        Records {
            pieces: Vec::new(),
            length: 0,
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Bytes of keys and bodies.
    pub fn size_bytes(&self) -> usize {
        let size = |piece: &Piece| match piece {
            // A page holds nothing else.
            Piece::Page(page, _) => page.len(),
            Piece::Loose(records) => records.iter().map(Record::size_bytes).sum(),
        };
        self.pieces.iter().map(size).sum()
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = RecordRef<'_>> + Clone {
        self.pieces.iter().flat_map(Piece::iter)
    }

    /// Adds one.
    pub fn push(&mut self, record: Record) {
        self.length += 1;
        match self.pieces.last_mut() {
            Some(Piece::Loose(records)) => records.push(record),
            _ => self.pieces.push(Piece::Loose(vec![record])),
        }
    }

    /// Adds those of another.
    pub fn append(&mut self, mut other: Records) {
        self.length += other.length;
        self.pieces.append(&mut other.pieces);
    }
}

impl Piece {
    fn iter(&self) -> impl Iterator<Item = RecordRef<'_>> + Clone {
        let (page, places, loose) = match self {
            Piece::Page(page, places) => (Some(page), places.as_slice(), [].as_slice()),
            Piece::Loose(records) => (None, [].as_slice(), records.as_slice()),
        };
        let in_page = page.into_iter().flat_map(|page| in_page(page, places));
        in_page.chain(loose.iter().map(RecordRef::from))
    }
}

fn in_page<'a>(
    page: &'a Bytes,
    places: &'a [Place],
) -> impl Iterator<Item = RecordRef<'a>> + Clone {
    places.iter().scan(0, move |start, place| {
        let start = std::mem::replace(start, place.end());
        Some(RecordRef::in_page(page, start, place))
    })
}

impl From<Vec<Record>> for Records {
    fn from(records: Vec<Record>) -> Self {
        Records {
            length: records.len(),
            pieces: vec![Piece::Loose(records)],
        }
    }
}

impl FromIterator<Record> for Records {
    fn from_iter<I: IntoIterator<Item = Record>>(records: I) -> Self {
        records.into_iter().collect::<Vec<_>>().into()
    }
}

impl From<Records> for Vec<Record> {
    /// Each by itself.
    fn from(records: Records) -> Self {
        let mut all = Vec::with_capacity(records.length);
        for piece in records.pieces {
            match piece {
                Piece::Loose(mut records) => all.append(&mut records),
                Piece::Page(page, places) => {
                    all.extend(in_page(&page, &places).map(|record| record.to_record()));
                }
            }
        }
        all
    }
}

impl IntoIterator for Records {
    type Item = Record;
    type IntoIter = std::vec::IntoIter<Record>;

    fn into_iter(self) -> Self::IntoIter {
        Vec::from(self).into_iter()
    }
}

impl PartialEq for Records {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Records {}

impl PartialEq for RecordRef<'_> {
    fn eq(&self, other: &Self) -> bool {
        (self.key, self.body) == (other.key, other.body)
    }
}

impl std::fmt::Debug for Records {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl std::fmt::Debug for RecordRef<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.to_record().fmt(f)
    }
}

/// A page of records that is being written, one behind the other.
#[derive(Debug)]
pub struct RecordsWriter {
    bytes: Vec<u8>,
    places: Vec<Place>,
    /// What did not fit in the page.
    before: Records,
    most_bytes: usize,
}

impl Default for RecordsWriter {
    fn default() -> Self {
        RecordsWriter::with_capacity(0, 0)
    }
}

impl RecordsWriter {
    /// With room for so many bytes and records.
    pub fn with_capacity(bytes: usize, records: usize) -> Self {
        RecordsWriter {
            bytes: Vec::with_capacity(bytes),
            places: Vec::with_capacity(records),
            before: Records::new(),
            most_bytes: MOST_PAGE_BYTES,
        }
    }

    /// How many there are.
    pub fn records(&self) -> usize {
        self.before.len() + self.places.len()
    }

    /// Bytes of keys and bodies.
    pub fn bytes(&self) -> usize {
        self.before.size_bytes() + self.bytes.len()
    }

    /// The records, in memory of their size.
    pub fn finish(mut self) -> Records {
        self.end_page();
        self.before
    }

    fn end_page(&mut self) {
        let length = self.places.len();
        if length > 0 {
            let (mut bytes, places) = (take(&mut self.bytes), take(&mut self.places));
            bytes.shrink_to_fit();
            self.before.append(Records {
                length,
                pieces: vec![Piece::Page(Bytes::from(bytes), places)],
            });
        }
    }

    /// Writes a removal: its key.
    pub fn removal(&mut self, write_key: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        write_key(&mut self.bytes);
        self.place(start, self.bytes.len(), Parts::Key);
    }

    /// Writes a key, and then a body if there is one.
    pub fn record(
        &mut self,
        write_key: impl FnOnce(&mut Vec<u8>),
        write_body: Option<impl FnOnce(&mut Vec<u8>)>,
    ) {
        let start = self.bytes.len();
        write_key(&mut self.bytes);
        let middle = self.bytes.len();
        let parts = match write_body {
            Some(write_body) => {
                write_body(&mut self.bytes);
                Parts::KeyAndBody
            }
            None => Parts::Key,
        };
        self.place(start, middle, parts);
    }

    /// Writes a body and then its key in one go: `write` says how many bytes the body has. What it leaves with an error does not count.
    ///
    /// # Errors
    /// Those of `write`.
    pub fn body_and_key<E>(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>) -> Result<usize, E>,
    ) -> Result<(), E> {
        let start = self.bytes.len();
        match write(&mut self.bytes) {
            Ok(body) => {
                self.place(start, start + body, Parts::BodyAndKey);
                Ok(())
            }
            Err(error) => {
                self.bytes.truncate(start);
                Err(error)
            }
        }
    }

    fn place(&mut self, start: usize, middle: usize, parts: Parts) {
        let end = self.bytes.len();
        if end > self.most_bytes {
            return self.place_apart(start, middle, parts);
        }
        self.places.push(Place::new(parts, middle, end));
    }

    /// Ends the page before a record that does not fit. One that fits in no page is by itself.
    #[cold]
    fn place_apart(&mut self, start: usize, middle: usize, parts: Parts) {
        let last = self.bytes.split_off(start);
        self.end_page();
        self.bytes = last;
        let (middle, end) = (middle - start, self.bytes.len());
        if end <= self.most_bytes {
            return self.places.push(Place::new(parts, middle, end));
        }
        let mut first = Bytes::from(take(&mut self.bytes));
        let second = first.split_off(middle);
        let (key, body) = match parts {
            Parts::Key => (first, None),
            Parts::KeyAndBody => (first, Some(second)),
            Parts::BodyAndKey => (second, Some(first)),
        };
        self.before.push(Record { key, body });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(key: &str, body: Option<&str>) -> Record {
        Record {
            key: Bytes::from(key.to_owned()),
            body: body.map(|body| Bytes::from(body.to_owned())),
        }
    }

    #[test]
    fn records_come_back_as_they_were_written() {
        let mut writer = RecordsWriter::with_capacity(4, 1);
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
        let records = writer.finish();
        let expected = vec![
            of("key 1", Some("body 1")),
            of("key 2", None),
            of("key 3", Some("body 3")),
        ];
        assert_eq!((records.len(), records.size_bytes()), (3, 27));
        assert_eq!(records, Records::from(expected.clone()));
        let bodies: Vec<_> = records.iter().map(|record| record.shared_body()).collect();
        assert_eq!(bodies, [Some("body 1".into()), None, Some("body 3".into())]);
        assert_eq!(Vec::from(records), expected);
    }

    /// A page ends before a record that would make it too large; one that is too large itself is in none.
    #[test]
    fn pages_have_a_limit() {
        for most_bytes in 0..40 {
            let mut writer = RecordsWriter {
                most_bytes,
                ..RecordsWriter::default()
            };
            let mut expected = Vec::new();
            for number in 0..9 {
                let (key, body) = (format!("k{number}"), "b".repeat(number));
                match number % 3 {
                    0 => writer.removal(|to| to.extend_from_slice(key.as_bytes())),
                    1 => writer.record(
                        |to| to.extend_from_slice(key.as_bytes()),
                        Some(|to: &mut Vec<u8>| to.extend_from_slice(body.as_bytes())),
                    ),
                    _ => {
                        let wrote = writer.body_and_key(|to| {
                            to.extend_from_slice(body.as_bytes());
                            to.extend_from_slice(key.as_bytes());
                            Ok::<_, ()>(number)
                        });
                        wrote.expect("no error");
                    }
                }
                expected.push(of(&key, (number % 3 > 0).then_some(&body)));
            }
            let size = expected.iter().map(Record::size_bytes).sum::<usize>();
            assert_eq!((writer.records(), writer.bytes()), (9, size));
            let records = writer.finish();
            let fits = |piece: &Piece| match piece {
                Piece::Page(page, _) => page.len() <= most_bytes,
                Piece::Loose(loose) => loose.iter().all(|record| record.size_bytes() > most_bytes),
            };
            assert!(records.pieces.iter().all(fits), "{most_bytes}");
            assert_eq!(records, Records::from(expected));
        }
    }

    #[test]
    fn pages_and_records_follow_each_other() {
        let page = |key: &'static str| {
            let mut writer = RecordsWriter::default();
            writer.removal(|to| to.extend_from_slice(key.as_bytes()));
            writer.finish()
        };
        let mut all = page("a");
        all.push(of("b", Some("")));
        all.push(of("c", None));
        all.append(page("d"));
        all.append(Records::new());
        all.append([of("e", None)].into_iter().collect());
        let keys: Vec<_> = all.iter().flat_map(|record| record.key.to_vec()).collect();
        assert_eq!(String::from_utf8(keys).expect("text"), "abcde");
        assert_eq!((all.len(), all.size_bytes()), (5, 5));
        assert!(!all.is_empty() && RecordsWriter::default().finish().is_empty());
        assert_ne!(all, page("a"));
    }
}
