//! Dead letters in a container, and letters that are tried again, on the embedded server with faults.

use serde_json::{Value, json};
use tidefeed_emulator::{Emulator, EmulatorConfig, FaultAction, FaultOperation, FaultRule};
use tidefeed_operators::cosmos::{
    Account, AccountConfig, Container, ContainerDeadLetters, ContainerSpec, CosmosReader,
    Redelivery,
};
use tidefeed_operators::dead_letter::{
    DeadLetter, DeadLetters, LetterAction, LetterBox, Listed, Redeliver, Redelivered,
};
use tidefeed_runtime::checkpoint::LetterName;
use tidefeed_runtime::{Epoch, ErrorKind, Fence};

fn letter(id: &str, action: LetterAction, body: Option<String>) -> DeadLetter {
    DeadLetter {
        sink: "totals \"by\" région".into(),
        partition_key: json!([id]).to_string(),
        id: id.into(),
        epoch: Some(Epoch(1_700_000_000_000)),
        action,
        status: 413,
        sub_status: 0,
        message: "request size is too large".into(),
        activity_id: "a1".into(),
        at_ms: 1,
        body: body.map(Into::into),
    }
}

fn upsert(id: &str, value: &Value) -> DeadLetter {
    let document = json!({"id": id, "value": value});
    letter(id, LetterAction::Upsert, Some(document.to_string()))
}

struct Place {
    server: Emulator,
    account: Account,
}

impl Place {
    async fn new() -> Self {
        let server = Emulator::start(EmulatorConfig::default()).unwrap();
        let config = AccountConfig::with_key(server.endpoint(), server.key());
        let account = Account::connect(&config).await.unwrap();
        Place { server, account }
    }

    async fn container(&self, spec: &ContainerSpec) -> Container {
        Container::create_if_absent(&self.account, spec)
            .await
            .unwrap()
    }

    async fn letters(&self, job: &str) -> ContainerDeadLetters {
        let container = self
            .container(&ContainerDeadLetters::spec("shop", "letters"))
            .await;
        ContainerDeadLetters::new(container, job)
    }

    /// Requests about documents are throttled, time out, and lose their answers, each now and then.
    fn misbehave(&self, seed: u64) {
        let often = |action, operation| {
            let mut rule = FaultRule::new(action).on(&[operation]);
            rule.probability = 0.3;
            rule
        };
        let faults = vec![
            often(FaultAction::status(429), FaultOperation::Writes),
            often(FaultAction::DropAfter, FaultOperation::Writes),
            often(FaultAction::status(503), FaultOperation::Read),
        ];
        self.server.set_faults(seed, faults).unwrap();
    }

    fn behave(&self) {
        self.server.set_faults(0, Vec::new()).unwrap();
    }
}

async fn listed(letters: &ContainerDeadLetters) -> Vec<Listed> {
    let entries = letters.list(None).await.unwrap().into_iter();
    entries.map(|(_, letter)| letter.unwrap()).collect()
}

#[tokio::test]
async fn a_container_keeps_letters_of_any_size_once() {
    let place = Place::new().await;
    let letters = place.letters("shop").await;
    let others = place.letters("another job").await;
    // Larger than a document may be, in characters of several bytes and such that double in JSON.
    let huge = json!({"id": "huge", "value": "€\"\\\n".repeat(400_000)}).to_string();
    assert!(huge.len() > 2_200_000);
    let all = [
        upsert("a", &json!(1)),
        letter("gone", LetterAction::Delete, None),
        letter("huge", LetterAction::Create, Some(huge)),
    ];
    place.misbehave(7);
    for _ in 0..2 {
        letters.put(&all).await.unwrap();
    }
    place.behave();
    others.put(&all[..1]).await.unwrap();
    let found = listed(&letters).await;
    let names = |letters: &[Listed]| {
        let mut names: Vec<LetterName> = letters.iter().map(|letter| letter.name).collect();
        names.sort();
        names
    };
    let expected: Vec<Listed> = all.iter().cloned().map(Listed::of).collect();
    assert_eq!(names(&found), names(&expected));
    for (letter, expected) in all.iter().zip(&expected) {
        assert!(found.contains(expected), "{:?}", expected.name);
        assert!(
            letters.load(expected).await.unwrap() == *letter,
            "{:?}",
            expected.name
        );
    }
    let only = [expected[1].name];
    let chosen = letters.list(Some(&only)).await.unwrap();
    assert_eq!(chosen[0].1.as_ref().unwrap(), &expected[1]);
    assert_eq!(chosen.len(), 1);
    for letter in &expected {
        for _ in 0..2 {
            letters.remove(letter).await.unwrap();
        }
    }
    assert_eq!(listed(&letters).await, []);
    assert_eq!(listed(&others).await, expected[..1]);
    others.remove(&expected[0]).await.unwrap();
    let container = Container::open(&place.account, "shop", "letters")
        .await
        .unwrap();
    let left = CosmosReader::new(container).documents().await.unwrap();
    assert_eq!(left.len(), 0, "pieces go with their letters");
}

#[tokio::test]
async fn what_is_no_letter_is_named_or_passed_over() {
    let place = Place::new().await;
    let letters = place.letters("shop").await;
    let huge = letter("huge", LetterAction::Create, Some("x".repeat(1_200_000)));
    let sound = upsert("a", &json!(1));
    letters.put(&[huge.clone(), sound.clone()]).await.unwrap();
    let container = Container::open(&place.account, "shop", "letters")
        .await
        .unwrap();
    let (key, sink) = (json!([huge.sink]).to_string(), &huge.sink);
    let junk = format!("shop.{}", upsert("b", &json!(2)).name());
    for document in [
        json!({"id": junk, "sink": sink, "job": "shop", "letter": {"status": 1}}),
        json!({"id": "readme", "sink": sink}),
        json!({"id": format!("shop.{}.1", huge.name()), "sink": sink, "job": "shop", "body": "y"}),
    ] {
        let id = document["id"].as_str().unwrap();
        container.upsert(&key, id, &document).await.unwrap();
    }
    let entries = letters.list(None).await.unwrap();
    let damaged: Vec<_> = entries.iter().filter(|(_, entry)| entry.is_err()).collect();
    assert_eq!((entries.len(), damaged.len()), (3, 1));
    let error = damaged[0].1.as_ref().unwrap_err();
    assert!(error.report().contains(&junk["shop.".len()..]), "{error:?}");
    // Another text than the name says.
    let error = letters.load(&Listed::of(huge)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Checkpoint);
    assert_eq!(
        letters.load(&Listed::of(sound.clone())).await.unwrap(),
        sound
    );
}

#[tokio::test]
async fn letters_are_written_through_faults_and_leave_what_is_there() {
    let place = Place::new().await;
    let container = place
        .container(&ContainerSpec::new("shop", "totals", "/id"))
        .await;
    let redelivery = Redelivery::new(container.clone(), Fence::unlimited());
    let taken = json!({"id": "taken", "value": "newer"});
    container
        .upsert("[\"taken\"]", "taken", &taken)
        .await
        .unwrap();
    place.misbehave(11);
    for n in 0..20 {
        let letter = upsert(&format!("d{n}"), &json!(n));
        // Also again, as when the letter could not be removed.
        for overwrite in [false, false, true] {
            let done = redelivery.redeliver(&letter, overwrite).await.unwrap();
            assert!(matches!(done, Redelivered::Written), "{n}: {done:?}");
        }
    }
    let older = upsert("taken", &json!("older"));
    let removal = letter("taken", LetterAction::Delete, None);
    for letter in [&older, &removal] {
        let done = redelivery.redeliver(letter, false).await.unwrap();
        assert!(matches!(done, Redelivered::Occupied), "{done:?}");
    }
    place.behave();
    let documents = CosmosReader::new(container.clone())
        .documents()
        .await
        .unwrap();
    assert_eq!(documents.len(), 21);
    assert_eq!(documents[r#"["taken","taken"]"#], taken);
    assert_eq!(documents[r#"["d7","d7"]"#], json!({"id": "d7", "value": 7}));
    for (letter, expected) in [(&older, 21), (&removal, 20), (&removal, 20)] {
        let done = redelivery.redeliver(letter, true).await.unwrap();
        assert!(matches!(done, Redelivered::Written), "{done:?}");
        let documents = CosmosReader::new(container.clone())
            .documents()
            .await
            .unwrap();
        assert_eq!(documents.len(), expected);
    }
    let wrong_key = DeadLetter {
        partition_key: "[1,2]".into(),
        ..upsert("x", &json!(1))
    };
    for letter in [
        letter(
            "other",
            LetterAction::Upsert,
            Some(json!({"id": "x"}).to_string()),
        ),
        letter("x", LetterAction::Upsert, Some("no JSON".into())),
        letter("x", LetterAction::Patch, Some("{}".into())),
        letter(
            "big",
            LetterAction::Create,
            Some(json!({"id": "big", "x": "x".repeat(2_200_000)}).to_string()),
        ),
        wrong_key,
    ] {
        for overwrite in [false, true] {
            let done = redelivery.redeliver(&letter, overwrite).await.unwrap();
            let Redelivered::Refused(error) = done else {
                panic!("{done:?}");
            };
            assert_eq!(error.kind(), ErrorKind::Rejected, "{error:?}");
        }
    }
}

#[tokio::test]
async fn a_container_that_is_gone_stops_all_letters() {
    let place = Place::new().await;
    let container = place
        .container(&ContainerSpec::new("shop", "totals", "/id"))
        .await;
    let redelivery = Redelivery::new(container, Fence::unlimited());
    let gone = FaultAction::Status {
        status: 404,
        substatus: Some(1003),
        retry_after_ms: None,
        message: None,
    };
    let faults = vec![FaultRule::new(gone).on(&[FaultOperation::Writes])];
    place.server.set_faults(0, faults).unwrap();
    let done = redelivery.redeliver(&upsert("a", &json!(1)), false).await;
    assert_eq!(done.unwrap_err().kind(), ErrorKind::NotFound);
}
