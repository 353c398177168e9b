//! What the server costs: memory per document, feed pages at several sizes, and upserts through the official SDK.
//!
//! ```text
//! RUST_LIB_BACKTRACE=0 cargo run --release -p tidefeed-emulator --example measure
//! ```
//!
//! Documents are 232 bytes, four partitions. Feed pages of 1,000 are read over HTTP/1.1 by a client that parses nothing.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use azure_data_cosmos::models::{ContainerProperties, PartitionKeyDefinition};
use azure_data_cosmos::{
    AccountEndpoint, AccountReference, CosmosClient, RoutingStrategy, TransactionalBatch,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::{StreamExt, TryStreamExt, stream};
use hmac::{Hmac, Mac};
use serde_json::{Value, json};
use tidefeed_emulator::{Emulator, EmulatorConfig};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

const DATE: &str = "thu, 01 jan 2026 00:00:00 gmt";
const DOCS: &str = "/dbs/db/colls/c/docs";

fn document(index: usize, pk: &str) -> Value {
    let mut document = json!({"id": format!("{index:09}"), "pk": pk, "n": index, "text": ""});
    let missing = 232usize.saturating_sub(document.to_string().len());
    document["text"] = json!("x".repeat(missing));
    document
}

fn resident_bytes() -> Outcome<usize> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS"))
        .unwrap_or_default();
    Ok(line
        .split_whitespace()
        .nth(1)
        .unwrap_or("0")
        .parse::<usize>()?
        * 1024)
}

/// A signed HTTP/1.1 request; returns status, etag and the length of the body.
fn get(
    stream: &mut BufReader<TcpStream>,
    key: &[u8],
    headers: &str,
) -> Outcome<(u16, String, usize)> {
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(key)?;
    mac.update(format!("get\ndocs\ndbs/db/colls/c\n{DATE}\n\n").as_bytes());
    let signature = STANDARD.encode(mac.finalize().into_bytes());
    let token = format!("type=master&ver=1.0&sig={signature}")
        .replace('+', "%2b")
        .replace('&', "%26")
        .replace('=', "%3d");
    let request = format!(
        "GET {DOCS} HTTP/1.1\r\nhost: localhost\r\nauthorization: {token}\r\nx-ms-date: {DATE}\r\n{headers}\r\n"
    );
    stream.get_mut().write_all(request.as_bytes())?;
    let (mut status, mut etag, mut length, mut line) = (0, String::new(), 0, String::new());
    loop {
        line.clear();
        stream.read_line(&mut line)?;
        let trimmed = line.trim();
        match trimmed.split_once(": ") {
            Some(("etag", value)) => etag = value.to_owned(),
            Some(("content-length", value)) => length = value.parse()?,
            Some(_) => {}
            None if trimmed.is_empty() => break,
            None => status = trimmed.split(' ').nth(1).unwrap_or("0").parse()?,
        }
    }
    if status == 304 {
        return Ok((status, etag, 0));
    }
    std::io::copy(
        &mut stream.by_ref().take(length as u64),
        &mut std::io::sink(),
    )?;
    Ok((status, etag, length))
}

/// Reads partition 0 in pages of 1,000: pages, time in them, and the time of an idle poll.
fn drain(emulator: &Emulator) -> Outcome<(usize, Duration, Duration)> {
    let stream = TcpStream::connect(("127.0.0.1", emulator.port()))?;
    stream.set_nodelay(true)?;
    let (mut stream, key) = (
        BufReader::with_capacity(1 << 20, stream),
        STANDARD.decode(emulator.key())?,
    );
    let base = "a-im: Incremental Feed\r\nx-ms-documentdb-partitionkeyrangeid: 0\r\nx-ms-max-item-count: 1000\r\n";
    let (mut pages, mut token, begun) = (0, String::new(), Instant::now());
    loop {
        let (status, etag, _) = get(&mut stream, &key, &format!("{base}{token}"))?;
        token = format!("if-none-match: {etag}\r\n");
        if status != 200 {
            break;
        }
        pages += 1;
    }
    let (in_pages, begun) = (begun.elapsed(), Instant::now());
    for _ in 0..1_000 {
        get(&mut stream, &key, &format!("{base}{token}"))?;
    }
    Ok((pages, in_pages, begun.elapsed() / 1_000))
}

async fn upserts(client: &CosmosClient, writers: usize, count: usize) -> Outcome<f64> {
    let items = client
        .database_client("db")
        .container_client("c", None)
        .await?;
    let begun = Instant::now();
    stream::iter(0..count)
        .map(|index| {
            let items = items.clone();
            async move {
                let pk = format!("p{}", index % 100);
                let document = document(index, &pk);
                items
                    .upsert_item(pk, &format!("{index:09}"), &document, None)
                    .await
                    .map(drop)
            }
        })
        .buffer_unordered(writers)
        .try_collect::<()>()
        .await?;
    Ok(count as f64 / begun.elapsed().as_secs_f64())
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Outcome {
    let emulator = Emulator::start(EmulatorConfig::default())?;
    let endpoint: AccountEndpoint = emulator.endpoint().parse()?;
    let account = AccountReference::with_authentication_key(endpoint, emulator.key().to_owned());
    let client = CosmosClient::builder()
        .build(
            account,
            RoutingStrategy::ProximityTo("South Central US".into()),
        )
        .await?;
    client.create_database("db", None).await?;
    let database = client.database_client("db");
    let properties = ContainerProperties::new("c", PartitionKeyDefinition::from("/pk"));
    database.create_container(properties.clone(), None).await?;
    for writers in [1, 16, 64] {
        let speed = upserts(&client, writers, 4_000 * writers.min(5)).await?;
        println!("upserts through the SDK, {writers:>2} at once: {speed:>7.0}/s");
    }

    let items = database.container_client("c", None).await?;
    items.delete(None).await?;
    database.create_container(properties, None).await?;
    let items = database.container_client("c", None).await?;
    let (before, mut stored) = (resident_bytes()?, 0);
    for size in [10_000, 100_000, 500_000] {
        let begun = Instant::now();
        let from = stored;
        stream::iter((from..size).step_by(100))
            .map(|start| {
                let items = items.clone();
                async move {
                    let pk = format!("p{}", start / 100);
                    let mut batch = TransactionalBatch::new(pk.clone());
                    for index in start..start + 100 {
                        batch = batch.upsert_item(document(index, &pk), None)?;
                    }
                    items
                        .execute_transactional_batch(batch, None)
                        .await
                        .map(drop)
                }
            })
            .buffer_unordered(8)
            .try_collect::<()>()
            .await?;
        let speed = (size - from) as f64 / begun.elapsed().as_secs_f64();
        stored = size;
        let stats = emulator.stats();
        let (pages, in_pages, idle) = drain(&emulator)?;
        println!(
            "{size:>7} documents: {} B each by its own count, {} B resident; batches {speed:.0} documents/s; \
             a page of 1000 {:.2} ms ({pages} pages); an idle poll {} us",
            stats.bytes / stats.documents,
            (resident_bytes()? - before) / stats.documents,
            in_pages.as_secs_f64() * 1e3 / pages as f64,
            idle.as_micros(),
        );
    }
    Ok(())
}
