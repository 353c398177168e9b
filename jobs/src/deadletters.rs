//! `JOB deadletters ...`: looking at the writes that were refused for good, and trying them again.
//!
//! `list` and `show` need the place of the letters, and nothing else if that is the checkpoint. `replay` takes the checkpoint, so that no run lives
//! beside it, and opens the containers of the sinks that have letters; it creates none.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use serde_json::Value;
use serde_json::json;
use tidefeed_operators::dead_letter::{
    LetterBox, Listed, Redeliver, Replayed, StoredDeadLetters, replay as replay_letters,
};
use tidefeed_operators::letters::OF_SOURCE;
use tidefeed_runtime::checkpoint::inspect::{Held, while_held};
use tidefeed_runtime::checkpoint::{CheckpointStore, LetterName};
use tidefeed_runtime::{Error, ErrorKind, Result};

use crate::config::JobConfig;
use crate::cosmos::Cosmos;
use crate::inspection::{age, block_on, json_flag, print_json};

/// The name of the subcommand.
pub(crate) const DEADLETTERS: &str = "deadletters";

/// The subcommand with those below it.
pub(crate) fn command() -> Command {
    let names = || {
        Arg::new("name")
            .value_name("NAME")
            .value_parser(value_parser!(LetterName))
            .help("The name of a letter, as `list` shows it")
    };
    Command::new(DEADLETTERS)
        .about("Look at the writes that the service refused for good, and try them again")
        .subcommand_required(true)
        .arg(json_flag())
        .subcommand(Command::new("list").about(
            "The letters by sink, epoch and time; exits with 7 if one cannot be read",
        ))
        .subcommand(
            Command::new("show")
                .about("One letter with the document that was to be written")
                .arg(names().required(true)),
        )
        .subcommand(
            Command::new("replay")
                .about(
                    "Try letters again while no run lives; without names all of them. A letter goes when its write is \
                     acknowledged. Of several about one document the newest is tried. Exits with 9 if any is left",
                )
                .arg(names().action(ArgAction::Append))
                .arg(
                    Arg::new("overwrite")
                        .long("overwrite")
                        .action(ArgAction::SetTrue)
                        .help(
                            "Write also where the container holds a document of that key; it may be newer than the letter",
                        ),
                ),
        )
}

/// Carries out one of the subcommands.
///
/// # Errors
/// When the store or the account does not answer, or a letter that was named does not exist; `Fenced` when letters are to be
/// replayed while a run lives.
pub(crate) fn run(
    matches: &ArgMatches,
    store: &CheckpointStore,
    config: &JobConfig,
) -> Result<ExitCode> {
    let json = matches.get_flag("json");
    let name = |matches: &ArgMatches| matches.get_one::<LetterName>("name").copied();
    block_on(async {
        match matches.subcommand() {
            Some(("show", of_show)) => show(store, config, name(of_show), json).await,
            Some(("replay", of_replay)) => {
                let names = of_replay.get_many("name").unwrap_or_default();
                let request = Request {
                    names: names.copied().collect(),
                    overwrite: of_replay.get_flag("overwrite"),
                };
                replay(store, config, &request, json).await
            }
            _ => list(store, config, json).await,
        }
    })
}

/// The letters, where the configuration says they are. `store` is as fenced as they are to be.
async fn letter_box(store: &CheckpointStore, config: &JobConfig) -> Result<Arc<dyn LetterBox>> {
    match &config.dead_letters {
        None => Ok(Arc::new(StoredDeadLetters::new(store.letters()))),
        Some(place) => {
            let account = std::iter::once(place.account.as_deref());
            let cosmos = Cosmos::of_accounts(config, account)?;
            cosmos.existing_letters(store.job(), place).await
        }
    }
}

fn print(listed: &Listed) {
    let letter = &listed.letter;
    let sub_status = match letter.sub_status {
        0 => String::new(),
        sub_status => format!("/{sub_status}"),
    };
    println!(
        "{} {} {} document {} in {}, {}, {} bytes, refused with {}{sub_status}: {}",
        listed.name,
        letter.sink,
        letter.action.name(),
        letter.id,
        letter.partition_key,
        age(letter.at_ms),
        listed.body_bytes,
        letter.status,
        letter.message.replace(['\n', '\r'], " "),
    );
}

async fn list(store: &CheckpointStore, config: &JobConfig, json: bool) -> Result<ExitCode> {
    let entries = letter_box(store, config).await?.list(None).await?;
    let (mut letters, mut damage) = (Vec::new(), Vec::new());
    for (_, entry) in entries {
        match entry {
            Ok(listed) => letters.push(listed),
            Err(error) => damage.push(error.report()),
        }
    }
    if json {
        print_json(&json!({"job": store.job(), "letters": letters, "damage": damage}))?;
    } else {
        let all = letters.len() + damage.len();
        println!("job {}: {all} dead letters", store.job());
        letters.iter().for_each(print);
        damage.iter().for_each(|line| println!("{line}"));
    }
    Ok(match damage.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(ErrorKind::Checkpoint.exit_code()),
    })
}

async fn show(
    store: &CheckpointStore,
    config: &JobConfig,
    name: Option<LetterName>,
    json: bool,
) -> Result<ExitCode> {
    let letters = letter_box(store, config).await?;
    let found = chosen(&*letters, name.as_slice()).await?.pop();
    let listed = found.ok_or_else(|| Error::internal("no letter was named"))?;
    let letter = letters.load(&listed).await?;
    let body = letter.body.as_deref().unwrap_or_default();
    let text = String::from_utf8_lossy(body);
    if json {
        let mut shown = json!(listed);
        // The document as it is; the text of what is none.
        shown["body"] = match (&letter.body, serde_json::from_slice(body)) {
            (None, _) => Value::Null,
            (Some(_), Ok(document)) => document,
            (Some(_), Err(_)) => Value::from(text),
        };
        print_json(&shown)?;
        return Ok(ExitCode::SUCCESS);
    }
    print(&listed);
    if let Some(epoch) = letter.epoch {
        println!("epoch {epoch}");
    }
    println!("activity id {}", letter.activity_id);
    if !text.is_empty() {
        println!("{text}");
    }
    Ok(ExitCode::SUCCESS)
}

/// The letters with these names, or all if none is named. One that is not there, or cannot be read, is an error that names it.
async fn chosen(letters: &dyn LetterBox, names: &[LetterName]) -> Result<Vec<Listed>> {
    let only = (!names.is_empty()).then_some(names);
    let entries = letters.list(only).await?;
    let missing = names
        .iter()
        .find(|name| entries.iter().all(|(there, _)| there != *name));
    if let Some(name) = missing {
        return Err(Error::new(
            ErrorKind::Config,
            format!("there is no letter {name}: `deadletters list` shows those there are"),
        ));
    }
    entries.into_iter().map(|(_, entry)| entry).collect()
}

/// What is to be tried again.
struct Request {
    /// None: all.
    names: Vec<LetterName>,
    overwrite: bool,
}

async fn replay(
    store: &CheckpointStore,
    config: &JobConfig,
    request: &Request,
    json: bool,
) -> Result<ExitCode> {
    let cosmos = Cosmos::of_job(config)?;
    let lease = config.checkpoint.lease();
    let done = while_held(store, lease, async |held| {
        replay_held(&held, config, &cosmos, request).await
    })
    .await?;
    let left = left(&done);
    if json {
        let lines: Vec<Value> = done.iter().map(outcome).collect();
        print_json(&json!({ "letters": lines }))?;
    } else {
        done.iter().for_each(print_outcome);
        println!("{} letters tried, {left} left", done.len());
    }
    Ok(match left {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::from(ErrorKind::Rejected.exit_code()),
    })
}

type Done = Vec<(Listed, Replayed)>;

/// The letters of sinks, by sink. Those of sources have nothing to be written, and may not be `named`.
fn by_sink(letters: Vec<Listed>, named: bool) -> Result<BTreeMap<String, Vec<Listed>>> {
    let mut by_sink: BTreeMap<String, Vec<Listed>> = BTreeMap::new();
    for listed in letters {
        let sink = listed.letter.sink.clone();
        match sink.strip_prefix(OF_SOURCE) {
            None => by_sink.entry(sink).or_default().push(listed),
            Some(_) if !named => {}
            Some(source) => {
                let name = listed.name;
                return Err(Error::new(
                    ErrorKind::Config,
                    format!(
                        "letter {name} is about a document of source {source}: correct the document in its container, there is \
                         nothing to write"
                    ),
                ));
            }
        }
    }
    Ok(by_sink)
}

async fn replay_held(
    held: &Held,
    config: &JobConfig,
    cosmos: &Cosmos,
    request: &Request,
) -> Result<Done> {
    let letters = letter_box(&held.store, config).await?;
    letters.guard(&held.fence);
    let chosen = chosen(&*letters, &request.names).await?;
    let by_sink = by_sink(chosen, !request.names.is_empty())?;
    // Every container is there before anything is written.
    let mut containers: Vec<(Arc<dyn Redeliver>, Vec<Listed>)> = Vec::new();
    for (sink, of_sink) in by_sink {
        let described = config.sink.get(&sink).ok_or_else(|| {
            Error::new(
                ErrorKind::Config,
                format!("there are letters of sink {sink}, which is not in the configuration: add [sink.{sink}], or name other letters"),
            )
        })?;
        let container = cosmos.redelivery(&sink, described, held.fence.clone());
        containers.push((container.await?, of_sink));
    }
    if !containers.is_empty() {
        tokio::time::sleep(held.settle).await;
    }
    let mut done = Done::new();
    for (container, of_sink) in containers {
        let replayed = replay_letters(&*letters, of_sink, &*container, request.overwrite);
        done.extend(replayed.await?);
    }
    Ok(done)
}

fn left(done: &Done) -> usize {
    let left = |became: &Replayed| matches!(became, Replayed::Occupied | Replayed::Refused(_));
    done.iter().filter(|(_, became)| left(became)).count()
}

/// What became of a letter: a word, and why it is left.
fn words(became: &Replayed) -> (&'static str, Option<String>) {
    match became {
        Replayed::Written => ("written", None),
        Replayed::Superseded => ("superseded", None),
        Replayed::Occupied => {
            let why = "the container holds a document of that key: --overwrite replaces it";
            ("occupied", Some(why.to_owned()))
        }
        Replayed::Refused(error) => ("refused", Some(error.report())),
    }
}

fn outcome((listed, became): &(Listed, Replayed)) -> Value {
    let (word, why) = words(became);
    let letter = &listed.letter;
    json!({
        "name": listed.name, "sink": letter.sink, "partition_key": letter.partition_key, "id": letter.id,
        "became": word, "why": why,
    })
}

fn print_outcome((listed, became): &(Listed, Replayed)) {
    let (word, why) = words(became);
    let why = why.map_or(String::new(), |why| format!(", {why}"));
    let letter = &listed.letter;
    println!(
        "{} {} document {}: {word}{why}",
        listed.name, letter.sink, letter.id
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidefeed_operators::dead_letter::{DeadLetter, LetterAction};

    fn letter(of: &str) -> Listed {
        let letter = DeadLetter {
            sink: of.to_owned(),
            partition_key: "[]".to_owned(),
            id: "a".to_owned(),
            epoch: None,
            action: LetterAction::Upsert,
            status: 0,
            sub_status: 0,
            message: String::new(),
            activity_id: String::new(),
            at_ms: 0,
            body: None,
        };
        Listed {
            name: letter.name(),
            letter,
            body_bytes: 0,
        }
    }

    #[test]
    fn letters_of_sources_are_not_written_anywhere() {
        let letters = || ["totals", "source:orders", "totals"].map(letter).to_vec();
        let found = by_sink(letters(), false).expect("they are left out");
        assert_eq!(found.keys().collect::<Vec<_>>(), ["totals"]);
        assert_eq!(found["totals"].len(), 2);
        let error = by_sink(letters(), true).expect_err("one was named");
        assert!(
            error.report().contains("of source orders"),
            "{}",
            error.report()
        );
    }
}
