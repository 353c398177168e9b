//! Values of headers and of parts of paths: sound ones, odd ones, and those that earlier replies gave.

use super::Random;

pub const NUMBERS: [&str; 20] = [
    "0",
    "-0",
    "1",
    "-1",
    "2",
    "1000",
    "1e3",
    "0.5",
    "+7",
    " 8 ",
    "007",
    "2147483648",
    "4294967296",
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "1e308",
    "1e309",
    "NaN",
];

const KEYS: [&str; 20] = [
    "[\"p0\"]",
    "[\"p1\"]",
    "[\"p2\"]",
    "[]",
    "[{}]",
    "[null]",
    "[true]",
    "[0]",
    "[-0.0]",
    "[1e400]",
    "[1e308]",
    "[\"p0\",\"q0\"]",
    "[\"p0\",\"q0\",\"r0\",\"s0\"]",
    "[[\"p0\"]]",
    "[{\"a\":1}]",
    "\"p0\"",
    "{}",
    "[\"\\ud800\"]",
    "[\"\\u0000\"]",
    "[\"p0\"",
];

const EPKS: [&str; 14] = [
    "",
    "00",
    "05C1",
    "0",
    "1FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF",
    "20000000000000000000000000000000",
    "3FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF",
    "3fffffffffffffffffffffffffffffff3fffffffffffffffffffffffffffffff",
    "40",
    "FF",
    "FF00",
    "FFFF",
    "zz",
    "+1",
];

const RANGES: [&str; 12] = [
    "0",
    "1",
    "2",
    "3",
    "4",
    "5",
    "9",
    "M",
    "-1",
    "4294967296",
    "AAAA,0",
    ",",
];

const TOKENS: [&str; 16] = [
    "\"0\"",
    "0",
    "\"3\"",
    "*",
    "\"*\"",
    "\"-FF:0\"",
    "\"-1F:0;1F-FF:0\"",
    "\"-FF:1;-FF:1\"",
    "\"1F-FF:0;-1F:0\"",
    "\"FF-:0\"",
    "\"18446744073709551615\"",
    "\"-FF:18446744073709551616\"",
    "\"0@9999999999\"",
    "\"0@x\"",
    "\"\"",
    ";",
];

const CONTINUATIONS: [&str; 14] = [
    "place:00000000000000000000000000000000:0",
    "place:FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF:18446744073709551615",
    "place:1F:0",
    "place::",
    "rows:0:0:place:00000000000000000000000000000000:0",
    "rows:18446744073709551615:18446744073709551615:place:00000000000000000000000000000000:1",
    "rows:-1:0:place:00:0",
    "sorted:0",
    "sorted:2",
    "sorted:18446744073709551615",
    "sorted:-1",
    "sorted:",
    "{\"token\":null,\"range\":{\"min\":\"\",\"max\":\"FF\"}}",
    "",
];

const SESSIONS: [&str; 10] = [
    "0:0#1#0=1",
    "0:-1#1",
    "1:1",
    "0:0#18446744073709551615#0=1",
    "99:0#99#0=99",
    "0:0#1,1:0#1,2:0#1",
    ":",
    "0:",
    "a:b#c",
    ",,,",
];

const DATES: [&str; 8] = [
    "Thu, 01 Jan 1970 00:00:00 GMT",
    "Sat, 01 Jan 2050 00:00:00 GMT",
    "Fri, 31 Dec 9999 23:59:59 GMT",
    "Wed, 31 Dec 1969 23:59:59 GMT",
    "Thu, 01 Jan 0000 00:00:00 GMT",
    "Sunday, 06-Nov-94 08:49:37 GMT",
    "Sun Nov  6 08:49:37 1994",
    "yesterday",
];

const FLAGS: [&str; 6] = ["True", "true", "False", "FALSE", "", "1"];

/// Every header that the server reads.
pub const HEADERS: [&str; 28] = [
    "x-ms-activity-id",
    "a-im",
    "x-ms-cosmos-batch-atomic",
    "x-ms-cosmos-batch-continue-on-error",
    "x-ms-consistency-level",
    "x-ms-max-item-count",
    "x-ms-continuation",
    "x-ms-cosmos-populate-content-response-on-write",
    "x-ms-start-epk",
    "x-ms-end-epk",
    "x-ms-cosmos-intended-collection-rid",
    "x-ms-cosmos-is-batch-request",
    "x-ms-documentdb-isquery",
    "x-ms-documentdb-query",
    "x-ms-cosmos-is-query-plan-request",
    "x-ms-documentdb-is-upsert",
    "x-ms-cosmos-offer-autopilot-settings",
    "x-ms-offer-throughput",
    "x-ms-documentdb-partitionkey",
    "x-ms-documentdb-partitionkeyrangeid",
    "prefer",
    "x-ms-session-token",
    "x-ms-cosmos-changefeed-wire-format-version",
    "if-match",
    "if-none-match",
    "if-modified-since",
    "content-type",
    "date",
];

/// Values that replies gave, to be sent again.
#[derive(Default)]
pub struct Seen {
    values: Vec<String>,
}

impl Seen {
    pub fn add(&mut self, random: &mut Random, value: &str) {
        if value.is_empty() || value.len() > 4_000 {
        } else if self.values.len() < 200 {
            self.values.push(value.to_owned());
        } else {
            let at = random.below(self.values.len());
            self.values[at] = value.to_owned();
        }
    }

    pub fn one(&self, random: &mut Random) -> Option<String> {
        (!self.values.is_empty()).then(|| random.choose(&self.values))
    }
}

/// A value for a header: mostly of its kind, sometimes of any.
pub fn of_header(random: &mut Random, name: &str, seen: &Seen) -> String {
    if random.once_in(6)
        && let Some(value) = seen.one(random)
    {
        return value;
    }
    let name = if random.once_in(12) {
        random.pick(&HEADERS)
    } else {
        name
    };
    let from: &[&str] = match name {
        "a-im" => &[
            "Incremental Feed",
            "Full-Fidelity Feed",
            "incremental feed",
            "x",
        ],
        "x-ms-consistency-level" => &["Session", "Eventual", "Strong", "BoundedStaleness", ""],
        "x-ms-max-item-count" | "x-ms-offer-throughput" => &NUMBERS,
        "x-ms-continuation" => &CONTINUATIONS,
        "x-ms-start-epk" | "x-ms-end-epk" => &EPKS,
        "x-ms-documentdb-partitionkey" => &KEYS,
        "x-ms-documentdb-partitionkeyrangeid" => &RANGES,
        "x-ms-session-token" => &SESSIONS,
        "x-ms-cosmos-changefeed-wire-format-version" => &["2021-09-15", "2099-01-01", ""],
        "if-match" | "if-none-match" => &TOKENS,
        "if-modified-since" | "date" => &DATES,
        "x-ms-cosmos-offer-autopilot-settings" => &[
            "{\"maxThroughput\":4000}",
            "{\"maxThroughput\":-1}",
            "{\"maxThroughput\":1e300}",
            "{\"maxThroughput\":18446744073709551615}",
            "[]",
            "{",
        ],
        "content-type" => &[
            "application/json",
            "application/query+json",
            "text/plain",
            "",
        ],
        "prefer" => &["return=minimal", "return=representation", "x"],
        "x-ms-cosmos-intended-collection-rid" => &["AAAAAQ==", "x", ""],
        "x-ms-activity-id" => &["00000000-0000-0000-0000-000000000000", "\u{e9}", ""],
        _ => &FLAGS,
    };
    random.pick(from).to_owned()
}

/// A name of a resource.
pub fn name(random: &mut Random, seen: &Seen) -> String {
    match random.below(24) {
        0 => "%ff".to_owned(),
        1 => "%C3%A9%20%F0%9F%98%80".to_owned(),
        2 => "%2F".to_owned(),
        3 => "%".to_owned(),
        4 => String::new(),
        5 => "..".to_owned(),
        6 => "a".repeat(1 + random.below(9_000)),
        7 => "%00".to_owned(),
        8 => seen.one(random).unwrap_or_default().replace([' ', '"'], ""),
        9 => random.pick(&NUMBERS).replace(' ', "%20"),
        _ => id(random),
    }
}

/// An id that other requests are likely to use too.
pub fn id(random: &mut Random) -> String {
    format!("d{}", random.below(12))
}
