//! Reads timely's log on a worker's own thread, adds it up, and lets others see the sums a few times a second.

use std::sync::Arc;
use std::time::Duration;

use timely::logging::{ParkEvent, TimelyEvent, TimelyEventBuilder};
use timely::worker::Worker;

use super::graph::Built;
use super::sums::Sums;
use super::{Figures, Watch};

/// How old the sums become, at most, that others see of a worker that steps: larger means staler, smaller more copies of them.
const PUBLISH_NS: u64 = 200_000_000;

/// What becomes of a worker's log.
struct Log {
    watch: Arc<Watch>,
    sums: Sums,
    built: Built,
    /// Something was built that others do not see yet.
    grown: bool,
    published_ns: u64,
}

/// Watches what `worker` builds and runs from now on, in a process with `here` workers. Nothing if the figures are off.
pub(crate) fn register(worker: &Worker, here: usize, figures: &Figures) {
    if !figures.is_on() {
        return;
    }
    let index = worker.index();
    let here = here.max(1);
    let mut log = Log {
        watch: figures.watch(index),
        sums: Sums::new(index, index - index % here, here),
        built: Built::default(),
        grown: false,
        published_ns: 0,
    };
    if let Some(mut register) = worker.log_register() {
        register.insert::<TimelyEventBuilder, _>("timely", move |now, events| match events {
            Some(events) => {
                events.iter().for_each(|(at, event)| log.note(*at, event));
                events.clear();
                log.publish(*now, false);
            }
            None => log.publish(*now, log.grown),
        });
    }
}

fn nanos(time: Duration) -> u64 {
    time.as_secs() * 1_000_000_000 + u64::from(time.subsec_nanos())
}

impl Log {
    #[inline]
    fn note(&mut self, at: Duration, event: &TimelyEvent) {
        match event {
            TimelyEvent::Schedule(event) => self.sums.schedule(nanos(at), event),
            TimelyEvent::Messages(event) => self.sums.message(event),
            TimelyEvent::Park(ParkEvent::Park(_)) => self.sums.park(nanos(at)),
            TimelyEvent::Park(ParkEvent::Unpark) => self.sums.unpark(nanos(at)),
            TimelyEvent::Operates(event) => {
                self.built.operator(event);
                self.grown = true;
            }
            TimelyEvent::Channels(event) => {
                self.built.channel(event);
                self.grown = true;
            }
            TimelyEvent::Shutdown(event) => self.sums.shutdown(event.id),
            _ => {}
        }
    }

    /// Lets others see the sums, at once or if they have not for a while.
    fn publish(&mut self, now: Duration, at_once: bool) {
        let now_ns = nanos(now);
        if at_once || now_ns.saturating_sub(self.published_ns) >= PUBLISH_NS {
            self.sums.pass(now_ns);
            self.show();
        }
    }

    fn show(&mut self) {
        self.published_ns = self.sums.at_ns;
        let mut seen = self.watch.seen.lock();
        seen.sums.clone_from(&self.sums);
        if std::mem::take(&mut self.grown) {
            seen.graph = Arc::new(self.built.graph());
        }
    }
}

/// The last of it: the worker has left its dataflow.
impl Drop for Log {
    fn drop(&mut self) {
        self.show();
    }
}
