use super::*;

fn updates<V>(pairs: impl IntoIterator<Item = (&'static str, V, isize)>) -> Updates<V> {
    let mut updates = Updates::new();
    for (key, value, diff) in pairs {
        let key = serde_json::to_vec(key).expect("JSON").into();
        updates
            .entry(key)
            .or_insert_with(Vec::new)
            .push((value, diff));
    }
    updates
}

fn texts(records: &[Record]) -> Vec<(String, Option<String>)> {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let pair = |record: &Record| (text(&record.key), record.body.as_ref().map(text));
    records.iter().map(pair).collect()
}

/// Counts what came; an output from two on, none below.
fn count(_: &String, state: &mut Option<u32>, values: Vec<(u32, isize)>) -> Option<u32> {
    let come: isize = values.iter().map(|(_, diff)| diff).sum();
    let count = state
        .unwrap_or_default()
        .checked_add_signed(come as i32)
        .unwrap_or(0);
    *state = (count > 0).then_some(count);
    (*state).filter(|count| *count >= 2)
}

#[test]
fn rows_and_records_follow_what_changed() {
    let mut state = KeyedState::<String, u32, u32, _>::new("s", untimed(count));
    let first = state
        .advance(
            updates([
                ("b", 1, 1),
                ("a", 1, 1),
                ("a", 2, 1),
                ("c", 1, 1),
                ("c", 1, -1),
            ]),
            Moment::default(),
        )
        .expect("steps");
    assert_eq!(first.rows, [(("a".to_owned(), 2), 1)]);
    assert_eq!(first.input_rows, 3);
    let expected = [
        ("\"a\"", Some(r#"{"state":2,"output":2}"#)),
        ("\"b\"", Some(r#"{"state":1}"#)),
    ];
    assert_eq!(
        texts(&first.records),
        expected.map(|(key, body)| (key.to_owned(), body.map(str::to_owned)))
    );
    // A replaced value changes no count, so nothing is to be written.
    let same = state
        .advance(updates([("a", 2, -1), ("a", 3, 1)]), Moment::default())
        .expect("steps");
    assert!(same.rows.is_empty() && same.records.is_empty());
    assert_ne!(same.input_hash, 0);
    let last = state
        .advance(updates([("a", 3, -1), ("b", 1, -1)]), Moment::default())
        .expect("steps");
    assert_eq!(last.rows, [(("a".to_owned(), 2), -1)]);
    assert_eq!(last.records[1].body, None, "the state of b is gone");
    assert_eq!(state.keys.len(), 1);
}

#[test]
fn values_come_sorted_and_consolidated() {
    let seen = |_: &String, _: &mut Option<()>, values: Vec<(u32, isize)>| Some(values);
    let mut state = KeyedState::new("s", untimed(seen));
    let outcome = state
        .advance(
            updates([
                ("a", 9, 1),
                ("a", 3, -1),
                ("a", 9, 1),
                ("a", 5, 1),
                ("a", 5, -1),
            ]),
            Moment::default(),
        )
        .expect("steps");
    assert_eq!(outcome.rows, [(("a".to_owned(), vec![(3, -1), (9, 2)]), 1)]);
}

#[test]
fn a_state_that_is_null_in_json_comes_back() {
    let seen = |_: &String, state: &mut Option<()>, _: Vec<(u32, isize)>| {
        state.replace(()).is_none().then_some(None::<u32>)
    };
    let mut state = KeyedState::new("s", untimed(seen));
    let outcome = state
        .advance(updates([("a", 1, 1)]), Moment::default())
        .expect("steps");
    assert_eq!(
        texts(&outcome.records)[0].1.as_deref(),
        Some(r#"{"state":null,"output":null}"#)
    );
    let mut state = KeyedState::new("s", untimed(seen));
    let rows = state.load(outcome.records).expect("loads");
    assert_eq!(rows, [("a".to_owned(), None)]);
    let outcome = state
        .advance(updates([("a", 2, 1)]), Moment::default())
        .expect("steps");
    assert_eq!(outcome.rows, [(("a".to_owned(), None), -1)]);
}

#[test]
fn what_an_earlier_life_left_is_removed_unless_it_is_there_again() {
    let record = |key: &'static str| Record {
        key: Bytes::from_static(key.as_bytes()),
        body: Some("{\"state\":7}".into()),
    };
    let mut state = KeyedState::<String, u32, u32, _>::new("s", untimed(count));
    state.discard(vec![record("\"a\""), record("\"b\"")]);
    let outcome = state
        .advance(updates([("a", 1, 1)]), Moment::default())
        .expect("steps");
    let expected = [("\"a\"", Some(r#"{"state":1}"#)), ("\"b\"", None)];
    assert_eq!(
        texts(&outcome.records),
        expected.map(|(key, body)| (key.to_owned(), body.map(str::to_owned)))
    );
    assert!(!state.has_stale());
}

/// Keys ask for a moment, come back from a checkpoint with it, and are woken up once, whether anything of them changes or not.
#[test]
fn a_key_is_woken_up_when_the_watermark_comes_to_its_moment() {
    // Its output is how often it was stepped, and it wakes up 10 after the sum of what came.
    fn wake(
        _: &String,
        sum: &mut Option<u64>,
        steps: Option<&u32>,
        changes: Vec<(u64, isize)>,
        _: Moment,
    ) -> Stepped<u32> {
        let came: u64 = changes.iter().map(|(value, _)| value).sum();
        let sum = *sum.insert(sum.unwrap_or_default() + came);
        Stepped {
            output: Some(steps.map_or(1, |steps| steps + 1)),
            wake_ms: (!changes.is_empty()).then_some(sum + 10),
        }
    }
    let moment = |before_ms, now_ms| Moment { before_ms, now_ms };
    let mut state = KeyedState::<String, u64, u32, _>::new("s", wake);
    let first = updates([("a", 5, 1), ("b", 7, 1)]);
    let first = state.advance(first, moment(0, 0)).expect("steps");
    assert_eq!(
        texts(&first.records)[0].1.as_deref(),
        Some(r#"{"state":5,"output":1,"wake_ms":15}"#)
    );
    let mut state = KeyedState::<String, u64, u32, _>::new("s", wake);
    state.load(first.records).expect("loads");
    let nothing = || Updates::<u64>::new();
    let steps = |outcome: Outcome<String, u32>| -> Vec<(String, u32)> {
        let rows = outcome.rows.into_iter().filter(|(_, diff)| *diff > 0);
        rows.map(|(row, _)| row).collect()
    };
    let outcome = state.advance(nothing(), moment(0, 14)).expect("steps");
    assert_eq!(steps(outcome), [], "too soon");
    // One asks for another moment in time, the other is woken up.
    let outcome = state.advance(updates([("b", 9, 1)]), moment(14, 17));
    assert_eq!(
        steps(outcome.expect("steps")),
        [("a".to_owned(), 2), ("b".to_owned(), 2)]
    );
    let outcome = state.advance(nothing(), moment(17, 17)).expect("steps");
    assert_eq!(steps(outcome), []);
    let outcome = state.advance(nothing(), moment(17, 100)).expect("steps");
    assert_eq!(steps(outcome), [("b".to_owned(), 3)]);
    let outcome = state.advance(nothing(), moment(100, 900)).expect("steps");
    assert_eq!(steps(outcome), [], "nobody asked again");
}

#[test]
fn the_input_hash_forgets_grouping_and_tells_pairs_apart() {
    let state = KeyedState::<String, u32, u32, _>::new("s", untimed(count));
    let hash = |pairs: &[(&'static str, u32, isize)]| {
        let outcome = state.observe(updates(pairs.iter().copied()));
        outcome.expect("observes").input_hash
    };
    let whole = hash(&[("a", 1, 1), ("b", 2, 1)]);
    let parts = hash(&[("a", 1, 1), ("b", 3, 1)]).wrapping_add(hash(&[("b", 3, -1), ("b", 2, 1)]));
    assert_eq!(whole, parts);
    assert_ne!(hash(&[("a", 1, 1)]), hash(&[("b", 1, 1)]));
    assert_ne!(hash(&[("a", 1, 1)]), hash(&[("a", 2, 1)]));
}

#[test]
fn a_state_that_does_not_decode_is_named() {
    let mut state = KeyedState::<String, u32, u32, _>::new("visits", untimed(count));
    let record = Record {
        key: "\"anna\"".into(),
        body: Some("{\"state\":\"x\"}".into()),
    };
    let report = state.load(vec![record]).expect_err("no count").report();
    assert!(
        report.contains("visits") && report.contains("anna"),
        "{report}"
    );
}

/// What the state says that it keeps is what its records come to, taken together; and the same when it is loaded.
#[test]
fn rows_and_bytes_are_those_of_the_records() {
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let mut state = KeyedState::<String, u32, u32, _>::new("s", untimed(count));
    let mut kept: BTreeMap<Bytes, Bytes> = BTreeMap::new();
    for _ in 0..200 {
        let names = ["a", "b", "c", "a longer one"];
        let changes = (0..random.usize(1..4)).map(|_| {
            let diff = if random.bool() { 1 } else { -1 };
            (names[random.usize(..names.len())], random.u32(0..3), diff)
        });
        let changes: Vec<_> = changes.collect();
        let outcome = state.advance(updates(changes), Moment::default());
        for Record { key, body } in outcome.expect("steps").records {
            match body {
                Some(body) => drop(kept.insert(key, body)),
                None => drop(kept.remove(&key)),
            }
        }
        let bytes: usize = kept.iter().map(|(key, body)| key.len() + body.len()).sum();
        assert_eq!(
            (state.rows(), state.bytes()),
            (kept.len(), bytes),
            "seed {seed}"
        );
    }
    let record = |(key, body): (Bytes, Bytes)| Record {
        key,
        body: Some(body),
    };
    let records: Vec<_> = kept.into_iter().map(record).collect();
    let mut loaded = KeyedState::<String, u32, u32, _>::new("s", untimed(count));
    loaded.load(records.clone()).expect("loads");
    loaded.load(records).expect("loads again");
    assert_eq!(
        (loaded.rows(), loaded.bytes()),
        (state.rows(), state.bytes()),
        "seed {seed}"
    );
}
