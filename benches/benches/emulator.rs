//! How fast the embedded server is, and what a document costs it.
//!
//! ```text
//! cargo bench --bench emulator
//! ```
//!
//! | figure | what is measured |
//! |---|---|
//! | upserts | the official SDK, against the server and against one that does nothing, in turns: the server's own share |
//! | bulk | batches of 100 over plain HTTP, one connection a partition, while a container fills; transactional ones in turns |
//! | feed | pages of 1,000 of a small and a large container over plain HTTP, read and counted, in turns |
//! | overhead | growth of the server's resident memory while the large container filled, less the documents themselves |
//!
//! Servers are processes of their own with the default of one thread; clients share the machine with them. Documents have
//! 232 bytes. Figures are medians of rounds. The last line is one JSON object. It fails when a limit is missed.

use tidefeed_benches::Outcome;
use tidefeed_benches::documents::{DATABASE, DOCUMENT_BYTES};
use tidefeed_benches::feed_pages::{FeedPages, PAGE_SIZE};
use tidefeed_benches::figures::EmulatorFigures;
use tidefeed_benches::noop_server::Recording;
use tidefeed_benches::process::{client_runtime, without_library_backtraces};
use tidefeed_benches::raw_batches::{BATCH_SIZE, BatchKind, BatchWriter};
use tidefeed_benches::raw_feed::RawFeed;
use tidefeed_benches::server::{ServerProcess, serve_if_asked};
use tidefeed_benches::stats::{median, rounded};
use tidefeed_benches::upserts::Upserts;
use tidefeed_operators::cosmos::{Account, Container, ContainerSpec};

/// Upserts under way at a time that are tried. The last is the one reported: with it neither side waits for the other.
const IN_FLIGHT: [usize; 3] = [1, 16, 64];
const UPSERTS_PER_ROUND: usize = 2_000;
const UPSERT_ROUNDS: usize = 21;

const SMALL: usize = 10_000;
const LARGE: usize = 1_000_000;
/// Batches to each of the four partitions in a round.
const BATCHES_PER_ROUND: usize = 25;
const PARTITIONS: usize = 4;

/// Full pages of a round: as many as the small container has.
const PAGES_PER_ROUND: usize = 8;
const FEED_ROUNDS: usize = 100;
/// Rounds through the SDK, which is slower.
const SDK_FEED_ROUNDS: usize = 20;

fn main() -> Outcome {
    without_library_backtraces()?;
    if serve_if_asked()? {
        return Ok(());
    }
    client_runtime()?.block_on(measure())
}

async fn measure() -> Outcome {
    println!(
        "The embedded server, a process of its own; documents of {DOCUMENT_BYTES} bytes, {PARTITIONS} partitions"
    );
    let mut server = ServerProcess::start().await?;
    let account = server.account().await?;
    let upserts = measure_upserts(&server, &account).await?;
    let small = create(&account, "small").await?;
    let mut writer = BatchWriter::connect(&server, "small")?;
    while writer.written() < SMALL {
        writer.timed_round(BatchKind::Transactional, BATCHES_PER_ROUND)?;
    }
    let large = create(&account, "large").await?;
    let loaded = load(&mut server).await?;
    let feed = measure_feed(&server)?;
    measure_sdk_feed(small, large).await?;

    let figures = EmulatorFigures {
        upserts_per_s: rounded(upserts.real),
        noop_upserts_per_s: rounded(upserts.noop),
        bulk_docs_per_s: loaded.bulk_per_s.as_ref().ok().copied().map(rounded),
        feed_docs_per_s_10k: rounded(feed.small),
        feed_docs_per_s_1m: rounded(feed.large),
        overhead_bytes_per_doc: rounded(loaded.overhead_bytes_per_doc),
    };
    println!("{}", serde_json::to_string(&figures)?);
    loaded.bulk_per_s?;
    check(&figures);
    Ok(())
}

async fn create(account: &Account, name: &str) -> Outcome<Container> {
    let spec = ContainerSpec::new(DATABASE, name, "/pk");
    Ok(Container::create_if_absent(account, &spec).await?)
}

/// Upserts per second.
struct UpsertRates {
    real: f64,
    noop: f64,
}

async fn measure_upserts(server: &ServerProcess, account: &Account) -> Outcome<UpsertRates> {
    create(account, "upserts").await?;
    let noop = ServerProcess::start_noop(&Recording::of_point_writes(server, "upserts")?).await?;
    let mut real = UpsertSide::connect(server).await?;
    let mut noop = UpsertSide::connect(&noop).await?;
    let mut reported = Err("nothing was measured".into());
    for in_flight in IN_FLIGHT {
        for round in 0..UPSERT_ROUNDS {
            // The other way round each time, so that neither always comes after the other.
            let (first, second) = match round % 2 {
                0 => (&mut real, &mut noop),
                _ => (&mut noop, &mut real),
            };
            first.round(in_flight).await?;
            second.round(in_flight).await?;
        }
        let ((real_per_s, real_us), (noop_per_s, noop_us)) = (real.take(), noop.take());
        println!(
            "  upserts, {in_flight:>2} at a time: {real_per_s:.0}/s; of a server that does nothing {noop_per_s:.0}/s: ratio \
             {:.3}; the servers' processor time per upsert: {real_us:.1} and {noop_us:.1} us (medians of {UPSERT_ROUNDS} \
             rounds of {UPSERTS_PER_ROUND}, in turns)",
            real_per_s / noop_per_s
        );
        reported = Ok(UpsertRates {
            real: real_per_s,
            noop: noop_per_s,
        });
    }
    reported
}

/// One of the two servers that take upserts in turns.
struct UpsertSide<'a> {
    server: &'a ServerProcess,
    client: Upserts,
    rates: Vec<f64>,
    /// Processor time of an upsert in each round, in microseconds.
    times_us: Vec<f64>,
}

impl<'a> UpsertSide<'a> {
    async fn connect(server: &'a ServerProcess) -> Outcome<Self> {
        Ok(UpsertSide {
            server,
            client: Upserts::connect(server, "upserts").await?,
            rates: Vec::new(),
            times_us: Vec::new(),
        })
    }

    async fn round(&mut self, in_flight: usize) -> Outcome {
        let before = self.server.processor_time()?;
        let rate = self.client.timed_round(UPSERTS_PER_ROUND, in_flight);
        self.rates.push(rate.await?);
        let used = self.server.processor_time()? - before;
        self.times_us
            .push(used.as_secs_f64() * 1e6 / UPSERTS_PER_ROUND as f64);
        Ok(())
    }

    /// The medians, and forgets what they are of.
    fn take(&mut self) -> (f64, f64) {
        let medians = (median(&self.rates), median(&self.times_us));
        self.rates.clear();
        self.times_us.clear();
        medians
    }
}

/// What filling the large container showed.
struct Loaded {
    /// Why not, when the server refuses bulk.
    bulk_per_s: Outcome<f64>,
    overhead_bytes_per_doc: f64,
}

async fn load(server: &mut ServerProcess) -> Outcome<Loaded> {
    let (resident, counted) = (server.resident_bytes()?, server.stats().await?);
    let mut writer = BatchWriter::connect(server, "large")?;
    let (mut transactional, mut bulk, mut refused) = (Vec::new(), Vec::new(), None);
    while writer.written() < LARGE {
        transactional.push(writer.timed_round(BatchKind::Transactional, BATCHES_PER_ROUND)?);
        if refused.is_none() {
            match writer.timed_round(BatchKind::Bulk, BATCHES_PER_ROUND) {
                Ok(rate) => bulk.push(rate),
                Err(error) => refused = Some(error),
            }
        }
    }
    let after = server.stats().await?;
    let written = after.documents - counted.documents;
    let per_doc = |bytes: usize| bytes as f64 / written as f64 - DOCUMENT_BYTES as f64;
    let overhead = per_doc(server.resident_bytes()?.saturating_sub(resident) as usize);
    println!(
        "  memory: {overhead:.0} bytes per document besides its own {DOCUMENT_BYTES} (growth of resident memory over {written} \
         documents); {:.0} by the server's own count",
        per_doc(after.bytes - counted.bytes)
    );
    let of = PARTITIONS * BATCHES_PER_ROUND * BATCH_SIZE;
    println!(
        "  transactional batches: {:.0} documents/s (median of {} rounds of {of})",
        median(&transactional),
        transactional.len()
    );
    let bulk_per_s = match refused {
        Some(error) => Err(format!("no figure of bulk batches: {error}").into()),
        None => Ok(median(&bulk)),
    };
    match &bulk_per_s {
        Ok(rate) => println!("  bulk batches: {rate:.0} documents/s (as many, in turns)"),
        Err(error) => println!("  {error}"),
    }
    Ok(Loaded {
        bulk_per_s,
        overhead_bytes_per_doc: overhead,
    })
}

/// Documents per second of the two containers' feeds.
struct FeedRates {
    small: f64,
    large: f64,
}

fn measure_feed(server: &ServerProcess) -> Outcome<FeedRates> {
    let mut small = RawFeed::connect(server, "small")?;
    let mut large = RawFeed::connect(server, "large")?;
    for (feed, at_least) in [(&mut small, SMALL), (&mut large, LARGE)] {
        let found = feed.distinct_documents()?;
        if found < at_least {
            return Err(format!("a feed has {found} documents of {at_least}").into());
        }
    }
    let (mut small_rates, mut large_rates) = (Vec::new(), Vec::new());
    for round in 0..FEED_ROUNDS {
        for is_small in [round % 2 == 0, round % 2 == 1] {
            let (feed, rates) = match is_small {
                true => (&mut small, &mut small_rates),
                false => (&mut large, &mut large_rates),
            };
            let mut seconds = 0.0;
            for _ in 0..PAGES_PER_ROUND {
                seconds += feed.timed_page()?.as_secs_f64();
            }
            rates.push(f64::from(PAGE_SIZE) * PAGES_PER_ROUND as f64 / seconds);
        }
    }
    let rates = FeedRates {
        small: median(&small_rates),
        large: median(&large_rates),
    };
    println!(
        "  feed pages of {PAGE_SIZE}: {:.0} documents/s with {SMALL} in the container, {:.0} with {LARGE}: ratio {:.3} \
         (read and counted; medians of {FEED_ROUNDS} rounds of {PAGES_PER_ROUND} pages, in turns)",
        rates.small,
        rates.large,
        rates.small / rates.large
    );
    Ok(rates)
}

async fn measure_sdk_feed(small: Container, large: Container) -> Outcome {
    let (mut small, mut large) = (FeedPages::new(small).await?, FeedPages::new(large).await?);
    let (mut small_rates, mut large_rates) = (Vec::new(), Vec::new());
    for _ in 0..SDK_FEED_ROUNDS {
        for (feed, rates) in [
            (&mut small, &mut small_rates),
            (&mut large, &mut large_rates),
        ] {
            let mut seconds = 0.0;
            for _ in 0..PAGES_PER_ROUND {
                seconds += feed.timed_page().await?.as_secs_f64();
            }
            rates.push(f64::from(PAGE_SIZE) * PAGES_PER_ROUND as f64 / seconds);
        }
    }
    println!(
        "  through the adapter and the SDK: {:.0} and {:.0} documents/s",
        median(&small_rates),
        median(&large_rates)
    );
    Ok(())
}

/// Says which limits were missed. Machines are noisy, so a miss is for people to judge.
fn check(figures: &EmulatorFigures) {
    let pages = figures.feed_docs_per_s_10k / figures.feed_docs_per_s_1m;
    let limits = [
        (
            "upserts are slower than 0.9 of a server that does nothing",
            figures.upserts_per_s < 0.9 * figures.noop_upserts_per_s,
        ),
        (
            "bulk is slower than 100,000 documents/s",
            figures.bulk_docs_per_s.is_none_or(|rate| rate < 100_000.0),
        ),
        (
            "feed pages are slower than 200,000 documents/s",
            figures.feed_docs_per_s_10k.min(figures.feed_docs_per_s_1m) < 200_000.0,
        ),
        (
            "feed pages of the containers differ by more than 1.3",
            pages.max(1.0 / pages) > 1.3,
        ),
        (
            "a document costs more than 700 bytes besides its own",
            figures.overhead_bytes_per_doc > 700.0,
        ),
    ];
    let missed: Vec<&str> = limits
        .iter()
        .filter_map(|(limit, is_missed)| is_missed.then_some(*limit))
        .collect();
    for limit in missed {
        eprintln!("missed: {limit}");
    }
}
