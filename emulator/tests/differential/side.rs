//! One of the two servers, driven by a script through the SDK.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use azure_data_cosmos::clients::ContainerClient;
use azure_data_cosmos::feed::{ContinuationToken, FeedRange, FeedScope};
use azure_data_cosmos::models::{ChangeFeedItem, ItemResponse};
use azure_data_cosmos::options::{
    BatchDeleteOptions, BatchReadOptions, BatchReplaceOptions, BatchUpsertOptions,
    ChangeFeedOptions, ChangeFeedStartFrom, ContentResponseOnWrite, ItemReadOptions,
    ItemWriteOptions, MaxItemCountHint, OperationOptions, Precondition, QueryOptions,
    ReadFeedRangesOptions,
};
use azure_data_cosmos::{CosmosClient, CosmosError, PartitionKey, TransactionalBatch};
use futures::{StreamExt, TryStreamExt};
use serde_json::{Value, json};

use crate::Fallible;
use crate::keys::{self, Shape, partition_key};
use crate::oracle::Oracle;
use crate::outcome::{self, Deliveries, Delivery, Note, Outcome};
use crate::raw::Raw;
use crate::script::{Action, Operation, Scope, Start, Step, Tag, Write};
use tidefeed_emulator::Emulator;

const FOREIGN_TAG: &str = "\"00000000-0000-0000-0000-000000000000\"";

const HOUR: Duration = Duration::from_secs(3_600);

/// How partitions of a server are reshaped.
pub enum Server {
    Ours(Emulator),
    Oracle(Oracle),
}

/// A server and a client for it.
pub struct Side {
    pub server: Server,
    pub client: CosmosClient,
}

/// A script's containers in a server, and what its client knows.
pub struct Session<'a> {
    side: &'a Side,
    database: String,
    containers: HashMap<Shape, ContainerState>,
}

struct ContainerState {
    client: ContainerClient,
    /// Number of each entity tag in the order of appearance, and the operation that wrote it.
    tags: HashMap<String, (usize, usize)>,
    /// Tags of each item, oldest first.
    histories: HashMap<(String, &'static str), Vec<String>>,
    /// Newest tag of each item that exists.
    live: HashMap<(String, String), String>,
    readers: HashMap<(Scope, Start), Reader>,
    /// Ranges when the container was created.
    ranges: Vec<FeedRange>,
    /// Partition key range ids in key order.
    partitions: Vec<u32>,
}

#[derive(Default)]
struct Reader {
    token: Option<ContinuationToken>,
    history: Deliveries,
    /// Whether it stands where it stopped before the end.
    midway: bool,
}

impl ContainerState {
    fn number(&self, tag: &str) -> Option<usize> {
        self.tags.get(tag).map(|(number, _)| *number)
    }

    fn learn(&mut self, tag: &str, step: usize) -> usize {
        let next = self.tags.len();
        self.tags.entry(tag.to_owned()).or_insert((next, step)).0
    }

    /// Notes that an item has a new version.
    fn written(&mut self, key: &str, id: &'static str, tag: &str, step: usize) -> usize {
        self.histories
            .entry((key.to_owned(), id))
            .or_default()
            .push(tag.to_owned());
        self.live
            .insert((key.to_owned(), id.to_owned()), tag.to_owned());
        self.learn(tag, step)
    }

    fn deleted(&mut self, key: &str, id: &str) {
        self.live.remove(&(key.to_owned(), id.to_owned()));
    }

    fn tag(&self, key: &str, id: &'static str, tag: Tag) -> String {
        let history = self.histories.get(&(key.to_owned(), id));
        let nth_last = |n: usize| history.and_then(|tags| tags.iter().rev().nth(n)).cloned();
        match tag {
            Tag::Current => nth_last(0),
            Tag::Stale => nth_last(1),
            Tag::Foreign => None,
            Tag::Any => Some("*".to_owned()),
        }
        .unwrap_or_else(|| FOREIGN_TAG.to_owned())
    }

    fn canonical(&self, value: Value) -> Value {
        outcome::canonical(value, &|tag| self.number(tag))
    }
}

impl<'a> Session<'a> {
    /// Creates a database with a container of each shape.
    pub async fn open(side: &'a Side, database: String) -> Fallible<Self> {
        side.client.create_database(&database, None).await?;
        let owner = side.client.database_client(database.clone());
        let mut containers = HashMap::new();
        for shape in Shape::ALL {
            owner.create_container(shape.properties(), None).await?;
            let client = owner.container_client(shape.name(), None).await?;
            let ranges = read_ranges(&client).await?;
            let partitions = (0..ranges.len() as u32).collect();
            let state = ContainerState {
                client,
                tags: HashMap::new(),
                histories: HashMap::new(),
                live: HashMap::new(),
                readers: HashMap::new(),
                ranges,
                partitions,
            };
            containers.insert(*shape, state);
        }
        Ok(Self {
            side,
            database,
            containers,
        })
    }

    /// Deletes the database.
    pub async fn close(self) -> Fallible {
        let owner = self.side.client.database_client(self.database.clone());
        owner.delete(None).await?;
        Ok(())
    }

    /// Carries out an operation, the `step`-th of its script.
    pub async fn perform(&mut self, step: usize, operation: &Operation) -> Fallible<Outcome> {
        let shape = operation.shape;
        if let Action::Split(ordinal) = operation.action {
            return self.split(shape, ordinal).await;
        }
        let state = self.containers.get_mut(&shape).ok_or("no container")?;
        match &operation.action {
            Action::Write { .. } => state.write(shape, step, &operation.action).await,
            Action::Read {
                key,
                id,
                if_none_match,
            } => state.read(shape, *key, id, *if_none_match, step).await,
            Action::Delete { key, id, if_match } => state.delete(shape, *key, id, *if_match).await,
            Action::Batch { key, steps } => state.batch(shape, *key, steps, step).await,
            Action::Query { scope, query, page } => {
                let scope = state.scope(shape, *scope)?;
                let options = QueryOptions::default().with_max_item_count(hint(*page)?);
                let rows = async {
                    let rows =
                        state
                            .client
                            .query_items::<Value>(query.to_query()?, scope, Some(options));
                    Ok::<_, Box<dyn std::error::Error>>(
                        rows.await?.try_collect::<Vec<Value>>().await,
                    )
                };
                let rows = match rows.await {
                    Ok(Ok(rows)) => rows,
                    Ok(Err(error)) => return Ok(failed(&error)),
                    Err(error) => match error.downcast::<CosmosError>() {
                        Ok(error) => return Ok(failed(&error)),
                        Err(error) => return Err(error),
                    },
                };
                let rows: Vec<Value> = rows.into_iter().map(|row| state.canonical(row)).collect();
                Ok(Outcome::Rows(if query.ordered {
                    rows
                } else {
                    outcome::multiset(rows)
                }))
            }
            Action::Follow {
                scope,
                start,
                page,
                pages,
            } => state.follow(shape, (*scope, *start), *page, *pages).await,
            Action::Ranges => {
                let ranges = read_ranges(&state.client).await?;
                let bounds = ranges.iter().map(|range| {
                    let (min, max) = (range.min_inclusive(), range.max_exclusive());
                    (min.to_hex(), max.to_hex())
                });
                Ok(Outcome::Ranges(bounds.collect()))
            }
            Action::Split(_) => Err("handled above".into()),
        }
    }

    async fn split(&mut self, shape: Shape, ordinal: usize) -> Fallible<Outcome> {
        let state = self.containers.get_mut(&shape).ok_or("no container")?;
        let place = ordinal % state.partitions.len();
        let partition = state.partitions[place];
        let children = match &self.side.server {
            Server::Oracle(oracle) => {
                oracle
                    .split(&self.database, shape.name(), partition)
                    .await?
            }
            Server::Ours(emulator) => split_ours(emulator, &self.database, shape, partition)?,
        };
        state.partitions.splice(place..=place, children);
        Ok(Outcome::Reshaped)
    }
}

/// Splits a partition of the server under test through its control endpoint.
fn split_ours(
    emulator: &Emulator,
    database: &str,
    shape: Shape,
    partition: u32,
) -> Fallible<Vec<u32>> {
    let path = format!(
        "/_emulator/dbs/{database}/colls/{}/ranges/{partition}/split",
        shape.name()
    );
    let reply = Raw::connect(emulator)?.send("POST", &path, &[], b"")?;
    if !(200..300).contains(&reply.status) {
        return Err(format!("{path}: {} {}", reply.status, reply.text()).into());
    }
    let children = reply.json()["children"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let number = |child: &Value| child.as_str().and_then(|id| id.parse().ok());
    let children: Vec<u32> = children.iter().filter_map(number).collect();
    if children.len() != 2 {
        return Err(format!("{path}: two children expected: {}", reply.text()).into());
    }
    Ok(children)
}

impl ContainerState {
    fn key(&self, shape: Shape, key: usize) -> Fallible<(PartitionKey, String)> {
        let parts = shape.keys()[key];
        let mut item = json!({});
        keys::place(shape, parts, &mut item);
        Ok((partition_key(parts)?, shape.key_of(&self.canonical(item))))
    }

    fn scope(&self, shape: Shape, scope: Scope) -> Fallible<FeedScope> {
        Ok(match scope {
            Scope::Key(key) => FeedScope::partition(self.key(shape, key)?.0),
            Scope::Prefix(key) => FeedScope::partition(partition_key(&shape.keys()[key][..1])?),
            Scope::Range(ordinal) => {
                FeedScope::range(self.ranges[ordinal % self.ranges.len()].clone())
            }
            Scope::Full => FeedScope::full_container(),
        })
    }

    async fn write(&mut self, shape: Shape, step: usize, action: &Action) -> Fallible<Outcome> {
        let Action::Write {
            write,
            key,
            id,
            other_key,
            body,
            if_match,
            if_none_match,
            content,
        } = action
        else {
            return Err("not a write".into());
        };
        let (partition, text) = self.key(shape, *key)?;
        let mut item = body.clone();
        item["id"] = json!(id);
        keys::place(shape, shape.keys()[other_key.unwrap_or(*key)], &mut item);
        let mut operation = OperationOptions::default();
        operation.content_response_on_write = Some(if *content {
            ContentResponseOnWrite::Enabled
        } else {
            ContentResponseOnWrite::Disabled
        });
        let mut options = ItemWriteOptions::default().with_operation_options(operation);
        if let Some(tag) = if_match {
            options = options.with_precondition(Precondition::if_match(self.tag(&text, id, *tag)));
        }
        if let Some(tag) = if_none_match {
            options =
                options.with_precondition(Precondition::if_none_match(self.tag(&text, id, *tag)));
        }
        let options = Some(options);
        let result = match write {
            Write::Create => self.client.create_item(partition, id, &item, options).await,
            Write::Upsert => self.client.upsert_item(partition, id, &item, options).await,
            Write::Replace => {
                self.client
                    .replace_item(partition, id, &item, options)
                    .await
            }
        };
        match result {
            Ok(response) => {
                if let Some(tag) = response.headers().etag() {
                    self.written(&text, id, &tag.to_string(), step);
                }
                self.point(response)
            }
            Err(error) => Ok(failed(&error)),
        }
    }

    async fn read(
        &mut self,
        shape: Shape,
        key: usize,
        id: &'static str,
        if_none_match: Option<Tag>,
        step: usize,
    ) -> Fallible<Outcome> {
        let (partition, text) = self.key(shape, key)?;
        let mut options = ItemReadOptions::default();
        if let Some(tag) = if_none_match {
            options =
                options.with_precondition(Precondition::if_none_match(self.tag(&text, id, tag)));
        }
        match self.client.read_item(partition, id, Some(options)).await {
            Ok(response) => {
                if let Some(tag) = response.headers().etag() {
                    self.learn(&tag.to_string(), step);
                }
                self.point(response)
            }
            Err(error) => Ok(failed(&error)),
        }
    }

    async fn delete(
        &mut self,
        shape: Shape,
        key: usize,
        id: &'static str,
        if_match: Option<Tag>,
    ) -> Fallible<Outcome> {
        let (partition, text) = self.key(shape, key)?;
        let mut options = ItemWriteOptions::default();
        if let Some(tag) = if_match {
            options = options.with_precondition(Precondition::if_match(self.tag(&text, id, tag)));
        }
        match self.client.delete_item(partition, id, Some(options)).await {
            Ok(response) => {
                self.deleted(&text, id);
                self.point(response)
            }
            Err(error) => Ok(failed(&error)),
        }
    }

    fn point(&self, response: ItemResponse) -> Fallible<Outcome> {
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
        })
    }

    async fn batch(
        &mut self,
        shape: Shape,
        key: usize,
        steps: &[Step],
        number: usize,
    ) -> Fallible<Outcome> {
        let (partition, text) = self.key(shape, key)?;
        let mut batch = TransactionalBatch::new(partition);
        for step in steps {
            batch = self.add(batch, shape, key, &text, step)?;
        }
        let response = match self.client.execute_transactional_batch(batch, None).await {
            Ok(response) => response,
            Err(error) => return Ok(failed(&error)),
        };
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
        shape: Shape,
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
                keys::place(shape, shape.keys()[key], &mut item);
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

    async fn follow(
        &mut self,
        shape: Shape,
        place: (Scope, Start),
        page: u32,
        pages: Option<usize>,
    ) -> Fallible<Outcome> {
        let mut reader = self.readers.remove(&place).unwrap_or_default();
        let pages = pages.filter(|_| reader.token.is_some());
        let mut options = ChangeFeedOptions::default().with_max_item_count(hint(page)?);
        if let Some(token) = &reader.token {
            options = options.with_continuation_token(token.clone());
        }
        let target = self.scope(shape, place.0)?;
        let start = match place.1 {
            Start::Beginning => ChangeFeedStartFrom::Beginning,
            Start::Now => ChangeFeedStartFrom::Now,
            Start::Future => ChangeFeedStartFrom::PointInTime((SystemTime::now() + HOUR).into()),
        };
        let mut feed = match self
            .client
            .query_change_feed::<Value>(target, start, Some(options))
            .await
        {
            Ok(feed) => feed,
            Err(error) => return Ok(failed(&error)),
        };
        // Every range must have said once that it has no more.
        let enough_idle = self.partitions.len() + 1;
        let (mut read, mut idle, mut items, mut fresh) = (0, 0, 0, Deliveries::new());
        while pages.map_or(idle < enough_idle, |pages| read < pages) {
            let page = match feed.next().await {
                Some(Ok(page)) => page.into_items(),
                Some(Err(error)) => return Ok(failed(&error)),
                None => return Err("a change feed ended".into()),
            };
            read += 1;
            items += page.len();
            idle = if page.is_empty() { idle + 1 } else { 0 };
            for item in page {
                self.deliver(shape, item, &mut fresh)?;
            }
        }
        reader.token = Some(feed.to_continuation_token()?);
        for (key, deliveries) in &fresh {
            let history = reader.history.entry(key.clone()).or_default();
            history.extend_from_slice(deliveries);
        }
        let outcome = if pages.is_some() {
            reader.midway = true;
            Outcome::Moved { items }
        } else {
            let in_one_go = !std::mem::take(&mut reader.midway);
            Outcome::Drained {
                fresh: in_one_go.then(|| ordered(fresh)),
                settled: self.settled(&reader.history),
            }
        };
        self.readers.insert(place, reader);
        Ok(outcome)
    }

    fn deliver(
        &self,
        shape: Shape,
        item: ChangeFeedItem<Value>,
        into: &mut Deliveries,
    ) -> Fallible {
        let current = item.current().cloned().ok_or("a change without an item")?;
        let tag = current["_etag"].as_str().and_then(|tag| self.tags.get(tag));
        let body = self.canonical(current.clone());
        let delivery = Delivery {
            step: tag.map(|(_, step)| *step),
            id: body["id"].as_str().unwrap_or_default().to_owned(),
            body,
        };
        let key = shape.key_of(&delivery.body);
        into.entry(key).or_default().push(delivery);
        Ok(())
    }

    fn settled(&self, history: &Deliveries) -> Deliveries {
        let newest = history.iter().map(|(key, all)| {
            let newest = outcome::last_arrivals(all, |delivery| {
                let tag = self.live.get(&(key.clone(), delivery.id.clone()));
                let number = tag.and_then(|tag| self.number(tag));
                number.is_some() && delivery.body["_etag"] == json!(number)
            });
            (key.clone(), newest)
        });
        let newest = newest.filter(|(_, deliveries)| !deliveries.is_empty());
        ordered(newest.collect())
    }
}

fn ordered(mut deliveries: Deliveries) -> Deliveries {
    for versions in deliveries.values_mut() {
        outcome::unorder_batches(versions);
    }
    deliveries
}

async fn read_ranges(container: &ContainerClient) -> Fallible<Vec<FeedRange>> {
    let options = ReadFeedRangesOptions::default().with_force_refresh(true);
    let mut ranges = container.read_feed_ranges(Some(options)).await?;
    ranges.sort_by(|a, b| a.min_inclusive().cmp(b.min_inclusive()));
    Ok(ranges)
}

fn hint(items: u32) -> Fallible<MaxItemCountHint> {
    Ok(MaxItemCountHint::Limit(items.try_into()?))
}

fn failed(error: &CosmosError) -> Outcome {
    let status = error.status();
    Outcome::Failed {
        status: u16::from(status.status_code()),
        sub: status.sub_status().map_or(0, |sub| sub.value()),
        text: Note(error.to_string()),
    }
}
