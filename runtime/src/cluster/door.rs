//! Who is let into a cluster: the acceptor's side of connections.
//!
//! Whoever connects has [`HANDSHAKE`] for the handshake, and at most [`SHAKING`] do so at a time; of more, those that have taken
//! longest are dropped. So strangers, garbage and connections that say nothing cost little, and keep nobody out: a member needs
//! milliseconds, and tries again.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use super::assemble::{AGAIN, Guest, HANDSHAKE, Place};
use super::dial::{Unconnected, read_message, write_message};
use super::handshake::{
    Accepting, Claims, GREETING_BYTES, Greeting, Purpose, Refusal, answer_unproven, compare,
    may_be_greeting,
};
use super::tls::Line;
use crate::line_limit::LineLimit;
use crate::{Generation, Result};

/// Connections that are in their handshake at a time. A guess, far above what a cluster needs.
const SHAKING: usize = 128;

/// Keeps strangers out.
pub(super) struct Door {
    pub(super) place: Arc<Place>,
    /// Which run it is, once that is known.
    pub(super) generation: watch::Receiver<Option<Generation>>,
    /// Where those go that are let in.
    pub(super) come_in: mpsc::Sender<Guest>,
}

impl Door {
    pub(super) async fn keep(self, listener: TcpListener) {
        let door = Arc::new(self);
        let mut shaking: VecDeque<AbortHandle> = VecDeque::new();
        loop {
            let (stream, from) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    // As when there are too many open files: those that are in their handshake will be closed.
                    static LIMIT: LineLimit = LineLimit::rarely();
                    if let Some(held_back) = LIMIT.take() {
                        tracing::warn!(
                            event = "accept_failed",
                            %error,
                            held_back,
                            "a connection of the cluster was not accepted"
                        );
                    }
                    sleep(AGAIN).await;
                    continue;
                }
            };
            shaking.retain(|task| !task.is_finished());
            if shaking.len() >= SHAKING
                && let Some(slowest) = shaking.pop_front()
            {
                slowest.abort();
            }
            let door = Arc::clone(&door);
            let task = tokio::spawn(async move {
                match timeout(HANDSHAKE, door.shake(stream)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(Unconnected::Failed(why))) => {
                        tracing::debug!(%from, why, "a connection came to nothing");
                    }
                    // As a scanner, or a probe of the port, again and again.
                    Ok(Err(Unconnected::Refused(Refusal::Stranger))) => {
                        tracing::debug!(%from, "a stranger connected");
                    }
                    Ok(Err(Unconnected::Refused(refusal))) => {
                        static LIMIT: LineLimit = LineLimit::rarely();
                        if let Some(held_back) = LIMIT.take() {
                            tracing::warn!(
                                event = "peer_refused",
                                %from,
                                held_back,
                                "a connection from {from} was refused: {refusal}"
                            );
                        }
                    }
                    Err(_) => tracing::debug!(%from, "a connection said nothing for too long"),
                }
            });
            shaking.push_back(task.abort_handle());
        }
    }

    async fn shake(&self, mut stream: TcpStream) -> Result<(), Unconnected> {
        stream.set_nodelay(true)?;
        let greeted = read_greeting(&mut stream).await?;
        let opening = self.place.opening()?;
        let accepting = Accepting::new(&self.place.secret, &opening, &greeted);
        if let Err(Refusal::Stranger) = accepting {
            return Err(Unconnected::Refused(Refusal::Stranger));
        }
        // One of another version is told ours, and so is one with TLS or without.
        stream.write_all(&opening.greeting()).await?;
        let accepting = accepting?;
        let mut line = Line::accepted(stream, self.place.tls.as_ref()).await?;
        let said = read_message(&mut line).await?;
        let proven = match accepting.claims(&said) {
            Ok(proven) => proven,
            Err(refusal) => {
                write_message(&mut line, &answer_unproven()).await?;
                return Err(refusal.into());
            }
        };
        let verdict = self.judge(&proven.claims).await?;
        let told = verdict.clone().map_err(|(_, theirs)| theirs);
        write_message(&mut line, &accepting.answer(&proven, told)).await?;
        if let Err((ours, _)) = verdict {
            let process = proven.claims.from;
            return Err(
                Refusal::Differs(format!("it says that it is process {process}; {ours}")).into(),
            );
        }
        // Nobody waits for guests any more when all are there.
        let _ = self.come_in.send((proven.claims, line)).await;
        Ok(())
    }

    /// Whether a process that knows the secret belongs here, and for what it comes. What keeps it out is said in the words of
    /// this process and in those of the other.
    async fn judge(&self, theirs: &Claims) -> Result<Result<(), (String, String)>, Unconnected> {
        let mut known = self.generation.clone();
        let generation = match theirs.purpose {
            Purpose::Control => None,
            Purpose::Data => {
                let known = known.wait_for(Option::is_some).await;
                *known.map_err(|_| Unconnected::Failed("the run is over".to_owned()))?
            }
        };
        let ours = self.place.claims(theirs.purpose, theirs.from, generation);
        if let Err(differing) = compare(&ours, theirs) {
            return Ok(Err(differing));
        }
        // Each looks for those with lower numbers, and all for process 0.
        let misled = match theirs.purpose {
            Purpose::Control => self.place.process != 0,
            Purpose::Data => theirs.from < self.place.process,
        };
        if misled {
            let both = format!(
                "process {} does not look for process {}",
                theirs.from, self.place.process
            );
            return Ok(Err((both.clone(), both)));
        }
        if theirs.purpose == Purpose::Control && self.generation.borrow().is_some() {
            // It waits until this run has ended, and is let into the next.
            let why = format!("process {} is in the run already", theirs.from);
            return Err(Unconnected::Failed(why));
        }
        Ok(Ok(()))
    }
}

/// The greeting of whoever has connected. Whoever says anything else is not waited for.
async fn read_greeting(stream: &mut TcpStream) -> Result<Greeting, Unconnected> {
    let mut greeted: Greeting = [0; GREETING_BYTES];
    let mut arrived = 0;
    while arrived < GREETING_BYTES {
        match stream.read(&mut greeted[arrived..]).await? {
            0 => return Err(Unconnected::Failed("it closed the connection".to_owned())),
            read => arrived += read,
        }
        if !may_be_greeting(&greeted[..arrived]) {
            return Err(Unconnected::Refused(Refusal::Stranger));
        }
    }
    Ok(greeted)
}
