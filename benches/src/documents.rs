//! Documents of one size, and containers full of them.

use serde_json::json;
use tidefeed_operators::cosmos::{Account, Container, ContainerSpec, CosmosTarget, TargetConfig};
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

/// The document of this number.
pub fn document(number: usize) -> DocumentWrite {
    let (key, id) = (
        format!("p{}", number / DOCUMENTS_PER_KEY),
        format!("{number:09}"),
    );
    let mut document = json!({"id": id, "pk": key, "n": number, "text": ""});
    let missing = DOCUMENT_BYTES.saturating_sub(document.to_string().len());
    document["text"] = json!("x".repeat(missing));
    DocumentWrite {
        partition_key: json!([key]).to_string(),
        id,
        body: Some(document.to_string().into()),
    }
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
    let container = Container::create_if_absent(account, &spec).await?;
    let target = CosmosTarget::new(container.clone(), TargetConfig::default())?;
    for first in (0..documents).step_by(DOCUMENTS_PER_CALL) {
        let last = (first + DOCUMENTS_PER_CALL).min(documents);
        target.apply((first..last).map(document).collect()).await?;
    }
    Ok(container)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_have_one_size() {
        for number in [0, 9_999, 499_999] {
            let body = document(number).body.expect("a document");
            assert_eq!(body.len(), DOCUMENT_BYTES);
        }
    }
}
