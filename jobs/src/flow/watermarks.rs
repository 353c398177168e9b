//! Watermarks in a job, and the windows that they close.

use differential_dataflow::consolidation::consolidate_updates;
use differential_dataflow::{AsCollection, ExchangeData};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tidefeed_operators::stateful::Stateful;
use tidefeed_operators::time::finals::{Final, FinalWindows, Late, Open};
use tidefeed_operators::time::windows::Window;
use tidefeed_runtime::{Error, ErrorKind, Result};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;

use super::{Flow, Mode, View, differs, planned_stream};
use crate::plan::Plan;

/// How far a source has come in event time, as it moves: from [`Flow::watermark`]. Clones are the same.
#[derive(Clone)]
pub struct Watermark<'scope> {
    /// Milliseconds since the UNIX epoch, on every worker, at each epoch in which it moves.
    moves: StreamVec<'scope, u64, u64>,
}

/// What [`Flow::final_windows`] gives.
pub struct Finals<'scope, K: 'static, V: 'static, A: 'static> {
    /// Each window of a key that is final, with its result.
    pub results: View<'scope, ((K, Window), A)>,
    /// What came or went when its window was final.
    pub late: View<'scope, ((K, Window), Late<V>)>,
}

impl<'scope> Flow<'scope> {
    /// The watermark of a source that the job reads already: records whose event time is before it are not expected any more. The
    /// source's `event_time` says where event time is read, how far documents may be out of order, and when a feed range counts
    /// as idle.
    ///
    /// # Errors
    /// `Config` when the job has not read the source before, or its `event_time` is not configured.
    pub fn watermark(&mut self, source: &str) -> Result<Watermark<'scope>> {
        let moves = match &mut self.mode {
            Mode::Plan(plan) => {
                let mut plan = plan.borrow_mut();
                if !plan.sources.contains_key(source) {
                    return Err(Error::new(
                        ErrorKind::Config,
                        format!(
                            "the job asks for the watermark of source {source}, which it does not read: call flow.change_feed({source:?}) before"
                        ),
                    ));
                }
                plan.watermarks.insert(source.to_owned());
                planned_stream(self.scope, &format!("Watermark: {source}"))
            }
            Mode::Trial(_) => planned_stream(self.scope, &format!("Watermark: {source}")),
            Mode::Run { watermarks, .. } => {
                let moves = watermarks.get(source);
                moves.ok_or_else(|| differs("watermark", source))?.clone()
            }
        };
        Ok(Watermark { moves })
    }

    /// The results of windows that are final: each is given once, in the epoch in which the watermark comes to the end of the window and
    /// its allowed lateness, and never changes again. Rows that come later are in a view of their own, so that nothing is lost.
    ///
    /// Windows as collections ([`Windowed`](crate::Windowed)) are right at every epoch, correct themselves however late a row is, and need
    /// no watermark; use these where whoever reads the results must be able to rely on the first one: bills, alerts, exports.
    ///
    /// - `time_ms` reads the event time of a row, in milliseconds since the UNIX epoch. It should be what the source's `event_time` reads.
    /// - `fold` adds a row to the total of its window, or takes it off when `times` is negative: a document that changes while its
    ///   window is open is taken off and added. The total begins as its default. `fold` must be deterministic, and come to the same in
    ///   any order.
    /// - A row is late if its window was final before its epoch. What changes or goes after its window is final is late as well, with
    ///   negative `times`: the result and the late rows together are always the rows that there are.
    /// - Open windows are one total for each key and window, results one row each. They are kept in memory and, as keyed state under
    ///   `name`, with every commit, as [`stateful`](Self::stateful) keeps its state; so give new fields of `A` a serde default. Results
    ///   stay for ever unless [`FinalWindows::keep`] says otherwise.
    /// - After a crash every epoch closes the windows that it closed before, with the same results.
    /// - A window stays open while the watermark stands still: at the end of a bounded run, and while all of a source's ranges are idle.
    ///   The next run, or the next document, closes it.
    ///
    /// # Example
    ///
    /// What each customer spent in an hour, as it is billed:
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use serde::{Deserialize, Serialize};
    /// use tidefeed::prelude::*;
    ///
    /// #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
    /// struct Order { id: String, customer: String, cents: i64, placed_ms: u64 }
    /// # #[derive(Clone, Serialize)]
    /// # struct Bill { id: String, cents: i64 }
    /// # #[derive(Clone, Serialize)]
    /// # struct Missed { id: String, order: Order, times: isize }
    ///
    /// // [source.orders]
    /// // event_time = { path = "/placed_ms", out_of_orderness_ms = 60000 }
    /// fn views(flow: &mut Flow<'_>) -> Result<()> {
    ///     let orders = flow.change_feed::<Order>("orders")?;
    ///     let watermark = flow.watermark("orders")?;
    ///     let hours = FinalWindows::tumbling(Duration::from_secs(3600))?;
    ///     let by_customer = orders.map(|order| (order.customer.clone(), order));
    ///     let bills = flow.final_windows(
    ///         "bills",
    ///         by_customer,
    ///         hours,
    ///         &watermark,
    ///         |order| order.placed_ms,
    ///         |cents: &mut i64, order, times| *cents += order.cents * times as i64,
    ///     )?;
    ///     let bill = |((customer, hour), cents): ((String, Window), i64)| Bill {
    ///         id: format!("{customer} {}", hour.start_ms),
    ///         cents,
    ///     };
    ///     flow.upsert("bills", bills.results.map(bill))?;
    ///     let missed = bills.late.map(|((_, hour), late)| Missed {
    ///         id: format!("{} {} {}", late.row.id, hour.start_ms, late.times),
    ///         order: late.row,
    ///         times: late.times,
    ///     });
    ///     flow.upsert("missed", missed)
    /// }
    /// # fn main() {}
    /// ```
    ///
    /// # Errors
    /// `Config` when the job uses the name twice.
    pub fn final_windows<K, V, A>(
        &mut self,
        name: &str,
        rows: View<'scope, (K, V)>,
        windows: FinalWindows,
        watermark: &Watermark<'scope>,
        time_ms: impl Fn(&V) -> u64 + 'static,
        fold: impl Fn(&mut A, &V, isize) + 'static,
    ) -> Result<Finals<'scope, K, V, A>>
    where
        K: ExchangeData,
        V: ExchangeData,
        A: ExchangeData + Default + Serialize + DeserializeOwned,
    {
        let in_windows = rows.flat_map(move |(key, row)| {
            let of_row = windows.containing(time_ms(&row));
            of_row.map(move |window| ((key.clone(), window), row.clone()))
        });
        let moves = watermark.moves.clone();
        type Rows<R> = CapacityContainerBuilder<Vec<(R, u64, isize)>>;
        let shown: View<'scope, ((K, Window), Final<A, V>)> = match &mut self.mode {
            Mode::Plan(plan) => {
                let types = std::any::type_name::<(K, V, A)>();
                Plan::note("state", &mut plan.borrow_mut().states, name, types)?;
                // Brings nothing, and shows in the dataflow what the output depends on.
                let operator = format!("Stateful: {name}");
                let planned = in_windows.inner.binary::<_, Rows<_>, _, _, _, _>(
                    moves,
                    Pipeline,
                    Pipeline,
                    &operator,
                    |_cap, _info| |_rows, _moves, _output| {},
                );
                planned.as_collection()
            }
            // Without a watermark no window ends.
            Mode::Trial(trial) => trial.stateful(in_windows, |_, _: &mut Option<()>, _| None),
            Mode::Run { parts, reports, .. } => {
                let parts = parts.states.remove(name);
                let parts = parts.ok_or_else(|| differs("state", name))?;
                let (shown, written) = in_windows.stateful_by(
                    parts,
                    moves,
                    move |(_, window): &(K, Window),
                          open: &mut Option<Open<A>>,
                          shown,
                          changes,
                          moment| {
                        windows.step(window, open, shown, changes, moment, &fold)
                    },
                );
                reports.push(written);
                shown
            }
        };
        let results = shown.clone().flat_map(|(of, shown)| {
            let result = shown.result;
            result.map(|result| (of, result))
        });
        let late = shown.flat_map(|(of, shown)| {
            let late = shown.late.into_iter();
            late.map(move |(row, times)| (of.clone(), Late { row, times }))
        });
        Ok(Finals {
            results: net(results),
            late: net(late),
        })
    }
}

/// A late row shows its whole window again. What has not changed of it cancels here, and not only in a sink.
fn net<R: ExchangeData>(rows: View<'_, R>) -> View<'_, R> {
    type Rows<R> = CapacityContainerBuilder<Vec<(R, u64, isize)>>;
    let net = rows
        .inner
        .unary::<Rows<R>, _, _, _>(Pipeline, "Net", |_cap, _info| {
            |input, output| {
                input.for_each(|cap, rows| {
                    consolidate_updates(rows);
                    output.session(&cap).give_iterator(rows.drain(..));
                });
            }
        });
    net.as_collection()
}
