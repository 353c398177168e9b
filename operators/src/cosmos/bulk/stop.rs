//! Why a writer writes nothing more, as an error that everyone who waits can have.

use tidefeed_runtime::{Error, ErrorKind};

use super::operation::Summary;
use super::output::{Cause, Stop};
use crate::cosmos::container::Container;

/// The reason, which can be told more than once.
#[derive(Clone, Debug)]
pub(super) struct Reason {
    kind: ErrorKind,
    context: String,
    source: Option<String>,
}

impl Reason {
    /// Somebody wanted no more.
    pub(super) fn closed() -> Self {
        Reason {
            kind: ErrorKind::Internal,
            context: "the writer was closed".to_owned(),
            source: None,
        }
    }

    /// Something that no retry mends.
    pub(super) fn error(error: &Error) -> Self {
        Reason {
            kind: error.kind(),
            context: error.report(),
            source: None,
        }
    }

    /// The service said something that no retry mends.
    pub(super) fn of(stop: &Stop, container: &Container) -> Self {
        let status = stop.refusal.status;
        let operation = stop.operation.as_deref();
        let document = operation.map_or_else(
            || format!("container {container}"),
            |operation| {
                let (id, partition) = (&operation.key.id, &operation.key.partition_key);
                format!("document {id} of partition {partition} in container {container}")
            },
        );
        let body = operation.and_then(|operation| operation.action.body());
        let bytes = body.map_or(0, |body| body.len());
        let (kind, context) = match (stop.cause, status) {
            (Cause::TooManyLetters, _) => (
                ErrorKind::Rejected,
                format!(
                    "too many writes of container {container} are refused, so it is not these documents that are wrong; the last was {document}"
                ),
            ),
            (Cause::Poison, 413) => (
                ErrorKind::Rejected,
                format!("{document} is too large: it has {bytes} bytes, the limit is 2 MB"),
            ),
            (Cause::Poison, _) => (ErrorKind::Rejected, format!("cannot write {document}")),
            (Cause::Fatal, 401 | 403) => (ErrorKind::Denied, format!("cannot write to {document}")),
            (Cause::Fatal, 404) => (
                ErrorKind::NotFound,
                format!("container {container} does not exist any more"),
            ),
            (Cause::Fatal, 400) if stop.refusal.sub_status == 1024 => (
                ErrorKind::NotFound,
                format!(
                    "container {container} was deleted and created anew: start over, so that everything is written again"
                ),
            ),
            (Cause::Fatal, _) => (ErrorKind::Rejected, format!("cannot write to {document}")),
        };
        Reason {
            kind,
            context,
            source: Some(stop.refusal.to_string()),
        }
    }

    pub(super) fn to_error(&self) -> Error {
        let error = Error::new(self.kind, self.context.clone());
        match &self.source {
            Some(source) => error.with_source(source.clone()),
            None => error,
        }
    }

    /// The error of operations that were not written because of it.
    pub(super) fn unwritten(&self, summary: &Summary) -> Error {
        let error = self.to_error();
        match (summary.unwritten, summary.uncertain) {
            (0, _) => error,
            (unwritten, 0) => error.wrap(format!("{unwritten} writes were not carried out")),
            (unwritten, uncertain) => error.wrap(format!(
                "{unwritten} writes were not carried out, or perhaps {uncertain} of them were"
            )),
        }
    }
}
