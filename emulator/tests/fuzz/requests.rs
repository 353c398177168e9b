//! Requests: one for each operation of the server, built soundly and then, mostly, broken somewhere.

use azure_data_cosmos_driver::binary_json::encode;

use super::values::{self, HEADERS, Seen};
use super::{Random, bodies, mutate};

/// A request before it is signed.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    /// As it stands in the request line.
    pub path: Vec<u8>,
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
    pub signed: bool,
}

impl Request {
    pub fn new(method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Self {
        Self {
            method: method.to_owned(),
            path: path.as_bytes().to_vec(),
            headers: headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()))
                .collect(),
            body: body.as_bytes().to_vec(),
            signed: true,
        }
    }

    fn set(&mut self, name: &str, value: String) {
        self.headers.retain(|(known, _)| known != name);
        self.headers.push((name.to_owned(), value.into_bytes()));
    }
}

/// The containers that requests are about.
pub const CONTAINERS: [&str; 3] = ["one", "two", "three"];

/// The next request.
pub fn request(random: &mut Random, seen: &Seen) -> Request {
    let mut request = sound(random, seen);
    if random.once_in(4) {
        return request;
    }
    for _ in 0..1 + random.below(3) {
        break_it(random, seen, &mut request);
    }
    request
}

fn sound(random: &mut Random, seen: &Seen) -> Request {
    let coll = random.pick(&CONTAINERS);
    let docs = format!("/dbs/fuzz/colls/{coll}/docs");
    let key = format!("[\"p{}\"]", random.below(3));
    let key = ("x-ms-documentdb-partitionkey", key.as_str());
    let range = random.below(6).to_string();
    let range = ("x-ms-documentdb-partitionkeyrangeid", range.as_str());
    let item = format!("{docs}/{}", values::id(random));
    let new = Request::new;
    match random.below(20) {
        0 | 1 => {
            let upsert = random.pick(&["True", "False"]);
            let text = bodies::item_text(random);
            new(
                "POST",
                &docs,
                &[("x-ms-documentdb-is-upsert", upsert)],
                &text,
            )
        }
        2 => new("PUT", &item, &[], &bodies::item_text(random)),
        3 => new("GET", &item, &[key], ""),
        4 => new("DELETE", &item, &[key], ""),
        5 => {
            let method =
                random.pick(&["PATCH", "PATCH", "OPTIONS", "HEAD", "TRACE", "CONNECT", "X"]);
            new(method, &item, &[key], &bodies::patch(random).to_string())
        }
        6 | 7 => {
            let flag = ("x-ms-cosmos-is-batch-request", "True");
            let text = bodies::batch(random);
            if random.once_in(2) {
                new("POST", &docs, &[flag, key], &text)
            } else {
                let bulk = ("x-ms-cosmos-batch-atomic", "False");
                new("POST", &docs, &[flag, bulk, range], &text)
            }
        }
        8 | 9 => {
            let headers = [
                ("x-ms-documentdb-isquery", "true"),
                (
                    "x-ms-cosmos-is-query-plan-request",
                    random.pick(&["true", "false"]),
                ),
                ("x-ms-max-item-count", random.pick(&["-1", "1", "3"])),
            ];
            new("POST", &docs, &headers, &bodies::query(random).to_string())
        }
        10..=12 => feed(random, seen, &docs, range),
        13 => new("GET", &docs, &[("x-ms-max-item-count", "2")], ""),
        14 => {
            let id = random.choose(&[coll, "extra"]);
            match random.below(4) {
                0 => new("DELETE", "/dbs/fuzz/colls/extra", &[], ""),
                1 => new(
                    "PUT",
                    &format!("/dbs/fuzz/colls/{id}"),
                    &[],
                    &bodies::definition(random, id),
                ),
                _ => new(
                    "POST",
                    "/dbs/fuzz/colls",
                    &[],
                    &bodies::definition(random, id),
                ),
            }
        }
        15 => match random.below(4) {
            0 => new("POST", "/dbs", &[], "{\"id\":\"extra\"}"),
            1 => new("DELETE", "/dbs/extra", &[], ""),
            2 => new("GET", &format!("/dbs/fuzz/colls/{coll}/pkranges"), &[], ""),
            _ => new(
                "GET",
                random.pick(&["/", "/dbs", "/dbs/fuzz", "/dbs/fuzz/colls"]),
                &[],
                "",
            ),
        },
        16 => offer(random, seen),
        _ => admin(random, coll),
    }
}

fn feed(random: &mut Random, seen: &Seen, docs: &str, range: (&str, &str)) -> Request {
    let mode = random.pick(&["Incremental Feed", "Full-Fidelity Feed"]);
    let mut request = Request::new("GET", docs, &[("a-im", mode)], "");
    let most = random.pick(&["1", "3", "100", "-1"]).to_owned();
    request.set("x-ms-max-item-count", most);
    if random.once_in(2) {
        request.set(range.0, range.1.to_owned());
    }
    if !random.once_in(3) {
        let token = values::of_header(random, "if-none-match", seen);
        request.set("if-none-match", token);
    }
    if random.once_in(4) {
        let date = values::of_header(random, "if-modified-since", seen);
        request.set("if-modified-since", date);
    }
    for name in ["x-ms-start-epk", "x-ms-end-epk"] {
        if random.once_in(4) {
            let bound = values::of_header(random, name, seen);
            request.set(name, bound);
        }
    }
    request
}

fn offer(random: &mut Random, seen: &Seen) -> Request {
    let path = match seen.one(random) {
        Some(value) if value.len() < 12 => format!("/offers/{value}"),
        _ => "/offers".to_owned(),
    };
    match random.below(3) {
        0 => Request::new("GET", &path, &[], ""),
        1 => {
            let flag = ("x-ms-documentdb-isquery", "true");
            Request::new(
                "POST",
                "/offers",
                &[flag],
                &bodies::query(random).to_string(),
            )
        }
        _ => {
            let content = random.pick(&[
                "{\"offerThroughput\":400}",
                "{\"offerThroughput\":0}",
                "{\"offerThroughput\":18446744073709551615}",
                "{\"offerAutopilotSettings\":{\"maxThroughput\":1e300}}",
                "{\"offerAutopilotSettings\":{\"maxThroughput\":-5}}",
                "{\"offerAutopilotSettings\":7}",
                "[]",
            ]);
            let body = match random.below(5) {
                0 => content.to_owned(),
                _ => format!("{{\"content\":{content}}}"),
            };
            Request::new("PUT", &path, &[], &body)
        }
    }
}

fn admin(random: &mut Random, coll: &str) -> Request {
    let base = format!("/_emulator/dbs/fuzz/colls/{coll}");
    let moving = random.pick(&["0", "0", "1", "20", "600001"]);
    match random.below(7) {
        0 | 1 => {
            let at = random.pick(&[
                "1F",
                "0000000000000000000000000000000000",
                "30000000000000000000000000000000",
                "x",
            ]);
            let body = match random.below(3) {
                0 => String::new(),
                1 => format!("{{\"moving_ms\":{moving}}}"),
                _ => format!("{{\"at\":\"{at}\",\"moving_ms\":{moving}}}"),
            };
            Request::new(
                "POST",
                &format!("{base}/ranges/{}/split", random.below(12)),
                &[],
                &body,
            )
        }
        2 | 3 => {
            let first = random.below(12);
            let second = first + 1 - random.below(3).min(first + 1);
            let body = format!("{{\"ranges\":[\"{first}\",\"{second}\"],\"moving_ms\":{moving}}}");
            Request::new("POST", &format!("{base}/merge"), &[], &body)
        }
        4 => {
            let by = random.pick(&["0", "1000", "5000", "-1", "1.5", "\"x\""]);
            Request::new(
                "POST",
                "/_emulator/clock",
                &[],
                &format!("{{\"advance_ms\":{by}}}"),
            )
        }
        5 => Request::new("GET", &base, &[], ""),
        _ => {
            let path = random.pick(&[
                "/_emulator/status",
                "/_emulator/clock",
                "/_emulator",
                "/_emulator/%ff",
            ]);
            Request::new("GET", path, &[], "")
        }
    }
}

fn break_it(random: &mut Random, seen: &Seen, request: &mut Request) {
    match random.below(11) {
        0 => {
            let at = random.below(request.path.iter().filter(|byte| **byte == b'/').count() + 1);
            let mut parts: Vec<Vec<u8>> = request
                .path
                .split(|byte| *byte == b'/')
                .map(Vec::from)
                .collect();
            let at = at.min(parts.len() - 1);
            parts[at] = values::name(random, seen).into_bytes();
            request.path = parts.join(&b'/');
            if !request.path.starts_with(b"/") {
                request.path.insert(0, b'/');
            }
        }
        1 if random.once_in(4) => mutate(random, &mut request.path),
        2 => {
            let methods = ["GET", "POST", "PUT", "PATCH", "DELETE"];
            request.method = random.pick(&methods).to_owned();
        }
        3 if !request.headers.is_empty() => {
            let at = random.below(request.headers.len());
            request.headers.remove(at);
        }
        4 if !request.headers.is_empty() => {
            let at = random.below(request.headers.len());
            mutate(random, &mut request.headers[at].1);
        }
        5..=7 => {
            let name = random.pick(&HEADERS).to_owned();
            let mut value = values::of_header(random, &name, seen);
            if random.once_in(60) {
                value = format!("\"{}\"", "-FF:0;".repeat(random.below(8_000)));
            }
            request.set(&name, value);
        }
        8 if request.body.starts_with(b"{") || request.body.starts_with(b"[") => {
            // Binary JSON, as it is or broken.
            if let Ok(value) = serde_json::from_slice(&request.body) {
                request.body = encode(&value).to_vec();
            }
            if random.once_in(2) {
                mutate(random, &mut request.body);
            }
        }
        9 if random.once_in(3) => request.signed = false,
        _ => mutate(random, &mut request.body),
    }
}
