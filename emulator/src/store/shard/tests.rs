//! The shard against a naive model, and what it costs.

use super::*;
use crate::epk::hash_component;

struct Random(fastrand::Rng);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0.u64(..limit)
    }
}

/// The obvious implementation: documents in a list, sorted when asked.
#[derive(Clone, Default)]
struct Model {
    documents: Vec<Entry>,
    writes: u64,
}

#[derive(Clone)]
struct Entry {
    stamp: Stamp,
    order: u64,
    epk: Epk,
    id: String,
    text: Vec<u8>,
}

impl Model {
    fn write(&mut self, stamp: Stamp, epk: &Epk, id: &str, text: Vec<u8>) {
        self.delete(epk, id);
        let order = self.writes;
        self.documents.push(Entry {
            stamp,
            order,
            epk: epk.clone(),
            id: id.to_owned(),
            text,
        });
    }

    fn delete(&mut self, epk: &Epk, id: &str) {
        self.documents
            .retain(|entry| !(entry.epk == *epk && entry.id == id));
    }

    fn ids(&self, keep: impl Fn(&Entry) -> bool) -> Vec<String> {
        let mut entries: Vec<_> = self.documents.iter().filter(|entry| keep(entry)).collect();
        entries.sort_by_key(|entry| (entry.stamp.lsn, entry.order));
        entries.into_iter().map(|entry| entry.id.clone()).collect()
    }
}

fn put(shard: &mut Shard, epk: &Epk, id: &str, rid: u64, text: Vec<u8>, stamp: Stamp) {
    let rid = shard
        .get(epk, id)
        .map_or(rid, |document| document.version.rid);
    let draft = Draft {
        id: id.into(),
        epk: epk.clone(),
        text: text.into(),
        ttl: None,
        unique: Box::default(),
    };
    let version = Version {
        text: draft.text.clone(),
        rid,
        etag: 0,
        lsn: stamp.lsn,
        ts: stamp.ts,
    };
    shard.put(draft, version);
}

fn ids<'a>(documents: impl Iterator<Item = &'a Document>) -> Vec<String> {
    documents.map(|document| document.id.to_string()).collect()
}

fn keys(count: u8) -> Vec<Epk> {
    (0..count)
        .map(|key| Epk::from_hashes(&hash_component(&[key])))
        .collect()
}

fn assert_equal(shard: &Shard, model: &Model, random: &mut Random, note: &str) {
    let after = random.below(shard.lsn() + 2);
    assert_eq!(
        ids(shard.changes_after(after)),
        model.ids(|entry| entry.stamp.lsn > after),
        "{note} after {after}"
    );
    let since = random.below(u64::from(shard.stamp().ts) + 2) as u32;
    assert_eq!(
        ids(shard.changes_since(since)),
        model.ids(|entry| entry.stamp.ts >= since),
        "{note} since {since}"
    );
    for entry in &model.documents {
        let document = shard.get(&entry.epk, &entry.id);
        assert_eq!(
            document.map(|document| &*document.version.text),
            Some(&*entry.text),
            "{note}"
        );
    }
    assert_eq!(shard.len(), model.documents.len(), "{note}");
    let held: usize = shard.changes_after(0).map(Document::footprint).sum();
    assert_eq!(shard.footprint, held, "{note}");
}

/// Random writes in batches of up to five under one LSN.
fn write_randomly(
    shard: &mut Shard,
    model: &mut Model,
    random: &mut Random,
    keys: &[Epk],
    now: u32,
) {
    let stamp = shard.next_stamp(now);
    for _ in 0..=random.below(5) {
        let epk = &keys[random.below(keys.len() as u64) as usize];
        let id = format!("i{}", random.below(30));
        let exists = shard.get(epk, &id).is_some();
        if exists && random.below(3) == 0 {
            assert!(shard.remove(epk, &id, ChangeKind::Delete, stamp).is_some());
            model.delete(epk, &id);
        } else {
            let text = vec![b'x'; random.below(90) as usize];
            model.writes += 1;
            put(shard, epk, &id, model.writes, text.clone(), stamp);
            model.write(stamp, epk, &id, text);
        }
    }
}

#[test]
fn random_writes_equal_a_naive_model() {
    for seed in 1..=20 {
        let mut random = Random(fastrand::Rng::with_seed(seed));
        let (mut shard, mut model) = (Shard::default(), Model::default());
        let keys = keys(4);
        for round in 0..400u32 {
            write_randomly(&mut shard, &mut model, &mut random, &keys, round / 10);
            if round % 7 == 0 {
                let note = format!("seed {seed} round {round}");
                assert_equal(&shard, &model, &mut random, &note);
                let one = EpkRange::prefix(&keys[0]);
                let expected = model.ids(|entry| entry.epk == keys[0]).len();
                assert_eq!(shard.scan(&one, None).count(), expected, "{note}");
            }
        }
    }
}

#[test]
fn splits_and_merges_keep_documents_positions_and_changes() {
    for seed in 1..=20 {
        let mut random = Random(fastrand::Rng::with_seed(seed));
        let (mut shard, mut model) = (Shard::default(), Model::default());
        let all = keys(16);
        let full = EpkRange::full();
        shard.history_mut().start(&full, 0);
        for round in 0..150 {
            write_randomly(&mut shard, &mut model, &mut random, &all, round / 10);
        }
        let changes = shard.history().after(0, &full).map(Iterator::count);
        let before = shard.stamp();
        let halves = EpkRange::split_evenly(2);
        let (mut left, mut right) = shard.split(&halves[0], &halves[1]);
        assert_eq!(
            (left.stamp(), right.stamp()),
            (before, before),
            "seed {seed}"
        );
        // Each side goes on for itself, and their LSNs drift apart.
        let mut sides = [(model.clone(), &mut left), (model.clone(), &mut right)];
        for ((model, side), range) in sides.iter_mut().zip(&halves) {
            model.documents.retain(|entry| range.contains(&entry.epk));
            let own: Vec<Epk> = all
                .iter()
                .filter(|epk| range.contains(epk))
                .cloned()
                .collect();
            for round in 0..random.below(60) as u32 {
                write_randomly(side, model, &mut random, &own, 15 + round);
            }
            assert_equal(side, model, &mut random, &format!("seed {seed}"));
        }
        let [(left_model, _), (right_model, _)] = sides;
        let (left_lsn, right_lsn) = (left.lsn(), right.lsn());
        let merged = left.merge(right);
        assert_eq!(merged.lsn(), left_lsn.max(right_lsn));
        assert_eq!(
            merged.len(),
            left_model.documents.len() + right_model.documents.len()
        );
        for (model, range) in [(left_model, &halves[0]), (right_model, &halves[1])] {
            let after = random.below(before.lsn + 20);
            let documents = merged.changes_after(after);
            assert_eq!(
                ids(documents.filter(|document| range.contains(&document.epk))),
                model.ids(|entry| entry.stamp.lsn > after),
                "seed {seed} after {after}"
            );
        }
        let kept = merged.history().after(0, &full).map(Iterator::count);
        assert!(kept >= changes, "seed {seed}: {kept:?} {changes:?}");
    }
}

#[test]
fn documents_expire_in_order_and_can_be_given_more_time() {
    let mut shard = Shard::default();
    let epk = Epk::from_hashes(&[1; 16]);
    for (id, ttl) in [("a", Some(10)), ("b", Some(5)), ("c", None)] {
        let stamp = shard.next_stamp(100);
        let text: Arc<[u8]> = Arc::from(&b"{"[..]);
        let draft = Draft {
            id: id.into(),
            epk: epk.clone(),
            text: text.clone(),
            ttl,
            unique: Box::default(),
        };
        let version = Version {
            text,
            rid: stamp.lsn,
            etag: 0,
            lsn: stamp.lsn,
            ts: stamp.ts,
        };
        shard.put(draft, version);
    }
    assert_eq!(shard.next_expiry(), 105);
    assert!(shard.expired(104).is_empty());
    let due: Vec<_> = shard
        .expired(110)
        .into_iter()
        .map(|(at, _, id)| (at, id))
        .collect();
    assert_eq!(due, [(105, "b".into()), (110, "a".into())]);
    let stamp = shard.next_stamp(110);
    shard.remove(&epk, "b", ChangeKind::Expire, stamp);
    assert_eq!(shard.next_expiry(), 110);
    shard.reset_expiries(|_| Some(1_000));
    assert_eq!(shard.next_expiry(), 1_100);
    shard.reset_expiries(|_| None);
    assert_eq!(shard.next_expiry(), NEVER);
}

#[test]
fn memory_follows_documents_and_not_writes() {
    let mut shard = Shard::default();
    let epk = Epk::from_hashes(&[1; 16]);
    for index in 0..1_000u64 {
        let stamp = shard.next_stamp(0);
        put(
            &mut shard,
            &epk,
            &index.to_string(),
            index,
            vec![b'x'; 200],
            stamp,
        );
    }
    let before = shard.footprint();
    for write in 0..100_000u64 {
        let stamp = shard.next_stamp(0);
        let id = (write % 1_000).to_string();
        put(&mut shard, &epk, &id, 0, vec![b'x'; 200], stamp);
    }
    assert!(
        shard.footprint() < before + 64 * 1024,
        "{before} {}",
        shard.footprint()
    );
}

#[test]
fn scans_continue_behind_a_place() {
    let mut shard = Shard::default();
    for index in 0..200u64 {
        let epk = Epk::from_hashes(&hash_component(&(index % 20).to_le_bytes()));
        let stamp = shard.next_stamp(0);
        put(
            &mut shard,
            &epk,
            &index.to_string(),
            index + 1,
            vec![b'x'],
            stamp,
        );
    }
    for range in EpkRange::split_evenly(3) {
        let whole: Vec<u64> = shard
            .scan(&range, None)
            .map(|document| document.version.rid)
            .collect();
        let (mut pieces, mut after) = (Vec::new(), None);
        while let Some(document) = shard.scan(&range, after).next() {
            after = Some((document.epk.head(), document.version.rid));
            pieces.push(document.version.rid);
        }
        assert_eq!(pieces, whole);
    }
    assert_eq!(shard.scan(&EpkRange::full(), None).count(), 200);
}
