//! Asks a running job.

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, header};
use hyper_util::rt::TokioIo;
use tidefeed_runtime::{Context, Error, ErrorKind, Result};

use crate::config::Token;

/// The longest that an answer may take: it is given at once or never.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The largest answer: one names every range that is stuck.
const MAX_BYTES: usize = 16 << 20;

/// Status and body of an answer.
///
/// # Errors
/// `Unreachable` when there is none.
pub(crate) fn get(at: SocketAddr, path: &str, token: Option<&Token>) -> Result<(u16, Vec<u8>)> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context(ErrorKind::Internal, || "cannot ask")?;
    let asked =
        runtime.block_on(async { tokio::time::timeout(TIMEOUT, exchange(at, path, token)).await });
    let unanswered =
        || format!("nobody answers at {at}: is a job running there, started with --http?");
    match asked {
        Ok(answer) => answer.map_err(|error| error.wrap(unanswered())),
        Err(_) => Err(Error::new(ErrorKind::Unreachable, unanswered())),
    }
}

async fn exchange(at: SocketAddr, path: &str, token: Option<&Token>) -> Result<(u16, Vec<u8>)> {
    let unreachable = || "no connection";
    let stream = tokio::net::TcpStream::connect(at).await;
    let stream = stream.context(ErrorKind::Unreachable, unreachable)?;
    let shaken = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.context(ErrorKind::Unreachable, unreachable)?;
    tokio::spawn(connection);
    let mut request = Request::get(path).header(header::HOST, at.to_string());
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.0));
    }
    let request = request.body(Body::empty());
    let request = request.context(ErrorKind::Config, || "the token is no header")?;
    let answer = sender.send_request(request).await;
    let answer = answer.context(ErrorKind::Unreachable, || "no answer")?;
    let status = answer.status().as_u16();
    let body = axum::body::to_bytes(Body::new(answer.into_body()), MAX_BYTES).await;
    let body = body.context(ErrorKind::Unreachable, || "half an answer")?;
    Ok((status, body.to_vec()))
}
