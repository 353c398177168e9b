//! Against a server that answers as it is told.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use super::*;

const KEY: &str = "c2VjcmV0";

/// A request, from its first byte to its last.
#[derive(Debug)]
struct Seen {
    /// Which connection it came on, from 0.
    connection: usize,
    head: String,
    body: Vec<u8>,
    /// False when the connection ended before the announced length was there.
    is_whole: bool,
}

/// What to do after a request.
enum Then {
    Reply(String),
    ReplyAndClose(String),
    Close,
    /// Nothing, until the client ends the connection.
    Wait,
}

/// Each connection has a thread, which ends with the client's end of it.
struct Scripted {
    endpoint: String,
    seen: mpsc::Receiver<Seen>,
    connections: Arc<AtomicUsize>,
    /// One for each connection that the script has closed.
    closed: mpsc::Receiver<()>,
}

impl Scripted {
    fn start(script: impl Fn(&Seen) -> Then + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (seen_to, seen) = mpsc::channel();
        let (closed_to, closed) = mpsc::channel();
        let connections = Arc::new(AtomicUsize::new(0));
        let (script, count) = (Arc::new(script), connections.clone());
        // It waits for connections until the test's process ends.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let connection = count.fetch_add(1, Ordering::SeqCst);
                let (script, seen_to, closed_to) =
                    (script.clone(), seen_to.clone(), closed_to.clone());
                thread::spawn(move || {
                    if serve(stream.unwrap(), connection, &*script, &seen_to).is_some() {
                        let _ = closed_to.send(());
                    }
                });
            }
        });
        Scripted {
            endpoint,
            seen,
            connections,
            closed,
        }
    }

    fn wire(&self, gate: Gate, reply: Duration) -> Wire {
        let timeouts = Timeouts {
            reply,
            ..WireConfig::default().timeouts
        };
        wire_with(&self.endpoint, KEY, gate, timeouts)
    }

    fn patient(&self) -> Wire {
        self.wire(open_gate(), Duration::from_secs(20))
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    fn next(&self) -> Seen {
        self.seen.recv_timeout(Duration::from_secs(20)).unwrap()
    }
}

/// `Some` when the script closed the connection.
fn serve(
    mut stream: TcpStream,
    connection: usize,
    script: &impl Fn(&Seen) -> Then,
    to: &mpsc::Sender<Seen>,
) -> Option<()> {
    loop {
        let seen = read(&mut stream, connection)?;
        let (is_whole, then) = (seen.is_whole, script(&seen));
        let _ = to.send(seen);
        if !is_whole {
            return None;
        }
        match then {
            Then::Reply(text) => stream.write_all(text.as_bytes()).ok()?,
            Then::ReplyAndClose(text) => {
                stream.write_all(text.as_bytes()).ok()?;
                return Some(());
            }
            Then::Close => return Some(()),
            Then::Wait => {
                let _ = stream.read(&mut [0; 1]);
                return None;
            }
        }
    }
}

/// `None` when nothing comes any more.
fn read(stream: &mut TcpStream, connection: usize) -> Option<Seen> {
    let mut bytes = Vec::new();
    let mut chunk = vec![0; 1 << 16];
    loop {
        let read = stream.read(&mut chunk).unwrap_or(0);
        bytes.extend_from_slice(&chunk[..read]);
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        let head = String::from_utf8_lossy(&bytes[..end.unwrap_or(bytes.len())]).into_owned();
        let length = end.map(|end| end + 4 + length(&head));
        let is_whole = length.is_some_and(|length| bytes.len() >= length);
        if is_whole || read == 0 {
            let body = end.map_or(Vec::new(), |end| bytes[end + 4..].to_vec());
            let seen = Seen {
                connection,
                head,
                body,
                is_whole,
            };
            return (!bytes.is_empty()).then_some(seen);
        }
    }
}

fn length(head: &str) -> usize {
    let lines = head.lines();
    let mut value = lines.filter_map(|line| line.strip_prefix("content-length: "));
    value.next().map_or(0, |value| value.parse().unwrap())
}

fn reply(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

const WRITTEN: &str = r#"[{"statusCode":201,"requestCharge":5.5,"eTag":"\"1\""}]"#;

fn one() -> [Arc<Operation>; 1] {
    [operation(
        "[1]",
        "a",
        Action::Upsert(Bytes::from_static(b"{\"id\":\"a\"}")),
    )]
}

/// More than a socket takes at once.
fn large() -> [Arc<Operation>; 1] {
    let body = format!("{{\"id\":\"a\",\"text\":\"{}\"}}", "x".repeat(24 << 20));
    [operation("[1]", "a", Action::Upsert(body.into()))]
}

#[tokio::test]
async fn a_batch_looks_as_the_service_wants_it() {
    let server = Scripted::start(|_| Then::Reply(reply("200 Ok", WRITTEN)));
    let mut wire = server.patient();
    wire.config.priority = Some(Priority::Low);
    wire.config.throughput_bucket = Some(3);
    wire.batch = batch_headers(&wire.config);
    let _ = wire.container_rid.set(HeaderValue::from_static("rid=="));
    let answer = wire.send(&"7".into(), &one()).await.unwrap();
    assert_eq!(answer.results[0].etag.as_deref(), Some("\"1\""));
    let seen = server.next();
    let lines: Vec<_> = seen.head.lines().collect();
    assert_eq!(
        lines[0],
        "POST /dbs/shop%20%C3%A9/colls/all%20orders%2B/docs HTTP/1.1"
    );
    let expected = [
        "host: 127.0.0.1:",
        "accept: application/json",
        "cache-control: no-cache",
        "content-type: application/json",
        "user-agent: tidefeed/",
        "authorization: type%3Dmaster%26ver%3D1.0%26sig%3D",
        "x-ms-date: ",
        "x-ms-version: 2020-07-15",
        "x-ms-cosmos-is-batch-request: True",
        "x-ms-cosmos-batch-atomic: False",
        "x-ms-cosmos-batch-continue-on-error: True",
        "x-ms-documentdb-partitionkeyrangeid: 7",
        "x-ms-cosmos-intended-collection-rid: rid==",
        "x-ms-cosmos-sdk-supportedcapabilities: 1",
        "x-ms-cosmos-priority-level: Low",
        "x-ms-cosmos-throughput-bucket: 3",
        "x-ms-activity-id: ",
        "prefer: return=minimal",
        "content-length: ",
    ];
    for start in expected {
        let found = lines.iter().filter(|line| line.starts_with(start)).count();
        assert_eq!(found, 1, "{start} in {lines:#?}");
    }
    assert_eq!(lines.len(), expected.len() + 1, "{lines:#?}");
    let id = lines
        .iter()
        .find_map(|line| line.strip_prefix("x-ms-activity-id: "));
    assert_eq!(
        Some(&*answer.activity_id),
        id,
        "without one in the reply it is ours"
    );
    assert_eq!(seen.body, encode::body(&one()));
}

#[tokio::test]
async fn what_cannot_be_believed_is_lost() {
    let whole = reply("200 Ok", WRITTEN);
    let cut = |bytes: usize| whole[..whole.len() - bytes].to_owned();
    let two = WRITTEN.replace('}', "},{\"statusCode\":204}");
    let replies = [
        cut(1),
        cut(WRITTEN.len()),
        cut(whole.len() - 10),
        cut(whole.len()),
        reply("200 Ok", &two),
        reply("200 Ok", "[]"),
        reply("200 Ok", ""),
        reply("207 Multi-Status", &WRITTEN[1..]),
        reply(
            "200 Ok",
            &WRITTEN.replace("201", "204").replace("eTag", "tag"),
        ),
        "what?\r\n\r\n".to_owned(),
        // The body ends in the middle of a chunk.
        "HTTP/1.1 200 Ok\r\ntransfer-encoding: chunked\r\n\r\nff\r\n[{\"sta".to_owned(),
        reply("429 Too Many", "more to come").replace(" to come", ""),
    ];
    let left = Mutex::new(replies.to_vec());
    let server = Scripted::start(move |_| Then::ReplyAndClose(left.lock().remove(0)));
    let wire = server.patient();
    for text in &replies {
        let none = wire.send(&"0".into(), &one()).await.expect_err(text);
        assert_eq!(none.lost, Lost::Maybe, "{text}");
        assert_eq!(none.error.kind(), ErrorKind::Unreachable);
        assert!(server.next().is_whole);
        // The next request must not meet the end of this connection.
        server.closed.recv_timeout(Duration::from_secs(20)).unwrap();
    }
}

#[tokio::test]
async fn a_connection_is_used_again() {
    let server = Scripted::start(|_| Then::Reply(reply("200 Ok", WRITTEN)));
    let wire = server.patient();
    for _ in 0..20 {
        wire.send(&"0".into(), &one()).await.unwrap();
    }
    assert_eq!(server.connections(), 1);
    let range = "0".into();
    let (a, b) = (one(), one());
    let (a, b) = tokio::join!(wire.send(&range, &a), wire.send(&range, &b));
    assert!(a.is_ok() && b.is_ok());
    assert_eq!(server.connections(), 2, "one request at a time on each");
}

#[tokio::test]
async fn a_connection_that_was_idle_for_long_is_not_used_again() {
    let server = Scripted::start(|_| Then::Reply(reply("200 Ok", WRITTEN)));
    let timeouts = Timeouts {
        idle: Duration::ZERO,
        ..WireConfig::default().timeouts
    };
    let wire = wire_with(&server.endpoint, KEY, open_gate(), timeouts);
    for used in 1..5 {
        wire.send(&"0".into(), &one()).await.unwrap();
        assert_eq!(server.connections(), used);
        assert!(wire.account.1.idle() <= 1);
    }
}

/// The client finds out when it sends: nothing of its own ran since the server closed.
#[tokio::test]
async fn a_request_on_a_connection_that_the_server_closed_goes_out_on_another() {
    let server = Scripted::start(|_| Then::ReplyAndClose(reply("200 Ok", WRITTEN)));
    let wire = server.patient();
    for sent in 1..50 {
        let answer = wire.send(&"0".into(), &one()).await.unwrap();
        assert_eq!(answer.status, 200);
        server.closed.recv_timeout(Duration::from_secs(20)).unwrap();
        assert_eq!(
            server.next().connection + 1,
            sent,
            "every request was seen once"
        );
    }
}

#[tokio::test]
async fn a_connection_that_closes_without_a_reply_may_have_taken_the_request() {
    let server = Scripted::start(|_| Then::Close);
    let wire = server.patient();
    let none = wire.send(&"0".into(), &one()).await.unwrap_err();
    assert_eq!(none.lost, Lost::Maybe);
    assert_eq!(server.connections(), 1, "it is not sent twice");
}

#[tokio::test]
async fn a_server_that_stops_answering_may_have_taken_the_request() {
    let server = Scripted::start(|_| Then::Wait);
    let wire = server.wire(open_gate(), Duration::from_millis(100));
    let none = wire.send(&"0".into(), &one()).await.unwrap_err();
    assert_eq!(none.lost, Lost::Maybe);
    assert!(
        none.error.report().contains("no reply within 100ms"),
        "{}",
        none.error.report()
    );
    assert!(
        wire.account.1.idle() == 0,
        "its connection is not used again"
    );
}

/// A server that does not even read has no whole request, and gets no more of it.
#[tokio::test]
async fn a_request_that_did_not_leave_whole_did_not_happen() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let timeouts = Timeouts {
        reply: Duration::from_millis(200),
        ..WireConfig::default().timeouts
    };
    let wire = wire_with(&endpoint, KEY, open_gate(), timeouts);
    let none = wire.send(&"0".into(), &large()).await.unwrap_err();
    assert_eq!(none.lost, Lost::Unsent);
    let (mut stream, _) = listener.accept().unwrap();
    let rest = thread::spawn(move || read(&mut stream, 0).unwrap());
    while !rest.is_finished() {
        tokio::task::yield_now().await;
    }
    assert!(!rest.join().unwrap().is_whole);
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_has_taken_nothing() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let wire = wire_with(&endpoint, KEY, open_gate(), WireConfig::default().timeouts);
    let none = wire.send(&"0".into(), &one()).await.unwrap_err();
    assert_eq!(none.lost, Lost::Unsent);
    assert_eq!(none.error.kind(), ErrorKind::Unreachable);
    let error = wire.ranges().await.unwrap_err();
    assert!(
        error.report().contains("cannot reach"),
        "{}",
        error.report()
    );
}

fn fenced() -> Error {
    Error::new(ErrorKind::Fenced, "another run has taken over")
}

#[tokio::test]
async fn nothing_leaves_through_a_closed_fence() {
    let server = Scripted::start(|_| Then::Reply(reply("200 Ok", WRITTEN)));
    let shut = Arc::new(AtomicBool::new(true));
    let asked = shut.clone();
    let gate = Gate::new(move || match asked.load(Ordering::SeqCst) {
        true => Err(fenced()),
        false => Ok(()),
    });
    let wire = server.wire(gate, Duration::from_secs(20));
    let refused = async || {
        let none = wire.send(&"0".into(), &one()).await.unwrap_err();
        assert_eq!(none.lost, Lost::Unsent);
        assert_eq!(none.error.kind(), ErrorKind::Fenced);
        assert_eq!(wire.ranges().await.unwrap_err().kind(), ErrorKind::Fenced);
    };
    refused().await;
    assert_eq!(server.connections(), 0);
    shut.store(false, Ordering::SeqCst);
    wire.send(&"0".into(), &one()).await.unwrap();
    server.next();
    shut.store(true, Ordering::SeqCst);
    refused().await;
    drop(wire);
    // The connection is open, and ends without another byte.
    assert!(server.seen.try_recv().is_err());
    assert_eq!(server.connections(), 1);
}

/// Before its first byte, or in its middle: the server never has all of it.
#[tokio::test]
async fn a_request_that_the_fence_cuts_is_never_whole() {
    for asked_before in [1, 2] {
        // Nobody reads before the end, so that the first write cannot take everything.
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let asked = AtomicUsize::new(0);
        let gate = Gate::new(move || match asked.fetch_add(1, Ordering::SeqCst) {
            asked if asked >= asked_before => Err(fenced()),
            _ => Ok(()),
        });
        let wire = wire_with(&endpoint, KEY, gate, WireConfig::default().timeouts);
        let none = wire.send(&"0".into(), &large()).await.unwrap_err();
        assert_eq!(none.lost, Lost::Unsent, "asked {asked_before} times");
        assert_eq!(none.error.kind(), ErrorKind::Fenced);
        drop(wire);
        let (mut stream, _) = listener.accept().unwrap();
        let seen = thread::spawn(move || read(&mut stream, 0));
        while !seen.is_finished() {
            tokio::task::yield_now().await;
        }
        let seen = seen.join().unwrap();
        assert_eq!(seen.is_some(), asked_before == 2);
        if let Some(seen) = seen {
            assert!(!seen.is_whole && !seen.body.is_empty());
        }
    }
}

#[test]
fn a_server_must_use_https_or_be_on_this_machine() {
    let pool = |url: &str| {
        let url = Url::parse(url).unwrap();
        Pool::new(&url, open_gate(), WireConfig::default().timeouts).map(drop)
    };
    pool("https://x.documents.azure.com:443/").unwrap();
    pool("https://[::1]:8081").unwrap();
    pool("http://[::1]:8081").unwrap();
    for wrong in ["http://example.com/", "ftp://x/", "data:x"] {
        assert_eq!(
            pool(wrong).unwrap_err().kind(),
            ErrorKind::Config,
            "{wrong}"
        );
    }
}

/// `[location, preferred, several regions take writes, chosen]`.
#[tokio::test]
async fn the_write_region_is_the_first_or_the_preferred_one() {
    let account = |several: bool, names: &[&str]| {
        let location = |name: &&str| {
            format!(
                r#"{{"name":"{name}","databaseAccountEndpoint":"http://127.0.0.1:{}/"}}"#,
                9000 + name.len()
            )
        };
        let locations: Vec<_> = names.iter().map(location).collect();
        let locations = locations.join(",");
        reply(
            "200 Ok",
            &format!(
                r#"{{"writableLocations":[{locations}],"enableMultipleWriteLocations":{several}}}"#
            ),
        )
    };
    let names = ["East US", "West US 2"];
    let cases = [
        (account(false, &names), "westus2", Ok(9007)),
        (account(true, &names), "westus2", Ok(9009)),
        (account(true, &names), "North Europe", Ok(9007)),
        (account(true, &[]), "westus2", Err(ErrorKind::Unreachable)),
        (reply("200 Ok", "{}"), "westus2", Err(ErrorKind::Internal)),
        (
            reply("503 Busy", "{}"),
            "westus2",
            Err(ErrorKind::Unreachable),
        ),
        (reply("403 No", "{}"), "westus2", Err(ErrorKind::Denied)),
    ];
    for (text, preferred, expected) in cases {
        let said = text.clone();
        let server = Scripted::start(move |_| Then::Reply(text.clone()));
        let mut wire = server.patient();
        wire.config.preferred_regions = vec![preferred.to_owned()];
        let found = wire.find_writable().await;
        let port = || wire.writes.lock().0.port().unwrap();
        let found = found.map(|()| port()).map_err(|error| error.kind());
        assert_eq!(found, expected, "{said}");
        assert!(server.next().head.starts_with("GET / HTTP/1.1\r\n"));
    }
}

#[tokio::test]
async fn a_write_says_that_several_regions_may_take_it_if_they_do() {
    for several in [false, true] {
        let server = Scripted::start(move |seen| {
            let host = seen
                .head
                .lines()
                .find_map(|line| line.strip_prefix("host: "));
            Then::Reply(match seen.head.starts_with("GET / ") {
                true => reply(
                    "200 Ok",
                    &format!(
                        r#"{{"writableLocations":[{{"name":"East US","databaseAccountEndpoint":"http://{}/"}}],"enableMultipleWriteLocations":{several}}}"#,
                        host.unwrap()
                    ),
                ),
                false => reply("200 Ok", WRITTEN),
            })
        });
        let wire = server.patient();
        wire.find_writable().await.unwrap();
        server.next();
        wire.send(&"7".into(), &one()).await.unwrap();
        let line = "\r\nx-ms-cosmos-allow-tentative-writes: true\r\n";
        assert_eq!(server.next().head.contains(line), several);
    }
}

#[tokio::test]
async fn ranges_are_read_page_by_page_until_nothing_is_new() {
    let page = |etag: &str, ranges: &str| {
        let body = format!(r#"{{"_rid":"r","PartitionKeyRanges":[{ranges}]}}"#);
        let head = format!(
            "HTTP/1.1 200 Ok\r\netag: {etag}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        head + &body
    };
    let range = |id, lower, upper| {
        format!(
            r#"{{"id":"{id}","minInclusive":"{lower}","maxExclusive":"{upper}","parents":null}}"#
        )
    };
    let first = page(
        "\"1\"",
        &format!("{},{}", range("0", "", "10"), range("1", "10", "FF")),
    );
    let second = page("\"2\"", &range("1", "10", "20"));
    let server = Scripted::start(move |seen| {
        let known = seen
            .head
            .lines()
            .find_map(|line| line.strip_prefix("if-none-match: "));
        Then::Reply(match known {
            None => first.clone(),
            Some("\"1\"") => second.clone(),
            _ => "HTTP/1.1 304 Not Modified\r\n\r\n".to_owned(),
        })
    });
    let ranges = server.patient().ranges().await.unwrap();
    assert_eq!(&*ranges.container_rid, "r");
    let bounds: Vec<_> = ranges
        .records
        .iter()
        .map(|range| range.upper.clone())
        .collect();
    let hex = |text| RoutingKey::from_hex(text).unwrap();
    assert_eq!(bounds, [hex("10"), hex("20")]);
    let head = server.next().head;
    assert!(
        head.contains("\r\na-im: Incremental feed\r\n")
            && head.contains("\r\nx-ms-max-item-count: -1\r\n")
    );
}

#[tokio::test]
async fn ranges_that_make_no_sense_are_refused() {
    let page =
        |body: &str| reply("200 Ok", body).replace("content-length", "etag: 1\r\ncontent-length");
    let cases = [
        (
            "HTTP/1.1 304 Not Modified\r\n\r\n".to_owned(),
            ErrorKind::Internal,
        ),
        (
            reply("200 Ok", r#"{"_rid":"r","PartitionKeyRanges":[]}"#),
            ErrorKind::Internal,
        ),
        (page(r#"{"_rid":"r"}"#), ErrorKind::Internal),
        (
            page(
                r#"{"_rid":"r","PartitionKeyRanges":[{"id":"0","minInclusive":"x","maxExclusive":""}]}"#,
            ),
            ErrorKind::Internal,
        ),
        (reply("404 Gone", "{}"), ErrorKind::NotFound),
        (reply("429 Slow", "{}"), ErrorKind::Unreachable),
        (reply("401 Who", "{}"), ErrorKind::Denied),
        // It never says that there are no more.
        (
            page(r#"{"_rid":"r","PartitionKeyRanges":[]}"#),
            ErrorKind::Internal,
        ),
    ];
    for (text, kind) in cases {
        let said = text.clone();
        let server = Scripted::start(move |_| Then::Reply(text.clone()));
        let error = server.patient().ranges().await.unwrap_err();
        assert_eq!(error.kind(), kind, "{said}: {}", error.report());
    }
}
