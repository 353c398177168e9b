//! How fast the Cosmos DB adapter writes and reads, beside bare loops over the SDK, against an embedded server.
//!
//! `cargo run --release -p tidefeed-operators --example cosmos_rates [-- DOCUMENTS]`. Client and server share the machine's
//! cores, so compare the lines with each other and not with a real account. `RUST_BACKTRACE=1` in the environment shows what
//! backtraces cost; with `--restart` the program switches them off as jobs do.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Instant;

use azure_data_cosmos::clients::ContainerClient;
use azure_data_cosmos::feed::FeedScope;
use azure_data_cosmos::options::{
    BinaryEncodingOptions, ChangeFeedOptions, ChangeFeedStartFrom, MaxItemCountHint,
};
use azure_data_cosmos::{AccountEndpoint, AccountReference, CosmosClient, RoutingStrategy};
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use tidefeed_emulator::{Emulator, EmulatorConfig};
use tidefeed_operators::cosmos::{
    Account, AccountConfig, Container, ContainerSpec, CosmosFeed, CosmosTarget, FeedConfig,
    TargetConfig, disable_library_backtraces,
};
use tidefeed_operators::feed::{ChangeFeed, Start};
use tidefeed_operators::target::{DocumentWrite, Target};

const PARTITIONS: usize = 4;
const PAGE_SIZE: NonZeroU32 = NonZeroU32::new(1000).unwrap();

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
            DocumentWrite {
                partition_key: json!([pk]).to_string(),
                id,
                body: Some(document.to_string().into()),
            }
        })
        .collect()
}

fn main() {
    if std::env::args().any(|argument| argument == "--restart") {
        disable_library_backtraces();
    }
    let count = std::env::args()
        .filter_map(|argument| argument.parse().ok())
        .next()
        .unwrap_or(20_000);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let variable = |name| std::env::var(name).unwrap_or_else(|_| "unset".into());
    println!(
        "RUST_BACKTRACE {}, RUST_LIB_BACKTRACE {}, {count} documents of {} bytes",
        variable("RUST_BACKTRACE"),
        variable("RUST_LIB_BACKTRACE"),
        document(0, 1).2.to_string().len(),
    );
    runtime.block_on(measure(count));
}

async fn measure(count: usize) {
    let emulator = Emulator::start(EmulatorConfig {
        partitions: PARTITIONS,
        ..EmulatorConfig::default()
    })
    .expect("a server");
    let config = AccountConfig::with_key(emulator.endpoint(), emulator.key());
    let account = Account::connect(&config).await.expect("an account");
    let create = async |name: &str| {
        let spec = ContainerSpec::new("rates", name, "/pk");
        Container::create_if_absent(&account, &spec)
            .await
            .expect("a container")
    };

    for max_in_flight in [1, 16, 64] {
        let container = create(&format!("points{max_in_flight}")).await;
        let batch = writes(count / 4, count);
        apply(container, batch, max_in_flight, "adapter, points").await;
    }
    for max_in_flight in [1, 4, 16] {
        let container = create(&format!("batches{max_in_flight}")).await;
        let batch = writes(count, (count / 200).max(1));
        apply(container, batch, max_in_flight, "adapter, batches of 100").await;
    }
    let container = create("points1").await;
    let nothing = (0..count / 4)
        .map(|n| DocumentWrite {
            partition_key: json!([format!("none{n}")]).to_string(),
            id: "none".into(),
            body: None,
        })
        .collect();
    apply(container, nothing, 16, "adapter, deletes of nothing (404)").await;
    for (binary, name) in [(false, "bare_text"), (true, "bare_binary")] {
        let _created = create(name).await;
        let bare = bare(&emulator, name, binary).await;
        let started = Instant::now();
        stream::iter(0..count / 4)
            .for_each_concurrent(16, |n| {
                let bare = &bare;
                async move {
                    let (pk, id, document) = document(n, count);
                    bare.upsert_item(pk, &id, &document, None)
                        .await
                        .expect("an upsert");
                }
            })
            .await;
        report(&format!("{name}, points, 16 in flight"), count / 4, started);
    }

    let container = create("batches16").await;
    let feed = CosmosFeed::new(
        container,
        FeedConfig {
            page_size: PAGE_SIZE,
            ..FeedConfig::default()
        },
    )
    .expect("a feed");
    for round in 0..2 {
        let started = Instant::now();
        let read = read_adapter(&feed).await;
        report(&format!("adapter, feed, round {round}"), read, started);
        let bare = bare(&emulator, "batches16", false).await;
        let started = Instant::now();
        let read = read_bare(&bare).await;
        report(
            &format!("bare, feed as Value, round {round}"),
            read,
            started,
        );
    }
    let range = feed.ranges().await.expect("ranges").remove(0);
    let mut pages = feed.open(&range, Start::Now).await.expect("a stream");
    let started = Instant::now();
    for _ in 0..500 {
        assert!(pages.next_page().await.expect("a page").caught_up);
    }
    report("adapter, idle polls", 500, started);
}

async fn apply(container: Container, batch: Vec<DocumentWrite>, max_in_flight: usize, name: &str) {
    let config = TargetConfig {
        max_in_flight: NonZeroUsize::new(max_in_flight).expect("not zero"),
        ..TargetConfig::default()
    };
    let target = CosmosTarget::new(container, config).expect("a target");
    let count = batch.len();
    let started = Instant::now();
    target.apply(batch).await.expect("written");
    report(
        &format!("{name}, {max_in_flight} in flight"),
        count,
        started,
    );
}

async fn bare(emulator: &Emulator, container: &str, binary: bool) -> ContainerClient {
    let endpoint: AccountEndpoint = emulator.endpoint().parse().expect("a URL");
    let account = AccountReference::with_authentication_key(endpoint, emulator.key().to_owned());
    CosmosClient::builder()
        .with_binary_encoding_options(BinaryEncodingOptions::new().with_enabled(binary))
        .build(account, RoutingStrategy::PreferredRegions(Vec::new()))
        .await
        .expect("a client")
        .database_client("rates")
        .container_client(container.to_owned(), None)
        .await
        .expect("a container")
}

async fn read_adapter(feed: &CosmosFeed) -> usize {
    let mut read = 0;
    for range in feed.ranges().await.expect("ranges") {
        let mut pages = feed.open(&range, Start::Beginning).await.expect("a stream");
        loop {
            let page = pages.next_page().await.expect("a page");
            read += page.records.len();
            if page.caught_up {
                break;
            }
        }
    }
    read
}

async fn read_bare(container: &ContainerClient) -> usize {
    let mut read = 0;
    for range in container.read_feed_ranges(None).await.expect("ranges") {
        let options =
            ChangeFeedOptions::default().with_max_item_count(MaxItemCountHint::Limit(PAGE_SIZE));
        let mut pages = container
            .query_change_feed::<Value>(
                FeedScope::range(range),
                ChangeFeedStartFrom::Beginning,
                Some(options),
            )
            .await
            .expect("a stream");
        while let Some(page) = pages.next().await {
            let page = page.expect("a page");
            if page.items().is_empty() {
                break;
            }
            read += page.items().len();
        }
    }
    read
}

fn report(what: &str, count: usize, started: Instant) {
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{what:<40} {:>9.0}/s  ({count} in {seconds:.2} s)",
        count as f64 / seconds
    );
}
