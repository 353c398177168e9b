//! What must be known before a batch can be sent: which server takes writes, and which ranges the container has.
//!
//! Both are read in one attempt; who asks decides when to ask again. An error of the kind `Unreachable` may pass.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use azure_core::http::Url;
use bytes::Bytes;
use hyper::header::{ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH};
use hyper::{Method, StatusCode};
use serde::Deserialize;
use tidefeed_runtime::{Context, Error, ErrorKind, Result};

use super::connection::Pool;
use super::{Call, Reply, Resource, Wire, header_map};
use crate::cosmos::bulk::routing::{RangeId, RangeRecord, RoutingKey};
use crate::cosmos::failure::Failure;
use crate::cosmos::status::classify;

/// Most pages of ranges. A page has hundreds, so a server that never says 304 is broken.
const MAX_PAGES: usize = 1_000;

/// The ranges of a container as they were read. They may not tile the key space yet if they changed meanwhile.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ranges {
    /// The service's own name of the container.
    pub(crate) container_rid: Box<str>,
    /// The ranges, those that were split or merged among them as long as the service names them.
    pub(crate) records: Vec<RangeRecord>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AccountBody {
    writable_locations: Vec<Location>,
    #[serde(default)]
    enable_multiple_write_locations: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Location {
    name: String,
    database_account_endpoint: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RangesBody {
    #[serde(rename = "_rid")]
    rid: Box<str>,
    partition_key_ranges: Vec<RangeBody>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RangeBody {
    id: String,
    min_inclusive: String,
    max_exclusive: String,
    #[serde(default)]
    parents: Option<Vec<String>>,
    #[serde(default)]
    throughput_fraction: Option<f64>,
}

impl Wire {
    /// Asks the account which server takes writes, and sends batches there from now on.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`]; [`ErrorKind::Unreachable`]; [`ErrorKind::Internal`] when the reply makes no sense.
    pub(crate) async fn find_writable(&self) -> Result<()> {
        let what = "reading the account";
        let resource = Resource { kind: "", link: "" };
        let reply = self.get(
            &self.account.1,
            what,
            resource,
            "/".to_owned(),
            header_map(&[]),
        );
        let reply = reply.await?;
        if reply.status != StatusCode::OK {
            return Err(refused(what, &reply));
        }
        let account: AccountBody = parse(what, &reply)?;
        let url = self.writable(&account)?;
        let several = account.enable_multiple_write_locations;
        self.several_take_writes.store(several, Ordering::Relaxed);
        let is_known = |known: &Url| known.origin() == url.origin();
        if is_known(&self.writes.lock().0) {
            return Ok(());
        }
        let pool = match is_known(&self.account.0) {
            true => self.account.1.clone(),
            false => Arc::new(Pool::new(&url, self.gate.clone(), self.config.timeouts)?),
        };
        tracing::info!(
            event = "write_region",
            server = url.host_str().unwrap_or_default(),
            "writes go to another server"
        );
        *self.writes.lock() = (url, pool);
        Ok(())
    }

    fn writable(&self, account: &AccountBody) -> Result<Url> {
        let locations = &account.writable_locations;
        let preferred = self.config.preferred_regions.iter().filter_map(|region| {
            let is_it = |location: &&Location| same_region(&location.name, region);
            locations.iter().find(is_it)
        });
        // With one region that takes writes there is nothing to prefer: others are on their way out.
        let chosen = match account.enable_multiple_write_locations {
            true => preferred.chain(locations).next(),
            false => locations.first(),
        };
        let Some(chosen) = chosen else {
            let what = "the account takes no writes in any region now";
            return Err(Error::new(ErrorKind::Unreachable, what));
        };
        let endpoint = &chosen.database_account_endpoint;
        let url = Url::parse(endpoint).context(ErrorKind::Internal, || {
            format!("the account names {endpoint:?} as its server, which is no URL")
        })?;
        if self.account.0.scheme() == "https" && url.scheme() != "https" {
            let what = format!("the account names {url} as its server, which does not use https");
            return Err(Error::new(ErrorKind::Denied, what));
        }
        Ok(url)
    }

    /// Reads the container's ranges.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when the container does not exist, or is another one than at the first read;
    /// [`ErrorKind::Denied`]; [`ErrorKind::Unreachable`]; [`ErrorKind::Internal`] when the reply makes no sense.
    pub(crate) async fn ranges(&self) -> Result<Ranges> {
        let what = format!("reading the ranges of {}", self.link);
        let pool = self.writes.lock().1.clone();
        let mut headers =
            header_map(&[("a-im", "Incremental feed"), ("x-ms-max-item-count", "-1")]);
        let mut rid = None;
        let mut found = BTreeMap::new();
        for _ in 0..MAX_PAGES {
            let resource = Resource {
                kind: "pkranges",
                link: &self.link,
            };
            let path = format!("{}/pkranges", self.path);
            let reply = self
                .get(&pool, &what, resource, path, headers.clone())
                .await?;
            let page: RangesBody = match reply.status {
                StatusCode::OK => parse(&what, &reply)?,
                StatusCode::NOT_MODIFIED => {
                    let senseless = || Error::internal(format!("{what} brought none"));
                    let container_rid = self.recognize(rid.ok_or_else(senseless)?)?;
                    let records = found.into_values().collect();
                    return Ok(Ranges {
                        container_rid,
                        records,
                    });
                }
                _ => return Err(refused(&what, &reply)),
            };
            rid = Some(page.rid);
            for range in page.partition_key_ranges {
                let record = range.into_record(&what)?;
                // A later page may have a newer version of the same range.
                found.insert(record.id.clone(), record);
            }
            let Some(etag) = reply.headers.get(ETAG) else {
                return Err(Error::internal(format!("{what} has no continuation")));
            };
            headers.insert(IF_NONE_MATCH, etag.clone());
        }
        Err(Error::internal(format!("{what} has no end")))
    }

    /// Keeps the container's own name from the first read on, and refuses any other.
    fn recognize(&self, rid: Box<str>) -> Result<Box<str>> {
        let header = HeaderValue::from_str(&rid)
            .map_err(|_| Error::internal("the container's _rid is no possible header"))?;
        if *self.container_rid.get_or_init(|| header.clone()) != header {
            let what = format!(
                "{} was deleted and created anew: start again, so that everything is written again",
                self.link
            );
            return Err(Error::new(ErrorKind::NotFound, what));
        }
        Ok(rid)
    }

    async fn get(
        &self,
        pool: &Pool,
        what: &str,
        resource: Resource<'_>,
        path: String,
        headers: HeaderMap,
    ) -> Result<Reply> {
        let call = Call {
            method: Method::GET,
            resource,
            path,
            headers,
            body: Bytes::new(),
        };
        let reply = self.call(pool, call).await;
        reply.map_err(|none| none.error.wrap(format!("{what} failed")))
    }
}

/// Names of regions are written with and without spaces.
fn same_region(a: &str, b: &str) -> bool {
    let letters = |name: &'_ str| -> String {
        let kept = name.chars().filter(|c| !c.is_whitespace());
        kept.flat_map(char::to_lowercase).collect()
    };
    letters(a) == letters(b)
}

impl RangeBody {
    fn into_record(self, what: &str) -> Result<RangeRecord> {
        let bound = |text: &str| {
            RoutingKey::from_hex(text).ok_or_else(|| {
                Error::internal(format!("{what} brought a bound that is no key, {text:?}"))
            })
        };
        let parents = self.parents.unwrap_or_default();
        Ok(RangeRecord {
            id: RangeId::from(&*self.id),
            lower: bound(&self.min_inclusive)?,
            upper: bound(&self.max_exclusive)?,
            parents: parents.iter().map(|id| RangeId::from(&**id)).collect(),
            throughput_fraction: self.throughput_fraction,
        })
    }
}

fn parse<'a, T: Deserialize<'a>>(what: &str, reply: &'a Reply) -> Result<T> {
    serde_json::from_slice(&reply.body).context(ErrorKind::Internal, || {
        format!("{what} brought a reply that is not readable")
    })
}

fn refused(what: &str, reply: &Reply) -> Error {
    let status = reply.status.as_u16();
    let sub_status = reply.number("x-ms-substatus");
    let failure = Failure {
        disposition: classify(status, sub_status),
        retry_after: reply
            .number("x-ms-retry-after-ms")
            .map(Duration::from_millis),
        status,
        sub_status: sub_status.map_or(0, u32::from),
        activity_id: reply
            .text("x-ms-activity-id")
            .unwrap_or_default()
            .to_owned(),
        requests: 1,
        from_service: true,
        message: format!("{status}/{}: {}", sub_status.unwrap_or(0), reply.message()),
        charge_ru: 0.0,
    };
    failure.into_error(format!("{what} failed"))
}
