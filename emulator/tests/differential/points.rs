//! Point operations of a script.

use azure_data_cosmos::models::ItemResponse;
use azure_data_cosmos::options::{
    ContentResponseOnWrite, ItemReadOptions, ItemWriteOptions, OperationOptions, Precondition,
};
use serde_json::json;

use crate::Fallible;
use crate::container::Container;
use crate::keys;
use crate::outcome::Outcome;
use crate::script::{Tag, Write, WriteItem};

impl Container {
    /// Creates, upserts or replaces an item.
    pub async fn write(&mut self, write: &WriteItem, step: usize) -> Fallible<Outcome> {
        let (partition, text) = self.key(write.key)?;
        let id = write.id;
        let mut item = write.body.clone();
        item["id"] = json!(id);
        let owner = self.shape.keys()[write.other_key.unwrap_or(write.key)];
        keys::place(self.shape, owner, &mut item);
        let mut operation = OperationOptions::default();
        operation.content_response_on_write = Some(if write.content {
            ContentResponseOnWrite::Enabled
        } else {
            ContentResponseOnWrite::Disabled
        });
        let mut options = ItemWriteOptions::default().with_operation_options(operation);
        if let Some(tag) = write.if_match {
            options = options.with_precondition(Precondition::if_match(self.tag(&text, id, tag)));
        }
        if let Some(tag) = write.if_none_match {
            options =
                options.with_precondition(Precondition::if_none_match(self.tag(&text, id, tag)));
        }
        let options = Some(options);
        let response = match write.write {
            Write::Create => {
                self.client
                    .create_item(partition, id, &item, options)
                    .await?
            }
            Write::Upsert => {
                self.client
                    .upsert_item(partition, id, &item, options)
                    .await?
            }
            Write::Replace => {
                self.client
                    .replace_item(partition, id, &item, options)
                    .await?
            }
        };
        if let Some(tag) = response.headers().etag() {
            self.written(&text, id, tag.as_ref(), step);
        }
        self.point(response)
    }

    /// Reads an item.
    pub async fn read(
        &mut self,
        key: usize,
        id: &str,
        if_none_match: Option<Tag>,
        step: usize,
    ) -> Fallible<Outcome> {
        let (partition, text) = self.key(key)?;
        let mut options = ItemReadOptions::default();
        if let Some(tag) = if_none_match {
            options =
                options.with_precondition(Precondition::if_none_match(self.tag(&text, id, tag)));
        }
        let response = self.client.read_item(partition, id, Some(options)).await?;
        if let Some(tag) = response.headers().etag() {
            self.learn(tag.as_ref(), step);
        }
        self.point(response)
    }

    /// Deletes an item.
    pub async fn delete(
        &mut self,
        key: usize,
        id: &str,
        if_match: Option<Tag>,
    ) -> Fallible<Outcome> {
        let (partition, text) = self.key(key)?;
        let mut options = ItemWriteOptions::default();
        if let Some(tag) = if_match {
            options = options.with_precondition(Precondition::if_match(self.tag(&text, id, tag)));
        }
        let response = self
            .client
            .delete_item(partition, id, Some(options))
            .await?;
        self.deleted(&text, id);
        self.point(response)
    }

    /// What a point operation did.
    pub fn point(&self, response: ItemResponse) -> Fallible<Outcome> {
        let status = u16::from(response.status().status_code());
        let tag = response.headers().etag().map(ToString::to_string);
        let range = response
            .headers()
            .partition_key_range_id()
            .map(str::to_owned);
        let lsns = (response.headers().lsn(), response.headers().item_lsn());
        let body = response.into_body();
        let body = if body.is_empty() {
            None
        } else {
            Some(self.canonical(body.into_single()?))
        };
        Ok(Outcome::Point {
            status,
            tag: tag.and_then(|tag| self.number(&tag)),
            body,
            range,
            lsns,
            reshaped: self.reshaped,
        })
    }
}
