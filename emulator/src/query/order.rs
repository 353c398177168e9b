//! The order of values: undefined, null, booleans, numbers, strings (by UTF-16 units), arrays, objects.

use std::cmp::Ordering;

use serde_json::Value;

fn rank(value: Option<&Value>) -> u8 {
    match value {
        None => 0,
        Some(Value::Null) => 1,
        Some(Value::Bool(_)) => 2,
        Some(Value::Number(_)) => 3,
        Some(Value::String(_)) => 4,
        Some(Value::Array(_)) => 5,
        Some(Value::Object(_)) => 6,
    }
}

/// Compares any two values. Arrays are equal to each other here, and so are objects: no order is defined for them.
pub fn compare(a: Option<&Value>, b: Option<&Value>) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) if rank(Some(a)) == rank(Some(b)) => {
            within(a, b).unwrap_or(Ordering::Equal)
        }
        _ => rank(a).cmp(&rank(b)),
    }
}

/// Compares values of one type; `None` for different types, arrays and objects.
pub fn within(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Null, Value::Null) => Some(Ordering::Equal),
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        // Numbers are doubles. Comparing some of them as integers would not be an order: 2^53 and 2^53 + 1 differ, but
        // both are equal to 2^53 as a double.
        (Value::Number(a), Value::Number(b)) => a.as_f64()?.partial_cmp(&b.as_f64()?),
        (Value::String(a), Value::String(b)) if a.is_ascii() && b.is_ascii() => Some(a.cmp(b)),
        (Value::String(a), Value::String(b)) => Some(a.encode_utf16().cmp(b.encode_utf16())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn types_are_ordered_before_values() {
        let ladder = [
            None,
            Some(json!(null)),
            Some(json!(false)),
            Some(json!(true)),
            Some(json!(-1)),
            Some(json!(1.5)),
            Some(json!(2)),
            Some(json!("")),
            Some(json!("a")),
            Some(json!([])),
            Some(json!({})),
        ];
        for pair in ladder.windows(2) {
            assert_eq!(
                compare(pair[0].as_ref(), pair[1].as_ref()),
                Ordering::Less,
                "{pair:?}"
            );
        }
        assert_eq!(
            within(&json!("\u{10000}"), &json!("\u{e000}")),
            Some(Ordering::Less),
            "by UTF-16 units"
        );
        assert_eq!(within(&json!(1), &json!(1.0)), Some(Ordering::Equal));
        assert_eq!(within(&json!(1), &json!("1")), None);
        let big = [
            json!(1u64 << 53),
            json!((1u64 << 53) + 1),
            json!((1u64 << 53) as f64),
        ];
        for (a, b) in big.iter().flat_map(|a| big.iter().map(move |b| (a, b))) {
            assert_eq!(within(a, b), Some(Ordering::Equal), "{a} {b}");
        }
    }
}
