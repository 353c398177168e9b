//! A list of requests to a fresh server: no panic, no 5xx, every error says what it is, and afterwards the feed and the
//! change feed hold the same items.

#![no_main]

use std::cell::OnceCell;
use std::sync::mpsc::{Receiver, Sender, channel};

use arbitrary::{Arbitrary, Unstructured};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Request, Response};
use libfuzzer_sys::fuzz_target;
use serde::de::IgnoredAny;
use serde_json::Value;
use tidefeed_emulator::EmulatorConfig;
use tidefeed_emulator::direct::DirectServer;

/// Stack of the server's threads: queries nest.
const STACK_BYTES: usize = 256 * 1024 * 1024;

const DOCS: &str = "/dbs/db/colls/items/docs";

const CONTAINERS: [&str; 3] = [
    r#"{"id":"items","partitionKey":{"paths":["/pk"]}}"#,
    r#"{"id":"items","partitionKey":{"paths":["/pk"]},"defaultTtl":-1,"uniqueKeyPolicy":{"uniqueKeys":[{"paths":["/n"]}]}}"#,
    r#"{"id":"items","partitionKey":{"paths":["/pk","/q"],"kind":"MultiHash"}}"#,
];

const HEADERS: [&str; 20] = [
    "x-ms-documentdb-partitionkey",
    "x-ms-documentdb-partitionkeyrangeid",
    "x-ms-start-epk",
    "x-ms-end-epk",
    "x-ms-max-item-count",
    "x-ms-continuation",
    "if-none-match",
    "if-match",
    "if-modified-since",
    "x-ms-session-token",
    "x-ms-consistency-level",
    "x-ms-cosmos-changefeed-wire-format-version",
    "x-ms-cosmos-batch-atomic",
    "x-ms-cosmos-batch-continue-on-error",
    "x-ms-cosmos-populate-content-response-on-write",
    "x-ms-offer-throughput",
    "x-ms-cosmos-offer-autopilot-settings",
    "x-ms-cosmos-intended-collection-rid",
    "content-type",
    "prefer",
];

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Operation {
    Create,
    Upsert,
    Replace,
    Read,
    Patch,
    Delete,
    Batch,
    Bulk,
    Query,
    QueryPlan,
    Feed,
    ChangeFeed,
    AllVersions,
    Ranges,
    CreateContainer,
    ReplaceContainer,
    DeleteContainer,
    CreateDatabase,
    QueryOffers,
    ReplaceOffer,
    Split,
    Merge,
    Clock,
    Status,
    Faults,
    Other,
}

#[derive(Arbitrary, Debug)]
enum Text<'a> {
    Given(&'a [u8]),
    /// The entity tag of the reply before.
    LastTag,
    /// The continuation of the last reply that had one.
    LastContinuation,
    Key(u8),
    Number(u16),
}

#[derive(Arbitrary, Debug)]
struct Step<'a> {
    operation: Operation,
    number: u8,
    key: bool,
    headers: Vec<(u8, Text<'a>)>,
    body: &'a [u8],
}

#[derive(Default)]
struct Seen {
    tag: String,
    continuation: String,
}

fuzz_target!(|input: &[u8]| {
    thread_local! {
        static WORKER: OnceCell<(Sender<Vec<u8>>, Receiver<()>)> = const { OnceCell::new() };
    }
    WORKER.with(|worker| {
        let (inputs, done) = worker.get_or_init(start_worker);
        inputs.send(input.to_vec()).expect("the worker waits");
        // A panic of the worker has ended the process by then.
        done.recv().expect("the worker answers");
    });
});

/// Inputs run on a thread with the stack of a server's.
fn start_worker() -> (Sender<Vec<u8>>, Receiver<()>) {
    let (inputs, todo) = channel::<Vec<u8>>();
    let (finished, done) = channel();
    std::thread::Builder::new()
        .stack_size(STACK_BYTES)
        .spawn(move || {
            for input in todo {
                run(&input);
                if finished.send(()).is_err() {
                    return;
                }
            }
        })
        .expect("a thread");
    (inputs, done)
}

fn run(input: &[u8]) {
    let mut bytes = Unstructured::new(input);
    let Ok(definition) = bytes.choose(&CONTAINERS) else {
        return;
    };
    // Delayed splits need a runtime around them; it ends with the input.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    let _inside = runtime.enter();
    let server = DirectServer::new(&EmulatorConfig {
        split_at_bytes: Some(4_000),
        ..EmulatorConfig::default()
    })
    .expect("a server");
    let made = send(&server, "POST", "/dbs", &[], br#"{"id":"db"}"#);
    assert_eq!(made.status(), 201);
    let made = send(&server, "POST", "/dbs/db/colls", &[], definition.as_bytes());
    assert_eq!(made.status(), 201);
    let mut seen = Seen::default();
    for _ in 0..24 {
        if bytes.is_empty() {
            break;
        }
        let Ok(step) = Step::arbitrary(&mut bytes) else {
            break;
        };
        take(&server, &step, &mut seen);
    }
    check(&server);
}

fn take(server: &DirectServer, step: &Step<'_>, seen: &mut Seen) {
    let item = format!("{DOCS}/d{}", step.number % 8);
    let (method, path, fixed): (&str, String, &[(&str, &str)]) = match step.operation {
        Operation::Create => ("POST", DOCS.into(), &[]),
        Operation::Upsert => (
            "POST",
            DOCS.into(),
            &[("x-ms-documentdb-is-upsert", "true")],
        ),
        Operation::Replace => ("PUT", item, &[]),
        Operation::Read => ("GET", item, &[]),
        Operation::Patch => ("PATCH", item, &[]),
        Operation::Delete => ("DELETE", item, &[]),
        Operation::Batch => (
            "POST",
            DOCS.into(),
            &[("x-ms-cosmos-is-batch-request", "true")],
        ),
        Operation::Bulk => (
            "POST",
            DOCS.into(),
            &[
                ("x-ms-cosmos-is-batch-request", "true"),
                ("x-ms-cosmos-batch-atomic", "false"),
            ],
        ),
        Operation::Query => ("POST", DOCS.into(), &[("x-ms-documentdb-isquery", "true")]),
        Operation::QueryPlan => (
            "POST",
            DOCS.into(),
            &[("x-ms-cosmos-is-query-plan-request", "true")],
        ),
        Operation::Feed => ("GET", DOCS.into(), &[]),
        Operation::ChangeFeed => ("GET", DOCS.into(), &[("a-im", "Incremental Feed")]),
        Operation::AllVersions => ("GET", DOCS.into(), &[("a-im", "Full-Fidelity Feed")]),
        Operation::Ranges => ("GET", "/dbs/db/colls/items/pkranges".into(), &[]),
        Operation::CreateContainer => ("POST", "/dbs/db/colls".into(), &[]),
        Operation::ReplaceContainer => ("PUT", "/dbs/db/colls/items".into(), &[]),
        Operation::DeleteContainer => ("DELETE", "/dbs/db/colls/items".into(), &[]),
        Operation::CreateDatabase => ("POST", "/dbs".into(), &[]),
        Operation::QueryOffers => ("POST", "/offers".into(), &[]),
        Operation::ReplaceOffer => ("PUT", format!("/offers/{}", offer(server)), &[]),
        Operation::Split => (
            "POST",
            format!(
                "/_emulator/dbs/db/colls/items/ranges/{}/split",
                step.number % 16
            ),
            &[],
        ),
        Operation::Merge => ("POST", "/_emulator/dbs/db/colls/items/merge".into(), &[]),
        Operation::Clock => ("POST", "/_emulator/clock".into(), &[]),
        Operation::Status => ("GET", "/_emulator/status".into(), &[]),
        Operation::Faults => ("PUT", "/_emulator/faults".into(), &[]),
        Operation::Other => (
            "GET",
            format!("/{}", String::from_utf8_lossy(step.body)),
            &[],
        ),
    };
    let mut headers: Vec<(&str, Vec<u8>)> = fixed
        .iter()
        .map(|(name, value)| (*name, value.as_bytes().to_vec()))
        .collect();
    if step.key {
        headers.push((HEADERS[0], b"[\"p0\"]".to_vec()));
    }
    for (name, value) in step.headers.iter().take(8) {
        let value = match value {
            Text::Given(bytes) => bytes.to_vec(),
            Text::LastTag => seen.tag.clone().into_bytes(),
            Text::LastContinuation => seen.continuation.clone().into_bytes(),
            Text::Key(key) => format!("[\"p{}\"]", key % 4).into_bytes(),
            Text::Number(number) => number.to_string().into_bytes(),
        };
        headers.push((HEADERS[usize::from(*name) % HEADERS.len()], value));
    }
    let reply = send(server, method, &path, &headers, step.body);
    for (name, to) in [
        ("etag", &mut seen.tag),
        ("x-ms-continuation", &mut seen.continuation),
    ] {
        if let Some(value) = reply
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
        {
            *to = value.to_owned();
        }
    }
}

fn offer(server: &DirectServer) -> String {
    let offers = send(server, "GET", "/offers", &[], b"");
    let offers: Value = serde_json::from_slice(offers.body()).expect("offers are JSON");
    offers["Offers"][0]["id"].as_str().unwrap_or("x").to_owned()
}

/// Sends a request and checks what holds for every reply; what is no request at all is answered with a 400 here.
fn send(
    server: &DirectServer,
    method: &str,
    path: &str,
    headers: &[(&str, Vec<u8>)],
    body: &[u8],
) -> Response<Bytes> {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(*name), HeaderValue::from_bytes(value))
        {
            request = request.header(name, value);
        }
    }
    let Ok(request) = request.body(Bytes::copy_from_slice(body)) else {
        return Response::builder()
            .status(400)
            .body(Bytes::new())
            .expect("a reply");
    };
    let (parts, body) = server.answer(request).into_parts();
    // The body is in memory: collecting it does not wait.
    let collected = futures_now(body.collect());
    let status = parts.status.as_u16();
    assert!(
        matches!(status, 200..=299 | 304 | 400..=499),
        "{method} {path}: {status}"
    );
    if status >= 400 {
        let error: Value = serde_json::from_slice(&collected).expect("an error is JSON");
        assert!(
            error["code"].is_string() && error["message"].is_string(),
            "{error}"
        );
    } else if !collected.is_empty() {
        let whole = serde_json::from_slice::<IgnoredAny>(&collected);
        assert!(whole.is_ok(), "{method} {path}: {whole:?}");
    }
    Response::from_parts(parts, collected)
}

fn futures_now<F>(collecting: F) -> Bytes
where
    F: Future<Output = Result<http_body_util::Collected<Bytes>, std::convert::Infallible>>,
{
    let mut collecting = std::pin::pin!(collecting);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match collecting.as_mut().poll(&mut context) {
        std::task::Poll::Ready(Ok(collected)) => collected.to_bytes(),
        _ => unreachable!("a full body is ready"),
    }
}

/// Feed and change feed agree, and a query can read every item. One may expire between two looks.
fn check(server: &DirectServer) {
    if !agree(server) {
        assert!(agree(server), "feed, change feed and query differ");
    }
}

fn agree(server: &DirectServer) -> bool {
    let fed = drain(server, &[], "x-ms-continuation", "x-ms-continuation");
    let changed = drain(
        server,
        &[("a-im", b"Incremental Feed".to_vec())],
        "if-none-match",
        "etag",
    );
    let Some(items) = fed else {
        return changed.is_none();
    };
    let query = send(
        server,
        "POST",
        DOCS,
        &[("x-ms-documentdb-isquery", b"true".to_vec())],
        br#"{"query":"SELECT VALUE COUNT(1) FROM c"}"#,
    );
    let rows: Value = serde_json::from_slice(query.body()).expect("rows are JSON");
    changed == fed && rows["Documents"][0].as_u64() == Some(items as u64)
}

fn drain(
    server: &DirectServer,
    headers: &[(&str, Vec<u8>)],
    send_as: &str,
    found_as: &str,
) -> Option<usize> {
    let (mut items, mut token) = (0, None);
    for _ in 0..10_000 {
        let mut headers = headers.to_vec();
        headers.push(("x-ms-max-item-count", b"5".to_vec()));
        headers.extend(
            token
                .take()
                .map(|token: HeaderValue| (send_as, token.as_bytes().to_vec())),
        );
        let page = send(server, "GET", DOCS, &headers, b"");
        match page.status().as_u16() {
            304 => return Some(items),
            404 => return None,
            _ => {}
        }
        let count = page
            .headers()
            .get("x-ms-item-count")
            .and_then(|count| count.to_str().ok()?.parse::<usize>().ok());
        items += count.expect("a page says how many items it has");
        match page.headers().get(found_as) {
            Some(next) => token = Some(next.clone()),
            None => return Some(items),
        }
    }
    panic!("the feed does not end");
}
