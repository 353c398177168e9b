//! Hands out what each worker works with.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tidefeed_operators::dead_letter::DeadLetters;
use tidefeed_operators::decode::DecodeErrors;
use tidefeed_operators::document::DocumentEncoder;
use tidefeed_operators::enumerator::{Assignment, EnumeratorParts, Lister, ReaderParts, finer};
use tidefeed_operators::feed::{ChangeFeed, Start};
use tidefeed_operators::letters::{LetterParts, OF_SOURCE};
use tidefeed_operators::one_row::DuplicateRows;
use tidefeed_operators::portable::Elsewhere;
use tidefeed_operators::reader::{PollDelay, RangeStart, Readers};
use tidefeed_operators::reconcile::ContainerScan;
use tidefeed_operators::sink::SinkParts;
use tidefeed_operators::source::SourceParts;
use tidefeed_operators::stateful::StatefulParts;
use tidefeed_operators::strategy::WriteRule;
use tidefeed_operators::target::Target;
use tidefeed_runtime::bridge::{ByteBudget, Inbox, Tasks};
use tidefeed_runtime::loader::{EPOCHS, Outlets};
use tidefeed_runtime::sealer::{DueSender, PartSender};
use tidefeed_runtime::states::{StateWriter, state_source};
use tidefeed_runtime::{ContinuationToken, Epoch, FeedRangeId, Result};
use tokio::sync::Notify;

use crate::cluster::Position;
use crate::config::JobConfig;
use crate::flow::{SinkWorker, SourceWorker, TimeParts, WorkerParts};
use crate::ranges::starts;
use crate::running::Shared;

/// Pieces of a checkpoint that may wait for a worker, for each source. Their bytes are bounded by [`LoadConfig::max_bytes`]
/// already; this bounds what tiny ones cost.
///
/// [`LoadConfig::max_bytes`]: tidefeed_runtime::LoadConfig::max_bytes
const INBOX_CHUNKS: usize = 1024;

/// Wires sources and sinks to workers and readers.
pub(crate) struct Wiring<'a> {
    config: &'a JobConfig,
    shared: &'a Shared,
    outlets: Outlets,
    parts: PartSender,
    position: Position,
    /// Room for the pages of all sources.
    budget: ByteBudget,
    workers: Vec<WorkerParts>,
    /// Ranges of all sources so far.
    ranges: usize,
}

impl<'a> Wiring<'a> {
    pub(crate) fn new(
        config: &'a JobConfig,
        shared: &'a Shared,
        parts: PartSender,
        position: Position,
    ) -> Self {
        let empty = |_| WorkerParts {
            sources: BTreeMap::new(),
            sinks: BTreeMap::new(),
            states: BTreeMap::new(),
            time: None,
        };
        Wiring {
            config,
            shared,
            outlets: Outlets::new(),
            parts,
            position,
            budget: ByteBudget::new(config.epoch.max_waiting_bytes),
            workers: (0..config.workers.0).map(empty).collect(),
            ranges: 0,
        }
    }

    /// Gives every worker its end of the source, and worker 0 of the run the feed ranges to spread over all.
    ///
    /// # Errors
    /// When the ranges cannot be listed, or do not fit the saved ones.
    pub(crate) async fn source(
        &mut self,
        name: &str,
        feed: Arc<dyn ChangeFeed>,
        letters: Option<&Arc<dyn DeadLetters>>,
        tasks: &Tasks,
    ) -> Result<()> {
        let config = &self.config.source[name];
        // In a member nobody waits for it: there the lister finds splits by looking from time to time.
        let split_seen = Arc::new(Notify::new());
        let section = format!("source.{name}");
        let event_time = config.event_time.as_ref();
        let event_time = event_time.map(|time| time.compile(&section)).transpose()?;
        let readers = Arc::new(Readers {
            event_time,
            feed: Arc::clone(&feed),
            poll: PollDelay {
                first: Duration::from_millis(config.poll_ms),
                longest: Duration::from_millis(config.poll_max_ms),
            },
            counters: Arc::clone(&self.shared.sources[name]),
            budget: self.budget.clone(),
            ledger: self.shared.ledger.clone(),
            finish: self.shared.ledger.finishing(),
            split_seen: Arc::clone(&split_seen),
        });
        let enumerator = match self.position.leads() {
            true => Some(self.enumerator(name, feed, split_seen, tasks).await?),
            false => None,
        };
        let keeps = (config.on_decode_error == DecodeErrors::DeadLetters).then_some(letters);
        let letters = keeps.flatten().map(|letters| LetterParts {
            of: format!("{OF_SOURCE}{name}"),
            advice: "documents in a minute do not decode: correct the job's types or the documents, or allow more dead letters",
            letters: Arc::clone(letters),
            per_minute: config.dead_letters_per_minute,
            tasks: tasks.clone(),
            resumed: self.shared.ledger.committed_through(),
            ledger: self.shared.ledger.clone(),
        });
        self.source_parts(name, &readers, letters.as_ref(), tasks, enumerator);
        Ok(())
    }

    /// Finds out what there is to be read, and who is to look for changes of that.
    async fn enumerator(
        &mut self,
        name: &str,
        feed: Arc<dyn ChangeFeed>,
        split_seen: Arc<Notify>,
        tasks: &Tasks,
    ) -> Result<EnumeratorParts> {
        let config = &self.config.source[name];
        let workers = self.position.all_workers(self.workers.len());
        let live = feed.ranges().await?;
        let least = config.feed_ranges.map_or(workers, |ranges| ranges as usize);
        let saved = self.shared.resumed.tokens.get(name);
        let saved = saved.cloned().unwrap_or_default();
        let starts = self.starts(name, feed.as_ref(), &saved, &live, least)?;
        let appear = feed.ranges_appear();
        let ledger = &self.shared.ledger;
        ledger.open_ranges(starts.len() + usize::from(appear));
        ledger.expect_to_catch_up(starts.len());
        let at_now = starts.iter().filter(|start| start.start == Start::Now);
        ledger.expect_to_fix(at_now.count());
        let (to, changes) = Inbox::new(1);
        if appear || feed.ranges_tile() {
            let lister = Lister {
                feed,
                source: name.to_owned(),
                every: Duration::from_millis(config.refresh_ms),
                split_seen,
                finish: ledger.finishing(),
                ledger: ledger.clone(),
                to,
            };
            let listing = format!("the lister of source {name}");
            tasks.spawn(listing, lister.run(live.clone()));
        }
        // Later sources begin at another worker, so that single ranges do not all meet on worker 0.
        let assignment = Assignment::new(workers, self.ranges);
        self.ranges += starts.len();
        let absent = saved.into_iter().filter(|(range, _)| !live.contains(range));
        Ok(EnumeratorParts {
            starts,
            absent: absent.collect(),
            live,
            changes,
            least,
            assignment,
        })
    }

    /// Which ranges to read, and from where. Ranges that were never read are divided at once where there are too few.
    fn starts(
        &self,
        name: &str,
        feed: &dyn ChangeFeed,
        saved: &BTreeMap<FeedRangeId, ContinuationToken>,
        live: &[FeedRangeId],
        least: usize,
    ) -> Result<Vec<RangeStart>> {
        let fresh = Start::from(self.config.source[name].start);
        let (ranges, starts): (Vec<_>, Vec<_>) =
            starts(name, feed, saved, live, &fresh)?.into_iter().unzip();
        let loading = !self.shared.ledger.loaded();
        let divided = finer(&ranges, live, least, |range, parts| {
            feed.divide(range, parts)
        });
        let begin = |((range, parts), start): ((FeedRangeId, Vec<FeedRangeId>), Start)| {
            let ranges = match start {
                Start::Token(_) => vec![range],
                Start::Beginning | Start::Now | Start::Time(_) => parts,
            };
            ranges.into_iter().map(move |range| RangeStart {
                range,
                start: start.clone(),
                loading,
            })
        };
        Ok(divided.into_iter().zip(starts).flat_map(begin).collect())
    }

    /// The ranges that this run begins with. One that goes on with those of the run before has nothing to say of them, and seals
    /// nothing for it.
    fn begun(&self, name: &str, enumerator: &EnumeratorParts) -> Option<BTreeSet<FeedRangeId>> {
        let ranges = enumerator.starts.iter().map(|start| start.range.clone());
        let ranges: BTreeSet<_> = ranges.collect();
        let before = self.shared.resumed.marks.get(name);
        let before = before.map(|marks| marks.newest().ranges);
        let known = before.is_some_and(|before| before.keys().eq(&ranges));
        (!known).then_some(ranges)
    }

    fn source_parts(
        &mut self,
        name: &str,
        readers: &Arc<Readers>,
        letters: Option<&LetterParts>,
        tasks: &Tasks,
        mut enumerator: Option<EnumeratorParts>,
    ) {
        let here = self.workers.len();
        let first = self.position.first_worker(here);
        let timed = readers.event_time.is_some();
        let begins = enumerator.as_ref().filter(|_| timed);
        let mut begun = begins.and_then(|enumerator| self.begun(name, enumerator));
        let elsewhere = (self.position.processes > 1).then(|| Elsewhere {
            first,
            here,
            peers: self.position.all_workers(here),
        });
        let mut outlets = Vec::new();
        for (index, worker) in self.workers.iter_mut().enumerate() {
            let (pages, inbox) = Inbox::within(&self.budget);
            let (sender, load) = Inbox::new(INBOX_CHUNKS);
            outlets.push(sender);
            let parts = SourceParts {
                name: name.to_owned(),
                on_decode_error: self.config.source[name].on_decode_error,
                counters: Arc::clone(&self.shared.sources[name]),
                inbox,
                begun: begun.take(),
                load,
                parts: self.parts.clone(),
                max_bytes: self.config.epoch.max_bytes_per_worker,
                max_load_bytes: self.config.epoch.load_bytes,
                reports_seals: index == 0 && worker.sources.is_empty(),
                ledger: self.shared.ledger.clone(),
            };
            let readers = ReaderParts {
                source: name.to_owned(),
                worker: first + index,
                readers: Arc::clone(readers),
                inbox: pages,
                tasks: tasks.clone(),
                // The first worker's.
                enumerator: enumerator.take(),
            };
            let source = SourceWorker {
                parts,
                elsewhere,
                readers,
                watermark: timed.then(|| self.shared.watermark(name)),
                letters: letters.cloned(),
            };
            worker.sources.insert(name.to_owned(), source);
        }
        self.outlets.insert(name.to_owned(), outlets);
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
        let surplus = keeps.flatten().map(|letters| LetterParts {
            of: name.to_owned(),
            advice: "rows in a minute share their key with another row: make the ids unique, or allow more dead letters",
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

    /// Gives every worker its part of time, for so many temporal filters.
    pub(crate) fn time(&mut self, filters: usize, dues: &DueSender) {
        let mut outlets = Vec::new();
        for worker in &mut self.workers {
            let (outlet, load) = Inbox::new(INBOX_CHUNKS);
            outlets.push(outlet);
            let ledger = self.shared.ledger.clone();
            worker.time = Some(TimeParts::new(filters, load, dues.clone(), ledger));
        }
        self.outlets.insert(EPOCHS.to_owned(), outlets);
    }

    /// Whether no source has anything to load.
    pub(crate) fn nothing_to_load(&self) -> bool {
        self.ranges == 0
    }

    /// Parts for each worker, and where the checkpoint's contents go.
    pub(crate) fn finish(self) -> (Vec<WorkerParts>, Outlets) {
        (self.workers, self.outlets)
    }
}
