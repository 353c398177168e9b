//! Cosmos binary JSON to JSON text.
//!
//! Clients may send documents as a tagged byte stream that starts with `0x80`, which no UTF-8 text can. One marker byte
//! says what follows: small integers and short strings are in the marker itself, 32 common property names are an index,
//! and a string may refer to the offset of an earlier one. The decoder writes text straight into a buffer: no value tree.
//!
//! It refuses what it cannot read (per-buffer string dictionaries, half floats) and bounds depth and output, so a hostile
//! body costs a 400 and nothing else.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};

use crate::json::{write_number, write_text};

const PREAMBLE: u8 = 0x80;
const MAX_DEPTH: usize = 128;
/// Back references can repeat text, so the output is bounded rather than trusted: twice the item limit.
const MAX_OUTPUT_BYTES: usize = 4 * 1024 * 1024;

/// Strings with a one-byte code, in code order.
const COMMON_STRINGS: [&str; 32] = [
    "$s",
    "$t",
    "$v",
    "_attachments",
    "_etag",
    "_rid",
    "_self",
    "_ts",
    "attachments/",
    "coordinates",
    "geometry",
    "GeometryCollection",
    "id",
    "url",
    "Value",
    "label",
    "LineString",
    "link",
    "MultiLineString",
    "MultiPoint",
    "MultiPolygon",
    "name",
    "Name",
    "Type",
    "Point",
    "Polygon",
    "properties",
    "type",
    "value",
    "Feature",
    "FeatureCollection",
    "_id",
];

const LOWER_HEX: &[u8; 16] = b"0123456789abcdef";
const UPPER_HEX: &[u8; 16] = b"0123456789ABCDEF";
const DATE_TIME: &[u8; 16] = b" 0123456789:-.TZ";

/// Why a body is not readable binary JSON.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BinaryJsonError {
    /// The buffer ends inside a value.
    #[error("the binary JSON body ends early")]
    Truncated,
    /// A marker that is unknown, unsupported, or not allowed in its place.
    #[error("binary JSON marker 0x{marker:02X} at byte {offset} is not supported here")]
    Marker {
        /// The byte found.
        marker: u8,
        /// Where it was found.
        offset: usize,
    },
    /// A length, count or reference that does not fit the buffer.
    #[error("the binary JSON body is inconsistent: {0}")]
    Inconsistent(&'static str),
    /// Nested too deeply or expanding to too much text.
    #[error("the binary JSON body is nested deeper than 128 levels or larger than 4 MB as text")]
    TooLarge,
}

type Result<T> = std::result::Result<T, BinaryJsonError>;

/// Whether a body is binary JSON: the first byte decides.
pub fn is_binary(body: &[u8]) -> bool {
    body.first() == Some(&PREAMBLE)
}

/// Writes a binary body as JSON text.
///
/// # Errors
/// [`BinaryJsonError`], if the body is not one well-formed value.
pub fn to_text(body: &[u8]) -> Result<Vec<u8>> {
    let mut reader = Reader {
        body,
        position: 1,
        out: Vec::with_capacity(body.len() * 2),
    };
    reader.value(0)?;
    if reader.position != body.len() {
        return Err(BinaryJsonError::Inconsistent("bytes follow the value"));
    }
    Ok(reader.out)
}

struct Reader<'a> {
    body: &'a [u8],
    position: usize,
    out: Vec<u8>,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let end = self
            .position
            .checked_add(length)
            .ok_or(BinaryJsonError::Truncated)?;
        let bytes = self
            .body
            .get(self.position..end)
            .ok_or(BinaryJsonError::Truncated)?;
        self.position = end;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N)?);
        Ok(bytes)
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    /// A little-endian unsigned number of `width` bytes.
    fn unsigned(&mut self, width: usize) -> Result<usize> {
        let mut buffer = [0; 8];
        buffer[..width].copy_from_slice(self.take(width)?);
        Ok(u64::from_le_bytes(buffer) as usize)
    }

    fn value(&mut self, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH || self.out.len() > MAX_OUTPUT_BYTES {
            return Err(BinaryJsonError::TooLarge);
        }
        let offset = self.position;
        let marker = self.byte()?;
        match marker {
            0x00..=0x1F => write_number(&mut self.out, marker),
            0x20..=0x3F | 0x68..=0xC6 => self.text(marker, offset)?,
            0xD3 => self.raw_guid()?,
            0xDD..=0xDF => {
                let length = self.unsigned(1 << (marker - 0xDD))?;
                let text = STANDARD.encode(self.take(length)?);
                write_text(&mut self.out, &text);
            }
            0xD0 => self.out.extend_from_slice(b"null"),
            0xD1 => self.out.extend_from_slice(b"false"),
            0xD2 => self.out.extend_from_slice(b"true"),
            0xC7..=0xCE | 0xD7..=0xDC => self.number(marker, offset)?,
            0xE0 => self.out.extend_from_slice(b"[]"),
            0xE1 => {
                self.out.push(b'[');
                self.value(depth + 1)?;
                self.out.push(b']');
            }
            0xE2..=0xE7 => self.items(marker - 0xE2, depth, false)?,
            0xE8 => self.out.extend_from_slice(b"{}"),
            0xE9 => {
                self.out.push(b'{');
                self.member(depth + 1)?;
                self.out.push(b'}');
            }
            0xEA..=0xEF => self.items(marker - 0xEA, depth, true)?,
            0xF0 | 0xF1 => self.number_array(usize::from(marker - 0xF0) + 1)?,
            0xF2 | 0xF3 => self.number_arrays(usize::from(marker - 0xF2) + 1)?,
            _ => return Err(BinaryJsonError::Marker { marker, offset }),
        }
        Ok(())
    }

    fn member(&mut self, depth: usize) -> Result<()> {
        let offset = self.position;
        let marker = self.byte()?;
        self.text(marker, offset)?;
        self.out.push(b':');
        self.value(depth)
    }

    /// An array or object body: `form` 0 to 2 has a byte length, 3 to 5 a byte length and a count, of 1, 2 or 4 bytes.
    fn items(&mut self, form: u8, depth: usize, object: bool) -> Result<()> {
        let width = 1 << (form % 3);
        let length = self.unsigned(width)?;
        let expected = if form >= 3 {
            Some(self.unsigned(width)?)
        } else {
            None
        };
        let end = self
            .position
            .checked_add(length)
            .filter(|end| *end <= self.body.len())
            .ok_or(BinaryJsonError::Truncated)?;
        self.out.push(if object { b'{' } else { b'[' });
        let mut count = 0;
        while self.position < end {
            if count > 0 {
                self.out.push(b',');
            }
            if object {
                self.member(depth + 1)?
            } else {
                self.value(depth + 1)?
            }
            count += 1;
        }
        self.out.push(if object { b'}' } else { b']' });
        if self.position != end || expected.is_some_and(|expected| expected != count) {
            return Err(BinaryJsonError::Inconsistent(
                "a length or count does not match its items",
            ));
        }
        Ok(())
    }

    fn number(&mut self, marker: u8, offset: usize) -> Result<()> {
        match marker {
            0xC8 | 0xD7 => self.integer(u8::from_le_bytes)?,
            0xC9 | 0xD9 => self.integer(i16::from_le_bytes)?,
            0xCA | 0xDA => self.integer(i32::from_le_bytes)?,
            0xCB | 0xDB => self.integer(i64::from_le_bytes)?,
            0xC7 => self.integer(u64::from_le_bytes)?,
            0xDC => self.integer(u32::from_le_bytes)?,
            0xD8 => self.integer(i8::from_le_bytes)?,
            0xCC | 0xCE => {
                let number = f64::from_le_bytes(self.array()?);
                self.double(number)?;
            }
            0xCD => {
                let number = f32::from_le_bytes(self.array()?);
                self.double(f64::from(number))?;
            }
            _ => return Err(BinaryJsonError::Marker { marker, offset }),
        }
        Ok(())
    }

    fn integer<const N: usize, I: itoa::Integer>(&mut self, from: fn([u8; N]) -> I) -> Result<()> {
        let number = from(self.array()?);
        write_number(&mut self.out, number);
        Ok(())
    }

    /// The service writes a whole double as an integer (`3`, not `3.0`).
    fn double(&mut self, number: f64) -> Result<()> {
        const EXACT: f64 = 9_007_199_254_740_992.0;
        if !number.is_finite() {
            return Err(BinaryJsonError::Inconsistent("a number is not finite"));
        }
        if number.fract() == 0.0 && number.abs() < EXACT {
            write_number(&mut self.out, number as i64);
        } else {
            // Writing into a Vec cannot fail, and a finite double always has a JSON form.
            serde_json::to_writer(&mut self.out, &number)
                .map_err(|_| BinaryJsonError::Inconsistent("a number has no JSON form"))?;
        }
        Ok(())
    }

    fn number_array(&mut self, width: usize) -> Result<()> {
        let (item, offset) = self.item_marker()?;
        let count = self.unsigned(width)?;
        self.bare_numbers(item, offset, count)
    }

    fn number_arrays(&mut self, width: usize) -> Result<()> {
        let offset = self.position;
        let marker = self.byte()?;
        if marker != 0xEF + width as u8 {
            return Err(BinaryJsonError::Marker { marker, offset });
        }
        let (item, offset) = self.item_marker()?;
        let inner = self.unsigned(width)?;
        let outer = self.unsigned(width)?;
        self.out.push(b'[');
        for index in 0..outer {
            if index > 0 {
                self.out.push(b',');
            }
            self.bare_numbers(item, offset, inner)?;
        }
        self.out.push(b']');
        Ok(())
    }

    /// The shared type of a uniform array: one of the plain number markers.
    fn item_marker(&mut self) -> Result<(u8, usize)> {
        let offset = self.position;
        let marker = self.byte()?;
        match marker {
            0xCD | 0xCE | 0xD7..=0xDC => Ok((marker, offset)),
            _ => Err(BinaryJsonError::Marker { marker, offset }),
        }
    }

    fn bare_numbers(&mut self, item: u8, offset: usize, count: usize) -> Result<()> {
        self.out.push(b'[');
        for index in 0..count {
            if index > 0 {
                self.out.push(b',');
            }
            self.number(item, offset)?;
        }
        self.out.push(b']');
        Ok(())
    }

    /// Any string form but the raw GUID, which cannot be a name.
    fn text(&mut self, marker: u8, offset: usize) -> Result<()> {
        match marker {
            0x20..=0x3F => write_text(&mut self.out, COMMON_STRINGS[usize::from(marker - 0x20)]),
            0x80..=0xBF => self.plain(usize::from(marker & 0x7F))?,
            0xC0..=0xC2 => {
                let length = self.unsigned(1 << (marker - 0xC0))?;
                self.plain(length)?;
            }
            0xC3..=0xC6 => {
                let target = self.unsigned(usize::from(marker - 0xC2))?;
                self.referenced(target)?;
            }
            0x71..=0x74 => self.base64(marker)?,
            0x75 => self.guid_text(LOWER_HEX, false)?,
            0x76 => self.guid_text(UPPER_HEX, false)?,
            0x77 => self.guid_text(LOWER_HEX, true)?,
            0x78 => self.nibbles(LOWER_HEX)?,
            0x79 => self.nibbles(UPPER_HEX)?,
            0x7A => self.nibbles(DATE_TIME)?,
            0x7B..=0x7D => {
                let length = self.unsigned(1)?;
                let base = self.byte()?;
                self.packed(length, u32::from(marker - 0x7B) + 4, base)?;
            }
            0x7E | 0x7F => {
                let length = self.unsigned(usize::from(marker - 0x7D))?;
                self.packed(length, 7, 0)?;
            }
            _ => return Err(BinaryJsonError::Marker { marker, offset }),
        }
        Ok(())
    }

    fn plain(&mut self, length: usize) -> Result<()> {
        let text = std::str::from_utf8(self.take(length)?)
            .map_err(|_| BinaryJsonError::Inconsistent("a string is not UTF-8"))?;
        write_text(&mut self.out, text);
        Ok(())
    }

    /// An earlier string, addressed by its offset; it may not be a reference itself, so there are no chains.
    fn referenced(&mut self, target: usize) -> Result<()> {
        if self.out.len() > MAX_OUTPUT_BYTES {
            return Err(BinaryJsonError::TooLarge);
        }
        let marker = *self.body.get(target).ok_or(BinaryJsonError::Truncated)?;
        if !matches!(marker, 0x20..=0xC2) {
            return Err(BinaryJsonError::Inconsistent(
                "a reference does not point to a string",
            ));
        }
        let back = std::mem::replace(&mut self.position, target + 1);
        let read = self.text(marker, target);
        self.position = back;
        read
    }

    fn base64(&mut self, marker: u8) -> Result<()> {
        let groups = self.unsigned(if marker % 2 == 1 { 1 } else { 2 })?;
        let padding = self.byte()?;
        // Above 2 the byte is the complement of a padding that the text leaves out.
        let omitted = padding > 2;
        let padding = usize::from(if omitted { !padding } else { padding });
        let padded = groups * 4;
        let bad = BinaryJsonError::Inconsistent("a base64 string has impossible padding");
        let raw = padded.checked_sub(padding).ok_or(bad)? * 3 / 4;
        let bytes = self.take(raw)?;
        let engine = if marker >= 0x73 { &URL_SAFE } else { &STANDARD };
        let mut text = engine.encode(bytes);
        text.truncate(if omitted { padded - padding } else { padded });
        write_text(&mut self.out, &text);
        Ok(())
    }

    fn guid_text(&mut self, digits: &[u8; 16], quoted: bool) -> Result<()> {
        let bytes = self.array::<16>()?;
        let mut text = String::with_capacity(38);
        if quoted {
            text.push('"');
        }
        for (index, byte) in bytes.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                text.push('-');
            }
            text.push(char::from(digits[usize::from(byte & 15)]));
            text.push(char::from(digits[usize::from(byte >> 4)]));
        }
        if quoted {
            text.push('"');
        }
        write_text(&mut self.out, &text);
        Ok(())
    }

    /// A GUID value: its first three groups are little-endian numbers.
    fn raw_guid(&mut self) -> Result<()> {
        const ORDER: [usize; 16] = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
        let bytes = self.array::<16>()?;
        self.out.push(b'"');
        for (index, from) in ORDER.into_iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                self.out.push(b'-');
            }
            self.out.push(LOWER_HEX[usize::from(bytes[from] >> 4)]);
            self.out.push(LOWER_HEX[usize::from(bytes[from] & 15)]);
        }
        self.out.push(b'"');
        Ok(())
    }

    /// Characters of a 16-letter alphabet, two to a byte, low half first.
    fn nibbles(&mut self, alphabet: &[u8; 16]) -> Result<()> {
        let length = self.unsigned(1)?;
        let bytes = self.take(length.div_ceil(2))?;
        let text: String = (0..length)
            .map(|index| {
                let byte = bytes[index / 2];
                char::from(
                    alphabet[usize::from(if index % 2 == 0 { byte & 15 } else { byte >> 4 })],
                )
            })
            .collect();
        write_text(&mut self.out, &text);
        Ok(())
    }

    /// Characters of `bits` bits each above `base`, lowest bit first.
    fn packed(&mut self, length: usize, bits: u32, base: u8) -> Result<()> {
        let bytes = self.take((length * bits as usize).div_ceil(8))?;
        let text: String = (0..length)
            .map(|index| {
                let bit = index * bits as usize;
                let low = u16::from(bytes[bit / 8]);
                let high = bytes.get(bit / 8 + 1).map_or(0, |byte| u16::from(*byte));
                let code = (low | high << 8) >> (bit % 8) & ((1 << bits) - 1);
                char::from((code as u8).wrapping_add(base))
            })
            .collect();
        write_text(&mut self.out, &text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &[u8]) -> Result<String> {
        to_text(&[&[PREAMBLE], bytes].concat()).map(|out| String::from_utf8(out).unwrap())
    }

    #[test]
    fn forms_the_clients_do_not_send_are_read_too() {
        assert_eq!(
            text(&[0xE5, 4, 2, 0xC9, 0xFF, 0xFF, 0x1F]).unwrap(),
            "[-1,31]"
        );
        assert_eq!(text(&[0xE9, 0x2C, 0x81, b'a']).unwrap(), r#"{"id":"a"}"#);
        // The second string refers to the first, at byte 3 of the body.
        assert_eq!(
            text(&[0xE2, 4, 0x81, b'a', 0xC3, 3]).unwrap(),
            r#"["a","a"]"#
        );
        assert_eq!(text(&[0x78, 3, 0xBA, 0x0C]).unwrap(), r#""abc""#);
        assert_eq!(
            text(&[0x71, 2, 0xFE, b'a', b'b', b'c', b'd', b'e']).unwrap(),
            r#""YWJjZGU""#
        );
        assert_eq!(text(&[0xF0, 0xD8, 2, 1, 0xFF]).unwrap(), "[1,-1]");
        assert_eq!(text(&[0xF2, 0xF0, 0xD7, 1, 2, 7, 8]).unwrap(), "[[7],[8]]");
        assert_eq!(text(&[0x7B, 2, b'a', 0x10]).unwrap(), r#""ab""#);
        let guid: Vec<u8> = (0..16).collect();
        assert_eq!(
            text(&[&[0xD3], &guid[..]].concat()).unwrap(),
            r#""03020100-0504-0706-0809-0a0b0c0d0e0f""#
        );
    }

    #[test]
    fn malformed_bodies_are_errors_and_never_panics() {
        assert_eq!(text(&[]), Err(BinaryJsonError::Truncated));
        assert_eq!(
            text(&[0xFF]),
            Err(BinaryJsonError::Marker {
                marker: 0xFF,
                offset: 1
            })
        );
        assert!(text(&[0xD2, 0xD2]).is_err());
        assert!(
            text(&[0xE9, 0x01, 0x01]).is_err(),
            "a name must be a string"
        );
        assert!(text(&[0xC3, 1]).is_err(), "a reference to itself");
        assert!(text(&[0xE1; 200]).is_err());
        // Every prefix and every single-byte corruption of a rich body.
        let rich = [
            0xEA, 14, 0x2C, 0x81, b'a', 0x81, b'b', 0xE2, 3, 0xC8, 5, 0xD0, 0x81, b'c', 0xC3, 4,
        ];
        assert!(text(&rich).is_ok());
        for cut in 0..rich.len() {
            assert!(text(&rich[..cut]).is_err());
        }
        for index in 0..rich.len() {
            for byte in 0..=255 {
                let mut bytes = rich;
                bytes[index] = byte;
                if let Ok(text) = text(&bytes) {
                    serde_json::from_str::<serde_json::Value>(&text).unwrap();
                }
            }
        }
    }

    #[test]
    fn repeated_references_cannot_explode() {
        // One 60,000-byte string and 5,000 references to it would be 300 MB of text.
        let mut items = vec![0xC1];
        items.extend_from_slice(&60_000u16.to_le_bytes());
        items.extend(std::iter::repeat_n(b'x', 60_000));
        for _ in 0..5_000 {
            items.extend_from_slice(&[0xC3, 6]);
        }
        let mut body = vec![0xE4];
        body.extend_from_slice(&(items.len() as u32).to_le_bytes());
        body.extend_from_slice(&items);
        assert_eq!(text(&body), Err(BinaryJsonError::TooLarge));
    }
}
