//! Carries streams of bytes between a host and a server of the machine.

use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::{Link, Links};

/// One direction of a way.
#[derive(Clone)]
pub(super) struct Way {
    links: watch::Receiver<Links>,
    from: usize,
    to: usize,
}

impl Way {
    pub(super) fn new(links: watch::Receiver<Links>, from: usize, to: usize) -> Self {
        Way { links, from, to }
    }

    /// Waits until something may pass, and how long it takes.
    async fn pass(&mut self) {
        let (from, to) = (self.from, self.to);
        let between = |links: &Links| links.between(from, to).unwrap_or(Link::CUT);
        let passing = self.links.wait_for(|links| !between(links).cut).await;
        // An error means that the network is gone.
        let delay = passing.map_or(Duration::ZERO, |links| between(&links).delay);
        if delay > Duration::ZERO {
            tokio::time::sleep(delay).await;
        }
    }
}

/// Connects whoever comes with the server, until the network is gone.
pub(super) async fn serve(listener: std::net::TcpListener, port: u16, ways: [Way; 2]) {
    let listener = TcpListener::from_std(listener).expect("in a runtime");
    while let Ok((near, _)) = listener.accept().await {
        let [mut there, back] = ways.clone();
        tokio::spawn(async move {
            there.pass().await;
            let Ok(far) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await else {
                return;
            };
            let _ = (near.set_nodelay(true), far.set_nodelay(true));
            let (near_read, near_write) = near.into_split();
            let (far_read, far_write) = far.into_split();
            tokio::join!(
                carry(near_read, far_write, there),
                carry(far_read, near_write, back)
            );
        });
    }
}

async fn carry(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, mut way: Way) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        way.pass().await;
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
    way.pass().await;
    let _ = to.shutdown().await;
}
