//! Requests that a careful client does not send.

use azure_data_cosmos::models::ItemResponse;
use azure_data_cosmos::{Query, TransactionalBatch};
use futures::TryStreamExt;
use serde_json::{Value, json};

use crate::Fallible;
use crate::container::Container;
use crate::outcome::Outcome;

/// A request that a careful client does not send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Odd {
    /// Creates an item with an id.
    Id(&'static str),
    /// Creates an item with an id of so many bytes.
    LongId(usize),
    /// Creates an item with another value for `id`.
    IdValue(&'static str),
    /// Creates an item without id.
    NoId,
    /// Creates an item whose partition key has a JSON value.
    KeyValue(&'static str),
    /// Creates an array.
    Array,
    /// Creates an item with members that belong to the server, and with others that look like it.
    SystemMembers,
    /// Creates an item of about so many bytes.
    Large(usize),
    /// Creates an item of so many levels.
    Deep(usize),
    /// Creates an item with a number.
    Number(&'static str),
    /// Replaces an item by one with another id.
    OtherId,
    /// Reads with a partition key of too many components.
    LongKey,
    /// Carries out a batch of so many creations.
    Batch(usize),
    /// Carries out a batch with an item that has another partition key.
    BatchElsewhere,
    /// Carries out a batch with an item that has no id.
    BatchNoId,
    /// Carries out a batch that replaces an item by one with another id.
    BatchOtherId,
    /// Runs a query.
    Query(&'static str),
}

impl Container {
    /// Sends an odd request with the partition key `x`.
    pub async fn odd(&self, odd: Odd) -> Fallible<Outcome> {
        let item = match odd {
            Odd::Id(id) => json!({"id": id, "pk": "x"}),
            Odd::LongId(bytes) => json!({"id": "i".repeat(bytes), "pk": "x"}),
            Odd::IdValue(text) => json!({"id": serde_json::from_str::<Value>(text)?, "pk": "x"}),
            Odd::NoId => json!({"pk": "x"}),
            Odd::KeyValue(text) => json!({"id": "a", "pk": serde_json::from_str::<Value>(text)?}),
            Odd::Array => json!([{"id": "a", "pk": "x"}]),
            Odd::SystemMembers => json!({
                "id": "a", "pk": "x", "_etag": "mine", "_rid": 1, "_self": null, "_ts": "x", "_attachments": [],
                "_mine": 1, "_ETAG": 2, "ttl2": 3,
            }),
            Odd::Large(bytes) => json!({"id": "a", "pk": "x", "s": "x".repeat(bytes)}),
            Odd::Deep(levels) => {
                let text = format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
                json!({"id": "a", "pk": "x", "l": serde_json::from_str::<Value>(&text)?})
            }
            Odd::Number(text) => {
                json!({"id": "a", "pk": "x", "n": serde_json::from_str::<Value>(text)?})
            }
            other => return self.odd_call(other).await,
        };
        let id = item["id"].as_str().unwrap_or("a").to_owned();
        let created = self.client.create_item("x", &id, &item, None).await?;
        // What was stored, not what was sent.
        let read = self.client.read_item("x", &id, None).await?;
        let status = u16::from(created.status().status_code());
        self.stored(status, read)
    }

    fn stored(&self, status: u16, read: ItemResponse) -> Fallible<Outcome> {
        let mut stored = self.point(read)?;
        if let Outcome::Point {
            status: answered, ..
        } = &mut stored
        {
            *answered = status;
        }
        Ok(stored)
    }

    async fn odd_call(&self, odd: Odd) -> Fallible<Outcome> {
        let mut batch = TransactionalBatch::new("x");
        match odd {
            Odd::OtherId => {
                self.client
                    .create_item("x", "a", &json!({"id": "a", "pk": "x"}), None)
                    .await?;
                let other = json!({"id": "b", "pk": "x"});
                return self.point(self.client.replace_item("x", "a", &other, None).await?);
            }
            Odd::LongKey => return self.point(self.client.read_item(("x", "y"), "a", None).await?),
            Odd::Query(text) => {
                let scope = azure_data_cosmos::FeedScope::partition("x");
                let rows = self
                    .client
                    .query_items::<Value>(Query::from(text), scope, None);
                let rows: Vec<Value> = rows.await?.try_collect().await?;
                return Ok(Outcome::Rows(rows));
            }
            Odd::Batch(operations) => {
                for number in 0..operations {
                    batch = batch.create_item(json!({"id": number.to_string(), "pk": "x"}))?;
                }
            }
            Odd::BatchElsewhere => batch = batch.create_item(json!({"id": "a", "pk": "y"}))?,
            Odd::BatchNoId => batch = batch.create_item(json!({"pk": "x"}))?,
            Odd::BatchOtherId => {
                batch = batch
                    .create_item(json!({"id": "a", "pk": "x"}))?
                    .replace_item("a", json!({"id": "b", "pk": "x"}), None)?;
            }
            _ => return Err("not a call".into()),
        }
        let response = self.client.execute_transactional_batch(batch, None).await?;
        let status = u16::from(response.status().status_code());
        let results = response.into_model()?;
        let results = results
            .results()
            .iter()
            .map(|result| (result.status_code(), None, None));
        Ok(Outcome::Batch {
            status,
            results: results.collect(),
        })
    }
}

/// Two different answers in short, ours and the oracle's, and why that is right.
pub type Answers = (&'static str, &'static str, &'static str);

/// All odd requests, and for those that are answered differently how and why.
pub const ALL: &[(Odd, Option<Answers>)] = &[
    (Odd::Id(""), None),
    (Odd::Id("a b"), None),
    (Odd::Id("a "), None),
    (
        Odd::Id("a/b"),
        Some((
            "400",
            "501",
            "the oracle creates it, and then cannot address it",
        )),
    ),
    (
        Odd::Id("a\\b"),
        Some((
            "400",
            "501",
            "the oracle creates it, and then cannot address it",
        )),
    ),
    (
        Odd::Id("a?b"),
        Some((
            "400",
            "201",
            "the SDKs' documents forbid ? and # in ids; the oracle takes what comes",
        )),
    ),
    (
        Odd::Id("a#b"),
        Some((
            "400",
            "201",
            "the SDKs' documents forbid ? and # in ids; the oracle takes what comes",
        )),
    ),
    (Odd::Id("100%"), None),
    (Odd::Id("a+b&c=d"), None),
    (
        Odd::Id("\n\u{0}\u{7f}"),
        Some((
            "401",
            "404",
            "the client signs characters that it then takes out of the path; the oracle checks no signature",
        )),
    ),
    (Odd::LongId(1_023), None),
    (
        Odd::LongId(1_024),
        Some(("400", "201", "the service limits ids to 1023 bytes")),
    ),
    (Odd::IdValue("5"), None),
    (Odd::IdValue("null"), None),
    (Odd::NoId, None),
    (Odd::KeyValue("[\"x\"]"), None),
    (
        Odd::KeyValue("{}"),
        Some((
            "400/1001",
            "400",
            "the service says 1001 when the key is not the one in the header",
        )),
    ),
    (Odd::KeyValue("{\"x\":1}"), None),
    (Odd::Array, None),
    (Odd::SystemMembers, None),
    (Odd::Large(2 * 1024 * 1024 - 200), None),
    (Odd::Large(2 * 1024 * 1024 + 1), None),
    (Odd::Deep(100), None),
    (Odd::Deep(120), None),
    (Odd::Number("9223372036854775807"), None),
    (Odd::Number("-9223372036854775808"), None),
    (Odd::Number("18446744073709551615"), None),
    (Odd::Number("1e308"), None),
    (Odd::Number("5e-324"), None),
    (
        Odd::OtherId,
        Some((
            "400",
            "200",
            "the oracle renames the item, which this server does not",
        )),
    ),
    (Odd::LongKey, None),
    (
        Odd::Batch(0),
        Some((
            "400",
            "200 []",
            "a batch without operations is nobody's intention",
        )),
    ),
    (Odd::Batch(100), None),
    (Odd::Batch(101), None),
    (
        Odd::BatchElsewhere,
        Some((
            "400/1001",
            "400",
            "the service says 1001 when the key is not the one in the header",
        )),
    ),
    (Odd::BatchNoId, None),
    (Odd::BatchOtherId, None),
    (Odd::Query("SELECT"), None),
    (Odd::Query("SELECT * FROM c WHERE"), None),
    (
        Odd::Query("SELECT * FROM c WHERE c.n = @none"),
        Some((
            "400",
            "0 rows",
            "the oracle looks at an expression when it has an item",
        )),
    ),
    (
        Odd::Query("SELECT NONE(1) FROM c"),
        Some((
            "400",
            "0 rows",
            "the oracle looks at an expression when it has an item",
        )),
    ),
    (
        Odd::Query("SELECT ABS() FROM c"),
        Some((
            "400",
            "0 rows",
            "the oracle looks at an expression when it has an item",
        )),
    ),
    (Odd::Query("SELECT * FROM c ORDER BY"), None),
    (Odd::Query("SELECT * FROM c; SELECT * FROM c"), None),
    (Odd::Query("SELECT * FROM c WHERE c.a = 'x"), None),
    (Odd::Query(""), None),
];
