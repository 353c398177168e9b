//! Partition key values and definitions: from a header or a document to an effective partition key.
//!
//! Supported: one path with version 2 hashing (`Hash`), and one to three paths (`MultiHash`). A property that is absent
//! is *undefined*, which is a key of its own and not the same as `null`. Numbers are hashed as IEEE doubles.

use serde_json::Value;

use crate::epk::{Epk, EpkRange, hash_component};
use crate::json::Members;

/// Longest accepted key component, in bytes (service limit).
const MAX_COMPONENT_BYTES: usize = 2048;

/// One component of a partition key value.
#[derive(Clone, Debug, PartialEq)]
pub enum Component {
    /// The property is absent.
    Undefined,
    /// JSON `null`.
    Null,
    /// A boolean.
    Bool(bool),
    /// A number.
    Number(f64),
    /// A string.
    Text(String),
}

impl Component {
    fn from_json(value: Value) -> Result<Self, String> {
        Ok(match value {
            Value::Null => Self::Null,
            Value::Bool(flag) => Self::Bool(flag),
            // Zero has two forms and is one key: adding zero leaves one.
            Value::Number(number) => Self::Number(
                number
                    .as_f64()
                    .ok_or_else(|| format!("the partition key number {number} is not a double"))?
                    + 0.0,
            ),
            Value::String(text) if text.len() > MAX_COMPONENT_BYTES => {
                return Err(format!(
                    "a partition key value is longer than {MAX_COMPONENT_BYTES} bytes"
                ));
            }
            Value::String(text) => Self::Text(text),
            Value::Object(members) if members.is_empty() => Self::Undefined,
            Value::Object(_) | Value::Array(_) => {
                return Err(
                    "a partition key value must be null, a boolean, a number or a string"
                        .to_owned(),
                );
            }
        })
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Undefined => out.push(0x00),
            Self::Null => out.push(0x01),
            Self::Bool(false) => out.push(0x02),
            Self::Bool(true) => out.push(0x03),
            Self::Number(number) => {
                out.push(0x05);
                out.extend_from_slice(&number.to_le_bytes());
            }
            Self::Text(text) => {
                out.push(0x08);
                out.extend_from_slice(text.as_bytes());
                out.push(0xFF);
            }
        }
    }
}

/// Parses the partition key header, a JSON array of components; `{}` stands for undefined.
///
/// # Errors
/// One clause that says what is wrong with the value.
pub fn parse_components(header: &str) -> Result<Vec<Component>, String> {
    let values: Vec<Value> = serde_json::from_str(header).map_err(|_| {
        "the partition key header must be a JSON array such as [\"value\"]".to_owned()
    })?;
    values.into_iter().map(Component::from_json).collect()
}

/// How a container finds and hashes its partition key.
#[derive(Clone, Debug)]
pub struct PartitionKeyDefinition {
    paths: Vec<Vec<String>>,
    hierarchical: bool,
}

impl PartitionKeyDefinition {
    /// Reads the `partitionKey` property of a container.
    ///
    /// # Errors
    /// One clause that names the unsupported or malformed part.
    pub fn from_json(value: &Value) -> Result<Self, String> {
        let texts: Vec<&str> = value["paths"]
            .as_array()
            .map(|paths| paths.iter().filter_map(Value::as_str).collect())
            .unwrap_or_default();
        let kind = value["kind"].as_str().unwrap_or("Hash");
        let hierarchical = match (kind, texts.len()) {
            ("Hash", 1) => false,
            ("MultiHash", 1..=3) => true,
            ("Hash" | "MultiHash", _) => {
                return Err("partitionKey.paths must name one path for kind Hash, one to three for MultiHash".to_owned());
            }
            _ => {
                return Err(format!(
                    "partitionKey.kind {kind} is not supported by this server: use Hash or MultiHash"
                ));
            }
        };
        match &value["version"] {
            Value::Null => {}
            version if version.as_u64() == Some(2) => {}
            version => {
                return Err(format!(
                    "partitionKey.version {version} is not supported by this server: use version 2"
                ));
            }
        }
        let paths = texts
            .into_iter()
            .map(parse_path)
            .collect::<Result<_, _>>()?;
        Ok(Self {
            paths,
            hierarchical,
        })
    }

    /// How many components a full key has.
    pub fn len(&self) -> usize {
        self.paths.len()
    }

    /// The paths, each as the names of properties.
    pub fn paths(&self) -> &[Vec<String>] {
        &self.paths
    }

    /// The components that a document's members hold.
    ///
    /// # Errors
    /// One clause, if a path leads through a scalar or to an object or array.
    pub fn extract(&self, members: &Members<'_>) -> Result<Vec<Component>, String> {
        self.paths
            .iter()
            .map(|path| extract_one(path, members))
            .collect()
    }

    /// The effective partition key of `components`, which may be a prefix of a hierarchical key.
    pub fn epk(&self, components: &[Component]) -> Epk {
        let mut encoded = Vec::with_capacity(64);
        if !self.hierarchical {
            components
                .iter()
                .for_each(|component| component.encode(&mut encoded));
            return Epk::from_hashes(&hash_component(&encoded));
        }
        let mut hashes = Vec::with_capacity(components.len() * 16);
        for component in components {
            encoded.clear();
            component.encode(&mut encoded);
            hashes.extend_from_slice(&hash_component(&encoded));
        }
        Epk::from_hashes(&hashes)
    }

    /// The keys that a header value addresses: one logical partition, or a hierarchical prefix.
    ///
    /// # Errors
    /// One clause, if the number of components does not fit the container.
    pub fn range(&self, components: &[Component]) -> Result<EpkRange, String> {
        let fits =
            components.len() == self.len() || self.hierarchical && components.len() < self.len();
        if components.is_empty() || !fits {
            return Err(self.arity_error(components.len()));
        }
        Ok(EpkRange::prefix(&self.epk(components)))
    }

    /// The clause for a header with the wrong number of components.
    pub fn arity_error(&self, given: usize) -> String {
        format!(
            "the partition key header has {given} values, but the container has {} paths",
            self.len()
        )
    }
}

fn extract_one(path: &[String], members: &Members<'_>) -> Result<Component, String> {
    let Some(raw) = path.first().and_then(|name| members.find(name)) else {
        return Ok(Component::Undefined);
    };
    let mut value: Value = serde_json::from_str(raw.get())
        .map_err(|error| format!("the partition key value is not readable: {error}"))?;
    for name in &path[1..] {
        let Value::Object(mut inner) = value else {
            return Err(format!(
                "the partition key path /{} leads through a value that is no object",
                path.join("/")
            ));
        };
        match inner.remove(name) {
            Some(next) => value = next,
            None => return Ok(Component::Undefined),
        }
    }
    Component::from_json(value)
}

/// Splits `/a/"b/c"/d` into its property names.
///
/// # Errors
/// One clause that shows the path.
pub fn parse_path(text: &str) -> Result<Vec<String>, String> {
    let malformed = || format!("the path {text} is malformed: write it as /name or /outer/inner");
    let mut names = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        rest = rest.strip_prefix('/').ok_or_else(malformed)?;
        let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''));
        let name = match quote {
            Some(quote) => {
                let end = rest[1..].find(quote).ok_or_else(malformed)? + 1;
                let name = &rest[1..end];
                rest = &rest[end + 1..];
                name
            }
            None => {
                let (name, after) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
                rest = after;
                name.trim()
            }
        };
        if name.is_empty() {
            return Err(malformed());
        }
        names.push(name.to_owned());
    }
    if names.is_empty() {
        Err(malformed())
    } else {
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn definition(value: Value) -> Result<PartitionKeyDefinition, String> {
        PartitionKeyDefinition::from_json(&value)
    }

    #[test]
    fn paths_may_be_nested_and_quoted() {
        assert_eq!(parse_path("/a/b").unwrap(), ["a", "b"]);
        assert_eq!(parse_path("/\"a/b\"/c").unwrap(), ["a/b", "c"]);
        for bad in ["", "a", "/", "/a//b", "/\"a", "/\"a\"b"] {
            assert!(parse_path(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn unsupported_definitions_are_named() {
        assert!(
            definition(json!({"paths": ["/a"], "kind": "Range"}))
                .unwrap_err()
                .contains("Range")
        );
        assert!(
            definition(json!({"paths": ["/a"], "version": 1}))
                .unwrap_err()
                .contains("version 1")
        );
        assert!(definition(json!({"paths": ["/a", "/b"]})).is_err());
        assert!(definition(json!({})).is_err());
        assert!(
            definition(json!({"paths": ["/a", "/b"], "kind": "MultiHash", "version": 2})).is_ok()
        );
    }

    #[test]
    fn absent_null_and_empty_text_are_different_keys() {
        let definition = definition(json!({"paths": ["/pk"]})).unwrap();
        let epk = |document: &str| {
            let members = Members::parse(document.as_bytes()).unwrap();
            definition.epk(&definition.extract(&members).unwrap())
        };
        let keys = [
            epk("{}"),
            epk(r#"{"pk":null}"#),
            epk(r#"{"pk":""}"#),
            epk(r#"{"pk":false}"#),
            epk(r#"{"pk":0}"#),
        ];
        for (i, a) in keys.iter().enumerate() {
            assert!(keys[i + 1..].iter().all(|b| a != b));
        }
        assert_eq!(epk(r#"{"pk":1}"#), epk(r#"{"pk":1.0}"#));
        let members = Members::parse(br#"{"pk":[1]}"#).unwrap();
        assert!(definition.extract(&members).is_err());
    }

    #[test]
    fn a_prefix_of_a_hierarchical_key_covers_its_keys() {
        let definition = definition(json!({"paths": ["/a", "/b"], "kind": "MultiHash"})).unwrap();
        let components = parse_components(r#"["t", "u"]"#).unwrap();
        let range = definition.range(&components[..1]).unwrap();
        assert!(range.contains(&definition.epk(&components)));
        assert!(definition.range(&[]).is_err());
    }
}
