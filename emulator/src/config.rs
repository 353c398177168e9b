//! Configuration of an embedded server.

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// The public key that every Cosmos DB emulator uses. It protects nothing: it only keeps accidents apart.
pub const WELL_KNOWN_KEY: &str =
    "C2y6yDjf5/R+ob0N8A7Cgv30VRDJIWEHLM+4QDU5DE2nQ9nDuVTqobD4b8mGGyPMbIZnqyMsEcaGQy67XIw/Jw==";

/// Highest throughput of a container, in RU/s (service limit).
pub(crate) const MAX_THROUGHPUT: u32 = 1_000_000;

/// Smallest size at which a partition may be told to split, in bytes: below, every document would be a split.
const MIN_SPLIT_BYTES: u64 = 1_024;

/// How to run a server.
///
/// Fields are added over time: name those that matter and take the rest from `..Default::default()`.
#[derive(Clone, Debug)]
pub struct EmulatorConfig {
    /// Address to listen on, as an IP address. Default `127.0.0.1`; official SDKs accept plain HTTP on loopback only.
    /// On any other address everyone who reaches it and knows the key can read and change everything, unencrypted.
    pub host: String,
    /// TCP port; 0 (the default) takes a free one.
    pub port: u16,
    /// Physical partitions of every container, 1 to 1,000. Default 4. More partitions mean more feed ranges to read in
    /// parallel, and more locks; a container keeps the number it was created with.
    pub partitions: usize,
    /// Account key, base64. Default: the emulators' public key.
    pub key: String,
    /// An Entra token (`type=aad`) that is accepted beside the key, not empty. It is compared, not verified: any text of
    /// printable ASCII characters but `&` and `%` will do. `None` (the default): no token is.
    pub entra_token: Option<String>,
    /// Threads that serve requests, 1 to 64. Default 1: a loopback server shares its cores with its clients.
    pub worker_threads: usize,
    /// Throughput of a container that is created without an offer, in RU/s, 1 to 1,000,000; offers are then enforced.
    /// `None` (the default): offers are remembered and not enforced.
    pub throughput: Option<u32>,
    /// Directory in which data survives the process; it is created if it is missing. `None` (the default): data lives in
    /// memory and ends with the process.
    pub data: Option<PathBuf>,
    /// When writes reach the disk. Only with [`data`](Self::data).
    pub fsync: FsyncPolicy,
    /// How far back the change feed mode AllVersionsAndDeletes reaches, a second or more. Default 7 days, as with
    /// 7-day continuous backup. Longer keeps more versions in memory.
    pub retention: Duration,
    /// Size at which a partition splits in two, in bytes, 1,024 or more. `None` (the default): never by itself.
    pub split_at_bytes: Option<u64>,
    /// JSON file, at most 1 GiB, with what is created before the server listens:
    ///
    /// ```json
    /// {"databases": [{"id": "shop", "throughput": 400, "containers": [
    ///   {"id": "orders", "partitionKey": "/customer", "documents": [{"id": "1", "customer": "a"}]}]}]}
    /// ```
    ///
    /// A container takes any property of a create request; `partitionKey` may be one path or the whole property, and
    /// `throughput` is in RU/s and may be left out, like `documents`. What exists already stays as it is, so that a
    /// server with durable data can start with its file again; what was deleted since comes back.
    pub seed_file: Option<PathBuf>,
}

/// When writes reach the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum FsyncPolicy {
    /// Once a second, and when the server stops. A write is with the operating system before its reply, so a crash of
    /// the process loses nothing; a crash of the machine may lose the last second.
    #[default]
    Interval,
    /// Before every reply to a write: a crash of the machine loses nothing acknowledged either, at the price of a disk
    /// write each.
    Always,
}

impl FromStr for FsyncPolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "interval" => Ok(Self::Interval),
            "always" => Ok(Self::Always),
            _ => Err("must be interval or always".to_owned()),
        }
    }
}

impl Default for EmulatorConfig {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port: 0,
            partitions: 4,
            key: WELL_KNOWN_KEY.to_owned(),
            entra_token: None,
            worker_threads: 1,
            throughput: None,
            data: None,
            fsync: FsyncPolicy::default(),
            retention: Duration::from_secs(7 * 86_400),
            split_at_bytes: None,
            seed_file: None,
        }
    }
}

impl EmulatorConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// One clause that names the field and its range.
    pub fn validate(&self) -> Result<(), String> {
        if self.host.parse::<IpAddr>().is_err() {
            return Err(format!(
                "host {} is not an IP address: use 127.0.0.1",
                self.host
            ));
        }
        within("partitions", self.partitions as u64, 1, 1_000)?;
        within("worker_threads", self.worker_threads as u64, 1, 64)?;
        if let Some(throughput) = self.throughput {
            within("throughput", throughput.into(), 1, MAX_THROUGHPUT.into())?;
        }
        if let Some(bytes) = self.split_at_bytes {
            within("split_at_bytes", bytes, MIN_SPLIT_BYTES, u64::MAX)?;
        }
        if self.retention < Duration::from_secs(1) {
            return Err(format!(
                "retention is {:?}, but must be a second or more",
                self.retention
            ));
        }
        for (name, path) in [("data", &self.data), ("seed_file", &self.seed_file)] {
            if path
                .as_ref()
                .is_some_and(|path| path.as_os_str().is_empty())
            {
                return Err(format!("{name} is an empty path: leave it out"));
            }
        }
        if self.data.as_ref().is_some_and(|path| path.is_file()) {
            return Err("data is a file, but must be a directory".to_owned());
        }
        if crate::http::auth::Authorizer::new(&self.key).is_none() {
            return Err(
                "key is not base64, or empty: leave it out for the emulators' public key"
                    .to_owned(),
            );
        }
        let carried = |byte: u8| byte.is_ascii_graphic() && byte != b'&' && byte != b'%';
        if let Some(token) = &self.entra_token
            && (token.is_empty() || !token.bytes().all(carried))
        {
            return Err(
                "entra_token must be printable ASCII characters but & and %, at least one"
                    .to_owned(),
            );
        }
        Ok(())
    }

    /// Whether only clients on the same machine can connect.
    pub fn is_loopback_only(&self) -> bool {
        self.host
            .parse::<IpAddr>()
            .is_ok_and(|ip| ip.to_canonical().is_loopback())
    }
}

fn within(name: &str, value: u64, least: u64, most: u64) -> Result<(), String> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(match most {
        u64::MAX => format!("{name} is {value}, but must be at least {least}"),
        _ => format!("{name} is {value}, but must be {least} to {most}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_out_of_range_is_named() {
        let good = EmulatorConfig::default();
        assert_eq!(good.validate(), Ok(()));
        assert!(good.is_loopback_only());
        type Change = fn(&mut EmulatorConfig);
        let changes: [(Change, &str); 11] = [
            (|c| c.host = "localhost".to_owned(), "host localhost is"),
            (
                |c| c.partitions = 0,
                "partitions is 0, but must be 1 to 1000",
            ),
            (|c| c.worker_threads = 65, "worker_threads is 65"),
            (
                |c| c.throughput = Some(0),
                "throughput is 0, but must be 1 to 1000000",
            ),
            (
                |c| c.split_at_bytes = Some(7),
                "split_at_bytes is 7, but must be at least 1024",
            ),
            (|c| c.retention = Duration::ZERO, "retention is 0ns"),
            (|c| c.data = Some(PathBuf::new()), "data is an empty path"),
            (
                |c| c.seed_file = Some(PathBuf::new()),
                "seed_file is an empty path",
            ),
            (|c| c.key = "?".to_owned(), "key is not base64"),
            (|c| c.entra_token = Some(String::new()), "entra_token must"),
            (
                |c| c.entra_token = Some("a b".to_owned()),
                "entra_token must",
            ),
        ];
        for (change, expected) in changes {
            let mut config = good.clone();
            change(&mut config);
            let problem = config.validate().unwrap_err();
            assert!(problem.starts_with(expected), "{problem}");
        }
    }
}
