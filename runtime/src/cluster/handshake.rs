//! How two processes find out that they belong together, before either says or believes anything else. Pure.
//!
//! ```text
//!   dialer                                                    acceptor
//!     | -- magic, version, TLS or not, nonce D -------------->  |   1
//!     | <-- magic, version, TLS or not, nonce A --------------  |   2
//!     | <=================== TLS, if so ====================>  |
//!     | -- claims D, HMAC("dialer", D, A, claims D) --------->  |   3
//!     | <-- verdict, claims A, HMAC("acceptor", D, A, all) ---  |   4
//! ```
//!
//! 1. Whoever does not begin with the magic is a stranger and gets no answer.
//! 2. Versions are compared first, by both, so that the form of everything after may change; then whether they use TLS. An end that is to
//!    use it goes on with no other.
//! 3. The dialer proves the secret first: a stranger learns nothing from the acceptor, not even a proof to guess at.
//! 4. The acceptor compares the claims with its own and says what differs, so that both can. It proves the secret too: nobody
//!    else can pose as a member and take the data of others.
//!
//! Nonces are new for each connection, so nothing that was said once is of use again; the proofs of the two sides differ, so one
//! cannot be sent back to where it came from.
//!
//! Limits: without TLS, what is said after the handshake is neither encrypted nor signed. Whoever can change packets on the way
//! between two members can change what they say to each other; that takes a network that is trusted.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::secret::Secret;

/// The version of everything that processes say to each other. Processes of different versions do not talk.
pub const PROTOCOL: u32 = 1;

const MAGIC: &[u8; 8] = b"tidefeed";
const NONCE_BYTES: usize = 32;
/// Length of a greeting: magic, version, whether it uses TLS, nonce.
pub(super) const GREETING_BYTES: usize = 8 + 4 + 1 + NONCE_BYTES;
/// The longest message of a handshake.
pub(super) const MAX_BYTES: usize = 16 << 10;

/// A number that is used once.
pub(super) type Nonce = [u8; NONCE_BYTES];
/// How a connection begins.
pub(super) type Greeting = [u8; GREETING_BYTES];

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// What members and process 0 tell each other.
    Control,
    /// The records of the dataflow.
    Data,
}

/// Who a process says it is, and what it expects of the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claims {
    /// What the connection is for.
    pub purpose: Purpose,
    /// The process that speaks.
    pub from: u32,
    /// The process that it means to speak to.
    pub to: u32,
    /// The job.
    pub job: String,
    /// How many processes the cluster has.
    pub processes: u32,
    /// How many workers each has.
    pub workers: u32,
    /// A digest of what the job is made of.
    pub graph: String,
    /// The generation, on connections for data.
    pub generation: Option<u64>,
}

/// Why a connection does not come about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The other side speaks something else.
    Stranger,
    /// The other side has another version.
    Version {
        /// Ours.
        here: u32,
        /// Theirs.
        there: u32,
    },
    /// One of the two uses TLS.
    Tls {
        /// Whether it is this one.
        here: bool,
    },
    /// The other side does not prove the secret, or says that this one does not.
    Secret,
    /// The two do not belong together: what differs.
    Differs(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Stranger => f.write_str("it is no process of a cluster"),
            Refusal::Version { here, there } => write!(
                f,
                "it speaks version {there} of the protocol and this process version {here}: run one version everywhere"
            ),
            Refusal::Tls { here } => {
                let (one, other) = match here {
                    true => ("this process", "it"),
                    false => ("it", "this process"),
                };
                write!(
                    f,
                    "{one} uses TLS and {other} does not: give all processes --cluster-tls, or none"
                )
            }
            Refusal::Secret => {
                f.write_str("the two do not have the same secret: give all processes the same one")
            }
            Refusal::Differs(what) => write!(f, "{what}"),
        }
    }
}

/// How one side begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opening {
    pub(super) nonce: Nonce,
    /// Whether it uses TLS.
    pub(super) tls: bool,
}

impl Opening {
    /// The first message.
    pub(super) fn greeting(&self) -> Greeting {
        let mut greeting = [0; GREETING_BYTES];
        greeting[..8].copy_from_slice(MAGIC);
        greeting[8..12].copy_from_slice(&PROTOCOL.to_be_bytes());
        greeting[12] = u8::from(self.tls);
        greeting[13..].copy_from_slice(&self.nonce);
        greeting
    }
}

fn read_greeting(greeting: &Greeting, tls: bool) -> Result<Nonce, Refusal> {
    let (magic, rest) = greeting.split_at(MAGIC.len());
    let Some((version, nonce)) = rest.split_first_chunk::<4>() else {
        return Err(Refusal::Stranger);
    };
    if magic != MAGIC {
        return Err(Refusal::Stranger);
    }
    let there = u32::from_be_bytes(*version);
    if there != PROTOCOL {
        let here = PROTOCOL;
        return Err(Refusal::Version { here, there });
    }
    match nonce.split_first() {
        Some((theirs, nonce)) if *theirs == u8::from(tls) => {
            nonce.try_into().map_err(|_| Refusal::Stranger)
        }
        _ => Err(Refusal::Tls { here: tls }),
    }
}

/// Whether the first bytes of a connection can still become a greeting.
pub(super) fn may_be_greeting(bytes: &[u8]) -> bool {
    MAGIC.iter().zip(bytes).all(|(ours, theirs)| ours == theirs)
}

/// What the dialer says of itself. The claims are kept as they were sent, because the proof is of those bytes.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hello {
    claims: String,
    proof: Vec<u8>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    verdict: String,
    /// Empty when the dialer has not proved the secret.
    proof: Vec<u8>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Verdict {
    Welcome,
    /// What the acceptor has found, with `here` and `there` as the dialer sees them.
    Differs(String),
    /// The dialer does not prove the secret.
    Secret,
}

/// What the proofs of a connection are of.
#[derive(Debug)]
struct Nonces {
    dialer: Nonce,
    acceptor: Nonce,
}

impl Nonces {
    fn parts<'a>(&'a self, role: &'a str, said: &'a [&'a [u8]]) -> Vec<&'a [u8]> {
        let mut parts: Vec<&[u8]> = vec![role.as_bytes(), &self.dialer, &self.acceptor];
        parts.extend_from_slice(said);
        parts
    }
}

/// A dialer that has said what it is.
#[derive(Debug)]
pub(super) struct Dialed {
    secret: Secret,
    nonces: Nonces,
    claims: String,
}

/// What a dialer says when it has been greeted. `opening` is its own.
pub(super) fn hello(
    secret: &Secret,
    opening: &Opening,
    greeted: &Greeting,
    claims: &Claims,
) -> Result<(Vec<u8>, Dialed), Refusal> {
    let nonces = Nonces {
        dialer: opening.nonce,
        acceptor: read_greeting(greeted, opening.tls)?,
    };
    let claims = serde_json::to_string(claims).expect("claims are strings and numbers");
    let proof = secret.proof(&nonces.parts("dialer", &[claims.as_bytes()]));
    let hello = Hello {
        claims: claims.clone(),
        proof,
    };
    let secret = secret.clone();
    let dialed = Dialed {
        secret,
        nonces,
        claims,
    };
    Ok((to_json(&hello), dialed))
}

impl Dialed {
    /// Reads the acceptor's answer.
    pub(super) fn answered(&self, answer: &[u8]) -> Result<(), Refusal> {
        let answer: Answer = serde_json::from_slice(answer).map_err(|_| Refusal::Stranger)?;
        let said: [&[u8]; 2] = [self.claims.as_bytes(), answer.verdict.as_bytes()];
        let verdict: Verdict =
            serde_json::from_str(&answer.verdict).map_err(|_| Refusal::Stranger)?;
        let proven = self
            .secret
            .proves(&self.nonces.parts("acceptor", &said), &answer.proof);
        match verdict {
            Verdict::Secret => Err(Refusal::Secret),
            _ if !proven => Err(Refusal::Secret),
            Verdict::Welcome => Ok(()),
            Verdict::Differs(what) => Err(Refusal::Differs(what)),
        }
    }
}

/// An acceptor that has greeted.
#[derive(Debug)]
pub(super) struct Accepting {
    secret: Secret,
    nonces: Nonces,
}

impl Accepting {
    /// `opening` is its own.
    pub(super) fn new(
        secret: &Secret,
        opening: &Opening,
        greeted: &Greeting,
    ) -> Result<Self, Refusal> {
        Ok(Accepting {
            secret: secret.clone(),
            nonces: Nonces {
                dialer: read_greeting(greeted, opening.tls)?,
                acceptor: opening.nonce,
            },
        })
    }

    /// The claims of a dialer that proves the secret.
    pub(super) fn claims(&self, hello: &[u8]) -> Result<Proven, Refusal> {
        let hello: Hello = serde_json::from_slice(hello).map_err(|_| Refusal::Stranger)?;
        let parts = [hello.claims.as_bytes()];
        if !self
            .secret
            .proves(&self.nonces.parts("dialer", &parts), &hello.proof)
        {
            return Err(Refusal::Secret);
        }
        let claims = serde_json::from_str(&hello.claims).map_err(|_| Refusal::Stranger)?;
        Ok(Proven {
            claims,
            said: hello.claims,
        })
    }

    /// The answer to proven claims: welcome, or what differs.
    pub(super) fn answer(&self, proven: &Proven, verdict: Result<(), String>) -> Vec<u8> {
        let verdict = match verdict {
            Ok(()) => Verdict::Welcome,
            Err(what) => Verdict::Differs(what),
        };
        let verdict = text_of(&verdict);
        let said: [&[u8]; 2] = [proven.said.as_bytes(), verdict.as_bytes()];
        let proof = self.secret.proof(&self.nonces.parts("acceptor", &said));
        to_json(&Answer { verdict, proof })
    }
}

/// The answer to a dialer that does not prove the secret.
pub(super) fn answer_unproven() -> Vec<u8> {
    to_json(&Answer {
        verdict: text_of(&Verdict::Secret),
        proof: Vec::new(),
    })
}

/// Claims of a process that knows the secret.
#[derive(Debug)]
pub(super) struct Proven {
    pub(super) claims: Claims,
    said: String,
}

fn to_json<T: Serialize>(message: &T) -> Vec<u8> {
    serde_json::to_vec(message).expect("strings and numbers have a JSON form")
}

fn text_of<T: Serialize>(message: &T) -> String {
    serde_json::to_string(message).expect("strings and numbers have a JSON form")
}

/// What an acceptor makes of proven claims: `here` are its own, as it would make them to this dialer. What differs is said as
/// the acceptor sees it, and as the dialer does.
pub(super) fn compare(here: &Claims, there: &Claims) -> Result<(), (String, String)> {
    let number = |generation: Option<u64>| generation.map_or("none".to_owned(), |g| g.to_string());
    let pairs = [
        ("job", here.job.clone(), there.job.clone()),
        (
            "number of processes",
            here.processes.to_string(),
            there.processes.to_string(),
        ),
        (
            "workers of each process",
            here.workers.to_string(),
            there.workers.to_string(),
        ),
        (
            "digest of the dataflow, its sources and its sinks",
            here.graph.clone(),
            there.graph.clone(),
        ),
        (
            "generation",
            number(here.generation),
            number(there.generation),
        ),
    ];
    let differing = |swap: bool| {
        let differing = pairs.iter().filter(|(_, here, there)| here != there);
        let said = differing.map(|(what, ours, theirs)| match swap {
            false => format!("{what}: {theirs} there, {ours} here"),
            true => format!("{what}: {ours} there, {theirs} here"),
        });
        said.collect::<Vec<_>>().join("; ")
    };
    if there.to != here.from {
        let both = format!(
            "process {} looked for process {} where process {} is: give all processes the same hosts",
            there.from, there.to, here.from
        );
        return Err((both.clone(), both));
    }
    if there.from == here.from || there.from >= here.processes {
        let both = format!(
            "two processes say that they are process {}: give each its own number",
            there.from
        );
        return Err((both.clone(), both));
    }
    match differing(false) {
        none if none.is_empty() => Ok(()),
        ours => Err((ours, differing(true))),
    }
}

#[cfg(test)]
mod tests;
