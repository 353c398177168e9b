//! The socket and its connections.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tidefeed_runtime::line_limit::LineLimit;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use super::Producers;
use super::request::answer;

/// Connections at a time. Others wait to be accepted.
const MAX_CONNECTIONS: usize = 1024;
/// How long a connection may take to say what it wants, a first or another time.
const HEADER_TIMEOUT: Duration = Duration::from_secs(60);
/// Pause after a connection that could not be accepted, for want of descriptors most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Accepts connections until it is dropped. Requests under way get their answers then, and no other is taken.
pub(super) struct Server {
    accepting: JoinHandle<()>,
    /// Dropped with it, which tells every connection.
    _stop: watch::Sender<()>,
}

impl Server {
    pub(super) fn start(listener: TcpListener, producers: Arc<Producers>) -> Self {
        let (stop, stopped) = watch::channel(());
        Server {
            accepting: tokio::spawn(accept(listener, producers, stopped)),
            _stop: stop,
        }
    }

    /// True when it accepts nothing any more, which only a defect can make it.
    pub(super) fn ended(&self) -> bool {
        self.accepting.is_finished()
    }
}

async fn accept(
    listener: TcpListener,
    producers: Arc<Producers>,
    mut stopped: watch::Receiver<()>,
) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = async {
            // Never closed.
            let place = Arc::clone(&places).acquire_owned().await;
            (listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            accepted = accepted => accepted,
            // An error means that the server is dropped; nothing is ever sent.
            _ = stopped.changed() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let serving = serve(stream, Arc::clone(&producers), stopped.clone());
                tokio::spawn(async move {
                    serving.await;
                    drop(place);
                });
            }
            Err(error) => {
                static LIMIT: LineLimit = LineLimit::rarely();
                if let Some(held_back) = LIMIT.take() {
                    tracing::warn!(
                        event = "accept_failed",
                        %error,
                        held_back,
                        "a connection of a producer was not accepted"
                    );
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, producers: Arc<Producers>, mut stopped: watch::Receiver<()>) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let requests = service_fn(move |request| {
        let producers = Arc::clone(&producers);
        async move { Ok::<_, Infallible>(answer(&producers, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), requests);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        _ = stopped.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended with an error");
    }
}
