//! Where requests go, and what is read about the container.
//!
//! Where our own connections cannot go (a proxy, a certificate that nobody has signed) everything goes through the SDK, the
//! reading of the ranges included. The SDK does not tell their names, so there they are named by their bounds.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use azure_data_cosmos::feed::FeedRange;
use tidefeed_runtime::line_limit::LineLimit;
use tidefeed_runtime::{Context, Error, ErrorKind, Fence, Result};
use tokio::time::sleep;

use super::classify::Refresh;
use super::config::BulkConfig;
use super::operation::{Action, Answer, Lost, Operation, Request, Route};
use super::routing::{RangeId, RangeRecord, RoutingKey, RoutingMap};
use super::sdk;
use super::wire::{Gate, NoAnswer, Signer, Wire, WireConfig};
use crate::cosmos::account::Identity;
use crate::cosmos::backoff::Backoff;
use crate::cosmos::container::Container;
use crate::cosmos::feed::{feed_ranges, range_id};
use crate::cosmos::retry::random;

/// How long the ranges may be in disorder while they are read: a split changes them in moments.
const DISORDER: Duration = Duration::from_millis(100);

/// The ways to one container.
pub(super) struct Routes {
    /// `None` where only the SDK gets through.
    wire: Option<Wire>,
    container: Container,
    /// Until it is known, the run may write.
    fence: Arc<OnceLock<Fence>>,
    config: BulkConfig,
}

impl Routes {
    /// Nothing is sent while `gate` is shut.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when the account's URL is not usable.
    pub(super) fn new(
        container: Container,
        config: &BulkConfig,
        gate: Gate,
        fence: Arc<OnceLock<Fence>>,
    ) -> Result<Self> {
        let wire = match container.account().is_direct() {
            true => Some(wire(&container, config, gate)?),
            false => None,
        };
        Ok(Routes {
            wire,
            container,
            fence,
            config: config.clone(),
        })
    }

    pub(super) fn container(&self) -> &Container {
        &self.container
    }

    pub(super) async fn send(&self, request: &Request) -> Result<Answer, NoAnswer> {
        let operations = request.operations.as_slice();
        let is_patch = |one: &Operation| matches!(one.action, Action::Patch { .. });
        let has_patches = operations.iter().any(|one| is_patch(one));
        match (request.route, operations) {
            (Route::Point, [operation]) if !has_patches => {
                self.guarded(sdk::point(&self.container, operation)).await
            }
            (Route::Transactional, _) if !has_patches => {
                let batch = sdk::transactional(&self.container, operations);
                self.guarded(batch).await
            }
            _ => match &self.wire {
                Some(wire) => wire.send(&request.range, operations).await,
                None => Err(NoAnswer::unsent(Error::internal(
                    "a batch for a physical partition does not go through the SDK",
                ))),
            },
        }
    }

    /// Signs the next request anew, after the service has refused one. The SDK does that for its own.
    pub(super) async fn renew_credentials(&self) {
        if let Some(wire) = &self.wire {
            wire.renew_credentials().await;
        }
    }

    /// The SDK sends again what failed: no longer, once the run is fenced.
    async fn guarded(
        &self,
        sent: impl Future<Output = Result<Answer, NoAnswer>>,
    ) -> Result<Answer, NoAnswer> {
        match self.fence.get() {
            None => sent.await,
            Some(fence) => fence.guard(sent).await.unwrap_or_else(|error| {
                Err(NoAnswer {
                    lost: Lost::Maybe,
                    error,
                })
            }),
        }
    }

    /// Reads the ranges, and what else is wanted, for as long as it takes.
    ///
    /// # Errors
    /// What no retry mends: [`ErrorKind::NotFound`] when the container is gone or another one, [`ErrorKind::Denied`],
    /// [`ErrorKind::Fenced`], [`ErrorKind::Internal`].
    pub(super) async fn map(&self, refresh: Refresh) -> Result<RoutingMap> {
        let mut backoff = Backoff::new(self.config.backoff.clone());
        loop {
            let error = match self.read(refresh).await {
                Ok(Some(map)) => return Ok(map),
                Ok(None) => {
                    sleep(DISORDER).await;
                    continue;
                }
                Err(error) if error.kind() != ErrorKind::Unreachable => return Err(error),
                Err(error) => error,
            };
            let wait = backoff.next_wait(None, random());
            if backoff.attempts() >= 4 && backoff.attempts().is_power_of_two() {
                static LIMIT: LineLimit = LineLimit::rarely();
                if let Some(held_back) = LIMIT.take() {
                    tracing::warn!(
                        event = "ranges_unknown",
                        container = %self.container,
                        error = %error.report(),
                        held_back,
                        "cannot read the ranges, will try again"
                    );
                }
            }
            sleep(wait).await;
        }
    }

    async fn read(&self, refresh: Refresh) -> Result<Option<RoutingMap>> {
        let records = match &self.wire {
            Some(wire) => {
                if refresh == Refresh::Account {
                    wire.find_writable().await?;
                }
                wire.ranges().await?.records
            }
            None => {
                let ranges = feed_ranges(&self.container, &self.config.backoff).await?;
                ranges.iter().map(record).collect::<Result<_>>()?
            }
        };
        match RoutingMap::of(records) {
            Ok(map) => Ok(Some(map)),
            Err(why) => {
                tracing::debug!(container = %self.container, %why, "the ranges changed while they were read");
                Ok(None)
            }
        }
    }

    /// The container's request units a second; none if it has no throughput of its own, or that cannot be read.
    pub(super) async fn throughput(&self) -> Option<f64> {
        let read = self.container.client().read_throughput(None).await;
        let properties = read.ok().flatten()?;
        let autoscale = properties.autoscale_maximum();
        autoscale.or(properties.throughput()).map(|ru| ru as f64)
    }

    /// The ranges for the first time.
    ///
    /// # Errors
    /// As [`map`](Self::map), and [`ErrorKind::Unreachable`] when the account does not answer for `limit`.
    pub(super) async fn first_map(&self, limit: Duration) -> Result<RoutingMap> {
        let map = self.map(Refresh::Account);
        let read = tokio::time::timeout(limit, map).await;
        read.context(ErrorKind::Unreachable, || {
            format!("the ranges of container {} cannot be read", self.container)
        })?
    }
}

fn wire(container: &Container, config: &BulkConfig, gate: Gate) -> Result<Wire> {
    let account = container.account();
    let signer = match account.identity() {
        Identity::Key(key) => Signer::with_key(key.clone()),
        Identity::Entra(credential) => Signer::with_token(credential.clone()),
    };
    let wire = WireConfig {
        max_connections: config.max_connections.get(),
        preferred_regions: account.preferred_regions().to_vec(),
        priority: config.priority,
        throughput_bucket: config.throughput_bucket,
        ..WireConfig::default()
    };
    let (database, name) = (container.database(), container.name());
    Wire::new(account.url(), database, name, signer, gate, wire)
}

/// A range as the SDK describes it. It has gone over from its parents already, and its share of the throughput is not known.
fn record(range: &FeedRange) -> Result<RangeRecord> {
    let id = range_id(range);
    let bound = |hex: String| {
        RoutingKey::from_hex(&hex)
            .ok_or_else(|| Error::internal(format!("feed range {id} has a bound that is no key")))
    };
    Ok(RangeRecord {
        lower: bound(range.min_inclusive().to_hex())?,
        upper: bound(range.max_exclusive().to_hex())?,
        id: RangeId::from(&*id.0),
        parents: Vec::new(),
        throughput_fraction: None,
    })
}
