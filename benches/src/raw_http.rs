//! A client over HTTP/1.1 that signs requests and looks into no body: what is measured through it is the server.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::Outcome;
use crate::server::ServerProcess;

const DATE: &str = "thu, 01 jan 2026 00:00:00 gmt";

/// One connection to a server, kept open.
pub struct RawClient {
    stream: BufReader<TcpStream>,
    mac: Hmac<Sha256>,
    request: Vec<u8>,
    reply: RawReply,
}

/// What the server answered.
#[derive(Debug, Default)]
pub struct RawReply {
    /// HTTP status.
    pub status: u16,
    /// Names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// The body as it came.
    pub body: Vec<u8>,
}

impl RawReply {
    /// The value of a header, its name in lower case; empty if there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .iter()
            .find(|(key, _)| key == name)
            .map_or("", |(_, value)| value)
    }

    /// Nothing, if the status is one of these.
    ///
    /// # Errors
    /// What the server said instead.
    pub fn expect(&self, statuses: &[u16]) -> Outcome {
        if statuses.contains(&self.status) {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&self.body);
        Err(format!("the server answered {}: {said}", self.status).into())
    }
}

impl RawClient {
    /// Of this server.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub fn connect(server: &ServerProcess) -> Outcome<Self> {
        let stream = TcpStream::connect(server.address())?;
        stream.set_nodelay(true)?;
        Ok(RawClient {
            stream: BufReader::with_capacity(1 << 20, stream),
            mac: Hmac::new_from_slice(&STANDARD.decode(server.key())?)?,
            request: Vec::new(),
            reply: RawReply::default(),
        })
    }

    /// Sends a request and reads the whole reply, which stays until the next request.
    ///
    /// # Errors
    /// When the connection ends or the reply is no HTTP.
    pub fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Outcome<&RawReply> {
        self.write_request(method, path, headers, body)?;
        self.stream.get_mut().write_all(&self.request)?;
        let length = self.read_head()?;
        self.reply.body.clear();
        if self.reply.status != 304 {
            let mut body = self.stream.by_ref().take(length);
            if body.read_to_end(&mut self.reply.body)? as u64 != length {
                return Err("the server closed the connection".into());
            }
        }
        Ok(&self.reply)
    }

    /// The reply to the last request.
    pub fn reply(&self) -> &RawReply {
        &self.reply
    }

    fn write_request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Outcome {
        let (signature, length) = (signature(self.mac.clone(), method, path), body.len());
        self.request.clear();
        write!(
            self.request,
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: {signature}\r\nx-ms-date: {DATE}\r\n\
             content-length: {length}\r\n"
        )?;
        for (name, value) in headers {
            write!(self.request, "{name}: {value}\r\n")?;
        }
        self.request.extend_from_slice(b"\r\n");
        self.request.extend_from_slice(body);
        Ok(())
    }

    /// Reads status and headers, and returns the length of the body.
    fn read_head(&mut self) -> Outcome<u64> {
        let (mut line, mut length) = (String::new(), 0);
        self.reply.headers.clear();
        loop {
            line.clear();
            if self.stream.read_line(&mut line)? == 0 {
                return Err("the server closed the connection".into());
            }
            match line.trim().split_once(": ") {
                Some(("content-length", value)) => length = value.parse()?,
                Some((name, value)) => self.reply.headers.push((name.into(), value.into())),
                None if line.trim().is_empty() => return Ok(length),
                None => self.reply.status = line.split(' ').nth(1).unwrap_or_default().parse()?,
            }
        }
    }
}

/// The master-key signature of a request.
fn signature(mut mac: Hmac<Sha256>, method: &str, path: &str) -> String {
    let path = path.trim_matches('/');
    let (parent, last) = path.rsplit_once('/').unwrap_or(("", path));
    // A path with an odd number of names is a feed, and is signed as its parent.
    let (kind, link) = match path.split('/').count() % 2 {
        1 => (last, parent),
        _ => (parent.rsplit('/').next().unwrap_or_default(), path),
    };
    let method = method.to_ascii_lowercase();
    mac.update(format!("{method}\n{kind}\n{link}\n{DATE}\n\n").as_bytes());
    let signature = STANDARD.encode(mac.finalize().into_bytes());
    format!("type=master&ver=1.0&sig={signature}")
        .replace('+', "%2b")
        .replace('&', "%26")
        .replace('=', "%3d")
}
