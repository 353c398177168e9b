//! Faults on command over HTTP/1.1, as a client without an SDK meets them.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{self, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use crate::common::raw::{Raw, Reply};
use crate::common::{Outcome, server};
use tidefeed_emulator::{Emulator, EmulatorConfig, FaultAction, FaultOperation, FaultRule};

const DOCS: &str = "/dbs/db/colls/items/docs";
const KEY_X: (&str, &str) = ("x-ms-documentdb-partitionkey", "[\"x\"]");
const DEADLINE: Duration = Duration::from_secs(20);

/// A server with container `items` of `partitions` partitions, and a connection to it.
fn prepared(partitions: usize) -> std::io::Result<(Emulator, Raw)> {
    let emulator = server(partitions);
    let mut raw = Raw::connect(&emulator)?;
    raw.prepare("/pk")?;
    Ok((emulator, raw))
}

fn create(raw: &mut Raw, id: &str) -> std::io::Result<Reply> {
    let body = format!(r#"{{"id":"{id}","pk":"x"}}"#);
    raw.call("POST", DOCS, &[KEY_X], body.as_bytes())
}

/// Creates items in one bulk batch.
fn bulk_creates(raw: &mut Raw, ids: &[&str]) -> std::io::Result<Reply> {
    let operations: Vec<serde_json::Value> = ids
        .iter()
        .map(|id| {
            serde_json::json!({
                "operationType": "Create", "partitionKey": "[\"x\"]", "id": id,
                "resourceBody": {"id": id, "pk": "x"},
            })
        })
        .collect();
    let headers = [
        ("x-ms-cosmos-is-batch-request", "True"),
        ("x-ms-cosmos-batch-atomic", "False"),
        ("x-ms-cosmos-batch-continue-on-error", "True"),
        ("x-ms-documentdb-partitionkeyrangeid", "0"),
    ];
    let body = serde_json::to_vec(&operations)?;
    raw.call("POST", DOCS, &headers, &body)
}

fn exists(emulator: &Emulator, id: &str) -> std::io::Result<bool> {
    let read = Raw::connect(emulator)?.call("GET", &format!("{DOCS}/{id}"), &[KEY_X], b"")?;
    Ok(read.status == 200)
}

/// Whether a call ended with a closed connection instead of a reply.
fn lost(outcome: std::io::Result<Reply>) -> bool {
    match outcome {
        Ok(reply) => reply.status == 0,
        Err(error) => matches!(
            error.kind(),
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof
        ),
    }
}

/// Waits until every rule has the hits expected of it.
fn wait_for_hits(emulator: &Emulator, expected: &[u64]) {
    let start = Instant::now();
    while emulator.fault_hits() != expected {
        assert!(start.elapsed() < DEADLINE, "{:?}", emulator.fault_hits());
        std::thread::yield_now();
    }
}

#[test]
fn a_refused_request_changes_nothing() -> Outcome {
    let (emulator, mut raw) = prepared(1)?;
    let creates = |action| {
        FaultRule::new(action)
            .on(&[FaultOperation::Create])
            .times(1)
    };
    emulator.set_faults(
        1,
        vec![
            creates(FaultAction::status(429)),
            creates(FaultAction::status(410)),
            creates(FaultAction::Status {
                status: 449,
                substatus: Some(7),
                retry_after_ms: Some(25),
                message: Some("again".to_owned()),
            }),
            creates(FaultAction::status(503)),
        ],
    )?;
    let mut seen = Vec::new();
    for _ in 0..4 {
        let reply = create(&mut raw, "a")?;
        assert!(reply.header("x-ms-activity-id").is_some());
        assert!(!reply.json()["message"].as_str().unwrap_or("").is_empty());
        seen.push((
            reply.status,
            reply.header("x-ms-substatus").map(str::to_owned),
            reply.header("x-ms-retry-after-ms").map(str::to_owned),
            reply.json()["code"].as_str().unwrap_or("").to_owned(),
        ));
        assert!(!exists(&emulator, "a")?);
    }
    let of = |status, substatus: &str, after: &str, code: &str| {
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        (status, text(substatus), text(after), code.to_owned())
    };
    assert_eq!(
        seen,
        [
            of(429, "3200", "10", "TooManyRequests"),
            of(410, "1002", "", "Gone"),
            of(449, "7", "25", "RetryWith"),
            of(503, "", "", "ServiceUnavailable"),
        ]
    );
    assert_eq!(emulator.fault_hits(), [1, 1, 1, 1]);
    assert_eq!(create(&mut raw, "a")?.status, 201, "the rules are spent");
    Ok(())
}

#[test]
fn a_delayed_request_goes_on_and_others_overtake_it() -> Outcome {
    let (emulator, mut raw) = prepared(1)?;
    let rule = FaultRule::new(FaultAction::Delay {
        ms: 120,
        jitter_ms: 30,
    });
    emulator.set_faults(1, vec![rule.on(&[FaultOperation::Create])])?;
    let slow = std::thread::spawn(move || {
        let start = Instant::now();
        create(&mut raw, "a").map(|reply| (reply.status, start.elapsed()))
    });
    wait_for_hits(&emulator, &[1]);
    // The delay has begun, and reads are not delayed.
    let (start, seen) = (Instant::now(), exists(&emulator, "a")?);
    let (status, took) = slow.join().expect("no panic")?;
    assert_eq!(status, 201);
    assert!(took >= Duration::from_millis(120), "{took:?}");
    assert!(
        !seen || start.elapsed() >= Duration::from_millis(120),
        "a write was applied before its delay was over"
    );
    assert!(exists(&emulator, "a")?);
    Ok(())
}

#[test]
fn a_dropped_connection_is_closed_before_or_after_the_write() -> Outcome {
    for (action, applied) in [
        (FaultAction::DropBefore, false),
        (FaultAction::DropAfter, true),
    ] {
        let (emulator, mut raw) = prepared(1)?;
        let rule = FaultRule::new(action.clone()).on(&[FaultOperation::Create]);
        emulator.set_faults(1, vec![rule.times(1)])?;
        assert!(lost(create(&mut raw, "a")), "{action:?}");
        assert_eq!(exists(&emulator, "a")?, applied, "{action:?}");
        // The connection is closed for good; others are not.
        assert!(lost(raw.call("GET", "/dbs", &[], b"")), "{action:?}");
        let again = create(&mut Raw::connect(&emulator)?, "a")?;
        assert_eq!(again.status, if applied { 409 } else { 201 });
    }
    Ok(())
}

#[test]
fn a_frozen_request_is_released_when_the_rules_change() -> Outcome {
    let (emulator, mut raw) = prepared(1)?;
    let freeze = || vec![FaultRule::new(FaultAction::Freeze).on(&[FaultOperation::Create])];
    emulator.set_faults(1, freeze())?;
    let (send, replies) = mpsc::channel();
    let frozen = std::thread::spawn(move || send.send(create(&mut raw, "a")));
    wait_for_hits(&emulator, &[1]);
    assert!(!exists(&emulator, "a")?, "reads go on meanwhile");
    assert!(matches!(replies.try_recv(), Err(TryRecvError::Empty)));
    // Rules that freeze it again: a change, but no release.
    emulator.set_faults(1, freeze())?;
    wait_for_hits(&emulator, &[1]);
    assert!(matches!(replies.try_recv(), Err(TryRecvError::Empty)));
    emulator.clear_faults();
    assert_eq!(replies.recv_timeout(DEADLINE)??.status, 201);
    frozen.join().expect("no panic")?;
    assert!(exists(&emulator, "a")?);
    // What is frozen is judged by the new rules, not let through.
    emulator.set_faults(1, freeze())?;
    let mut raw = Raw::connect(&emulator)?;
    let refused = std::thread::spawn(move || create(&mut raw, "b"));
    wait_for_hits(&emulator, &[1]);
    emulator.set_faults(1, vec![FaultRule::new(FaultAction::status(408))])?;
    assert_eq!(refused.join().expect("no panic")?.status, 408);
    Ok(())
}

#[test]
fn frozen_requests_do_not_keep_the_server_from_stopping() -> Outcome {
    for worker_threads in [1, 2] {
        let emulator = Emulator::start(EmulatorConfig {
            worker_threads,
            ..EmulatorConfig::default()
        })?;
        emulator.set_faults(1, vec![FaultRule::new(FaultAction::Freeze)])?;
        let mut raw = Raw::connect(&emulator)?;
        let frozen = std::thread::spawn(move || raw.call("GET", "/dbs", &[], b""));
        wait_for_hits(&emulator, &[1]);
        let (send, stopped) = mpsc::channel();
        std::thread::spawn(move || {
            drop(emulator);
            send.send(())
        });
        match stopped.recv_timeout(DEADLINE) {
            Ok(()) => {}
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                panic!("the server did not stop with {worker_threads} threads")
            }
        }
        assert!(lost(frozen.join().expect("no panic")));
    }
    Ok(())
}

#[test]
fn a_client_that_gives_up_takes_its_request_back() -> Outcome {
    let (emulator, _raw) = prepared(1)?;
    let freeze = FaultRule::new(FaultAction::Freeze).on(&[FaultOperation::Create]);
    emulator.set_faults(1, vec![freeze])?;
    let mut raw = Raw::connect(&emulator)?;
    raw.give_up_after(Duration::from_millis(50))?;
    let error = create(&mut raw, "a").expect_err("no reply");
    assert!(matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut
    ));
    drop(raw);
    // The server has one thread: when it answers a later connection, it has seen the end of this one.
    for _ in 0..3 {
        assert!(!exists(&emulator, "a")?);
    }
    emulator.clear_faults();
    assert_eq!(create(&mut Raw::connect(&emulator)?, "b")?.status, 201);
    assert!(!exists(&emulator, "a")?);
    Ok(())
}

#[test]
fn rules_tell_partitions_containers_and_operations_apart() -> Outcome {
    let (emulator, mut raw) = prepared(4)?;
    assert_eq!(create(&mut raw, "a")?.status, 201);
    let located = raw.call("GET", &format!("{DOCS}/a"), &[KEY_X], b"")?;
    let own: u32 = located
        .header("x-ms-documentdb-partitionkeyrangeid")
        .ok_or("a range id")?
        .parse()?;
    let other = (own + 1) % 4;
    let reads = |partition| {
        FaultRule::new(FaultAction::status(500))
            .on(&[FaultOperation::Reads])
            .in_container("db", "items")
            .in_partition(partition)
    };
    emulator.set_faults(1, vec![reads(own)])?;
    let mut read = |headers: &[(&str, &str)], path: &str| {
        raw.call("GET", path, headers, b"")
            .map(|reply| reply.status)
    };
    let document = format!("{DOCS}/a");
    assert_eq!(read(&[KEY_X], &document)?, 500);
    assert_eq!(read(&[], DOCS)?, 500, "a feed over all partitions");
    for (id, status) in [(own, 500), (other, 304)] {
        let id = id.to_string();
        let feed = [
            ("a-im", "Incremental Feed"),
            ("x-ms-documentdb-partitionkeyrangeid", id.as_str()),
        ];
        assert_eq!(read(&feed, DOCS)?, status);
    }
    assert_eq!(read(&[], "/dbs/db/colls/items/pkranges")?, 200);
    emulator.set_faults(1, vec![reads(other)])?;
    assert_eq!(read(&[KEY_X], &document)?, 200);
    let elsewhere = FaultRule::new(FaultAction::status(500)).in_container("db", "others");
    emulator.set_faults(1, vec![elsewhere])?;
    assert_eq!(read(&[KEY_X], &document)?, 200);
    Ok(())
}

#[test]
fn one_operation_of_a_bulk_batch_is_refused_and_the_others_are_not() -> Outcome {
    let (emulator, mut raw) = prepared(1)?;
    let item = FaultRule::new(FaultAction::status(429)).on(&[FaultOperation::BulkItem]);
    emulator.set_faults(1, vec![item.skip(1).times(1)])?;
    let reply = bulk_creates(&mut raw, &["a", "b", "c"])?;
    let results = reply.json();
    let of = |name: &str| -> Vec<Option<u64>> {
        let results = results.as_array().map(Vec::as_slice).unwrap_or_default();
        results.iter().map(|result| result[name].as_u64()).collect()
    };
    assert_eq!(
        of("statusCode"),
        [Some(201), Some(429), Some(201)],
        "{results}"
    );
    assert_eq!(of("subStatusCode")[1], Some(3200), "{results}");
    assert_eq!(of("retryAfterMilliseconds")[1], Some(10), "{results}");
    for (id, there) in [("a", true), ("b", false), ("c", true)] {
        assert_eq!(exists(&emulator, id)?, there, "{id}");
    }
    assert_eq!(emulator.fault_hits(), [1]);
    Ok(())
}

#[test]
fn a_request_is_applied_and_answered_as_if_it_had_failed() -> Outcome {
    for (status, code) in [(408, "RequestTimeout"), (503, "ServiceUnavailable")] {
        let (emulator, mut raw) = prepared(1)?;
        let rule = FaultRule::new(FaultAction::status_after(status)).on(&[FaultOperation::Create]);
        emulator.set_faults(1, vec![rule.times(1)])?;
        let reply = create(&mut raw, "a")?;
        assert_eq!(
            (reply.status, &reply.json()["code"]),
            (status, &code.into())
        );
        assert!(reply.header("etag").is_none(), "nothing tells of the item");
        assert!(exists(&emulator, "a")?);
        assert_eq!(create(&mut raw, "a")?.status, 409, "on the same connection");
        assert_eq!(emulator.fault_hits(), [1]);
    }
    // Only what is signed is carried out.
    let (emulator, mut raw) = prepared(1)?;
    let rule = FaultRule::new(FaultAction::status_after(408)).on(&[FaultOperation::Create]);
    emulator.set_faults(1, vec![rule])?;
    let body = br#"{"id":"a","pk":"x"}"#;
    assert_eq!(raw.send("POST", DOCS, &[KEY_X], body)?.status, 408);
    assert!(!exists(&emulator, "a")?);
    Ok(())
}

#[test]
fn one_operation_of_a_bulk_batch_is_applied_and_answered_as_if_it_had_failed() -> Outcome {
    let (emulator, mut raw) = prepared(1)?;
    let item = FaultRule::new(FaultAction::status_after(408)).on(&[FaultOperation::BulkItem]);
    emulator.set_faults(1, vec![item.skip(1).times(2)])?;
    // The fourth is another creation of the second, which is there.
    let reply = bulk_creates(&mut raw, &["a", "b", "c", "b"])?;
    let results = reply.json();
    let statuses: Vec<Option<u64>> = (0..4)
        .map(|index| results[index]["statusCode"].as_u64())
        .collect();
    let expected = [Some(201), Some(408), Some(408), Some(409)];
    assert_eq!(statuses, expected, "{results}");
    assert_eq!(results[1]["requestCharge"], 1.0, "{results}");
    assert!(results[1]["eTag"].is_null(), "{results}");
    for id in ["a", "b", "c"] {
        assert!(exists(&emulator, id)?, "{id}");
    }
    // Charged for all that was done: three creations of 5.5 RU; 1 RU for each failure, and each read.
    let status = raw.send("GET", "/_emulator/dbs/db/colls/items", &[], b"")?;
    let units = status.json()["partitions"][0]["request_units"].as_f64();
    assert_eq!(units, Some(3.0 * 5.5 + 3.0 + 3.0));
    Ok(())
}

#[test]
fn the_same_seed_and_requests_meet_the_same_faults() -> Outcome {
    const SEED: u64 = 42;
    let run = |seed: u64| -> std::io::Result<Vec<u16>> {
        let (emulator, mut raw) = prepared(1)?;
        let rule = FaultRule::new(FaultAction::status(503)).probability(0.4);
        emulator.set_faults(seed, vec![rule]).expect("good rules");
        let reads = (0..60).map(|_| raw.call("GET", "/dbs", &[], b"").map(|reply| reply.status));
        reads.collect()
    };
    let first = run(SEED)?;
    assert!(first.contains(&200) && first.contains(&503), "seed {SEED}");
    assert_eq!(first, run(SEED)?, "seed {SEED}");
    assert_ne!(first, run(SEED + 1)?, "seed {SEED}");
    Ok(())
}

/// What a server sends to one request until it closes the connection or its silence lasts.
fn until_closed(emulator: &Emulator, request: &[u8], silence: Duration) -> (Vec<u8>, bool) {
    let mut socket = TcpStream::connect(("127.0.0.1", emulator.port())).expect("a connection");
    socket.set_read_timeout(Some(silence)).expect("a time-out");
    socket.write_all(request).expect("a request");
    let mut sent = Vec::new();
    let closed = match socket.read_to_end(&mut sent) {
        Ok(_) => true,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    };
    (sent, closed)
}

#[test]
fn a_dropped_connection_ends_at_the_socket() {
    let emulator = server(1);
    let drop = FaultRule::new(FaultAction::DropBefore);
    emulator.set_faults(1, vec![drop]).expect("good rules");
    let request = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let (sent, closed) = until_closed(&emulator, request, DEADLINE);
    assert!(closed);
    assert!(sent.is_empty(), "not a byte of a reply");
}

#[test]
fn a_dropped_http2_connection_ends_at_the_socket_too() {
    // Preface, empty SETTINGS, and HEADERS on stream 1: GET http /dbs, with END_STREAM and END_HEADERS.
    let mut request = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    request.extend_from_slice(&[0, 0, 0, 4, 0, 0, 0, 0, 0]);
    let block = [&[0x82, 0x86, 0x04, 4], &b"/dbs"[..], &[0x01, 1], b"h"].concat();
    request.extend_from_slice(&[0, 0, block.len() as u8, 1, 5, 0, 0, 0, 1]);
    request.extend_from_slice(&block);
    // Types of the frames on stream 1: 1 is HEADERS, 3 is RST_STREAM.
    let on_stream = |mut frames: &[u8]| {
        let mut types = Vec::new();
        while let [a, b, c, kind, _, s0, s1, s2, s3, rest @ ..] = frames {
            let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
            if u32::from_be_bytes([*s0, *s1, *s2, *s3]) == 1 {
                types.push(*kind);
            }
            frames = rest.get(length..).unwrap_or_default();
        }
        types
    };
    let emulator = server(1);
    let (sent, closed) = until_closed(&emulator, &request, Duration::from_millis(300));
    assert!(!closed, "it stays open after a reply");
    assert_eq!(on_stream(&sent).first(), Some(&1), "{sent:?}");
    for action in [FaultAction::DropBefore, FaultAction::DropAfter] {
        let drop = FaultRule::new(action.clone());
        emulator.set_faults(1, vec![drop]).expect("good rules");
        let (sent, closed) = until_closed(&emulator, &request, DEADLINE);
        assert!(closed, "{action:?}");
        assert!(on_stream(&sent).is_empty(), "{action:?}: {sent:?}");
    }
}
