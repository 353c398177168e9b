//! What the protocol asks of its driver.

use std::sync::Arc;

use super::classify::Refresh;
use super::operation::{GroupId, Operation, Refusal, Request, Summary};

/// What the driver is to do.
#[derive(Debug)]
pub(crate) enum Output {
    /// Send it, and say once how it ended: [`answered`](super::machine::Machine::answered) or
    /// [`lost`](super::machine::Machine::lost).
    Send(Request),
    /// Read this again, and whatever it includes. `Token` asks for nothing else. All others end with
    /// [`new_map`](super::machine::Machine::new_map), after as many tries as it takes, or with
    /// [`stop`](super::machine::Machine::stop) if the container is another one now; nothing but `Token` is asked for before
    /// that.
    Refresh(Refresh),
    /// Put it into the dead letters, and then call [`letter_put`](super::machine::Machine::letter_put).
    Letter(Letter),
    /// Every operation of the group is done.
    Finished(GroupId, Summary),
    /// Nothing more will be sent, and somebody has to do something. Comes at most once.
    Stop(Stop),
}

/// A write that the service refuses for good.
#[derive(Clone, Debug)]
pub(crate) struct Letter {
    pub(crate) id: LetterId,
    pub(crate) operation: Arc<Operation>,
    pub(crate) refusal: Refusal,
}

/// Names a dead letter until it is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LetterId(pub(super) u64);

/// Why the writer has stopped.
#[derive(Clone, Debug)]
pub(crate) struct Stop {
    pub(crate) cause: Cause,
    /// What the service said.
    pub(crate) refusal: Refusal,
    /// The operation that it is about, if it is about one.
    pub(crate) operation: Option<Arc<Operation>>,
}

/// What kind of stop it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Cause {
    /// No write can succeed.
    Fatal,
    /// A document was refused, and that is not to be passed over.
    Poison,
    /// More documents were refused in a minute than may be.
    TooManyLetters,
}
