//! The layer below the SDK, for pages of a change feed as the bytes that came.
//!
//! The SDK makes a tree of each change before it makes what its caller wants, which costs more than all else in reading. The
//! same SDK's driver has the same connections, routing, retries and tokens, and hands the bytes out. It is a client of its own: it
//! keeps its own connections and its own map of partitions.
//!
//! The driver's crate is pinned with the SDK's. It can go when the SDK hands out bytes.

use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use azure_data_cosmos::CosmosError;
use azure_data_cosmos::feed::{ContinuationToken, FeedRange};
use azure_data_cosmos::options::{
    ChangeFeedStartFrom, ConnectionPoolOptions, MaxItemCountHint, OperationOptions, Region,
    UserAgentSuffix,
};
use azure_data_cosmos_driver::models::{
    ContainerReference, CosmosOperation, CosmosResponse, CosmosResponseHeaders,
};
use azure_data_cosmos_driver::options::PlanOptions;
use azure_data_cosmos_driver::{CosmosDriverRuntime, DriverOptions, OperationPlan};
use bytes::Bytes;

use super::diagnostics::{Call, SLOW};
use super::failure::Failure;
use super::feed::FeedMode;

pub(super) use azure_data_cosmos_driver::CosmosDriver;
pub(super) use azure_data_cosmos_driver::models::AccountReference;

/// A container, for reading its change feed.
#[derive(Clone)]
pub(crate) struct FeedClient {
    driver: Arc<CosmosDriver>,
    container: ContainerReference,
}

/// A change feed of a container, from one place on.
pub(crate) struct Pages {
    client: FeedClient,
    /// Where it is; not here while a page is on its way.
    plan: Option<OperationPlan>,
    under_way: Option<Fetch>,
}

type Fetch = Pin<Box<dyn Future<Output = (OperationPlan, Fetched, Duration)> + Send>>;

type Fetched = Result<Option<CosmosResponse>, CosmosError>;

/// An answer.
pub(crate) struct Answer {
    /// "Not modified": there is nothing new.
    pub(crate) not_modified: bool,
    /// JSON; empty when there is nothing new.
    pub(crate) body: Bytes,
    pub(crate) charge_ru: f64,
    /// How it came, if that took long.
    pub(crate) slow: Option<Call>,
    /// See [`Page::remaining`](crate::feed::Page::remaining).
    pub(crate) remaining: Option<u64>,
}

/// A client of an account.
pub(super) async fn connect(
    account: AccountReference,
    pool: ConnectionPoolOptions,
    user_agent: UserAgentSuffix,
    defaults: OperationOptions,
    regions: Vec<Region>,
) -> Result<Arc<CosmosDriver>, CosmosError> {
    let runtime = CosmosDriverRuntime::builder()
        .with_connection_pool(pool)
        .with_default_operation_options(defaults)
        .with_user_agent_suffix(user_agent)
        .build()
        .await?;
    let options = DriverOptions::builder(account).with_preferred_regions(regions);
    runtime.create_driver(options.build()).await
}

impl FeedClient {
    pub(crate) async fn open(
        driver: Arc<CosmosDriver>,
        database: &str,
        container: &str,
    ) -> Result<Self, CosmosError> {
        let options = OperationOptions::default();
        let container = driver
            .resolve_container_by_name(database, container, options)
            .await?;
        Ok(FeedClient { driver, container })
    }

    /// The partitions that a range lies in, by the driver's map, which it renews when it meets a split. `None` when there is no map.
    pub(crate) async fn partitions(&self, range: &FeedRange) -> Option<usize> {
        let partitions = self
            .driver
            .resolve_all_partition_key_ranges(&self.container, false)
            .await
            .ok()??;
        let partitions = partitions.iter().filter(|partition| {
            FeedRange::try_from(*partition).is_ok_and(|partition| partition.overlaps(range))
        });
        Some(partitions.count())
    }

    /// The change feed of `range` after `token`, or else from `start`.
    pub(crate) async fn pages(
        &self,
        range: FeedRange,
        mode: FeedMode,
        start: ChangeFeedStartFrom,
        token: Option<String>,
        page_size: NonZeroU32,
    ) -> Result<Pages, Failure> {
        let container = self.container.clone();
        let operation = match mode {
            FeedMode::AllVersionsAndDeletes => {
                CosmosOperation::change_feed_all_versions_and_deletes(container, Some(range))
            }
            FeedMode::LatestVersion => CosmosOperation::change_feed(container, Some(range)),
        };
        let operation = operation
            .with_max_item_count(MaxItemCountHint::Limit(page_size))
            .with_change_feed_start(start);
        let token = token.map(ContinuationToken::from_string);
        let (options, plan_options) = (OperationOptions::default(), PlanOptions::default());
        let planned =
            self.driver
                .plan_operation(operation, &options, token.as_ref(), &plan_options);
        let plan = planned.await.map_err(|error| Failure::of(&error))?;
        Ok(Pages {
            client: self.clone(),
            plan: Some(plan),
            under_way: None,
        })
    }
}

impl Pages {
    /// The next answer, and the token after it. Dropping the future is safe: a page that is on its way comes out of the next call.
    /// After an error the feed must be opened again.
    pub(crate) async fn next(&mut self) -> Result<(Answer, String), Failure> {
        if let Some(mut plan) = self.plan.take() {
            let FeedClient { driver, container } = self.client.clone();
            self.under_way = Some(Box::pin(async move {
                let options = OperationOptions::default();
                let began = Instant::now();
                let fetched = driver
                    .execute_plan(&mut plan, Some(container), options)
                    .await;
                (plan, fetched, began.elapsed())
            }));
        }
        let Some(under_way) = &mut self.under_way else {
            return Err(Failure::transient(
                "a change feed that has failed was asked again",
            ));
        };
        let (plan, fetched, took) = under_way.await;
        self.under_way = None;
        let response = fetched
            .map_err(|error| Failure::of(&error))?
            .ok_or_else(|| {
                Failure::transient("the driver ended a change feed, which never ends")
            })?;
        let slow = (took >= SLOW).then(|| call(&response, took));
        let token = plan.to_continuation_token();
        let token = token.map_err(|error| Failure::of(&error))?;
        self.plan = Some(plan);
        let answer = Answer::of(response).map_err(|error| Failure::of(&error))?;
        let answer = Answer { slow, ..answer };
        Ok((answer, token.as_str().to_owned()))
    }
}

impl Answer {
    fn of(response: CosmosResponse) -> Result<Self, CosmosError> {
        let charge = response.headers().request_charge;
        let remaining = remaining(response.headers());
        let not_modified = u16::from(response.status().status_code()) == 304;
        Ok(Answer {
            not_modified,
            charge_ru: charge.map_or(0.0, |charge| charge.value()),
            remaining,
            slow: None,
            body: match not_modified {
                true => Bytes::new(),
                false => response.into_body().single()?,
            },
        })
    }
}

fn call(response: &CosmosResponse, took: Duration) -> Call {
    let headers = response.headers();
    let sub_status = response.status().sub_status();
    let of_response = headers.activity_id.as_ref().map(ToString::to_string);
    let diagnostics = response.diagnostics();
    Call {
        status: u16::from(response.status().status_code()),
        sub_status: sub_status.map_or(0, |sub_status| u32::from(sub_status.value())),
        activity_id: of_response.unwrap_or_else(|| diagnostics.activity_id().to_string()),
        charge_ru: headers.request_charge.map_or(0.0, |charge| charge.value()),
        took,
        retries: diagnostics.request_count().saturating_sub(1),
    }
}

/// From the newest log sequence number of the partition to the one that the answer ends at.
fn remaining(headers: &CosmosResponseHeaders) -> Option<u64> {
    let etag = headers.etag.as_ref()?.to_string();
    let at: u64 = etag.trim_matches('"').parse().ok()?;
    Some(headers.lsn?.saturating_sub(at))
}
