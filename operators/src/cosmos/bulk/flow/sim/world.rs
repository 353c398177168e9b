//! Writers, partitions and the time that requests take: a world without a clock.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::super::{Flow, FlowConfig, Permit, Seen, Sent};
use super::outcome::{Outcome, Record};
use super::server::{Server, Shape};

/// One writer to one partition.
pub(super) struct WriterPlan {
    pub(super) server: usize,
    /// Which pool of connections it draws from.
    pub(super) pool: usize,
    pub(super) from_s: f64,
    pub(super) config: FlowConfig,
    pub(super) reference: Option<f64>,
}

/// What happens.
pub(super) struct Plan {
    pub(super) shape: Shape,
    /// The limit of each partition.
    pub(super) limits: Vec<f64>,
    /// When which partition gets another limit.
    pub(super) changes: Vec<(f64, usize, f64)>,
    /// The shortest and the longest round trip, in milliseconds.
    pub(super) round_trip_ms: (f64, f64),
    pub(super) writers: Vec<WriterPlan>,
    /// How many connections each pool has.
    pub(super) pools: Vec<usize>,
    pub(super) until_s: f64,
    pub(super) seed: u64,
}

enum Event {
    Poll(usize),
    Arrive(usize, Sent, Vec<f64>, u64),
    Answer(usize, Sent, Seen),
    Change(usize, f64),
}

struct Writer {
    plan: WriterPlan,
    flow: Flow,
    queue: VecDeque<f64>,
    polled_at: Option<u64>,
}

struct World {
    now: u64,
    random: fastrand::Rng,
    /// By time; the number keeps those of one moment apart, in the order in which they were made.
    events: BTreeMap<(u64, u64), Event>,
    made: u64,
    servers: Vec<Server>,
    writers: Vec<Writer>,
    free: Vec<usize>,
    round_trip_us: (f64, f64),
    outcome: Outcome,
}

fn micros(seconds: f64) -> u64 {
    (seconds * 1e6) as u64
}

/// Lets it happen.
pub(super) fn run(plan: Plan) -> Outcome {
    let mut world = World {
        now: 0,
        random: fastrand::Rng::with_seed(plan.seed),
        events: BTreeMap::new(),
        made: 0,
        servers: plan
            .limits
            .iter()
            .map(|limit| Server::new(plan.shape, *limit))
            .collect(),
        writers: Vec::new(),
        free: plan.pools,
        round_trip_us: (plan.round_trip_ms.0 * 1e3, plan.round_trip_ms.1 * 1e3),
        outcome: Outcome::default(),
    };
    for (index, writer) in plan.writers.into_iter().enumerate() {
        let from = Duration::from_secs_f64(writer.from_s);
        world.at(micros(writer.from_s), Event::Poll(index));
        world.writers.push(Writer {
            flow: Flow::new(writer.config.clone(), writer.reference, from),
            plan: writer,
            queue: VecDeque::new(),
            polled_at: Some(micros(from.as_secs_f64())),
        });
    }
    for (at, server, limit) in plan.changes {
        world.at(micros(at), Event::Change(server, limit));
    }
    world.run(micros(plan.until_s));
    world.outcome
}

impl World {
    fn at(&mut self, at: u64, event: Event) {
        self.made += 1;
        self.events.insert((at, self.made), event);
    }

    fn run(&mut self, until: u64) {
        while let Some(((at, _), event)) = self.events.pop_first() {
            if at >= until {
                break;
            }
            self.now = at;
            match event {
                // One that an earlier one has overtaken is nothing any more.
                Event::Poll(writer) if self.writers[writer].polled_at != Some(at) => {}
                Event::Poll(writer) => {
                    self.writers[writer].polled_at = None;
                    self.poll(writer);
                }
                Event::Arrive(writer, sent, costs, way_back) => {
                    self.arrive(writer, sent, costs, way_back);
                }
                Event::Answer(writer, sent, seen) => {
                    let now = Duration::from_micros(self.now);
                    let pool = self.writers[writer].plan.pool;
                    self.writers[writer].flow.answered(now, sent, &seen);
                    self.free[pool] += 1;
                    let first = self.random.usize(..self.writers.len());
                    for index in 0..self.writers.len() {
                        let other = (first + index) % self.writers.len();
                        if self.writers[other].plan.pool == pool
                            && now.as_secs_f64() >= self.writers[other].plan.from_s
                        {
                            self.poll(other);
                        }
                    }
                }
                Event::Change(server, limit) => self.servers[server].set_limit(limit, self.now),
            }
        }
    }

    fn poll(&mut self, index: usize) {
        let now = Duration::from_micros(self.now);
        loop {
            let pool = self.writers[index].plan.pool;
            if self.free[pool] == 0 {
                return;
            }
            match self.writers[index].flow.permit(now) {
                Permit::AwaitAnswer => return,
                Permit::Wait(wait) => {
                    self.outcome.last_wait_s = now.as_secs_f64();
                    // Timers fire up to 2 ms late, and now and then the machine is busy with something else.
                    let late = if self.random.u32(..200) == 0 {
                        self.random.u64(..15_000)
                    } else {
                        self.random.u64(..2_000)
                    };
                    let at = self.now + wait.as_micros() as u64 + 1 + late;
                    if self.writers[index]
                        .polled_at
                        .is_none_or(|polled| polled > at)
                    {
                        self.writers[index].polled_at = Some(at);
                        self.at(at, Event::Poll(index));
                    }
                    return;
                }
                Permit::Go { max_ops, max_bytes } => {
                    self.free[pool] -= 1;
                    self.send(index, max_ops, max_bytes);
                }
            }
        }
    }

    fn send(&mut self, index: usize, max_ops: usize, max_bytes: usize) {
        let writer = &mut self.writers[index];
        let mut costs = Vec::new();
        let mut bytes = 0;
        while costs.len() < max_ops {
            let mean = if self.random.bool() { 5.5 } else { 11.0 };
            let cost = writer
                .queue
                .pop_front()
                .unwrap_or_else(|| mean * (0.8 + 0.4 * self.random.f64()));
            bytes += (cost * 50.0) as usize;
            costs.push(cost);
        }
        assert!(bytes <= max_bytes);
        let now = Duration::from_micros(self.now);
        let sent = writer.flow.sent(now, costs.len(), bytes);
        let (least, most) = self.round_trip_us;
        let trip = least + (most - least) * self.random.f64();
        let there = (trip * (0.3 + 0.4 * self.random.f64())) as u64;
        let back = trip as u64 - there;
        self.at(self.now + there, Event::Arrive(index, sent, costs, back));
    }

    fn arrive(&mut self, index: usize, sent: Sent, costs: Vec<f64>, way_back: u64) {
        let (now, writer) = (self.now, &mut self.writers[index]);
        let server = &mut self.servers[writer.plan.server];
        let (mut charge, mut throttled_ops, mut retry_after) = (0.0, 0, 0);
        for cost in &costs {
            match server.operation(now, *cost) {
                Ok(()) => charge += cost,
                Err(wait) => {
                    throttled_ops += 1;
                    retry_after = retry_after.max(wait);
                    writer.queue.push_back(*cost);
                }
            }
        }
        self.outcome.records.push(Record {
            arrived_s: now as f64 / 1e6,
            writer: index,
            server: writer.plan.server,
            ru: charge,
            ops: costs.len(),
            throttled_ops,
        });
        let seen = Seen {
            charge: Some(charge),
            throttled_ops,
            retry_after: Duration::from_micros(retry_after),
            ..Seen::default()
        };
        // Ten microseconds of work for an operation.
        let work = 10 * costs.len() as u64;
        self.at(now + work + way_back, Event::Answer(index, sent, seen));
    }
}
