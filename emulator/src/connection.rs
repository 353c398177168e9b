//! Connections: from the socket to a request, and from a decision about faults to what a client sees.
//!
//! HTTP/1.1 and HTTP/2 without TLS (prior knowledge) share the port. A connection is a task; closing it drops the task
//! and with it the socket, whichever protocol it speaks.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::ORIGIN;
use hyper::http::request::Parts;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::admin;
use crate::faults::End;
use crate::http::ApiError;
use crate::http::service::Service;

/// Largest request body that is read: the item limit, and room for escapes.
const MAX_BODY_BYTES: usize = 8 * 1024 * 1024;

/// Accepts connections until it is dropped.
pub async fn accept(listener: std::net::TcpListener, service: Arc<Service>) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "cannot register the socket"),
    };
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                tokio::spawn(serve(stream, peer.ip(), Arc::clone(&service)));
            }
            Err(error) => {
                // Out of descriptors, most likely: give connections time to close.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, peer: IpAddr, service: Arc<Service>) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // Not `pipeline_flush`: a reply would wait behind half a request for the other half.
    builder.http1().timer(TokioTimer::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(1_000);
    let close = Arc::new(Notify::new());
    let requests = {
        let close = Arc::clone(&close);
        service_fn(move |request| {
            let connection = Connection {
                service: Arc::clone(&service),
                close: Arc::clone(&close),
                peer,
            };
            connection.answer(request)
        })
    };
    let serving = builder.serve_connection(TokioIo::new(stream), requests);
    tokio::select! {
        // Closing comes first, so that nothing is sent any more once a request asked for it.
        biased;
        () = close.notified() => tracing::debug!("a fault closes a connection"),
        result = serving => {
            if let Err(error) = result {
                tracing::debug!(%error, "a connection ended with an error");
            }
        }
    }
}

/// What a request knows of its connection.
struct Connection {
    service: Arc<Service>,
    close: Arc<Notify>,
    peer: IpAddr,
}

impl Connection {
    async fn answer(self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let (parts, body) = request.into_parts();
        let body = match Limited::new(body, MAX_BODY_BYTES).collect().await {
            Ok(collected) => Ok(collected.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => Err(ApiError::body_too_large()),
            Err(error) => Err(ApiError::body_unreadable(&*error)),
        };
        let service = &*self.service;
        if admin::owns(parts.uri.path()) {
            return Ok(self.administer(&parts, body));
        }
        if service.faults.is_idle() {
            return Ok(service.answer(&parts, body));
        }
        Ok(self.answer_with_faults(&parts, body).await)
    }

    fn administer(&self, parts: &Parts, body: Result<Bytes, ApiError>) -> Response<Full<Bytes>> {
        let service = &*self.service;
        let reply = if parts.headers.contains_key(ORIGIN) {
            // A browser names the page that sends: no page has business here, and it could send from this machine.
            Err(ApiError::forbidden(
                "the admin API answers no requests of web pages: leave out the Origin header",
            ))
        } else {
            body.and_then(|body| {
                admin::answer(service, self.peer, &parts.method, parts.uri.path(), &body)
            })
        };
        service.respond_uncounted(parts, reply.unwrap_or_else(ApiError::into_reply))
    }

    async fn answer_with_faults(
        &self,
        parts: &Parts,
        body: Result<Bytes, ApiError>,
    ) -> Response<Full<Bytes>> {
        let service = &*self.service;
        loop {
            let verdict = service.judge(parts);
            if verdict.decision.delay_ms > 0 {
                tokio::time::sleep(Duration::from_millis(verdict.decision.delay_ms)).await;
            }
            match &verdict.decision.end {
                End::Proceed => return service.answer(parts, body),
                End::Refuse(status) => return service.respond(parts, status.clone().into_reply()),
                End::RefuseAfter(status) => {
                    return service.answer_instead(parts, body, status.clone().into_reply());
                }
                End::DropBefore => return self.drop_connection().await,
                End::DropAfter => {
                    // Carried out and counted, but its reply is lost.
                    let _ = service.answer(parts, body);
                    return self.drop_connection().await;
                }
                End::Freeze => service.faults.changed_since(&verdict).await,
            }
        }
    }

    /// Closes the connection and waits for the end, which drops this request too.
    async fn drop_connection<T>(&self) -> T {
        self.close.notify_one();
        std::future::pending().await
    }
}
