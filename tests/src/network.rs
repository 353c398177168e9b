//! Hosts on one machine, and what a network does to what they say to each other.
//!
//! ```text
//!   host 0 (namespace)      host 1 (namespace)          the machine
//!   127.0.0.1:P  eth0       127.0.0.1:P  eth0        127.0.0.1:P: a server
//!       |          |            |          |              |
//!       |          `- router (namespace): reads packets   |
//!       |             of all, loses, delays, writes them  |
//!       `----------------- carriers: streams of bytes ----'
//! ```
//!
//! A host is a network namespace with one end of a pair of virtual devices; the other ends are in the router's namespace, whose
//! kernel forwards nothing. There threads of this process read whatever arrives, look up what is to become of packets from
//! this host for that one ([`Link`]), and write them for the other host. Kernels without their own ways to lose and delay do.
//!
//! A server of the machine is reached at the loopback address of each host, because the clients of an embedded server insist on one.
//! What carries those bytes obeys cuts and delays too; what is lost of a stream is sent again, so a loss means nothing there.
//!
//! Names carry the number of this process; everything goes with the [`Network`], or if that is killed, with `ip netns del`.
//!
//! Needs root and the program `ip`.

mod carrier;
mod router;

use std::fs::File;
use std::io::{Error, Result};
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

use router::Router;

/// Says, if it is 1, that tests that need a network of their own are to be skipped where there cannot be one.
const SKIP_VARIABLE: &str = "TIDEFEED_SKIP_NETWORK";

/// What becomes of what one host says to another.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Link {
    /// Nothing arrives.
    pub cut: bool,
    /// Of each packet, how likely it is lost; 0 to 1.
    pub loss: f64,
    /// How much later it arrives.
    pub delay: Duration,
}

impl Link {
    /// Nothing arrives.
    pub const CUT: Link = Link {
        cut: true,
        loss: 0.0,
        delay: Duration::ZERO,
    };
}

/// What becomes of what each host says to each, and to the machine.
#[derive(Clone)]
struct Links {
    places: usize,
    links: Vec<Link>,
}

impl Links {
    fn of(places: usize) -> Self {
        Links {
            places,
            links: vec![Link::default(); places * places],
        }
    }

    /// `None` when there is no such place.
    fn between(&self, from: usize, to: usize) -> Option<Link> {
        let there = from < self.places && to < self.places;
        there.then(|| self.links[from * self.places + to])
    }

    fn set(&mut self, from: usize, to: usize, link: Link) {
        self.links[from * self.places + to] = link;
    }
}

/// A network namespace, until it is dropped.
struct Namespace(String);

impl Namespace {
    fn create(name: String) -> Result<Self> {
        ip(&["netns", "add", &name])?;
        Ok(Namespace(name))
    }

    fn ip(&self, arguments: &[&str]) -> Result<()> {
        ip(&[&["-n", &self.0], arguments].concat())
    }

    /// Runs `make` in a thread that is in the namespace. A socket stays in the namespace in which it was made.
    fn within<T: Send>(&self, make: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let there = File::open(format!("/var/run/netns/{}", self.0))?;
        std::thread::scope(|scope| {
            let made = scope.spawn(|| {
                move_into_link_name_space(there.as_fd(), Some(LinkNameSpaceType::Network))?;
                make()
            });
            made.join().expect("no panic")
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = ip(&["netns", "del", &self.0]);
    }
}

fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip")
        .args(arguments)
        .stdin(Stdio::null())
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let line = arguments.join(" ");
    Err(Error::other(format!("ip {line}: {}", said.trim())))
}

/// Hosts and what joins them.
pub struct Network {
    links: watch::Sender<Links>,
    carriers: Runtime,
    _router: Router,
    hosts: Vec<Namespace>,
    _hub: Namespace,
}

impl Network {
    /// So many hosts, between which everything arrives at once. What is lost later is drawn from `seed`. `None` when there can be no
    /// such thing here and the environment says to do without.
    ///
    /// # Panics
    /// When there can be no such thing here.
    pub fn new(hosts: usize, seed: u64) -> Option<Network> {
        match Network::create(hosts, seed) {
            Ok(network) => Some(network),
            Err(error) if std::env::var(SKIP_VARIABLE).as_deref() == Ok("1") => {
                eprintln!("skipped, as {SKIP_VARIABLE} says: {error}");
                None
            }
            Err(error) => panic!(
                "no network namespaces: {error}. Run the test as root with the program ip, or set {SKIP_VARIABLE}=1"
            ),
        }
    }

    fn create(count: usize, seed: u64) -> Result<Network> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = |of: &str| format!("tidefeed-{}-{number}-{of}", std::process::id());
        let hub = Namespace::create(name("hub"))?;
        let mut hosts = Vec::new();
        for number in 0..count {
            let host = Namespace::create(name(&number.to_string()))?;
            host.join(&hub, number)?;
            hosts.push(host);
        }
        let links = watch::Sender::new(Links::of(count + 1));
        let router = Router::start(&hub, links.subscribe(), seed)?;
        let carriers = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        Ok(Network {
            links,
            carriers,
            _router: router,
            hosts,
            _hub: hub,
        })
    }

    /// The address of a host.
    pub fn address(&self, host: usize) -> Ipv4Addr {
        address(host, 2)
    }

    /// The place of everything that is no host.
    pub fn outside(&self) -> usize {
        self.hosts.len()
    }

    /// The same program, on a host.
    pub fn on(&self, host: usize, program: &Command) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.hosts[host].0])
            .arg(program.get_program())
            .args(program.get_args());
        for (variable, value) in program.get_envs() {
            match value {
                Some(value) => command.env(variable, value),
                None => command.env_remove(variable),
            };
        }
        command
    }

    /// Lets every host reach the server that listens at this port of this machine's loopback address, at the same port of its own.
    ///
    /// # Errors
    /// When a host cannot listen there.
    pub fn serve(&self, port: u16) -> Result<()> {
        let outside = self.outside();
        for (number, host) in self.hosts.iter().enumerate() {
            let listener = host.within(|| TcpListener::bind((Ipv4Addr::LOCALHOST, port)))?;
            listener.set_nonblocking(true)?;
            let ways = [(number, outside), (outside, number)]
                .map(|(from, to)| carrier::Way::new(self.links.subscribe(), from, to));
            self.carriers.spawn(carrier::serve(listener, port, ways));
        }
        Ok(())
    }

    /// From here on this becomes of what one place says to the other.
    pub fn set(&self, from: usize, to: usize, link: Link) {
        self.links.send_modify(|links| links.set(from, to, link));
    }

    /// The same both ways.
    pub fn set_both(&self, one: usize, other: usize, link: Link) {
        self.set(one, other, link);
        self.set(other, one, link);
    }

    /// The same between all hosts.
    pub fn set_all(&self, link: Link) {
        for one in 0..self.hosts.len() {
            (0..one).for_each(|other| self.set_both(one, other, link));
        }
    }

    /// Everything arrives again.
    pub fn heal(&self) {
        let places = self.outside() + 1;
        self.links.send_replace(Links::of(places));
    }
}

impl Namespace {
    /// Joins a host with the namespace of the router.
    fn join(&self, hub: &Namespace, number: usize) -> Result<()> {
        let device = format!("h{number}");
        let (near, far) = (address(number, 2), address(number, 1));
        let pair = ["link", "add", &device, "netns", &hub.0, "type", "veth"];
        ip(&[&pair[..], &["peer", "name", "eth0", "netns", &self.0]].concat())?;
        hub.ip(&["addr", "add", &format!("{far}/30"), "dev", &device])?;
        hub.ip(&["link", "set", &device, "up"])?;
        self.ip(&["link", "set", "lo", "up"])?;
        self.ip(&["addr", "add", &format!("{near}/30"), "dev", "eth0"])?;
        // Packets as they would be on a wire, not many in one.
        self.ip(&["link", "set", "eth0", "gso_max_segs", "1", "up"])?;
        self.ip(&["route", "add", HOSTS, "via", &far.to_string()])
    }
}

/// The addresses of all hosts. There is no way to others: whoever looks for one is told so at once, and not left without an answer.
const HOSTS: &str = "10.77.0.0/16";

/// Of a host's network: it is 2, the router 1. Nothing outside of the namespaces has such addresses.
fn address(host: usize, end: u8) -> Ipv4Addr {
    let host = u8::try_from(host).expect("a few hosts");
    Ipv4Addr::new(10, 77, host, end)
}

/// The host of an address.
fn host_of(address: [u8; 4]) -> Option<usize> {
    match address {
        [10, 77, host, 2] => Some(usize::from(host)),
        _ => None,
    }
}
