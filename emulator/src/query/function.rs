//! Functions of queries.

use std::borrow::Cow;

use serde_json::Value;

use super::eval::{Maybe, equal, number};

macro_rules! functions {
    ($($name:ident = $text:literal, $least:literal..=$most:literal;)*) => {
        /// A function.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs)]
        pub enum Function { $($name),* }

        impl Function {
            /// The function of a name in upper case, with the numbers of arguments it takes.
            pub fn by_name(name: &str) -> Option<(Self, std::ops::RangeInclusive<usize>)> {
                match name {
                    $($text => Some((Self::$name, $least..=$most)),)*
                    _ => None,
                }
            }
        }
    };
}

functions! {
    IsDefined = "IS_DEFINED", 1..=1;
    IsNull = "IS_NULL", 1..=1;
    IsBool = "IS_BOOL", 1..=1;
    IsNumber = "IS_NUMBER", 1..=1;
    IsInteger = "IS_INTEGER", 1..=1;
    IsString = "IS_STRING", 1..=1;
    IsArray = "IS_ARRAY", 1..=1;
    IsObject = "IS_OBJECT", 1..=1;
    IsPrimitive = "IS_PRIMITIVE", 1..=1;
    Abs = "ABS", 1..=1;
    Floor = "FLOOR", 1..=1;
    Ceiling = "CEILING", 1..=1;
    Round = "ROUND", 1..=1;
    Length = "LENGTH", 1..=1;
    Lower = "LOWER", 1..=1;
    Upper = "UPPER", 1..=1;
    Concat = "CONCAT", 2..=100;
    Contains = "CONTAINS", 2..=3;
    StartsWith = "STARTSWITH", 2..=3;
    EndsWith = "ENDSWITH", 2..=3;
    StringEquals = "STRINGEQUALS", 2..=3;
    Substring = "SUBSTRING", 3..=3;
    ArrayContains = "ARRAY_CONTAINS", 2..=2;
    ArrayLength = "ARRAY_LENGTH", 1..=1;
}

/// Applies a function; undefined for arguments of the wrong type.
pub fn apply(function: Function, arguments: &[Maybe<'_>]) -> Option<Value> {
    let first = arguments.first().and_then(Option::as_deref);
    let is = |test: fn(&Value) -> bool| Some(Value::Bool(first.is_some_and(test)));
    match function {
        Function::IsDefined => is(|_| true),
        Function::IsNull => is(Value::is_null),
        Function::IsBool => is(Value::is_boolean),
        Function::IsNumber => is(Value::is_number),
        Function::IsInteger => {
            is(|value| value.as_f64().is_some_and(|number| number.fract() == 0.0))
        }
        Function::IsString => is(Value::is_string),
        Function::IsArray => is(Value::is_array),
        Function::IsObject => is(Value::is_object),
        Function::IsPrimitive => is(|value| !value.is_array() && !value.is_object()),
        Function::Abs => number(first?.as_f64()?.abs()),
        Function::Floor => number(first?.as_f64()?.floor()),
        Function::Ceiling => number(first?.as_f64()?.ceil()),
        Function::Round => number(first?.as_f64()?.round()),
        Function::Length => Some(Value::from(first?.as_str()?.encode_utf16().count())),
        Function::Lower => Some(Value::from(first?.as_str()?.to_lowercase())),
        Function::Upper => Some(Value::from(first?.as_str()?.to_uppercase())),
        Function::Concat => {
            let parts: Option<Vec<&str>> = arguments
                .iter()
                .map(|argument| argument.as_deref()?.as_str())
                .collect();
            Some(Value::from(parts?.concat()))
        }
        Function::Contains => texts(arguments, |text, part| text.contains(part)),
        Function::StartsWith => texts(arguments, |text, part| text.starts_with(part)),
        Function::EndsWith => texts(arguments, |text, part| text.ends_with(part)),
        Function::StringEquals => texts(arguments, |text, part| text == part),
        Function::Substring => {
            let place =
                |index: usize| Some(arguments.get(index)?.as_deref()?.as_f64()?.max(0.0) as usize);
            let units: Vec<u16> = first?
                .as_str()?
                .encode_utf16()
                .skip(place(1)?)
                .take(place(2)?)
                .collect();
            Some(Value::from(String::from_utf16_lossy(&units)))
        }
        Function::ArrayContains => {
            let wanted = arguments[1].as_deref()?;
            Some(Value::Bool(
                first?
                    .as_array()?
                    .iter()
                    .any(|element| equal(element, wanted)),
            ))
        }
        Function::ArrayLength => Some(Value::from(first?.as_array()?.len())),
    }
}

fn texts(arguments: &[Maybe<'_>], test: fn(&str, &str) -> bool) -> Option<Value> {
    let text = |index: usize| arguments.get(index)?.as_deref()?.as_str();
    let (mut text, mut part) = (Cow::Borrowed(text(0)?), Cow::Borrowed(text(1)?));
    if arguments
        .get(2)
        .and_then(Option::as_deref)
        .and_then(Value::as_bool)
        == Some(true)
    {
        text = Cow::Owned(text.to_lowercase());
        part = Cow::Owned(part.to_lowercase());
    }
    Some(Value::Bool(test(&text, &part)))
}
