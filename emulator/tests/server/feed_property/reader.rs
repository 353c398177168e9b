//! A reader of the change feed that keeps its place as the official clients do.

use std::collections::{HashMap, VecDeque};

use serde_json::Value;

use crate::common::raw::Raw;

const CONTAINER: &str = "/dbs/db/colls/items";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    LatestVersion,
    AllVersionsAndDeletes,
}

/// One delivered or true change: what happened, to which document, and the number that was written.
pub type Change = (&'static str, String, u64);

/// A range of keys, and how far it has been read.
#[derive(Clone, Debug)]
struct Part {
    min: String,
    max: String,
    token: Option<String>,
}

pub struct Reader {
    pub mode: Mode,
    parts: VecDeque<Part>,
    /// What was delivered, by logical partition.
    pub seen: HashMap<String, Vec<Change>>,
}

impl Reader {
    /// A reader that begins at the beginning (LatestVersion) or now (AllVersionsAndDeletes).
    pub fn new(raw: &mut Raw, mode: Mode) -> std::io::Result<Self> {
        let mut reader = Self {
            mode,
            parts: VecDeque::new(),
            seen: HashMap::new(),
        };
        for (_, min, max) in ranges(raw)? {
            let token = match mode {
                Mode::LatestVersion => None,
                Mode::AllVersionsAndDeletes => Some("*".to_owned()),
            };
            reader.parts.push_back(Part { min, max, token });
        }
        if mode == Mode::AllVersionsAndDeletes {
            // "Now" has to become a place before anything else happens.
            for _ in 0..reader.parts.len() {
                let empty = reader.read_page(raw, 10)?;
                assert!(empty, "nothing can be there from now on");
            }
        }
        Ok(reader)
    }

    /// Reads a page of the next part; returns whether it was empty.
    pub fn read_page(&mut self, raw: &mut Raw, most: usize) -> std::io::Result<bool> {
        let Some(mut part) = self.parts.front().cloned() else {
            return Ok(true);
        };
        let map = ranges(raw)?;
        let owners: Vec<_> = map
            .iter()
            .filter(|(_, min, max)| *min < part.max && *max > part.min)
            .collect();
        if owners.len() > 1 {
            // Its partition was split: each child continues at the parent's place.
            self.parts.pop_front();
            for (_, min, max) in owners.into_iter().rev() {
                self.parts.push_front(Part {
                    min: min.clone().max(part.min.clone()),
                    max: max.clone().min(part.max.clone()),
                    token: part.token.clone(),
                });
            }
            return self.read_page(raw, most);
        }
        let id = owners[0].0.clone();
        let most = most.to_string();
        let mut headers = vec![
            ("x-ms-documentdb-partitionkeyrangeid", id.as_str()),
            ("x-ms-start-epk", part.min.as_str()),
            ("x-ms-end-epk", part.max.as_str()),
            ("x-ms-max-item-count", most.as_str()),
            ("x-ms-cosmos-changefeed-wire-format-version", "2021-09-15"),
        ];
        headers.push(match self.mode {
            Mode::LatestVersion => ("a-im", "Incremental Feed"),
            Mode::AllVersionsAndDeletes => ("a-im", "Full-Fidelity Feed"),
        });
        if let Some(token) = &part.token {
            headers.push(("if-none-match", token));
        }
        let reply = raw.call("GET", &format!("{CONTAINER}/docs"), &headers, b"")?;
        if reply.status == 410 {
            // Split or merged since the map was read.
            return Ok(false);
        }
        assert!(
            [200, 304].contains(&reply.status),
            "{} {}",
            reply.status,
            reply.text()
        );
        part.token = Some(reply.header("etag").expect("an etag").to_owned());
        self.parts.pop_front();
        self.parts.push_back(part);
        let items = match reply.status {
            200 => reply.json()["Documents"].as_array().cloned(),
            _ => None,
        };
        let items = items.unwrap_or_default();
        assert_whole_lsns(&items);
        for item in &items {
            let (key, change) = change(item);
            self.seen.entry(key).or_default().push(change);
        }
        Ok(items.is_empty())
    }

    /// Reads until every part is at its end.
    pub fn drain(&mut self, raw: &mut Raw) -> std::io::Result<()> {
        let mut empty = 0;
        while empty <= self.parts.len() {
            empty = if self.read_page(raw, 7)? {
                empty + 1
            } else {
                0
            };
        }
        Ok(())
    }
}

/// The live partitions: id, least and greatest key.
pub fn ranges(raw: &mut Raw) -> std::io::Result<Vec<(String, String, String)>> {
    let reply = raw
        .call("GET", &format!("{CONTAINER}/pkranges"), &[], b"")?
        .json();
    let text = |range: &Value, name: &str| range[name].as_str().unwrap_or_default().to_owned();
    Ok(reply["PartitionKeyRanges"]
        .as_array()
        .expect("ranges")
        .iter()
        .map(|range| {
            (
                text(range, "id"),
                text(range, "minInclusive"),
                text(range, "maxExclusive"),
            )
        })
        .collect())
}

/// LSNs never go down within a page; one request's changes are together on it.
fn assert_whole_lsns(items: &[Value]) {
    let lsns: Vec<u64> = items
        .iter()
        .map(|item| item["metadata"]["lsn"].as_u64().expect("an LSN"))
        .collect();
    assert!(lsns.is_sorted(), "{lsns:?}");
}

fn change(item: &Value) -> (String, Change) {
    let (current, previous, metadata) = (&item["current"], &item["previous"], &item["metadata"]);
    let kind = match (
        metadata["operationType"].as_str(),
        metadata["timeToLiveExpired"].as_bool(),
    ) {
        (None, _) => "write",
        (Some("create"), None) => "create",
        (Some("replace"), None) => "replace",
        (Some("delete"), Some(false)) => "delete",
        (Some("delete"), Some(true)) => "expire",
        other => panic!("no operation is {other:?}"),
    };
    let document = match kind {
        "delete" | "expire" => {
            assert_eq!(current.as_object().map(serde_json::Map::len), Some(0));
            assert_eq!(metadata["id"], previous["id"]);
            assert_eq!(metadata["partitionKey"]["pk"], previous["pk"]);
            previous
        }
        _ => current,
    };
    if kind == "replace" {
        assert_eq!(metadata["previousImageLSN"], previous["_lsn"]);
        assert_eq!(previous["id"], current["id"]);
        assert_eq!(metadata["lsn"], current["_lsn"]);
    }
    let text = |name: &str| document[name].as_str().expect(name).to_owned();
    let number = document["n"].as_u64().expect("a number");
    (text("pk"), (kind, text("id"), number))
}
