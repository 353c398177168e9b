//! The server's own share of a feed page: a client over HTTP/1.1 that parses nothing.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::Outcome;
use crate::documents::DATABASE;
use crate::feed_pages::PAGE_SIZE;
use crate::server::ServerProcess;

const DATE: &str = "thu, 01 jan 2026 00:00:00 gmt";

/// Reads the change feed of a container's first partition, again and again.
pub struct RawFeed {
    stream: BufReader<TcpStream>,
    /// Everything of a request but the position.
    head: String,
    position: String,
}

/// What the server answered.
struct Reply {
    status: u16,
    etag: String,
    documents: u32,
    time: Duration,
}

impl RawFeed {
    /// Of a container of this server.
    ///
    /// # Errors
    /// When the server cannot be reached.
    pub fn connect(server: &ServerProcess, container: &str) -> Outcome<Self> {
        let stream = TcpStream::connect(server.address())?;
        stream.set_nodelay(true)?;
        let link = format!("dbs/{DATABASE}/colls/{container}");
        let head = format!(
            "GET /{link}/docs HTTP/1.1\r\nhost: localhost\r\nauthorization: {}\r\nx-ms-date: {DATE}\r\n\
             a-im: Incremental Feed\r\nx-ms-documentdb-partitionkeyrangeid: 0\r\nx-ms-max-item-count: {PAGE_SIZE}\r\n",
            signature(server.key(), &link)?
        );
        Ok(RawFeed {
            stream: BufReader::with_capacity(1 << 20, stream),
            head,
            position: String::new(),
        })
    }

    /// The time of the next full page.
    ///
    /// # Errors
    /// When the server does not answer, or refuses.
    pub fn timed_page(&mut self) -> Outcome<Duration> {
        loop {
            let reply = self.request()?;
            match reply.status {
                200 => self.position = format!("if-none-match: {}\r\n", reply.etag),
                304 => self.position.clear(),
                status => return Err(format!("the server answered {status}").into()),
            }
            if reply.documents == PAGE_SIZE {
                return Ok(reply.time);
            }
        }
    }

    /// Reads to the end, and returns the time of a poll that finds nothing.
    ///
    /// # Errors
    /// When the server does not answer, or refuses.
    pub fn timed_idle_poll(&mut self) -> Outcome<Duration> {
        loop {
            let reply = self.request()?;
            self.position = format!("if-none-match: {}\r\n", reply.etag);
            match reply.status {
                200 => {}
                304 => return Ok(reply.time),
                status => return Err(format!("the server answered {status}").into()),
            }
        }
    }

    fn request(&mut self) -> Outcome<Reply> {
        let begun = Instant::now();
        let request = format!("{}{}\r\n", self.head, self.position);
        self.stream.get_mut().write_all(request.as_bytes())?;
        let (mut reply, mut length, mut line) = (
            Reply {
                status: 0,
                etag: String::new(),
                documents: 0,
                time: Duration::ZERO,
            },
            0,
            String::new(),
        );
        loop {
            line.clear();
            if self.stream.read_line(&mut line)? == 0 {
                return Err("the server closed the connection".into());
            }
            match line.trim().split_once(": ") {
                Some(("etag", value)) => reply.etag = value.to_owned(),
                Some(("content-length", value)) => length = value.parse()?,
                Some(("x-ms-item-count", value)) => reply.documents = value.parse()?,
                Some(_) => {}
                None if line.trim().is_empty() => break,
                None => reply.status = line.split(' ').nth(1).unwrap_or_default().parse()?,
            }
        }
        if reply.status != 304 {
            let mut body = self.stream.by_ref().take(length);
            std::io::copy(&mut body, &mut std::io::sink())?;
        }
        reply.time = begun.elapsed();
        Ok(reply)
    }
}

/// The master-key signature of reading the documents of a container.
fn signature(key: &str, link: &str) -> Outcome<String> {
    let mut mac = Hmac::<Sha256>::new_from_slice(&STANDARD.decode(key)?)?;
    mac.update(format!("get\ndocs\n{link}\n{DATE}\n\n").as_bytes());
    let signature = STANDARD.encode(mac.finalize().into_bytes());
    Ok(format!("type=master&ver=1.0&sig={signature}")
        .replace('+', "%2b")
        .replace('&', "%26")
        .replace('=', "%3d"))
}
