//! Configuration of an embedded server.

/// The public key that every Cosmos DB emulator uses. It protects nothing: it only keeps accidents apart.
pub const WELL_KNOWN_KEY: &str =
    "C2y6yDjf5/R+ob0N8A7Cgv30VRDJIWEHLM+4QDU5DE2nQ9nDuVTqobD4b8mGGyPMbIZnqyMsEcaGQy67XIw/Jw==";

/// How to run a server.
#[derive(Clone, Debug)]
pub struct EmulatorConfig {
    /// Address to listen on, as an IP address. Default `127.0.0.1`; official SDKs accept plain HTTP on loopback only.
    pub host: String,
    /// TCP port; 0 (the default) takes a free one.
    pub port: u16,
    /// Physical partitions of every container, 1 to 1,000. Default 4. More partitions mean more feed ranges to read in
    /// parallel, and more locks; a container keeps the number it was created with.
    pub partitions: usize,
    /// Account key, base64. Default: the emulators' public key.
    pub key: String,
    /// Threads that serve requests, 1 to 64. Default 1: a loopback server shares its cores with its clients.
    pub worker_threads: usize,
}

impl Default for EmulatorConfig {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port: 0,
            partitions: 4,
            key: WELL_KNOWN_KEY.to_owned(),
            worker_threads: 1,
        }
    }
}

impl EmulatorConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// One clause that names the field and its range.
    pub fn validate(&self) -> Result<(), String> {
        if self.host.parse::<std::net::IpAddr>().is_err() {
            return Err(format!(
                "host {} is not an IP address: use 127.0.0.1",
                self.host
            ));
        }
        if !(1..=1_000).contains(&self.partitions) {
            return Err(format!(
                "partitions is {}, but must be 1 to 1000",
                self.partitions
            ));
        }
        if !(1..=64).contains(&self.worker_threads) {
            return Err(format!(
                "worker_threads is {}, but must be 1 to 64",
                self.worker_threads
            ));
        }
        if crate::http::auth::Authorizer::new(&self.key).is_none() {
            return Err(
                "key is not base64, or empty: leave it out for the emulators' public key"
                    .to_owned(),
            );
        }
        Ok(())
    }
}
