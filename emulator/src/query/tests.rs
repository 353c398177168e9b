//! Queries over random documents, against what plain Rust makes of the same documents.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Value, json};

use super::budget::Budget;
use super::parse::parse;
use super::rows::{Collector, expand};

struct Random(fastrand::Rng);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0.u64(..limit)
    }

    /// A document whose members are there or not, of several types, with many ties.
    fn document(&mut self, id: usize) -> Value {
        let mut document = json!({"id": id, "n": self.below(20), "g": self.below(4)});
        document["s"] = match self.below(5) {
            0 => json!(format!("s{}", self.below(3))),
            1 => json!(self.below(3)),
            2 => Value::Null,
            3 => json!(self.below(2) == 0),
            _ => return document,
        };
        let tags: Vec<u64> = (0..self.below(4)).map(|_| self.below(3)).collect();
        document["tags"] = json!(tags);
        document
    }
}

fn run(text: &str, documents: &[Value]) -> Vec<Value> {
    let query = parse(text, HashMap::new()).unwrap_or_else(|error| panic!("{text}: {error}"));
    let (mut collector, budget) = (Collector::new(&query), Budget::default());
    for document in documents {
        let slots = [Some(document)];
        let flow = expand(&query, &slots, &budget, &mut |scope| collector.add(scope));
        if flow.is_break() {
            break;
        }
    }
    collector.finish(&budget)
}

fn n(document: &Value) -> u64 {
    document["n"].as_u64().unwrap()
}

fn tags(document: &Value) -> Vec<u64> {
    let tags = document["tags"].as_array().into_iter().flatten();
    tags.map(|tag| tag.as_u64().unwrap()).collect()
}

/// The rank of the types of `s`, and the value within its type as text of equal length.
fn sort_key(document: &Value) -> (u8, String) {
    match document.get("s") {
        None => (0, String::new()),
        Some(Value::Null) => (1, String::new()),
        Some(Value::Bool(flag)) => (2, u8::from(*flag).to_string()),
        Some(Value::Number(number)) => (3, number.to_string()),
        Some(other) => (4, other.to_string()),
    }
}

fn ids<'d>(documents: impl IntoIterator<Item = &'d Value>) -> Vec<Value> {
    let ids = documents.into_iter().map(|document| document["id"].clone());
    ids.collect()
}

fn unordered(mut rows: Vec<Value>) -> Vec<Value> {
    rows.sort_by_key(Value::to_string);
    rows
}

#[test]
fn filters_and_orders_equal_plain_rust() {
    for seed in 1..=20 {
        let mut random = Random(fastrand::Rng::with_seed(seed));
        let documents: Vec<Value> = (0..60).map(|id| random.document(id)).collect();
        let low = random.below(20);
        let kept = |keep: &dyn Fn(&Value) -> bool| ids(documents.iter().filter(|d| keep(d)));

        let text = format!("SELECT VALUE c.id FROM c WHERE c.n >= {low} AND NOT c.s = 1");
        let naive = kept(&|d| n(d) >= low && d["s"].is_number() && d["s"] != 1);
        assert_eq!(run(&text, &documents), naive, "seed {seed}");

        let text = "SELECT VALUE c.id FROM c WHERE IS_STRING(c.s) OR c.s IN (null, 2)";
        let naive =
            kept(&|d| d["s"].is_string() || d["s"] == 2 || d.get("s").is_some_and(Value::is_null));
        assert_eq!(run(text, &documents), naive, "seed {seed}");

        let text = "SELECT VALUE c.id FROM c ORDER BY c.s DESC, c.n, c.id OFFSET 3 LIMIT 30";
        let mut naive: Vec<&Value> = documents.iter().collect();
        naive.sort_by_key(|d| (std::cmp::Reverse(sort_key(d)), n(d), d["id"].as_u64()));
        let naive = ids(naive.into_iter().skip(3).take(30));
        assert_eq!(run(text, &documents), naive, "seed {seed}");
    }
}

#[test]
fn joins_groups_and_doubles_equal_plain_rust() {
    for seed in 1..=20 {
        let mut random = Random(fastrand::Rng::with_seed(seed));
        let documents: Vec<Value> = (0..60).map(|id| random.document(id)).collect();

        let text = "SELECT VALUE [c.id, t] FROM c JOIN t IN c.tags WHERE t > 0";
        let pairs = documents.iter().flat_map(|d| {
            let tags = tags(d).into_iter().filter(|tag| *tag > 0);
            tags.map(|tag| json!([d["id"], tag]))
        });
        assert_eq!(
            run(text, &documents),
            pairs.collect::<Vec<_>>(),
            "seed {seed}"
        );

        let text =
            "SELECT VALUE c.id FROM c WHERE EXISTS(SELECT VALUE t FROM t IN c.tags WHERE t = c.g)";
        let naive = documents
            .iter()
            .filter(|d| tags(d).iter().any(|tag| d["g"] == *tag));
        assert_eq!(run(text, &documents), ids(naive), "seed {seed}");

        let text = "SELECT DISTINCT VALUE t FROM c JOIN t IN c.tags";
        let naive: BTreeSet<u64> = documents.iter().flat_map(tags).collect();
        let naive = naive.into_iter().map(Value::from).collect();
        assert_eq!(
            unordered(run(text, &documents)),
            unordered(naive),
            "seed {seed}"
        );

        let text = "SELECT c.g, COUNT(1) AS rows, SUM(c.n) AS total, MIN(c.n) AS least, COUNT(c.s) AS with_s FROM c GROUP BY c.g";
        let mut groups: BTreeMap<u64, Vec<&Value>> = BTreeMap::new();
        for document in &documents {
            groups
                .entry(document["g"].as_u64().unwrap())
                .or_default()
                .push(document);
        }
        let naive = groups.iter().map(|(g, of_g)| {
            json!({
                "g": g, "rows": of_g.len(), "total": of_g.iter().map(|d| n(d)).sum::<u64>(),
                "least": of_g.iter().map(|d| n(d)).min(), "with_s": of_g.iter().filter(|d| d.get("s").is_some()).count(),
            })
        });
        assert_eq!(
            unordered(run(text, &documents)),
            unordered(naive.collect()),
            "seed {seed}"
        );
    }
}
