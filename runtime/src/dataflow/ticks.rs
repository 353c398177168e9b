//! The operator in which epochs begin.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use timely::dataflow::operators::generic::operator::source;
use timely::dataflow::operators::vec::Broadcast;
use timely::dataflow::{Scope, StreamVec};

use crate::failpoint::Step;
use crate::ticker::{Decision, Ticker};
use crate::{Epoch, EpochConfig, Ledger};

/// A stream with one record, the epoch itself, at each epoch, on every worker. Worker 0 mints; `last` is the newest epoch
/// that an earlier generation sealed or committed, and every new epoch is beyond it.
///
/// The stream ends when the ledger says that the input is drained, after one closing epoch: it takes up the positions of
/// ranges that moved without a record, so that a bounded run leaves none of them behind.
pub fn ticks<'scope>(
    scope: Scope<'scope, u64>,
    config: &EpochConfig,
    last: Epoch,
    ledger: Ledger,
) -> StreamVec<'scope, u64, u64> {
    let mut ticker = Ticker::new(config, last);
    source(scope, "Ticks", move |cap, info| {
        let activator = scope.activator_for(info.address.clone());
        // Only worker 0 keeps the right to mint, and only it is to be woken; dropped when the input is drained.
        let mut mint_cap = (scope.index() == 0).then_some(cap);
        if let Some(cap) = &mut mint_cap {
            cap.downgrade(&(last.0 + 1));
            ledger
                .ticker_waker()
                .attach(scope.worker().sync_activator_for(info.address.to_vec()));
        }
        let started = Instant::now();
        let mut alarm: Option<Instant> = None;
        let mut closing = false;
        move |output| {
            let Some(cap) = &mut mint_cap else { return };
            let drained = ledger.drained();
            if ledger.stopped() || drained && closing {
                mint_cap = None;
                return;
            }
            let now = Instant::now();
            let mut observed = ledger.observe();
            observed.data_waiting |= drained;
            match ticker.poll(now - started, unix_ms(), observed) {
                Decision::Mint(epoch) => {
                    closing = drained;
                    ledger.failpoints().before(Step::Tick);
                    ledger.minted(epoch, now);
                    output.session(&cap.delayed(&epoch.0)).give(epoch.0);
                    cap.downgrade(&(epoch.0 + 1));
                    ledger.failpoints().after(Step::Tick);
                    // The seal and the acknowledgement of this epoch wake the ticker; so does the next page.
                    activator.activate();
                }
                Decision::WaitFor(delay) => {
                    // One alarm at a time: every wake that finds data pending would add one more.
                    if alarm.is_none_or(|at| at <= now || at > now + delay) {
                        alarm = Some(now + delay);
                        activator.activate_after(delay);
                    }
                }
                Decision::Blocked => {}
            }
        }
    })
    .broadcast()
}

/// The wall clock in milliseconds since the UNIX epoch; 0 if it is set before that.
fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
}
