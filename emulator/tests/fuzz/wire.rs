//! One request and its reply over a socket, with a deadline.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use serde_json::Value;
use tidefeed_emulator::WELL_KNOWN_KEY;

use super::requests::Request;

const DATE: &str = "thu, 01 jan 2026 00:00:00 gmt";

/// Time in which every request is answered, on a machine that does other things too.
pub const DEADLINE: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

/// What came of a request.
#[derive(Debug)]
pub enum Outcome {
    Reply(Reply),
    /// The server closed the connection without a whole reply.
    Closed,
    /// Nothing came in time.
    Late,
}

/// Sends a request on a connection of its own.
pub fn send(port: u16, request: &Request, deadline: Duration) -> Outcome {
    let mut bytes = Vec::with_capacity(request.body.len() + 1_000);
    bytes.extend_from_slice(request.method.as_bytes());
    bytes.push(b' ');
    bytes.extend_from_slice(&request.path);
    bytes.extend_from_slice(b" HTTP/1.1\r\nhost: localhost\r\n");
    let mut header = |name: &str, value: &[u8]| {
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value);
        bytes.extend_from_slice(b"\r\n");
    };
    header("content-length", request.body.len().to_string().as_bytes());
    if request.signed {
        header(
            "authorization",
            signature(&request.method, &request.path).as_bytes(),
        );
        header("x-ms-date", DATE.as_bytes());
    }
    for (name, value) in &request.headers {
        header(name, value);
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(&request.body);
    exchange(port, &[&bytes], request.method == "HEAD", deadline)
}

/// Sends pieces of bytes, one write each, and reads one HTTP/1.1 reply.
pub fn exchange(port: u16, pieces: &[&[u8]], headless: bool, deadline: Duration) -> Outcome {
    let end = Instant::now() + deadline;
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else {
        return Outcome::Late;
    };
    let _ = stream.set_nodelay(true);
    let _ = stream.set_write_timeout(Some(deadline));
    for piece in pieces {
        // A server that has refused already need not read the rest; its reply is still there.
        if stream.write_all(piece).is_err() {
            break;
        }
    }
    let mut bytes = Vec::new();
    loop {
        if let Some(reply) = parsed(&bytes, headless) {
            return Outcome::Reply(reply);
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Outcome::Late;
        }
        let _ = stream.set_read_timeout(Some(left));
        let mut buffer = [0; 16_384];
        match stream.read(&mut buffer) {
            Ok(0) => return Outcome::Closed,
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Outcome::Late;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return Outcome::Closed,
        }
    }
}

/// The reply in `bytes`, when all of it is there.
fn parsed(bytes: &[u8], headless: bool) -> Option<Reply> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let mut reply = Reply {
        status,
        headers,
        body: Vec::new(),
    };
    let length = match reply.header("content-length") {
        Some(length) if !headless && status != 304 && status != 204 => length.parse().ok()?,
        _ => 0,
    };
    reply.body = bytes.get(end + 4..end + 4 + length)?.to_vec();
    Some(reply)
}

fn signature(method: &str, path: &[u8]) -> String {
    let path = String::from_utf8_lossy(path);
    let path = path.split('?').next().unwrap_or("").trim_matches('/');
    let (parent, last) = path.rsplit_once('/').unwrap_or(("", path));
    let (kind, link) = if path.split('/').count() % 2 == 1 {
        (last, parent)
    } else {
        (parent.rsplit('/').next().unwrap_or(""), path)
    };
    let key = STANDARD.decode(WELL_KNOWN_KEY).unwrap();
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&key).unwrap();
    mac.update(format!("{}\n{kind}\n{link}\n{DATE}\n\n", method.to_lowercase()).as_bytes());
    let signature = STANDARD.encode(mac.finalize().into_bytes());
    format!(
        "type%3dmaster%26ver%3d1.0%26sig%3d{}",
        signature.replace('+', "%2b").replace('=', "%3d")
    )
}
