//! What it costs that a record of a document crosses from one process to another.
//!
//! One worker makes records of flights, and another one counts them; both are in one process, or each in its own. Everything else is the
//! same: the sender reads each document, as a source does, and the receiver ends with its value. So the difference is bincode, the
//! socket with its threads, and the reading of the document once more. It is taken of the processor time of all threads of all
//! processes, for the wall clock of two processors would show only the slower side.

use std::process::{Command, Stdio};
use std::sync::Arc;

use tidefeed_operators::portable::Portable;
use tidefeed_runtime::Record;
use timely::communication::Config as Communication;
use timely::dataflow::InputHandle;
use timely::dataflow::operators::vec::Filter;
use timely::dataflow::operators::{Exchange, Input, Probe};

use super::{Children, free_addresses};
use crate::Outcome;
use crate::cpu::processor_time_of_all;
use crate::flights::{Flight, flight};

/// The argument of one process of the measurement.
const CROSSING: &str = "--crossing";
/// Records that are sent.
const RECORDS: u64 = 2_000_000;
/// Records of one epoch, and epochs that may be on their way.
const BATCH: u64 = 1000;
const AHEAD: u64 = 20;
/// Records that are made in advance, and sent again and again.
const MADE: u64 = 20_000;

/// Call early in `main`: in a process of the measurement it does its part and returns true.
///
/// # Errors
/// When the dataflow does not run.
pub fn cross_if_asked() -> Outcome<bool> {
    let arguments: Vec<String> = std::env::args().collect();
    let Some(at) = arguments.iter().position(|argument| argument == CROSSING) else {
        return Ok(false);
    };
    let process = arguments[at + 1].parse()?;
    let addresses = arguments[at + 2].split(',').map(str::to_owned).collect();
    let nanoseconds = run(Communication::Cluster {
        threads: 1,
        process,
        addresses,
        report: false,
        zerocopy: false,
    })?;
    println!("{nanoseconds}");
    Ok(true)
}

/// Processor time of a record that crosses, less that of one that stays in its process, in nanoseconds.
///
/// # Errors
/// When a process fails.
pub fn ns_per_record() -> Outcome<f64> {
    let program = std::env::current_exe()?;
    let one = |arguments: &[String]| -> Outcome<Children> {
        let child = Command::new(&program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        Ok(Children(vec![child]))
    };
    let within = run(Communication::Process(2))?;
    let addresses = free_addresses(2)?.join(",");
    let arguments = |process: usize| [CROSSING.to_owned(), process.to_string(), addresses.clone()];
    let mut processes = Vec::new();
    for process in 0..2 {
        processes.push(one(&arguments(process))?);
    }
    let mut across = 0.0;
    for mut process in processes {
        let child = process.0.pop().ok_or("it was started")?;
        let output = child.wait_with_output()?;
        if !output.status.success() {
            return Err(format!("a process ended with {}", output.status).into());
        }
        // timely says before that it waits for connections.
        let said = String::from_utf8(output.stdout)?;
        let nanoseconds = said.lines().last().ok_or("it said nothing")?;
        across += nanoseconds.parse::<f64>()?;
    }
    let each = |nanoseconds: f64| nanoseconds / RECORDS as f64;
    eprintln!(
        "exchange: {:.0} ns of processor time for a record that crosses processes, {:.0} within one",
        each(across),
        each(within)
    );
    Ok(each(across - within))
}

/// Sends all records from worker 0 to worker 1, and returns the processor time of this process meanwhile, in nanoseconds.
fn run(communication: Communication) -> Outcome<f64> {
    let crosses = matches!(communication, Communication::Cluster { .. });
    let made: Arc<[Record]> = (0..MADE).map(|number| flight(number, number)).collect();
    let used = || processor_time_of_all(std::process::id());
    let config = timely::Config {
        communication,
        worker: timely::WorkerConfig::default(),
    };
    let before = used()?;
    let workers = timely::execute(config, move |worker| {
        let mut input = InputHandle::new();
        let probe = worker.dataflow(|scope| {
            scope
                .input_from(&mut input)
                .exchange(|_: &Portable<Flight>| 1)
                // Looks at each, and keeps none.
                .filter(|flight: &Portable<Flight>| match flight {
                    Portable::Here(flight) => flight.delay < 0,
                    Portable::Body(_) => true,
                })
                .probe()
                .0
        });
        if worker.index() == 0 {
            for first in (0..RECORDS).step_by(BATCH as usize) {
                for number in first..first + BATCH {
                    let record = &made[(number % MADE) as usize];
                    let body = record.body.clone().unwrap_or_default();
                    let read: Flight = serde_json::from_slice(&body).expect("a flight");
                    input.send(match crosses {
                        true => Portable::Body(body),
                        false => Portable::Here(read),
                    });
                }
                input.advance_to(first + BATCH);
                let behind = first.saturating_sub(AHEAD * BATCH);
                while probe.less_than(&behind) {
                    worker.step_or_park(None);
                }
            }
        }
        input.close();
        while !probe.done() {
            worker.step_or_park(None);
        }
    })?;
    workers.join().into_iter().collect::<Result<Vec<_>, _>>()?;
    let used = used()?.saturating_sub(before);
    Ok(used.as_secs_f64() * 1e9)
}
