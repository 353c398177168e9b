//! Upserts become a collection: the newest value of each document, with what it replaces retracted.

use differential_dataflow::operators::arrange::upsert::arrange_from_upsert;
use differential_dataflow::trace::implementations::{ValBuilder, ValSpine};
use differential_dataflow::{ExchangeData, VecCollection};
use timely::dataflow::StreamVec;

use crate::source::{DocumentKey, Upsert};

/// Turns a stream of upserts into the collection of current values.
pub trait UpsertToCollection<'scope, V> {
    /// The collection of the newest value of every document.
    ///
    /// The arrangement behind it keeps one value per live document, which is how it knows what to retract. Within one
    /// epoch a document must occur at most once; sources see to that.
    fn upsert_to_collection(self, name: &str) -> VecCollection<'scope, u64, V, isize>;
}

impl<'scope, V: ExchangeData> UpsertToCollection<'scope, V> for StreamVec<'scope, u64, Upsert<V>> {
    fn upsert_to_collection(self, name: &str) -> VecCollection<'scope, u64, V, isize> {
        let name = format!("Upsert: {name}");
        arrange_from_upsert::<ValBuilder<_, _, _, _>, ValSpine<DocumentKey, V, u64, isize>, _, _>(
            self, &name,
        )
        .as_collection(|_key, value| value.clone())
    }
}
