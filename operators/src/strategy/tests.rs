//! Each strategy against a plain model: one step after the other, nothing folded, nothing repeated.
//!
//! A random history of a few documents runs in runs. Each run begins at a commit of the one before, knows what may have been
//! written beyond, cuts what is complete into folds at random places, and dies in the middle of a batch. What the container in
//! memory holds in the end must be what the model holds, whatever the seed.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tidefeed_runtime::Epoch;

use super::*;
use crate::document::ViewDocument;
use crate::fold::{ViewUpdate, fold};
use crate::memory::MemoryContainer;

const IDS: [&str; 3] = ["a", "b", "c"];
const EPOCHS: u64 = 30;
const SEEDS: u64 = 400;

/// A document of the model, and whether it is still the one that was there at first.
type Model = BTreeMap<String, (Value, bool)>;

/// Which epochs may go at once: those before the returned one, or all.
type Cut = fn(&WriteRule, Vec<u64>, Epoch) -> Option<u64>;

/// A step of the history, by epoch and document.
struct Event {
    epoch: u64,
    id: &'static str,
    position: u64,
    gone: Option<Value>,
    come: Option<Value>,
}

impl Event {
    fn updates(&self) -> impl Iterator<Item = ViewUpdate> {
        let update = |row: &Value, diff| {
            let document = ViewDocument {
                partition_key: "[1]".into(),
                id: self.id.into(),
                body: row.to_string().into_bytes().into(),
                position: self.position,
            };
            (document, self.epoch, diff)
        };
        let gone = self.gone.as_ref().map(|row| update(row, -1));
        gone.into_iter()
            .chain(self.come.as_ref().map(|row| update(row, 1)))
    }
}

fn row(id: &str, etag: Option<&str>, random: &mut fastrand::Rng) -> Value {
    let mut row = json!({"id": id, "n": random.i64(-3..4), "big": 9_007_199_254_740_993_i64});
    if random.bool() {
        row["s"] = json!(random.u8(0..3));
    }
    if let Some(etag) = etag {
        row["_etag"] = json!(etag);
    }
    row
}

/// A history in its order. Rows of strategies that read it have the `_etag` of the first document, another, or none.
fn history(
    rule: &WriteRule,
    container: &MemoryContainer,
    random: &mut fastrand::Rng,
) -> Vec<Event> {
    let mut live: BTreeMap<&str, Value> = BTreeMap::new();
    let mut events = Vec::new();
    let first: BTreeMap<_, _> = IDS.map(|id| (id, container.etag_of(&key(id)))).into();
    for epoch in 1..=EPOCHS {
        for id in IDS {
            let new = |random: &mut fastrand::Rng| {
                let etag = match random.u8(0..3) {
                    _ if !rule.strategy.reads_etag() => None,
                    0 => None,
                    1 => Some("\"other\"".to_owned()),
                    _ => first[id].clone(),
                };
                row(id, etag.as_deref(), random)
            };
            match rule.rows {
                RowKind::Collection if random.u8(0..3) == 0 => {
                    let gone = live.remove(id);
                    let come = (random.u8(0..3) > 0).then(|| new(random));
                    if gone == come {
                        live.extend(come.map(|row| (id, row)));
                        continue;
                    }
                    live.extend(come.clone().map(|row| (id, row)));
                    events.push(Event {
                        epoch,
                        id,
                        position: 0,
                        gone,
                        come,
                    });
                }
                RowKind::Collection => {}
                RowKind::Stream => {
                    for position in 0..random.u64(0..3) {
                        let come = Some(new(random));
                        events.push(Event {
                            epoch,
                            id,
                            position,
                            gone: None,
                            come,
                        });
                    }
                }
            }
        }
    }
    events
}

fn key(id: &str) -> String {
    format!("[1,\"{id}\"]")
}

fn number(row: Option<&Value>) -> i64 {
    row.and_then(|row| row["n"].as_i64()).unwrap_or(0)
}

/// What one step does by itself, from the strategies' words alone.
fn step_by_itself(
    strategy: &Strategy,
    model: &mut Model,
    first: &BTreeMap<&str, String>,
    event: &Event,
    creates: bool,
) {
    let id = event.id.to_owned();
    let plain = |row: &Value| {
        let mut row = row.clone();
        row.as_object_mut().map(|row| row.remove("_etag"));
        (row, false)
    };
    let etag = event.come.as_ref().and_then(|row| row["_etag"].as_str());
    let matches = model
        .get(&id)
        .is_some_and(|(_, is_first)| *is_first && etag == first.get(event.id).map(String::as_str));
    let there = model.contains_key(&id);
    match (strategy, &event.come) {
        (Strategy::Upsert, None) => drop(model.remove(&id)),
        (Strategy::Upsert, Some(row)) => drop(model.insert(id, plain(row))),
        (Strategy::Insert, Some(row)) if event.gone.is_none() && !there => {
            drop(model.insert(id, plain(row)))
        }
        (Strategy::Replace, Some(row)) if there => drop(model.insert(id, plain(row))),
        (Strategy::Delete, Some(_)) => drop(model.remove(&id)),
        (Strategy::OverwriteIfNotModified, Some(row)) if matches || (etag.is_none() && !there) => {
            model.insert(id, plain(row));
        }
        (Strategy::DeleteIfNotModified, Some(_)) if matches || etag.is_none() => {
            model.remove(&id);
        }
        (Strategy::Patch(_), come) => match (model.get_mut(&id), come) {
            (None, Some(row)) if creates => drop(model.insert(id, plain(row))),
            (None, _) => {}
            (Some((document, _)), come) => {
                let by = number(come.as_ref()) - number(event.gone.as_ref());
                document["n"] = json!(number(Some(document)) + by);
                if let Some(row) = come {
                    let fields = document.as_object_mut().expect("an object");
                    match row.get("s") {
                        Some(s) => fields.insert("s".to_owned(), s.clone()),
                        None => fields.remove("s"),
                    };
                }
            }
        },
        _ => {}
    }
}

fn model_of(
    rule: &WriteRule,
    model: &mut Model,
    first: &BTreeMap<&str, String>,
    history: &[Event],
    creates: bool,
) {
    let mut decided = None;
    for event in history {
        // The first record of an epoch decides, in a stream.
        let place = (event.epoch, event.id);
        if rule.strategy.reads_etag() && decided == Some(place) {
            continue;
        }
        decided = Some(place);
        step_by_itself(&rule.strategy, model, first, event, creates);
    }
}

/// Runs and dies and runs again, until a run comes to the end.
fn run(
    rule: &WriteRule,
    container: &MemoryContainer,
    history: &[Event],
    cut: Cut,
    random: &mut fastrand::Rng,
) {
    let (mut committed, mut sealed) = (0, 0);
    loop {
        let rewrite_through = Epoch(sealed.max(committed + 1));
        let mut done = committed;
        let dies_after = random.usize(0..12);
        let mut batches = 0;
        while done < EPOCHS {
            // What is complete by now, and of that what may go at once.
            let frontier = random.u64(done + 1..=EPOCHS);
            let epochs: Vec<u64> = (done + 1..=frontier).collect();
            let before = cut(rule, epochs, rewrite_through);
            let last = before.map_or(frontier, |before| before - 1);
            sealed = sealed.max(frontier);
            let folded = done + 1..=last;
            let mut updates: Vec<_> = history
                .iter()
                .filter(|event| folded.contains(&event.epoch))
                .flat_map(Event::updates)
                .collect();
            random.shuffle(&mut updates);
            let writes = fold(updates, rule, rewrite_through).expect("rows as they should be");
            if batches == dies_after {
                let part = writes.into_iter().filter(|_| random.bool());
                container.write_at_once(part.collect());
                break;
            }
            container.write_at_once(writes);
            done = last;
            batches += 1;
            if random.u8(0..4) == 0 {
                committed = done;
            }
        }
        if done == EPOCHS {
            return;
        }
    }
}

fn contents(container: &MemoryContainer) -> BTreeMap<String, Value> {
    let document = |(key, body): (&String, &Bytes)| {
        let mut document: Value = serde_json::from_slice(body).expect("JSON");
        document
            .as_object_mut()
            .map(|document| document.remove(EPOCH_PROPERTY));
        (key.clone(), document)
    };
    container.contents().iter().map(document).collect()
}

/// What a random history leaves in the container, and in the model. `cut` says which epochs may go at once, as
/// [`WriteRule::fold_before`].
fn outcome(rule: &WriteRule, creates: bool, seed: u64, cut: Cut) -> [BTreeMap<String, Value>; 2] {
    let mut random = fastrand::Rng::with_seed(seed);
    let container = MemoryContainer::new(Default::default());
    let mut model = Model::new();
    // A view's container is empty at first.
    for id in IDS.iter().filter(|_| !rule.keeps_view() && random.bool()) {
        let document = json!({"id": id, "n": 100, "s": 9, "own": true});
        container.upsert("[1]", id, document.to_string());
        model.insert((*id).to_owned(), (document, true));
    }
    let etags = IDS.into_iter();
    let etags = etags.filter_map(|id| Some((id, container.etag_of(&key(id))?)));
    let etags: BTreeMap<_, _> = etags.collect();
    let history = history(rule, &container, &mut random);
    model_of(rule, &mut model, &etags, &history, creates);
    run(rule, &container, &history, cut, &mut random);
    let document = |(id, (document, _)): (String, (Value, bool))| (key(&id), document);
    [
        contents(&container),
        model.into_iter().map(document).collect(),
    ]
}

fn check(strategy: Strategy, creates: bool) {
    for rows in [RowKind::Collection, RowKind::Stream] {
        for seed in 0..SEEDS {
            let rule = WriteRule {
                strategy: strategy.clone(),
                rows,
                stamp_epoch: seed % 3 == 0,
            };
            rule.validate().expect("a valid rule");
            let [found, expected] = outcome(&rule, creates, seed, WriteRule::fold_before);
            assert_eq!(found, expected, "{rule}, seed {seed}");
        }
    }
}

/// Without the rule that replayed epochs are written by themselves some histories end wrong: so the model would show it.
#[test]
fn patches_that_fold_what_may_have_been_written_are_not_exact() {
    let rule = WriteRule {
        strategy: Strategy::Patch(PatchSpec::new().increment("/n").create_missing()),
        ..WriteRule::default()
    };
    let is_wrong = |seed: &u64| {
        let [found, expected] = outcome(&rule, true, *seed, |_, _, _| None);
        found != expected
    };
    let wrong = (0..SEEDS).filter(is_wrong).count();
    assert!(wrong > 10, "{wrong} of {SEEDS}");
}

#[test]
fn upserts_end_as_the_model_says() {
    check(Strategy::Upsert, false);
}

#[test]
fn inserts_end_as_the_model_says() {
    check(Strategy::Insert, false);
}

#[test]
fn replaces_end_as_the_model_says() {
    check(Strategy::Replace, false);
}

#[test]
fn deletes_end_as_the_model_says() {
    check(Strategy::Delete, false);
}

#[test]
fn overwrites_of_what_is_not_modified_end_as_the_model_says() {
    check(Strategy::OverwriteIfNotModified, false);
}

#[test]
fn deletes_of_what_is_not_modified_end_as_the_model_says() {
    check(Strategy::DeleteIfNotModified, false);
}

#[test]
fn each_patch_has_its_effect_once() {
    let spec = PatchSpec::new()
        .increment("/n")
        .set("/s")
        .remove_absent("/s");
    check(Strategy::Patch(spec.clone()), false);
    check(Strategy::Patch(spec.create_missing()), true);
}

/// Epochs through 9 may have been written in part.
#[test]
fn epochs_fold_as_far_as_their_strategy_allows() {
    let before = |strategy: Strategy, epochs: &[u64]| {
        let rule = WriteRule {
            strategy,
            ..WriteRule::default()
        };
        rule.fold_before(epochs.iter().copied(), Epoch(9))
    };
    assert_eq!(before(Strategy::Upsert, &[8, 9, 10]), None);
    let sum = PatchSpec::new().increment("/n");
    assert_eq!(before(Strategy::Patch(sum.clone()), &[8, 9, 10]), Some(9));
    assert_eq!(before(Strategy::Patch(sum.clone()), &[9, 10]), Some(10));
    assert_eq!(before(Strategy::Patch(sum.clone()), &[10, 11]), None);
    let conditional = sum.condition("from c where c.n < 5");
    assert_eq!(before(Strategy::Patch(conditional), &[10, 11]), Some(11));
    let list = PatchSpec::new().add("/list/-", "/n");
    assert_eq!(before(Strategy::Patch(list), &[10, 11]), Some(11));
    assert_eq!(
        before(Strategy::OverwriteIfNotModified, &[10, 11]),
        Some(11)
    );
    assert_eq!(before(Strategy::OverwriteIfNotModified, &[11]), None);
    assert_eq!(before(Strategy::Insert, &[]), None);
}

fn patched(
    spec: &PatchSpec,
    steps: &[(Option<Value>, Option<Value>)],
) -> Result<Option<PatchWrite>> {
    let text = |row: &Option<Value>| row.as_ref().map(|row| row.to_string().into_bytes());
    let rows: Vec<_> = steps
        .iter()
        .map(|(gone, come)| (text(gone), text(come)))
        .collect();
    let steps: Vec<_> = rows
        .iter()
        .map(|(gone, come)| Step {
            epoch: 7,
            gone: gone.as_deref(),
            come: come.as_deref(),
        })
        .collect();
    spec.write(&steps, 7, false)
}

#[test]
fn sums_are_exact_or_refused() {
    let spec = PatchSpec::new().increment("/n");
    let by = |gone: Value, come: Value| {
        let step = (Some(json!({"n": gone})), Some(json!({"n": come})));
        match patched(&spec, &[step])?.map(|patch| patch.operations) {
            None => Ok(Value::Null),
            Some(operations) => match &operations[..] {
                [PatchOperation::Increment { by, .. }] => Ok(by.clone()),
                other => panic!("{other:?}"),
            },
        }
    };
    let exact = by(json!(1), json!(9_007_199_254_740_994_i64)).expect("fits");
    assert_eq!(exact, json!(9_007_199_254_740_993_i64));
    let wide = by(json!(u64::MAX), json!(u64::MAX - 5)).expect("fits");
    assert_eq!(wide, json!(-5));
    assert_eq!(by(json!(0.5), json!(0.75)).expect("fits"), json!(0.25));
    assert_eq!(by(json!(4), json!(4)).expect("fits"), Value::Null);
    assert_eq!(by(Value::Null, json!(4)).expect("fits"), json!(4));
    assert!(by(json!(i64::MIN), json!(u64::MAX)).is_err(), "too large");
    let error: Result<Value> = by(json!("1"), json!(2));
    assert!(
        error
            .expect_err("text")
            .report()
            .contains("an increment of /n")
    );
}

#[test]
fn a_list_gets_each_new_value_once() {
    let spec = PatchSpec::new().add("/list/-", "/n");
    let added = |gone: Option<Value>, come: Option<Value>| {
        let patch = patched(&spec, &[(gone, come)]).expect("a patch");
        patch.map(|patch| (patch.epoch, patch.operations))
    };
    let one = |n| Some(json!({"n": n, "x": n}));
    let add = |value| PatchOperation::Add {
        path: "/list/-".into(),
        value,
    };
    assert_eq!(added(None, one(1)), Some((Some(7), vec![add(json!(1))])));
    assert_eq!(added(one(1), one(2)), Some((Some(7), vec![add(json!(2))])));
    assert_eq!(added(Some(json!({"n": 1})), one(1)), None);
    assert_eq!(added(one(1), None), None);
    let stream = WriteRule {
        strategy: Strategy::Patch(spec),
        rows: RowKind::Stream,
        stamp_epoch: false,
    };
    assert!(stream.validate().is_err(), "several records would be one");
}

#[test]
fn patches_that_cannot_be_sent_are_refused_when_they_are_built() {
    let report = |spec: PatchSpec| spec.validate(false).expect_err("refused").report();
    let sets = |count: usize| {
        let paths = (0..count).map(|n| format!("/p{n}"));
        paths.fold(PatchSpec::new(), |spec, path| spec.set(&path))
    };
    assert!(sets(10).validate(false).is_ok());
    assert!(sets(10).validate(true).is_err(), "the stamp is one more");
    assert!(report(sets(11)).contains("10 operations, and this one needs 11"));
    assert!(report(sets(9).increment("/n")).contains("10 and 1 for its epoch"));
    assert!(report(sets(9).remove_absent("/n")).contains("this one needs 11"));
    assert!(
        sets(9).remove_absent("/p0").validate(false).is_ok(),
        "set or removed"
    );
    assert!(report(PatchSpec::new()).contains("at least one"));
    assert!(report(sets(1).set("n")).contains("begins with a slash"));
    for path in ["/id", "/_ts", "/_epoch", "/_etag/x"] {
        assert!(
            report(sets(1).set(path)).contains("cannot change"),
            "{path}"
        );
    }
    assert!(report(sets(1).increment("/p0/x")).contains("two operations on one property"));
    assert!(sets(1).increment("/p01").validate(false).is_ok());
    for condition in [
        "c.n = 1",
        "from c",
        "from c join d where 1",
        "from c-d where c.x",
        "select c where c.x",
    ] {
        assert!(
            report(sets(1).condition(condition)).contains("write it as"),
            "{condition}"
        );
    }
    assert!(
        sets(1)
            .condition(" FROM r \n WHERE r.n = 1 ")
            .validate(false)
            .is_ok()
    );
}

#[test]
fn a_document_says_of_which_epoch_it_is() {
    assert_eq!(stamped(b"{}", 3), "{\"_epoch\":3}");
    assert_eq!(stamped(br#"{"id":"a"}"#, 3), "{\"id\":\"a\",\"_epoch\":3}");
    let rule = WriteRule {
        stamp_epoch: true,
        ..WriteRule::default()
    };
    let step = |epoch, come| Step {
        epoch,
        gone: None,
        come: Some(come),
    };
    let action = rule.write(&[step(4, br#"{"n":1}"#), step(6, br#"{"n":2}"#)], Epoch(0));
    let expected = DocumentAction::Upsert(Bytes::from_static(br#"{"n":2,"_epoch":6}"#));
    assert_eq!(action.expect("no patch"), Some(expected));
}
