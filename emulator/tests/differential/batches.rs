//! Batches of a script.

use azure_data_cosmos::TransactionalBatch;
use azure_data_cosmos::options::{
    BatchDeleteOptions, BatchReadOptions, BatchReplaceOptions, BatchUpsertOptions, Precondition,
};
use serde_json::{Value, json};

use crate::Fallible;
use crate::container::Container;
use crate::keys;
use crate::outcome::Outcome;
use crate::script::{Step, Tag, Write};

impl Container {
    /// Carries out a batch.
    pub async fn batch(&mut self, key: usize, steps: &[Step], number: usize) -> Fallible<Outcome> {
        let (partition, text) = self.key(key)?;
        let mut batch = TransactionalBatch::new(partition);
        for step in steps {
            batch = self.add(batch, key, &text, step)?;
        }
        let response = self.client.execute_transactional_batch(batch, None).await?;
        let status = u16::from(response.status().status_code());
        let response = response.into_model()?;
        let results = response.results();
        if results.iter().all(|result| result.status_code() < 400) {
            for (step, result) in steps.iter().zip(results) {
                match (step, result.etag()) {
                    (Step::Write { id, .. }, Some(tag)) => {
                        self.written(&text, id, tag, number);
                    }
                    (Step::Delete { id, .. }, _) => self.deleted(&text, id),
                    _ => {}
                }
            }
        }
        let mut outcomes = Vec::new();
        for result in results {
            let tag = result.etag().and_then(|tag| self.number(tag));
            let body = result
                .into_model::<Value>()?
                .map(|body| self.canonical(body));
            outcomes.push((result.status_code(), tag, body));
        }
        Ok(Outcome::Batch {
            status,
            results: outcomes,
        })
    }

    fn add(
        &self,
        batch: TransactionalBatch,
        key: usize,
        text: &str,
        step: &Step,
    ) -> Fallible<TransactionalBatch> {
        let matching = |id: &'static str, tag: Tag| Precondition::if_match(self.tag(text, id, tag));
        Ok(match step {
            Step::Write {
                write,
                id,
                body,
                if_match,
            } => {
                let mut item = body.clone();
                item["id"] = json!(id);
                keys::place(self.shape, self.shape.keys()[key], &mut item);
                let condition = if_match.map(|tag| matching(id, tag));
                match (write, condition) {
                    (Write::Create, _) => batch.create_item(item)?,
                    (Write::Upsert, None) => batch.upsert_item(item, None)?,
                    (Write::Upsert, Some(condition)) => {
                        let options = BatchUpsertOptions::default().with_precondition(condition);
                        batch.upsert_item(item, Some(options))?
                    }
                    (Write::Replace, None) => batch.replace_item(*id, item, None)?,
                    (Write::Replace, Some(condition)) => {
                        let options = BatchReplaceOptions::default().with_precondition(condition);
                        batch.replace_item(*id, item, Some(options))?
                    }
                }
            }
            Step::Read { id, if_none_match } => {
                let options = if_none_match.map(|tag| {
                    let condition = Precondition::if_none_match(self.tag(text, id, tag));
                    BatchReadOptions::default().with_precondition(condition)
                });
                batch.read_item(*id, options)
            }
            Step::Delete { id, if_match } => {
                let options = if_match
                    .map(|tag| BatchDeleteOptions::default().with_precondition(matching(id, tag)));
                batch.delete_item(*id, options)
            }
        })
    }
}
