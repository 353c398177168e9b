//! The patch of one document, and what its operations do.

use std::cmp::Ordering;

use bytes::Bytes;
use serde_json::{Map, Value};

/// A condition of the job on the document before a patch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// The name that the expression gives to the document.
    pub alias: String,
    /// The expression, without `where`.
    pub expression: String,
}

/// A sum that is exact for whole numbers.
#[derive(Default)]
pub(super) struct Sum {
    whole: i128,
    fraction: f64,
}

impl Sum {
    pub(super) fn add(&mut self, number: Option<&Value>, sign: i8) {
        let Some(number) = number else { return };
        // Far from the bounds of 128 bits, however many there are in an epoch.
        let whole = number
            .as_i64()
            .map(i128::from)
            .or(number.as_u64().map(i128::from));
        match whole {
            Some(whole) => self.whole += whole * i128::from(sign),
            None => self.fraction += number.as_f64().unwrap_or(0.0) * f64::from(sign),
        }
    }

    /// `None` if it is too large, `Some(None)` if it is 0.
    pub(super) fn value(&self) -> Option<Option<Value>> {
        if self.fraction != 0.0 {
            let sum = Value::from(self.whole as f64 + self.fraction);
            return sum.is_number().then_some(Some(sum));
        }
        let whole = i64::try_from(self.whole).ok()?;
        Some((whole != 0).then(|| Value::from(whole)))
    }
}

/// A patch of one document.
#[derive(Clone, Debug, PartialEq)]
pub struct PatchWrite {
    /// What changes, in order. May be empty if the document is only to be created.
    pub operations: Vec<PatchOperation>,
    /// The job's own condition.
    pub condition: Option<Condition>,
    /// Set `_epoch` to this, only if it is undefined or smaller.
    pub epoch: Option<u64>,
    /// Creates this if there is no document.
    pub create: Option<Bytes>,
}

/// A change of one property.
#[derive(Clone, Debug, PartialEq)]
pub enum PatchOperation {
    /// Set it.
    Set {
        /// The property, as a JSON pointer.
        path: String,
        /// Its value.
        value: Value,
    },
    /// Add an element to a list, or set a property of an object.
    Add {
        /// The place, as a JSON pointer.
        path: String,
        /// The element.
        value: Value,
    },
    /// Add to a number; none is 0.
    Increment {
        /// The property, as a JSON pointer.
        path: String,
        /// What to add.
        by: Value,
    },
    /// Remove it, if it is there.
    Remove {
        /// The property, as a JSON pointer.
        path: String,
    },
}

impl PatchOperation {
    /// Carries it out, as the service does.
    ///
    /// # Errors
    /// What is in the way.
    pub fn apply(&self, document: &mut Value) -> Result<(), String> {
        match self {
            PatchOperation::Set { path, value } => put(document, path, value, false),
            PatchOperation::Add { path, value } => put(document, path, value, true),
            PatchOperation::Increment { path, by } => {
                let mut sum = Sum::default();
                let before = document.pointer(path);
                if before.is_some_and(|before| !before.is_number()) {
                    return Err(format!("{path} is no number"));
                }
                sum.add(before, 1);
                sum.add(Some(by), 1);
                let value = sum.value().ok_or(format!("{path} is too large"))?;
                put(document, path, &value.unwrap_or(Value::from(0)), false)
            }
            PatchOperation::Remove { path } => {
                let (parent, name) = parent_of(document, path)?;
                let members: &mut Map<String, Value> = parent
                    .as_object_mut()
                    .ok_or(format!("{path} is no property of an object"))?;
                members.remove(&name);
                Ok(())
            }
        }
    }
}

fn parent_of<'a>(document: &'a mut Value, path: &str) -> Result<(&'a mut Value, String), String> {
    let (above, name) = path.rsplit_once('/').ok_or("a path begins with a slash")?;
    let parent = document.pointer_mut(above);
    let name = name.replace("~1", "/").replace("~0", "~");
    Ok((parent.ok_or(format!("{above} is not there"))?, name))
}

fn put(document: &mut Value, path: &str, value: &Value, insert: bool) -> Result<(), String> {
    let (parent, name) = parent_of(document, path)?;
    match parent {
        Value::Object(members) => {
            members.insert(name, value.clone());
        }
        Value::Array(items) => {
            let at = match name.as_str() {
                "-" => items.len(),
                name => name.parse().map_err(|_| format!("{path} is no place"))?,
            };
            match at.cmp(&items.len()) {
                Ordering::Less if !insert => items[at] = value.clone(),
                Ordering::Greater => return Err(format!("{path} is beyond the end")),
                _ => items.insert(at, value.clone()),
            }
        }
        _ => return Err(format!("{path} is in no object or list")),
    }
    Ok(())
}
