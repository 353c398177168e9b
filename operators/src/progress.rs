//! The port through which readers of a job's views learn how far they are.
//!
//! A commit says that every sink's container holds every change through its epoch. A view of several documents may be seen half
//! written beyond that; who wants a consistent cut reads the mark first, and then knows what is there at least.

use async_trait::async_trait;
use tidefeed_runtime::{Epoch, Fence, Result};

/// How far a sink's container is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The sink.
    pub sink: String,
    /// `None` while nothing can be said of it: before its first commit, and while it is rebuilt.
    pub reached: Option<Reached>,
}

/// An epoch that a sink's container holds whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    /// The container holds every change through this epoch, and perhaps parts of later ones.
    pub epoch: Epoch,
    /// When that was known, milliseconds since the UNIX epoch.
    pub committed_ms: u64,
}

/// Where the marks of a job are kept, for one run.
#[async_trait]
pub trait ProgressMarks: Send + Sync + 'static {
    /// Writes marks over those that are there. Once it has returned `Ok`, readers see them. Called again only after it has
    /// returned, so a mark never goes back by itself.
    ///
    /// # Errors
    /// What no retry can mend, and that it was closed.
    async fn put(&self, marks: Vec<Mark>) -> Result<()>;

    /// Asked once, before anything is written: nothing may be written once `fence` has closed (I7).
    fn guard(&self, fence: &Fence);

    /// From now on nothing is sent. Returns when nothing is under way any more.
    async fn close(&self);
}
