//! One connection between two members that know each other: messages both ways, and who is lost.

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};

use super::frame::{Decoder, encode};
use super::pulse::{Beat, Pulse};
use super::tls::Line;
use crate::{Error, ErrorKind, Result};

/// The longest message: what a run begins with names every sink of the job.
const MAX_BYTES: usize = 16 << 20;

/// A connection and what was heard on it.
pub(super) struct Wire {
    stream: Line,
    decoder: Decoder,
    pulse: Pulse,
    began: Instant,
    /// What to call the other end.
    pub(super) peer: String,
}

/// What happens on a connection.
#[derive(Debug)]
pub(super) enum Event<T> {
    /// The peer says this.
    Said(T),
    /// It is time to say something.
    Due,
}

impl Wire {
    pub(super) fn new(stream: Line, peer: String, beat: Beat) -> Wire {
        Wire {
            stream,
            decoder: Decoder::new(MAX_BYTES),
            pulse: Pulse::new(beat, Default::default()),
            began: Instant::now(),
            peer,
        }
    }

    /// Says something.
    ///
    /// # Errors
    /// `PeerLost` when the connection is broken, or the peer takes nothing any more.
    pub(super) async fn say<T: Serialize>(&mut self, message: &T) -> Result<()> {
        let bytes = encode(message)?;
        let patience = self.pulse.timeout();
        let said = async {
            self.stream.write_all(&bytes).await?;
            self.stream.flush().await
        };
        match timeout(patience, said).await {
            Ok(Ok(())) => {
                self.pulse.said(self.began.elapsed());
                Ok(())
            }
            Ok(Err(error)) => Err(self.lost("the connection broke").with_source(error)),
            Err(_) => Err(self.lost(&format!("it has taken nothing for {patience:?}"))),
        }
    }

    /// What happens next. Nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// `PeerLost` when the connection is broken, the peer says what nobody understands, or it has been silent for too long.
    pub(super) async fn event<T: DeserializeOwned>(&mut self) -> Result<Event<T>> {
        loop {
            if let Some(message) = self
                .decoder
                .next()
                .map_err(|error| self.lost("it does not make sense").with_source(error))?
            {
                return Ok(Event::Said(message));
            }
            let now = self.began.elapsed();
            if self.pulse.lost(now) {
                let silent = self.pulse.timeout();
                return Err(self.lost(&format!("there was no sign of life for {silent:?}")));
            }
            if self.pulse.due(now) {
                return Ok(Event::Due);
            }
            tokio::select! {
                read = self.stream.read_buf(&mut self.decoder.arrived) => match read {
                    Ok(0) => return Err(self.lost("it closed the connection")),
                    Ok(_) => self.pulse.heard(self.began.elapsed()),
                    Err(error) => {
                        return Err(self.lost("the connection broke").with_source(error));
                    }
                },
                () = sleep(self.pulse.rest(now)) => {}
            }
        }
    }

    fn lost(&self, why: &str) -> Error {
        Error::new(ErrorKind::PeerLost, format!("{} is lost: {why}", self.peer))
    }
}
