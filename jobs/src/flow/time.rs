//! Temporal filters in a job.

use std::ops::Range;
use std::time::Duration;

use differential_dataflow::{AsCollection, ExchangeData};
use tidefeed_operators::time::epochs::epochs;
use tidefeed_operators::time::valid::Valid;
use tidefeed_runtime::bridge::Inbox;
use tidefeed_runtime::loader::Loaded;
use tidefeed_runtime::sealer::DueSender;
use tidefeed_runtime::{Error, Ledger, Result};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;

use super::{Flow, Mode, View, differs};

/// What one worker's temporal filters are made from.
pub(crate) struct TimeParts {
    /// Filters that were planned and are not built yet.
    filters: usize,
    /// Taken by the first filter: all share the epochs.
    load: Option<Inbox<Loaded>>,
    dues: DueSender,
    ledger: Ledger,
}

impl TimeParts {
    pub(crate) fn new(
        filters: usize,
        load: Inbox<Loaded>,
        dues: DueSender,
        ledger: Ledger,
    ) -> Self {
        TimeParts {
            filters,
            load: Some(load),
            dues,
            ledger,
        }
    }

    /// What to call a filter that was planned and not built, if there is one.
    pub(super) fn unused(&self) -> Option<&'static str> {
        (self.filters > 0).then_some("another temporal filter")
    }
}

impl<'scope> Flow<'scope> {
    /// The rows whose time it is: a row is in the result from the first moment of `bounds` until before its last, in
    /// milliseconds since the UNIX epoch. It comes and goes by itself, also when nothing is read. [`NEVER`](crate::NEVER) is no end.
    ///
    /// - A row comes and goes with the first epoch at or after its moment. An idle job has one every `epoch.max_ms` (1 s), so make
    ///   that smaller if it is to be sooner. A row whose time begins and ends between two epochs never shows.
    /// - A job that was down finds what fell due meanwhile when it starts again. A bounded run ends with rows that would still
    ///   come or go; the next run goes on with them.
    /// - What is written has its effect once, patches with increments included: an epoch in which a row comes or goes is sealed, as
    ///   if something had been read, and replayed as it was.
    /// - `bounds` must be deterministic: no clock. It is asked again when a row comes.
    /// - Rows that will change are kept in memory, each once.
    ///
    /// # Example
    ///
    /// Offers that are open now, and how many of them each shop has:
    ///
    /// ```
    /// use serde::{Deserialize, Serialize};
    /// use tidefeed::prelude::*;
    ///
    /// #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
    /// struct Offer { id: String, shop: String, opens_ms: u64, closes_ms: u64 }
    /// # #[derive(Clone, Serialize)]
    /// # struct Open { id: String, offers: isize }
    ///
    /// fn views(flow: &mut Flow<'_>) -> Result<()> {
    ///     let offers = flow.change_feed::<Offer>("offers")?;
    ///     let open = flow.valid(offers, |offer| offer.opens_ms..offer.closes_ms)?;
    ///     let by_shop = open.clone().map(|offer| offer.shop).count();
    ///     flow.upsert("open", open)?;
    ///     flow.upsert("shops", by_shop.map(|(id, offers)| Open { id, offers }))
    /// }
    /// # fn main() {}
    /// ```
    ///
    /// # Errors
    /// `Internal` when the job's code builds another dataflow than when it was planned.
    pub fn valid<R: ExchangeData>(
        &mut self,
        rows: View<'scope, R>,
        bounds: impl Fn(&R) -> Range<u64> + 'static,
    ) -> Result<View<'scope, R>> {
        match &mut self.mode {
            Mode::Plan(plan) => {
                plan.borrow_mut().temporal_filters += 1;
                // Brings nothing, and shows in the dataflow that the result depends on the rows.
                type Rows<R> = CapacityContainerBuilder<Vec<(R, u64, isize)>>;
                let planned =
                    rows.inner
                        .unary::<Rows<R>, _, _, _>(Pipeline, "Valid", |_cap, _info| {
                            |_input, _output| {}
                        });
                Ok(planned.as_collection())
            }
            // A row stays where it is until its time has come.
            Mode::Trial(_) => Ok(rows),
            Mode::Run {
                ticks,
                parts,
                epochs,
                ..
            } => {
                let unplanned = || differs("one more", "temporal filter");
                let parts = parts.time.as_mut().ok_or_else(unplanned)?;
                parts.filters = parts.filters.checked_sub(1).ok_or_else(unplanned)?;
                let (epochs, dues) = parts.epochs(ticks, epochs)?;
                Ok(rows.valid(epochs, dues, bounds))
            }
        }
    }

    /// The rows that happened less than `age` ago: each is in the result from `time_ms`, in milliseconds since the UNIX epoch, for as
    /// long. See [`valid`](Self::valid).
    ///
    /// # Example
    ///
    /// The errors of the last hour by device; a device without any leaves the view by itself:
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use serde::{Deserialize, Serialize};
    /// use tidefeed::prelude::*;
    ///
    /// #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
    /// struct Failed { device: String, at_ms: u64 }
    /// # #[derive(Clone, Serialize)]
    /// # struct Errors { id: String, errors: isize }
    ///
    /// fn views(flow: &mut Flow<'_>) -> Result<()> {
    ///     let errors = flow.change_feed::<Failed>("errors")?;
    ///     let recent = flow.valid_for(errors, |error| error.at_ms, Duration::from_secs(3600))?;
    ///     let by_device = recent.map(|error| error.device).count();
    ///     flow.upsert("devices", by_device.map(|(id, errors)| Errors { id, errors }))
    /// }
    /// # fn main() {}
    /// ```
    ///
    /// # Errors
    /// As [`valid`](Self::valid).
    pub fn valid_for<R: ExchangeData>(
        &mut self,
        rows: View<'scope, R>,
        time_ms: impl Fn(&R) -> u64 + 'static,
        age: Duration,
    ) -> Result<View<'scope, R>> {
        let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        self.valid(rows, move |row| {
            let from = time_ms(row);
            from..from.saturating_add(age_ms)
        })
    }
}

impl TimeParts {
    /// The epochs, built for the first filter and shared by the others, and where a filter says what is due.
    fn epochs<'scope>(
        &mut self,
        ticks: &StreamVec<'scope, u64, u64>,
        built: &mut Option<StreamVec<'scope, u64, u64>>,
    ) -> Result<(StreamVec<'scope, u64, u64>, DueSender)> {
        let stream = match (built.clone(), self.load.take()) {
            (Some(stream), _) => stream,
            (None, Some(load)) => epochs(ticks.clone(), load, self.ledger.clone()),
            (None, None) => return Err(Error::internal("the epochs of a worker are gone")),
        };
        *built = Some(stream.clone());
        Ok((stream, self.dues.clone()))
    }
}
