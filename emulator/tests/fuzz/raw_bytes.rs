//! What is no request at all: broken HTTP/1.1 and HTTP/2, halves of requests, and bytes that come slowly.

use std::time::Duration;

use super::wire::{Outcome, exchange};
use super::{Random, mutate};

const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const STARTS: [&[u8]; 18] = [
    b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.0\r\n\r\n",
    b"GET / HTTP/3.0\r\n\r\n",
    b"GET  /\r\n\r\n",
    b"\r\n\r\n\r\n",
    b"POST /dbs HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
    b"POST /dbs HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
    b"POST /dbs HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999999999999\r\n\r\n",
    b"POST /dbs HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{",
    b"POST /dbs HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"POST /dbs HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n",
    b"POST /dbs HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    b"GET /_emulator/status HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 1\r\n\r\n",
    b"CONNECT x:1 HTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET http://x/dbs?q#f HTTP/1.1\r\nhost: x\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET / HTTP/1.1\r\n\xff\xfe: \x01\r\n a: b\r\n\r\n",
];

/// Sends something broken, and does not care what comes back, if only it is no success of a kind that nobody asked for.
pub fn send(random: &mut Random, port: u16) -> Outcome {
    let mut bytes = match random.below(4) {
        0 => http2(random),
        1 => (0..random.below(200))
            .map(|_| random.next() as u8)
            .collect(),
        _ => random.pick(&STARTS).to_vec(),
    };
    if random.once_in(2) {
        mutate(random, &mut bytes);
    }
    if random.once_in(3) {
        bytes.truncate(random.below(bytes.len() + 1));
    }
    if random.once_in(8) {
        bytes.extend_from_slice(b"x: ");
        bytes.resize(bytes.len() + random.below(600_000), b'a');
    }
    // Slowly: every piece is a write of its own.
    let size = if random.once_in(3) {
        1 + random.below(5)
    } else {
        bytes.len().max(1)
    };
    let pieces: Vec<&[u8]> = bytes.chunks(size).take(400).collect();
    // Most of these are waited for by the server, so it is the client that leaves.
    exchange(port, &pieces, false, Duration::from_millis(2))
}

fn http2(random: &mut Random) -> Vec<u8> {
    let mut bytes = HTTP2_PREFACE.to_vec();
    for _ in 0..random.below(6) {
        let length = random.below(40);
        bytes.extend_from_slice(&[0, 0, length as u8]);
        // Types 0 to 9 are known; flags and stream ids make sense now and then.
        bytes.push(random.below(12) as u8);
        bytes.push(random.choose(&[0, 1, 4, 5, 255]));
        bytes.extend_from_slice(&[0, 0, 0, random.below(4) as u8]);
        // Header fields by index of the static table, so that some of them are whole requests.
        bytes.extend((0..length).map(|_| match random.below(3) {
            0 => 0x82,
            1 => random.choose(&[0x84, 0x86, 0x87, 0x83]),
            _ => random.next() as u8,
        }));
    }
    bytes
}
