//! Continuations and other places that clients send.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::super::read_feed::Place;
use crate::http::ApiError;
use crate::query::ast::Query;
use crate::query::sorting::{Resume, SortPlace};

/// What a streamed query has behind it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// The document of the next row.
    pub place: Place,
    /// Number of the next row among those of the document.
    pub row: u64,
    /// Rows left out by `OFFSET` so far.
    pub skipped: u64,
    /// Rows returned so far.
    pub taken: u64,
}

impl Progress {
    /// The continuation.
    pub fn to_token(self) -> String {
        let Self {
            row,
            skipped,
            taken,
            ..
        } = self;
        format!("rows:{skipped}:{taken}:{row}:{}", self.place.to_token())
    }

    /// Reads a continuation.
    pub fn from_token(token: &str) -> Option<Self> {
        let mut parts = token.strip_prefix("rows:")?.splitn(4, ':');
        let mut next = || parts.next();
        Some(Self {
            skipped: next()?.parse().ok()?,
            taken: next()?.parse().ok()?,
            row: next()?.parse().ok()?,
            place: Place::from_token(next()?)?,
        })
    }
}

/// What a sorted query has behind it.
#[derive(Clone, Debug, PartialEq)]
pub struct SortedProgress {
    /// The last row returned.
    pub last: SortPlace,
    /// Rows returned so far.
    pub taken: u64,
}

impl SortedProgress {
    /// The continuation: JSON, in a form that headers can carry.
    pub fn to_token(&self) -> String {
        // Undefined has no JSON form of its own.
        let keys: Vec<Vec<&Value>> = self
            .last
            .keys
            .iter()
            .map(|key| key.iter().collect())
            .collect();
        let body = json!([keys, self.last.document, self.last.row, self.taken]);
        format!("sorted:{}", URL_SAFE_NO_PAD.encode(body.to_string()))
    }

    /// Reads a continuation of a query.
    pub fn from_token(token: &str, query: &Query) -> Option<Self> {
        let body = URL_SAFE_NO_PAD
            .decode(token.strip_prefix("sorted:")?)
            .ok()?;
        let (keys, document, row, taken): (Vec<Vec<Value>>, u64, u64, u64) =
            serde_json::from_slice(&body).ok()?;
        let fits = keys.len() == query.order.len() && keys.iter().all(|key| key.len() <= 1);
        let keys = keys.into_iter().map(|mut key| key.pop()).collect();
        fits.then_some(Self {
            last: SortPlace {
                keys,
                document,
                row,
            },
            taken,
        })
    }
}

/// The place of the last group returned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GroupPlace(pub u128);

impl GroupPlace {
    /// The continuation.
    pub fn to_token(self) -> String {
        format!("groups:{:032x}", self.0)
    }

    /// Reads a continuation.
    pub fn from_token(token: &str) -> Option<Self> {
        let place = u128::from_str_radix(token.strip_prefix("groups:")?, 16).ok()?;
        Some(Self(place))
    }
}

/// Reads the `resumeFilter` of a query body.
///
/// # Errors
/// 400 if it is not one of this query.
pub fn resume(filter: &Value, query: &Query) -> Result<Resume, ApiError> {
    let keys = filter["value"]
        .as_array()
        .filter(|keys| keys.len() == query.order.len());
    let keys = keys.ok_or_else(|| {
        ApiError::bad_request("resumeFilter.value must have one value for each sort key")
    })?;
    let keys = keys
        .iter()
        .map(|key| match key {
            // Undefined has no JSON form of its own.
            Value::Array(items) if items.is_empty() => Ok(None),
            Value::Array(_) | Value::Object(_) => Err(ApiError::unsupported(
                "resuming at an array or object as sort key",
            )),
            value => Ok(Some(value.clone())),
        })
        .collect::<Result<_, _>>()?;
    let document = match filter["rid"].as_str() {
        None => None,
        Some(rid) => Some(
            document_number(rid)
                .ok_or_else(|| ApiError::bad_request("resumeFilter.rid is no item's _rid"))?,
        ),
    };
    Ok(Resume {
        keys,
        document,
        exclude: filter["exclude"].as_bool().unwrap_or(false),
    })
}

fn document_number(rid: &str) -> Option<u64> {
    let bytes = STANDARD.decode(rid.replace('-', "/")).ok()?;
    Some(u64::from_le_bytes(bytes.get(8..16)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::parse::parse;
    use std::collections::HashMap;

    #[test]
    fn tokens_are_read_as_they_were_written() {
        let progress = Progress {
            place: Place { head: 5, rid: 7 },
            row: 2,
            skipped: 3,
            taken: 4,
        };
        assert_eq!(Progress::from_token(&progress.to_token()), Some(progress));
        let query = parse("SELECT * FROM c ORDER BY c.a, c.b, c.d", HashMap::new()).unwrap();
        let sorted = SortedProgress {
            last: SortPlace {
                keys: vec![Some(json!("\u{e6}\n\"")), None, Some(json!(null))],
                document: u64::MAX,
                row: 1,
            },
            taken: 9,
        };
        let token = sorted.to_token();
        assert!(token.bytes().all(|byte| byte.is_ascii_graphic()));
        assert_eq!(SortedProgress::from_token(&token, &query), Some(sorted));
        let group = GroupPlace(1);
        assert_eq!(GroupPlace::from_token(&group.to_token()), Some(group));
    }

    #[test]
    fn other_tokens_are_refused() {
        let query = parse("SELECT * FROM c ORDER BY c.a", HashMap::new()).unwrap();
        let other = SortedProgress {
            last: SortPlace {
                keys: vec![None, None],
                document: 1,
                row: 0,
            },
            taken: 1,
        };
        for token in ["", "sorted:", "sorted:%%", &other.to_token(), "rows:1:2"] {
            assert_eq!(SortedProgress::from_token(token, &query), None, "{token}");
        }
        for token in [
            "",
            "rows:1:2:place:0:1",
            "rows:1:2:3:place:zz:1",
            "groups:1",
        ] {
            assert_eq!(Progress::from_token(token), None, "{token}");
        }
        assert_eq!(GroupPlace::from_token("groups:x"), None);
    }
}
