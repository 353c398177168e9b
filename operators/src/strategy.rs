//! What a sink does with the rows that come and go.
//!
//! The *steps* of a document are its rows that came and went, one step for each epoch of a collection and one for each record of
//! a plain stream, in order. A strategy makes at most one write of the steps of one or several epochs, and that write takes
//! the place of one write for each step:
//!
//! | strategy | a step without a row that comes | a row that comes | several steps |
//! |---|---|---|---|
//! | upsert | delete | upsert | the last step; nothing, if it restores what was there |
//! | insert | nothing | create, if a new row; ignored where a document is | the first new row |
//! | replace | nothing | replace; ignored where none is | the last row |
//! | patch | increments are subtracted | see [`patch`] | sets: the last; increments: the sum |
//! | delete | nothing | delete | once |
//! | overwrite if not modified | nothing | replace if the document has the row's `_etag`, else ignored; without `_etag`: create | the first row decides; epochs never together |
//! | delete if not modified | nothing | delete if the document has the row's `_etag`, else ignored; without `_etag`: delete | the first row decides; epochs never together |
//!
//! So the outcome does not depend on how epochs are folded, which follows from the speed of the target. Two strategies cannot
//! fold at all: which of two etags is the document's is for the container to say.
//!
//! Nothing but a patch with increments or adds does harm when it is repeated, so replaying epochs after a crash ends the same:
//! the later epochs are written again, too. What keeps those patches exact is in [`patch`].
//!
//! Only an upsert of a collection makes the container equal to a view. With the others the container has documents of its own,
//! so it need not be empty at the start, and cannot be brought in line with a view.

mod operation;
pub mod patch;
#[cfg(test)]
mod tests;

pub use operation::{Condition, PatchOperation, PatchWrite};
pub use patch::PatchSpec;

use std::fmt;

use bytes::Bytes;
use tidefeed_runtime::{Epoch, Error, ErrorKind, Result};

use crate::properties::{string_property, without_properties};
use crate::target::{DocumentAction, EPOCH_PROPERTY};

/// How rows become writes. The module says what each does with rows that come and go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// Write each row; delete the documents of rows that go.
    #[default]
    Upsert,
    /// Create the documents of new rows, and leave those that are there.
    Insert,
    /// Replace documents that are there.
    Replace,
    /// Change properties of documents.
    Patch(PatchSpec),
    /// Delete the documents that rows name.
    Delete,
    /// Replace documents that still have the `_etag` of their row.
    OverwriteIfNotModified,
    /// Delete documents that still have the `_etag` of their row.
    DeleteIfNotModified,
}

impl Strategy {
    /// Its name.
    pub fn name(&self) -> &'static str {
        match self {
            Strategy::Upsert => "upsert",
            Strategy::Insert => "insert",
            Strategy::Replace => "replace",
            Strategy::Patch(_) => "patch",
            Strategy::Delete => "delete",
            Strategy::OverwriteIfNotModified => "overwrite if not modified",
            Strategy::DeleteIfNotModified => "delete if not modified",
        }
    }

    /// Whether it reads `_etag` in the rows.
    pub fn reads_etag(&self) -> bool {
        matches!(
            self,
            Strategy::OverwriteIfNotModified | Strategy::DeleteIfNotModified
        )
    }
}

/// What a sink's rows are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RowKind {
    /// A collection: rows come and go, and there is at most one for each document.
    #[default]
    Collection,
    /// A plain stream: records only come, any number for each document.
    Stream,
}

/// How a sink makes writes of its rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteRule {
    /// The strategy.
    pub strategy: Strategy,
    /// What the rows are.
    pub rows: RowKind,
    /// Whether each document that is written says of which epoch it is, in `_epoch`.
    pub stamp_epoch: bool,
}

/// The strategy in words that tell it from any other, for a fingerprint.
impl fmt::Display for WriteRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.rows == RowKind::Stream {
            f.write_str("stream, ")?;
        }
        f.write_str(self.strategy.name())?;
        match &self.strategy {
            Strategy::Patch(spec) => write!(f, " {spec}"),
            _ => Ok(()),
        }
    }
}

/// A document's row that went and the one that came, in one epoch, as JSON. Not both are `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step<'a> {
    /// When.
    pub epoch: u64,
    /// The row that went.
    pub gone: Option<&'a [u8]>,
    /// The row that came.
    pub come: Option<&'a [u8]>,
}

impl WriteRule {
    /// Whether a job can start with it.
    ///
    /// # Errors
    /// `Config` when a patch cannot be sent, or would not be exact.
    pub fn validate(&self) -> Result<()> {
        let Strategy::Patch(spec) = &self.strategy else {
            return Ok(());
        };
        if self.rows == RowKind::Stream && spec.adds() {
            return Err(Error::new(
                ErrorKind::Config,
                "a patch of a plain stream cannot add: several records of a document would be one operation; write a \
                 collection, or set the whole list",
            ));
        }
        spec.validate(self.stamp_epoch)
    }

    /// Whether it tells by `_epoch` in a document what it has written there.
    pub fn relies_on_stamp(&self) -> bool {
        matches!(&self.strategy, Strategy::Patch(spec) if spec.is_stamped())
    }

    /// Whether the container is to be equal to a view, so that it can be compared and brought in line with it.
    pub fn keeps_view(&self) -> bool {
        self.strategy == Strategy::Upsert && self.rows == RowKind::Collection
    }

    /// Which of `epochs`, all complete and in order, may be written at once: those before the returned one, or all for `None`.
    /// Epochs through `rewrite_through` may have been written in part by an earlier run.
    pub fn fold_before(
        &self,
        epochs: impl IntoIterator<Item = u64>,
        rewrite_through: Epoch,
    ) -> Option<u64> {
        let mut epochs = epochs.into_iter();
        let first = epochs.next()?;
        let alone = match &self.strategy {
            Strategy::OverwriteIfNotModified | Strategy::DeleteIfNotModified => true,
            Strategy::Patch(spec) => spec.is_epoch_by_epoch() || first <= rewrite_through.0,
            _ => false,
        };
        epochs.next().filter(|_| alone)
    }

    /// The write that takes the place of one for each step of a document; `None` if nothing is to be written. `steps` are in
    /// order, and at least one.
    ///
    /// # Errors
    /// `Data` when a row does not have what a patch needs.
    pub fn write(
        &self,
        steps: &[Step<'_>],
        rewrite_through: Epoch,
    ) -> Result<Option<DocumentAction>> {
        let come = |step: &&Step<'_>| step.come.is_some();
        let first_row = || steps.iter().find(come);
        let last_row = || steps.iter().rev().find(come);
        Ok(match &self.strategy {
            Strategy::Upsert => self.upsert(steps, rewrite_through),
            Strategy::Insert => {
                let new = |step: &&Step<'_>| step.gone.is_none();
                let row = steps.iter().find(new).and_then(|step| self.body(step));
                row.map(DocumentAction::Create)
            }
            Strategy::Replace => {
                last_row()
                    .and_then(|step| self.body(step))
                    .map(|body| DocumentAction::Replace {
                        body,
                        if_match: None,
                    })
            }
            Strategy::Patch(spec) => {
                let epoch = steps.last().map_or(0, |step| step.epoch);
                let patch = spec.write(steps, epoch, self.stamp_epoch)?;
                patch.map(|patch| DocumentAction::Patch(Box::new(patch)))
            }
            Strategy::Delete => first_row().map(|_| DocumentAction::Delete { if_match: None }),
            Strategy::OverwriteIfNotModified => first_row().and_then(|step| {
                let body = self.body(step)?;
                Some(match etag(step)? {
                    None => DocumentAction::Create(body),
                    if_match => DocumentAction::Replace { body, if_match },
                })
            }),
            Strategy::DeleteIfNotModified => first_row().and_then(|step| {
                Some(DocumentAction::Delete {
                    if_match: etag(step)?,
                })
            }),
        })
    }

    /// Epochs that an earlier run may have written in part may have left in the container what the steps take back. So such a
    /// document is written even if it is as before.
    fn upsert(&self, steps: &[Step<'_>], rewrite_through: Epoch) -> Option<DocumentAction> {
        let (first, last) = (steps.first()?, steps.last()?);
        let rewrite = || steps.iter().any(|step| step.epoch <= rewrite_through.0);
        if first.gone == last.come && !rewrite() {
            return None;
        }
        Some(match self.body(last) {
            Some(body) => DocumentAction::Upsert(body),
            None => DocumentAction::Delete { if_match: None },
        })
    }

    /// The row that came, as the document to write.
    fn body(&self, step: &Step<'_>) -> Option<Bytes> {
        let row = step.come?;
        let stripped = match self.strategy.reads_etag() {
            true => without_properties(row, &["_etag"]),
            false => None,
        };
        let row = stripped.as_deref().unwrap_or(row);
        Some(match self.stamp_epoch {
            true => stamped(row, step.epoch),
            false => Bytes::copy_from_slice(row),
        })
    }
}

/// The etag that the row names; the outer `None` if no row came.
fn etag(step: &Step<'_>) -> Option<Option<Box<str>>> {
    step.come.map(|row| string_property(row, "_etag"))
}

/// A document with its epoch as the last property. Rows have none ([`DocumentEncoder`](crate::document::DocumentEncoder)).
pub(crate) fn stamped(document: &[u8], epoch: u64) -> Bytes {
    let open = document.strip_suffix(b"}").unwrap_or(document);
    let comma = if open == b"{" { "" } else { "," };
    let stamp = format!("{comma}\"{EPOCH_PROPERTY}\":{epoch}}}");
    [open, stamp.as_bytes()].concat().into()
}
