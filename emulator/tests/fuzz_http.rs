//! Broken requests of every kind, over sockets: each is answered in time and with a 4xx, and the server lives on.
//!
//! `TIDEFEED_FUZZ_CASES=n` sends n requests to each server instead of a few, `TIDEFEED_SEED=s` other ones.

mod fuzz;

use std::sync::Mutex;
use std::time::Duration;

use fuzz::requests::{Request, request};
use fuzz::values::Seen;
use fuzz::wire::{DEADLINE, Outcome, Reply, send};
use fuzz::{Random, bodies, health, raw_bytes};
use tidefeed_emulator::{Emulator, EmulatorConfig};

/// Requests between two looks at the whole.
const ROUND: u64 = 150;

/// Panics of the server's threads.
static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn record_panics() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("").to_owned();
        if ["cosmos", "tokio"]
            .iter()
            .any(|server| name.starts_with(server))
        {
            let mut panics = PANICS
                .lock()
                .unwrap_or_else(|poisoned| poisoned.into_inner());
            panics.push(format!("{name}: {info}"));
        }
        usual(info);
    }));
}

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect(name))
}

#[test]
fn whatever_is_sent_is_answered_and_the_server_lives_on() {
    record_panics();
    let seed = from_environment("TIDEFEED_SEED", 1);
    let cases = from_environment("TIDEFEED_FUZZ_CASES", 1_500);
    let directory = std::env::temp_dir().join(format!("tidefeed-fuzz-{}", std::process::id()));
    let plain = EmulatorConfig::default();
    let everything = EmulatorConfig {
        worker_threads: 4,
        throughput: Some(100_000),
        split_at_bytes: Some(60_000),
        data: Some(directory.clone()),
        ..EmulatorConfig::default()
    };
    for (config, seed) in [(plain, seed), (everything, seed + 1_000_000)] {
        eprintln!("seed {seed}, {cases} cases");
        let emulator = Emulator::start(config.clone()).unwrap();
        Fuzz::new(seed, emulator.port()).run(cases);
        if config.data.is_some() {
            // What the journal holds can be restored, and is the same.
            let before = emulator.stats().documents;
            drop(emulator);
            let again = Emulator::start(config).expect("the journal is good");
            assert_eq!(again.stats().documents, before, "seed {seed}");
            health::check_service(again.port(), u64::MAX >> 12);
        }
    }
    // Left behind on failure, to be looked at.
    let _ = std::fs::remove_dir_all(directory);
}

struct Fuzz {
    random: Random,
    seen: Seen,
    seed: u64,
    port: u16,
}

impl Fuzz {
    fn new(seed: u64, port: u16) -> Self {
        Self {
            random: Random::new(seed),
            seen: Seen::default(),
            seed,
            port,
        }
    }

    fn run(&mut self, cases: u64) {
        for case in 0..cases {
            if case % ROUND == 0 {
                self.check(case);
            }
            match self.random.below(25) {
                0 => drop(raw_bytes::send(&mut self.random, self.port)),
                1 => self.under_faults(),
                _ => self.one(case),
            }
        }
        self.check(cases);
    }

    fn check(&mut self, case: u64) {
        let panics = PANICS.lock().unwrap();
        assert!(
            panics.is_empty(),
            "seed {}, case {case}: {panics:?}",
            self.seed
        );
        drop(panics);
        health::prepare(self.port);
        health::check_service(self.port, case);
        health::check_containers(self.port);
    }

    /// A request whose reply must be a proper one.
    fn one(&mut self, case: u64) {
        let request = request(&mut self.random, &self.seen);
        let about = || format!("seed {}, case {case}: {}", self.seed, shown(&request));
        match send(self.port, &request, DEADLINE) {
            Outcome::Reply(reply) => {
                if let Err(problem) = proper(&request, &reply) {
                    panic!("{}\n{problem}", about());
                }
                for name in [
                    "etag",
                    "x-ms-continuation",
                    "x-ms-session-token",
                    "x-ms-content-path",
                ] {
                    self.seen
                        .add(&mut self.random, reply.header(name).unwrap_or(""));
                }
                let body = reply.json();
                for name in ["_rid", "_etag", "id"] {
                    self.seen
                        .add(&mut self.random, body[name].as_str().unwrap_or(""));
                }
            }
            // Not HTTP: the protocol's own answer is to hang up.
            Outcome::Closed if !is_http(&request) => {}
            other => panic!("{}\n{other:?}", about()),
        }
    }

    /// Requests while a fault rule is in force: anything may come back, but the rule can be taken away.
    fn under_faults(&mut self) {
        const PATH: &str = "/_emulator/faults";
        let plan = bodies::faults(&mut self.random).to_string();
        let set = health::call(self.port, &Request::new("PUT", PATH, &[], &plan));
        assert!(matches!(set.status, 200 | 400), "{plan}: {}", set.status);
        for _ in 0..3 {
            let request = request(&mut self.random, &self.seen);
            drop(send(self.port, &request, Duration::from_millis(30)));
        }
        let cleared = Request::new("DELETE", PATH, &[], "");
        assert_eq!(health::call(self.port, &cleared).status, 204);
    }
}

/// Whether the request line and the headers are such that HTTP/1.1 has a meaning for them.
fn is_http(request: &Request) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/-_.~%!$&'()*+,;=:@?".contains(byte);
    let path_is_plain = request.path.starts_with(b"/") && request.path.iter().all(plain);
    let fields = |bytes: &[u8]| bytes.iter().all(|byte| *byte >= 0x20 && *byte != 0x7F);
    path_is_plain && request.headers.iter().all(|(_, value)| fields(value))
}

fn proper(request: &Request, reply: &Reply) -> Result<(), String> {
    let text = || {
        let body = String::from_utf8_lossy(&reply.body[..reply.body.len().min(1_000)]);
        format!("{} {:?}\n{body}", reply.status, reply.headers)
    };
    if !matches!(reply.status, 200..=299 | 304 | 400..=499) {
        return Err(text());
    }
    // Without it the reply is of the HTTP layer, which refuses what is not HTTP with an empty body.
    let ours = reply.header("x-ms-activity-id").is_some();
    if !ours && !matches!(reply.status, 400 | 414 | 431) {
        return Err(text());
    }
    if ours && reply.status >= 400 && request.method != "HEAD" {
        let body = reply.json();
        let whole =
            body["code"].is_string() && body["message"].as_str().is_some_and(|m| !m.is_empty());
        if !whole {
            return Err(text());
        }
    }
    if ours
        && reply.status == 200
        && !reply.body.is_empty()
        && serde_json::from_slice::<serde::de::IgnoredAny>(&reply.body).is_err()
    {
        return Err(text());
    }
    Ok(())
}

fn shown(request: &Request) -> String {
    let text = |bytes: &[u8]| bytes[..bytes.len().min(3_000)].escape_ascii().to_string();
    let headers: Vec<String> = request
        .headers
        .iter()
        .map(|(name, value)| format!("{name}: {}", text(value)))
        .collect();
    let (path, body) = (text(&request.path), text(&request.body));
    format!(
        "{} {path}\n{}\nsigned: {}\n{body}",
        request.method,
        headers.join("\n"),
        request.signed
    )
}
