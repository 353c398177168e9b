//! What of a document is indexed, and what that costs its writes. All of it pure.
//!
//! A write pays for each indexed value of its document, in request units and in time, also for those that no query ever
//! asks for; and a container indexes everything unless it is told otherwise. The service's documentation says so
//! ("Request Units in Azure Cosmos DB": with the default policy the charge of a write grows with the number of properties;
//! "Indexing policies in Azure Cosmos DB": fewer indexed paths make writes faster). Views are often read by key alone.
//! So [`advice`] looks at a container that indexes everything and at one of its documents, and says when there is much to
//! save.
//!
//! Of two paths that hold a value, the more precise one decides whether it is indexed; that is the service's rule.
//!
//! Limits: composite, spatial, vector and full-text indexes are left as they are, and neither compared nor counted.

use std::collections::BTreeSet;
use std::fmt;

use azure_data_cosmos::models::{IndexingMode, IndexingPolicy, PropertyPath};
use serde::Deserialize;
use serde_json::Value;
use tidefeed_runtime::{Error, ErrorKind, Result};

use super::partition_key::segments;
use crate::target::SERVICE_PROPERTIES;

/// What of a document is indexed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Indexing {
    /// Nothing, and there is no index: documents are found by key alone and cannot expire.
    None,
    /// Values at the paths included, without those excluded. `/a/b/?` is one value, `/a/*` is everything below, `/a/[]/b/?`
    /// goes through an array, and of two paths that fit the more precise one counts. One of the two lists must have `/*`.
    Paths {
        /// Paths of what is indexed.
        #[serde(default)]
        included: Vec<String>,
        /// Paths of what is not.
        #[serde(default)]
        excluded: Vec<String>,
    },
}

/// Everything.
const ROOT: &str = "/*";
/// What the service excludes by itself.
const ETAG: &str = "/\"_etag\"/?";

/// Indexed paths of a document from which on [`advice`] speaks up; a guess. The service's price examples are for documents with
/// fewer than five.
const MANY_PATHS: usize = 10;
/// Paths that the advice names.
const NAMED_PATHS: usize = 3;

impl Indexing {
    /// # Errors
    /// [`ErrorKind::Config`] when a path is malformed or named twice, or `/*` is in neither list.
    pub(crate) fn validate(&self) -> Result<()> {
        let wrong = |why: String| Err(Error::new(ErrorKind::Config, format!("indexing {why}")));
        let Indexing::Paths { included, excluded } = self else {
            return Ok(());
        };
        let mut seen = BTreeSet::new();
        for path in included.iter().chain(excluded) {
            if Rule::parse(path).is_none() {
                return wrong(format!(
                    "path {path:?} is malformed: it must end with /? for one value or /* for all below, as in /name/?"
                ));
            }
            if !seen.insert(path) {
                return wrong(format!(
                    "names the path {path} twice: include or exclude it"
                ));
            }
        }
        if !seen.contains(&ROOT.to_owned()) {
            return wrong("has \"/*\" in neither list: include or exclude it".to_owned());
        }
        Ok(())
    }

    pub(crate) fn policy(&self) -> IndexingPolicy {
        let mut policy = IndexingPolicy::default();
        match self {
            Indexing::None => policy.indexing_mode = Some(IndexingMode::None),
            Indexing::Paths { included, excluded } => {
                policy.indexing_mode = Some(IndexingMode::Consistent);
                // Without it nothing would be indexed that does not ask for it.
                policy.automatic = true;
                policy.included_paths = included.iter().map(PropertyPath::from).collect();
                policy.excluded_paths = excluded.iter().map(PropertyPath::from).collect();
            }
        }
        policy
    }

    /// The container's own policy in these terms, without what the service adds to each.
    pub(crate) fn of(policy: &IndexingPolicy) -> Indexing {
        if policy.indexing_mode == Some(IndexingMode::None) {
            return Indexing::None;
        }
        let paths = |paths: &[PropertyPath]| {
            let paths = paths.iter().map(|path| path.path.clone());
            paths.filter(|path| path != ETAG).collect()
        };
        Indexing::Paths {
            included: paths(&policy.included_paths),
            excluded: paths(&policy.excluded_paths),
        }
    }

    /// Whether `policy` is this, in whatever order it names its paths.
    pub(crate) fn is_in(&self, policy: &IndexingPolicy) -> bool {
        let sorted = |indexing: &Indexing| match indexing {
            Indexing::None => None,
            Indexing::Paths { included, excluded } => {
                let set = |paths: &[String]| {
                    let paths = paths.iter().filter(|path| *path != ETAG);
                    paths.cloned().collect::<BTreeSet<_>>()
                };
                Some((set(included), set(excluded)))
            }
        };
        sorted(self) == sorted(&Indexing::of(policy))
    }
}

impl fmt::Display for Indexing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Indexing::None => f.write_str("none"),
            Indexing::Paths { included, excluded } => write!(
                f,
                "[{}] without [{}]",
                included.join(", "),
                excluded.join(", ")
            ),
        }
    }
}

/// A path of a policy: the values that it holds.
#[derive(Clone, Debug)]
struct Rule {
    segments: Vec<String>,
    /// All below, and not one value.
    below: bool,
}

impl Rule {
    /// `None` if the path is malformed.
    fn parse(path: &str) -> Option<Rule> {
        let (at, below) = match path.strip_suffix("/?") {
            Some(at) => (at, false),
            None => (path.strip_suffix("/*")?, true),
        };
        let segments = match at {
            "" if below => Vec::new(),
            at => segments(at).ok()?,
        };
        Some(Rule { segments, below })
    }

    fn holds(&self, value: &[String]) -> bool {
        match self.below {
            true => value.starts_with(&self.segments),
            false => value == self.segments,
        }
    }

    fn precision(&self) -> (usize, bool) {
        (self.segments.len(), !self.below)
    }
}

/// A hint when writing documents like `sample` costs much more than it would have to: the container indexes everything, which
/// nobody asked for, and the document has many values. `None` when there is nothing to say.
pub(crate) fn advice(policy: &IndexingPolicy, sample: &Value) -> Option<String> {
    let Indexing::Paths { included, excluded } = Indexing::of(policy) else {
        return None;
    };
    if !included.iter().any(|path| path == ROOT) {
        return None;
    }
    let rules = |paths: &[String]| -> Vec<Rule> {
        paths.iter().filter_map(|path| Rule::parse(path)).collect()
    };
    let (included, excluded) = (rules(&included), rules(&excluded));
    let best = |rules: &[Rule], value: &[String]| {
        let holding = rules.iter().filter(|rule| rule.holds(value));
        holding.map(Rule::precision).max()
    };
    let indexed: Vec<Vec<String>> = values_of(sample)
        .into_iter()
        .filter(|value| best(&included, value) > best(&excluded, value))
        .collect();
    if indexed.len() <= MANY_PATHS {
        return None;
    }
    let named: Vec<String> = indexed
        .iter()
        .take(NAMED_PATHS)
        .map(|path| text(path))
        .collect();
    Some(format!(
        "every write pays for {} indexed paths, {} and others: a policy that includes only what queries ask for, and excludes \
         /*, makes writes cheaper",
        indexed.len(),
        named.join(", ")
    ))
}

fn text(path: &[String]) -> String {
    format!("/{}/?", path.join("/"))
}

/// The paths at which the document has values, without those that are indexed whatever the policy says.
fn values_of(document: &Value) -> BTreeSet<Vec<String>> {
    let mut found = BTreeSet::new();
    let Value::Object(members) = document else {
        return found;
    };
    for (name, value) in members {
        if name != "id" && !SERVICE_PROPERTIES.contains(&name.as_str()) {
            collect(value, &mut vec![name.clone()], &mut found);
        }
    }
    found
}

fn collect(value: &Value, path: &mut Vec<String>, found: &mut BTreeSet<Vec<String>>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                path.push(name.clone());
                collect(value, path, found);
                path.pop();
            }
        }
        // The elements of an array share their paths.
        Value::Array(elements) => {
            path.push("[]".to_owned());
            elements
                .iter()
                .for_each(|value| collect(value, path, found));
            path.pop();
        }
        _ => drop(found.insert(path.clone())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn paths(included: &[&str], excluded: &[&str]) -> Indexing {
        let owned = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect();
        Indexing::Paths {
            included: owned(included),
            excluded: owned(excluded),
        }
    }

    /// As the service gives it to a container that asked for nothing.
    fn default_policy() -> IndexingPolicy {
        paths(&["/*"], &[ETAG]).policy()
    }

    fn wide(values: usize) -> Value {
        let members = (0..values).map(|n| (format!("field{n:02}"), json!(n)));
        let mut document: Value = members.collect::<serde_json::Map<_, _>>().into();
        document["id"] = json!("a");
        document["_ts"] = json!(1);
        document
    }

    #[test]
    fn malformed_policies_are_refused_with_what_to_do() {
        for (indexing, says) in [
            (paths(&["/a/?"], &[]), "has \"/*\" in neither list"),
            (paths(&[], &[]), "has \"/*\" in neither list"),
            (paths(&["/*"], &["/*"]), "names the path /* twice"),
            (paths(&["/*"], &["a/?"]), "path \"a/?\" is malformed"),
            (paths(&["/*"], &["/a"]), "path \"/a\" is malformed"),
            (paths(&["/*"], &["/?"]), "path \"/?\" is malformed"),
            (
                paths(&["/*"], &["/a//b/?"]),
                "path \"/a//b/?\" is malformed",
            ),
        ] {
            let error = indexing.validate().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.report().contains(says), "{}", error.report());
        }
        for sound in [
            Indexing::None,
            paths(&["/*"], &[]),
            paths(&["/a/\"b/c\"/?", "/d/[]/e/*"], &["/*"]),
        ] {
            sound.validate().unwrap();
        }
    }

    #[test]
    fn a_policy_is_recognised_whatever_the_service_adds_and_its_order() {
        let asked = paths(&["/a/?", "/b/*"], &["/*"]);
        let mut policy = asked.policy();
        assert!(policy.automatic && asked.is_in(&policy));
        policy.included_paths.reverse();
        policy.excluded_paths.push(PropertyPath::from(ETAG));
        assert!(asked.is_in(&policy));
        assert!(!asked.is_in(&default_policy()));
        assert!(!Indexing::None.is_in(&policy));
        assert!(Indexing::None.is_in(&Indexing::None.policy()));
        assert!(!Indexing::None.policy().automatic);
    }

    #[test]
    fn advice_counts_what_is_indexed() {
        let hint = advice(&default_policy(), &wide(MANY_PATHS + 1)).unwrap();
        assert!(
            hint.contains("11 indexed paths, /field00/?, /field01/?, /field02/? and"),
            "{hint}"
        );
        assert_eq!(advice(&default_policy(), &wide(MANY_PATHS)), None);
        // Somebody has chosen these.
        let chosen = paths(&["/field00/?"], &["/*"]).policy();
        assert_eq!(advice(&chosen, &wide(100)), None);
        assert_eq!(advice(&Indexing::None.policy(), &wide(100)), None);
        assert_eq!(advice(&default_policy(), &json!([1])), None);
    }

    #[test]
    fn elements_of_an_array_share_a_path_and_the_more_precise_path_counts() {
        let mut document = json!({"list": [{"x": 1, "y": 2}, {"x": 3}], "none": {}, "id": "a"});
        for n in 0..MANY_PATHS {
            document["deep"][format!("f{n}")] = json!(null);
        }
        let hint = advice(&default_policy(), &document).unwrap();
        assert!(hint.contains("12 indexed paths"), "{hint}");
        let without = paths(&["/*", "/deep/f0/?", "/deep/f1/?"], &["/deep/*"]);
        assert_eq!(advice(&without.policy(), &document), None);
        let one_less = paths(&["/*"], &["/list/[]/x/?"]);
        let hint = advice(&one_less.policy(), &document).unwrap();
        assert!(hint.contains("11 indexed paths"), "{hint}");
    }
}
