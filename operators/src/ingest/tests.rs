//! A server with producers on real sockets; the test is the source behind it, and says when something is sealed.

use std::collections::BTreeSet;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::*;

const TOKEN: &str = "s3cret-token";
/// Far more than anything takes; what waits for longer hangs.
const DEADLINE: Duration = Duration::from_secs(60);

/// A source of posted documents that is read by hand.
struct Source {
    address: SocketAddr,
    pages: Box<dyn PageStream>,
}

impl Source {
    async fn open(with: impl FnOnce(&mut IngestOptions)) -> Self {
        Self::resume(Start::Beginning, with).await
    }

    async fn resume(start: Start, with: impl FnOnce(&mut IngestOptions)) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = free.local_addr().expect("bound");
        drop(free);
        let mut options = IngestOptions {
            listen: address,
            path: "/ingest".to_owned(),
            key: vec!["/id".to_owned()],
            token: None,
            max_body_bytes: 4 << 10,
            max_unsealed_bytes: 8 << 10,
            answer_within: DEADLINE,
        };
        with(&mut options);
        let feed = IngestFeed::new("source.s", options).expect("sound");
        let range = feed.ranges().await.expect("one").remove(0);
        let pages = feed.open(&range, start).await.expect("listens");
        Source { address, pages }
    }

    /// The next page with documents.
    async fn page(&mut self) -> Page {
        let page = async {
            loop {
                let page = self.pages.next_page().await.expect("a page");
                if !page.records.is_empty() {
                    return page;
                }
                self.pages.news().await;
            }
        };
        tokio::time::timeout(DEADLINE, page).await.expect("news")
    }

    fn request(&self, head: &str, body: &str) -> JoinHandle<(u16, String)> {
        let length = body.len();
        let head =
            format!("{head} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\nconnection: close");
        self.send(&head, body)
    }

    fn post(&self, body: &str) -> JoinHandle<(u16, String)> {
        self.request("POST /ingest", body)
    }

    /// Sends a request and reads the status and everything after it.
    fn send(&self, head: &str, body: &str) -> JoinHandle<(u16, String)> {
        let (address, text) = (self.address, format!("{head}\r\n\r\n{body}"));
        tokio::spawn(async move {
            let exchange = async {
                let mut stream = TcpStream::connect(address).await.expect("listens");
                // The server may answer, and close, before it has read everything.
                let _ = stream.write_all(text.as_bytes()).await;
                let mut answer = Vec::new();
                let _ = stream.read_to_end(&mut answer).await;
                String::from_utf8(answer).expect("UTF-8")
            };
            let answer = tokio::time::timeout(DEADLINE, exchange)
                .await
                .expect("an answer");
            let status = answer
                .split(' ')
                .nth(1)
                .and_then(|status| status.parse().ok());
            (status.unwrap_or(0), answer)
        })
    }
}

fn seal(page: Page) {
    page.receipt.expect("a page with documents has one").give();
}

fn keys(page: &Page) -> Vec<String> {
    let keys = page.records.iter();
    keys.map(|record| String::from_utf8(record.key.to_vec()).expect("JSON"))
        .collect()
}

#[tokio::test]
async fn a_batch_is_answered_when_it_is_sealed_and_not_before() {
    let mut source = Source::open(|_| {}).await;
    let posted = source.post("[{\"id\":1},{\"id\":2}]");
    let page = source.page().await;
    assert_eq!(
        (keys(&page), page.token.0.as_str()),
        (vec!["[1]".into(), "[2]".into()], "posts@1")
    );
    // A refused request has its answer meanwhile, on the same thread.
    let (status, _) = source.post("[1]").await.expect("no panic");
    assert_eq!(status, 400);
    assert!(!posted.is_finished());
    seal(page);
    let (status, answer) = posted.await.expect("no panic");
    assert!(
        status == 200 && answer.ends_with("{\"taken\":2}"),
        "{answer}"
    );

    let removed = source.request("DELETE /ingest", "{\"id\":1}\n{\"id\":2}\n");
    let page = source.page().await;
    assert!(page.records.iter().all(|record| record.body.is_none()));
    seal(page);
    assert_eq!(removed.await.expect("no panic").0, 200);
    let (status, answer) = source.post(" ").await.expect("no panic");
    assert!(
        status == 200 && answer.ends_with("{\"taken\":0}"),
        "{answer}"
    );
}

#[tokio::test]
async fn what_is_not_sealed_is_not_acknowledged() {
    let mut source =
        Source::open(|options| options.answer_within = Duration::from_millis(50)).await;
    // Too late for the seal.
    let late = source.post("{\"id\":1}");
    let page = source.page().await;
    let (status, answer) = late.await.expect("no panic");
    assert!(
        status == 503 && answer.contains("retry-after: 1"),
        "{answer}"
    );
    seal(page);
    drop(source);
    let mut source = Source::open(|_| {}).await;
    // Taken, and lost with the run; and not even taken.
    let taken = source.post("{\"id\":1}");
    let page = source.page().await;
    let queued = source.post("{\"id\":2}");
    source.pages.news().await;
    drop(source);
    let (status, answer) = queued.await.expect("no panic");
    assert!(
        status == 503 && answer.contains("send it again"),
        "{answer}"
    );
    assert!(!taken.is_finished());
    drop(page);
    assert_eq!(taken.await.expect("no panic").0, 503);
}

#[tokio::test]
async fn nothing_of_a_bad_batch_is_taken() {
    let mut source = Source::open(|_| {}).await;
    for (body, says) in [
        (
            "[{\"id\":1},{\"id\":null}]",
            "document 2: its field /id, which is part of the key, is no string",
        ),
        ("{\"id\":1}\n{", "document 2: it is no JSON: EOF"),
        ("nothing", "document 1: it is no JSON"),
    ] {
        let (status, answer) = source.post(body).await.expect("no panic");
        assert!(status == 400 && answer.contains(says), "{answer}");
        assert!(
            answer.contains("nothing of the batch was taken"),
            "{answer}"
        );
    }
    let page = source.pages.next_page().await.expect("a page");
    assert!(page.records.is_empty() && page.caught_up && page.token.0 == "posts@0");
}

#[tokio::test]
async fn requests_that_nobody_may_send_are_refused() {
    let mut source = Source::open(|options| options.token = BearerToken::new(TOKEN).ok()).await;
    let bearer = |scheme: &str, token: &str| {
        format!(
            "POST /ingest HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 2\r\nauthorization: {scheme} {token}"
        )
    };
    for head in [
        bearer("Bearer", "s3cret-tokem"),
        bearer("Bearer", "s3cret"),
        bearer("Bearer", ""),
        bearer("Basic", TOKEN),
        "POST /ingest HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 2".to_owned(),
    ] {
        let (status, answer) = source.send(&head, "[]").await.expect("no panic");
        assert!(
            status == 401 && answer.contains("www-authenticate: Bearer"),
            "{answer}"
        );
        assert!(!answer.contains(TOKEN));
    }
    for scheme in ["Bearer", "bearer"] {
        let (status, answer) = source
            .send(&bearer(scheme, TOKEN), "[]")
            .await
            .expect("no panic");
        assert_eq!(status, 200, "{answer}");
    }
    let page = source.pages.next_page().await.expect("a page");
    assert!(page.records.is_empty());

    let source = Source::open(|_| {}).await;
    for (head, expected) in [
        ("POST /other", 404),
        ("GET /ingest", 405),
        ("POST /ingest HTTP/1.1\r\norigin: http://evil\r\nx:", 403),
        ("POST /ingest HTTP/1.1\r\ncontent-encoding: gzip\r\nx:", 415),
    ] {
        let (status, answer) = source.request(head, "[]").await.expect("no panic");
        assert_eq!(status, expected, "{answer}");
    }
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused() {
    let source = Source::open(|_| {}).await;
    let large = format!("{{\"id\":\"{}\"}}", "x".repeat(4 << 10));
    let (status, answer) = source.post(&large).await.expect("no panic");
    assert!(
        status == 413 && answer.contains("more than 4096 bytes"),
        "{answer}"
    );
    let chunked =
        "POST /ingest HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked";
    let body = format!("{:x}\r\n{large}\r\n0\r\n\r\n", large.len());
    assert_eq!(source.send(chunked, &body).await.expect("no panic").0, 413);
    let head = "POST /ingest HTTP/1.1\r\nhost: x\r\nconnection: close\r\nexpect: 100-continue\r\ncontent-length: 9999";
    let (status, answer) = source.send(head, "").await.expect("no panic");
    assert_eq!(status, 413, "told before it has sent anything: {answer}");
}

/// Nothing is sealed, as with a slow store: what waits is bounded, and there is room again after a seal.
#[tokio::test]
async fn what_is_not_sealed_fills_the_budget() {
    let mut source = Source::open(|_| {}).await;
    let body = |id: u32| format!("{{\"id\":{id},\"x\":\"{}\"}}", "x".repeat(3 << 10));
    let first = source.post(&body(1));
    let page_of_first = source.page().await;
    let second = source.post(&body(2));
    let page_of_second = source.page().await;
    let (status, answer) = source.post(&body(3)).await.expect("no panic");
    assert!(
        status == 429 && answer.contains("retry-after: 1"),
        "{answer}"
    );
    seal(page_of_first);
    assert_eq!(first.await.expect("no panic").0, 200);
    let third = source.post(&body(3));
    let page_of_third = source.page().await;
    seal(page_of_second);
    seal(page_of_third);
    assert_eq!(second.await.expect("no panic").0, 200);
    assert_eq!(third.await.expect("no panic").0, 200);
}

/// Many producers at once: each batch is taken once, whole and in one page, and every token is new.
#[tokio::test]
async fn batches_of_many_producers_stay_whole() {
    const PRODUCERS: usize = 20;
    const BATCHES: usize = 10;
    let mut source = Source::resume(
        Start::Token(ContinuationToken("posts@100".to_owned())),
        |options| options.max_unsealed_bytes = 1 << 20,
    )
    .await;
    let address = source.address;
    let producers: Vec<_> = (0..PRODUCERS)
        .map(|producer| {
            tokio::spawn(async move {
                let mut stream = TcpStream::connect(address).await.expect("listens");
                for batch in 0..BATCHES {
                    let id = |n| format!("{{\"id\":\"{producer}.{batch}.{n}\"}}");
                    let body = format!("[{},{}]", id(0), id(1));
                    let length = body.len();
                    let request = format!(
                        "POST /ingest HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n{body}"
                    );
                    stream.write_all(request.as_bytes()).await.expect("sent");
                    let mut answer = Vec::new();
                    while !answer.ends_with(b"{\"taken\":2}") {
                        let read = stream.read_buf(&mut answer).await.expect("an answer");
                        assert!(read > 0, "{}", String::from_utf8_lossy(&answer));
                    }
                    assert!(answer.starts_with(b"HTTP/1.1 200 "));
                }
            })
        })
        .collect();
    let (mut found, mut tokens) = (Vec::new(), BTreeSet::new());
    while found.len() < PRODUCERS * BATCHES * 2 {
        let page = source.page().await;
        assert!(
            tokens.insert(page.token.0.clone()),
            "{} again",
            page.token.0
        );
        found.extend(keys(&page));
        assert_eq!(page.token.0, format!("posts@{}", 100 + found.len() / 2));
        seal(page);
    }
    for producer in producers {
        producer.await.expect("every batch was acknowledged");
    }
    for batch in found.chunks(2) {
        let of = |key: &str, n: &str| key.strip_suffix(n).map(str::to_owned);
        assert!(
            of(&batch[0], ".0\"]").is_some() && of(&batch[0], ".0\"]") == of(&batch[1], ".1\"]")
        );
    }
    for producer in 0..PRODUCERS {
        let mine = format!("[\"{producer}.");
        let of_mine: Vec<_> = found
            .iter()
            .filter(|key| key.starts_with(&mine))
            .cloned()
            .collect();
        let expected =
            (0..BATCHES).flat_map(|batch| [0, 1].map(|n| format!("{mine}{batch}.{n}\"]")));
        assert_eq!(of_mine, expected.collect::<Vec<_>>(), "once, and in order");
    }
}

#[tokio::test]
async fn settings_that_are_unsafe_are_refused() {
    let sound = IngestOptions {
        listen: "127.0.0.1:0".parse().expect("an address"),
        path: "/".to_owned(),
        key: vec!["/id".to_owned()],
        token: None,
        max_body_bytes: 1,
        max_unsealed_bytes: 1,
        answer_within: DEADLINE,
    };
    let report = |options: IngestOptions| match IngestFeed::new("source.s", options) {
        Ok(_) => "taken".to_owned(),
        Err(error) => error.report(),
    };
    assert_eq!(report(sound.clone()), "taken");
    let open = IngestOptions {
        listen: "0.0.0.0:0".parse().expect("an address"),
        ..sound.clone()
    };
    assert!(report(open.clone()).starts_with("source.s.token_env is not set"));
    let token = BearerToken::new(TOKEN).ok();
    assert!(!format!("{token:?}").contains(TOKEN));
    assert_eq!(report(IngestOptions { token, ..open }), "taken");
    let path = "ingest".to_owned();
    assert!(
        report(IngestOptions {
            path,
            ..sound.clone()
        })
        .starts_with("source.s.path must begin")
    );
    let max_body_bytes = 2;
    assert!(
        report(IngestOptions {
            max_body_bytes,
            ..sound.clone()
        })
        .contains("is less than")
    );
    for empty in ["", " ", "a b"] {
        assert!(BearerToken::new(empty).is_err());
    }
    let taken = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let listen = taken.local_addr().expect("bound");
    let feed = IngestFeed::new("source.s", IngestOptions { listen, ..sound }).expect("sound");
    let opened = feed
        .open(&FeedRangeId(POSTS.to_owned()), Start::Beginning)
        .await;
    let report = opened.err().expect("in use").report();
    assert!(
        report.starts_with("source.s: cannot listen on 127.0.0.1:"),
        "{report}"
    );
}
