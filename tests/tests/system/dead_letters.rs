//! Dead letters in a job's checkpoint, looked at and tried again with the program's own commands.

use serde_json::{Value, json};
use tidefeed::CheckpointStore;
use tidefeed_emulator::{FaultAction, FaultOperation, FaultRule};
use tidefeed_operators::cosmos::{Account, AccountConfig, Container, ContainerDeadLetters};
use tidefeed_operators::dead_letter::{DeadLetter, DeadLetters, StoredDeadLetters};
use tidefeed_tests::place::LOCAL;
use tidefeed_tests::process::Run;
use tidefeed_tests::views::SINKS;

use super::mended::{Job, flip_a_bit};

/// A letter about a document of `totals`.
fn letter(id: &str, action: &str, epoch: u64, body: Option<&Value>) -> DeadLetter {
    let letter = json!({
        "sink": "totals", "partition_key": json!([id]).to_string(), "id": id, "epoch": epoch, "action": action,
        "status": 413, "sub_status": 0, "message": "request size is too large", "activity_id": "a1", "at_ms": 1000 + epoch,
    });
    let letter: DeadLetter = serde_json::from_value(letter).expect("a letter");
    DeadLetter {
        body: body.map(|body| body.to_string().into()),
        ..letter
    }
}

fn name(letter: &DeadLetter) -> String {
    letter.name().to_string()
}

impl Job {
    fn put(&self, letters: &[DeadLetter]) {
        let checkpoint = self.place.checkpoint();
        let root = checkpoint.parent().expect("the folder of all jobs");
        let store = CheckpointStore::local(root, "shop").expect("a store");
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let put = async { StoredDeadLetters::new(store.letters()).put(letters).await };
        runtime.expect("a runtime").block_on(put).expect("kept");
    }

    /// The names of the letters that are left.
    fn left(&self) -> Vec<String> {
        let listed = self.json(&["deadletters", "list"]);
        let mut names: Vec<String> = listed["letters"]
            .as_array()
            .expect("letters")
            .iter()
            .map(|letter| letter["name"].as_str().expect("a name").to_owned())
            .collect();
        names.sort();
        names
    }

    fn total(&self, id: &str) -> Option<Value> {
        self.place.found()["totals"]
            .get(&json!([id, id]).to_string())
            .cloned()
    }
}

fn names<'a>(letters: impl IntoIterator<Item = &'a DeadLetter>) -> Vec<String> {
    let mut names: Vec<String> = letters.into_iter().map(name).collect();
    names.sort();
    names
}

#[test]
fn letters_are_shown_tried_again_and_go_only_when_written() {
    let mut job = Job::new();
    job.go_on();
    assert_eq!(job.left(), Vec::<String>::new());
    let row = |id: &str, n: u64| json!({"id": id, "n": n});
    let existing = job.place.found()["totals"]
        .keys()
        .next()
        .expect("a row")
        .clone();
    let existing: (String, String) = serde_json::from_str(&existing).expect("a key");
    let existing = existing.0;
    let held = job.total(&existing);
    let fresh = letter("fresh", "upsert", 3, Some(&row("fresh", 3)));
    let older = letter("fresh", "upsert", 2, Some(&row("fresh", 2)));
    let taken = letter(&existing, "upsert", 4, Some(&row(&existing, 4)));
    // Its id is not the one that it is written under.
    let wrong = letter("wrong", "upsert", 5, Some(&row("other", 5)));
    let gone = letter("gone", "delete", 6, None);
    let all = [&fresh, &older, &taken, &wrong, &gone].map(Clone::clone);
    job.put(&all);
    job.put(&all);
    assert_eq!(job.left(), names(&all));

    let (code, said) = job.run(&["deadletters", "list"]);
    assert!(
        code == 0 && said.starts_with("job shop: 5 dead letters"),
        "{said}"
    );
    let line = format!(
        "{} totals upsert document fresh in [\"fresh\"]",
        name(&fresh)
    );
    assert!(
        said.contains(&line) && said.contains("refused with 413"),
        "{said}"
    );
    let shown = job.json(&["deadletters", "show", &name(&fresh)]);
    assert_eq!(shown["body"], row("fresh", 3));
    assert_eq!(shown["message"], "request size is too large");
    assert_eq!(
        job.json(&["deadletters", "show", &name(&gone)])["body"],
        Value::Null
    );
    for (argument, says) in [
        (
            "00000000000000000000000000000000",
            "there is no letter 0000",
        ),
        ("nonsense", "is not the name of a letter"),
    ] {
        for command in ["show", "replay"] {
            let (code, said) = job.run(&["deadletters", command, argument]);
            assert!(
                code == 2 && said.contains(says),
                "{command}: {code}: {said}"
            );
        }
    }

    // One by name, and then all: what the container has stays, what is refused stays.
    let (code, said) = job.run(&["deadletters", "replay", &name(&taken)]);
    assert!(code == 9 && said.contains("occupied"), "{code}: {said}");
    assert_eq!(job.left(), names(&all));
    let (code, said) = job.run(&["deadletters", "replay", "--json"]);
    assert_eq!(code, 9, "{said}");
    let said: Value = serde_json::from_str(&said).expect("JSON");
    let became = |letter: &DeadLetter| {
        let letters = said["letters"].as_array().expect("letters");
        let of_letter = letters.iter().find(|line| line["name"] == name(letter));
        of_letter.expect("tried")["became"].clone()
    };
    for (letter, expected) in [
        (&fresh, "written"),
        (&older, "superseded"),
        (&taken, "occupied"),
        (&wrong, "refused"),
        (&gone, "written"),
    ] {
        assert_eq!(became(letter), expected, "{said:#}");
    }
    assert_eq!(job.total("fresh"), Some(row("fresh", 3)));
    assert_eq!(job.total(&existing), held);
    assert_eq!(job.left(), names([&taken, &wrong]));

    // A letter whose removal was lost is tried again, and found written.
    job.put(std::slice::from_ref(&fresh));
    job.succeeds(&["deadletters", "replay", &name(&fresh)]);
    // Checkpoints come and go; letters stay.
    job.succeeds(&["checkpoints", "gc"]);
    assert_eq!(job.left(), names([&taken, &wrong]));
    job.succeeds(&["deadletters", "replay", &name(&taken), "--overwrite"]);
    assert_eq!(job.total(&existing), Some(row(&existing, 4)));
    assert_eq!(job.left(), names([&wrong]));

    // What the letters wrote beside the view goes again when the container is brought in line with it.
    job.succeeds(&["--until-caught-up", "--rebuild", "totals"]);
    job.check("after a rebuild");
}

#[test]
fn letters_are_not_tried_beside_a_run_and_their_sink_must_be_known() {
    let mut job = Job::new();
    job.go_on();
    let letter = letter("fresh", "create", 1, Some(&json!({"id": "fresh"})));
    let stranger = DeadLetter {
        sink: "of old".to_owned(),
        ..letter.clone()
    };
    job.put(&[letter.clone(), stranger.clone()]);
    let (code, said) = job.run(&["deadletters", "replay"]);
    assert!(
        code == 2 && said.contains("letters of sink of old, which is not in the configuration"),
        "{code}: {said}"
    );
    assert_eq!(job.total("fresh"), None, "nothing is written then");

    let before = newest_lease(&job);
    let mut run = Run::start(job.place.program(env!("CARGO_BIN_EXE_shop"), 1));
    assert!(run.wait_until(|| newest_lease(&job) > before), "it runs");
    let (code, said) = job.run(&["deadletters", "replay", &name(&letter)]);
    assert!(code == 8, "{code}: {said}");
    assert_eq!(job.left().len(), 2, "looking is allowed");
    run.kill();
    job.succeeds(&["deadletters", "replay", &name(&letter)]);
    assert_eq!(job.left(), names([&stranger]));
}

#[test]
fn letters_may_be_in_a_container() {
    let mut job = Job::new();
    job.go_on();
    let database = job.place.database().to_owned();
    let lines = format!(
        "settle_ms = 50\n[dead_letters]\ndatabase = \"{database}\"\ncontainer = \"letters\""
    );
    job.place.configure(&lines);
    let (code, said) = job.run(&["deadletters", "list"]);
    let says = format!("dead letters: container {database}/letters does not exist");
    assert!(code == 6 && said.contains(&says), "{code}: {said}");
    let letter = letter("fresh", "create", 1, Some(&json!({"id": "fresh"})));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let put = async {
        let server = job.place.server();
        let config = AccountConfig::with_key(server.endpoint(), server.key());
        let account = Account::connect(&config).await.expect("connected");
        let spec = ContainerDeadLetters::spec(&database, "letters");
        let container = Container::create_if_absent(&account, &spec).await;
        let letters = ContainerDeadLetters::new(container.expect("created"), "shop");
        letters.put(std::slice::from_ref(&letter)).await
    };
    runtime.expect("a runtime").block_on(put).expect("kept");
    assert_eq!(job.left(), names([&letter]));
    let shown = job.json(&["deadletters", "show", &name(&letter)]);
    assert_eq!(shown["body"], json!({"id": "fresh"}));
    job.succeeds(&["deadletters", "replay"]);
    assert_eq!(job.total("fresh"), Some(json!({"id": "fresh"})));
    assert_eq!(job.left(), Vec::<String>::new());
}

/// The number of the newest lease record: each run that takes the checkpoint adds one.
fn newest_lease(job: &Job) -> String {
    let files = std::fs::read_dir(job.place.checkpoint().join("lease")).expect("a folder");
    let names = files.map(|file| file.expect("readable").file_name());
    let newest = names.max().expect("a lease");
    newest.into_string().expect("text")
}

#[test]
fn a_damaged_letter_is_named_and_hides_no_other() {
    let job = Job::new();
    let one = letter("one", "upsert", 1, Some(&json!({"id": "one"})));
    let two = letter("two", "upsert", 2, Some(&json!({"id": "two"})));
    job.put(&[one.clone(), two.clone()]);
    let file = job.place.checkpoint().join("deadletters").join(name(&one));
    flip_a_bit(&file);
    let (code, said) = job.run(&["deadletters", "list", "--json"]);
    assert_eq!(code, 7, "{said}");
    let listed: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(listed["letters"][0]["name"], name(&two));
    let damage = listed["damage"].as_array().expect("damage");
    assert!(
        damage.len() == 1 && damage[0].to_string().contains(&name(&one)),
        "{said}"
    );
    for arguments in [
        ["checkpoints", "verify"].as_slice(),
        &["deadletters", "show", &name(&one)],
        &["deadletters", "replay"],
    ] {
        let (code, said) = job.run(arguments);
        assert!(
            code == 7 && said.contains(&name(&one)),
            "{arguments:?}: {code}: {said}"
        );
    }
    assert_eq!(job.json(&["deadletters", "show", &name(&two)])["id"], "two");
}

#[test]
fn a_document_that_is_refused_is_a_letter_and_a_replay_makes_the_view_right() {
    let mut job = Job::new();
    let (sink, _) = SINKS[SINKS.len() - 1];
    job.place
        .configure_last_sink("dead_letters_per_minute = 5\n");
    let refused = FaultRule::new(FaultAction::status(400)).on(&[FaultOperation::BulkItem]);
    let refused = refused.in_container(job.place.database(), sink);
    let server = job.place.server().clone();
    let once = refused.clone().times(1);
    server.set_faults(1, vec![once]).expect("sound rules");
    job.change();
    job.succeeds(&["--until-caught-up"]);
    let listed = job.json(&["deadletters", "list"]);
    assert_eq!(listed["letters"][0]["sink"], sink, "{listed}");
    assert_eq!(job.left().len(), 1, "{listed}");
    assert_eq!(listed["letters"][0]["status"], 400, "{listed}");
    job.succeeds(&["deadletters", "replay"]);
    assert_eq!(job.left(), Vec::<String>::new());
    job.check("after the replay");
    // Without a place for letters, the same ends the run.
    job.place.configure(LOCAL);
    server.set_faults(1, vec![refused]).expect("sound rules");
    job.change();
    let (code, said) = job.run(&["--until-caught-up"]);
    assert_eq!(code, 9, "{said}");
    assert!(said.contains("cannot write document"), "{said}");
    server.clear_faults();
    job.go_on();
}
