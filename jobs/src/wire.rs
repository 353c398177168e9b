//! Hands out what each worker and each reader works with.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tidefeed_operators::dead_letter::DeadLetters;
use tidefeed_operators::document::DocumentEncoder;
use tidefeed_operators::feed::{ChangeFeed, Start};
use tidefeed_operators::one_row::{DuplicateRows, SurplusParts};
use tidefeed_operators::reader::{Arrival, PollDelay, Readers};
use tidefeed_operators::reconcile::ContainerScan;
use tidefeed_operators::sink::SinkParts;
use tidefeed_operators::source::SourceParts;
use tidefeed_operators::stateful::StatefulParts;
use tidefeed_operators::strategy::WriteRule;
use tidefeed_operators::target::Target;
use tidefeed_runtime::bridge::{ByteBudget, Inbox, InboxSender, Tasks};
use tidefeed_runtime::loader::Outlets;
use tidefeed_runtime::sealer::PartSender;
use tidefeed_runtime::states::{StateWriter, state_source};
use tidefeed_runtime::{Epoch, FeedRangeId, Result};

use crate::config::JobConfig;
use crate::flow::{SinkWorker, WorkerParts};
use crate::ranges::{RangeStart, starts};
use crate::running::Shared;

/// Pieces of a checkpoint that may wait for a worker, for each source. Their bytes are bounded by [`LoadConfig::max_bytes`]
/// already; this bounds what tiny ones cost.
///
/// [`LoadConfig::max_bytes`]: tidefeed_runtime::LoadConfig::max_bytes
const INBOX_CHUNKS: usize = 1024;

/// A reader that is ready to be spawned.
pub(crate) struct ReaderStart {
    source: String,
    readers: Arc<Readers>,
    range: FeedRangeId,
    start: Start,
    inbox: InboxSender<Arrival>,
}

impl ReaderStart {
    /// What it is called when something is wrong with it.
    pub(crate) fn name(&self) -> String {
        format!(
            "the reader of source {}, feed range {}",
            self.source, self.range
        )
    }

    /// Reads the range to its end.
    pub(crate) async fn run(self) {
        self.readers.read(self.range, self.start, self.inbox).await;
    }
}

/// Wires sources and sinks to workers and readers.
pub(crate) struct Wiring<'a> {
    config: &'a JobConfig,
    shared: &'a Shared,
    outlets: Outlets,
    parts: PartSender,
    open_ranges: Arc<AtomicUsize>,
    /// Room for the pages of all sources.
    budget: ByteBudget,
    workers: Vec<WorkerParts>,
    readers: Vec<ReaderStart>,
}

impl<'a> Wiring<'a> {
    pub(crate) fn new(config: &'a JobConfig, shared: &'a Shared, parts: PartSender) -> Self {
        let empty = |_| WorkerParts {
            sources: BTreeMap::new(),
            sinks: BTreeMap::new(),
            states: BTreeMap::new(),
        };
        Wiring {
            config,
            shared,
            outlets: Outlets::new(),
            parts,
            open_ranges: Arc::default(),
            budget: ByteBudget::new(config.epoch.max_waiting_bytes),
            workers: (0..config.workers.0).map(empty).collect(),
            readers: Vec::new(),
        }
    }

    /// Gives every worker its end of the source, and every feed range a reader, spread evenly over the workers.
    ///
    /// # Errors
    /// When the ranges cannot be listed, or do not fit the saved ones.
    pub(crate) async fn source(&mut self, name: &str, feed: Arc<dyn ChangeFeed>) -> Result<()> {
        let config = &self.config.source[name];
        let fresh = Start::from(config.start);
        let saved = self
            .shared
            .resumed
            .tokens
            .get(name)
            .cloned()
            .unwrap_or_default();
        let starts = starts(name, &saved, &feed.ranges().await?, &fresh)?;
        self.open_ranges.fetch_add(starts.len(), Ordering::AcqRel);
        self.shared.ledger.expect_to_catch_up(starts.len());
        let readers = Arc::new(Readers {
            feed,
            poll: PollDelay {
                first: Duration::from_millis(config.poll_ms),
                longest: Duration::from_millis(config.poll_max_ms),
            },
            counters: Arc::clone(&self.shared.sources[name]),
            budget: self.budget.clone(),
            ledger: self.shared.ledger.clone(),
            finish: self.shared.finish.subscribe(),
            open_ranges: Arc::clone(&self.open_ranges),
        });
        let inboxes = self.source_parts(name);
        // Later sources begin at another worker, so that single ranges do not all meet on worker 0.
        let first = self.readers.len();
        for (at, RangeStart { range, start }) in starts.into_iter().enumerate() {
            let inbox = inboxes[(first + at) % inboxes.len()].clone();
            self.readers.push(ReaderStart {
                source: name.to_owned(),
                readers: Arc::clone(&readers),
                range,
                start,
                inbox,
            });
        }
        Ok(())
    }

    fn source_parts(&mut self, name: &str) -> Vec<InboxSender<Arrival>> {
        let (mut inboxes, mut outlets) = (Vec::new(), Vec::new());
        for (index, worker) in self.workers.iter_mut().enumerate() {
            let (sender, inbox) = Inbox::within(&self.budget);
            inboxes.push(sender);
            let (sender, load) = Inbox::new(INBOX_CHUNKS);
            outlets.push(sender);
            let source = SourceParts {
                name: name.to_owned(),
                inbox,
                load,
                parts: self.parts.clone(),
                max_bytes: self.config.epoch.max_bytes_per_worker,
                max_load_bytes: self.config.epoch.load_bytes,
                reports_seals: index == 0 && worker.sources.is_empty(),
                ledger: self.shared.ledger.clone(),
            };
            worker.sources.insert(name.to_owned(), source);
        }
        self.outlets.insert(name.to_owned(), outlets);
        inboxes
    }

    /// Gives every worker its end of the sink.
    ///
    /// # Errors
    /// `Config` when the partition key is malformed.
    pub(crate) fn sink(
        &mut self,
        name: &str,
        target: &Arc<dyn Target>,
        letters: Option<&Arc<dyn DeadLetters>>,
        tasks: &Tasks,
    ) -> Result<()> {
        let config = &self.config.sink[name];
        let encoder = DocumentEncoder::new(name, &config.partition_key)?;
        let keeps = (config.duplicate_rows == DuplicateRows::DeadLetters).then_some(letters);
        let surplus = keeps.flatten().map(|letters| SurplusParts {
            sink: name.to_owned(),
            letters: Arc::clone(letters),
            per_minute: config.dead_letters_per_minute.unwrap_or_default(),
            tasks: tasks.clone(),
            resumed: self.shared.ledger.committed_through(),
            ledger: self.shared.ledger.clone(),
        });
        // What new keyed state makes of the collection comes right after the commit. A run that ended before its first commit
        // may have written it, also if it had sealed nothing.
        let committed = self.shared.ledger.committed_through();
        let rewrite_through = self
            .shared
            .resumed
            .replayed_through
            .max(Epoch(committed.0 + 1));
        let start = self.shared.resumed.sinks.get(name);
        let rebuilding = start.is_some_and(|start| start.rebuilding);
        let moves = config.moves;
        let rule = WriteRule {
            stamp_epoch: config.stamp_epoch,
            ..WriteRule::default()
        };
        let scan = rebuilding.then(|| Arc::new(ContainerScan::new(Arc::clone(target), moves)));
        for worker in &mut self.workers {
            let parts = SinkParts {
                name: name.to_owned(),
                rule: rule.clone(),
                target: Arc::clone(target),
                tasks: tasks.clone(),
                moves,
                resumed: committed,
                rebuild: scan.clone(),
                rewrite_through,
                ledger: self.shared.ledger.clone(),
                counters: Arc::clone(&self.shared.sinks[name]),
            };
            let sink = SinkWorker {
                parts,
                encoder: encoder.clone(),
                surplus: surplus.clone(),
            };
            worker.sinks.insert(name.to_owned(), sink);
        }
        Ok(())
    }

    /// Gives every worker its part of the keyed state.
    pub(crate) fn state(&mut self, name: &str, writer: &mut StateWriter) {
        let commit = self.shared.resumed.commit.as_ref();
        let known = commit.is_some_and(|commit| commit.sinks.contains_key(&state_source(name)));
        let mut outlets = Vec::new();
        for worker in &mut self.workers {
            let (sender, written) = writer.operator();
            let (outlet, load) = Inbox::new(INBOX_CHUNKS);
            outlets.push(outlet);
            let state = StatefulParts {
                name: name.to_owned(),
                load,
                resumed: self.shared.ledger.committed_through(),
                known,
                writer: sender,
                written,
                ledger: self.shared.ledger.clone(),
            };
            worker.states.insert(name.to_owned(), state);
        }
        self.outlets.insert(state_source(name), outlets);
    }

    /// Parts for each worker, the readers, and where the checkpoint's contents go.
    pub(crate) fn finish(self) -> (Vec<WorkerParts>, Vec<ReaderStart>, Outlets) {
        (self.workers, self.readers, self.outlets)
    }
}
