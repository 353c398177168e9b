//! A proxy between the SDK and the embedded server that throttles, fails and loses answers as a test tells it, and watches
//! that no document is in two requests at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::serve::Listener;
use azure_core::http::headers::{HeaderName, HeaderValue};
use azure_core::http::{HttpClient, Url, new_http_client};
use parking_lot::Mutex;
use serde_json::Value;
use tidefeed_emulator::Emulator;
use tidefeed_operators::cosmos::AccountConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::server::TlsStream;

/// What to do with a request for documents.
#[derive(Clone, Copy, Debug)]
pub enum Verdict {
    /// Hand it on.
    Pass,
    /// Answer with this status in the server's place.
    Refuse {
        status: u16,
        sub_status: u16,
        retry_after_ms: Option<u64>,
    },
    /// Hand it on, and answer with this status although the server has done it.
    LoseAnswer { status: u16 },
    /// Hand it on when the test lets held requests go.
    Hold,
}

/// A request for documents, as far as verdicts need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Write,
    Batch { operations: usize, bytes: usize },
    ChangeFeed,
    Other,
}

/// A batch as it came.
#[derive(Clone, Debug)]
pub struct Batch {
    pub method: String,
    pub path: String,
    /// By names in lower case.
    pub headers: BTreeMap<String, String>,
    pub operations: Vec<Value>,
}

type Script = Box<dyn FnMut(Kind) -> Verdict + Send>;

/// Takes connections under a certificate of its own.
struct SelfSigned {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl SelfSigned {
    fn over(listener: TcpListener) -> Self {
        let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let key = made.signing_key.serialize_der().try_into().unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        SelfSigned {
            listener,
            acceptor: TlsAcceptor::from(Arc::new(config)),
        }
    }
}

impl Listener for SelfSigned {
    type Io = TlsStream<TcpStream>;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = self.listener.accept().await.unwrap();
            // A client that only knocks, or does not like the certificate, is none.
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// The proxy and what it saw.
pub struct FaultyServer {
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
    endpoint: String,
    // Last, so that the server outlives the proxy.
    emulator: Emulator,
}

struct Shared {
    client: Arc<dyn HttpClient>,
    upstream: String,
    endpoint: String,
    script: Mutex<Script>,
    in_flight: Mutex<BTreeSet<String>>,
    /// Requests that are held, and whether they may go.
    held: watch::Sender<(usize, bool)>,
    overlaps: Mutex<Vec<String>>,
    batches: Mutex<Vec<Batch>>,
}

impl FaultyServer {
    pub async fn start(emulator: Emulator) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        Self::serve(emulator, listener, endpoint)
    }

    /// Speaks https, with a certificate that nobody has signed.
    pub async fn start_self_signed(emulator: Emulator) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("https://{}", listener.local_addr().unwrap());
        Self::serve(emulator, SelfSigned::over(listener), endpoint)
    }

    fn serve<L>(emulator: Emulator, listener: L, endpoint: String) -> Self
    where
        L: Listener,
        L::Addr: std::fmt::Debug,
    {
        let shared = Arc::new(Shared {
            client: new_http_client(None),
            upstream: emulator.endpoint().trim_end_matches('/').to_owned(),
            endpoint: endpoint.clone(),
            script: Mutex::new(Box::new(|_| Verdict::Pass)),
            in_flight: Mutex::default(),
            held: watch::Sender::new((0, false)),
            overlaps: Mutex::default(),
            batches: Mutex::default(),
        });
        let app = axum::Router::new()
            .fallback(handle)
            .with_state(Arc::clone(&shared));
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        FaultyServer {
            shared,
            task,
            endpoint,
            emulator,
        }
    }

    /// Where the proxy listens.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The account key.
    pub fn key(&self) -> &str {
        self.emulator.key()
    }

    pub fn account(&self) -> AccountConfig {
        AccountConfig::with_key(&self.endpoint, self.emulator.key())
    }

    /// From now on `script` judges every request for documents.
    pub fn script(&self, script: impl FnMut(Kind) -> Verdict + Send + 'static) {
        *self.shared.script.lock() = Box::new(script);
    }

    /// Resolves when a request is held.
    pub async fn holds_one(&self) {
        let mut held = self.shared.held.subscribe();
        held.wait_for(|(count, _)| *count > 0).await.unwrap();
    }

    /// Hands on what is held, and what would be.
    pub fn let_go(&self) {
        self.shared.held.send_modify(|(_, go)| *go = true);
    }

    /// Documents that were in two requests at once.
    pub fn overlaps(&self) -> Vec<String> {
        self.shared.overlaps.lock().clone()
    }

    /// All batches so far, refused ones included.
    pub fn batches(&self) -> Vec<Batch> {
        self.shared.batches.lock().clone()
    }
}

impl Drop for FaultyServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn handle(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let path = parts.uri.path().trim_matches('/').to_owned();
    let documents = path.split('/').nth(4) == Some("docs");
    let (kind, keys) = if documents {
        describe(&parts.method, &path, &parts.headers, &body)
    } else {
        (Kind::Other, Vec::new())
    };
    if matches!(kind, Kind::Batch { .. }) {
        shared.batches.lock().push(recorded(&parts, &body));
    }
    {
        let mut in_flight = shared.in_flight.lock();
        for key in &keys {
            if !in_flight.insert(key.clone()) {
                shared.overlaps.lock().push(key.clone());
            }
        }
    }
    let verdict = match documents {
        true => (shared.script.lock())(kind),
        false => Verdict::Pass,
    };
    let answer = match verdict {
        Verdict::Refuse {
            status,
            sub_status,
            retry_after_ms,
        } => refusal(status, sub_status, retry_after_ms),
        Verdict::Hold => {
            shared.held.send_modify(|(count, _)| *count += 1);
            let mut held = shared.held.subscribe();
            held.wait_for(|(_, go)| *go).await.unwrap();
            forward(&shared, &parts, body).await
        }
        Verdict::Pass => forward(&shared, &parts, body).await,
        Verdict::LoseAnswer { status } => {
            let _lost = forward(&shared, &parts, body).await;
            refusal(status, 0, None)
        }
    };
    let mut in_flight = shared.in_flight.lock();
    for key in &keys {
        in_flight.remove(key);
    }
    answer
}

fn describe(
    method: &axum::http::Method,
    path: &str,
    headers: &HeaderMap,
    body: &[u8],
) -> (Kind, Vec<String>) {
    let has = |name: &str| headers.contains_key(name);
    let partition = headers
        .get("x-ms-documentdb-partitionkey")
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let key = |id: &Value| format!("{partition}{id}");
    // A batch for a physical partition says the key of each document.
    let key_within = |operation: &Value, id: &Value| match operation["partitionKey"].as_str() {
        Some(partition) => format!("{partition}{id}"),
        None => key(id),
    };
    if has("a-im") {
        return (Kind::ChangeFeed, Vec::new());
    }
    if has("x-ms-cosmos-is-batch-request") {
        let operations: Vec<Value> = serde_json::from_slice(body).unwrap();
        let keys = operations
            .iter()
            .map(|operation| {
                let id = operation.get("id");
                key_within(operation, id.unwrap_or(&operation["resourceBody"]["id"]))
            })
            .collect();
        let kind = Kind::Batch {
            operations: operations.len(),
            bytes: body.len(),
        };
        return (kind, keys);
    }
    if *method == axum::http::Method::DELETE {
        let id = path.rsplit('/').next().unwrap_or_default();
        return (Kind::Write, vec![key(&Value::from(id))]);
    }
    match serde_json::from_slice::<Value>(body) {
        Ok(document) if document["id"].is_string() => (Kind::Write, vec![key(&document["id"])]),
        _ => (Kind::Other, Vec::new()),
    }
}

fn recorded(parts: &axum::http::request::Parts, body: &[u8]) -> Batch {
    let header = |(name, value): (&axum::http::HeaderName, &axum::http::HeaderValue)| {
        (name.to_string(), value.to_str().unwrap().to_owned())
    };
    Batch {
        method: parts.method.to_string(),
        path: parts.uri.to_string(),
        headers: parts.headers.iter().map(header).collect(),
        operations: serde_json::from_slice(body).unwrap(),
    }
}

fn refusal(status: u16, sub_status: u16, retry_after_ms: Option<u64>) -> Response {
    let mut response = Response::builder()
        .status(status)
        .header("x-ms-substatus", sub_status)
        .header("x-ms-request-charge", "0.5");
    if let Some(wait) = retry_after_ms {
        response = response.header("x-ms-retry-after-ms", wait);
    }
    let text = r#"{"code":"Refused","message":"refused by the test"}"#;
    response.body(Body::from(text)).unwrap()
}

async fn forward(
    shared: &Shared,
    parts: &axum::http::request::Parts,
    body: bytes::Bytes,
) -> Response {
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let url = Url::parse(&format!("{}{path}", shared.upstream)).unwrap();
    let method = parts.method.as_str().parse().unwrap();
    let mut request = azure_core::http::Request::new(url, method);
    for (name, value) in &parts.headers {
        // The client sets these itself.
        if matches!(name.as_str(), "host" | "content-length" | "connection") {
            continue;
        }
        request.insert_header(
            HeaderName::from(name.as_str().to_owned()),
            HeaderValue::from(value.to_str().unwrap().to_owned()),
        );
    }
    request.set_body(body);
    let answer = shared.client.execute_request(&request).await.unwrap();
    let (status, headers, body) = answer.deconstruct();
    let mut body = body.collect().await.unwrap();
    if parts.uri.path() == "/" {
        // The account says where its regions are, and the SDK goes there.
        let text = String::from_utf8(body.to_vec()).unwrap();
        body = text.replace(&shared.upstream, &shared.endpoint).into();
    }
    let mut response = Response::builder().status(StatusCode::from_u16(status.into()).unwrap());
    for (name, value) in headers.iter() {
        if !matches!(
            name.as_str(),
            "content-length" | "transfer-encoding" | "connection"
        ) {
            response = response.header(name.as_str(), value.as_str());
        }
    }
    response.body(Body::from(body)).unwrap()
}
