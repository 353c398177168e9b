//! A proxy between a client and a stand-in that can lose an answer.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use parking_lot::Mutex;

/// What becomes of the answer to the first request of the next connection.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    /// The connection is closed instead.
    Close,
    /// It never comes.
    Hang,
    /// It is 409 Conflict, and the server has not even seen the request.
    Conflict,
}

/// Forwards connections.
pub(super) struct Proxy {
    pub(super) endpoint: String,
    next: Arc<Mutex<Option<Fault>>>,
    /// The first line of each answer that was lost.
    lost: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// A proxy for the server at `http://127.0.0.1:PORT`.
    pub(super) fn start(server: &str) -> Proxy {
        let server: SocketAddr = server.strip_prefix("http://").unwrap().parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (next, lost) = (Arc::default(), Arc::default());
        let proxy = Proxy {
            endpoint,
            next: Arc::clone(&next),
            lost: Arc::clone(&lost),
        };
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (fault, lost) = (next.lock().take(), Arc::clone(&lost));
                // A connection that breaks is the client's business.
                thread::spawn(move || forward(client, server, fault, &lost));
            }
        });
        proxy
    }

    pub(super) fn lose_next(&self, fault: Fault) {
        *self.next.lock() = Some(fault);
    }

    pub(super) fn lost(&self) -> Vec<String> {
        self.lost.lock().clone()
    }
}

fn forward(
    mut client: TcpStream,
    server: SocketAddr,
    fault: Option<Fault>,
    lost: &Mutex<Vec<String>>,
) -> io::Result<()> {
    let mut server = TcpStream::connect(server)?;
    if let Some(Fault::Conflict) = fault {
        read_request(&mut client)?;
        let answer = "HTTP/1.1 409 Conflict\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        lost.lock().push(String::new());
        return client.write_all(answer.as_bytes());
    }
    if let Some(fault) = fault {
        server.write_all(&read_request(&mut client)?)?;
        let answer = read_head(&mut server)?;
        let line = String::from_utf8_lossy(&answer);
        lost.lock()
            .push(line.lines().next().unwrap_or_default().to_owned());
        if let Fault::Hang = fault {
            // Until the client gives up.
            client.read_to_end(&mut Vec::new())?;
        }
        return client.shutdown(Shutdown::Both);
    }
    let (mut up, mut down) = (client.try_clone()?, server.try_clone()?);
    thread::spawn(move || {
        let _ = io::copy(&mut up, &mut server);
        server.shutdown(Shutdown::Write)
    });
    io::copy(&mut down, &mut client)?;
    client.shutdown(Shutdown::Write)
}

fn read_request(client: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut request = read_head(client)?;
    let head = String::from_utf8_lossy(&request).to_ascii_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"))
        .map_or(0, |length| length.trim().parse().unwrap());
    let mut body = vec![0; length];
    client.read_exact(&mut body)?;
    request.extend(body);
    Ok(request)
}

/// Everything up to the first empty line.
fn read_head(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(head)
}
