//! A tiny HTTP/1.1 client that signs requests: what a client looks like that is not an SDK.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use serde_json::Value;
use tidefeed_emulator::Emulator;

pub const DATE: &str = "thu, 01 jan 2026 00:00:00 gmt";

/// The authorization header of a request for `path`, as the service documents it.
pub fn signed(key: &str, method: &str, path: &str) -> String {
    let segments: Vec<&str> = path
        .split('/')
        .filter(|segment| !segment.is_empty())
        .collect();
    let (kind, link) = match segments.len() {
        0 => ("", String::new()),
        n if n % 2 == 1 => (segments[n - 1], segments[..n - 1].join("/")),
        n => (segments[n - 2], segments.join("/")),
    };
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&STANDARD.decode(key).unwrap()).unwrap();
    mac.update(format!("{}\n{kind}\n{link}\n{DATE}\n\n", method.to_lowercase()).as_bytes());
    let signature = STANDARD.encode(mac.finalize().into_bytes());
    format!("type=master&ver=1.0&sig={signature}")
        .replace('=', "%3d")
        .replace('&', "%26")
        .replace('+', "%2b")
        .replace('/', "%2f")
}

/// A connection.
pub struct Raw {
    stream: BufReader<TcpStream>,
    key: String,
}

/// What came back.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

impl Raw {
    pub fn connect(emulator: &Emulator) -> std::io::Result<Self> {
        Self::connect_to(emulator.port(), emulator.key())
    }

    pub fn connect_to(port: u16, key: &str) -> std::io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream: BufReader::new(stream),
            key: key.to_owned(),
        })
    }

    /// Ends calls that have no reply by then with an error.
    pub fn give_up_after(&mut self, time: std::time::Duration) -> std::io::Result<()> {
        self.stream.get_ref().set_read_timeout(Some(time))
    }

    /// Creates database `db` and container `items` with a partition key path.
    pub fn prepare(&mut self, path: &str) -> std::io::Result<()> {
        let container =
            format!(r#"{{"id":"items","partitionKey":{{"paths":["{path}"],"kind":"Hash"}}}}"#);
        let database = self.call("POST", "/dbs", &[], br#"{"id":"db"}"#)?;
        assert_eq!(database.status, 201, "{}", database.text());
        let created = self.call("POST", "/dbs/db/colls", &[], container.as_bytes())?;
        assert_eq!(created.status, 201, "{}", created.text());
        Ok(())
    }

    /// Sends a request signed with the server's key.
    pub fn call(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> std::io::Result<Reply> {
        let authorization = signed(&self.key, method, path);
        let mut all = vec![
            ("authorization", authorization.as_str()),
            ("x-ms-date", DATE),
        ];
        all.extend_from_slice(headers);
        self.send(method, path, &all, body)
    }

    /// Sends exactly these headers, and `content-length`.
    pub fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> std::io::Result<Reply> {
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n",
            body.len()
        );
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        let mut request = head.into_bytes();
        request.extend_from_slice(body);
        self.stream.get_mut().write_all(&request)?;

        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let status = line
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok())
            .unwrap_or(0);
        let mut headers = Vec::new();
        loop {
            line.clear();
            if self.stream.read_line(&mut line)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            if line.trim().is_empty() {
                break;
            }
            if let Some((name, value)) = line.trim().split_once(": ") {
                headers.push((name.to_ascii_lowercase(), value.to_owned()));
            }
        }
        let mut reply = Reply {
            status,
            headers,
            body: Vec::new(),
        };
        let length = reply
            .header("content-length")
            .and_then(|length| length.parse().ok())
            .unwrap_or(0);
        if status != 304 && status != 204 {
            reply.body = vec![0; length];
            self.stream.read_exact(&mut reply.body)?;
        }
        Ok(reply)
    }
}
