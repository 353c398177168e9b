//! Effective partition keys: where the service's hash puts a document among a container's physical partitions.
//!
//! The hash is the SDK's. It takes any number of values and says nothing when they are too few, so their number is checked
//! here first; and it tells -0 from 0, which the service does not.

use azure_data_cosmos::feed::FeedRange;
use azure_data_cosmos::models::PartitionKeyDefinition;
use tidefeed_runtime::{Error, ErrorKind, Result};

use super::routing::RoutingKey;
use crate::cosmos::partition_key::PartitionKeyPaths;

/// Finds the effective partition keys of one container.
#[derive(Clone, Debug)]
pub(crate) struct Hasher {
    definition: PartitionKeyDefinition,
    paths: PartitionKeyPaths,
}

impl Hasher {
    /// For a container whose partition key is defined like this.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when a path is malformed.
    pub(crate) fn new(definition: PartitionKeyDefinition) -> Result<Self> {
        let paths = definition.paths().iter().map(|path| path.to_string());
        Ok(Hasher {
            paths: PartitionKeyPaths::new(paths.collect())?,
            definition,
        })
    }

    /// The effective partition key of a full key, a JSON array such as `["EWR"]`.
    ///
    /// # Errors
    /// [`ErrorKind::Rejected`] when it is no array of scalars, or has more or fewer values than the container has paths.
    pub(crate) fn routing_key(&self, partition_key: &str) -> Result<RoutingKey> {
        let values = self.paths.parse(partition_key)?;
        let point = FeedRange::for_partition(values, &self.definition);
        let hex = point.min_inclusive().to_hex();
        RoutingKey::from_hex(&hex).ok_or_else(|| {
            let what = format!("the SDK's effective partition key {hex:?} is no hexadecimal text");
            Error::new(ErrorKind::Internal, what)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hasher(paths: &'static [&'static str]) -> Hasher {
        let paths = paths.iter().map(|&path| path.into()).collect::<Vec<_>>();
        Hasher::new(PartitionKeyDefinition::new(paths)).unwrap()
    }

    #[test]
    fn keys_that_the_service_takes_for_one_are_one() {
        let one = hasher(&["/a"]);
        let key = |text| one.routing_key(text).unwrap();
        for zero in ["[-0]", "[-0.0]", "[0.0]", "[-0e5]"] {
            assert_eq!(key(zero), key("[0]"), "{zero}");
        }
        assert_eq!(key("[2]"), key("[2.0]"));
        let different = [
            "[0]", "[1]", "[\"0\"]", "[null]", "[{}]", "[true]", "[false]", "[\"\"]",
        ];
        for (at, a) in different.iter().enumerate() {
            for b in &different[at + 1..] {
                assert_ne!(key(a), key(b), "{a} {b}");
            }
        }
        let two = hasher(&["/a", "/b"]);
        let key = |text| two.routing_key(text).unwrap();
        assert_eq!(key("[-0,\"x\"]"), key("[0,\"x\"]"));
        assert_ne!(key("[0,\"x\"]"), key("[\"x\",0]"));
    }

    #[test]
    fn another_number_of_values_is_refused() {
        let two = hasher(&["/a", "/b"]);
        for wrong in ["[]", "[1]", "[1,2,3]", "1", "[[1],2]", "[1,2"] {
            let error = two.routing_key(wrong).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Rejected, "{wrong}");
        }
    }

    #[test]
    fn a_malformed_path_is_refused() {
        let definition = PartitionKeyDefinition::new(vec!["a".into()]);
        assert_eq!(
            Hasher::new(definition).unwrap_err().kind(),
            ErrorKind::Config
        );
    }
}
