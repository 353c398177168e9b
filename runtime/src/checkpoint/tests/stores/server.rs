//! A stand-in for a cloud's object store, as a child process.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::mpsc;
use std::time::Duration;

use object_store::ClientOptions;
use object_store::azure::{AzureAccessKey, AzureAuthorizer, AzureCredential};
use object_store::client::{HttpConnector, HttpRequest, HttpRequestBody, ReqwestConnector};

use super::install::{Installation, NODE, PYTHON, command, skipped, stop};
use crate::checkpoint::{CheckpointStore, Location, Settings};

/// Longest that a stand-in may take to say where it listens.
const START: Duration = Duration::from_secs(60);
/// The account that every Azurite has, and its public key.
const ACCOUNT: &str = "devstoreaccount1";
pub(super) const KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// Which store it stands in for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Azurite. It checks signatures.
    Azure,
    /// moto. It takes every key for good.
    S3,
    /// moto, which knows no key, so it refuses every request.
    ClosedS3,
}

/// A running stand-in with an empty bucket or container called `bucket`. Dropping it ends it.
pub(super) struct Server {
    child: Child,
    kind: Kind,
    /// `http://127.0.0.1:PORT`
    pub(super) endpoint: String,
}

impl Kind {
    fn program(self) -> (&'static str, &'static Installation, &'static [&'static str]) {
        match self {
            Kind::Azure => (
                "azure",
                &NODE,
                &[
                    "node",
                    "node_modules/azurite/dist/src/blob/main.js",
                    "--inMemoryPersistence",
                    "--skipApiVersionCheck",
                    "--blobHost",
                    "127.0.0.1",
                    "--blobPort",
                    "0",
                ],
            ),
            Kind::S3 | Kind::ClosedS3 => (
                "s3",
                &PYTHON,
                &[
                    "venv/bin/python",
                    "-m",
                    "moto.server",
                    "-H",
                    "127.0.0.1",
                    "-p",
                    "0",
                ],
            ),
        }
    }
}

impl Server {
    /// `None` if tests with stand-ins are to be left out.
    pub(super) async fn start(kind: Kind) -> Option<Server> {
        if skipped(&format!("checkpoints on a stand-in for {kind:?}")) {
            return None;
        }
        let (child, endpoint) = tokio::task::spawn_blocking(move || spawn(kind))
            .await
            .unwrap()
            .unwrap_or_else(|problem| panic!("{kind:?}: {problem}"));
        let server = Server {
            child,
            kind,
            endpoint,
        };
        if kind != Kind::ClosedS3 {
            server.create_bucket().await;
        }
        Some(server)
    }

    /// `job` in the bucket of this server, below a prefix.
    pub(super) fn open(&self, job: &str, settings: &Settings) -> CheckpointStore {
        CheckpointStore::open_with(&self.location("bucket"), job, settings).unwrap()
    }

    pub(super) fn location(&self, bucket: &str) -> Location {
        let scheme = match self.kind {
            Kind::Azure => "az",
            Kind::S3 | Kind::ClosedS3 => "s3",
        };
        format!("{scheme}://{bucket}/some/prefix").parse().unwrap()
    }

    /// What the environment would say.
    pub(super) fn settings(&self) -> Settings {
        self.settings_with(KEY, &self.endpoint)
    }

    /// The same with another key, or by way of a proxy.
    pub(super) fn settings_with(&self, key: &str, endpoint: &str) -> Settings {
        let azure = format!("{endpoint}/{ACCOUNT}");
        let variables = match self.kind {
            Kind::Azure => [
                ("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT),
                ("AZURE_STORAGE_ACCOUNT_KEY", key),
                ("AZURE_STORAGE_ENDPOINT", &azure),
                ("AZURE_ALLOW_HTTP", "true"),
                ("AZURE_TIMEOUT", "5s"),
            ],
            Kind::S3 | Kind::ClosedS3 => [
                ("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE"),
                ("AWS_SECRET_ACCESS_KEY", key),
                ("AWS_ENDPOINT_URL", endpoint),
                ("AWS_ALLOW_HTTP", "true"),
                ("AWS_TIMEOUT", "5s"),
            ],
        };
        Settings::new(variables.map(|(name, value)| (name.to_owned(), value.to_owned())))
    }

    /// `object_store` makes objects only.
    async fn create_bucket(&self) {
        let path = match self.kind {
            Kind::Azure => format!("{ACCOUNT}/bucket?restype=container"),
            Kind::S3 | Kind::ClosedS3 => "bucket".to_owned(),
        };
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.method_mut() = "PUT".parse().unwrap();
        *request.uri_mut() = format!("{}/{path}", self.endpoint).parse().unwrap();
        if self.kind == Kind::Azure {
            let key = AzureCredential::AccessKey(AzureAccessKey::try_new(KEY).unwrap());
            AzureAuthorizer::new(&key, ACCOUNT)
                .try_authorize(&mut request)
                .unwrap();
        }
        let options = ClientOptions::new().with_allow_http(true);
        let client = ReqwestConnector::default().connect(&options).unwrap();
        let response = client.execute(request).await.unwrap();
        assert!(response.status().is_success(), "{}", response.status());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        stop(&mut self.child);
    }
}

/// Installs and starts it; returns it with the URL that it listens on.
fn spawn(kind: Kind) -> Result<(Child, String), String> {
    let (name, installation, words) = kind.program();
    let here = "src/checkpoint/tests/stores";
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(here).join(name);
    let home = target_directory().join("tmp/stores").join(name);
    installation.make(&source, &home, |_| false)?;
    let io = |error: std::io::Error| format!("cannot run {}: {error}", words[0]);
    let (output, writer) = std::io::pipe().map_err(io)?;
    let mut command = command(words, &home);
    if kind == Kind::ClosedS3 {
        command.env("INITIAL_NO_AUTH_ACTION_COUNT", "0");
    }
    let mut child = command
        .stdout(writer.try_clone().map_err(io)?)
        .stderr(writer)
        .spawn()
        .map_err(io)?;
    drop(command);
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        // To the end, or the server would stand still once the pipe is full.
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    let mut said = Vec::new();
    while let Ok(line) = lines.recv_timeout(START) {
        if let Some(at) = line.find("http://127.0.0.1:") {
            return Ok((child, line[at..].trim_end().to_owned()));
        }
        said.push(line);
    }
    stop(&mut child);
    Err(format!(
        "it does not say where it listens\n{}",
        said.join("\n")
    ))
}

/// Cargo names its directory for temporary files to integration tests alone.
fn target_directory() -> PathBuf {
    let program = std::env::current_exe().expect("a test knows its program");
    // target/<profile>/deps/<program>
    program
        .ancestors()
        .nth(3)
        .expect("cargo runs it")
        .to_owned()
}
