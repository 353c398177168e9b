//! How fast the Cosmos DB adapter writes and reads, beside bare loops over the SDK, against an embedded server.
//!
//! ```text
//! cargo bench --bench cosmos_rates [-- DOCUMENTS]
//! ```
//!
//! Client and server share the machine's cores, so compare the lines with each other and not with a real account. Set
//! `RUST_BACKTRACE=1` to see what backtraces in errors cost; jobs switch them off. The last line is one JSON object, with
//! documents per second by name, or requests for polls.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Instant;

use azure_data_cosmos::clients::ContainerClient;
use azure_data_cosmos::feed::FeedScope;
use azure_data_cosmos::options::{
    BinaryEncodingOptions, ChangeFeedOptions, ChangeFeedStartFrom, MaxItemCountHint,
};
use azure_data_cosmos::{AccountEndpoint, AccountReference, CosmosClient, RoutingStrategy};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Map, Value, json};
use tidefeed_benches::Outcome;
use tidefeed_benches::process::client_runtime;
use tidefeed_benches::stats::rounded;
use tidefeed_emulator::{Emulator, EmulatorConfig};
use tidefeed_operators::cosmos::{
    Account, AccountConfig, BulkConfig, Container, ContainerSpec, CosmosFeed, CosmosTarget,
    FeedConfig, Policy,
};
use tidefeed_operators::feed::{ChangeFeed, Start};
use tidefeed_operators::target::{DocumentWrite, Target};

const DATABASE: &str = "rates";
const PARTITIONS: usize = 4;
const PAGE_SIZE: NonZeroU32 = NonZeroU32::new(1000).unwrap();
const IDLE_POLLS: usize = 500;

fn document(n: usize, partitions: usize) -> (String, String, Value) {
    let (pk, id) = (format!("p{}", n % partitions), format!("d{n}"));
    let document = json!({"id": id, "pk": pk, "n": n, "origin": "EWR", "destination": "IAH", "carrier": "UA",
        "delay": (n % 90) as f64 * 0.5, "tail": "N14228", "hour": n % 24, "filler": "x".repeat(90)});
    (pk, id, document)
}

fn writes(count: usize, partitions: usize) -> Vec<DocumentWrite> {
    (0..count)
        .map(|n| {
            let (pk, id, document) = document(n, partitions);
            DocumentWrite::upsert(json!([pk]).to_string(), id, document.to_string())
        })
        .collect()
}

fn main() -> Outcome {
    let count = std::env::args()
        .find_map(|argument| argument.parse().ok())
        .unwrap_or(20_000);
    let variable = |name| std::env::var(name).unwrap_or_else(|_| "unset".into());
    println!(
        "RUST_BACKTRACE {}, RUST_LIB_BACKTRACE {}, {count} documents of {} bytes",
        variable("RUST_BACKTRACE"),
        variable("RUST_LIB_BACKTRACE"),
        document(0, 1).2.to_string().len(),
    );
    client_runtime()?.block_on(measure(count))
}

async fn measure(count: usize) -> Outcome {
    let emulator = Emulator::start(EmulatorConfig {
        partitions: PARTITIONS,
        ..EmulatorConfig::default()
    })?;
    let config = AccountConfig::with_key(emulator.endpoint(), emulator.key());
    let account = Account::connect(&config).await?;
    let mut rates = Rates::default();
    adapter_writes(&account, count, &mut rates).await?;
    bare_writes(&account, &emulator, count, &mut rates).await?;
    reads(&account, &emulator, &mut rates).await?;
    println!("{}", serde_json::to_string(&rates.figures)?);
    Ok(())
}

/// What was measured, by name.
#[derive(Default)]
struct Rates {
    figures: Map<String, Value>,
}

impl Rates {
    fn add(&mut self, name: &str, count: usize, started: Instant) {
        let seconds = started.elapsed().as_secs_f64();
        let per_s = count as f64 / seconds;
        println!("{name:<24} {per_s:>9.0}/s  ({count} in {seconds:.2} s)");
        self.figures.insert(name.to_owned(), rounded(per_s).into());
    }
}

async fn create(account: &Account, name: &str) -> Outcome<Container> {
    let spec = ContainerSpec::new(DATABASE, name, "/pk");
    Ok(Container::create_if_absent(account, &spec).await?)
}

/// The adapter's writes: one document a request, batches of one partition key, batches of one physical partition, and deletes
/// that find nothing.
async fn adapter_writes(account: &Account, count: usize, rates: &mut Rates) -> Outcome {
    let kinds = [
        (Policy::Point, "points", count / 4, count),
        (
            Policy::Transactional,
            "batches",
            count,
            (count / 200).max(1),
        ),
        (Policy::Bulk, "bulk", count, count),
    ];
    for (policy, kind, documents, partitions) in kinds {
        for max_in_flight in [1, 4, 16] {
            let name = format!("adapter_{kind}_{max_in_flight}");
            let container = create(account, &name).await?;
            let batch = writes(documents, partitions);
            apply(container, batch, (policy, max_in_flight), &name, rates).await?;
        }
    }
    let nothing = (0..count / 4)
        .map(|n| DocumentWrite::delete(json!([format!("none{n}")]).to_string(), "none"))
        .collect();
    let container = create(account, "adapter_points_1").await?;
    let name = "adapter_absent_deletes_16";
    apply(container, nothing, (Policy::Point, 16), name, rates).await
}

async fn apply(
    container: Container,
    batch: Vec<DocumentWrite>,
    (policy, max_in_flight): (Policy, usize),
    name: &str,
    rates: &mut Rates,
) -> Outcome {
    let max_in_flight = NonZeroUsize::new(max_in_flight).ok_or("nothing in flight")?;
    let config = BulkConfig {
        policy,
        max_in_flight,
        max_connections: max_in_flight,
        ..BulkConfig::default()
    };
    let target = CosmosTarget::open(container, config).await?;
    let count = batch.len();
    let started = Instant::now();
    target.apply(batch).await?;
    rates.add(name, count, started);
    Ok(())
}

/// The same points without the adapter, as JSON text and in the binary encoding.
async fn bare_writes(
    account: &Account,
    emulator: &Emulator,
    count: usize,
    rates: &mut Rates,
) -> Outcome {
    for (binary, name) in [
        (false, "sdk_text_points_16"),
        (true, "sdk_binary_points_16"),
    ] {
        create(account, name).await?;
        let bare = &bare(emulator, name, binary).await?;
        let started = Instant::now();
        stream::iter(0..count / 4)
            .map(|n| async move {
                let (pk, id, document) = document(n, count);
                bare.upsert_item(pk, &id, &document, None).await.map(drop)
            })
            .buffer_unordered(16)
            .try_collect::<()>()
            .await?;
        rates.add(name, count / 4, started);
    }
    Ok(())
}

/// The feed of a container written in batches, by the adapter and without it, twice in turns; then polls of a quiet feed.
async fn reads(account: &Account, emulator: &Emulator, rates: &mut Rates) -> Outcome {
    const FILLED: &str = "adapter_batches_16";
    let config = FeedConfig {
        page_size: PAGE_SIZE,
        ..FeedConfig::default()
    };
    let feed = CosmosFeed::new(create(account, FILLED).await?, config)?;
    let bare = bare(emulator, FILLED, false).await?;
    // The second round's figures stay.
    for _ in 0..2 {
        let started = Instant::now();
        let read = read_adapter(&feed).await?;
        rates.add("adapter_feed", read, started);
        let started = Instant::now();
        let read = read_bare(&bare).await?;
        rates.add("sdk_feed_as_value", read, started);
    }
    let range = feed.ranges().await?.remove(0);
    let mut pages = feed.open(&range, Start::Now).await?;
    let started = Instant::now();
    for _ in 0..IDLE_POLLS {
        if !pages.next_page().await?.caught_up {
            return Err("a quiet feed has a change".into());
        }
    }
    rates.add("adapter_idle_polls", IDLE_POLLS, started);
    Ok(())
}

async fn bare(emulator: &Emulator, container: &str, binary: bool) -> Outcome<ContainerClient> {
    let endpoint: AccountEndpoint = emulator.endpoint().parse()?;
    let account = AccountReference::with_authentication_key(endpoint, emulator.key().to_owned());
    Ok(CosmosClient::builder()
        .with_binary_encoding_options(BinaryEncodingOptions::new().with_enabled(binary))
        .build(account, RoutingStrategy::PreferredRegions(Vec::new()))
        .await?
        .database_client(DATABASE)
        .container_client(container.to_owned(), None)
        .await?)
}

async fn read_adapter(feed: &CosmosFeed) -> Outcome<usize> {
    let mut read = 0;
    for range in feed.ranges().await? {
        let mut pages = feed.open(&range, Start::Beginning).await?;
        loop {
            let page = pages.next_page().await?;
            read += page.records.len();
            if page.caught_up {
                break;
            }
        }
    }
    Ok(read)
}

async fn read_bare(container: &ContainerClient) -> Outcome<usize> {
    let mut read = 0;
    for range in container.read_feed_ranges(None).await? {
        let options =
            ChangeFeedOptions::default().with_max_item_count(MaxItemCountHint::Limit(PAGE_SIZE));
        let mut pages = container
            .query_change_feed::<Value>(
                FeedScope::range(range),
                ChangeFeedStartFrom::Beginning,
                Some(options),
            )
            .await?;
        while let Some(page) = pages.next().await {
            let page = page?;
            if page.items().is_empty() {
                break;
            }
            read += page.items().len();
        }
    }
    Ok(read)
}
