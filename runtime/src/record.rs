//! What a source seals: keyed documents.

use bytes::Bytes;

/// One change of one document, as a source hands it to the dataflow and as a seal keeps it.
///
/// `key` identifies the document in its source for ever: its partition key and id. `body` is the document as JSON
/// without the system properties that nobody asked for; `None` removes the document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Identity of the document within its source.
    pub key: Bytes,
    /// The document after the change, or `None` for a removal.
    pub body: Option<Bytes>,
}

impl Record {
    /// Bytes of key and body, the unit of the memory budgets.
    pub fn size_bytes(&self) -> usize {
        self.key.len() + self.body.as_ref().map_or(0, Bytes::len)
    }
}
