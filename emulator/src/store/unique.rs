//! Unique keys: values that no two documents of a logical partition may share.
//!
//! A constraint is a list of paths; a document's value for it is the list of what is at those paths, `null` where
//! nothing is. Values are kept as 128-bit hashes that include the logical partition.

use std::collections::HashMap;

use serde_json::Value;
use xxhash_rust::xxh3::Xxh3;

use crate::epk::Epk;
use crate::partition_key::parse_path;

/// The constraints of a container.
#[derive(Clone, Debug, Default)]
pub struct UniqueKeys(Vec<Vec<Vec<String>>>);

/// Most constraints of a container, and most paths of a constraint (service limits).
const MAX_CONSTRAINTS: usize = 10;
const MAX_PATHS: usize = 16;

impl UniqueKeys {
    /// Reads the `uniqueKeyPolicy` property of a container.
    ///
    /// # Errors
    /// One clause that names what is wrong.
    pub fn from_json(policy: &Value) -> Result<Self, String> {
        let malformed = || {
            "uniqueKeyPolicy.uniqueKeys must be a list of objects with a list of paths".to_owned()
        };
        let constraints = match &policy["uniqueKeys"] {
            Value::Null => return Ok(Self::default()),
            keys => keys.as_array().ok_or_else(malformed)?,
        };
        if constraints.len() > MAX_CONSTRAINTS {
            return Err(format!(
                "a container has at most {MAX_CONSTRAINTS} unique keys"
            ));
        }
        let constraint = |key: &Value| {
            let paths = key["paths"].as_array().ok_or_else(malformed)?;
            if paths.is_empty() || paths.len() > MAX_PATHS {
                return Err(format!("a unique key has 1 to {MAX_PATHS} paths"));
            }
            paths
                .iter()
                .map(|path| parse_path(path.as_str().ok_or_else(malformed)?))
                .collect()
        };
        constraints
            .iter()
            .map(constraint)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Whether there are no constraints.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The hashes of a document's values.
    pub fn hashes(&self, epk: &Epk, document: &Value) -> Box<[u128]> {
        let hash = |(index, paths): (usize, &Vec<Vec<String>>)| {
            let mut hasher = Xxh3::new();
            hasher.update(&epk.to_bytes());
            hasher.update(&[index as u8]);
            for path in paths {
                let value = path
                    .iter()
                    .try_fold(document, |value, name| value.get(name))
                    .unwrap_or(&Value::Null);
                // A number is the same value however it is written.
                let text = match value.as_f64() {
                    Some(number) => number.to_string(),
                    None => value.to_string(),
                };
                hasher.update(&(text.len() as u64).to_le_bytes());
                hasher.update(text.as_bytes());
            }
            hasher.digest128()
        };
        self.0.iter().enumerate().map(hash).collect()
    }
}

/// Which slot holds which value.
#[derive(Debug, Default)]
pub struct UniqueIndex {
    owners: HashMap<u128, u32>,
    claims: HashMap<u32, Box<[u128]>>,
}

impl UniqueIndex {
    /// The slot that holds a value.
    pub fn owner(&self, hash: u128) -> Option<u32> {
        self.owners.get(&hash).copied()
    }

    /// Gives a slot its values; those it had are free again.
    pub fn claim(&mut self, slot: u32, hashes: Box<[u128]>) {
        self.release(slot);
        if !hashes.is_empty() {
            self.owners.extend(hashes.iter().map(|hash| (*hash, slot)));
            self.claims.insert(slot, hashes);
        }
    }

    /// Frees the values of a slot and returns them.
    pub fn release(&mut self, slot: u32) -> Box<[u128]> {
        let hashes = self.claims.remove(&slot).unwrap_or_default();
        for hash in &hashes {
            self.owners.remove(hash);
        }
        hashes
    }

    /// Bytes held, about.
    pub fn footprint(&self) -> usize {
        self.owners.capacity() * 24 + self.claims.capacity() * 24 + self.owners.len() * 16
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_compared_per_constraint_and_logical_partition() {
        let keys = UniqueKeys::from_json(
            &json!({"uniqueKeys": [{"paths": ["/a", "/b/c"]}, {"paths": ["/d"]}]}),
        )
        .unwrap();
        let (here, there) = (Epk::from_hashes(&[1; 16]), Epk::from_hashes(&[2; 16]));
        let of = |epk: &Epk, document: Value| keys.hashes(epk, &document);
        let first = of(&here, json!({"a": 1, "b": {"c": "x"}, "d": null}));
        assert_eq!(
            first,
            of(&here, json!({"a": 1.0, "b": {"c": "x"}})),
            "absent is null"
        );
        assert_ne!(first[0], of(&here, json!({"a": "1", "b": {"c": "x"}}))[0]);
        assert_ne!(first[0], of(&there, json!({"a": 1, "b": {"c": "x"}}))[0]);
        assert_eq!(first[1], of(&here, json!({"a": 2}))[1]);
    }

    #[test]
    fn malformed_policies_are_refused() {
        assert!(UniqueKeys::from_json(&json!({})).unwrap().is_empty());
        for bad in [
            json!({"uniqueKeys": 1}),
            json!({"uniqueKeys": [{}]}),
            json!({"uniqueKeys": [{"paths": []}]}),
            json!({"uniqueKeys": [{"paths": ["a"]}]}),
        ] {
            assert!(UniqueKeys::from_json(&bad).is_err(), "{bad}");
        }
    }
}
