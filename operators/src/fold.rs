//! Folds a view's updates of one or several epochs to one net change per document.
//!
//! Per document, with its updates ordered by epoch: *before* is the row that the first changing epoch retracts, *after* the
//! row that the last changing epoch leaves. Equal means no write; otherwise *after* is upserted, or the document deleted if
//! there is none.
//!
//! One exception. Epochs that an earlier run may already have written in part are replayed after a crash, and folding
//! may hide what that run wrote in between: a row inserted in one epoch and deleted in the next folds to nothing,
//! though the insert may be in the container. So a document touched at or before `rewrite_through` is always written.

use tidefeed_runtime::Epoch;

use crate::document::ViewDocument;
use crate::target::DocumentWrite;

/// One update of a view at an epoch.
pub type ViewUpdate = (ViewDocument, u64, isize);

/// The writes that bring a container from before the updates to after them, at most one per document.
///
/// Every epoch leaves at most one row under each key; [`LiveRows`](crate::unique::LiveRows) sees to that.
pub fn fold(mut updates: Vec<ViewUpdate>, rewrite_through: Epoch) -> Vec<DocumentWrite> {
    // Identity first, then time, then body: the updates of a document stand together, in order of time.
    updates.sort_unstable_by(|(a, t, _), (b, u, _)| {
        (&a.partition_key, &a.id, t, &a.body).cmp(&(&b.partition_key, &b.id, u, &b.body))
    });
    let same_document = |a: &ViewUpdate, b: &ViewUpdate| {
        (&a.0.partition_key, &a.0.id) == (&b.0.partition_key, &b.0.id)
    };
    updates
        .chunk_by(same_document)
        .filter_map(|updates| {
            let body = net_change(updates, rewrite_through)?;
            let document = &updates[0].0;
            Some(DocumentWrite {
                partition_key: document.partition_key.to_string(),
                id: document.id.to_string(),
                body: body.map(bytes::Bytes::copy_from_slice),
            })
        })
        .collect()
}

/// What the updates of one document come to: `None` for no write, `Some(None)` for a delete.
fn net_change(updates: &[ViewUpdate], rewrite_through: Epoch) -> Option<Option<&[u8]>> {
    let mut before = None;
    let mut after = None;
    let mut rewrite = false;
    for epoch in updates.chunk_by(|(_, t, _), (_, u, _)| t == u) {
        let (gone, come) = step(epoch);
        if gone.is_none() && come.is_none() {
            continue;
        }
        before.get_or_insert(gone);
        after = Some(come);
        rewrite |= epoch[0].1 <= rewrite_through.0;
    }
    after.filter(|after| before != Some(*after) || rewrite)
}

/// The rows that one epoch retracts and leaves; both `None` if its updates cancel out.
fn step(updates: &[ViewUpdate]) -> (Option<&[u8]>, Option<&[u8]>) {
    let (mut gone, mut come) = (None, None);
    for row in updates.chunk_by(|(a, ..), (b, ..)| a.body == b.body) {
        let body = &*row[0].0.body;
        match row.iter().map(|(.., diff)| diff).sum::<isize>() {
            0 => {}
            1.. => come = Some(body),
            ..0 => gone = Some(body),
        }
    }
    (gone, come)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const NEVER: Epoch = Epoch(0);

    fn row(id: &str, body: &str, time: u64, diff: isize) -> ViewUpdate {
        let document = ViewDocument {
            partition_key: "[1]".into(),
            id: id.into(),
            body: body.as_bytes().into(),
        };
        (document, time, diff)
    }

    fn folded(updates: Vec<ViewUpdate>, rewrite_through: Epoch) -> Vec<(String, Option<String>)> {
        let text =
            |body: bytes::Bytes| String::from_utf8(body.to_vec()).expect("test bodies are text");
        fold(updates, rewrite_through)
            .into_iter()
            .map(|write| (write.id, write.body.map(text)))
            .collect()
    }

    #[test]
    fn an_update_is_one_upsert_and_a_removal_one_delete() {
        let updates = vec![
            row("a", "1", 5, -1),
            row("a", "2", 5, 1),
            row("b", "1", 5, -1),
            row("c", "1", 5, 1),
        ];
        let expected = [("a", Some("2")), ("b", None), ("c", Some("1"))];
        assert_eq!(
            folded(updates, NEVER),
            expected.map(|(id, body)| (id.to_owned(), body.map(str::to_owned)))
        );
    }

    #[test]
    fn what_comes_and_goes_is_not_written() {
        let updates = vec![
            row("a", "1", 5, 1),
            row("a", "1", 6, -1),
            row("b", "1", 5, 1),
            row("b", "1", 5, -1),
        ];
        assert!(folded(updates, NEVER).is_empty());
    }

    #[test]
    fn replayed_epochs_are_written_even_if_they_cancel_out() {
        let updates = vec![
            row("a", "1", 5, 1),
            row("a", "1", 6, -1),
            row("b", "1", 7, 1),
            row("b", "1", 8, -1),
        ];
        assert_eq!(folded(updates, Epoch(5)), [("a".to_owned(), None)]);
    }

    /// Random histories of a few documents, cut into folds at random places: applying the folds must end in the state
    /// that the history ends in, whatever the container held before the replayed part.
    #[test]
    fn folds_reach_the_state_of_a_plain_map() {
        for seed in 0..300u64 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut state: BTreeMap<String, String> = BTreeMap::new();
            let mut container = state.clone();
            let mut batch = Vec::new();
            for time in 1..40 {
                for id in ["a", "b", "c"] {
                    let next = random.bool().then(|| random.u8(0..3).to_string());
                    if let Some(old) = state.remove(id) {
                        batch.push(row(id, &old, time, -1));
                    }
                    if let Some(new) = next {
                        batch.push(row(id, &new, time, 1));
                        state.insert(id.to_owned(), new);
                    }
                }
                // An earlier run may have left any epoch through 10 in the container.
                if time <= 10 && random.u8(0..4) == 0 {
                    container = state.clone();
                }
                if time >= 10 && random.u8(0..5) == 0 || time == 39 {
                    random.shuffle(&mut batch);
                    for (id, body) in folded(std::mem::take(&mut batch), Epoch(10)) {
                        match body {
                            Some(body) => container.insert(id, body),
                            None => container.remove(&id),
                        };
                    }
                    assert_eq!(container, state, "seed {seed}, epoch {time}");
                }
            }
        }
    }
}
