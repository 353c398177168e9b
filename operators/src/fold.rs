//! Folds the updates of one or several epochs to one net change per document.
//!
//! A document's updates become its steps, in order: for a collection one for each epoch that changes it, from the row that the
//! epoch retracts to the row that it leaves; for a plain stream one for each record, by epoch, position and JSON bytes, whatever
//! worker it came from. What is written for the steps is the strategy's to say ([`WriteRule::write`]).
//!
//! Epochs that an earlier run may already have written in part are replayed after a crash, and folding may hide what that run
//! wrote in between: a row inserted in one epoch and deleted in the next folds to nothing, though the insert may be in the
//! container. `rewrite_through` tells the strategies which epochs these are.

use tidefeed_runtime::{Epoch, Result};

use crate::document::ViewDocument;
use crate::strategy::{RowKind, Step, WriteRule};
use crate::target::DocumentWrite;

/// One update of a view at an epoch.
pub type ViewUpdate = (ViewDocument, u64, isize);

/// The writes that bring a container from before the updates to after them, at most one per document.
///
/// Every epoch of a collection leaves at most one row under each key; [`LiveRows`](crate::unique::LiveRows) sees to that.
///
/// # Errors
/// `Data` when a row does not have what its strategy needs, naming the document.
pub fn fold(
    updates: Vec<ViewUpdate>,
    rule: &WriteRule,
    rewrite_through: Epoch,
) -> Result<Vec<DocumentWrite>> {
    let mut writes = Vec::new();
    let mut failed = None;
    for_each_document(updates, rule.rows, |document, steps| {
        match rule.write(steps, rewrite_through) {
            Ok(None) => {}
            Ok(Some(action)) => {
                writes.push(DocumentWrite::new(
                    &*document.partition_key,
                    &*document.id,
                    action,
                ));
            }
            Err(error) => failed = Some(error.wrap(format!("document {}", document.id))),
        }
    });
    failed.map_or(Ok(writes), Err)
}

/// Calls `visit` with each document that the updates change, and its steps.
pub(crate) fn for_each_document(
    mut updates: Vec<ViewUpdate>,
    rows: RowKind,
    mut visit: impl FnMut(&ViewDocument, &[Step<'_>]),
) {
    // Identity first, then time, position and body: the updates of a document stand together, in order.
    updates.sort_unstable_by(|(a, t, _), (b, u, _)| {
        (&a.partition_key, &a.id, t, a.position, &a.body).cmp(&(
            &b.partition_key,
            &b.id,
            u,
            b.position,
            &b.body,
        ))
    });
    let same_document = |a: &ViewUpdate, b: &ViewUpdate| {
        (&a.0.partition_key, &a.0.id) == (&b.0.partition_key, &b.0.id)
    };
    let mut steps = Vec::new();
    for updates in updates.chunk_by(same_document) {
        match rows {
            RowKind::Collection => {
                let epochs = updates.chunk_by(|(_, t, _), (_, u, _)| t == u);
                steps.extend(epochs.filter_map(step));
            }
            RowKind::Stream => steps.extend(updates.iter().map(|(record, epoch, _)| Step {
                epoch: *epoch,
                gone: None,
                come: Some(&record.body),
            })),
        }
        if !steps.is_empty() {
            visit(&updates[0].0, &steps);
        }
        steps.clear();
    }
}

/// The rows that one epoch retracts and leaves; `None` if its updates cancel out.
fn step(updates: &[ViewUpdate]) -> Option<Step<'_>> {
    let (mut gone, mut come) = (None, None);
    for row in updates.chunk_by(|(a, ..), (b, ..)| a.body == b.body) {
        let body = &*row[0].0.body;
        match row.iter().map(|(.., diff)| diff).sum::<isize>() {
            0 => {}
            1.. => come = Some(body),
            ..0 => gone = Some(body),
        }
    }
    let epoch = updates[0].1;
    (gone.is_some() || come.is_some()).then_some(Step { epoch, gone, come })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::target::DocumentAction;

    const NEVER: Epoch = Epoch(0);

    fn row(id: &str, body: &str, time: u64, diff: isize) -> ViewUpdate {
        let document = ViewDocument {
            partition_key: "[1]".into(),
            id: id.into(),
            body: body.as_bytes().into(),
            position: 0,
        };
        (document, time, diff)
    }

    fn folded(updates: Vec<ViewUpdate>, rewrite_through: Epoch) -> Vec<(String, Option<String>)> {
        let written = |action| match action {
            DocumentAction::Upsert(body) => {
                Some(String::from_utf8(body.to_vec()).expect("test bodies are text"))
            }
            DocumentAction::Delete { if_match: None } => None,
            other => panic!("{other:?} is no upsert and no delete"),
        };
        fold(updates, &WriteRule::default(), rewrite_through)
            .expect("upserts always fold")
            .into_iter()
            .map(|write| (write.id, written(write.action)))
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
