//! Functions of arrays and objects, and those that choose between their arguments.

use serde_json::{Value, json};

use super::super::distinct::fingerprint;
use super::super::eval::equal;
use super::{Arguments, Function};

/// Applies a function of this file; `None` for others too.
pub(super) fn apply(function: Function, arguments: &Arguments<'_>) -> Option<Value> {
    let array = |index: usize| arguments.array(index);
    match function {
        Function::ArrayConcat => {
            let arrays: Option<Vec<&[Value]>> = (0..arguments.len()).map(array).collect();
            arguments.new_array(arrays?.into_iter().flatten())
        }
        Function::ArrayContains => {
            let (items, wanted) = (array(0)?, arguments.value(1)?);
            let partly = arguments.value(2).and_then(Value::as_bool) == Some(true);
            let found = items
                .iter()
                .any(|item| equal(item, wanted) || partly && holds_members(item, wanted));
            Some(Value::Bool(found))
        }
        Function::ArrayContainsAll | Function::ArrayContainsAny => {
            let items = array(0)?;
            let mut wanted = (1..arguments.len()).map(|index| {
                let wanted = arguments.value(index);
                wanted.is_some_and(|wanted| items.iter().any(|item| equal(item, wanted)))
            });
            Some(Value::Bool(match function {
                Function::ArrayContainsAll => wanted.all(|found| found),
                _ => wanted.any(|found| found),
            }))
        }
        Function::ArrayLength => Some(Value::from(array(0)?.len())),
        Function::ArraySlice => slice(arguments),
        Function::Choose => {
            let number = arguments.number(0)?;
            if number < 1.0 {
                return None;
            }
            arguments.copy(arguments.value(number as usize)?)
        }
        Function::Iif => {
            let chosen = match arguments.value(0) {
                Some(Value::Bool(true)) => 1,
                _ => 2,
            };
            arguments.copy(arguments.value(chosen)?)
        }
        Function::ObjectToArray => {
            let members = arguments.value(0)?.as_object()?;
            arguments.budget.copy(arguments.value(0)?)?;
            let pairs = members
                .iter()
                .map(|(name, value)| json!({"k": name, "v": value}));
            Some(Value::Array(pairs.collect()))
        }
        Function::SetIntersect => {
            let others: std::collections::HashSet<u128> = array(1)?
                .iter()
                .map(|item| fingerprint([Some(item)]))
                .collect();
            distinct(arguments, array(0)?.iter(), |print| others.contains(&print))
        }
        Function::SetUnion => distinct(arguments, array(0)?.iter().chain(array(1)?), |_| true),
        _ => None,
    }
}

/// Whether an object has all members of another, which may have fewer.
fn holds_members(item: &Value, wanted: &Value) -> bool {
    match (item, wanted) {
        (Value::Object(item), Value::Object(wanted)) => wanted.iter().all(|(name, wanted)| {
            item.get(name)
                .is_some_and(|member| equal(member, wanted) || holds_members(member, wanted))
        }),
        _ => false,
    }
}

fn slice(arguments: &Arguments<'_>) -> Option<Value> {
    let items = arguments.array(0)?;
    let start = arguments.number(1)?;
    let start = if start < 0.0 {
        items.len().saturating_sub(-start as usize)
    } else {
        start as usize
    };
    let length = if arguments.len() == 3 {
        arguments.number(2)?.max(0.0) as usize
    } else {
        usize::MAX
    };
    arguments.new_array(items.iter().skip(start).take(length))
}

fn distinct<'v>(
    arguments: &Arguments<'_>,
    items: impl Iterator<Item = &'v Value>,
    admits: impl Fn(u128) -> bool,
) -> Option<Value> {
    let mut seen = std::collections::HashSet::new();
    arguments.new_array(items.filter(|item| {
        let print = fingerprint([Some(*item)]);
        admits(print) && seen.insert(print)
    }))
}
