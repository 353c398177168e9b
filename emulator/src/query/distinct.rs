//! Fingerprints of values: equal values have equal ones, whatever their spelling and the order of their members.

use serde_json::Value;
use xxhash_rust::xxh3::xxh3_128;

use super::eval::number;
use crate::json::{write_text, write_value};

/// The fingerprint of a series of values, any of which may be undefined.
pub fn fingerprint<'a>(values: impl IntoIterator<Item = Option<&'a Value>>) -> u128 {
    let mut text = Vec::with_capacity(64);
    for value in values {
        match value {
            Some(value) => canonical(value, &mut text),
            None => text.push(b'?'),
        }
        text.push(b';');
    }
    xxh3_128(&text)
}

fn canonical(value: &Value, out: &mut Vec<u8>) {
    match value {
        // 1 and 1.0 are one number.
        Value::Number(whole) => match whole.as_f64().and_then(number) {
            Some(plain) if !whole.is_i64() => write_value(out, &plain),
            _ => write_value(out, value),
        },
        Value::Array(items) => {
            out.push(b'[');
            for item in items {
                canonical(item, out);
                out.push(b',');
            }
            out.push(b']');
        }
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by_key(|(name, _)| *name);
            out.push(b'{');
            for (name, member) in members {
                write_text(out, name);
                out.push(b':');
                canonical(member, out);
                out.push(b',');
            }
            out.push(b'}');
        }
        Value::Null | Value::Bool(_) | Value::String(_) => write_value(out, value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn equal_values_and_no_others_share_a_fingerprint() {
        let of = |text: &str| {
            let value: Value = serde_json::from_str(text).unwrap();
            fingerprint([Some(&value)])
        };
        assert_eq!(of("1"), of("1.0"));
        assert_eq!(of(r#"{"a":1,"b":[2.0]}"#), of(r#"{"b":[2],"a":1.0}"#));
        let different = [
            "1",
            "\"1\"",
            "null",
            "true",
            "[]",
            "{}",
            "[1]",
            "[[1]]",
            "1.5",
            r#"{"a":1}"#,
            r#"{"a":"1"}"#,
            "\"a;\"",
            "[1,2]",
            "[12]",
        ];
        for (index, a) in different.iter().enumerate() {
            for b in &different[index + 1..] {
                assert_ne!(of(a), of(b), "{a} {b}");
            }
        }
        let one = json!(1);
        assert_ne!(
            fingerprint([Some(&one), None]),
            fingerprint([None, Some(&one)])
        );
        assert_ne!(fingerprint([None]), fingerprint([Some(&Value::Null)]));
    }
}
