//! Functions of queries. An argument of the wrong type makes the result undefined.

mod arrays;
mod numbers;
mod texts;

use serde_json::Value;

use super::budget::Budget;
use super::eval::Maybe;

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
    IsArray = "IS_ARRAY", 1..=1;
    IsBool = "IS_BOOL", 1..=1;
    IsDefined = "IS_DEFINED", 1..=1;
    IsFiniteNumber = "IS_FINITE_NUMBER", 1..=1;
    IsInteger = "IS_INTEGER", 1..=1;
    IsNull = "IS_NULL", 1..=1;
    IsNumber = "IS_NUMBER", 1..=1;
    IsObject = "IS_OBJECT", 1..=1;
    IsPrimitive = "IS_PRIMITIVE", 1..=1;
    IsString = "IS_STRING", 1..=1;
    Abs = "ABS", 1..=1;
    Acos = "ACOS", 1..=1;
    Asin = "ASIN", 1..=1;
    Atan = "ATAN", 1..=1;
    Atn2 = "ATN2", 2..=2;
    Ceiling = "CEILING", 1..=1;
    Cos = "COS", 1..=1;
    Cot = "COT", 1..=1;
    Degrees = "DEGREES", 1..=1;
    Exp = "EXP", 1..=1;
    Floor = "FLOOR", 1..=1;
    Log = "LOG", 1..=2;
    Log10 = "LOG10", 1..=1;
    Pi = "PI", 0..=0;
    Power = "POWER", 2..=2;
    Radians = "RADIANS", 1..=1;
    Round = "ROUND", 1..=2;
    Sign = "SIGN", 1..=1;
    Sin = "SIN", 1..=1;
    Sqrt = "SQRT", 1..=1;
    Square = "SQUARE", 1..=1;
    Tan = "TAN", 1..=1;
    Trunc = "TRUNC", 1..=1;
    Concat = "CONCAT", 2..=1000;
    Contains = "CONTAINS", 2..=3;
    EndsWith = "ENDSWITH", 2..=3;
    IndexOf = "INDEX_OF", 2..=3;
    Left = "LEFT", 2..=2;
    Length = "LENGTH", 1..=1;
    Lower = "LOWER", 1..=1;
    LTrim = "LTRIM", 1..=2;
    Replace = "REPLACE", 3..=3;
    Replicate = "REPLICATE", 2..=2;
    Reverse = "REVERSE", 1..=1;
    Right = "RIGHT", 2..=2;
    RTrim = "RTRIM", 1..=2;
    StartsWith = "STARTSWITH", 2..=3;
    StringEquals = "STRINGEQUALS", 2..=3;
    StringToArray = "STRINGTOARRAY", 1..=1;
    StringToBoolean = "STRINGTOBOOLEAN", 1..=1;
    StringToNull = "STRINGTONULL", 1..=1;
    StringToNumber = "STRINGTONUMBER", 1..=1;
    StringToObject = "STRINGTOOBJECT", 1..=1;
    Substring = "SUBSTRING", 3..=3;
    ToString = "TOSTRING", 1..=1;
    Trim = "TRIM", 1..=2;
    Upper = "UPPER", 1..=1;
    ArrayConcat = "ARRAY_CONCAT", 2..=1000;
    ArrayContains = "ARRAY_CONTAINS", 2..=3;
    ArrayContainsAll = "ARRAY_CONTAINS_ALL", 2..=1000;
    ArrayContainsAny = "ARRAY_CONTAINS_ANY", 2..=1000;
    ArrayLength = "ARRAY_LENGTH", 1..=1;
    ArraySlice = "ARRAY_SLICE", 2..=3;
    Choose = "CHOOSE", 2..=1000;
    Iif = "IIF", 3..=3;
    ObjectToArray = "OBJECTTOARRAY", 1..=1;
    SetIntersect = "SETINTERSECT", 2..=2;
    SetUnion = "SETUNION", 2..=2;
}

/// The arguments of a call.
struct Arguments<'a> {
    values: &'a [Maybe<'a>],
    budget: &'a Budget,
}

impl<'a> Arguments<'a> {
    fn len(&self) -> usize {
        self.values.len()
    }

    fn value(&self, index: usize) -> Option<&'a Value> {
        self.values.get(index)?.as_deref()
    }

    fn text(&self, index: usize) -> Option<&'a str> {
        self.value(index)?.as_str()
    }

    fn number(&self, index: usize) -> Option<f64> {
        self.value(index)?.as_f64()
    }

    fn array(&self, index: usize) -> Option<&'a [Value]> {
        self.value(index)?.as_array().map(Vec::as_slice)
    }

    /// A new text, paid for.
    fn new_text(&self, text: String) -> Option<Value> {
        self.budget.text(text.len())?;
        Some(Value::String(text))
    }

    /// A copy of a value, paid for.
    fn copy(&self, value: &Value) -> Option<Value> {
        self.budget.copy(value)?;
        Some(value.clone())
    }

    /// An array of copies, paid for.
    fn new_array<'v>(&self, items: impl IntoIterator<Item = &'v Value>) -> Option<Value> {
        let items: Option<Vec<Value>> = items.into_iter().map(|item| self.copy(item)).collect();
        Some(Value::Array(items?))
    }
}

/// Applies a function to as many arguments as [`Function::by_name`] allows.
pub fn apply(function: Function, values: &[Maybe<'_>], budget: &Budget) -> Option<Value> {
    let arguments = Arguments { values, budget };
    is_of_type(function, arguments.value(0))
        .map(Value::Bool)
        .or_else(|| numbers::apply(function, &arguments))
        .or_else(|| texts::apply(function, &arguments))
        .or_else(|| arrays::apply(function, &arguments))
}

fn is_of_type(function: Function, value: Option<&Value>) -> Option<bool> {
    let is = |test: fn(&Value) -> bool| Some(value.is_some_and(test));
    match function {
        Function::IsArray => is(Value::is_array),
        Function::IsBool => is(Value::is_boolean),
        Function::IsDefined => is(|_| true),
        Function::IsNumber | Function::IsFiniteNumber => is(Value::is_number),
        Function::IsInteger => is(|value| value.as_f64().is_some_and(|n| n.fract() == 0.0)),
        Function::IsNull => is(Value::is_null),
        Function::IsObject => is(Value::is_object),
        Function::IsPrimitive => is(|value| !value.is_array() && !value.is_object()),
        Function::IsString => is(Value::is_string),
        _ => None,
    }
}
