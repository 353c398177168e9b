//! How the connections of a cluster come about: every process listens, and looks for those with lower numbers.
//!
//! 1. A process listens from its start until its last connection is there, and at no other time.
//! 2. Strangers cost little and keep nobody out (`door.rs`).
//! 3. What keeps two from being in one cluster is said once, clearly, on both sides. The one that was looked for goes on waiting:
//!    a process that was started wrongly must not be able to end the others. The one that looked ends.
//! 4. Connections for data begin when the generation is known, and only within it: a process of another run never gets in.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::address::Hosts;
use super::awaited::Awaited;
use super::dial::{Unconnected, dial_once};
use super::door::Door;
use super::handshake::{Claims, Opening, Purpose};
use super::lead::SAY_EVERY;
use super::mesh::Mesh;
use super::pulse::Beat;
use super::secret::{Secret, random_bytes};
use super::tls::{Line, Tls};
use crate::{Context, Error, ErrorKind, Generation, Ledger, Result};

/// The longest that a handshake takes. A guess: it is two round trips, and two more with TLS.
pub(super) const HANDSHAKE: Duration = Duration::from_secs(5);
/// The pause before a process is looked for again.
pub(super) const AGAIN: Duration = Duration::from_millis(100);

/// One process of a cluster, and what it expects of the others.
#[derive(Debug)]
pub struct Place {
    /// Its number.
    pub process: u32,
    /// Where all are.
    pub hosts: Hosts,
    /// What all know.
    pub secret: Secret,
    /// How connections are encrypted, if they are.
    pub tls: Option<Tls>,
    /// After how much silence a process is lost; default 5 s. Smaller notices sooner what died without a word, larger
    /// survives longer pauses of a machine.
    pub peer_timeout: Duration,
    /// How long the lease of the checkpoint lasts: members hear of it often enough.
    pub lease: Duration,
    /// The job.
    pub job: String,
    /// The workers of each process.
    pub workers: u32,
    /// A digest of what the job is made of.
    pub graph: String,
    /// Where it listens, instead of its address in `hosts`.
    pub listener: Option<std::net::TcpListener>,
    /// Where it says whom it waits for.
    pub awaited: Awaited,
}

impl Place {
    pub(super) fn beat(&self) -> Beat {
        Beat::new(self.peer_timeout, self.lease)
    }

    /// What to call a process.
    pub(super) fn name_of(&self, process: u32) -> String {
        let address = self.hosts.address(process).unwrap_or("an unknown address");
        format!("process {process} at {address}")
    }

    pub(super) fn claims(
        &self,
        purpose: Purpose,
        to: u32,
        generation: Option<Generation>,
    ) -> Claims {
        Claims {
            purpose,
            from: self.process,
            to,
            job: self.job.clone(),
            processes: self.hosts.processes(),
            workers: self.workers,
            graph: self.graph.clone(),
            generation: generation.map(|generation| generation.0),
        }
    }

    pub(super) fn opening(&self) -> Result<Opening> {
        Ok(Opening {
            nonce: random_bytes()?,
            tls: self.tls.is_some(),
        })
    }

    async fn listen(&mut self) -> Result<TcpListener> {
        let cannot = |at: &str| format!("process {} cannot listen at {at}", self.process);
        if let Some(listener) = self.listener.take() {
            let listening = listener
                .set_nonblocking(true)
                .and_then(|()| TcpListener::from_std(listener));
            return listening.context(ErrorKind::Config, || cannot("the given socket"));
        }
        let at = self.hosts.listens_at(self.process)?;
        let listener = TcpListener::bind(&at).await;
        listener.context(ErrorKind::Config, || cannot(&at))
    }
}

/// Where those come in that belong here.
pub(super) struct Lobby {
    pub(super) place: Arc<Place>,
    generation: watch::Sender<Option<Generation>>,
    guests: mpsc::Receiver<Guest>,
    door: JoinHandle<()>,
}

/// Who has come in, and by which connection.
pub(super) type Guest = (Claims, Line);

impl Drop for Lobby {
    fn drop(&mut self) {
        self.door.abort();
    }
}

impl Lobby {
    pub(super) async fn open(mut place: Place) -> Result<Lobby> {
        // Named also when it does not exist.
        place.hosts.address(place.process)?;
        let listener = place.listen().await?;
        let place = Arc::new(place);
        let (generation, known) = watch::channel(None);
        let (come_in, guests) = mpsc::channel(1);
        let door = Door {
            place: Arc::clone(&place),
            generation: known,
            come_in,
        };
        Ok(Lobby {
            door: tokio::spawn(door.keep(listener)),
            place,
            generation,
            guests,
        })
    }

    /// Lets those in that want to exchange data in this generation.
    pub(super) fn begin(&self, generation: Generation) {
        self.generation.send_replace(Some(generation));
    }

    /// The next process that comes.
    pub(super) async fn guest(&mut self) -> Result<(u32, Line)> {
        let guest = self.guests.recv().await;
        let (claims, stream) = guest.ok_or_else(|| Error::internal("nobody keeps the door"))?;
        Ok((claims.from, stream))
    }

    /// Connects with every other process, for data. Nobody is let in any more then.
    pub(super) async fn mesh(&mut self, ledger: &Ledger) -> Result<Mesh> {
        let mut end = ledger.end();
        let sockets = tokio::select! {
            sockets = self.connect_all() => sockets?,
            // An error means that the ledger is gone, and with it the run.
            _ = end.wait_for(|ended| *ended) => {
                let ended = || Error::new(ErrorKind::PeerLost, "the run has ended before it began");
                return Err(ledger.take_failure().unwrap_or_else(ended));
            }
        };
        self.door.abort();
        Mesh::new(&self.place, sockets, ledger)
    }

    async fn connect_all(&mut self) -> Result<Vec<Option<Line>>> {
        let generation = *self.generation.borrow();
        let me = self.place.process as usize;
        let mut sockets: Vec<Option<Line>> = Vec::new();
        sockets.resize_with(self.place.hosts.processes() as usize, || None);
        for process in 0..self.place.process {
            let stream = self.dial(process, Purpose::Data, generation).await?;
            sockets[process as usize] = Some(stream);
        }
        for process in self.place.process + 1..self.place.hosts.processes() {
            let name = self.place.name_of(process);
            self.place.awaited.wait_for(process, &name, None);
        }
        let mut say = tokio::time::interval_at(Instant::now() + SAY_EVERY, SAY_EVERY);
        while sockets.iter().skip(me + 1).any(Option::is_none) {
            tokio::select! {
                guest = self.guest() => {
                    let (process, stream) = guest?;
                    self.place.awaited.came(process);
                    if let Some(socket) = sockets.get_mut(process as usize) {
                        *socket = Some(stream);
                    }
                }
                _ = say.tick() => for (process, socket) in sockets.iter().enumerate().skip(me + 1) {
                    if socket.is_none() {
                        let name = self.place.name_of(process as u32);
                        tracing::info!(event = "peer_awaited", peer = process, "waiting for the data of {name}");
                    }
                },
            }
        }
        Ok(sockets)
    }

    /// Connects with a process, however long that takes, and says that it waits.
    ///
    /// # Errors
    /// `Config` when the two do not belong to one cluster.
    pub(super) async fn dial(
        &self,
        process: u32,
        purpose: Purpose,
        generation: Option<Generation>,
    ) -> Result<Line> {
        let claims = self.place.claims(purpose, process, generation);
        let address = self.place.hosts.address(process)?;
        let name = self.place.name_of(process);
        let mut said: Option<Instant> = None;
        self.place.awaited.wait_for(process, &name, None);
        loop {
            let shaken = timeout(HANDSHAKE, dial_once(address, &self.place, &claims)).await;
            match shaken {
                Ok(Ok(stream)) => {
                    self.place.awaited.came(process);
                    return Ok(stream);
                }
                Ok(Err(Unconnected::Refused(refusal))) => {
                    return Err(Error::new(
                        ErrorKind::Config,
                        format!("this process and {name} do not fit: {refusal}"),
                    ));
                }
                Ok(Err(Unconnected::Failed(why))) => {
                    let awaited = &self.place.awaited;
                    awaited.wait_for(process, &name, Some(why.clone()));
                    if said.is_none_or(|at| at.elapsed() >= SAY_EVERY) {
                        tracing::info!(
                            event = "peer_awaited",
                            peer = process,
                            "waiting for {name}: {why}"
                        );
                        said = Some(Instant::now());
                    }
                }
                Err(_) => tracing::info!(
                    event = "peer_awaited",
                    peer = process,
                    "waiting for {name}: it does not answer"
                ),
            }
            sleep(AGAIN).await;
        }
    }
}
