//! Queries and readers of the change feed of a script.

use std::time::{Duration, SystemTime};

use azure_data_cosmos::feed::ContinuationToken;
use azure_data_cosmos::models::ChangeFeedItem;
use azure_data_cosmos::options::{
    ChangeFeedOptions, ChangeFeedStartFrom, MaxItemCountHint, QueryOptions,
};
use futures::{StreamExt, TryStreamExt};
use serde_json::{Value, json};

use crate::Fallible;
use crate::container::Container;
use crate::outcome::{self, Deliveries, Delivery, Ids, Outcome};
use crate::query::QueryText;
use crate::script::{Scope, Start};

const HOUR: Duration = Duration::from_secs(3_600);

/// A reader of the change feed.
#[derive(Default)]
pub struct Reader {
    token: Option<ContinuationToken>,
    /// The operation that it starts after.
    since: Option<usize>,
    history: Deliveries,
    /// Whether what it finds next depends on the sizes of pages, or on what was merged.
    midway: bool,
}

impl Reader {
    /// Notes that it may find again what it found before.
    pub fn may_repeat(&mut self) {
        self.midway = true;
    }
}

impl Container {
    /// All rows of a query.
    pub async fn query(&self, scope: Scope, query: &QueryText, page: u32) -> Fallible<Outcome> {
        let scope = self.scope(scope)?;
        let options = QueryOptions::default().with_max_item_count(hint(page)?);
        let rows = self
            .client
            .query_items::<Value>(query.to_query()?, scope, Some(options));
        let rows: Vec<Value> = rows.await?.try_collect().await?;
        let rows: Vec<Value> = rows.into_iter().map(|row| self.canonical(row)).collect();
        Ok(Outcome::Rows(if query.ordered {
            rows
        } else {
            outcome::multiset(rows)
        }))
    }

    /// Moves a reader of the change feed on.
    pub async fn follow(
        &mut self,
        place: (Scope, Start),
        page: u32,
        pages: Option<usize>,
        step: usize,
    ) -> Fallible<Outcome> {
        let mut reader = self.readers.remove(&place).unwrap_or_default();
        let pages = pages.filter(|_| reader.token.is_some());
        if reader.token.is_none() && place.1 != Start::Beginning {
            reader.since = Some(step);
        }
        let mut options = ChangeFeedOptions::default().with_max_item_count(hint(page)?);
        if let Some(token) = &reader.token {
            options = options.with_continuation_token(token.clone());
        }
        let target = self.scope(place.0)?;
        let start = match place.1 {
            Start::Beginning => ChangeFeedStartFrom::Beginning,
            Start::Now => ChangeFeedStartFrom::Now,
            Start::Future => ChangeFeedStartFrom::PointInTime((SystemTime::now() + HOUR).into()),
        };
        let feed = self
            .client
            .query_change_feed::<Value>(target, start, Some(options));
        let mut feed = feed.await?;
        // Every interval must have said once that it has no more.
        let enough_idle = self.pieces + 1;
        let (mut read, mut idle, mut items, mut fresh) = (0, 0, 0, Deliveries::new());
        while pages.map_or(idle < enough_idle, |pages| read < pages) {
            let page = feed
                .next()
                .await
                .ok_or("a change feed ended")??
                .into_items();
            read += 1;
            items += page.len();
            idle = if page.is_empty() { idle + 1 } else { 0 };
            for item in page {
                self.deliver(&item, &mut fresh)?;
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
            let settled = self.settled(&reader.history);
            let expected = self.written_since(place.0, reader.since)?;
            Outcome::Drained {
                fresh: in_one_go.then(|| ordered(fresh)),
                missed: Some(expected).filter(|expected| *expected != ids(&settled)),
                settled,
                merged: self.merged,
            }
        };
        self.readers.insert(place, reader);
        Ok(outcome)
    }

    fn deliver(&self, item: &ChangeFeedItem<Value>, into: &mut Deliveries) -> Fallible {
        let current = item.current().ok_or("a change without an item")?;
        let body = self.canonical(current.clone());
        let delivery = Delivery {
            step: current["_etag"].as_str().and_then(|tag| self.writer(tag)),
            id: body["id"].as_str().unwrap_or_default().to_owned(),
            body,
        };
        let key = self.shape.key_of(&delivery.body);
        into.entry(key).or_default().push(delivery);
        Ok(())
    }

    /// The newest versions among all that a reader found.
    fn settled(&self, history: &Deliveries) -> Deliveries {
        let newest = history.iter().map(|(key, all)| {
            let newest = outcome::last_arrivals(all, |delivery| {
                let number = self.newest(key, &delivery.id);
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

fn ids(deliveries: &Deliveries) -> Ids {
    let ids =
        |versions: &Vec<Delivery>| versions.iter().map(|version| version.id.clone()).collect();
    deliveries
        .iter()
        .map(|(key, versions)| (key.clone(), ids(versions)))
        .collect()
}

fn hint(items: u32) -> Fallible<MaxItemCountHint> {
    Ok(MaxItemCountHint::Limit(items.try_into()?))
}
