//! The containers of a script, and their pools of partition keys.

use std::borrow::Cow;

use azure_data_cosmos::PartitionKey;
use azure_data_cosmos::models::{
    ContainerProperties, PartitionKeyDefinition, UniqueKey, UniqueKeyPolicy,
};
use azure_data_cosmos_driver::models::PartitionKeyValue;
use serde_json::{Value, json};

use crate::Fallible;
use crate::script::Scope;

/// A container of a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Shape {
    /// One partition key path.
    Single,
    /// Three levels.
    Hierarchical,
    /// One path, and a unique key.
    Unique,
}

impl Shape {
    /// The containers of every script.
    pub const ALL: &[Self] = &[Self::Single, Self::Hierarchical, Self::Unique];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::Hierarchical => "hierarchical",
            Self::Unique => "unique",
        }
    }

    /// Its definition.
    pub fn properties(self) -> ContainerProperties {
        match self {
            Self::Single => {
                ContainerProperties::new(self.name(), PartitionKeyDefinition::from("/pk"))
            }
            Self::Hierarchical => {
                let paths = ("/tenant", "/at/user", "/kind");
                ContainerProperties::new(self.name(), PartitionKeyDefinition::from(paths))
            }
            Self::Unique => {
                let policy = UniqueKeyPolicy::default()
                    .with_unique_key(UniqueKey::default().with_path("/u"));
                ContainerProperties::new(self.name(), PartitionKeyDefinition::from("/pk"))
                    .with_unique_key_policy(policy)
            }
        }
    }

    /// Its partition keys, as the members of an item that has that key.
    pub fn keys(self) -> &'static [Key] {
        match self {
            Self::Single | Self::Unique => &SINGLE,
            Self::Hierarchical => &HIERARCHICAL,
        }
    }

    /// Whether a scope makes sense in this container.
    pub fn allows(self, scope: Scope) -> bool {
        !matches!(scope, Scope::Prefix(_)) || self == Self::Hierarchical
    }

    /// The partition key of a document in canonical text.
    pub fn key_of(self, document: &Value) -> String {
        let paths: &[&str] = match self {
            Self::Single | Self::Unique => &["/pk"],
            Self::Hierarchical => &["/tenant", "/at/user", "/kind"],
        };
        let values: Vec<String> = paths
            .iter()
            .map(|path| match document.pointer(path) {
                Some(value) => value.to_string(),
                None => "undefined".to_owned(),
            })
            .collect();
        values.join(",")
    }
}

/// A component of a partition key.
#[derive(Clone, Debug)]
pub enum Part {
    Undefined,
    Null,
    Bool(bool),
    Number(f64),
    Text(Cow<'static, str>),
}

impl Part {
    /// The value as the SDK takes it.
    pub fn to_value(&self) -> Fallible<PartitionKeyValue> {
        Ok(match self {
            Self::Undefined => PartitionKeyValue::UNDEFINED,
            Self::Null => PartitionKeyValue::NULL,
            Self::Bool(flag) => (*flag).into(),
            Self::Number(number) => (*number).try_into()?,
            Self::Text(text) => text.clone().into(),
        })
    }

    /// The value as a member of an item.
    pub fn to_json(&self) -> Option<Value> {
        match self {
            Self::Undefined => None,
            Self::Null => Some(Value::Null),
            Self::Bool(flag) => Some(json!(flag)),
            // SDKs write whole numbers without a fraction.
            Self::Number(number)
                if number.fract() == 0.0 && (1.0..1e15).contains(&number.abs()) =>
            {
                Some(json!(*number as i64))
            }
            Self::Number(number) => Some(json!(number)),
            Self::Text(text) => Some(json!(text)),
        }
    }
}

/// A partition key: its components.
pub type Key = &'static [Part];

use Part::{Bool, Null, Number, Undefined};

const fn text(text: &'static str) -> Part {
    Part::Text(Cow::Borrowed(text))
}

static SINGLE: [Key; 6] = [
    &[text("a")],
    &[text("b\u{e9} \u{1F30A}")],
    &[Number(3.5)],
    &[Bool(true)],
    &[Null],
    &[Undefined],
];

static HIERARCHICAL: [Key; 5] = [
    &[text("t1"), text("u1"), Number(1.0)],
    &[text("t1"), text("u2"), Number(1.0)],
    &[text("t1"), Null, Undefined],
    &[Number(7.0), Bool(false), text("")],
    &[Null, text("u1"), text("k")],
];

/// A key as the SDK takes it.
pub fn partition_key(parts: &[Part]) -> Fallible<PartitionKey> {
    let values = parts
        .iter()
        .map(Part::to_value)
        .collect::<Fallible<Vec<_>>>()?;
    Ok(PartitionKey::try_from(values)?)
}

/// How the canonical text of every key begins that shares the first component with a hierarchical key.
pub fn prefix_text(key: usize) -> String {
    let first = HIERARCHICAL[key][0].to_json();
    first.map_or_else(|| "undefined,".to_owned(), |value| format!("{value},"))
}

/// Writes a key's components into an item.
pub fn place(shape: Shape, parts: &[Part], item: &mut Value) {
    let member = |index: usize| parts.get(index).and_then(Part::to_json);
    match shape {
        Shape::Single | Shape::Unique => {
            if let Some(value) = member(0) {
                item["pk"] = value;
            }
        }
        Shape::Hierarchical => {
            if let Some(value) = member(0) {
                item["tenant"] = value;
            }
            if let Some(value) = member(1) {
                item["at"]["user"] = value;
            }
            if let Some(value) = member(2) {
                item["kind"] = value;
            }
        }
    }
}
