//! Partial changes of an item: add, set, replace, remove, increment and move, at JSON pointers.
//!
//! | operation | the place must exist | in an array |
//! |---|---|---|
//! | add | no; its parent must | inserts; `-` appends |
//! | set | no; its parent must | overwrites; the place behind the last appends |
//! | replace | yes | overwrites |
//! | remove | yes | later elements move up |
//! | incr | no, then it becomes the value | adds to the number there |
//! | move | its source must | remove, then add |
//!
//! All of a patch happens, or nothing. A condition is the `FROM c WHERE ...` of a query, about the item before.

use serde_json::{Map, Value};

use crate::http::ApiError;
use crate::query::Condition;
use crate::store::{Container, Version};

/// Most operations in a patch (service limit).
const MAX_OPERATIONS: usize = 10;

/// A patch.
#[derive(Debug)]
pub struct Patch {
    operations: Vec<Operation>,
    condition: Option<Condition>,
}

#[derive(Debug)]
struct Operation {
    kind: Kind,
    path: Vec<String>,
    text: String,
}

#[derive(Debug)]
enum Kind {
    Add(Value),
    Set(Value),
    Replace(Value),
    Remove,
    Increment(Value),
    Move(Vec<String>),
}

impl Patch {
    /// Reads a patch: an object with `operations` and perhaps a `condition`, or the bare list of operations.
    ///
    /// # Errors
    /// 400 that names what is malformed.
    pub fn parse(body: &Value) -> Result<Self, ApiError> {
        let (operations, condition) = match body {
            Value::Array(operations) => (Some(operations), None),
            body => (body["operations"].as_array(), body["condition"].as_str()),
        };
        let operations = operations
            .filter(|operations| (1..=MAX_OPERATIONS).contains(&operations.len()))
            .ok_or_else(|| {
                ApiError::bad_request(format!(
                    "a patch needs a list of 1 to {MAX_OPERATIONS} operations"
                ))
            })?;
        Ok(Self {
            operations: operations.iter().map(operation).collect::<Result<_, _>>()?,
            condition: condition
                .map(Condition::parse)
                .transpose()
                .map_err(ApiError::bad_request)?,
        })
    }

    /// The text of a document after the patch, system properties left out.
    ///
    /// # Errors
    /// 412 if the condition does not hold, 400 if an operation cannot be carried out.
    pub fn apply(&self, container: &Container, current: &Version) -> Result<Vec<u8>, ApiError> {
        if let Some(condition) = &self.condition {
            let mut text = Vec::new();
            current.render(&container.rendering, false, &mut text);
            if !condition.holds(&parsed(&text)?) {
                return Err(ApiError::precondition_failed());
            }
        }
        let mut document = parsed(&current.to_json_text())?;
        for (operation, number) in self.operations.iter().zip(1..) {
            check_path(container, operation)
                .and_then(|()| operation.apply(&mut document))
                .map_err(|clause| {
                    ApiError::bad_request(format!(
                        "operation {number} of the patch, at {}: {clause}",
                        operation.text
                    ))
                })?;
        }
        Ok(document.to_string().into_bytes())
    }
}

fn parsed(text: &[u8]) -> Result<Value, ApiError> {
    serde_json::from_slice(text)
        .map_err(|_| ApiError::bad_request("the item is too deeply nested for a patch"))
}

fn operation(body: &Value) -> Result<Operation, ApiError> {
    let name = body["op"].as_str().unwrap_or_default();
    let value = || {
        body.get("value").cloned().ok_or_else(|| {
            ApiError::bad_request(format!("the patch operation {name} needs a value"))
        })
    };
    let pointer = |member: &str| {
        let text = body[member].as_str().unwrap_or_default();
        parse_pointer(text).ok_or_else(|| {
            ApiError::bad_request(format!(
                "the patch operation {name} needs a {member} such as /name or /list/0"
            ))
        })
    };
    let kind = match name.to_ascii_lowercase().as_str() {
        "add" => Kind::Add(value()?),
        "set" => Kind::Set(value()?),
        "replace" => Kind::Replace(value()?),
        "remove" => Kind::Remove,
        "incr" | "increment" => {
            Kind::Increment(value().ok().filter(Value::is_number).ok_or_else(|| {
                ApiError::bad_request("the patch operation incr needs a number as value")
            })?)
        }
        "move" => Kind::Move(pointer("from")?),
        _ => {
            return Err(ApiError::bad_request(format!(
                "the patch operation {name} is unknown: use add, set, replace, remove, incr or move"
            )));
        }
    };
    Ok(Operation {
        kind,
        path: pointer("path")?,
        text: body["path"].as_str().unwrap_or_default().to_owned(),
    })
}

fn parse_pointer(text: &str) -> Option<Vec<String>> {
    let names = text.strip_prefix('/').filter(|rest| !rest.is_empty())?;
    Some(
        names
            .split('/')
            .map(|name| name.replace("~1", "/").replace("~0", "~"))
            .collect(),
    )
}

/// What identifies an item and where it lives cannot be patched.
fn check_path(container: &Container, operation: &Operation) -> Result<(), String> {
    let mut paths = vec![&operation.path];
    if let Kind::Move(from) = &operation.kind {
        paths.push(from);
    }
    for path in paths {
        if path[..] == ["id"] || ["_rid", "_self", "_etag", "_ts"].contains(&&*path[0]) {
            return Err("this property cannot be changed".to_owned());
        }
        let key = |known: &Vec<String>| known.starts_with(path) || path.starts_with(known);
        if container.key.paths().iter().any(key) {
            return Err("the partition key cannot be changed".to_owned());
        }
    }
    Ok(())
}

impl Operation {
    fn apply(&self, document: &mut Value) -> Result<(), String> {
        match &self.kind {
            Kind::Add(value) => put(document, &self.path, value.clone(), true),
            Kind::Set(value) => put(document, &self.path, value.clone(), false),
            Kind::Replace(value) => {
                *find(document, &self.path).ok_or(NOTHING_THERE)? = value.clone();
                Ok(())
            }
            Kind::Remove => take(document, &self.path).map(drop),
            Kind::Increment(by) => match find(document, &self.path) {
                Some(number) => {
                    *number = sum(number, by).ok_or("there is no number to add to")?;
                    Ok(())
                }
                None => put(document, &self.path, by.clone(), false),
            },
            Kind::Move(from) => {
                if self.path.starts_with(from) {
                    return Err("a value cannot be moved into itself".to_owned());
                }
                let value = take(document, from)?;
                put(document, &self.path, value, true)
            }
        }
    }
}

const NOTHING_THERE: &str = "there is nothing";

enum Parent<'a> {
    Object(&'a mut Map<String, Value>),
    Array(&'a mut Vec<Value>),
}

fn find<'a>(document: &'a mut Value, path: &[String]) -> Option<&'a mut Value> {
    path.iter().try_fold(document, |value, name| match value {
        Value::Object(members) => members.get_mut(name),
        Value::Array(items) => items.get_mut(index(name)?),
        _ => None,
    })
}

fn parent<'a, 'p>(
    document: &'a mut Value,
    path: &'p [String],
) -> Result<(Parent<'a>, &'p str), String> {
    let missing = || "its parent is no object or array that exists".to_owned();
    let (last, above) = path.split_last().ok_or_else(missing)?;
    match find(document, above) {
        Some(Value::Object(members)) => Ok((Parent::Object(members), last)),
        Some(Value::Array(items)) => Ok((Parent::Array(items), last)),
        _ => Err(missing()),
    }
}

fn index(name: &str) -> Option<usize> {
    let plain = name == "0" || !name.starts_with(['0', '+']);
    plain.then(|| name.parse().ok()).flatten()
}

fn put(document: &mut Value, path: &[String], value: Value, insert: bool) -> Result<(), String> {
    match parent(document, path)? {
        (Parent::Object(members), name) => {
            members.insert(name.to_owned(), value);
        }
        (Parent::Array(items), "-") => items.push(value),
        (Parent::Array(items), name) => match index(name) {
            Some(at) if at == items.len() || insert && at < items.len() => items.insert(at, value),
            Some(at) if at < items.len() => items[at] = value,
            _ => return Err("the array has no such place".to_owned()),
        },
    }
    Ok(())
}

fn take(document: &mut Value, path: &[String]) -> Result<Value, String> {
    let taken = match parent(document, path)? {
        (Parent::Object(members), name) => members.remove(name),
        (Parent::Array(items), name) => index(name)
            .filter(|at| *at < items.len())
            .map(|at| items.remove(at)),
    };
    taken.ok_or_else(|| NOTHING_THERE.to_owned())
}

fn sum(a: &Value, b: &Value) -> Option<Value> {
    if let (Some(a), Some(b)) = (a.as_i64(), b.as_i64())
        && let Some(sum) = a.checked_add(b)
    {
        return Some(Value::from(sum));
    }
    crate::query::number(a.as_f64()? + b.as_f64()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn patched(document: Value, operations: Value) -> Result<Value, String> {
        let patch = Patch::parse(&operations).map_err(|error| error.message)?;
        let mut document = document;
        patch
            .operations
            .iter()
            .try_for_each(|operation| operation.apply(&mut document))?;
        Ok(document)
    }

    #[test]
    fn each_operation_does_what_the_table_says() {
        let document = json!({"a": 1, "list": [1, 2, 3], "o": {"x": true}});
        let cases = [
            (
                json!([{"op": "add", "path": "/b", "value": 2}]),
                json!({"a": 1, "b": 2, "list": [1, 2, 3], "o": {"x": true}}),
            ),
            (
                json!([{"op": "add", "path": "/list/1", "value": 9}, {"op": "add", "path": "/list/-", "value": 8}]),
                json!({"a": 1, "list": [1, 9, 2, 3, 8], "o": {"x": true}}),
            ),
            (
                json!([{"op": "set", "path": "/list/1", "value": 9}, {"op": "set", "path": "/list/3", "value": 4}]),
                json!({"a": 1, "list": [1, 9, 3, 4], "o": {"x": true}}),
            ),
            (
                json!([{"op": "replace", "path": "/o/x", "value": null}]),
                json!({"a": 1, "list": [1, 2, 3], "o": {"x": null}}),
            ),
            (
                json!([{"op": "remove", "path": "/list/0"}, {"op": "remove", "path": "/o"}]),
                json!({"a": 1, "list": [2, 3]}),
            ),
            (
                json!([{"op": "incr", "path": "/a", "value": 5}, {"op": "incr", "path": "/n", "value": -1}, {"op": "incr", "path": "/a", "value": 0.5}]),
                json!({"a": 6.5, "n": -1, "list": [1, 2, 3], "o": {"x": true}}),
            ),
            (
                json!([{"op": "move", "from": "/o/x", "path": "/moved"}]),
                json!({"a": 1, "list": [1, 2, 3], "o": {}, "moved": true}),
            ),
            (
                json!({"operations": [{"op": "set", "path": "/o/y~1z~0", "value": 1}]}),
                json!({"a": 1, "list": [1, 2, 3], "o": {"x": true, "y/z~": 1}}),
            ),
        ];
        for (operations, expected) in cases {
            assert_eq!(
                patched(document.clone(), operations.clone()),
                Ok(expected),
                "{operations}"
            );
        }
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        let document = json!({"a": 1, "text": "x", "list": [1]});
        for operations in [
            json!([]),
            json!([{"op": "replace", "path": "/none", "value": 1}]),
            json!([{"op": "remove", "path": "/none"}]),
            json!([{"op": "add", "path": "/none/deep", "value": 1}]),
            json!([{"op": "add", "path": "/list/5", "value": 1}]),
            json!([{"op": "add", "path": "/list/01", "value": 1}]),
            json!([{"op": "incr", "path": "/text", "value": 1}]),
            json!([{"op": "incr", "path": "/a", "value": "1"}]),
            json!([{"op": "move", "from": "/none", "path": "/a"}]),
            json!([{"op": "move", "from": "/list", "path": "/list/0"}]),
            json!([{"op": "add", "path": "a", "value": 1}]),
            json!([{"op": "set", "path": "/a"}]),
            json!([{"op": "upsert", "path": "/a", "value": 1}]),
            json!({"condition": "from c where c.a = 1"}),
        ] {
            assert!(
                patched(document.clone(), operations.clone()).is_err(),
                "{operations}"
            );
        }
    }
}
