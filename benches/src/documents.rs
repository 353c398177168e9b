//! Documents of one size, and containers full of them.

use serde_json::json;
use tidefeed_operators::cosmos::{Account, BulkConfig, Container, ContainerSpec, CosmosTarget};
use tidefeed_operators::target::{DocumentWrite, Target};

use crate::Outcome;

/// The database of the benchmarks.
pub const DATABASE: &str = "bench";
/// Length of a document as JSON, in bytes, before the server adds its system properties.
pub const DOCUMENT_BYTES: usize = 232;
/// Documents that share a partition key: as many as one request writes, so that pages come out full.
const DOCUMENTS_PER_KEY: usize = 100;
/// Documents that are handed over for writing at once.
const DOCUMENTS_PER_CALL: usize = 10_000;

/// The id of the document of this number.
pub fn id(number: usize) -> String {
    format!("{number:09}")
}

/// The document of this number, in the logical partition `key`, as JSON of [`DOCUMENT_BYTES`] bytes. The key is written as
/// it is, so it must need no escapes.
pub fn text(key: &str, number: usize) -> String {
    let mut text = format!(
        r#"{{"id":"{}","n":{number},"pk":"{key}","text":""#,
        id(number)
    );
    let padding = DOCUMENT_BYTES.saturating_sub(text.len() + 2);
    text.extend(std::iter::repeat_n('x', padding));
    text.push_str("\"}");
    text
}

/// The logical partition of a document, where documents that share one have neighbouring numbers.
pub fn key(number: usize) -> String {
    format!("p{}", number / DOCUMENTS_PER_KEY)
}

/// The document of this number.
pub fn document(number: usize) -> DocumentWrite {
    let key = key(number);
    DocumentWrite::upsert(json!([key]).to_string(), id(number), text(&key, number))
}

/// A new container with so many documents, written in batches.
///
/// # Errors
/// When the server refuses.
pub async fn filled_container(
    account: &Account,
    name: &str,
    documents: usize,
) -> Outcome<Container> {
    let spec = ContainerSpec::new(DATABASE, name, "/pk");
    filled(account, &spec, documents, document).await
}

/// A new container with so many of these documents, written in batches.
///
/// # Errors
/// When the server refuses.
pub async fn filled(
    account: &Account,
    spec: &ContainerSpec,
    documents: usize,
    document: impl Fn(usize) -> DocumentWrite,
) -> Outcome<Container> {
    let container = Container::create_if_absent(account, spec).await?;
    let target = CosmosTarget::open(container.clone(), BulkConfig::default()).await?;
    for first in (0..documents).step_by(DOCUMENTS_PER_CALL) {
        let last = (first + DOCUMENTS_PER_CALL).min(documents);
        target.apply((first..last).map(&document).collect()).await?;
    }
    Ok(container)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_have_one_size() {
        for number in [0, 9_999, 499_999] {
            let write = document(number);
            let body = write.action.document().expect("a document");
            assert_eq!(body.len(), DOCUMENT_BYTES);
            let document: serde_json::Value = serde_json::from_slice(body).expect("json");
            assert_eq!(document["n"], number);
        }
    }
}
