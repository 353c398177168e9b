//! Partition keys between their JSON form, the SDK's form and documents.

use azure_data_cosmos::PartitionKey;
use azure_data_cosmos::models::PartitionKeyValue;
use serde_json::Value;
use tidefeed_runtime::{Error, ErrorKind, Result};

/// The paths of a container's partition key, for example `/origin`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PartitionKeyPaths {
    paths: Vec<String>,
    segments: Vec<Vec<String>>,
}

impl PartitionKeyPaths {
    /// # Errors
    /// [`ErrorKind::Config`] when there are none or more than three, or one does not start with `/`.
    pub(crate) fn new(paths: Vec<String>) -> Result<Self> {
        if paths.is_empty() || paths.len() > 3 {
            return Err(Error::new(
                ErrorKind::Config,
                format!(
                    "a partition key has one to three paths, not {}",
                    paths.len()
                ),
            ));
        }
        let segments = paths
            .iter()
            .map(|path| segments(path))
            .collect::<Result<Vec<_>>>()?;
        Ok(PartitionKeyPaths { paths, segments })
    }

    pub(crate) fn paths(&self) -> &[String] {
        &self.paths
    }

    /// The same, split at their slashes.
    pub(crate) fn segments(&self) -> &[Vec<String>] {
        &self.segments
    }

    /// Reads a JSON array such as `["EWR"]` into the SDK's partition key.
    ///
    /// # Errors
    /// [`ErrorKind::Rejected`] when it is no array of scalars or has another number of elements than the container has paths.
    pub(crate) fn parse(&self, json: &str) -> Result<PartitionKey> {
        let refuse = |why: &str| {
            Error::new(
                ErrorKind::Rejected,
                format!("partition key {json} is not usable: {why}"),
            )
        };
        let values: Vec<Value> =
            serde_json::from_str(json).map_err(|_| refuse("it is no JSON array"))?;
        if values.len() != self.paths.len() {
            return Err(refuse(&format!(
                "the container's key is {} and needs {} values",
                self.paths.join(", "),
                self.paths.len()
            )));
        }
        let values = values
            .into_iter()
            .map(|value| match value {
                Value::Null => Ok(PartitionKeyValue::NULL),
                Value::Bool(value) => Ok(value.into()),
                Value::String(value) => Ok(value.into()),
                Value::Number(value) => value
                    .as_f64()
                    // The service takes -0 for 0, the SDK does not; the sum is 0 for both.
                    .and_then(|value| PartitionKeyValue::try_from(value + 0.0).ok())
                    .ok_or_else(|| refuse("it has a number out of range")),
                Value::Object(fields) if fields.is_empty() => Ok(PartitionKeyValue::UNDEFINED),
                Value::Object(_) | Value::Array(_) => {
                    Err(refuse("it has a value that is no scalar"))
                }
            })
            .collect::<Result<Vec<_>>>()?;
        PartitionKey::try_from(values).map_err(|_| refuse("it has too many values"))
    }
}

/// `/a/"b/c"/d` is `a`, `b/c`, `d`.
pub(super) fn segments(path: &str) -> Result<Vec<String>> {
    let malformed = || {
        Error::new(
            ErrorKind::Config,
            format!(
                "partition key path {path:?} is malformed: it must look like /name or /outer/name"
            ),
        )
    };
    let mut segments = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        rest = rest.strip_prefix('/').ok_or_else(malformed)?;
        let (segment, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').ok_or_else(malformed)?,
            None => rest.split_at(rest.find('/').unwrap_or(rest.len())),
        };
        if segment.is_empty() {
            return Err(malformed());
        }
        segments.push(segment.to_owned());
        rest = after;
    }
    if segments.is_empty() {
        return Err(malformed());
    }
    Ok(segments)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(paths: &[&str]) -> PartitionKeyPaths {
        PartitionKeyPaths::new(paths.iter().map(|path| path.to_string()).collect()).unwrap()
    }

    #[test]
    fn paths_are_split_with_quotes() {
        assert_eq!(segments("/a").unwrap(), ["a"]);
        assert_eq!(segments("/a/b").unwrap(), ["a", "b"]);
        assert_eq!(segments("/a/\"b/c\"/d").unwrap(), ["a", "b/c", "d"]);
        for malformed in ["", "a", "/", "/a/", "//", "/\"a", "/\"a\"b"] {
            let error = segments(malformed).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{malformed}");
        }
        assert!(PartitionKeyPaths::new(vec![]).is_err());
    }

    #[test]
    fn json_arrays_become_sdk_keys() {
        let one = paths(&["/a"]);
        assert_eq!(one.parse(r#"["EWR"]"#).unwrap(), PartitionKey::from("EWR"));
        assert_eq!(one.parse("[7]").unwrap(), PartitionKey::from(7));
        assert_eq!(one.parse("[-0.0]").unwrap(), PartitionKey::from(0));
        assert_eq!(one.parse("[true]").unwrap(), PartitionKey::from(true));
        assert_eq!(
            one.parse("[{}]").unwrap(),
            PartitionKey::from(PartitionKeyValue::UNDEFINED)
        );
        assert_eq!(
            paths(&["/a", "/b"]).parse(r#"["x",null]"#).unwrap(),
            PartitionKey::from(("x", PartitionKeyValue::NULL))
        );
        for wrong in ["EWR", "{}", "[]", r#"["a","b"]"#, "[[1]]", r#"[{"a":1}]"#] {
            let error = one.parse(wrong).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Rejected, "{wrong}");
        }
    }
}
