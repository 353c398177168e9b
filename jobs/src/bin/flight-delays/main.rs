//! Real flights through a change feed into four views.
//!
//! ```text
//! data -> lifecycle -> player ==> container flights ==> change feed ==> views ==> four containers
//!                                        \-> oracle ------> verify <------/
//! ```
//!
//! - [`data`] reads the flights and the small tables, [`lifecycle`] makes each flight's life of them in time order.
//! - [`player`] writes it to the source container, resumes where [`mark`] says, and keeps each document's order.
//! - [`views`] are the dataflow; [`rows`] are the documents that come out.
//! - [`oracle`] recomputes the views from the source container, [`verify`] compares, [`report`] prints.
//! - [`run`] puts them together.

mod bands;
mod cli;
mod code;
mod csv_table;
mod data;
mod display;
mod input;
mod lifecycle;
mod mark;
mod model;
mod moment;
mod oracle;
mod player;
mod report;
mod rows;
mod run;
#[cfg(test)]
mod testing;
mod text;
mod text_table;
mod verify;
mod views;

use std::process::ExitCode;

use clap::Parser;

/// A change is a handful of small allocations; the README says what was measured.
#[cfg(not(target_env = "msvc"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    tidefeed::prepare_process();
    let args = cli::Args::parse();
    match run::run(&args) {
        Ok(true) => ExitCode::SUCCESS,
        // The verdict has been printed, with the differences.
        Ok(false) => ExitCode::from(10),
        Err(error) => {
            eprintln!("flight-delays: {}", error.report());
            ExitCode::from(error.kind().exit_code())
        }
    }
}
