//! Connections to one server: HTTP/1.1, one request at a time on each, kept open between requests.
//!
//! 1. No byte leaves once the [`Gate`] is shut. It is asked at every write to the socket, below TLS, so that it also holds
//!    for what others have buffered. What remains is the moment between the question and the system call, and bytes that
//!    the kernel had already.
//! 2. What became of a request is known from the bytes that the socket took: a request that did not leave whole never
//!    happens, as its announced length is missing. No more bytes leave after that has been said.
//! 3. Nothing is sent twice here, except a request none of which was written.
//! 4. A connection whose request did not end well is closed.
//!
//! Limits: no proxy, no HTTP/2, no certificates that the platform does not trust.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use azure_core::http::Url;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Body;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{HOST, HeaderMap, HeaderValue};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls_platform_verifier::BuilderVerifierExt;
use tidefeed_runtime::{Context, Error, ErrorKind, Result};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, DEFAULT_VERSIONS};

use super::super::operation::Lost;
use super::fenced::{FencedStream, Gate, Meter};

/// Largest reply that is read: the service's limit is 4 MiB.
const MAX_REPLY_BYTES: usize = 8 << 20;

/// How long a connection may take to be ready again after its last reply; it usually is at once.
const READY_TIMEOUT: Duration = Duration::from_millis(100);

/// How long to wait, and for what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    /// Until a connection is there, TLS included.
    pub(crate) connect: Duration,
    /// From the moment when a connection is there until the reply has been read.
    pub(crate) reply: Duration,
    /// How long a connection is kept without a request. Shorter than servers do, so that they seldom close first.
    pub(crate) idle: Duration,
}

/// A request was not answered, or not in a way that can be read.
#[derive(Debug)]
pub(crate) struct NoAnswer {
    /// Whether it may have happened.
    pub(crate) lost: Lost,
    /// Why. Of the kind `Fenced` when the gate is shut.
    pub(crate) error: Error,
}

impl NoAnswer {
    pub(crate) fn unsent(error: Error) -> Self {
        NoAnswer {
            lost: Lost::Unsent,
            error,
        }
    }
}

/// What a server answered.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// The connections to one server.
pub(crate) struct Pool {
    host: String,
    port: u16,
    /// The `host` header.
    authority: HeaderValue,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    gate: Gate,
    timeouts: Timeouts,
    /// The one that was used last is at the end, and is used first.
    idle: Mutex<Vec<(Instant, Connection)>>,
}

/// A connection that takes no byte any more once this is dropped.
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    meter: Arc<Meter>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.meter.close();
    }
}

impl Pool {
    /// For the server at `url`; its path does not matter. Nothing is connected yet.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when the URL is not usable; [`ErrorKind::Internal`] when there is no way to check certificates.
    pub(crate) fn new(url: &Url, gate: Gate, timeouts: Timeouts) -> Result<Self> {
        let wrong =
            || format!("{url} is not usable: it must look like https://NAME.documents.azure.com/");
        let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
            return Err(Error::new(ErrorKind::Config, wrong()));
        };
        let authority = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        // Brackets belong to the URL, not to the address.
        let host = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let tls = match url.scheme() {
            "https" => {
                let name = ServerName::try_from(host.clone()).context(ErrorKind::Config, wrong)?;
                Some((connector()?, name))
            }
            "http" if matches!(&*host, "localhost" | "127.0.0.1" | "::1") => None,
            _ => {
                let what =
                    format!("{url} must use https: plain http is only for servers on this machine");
                return Err(Error::new(ErrorKind::Config, what));
            }
        };
        Ok(Pool {
            host,
            port,
            authority: HeaderValue::from_str(&authority).context(ErrorKind::Config, wrong)?,
            tls,
            gate,
            timeouts,
            idle: Mutex::default(),
        })
    }

    /// Sends a request and reads the reply.
    ///
    /// # Errors
    /// When there is no reply, or not a whole one.
    pub(crate) async fn exchange(
        &self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Reply, NoAnswer> {
        request.headers_mut().insert(HOST, self.authority.clone());
        let body_bytes = request.body().size_hint().lower();
        loop {
            self.gate.check().map_err(NoAnswer::unsent)?;
            let (mut connection, is_new) = match self.reuse().await {
                Some(connection) => (connection, false),
                None => (self.connect().await.map_err(NoAnswer::unsent)?, true),
            };
            let before = connection.meter.bytes();
            let deadline = Instant::now() + self.timeouts.reply;
            let why = match timeout_at(deadline, attempt(&mut connection, request)).await {
                Ok(Ok(reply)) => {
                    self.keep(connection);
                    return Ok(reply);
                }
                Ok(Err(Failed {
                    unwritten: Some(unwritten),
                    ..
                })) if !is_new => {
                    request = unwritten;
                    continue;
                }
                Ok(Err(failed)) => failed.why,
                Err(_) => format!("no reply within {:?}", self.timeouts.reply),
            };
            // The head is at least a byte, and TLS only adds: no more than the body's bytes is no whole request.
            let is_whole = connection.meter.close() - before > body_bytes;
            return Err(NoAnswer {
                lost: if is_whole { Lost::Maybe } else { Lost::Unsent },
                error: self.explain(why),
            });
        }
    }

    /// A shut gate is the reason for whatever failed.
    fn explain(&self, why: String) -> Error {
        match self.gate.check() {
            Err(fenced) => fenced,
            Ok(()) => {
                let what = format!("{} did not answer", self.host);
                Error::new(ErrorKind::Unreachable, what).with_source(why)
            }
        }
    }

    /// A connection that is open and idle.
    async fn reuse(&self) -> Option<Connection> {
        // Lets those that the server has closed meanwhile find out: a request written there may or may not have happened.
        tokio::task::yield_now().await;
        loop {
            let (since, mut connection) = self.idle.lock().pop()?;
            if since.elapsed() >= self.timeouts.idle || connection.sender.is_closed() {
                continue;
            }
            if let Ok(Ok(())) = timeout(READY_TIMEOUT, connection.sender.ready()).await {
                return Some(connection);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn idle(&self) -> usize {
        self.idle.lock().len()
    }

    fn keep(&self, connection: Connection) {
        if connection.sender.is_closed() {
            return;
        }
        let mut idle = self.idle.lock();
        let old = idle.partition_point(|(since, _)| since.elapsed() >= self.timeouts.idle);
        idle.drain(..old);
        idle.push((Instant::now(), connection));
    }

    async fn connect(&self) -> Result<Connection> {
        let unreachable = || format!("cannot reach {} on port {}", self.host, self.port);
        timeout(self.timeouts.connect, self.open())
            .await
            .unwrap_or_else(|_| {
                let waited = self.timeouts.connect;
                let what = format!("no connection within {waited:?}");
                Err(io::Error::new(io::ErrorKind::TimedOut, what))
            })
            .map_err(|error| match self.gate.check() {
                Err(fenced) => fenced,
                Ok(()) => Error::new(ErrorKind::Unreachable, unreachable()).with_source(error),
            })
    }

    async fn open(&self) -> io::Result<Connection> {
        let tcp = TcpStream::connect((self.host.as_str(), self.port)).await?;
        tcp.set_nodelay(true)?;
        let meter = Arc::new(Meter::default());
        let stream = FencedStream {
            tcp,
            gate: self.gate.clone(),
            meter: meter.clone(),
        };
        let sender = match &self.tls {
            Some((connector, name)) => {
                handshake(connector.connect(name.clone(), stream).await?).await?
            }
            None => handshake(stream).await?,
        };
        Ok(Connection { sender, meter })
    }
}

/// Connections with certificates that the platform trusts.
fn connector() -> Result<TlsConnector> {
    let what = || "cannot check the certificates of servers on this machine";
    // By name: which provider is the default depends on what else is in the program.
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(DEFAULT_VERSIONS)
        .and_then(|builder| builder.with_platform_verifier())
        .context(ErrorKind::Internal, what)?
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

async fn handshake<S>(stream: S) -> io::Result<SendRequest<Full<Bytes>>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    // Ends when the sender is dropped or the server closes; whoever has a request under way hears of errors.
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(sender)
}

/// An attempt on one connection that brought no reply.
struct Failed {
    /// The request, if none of it was written.
    unwritten: Option<Request<Full<Bytes>>>,
    why: String,
}

async fn attempt(
    connection: &mut Connection,
    request: Request<Full<Bytes>>,
) -> Result<Reply, Failed> {
    let sent = connection.sender.try_send_request(request).await;
    let response = sent.map_err(|mut failed| Failed {
        unwritten: failed.take_message(),
        why: chain(failed.error()),
    })?;
    let (head, body) = response.into_parts();
    let body = Limited::new(body, MAX_REPLY_BYTES).collect().await;
    let body = body.map_err(|error| Failed {
        unwritten: None,
        why: format!("the reply broke off: {}", chain(&*error)),
    })?;
    Ok(Reply {
        status: head.status,
        headers: head.headers,
        body: body.to_bytes(),
    })
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
