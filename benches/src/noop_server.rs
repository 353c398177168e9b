//! The other end of the comparison: a server with the connection handling of the embedded one that does nothing.
//!
//! It reads requests to their end and answers each path with a reply that a real server gave before, headers and all, so
//! that a client cannot tell the difference, except that nothing is checked and nothing is stored. What a client reaches
//! with it is what HTTP and the client themselves allow.

use std::convert::Infallible;
use std::net::TcpListener;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{HeaderMap, HeaderName, HeaderValue, IF_NONE_MATCH};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use serde::{Deserialize, Serialize};

use crate::Outcome;
use crate::documents::{DATABASE, document};
use crate::raw_http::RawClient;
use crate::server::ServerProcess;

const MAX_BODY_BYTES: usize = 8 * 1024 * 1024;

/// Replies of a real server.
#[derive(Debug, Serialize, Deserialize)]
pub struct Recording {
    /// Where the real server is: replies name it, and must name the other one instead.
    endpoint: String,
    replies: Vec<Recorded>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Recorded {
    method: String,
    path: String,
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

impl Recording {
    /// What a client needs that writes points to this container; records one upsert, of document 0.
    ///
    /// # Errors
    /// When the server does not answer, or refuses.
    pub fn of_point_writes(server: &ServerProcess, container: &str) -> Outcome<Self> {
        let mut client = RawClient::connect(server)?;
        let colls = format!("/dbs/{DATABASE}/colls/{container}");
        let mut recording = Recording {
            endpoint: server.endpoint().to_owned(),
            replies: Vec::new(),
        };
        let write = document(0);
        let headers = [
            ("x-ms-documentdb-partitionkey", write.partition_key.as_str()),
            ("x-ms-documentdb-is-upsert", "true"),
            ("prefer", "return=minimal"),
        ];
        let body = write.action.document().cloned().unwrap_or_default();
        recording.add(
            &mut client,
            "POST",
            format!("{colls}/docs"),
            &headers,
            &body,
        )?;
        for path in [
            "/".to_owned(),
            format!("/dbs/{DATABASE}"),
            colls.clone(),
            format!("{colls}/pkranges"),
        ] {
            recording.add(&mut client, "GET", path, &[], &[])?;
        }
        Ok(recording)
    }

    fn add(
        &mut self,
        client: &mut RawClient,
        method: &str,
        path: String,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Outcome {
        let reply = client.send(method, &path, headers, body)?;
        reply.expect(&[200, 201])?;
        // The server of the recording writes its own date.
        let headers = reply.headers.iter().filter(|(name, _)| name != "date");
        self.replies.push(Recorded {
            method: method.to_owned(),
            path,
            status: reply.status,
            headers: headers.cloned().collect(),
            body: String::from_utf8(reply.body.clone())?,
        });
        Ok(())
    }
}

/// Serves a recording until the process ends; says where it listens once it does.
///
/// # Errors
/// When it cannot listen, or a recorded reply cannot be one of HTTP.
pub fn serve(recording: Recording, listening: impl FnOnce(&str)) -> Outcome {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    listener.set_nonblocking(true)?;
    let endpoint = format!("http://{}", listener.local_addr()?);
    let replies = Arc::new(Replies::new(recording, &endpoint)?);
    listening(&endpoint);
    // One thread, as the embedded server has by default.
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(accept(listener, replies))
}

async fn accept(listener: TcpListener, replies: Arc<Replies>) -> Outcome {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let replies = Arc::clone(&replies);
        tokio::spawn(async move {
            // The settings of the embedded server: a difference between the two would be measured along.
            let mut builder = auto::Builder::new(TokioExecutor::new());
            builder
                .http1()
                .timer(TokioTimer::new())
                .pipeline_flush(true);
            builder
                .http2()
                .timer(TokioTimer::new())
                .max_concurrent_streams(1_000);
            let answer = service_fn(move |request| answer(Arc::clone(&replies), request));
            // An error is the client's end.
            let _ = builder.serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}

async fn answer(
    replies: Arc<Replies>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let _ = Limited::new(body, MAX_BODY_BYTES).collect().await;
    let known = parts.headers.get(IF_NONE_MATCH);
    Ok(replies.find(&parts.method, parts.uri.path(), known))
}

/// Replies, ready to be sent.
struct Replies(Vec<Prepared>);

struct Prepared {
    method: Method,
    path: String,
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Replies {
    fn new(recording: Recording, endpoint: &str) -> Outcome<Self> {
        let prepare = |reply: Recorded| -> Outcome<Prepared> {
            let mut headers = HeaderMap::new();
            for (name, value) in reply.headers {
                headers.insert(HeaderName::try_from(name)?, HeaderValue::try_from(value)?);
            }
            let body = reply.body.replace(&recording.endpoint, endpoint);
            Ok(Prepared {
                method: reply.method.parse()?,
                path: reply.path,
                status: StatusCode::from_u16(reply.status)?,
                headers,
                body: Bytes::from(body),
            })
        };
        let replies: Outcome<Vec<_>> = recording.replies.into_iter().map(prepare).collect();
        Ok(Replies(replies?))
    }

    fn find(
        &self,
        method: &Method,
        path: &str,
        known: Option<&HeaderValue>,
    ) -> Response<Full<Bytes>> {
        let path = match path.trim_end_matches('/') {
            "" => "/",
            path => path,
        };
        let reply = self
            .0
            .iter()
            .find(|reply| reply.method == *method && reply.path == path);
        let Some(reply) = reply else {
            eprintln!("no reply to {method} {path} was recorded");
            let mut response = Response::new(Full::default());
            *response.status_mut() = StatusCode::NOT_FOUND;
            return response;
        };
        let unchanged = known.is_some() && known == reply.headers.get("etag");
        let mut response = Response::new(Full::new(match unchanged {
            true => Bytes::new(),
            false => reply.body.clone(),
        }));
        *response.headers_mut() = reply.headers.clone();
        *response.status_mut() = match unchanged {
            true => StatusCode::NOT_MODIFIED,
            false => reply.status,
        };
        response
    }
}
