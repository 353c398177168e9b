//! Tells readers of the views what is committed.
//!
//! ```text
//! commit operator --request--> Follower --request--> committer, which makes it durable
//!                                 `--- then: mark of each sink ---> ProgressMarks
//! ```
//!
//! 1. Before any sink may write, the marks say what the run resumes from. A sink of which nothing can be said, because it is
//!    rebuilt or starts from nothing, has no mark from then on: an older one would be about another content.
//! 2. A mark is written only after the commit that it tells of is durable, so it is never ahead of that.
//! 3. One write is under way at a time, and takes the newest epoch there is then. So marks never go back, and are as close
//!    behind the commits as their container allows.
//! 4. A run that ends well returns after the mark of its last commit is written. One that fails leaves the marks as they are:
//!    behind, and true.
//!
//! What cannot be written for good ends the run.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tidefeed_operators::progress::{Mark, ProgressMarks, Reached};
use tidefeed_operators::target::REQUEST_DEADLINE;
use tidefeed_runtime::checkpoint::{CommitRecord, CommitRequest};
use tidefeed_runtime::committer::CommitSender;
use tidefeed_runtime::dataflow::SinkStart;
use tidefeed_runtime::{Epoch, Error, ErrorKind, Ledger, Result};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// Which marks are due. Pure.
#[derive(Debug, Default)]
struct Due {
    /// Commits that were asked for and are not known to be durable, with the sinks that they have something to say of.
    requested: VecDeque<(Epoch, BTreeSet<String>)>,
    /// Not written yet.
    next: BTreeMap<String, Epoch>,
}

impl Due {
    fn requested(&mut self, epoch: Epoch, sinks: BTreeSet<String>) {
        self.requested.push_back((epoch, sinks));
    }

    /// Everything through this epoch is committed. Requests are merged into the newest of them, so only that one counts.
    fn committed(&mut self, through: Epoch) {
        let mut newest = None;
        while self
            .requested
            .front()
            .is_some_and(|(epoch, _)| *epoch <= through)
        {
            newest = self.requested.pop_front();
        }
        let Some((epoch, sinks)) = newest else {
            return;
        };
        self.next
            .extend(sinks.into_iter().map(|sink| (sink, epoch)));
    }

    fn take(&mut self, committed_ms: u64) -> Vec<Mark> {
        let mark = |(sink, epoch)| Mark {
            sink,
            reached: Some(Reached {
                epoch,
                committed_ms,
            }),
        };
        std::mem::take(&mut self.next)
            .into_iter()
            .map(mark)
            .collect()
    }
}

/// What the marks are to say before any sink writes.
pub(crate) struct Beginning {
    place: Arc<dyn ProgressMarks>,
    marks: Vec<Mark>,
}

impl Beginning {
    pub(crate) fn new(
        place: &Arc<dyn ProgressMarks>,
        sinks: &BTreeMap<String, SinkStart>,
        commit: Option<&CommitRecord>,
    ) -> Self {
        let reached = |sink: &String, start: &SinkStart| {
            let commit = commit.filter(|commit| commit.sinks.contains_key(sink))?;
            (!start.rebuilding).then(|| Reached {
                epoch: commit.epoch,
                committed_ms: now_ms(),
            })
        };
        let mark = |(sink, start): (&String, &SinkStart)| Mark {
            reached: reached(sink, start),
            sink: sink.clone(),
        };
        Beginning {
            place: place.clone(),
            marks: sinks.iter().map(mark).collect(),
        }
    }

    /// Writes it.
    pub(crate) async fn write(self) -> Result<()> {
        self.place.put(self.marks).await
    }
}

type Writing = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

/// Follows the commits of a run.
pub(crate) struct Follower {
    place: Arc<dyn ProgressMarks>,
    ledger: Ledger,
    due: Due,
    writing: Option<Writing>,
}

/// The follower of a run, to be ended.
pub(crate) struct Following {
    follower: oneshot::Receiver<Follower>,
    place: Arc<dyn ProgressMarks>,
}

impl Follower {
    /// What is to be run as a task, between the sender of commit requests and the committer, and how it is ended.
    pub(crate) fn run(
        place: Arc<dyn ProgressMarks>,
        ledger: Ledger,
        sinks: BTreeSet<String>,
        requests: mpsc::UnboundedReceiver<CommitRequest>,
        committer: CommitSender,
    ) -> (impl Future<Output = ()> + Send, Following) {
        let (ended, follower) = oneshot::channel();
        let following = Following {
            follower,
            place: place.clone(),
        };
        let follower = Follower {
            place,
            ledger,
            due: Due::default(),
            writing: None,
        };
        let run = async move {
            // Nobody may want to end it any more.
            let _ = ended.send(follower.follow(sinks, requests, committer).await);
        };
        (run, following)
    }

    /// Until the sender of requests is gone. The committer's is gone then too.
    async fn follow(
        mut self,
        sinks: BTreeSet<String>,
        mut requests: mpsc::UnboundedReceiver<CommitRequest>,
        committer: CommitSender,
    ) -> Self {
        loop {
            tokio::select! {
                request = requests.recv() => match request {
                    Some(request) => {
                        self.due.requested(request.epoch, in_line(&request, &sinks));
                        // The committer is gone only when the run has failed.
                        let _ = committer.send(request);
                    }
                    None => return self,
                },
                written = written(&mut self.writing) => {
                    self.writing = None;
                    if let Err(error) = written {
                        self.ledger.fail(error);
                    }
                }
                () = self.ledger.progressed() => {}
            }
            if self.writing.is_none() {
                self.write();
            }
        }
    }

    /// Begins to write what is due.
    fn write(&mut self) {
        // Until then the marks are to say what the run resumes from.
        if !self.ledger.writable() || self.ledger.stopped() {
            return;
        }
        self.put_due();
    }

    fn put_due(&mut self) {
        self.due.committed(self.ledger.committed_through());
        let marks = self.due.take(now_ms());
        if !marks.is_empty() {
            let place = self.place.clone();
            self.writing = Some(Box::pin(async move { place.put(marks).await }));
        }
    }

    /// Writes what is left, once the committer has ended.
    async fn finish(mut self) -> Result<()> {
        if self.writing.is_some() {
            written(&mut self.writing).await?;
            self.writing = None;
        }
        if self.ledger.writable() {
            self.put_due();
        }
        match self.writing.take() {
            Some(writing) => writing.await,
            None => Ok(()),
        }
    }
}

impl Following {
    /// Writes the mark of the last commit after a run that has gone well, once the committer has ended, and then ends all
    /// writing. Returns whether the mark is written, and whether nothing is under way any more.
    ///
    /// # Errors
    /// What has kept the last mark from being written; `Unreachable` when either took longer than [`REQUEST_DEADLINE`].
    pub(crate) async fn end(self, went_well: bool) -> (Result<()>, Result<()>) {
        let last = match self.follower.await {
            Ok(follower) if went_well => {
                let last = timeout(REQUEST_DEADLINE, follower.finish()).await;
                last.unwrap_or_else(|_| Err(late("the last progress document is not written")))
            }
            // It has failed with the run.
            _ => Ok(()),
        };
        let closed = timeout(REQUEST_DEADLINE, self.place.close()).await;
        let closed = closed.map_err(|_| late("a progress document was still being written"));
        (last, closed)
    }
}

fn late(what: &str) -> Error {
    let seconds = REQUEST_DEADLINE.as_secs();
    Error::new(
        ErrorKind::Unreachable,
        format!(
            "{what} {seconds} s after the job had ended: check that the server answers before the next start"
        ),
    )
}

/// The sinks whose containers are in line with their views as of a commit.
fn in_line(request: &CommitRequest, sinks: &BTreeSet<String>) -> BTreeSet<String> {
    let known = request.sinks.iter();
    let known = known.filter(|(sink, state)| !state.rebuilding && sinks.contains(*sink));
    known.map(|(sink, _)| sink.clone()).collect()
}

/// The end of the write under way, if there is one.
async fn written(writing: &mut Option<Writing>) -> Result<()> {
    match writing {
        Some(writing) => writing.await,
        None => std::future::pending().await,
    }
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    // A clock before 1970 is no reason to fail.
    now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sinks(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn nothing_due(due: &Due) -> bool {
        due.requested.is_empty() && due.next.is_empty()
    }

    fn said(due: &mut Due) -> Vec<(String, u64)> {
        let marks = due.take(7).into_iter();
        let said = marks.map(|mark| {
            let reached = mark.reached.expect("an epoch");
            assert_eq!(reached.committed_ms, 7);
            (mark.sink, reached.epoch.0)
        });
        said.collect()
    }

    #[test]
    fn a_mark_is_due_when_its_commit_is_durable_and_not_before() {
        let mut due = Due::default();
        assert!(nothing_due(&due));
        due.requested(Epoch(3), sinks(&["a"]));
        due.committed(Epoch(2));
        assert_eq!(said(&mut due), []);
        assert!(!nothing_due(&due));
        due.committed(Epoch(3));
        assert_eq!(said(&mut due), [("a".to_owned(), 3)]);
        assert!(nothing_due(&due));
        // The committer has put three requests into one commit, and another is on its way.
        for (epoch, names) in [
            (4, &["a"][..]),
            (5, &["a"]),
            (6, &["a", "b"]),
            (7, &["a", "b"]),
        ] {
            due.requested(Epoch(epoch), sinks(names));
        }
        due.committed(Epoch(6));
        assert_eq!(said(&mut due), [("a".to_owned(), 6), ("b".to_owned(), 6)]);
        assert!(!nothing_due(&due));
    }

    #[test]
    fn a_sink_keeps_its_mark_while_a_newer_commit_says_nothing_of_it() {
        let mut due = Due::default();
        due.requested(Epoch(1), sinks(&["a", "b"]));
        due.committed(Epoch(1));
        due.requested(Epoch(2), sinks(&["b"]));
        due.committed(Epoch(2));
        assert_eq!(said(&mut due), [("a".to_owned(), 1), ("b".to_owned(), 2)]);
    }
}
