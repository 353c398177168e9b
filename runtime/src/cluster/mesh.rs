//! The connections that carry the dataflow, as timely is given them.
//!
//! timely reads and writes them in threads of its own, takes every end that it does not expect for a panic, and lets the panic
//! spread from thread to thread. Here a connection that breaks first becomes the run's failure, which names the peer; the thread
//! then waits until the workers have left the dataflow, so that none of them meets what is broken, and ends without a word.
//!
//! # What is noticed, and when
//!
//! The control connections have heartbeats; these have not, because every byte is timely's. So a pair of members of which both still
//! reach process 0, but not each other, is noticed by the operating system (on Linux; elsewhere as its defaults say):
//!
//! - What was sent and is not acknowledged for the peer timeout ends the connection (`TCP_USER_TIMEOUT`). While a run makes epochs
//!   something is sent all the time, both ways.
//! - On a connection that carries nothing, probes do (keepalive). The system counts them in whole seconds: the first comes after half of the
//!   peer timeout, the next each quarter of it, and none of them sooner than 1 s; the first that is due when the
//!   timeout has passed without an answer ends the connection. So at most a quarter, or 1 s if that is more, later.
//!
//! Both hold if only one direction is cut: either the data is lost, or its acknowledgement. Whoever notices waits [`FOR_THE_CAUSE`],
//! and then all are told through process 0.
//!
//! Limits: a peer whose machine acknowledges and whose threads do not read is noticed by its control connection if it stands still as a
//! whole, and not at all if only the threads of this connection do.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use socket2::{SockRef, TcpKeepalive};
use timely::communication::Hooks;
use timely::communication::allocator::zero_copy::initialize::{
    CommsGuard, initialize_networking_from_sockets,
};
use timely::communication::allocator::zero_copy::stream::Stream;
use timely::communication::allocator::{AllocatorBuilder, ProcessBuilder};

use super::assemble::Place;
use super::tls::{Line, Sealed};
use crate::{Context, Error, ErrorKind, Ledger, Result};

/// How long a broken connection waits for word of why: whoever has failed tells process 0 first.
const FOR_THE_CAUSE: Duration = Duration::from_secs(1);

/// How often to look whether the connections have ended.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Bytes of the message with which timely ends a connection in order: its header, of which every field is 0.
const END_BYTES: usize = 48;

/// A connection with every other process.
pub struct Mesh {
    process: usize,
    sockets: Vec<Option<DataSocket>>,
    workers_gone: Arc<Latch>,
}

impl Mesh {
    /// To be called in a tokio runtime.
    pub(super) fn new(place: &Place, streams: Vec<Option<Line>>, ledger: &Ledger) -> Result<Mesh> {
        let workers_gone = Arc::new(Latch::default());
        let mut sockets = Vec::new();
        for (process, stream) in streams.into_iter().enumerate() {
            let peer = place.name_of(process as u32);
            let socket = |line: Line| -> io::Result<DataSocket> {
                let (stream, sealed) = line.into_std()?;
                watch_closely(&stream, place.peer_timeout)?;
                Ok(DataSocket {
                    stream,
                    sealed,
                    zeros: 0,
                    watched: Arc::new(Watched {
                        peer: peer.clone(),
                        ledger: ledger.clone(),
                        tokio: tokio::runtime::Handle::current(),
                        workers_gone: Arc::clone(&workers_gone),
                    }),
                })
            };
            let socket = stream.map(socket).transpose();
            sockets.push(socket.context(ErrorKind::PeerLost, || {
                format!("the connection with {peer} broke")
            })?);
        }
        Ok(Mesh {
            process: place.process as usize,
            sockets,
            workers_gone,
        })
    }

    /// The allocators of this process's workers, which reach those of the others.
    pub(crate) fn allocators(self, workers: usize) -> Result<(Vec<AllocatorBuilder>, Comms)> {
        let hooks = Hooks::default();
        let local = ProcessBuilder::new_typed_vector(workers, hooks.refill.clone(), None);
        let broken = || "cannot hand the connections of the cluster over";
        let clones = self.sockets.iter().flatten();
        let clones = clones.map(|socket| socket.stream.try_clone());
        let sockets = clones.collect::<io::Result<Vec<_>>>();
        let sockets = sockets.context(ErrorKind::Internal, broken)?;
        let (builders, guard) =
            initialize_networking_from_sockets(local, self.sockets, self.process, workers, hooks)
                .context(ErrorKind::Internal, broken)?;
        let builders = builders.into_iter().map(AllocatorBuilder::Tcp);
        let comms = Comms {
            guard,
            sockets,
            workers_gone: self.workers_gone,
        };
        Ok((builders.collect(), comms))
    }
}

/// Lets the operating system notice a peer whose machine or network is gone.
fn watch_closely(stream: &TcpStream, peer_timeout: Duration) -> io::Result<()> {
    let socket = SockRef::from(stream);
    let second = Duration::from_secs(1);
    let keepalive = TcpKeepalive::new()
        .with_time((peer_timeout / 2).max(second))
        .with_interval((peer_timeout / 4).max(second));
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(peer_timeout))?;
    socket.set_tcp_nodelay(true)
}

/// The threads that serve the connections.
pub(crate) struct Comms {
    guard: CommsGuard,
    sockets: Vec<TcpStream>,
    workers_gone: Arc<Latch>,
}

impl Comms {
    /// Ends the connections, once no worker is left: in order, unless the run has failed.
    pub(crate) fn end(self, ledger: &Ledger) {
        self.workers_gone.open();
        if ledger.failed() {
            self.sockets.iter().for_each(shut);
            // Joining threads whose connections broke would panic. They end by themselves, now that these are shut.
            std::mem::forget(self.guard);
            return;
        }
        // What the workers have said is on its way still, and so is what others say to them.
        let ending = std::thread::spawn(move || drop(self.guard));
        while !ending.is_finished() {
            if ledger.failed() {
                self.sockets.iter().for_each(shut);
            }
            std::thread::park_timeout(LOOK_EVERY);
        }
        if ending.join().is_err() && !ledger.failed() {
            let broken = "a connection of the cluster broke at the end of the run";
            ledger.fail(Error::new(ErrorKind::PeerLost, broken));
        }
    }
}

fn shut(socket: &TcpStream) {
    // An error means that it is shut already.
    let _ = socket.shutdown(Shutdown::Both);
}

/// Opens once.
#[derive(Default)]
struct Latch(Mutex<bool>, Condvar);

impl Latch {
    fn open(&self) {
        *self.0.lock() = true;
        self.1.notify_all();
    }

    fn wait(&self) {
        let mut open = self.0.lock();
        while !*open {
            self.1.wait(&mut open);
        }
    }
}

/// One connection, as timely sees it.
struct DataSocket {
    stream: TcpStream,
    /// What encrypts it, if anything.
    sealed: Option<Arc<Sealed>>,
    /// How many of the last bytes that were read are 0.
    zeros: usize,
    watched: Arc<Watched>,
}

/// What becomes of a connection that breaks.
struct Watched {
    peer: String,
    ledger: Ledger,
    tokio: tokio::runtime::Handle,
    workers_gone: Arc<Latch>,
}

impl Watched {
    /// Ends the run, unless it is known already why, and then the thread.
    fn broken(&self, error: Option<io::Error>) -> ! {
        let (ledger, peer) = (self.ledger.clone(), self.peer.clone());
        self.tokio.spawn(async move {
            let mut end = ledger.end();
            // An error means that the ledger is gone, and with it the run.
            let known = tokio::time::timeout(FOR_THE_CAUSE, end.wait_for(|ended| *ended)).await;
            if known.is_err() {
                let lost = format!("{peer} is lost: its data ended");
                let lost = Error::new(ErrorKind::PeerLost, lost);
                ledger.fail(match error {
                    Some(error) => lost.with_source(error),
                    None => lost,
                });
            }
        });
        self.workers_gone.wait();
        // Unlike a panic, this says nothing.
        resume_unwind(Box::new("a connection broke"))
    }
}

impl Read for DataSocket {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = match &self.sealed {
                Some(sealed) => sealed.read(&mut self.stream, bytes),
                None => self.stream.read(bytes),
            };
            match read {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => self.watched.broken(Some(error)),
                // Closed in order, or so it seems: timely knows.
                Ok(0) if self.zeros >= END_BYTES => return Ok(0),
                Ok(0) => self.watched.broken(None),
                Ok(read) => {
                    let zeros = bytes[..read].iter().rev().take_while(|byte| **byte == 0);
                    let zeros = zeros.count();
                    self.zeros = zeros + if zeros == read { self.zeros } else { 0 };
                    return Ok(read);
                }
            }
        }
    }
}

impl Write for DataSocket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            let written = match &self.sealed {
                Some(sealed) => sealed.write(&mut self.stream, bytes),
                None => self.stream.write(bytes),
            };
            match written {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => self.watched.broken(Some(error)),
                written => return written,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

impl Stream for DataSocket {
    fn try_clone(&self) -> io::Result<Self> {
        Ok(DataSocket {
            stream: self.stream.try_clone()?,
            sealed: self.sealed.clone(),
            zeros: self.zeros,
            watched: Arc::clone(&self.watched),
        })
    }

    fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.stream.set_nonblocking(nonblocking)
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        // The peer may be gone already, with nothing left to read there.
        if let (Some(sealed), Shutdown::Write) = (&self.sealed, how) {
            let _ = sealed.close(&mut &self.stream);
        }
        let _ = self.stream.shutdown(how);
        Ok(())
    }
}
