//! `status`: asks a running job how it does.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command};
use tidefeed_runtime::{Context, Error, ErrorKind, Result};

use super::report::{FORM, Report};
use crate::asking::Asking;
use crate::config::HttpConfig;

/// The subcommand.
pub(crate) const STATUS: &str = "status";

/// How often it asks with `--watch`: a job looks at itself as often.
const EVERY: Duration = Duration::from_secs(1);

/// Moves to the upper left and clears what is below.
const CLEAR: &str = "\u{1b}[H\u{1b}[J";

pub(crate) fn command() -> Command {
    let flag = |name: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue);
    Command::new(STATUS)
        .about(
            "Ask a running job how it does, and print it: epochs, sources and their feed ranges, sinks, processes. The job is found \
             at --http, else at http.listen in the configuration, else at 127.0.0.1:9191; it exits with 4 when nobody answers",
        )
        .arg(flag("watch").help("Ask each second, until it is interrupted"))
        .arg(flag("json").help("Print the report as JSON, on one line"))
}

/// Asks and prints.
///
/// # Errors
/// `Config` when the job is not to be asked, `Unreachable` when nobody answers, `Denied` when the token is not the job's.
pub(crate) fn run(matches: &ArgMatches, config: &HttpConfig) -> Result<ExitCode> {
    let asking = Asking::new(config)?;
    let (json, watch) = (matches.get_flag("json"), matches.get_flag("watch"));
    let clear = watch && !json && std::io::stdout().is_terminal();
    loop {
        let body = asking.ask("/status")?;
        let text = match json {
            true => String::from_utf8_lossy(&body).into_owned(),
            false => parsed(&asking, &body)?.to_string(),
        };
        println!("{}{}", if clear { CLEAR } else { "" }, text.trim_end());
        if !watch {
            return Ok(ExitCode::SUCCESS);
        }
        // Nobody wakes it.
        std::thread::park_timeout(EVERY);
    }
}

fn parsed(asking: &Asking, body: &[u8]) -> Result<Report> {
    let other = || asking.other_version();
    let report: Report = serde_json::from_slice(body).context(ErrorKind::Unreachable, other)?;
    match report.form {
        FORM => Ok(report),
        _ => Err(Error::new(ErrorKind::Unreachable, other())),
    }
}
