//! What a record costs that travels between processes: encoded and decoded, as timely does it.
//!
//! ```text
//! cargo bench --bench exchange
//! cargo bench --bench exchange --features abomonation
//! ```
//!
//! - `bincode`: the typed row of a flight, as an arrangement exchanges it: `((key, value), time, difference)`.
//! - `json_body`: a document of 250 bytes on its way from the source, which travels as its JSON and is decoded again. The row is
//!   three fields of it; so this has what the source's worker does in the other case, and does not do twice here.
//! - `bincode_channel` and `abomonation`, with that feature: the same rows from one thread to another through the binary channels
//!   of timely's communication, processor time of both: timely 0.31 with bincode beside timely 0.12, the last
//!   that had abomonation, with the rows taken out of the message by cloning, as whoever keeps them must. Compare
//!   these two with each other: besides the codec they have the queues in them.
//!
//! Each is the median of rounds, in turns. The last line is one JSON object.

use std::hint::black_box;
use std::time::Instant;

use serde::Serialize;
use tidefeed_benches::Outcome;
use tidefeed_benches::flights::{Flight, flight, mixed};
use tidefeed_benches::stats::{median, rounded};
use tidefeed_operators::portable::Portable;
use tidefeed_operators::source::DocumentKey;
use tidefeed_operators::source::rows::Upsert;
use timely::bytes::arc::BytesMut;
use timely::dataflow::channels::ContainerBytes;

/// Records of a message: timely's own for a row of this size.
const BATCH: usize = 128;
const BATCHES: usize = 8;
const REPEATS: usize = 100;
const ROUNDS: usize = 15;

/// What `map(|flight| (flight.carrier, (flight.id, flight.delay)))` makes an arrangement exchange.
type Row = ((String, (String, i64)), u64, isize);

/// The last line of the bench.
#[derive(Serialize)]
struct Figures {
    bincode_ns_per_record: f64,
    json_body_ns_per_record: f64,
    bincode_bytes_per_record: f64,
    json_body_bytes_per_record: f64,
    #[cfg(feature = "abomonation")]
    #[serde(flatten)]
    channels: channels::Figures,
}

fn rows() -> Vec<Vec<Row>> {
    let row = |number: usize| {
        let flight = decoded(number);
        (
            (flight.carrier, (flight.id, flight.delay)),
            1_700_000_000_000,
            1,
        )
    };
    batches(row)
}

fn bodies() -> Vec<Vec<Upsert<Flight>>> {
    let upsert = |number: usize| {
        let record = flight(number as u64, mixed(number as u64) % 100_000);
        let body = record.body.map(Portable::Body);
        (
            DocumentKey::from(record.key.as_ref()),
            body,
            1_700_000_000_000,
        )
    };
    batches(upsert)
}

fn decoded(number: usize) -> Flight {
    let record = flight(number as u64, mixed(number as u64) % 100_000);
    serde_json::from_slice(&record.body.unwrap_or_default()).expect("a flight is JSON")
}

fn batches<T>(make: impl Fn(usize) -> T) -> Vec<Vec<T>> {
    let batch = |batch: usize| (0..BATCH).map(|at| make(batch * BATCH + at)).collect();
    (0..BATCHES).map(batch).collect()
}

/// One encoding and one decoding of each batch. Returns the bytes.
fn over_the_wire<C: ContainerBytes>(batches: &[C]) -> usize {
    let mut bytes = 0;
    for batch in batches {
        let length = batch.length_in_bytes();
        let mut wire = Vec::with_capacity(length);
        batch.into_bytes(&mut wire);
        assert_eq!(wire.len(), length, "timely writes what it has measured");
        bytes += length;
        black_box(C::from_bytes(BytesMut::from(wire).freeze()));
    }
    bytes
}

/// Nanoseconds for each record.
fn timed<C: ContainerBytes>(batches: &[C]) -> f64 {
    let began = Instant::now();
    for _ in 0..REPEATS {
        over_the_wire(batches);
    }
    began.elapsed().as_nanos() as f64 / (REPEATS * BATCHES * BATCH) as f64
}

fn main() -> Outcome {
    let (rows, bodies) = (rows(), bodies());
    let per_record = |bytes: usize| rounded(bytes as f64 / (BATCHES * BATCH) as f64);
    let (row_bytes, body_bytes) = (over_the_wire(&rows), over_the_wire(&bodies));
    let (mut of_rows, mut of_bodies) = (Vec::new(), Vec::new());
    #[cfg(feature = "abomonation")]
    let mut channels = channels::Rounds::default();
    for _ in 0..ROUNDS {
        of_rows.push(timed(&rows));
        of_bodies.push(timed(&bodies));
        #[cfg(feature = "abomonation")]
        channels.measure(&rows)?;
    }
    let figures = Figures {
        bincode_ns_per_record: rounded(median(&of_rows)),
        json_body_ns_per_record: rounded(median(&of_bodies)),
        bincode_bytes_per_record: per_record(row_bytes),
        json_body_bytes_per_record: per_record(body_bytes),
        #[cfg(feature = "abomonation")]
        channels: channels.figures(&rows),
    };
    println!("{}", serde_json::to_string(&figures)?);
    Ok(())
}

/// From one thread to another through timely's binary channels. All `unsafe` that abomonation takes is in that crate.
#[cfg(feature = "abomonation")]
mod channels {
    use std::sync::Barrier;
    use std::time::Duration;

    use abomonation_channels::allocator::zero_copy::allocator_process::ProcessBuilder;
    use parking_lot::Mutex;
    use tidefeed_benches::cpu::processor_time;
    use timely::Bincode;
    use timely::communication::Config;

    use super::{BATCH, BATCHES, Outcome, REPEATS, Row, Serialize, black_box, median, rounded};

    #[derive(Serialize)]
    pub struct Figures {
        bincode_channel_ns_per_record: f64,
        abomonation_ns_per_record: f64,
        abomonation_bytes_per_record: f64,
    }

    #[derive(Default)]
    pub struct Rounds {
        bincode: Vec<f64>,
        abomonation: Vec<f64>,
    }

    /// Worker 0 sends every batch as often as is asked, and worker 1 takes them. Returns the processor time of a record.
    /// The two versions have the same names, so the same text is for both.
    macro_rules! sent {
        ($initialize_from:path, $builders:expr, $rows:expr, $wrap:expr, $take:expr) => {{
            // Made before the clock runs; what is sent is gone.
            let made = (0..REPEATS).flat_map(|_| $rows.to_vec());
            let made: Mutex<Vec<Vec<Row>>> = Mutex::new(made.collect());
            let before = processor_time(std::process::id())?;
            let (tell, end) = std::sync::mpsc::channel::<Duration>();
            let tell = Mutex::new(tell);
            // The time of a thread that has ended is not counted any more.
            let both = Barrier::new(2);
            let workers = $initialize_from($builders, Box::new(()), move |mut allocator| {
                let (mut senders, mut receiver) = allocator.allocate(0);
                if allocator.index() == 0 {
                    for batch in std::mem::take(&mut *made.lock()) {
                        senders[1].send($wrap(batch));
                        senders[1].done();
                        allocator.release();
                    }
                } else {
                    let mut awaited = REPEATS * BATCHES;
                    while awaited > 0 {
                        allocator.receive();
                        while let Some(message) = receiver.recv() {
                            black_box($take(message));
                            awaited -= 1;
                        }
                        allocator.release();
                        allocator.await_events(Some(Duration::from_millis(1)));
                    }
                    let now = processor_time(std::process::id()).unwrap_or_default();
                    let _ = tell.lock().send(now);
                }
                both.wait();
            })?;
            let now = end.recv()?;
            drop(workers);
            (now - before).as_nanos() as f64 / (REPEATS * BATCHES * BATCH) as f64
        }};
    }

    impl Rounds {
        pub fn measure(&mut self, rows: &[Vec<Row>]) -> Outcome {
            let (builders, _nothing) = Config::ProcessBinary(2).try_build()?;
            self.bincode.push(sent!(
                timely::communication::initialize_from,
                builders,
                rows,
                Bincode::from,
                |message: Bincode<Vec<Row>>| message.payload
            ));
            self.abomonation.push({
                use abomonation_channels::Allocate as _;
                sent!(
                    abomonation_channels::initialize_from,
                    ProcessBuilder::new_vector(2),
                    rows,
                    abomonation_channels::Message::from_typed,
                    |message: abomonation_channels::Message<Vec<Row>>| Vec::clone(&message)
                )
            });
            Ok(())
        }

        pub fn figures(&self, rows: &[Vec<Row>]) -> Figures {
            let bytes = |batch: &Vec<Row>| {
                abomonation_channels::Message::from_typed(batch.clone()).length_in_bytes()
            };
            let bytes: usize = rows.iter().map(bytes).sum();
            Figures {
                bincode_channel_ns_per_record: rounded(median(&self.bincode)),
                abomonation_ns_per_record: rounded(median(&self.abomonation)),
                abomonation_bytes_per_record: rounded(bytes as f64 / (BATCHES * BATCH) as f64),
            }
        }
    }
}
