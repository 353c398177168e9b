//! Messages between processes as they are on the wire: a length, then JSON.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Context, Error, ErrorKind, Result};

const LENGTH_BYTES: usize = 4;

/// A message as bytes.
///
/// # Errors
/// `Internal` when it has no JSON form or is longer than 4 GiB.
pub(super) fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>> {
    let mut bytes = vec![0; LENGTH_BYTES];
    let no_form = || "a message to another process has no JSON form";
    serde_json::to_writer(&mut bytes, message).context(ErrorKind::Internal, no_form)?;
    let length = u32::try_from(bytes.len() - LENGTH_BYTES);
    let length = length.context(ErrorKind::Internal, || "a message has more than 4 GiB")?;
    bytes[..LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
    Ok(bytes)
}

/// Cuts what arrives into messages.
#[derive(Debug)]
pub(super) struct Decoder {
    /// What has arrived and is no message yet.
    pub(super) arrived: Vec<u8>,
    /// The longest message that is read.
    max_bytes: usize,
}

impl Decoder {
    pub(super) fn new(max_bytes: usize) -> Self {
        Decoder {
            arrived: Vec::new(),
            max_bytes,
        }
    }

    /// The next message, if all of it has arrived.
    ///
    /// # Errors
    /// `Unreachable` when it is longer than it may be or not what is awaited: whoever sent it is no process of this cluster.
    pub(super) fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>> {
        match self.next_bytes()? {
            Some(bytes) => serde_json::from_slice(&bytes)
                .context(ErrorKind::Unreachable, || "a message is not understood")
                .map(Some),
            None => Ok(None),
        }
    }

    /// Bytes that are certain to be missing of the message that has begun: of its length first, then of all of it.
    pub(super) fn missing(&self) -> usize {
        let arrived = self.arrived.len();
        match self.arrived.first_chunk::<LENGTH_BYTES>() {
            None => LENGTH_BYTES - arrived,
            Some(length) => {
                let whole = LENGTH_BYTES.saturating_add(u32::from_be_bytes(*length) as usize);
                whole.saturating_sub(arrived)
            }
        }
    }

    /// The next message as it is.
    ///
    /// # Errors
    /// As [`Decoder::next`].
    pub(super) fn next_bytes(&mut self) -> Result<Option<Vec<u8>>> {
        let Some(length) = self.arrived.first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length) as usize;
        if length > self.max_bytes {
            return Err(Error::new(
                ErrorKind::Unreachable,
                format!("a message of {length} bytes is too long"),
            ));
        }
        if self.arrived.len() < LENGTH_BYTES + length {
            return Ok(None);
        }
        let rest = self.arrived.split_off(LENGTH_BYTES + length);
        let message = std::mem::replace(&mut self.arrived, rest);
        Ok(Some(message[LENGTH_BYTES..].to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_however_they_are_cut() {
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..200 {
            let sent: Vec<Vec<u64>> = (0..random.usize(1..6))
                .map(|_| (0..random.usize(0..20)).map(|_| random.u64(..)).collect())
                .collect();
            let bytes: Vec<u8> = sent.iter().flat_map(|m| encode(m).expect("JSON")).collect();
            let mut decoder = Decoder::new(1000);
            let (mut at, mut found) = (0, Vec::new());
            while at < bytes.len() {
                let to = random.usize(at + 1..=bytes.len().min(at + 40));
                decoder.arrived.extend_from_slice(&bytes[at..to]);
                at = to;
                while let Some(message) = decoder.next::<Vec<u64>>().expect("sound") {
                    found.push(message);
                }
            }
            assert_eq!(found, sent, "seed {seed}");
            assert!(decoder.arrived.is_empty());
        }
    }

    #[test]
    fn garbage_is_an_error_or_waits_and_takes_no_memory() {
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..2000 {
            let mut decoder = Decoder::new(64);
            let bytes = random.usize(0..100);
            decoder.arrived.extend((0..bytes).map(|_| random.u8(..)));
            while let Ok(Some(_)) = decoder.next::<Vec<u64>>() {}
            assert!(decoder.arrived.len() <= 100, "seed {seed}");
        }
        let mut long = Decoder::new(64);
        long.arrived.extend_from_slice(&[0, 0, 1, 0]);
        assert!(long.next::<u64>().is_err());
    }
}
