//! How fast change feeds are read and decoded, beside a bare loop over the SDK, and what an idle range costs.
//!
//! ```text
//! cargo bench --bench source [-- DOCUMENTS]
//! ```
//!
//! An embedded server in a process of its own has two containers of flights of about 250 bytes: in one all of them are in one
//! feed range, in the other they are spread over four. In turns, three times each:
//!
//! - *bare*: `query_change_feed::<Flight>` of the SDK, one task for each range, which drops the documents;
//! - *ours*: the adapter, the readers, the source operator on one worker, which decodes, and behind it the collection and
//!   totals by carrier; nothing is sealed. It is timed until all totals are acknowledged, so it does more than the loop.
//!
//! | figure | measures | target |
//! |---|---|---|
//! | `docs_per_s_1_range` | ours, median | |
//! | `docs_per_s_4_ranges` | ours, median | 200,000 on two cores |
//! | `ratio_to_bare_sdk` | ours by bare, the lower of both medians | 0.9 |
//! | `client_us_per_doc`, `bare_client_us_per_doc` | processor time of this process for each document, four ranges | |
//! | `idle_ru_per_s_per_range` | request units that an idle range takes at the default poll delays | |
//! | `idle_cpu_ms_per_s_per_range` | processor time of this process for it | |
//!
//! Client and server share the machine's cores: compare the ratio, and the rates of one run.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use azure_data_cosmos::clients::ContainerClient;
use azure_data_cosmos::feed::{FeedRange, FeedScope};
use azure_data_cosmos::options::{ChangeFeedOptions, ChangeFeedStartFrom, MaxItemCountHint};
use azure_data_cosmos::{AccountEndpoint, AccountReference, CosmosClient, RoutingStrategy};
use futures::StreamExt;
use serde::Serialize;
use tidefeed_benches::Outcome;
use tidefeed_benches::cpu::processor_time;
use tidefeed_benches::documents::DATABASE;
use tidefeed_benches::flights::{Flight, flight};
use tidefeed_benches::pipeline::Pipeline;
use tidefeed_benches::process::{client_runtime, without_library_backtraces};
use tidefeed_benches::server::{ServerProcess, serve_if_asked};
use tidefeed_benches::stats::{median, rounded};
use tidefeed_operators::cosmos::{
    Account, BulkConfig, Container, ContainerSpec, CosmosFeed, CosmosTarget, FeedConfig,
};
use tidefeed_operators::feed::{ChangeFeed, PageStream, Start};
use tidefeed_operators::reader::PollDelay;
use tidefeed_operators::target::{DocumentWrite, Target};
use tidefeed_runtime::{CommitConfig, FeedRangeId};
use tokio::runtime::Runtime;

const ROUNDS: usize = 3;
const PAGE_SIZE: NonZeroU32 = NonZeroU32::new(1000).unwrap();
/// Documents that are handed over for writing at once.
const PER_CALL: usize = 10_000;
const IDLE: Duration = Duration::from_secs(10);

/// The last line.
#[derive(Serialize)]
struct Figures {
    docs_per_s_1_range: f64,
    docs_per_s_4_ranges: f64,
    ratio_to_bare_sdk: f64,
    client_us_per_doc: f64,
    bare_client_us_per_doc: f64,
    idle_ru_per_s_per_range: f64,
    idle_cpu_ms_per_s_per_range: f64,
}

fn main() -> Outcome {
    without_library_backtraces()?;
    if serve_if_asked()? {
        return Ok(());
    }
    let documents = std::env::args()
        .find_map(|argument| argument.parse().ok())
        .unwrap_or(200_000);
    let tokio = client_runtime()?;
    let server = tokio.block_on(ServerProcess::start())?;
    let account = tokio.block_on(server.account())?;
    // In one logical partition, and each flight in one of its own.
    let one = tokio.block_on(fill(&account, "one", documents, |_| 0))?;
    let four = tokio.block_on(fill(&account, "four", documents, |number| number))?;
    let one = tokio.block_on(OneRange::of(one))?;
    let one = rounds(&tokio, &server, "one", Arc::new(one), documents)?;
    let feed: Arc<dyn ChangeFeed> = Arc::new(four);
    let idle = tokio.block_on(idle(feed.as_ref()))?;
    let four = rounds(&tokio, &server, "four", feed, documents)?;
    let figures = Figures {
        docs_per_s_1_range: one.ours.round(),
        docs_per_s_4_ranges: four.ours.round(),
        ratio_to_bare_sdk: rounded((one.ours / one.bare).min(four.ours / four.bare)),
        client_us_per_doc: rounded(four.ours_us),
        bare_client_us_per_doc: rounded(four.bare_us),
        idle_ru_per_s_per_range: rounded(idle.0),
        idle_cpu_ms_per_s_per_range: rounded(idle.1),
    };
    println!("{}", serde_json::to_string(&figures)?);
    Ok(())
}

/// Writes flights into a container, whose partition key is `/carrier` made of what `key` gives.
async fn fill(
    account: &Account,
    name: &str,
    documents: usize,
    key: impl Fn(usize) -> usize,
) -> Outcome<CosmosFeed> {
    let spec = ContainerSpec::new(DATABASE, name, "/carrier");
    let container = Container::create_if_absent(account, &spec).await?;
    let target = CosmosTarget::open(container.clone(), BulkConfig::default()).await?;
    for first in (0..documents).step_by(PER_CALL) {
        let numbers = first..documents.min(first + PER_CALL);
        let writes = numbers.map(|number| {
            let body = flight(number as u64, number as u64)
                .body
                .unwrap_or_default();
            let carrier = format!("\"carrier\":\"C{}\"", number % 17);
            let own = format!("\"carrier\":\"C{}\"", key(number));
            let body = String::from_utf8_lossy(&body).replace(&carrier, &own);
            let partition_key = format!("[\"C{}\"]", key(number));
            DocumentWrite::upsert(partition_key, format!("flight-{number}"), body)
        });
        target.apply(writes.collect()).await?;
    }
    let config = FeedConfig {
        page_size: PAGE_SIZE,
        ..FeedConfig::default()
    };
    Ok(CosmosFeed::new(container, config)?)
}

/// A feed of which only the range is read that has something.
struct OneRange {
    feed: CosmosFeed,
    range: FeedRangeId,
}

impl OneRange {
    async fn of(feed: CosmosFeed) -> Outcome<Self> {
        for range in feed.ranges().await? {
            let mut pages = feed.open(&range, Start::Beginning).await?;
            if !pages.next_page().await?.records.is_empty() {
                return Ok(OneRange { feed, range });
            }
        }
        Err("no range has a document".into())
    }
}

#[async_trait]
impl ChangeFeed for OneRange {
    async fn ranges(&self) -> tidefeed_runtime::Result<Vec<FeedRangeId>> {
        Ok(vec![self.range.clone()])
    }

    async fn open(
        &self,
        range: &FeedRangeId,
        start: Start,
    ) -> tidefeed_runtime::Result<Box<dyn PageStream>> {
        self.feed.open(range, start).await
    }
}

/// Medians: documents a second, and microseconds of this process's processor time for each.
struct Rates {
    ours: f64,
    ours_us: f64,
    bare: f64,
    bare_us: f64,
}

fn rounds(
    tokio: &Runtime,
    server: &ServerProcess,
    container: &str,
    feed: Arc<dyn ChangeFeed>,
    documents: usize,
) -> Outcome<Rates> {
    let bare = tokio.block_on(bare(server, container))?;
    let ranges = tokio.block_on(feed.ranges())?;
    let (mut ours, mut sdk) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        sdk.push(timed(documents, || {
            tokio.block_on(read_bare(&bare, &ranges, documents))
        })?);
        let feed = Arc::clone(&feed);
        ours.push(timed(documents, || {
            let pipeline = Pipeline::start(tokio, None, feed, CommitConfig::default())?;
            pipeline.until(tokio, |pipeline| pipeline.changes() >= documents as u64)?;
            pipeline.stop(tokio)
        })?);
    }
    let middle = |rounds: &[(f64, f64)], of: fn(&(f64, f64)) -> f64| {
        median(&rounds.iter().map(of).collect::<Vec<_>>())
    };
    let rates = Rates {
        ours: middle(&ours, |round| round.0),
        ours_us: middle(&ours, |round| round.1),
        bare: middle(&sdk, |round| round.0),
        bare_us: middle(&sdk, |round| round.1),
    };
    eprintln!(
        "{} ranges: ours {:.0}/s, {:.2} us each; bare {:.0}/s, {:.2} us each",
        ranges.len(),
        rates.ours,
        rates.ours_us,
        rates.bare,
        rates.bare_us
    );
    Ok(rates)
}

/// Documents a second, and microseconds of processor time for each.
fn timed(documents: usize, read: impl FnOnce() -> Outcome) -> Outcome<(f64, f64)> {
    let process = std::process::id();
    let (used, begun) = (processor_time(process)?, Instant::now());
    read()?;
    let elapsed = begun.elapsed().as_secs_f64();
    let used = processor_time(process)?.saturating_sub(used).as_secs_f64();
    Ok((documents as f64 / elapsed, used * 1e6 / documents as f64))
}

async fn bare(server: &ServerProcess, container: &str) -> Outcome<ContainerClient> {
    let endpoint: AccountEndpoint = server.endpoint().parse()?;
    let account = AccountReference::with_authentication_key(endpoint, server.key().to_owned());
    let client = CosmosClient::builder()
        .build(account, RoutingStrategy::PreferredRegions(Vec::new()))
        .await?;
    let database = client.database_client(DATABASE);
    Ok(database
        .container_client(container.to_owned(), None)
        .await?)
}

/// The loop that a user of the SDK would write, one task for each range.
async fn read_bare(
    container: &ContainerClient,
    ranges: &[FeedRangeId],
    documents: usize,
) -> Outcome {
    let all = container.read_feed_ranges(None).await?;
    let wanted = all.into_iter().filter(|range| {
        let name = FeedRangeId::of(
            &range.min_inclusive().to_hex(),
            &range.max_exclusive().to_hex(),
        );
        ranges.contains(&name)
    });
    let reading: Vec<_> = wanted
        .map(|range| tokio::spawn(read_range(container.clone(), range)))
        .collect();
    let mut read = 0;
    for reading in reading {
        read += reading.await?.map_err(|error| error.to_string())?;
    }
    match read == documents {
        true => Ok(()),
        false => Err(format!("{read} documents of {documents}").into()),
    }
}

async fn read_range(
    container: ContainerClient,
    range: FeedRange,
) -> azure_data_cosmos::Result<usize> {
    let options =
        ChangeFeedOptions::default().with_max_item_count(MaxItemCountHint::Limit(PAGE_SIZE));
    let (scope, start) = (FeedScope::range(range), ChangeFeedStartFrom::Beginning);
    let mut pages = container
        .query_change_feed::<Flight>(scope, start, Some(options))
        .await?;
    let mut read = 0;
    while let Some(page) = pages.next().await {
        let page = page?;
        if page.items().is_empty() {
            break;
        }
        read += page
            .items()
            .iter()
            .filter_map(|item| item.current())
            .count();
    }
    Ok(read)
}

/// Polls quiet ranges for a while as readers do at the default delays; request units and milliseconds of processor time a
/// second, for each range.
async fn idle(feed: &dyn ChangeFeed) -> Outcome<(f64, f64)> {
    let ranges = feed.ranges().await?;
    let mut streams = Vec::new();
    for range in &ranges {
        streams.push(feed.open(range, Start::Now).await?);
    }
    let process = std::process::id();
    let used = processor_time(process)?;
    let end = tokio::time::Instant::now() + IDLE;
    let polling = streams.iter_mut().map(|pages| async move {
        let PollDelay { mut first, longest } = PollDelay::default();
        let mut charged = 0.0;
        while tokio::time::Instant::now() < end {
            charged += pages.next_page().await?.spent.charge_ru;
            tokio::time::sleep(first).await;
            first = (first * 2).min(longest);
        }
        Ok::<_, tidefeed_runtime::Error>(charged)
    });
    let charged: f64 = futures::future::try_join_all(polling)
        .await?
        .into_iter()
        .sum();
    let used = processor_time(process)?.saturating_sub(used).as_secs_f64();
    let range_seconds = IDLE.as_secs_f64() * ranges.len() as f64;
    Ok((charged / range_seconds, used * 1e3 / range_seconds))
}
