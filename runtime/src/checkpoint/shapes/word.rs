//! Reading texts by words of eight bytes.

/// Bytes of a word.
pub(super) const WORD: usize = 8;

const ONES: u64 = u64::from_le_bytes([0x01; WORD]);
const HIGHS: u64 = u64::from_le_bytes([0x80; WORD]);

/// A part of a record, and what follows it in memory, so that its last word need not be gathered.
#[derive(Clone, Copy)]
pub(super) struct Text<'a> {
    bytes: &'a [u8],
    length: usize,
}

impl<'a> Text<'a> {
    /// With nothing behind it.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Text::within(bytes, bytes.len())
    }

    /// The first `length` of these bytes.
    pub(super) fn within(bytes: &'a [u8], length: usize) -> Self {
        Text { bytes, length }
    }

    pub(super) fn len(&self) -> usize {
        self.length
    }

    pub(super) fn bytes(&self) -> &'a [u8] {
        &self.bytes[..self.length]
    }

    /// The bytes from `at` on, those behind the text too, as a number whose lowest byte is the first.
    #[inline(always)]
    pub(super) fn word(&self, at: usize) -> u64 {
        load(self.bytes, at)
    }

    /// The two words from `at` on.
    #[inline(always)]
    pub(super) fn words(&self, at: usize) -> [u64; 2] {
        words(self.bytes, at)
    }

    /// The bytes of two words from `at` on, those behind the text too.
    #[inline(always)]
    pub(super) fn chunk(&self, at: usize) -> [u8; 2 * WORD] {
        chunk(self.bytes, at)
    }

    /// A byte of it, or behind it; zero where nothing is.
    #[inline(always)]
    pub(super) fn byte(&self, at: usize) -> u8 {
        self.bytes.get(at).copied().unwrap_or(0)
    }

    /// Where the first `stop` is from `at` on, but for quotes that are escaped.
    pub(super) fn find_far(&self, from: usize, stop: Wanted) -> Option<usize> {
        let bytes = self.bytes();
        let mut at = from;
        while at < bytes.len() {
            at += match find(self.word(at), stop) {
                WORD => WORD,
                found if stop.byte == b'"' && escaped(&bytes[from..], at + found - from) => {
                    found + 1
                }
                found => return Some(at + found).filter(|end| *end < bytes.len()),
            }
        }
        None
    }
}

/// Whether what is at `at` is escaped by what is before it.
fn escaped(text: &[u8], at: usize) -> bool {
    let before = text.get(..at).unwrap_or_default();
    let backslashes = before.iter().rev().take_while(|byte| **byte == b'\\');
    backslashes.count() % 2 == 1
}

/// The bytes from `at` on, as a number whose lowest byte is the first; beyond the end there are zeros.
#[inline(always)]
fn load(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(chunk(bytes, at))
}

/// The two words from `at` on.
#[inline(always)]
pub(super) fn words(bytes: &[u8], at: usize) -> [u64; 2] {
    let both = u128::from_le_bytes(chunk(bytes, at));
    [both as u64, (both >> 64) as u64]
}

/// The bytes from `at` on; beyond the end there are zeros.
#[inline(always)]
pub(super) fn chunk<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    match bytes
        .get(at..at + N)
        .and_then(|chunk| chunk.try_into().ok())
    {
        Some(chunk) => chunk,
        None => last_chunk(bytes, at),
    }
}

#[cold]
fn last_chunk<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let last = bytes.get(at..).unwrap_or_default();
    let mut chunk = [0; N];
    chunk[..last.len()].copy_from_slice(last);
    chunk
}

/// How many bytes two words begin with in common.
#[inline(always)]
pub(super) fn common(a: u64, b: u64) -> usize {
    ((a ^ b).trailing_zeros() / 8) as usize
}

/// A byte to look for.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    byte: u8,
    everywhere: u64,
}

impl Wanted {
    pub(super) fn new(byte: u8) -> Self {
        let everywhere = u64::from_le_bytes([byte; WORD]);
        Wanted { byte, everywhere }
    }
}

/// Where a byte first is in a word; the length of the word if it is not there.
#[inline(always)]
pub(super) fn find(word: u64, wanted: Wanted) -> usize {
    let differs = word ^ wanted.everywhere;
    // Below the lowest zero byte nothing borrows, so the lowest bit that is set is the right one.
    let zeros = differs.wrapping_sub(ONES) & !differs & HIGHS;
    (zeros.trailing_zeros() / 8) as usize
}

/// How many bytes two texts begin with in common.
pub(super) fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    let most = a.len().min(b.len());
    let mut at = 0;
    while at < most {
        match common(load(a, at), load(b, at)) {
            WORD => at += WORD,
            same => return (at + same).min(most),
        }
    }
    most
}

/// Writes a number as LEB128.
pub(super) fn write_number(mut number: usize, mut to: impl FnMut(u8)) {
    while number >= 0x80 {
        to(number as u8 | 0x80);
        number >>= 7;
    }
    to(number as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_the_bytes_that_are_there() {
        let bytes: Vec<u8> = (1..=40).collect();
        for at in 0..45 {
            let word = load(&bytes, at);
            for (offset, byte) in word.to_le_bytes().into_iter().enumerate() {
                let expected = bytes.get(at + offset).copied();
                assert_eq!(byte, expected.unwrap_or(0), "at {at}");
                let found = expected.map(|expected| find(word, Wanted::new(expected)));
                assert!(found.is_none_or(|found| found == offset));
            }
        }
    }

    /// A byte next to the one that is looked for, and one with its highest bit set, are not taken for it.
    #[test]
    fn only_the_byte_itself_is_found() {
        for byte in [0u8, 1, b'"', 0x7f, 0x80, 0xff] {
            for at in 0..=WORD {
                for other in [byte.wrapping_add(1), byte.wrapping_sub(1), byte ^ 0x80] {
                    let mut bytes = [other; WORD];
                    bytes[at..].fill(byte);
                    assert_eq!(find(u64::from_le_bytes(bytes), Wanted::new(byte)), at);
                }
            }
        }
    }

    #[test]
    fn quotes_that_are_escaped_are_no_ends() {
        let quote = Wanted::new(b'"');
        for (text, end) in [
            ("abc\"", Some(3)),
            ("a\\\"b\"", Some(4)),
            ("a\\\\\"b\"", Some(3)),
            ("a\\\\\\\"", None),
            ("0123456789abcdef0\\\"23456789abcd\\\"\"", Some(33)),
            ("", None),
        ] {
            assert_eq!(Text::new(text.as_bytes()).find_far(0, quote), end, "{text}");
            // What is behind the text does not count.
            let behind = format!("{text}\"\"");
            let text = Text::within(behind.as_bytes(), text.len());
            assert_eq!(text.find_far(0, quote), end, "{behind}");
        }
        assert_eq!(Text::new(b"a\\,").find_far(0, Wanted::new(b',')), Some(2));
    }

    #[test]
    fn common_prefixes_are_found_byte_by_byte() {
        let text: Vec<u8> = (0..60).map(|at| at % 7).collect();
        for length in 0..text.len() {
            assert_eq!(common_prefix(&text, &text[..length]), length);
            let mut other = text.clone();
            other[length] ^= 1;
            assert_eq!(common_prefix(&text, &other), length);
        }
        // A zero beyond the end is not in common.
        assert_eq!(common_prefix(&[1], &[1, 0, 0]), 1);
    }
}
