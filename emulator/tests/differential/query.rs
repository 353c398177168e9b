//! Random queries in the dialect of the server under test.

use azure_data_cosmos::Query;
use serde_json::{Value, json};

use crate::Fallible;
use crate::script::Random;

/// The text of a query, its parameters, and whether the order of its rows is determined.
#[derive(Clone, Debug)]
pub struct QueryText {
    pub text: String,
    pub parameters: Vec<(&'static str, Value)>,
    pub ordered: bool,
}

const FIELDS: [&str; 10] = [
    "c.n",
    "c.n",
    "c.s",
    "c.s",
    "c.id",
    "c.o.x",
    "c.o",
    "c.l[0]",
    "c.l[2].x",
    "c[\"none\"]",
];

const LITERALS: [&str; 12] = [
    "0",
    "1",
    "2.5",
    "-1",
    "-1e-7",
    "'abc'",
    "'b'",
    "''",
    "true",
    "false",
    "null",
    "undefined",
];

const TYPE_TESTS: [&str; 7] = [
    "IS_DEFINED",
    "IS_NULL",
    "IS_BOOL",
    "IS_NUMBER",
    "IS_STRING",
    "IS_ARRAY",
    "IS_OBJECT",
];

const CALLS: [&str; 16] = [
    "ABS(c.n)",
    "FLOOR(c.n)",
    "CEILING(c.n)",
    "ROUND(c.n)",
    "LENGTH(c.s)",
    "ARRAY_LENGTH(c.l)",
    "LOWER(c.s)",
    "UPPER(c.s)",
    "CONCAT(c.s, c.id)",
    "SUBSTRING(c.s, 1, 2)",
    "(c.n ?? c.s)",
    "-c.n",
    "ARRAY_CONTAINS(c.l, 'abc')",
    "ARRAY_CONTAINS(c.l, 1)",
    "(c.n > 1 ? c.s : c.id)",
    "(c.s || 'c')",
];

impl QueryText {
    /// A query without parameters and without an order.
    pub fn plain(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            parameters: Vec::new(),
            ordered: false,
        }
    }

    /// A query within one partition key, in which ids are unique.
    pub fn random(random: &mut Random) -> Self {
        let mut query = Self::plain("");
        let filter = query.filter(random);
        match random.0.u32(..10) {
            0 => query.text = format!("SELECT VALUE {} FROM c{filter}", aggregate(random)),
            1..4 => {
                let direction = random.pick(&["", " ASC", " DESC"]);
                let (projection, window) = (projection(random), window(random));
                let top = if window.is_empty() && random.one_in(3) {
                    "TOP 2 "
                } else {
                    ""
                };
                query.ordered = true;
                query.text = format!(
                    "SELECT {top}{projection} FROM c{filter} ORDER BY c.id{direction}{window}"
                );
            }
            4..6 => {
                // Rows that tie are equal, so their order does not show.
                let field = random.pick(&["c.n", "c.s", "c.o.x"]);
                let direction = random.pick(&["", " DESC"]);
                query.ordered = true;
                query.text =
                    format!("SELECT VALUE {field} FROM c{filter} ORDER BY {field}{direction}");
            }
            _ => query.text = format!("SELECT {} FROM c{filter}", projection(random)),
        }
        query
    }

    /// A query that makes sense over several partition keys.
    pub fn filtered(random: &mut Random) -> Self {
        let mut query = Self::plain("");
        let filter = query.filter(random);
        if random.one_in(3) {
            query.ordered = true;
            let direction = random.pick(&["", " DESC"]);
            query.text = format!("SELECT VALUE c.u FROM c{filter} ORDER BY c.u{direction}");
        } else {
            query.text = format!("SELECT * FROM c{filter}");
        }
        query
    }

    /// The query as the SDK takes it.
    pub fn to_query(&self) -> Fallible<Query> {
        let mut query = Query::from(self.text.clone());
        for (name, value) in &self.parameters {
            query = query.with_parameter(*name, value)?;
        }
        Ok(query)
    }

    fn filter(&mut self, random: &mut Random) -> String {
        if random.one_in(6) {
            return String::new();
        }
        let depth = random.0.u32(..3);
        format!(" WHERE {}", self.predicate(random, depth, true))
    }

    /// A condition. In a positive place it does not matter whether it is false or undefined.
    fn predicate(&mut self, random: &mut Random, depth: u32, positive: bool) -> String {
        if depth == 0 {
            return if positive && random.one_in(6) {
                membership(random)
            } else {
                self.atom(random)
            };
        }
        let shape = random.0.u32(..8);
        let mut part = || self.predicate(random, depth - 1, positive && shape < 6);
        let (left, right) = (part(), part());
        match shape {
            0..3 => format!("({left} AND {right})"),
            3..6 => format!("({left} OR {right})"),
            6 => format!("NOT ({left})"),
            _ => format!("({left}) = ({right})"),
        }
    }

    fn atom(&mut self, random: &mut Random) -> String {
        let field = random.pick(&FIELDS);
        let operator = random.pick(&["=", "!=", "<", "<=", ">", ">=", "<>"]);
        match random.0.u32(..10) {
            0..4 => format!("{field} {operator} {}", random.pick(&LITERALS)),
            4 | 5 => format!("{field} {operator} {}", self.parameter(random)),
            6 => format!("{}({field})", random.pick(&TYPE_TESTS)),
            7 => {
                let test = random.pick(&["STARTSWITH", "ENDSWITH", "CONTAINS"]);
                let text = random.pick(&["'a'", "'C'", "''", "'abc'", "1"]);
                let flag = random.pick(&["", ", true", ", false"]);
                format!("{test}({field}, {text}{flag})")
            }
            8 => {
                let arithmetic = random.pick(&["+", "-", "*", "/", "%"]);
                let operand = random.pick(&["1", "2", "0", "0.5", "'a'"]);
                format!("{field} {arithmetic} {operand} {operator} 2")
            }
            _ => format!(
                "{} {operator} {}",
                random.pick(&CALLS),
                random.pick(&LITERALS)
            ),
        }
    }

    fn parameter(&mut self, random: &mut Random) -> &'static str {
        let name = ["@a", "@b", "@c", "@d", "@e", "@f", "@g", "@h"][self.parameters.len() % 8];
        let value = match random.0.u32(..7) {
            0..3 => json!(random.0.i32(-2..5)),
            3 => json!(2.5),
            4 => json!("abc"),
            5 => json!({"x": 1, "y": [0, null]}),
            _ => Value::Null,
        };
        if self.parameters.len() < 8 {
            self.parameters.push((name, value));
        }
        name
    }
}

/// Conditions that are false in the oracle where they should be undefined.
fn membership(random: &mut Random) -> String {
    let field = random.pick(&FIELDS);
    let (first, second) = (random.pick(&LITERALS), random.pick(&LITERALS));
    if random.0.bool() {
        format!("{field} IN ({first}, {second})")
    } else {
        format!("{field} BETWEEN {first} AND {second}")
    }
}

fn projection(random: &mut Random) -> &'static str {
    random.pick(&[
        "*",
        "c.id",
        "c.id, c.n",
        "c.id, c.o.x AS x, c.l[1] AS second",
        "VALUE c",
        "VALUE c.id",
        "VALUE {\"id\": c.id, \"both\": [c.n, c.s]}",
        "VALUE [c.id, c.none, c.n]",
        "c.n + 1 AS next, c.n = 1 AS one, c.id",
    ])
}

fn window(random: &mut Random) -> &'static str {
    random.pick(&[
        "",
        "",
        " OFFSET 1 LIMIT 2",
        " OFFSET 0 LIMIT 1",
        " OFFSET 3 LIMIT 100",
    ])
}

fn aggregate(random: &mut Random) -> &'static str {
    random.pick(&[
        "COUNT(1)",
        "COUNT(c.n)",
        "SUM(c.u)",
        "MIN(c.n)",
        "MAX(c.s)",
        "AVG(c.u)",
    ])
}
