//! Carries packets between the hosts, or does not.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{Read, Result};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::sync::watch;

use super::{Links, Namespace, host_of};

/// How often to look whether the end has come.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// What may wait to be read. A guess: what a window of TCP holds, for a few connections.
const WAITING_BYTES: usize = 8 << 20;
/// The number of IPv4 among the protocols of a link.
const IPV4: u16 = 0x0800;
/// Packets with headers, as among the protocols of IPv4.
const RAW: i32 = 255;
const TCP: u8 = 6;

/// Threads that carry packets, until it is dropped.
pub(super) struct Router {
    end: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Router {
    pub(super) fn start(hub: &Namespace, links: watch::Receiver<Links>, seed: u64) -> Result<Self> {
        let (arriving, leaving) = hub.within(|| {
            let link = Protocol::from(i32::from(IPV4.to_be()));
            let arriving = Socket::new(Domain::PACKET, Type::DGRAM, Some(link))?;
            arriving.set_recv_buffer_size(WAITING_BYTES)?;
            arriving.set_read_timeout(Some(LOOK_EVERY))?;
            let leaving = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(RAW)))?;
            Ok((arriving, leaving))
        })?;
        let end = Arc::new(AtomicBool::new(false));
        let (carried, to_carry) = channel();
        let sorting = Sorting {
            links,
            random: fastrand::Rng::with_seed(seed),
            carried,
            end: Arc::clone(&end),
        };
        let threads = vec![
            std::thread::spawn(move || sorting.run(arriving)),
            std::thread::spawn(move || deliver(&leaving, &to_carry)),
        ];
        Ok(Router { end, threads })
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A panic was printed already.
            let _ = thread.join();
        }
    }
}

/// A packet, by when it is due and in which order it came.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Packet {
    due: Instant,
    number: u64,
    bytes: Vec<u8>,
}

/// Decides what becomes of what arrives.
struct Sorting {
    links: watch::Receiver<Links>,
    random: fastrand::Rng,
    carried: Sender<Packet>,
    end: Arc<AtomicBool>,
}

impl Sorting {
    fn run(mut self, mut arriving: Socket) {
        let mut buffer = vec![0; 1 << 16];
        let mut number = 0;
        while !self.end.load(Ordering::Relaxed) {
            // An error means that nothing has come for a while.
            let Ok(read) = arriving.read(&mut buffer) else {
                continue;
            };
            let Some(delay) = self.delay(&buffer[..read]) else {
                continue;
            };
            number += 1;
            let packet = Packet {
                due: Instant::now() + delay,
                number,
                bytes: buffer[..read].to_owned(),
            };
            if self.carried.send(packet).is_err() {
                return;
            }
        }
    }

    /// How much later a packet is to arrive, if at all.
    fn delay(&mut self, packet: &[u8]) -> Option<Duration> {
        let header: &[u8; 20] = packet.first_chunk()?;
        let address = |at: usize| [header[at], header[at + 1], header[at + 2], header[at + 3]];
        let (from, to) = (host_of(address(12))?, host_of(address(16))?);
        let link = self.links.borrow().between(from, to)?;
        let arrives = !link.cut && self.random.f64() >= link.loss;
        arrives.then_some(link.delay)
    }
}

/// Lets packets arrive when they are due.
fn deliver(leaving: &Socket, to_carry: &Receiver<Packet>) {
    let mut waiting = BinaryHeap::new();
    loop {
        let next = waiting
            .peek()
            .map(|Reverse(packet): &Reverse<Packet>| packet.due);
        let rest = next.map_or(LOOK_EVERY, |due| {
            due.saturating_duration_since(Instant::now())
        });
        match to_carry.recv_timeout(rest) {
            Ok(packet) => waiting.push(Reverse(packet)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        while let Some(Reverse(packet)) = waiting.peek()
            && packet.due <= Instant::now()
        {
            let Some(Reverse(packet)) = waiting.pop() else {
                break;
            };
            send(leaving, packet.bytes);
        }
    }
}

fn send(leaving: &Socket, mut packet: Vec<u8>) {
    let whole = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
    packet.truncate(whole);
    complete_checksum(&mut packet);
    let to = Ipv4Addr::new(packet[16], packet[17], packet[18], packet[19]);
    // One that cannot be sent is lost.
    let _ = leaving.send_to(&packet, &SockAddr::from(SocketAddrV4::new(to, 0)));
}

/// Virtual devices leave the checksum of TCP to hardware that they do not have.
fn complete_checksum(packet: &mut [u8]) {
    let header = usize::from(packet[0] & 15) * 4;
    if packet[9] != TCP || packet.len() < header + 20 {
        return;
    }
    packet[header + 16..header + 18].fill(0);
    let length = packet.len() - header;
    let addresses = sum(&packet[12..20]);
    let mut sum = addresses + u64::from(TCP) + length as u64 + sum(&packet[header..]);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let checksum = !(sum as u16);
    packet[header + 16..header + 18].copy_from_slice(&checksum.to_be_bytes());
}

fn sum(bytes: &[u8]) -> u64 {
    let words = bytes.chunks(2);
    let word = |pair: &[u8]| u64::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
    words.map(word).sum()
}
