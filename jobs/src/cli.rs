//! The command line that every job has.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use tidefeed_runtime::checkpoint::CheckpointStore;
use tidefeed_runtime::failpoint::Failpoints;
use tidefeed_runtime::{Context, ErrorKind, Result};

use crate::build::Build;
use crate::checkpoints::{self, CHECKPOINTS};
use crate::cluster::{Role, options, role, supervise};
use crate::config::{HttpConfig, JobConfig, LogFormat, Workers};
use crate::cosmos::Cosmos;
use crate::deadletters::{self, DEADLETTERS};
use crate::flow::Flow;
use crate::job::Job;
use crate::keep::Keeper;
use crate::logs::{Identity, Logs};
use crate::rescale::{self, RESCALE};
use crate::rfc3339::parse_time;
use crate::status::watch::{self, STATUS};
use crate::why::{self, WHY_STALLED};

/// Runs a job from the command line: reads its configuration, starts it and waits for its end.
///
/// Exits with 0 when the job was asked to end and did, or with the code of the error that ended it, after one line
/// that names the thing and says what to do (see [`ErrorKind::exit_code`]).
///
/// ```no_run
/// # use serde::{Serialize, Deserialize};
/// # #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
/// # struct Order { region: String }
/// # #[derive(Clone, Serialize)]
/// # struct Region { id: String, orders: isize }
/// fn main() -> std::process::ExitCode {
///     tidefeed::main("orders", |flow| {
///         use tidefeed::prelude::*;
///         let orders = flow.change_feed::<Order>("orders")?;
///         let regions = orders.map(|order| order.region).count();
///         flow.upsert("regions", regions.map(|(id, orders)| Region { id, orders }))
///     })
/// }
/// ```
pub fn main<F>(name: &'static str, build: F) -> ExitCode
where
    F: for<'scope> Fn(&mut Flow<'scope>) -> Result<()> + Send + Sync + 'static,
{
    main_failing_at(name, Failpoints::default(), build)
}

/// The same for a program of tests, which fails where the test says.
#[doc(hidden)]
pub fn main_failing_at<F>(name: &'static str, failpoints: Failpoints, build: F) -> ExitCode
where
    F: for<'scope> Fn(&mut Flow<'scope>) -> Result<()> + Send + Sync + 'static,
{
    run(name, failpoints, Arc::new(build))
}

fn run(name: &'static str, failpoints: Failpoints, build: Build) -> ExitCode {
    tidefeed_operators::cosmos::disable_library_backtraces();
    let matches = command(name).get_matches();
    let identity = Identity::of_job(name);
    let logs = Logs::start(log_format(name, &matches), identity.clone());
    let done = match matches.subcommand() {
        Some((CHECK, of_check)) => {
            job(name, of_check, build).and_then(|job| check(job, of_check.get_flag("json")))
        }
        Some((CHECKPOINTS, of_checkpoints)) => mend(name, of_checkpoints),
        Some((DEADLETTERS, of_letters)) => letters(name, of_letters),
        Some((RESCALE, of_rescale)) => {
            store(name, of_rescale).and_then(|store| rescale::run(of_rescale, &store))
        }
        Some((WHY_STALLED, of_why)) => {
            asked(name, of_why).and_then(|config| why::run(of_why, &config))
        }
        Some((STATUS, of_status)) => {
            asked(name, of_status).and_then(|config| watch::run(of_status, &config))
        }
        _ => match role(&matches) {
            Ok(Role::Supervisor(processes)) => {
                let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
                supervise(processes, &arguments, || store(name, &matches)).map(ExitCode::from)
            }
            Ok(Role::Runner(member)) => Keeper::new(name, &matches, failpoints, build, identity)
                .and_then(|keeper| keeper.keep_up(member)),
            Err(error) => Err(error),
        },
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            logs.failed(name, &error);
            ExitCode::from(error.kind().exit_code())
        }
    }
}

/// What every binary that runs a job does first: no captured backtraces on the hot path, and logs on standard error.
///
/// The Azure SDK captures backtraces for errors that it makes internally, which `RUST_BACKTRACE=1` in the environment makes
/// costly with some of its versions (see [`tidefeed_operators::cosmos::disable_library_backtraces`]). Panics keep theirs.
pub fn prepare_process() {
    tidefeed_operators::cosmos::disable_library_backtraces();
    Logs::start(LogFormat::Text, Identity::default());
}

/// What the command line says of the log, or else the configuration. Whether that can be read at all is for those who need it.
fn log_format(name: &str, matches: &ArgMatches) -> LogFormat {
    let matches = matches.subcommand().map_or(matches, |(_, of_it)| of_it);
    match matches.get_one::<String>("log-format").map(String::as_str) {
        Some("json") => LogFormat::Json,
        Some(_) => LogFormat::Text,
        None => configuration(name, matches)
            .map_or_else(|_| LogFormat::Text, |config| config.log.format),
    }
}

fn command(name: &'static str) -> Command {
    let path = || value_parser!(PathBuf);
    Command::new(name)
        .about("A Tidefeed job: keeps views in Azure Cosmos DB equal to what they are computed from")
        .subcommand(Command::new(CHECK)
            .about("Print what a start would do, write nothing, and exit with the code that the start would give at once")
            .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("Print it as JSON")))
        .subcommand(checkpoints::command())
        .subcommand(deadletters::command())
        .subcommand(rescale::command())
        .subcommand(why::command())
        .subcommand(watch::command())
        .arg(Arg::new("config").long("config").global(true).value_name("FILE").value_parser(path()).help(format!(
            "Configuration file, TOML [default: {name}.toml]"
        )))
        .arg(Arg::new("workers").long("workers").global(true).value_name("N").value_parser(value_parser!(usize)).overrides_with("workers").help(
            "Worker threads, 1 to 256 [default: workers in the configuration, else 1]",
        ))
        .arg(Arg::new("checkpoint").long("checkpoint").global(true).value_name("DIR|URL").value_parser(value_parser!(OsString)).help(
            "Where checkpoints are: a directory, s3://bucket/prefix or az://container/prefix [default: checkpoint.directory or checkpoint.url in the configuration]",
        ))
        .arg(Arg::new("endpoint").long("endpoint").global(true).value_name("URL").help(
            "URL of the default Cosmos DB account [default: account.endpoint in the configuration]",
        ))
        .arg(Arg::new("fresh").long("fresh").global(true).action(ArgAction::SetTrue).help(
            "Start over: read every source from its configured start, whatever the checkpoint holds, and rebuild the sinks \
             whose containers hold documents",
        ))
        .arg(Arg::new("rebuild").long("rebuild").global(true).value_name("SINK").action(ArgAction::Append).help(
            "Bring the sink's container in line with its view, whatever it holds: write what differs, delete what should not \
             be there; \"all\" names every sink; may be repeated",
        ))
        .arg(Arg::new("until-caught-up").long("until-caught-up").action(ArgAction::SetTrue).help(
            "End when every change made before the start is read, written and committed",
        ))
        .arg(Arg::new("until").long("until").value_name("TIME").value_parser(parse_time).conflicts_with("until-caught-up").help(
            "End when every change made up to this time is read, written and committed; as in RFC 3339, \
             2026-01-31T00:00:00Z. It waits for the clock of this machine to be 2 s past it; what is changed meanwhile may be in the \
             views too",
        ))
        .arg(Arg::new("http").long("http").global(true).value_name("ADDR").help(
            "Show a page of how the job does at this address and port, and answer there at /healthz, /readyz, /stalled and /status; of \
             the processes that --processes starts, each at the port that is its number further on. Other addresses than 127.0.0.1 need a token; \
             \"off\" for nowhere [default: http.listen in the configuration, else 127.0.0.1:9191, or any free port where that is taken]",
        ))
        .arg(Arg::new("log-format").long("log-format").global(true).value_name("FORMAT").value_parser(["text", "json"]).help(
            "How to log on standard error: text for people, or json, an object a line [default: log.format in the configuration, else text]",
        ))
        // Given by the supervisor: which of its processes this is.
        .arg(Arg::new("http-offset").long("http-offset").hide(true).value_name("N").value_parser(value_parser!(u16)))
        .args(options())
        .after_help(
            "The account key is read from the environment, variable COSMOS_KEY unless account.key_env names another, or from the file \
             that account.key_file names; credentials for a checkpoint URL from AWS_* or AZURE_*.\n\
             Exit codes: 0 done, 1 defect, 2 configuration, 3 data, 4 unreachable, 5 denied, 6 not found, 7 checkpoint, \
             8 fenced, 9 rejected, 10 another process lost, 11 asked to go on in another shape; of why-stalled: 20 stalled.",
        )
}

/// The subcommand that starts nothing.
const CHECK: &str = "check";

/// The configuration, with what the command line says instead.
pub(crate) fn configuration(name: &str, matches: &ArgMatches) -> Result<JobConfig> {
    let path = matches
        .get_one::<PathBuf>("config")
        .cloned()
        .unwrap_or_else(|| PathBuf::from(format!("{name}.toml")));
    let mut config = JobConfig::load(&path)?;
    if let Some(workers) = matches.get_one::<usize>("workers") {
        config.workers = Workers(*workers);
    }
    if let Some(place) = matches.get_one::<OsString>("checkpoint") {
        config.checkpoint.set_location(place);
    }
    if let Some(endpoint) = matches.get_one::<String>("endpoint") {
        config.account.endpoint.clone_from(endpoint);
    }
    if let Some(listen) = matches.get_one::<String>("http") {
        config.http.listen = Some(listen.clone());
    }
    Ok(config)
}

/// The job with its configuration and the options that say how it starts.
pub(crate) fn job(name: &str, matches: &ArgMatches, build: Build) -> Result<Job> {
    let config = configuration(name, matches)?;
    let cosmos = Cosmos::of_job(&config)?;
    let rebuild = matches.get_many::<String>("rebuild").unwrap_or_default();
    Ok(Job::new(name, config, cosmos, move |flow| build(flow))
        .fresh(matches.get_flag("fresh"))
        .rebuild(rebuild))
}

/// Looks at the checkpoint, or mends it.
fn mend(name: &str, matches: &ArgMatches) -> Result<ExitCode> {
    let (config, store) = opened(name, matches)?;
    let checkpoint = &config.checkpoint;
    checkpoints::run(
        matches,
        &store,
        checkpoint.commit().retain,
        checkpoint.lease(),
    )
}

/// Looks at the dead letters, or tries them again.
fn letters(name: &str, matches: &ArgMatches) -> Result<ExitCode> {
    let (config, store) = opened(name, matches)?;
    deadletters::run(matches, &store, &config)
}

/// The store of the job's checkpoint.
fn store(name: &str, matches: &ArgMatches) -> Result<CheckpointStore> {
    opened(name, matches).map(|(_, store)| store)
}

/// The configuration, which is sound, and the store of the checkpoint that it names.
fn opened(name: &str, matches: &ArgMatches) -> Result<(JobConfig, CheckpointStore)> {
    let config = configuration(name, matches)?;
    config.validate()?;
    let store = config.checkpoint.open(name)?;
    Ok((config, store))
}

/// Where to ask a running job. With an address no configuration is needed.
fn asked(name: &str, matches: &ArgMatches) -> Result<HttpConfig> {
    let address = matches.get_one::<String>("http");
    Ok(match (configuration(name, matches), address) {
        (Ok(config), _) => config.http,
        (Err(_), Some(address)) if matches.value_source("config").is_none() => HttpConfig {
            listen: Some(address.clone()),
            ..HttpConfig::default()
        },
        (Err(error), _) => return Err(error),
    })
}

/// Prints what a start would do.
fn check(job: Job, json: bool) -> Result<ExitCode> {
    let report = job.check()?;
    if json {
        let text = serde_json::to_string_pretty(&report)
            .context(ErrorKind::Internal, || "cannot write the report as JSON")?;
        println!("{text}");
    } else {
        println!("{report}");
    }
    Ok(ExitCode::from(report.exit_code()))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        command("job").debug_assert();
    }

    #[test]
    fn options_of_a_start_may_stand_on_either_side_of_check() {
        for line in [
            "job check --json --rebuild a --rebuild b --fresh",
            "job --fresh --rebuild a --rebuild b check --json",
        ] {
            let matches = command("job").get_matches_from(line.split(' '));
            let (name, check) = matches.subcommand().expect("a subcommand");
            let rebuild: Vec<&String> = check.get_many("rebuild").expect("given").collect();
            assert_eq!(
                (name, rebuild),
                ("check", vec![&"a".to_owned(), &"b".to_owned()]),
                "{line}"
            );
            assert!(check.get_flag("json") && check.get_flag("fresh"), "{line}");
        }
        let mixed = ["job", "check", "--until-caught-up"];
        assert!(command("job").try_get_matches_from(mixed).is_err());
    }

    #[test]
    fn the_form_of_the_log_may_stand_on_either_side_of_a_subcommand() {
        for line in [
            "job --log-format json",
            "job --log-format json check",
            "job check --log-format json",
        ] {
            let matches = command("job").get_matches_from(line.split(' '));
            assert_eq!(log_format("job", &matches), LogFormat::Json, "{line}");
        }
        let none = command("job").get_matches_from(["job", "--config", "no/such.toml"]);
        assert_eq!(log_format("job", &none), LogFormat::Text);
        assert!(
            command("job")
                .try_get_matches_from(["job", "--log-format", "xml"])
                .is_err()
        );
        let config = JobConfig::parse("[log]\nformat = \"json\"\n").expect("sound");
        assert_eq!(config.log.format, LogFormat::Json);
    }

    #[test]
    fn an_end_is_a_time_and_the_only_one() {
        let parse = |line: &str| command("job").try_get_matches_from(line.split(' '));
        let matches = parse("job --until 1970-01-01T00:01:00Z").expect("a time");
        let until: &SystemTime = matches.get_one("until").expect("given");
        assert_eq!(*until, SystemTime::UNIX_EPOCH + Duration::from_secs(60));
        for wrong in [
            "job --until tomorrow",
            "job --until 1970-01-01T00:01:00Z --until-caught-up",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
