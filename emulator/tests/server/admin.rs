//! The admin API beside the data API, over HTTP/1.1 and without signatures.

use crate::common::raw::Raw;
use crate::common::{Outcome, server};
use serde_json::{Value, json};

const DOCS: &str = "/dbs/db/colls/items/docs";

/// An admin request, which nobody signs: its status and body.
fn admin(raw: &mut Raw, method: &str, path: &str, body: &str) -> std::io::Result<(u16, Value)> {
    let reply = raw.send(method, path, &[], body.as_bytes())?;
    Ok((reply.status, reply.json()))
}

#[test]
fn rules_are_put_shown_with_their_hits_and_taken_back() -> Outcome {
    let emulator = server(1);
    let mut raw = Raw::connect(&emulator)?;
    let path = "/_emulator/faults";
    assert_eq!(
        admin(&mut raw, "GET", path, "")?,
        (200, json!({"seed": 0, "rules": []}))
    );
    let rules = json!({"seed": 9, "rules": [
        {"operation": "databases", "times": 2, "action": {"status": {"status": 503}}},
        {"operation": ["reads", "bulk-item"], "action": {"status": {"status": 429, "retry_after_ms": 1}}},
    ]});
    let (status, shown) = admin(&mut raw, "PUT", path, &rules.to_string())?;
    assert_eq!((status, &shown["seed"]), (200, &json!(9)));
    for expected in [503, 503, 200] {
        assert_eq!(raw.call("GET", "/dbs", &[], b"")?.status, expected);
    }
    let (_, shown) = admin(&mut raw, "GET", path, "")?;
    assert_eq!(shown["rules"][0]["hits"], 2);
    assert_eq!(shown["rules"][1]["hits"], 0);
    assert_eq!(shown["rules"][0]["operation"], json!(["databases"]));
    assert_eq!(shown["rules"][1]["action"], rules["rules"][1]["action"]);
    assert_eq!(emulator.fault_hits(), [2, 0]);
    assert_eq!(raw.send("DELETE", path, &[], b"")?.status, 204);
    assert!(emulator.fault_hits().is_empty());
    Ok(())
}

#[test]
fn bad_rules_are_400_with_the_reason_and_change_nothing() -> Outcome {
    let emulator = server(1);
    let mut raw = Raw::connect(&emulator)?;
    let path = "/_emulator/faults";
    let good = r#"{"rules":[{"operation":"offers","action":"freeze"}]}"#;
    assert_eq!(admin(&mut raw, "PUT", path, good)?.0, 200);
    for (body, expected) in [
        ("", "EOF"),
        ("[]", "the body is not what this request takes"),
        (r#"{"rules":[{"action":"explode"}]}"#, "`explode`"),
        (r#"{"rules":[{"action":"freeze","tims":1}]}"#, "`tims`"),
        (
            r#"{"rules":[{"operation":"upsrt","action":"freeze"}]}"#,
            "`upsrt`",
        ),
        (
            r#"{"rules":[{"action":"freeze","probability":2}]}"#,
            "rules[0]: probability is 2",
        ),
        (
            r#"{"rules":[{"action":{"status":{"status":200}}}]}"#,
            "status is 200",
        ),
    ] {
        let (status, answer) = admin(&mut raw, "PUT", path, body)?;
        let message = answer["message"].as_str().unwrap_or_default();
        assert_eq!(status, 400, "{body}: {message}");
        assert!(message.contains(expected), "{body}: {message}");
    }
    assert_eq!(emulator.fault_hits(), [0], "the good rule is in force");
    Ok(())
}

#[test]
fn rules_that_hit_everything_spare_the_admin_api() -> Outcome {
    let emulator = server(1);
    let mut raw = Raw::connect(&emulator)?;
    let everything = r#"{"rules":[{"action":"drop-before"}]}"#;
    assert_eq!(
        admin(&mut raw, "PUT", "/_emulator/faults", everything)?.0,
        200
    );
    assert_eq!(admin(&mut raw, "GET", "/_emulator/status", "")?.0, 200);
    assert_eq!(admin(&mut raw, "DELETE", "/_emulator/faults", "")?.0, 204);
    assert_eq!(raw.call("GET", "/dbs", &[], b"")?.status, 200);
    assert_eq!(emulator.stats().requests, 1, "admin requests do not count");
    Ok(())
}

#[test]
fn the_status_counts_documents_down_to_the_partition() -> Outcome {
    let emulator = server(3);
    let mut raw = Raw::connect(&emulator)?;
    raw.prepare("/pk")?;
    for index in 0..20 {
        let body = json!({"id": "a", "pk": index}).to_string();
        assert_eq!(raw.call("POST", DOCS, &[], body.as_bytes())?.status, 201);
    }
    let (status, shown) = admin(&mut raw, "GET", "/_emulator/status", "")?;
    assert_eq!(
        (status, shown["endpoint"].as_str()),
        (200, Some(emulator.endpoint()))
    );
    assert_eq!(shown["databases"][0]["id"], "db");
    let container = &shown["databases"][0]["containers"][0];
    assert_eq!(
        (&container["id"], &container["documents"]),
        (&json!("items"), &json!(20))
    );
    assert_eq!(
        container["bytes"].as_u64(),
        Some(emulator.stats().bytes as u64)
    );
    let partitions = container["partitions"].as_array().ok_or("partitions")?;
    let ids: Vec<u64> = partitions
        .iter()
        .filter_map(|one| one["id"].as_u64())
        .collect();
    assert_eq!(ids, [0, 1, 2]);
    assert_eq!(
        (&partitions[0]["min"], &partitions[2]["max"]),
        (&json!(""), &json!("FF"))
    );
    assert_eq!(partitions[0]["max"], partitions[1]["min"]);
    for name in ["documents", "lsn"] {
        let sum: u64 = partitions.iter().filter_map(|one| one[name].as_u64()).sum();
        assert_eq!(sum, 20, "{name}");
    }
    let (status, one) = admin(&mut raw, "GET", "/_emulator/dbs/db/colls/items", "")?;
    assert_eq!((status, &one), (200, container));
    for path in ["/_emulator/dbs/x/colls/items", "/_emulator/dbs/db/colls/x"] {
        let (status, answer) = admin(&mut raw, "GET", path, "")?;
        let message = answer["message"].as_str().unwrap_or_default();
        assert_eq!(status, 404);
        assert!(message.contains(" x does not exist"), "{message}");
    }
    Ok(())
}

#[test]
fn the_clock_moves_forward() -> Outcome {
    let emulator = server(1);
    let mut raw = Raw::connect(&emulator)?;
    let (_, before) = admin(&mut raw, "GET", "/_emulator/clock", "")?;
    assert_eq!(before["advanced_ms"], 0);
    let (status, after) = admin(
        &mut raw,
        "POST",
        "/_emulator/clock",
        r#"{"advance_ms": 5000}"#,
    )?;
    assert_eq!((status, &after["advanced_ms"]), (200, &json!(5000)));
    assert!(after["now_ms"].as_u64() >= before["now_ms"].as_u64().map(|now| now + 5000));
    emulator.advance_clock(std::time::Duration::from_secs(1));
    let (_, shown) = admin(&mut raw, "GET", "/_emulator/status", "")?;
    assert_eq!(shown["clock"]["advanced_ms"], 6000);
    for body in [
        "{}",
        r#"{"advance_ms": -1}"#,
        r#"{"advance_ms": 1, "x": 1}"#,
    ] {
        assert_eq!(
            admin(&mut raw, "POST", "/_emulator/clock", body)?.0,
            400,
            "{body}"
        );
    }
    Ok(())
}

#[test]
fn unknown_paths_and_methods_name_what_exists() -> Outcome {
    let emulator = server(1);
    let mut raw = Raw::connect(&emulator)?;
    for (method, path, status, expected) in [
        ("GET", "/_emulator", 404, "PUT /_emulator/faults"),
        ("GET", "/_emulator/nothing", 404, "GET /_emulator/status"),
        ("POST", "/_emulator/faults", 405, "GET, PUT, DELETE"),
        ("PUT", "/_emulator/clock", 405, "GET, POST"),
        ("DELETE", "/_emulator/dbs/a/colls/b", 405, "takes GET"),
        ("GET", "/_emulator/%ff", 400, "UTF-8"),
    ] {
        let (found, answer) = admin(&mut raw, method, path, "")?;
        let message = answer["message"].as_str().unwrap_or_default();
        assert_eq!(found, status, "{method} {path}: {message}");
        assert!(message.contains(expected), "{method} {path}: {message}");
    }
    // A path beside it belongs to the data API, which wants a signature.
    assert_eq!(admin(&mut raw, "GET", "/_emulators", "")?.0, 401);
    Ok(())
}

#[test]
fn requests_of_web_pages_are_refused() -> Outcome {
    let emulator = server(1);
    let mut raw = Raw::connect(&emulator)?;
    let page = [("origin", "http://example.com")];
    let refused = raw.send("POST", "/_emulator/clock", &page, br#"{"advance_ms":1}"#)?;
    assert_eq!(refused.status, 403, "{}", refused.text());
    let (_, clock) = admin(&mut raw, "GET", "/_emulator/clock", "")?;
    assert_eq!(clock["advanced_ms"], 0);
    Ok(())
}
