//! Documents into values of Rust, faster than a parser for the plain objects that most documents are.
//!
//! A plain object is read as it is [scanned](crate::scan): names and strings without escapes are lent, whole numbers of few digits are
//! computed on the way, and every other value is serde_json's to read, from its own text. Whatever is not as expected, an error of the
//! value's own type among it, ends the attempt, and serde_json reads the whole text. So values and errors are always serde_json's own; the tests
//! hold it to that. (Only a value that is nested to serde_json's limit may be one deeper here.)

use std::fmt;

use serde::de::value::BorrowedStrDeserializer;
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Error, MapAccess, Visitor};

use crate::scan::{Cursor, Kind};

/// A value from the text of a document.
///
/// # Errors
/// Those of [`serde_json::from_slice`], word for word.
#[inline]
pub fn from_slice<T: DeserializeOwned>(text: &[u8]) -> serde_json::Result<T> {
    match plain(text) {
        Some(value) => Ok(value),
        None => serde_json::from_slice(text),
    }
}

#[inline]
fn plain<T: DeserializeOwned>(text: &[u8]) -> Option<T> {
    T::deserialize(Object(std::str::from_utf8(text).ok()?)).ok()
}

/// The text is serde_json's to read.
#[derive(Debug)]
struct GivenUp;

impl fmt::Display for GivenUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it is no plain object")
    }
}

impl std::error::Error for GivenUp {}

impl Error for GivenUp {
    fn custom<T: fmt::Display>(_message: T) -> Self {
        GivenUp
    }
}

/// The whole text.
struct Object<'a>(&'a str);

impl<'a> Object<'a> {
    fn visit<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, GivenUp> {
        let mut properties = Properties {
            text: self.0,
            cursor: Cursor::new(self.0.as_bytes()),
            place: Place::First,
            value: None,
        };
        properties.cursor.space();
        properties.cursor.expect(b'{').ok_or(GivenUp)?;
        let value = visitor.visit_map(&mut properties)?;
        match properties.place {
            Place::End => Ok(value),
            _ => Err(GivenUp),
        }
    }
}

/// The properties of the object, one after the other.
struct Properties<'a> {
    text: &'a str,
    cursor: Cursor<'a>,
    place: Place,
    /// Of the property whose name was given.
    value: Option<Found<'a>>,
}

/// A value, where it was found.
#[derive(Clone, Copy)]
struct Found<'a> {
    kind: Kind,
    text: &'a str,
}

#[derive(Clone, Copy)]
enum Place {
    First,
    Next,
    End,
}

impl<'a> Properties<'a> {
    /// Reads the next property, and gives its name.
    #[inline(always)]
    fn next(&mut self) -> Option<Option<&'a str>> {
        let cursor = &mut self.cursor;
        cursor.space();
        match (self.place, cursor.peek()?) {
            (Place::End, _) => return Some(None),
            (_, b'}') => {
                cursor.expect(b'}')?;
                cursor.end()?;
                self.place = Place::End;
                return Some(None);
            }
            (Place::First, _) => self.place = Place::Next,
            (Place::Next, _) => {
                cursor.expect(b',')?;
                cursor.space();
            }
        }
        let begin = cursor.at() + 1;
        let name = cursor.name()?.len();
        let from = cursor.at();
        let kind = cursor.any_value()?.kind;
        let text = self.text.get(from..cursor.at())?;
        self.value = Some(Found { kind, text });
        Some(Some(self.text.get(begin..begin + name)?))
    }
}

impl<'a> MapAccess<'a> for &mut Properties<'a> {
    type Error = GivenUp;

    fn next_key_seed<K: DeserializeSeed<'a>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, GivenUp> {
        let name = self.next().ok_or(GivenUp)?;
        let name = name.map(|name| seed.deserialize(BorrowedStrDeserializer::new(name)));
        name.transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'a>>(&mut self, seed: V) -> Result<V::Value, GivenUp> {
        seed.deserialize(self.value.take().ok_or(GivenUp)?)
    }
}

macro_rules! objects {
    ($($method:ident($($argument:ident: $of:ty),*))*) => {
        $(fn $method<V: Visitor<'a>>(self, $($argument: $of,)* visitor: V) -> Result<V::Value, GivenUp> {
            self.visit(visitor)
        })*
    };
}

macro_rules! given_up {
    ($($method:ident($($argument:ident: $of:ty),*))*) => {
        $(fn $method<V: Visitor<'a>>(self, $($argument: $of,)* _visitor: V) -> Result<V::Value, GivenUp> {
            Err(GivenUp)
        })*
    };
}

impl<'a> Deserializer<'a> for Object<'a> {
    type Error = GivenUp;

    objects! {
        deserialize_any()
        deserialize_map()
        deserialize_struct(_name: &'static str, _fields: &'static [&'static str])
    }

    given_up! {
        deserialize_bool()
        deserialize_i8() deserialize_i16() deserialize_i32() deserialize_i64() deserialize_i128()
        deserialize_u8() deserialize_u16() deserialize_u32() deserialize_u64() deserialize_u128()
        deserialize_f32() deserialize_f64()
        deserialize_char() deserialize_str() deserialize_string() deserialize_bytes() deserialize_byte_buf()
        deserialize_option() deserialize_unit() deserialize_seq() deserialize_identifier() deserialize_ignored_any()
        deserialize_unit_struct(_name: &'static str)
        deserialize_newtype_struct(_name: &'static str)
        deserialize_tuple(_length: usize)
        deserialize_tuple_struct(_name: &'static str, _length: usize)
        deserialize_enum(_name: &'static str, _variants: &'static [&'static str])
    }
}

impl<'a> Found<'a> {
    /// What is between the quotes.
    fn string(self) -> Option<&'a str> {
        (self.kind == Kind::Plain).then(|| self.text.get(1..self.text.len() - 1))?
    }

    /// A number of few digits.
    fn integer(self) -> Option<i64> {
        let (minus, digits) = match self.text.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, self.text),
        };
        // At most 15 digits fit.
        let number = || {
            digits
                .bytes()
                .fold(0, |number, digit| 10 * number + i64::from(digit - b'0'))
        };
        (self.kind == Kind::Integer).then(|| if minus { -number() } else { number() })
    }

    /// By serde_json.
    fn parsed<T>(
        self,
        parse: impl FnOnce(&mut Parser<'a>) -> serde_json::Result<T>,
    ) -> Result<T, GivenUp> {
        let mut parser = serde_json::Deserializer::from_str(self.text);
        let value = parse(&mut parser).map_err(|_| GivenUp)?;
        parser.end().map_err(|_| GivenUp)?;
        Ok(value)
    }
}

type Parser<'a> = serde_json::Deserializer<serde_json::de::StrRead<'a>>;

macro_rules! numbers {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, GivenUp> {
            match self.integer() {
                Some(number) => given(number, visitor),
                None => self.parsed(|parser| parser.$method(visitor)),
            }
        })*
    };
}

macro_rules! strings {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, GivenUp> {
            match self.string() {
                Some(text) => visitor.visit_borrowed_str(text),
                None => self.parsed(|parser| parser.$method(visitor)),
            }
        })*
    };
}

macro_rules! parsed {
    ($($method:ident($($argument:ident: $of:ty),*))*) => {
        $(fn $method<V: Visitor<'a>>(self, $($argument: $of,)* visitor: V) -> Result<V::Value, GivenUp> {
            self.parsed(|parser| parser.$method($($argument,)* visitor))
        })*
    };
}

/// As serde_json gives it: what is not negative is unsigned.
fn given<'a, V: Visitor<'a>>(number: i64, visitor: V) -> Result<V::Value, GivenUp> {
    match u64::try_from(number) {
        Ok(number) => visitor.visit_u64(number),
        Err(_) => visitor.visit_i64(number),
    }
}

impl<'a> Deserializer<'a> for Found<'a> {
    type Error = GivenUp;

    numbers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64
        deserialize_f32 deserialize_f64
    }

    strings! { deserialize_str deserialize_string deserialize_char deserialize_identifier }

    parsed! {
        deserialize_bool() deserialize_i128() deserialize_u128()
        deserialize_bytes() deserialize_byte_buf()
        deserialize_unit() deserialize_seq() deserialize_map()
        deserialize_unit_struct(name: &'static str)
        deserialize_newtype_struct(name: &'static str)
        deserialize_tuple(length: usize)
        deserialize_tuple_struct(name: &'static str, length: usize)
        deserialize_struct(name: &'static str, fields: &'static [&'static str])
        deserialize_enum(name: &'static str, variants: &'static [&'static str])
    }

    fn deserialize_any<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, GivenUp> {
        match self.kind {
            Kind::Plain => self.deserialize_str(visitor),
            Kind::Integer => self.deserialize_i64(visitor),
            _ => self.parsed(|parser| parser.deserialize_any(visitor)),
        }
    }

    fn deserialize_option<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, GivenUp> {
        match self.kind {
            Kind::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    /// It was looked at as it was scanned.
    fn deserialize_ignored_any<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, GivenUp> {
        visitor.visit_unit()
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::collections::BTreeMap;
    use std::fmt::Debug;

    use serde::Deserialize;

    use super::*;
    use crate::scan::tests::{object, spoil};

    #[derive(Debug, PartialEq, Deserialize)]
    struct Plain {
        a: Option<i64>,
        #[serde(default)]
        id: u8,
        #[serde(rename = "ü", default)]
        text: String,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Rest {
        #[serde(default)]
        a: Option<f64>,
        #[serde(flatten)]
        rest: BTreeMap<String, serde_json::Value>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Nested {
        id: Box<Either>,
        _x: Option<(String, i8)>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(untagged)]
    enum Either {
        Text(Cow<'static, str>),
        Whole(i32),
        Other(Option<Plain>),
    }

    fn same<T: DeserializeOwned + PartialEq + Debug>(text: &[u8]) -> bool {
        let (ours, theirs) = (from_slice::<T>(text), serde_json::from_slice::<T>(text));
        let equal = match (&ours, &theirs) {
            (Ok(ours), Ok(theirs)) => ours == theirs,
            (Err(ours), Err(theirs)) => ours.to_string() == theirs.to_string(),
            _ => false,
        };
        assert!(
            equal,
            "{ours:?} and {theirs:?} of {}",
            String::from_utf8_lossy(text)
        );
        ours.is_ok()
    }

    #[test]
    fn plain_objects_are_read_here() {
        let text = r#" { "a" : -12 , "x":[1,{}], "id":7,"ü":"é" } "#;
        assert!(plain::<Plain>(text.as_bytes()).is_some());
        assert!(plain::<serde_json::Value>(br#"{"a":"\n","b":1e3}"#).is_some());
        let text = br#"{"a":true,"b":null}"#;
        assert!(plain::<BTreeMap<String, Option<bool>>>(text).is_some());
        for other in [
            &br#"{"a":1,}"#[..],
            br#"{"a":1}x"#,
            br#"{,}"#,
            br#"{"a":300"#,
            b"[1]",
            b"",
            br#"{"a" 1}"#,
            br#"{"a":"x"}"#,
            br#"{"a":1,"a":2}"#,
        ] {
            let text = String::from_utf8_lossy(other);
            assert!(plain::<Plain>(other).is_none(), "{text}");
            same::<Plain>(other);
        }
    }

    /// Whatever the text and the type, values and errors are serde_json's.
    #[test]
    fn values_and_errors_are_those_of_serde_json() {
        let seed = fastrand::u64(..);
        eprintln!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let mut read = [0; 5];
        for _ in 0..40_000 {
            let mut text = object(&mut random, 2).into_bytes();
            for _ in 0..random.usize(..2) {
                spoil(&mut text, &mut random);
            }
            read[0] += usize::from(same::<Plain>(&text));
            read[1] += usize::from(same::<Rest>(&text));
            read[2] += usize::from(same::<Nested>(&text));
            read[3] += usize::from(same::<serde_json::Value>(&text));
            read[4] += usize::from(same::<BTreeMap<String, Either>>(&text));
        }
        assert!(read.iter().all(|read| *read > 500), "{read:?}");
    }
}
