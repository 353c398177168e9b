//! Functions of numbers.

use serde_json::Value;

use super::super::eval::number;
use super::{Arguments, Function};

/// Applies a function of this file; `None` for others too.
pub(super) fn apply(function: Function, arguments: &Arguments<'_>) -> Option<Value> {
    let first = || arguments.number(0);
    number(match function {
        Function::Abs => first()?.abs(),
        Function::Acos => first()?.acos(),
        Function::Asin => first()?.asin(),
        Function::Atan => first()?.atan(),
        Function::Atn2 => first()?.atan2(arguments.number(1)?),
        Function::Ceiling => first()?.ceil(),
        Function::Cos => first()?.cos(),
        Function::Cot => first()?.tan().recip(),
        Function::Degrees => first()?.to_degrees(),
        Function::Exp => first()?.exp(),
        Function::Floor => first()?.floor(),
        Function::Log if arguments.len() == 2 => first()?.log(arguments.number(1)?),
        Function::Log => first()?.ln(),
        Function::Log10 => first()?.log10(),
        Function::Pi => std::f64::consts::PI,
        Function::Power => first()?.powf(arguments.number(1)?),
        Function::Radians => first()?.to_radians(),
        Function::Round if arguments.len() == 2 => round_to(first()?, arguments.number(1)?)?,
        Function::Round => first()?.round(),
        Function::Sign if first()? == 0.0 => 0.0,
        Function::Sign => first()?.signum(),
        Function::Sin => first()?.sin(),
        Function::Sqrt => first()?.sqrt(),
        Function::Square => first()?.powi(2),
        Function::Tan => first()?.tan(),
        Function::Trunc => first()?.trunc(),
        _ => return None,
    })
}

/// Rounds to a number of decimal digits; digits beyond what a double holds change nothing.
fn round_to(value: f64, digits: f64) -> Option<f64> {
    if digits.fract() != 0.0 {
        return None;
    }
    let scale = 10f64.powf(digits);
    let scaled = value * scale;
    Some(if scale.is_normal() && scaled.is_finite() {
        scaled.round() / scale
    } else {
        value
    })
}
