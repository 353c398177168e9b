//! JSON text of documents without a value tree.
//!
//! A document is parsed once into its top-level members, each a slice of the request's text, and stored as text. What
//! the server adds (`_rid`, `_self`, `_etag`, `_attachments`, `_ts`, `_lsn`) is never stored: it is cut out of what a
//! client sends and written again when the document is read.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Deepest nesting of a document: one less than the service's limit, which is more than a value tree is read to.
const MAX_DEPTH: usize = 127;

/// Fewer digits than this are a double, if there is no exponent: the largest has 309.
const MAX_PLAIN_DIGITS: usize = 300;

const SYSTEM_PROPERTIES: [&str; 6] = ["_rid", "_self", "_etag", "_attachments", "_ts", "_lsn"];

/// The top-level members of a JSON object, in the order of the text.
pub struct Members<'a> {
    text: &'a str,
    members: Vec<(Cow<'a, str>, &'a RawValue)>,
}

impl<'a> Members<'a> {
    /// Parses `bytes`, which must be one JSON object.
    ///
    /// # Errors
    /// One clause that says what is wrong with the text.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(bytes).map_err(|_| "the body is not UTF-8".to_owned())?;
        check_values(bytes)?;
        let Fields(members) = serde_json::from_str(text)
            .map_err(|error| format!("the body is not a JSON object: {error}"))?;
        Ok(Self { text, members })
    }

    /// The raw value of a member; the last one if its name occurs twice.
    pub fn find(&self, name: &str) -> Option<&'a RawValue> {
        self.members
            .iter()
            .rev()
            .find(|(key, _)| key == name)
            .map(|(_, raw)| *raw)
    }

    /// The JSON text of the value at a path of property names.
    pub fn at(&self, path: &[String]) -> Option<Cow<'a, str>> {
        let (first, rest) = path.split_first()?;
        let raw = self.find(first)?.get();
        if rest.is_empty() {
            return Some(Cow::Borrowed(raw));
        }
        let outer: serde_json::Value = serde_json::from_str(raw).ok()?;
        let inner = rest
            .iter()
            .try_fold(&outer, |value, name| value.get(name))?;
        Some(Cow::Owned(inner.to_string()))
    }

    /// The value of a member that is a string.
    pub fn find_text(&self, name: &str) -> Option<Cow<'a, str>> {
        let raw = self.find(name)?.get();
        // Without a backslash the text between the quotes is the value itself.
        match raw
            .strip_prefix('"')
            .and_then(|rest| rest.strip_suffix('"'))
        {
            Some(plain) if !plain.contains('\\') => Some(Cow::Borrowed(plain)),
            Some(_) => serde_json::from_str::<String>(raw).ok().map(Cow::Owned),
            None => None,
        }
    }

    /// The object's text without system properties and without its closing brace: the form in which it is stored.
    pub fn to_stored(&self) -> Arc<[u8]> {
        let is_system = |name: &str| name.starts_with('_') && SYSTEM_PROPERTIES.contains(&name);
        if !self.members.iter().any(|(name, _)| is_system(name)) {
            let open = self
                .text
                .trim_ascii()
                .strip_suffix('}')
                .unwrap_or(self.text);
            return Arc::from(open.trim_ascii_end().as_bytes());
        }
        let mut text = Vec::with_capacity(self.text.len());
        text.push(b'{');
        for (name, raw) in self.members.iter().filter(|(name, _)| !is_system(name)) {
            if text.len() > 1 {
                text.push(b',');
            }
            write_text(&mut text, name);
            text.push(b':');
            text.extend_from_slice(raw.get().as_bytes());
        }
        Arc::from(text)
    }
}

struct Fields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldsVisitor;
        impl<'de> Visitor<'de> for FieldsVisitor {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::with_capacity(16);
                while let Some(Name(name)) = map.next_key()? {
                    members.push((name, map.next_value()?));
                }
                Ok(Fields(members))
            }
        }
        deserializer.deserialize_map(FieldsVisitor)
    }
}

/// A member name, borrowed from the text whenever it has no escapes.
struct Name<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;
        impl<'de> Visitor<'de> for NameVisitor {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a member name")
            }

            fn visit_borrowed_str<E: serde::de::Error>(
                self,
                text: &'de str,
            ) -> Result<Self::Value, E> {
                Ok(Name(Cow::Borrowed(text)))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Owned(text.to_owned())))
            }

            fn visit_bytes<E: serde::de::Error>(self, _: &[u8]) -> Result<Self::Value, E> {
                Err(E::custom("a member name must be text"))
            }
        }
        deserializer
            .deserialize_str(NameVisitor)
            .map_err(D::Error::custom)
    }
}

/// Refuses what the grammar allows and no value can hold, because whoever stores it could never query it again: nesting
/// that is too deep, a number that is no double, half of a surrogate pair. Grammar is left to the parser.
fn check_values(bytes: &[u8]) -> Result<(), String> {
    if is_plain(bytes) {
        return Ok(());
    }
    let (mut depth, mut at) = (0usize, 0);
    while let Some(byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'"' => at = check_text(bytes, at)?,
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'-' | b'0'..=b'9' => at = check_number(bytes, at - 1)?,
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Err(format!("the body is nested deeper than {MAX_DEPTH} levels"));
        }
    }
    Ok(())
}

/// Whether a glance settles it: few brackets and digits, no escape, no exponent. This counts in pieces so short that their
/// counts fit a byte, which compilers turn into instructions on many bytes at once; it settles almost every document.
fn is_plain(bytes: &[u8]) -> bool {
    let count = |is: fn(u8) -> bool| -> usize {
        let piece = |piece: &[u8]| {
            let count = piece
                .iter()
                .fold(0u8, |count, byte| count + u8::from(is(*byte)));
            usize::from(count)
        };
        bytes.chunks(255).map(piece).sum()
    };
    let exponent = bytes
        .iter()
        .zip(&bytes[bytes.len().min(1)..])
        .fold(false, |found, (digit, next)| {
            found | (digit.is_ascii_digit() & (*next | 0x20 == b'e'))
        });
    !exponent
        && count(|byte| byte == b'\\') == 0
        && count(|byte| (byte == b'{') | (byte == b'[')) <= MAX_DEPTH
        && (bytes.len() < MAX_PLAIN_DIGITS
            || count(|byte| byte.is_ascii_digit()) < MAX_PLAIN_DIGITS)
}

/// Looks at the string whose text begins at `at`, and returns where it ends.
fn check_text(bytes: &[u8], mut at: usize) -> Result<usize, String> {
    let unit = |at: usize| {
        let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
        u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        let Some(next) = rest.iter().position(|byte| matches!(byte, b'"' | b'\\')) else {
            return Ok(bytes.len());
        };
        at += next;
        if bytes[at] == b'"' {
            return Ok(at + 1);
        }
        at += match unit(at) {
            Some(0xD800..=0xDBFF) if matches!(unit(at + 6), Some(0xDC00..=0xDFFF)) => 12,
            Some(0xD800..=0xDFFF) => {
                return Err("a string in the body has half of a surrogate pair".to_owned());
            }
            _ => 2,
        };
    }
}

/// Looks at the number that begins at `start`, and returns where it ends.
fn check_number(bytes: &[u8], start: usize) -> Result<usize, String> {
    let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
    let length = bytes[start..]
        .iter()
        .take_while(|byte| is_part(byte))
        .count();
    let number = &bytes[start..start + length];
    // Few digits and no exponent: it is a double.
    if length < MAX_PLAIN_DIGITS && !number.iter().any(|byte| matches!(byte, b'e' | b'E')) {
        return Ok(start + length);
    }
    let text = String::from_utf8_lossy(number);
    match text.parse::<f64>() {
        Ok(number) if number.is_infinite() => {
            let shown: String = text.chars().take(40).collect();
            Err(format!("the number {shown} in the body is not a double"))
        }
        _ => Ok(start + length),
    }
}

/// Appends `text` as a JSON string.
pub fn write_text(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let bytes = text.as_bytes();
    out.reserve(bytes.len() + 2);
    out.push(b'"');
    // Without an early end the search looks at many bytes at once, and almost no text needs escapes.
    let is_plain = bytes.iter().fold(true, |plain, byte| {
        plain & (*byte >= 0x20) & (*byte != b'"') & (*byte != b'\\')
    });
    if is_plain {
        out.extend_from_slice(bytes);
        out.push(b'"');
        return;
    }
    let mut start = 0;
    for (index, byte) in bytes.iter().enumerate() {
        let escape: &[u8] = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            0..=0x1F => b"",
            _ => continue,
        };
        out.extend_from_slice(&bytes[start..index]);
        start = index + 1;
        if escape.is_empty() {
            out.extend_from_slice(b"\\u00");
            out.push(HEX[usize::from(byte >> 4)]);
            out.push(HEX[usize::from(byte & 15)]);
        } else {
            out.extend_from_slice(escape);
        }
    }
    out.extend_from_slice(&bytes[start..]);
    out.push(b'"');
}

/// Appends a value.
pub fn write_value(out: &mut Vec<u8>, value: &serde_json::Value) {
    serde_json::to_writer(out, value).expect("a value has text names, and a Vec takes everything");
}

/// Appends a number.
pub fn write_number(out: &mut Vec<u8>, number: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(text: &str) -> String {
        String::from_utf8(
            Members::parse(text.as_bytes())
                .unwrap()
                .to_stored()
                .to_vec(),
        )
        .unwrap()
    }

    #[test]
    fn system_properties_are_cut_out() {
        assert_eq!(
            stored(r#"{"id":"a","_ts":1,"b":{"_ts":2},"_etag":"x","_id":3}"#),
            r#"{"id":"a","b":{"_ts":2},"_id":3"#
        );
        assert_eq!(stored(" {\"id\" : \"a\" }\n"), "{\"id\" : \"a\"");
        assert_eq!(stored(r#"{"_ts":1}"#), "{");
        assert_eq!(stored(r#"{"\u005fts":1,"a\nb":2}"#), r#"{"a\nb":2"#);
    }

    #[test]
    fn anything_but_an_object_is_refused() {
        for bad in [
            "",
            "[]",
            "1",
            "\"a\"",
            "{",
            "{\"a\":}",
            "{} {}",
            "{\"a\":1,}",
            "null",
        ] {
            assert!(Members::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(Members::parse(&[b'{', b'"', 0xFF, b'"', b':', b'1', b'}']).is_err());
    }

    #[test]
    fn nesting_is_limited_and_brackets_in_text_do_not_count() {
        let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert!(Members::parse(nested(126).as_bytes()).is_ok());
        assert!(Members::parse(nested(127).as_bytes()).is_err());
        let text = format!("{{\"a\":\"\\\"{}\"}}", "[".repeat(1000));
        assert!(Members::parse(text.as_bytes()).is_ok());
    }

    #[test]
    fn what_is_accepted_can_be_read_as_a_value() {
        let long = |digits: usize| format!("{{\"a\":-{}}}", "9".repeat(digits));
        let deep = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        let texts = [
            r#"{"a":"\ud83d\ude00 \\ud800 \\\"1e999","b":0e999,"c":1e-999,"d":1.5E+308}"#,
            r#"{"a":"\ud800"}"#,
            r#"{"a":"\udc00\ud800"}"#,
            r#"{"a":"\ud800\u0041"}"#,
            r#"{"\ud800":1}"#,
            r#"{"a":[{"b":1e999}]}"#,
            r#"{"a":-1E+309}"#,
            r#"{"a":"\u12"}"#,
            r#"{"a":"\"#,
            &long(308),
            &long(310),
            &deep(126),
            &deep(127),
        ];
        for text in texts {
            let read = serde_json::from_str::<serde_json::Value>(text);
            let members = Members::parse(text.as_bytes());
            assert_eq!(members.is_ok(), read.is_ok(), "{text}: {read:?}");
        }
    }

    #[test]
    fn text_is_escaped_like_serde_does() {
        for text in ["", "plain", "q\"\\\n\r\t\u{1}\u{1f}", "æ€😀"] {
            let mut out = Vec::new();
            write_text(&mut out, text);
            assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }
        let members = Members::parse(br#"{"id":"a\u0041","n":1}"#).unwrap();
        assert_eq!(members.find_text("id").unwrap(), "aA");
        assert!(members.find_text("n").is_none());
    }
}
