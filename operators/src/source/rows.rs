//! What becomes of a record that is attached to an epoch: as many forms as there are ways to read a source.

use serde::{Deserialize, Serialize};
use tidefeed_runtime::RecordRef;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;

use super::DocumentKey;
use crate::portable::{Elsewhere, Portable};

/// One change of a document at an epoch: its new value, or its removal.
pub type Upsert<V> = (DocumentKey, Option<Portable<V>>, u64);

/// One document at an epoch, as a row of a collection.
pub type Insertion<V> = (V, u64, isize);

/// A change of a document.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Change<V> {
    /// The document.
    pub key: DocumentKey,
    /// Its new value; `None` when it is gone.
    pub value: Option<V>,
}

/// Records as [`Upsert`]s. What belongs to a worker of another process goes there as JSON.
pub fn upserts<V>(
    elsewhere: Option<Elsewhere>,
) -> impl Fn(RecordRef<'_>, Option<V>, u64) -> Option<Upsert<V>> {
    move |record, value, epoch| {
        let key = DocumentKey::from(record.key);
        let goes = elsewhere.as_ref().is_some_and(|at| at.has(&key));
        let value = value.map(|value| match goes.then(|| record.shared_body()) {
            Some(Some(body)) => Portable::Body(body),
            _ => Portable::Here(value),
        });
        Some((key, value, epoch))
    }
}

/// Records as rows, each of a document that is written once: nobody needs its key. A removal is none.
pub fn insertions<V>() -> impl Fn(RecordRef<'_>, Option<V>, u64) -> Option<Insertion<V>> {
    |_, value, epoch| value.map(|value| (value, epoch, 1))
}

/// Records as [`Change`]s.
pub fn changes<V>() -> impl Fn(RecordRef<'_>, Option<V>, u64) -> Option<Change<V>> {
    |record, value, _| {
        let key = DocumentKey::from(record.key);
        Some(Change { key, value })
    }
}

/// What a source gives, as it comes; and what holds back the frontier of whatever is made from it (I1).
///
/// Make both streams inputs of one operator, as [`sealed`](Self::sealed) and
/// [`UpsertToCollection`](crate::upsert::UpsertToCollection) do: the frontier of `records` alone runs ahead of what is durable.
pub struct Unsealed<'scope, T> {
    /// The records. Its frontier says which epochs are complete, sealed or not.
    pub records: StreamVec<'scope, u64, T>,
    /// Never carries anything. Its frontier does not pass an epoch before that is sealed.
    pub unsealed: StreamVec<'scope, u64, ()>,
}

/// The upserts of a source.
pub type Upserts<'scope, V> = Unsealed<'scope, Upsert<V>>;

impl<'scope, T: Clone + 'static> Unsealed<'scope, T> {
    /// The records, at once and in the order of their feed ranges. The stream's frontier does not pass an epoch before that is sealed
    /// (I1).
    pub fn sealed(self, name: &str) -> StreamVec<'scope, u64, T> {
        let name = format!("Sealed: {name}");
        self.records
            .binary(self.unsealed, Pipeline, Pipeline, &name, |_cap, _info| {
                move |input, unsealed, output| {
                    // It carries nothing, but an input must be read.
                    unsealed.for_each(|_, _| {});
                    input.for_each(|cap, records| output.session(&cap).give_container(records));
                }
            })
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use bytes::Bytes;
    use tidefeed_runtime::Record;
    use timely::container::CapacityContainerBuilder;
    use timely::dataflow::operators::core::UnorderedInput;
    use timely::dataflow::operators::{Inspect, Probe};

    use super::*;

    /// The records pass at once; their frontier waits for the seal (I1).
    #[test]
    fn records_are_not_ahead_of_the_seal() {
        timely::execute_directly(|worker| {
            let (mut inputs, probe, rows) = worker.dataflow::<u64, _, _>(|scope| {
                let (input, records) = scope.new_unordered_input();
                let (other, unsealed) =
                    scope.new_unordered_input::<CapacityContainerBuilder<Vec<()>>>();
                let rows = Unsealed { records, unsealed }.sealed("test");
                let seen = Rc::new(RefCell::new(Vec::new()));
                let into = Rc::clone(&seen);
                let rows = rows.inspect(move |row: &Insertion<u8>| into.borrow_mut().push(*row));
                let (probe, _) = rows.probe();
                ((input, other), probe, seen)
            });
            let ((input, cap), (_, unsealed_cap)) = (&mut inputs.0, &mut inputs.1);
            for row in [(7, 1, 1), (8, 2, 1)] {
                cap.downgrade(&row.1);
                input.activate().session(cap).give(row);
            }
            cap.downgrade(&3);
            unsealed_cap.downgrade(&2);
            for _ in 0..100 {
                worker.step();
            }
            assert_eq!(*rows.borrow(), [(7, 1, 1), (8, 2, 1)]);
            assert!(
                !probe.less_equal(&1) && probe.less_equal(&2),
                "one is sealed"
            );
        });
    }

    #[test]
    fn a_record_takes_each_form() {
        let record = Record {
            key: Bytes::from_static(b"[1]"),
            body: Some(Bytes::from_static(b"7")),
        };
        let record = RecordRef::from(&record);
        let key = DocumentKey::from(record.key);
        let value = Some(7);
        let upsert = (key.clone(), value.map(Portable::Here), 3);
        assert_eq!(upserts(None)(record, value, 3), Some(upsert));
        // The only worker of this process is another one's: of two, the document belongs to one.
        let mut sent = [0, 1].map(|first| {
            let elsewhere = Elsewhere {
                first,
                here: 1,
                peers: 2,
            };
            upserts(Some(elsewhere))(record, value, 3).and_then(|(_, value, _)| value)
        });
        sent.sort_by_key(|value| matches!(value, Some(Portable::Body(_))));
        let body = Portable::Body(Bytes::from_static(b"7"));
        assert_eq!(sent, [Some(Portable::Here(7)), Some(body)]);
        assert_eq!(insertions()(record, value, 3), Some((7, 3, 1)));
        assert_eq!(insertions::<u8>()(record, None, 3), None);
        let change = Change { key, value };
        assert_eq!(changes()(record, value, 3), Some(change));
    }
}
