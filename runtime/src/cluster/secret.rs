//! The secret that the processes of a cluster share, and proofs of knowing it.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::{Context, Error, ErrorKind, Result};

/// The environment variable that holds the secret.
pub const SECRET_VARIABLE: &str = "TIDEFEED_CLUSTER_SECRET";

/// The shortest secret, in bytes: 128 random bits take 22 letters and digits. A guess against typing a word.
const MIN_BYTES: usize = 16;

/// A secret that all processes of a cluster know and nobody else. It is never printed.
#[derive(Clone)]
pub struct Secret(Arc<[u8]>);

impl Secret {
    /// This secret, without white space around it.
    ///
    /// # Errors
    /// `Config` when it is shorter than 16 bytes.
    pub fn new(text: &str) -> Result<Secret> {
        let text = text.trim();
        if text.len() < MIN_BYTES {
            return Err(Error::new(
                ErrorKind::Config,
                format!(
                    "the cluster's secret has {} bytes: give {MIN_BYTES} or more, as from `openssl rand -hex 32`",
                    text.len()
                ),
            ));
        }
        Ok(Secret(text.as_bytes().into()))
    }

    /// The secret in a file.
    ///
    /// # Errors
    /// `Config` when the file cannot be read or holds too short a secret.
    pub fn from_file(path: &Path) -> Result<Secret> {
        let text = std::fs::read_to_string(path).context(ErrorKind::Config, || {
            format!("cannot read the cluster's secret from {}", path.display())
        })?;
        Secret::new(&text)
    }

    /// The secret in the environment variable [`SECRET_VARIABLE`].
    ///
    /// # Errors
    /// `Config` when the variable is not set or holds too short a secret.
    pub fn from_env() -> Result<Secret> {
        let text = std::env::var(SECRET_VARIABLE).context(ErrorKind::Config, || {
            format!(
                "a cluster needs a secret that its processes share: set {SECRET_VARIABLE}, or give --cluster-secret-file"
            )
        })?;
        Secret::new(&text)
    }

    /// A new one, 256 random bits in hexadecimal digits.
    ///
    /// # Errors
    /// `Internal` when the system has no random bytes.
    pub fn random() -> Result<String> {
        let bytes = random_bytes::<32>()?;
        Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// A random number, for what has to differ and need not be secret.
    ///
    /// # Errors
    /// `Internal` when the system has no random bytes.
    pub fn random_number() -> Result<u64> {
        random_bytes::<8>().map(u64::from_be_bytes)
    }

    /// The proof of knowing the secret, for these parts in this order.
    pub(super) fn proof(&self, parts: &[&[u8]]) -> Vec<u8> {
        self.mac(parts).finalize().into_bytes().to_vec()
    }

    /// Whether `proof` is that proof. Takes the same time wherever it differs.
    pub(super) fn proves(&self, parts: &[&[u8]], proof: &[u8]) -> bool {
        self.mac(parts).verify_slice(proof).is_ok()
    }

    fn mac(&self, parts: &[&[u8]]) -> Hmac<Sha256> {
        let mut mac =
            <Hmac<Sha256> as Mac>::new_from_slice(&self.0).expect("a key may have any length");
        for part in parts {
            // With its length, so that bytes cannot move from one part to the next.
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Bytes that nobody can foretell.
///
/// # Errors
/// `Internal` when the system has none.
pub(super) fn random_bytes<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| Error::internal(format!("the system gives no random bytes: {error}")))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_of_one_secret_and_of_its_parts_as_they_are_cut() {
        let secret = Secret::new("0123456789abcdef").expect("long enough");
        let proof = secret.proof(&[b"ab", b"c"]);
        assert!(secret.proves(&[b"ab", b"c"], &proof));
        assert!(!secret.proves(&[b"a", b"bc"], &proof));
        assert!(!secret.proves(&[b"ab", b"c"], &proof[1..]));
        let other = Secret::new("0123456789abcdeX").expect("long enough");
        assert!(!other.proves(&[b"ab", b"c"], &proof));
    }

    #[test]
    fn a_secret_is_long_random_and_not_printed() {
        let report = Secret::new(" short\n").expect_err("short").report();
        assert!(report.contains("5 bytes") && !report.contains("short\n"));
        let (one, two) = (Secret::random(), Secret::random());
        let (one, two) = (one.expect("random"), two.expect("random"));
        assert!(one != two && one.len() == 64);
        let shown = format!("{:?}", Secret::new(&one).expect("long enough"));
        assert!(!shown.contains(&one[..4]), "{shown}");
    }
}
