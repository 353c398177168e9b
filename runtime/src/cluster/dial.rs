//! The dialer's side of connections, and the messages of a handshake.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::assemble::Place;
use super::frame::Decoder;
use super::handshake::{Claims, GREETING_BYTES, Greeting, MAX_BYTES, Refusal, hello};
use super::tls::{Line, mistrust};
use crate::{Error, Result};

/// Why a connection was not made, by whoever dialed or at the door of the other.
#[derive(Debug)]
pub(super) enum Unconnected {
    /// There may be one later.
    Failed(String),
    Refused(Refusal),
}

impl From<std::io::Error> for Unconnected {
    fn from(error: std::io::Error) -> Self {
        match mistrust(&error) {
            Some(why) => Unconnected::Refused(Refusal::Differs(why)),
            None => Unconnected::Failed(error.to_string()),
        }
    }
}

impl From<Error> for Unconnected {
    fn from(error: Error) -> Self {
        Unconnected::Failed(error.report())
    }
}

impl From<Refusal> for Unconnected {
    fn from(refusal: Refusal) -> Self {
        Unconnected::Refused(refusal)
    }
}

/// Connects, and proves to belong there.
pub(super) async fn dial_once(
    address: &str,
    place: &Place,
    claims: &Claims,
) -> Result<Line, Unconnected> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let opening = place.opening()?;
    stream.write_all(&opening.greeting()).await?;
    let mut greeted: Greeting = [0; GREETING_BYTES];
    stream.read_exact(&mut greeted).await?;
    let (hello, dialed) = hello(&place.secret, &opening, &greeted, claims)?;
    let mut line = Line::dialed(stream, place.tls.as_ref(), address).await?;
    write_message(&mut line, &hello).await?;
    dialed.answered(&read_message(&mut line).await?)?;
    Ok(line)
}

/// One message of the handshake.
pub(super) async fn write_message(stream: &mut Line, message: &[u8]) -> std::io::Result<()> {
    let length = u32::try_from(message.len()).map_err(std::io::Error::other)?;
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(message).await?;
    stream.flush().await
}

/// One message, and not a byte of what follows it: that is not the handshake's.
pub(super) async fn read_message(stream: &mut Line) -> std::io::Result<Vec<u8>> {
    let mut decoder = Decoder::new(MAX_BYTES);
    loop {
        if let Some(message) = decoder.next_bytes().map_err(std::io::Error::other)? {
            return Ok(message);
        }
        let at = decoder.arrived.len();
        decoder.arrived.resize(at + decoder.missing(), 0);
        stream.read_exact(&mut decoder.arrived[at..]).await?;
    }
}
