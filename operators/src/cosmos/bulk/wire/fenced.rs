//! A socket that takes no byte once the run may not write any more (I7).
//!
//! The fence is asked at every write to the socket, under the same lock that counts the bytes it took: who closes the count
//! knows for good how much has left.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use parking_lot::Mutex;
use tidefeed_runtime::Result;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Whether bytes may leave. Clones are the same gate.
#[derive(Clone)]
pub(crate) struct Gate(Arc<dyn Fn() -> Result<()> + Send + Sync>);

impl Gate {
    /// Open while `check` succeeds; it must not block.
    pub(crate) fn new(check: impl Fn() -> Result<()> + Send + Sync + 'static) -> Self {
        Gate(Arc::new(check))
    }

    /// Succeeds while bytes may leave.
    pub(super) fn check(&self) -> Result<()> {
        (self.0)()
    }
}

/// What a socket took, and whether it may take more.
#[derive(Debug, Default)]
pub(super) struct Meter(Mutex<Taken>);

#[derive(Debug, Default)]
struct Taken {
    bytes: u64,
    closed: bool,
}

impl Meter {
    /// How many bytes have passed.
    pub(super) fn bytes(&self) -> u64 {
        self.0.lock().bytes
    }

    /// Lets nothing more pass, and returns what has passed.
    pub(super) fn close(&self) -> u64 {
        let mut taken = self.0.lock();
        taken.closed = true;
        taken.bytes
    }
}

/// A socket that takes no byte while its gate is shut.
pub(super) struct FencedStream {
    pub(super) tcp: TcpStream,
    pub(super) gate: Gate,
    pub(super) meter: Arc<Meter>,
}

impl FencedStream {
    fn write(
        &mut self,
        write: impl FnOnce(Pin<&mut TcpStream>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        // Held during the write, which does not block: after `close` has returned, nothing is on its way.
        let mut taken = self.meter.0.lock();
        if taken.closed {
            let what = "the request was given up";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::BrokenPipe, what)));
        }
        if let Err(error) = self.gate.check() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::PermissionDenied, error)));
        }
        let written = write(Pin::new(&mut self.tcp));
        if let Poll::Ready(Ok(bytes)) = &written {
            taken.bytes += *bytes as u64;
        }
        written
    }
}

impl AsyncWrite for FencedStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().write(|tcp| tcp.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut()
            .write(|tcp| tcp.poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

impl AsyncRead for FencedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(cx, into)
    }
}
