//! Which operator met what does not travel, and what goes in and out of it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use timely::logging::{StartStop, TimelyEvent, TimelyEventBuilder};
use timely::worker::Worker;

use crate::graph;

/// A channel's ends, as addresses of operators, and the type of what goes through it.
struct Channel {
    source: Vec<usize>,
    target: Vec<usize>,
    carries: String,
}

#[derive(Default)]
struct Seen {
    /// Address and name of each operator.
    operators: BTreeMap<usize, (Vec<usize>, String)>,
    channels: Vec<Channel>,
    /// Operators that are being run, the innermost last.
    running: Vec<usize>,
}

/// What a worker has built, and what it runs.
pub(super) struct Met(Rc<RefCell<Seen>>);

impl Met {
    /// Records what is built and run on this worker from now on.
    pub(super) fn record(worker: &Worker) -> Met {
        let seen = Rc::new(RefCell::new(Seen::default()));
        let recorded = Rc::clone(&seen);
        if let Some(mut log) = worker.log_register() {
            log.insert::<TimelyEventBuilder, _>("timely", move |_time, events| {
                let mut seen = recorded.borrow_mut();
                for (_, event) in events.iter_mut().flat_map(|events| events.drain(..)) {
                    seen.note(event);
                }
            });
        }
        Met(seen)
    }

    /// A panic's message, with the operator that is running and what it exchanges.
    pub(super) fn describe(&self, worker: &Worker, message: &str) -> String {
        graph::flush(worker);
        let seen = self.0.borrow();
        let running = seen.running.last().and_then(|id| seen.operators.get(id));
        let Some((address, name)) = running else {
            return message.to_owned();
        };
        // What cannot be sent is on its way out, what cannot be read on its way in.
        let sends = message.contains("serialized_size") || message.contains("serialize_into");
        let end = |channel: &&Channel| match sends {
            true => channel.source == *address,
            false => channel.target == *address,
        };
        let mut carries: Vec<_> = seen.channels.iter().filter(end).collect();
        carries.dedup_by(|a, b| a.carries == b.carries);
        let types: Vec<_> = carries.iter().map(|c| c.carries.as_str()).collect();
        let way = if sends { "out of" } else { "into" };
        format!("{} {way} operator {name}: {message}", types.join(" or "))
    }
}

impl Seen {
    fn note(&mut self, event: TimelyEvent) {
        match event {
            TimelyEvent::Operates(operator) => {
                let known = (operator.addr, operator.name);
                self.operators.insert(operator.id, known);
            }
            TimelyEvent::Channels(channel) => {
                let at = |(index, _port)| [channel.scope_addr.as_slice(), &[index]].concat();
                self.channels.push(Channel {
                    source: at(channel.source),
                    target: at(channel.target),
                    carries: short(&channel.typ),
                });
            }
            TimelyEvent::Schedule(schedule) => match schedule.start_stop {
                StartStop::Start => self.running.push(schedule.id),
                StartStop::Stop => {
                    self.running.pop();
                }
            },
            _ => {}
        }
    }
}

/// A type's name without the modules of well-known ones.
fn short(name: &str) -> String {
    name.replace("alloc::vec::", "")
        .replace("alloc::string::", "")
}
