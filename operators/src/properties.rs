//! The properties of a JSON object, without reading their values: what is kept stays byte for byte.

use std::fmt;

use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;

/// A JSON object without some properties, the others as they were; `None` if it is no object.
pub(crate) fn without_properties(body: &[u8], names: &[&str]) -> Option<Vec<u8>> {
    let fields: Fields<'_> = serde_json::from_slice(body).ok()?;
    let kept = fields.0.into_iter();
    let kept = kept.filter(|(name, _)| !names.contains(&name.as_str()));
    let mut out = vec![b'{'];
    for (name, value) in kept {
        if out.len() > 1 {
            out.push(b',');
        }
        serde_json::to_writer(&mut out, &name).expect("text becomes JSON, and memory takes it");
        out.push(b':');
        out.extend_from_slice(value.get().as_bytes());
    }
    out.push(b'}');
    Some(out)
}

/// A property of a JSON object, if it is a string.
pub(crate) fn string_property(body: &[u8], name: &str) -> Option<Box<str>> {
    let fields: Fields<'_> = serde_json::from_slice(body).ok()?;
    let mut fields = fields.0.into_iter();
    let (_, value) = fields.find(|(known, _)| known == name)?;
    serde_json::from_str(value.get()).ok()
}

/// The properties of a JSON object in their order, values unread.
struct Fields<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldsVisitor;
        impl<'de> Visitor<'de> for FieldsVisitor {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(FieldsVisitor).map(Fields)
    }
}

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
    }
}
