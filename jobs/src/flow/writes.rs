//! The ends of a job's dataflow: what is written to containers.

use serde::Serialize;
use tidefeed_operators::document::{EncodeDocuments, EncodeRecords};
use tidefeed_operators::letters::KeepLetters;
use tidefeed_operators::one_row::one_row_each;
use tidefeed_operators::sink::UpsertDocuments;
use tidefeed_operators::strategy::{RowKind, Strategy, WriteRule};
use tidefeed_runtime::Result;
use tidefeed_runtime::dataflow::Report;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;

use super::{Flow, Mode, SinkWorker, View, differs};
use crate::graph::sink_name;

impl<'scope> Flow<'scope> {
    /// Keeps the container of `[sink.name]` equal to `rows`: a new or changed row is upserted, a removed one deleted, once per
    /// epoch or less.
    ///
    /// Each row is a document: a JSON object with a string `id` and the fields of the container's partition key. Two rows
    /// with the same partition key and id end the run with an error that shows them, or become dead letters but for one, as the
    /// sink's `duplicate_rows` says. A row must have the same JSON form each time it is written: keep maps in a `BTreeMap`, not in a `HashMap`.
    ///
    /// # Errors
    /// `Config` when the job uses the sink twice.
    pub fn upsert<R: Serialize + Clone + 'static>(
        &mut self,
        name: &str,
        rows: View<'scope, R>,
    ) -> Result<()> {
        self.write(name, Strategy::Upsert, rows)
    }

    /// Writes to the container of `[sink.name]` what `strategy` makes of the rows that come, change and go. [`Strategy`] and
    /// [`PatchSpec`](crate::PatchSpec) say what that is.
    ///
    /// Each row is a document, as for [`upsert`](Self::upsert), and two rows with the same partition key and id end the run. Only
    /// [`Strategy::Upsert`] keeps the container equal to the rows. The others write into documents that are there already or are
    /// somebody else's, so:
    ///
    /// - The container may hold documents at the start.
    /// - A sink that is new to a job with a checkpoint, or has changed, writes what changes from the last commit on. Rows of
    ///   before are not written. To have them written start over with `--fresh`; a patch then adds them again.
    /// - A patch that increments, adds or creates tells by `_epoch` in the document what it has written. So no
    ///   other job may write `_epoch` into the same documents; sinks of one job have a container each.
    /// - The sink cannot be rebuilt: `--rebuild` refuses it by name, and leaves it out for `all`.
    ///
    /// What is written has its effect once, also after a crash, patches with increments included.
    ///
    /// # Example
    ///
    /// What customers owe goes into documents that another program keeps:
    ///
    /// ```
    /// use serde::{Deserialize, Serialize};
    /// use tidefeed::prelude::*;
    ///
    /// # #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
    /// # struct Order { id: String, customer: String, cents: i64 }
    /// #[derive(Clone, Serialize)]
    /// struct Owed {
    ///     id: String,
    ///     cents: i64,
    /// }
    ///
    /// fn views(flow: &mut Flow<'_>) -> Result<()> {
    ///     let orders = flow.change_feed::<Order>("orders")?;
    ///     let cents = orders.explode(|order| Some((order.customer, order.cents as isize)));
    ///     let owed = cents.count().map(|(id, cents)| Owed { id, cents: cents as i64 });
    ///     let patch = PatchSpec::new().increment("/cents").create_missing();
    ///     flow.write("customers", Strategy::Patch(patch), owed)
    /// }
    /// # fn main() {}
    /// ```
    ///
    /// # Errors
    /// `Config` when the job uses the sink twice, or a patch cannot be sent.
    pub fn write<R: Serialize + Clone + 'static>(
        &mut self,
        name: &str,
        strategy: Strategy,
        rows: View<'scope, R>,
    ) -> Result<()> {
        if let Mode::Trial(trial) = &self.mode {
            trial.upsert(name, rows);
            return Ok(());
        }
        let rows_are = RowKind::Collection;
        let Some(sink) = self.sink::<R, _>(name, strategy, rows_are, &rows.inner)? else {
            return Ok(());
        };
        let ledger = sink.parts.ledger.clone();
        let mut documents = rows.inner.encode_documents(sink.encoder, ledger);
        if let Some(parts) = sink.surplus {
            let surplus;
            (documents, surplus) = one_row_each(documents);
            self.report(surplus.keep_letters(parts));
        }
        self.report(documents.upsert_documents(sink.parts));
        Ok(())
    }

    /// Writes to the container of `[sink.name]` what `strategy` makes of the records of a plain stream, each with its position:
    /// any number that says which of two records of an epoch is the earlier.
    ///
    /// Within an epoch the records of one document take effect in the order of their positions, then of their JSON bytes, whatever
    /// worker they come from, so a replay after a crash ends the same. Several records of one document become one write where
    /// that comes to the same: see [`Strategy`]. For overwriting or deleting what is not modified the first record of an epoch
    /// decides, and the others of that epoch are dropped.
    ///
    /// A stream has no retractions: nothing is taken back when a document of the source changes or goes. It has no rows to
    /// verify either, and any number of records for a document. For everything else it is as [`write`](Self::write).
    ///
    /// A record belongs to the epoch of the timestamp that it travels with, which must be the same each time. A source's own stream
    /// is [`change_stream`](Self::change_stream), with an example. Updates of a collection may travel ahead of their own time:
    /// delay them to it before they are written as a stream.
    ///
    /// # Errors
    /// As [`write`](Self::write), and when a patch adds: several records would be one operation.
    pub fn write_stream<R: Serialize + Clone + 'static>(
        &mut self,
        name: &str,
        strategy: Strategy,
        records: StreamVec<'scope, u64, (u64, R)>,
    ) -> Result<()> {
        if let Mode::Trial(trial) = &self.mode {
            trial.write(records);
            return Ok(());
        }
        let rows_are = RowKind::Stream;
        let Some(sink) = self.sink::<R, _>(name, strategy, rows_are, &records)? else {
            return Ok(());
        };
        let ledger = sink.parts.ledger.clone();
        let documents = records.encode_records(sink.encoder, ledger);
        self.report(documents.upsert_documents(sink.parts));
        Ok(())
    }

    /// What the sink works with; `None` while the job is planned, when it is noted.
    fn sink<R, D: Clone + 'static>(
        &mut self,
        name: &str,
        strategy: Strategy,
        rows: RowKind,
        input: &StreamVec<'scope, u64, D>,
    ) -> Result<Option<SinkWorker>> {
        match &mut self.mode {
            Mode::Plan(plan) => {
                let end = sink_name(name);
                let input = input.clone();
                input.sink(Pipeline, &end, |(_input, _frontier)| {});
                let rule = WriteRule {
                    strategy,
                    rows,
                    stamp_epoch: false,
                };
                let rows = std::any::type_name::<R>();
                plan.borrow_mut().note_sink(name, rows, rule)?;
                Ok(None)
            }
            Mode::Trial(_) => Ok(None),
            Mode::Run { parts, .. } => {
                let sink = parts.sinks.remove(name);
                let mut sink = sink.ok_or_else(|| differs("sink", name))?;
                if strategy.reads_etag() {
                    sink.encoder = sink.encoder.keep_etag();
                }
                sink.parts.rule.strategy = strategy;
                sink.parts.rule.rows = rows;
                sink.parts.rule.validate()?;
                Ok(Some(sink))
            }
        }
    }

    fn report(&mut self, written: StreamVec<'scope, u64, Report>) {
        if let Mode::Run { reports, .. } = &mut self.mode {
            reports.push(written);
        }
    }
}
