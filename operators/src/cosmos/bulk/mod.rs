//! Bulk writes: many documents in one request, each in its order, as fast as the container takes them.
//!
//! ```text
//!     submit(group)              released                      batches                 network, not here
//!     ----------> KeyOrder --------------> Partition (queue + Pace) ----> Output::Send ----------+
//!                 a chain for              one for each physical                                 |
//!                 each document            partition, by RoutingMap                              |
//!                    ^                          ^ again, later, adrift                           |
//!                    | done                     |                                                |
//!     Finished <-- Groups <-------------- Classifier <---- answered, lost <----------------------+
//! ```
//!
//! [`machine`] is the whole protocol, without clock, network or tasks: calls go in, [`Output`](output::Output)s come out,
//! times are `Duration`s since any one start, and randomness is an argument. So the same calls always end the same way, and a
//! test can be any network. The [`driver`] above it is a loop of one task for each writer, where all requests end; callers
//! hold a [`BulkWriter`](writer::BulkWriter), which computes where a document belongs before it hands it over:
//!
//! ```text
//!     loop {
//!         let wake = machine.poll(now, &mut outputs);       // after every call, and at `wake`
//!         act on each output;                               // Send: a task that ends in answered or lost, exactly once
//!         wait for: a call of the writer | the end of a request | a map, a letter | `wake`
//!     }
//! ```
//!
//! # Rules
//!
//! 1. An operation is in exactly one place: in its chain, ready in the queue of its partition (or waiting by itself, or for a
//!    map), in flight, or on its way into the dead letters.
//! 2. Of the operations with one order key only the first is released, until it is done. So a document has at most one write
//!    in flight, and retries keep their place.
//! 3. With `coalesce`, an unconditional upsert or delete gives its place to a newer one of its document, unless it is in
//!    flight or may have had an effect. It is acknowledged with the newer one, never sooner. If the newer one is refused for
//!    good, neither is written.
//! 4. After an attempt that may have had an effect (no answer, an answer that cannot be read, 408, 5xx) the same content is
//!    repeated, but nothing else is sent for that document until the attempt can have no effect any more. The time counts
//!    from when we learn of the end: only then is it sure that nothing of the request is still on its way.
//! 5. An operation is routed by the newest map. When the service says that a range has changed, that range waits for a new
//!    map; the others go on.
//! 6. Queue, pace and pauses are each partition's own. In common are only the number of requests, which partitions take in
//!    turn, and the memory: a partition gets at most half of that, see [`Admission`](admission::Admission).
//! 7. What fails as a whole pauses its partition, and goes back to the head of the queue. What fails by itself waits by itself.
//!    A request that is refused as a whole is halved until the operation that is to blame is alone.
//! 8. Throttling, rerouting and passing faults are repeated without limit. Nothing is dropped: every operation ends in a
//!    count of its group's [`Summary`](operation::Summary).
//!
//! # Groups
//!
//! Whoever submits gets one answer for all operations of a call: a group has counters, and there is nothing for each
//! document. A group of one operation also tells its etag. A caller that has gone withdraws its group; a fence that closes,
//! or a poison document under [`Poison::Fail`](config::Poison::Fail), ends everything: groups then finish as the requests in
//! flight end, the rest counted as unwritten, and among those the uncertain ones that may have happened.
//!
//! # Limits
//!
//! Nothing here gives up after a time: [`watchdog`] only says that nothing gets through. A writer's budget is its own: several
//! writers of one container share fairly, but no budget between them. TLS was never run against the service.

mod admission;
mod answer;
mod calls;
mod check;
pub(crate) mod classify;
pub(crate) mod config;
mod driver;
mod encode;
mod epk;
pub(crate) mod flow;
mod gate;
mod groups;
mod letters;
pub(crate) mod machine;
pub(crate) mod metrics;
mod observe;
pub(crate) mod operation;
mod order;
pub(crate) mod output;
pub(crate) mod partition;
mod ranges;
mod routes;
pub(crate) mod routing;
mod sdk;
mod stop;
mod watchdog;
pub(crate) mod wire;
pub(crate) mod writer;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
