//! Process 0 and its connections to the members.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::assemble::{Lobby, Place};
use super::facts::{MemberFacts, RunFacts, Told};
use super::mesh::Mesh;
use super::next::{Next, last_ledger, next};
use super::wire::{Event, Wire};
use crate::{Error, ErrorKind, Fence, Generation, Ledger, Result};

/// How often it is said whom an assembly waits for.
pub(super) const SAY_EVERY: Duration = Duration::from_secs(10);

/// What process 0 says to a member.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum FromLead {
    /// It lives.
    Waiting { may_write: MayWrite },
    /// The run begins.
    Begin {
        generation: Generation,
        may_write: MayWrite,
        /// What the job tells its members.
        plan: Value,
    },
    /// What it knows.
    Run {
        may_write: MayWrite,
        facts: RunFacts,
    },
    /// There is no run.
    Refused(Told),
    /// Every member has ended.
    Over,
}

/// Until when a member may write (I7): so long after it *began to say* its word number `heard`. By its own clock, so no clocks are
/// compared; and that was before process 0 looked at how long its lease still lasts.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct MayWrite {
    pub(super) heard: u64,
    pub(super) for_ms: u64,
}

/// What a member says to process 0.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct FromMember {
    pub(super) number: u64,
    pub(super) facts: MemberFacts,
    /// Nothing that the member has begun is under way any more.
    pub(super) over: bool,
    /// What it reports of itself, when that is new. Members of other versions may tell none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) report: Option<Arc<str>>,
}

/// What has become of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Here,
    Over,
    Lost(Told),
}

enum Command {
    Begin(Generation, Fence, Value),
    Attach(Ledger),
    Refuse(Told),
    Over,
}

/// A member that has come.
struct Seat {
    peer: String,
    commands: mpsc::UnboundedSender<Command>,
    state: watch::Receiver<State>,
}

impl Seat {
    fn lost(&self) -> Option<Error> {
        match &*self.state.borrow() {
            State::Lost(why) => Some(why.heard_from(&self.peer)),
            State::Here | State::Over => None,
        }
    }

    fn command(&self, command: Command) {
        // Whoever is lost hears nothing more.
        let _ = self.commands.send(command);
    }
}

/// Process 0 of a cluster: it leads the others.
pub struct Lead {
    lobby: Lobby,
    seats: Vec<Seat>,
}

impl Lead {
    /// Waits until every member is there, however long that takes, and says whom it waits for.
    ///
    /// # Errors
    /// `Config` when this process cannot listen at its address.
    pub async fn assemble(place: Place) -> Result<Lead> {
        let mut lobby = Lobby::open(place).await?;
        let processes = lobby.place.hosts.processes();
        let mut seats: Vec<Option<Seat>> = (1..processes).map(|_| None).collect();
        for process in 1..processes {
            let name = lobby.place.name_of(process);
            lobby.place.awaited.wait_for(process, &name, None);
        }
        let mut say = tokio::time::interval(SAY_EVERY);
        let mut look = tokio::time::interval(Duration::from_millis(100));
        while seats.iter().any(Option::is_none) {
            tokio::select! {
                guest = lobby.guest() => {
                    let (process, stream) = guest?;
                    let Some(at) = (process as usize).checked_sub(1) else { continue };
                    let peer = lobby.place.name_of(process);
                    tracing::info!(event = "peer_joined", peer = process, "{peer} is here");
                    lobby.place.awaited.came(process);
                    let wire = Wire::new(stream, peer, lobby.place.beat());
                    // One that comes again has started again: what was before it is no more.
                    if let Some(seat) = seats.get_mut(at) {
                        *seat = Some(Seat::take(process, wire));
                    }
                }
                _ = say.tick() => for (at, seat) in seats.iter().enumerate() {
                    if seat.is_none() {
                        let process = at as u32 + 1;
                        let name = lobby.place.name_of(process);
                        tracing::info!(event = "peer_awaited", peer = process, "waiting for {name}");
                    }
                },
                _ = look.tick() => for (at, seat) in seats.iter_mut().enumerate() {
                    if let Some(lost) = seat.as_ref().and_then(Seat::lost) {
                        let process = at as u32 + 1;
                        tracing::warn!(
                            event = "peer_lost",
                            peer = process,
                            "{}; waiting for it to come back",
                            lost.report()
                        );
                        let name = lobby.place.name_of(process);
                        lobby.place.awaited.wait_for(process, &name, Some(lost.report()));
                        *seat = None;
                    }
                },
            }
        }
        let seats = seats.into_iter().flatten().collect();
        Ok(Lead { lobby, seats })
    }

    /// Tells every member that the run begins, as this generation, and may write as long as `fence` is open. `plan` is for the job
    /// to say.
    pub fn begin(&self, generation: Generation, fence: &Fence, plan: &Value) {
        self.lobby.begin(generation);
        for seat in &self.seats {
            seat.command(Command::Begin(generation, fence.clone(), plan.clone()));
        }
    }

    /// Tells every member that there is no run, and why.
    pub async fn refuse(self, error: &Error) {
        for seat in &self.seats {
            seat.command(Command::Refuse(Told::of(error)));
        }
        for mut seat in self.seats {
            // Until it has heard, or is lost anyway.
            let gone = seat.state.wait_for(|state| *state != State::Here);
            let _ = timeout(self.lobby.place.peer_timeout, gone).await;
        }
    }

    /// From here on the ledger says to the members what it knows, and hears of them.
    pub fn attach(&self, ledger: &Ledger) {
        ledger.lead(self.seats.len());
        for seat in &self.seats {
            if seat.commands.send(Command::Attach(ledger.clone())).is_err() {
                ledger.fail(seat.lost().unwrap_or_else(|| gone(&seat.peer)));
            }
        }
    }

    /// The connections for the dataflow.
    ///
    /// # Errors
    /// `PeerLost` when a member is lost before all are there, or whatever has ended the run.
    pub async fn mesh(&mut self, ledger: &Ledger) -> Result<Mesh> {
        self.lobby.mesh(ledger).await
    }

    /// Waits until nothing that any member has begun is under way any more, and lets them go. False when that is not so, or not
    /// known, of one of them within `patience`.
    pub async fn end(self, patience: Duration) -> bool {
        let mut all = true;
        let deadline = tokio::time::Instant::now() + patience;
        for seat in &self.seats {
            let mut state = seat.state.clone();
            let gone = state.wait_for(|state| *state != State::Here);
            let ended = tokio::time::timeout_at(deadline, gone).await;
            all &= matches!(ended, Ok(Ok(state)) if *state == State::Over);
        }
        for seat in &self.seats {
            seat.command(Command::Over);
        }
        for seat in self.seats {
            // The task ends when it has said so.
            let _ = tokio::time::timeout_at(deadline, seat.commands.closed()).await;
        }
        all
    }
}

impl Seat {
    fn take(process: u32, wire: Wire) -> Seat {
        let (commands, commanded) = mpsc::unbounded_channel();
        let (state, seen) = watch::channel(State::Here);
        let peer = wire.peer.clone();
        let attending = Attending {
            process,
            wire,
            state,
            heard: 0,
            fence: Fence::unlimited(),
            ledger: None,
        };
        tokio::spawn(attending.run(commanded));
        Seat {
            peer,
            commands,
            state: seen,
        }
    }
}

/// The task at process 0's end of a member's connection.
struct Attending {
    process: u32,
    wire: Wire,
    state: watch::Sender<State>,
    /// The member's newest word.
    heard: u64,
    fence: Fence,
    ledger: Option<(Ledger, watch::Receiver<()>)>,
}

impl Attending {
    async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        if let Err(lost) = self.attend(&mut commands).await
            && *self.state.borrow() == State::Here
        {
            self.state.send_replace(State::Lost(Told::of(&lost)));
            let came = last_ledger(&mut commands, |command| match command {
                Command::Attach(ledger) => Some(ledger),
                _ => None,
            });
            let ledger = came.or(self.ledger.map(|(ledger, _)| ledger));
            if let Some(ledger) = ledger {
                ledger.fail(lost);
            }
        }
    }

    async fn attend(&mut self, commands: &mut mpsc::UnboundedReceiver<Command>) -> Result<()> {
        loop {
            let news = self.ledger.as_mut().map(|(_, news)| news);
            match next(&mut self.wire, commands, news).await? {
                Next::Event(Event::Said(said)) => self.hear(said),
                Next::Event(Event::Due) | Next::News => self.say().await?,
                Next::Command(Some(Command::Begin(generation, fence, plan))) => {
                    self.fence = fence;
                    let may_write = self.may_write();
                    let begin = FromLead::Begin {
                        generation,
                        may_write,
                        plan,
                    };
                    self.wire.say(&begin).await?;
                }
                Next::Command(Some(Command::Attach(ledger))) => {
                    let news = ledger.news();
                    self.ledger = Some((ledger, news));
                    self.say().await?;
                }
                Next::Command(Some(Command::Refuse(why))) => {
                    self.wire.say(&FromLead::Refused(why)).await?;
                }
                Next::Command(Some(Command::Over)) => {
                    return self.wire.say(&FromLead::Over).await;
                }
                // Process 0 has given up.
                Next::Command(None) => return Ok(()),
            }
        }
    }

    fn hear(&mut self, said: FromMember) {
        let FromMember {
            number,
            facts,
            over,
            report,
        } = said;
        self.heard = number;
        match &self.ledger {
            Some((ledger, _)) => {
                if let Some(report) = report {
                    ledger.hear_report(self.process, report);
                }
                ledger.hear_member(self.process, &self.wire.peer, facts);
            }
            None => {
                if let Some(failure) = facts.failure {
                    self.state
                        .send_replace(State::Lost(Told::of(&failure.heard_from(&self.wire.peer))));
                }
            }
        }
        if over {
            self.state.send_if_modified(|state| {
                let news = *state == State::Here;
                if news {
                    *state = State::Over;
                }
                news
            });
        }
    }

    async fn say(&mut self) -> Result<()> {
        let word = match &self.ledger {
            None => FromLead::Waiting {
                may_write: self.may_write(),
            },
            Some((ledger, _)) => FromLead::Run {
                may_write: self.may_write(),
                facts: ledger.run_facts(),
            },
        };
        self.wire.say(&word).await
    }

    fn may_write(&self) -> MayWrite {
        let left = self.fence.left().as_millis();
        MayWrite {
            heard: self.heard,
            for_ms: u64::try_from(left).unwrap_or(u64::MAX),
        }
    }
}

/// The error of a process of which another one says that there is no run.
pub(super) fn gone(peer: &str) -> Error {
    Error::new(
        ErrorKind::PeerLost,
        format!("{peer} has ended before the run began"),
    )
}
