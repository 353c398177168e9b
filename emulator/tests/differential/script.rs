//! Operation scripts: what they are made of, and how a seed becomes one.
//!
//! A script names things symbolically (the current entity tag, the reader number 2), so that both servers can be driven
//! by it, and so that it still means something after operations were taken out of it.

use serde_json::{Value, json};

use crate::keys::Shape;
use crate::odd::Odd;
use crate::query::QueryText;

/// Ids of items. Few, so that operations collide; with characters that need care on the way.
pub const IDS: [&str; 6] = ["a", "b", "c", "d e", "\u{e6}\u{1F30A}", "x.y-_~'(1)"];

/// An entity tag, as a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tag {
    /// The newest one of the item that its client knows.
    Current,
    /// The one before.
    Stale,
    /// One that no item ever had.
    Foreign,
    /// `*`.
    Any,
}

/// A write of a whole item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    Create,
    Upsert,
    Replace,
}

/// A write of one item.
#[derive(Clone, Debug)]
pub struct WriteItem {
    pub write: Write,
    pub key: usize,
    pub id: &'static str,
    /// Partition key that the item's members hold, if not that of the call.
    pub other_key: Option<usize>,
    pub body: Value,
    pub if_match: Option<Tag>,
    pub if_none_match: Option<Tag>,
    /// Whether the answer shall hold the item.
    pub content: bool,
}

/// One operation of a batch.
#[derive(Clone, Debug)]
pub enum Step {
    Write {
        write: Write,
        id: &'static str,
        body: Value,
        if_match: Option<Tag>,
    },
    Read {
        id: &'static str,
        if_none_match: Option<Tag>,
    },
    Delete {
        id: &'static str,
        if_match: Option<Tag>,
    },
}

/// Part of a container that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// One partition key.
    Key(usize),
    /// All keys below the first component of a key.
    Prefix(usize),
    /// One of the ranges that the container had when the scope was first used.
    Range(usize),
    /// Everything.
    Full,
}

/// Where a reader of the change feed starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Start {
    Beginning,
    Now,
    /// An hour from now.
    Future,
}

/// One operation.
#[derive(Clone, Debug)]
pub enum Action {
    Write(WriteItem),
    Read {
        key: usize,
        id: &'static str,
        if_none_match: Option<Tag>,
    },
    Delete {
        key: usize,
        id: &'static str,
        if_match: Option<Tag>,
    },
    Batch {
        key: usize,
        steps: Vec<Step>,
    },
    Query {
        scope: Scope,
        query: QueryText,
        page: u32,
    },
    /// Continues a reader of the change feed with a page size, for some pages or until nothing is left. Its first read
    /// is always to the end: until every range was asked once, `Now` is not a point in time.
    Follow {
        scope: Scope,
        start: Start,
        page: u32,
        pages: Option<usize>,
    },
    /// A request that a careful client does not send.
    Odd(Odd),
    /// The bounds of the physical partitions.
    Ranges,
    /// Splits the n-th partition in key order, modulo their number.
    Split(usize),
    /// Merges the n-th partition with the next one, modulo what is possible.
    Merge(usize),
}

/// An operation and the container it is for.
#[derive(Clone, Debug)]
pub struct Operation {
    pub shape: Shape,
    pub action: Action,
}

/// A script of `length` random operations, and reads of everything at its end.
pub fn generate(seed: u64, length: usize) -> Vec<Operation> {
    let mut random = Random(fastrand::Rng::with_seed(seed));
    let active: Vec<Vec<usize>> = Shape::ALL
        .iter()
        .map(|shape| random.some_keys(*shape))
        .collect();
    let mut script: Vec<Operation> = (0..length)
        .map(|_| {
            let shape = random.pick(Shape::ALL);
            let key = random.pick(&active[shape as usize]);
            let action = random.action(shape, key);
            Operation { shape, action }
        })
        .collect();
    for shape in Shape::ALL.iter().copied() {
        script.extend(epilogue(shape).map(|action| Operation { shape, action }));
    }
    script
}

fn epilogue(shape: Shape) -> impl Iterator<Item = Action> {
    let keys = 0..shape.keys().len();
    let scopes = keys.clone().map(Scope::Key);
    let scopes = scopes.chain([Scope::Range(0), Scope::Range(3), Scope::Full]);
    keys.map(|key| Action::Query {
        scope: Scope::Key(key),
        query: QueryText::plain("SELECT * FROM c"),
        page: 100,
    })
    .chain(scopes.map(|scope| Action::Follow {
        scope,
        start: Start::Beginning,
        page: 100,
        pages: None,
    }))
}

/// A source of random choices.
pub struct Random(pub fastrand::Rng);

impl Random {
    pub fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.0.usize(..items.len())]
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u32) -> bool {
        self.0.u32(..n) == 0
    }

    fn maybe<T>(&mut self, n: u32, some: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.one_in(n).then(|| some(self))
    }

    /// A few of a container's keys, so that a short script fills them.
    fn some_keys(&mut self, shape: Shape) -> Vec<usize> {
        let mut keys: Vec<usize> = (0..shape.keys().len()).collect();
        self.0.shuffle(&mut keys);
        keys.truncate(3);
        keys
    }

    fn action(&mut self, shape: Shape, key: usize) -> Action {
        let id = self.pick(&IDS);
        match self.0.u32(..100) {
            0..38 => Action::Write(self.write(shape, key, id)),
            38..50 => Action::Read {
                key,
                id,
                if_none_match: self.maybe(2, |random| {
                    random.pick(&[Tag::Current, Tag::Current, Tag::Stale, Tag::Foreign])
                }),
            },
            50..60 => Action::Delete {
                key,
                id,
                if_match: self.maybe(3, Self::tag),
            },
            60..74 => Action::Batch {
                key,
                steps: (0..self.0.usize(1..7)).map(|_| self.step()).collect(),
            },
            74..87 => {
                let scope = self.query_scope(shape, key);
                let query = match scope {
                    Scope::Key(_) => QueryText::random(self),
                    _ => QueryText::filtered(self),
                };
                Action::Query {
                    scope,
                    query,
                    page: self.pick(&[1, 3, 100]),
                }
            }
            87..98 => Action::Follow {
                scope: self.feed_scope(key),
                start: self.pick(&[Start::Beginning, Start::Beginning, Start::Now]),
                page: self.pick(&[1, 2, 5, 100]),
                pages: self.maybe(3, |random| random.0.usize(1..4)),
            },
            98 if self.0.bool() => Action::Ranges,
            98 => Action::Merge(self.0.usize(..16)),
            _ => Action::Split(self.0.usize(..16)),
        }
    }

    fn write(&mut self, shape: Shape, key: usize, id: &'static str) -> WriteItem {
        let write = self.pick(&[Write::Create, Write::Upsert, Write::Upsert, Write::Replace]);
        WriteItem {
            write,
            key,
            id,
            other_key: self.maybe(40, |random| random.0.usize(..shape.keys().len())),
            body: self.body(),
            if_match: match write {
                Write::Create => None,
                Write::Upsert | Write::Replace => self.maybe(3, Self::tag),
            },
            if_none_match: None,
            content: self.0.bool(),
        }
    }

    fn tag(&mut self) -> Tag {
        self.pick(&[Tag::Current, Tag::Current, Tag::Stale, Tag::Foreign])
    }

    /// Half of all batches would fail if every operation chose freely: most choose what works more often.
    fn step(&mut self) -> Step {
        let id = self.pick(&IDS);
        match self.0.u32(..20) {
            0..2 => self.batch_write(Write::Create, id),
            2..14 => self.batch_write(Write::Upsert, id),
            14..16 => self.batch_write(Write::Replace, id),
            16..18 => Step::Read {
                id,
                if_none_match: self.maybe(4, Self::tag),
            },
            _ => Step::Delete {
                id,
                if_match: self.maybe(4, Self::tag),
            },
        }
    }

    fn batch_write(&mut self, write: Write, id: &'static str) -> Step {
        Step::Write {
            write,
            id,
            body: self.body(),
            if_match: match write {
                Write::Create => None,
                Write::Upsert | Write::Replace => self.maybe(8, Self::tag),
            },
        }
    }

    fn query_scope(&mut self, shape: Shape, key: usize) -> Scope {
        let scope = match self.0.u32(..12) {
            0 => Scope::Prefix(key),
            1 => Scope::Range(self.pick(&[0, 3])),
            2 => Scope::Full,
            _ => Scope::Key(key),
        };
        if shape.allows(scope) {
            scope
        } else {
            Scope::Key(key)
        }
    }

    fn feed_scope(&mut self, key: usize) -> Scope {
        match self.0.u32(..8) {
            0..3 => Scope::Key(key),
            3 | 4 => Scope::Range(self.pick(&[0, 3])),
            _ => Scope::Full,
        }
    }

    /// Members of an item besides its id and partition key.
    fn body(&mut self) -> Value {
        let mut body = json!({"u": self.0.u32(..12)});
        for (name, choices) in [("n", 8), ("s", 6), ("o", 4), ("l", 3)] {
            if self.one_in(5) {
                continue;
            }
            let choice = self.0.u32(..choices + 2);
            body[name] = match (name, choice) {
                ("n", 0..6) => json!(self.0.i32(-3..6)),
                ("n", 6) => json!(2.5),
                ("n", 7) => json!(-1.0e-7),
                ("s", 0..5) => {
                    json!(self.pick(&["", "abc", "ABC", "b\u{e9}\u{10000}", "\"q\\\n"]))
                }
                ("s", 5) => json!("long ".repeat(40)),
                ("o", 0..4) => json!({"x": self.0.i32(0..3), "y": [choice, null]}),
                ("l", 0..3) => json!([self.0.i32(-1..2), "abc", {"x": choice}, true]),
                (_, choice) if choice % 2 == 0 => Value::Null,
                _ => json!(self.0.bool()),
            };
        }
        body
    }
}
