//! A producer that posts orders of its own to a job, and knows what it was told: a model of what the job must hold.

use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use serde_json::json;

use crate::views::Order;

/// An answer takes no longer, even where the job gets a tenth of a processor.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Orders that a producer has at most.
const ORDERS: u32 = 60;
/// Orders in a request, at most.
const MOST: usize = 7;

/// An address of this machine that nobody listens on now. Its port is none that a system gives to clients: one that knocks while
/// nobody listens could be given the very port, and be connected with itself.
///
/// # Panics
/// When there is none.
pub fn free_address() -> SocketAddr {
    let free = |port: u16| {
        TcpListener::bind(("127.0.0.1", port))
            .ok()?
            .local_addr()
            .ok()
    };
    let ports = std::iter::repeat_with(|| fastrand::u16(10_000..32_000));
    ports.take(1000).find_map(free).expect("a free port")
}

/// The section of a source of orders that are posted there.
pub fn posted_orders(address: SocketAddr) -> String {
    format!(
        "[source.orders]\nlisten = \"{address}\"\nkey = [\"/region\", \"/id\"]\npoll_ms = 1\npoll_max_ms = 5\n"
    )
}

/// The head of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// How long to wait before the next try, in seconds, if it says so.
    pub retry_after: Option<u64>,
}

impl Answer {
    fn read(text: &str) -> Option<Self> {
        let (head, _body) = text.split_once("\r\n\r\n")?;
        let retry_after = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            let found = name.eq_ignore_ascii_case("retry-after");
            found.then(|| value.trim().parse().ok()).flatten()
        });
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some(Answer {
            status,
            retry_after,
        })
    }
}

/// Sends a request without retrying, and returns the answer.
///
/// # Errors
/// When no answer comes; the request may have been carried out then.
pub fn exchange(address: SocketAddr, method: &str, body: &str) -> Result<Answer> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    let length = body.len();
    write!(
        stream,
        "{method} /ingest HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Answer::read(&answer).ok_or_else(|| Error::from(ErrorKind::UnexpectedEof))
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is durable.
    Acknowledged,
    /// It was not taken, because too much waits.
    Refused,
    /// It may have been taken or not.
    Unknown,
}

/// A request.
#[derive(Clone, Debug)]
enum Request {
    Upsert(Vec<Order>),
    Remove(Vec<Order>),
}

impl Request {
    fn apply(&self, orders: &mut BTreeMap<String, Order>) {
        match self {
            Request::Upsert(changed) => {
                orders.extend(
                    changed
                        .iter()
                        .map(|order| (order.id.clone(), order.clone())),
                );
            }
            Request::Remove(gone) => gone.iter().for_each(|order| {
                orders.remove(&order.id);
            }),
        }
    }

    fn send(&self, address: SocketAddr) -> Result<Answer> {
        match self {
            Request::Upsert(orders) => exchange(address, "POST", &json!(orders).to_string()),
            Request::Remove(orders) => {
                let keys = orders
                    .iter()
                    .map(|order| json!({"region": order.region, "id": order.id}));
                let lines: Vec<_> = keys.map(|key| key.to_string()).collect();
                exchange(address, "DELETE", &lines.join("\n"))
            }
        }
    }
}

/// A producer of the orders of one region.
pub struct Producer {
    random: fastrand::Rng,
    region: String,
    acknowledged: BTreeMap<String, Order>,
    /// Was sent, perhaps several times, and never acknowledged. It is sent until it is.
    pending: Option<Request>,
}

impl Producer {
    /// A producer that has sent nothing yet.
    pub fn new(region: &str, seed: u64) -> Self {
        Producer {
            random: fastrand::Rng::with_seed(seed),
            region: region.to_owned(),
            acknowledged: BTreeMap::new(),
            pending: None,
        }
    }

    /// Sends what was not acknowledged once more, or else something new.
    ///
    /// # Panics
    /// When the job says that the request is wrong, or not when to send it again.
    pub fn send(&mut self, address: SocketAddr) -> Outcome {
        let request = match self.pending.take() {
            Some(request) => request,
            None => self.draw(),
        };
        let answer = request.send(address);
        let outcome = match &answer {
            Ok(Answer { status: 200, .. }) => {
                request.apply(&mut self.acknowledged);
                return Outcome::Acknowledged;
            }
            Ok(answer) => {
                let again = [429, 503].contains(&answer.status) && answer.retry_after.is_some();
                assert!(again, "{answer:?} to {request:?}");
                match answer.status {
                    429 => Outcome::Refused,
                    _ => Outcome::Unknown,
                }
            }
            Err(_) => Outcome::Unknown,
        };
        self.pending = Some(request);
        outcome
    }

    /// The orders that the job may hold now: those that were acknowledged, and if something is pending, those with that.
    pub fn possible(&self) -> Vec<Vec<Order>> {
        let mut possible = vec![self.acknowledged.clone()];
        if let Some(pending) = &self.pending {
            let mut with = self.acknowledged.clone();
            pending.apply(&mut with);
            possible.push(with);
        }
        let orders = |orders: BTreeMap<String, Order>| orders.into_values().collect();
        possible.into_iter().map(orders).collect()
    }

    fn draw(&mut self) -> Request {
        let random = &mut self.random;
        if !self.acknowledged.is_empty() && random.u8(0..4) == 0 {
            let gone = self.acknowledged.values().filter(|_| random.u8(0..8) == 0);
            return Request::Remove(gone.take(MOST).cloned().collect());
        }
        let order = |_| Order {
            id: format!("o{}", random.u32(0..ORDERS)),
            region: self.region.clone(),
            customer: format!("c{}", random.u8(0..5)),
            cents: random.i64(1..1000),
        };
        let count = 1 + self.acknowledged.len() % MOST;
        Request::Upsert((0..count).map(order).collect())
    }
}
