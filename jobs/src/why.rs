//! `why-stalled`: asks a running job what holds it.

use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command};
use tidefeed_runtime::stall::Explanation;
use tidefeed_runtime::{Context, ErrorKind, Result};

use crate::asking::Asking;
use crate::config::HttpConfig;

/// The subcommand.
pub(crate) const WHY_STALLED: &str = "why-stalled";

/// What the command exits with when the job is stalled. No kind of error has it.
const STALLED: u8 = 20;

pub(crate) fn command() -> Command {
    Command::new(WHY_STALLED)
        .about(
            "Ask a running job what holds it, and print that; exit with 0 when it is not stalled, with 20 when it is, \
             and with 4 when nobody answers. The job is found at --http, else at http.listen in the configuration, else at 127.0.0.1:9191",
        )
        .arg(
            Arg::new("json")
                .long("json")
                .action(ArgAction::SetTrue)
                .help("Print the answer as JSON"),
        )
}

/// Asks and prints.
///
/// # Errors
/// `Config` when there is no address, `Unreachable` when nobody answers, `Denied` when the token is not the job's.
pub(crate) fn run(matches: &ArgMatches, config: &HttpConfig) -> Result<ExitCode> {
    let asking = Asking::new(config)?;
    let body = asking.ask("/stalled")?;
    let found: Explanation =
        serde_json::from_slice(&body).context(ErrorKind::Unreachable, || asking.other_version())?;
    if matches.get_flag("json") {
        let text = serde_json::to_string_pretty(&found);
        println!("{}", text.context(ErrorKind::Internal, || "no JSON form")?);
    } else {
        println!("{found}");
    }
    Ok(ExitCode::from(exit_code(&found)))
}

fn exit_code(found: &Explanation) -> u8 {
    if found.stalled { STALLED } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_says_whether_it_is_stalled() {
        let health = crate::health::Health::new(HttpConfig::default());
        let mut found = health.explain();
        assert_eq!(exit_code(&found), 0);
        found.stalled = true;
        assert_eq!(exit_code(&found), STALLED);
        let all = [
            ErrorKind::Config,
            ErrorKind::PeerLost,
            ErrorKind::Unreachable,
        ];
        assert!(all.iter().all(|kind| kind.exit_code() != STALLED));
    }
}
