//! The properties of a JSON object, without reading their values: what is kept stays byte for byte.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// A property: its name, and its value as it stands in the text.
pub(crate) type Property<'a> = (Cow<'a, str>, &'a RawValue);

/// A JSON object without some properties, the others as they were; `None` if it is no object.
pub(crate) fn without_properties(body: &[u8], names: &[&str]) -> Option<Vec<u8>> {
    let properties = properties(body).ok()?;
    let mut out = Vec::with_capacity(body.len());
    write_without(&mut out, &properties, names);
    Some(out)
}

/// A property of a JSON object, if it is a string.
pub(crate) fn string_property(body: &[u8], name: &str) -> Option<Box<str>> {
    serde_json::from_str(find(&properties(body).ok()?, name)?.get()).ok()
}

/// Writes an object of all `properties` but those with these names.
pub(crate) fn write_without(out: &mut Vec<u8>, properties: &[Property<'_>], names: &[&str]) {
    write_some(out, properties, |name| !names.contains(&name));
}

/// Writes an object of the `properties` whose names are `kept`.
pub(crate) fn write_some(
    out: &mut Vec<u8>,
    properties: &[Property<'_>],
    kept: impl Fn(&str) -> bool,
) {
    out.push(b'{');
    let mut first = true;
    for (name, value) in properties.iter().filter(|(name, _)| kept(name)) {
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        match name {
            // It was lent because nothing in it is escaped.
            Cow::Borrowed(name) => {
                out.push(b'"');
                out.extend_from_slice(name.as_bytes());
                out.push(b'"');
            }
            Cow::Owned(name) => {
                serde_json::to_writer(&mut *out, name)
                    .expect("text becomes JSON, and memory takes it");
            }
        }
        out.push(b':');
        out.extend_from_slice(value.get().as_bytes());
    }
    out.push(b'}');
}

/// The value of the property with this name; the last one, should there be several.
pub(crate) fn find<'a>(properties: &[Property<'a>], name: &str) -> Option<&'a RawValue> {
    let mut named = properties.iter().rev();
    named
        .find(|(known, _)| known == name)
        .map(|(_, value)| *value)
}

/// The properties of a JSON object in their order.
///
/// # Errors
/// When the text is no JSON object.
pub(crate) fn properties(object: &[u8]) -> serde_json::Result<Vec<Property<'_>>> {
    let mut properties = Vec::new();
    let mut text = serde_json::Deserializer::from_slice(object);
    PropertiesInto(&mut properties).deserialize(&mut text)?;
    text.end()?;
    Ok(properties)
}

/// Reads an object's properties into a vector, which is emptied first: one that is used again and again.
pub(crate) struct PropertiesInto<'v, 'a>(pub(crate) &'v mut Vec<Property<'a>>);

impl<'de> DeserializeSeed<'de> for PropertiesInto<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for PropertiesInto<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.0.clear();
        while let Some((Name(name), value)) = map.next_entry()? {
            self.0.push((name, value));
        }
        Ok(())
    }
}

/// Lent where nothing is escaped.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_stays_as_it_was() {
        let exact = br#"{"a":18446744073709551616.10,"_etag":"\"1\"","b":[ 1 ]}"#;
        let stripped = without_properties(exact, &["_etag"]).expect("an object");
        assert_eq!(stripped, br#"{"a":18446744073709551616.10,"b":[ 1 ]}"#);
        assert_eq!(string_property(exact, "_etag").as_deref(), Some("\"1\""));
        assert_eq!(string_property(exact, "a"), None);
        assert_eq!(without_properties(b"[1]", &[]), None);
        assert_eq!(without_properties(b"{} {}", &[]), None);
        let escaped = br#"{"a\u0022\n":1,"_ts":2}"#;
        let stripped = without_properties(escaped, &["_ts"]).expect("an object");
        assert_eq!(stripped, br#"{"a\"\n":1}"#);
        assert_eq!(
            without_properties(br#"{"_ts":2}"#, &["_ts"]).unwrap(),
            b"{}"
        );
    }
}
