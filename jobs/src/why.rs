//! `why-stalled`: asks a running job what holds it.

use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command};
use tidefeed_runtime::stall::Explanation;
use tidefeed_runtime::{Context, Error, ErrorKind, Result};

use crate::config::{HttpConfig, http_address};
use crate::http::ask;

/// The subcommand.
pub(crate) const WHY_STALLED: &str = "why-stalled";

/// What the command exits with when the job is stalled. No kind of error has it.
const STALLED: u8 = 20;

pub(crate) fn command() -> Command {
    Command::new(WHY_STALLED)
        .about(
            "Ask a running job what holds it, and print that; exit with 0 when it is not stalled, with 20 when it is, \
             and with 4 when nobody answers. The job is found at --http, else at http.listen in the configuration",
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
    let Some(listen) = &config.listen else {
        let what = "where is the job? give --http ADDR, or http.listen in the configuration";
        return Err(Error::new(ErrorKind::Config, what));
    };
    let at = http_address(listen)?;
    let (status, body) = ask(at, "/stalled", config.token()?.as_ref())?;
    match status {
        200 => {}
        401 => {
            let what = format!(
                "the job at {at} wants its token: give it in http.token_file or in the variable {}",
                config.token_env
            );
            return Err(Error::new(ErrorKind::Denied, what));
        }
        _ => {
            let what = format!("{at} answers {status}: it is no job of this version");
            return Err(Error::new(ErrorKind::Unreachable, what));
        }
    }
    let found: Explanation = serde_json::from_slice(&body)
        .context(ErrorKind::Unreachable, || {
            format!("what {at} answers is not understood: it is a job of another version")
        })?;
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
