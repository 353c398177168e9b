//! The one error type of Tidefeed.
//!
//! [`Error`] is a kind, a context and a source. The kind says what the person running the job should do; the context is
//! one lowercase clause that names the thing; the source is what the layer below reported. `Display` prints the context
//! alone, [`Error::report`] prints the whole chain on one line, which is what a job prints before it exits.

use std::error::Error as StdError;
use std::fmt;

/// Shorthand for a result with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the person running the job should do about an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A setting is wrong or unknown: correct the configuration or the command line.
    Config,
    /// Input data is malformed: correct the named document, row or file.
    Data,
    /// A server did not answer: check that it runs and that the address is right, then start the job again.
    Unreachable,
    /// A server refused the credentials: check the key or the role assignment.
    Denied,
    /// A named account resource does not exist: create it or correct its name.
    NotFound,
    /// A checkpoint object is damaged, missing, or belongs to another job or graph. Nothing was overwritten.
    Checkpoint,
    /// Another run of the same job holds or has taken the checkpoint: stop one of the two.
    Fenced,
    /// A request was refused for a reason that a retry cannot mend.
    Rejected,
    /// Another process of the cluster has failed or does not answer: look at what that one said, and start all again.
    PeerLost,
    /// A defect in Tidefeed or in a job's own code: please report it with the message.
    Internal,
}

impl ErrorKind {
    /// The exit code of a process that ends with this kind of error. Stable across versions.
    pub fn exit_code(self) -> u8 {
        match self {
            ErrorKind::Internal => 1,
            ErrorKind::Config => 2,
            ErrorKind::Data => 3,
            ErrorKind::Unreachable => 4,
            ErrorKind::Denied => 5,
            ErrorKind::NotFound => 6,
            ErrorKind::Checkpoint => 7,
            ErrorKind::Fenced => 8,
            ErrorKind::Rejected => 9,
            ErrorKind::PeerLost => 10,
        }
    }
}

/// An error with the thing it is about and what caused it.
pub struct Error {
    kind: ErrorKind,
    context: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error without a cause below it. `context` is one lowercase clause that names the thing.
    pub fn new(kind: ErrorKind, context: impl Into<String>) -> Self {
        Error {
            kind,
            context: context.into(),
            source: None,
        }
    }

    /// Shorthand for a defect that no input can cause.
    pub fn internal(context: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, context)
    }

    /// The same error with what caused it.
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Wraps this error in a wider context and keeps its kind.
    pub fn wrap(self, context: impl Into<String>) -> Self {
        Error {
            kind: self.kind,
            context: context.into(),
            source: Some(Box::new(self)),
        }
    }

    /// What to do about it.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The whole chain on one line: context, then each cause, separated by `: `. A cause that only repeats what its
    /// wrapper already said is left out.
    pub fn report(&self) -> String {
        let mut line = self.context.clone();
        let mut cause = self.source();
        while let Some(error) = cause {
            let text = error.to_string().replace('\n', " ");
            if !line.contains(text.as_str()) {
                line.push_str(": ");
                line.push_str(&text);
            }
            cause = error.source();
        }
        line
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.context)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.report())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source
            .as_deref()
            .map(|source| source as &(dyn StdError + 'static))
    }
}

/// Adds context to the errors of other crates.
pub trait Context<T> {
    /// Turns the error into an [`Error`] of `kind`, with `context` naming what failed.
    ///
    /// # Errors
    /// The wrapped error, if there was one.
    fn context<C: Into<String>>(self, kind: ErrorKind, context: impl FnOnce() -> C) -> Result<T>;
}

impl<T, E: Into<Box<dyn StdError + Send + Sync>>> Context<T> for std::result::Result<T, E> {
    fn context<C: Into<String>>(self, kind: ErrorKind, context: impl FnOnce() -> C) -> Result<T> {
        self.map_err(|error| Error::new(kind, context()).with_source(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_one_line_without_repeats() {
        let io = std::io::Error::other("disk\nfull");
        let error = Error::new(ErrorKind::Checkpoint, "cannot write seal 3").with_source(io);
        let outer = error.wrap("job flights stopped");
        assert_eq!(
            outer.report(),
            "job flights stopped: cannot write seal 3: disk full"
        );
        assert_eq!(outer.kind(), ErrorKind::Checkpoint);
        assert_eq!(
            Error::new(ErrorKind::Data, "same")
                .with_source(Error::new(ErrorKind::Data, "same"))
                .report(),
            "same"
        );
    }
}
