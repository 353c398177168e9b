//! The wire without an SDK: HTTP/1.1, trailing slashes, and requests that no SDK would send.

use crate::common::raw::{DATE, Raw, signed};
use crate::common::{Outcome, server};
use serde_json::{Value, json};
use tidefeed_emulator::{Emulator, EmulatorConfig};

const DOCS: &str = "/dbs/db/colls/items/docs";
const KEY_X: (&str, &str) = ("x-ms-documentdb-partitionkey", "[\"x\"]");

#[test]
fn a_plain_client_can_work() -> Outcome {
    let emulator = server(2);
    let mut raw = Raw::connect(&emulator)?;
    let account = raw.call("GET", "/", &[], b"")?;
    assert_eq!(
        account.json()["writableLocations"][0]["databaseAccountEndpoint"],
        format!("{}/", emulator.endpoint())
    );
    raw.prepare("/pk")?;
    let created = raw.call(
        "POST",
        "/dbs/db/colls/items/docs/",
        &[KEY_X],
        br#"{"id":"a b","pk":"x","_ts":7}"#,
    )?;
    assert_eq!(created.status, 201, "{}", created.text());
    for name in [
        "etag",
        "x-ms-activity-id",
        "x-ms-request-charge",
        "x-ms-session-token",
        "lsn",
        "x-ms-item-lsn",
    ] {
        assert!(created.header(name).is_some(), "{name}");
    }
    assert_ne!(created.json()["_ts"], 7);
    let read = raw.call("GET", "/dbs/db/colls/items/docs/a%20b/", &[KEY_X], b"")?;
    assert_eq!(read.status, 200, "{}", read.text());
    assert_eq!(read.header("etag"), read.json()["_etag"].as_str());
    let unchanged = raw.call(
        "GET",
        "/dbs/db/colls/items/docs/a%20b",
        &[KEY_X, ("if-none-match", read.header("etag").unwrap())],
        b"",
    )?;
    assert_eq!(unchanged.status, 304);
    let minimal = raw.call(
        "POST",
        DOCS,
        &[
            KEY_X,
            ("x-ms-documentdb-is-upsert", "True"),
            ("prefer", "return=minimal"),
        ],
        br#"{"id":"a b","pk":"x"}"#,
    )?;
    assert_eq!((minimal.status, minimal.body.len()), (200, 0));
    // Without a key header the key is read from the item; a new item has its own resource id.
    let other = raw.call("POST", DOCS, &[], br#"{"id":"b","pk":"y"}"#)?;
    assert_eq!(other.status, 201);
    assert_ne!(other.json()["_rid"], created.json()["_rid"]);
    let by_rid = raw.call(
        "GET",
        &format!(
            "/{}",
            created.json()["_self"]
                .as_str()
                .unwrap()
                .split("docs")
                .next()
                .unwrap()
        ),
        &[],
        b"",
    )?;
    assert_eq!(
        (by_rid.status, by_rid.json()["id"].as_str()),
        (200, Some("items"))
    );
    Ok(())
}

#[test]
fn feeds_and_queries_page_over_the_whole_container() -> Outcome {
    let emulator = server(3);
    let mut raw = Raw::connect(&emulator)?;
    raw.prepare("/pk")?;
    for index in 0..25 {
        let body =
            json!({"id": format!("d{index}"), "pk": format!("p{index}"), "n": index}).to_string();
        assert_eq!(raw.call("POST", DOCS, &[], body.as_bytes())?.status, 201);
    }
    let query = ("x-ms-documentdb-isquery", "true");
    let anywhere = ("x-ms-documentdb-query-enablecrosspartition", "true");
    for (headers, body) in [
        (vec![], String::new()),
        (
            vec![query, anywhere],
            json!({"query": "SELECT * FROM c WHERE c.n >= 0"}).to_string(),
        ),
    ] {
        let (mut seen, mut pages, mut continuation) = (Vec::new(), 0, String::new());
        loop {
            let mut headers = headers.clone();
            headers.push(("x-ms-max-item-count", "4"));
            if !continuation.is_empty() {
                headers.push(("x-ms-continuation", &continuation));
            }
            let page = raw.call(
                if body.is_empty() { "GET" } else { "POST" },
                DOCS,
                &headers,
                body.as_bytes(),
            )?;
            assert_eq!(page.status, 200, "{}", page.text());
            let documents = page.json()["Documents"].as_array().unwrap().clone();
            assert_eq!(page.json()["_count"], documents.len());
            seen.extend(
                documents
                    .iter()
                    .map(|document| document["n"].as_i64().unwrap()),
            );
            pages += 1;
            match page.header("x-ms-continuation") {
                Some(next) => continuation = next.to_owned(),
                None => break,
            }
        }
        assert_eq!(pages, 7);
        seen.sort();
        assert_eq!(seen, (0..25).collect::<Vec<_>>());
    }
    Ok(())
}

#[test]
fn an_idle_change_feed_answers_304_with_a_token_that_works() -> Outcome {
    let emulator = server(1);
    let mut raw = Raw::connect(&emulator)?;
    raw.prepare("/pk")?;
    let feed = [
        ("a-im", "Incremental Feed"),
        ("x-ms-documentdb-partitionkeyrangeid", "0"),
    ];
    let mut read = |token: Option<&str>| {
        let mut headers = feed.to_vec();
        headers.extend(token.map(|token| ("if-none-match", token)));
        raw.call("GET", DOCS, &headers, b"")
    };
    let empty = read(None)?;
    assert_eq!((empty.status, empty.header("etag")), (304, Some("\"0\"")));
    let now = read(Some("*"))?;
    assert_eq!((now.status, now.header("etag")), (304, Some("\"0\"")));
    assert_eq!(
        read(Some("\"99\""))?.status,
        400,
        "a token from another container"
    );
    assert_eq!(read(Some("nonsense"))?.status, 400);
    let mut writer = Raw::connect(&emulator)?;
    assert_eq!(
        writer
            .call("POST", DOCS, &[], br#"{"id":"a","pk":"x"}"#)?
            .status,
        201
    );
    let page = read(now.header("etag"))?;
    assert_eq!((page.status, page.header("etag")), (200, Some("\"1\"")));
    let document = &page.json()["Documents"][0];
    assert_eq!(
        (document["id"].as_str(), document["_lsn"].as_u64()),
        (Some("a"), Some(1)),
        "no envelope unless asked for"
    );
    // A delete is not in the feed, but the token moves past it.
    assert_eq!(
        writer
            .call("DELETE", &format!("{DOCS}/a"), &[KEY_X], b"")?
            .status,
        204
    );
    let gone = read(Some("\"1\""))?;
    assert_eq!((gone.status, gone.header("etag")), (304, Some("\"2\"")));
    let wrong = writer.call(
        "GET",
        DOCS,
        &[
            ("a-im", "Incremental Feed"),
            ("x-ms-documentdb-partitionkeyrangeid", "7"),
        ],
        b"",
    )?;
    assert_eq!(
        (wrong.status, wrong.header("x-ms-substatus")),
        (410, Some("1002"))
    );
    let unchanged = writer.call("GET", "/dbs/db/colls/items/pkranges", &[], b"")?;
    let again = [
        ("a-im", "Incremental Feed"),
        ("if-none-match", unchanged.header("etag").unwrap()),
    ];
    assert_eq!(
        writer
            .call("GET", "/dbs/db/colls/items/pkranges", &again, b"")?
            .status,
        304
    );
    Ok(())
}

#[test]
fn wrong_or_missing_signatures_are_401() -> Outcome {
    let emulator = server(1);
    let mut raw = Raw::connect(&emulator)?;
    let date = ("x-ms-date", DATE);
    let wrong = signed("d3Jvbmc=", "GET", "/");
    for headers in [
        vec![],
        vec![date],
        vec![date, ("authorization", &wrong)],
        vec![
            date,
            ("authorization", "type%3Daad%26ver%3D1.0%26sig%3Dtoken"),
        ],
        vec![date, ("authorization", "nonsense")],
        vec![("authorization", &*signed(emulator.key(), "GET", "/"))],
    ] {
        let reply = raw.send("GET", "/", &headers, b"")?;
        assert_eq!(reply.status, 401, "{headers:?}");
        assert_eq!(reply.json()["code"], "Unauthorized");
    }
    assert_eq!(
        raw.send(
            "GET",
            "/",
            &[date, ("authorization", &signed(emulator.key(), "GET", "/"))],
            b""
        )?
        .status,
        200
    );
    let other = Emulator::start(EmulatorConfig {
        key: "b3RoZXI=".to_owned(),
        ..EmulatorConfig::default()
    })?;
    let reply = Raw::connect(&other)?.send(
        "GET",
        "/",
        &[date, ("authorization", &signed(emulator.key(), "GET", "/"))],
        b"",
    )?;
    assert_eq!(reply.status, 401);
    Ok(())
}

#[test]
fn one_entra_token_is_as_good_as_the_key() -> Outcome {
    const TOKEN: &str = "eyJ0eXAi.eyJvaWQi.c2ln-_=";
    let with = |entra_token: Option<&str>| {
        Emulator::start(EmulatorConfig {
            entra_token: entra_token.map(str::to_owned),
            ..EmulatorConfig::default()
        })
    };
    let ask = |server: &Emulator, token: &str| -> std::io::Result<(u16, String)> {
        let plain = format!("type=aad&ver=1.0&sig={token}");
        let encoded = plain.replace('=', "%3D").replace('&', "%26");
        let mut seen = Vec::new();
        // Some clients encode the header, and some do not.
        for header in [plain, encoded] {
            let headers = [("x-ms-date", DATE), ("authorization", &header)];
            let reply = Raw::connect(server)?.send("GET", "/dbs", &headers, b"")?;
            seen.push((reply.status, reply.text()));
        }
        assert_eq!(seen[0].0, seen[1].0, "{seen:?}");
        Ok(seen.remove(0))
    };
    let server = with(Some(TOKEN))?;
    assert_eq!(ask(&server, TOKEN)?.0, 200);
    assert_eq!(
        Raw::connect(&server)?.call("GET", "/dbs", &[], b"")?.status,
        200
    );
    for wrong in ["", &TOKEN[1..], &TOKEN.to_uppercase(), server.key()] {
        let (status, text) = ask(&server, wrong)?;
        assert_eq!(status, 401, "{wrong}");
        assert!(text.contains("is not the one"), "{text}");
    }
    let (status, text) = ask(&with(None)?, TOKEN)?;
    assert_eq!(status, 401);
    assert!(text.contains("without an Entra token"), "{text}");
    Ok(())
}

#[test]
fn priority_levels_and_throughput_buckets_are_checked_and_counted() -> Outcome {
    let emulator = server(1);
    let mut raw = Raw::connect(&emulator)?;
    raw.prepare("/pk")?;
    let (priority, bucket) = (
        "x-ms-cosmos-priority-level",
        "x-ms-cosmos-throughput-bucket",
    );
    for (name, value, expected) in [
        (priority, "High", 200),
        (priority, "low", 200),
        (priority, "Low", 200),
        (priority, "Middle", 400),
        (bucket, "1", 200),
        (bucket, "5", 200),
        (bucket, "5", 200),
        (bucket, "0", 400),
        (bucket, "6", 400),
        (bucket, "one", 400),
    ] {
        let reply = raw.call("GET", DOCS, &[(name, value)], b"")?;
        assert_eq!(reply.status, expected, "{name}: {value}: {}", reply.text());
        assert!(
            expected == 200 || reply.text().contains(name),
            "{}",
            reply.text()
        );
    }
    let status = raw.send("GET", "/_emulator/status", &[], b"")?.json();
    assert_eq!(status["priorities"], json!({"high": 1, "low": 2}));
    assert_eq!(status["throughput_buckets"], json!([1, 0, 0, 0, 2]));
    Ok(())
}

#[test]
fn malformed_requests_are_4xx_and_the_server_lives_on() -> Outcome {
    let emulator = server(2);
    let mut raw = Raw::connect(&emulator)?;
    raw.prepare("/pk")?;
    let query = ("x-ms-documentdb-isquery", "true");
    let batch = ("x-ms-cosmos-is-batch-request", "true");
    let deep = format!(
        "{{\"id\":\"a\",\"pk\":\"x\",\"d\":{}1{}}}",
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    let chain =
        json!({"query": format!("SELECT VALUE {} FROM c", vec!["1"; 9_000].join("+"))}).to_string();
    let long_chain =
        json!({"query": format!("SELECT VALUE {} FROM c", vec!["1"; 200_000].join("+"))})
            .to_string();
    let many = json!(
        (0..101)
            .map(|i| json!({"operationType": "Delete", "id": i.to_string()}))
            .collect::<Vec<Value>>()
    )
    .to_string();
    type Case<'a> = (&'a str, &'a str, Vec<(&'a str, &'a str)>, &'a [u8]);
    let cases: Vec<Case<'_>> = vec![
        ("POST", DOCS, vec![], b""),
        ("POST", DOCS, vec![], b"{"),
        ("POST", DOCS, vec![], b"[]"),
        ("POST", DOCS, vec![], b"\xff\xfe"),
        ("POST", DOCS, vec![], b"\x80"),
        ("POST", DOCS, vec![], br#"{"pk":"x"}"#),
        ("POST", DOCS, vec![], br#"{"id":"","pk":"x"}"#),
        ("POST", DOCS, vec![], br#"{"id":"a?","pk":"x"}"#),
        ("POST", DOCS, vec![], br#"{"id":"a","pk":["x"]}"#),
        (
            "POST",
            DOCS,
            vec![("x-ms-documentdb-partitionkey", "x")],
            br#"{"id":"a","pk":"x"}"#,
        ),
        (
            "POST",
            DOCS,
            vec![("x-ms-documentdb-partitionkey", "[\"x\",\"y\"]")],
            br#"{"id":"a","pk":"x"}"#,
        ),
        ("POST", DOCS, vec![], deep.as_bytes()),
        ("GET", "/dbs/db/colls/items/docs/a", vec![], b""),
        ("GET", "/dbs/db/colls/items/docs/%ff", vec![KEY_X], b""),
        ("PATCH", "/dbs/db/colls/items/docs/a", vec![KEY_X], b"{}"),
        ("GET", "/dbs/db/colls/items/sprocs", vec![], b""),
        ("GET", "/dbs/db/colls/none/docs", vec![], b""),
        ("GET", "/nothing/here", vec![], b""),
        ("PUT", DOCS, vec![], b"{}"),
        ("GET", DOCS, vec![("x-ms-max-item-count", "many")], b""),
        ("GET", DOCS, vec![("x-ms-continuation", "nonsense")], b""),
        ("GET", DOCS, vec![("x-ms-start-epk", "xyz")], b""),
        ("GET", DOCS, vec![("a-im", "Sideways Feed")], b""),
        ("GET", DOCS, vec![("a-im", "Full-Fidelity Feed")], b""),
        (
            "GET",
            DOCS,
            vec![
                ("a-im", "Incremental Feed"),
                KEY_X,
                ("if-modified-since", "yesterday"),
            ],
            b"",
        ),
        ("POST", DOCS, vec![query], b"{}"),
        ("POST", DOCS, vec![query], br#"{"query":5}"#),
        ("POST", DOCS, vec![query], br#"{"query":"SELECT"}"#),
        ("POST", DOCS, vec![query], long_chain.as_bytes()),
        (
            "POST",
            DOCS,
            vec![query, KEY_X, ("x-ms-continuation", "rows:1:2:3:place:zz:1")],
            br#"{"query":"SELECT * FROM c"}"#,
        ),
        ("POST", DOCS, vec![batch, KEY_X], b"{}"),
        ("POST", DOCS, vec![batch, KEY_X], b"[]"),
        (
            "POST",
            DOCS,
            vec![batch, KEY_X],
            br#"[{"operationType":"Explode"}]"#,
        ),
        ("POST", DOCS, vec![batch, KEY_X], many.as_bytes()),
        (
            "POST",
            DOCS,
            vec![batch, ("x-ms-documentdb-partitionkeyrangeid", "0")],
            br#"[{"operationType":"Read","id":"a"}]"#,
        ),
        ("POST", "/dbs", vec![], br#"{"id":"a/b"}"#),
        ("POST", "/dbs/db/colls", vec![], br#"{"id":"c"}"#),
        (
            "POST",
            "/dbs/db/colls",
            vec![],
            br#"{"id":"c","partitionKey":{"paths":["/pk"]},"defaultTtl":0}"#,
        ),
        (
            "POST",
            "/dbs/none/colls",
            vec![],
            br#"{"id":"c","partitionKey":{"paths":["/pk"]}}"#,
        ),
        (
            "PUT",
            "/offers/none",
            vec![],
            br#"{"content":{"offerThroughput":400}}"#,
        ),
    ];
    for (method, path, headers, body) in cases {
        let reply = raw.call(method, path, &headers, body)?;
        let shown = String::from_utf8_lossy(&body[..body.len().min(60)]);
        assert!(
            (400..500).contains(&reply.status),
            "{method} {path} {headers:?} {shown}: {} {}",
            reply.status,
            reply.text()
        );
        assert!(
            !reply.json()["message"]
                .as_str()
                .unwrap_or_default()
                .is_empty(),
            "{method} {path} {shown}"
        );
    }
    // As deep a tree as the parser lets through.
    let created = raw.call("POST", DOCS, &[], br#"{"id":"a","pk":"x"}"#)?;
    assert_eq!(created.status, 201, "nothing of the above was written");
    let anywhere = ("x-ms-documentdb-query-enablecrosspartition", "true");
    let reply = raw.call("POST", DOCS, &[query, anywhere], chain.as_bytes())?;
    assert_eq!(
        (reply.status, reply.json()["Documents"].clone()),
        (200, json!([9_000]))
    );
    let huge = vec![b' '; 9 * 1024 * 1024];
    match Raw::connect(&emulator)?.call("POST", DOCS, &[], &huge) {
        Ok(reply) => assert_eq!(reply.status, 413),
        // The server may close before the client has sent everything.
        Err(error) => assert!(matches!(
            error.kind(),
            std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe
        )),
    }
    assert_eq!(
        Raw::connect(&emulator)?
            .call("GET", "/dbs", &[], b"")?
            .status,
        200
    );
    assert_eq!(emulator.stats().documents, 1);
    Ok(())
}

#[test]
fn a_port_in_use_is_one_clear_line() -> Outcome {
    let emulator = server(1);
    let taken = Emulator::start(EmulatorConfig {
        port: emulator.port(),
        ..EmulatorConfig::default()
    });
    let port = emulator.port();
    let expected = format!(
        "port {port} on 127.0.0.1 is already in use: choose another with --port, or 0 for a free one"
    );
    assert_eq!(taken.expect_err("taken").to_string(), expected);
    drop(emulator);
    let again = Emulator::start(EmulatorConfig {
        port,
        ..EmulatorConfig::default()
    })?;
    assert_eq!(again.port(), port);
    assert!(
        Emulator::start(EmulatorConfig {
            partitions: 0,
            ..EmulatorConfig::default()
        })
        .is_err()
    );
    assert!(
        Emulator::start(EmulatorConfig {
            key: "?".to_owned(),
            ..EmulatorConfig::default()
        })
        .is_err()
    );
    Ok(())
}
