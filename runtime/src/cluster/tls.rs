//! Connections between processes that are encrypted.
//!
//! 1. Both ends have a certificate that the same authority has signed: the dialer's proves that it may come, and the acceptor's
//!    that it is the host that was looked for, by its name or address.
//! 2. TLS begins after the two have greeted each other (see `handshake.rs`), so that an end with TLS and one without can say so.
//!    Neither goes on without if it was told to use it. The secret is proved within TLS, and remains what makes a member.
//! 3. TLS 1.3 only.
//! 4. timely reads and writes from threads of its own, both at once: see [`Sealed`].

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{self, ClientConfig, Connection, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::{Context, Error, ErrorKind, Result};

/// The names that a Kubernetes secret of type `kubernetes.io/tls` gives them.
const AUTHORITY: &str = "ca.crt";
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";

/// The most bytes that are read from a socket at once: a TLS record and what is around it.
const READ_BYTES: usize = 17 << 10;

/// The certificate of this process, and whose certificates it accepts.
#[derive(Clone)]
pub struct Tls {
    connector: TlsConnector,
    acceptor: TlsAcceptor,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

impl Tls {
    /// With the files `tls.crt` (this process's certificate, and those between it and the authority), `tls.key` (its private key)
    /// and `ca.crt` (the authorities of all processes) in `directory`, all PEM.
    ///
    /// # Errors
    /// `Config` when a file cannot be read, or they do not go together.
    pub fn from_directory(directory: &Path) -> Result<Tls> {
        let file = |name: &str| directory.join(name);
        let cannot = |name: &str| format!("cannot use {}", file(name).display());
        let config = ErrorKind::Config;
        let mut roots = RootCertStore::empty();
        for authority in certificates(&file(AUTHORITY))? {
            roots.add(authority).context(config, || cannot(AUTHORITY))?;
        }
        let roots = Arc::new(roots);
        let chain = certificates(&file(CERTIFICATE))?;
        let key = PrivateKeyDer::from_pem_file(file(KEY)).context(config, || cannot(KEY))?;
        let provider = Arc::new(default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
                .build()
                .context(config, || cannot(AUTHORITY))?;
        let versions = &[&TLS13];
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .and_then(|server| {
                server
                    .with_client_cert_verifier(verifier)
                    .with_single_cert(chain.clone(), key.clone_key())
            })
            .context(config, || cannot(CERTIFICATE))?;
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .and_then(|client| {
                client
                    .with_root_certificates(roots)
                    .with_client_auth_cert(chain, key)
            })
            .context(config, || cannot(CERTIFICATE))?;
        Ok(Tls {
            connector: TlsConnector::from(Arc::new(client)),
            acceptor: TlsAcceptor::from(Arc::new(server)),
        })
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let cannot = || format!("cannot read certificates from {}", path.display());
    let found = CertificateDer::pem_file_iter(path).context(ErrorKind::Config, cannot)?;
    let found: Vec<_> = found
        .collect::<std::result::Result<_, _>>()
        .context(ErrorKind::Config, cannot)?;
    match found.is_empty() {
        true => Err(Error::new(
            ErrorKind::Config,
            format!("there is no certificate in {}", path.display()),
        )),
        false => Ok(found),
    }
}

/// A connection, encrypted or not.
#[derive(Debug)]
pub(super) enum Line {
    Plain(tokio::net::TcpStream),
    Sealed(Box<TlsStream<tokio::net::TcpStream>>),
}

impl Line {
    /// The dialer's end, with the process at `address`.
    pub(super) async fn dialed(
        stream: tokio::net::TcpStream,
        tls: Option<&Tls>,
        address: &str,
    ) -> io::Result<Line> {
        let Some(tls) = tls else {
            return Ok(Line::Plain(stream));
        };
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let stream = tls.connector.connect(name, stream).await?;
        Ok(Line::Sealed(Box::new(stream.into())))
    }

    /// The acceptor's end.
    pub(super) async fn accepted(
        stream: tokio::net::TcpStream,
        tls: Option<&Tls>,
    ) -> io::Result<Line> {
        let Some(tls) = tls else {
            return Ok(Line::Plain(stream));
        };
        let stream = tls.acceptor.accept(stream).await?;
        Ok(Line::Sealed(Box::new(stream.into())))
    }

    /// The socket, and what encrypts it, for threads.
    pub(super) fn into_std(self) -> io::Result<(TcpStream, Option<Arc<Sealed>>)> {
        let (stream, sealed) = match self {
            Line::Plain(stream) => (stream, None),
            Line::Sealed(stream) => match *stream {
                TlsStream::Client(stream) => {
                    let (stream, connection) = stream.into_inner();
                    (stream, Some(Sealed::new(connection.into())))
                }
                TlsStream::Server(stream) => {
                    let (stream, connection) = stream.into_inner();
                    (stream, Some(Sealed::new(connection.into())))
                }
            },
        };
        Ok((stream.into_std()?, sealed.map(Arc::new)))
    }
}

/// What TLS itself finds wrong with the other end: its certificate, or what it says of ours. Trying again does not mend it.
pub(super) fn mistrust(error: &io::Error) -> Option<String> {
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    match error {
        rustls::Error::InvalidCertificate(_) => Some(format!("its certificate: {error}")),
        rustls::Error::NoCertificatesPresented => Some("it shows no certificate".to_owned()),
        rustls::Error::AlertReceived(alert) => {
            Some(format!("it does not accept this process: {alert:?}"))
        }
        _ => None,
    }
}

impl AsyncRead for Line {
    fn poll_read(
        self: Pin<&mut Self>,
        task: &mut TaskContext<'_>,
        bytes: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Line::Plain(stream) => Pin::new(stream).poll_read(task, bytes),
            Line::Sealed(stream) => Pin::new(stream).poll_read(task, bytes),
        }
    }
}

impl AsyncWrite for Line {
    fn poll_write(
        self: Pin<&mut Self>,
        task: &mut TaskContext<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Line::Plain(stream) => Pin::new(stream).poll_write(task, bytes),
            Line::Sealed(stream) => Pin::new(stream).poll_write(task, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Line::Plain(stream) => Pin::new(stream).poll_flush(task),
            Line::Sealed(stream) => Pin::new(stream).poll_flush(task),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Line::Plain(stream) => Pin::new(stream).poll_shutdown(task),
            Line::Sealed(stream) => Pin::new(stream).poll_shutdown(task),
        }
    }
}

/// A TLS session that one thread reads while another writes.
///
/// The session is locked only while bytes are turned into others, never while a socket is waited for: two ends that both write,
/// and whose sockets are full, must both go on reading.
pub(super) struct Sealed {
    session: Mutex<Connection>,
    /// What was read from the socket and the session has no room for yet. One thread reads.
    arrived: Mutex<VecDeque<u8>>,
    /// Held from encryption until the bytes are written, so that records leave in their order.
    leaving: Mutex<()>,
}

impl Sealed {
    fn new(session: Connection) -> Sealed {
        Sealed {
            session: Mutex::new(session),
            arrived: Mutex::default(),
            leaving: Mutex::new(()),
        }
    }

    /// Reads from `socket` until there is something to give, or its end.
    pub(super) fn read(&self, socket: &mut impl Read, bytes: &mut [u8]) -> io::Result<usize> {
        let mut arrived = self.arrived.lock();
        loop {
            {
                let mut session = self.session.lock();
                match session.reader().read(bytes) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    read => return read,
                }
                if !arrived.is_empty() {
                    // It has room now that all it had was taken.
                    session.read_tls(&mut *arrived)?;
                    session.process_new_packets().map_err(io::Error::other)?;
                    continue;
                }
            }
            let mut more = [0; READ_BYTES];
            match socket.read(&mut more)? {
                0 => return Ok(0),
                read => arrived.extend(&more[..read]),
            }
        }
    }

    /// Writes some of `bytes` to `socket`, or all.
    pub(super) fn write(&self, socket: &mut impl Write, bytes: &[u8]) -> io::Result<usize> {
        self.leave(socket, |session| session.writer().write(bytes))
    }

    /// Says that nothing follows.
    pub(super) fn close(&self, socket: &mut impl Write) -> io::Result<()> {
        self.leave(socket, |session| {
            session.send_close_notify();
            Ok(())
        })
    }

    fn leave<T>(
        &self,
        socket: &mut impl Write,
        say: impl FnOnce(&mut Connection) -> io::Result<T>,
    ) -> io::Result<T> {
        let _in_order = self.leaving.lock();
        let mut records = Vec::new();
        let said = {
            let mut session = self.session.lock();
            let said = say(&mut session)?;
            while session.wants_write() {
                session.write_tls(&mut records)?;
            }
            said
        };
        socket.write_all(&records)?;
        Ok(said)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use rcgen::{
        BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    };
    use tempfile::TempDir;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(60);

    /// Who signs certificates.
    pub(crate) struct Authority {
        issuer: Issuer<'static, KeyPair>,
        pem: String,
    }

    impl Authority {
        pub(crate) fn new() -> Authority {
            let mut params = CertificateParams::new(Vec::new()).expect("parameters");
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.distinguished_name = DistinguishedName::new();
            let name = format!("authority {:016x}", fastrand::u64(..));
            params.distinguished_name.push(DnType::CommonName, name);
            let key = KeyPair::generate().expect("a key");
            let pem = params.self_signed(&key).expect("signed").pem();
            let issuer = Issuer::new(params, key);
            Authority { issuer, pem }
        }

        /// The files of a process that is looked for by `name`.
        pub(crate) fn directory(&self, name: &str) -> TempDir {
            let params = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
            let key = KeyPair::generate().expect("a key");
            let certificate = params.signed_by(&key, &self.issuer).expect("signed");
            let directory = tempfile::tempdir().expect("a directory");
            let write = |name: &str, text: &str| {
                std::fs::write(directory.path().join(name), text).expect("written");
            };
            write(AUTHORITY, &self.pem);
            write(CERTIFICATE, &certificate.pem());
            write(KEY, &key.serialize_pem());
            directory
        }

        /// Makes a process accept whom this authority has signed.
        pub(crate) fn accept_in(&self, directory: &Path) {
            std::fs::write(directory.join(AUTHORITY), &self.pem).expect("written");
        }

        pub(crate) fn tls(&self, name: &str) -> Tls {
            Tls::from_directory(self.directory(name).path()).expect("they go together")
        }
    }

    /// Both ends of a connection over loopback.
    async fn ends(dialer: Tls, acceptor: Tls) -> (io::Result<Line>, io::Result<Line>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let dialed = async {
            let stream = tokio::net::TcpStream::connect(&address).await?;
            Line::dialed(stream, Some(&dialer), &address).await
        };
        let accepted = async {
            let (stream, _) = listener.accept().await?;
            Line::accepted(stream, Some(&acceptor)).await
        };
        tokio::join!(dialed, accepted)
    }

    fn in_thread(line: io::Result<Line>) -> (TcpStream, Arc<Sealed>) {
        let (stream, sealed) = line.expect("trusted").into_std().expect("a socket");
        stream.set_nonblocking(false).expect("blocking");
        // Should the other end have panicked.
        stream.set_write_timeout(Some(DEADLINE)).expect("a timeout");
        stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        (stream, sealed.expect("encrypted"))
    }

    fn random_bytes(seed: u64, bytes: usize) -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(seed);
        std::iter::repeat_with(|| random.u8(..))
            .take(bytes)
            .collect()
    }

    /// Far more than the sockets hold, both ways at once, in pieces of all sizes; no thread waits for another.
    #[tokio::test]
    async fn both_ends_write_and_read_at_once() {
        const BYTES: usize = 16 << 20;
        let authority = Authority::new();
        let (one, other) = ends(authority.tls("127.0.0.1"), authority.tls("127.0.0.1")).await;
        let seed = fastrand::u64(..);
        let mut threads = Vec::new();
        for (number, line) in [one, other].into_iter().enumerate() {
            let (mut socket, sealed) = in_thread(line);
            let (mut writes, writing) = (socket.try_clone().expect("a clone"), sealed.clone());
            let (said, heard) = (seed + number as u64, seed + 1 - number as u64);
            threads.push(std::thread::spawn(move || {
                let bytes = random_bytes(said, BYTES);
                let mut random = fastrand::Rng::with_seed(said);
                let mut at = 0;
                while at < BYTES {
                    let to = BYTES.min(at + random.usize(1..200_000));
                    at += writing.write(&mut writes, &bytes[at..to]).expect("taken");
                }
                writing.close(&mut writes).expect("closed");
            }));
            threads.push(std::thread::spawn(move || {
                let mut bytes = vec![0; BYTES];
                let mut random = fastrand::Rng::with_seed(heard);
                let mut at = 0;
                while at < BYTES {
                    let to = BYTES.min(at + random.usize(1..100_000));
                    let read = sealed.read(&mut socket, &mut bytes[at..to]).expect("read");
                    assert_ne!(read, 0, "seed {seed}: it ends after {at} bytes");
                    at += read;
                }
                assert!(bytes == random_bytes(heard, BYTES), "seed {seed}");
                assert_eq!(sealed.read(&mut socket, &mut [0]).expect("the end"), 0);
            }));
        }
        for thread in threads {
            thread.join().expect("as it was said");
        }
    }

    #[tokio::test]
    async fn another_authority_another_name_and_no_certificate_are_not_trusted() {
        let (ours, theirs) = (Authority::new(), Authority::new());
        let (dialed, _) = ends(ours.tls("127.0.0.1"), theirs.tls("127.0.0.1")).await;
        let why = mistrust(&dialed.expect_err("another authority")).expect("of TLS");
        assert!(why.contains("UnknownIssuer"), "{why}");
        let (dialed, _) = ends(ours.tls("127.0.0.1"), ours.tls("localhost")).await;
        let why = mistrust(&dialed.expect_err("another name")).expect("of TLS");
        assert!(why.contains("not valid for name"), "{why}");
    }

    #[test]
    fn files_that_are_missing_or_do_not_go_together_are_named() {
        let (ours, theirs) = (Authority::new(), Authority::new());
        let cases: [(&str, Option<String>); 4] = [
            (AUTHORITY, Some("no certificate".to_owned())),
            (CERTIFICATE, None),
            (KEY, Some(String::new())),
            (
                KEY,
                std::fs::read_to_string(theirs.directory("a").path().join(KEY)).ok(),
            ),
        ];
        for (name, text) in cases {
            let directory = ours.directory("a");
            let path = directory.path().join(name);
            match text {
                Some(text) => std::fs::write(&path, text).expect("written"),
                None => std::fs::remove_file(&path).expect("removed"),
            }
            let error = Tls::from_directory(directory.path()).expect_err("wrong");
            assert_eq!(error.kind(), ErrorKind::Config);
            let report = error.report();
            let names = report.contains(&path.display().to_string());
            // A key that is not the certificate's is found with the certificate.
            assert!(names || report.contains(CERTIFICATE), "{report}");
        }
    }
}
