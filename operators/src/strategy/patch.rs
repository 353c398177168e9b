//! Patches: which properties of a row change which properties of a document, and the changes of one document.
//!
//! A [`PatchSpec`] is what a job says once, a [`PatchWrite`] what it comes to for one document. Steps (`Step`) are the rows of
//! a document that came and went, in order; a patch takes the place of one patch for each step:
//!
//! | operation | a row that comes | a row that goes | several steps |
//! |---|---|---|---|
//! | set | its value, if it has one | nothing | the last value |
//! | remove | removes the property, if the row lacks it | nothing | the last of set and remove |
//! | increment | adds its value | subtracts its value | the sum |
//! | add | its value, if it is another than that of the row that goes | nothing | never together: see the limits |
//!
//! # Each patch once
//!
//! Increments and adds change more each time they are carried out, and epochs are replayed after a crash. So such a patch is
//! *stamped*: it sets the document's `_epoch` to the epoch of the last step that it covers, under the condition that `_epoch` is
//! undefined or smaller. Both happen in one atomic write of the service. That this is exact follows from four facts:
//!
//! 1. The writes of a document come in the order of their epochs, each after the one before is acknowledged (I5), within a run
//!    and from run to run. An acknowledged patch is carried out, or was turned away because `_epoch` is at its epoch or beyond.
//! 2. *After any write, a document whose `_epoch` is e holds all of its steps through e, once, and none beyond.* It is so at the
//!    beginning, with no step. A patch that is turned away keeps it so. A patch over the epochs f..=l that is carried out found
//!    an `_epoch` p < l. If p < f, all steps before f are there, by rule 1 and because the steps between p and f are none; so
//!    the patch adds exactly the steps that are missing. So it is enough that p never lies in f..l.
//! 3. `_epoch` is in f..l only if an earlier write ended there. This run wrote only epochs below f. An earlier run wrote no epoch
//!    beyond its last sealed one, which is at or below `rewrite_through`. So p is never in f..l if f is beyond `rewrite_through`,
//!    or if f = l. Hence the rule: *each epoch that may have been written in part is written by itself; later ones may fold.*
//! 4. A replayed epoch has the same steps for each document as the first time: epochs are sealed with their records (I1).
//!
//! With an own condition of the job it is a little weaker: a patch that the condition turned away leaves no stamp. Its replay asks
//! again, and may be carried out if somebody else has changed the document meanwhile. Never twice all the same.
//!
//! A patch that creates a missing document goes out as a create, then the patch. The document that is created is the row with
//! the remaining steps applied, stamped with the same epoch; so of the two at most one acts.
//!
//! # Limits
//!
//! - A document has at most 10 operations in a patch, a limit of the service. A removal costs two: the service refuses to remove
//!   what is not there, so the property is set first.
//! - Adds to a list cannot be summed, so epochs never fold, and a plain stream cannot have any.
//! - Sums are exact as long as they and their parts are whole numbers of 64 bits; fractions are added as 64-bit floats.
//! - One sink alone may write `_epoch` into a document: a second one would hide changes of the first.
//! - Whoever goes back by hand, with `--fresh` or to an older commit, reads changes again in new epochs, and they are added
//!   again. If the clock was set back before a `--fresh` start, patches are turned away until it has caught up.
//! - The object in which a property is must exist in the document; the service refuses the patch otherwise.

use std::fmt;

use bytes::Bytes;
use serde_json::Value;
use tidefeed_runtime::{Error, ErrorKind, Result};

use super::Step;
use super::operation::{Condition, PatchOperation, PatchWrite, Sum};
use crate::target::{EPOCH_PROPERTY, SERVICE_PROPERTIES};

/// Most operations in a patch, a limit of the service.
const MAX_OPERATIONS: usize = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Set,
    Add,
    Increment,
    Remove,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    kind: Kind,
    /// The property of the document, as a JSON pointer.
    path: String,
    /// Where its value is in the row, as a JSON pointer.
    from: String,
}

/// Which properties of a row change which properties of a document. Paths are JSON pointers, such as `/totals/paid`.
///
/// ```
/// use tidefeed_operators::strategy::PatchSpec;
///
/// let spec = PatchSpec::new()
///     .set("/customer")
///     .increment("/orders")
///     .condition("from c where c.open = true");
/// assert!(spec.validate(false).is_ok());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PatchSpec {
    rules: Vec<Rule>,
    condition: Option<String>,
    creates_missing: bool,
}

impl PatchSpec {
    /// Changes nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a property to the row's value at the same path. A row without one changes nothing.
    pub fn set(self, path: &str) -> Self {
        self.with(Kind::Set, path, path)
    }

    /// Adds the row's value at `from` to a list of the document: `path` ends in an index, or in `/-` for the end. In an object it
    /// is a [`set`](Self::set). It is for collections only.
    pub fn add(self, path: &str, from: &str) -> Self {
        self.with(Kind::Add, path, from)
    }

    /// Adds the row's number at the same path to that of the document. For a collection it is the difference between the row
    /// that comes and the row that goes. None counts as 0.
    pub fn increment(self, path: &str) -> Self {
        self.with(Kind::Increment, path, path)
    }

    /// Removes a property when a row without it comes. It may stand beside a [`set`](Self::set) of the same path.
    pub fn remove_absent(self, path: &str) -> Self {
        self.with(Kind::Remove, path, path)
    }

    /// Only where this holds of the document before: `from c where c.open = true`, as in a query without parameters or joins.
    /// Each epoch asks by itself.
    pub fn condition(mut self, condition: &str) -> Self {
        self.condition = Some(condition.to_owned());
        self
    }

    /// Creates a document that is not there from the row. Without this it is ignored.
    pub fn create_missing(mut self) -> Self {
        self.creates_missing = true;
        self
    }

    fn with(mut self, kind: Kind, path: &str, from: &str) -> Self {
        self.rules.push(Rule {
            kind,
            path: path.to_owned(),
            from: from.to_owned(),
        });
        self
    }

    /// Whether it can be sent at all, and with a stamp if all documents are to have one.
    ///
    /// # Errors
    /// `Config` when there is no operation or more than 10, a path is malformed or not to be changed, two operations concern one
    /// property, or the condition has another form than `from c where ..`.
    pub fn validate(&self, stamp: bool) -> Result<()> {
        let wrong = |what: String| Err(Error::new(ErrorKind::Config, format!("a patch {what}")));
        let stamp = usize::from(stamp || self.is_stamped());
        match self.operations() {
            0 => return wrong("needs at least one operation".to_owned()),
            count if count + stamp > MAX_OPERATIONS => {
                let stamp = match stamp {
                    0 => "",
                    _ => " and 1 for its epoch",
                };
                return wrong(format!(
                    "may have {MAX_OPERATIONS} operations, and this one needs {count}{stamp}: leave some out (a removal counts twice)"
                ));
            }
            _ => {}
        }
        for (at, rule) in self.rules.iter().enumerate() {
            for path in [&rule.path, &rule.from] {
                if !path.starts_with('/') || path.len() == 1 {
                    return wrong(format!(
                        "has the path {path:?}: a path begins with a slash, as in \"/total\""
                    ));
                }
            }
            let first = rule.path[1..].split('/').next().unwrap_or_default();
            if rule.path == "/id" || first == EPOCH_PROPERTY || SERVICE_PROPERTIES.contains(&first)
            {
                return wrong(format!("cannot change {}", rule.path));
            }
            if let Some(other) = self.rules[..at].iter().find(|other| other.meets(rule)) {
                return wrong(format!(
                    "has two operations on one property, {} and {}",
                    other.path, rule.path
                ));
            }
        }
        self.parsed_condition().map(drop)
    }

    /// Operations of the largest patch, but for the stamp.
    fn operations(&self) -> usize {
        let removed = |rule: &&Rule| rule.kind == Kind::Remove;
        let removals = self.rules.iter().filter(removed);
        let replaced = |removal: &&Rule| {
            let set = |rule: &Rule| rule.kind == Kind::Set && rule.path == removal.path;
            self.rules.iter().any(set)
        };
        let (removals, replaced) = (removals.clone().count(), removals.filter(replaced).count());
        self.rules.len() + removals - replaced
    }

    /// Whether what it writes depends on the document before, so that it must not be carried out twice.
    pub(crate) fn is_stamped(&self) -> bool {
        self.creates_missing || self.adds() || self.rules.iter().any(|r| r.kind == Kind::Increment)
    }

    /// Whether it has an operation that lists cannot sum up.
    pub(crate) fn adds(&self) -> bool {
        self.rules.iter().any(|rule| rule.kind == Kind::Add)
    }

    /// Whether the epochs of one document must not share a patch, however late they are.
    pub(crate) fn is_epoch_by_epoch(&self) -> bool {
        self.adds() || self.condition.is_some()
    }

    fn parsed_condition(&self) -> Result<Option<Condition>> {
        let Some(text) = &self.condition else {
            return Ok(None);
        };
        let parse = || {
            let (from, rest) = text.trim().split_once(char::is_whitespace)?;
            let (alias, rest) = rest.trim_start().split_once(char::is_whitespace)?;
            let (r#where, expression) = rest.trim_start().split_once(char::is_whitespace)?;
            let keywords =
                from.eq_ignore_ascii_case("from") && r#where.eq_ignore_ascii_case("where");
            let named = alias.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
                && alias.starts_with(|c: char| c.is_ascii_alphabetic());
            (keywords && named && !expression.trim().is_empty()).then(|| Condition {
                alias: alias.to_owned(),
                expression: expression.trim().to_owned(),
            })
        };
        parse().map(Some).ok_or_else(|| {
            Error::new(
                ErrorKind::Config,
                format!("the condition of a patch is {text:?}: write it as \"from c where c.open = true\""),
            )
        })
    }

    /// What the steps of one document come to; `None` if they change nothing. It is stamped if `stamp` or what it does asks for it.
    ///
    /// # Errors
    /// `Data` when a number to add is none, or a sum is too large.
    pub(crate) fn write(
        &self,
        steps: &[Step<'_>],
        epoch: u64,
        stamp: bool,
    ) -> Result<Option<PatchWrite>> {
        let rows = steps.iter().map(Rows::of).collect::<Result<Vec<_>>>()?;
        let operations = self.combined(&rows)?;
        let create = match rows.iter().position(|rows| rows.come.is_some()) {
            Some(first) if self.creates_missing => Some(self.created(&rows[first..], epoch)?),
            _ => None,
        };
        if operations.is_empty() && create.is_none() {
            return Ok(None);
        }
        Ok(Some(PatchWrite {
            operations,
            condition: self.parsed_condition()?,
            epoch: (stamp || self.is_stamped()).then_some(epoch),
            create,
        }))
    }

    fn combined(&self, rows: &[Rows]) -> Result<Vec<PatchOperation>> {
        let mut operations: Vec<PatchOperation> = Vec::new();
        for rule in &self.rules {
            let Some(operation) = rule.operation(rows)? else {
                continue;
            };
            operations.push(operation);
        }
        // Of a set and a remove of one path the last event counts: only the one that the last row asks for stays.
        let removed: Vec<String> = operations.iter().filter_map(removed_path).collect();
        operations.retain(|operation| match operation {
            PatchOperation::Set { path, .. } if removed.contains(path) => {
                !self.lacks_at_last(path, rows)
            }
            PatchOperation::Remove { path } if self.sets(path) => self.lacks_at_last(path, rows),
            _ => true,
        });
        Ok(operations)
    }

    fn sets(&self, path: &str) -> bool {
        let set = |rule: &Rule| rule.kind == Kind::Set && rule.path == path;
        self.rules.iter().any(set)
    }

    fn lacks_at_last(&self, path: &str, rows: &[Rows]) -> bool {
        let last = rows.iter().rev().find_map(|rows| rows.come.as_ref());
        last.is_some_and(|row| row.pointer(path).is_none())
    }

    /// The document that stands in for one that is not there: the first row, and the later steps applied to it.
    fn created(&self, rows: &[Rows], epoch: u64) -> Result<Bytes> {
        let mut document = rows[0].come.clone().unwrap_or_default();
        for operation in self.combined(&rows[1..])? {
            operation.apply(&mut document).map_err(|what| {
                Error::new(
                    ErrorKind::Data,
                    format!("a patch of a new document: {what}"),
                )
            })?;
        }
        document[EPOCH_PROPERTY] = Value::from(epoch);
        Ok(document.to_string().into())
    }
}

/// In words that tell it from any other.
impl fmt::Display for PatchSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rules = f.debug_list();
        for Rule { kind, path, from } in &self.rules {
            match path == from {
                true => rules.entry(&format_args!("{kind:?} {path}")),
                false => rules.entry(&format_args!("{kind:?} {path} from {from}")),
            };
        }
        rules.finish()?;
        if let Some(condition) = &self.condition {
            write!(f, " if {condition:?}")?;
        }
        match self.creates_missing {
            true => f.write_str(", or create"),
            false => Ok(()),
        }
    }
}

/// The rows of a step, read.
struct Rows {
    gone: Option<Value>,
    come: Option<Value>,
}

impl Rows {
    fn of(step: &Step<'_>) -> Result<Self> {
        let read = |body: Option<&[u8]>| {
            let value = body.map(serde_json::from_slice).transpose();
            value
                .map_err(|error| Error::new(ErrorKind::Data, "a row is no JSON").with_source(error))
        };
        Ok(Rows {
            gone: read(step.gone)?,
            come: read(step.come)?,
        })
    }
}

fn removed_path(operation: &PatchOperation) -> Option<String> {
    match operation {
        PatchOperation::Remove { path } => Some(path.clone()),
        _ => None,
    }
}

impl Rule {
    /// Whether both change one property, or one changes what the other's is part of. A removal may stand beside a set.
    fn meets(&self, other: &Rule) -> bool {
        let within = |inner: &str, outer: &str| {
            let rest = inner.strip_prefix(outer);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let pair = [self.kind, other.kind];
        let allowed = self.path == other.path
            && (pair == [Kind::Set, Kind::Remove] || pair == [Kind::Remove, Kind::Set]);
        !allowed && (within(&self.path, &other.path) || within(&other.path, &self.path))
    }

    fn operation(&self, rows: &[Rows]) -> Result<Option<PatchOperation>> {
        let path = self.path.clone();
        let value_of = |row: &Option<Value>| {
            row.as_ref()
                .and_then(|row| row.pointer(&self.from))
                .cloned()
        };
        Ok(match self.kind {
            Kind::Set => {
                let value = rows.iter().rev().find_map(|rows| value_of(&rows.come));
                value.map(|value| PatchOperation::Set { path, value })
            }
            Kind::Add => {
                let new = |rows: &Rows| {
                    value_of(&rows.come)
                        .filter(|value| value_of(&rows.gone).as_ref() != Some(value))
                };
                let value = rows.iter().rev().find_map(new);
                value.map(|value| PatchOperation::Add { path, value })
            }
            Kind::Remove => {
                let lacks = |rows: &Rows| {
                    let row = rows.come.as_ref();
                    row.is_some_and(|row| row.pointer(&self.from).is_none())
                };
                rows.iter()
                    .any(lacks)
                    .then_some(PatchOperation::Remove { path })
            }
            Kind::Increment => {
                let mut sum = Sum::default();
                for rows in rows {
                    sum.add(self.number(&rows.come)?, 1);
                    sum.add(self.number(&rows.gone)?, -1);
                }
                let by = sum
                    .value()
                    .ok_or_else(|| self.wrong("the sum is too large"))?;
                by.map(|by| PatchOperation::Increment { path, by })
            }
        })
    }

    fn number<'a>(&self, row: &'a Option<Value>) -> Result<Option<&'a Value>> {
        match row.as_ref().and_then(|row| row.pointer(&self.from)) {
            None | Some(Value::Null) => Ok(None),
            Some(value) if value.is_number() => Ok(Some(value)),
            Some(_) => Err(self.wrong("the row has no number there")),
        }
    }

    fn wrong(&self, what: &str) -> Error {
        Error::new(
            ErrorKind::Data,
            format!("an increment of {}: {what}", self.path),
        )
    }
}
