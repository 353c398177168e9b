//! Functions of texts. Lengths and places count UTF-16 units, as the service does.

use std::borrow::Cow;

use serde_json::Value;

use super::super::eval::number;
use super::{Arguments, Function};

/// Longest text that `REPLICATE` makes (service limit).
const MAX_REPLICATED: usize = 10_000;

/// Applies a function of this file; `None` for others too.
pub(super) fn apply(function: Function, arguments: &Arguments<'_>) -> Option<Value> {
    let text = |index: usize| arguments.text(index);
    let new = |text: String| arguments.new_text(text);
    match function {
        Function::Concat => {
            let parts: Option<Vec<&str>> = (0..arguments.len()).map(text).collect();
            let parts = parts?;
            arguments
                .budget
                .text(parts.iter().map(|part| part.len()).sum())?;
            Some(Value::String(parts.concat()))
        }
        Function::Contains => test(arguments, |text, part| text.contains(part)),
        Function::EndsWith => test(arguments, |text, part| text.ends_with(part)),
        Function::StartsWith => test(arguments, |text, part| text.starts_with(part)),
        Function::StringEquals => test(arguments, |text, part| text == part),
        Function::IndexOf => index_of(arguments),
        Function::Left => new(units(text(0)?, 0, place(arguments, 1)?)),
        Function::Right => {
            let wanted = place(arguments, 1)?;
            let length = length(text(0)?);
            new(units(text(0)?, length.saturating_sub(wanted), wanted))
        }
        Function::Substring => new(units(text(0)?, place(arguments, 1)?, place(arguments, 2)?)),
        Function::Length => Some(Value::from(length(text(0)?))),
        Function::Lower => new(text(0)?.to_lowercase()),
        Function::Upper => new(text(0)?.to_uppercase()),
        Function::LTrim => new(text(0)?.trim_start_matches(&cut(arguments)?[..]).to_owned()),
        Function::RTrim => new(text(0)?.trim_end_matches(&cut(arguments)?[..]).to_owned()),
        Function::Trim => new(text(0)?.trim_matches(&cut(arguments)?[..]).to_owned()),
        Function::Replace => replace(arguments),
        Function::Replicate => {
            let times = place(arguments, 1)?;
            let length = text(0)?.len().checked_mul(times)?;
            (length <= MAX_REPLICATED).then(|| Value::from(text(0).unwrap_or("").repeat(times)))
        }
        Function::Reverse => new(text(0)?.chars().rev().collect()),
        Function::ToString => match arguments.value(0)? {
            Value::String(text) => new(text.clone()),
            value => new(value.to_string()),
        },
        _ => parsed(function, arguments),
    }
}

fn test(arguments: &Arguments<'_>, test: fn(&str, &str) -> bool) -> Option<Value> {
    let (mut text, mut part) = (
        Cow::Borrowed(arguments.text(0)?),
        Cow::Borrowed(arguments.text(1)?),
    );
    if arguments.value(2).and_then(Value::as_bool) == Some(true) {
        text = Cow::Owned(text.to_lowercase());
        part = Cow::Owned(part.to_lowercase());
    }
    Some(Value::Bool(test(&text, &part)))
}

fn length(text: &str) -> usize {
    text.encode_utf16().count()
}

fn units(text: &str, start: usize, length: usize) -> String {
    let units: Vec<u16> = text.encode_utf16().skip(start).take(length).collect();
    String::from_utf16_lossy(&units)
}

/// A number of units; what is below zero counts as zero.
fn place(arguments: &Arguments<'_>, index: usize) -> Option<usize> {
    Some(arguments.number(index)?.max(0.0) as usize)
}

fn index_of(arguments: &Arguments<'_>) -> Option<Value> {
    let start = if arguments.len() == 3 {
        place(arguments, 2)?
    } else {
        0
    };
    let (text, part) = (
        units(arguments.text(0)?, start, usize::MAX),
        arguments.text(1)?,
    );
    Some(match text.find(part) {
        Some(bytes) => Value::from(start + length(&text[..bytes])),
        None => Value::from(-1),
    })
}

fn replace(arguments: &Arguments<'_>) -> Option<Value> {
    let (text, old, new) = (arguments.text(0)?, arguments.text(1)?, arguments.text(2)?);
    if old.is_empty() {
        return arguments.new_text(text.to_owned());
    }
    let growth = new.len().saturating_sub(old.len());
    let found = text.matches(old).count();
    arguments
        .budget
        .text(text.len() + found.saturating_mul(growth))?;
    Some(Value::String(text.replace(old, new)))
}

/// The characters to cut off: blanks, or those of the second argument.
fn cut(arguments: &Arguments<'_>) -> Option<Vec<char>> {
    if arguments.len() == 1 {
        return Some(vec![' ', '\t', '\r', '\n']);
    }
    Some(arguments.text(1)?.chars().collect())
}

fn parsed(function: Function, arguments: &Arguments<'_>) -> Option<Value> {
    let wanted: fn(&Value) -> bool = match function {
        Function::StringToArray => Value::is_array,
        Function::StringToBoolean => Value::is_boolean,
        Function::StringToNull => Value::is_null,
        Function::StringToNumber => Value::is_number,
        Function::StringToObject => Value::is_object,
        _ => return None,
    };
    let text = arguments.text(0)?.trim();
    arguments.budget.text(text.len().saturating_mul(8))?;
    let value: Value = serde_json::from_str(text).ok().filter(wanted)?;
    match &value {
        Value::Number(plain) => number(plain.as_f64()?),
        _ => Some(value),
    }
}
