//! The properties of a JSON object where they stand in its text, for documents of the plain kind that most are.
//!
//! A scan reads the text once, from left to right, and checks all of it that is JSON's grammar, but builds nothing. It gives up on
//! whatever is rare: then a parser says what the text is, and what is wrong with it. So a scan may only be wrong in giving up; what it
//! accepts, serde_json accepts too, with the same names and values. The tests hold it to that.

/// A property as it stands in the text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scanned<'a> {
    /// Its name without quotes, in which nothing is escaped.
    pub(crate) name: &'a [u8],
    /// The first bytes of the name.
    head: u64,
    pub(crate) value: Value<'a>,
    /// Both, with what is between them.
    pub(crate) whole: &'a [u8],
}

/// The text of a value, and of which kind it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Value<'a> {
    pub(crate) text: &'a [u8],
    pub(crate) kind: Kind,
}

/// Kinds of values, as far as those who scan care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A string in which nothing is escaped.
    Plain,
    /// Another string.
    Escaped,
    /// A whole number of at most 15 digits, as everybody writes it.
    Integer,
    /// Another number.
    Number,
    Boolean,
    Null,
    /// An array or an object.
    Nested,
}

/// How a scan has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scan {
    /// The text is one JSON object, and all of its properties were given.
    Whole,
    /// It may be anything; what was given does not count.
    GivenUp,
}

/// Gives the properties of the object that `text` is.
pub(crate) fn scan<'a>(text: &'a [u8], give: impl FnMut(Scanned<'a>)) -> Scan {
    let mut cursor = Cursor::new(text);
    let object = cursor.object(give).is_some();
    match object && (cursor.ascii || std::str::from_utf8(text).is_ok()) {
        true => Scan::Whole,
        false => Scan::GivenUp,
    }
}

/// A place in the text. Everything is `None` when it is not as it should be.
///
/// What every document goes through is one function, in which the place is in a register: texts that are handed over in memory, between
/// functions, take longer to write and read than what is between two quotes.
pub(crate) struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
    /// Whether no string so far has more than ASCII in it; elsewhere there can be nothing else.
    ascii: bool,
}

/// A name that is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    text: String,
    head: u64,
}

impl Name {
    pub(crate) fn new(text: &str) -> Self {
        Name {
            head: head(text.as_bytes(), text.len()),
            text: text.to_owned(),
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }
}

impl Scanned<'_> {
    /// Whether this is its name.
    #[inline(always)]
    pub(crate) fn is(&self, name: &Name) -> bool {
        // Most names are no longer than that, and most of the others differ in it: so there is no call.
        self.head == name.head
            && self.name.len() == name.text.len()
            && (self.name.len() <= 8 || self.name == name.text.as_bytes())
    }
}

/// The first eight bytes of a text of so many, of which there may be more to read; zeros where it is shorter.
#[inline(always)]
fn head(text: &[u8], length: usize) -> u64 {
    let eight = match text.first_chunk::<8>() {
        Some(eight) => u64::from_le_bytes(*eight),
        None => {
            let bytes = text.iter().rev();
            bytes.fold(0, |head, byte| head << 8 | u64::from(*byte))
        }
    };
    match length {
        0 => 0,
        1..8 => eight & (u64::MAX >> (64 - 8 * length)),
        _ => eight,
    }
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(text: &'a [u8]) -> Self {
        Cursor {
            text,
            at: 0,
            ascii: true,
        }
    }

    fn object(&mut self, mut give: impl FnMut(Scanned<'a>)) -> Option<()> {
        self.space();
        self.expect(b'{')?;
        self.space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return self.end();
        }
        loop {
            let begin = self.at;
            let name = self.name()?;
            let value = self.any_value()?;
            give(Scanned {
                name,
                head: head(&self.text[begin + 1..], name.len()),
                value,
                whole: &self.text[begin..self.at],
            });
            self.space();
            match self.next()? {
                b',' => self.space(),
                b'}' => return self.end(),
                _ => return None,
            }
        }
    }

    /// A name in which nothing is escaped, and what is between it and its value.
    #[inline(always)]
    pub(crate) fn name(&mut self) -> Option<&'a [u8]> {
        let begin = self.at;
        if self.string()? != Kind::Plain {
            return None;
        }
        let name = &self.text[begin + 1..self.at - 1];
        self.space();
        self.expect(b':')?;
        self.space();
        Some(name)
    }

    pub(crate) fn end(&mut self) -> Option<()> {
        self.space();
        (self.at == self.text.len()).then_some(())
    }

    /// The place, counted from the beginning of the text.
    #[inline(always)]
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    #[inline(always)]
    pub(crate) fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    #[inline(always)]
    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    #[inline(always)]
    pub(crate) fn expect(&mut self, byte: u8) -> Option<()> {
        (self.next()? == byte).then_some(())
    }

    #[inline(always)]
    pub(crate) fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// A string with its quotes. What is rare is not made part of whoever calls this.
    #[inline(always)]
    fn string(&mut self) -> Option<Kind> {
        self.expect(b'"')?;
        self.at = end_of_plain(self.text, self.at);
        match self.peek()? {
            b'"' => {
                self.at += 1;
                Some(Kind::Plain)
            }
            _ => self.rest_of_string(),
        }
    }

    #[inline(never)]
    fn rest_of_string(&mut self) -> Option<Kind> {
        let mut kind = Kind::Plain;
        loop {
            match self.next()? {
                b'"' => return Some(kind),
                b'\\' => {
                    kind = Kind::Escaped;
                    self.escape()?;
                }
                0x80.. => {
                    self.ascii = false;
                    let rest = self.text[self.at..].iter();
                    self.at += rest.take_while(|byte| !byte.is_ascii()).count();
                }
                _ => return None,
            }
            self.at = end_of_plain(self.text, self.at);
        }
    }

    /// What follows a backslash.
    fn escape(&mut self) -> Option<()> {
        match self.next()? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
            b'u' => {
                let code = self.text.get(self.at..self.at + 4)?;
                code.iter().all(u8::is_ascii_hexdigit).then_some(())?;
                self.at += 4;
            }
            _ => return None,
        }
        Some(())
    }

    /// A value, whatever it is.
    #[inline(always)]
    pub(crate) fn any_value(&mut self) -> Option<Value<'a>> {
        let from = self.at;
        let kind = match self.peek()? {
            b'"' => self.string()?,
            b'-' | b'0'..=b'9' => self.number()?,
            _ => self.other_value()?,
        };
        let text = &self.text[from..self.at];
        Some(Value { text, kind })
    }

    #[inline(never)]
    fn other_value(&mut self) -> Option<Kind> {
        match self.peek()? {
            b't' => self.literal(b"true", Kind::Boolean),
            b'f' => self.literal(b"false", Kind::Boolean),
            b'n' => self.literal(b"null", Kind::Null),
            b'{' | b'[' => self.nested(),
            _ => None,
        }
    }

    fn literal(&mut self, literal: &[u8], kind: Kind) -> Option<Kind> {
        self.text[self.at..].starts_with(literal).then(|| {
            self.at += literal.len();
            kind
        })
    }

    #[inline(always)]
    fn number(&mut self) -> Option<Kind> {
        let minus = self.peek() == Some(b'-');
        self.at += usize::from(minus);
        let first = self.peek()?;
        let digits = self.digits()?;
        if first == b'0' && digits > 1 {
            return None;
        }
        let mut kind = match digits <= 15 && !(minus && first == b'0') {
            true => Kind::Integer,
            false => Kind::Number,
        };
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
            kind = Kind::Number;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            self.digits()?;
            kind = Kind::Number;
        }
        Some(kind)
    }

    /// How many digits there are, at least one.
    #[inline(always)]
    fn digits(&mut self) -> Option<usize> {
        let from = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        (self.at > from).then_some(self.at - from)
    }

    /// Arrays and objects are a parser's to check.
    fn nested(&mut self) -> Option<Kind> {
        let rest = &self.text[self.at..];
        // Its strings may have any text in them.
        self.ascii = false;
        let mut values =
            serde_json::Deserializer::from_slice(rest).into_iter::<serde::de::IgnoredAny>();
        values.next()?.ok()?;
        self.at += values.byte_offset();
        Some(Kind::Nested)
    }
}

/// The place from `at` on of the first byte that means something in a string: a quote, a backslash, what must
/// not be there, or what is not ASCII.
#[inline(always)]
fn end_of_plain(text: &[u8], mut at: usize) -> usize {
    while let Some(some) = text.get(at..).and_then(<[u8]>::first_chunk::<AT_ONCE>) {
        let first = first_special(some);
        if first < AT_ONCE {
            return at + first;
        }
        at += AT_ONCE;
    }
    let rest = text[at..].iter();
    at + rest.take_while(|byte| !is_special(**byte)).count()
}

/// Bytes that are looked at together.
const AT_ONCE: usize = 16;

/// The place of the first of these bytes that means something in a string, or their number.
///
/// Two numbers, each of eight bytes: what compilers make of sixteen comparisons goes through memory, which takes longer.
#[inline(always)]
fn first_special(bytes: &[u8; AT_ONCE]) -> usize {
    let both = u128::from_le_bytes(*bytes);
    let (low, high) = (specials(both as u64), specials((both >> 64) as u64));
    let bits = match low {
        0 => u64::BITS + high.trailing_zeros(),
        _ => low.trailing_zeros(),
    };
    bits as usize / 8
}

/// The highest bit of each byte that means something, up to the first of them; those after it may be set for nothing, as a subtraction
/// may borrow from the byte after.
#[inline(always)]
fn specials(bytes: u64) -> u64 {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    let is = |byte: u8| (bytes ^ (ONES * u64::from(byte))).wrapping_sub(ONES);
    let control = bytes.wrapping_sub(ONES * 0x20);
    // What is not ASCII has it anyway, whatever the others say of it.
    (is(b'"') | is(b'\\') | control | bytes) & (ONES << 7)
}

/// Whether a byte means something in a string. As a signed number what is not ASCII is below the space too.
#[inline(always)]
fn is_special(byte: u8) -> bool {
    (byte as i8) < 0x20 || byte == b'"' || byte == b'\\'
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::properties::properties;

    /// Names and values.
    type Found = Vec<(String, String)>;

    /// The properties by a scan and by a parser.
    fn both(text: &[u8]) -> (Option<Found>, Option<Found>) {
        let mut scanned = Vec::new();
        let end = scan(text, |Scanned { name, value, .. }| {
            // What is given before a scan gives up may be anything.
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            scanned.push((text(name), text(value.text)));
        });
        let parsed = properties(text).map(|parsed| {
            let own = |(name, value): (std::borrow::Cow<'_, str>, &serde_json::value::RawValue)| {
                (name.into_owned(), value.get().to_owned())
            };
            parsed.into_iter().map(own).collect()
        });
        ((end == Scan::Whole).then_some(scanned), parsed.ok())
    }

    /// Every byte at every place, before every other.
    #[test]
    fn the_first_byte_that_means_something_is_found() {
        for first in 0..=u8::MAX {
            for second in 0..=u8::MAX {
                for at in 0..AT_ONCE {
                    let mut bytes = *b"0123456789abcdef";
                    bytes[at..].fill(second);
                    bytes[at] = first;
                    let found = bytes.iter().position(|byte| is_special(*byte));
                    let says = (first_special(&bytes), first, second, at);
                    assert_eq!(says, (found.unwrap_or(AT_ONCE), first, second, at));
                }
            }
        }
    }

    #[test]
    fn plain_documents_are_scanned() {
        let text = r#" { "id" : "a" ,"n":-12,"z":0,"f":1.50,"t":true,"e":"\"x\"", "l":[1,{"a":[]}],"o":{} , "u":null,"ü":"é" } "#;
        let (scanned, parsed) = both(text.as_bytes());
        assert!(scanned.is_some(), "it gave up");
        assert_eq!(scanned, parsed);
        assert_eq!(both(b"{}").0, Some(Vec::new()));
    }

    #[test]
    fn kinds_of_values() {
        let mut kinds = Vec::new();
        let text = br#"{"a":"x","b":"\n","c":123456789012345,"d":1234567890123456,"e":-0,"f":0.5,"g":false,"h":null,"i":[]}"#;
        assert_eq!(
            scan(text, |found| kinds.push(found.value.kind)),
            Scan::Whole
        );
        let expected = [
            Kind::Plain,
            Kind::Escaped,
            Kind::Integer,
            Kind::Number,
            Kind::Number,
            Kind::Number,
            Kind::Boolean,
            Kind::Null,
            Kind::Nested,
        ];
        assert_eq!(kinds, expected);
    }

    #[test]
    fn the_first_special_byte_is_found_wherever_it_is() {
        for byte in 0..=255u8 {
            for at in 0..20 {
                for length in at + 1..22 {
                    let mut text = vec![b'x'; length];
                    text[at] = byte;
                    let special = !matches!(byte, 0x20..0x80) || byte == b'"' || byte == b'\\';
                    let expected = if special { at } else { length };
                    assert_eq!(
                        end_of_plain(&text, 0),
                        expected,
                        "{byte} at {at} of {length}"
                    );
                }
            }
        }
    }

    /// What is accepted is what serde_json finds, whatever is done to the text; most of what is sound is accepted.
    #[test]
    fn a_scan_finds_what_a_parser_finds() {
        let seed = fastrand::u64(..);
        eprintln!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut accepted, mut sound) = (0, 0);
        for _ in 0..60_000 {
            let mut text = object(&mut random, 2).into_bytes();
            for _ in 0..random.usize(..3) {
                spoil(&mut text, &mut random);
            }
            let (scanned, parsed) = both(&text);
            accepted += usize::from(scanned.is_some());
            sound += usize::from(parsed.is_some());
            if scanned.is_some() {
                assert_eq!(scanned, parsed, "{:?}", String::from_utf8_lossy(&text));
            }
        }
        // It gives up on names with escapes.
        assert!(accepted * 3 > sound, "{accepted} of {sound}");
    }

    pub(crate) fn object(random: &mut fastrand::Rng, depth: usize) -> String {
        let properties = (0..random.usize(..5)).map(|_| {
            let name = ["a", "id", "_x", "", "ü", "q\\u0041"][random.usize(..6)];
            let value = value(random, depth);
            format!("\"{name}\"{}:{}{value}", space(random), space(random))
        });
        let all: Vec<_> = properties.collect();
        format!("{{{}{}}}", space(random), all.join(","))
    }

    fn value(random: &mut fastrand::Rng, depth: usize) -> String {
        match random.u8(..if depth == 0 { 7 } else { 9 }) {
            0 => format!("\"{}\"", "plain é".repeat(random.usize(..4))),
            1 => r#""\"\\\/\n\u00e9""#.to_owned(),
            2 => random.i64(..).to_string(),
            3 => format!("-{}.{}", random.u8(..), random.u8(..)),
            4 => ["1e5", "1E400", "0", "-0", "01", "1.", "-"][random.usize(..7)].to_owned(),
            5 => ["true", "false", "null", "nul", "truex"][random.usize(..5)].to_owned(),
            6 => r#""\n\t""#.to_owned(),
            7 => object(random, depth - 1),
            _ => format!(
                "[{},{}]",
                value(random, depth - 1),
                value(random, depth - 1)
            ),
        }
    }

    fn space(random: &mut fastrand::Rng) -> &'static str {
        ["", "", " ", "\n\t", "\r"][random.usize(..5)]
    }

    pub(crate) fn spoil(text: &mut Vec<u8>, random: &mut fastrand::Rng) {
        if text.is_empty() {
            return;
        }
        let at = random.usize(..text.len());
        let other = b"\"\\{}[]:,0 -e\x01\xff"[random.usize(..14)];
        match random.u8(..3) {
            0 => text[at] = other,
            1 => text.insert(at, other),
            _ => {
                text.remove(at);
            }
        }
    }
}
