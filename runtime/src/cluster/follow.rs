//! A member and its connection to process 0.

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use super::assemble::{Lobby, Place};
use super::facts::{MemberFacts, RunFacts, Told};
use super::handshake::Purpose;
use super::lead::{FromLead, FromMember, MayWrite, gone};
use super::mesh::Mesh;
use super::next::{Next, last_ledger, next};
use super::wire::{Event, Wire};
use crate::fence::{Fence, Renewal};
use crate::{Error, Generation, Ledger, Result};

/// What a member is told at the beginning of a run.
pub struct Begun {
    /// Which run it is.
    pub generation: Generation,
    /// Open as long as the member may write (I7): as long as process 0 is known to hold the lease.
    pub fence: Fence,
    /// What the job of process 0 says.
    pub plan: Value,
}

enum Command {
    Attach(Ledger),
    Fail(Told),
    Over,
}

/// A process of a cluster other than 0.
pub struct Follow {
    lobby: Lobby,
    commands: mpsc::UnboundedSender<Command>,
    begun: Option<oneshot::Receiver<Result<Begun>>>,
}

impl Follow {
    /// Looks for process 0, however long that takes, and says that it waits.
    ///
    /// # Errors
    /// `Config` when this process cannot listen at its address, or when it does not fit process 0: what differs.
    pub async fn join(place: Place) -> Result<Follow> {
        let lobby = Lobby::open(place).await?;
        let stream = lobby.dial(0, Purpose::Control, None).await?;
        let wire = Wire::new(stream, lobby.place.name_of(0), lobby.place.beat());
        tracing::info!(event = "peer_joined", peer = 0, "{} is here", wire.peer);
        let (commands, commanded) = mpsc::unbounded_channel();
        let (begin, begun) = oneshot::channel();
        let following = Following {
            wire,
            number: 0,
            // What process 0 grants before it has heard anything counts from here.
            words: VecDeque::from([(0, Renewal::begin())]),
            begin: Some(begin),
            fence: None,
            ledger: None,
            early: None,
            failure: None,
            over: false,
        };
        tokio::spawn(following.run(commanded));
        Ok(Follow {
            lobby,
            commands,
            begun: Some(begun),
        })
    }

    /// Waits until process 0 begins the run.
    ///
    /// # Errors
    /// `PeerLost` when process 0 is lost or does not begin one, `Fenced` when it may not.
    pub async fn begun(&mut self) -> Result<Begun> {
        let twice = || Error::internal("a member waits for its beginning once");
        let begun = self.begun.take().ok_or_else(twice)?;
        let begun = begun
            .await
            .map_err(|_| gone(&self.lobby.place.name_of(0)))??;
        self.lobby.begin(begun.generation);
        Ok(begun)
    }

    /// From here on the ledger says to process 0 what it knows, and hears of it.
    pub fn attach(&self, ledger: &Ledger) {
        ledger.follow();
        if self.commands.send(Command::Attach(ledger.clone())).is_err() {
            ledger.fail(gone(&self.lobby.place.name_of(0)));
        }
    }

    /// The connections for the dataflow.
    ///
    /// # Errors
    /// `PeerLost` when another process is lost before all are there, or whatever has ended the run.
    pub async fn mesh(&mut self, ledger: &Ledger) -> Result<Mesh> {
        self.lobby.mesh(ledger).await
    }

    /// Tells process 0 why this process cannot begin.
    pub async fn fail(self, error: &Error) {
        let _ = self.commands.send(Command::Fail(Told::of(error)));
        self.end(Duration::ZERO).await;
    }

    /// Tells process 0 that nothing is under way any more here, and waits until it lets this process go, or is gone itself.
    pub async fn end(self, patience: Duration) {
        let _ = self.commands.send(Command::Over);
        let patience = patience.max(self.lobby.place.peer_timeout);
        // The task ends when it is let go.
        let _ = timeout(patience, self.commands.closed()).await;
    }
}

/// The task at a member's end of its connection.
struct Following {
    wire: Wire,
    /// Of the newest word.
    number: u64,
    /// When each word was begun that process 0 may answer to.
    words: VecDeque<(u64, Renewal)>,
    begin: Option<oneshot::Sender<Result<Begun>>>,
    fence: Option<Fence>,
    ledger: Option<(Ledger, watch::Receiver<()>)>,
    /// What process 0 said before there was a ledger to hear it.
    early: Option<RunFacts>,
    failure: Option<Told>,
    over: bool,
}

impl Following {
    async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        let Err(lost) = self.follow(&mut commands).await else {
            return;
        };
        if let Some(begin) = self.begin.take() {
            let _ = begin.send(Err(lost));
            return;
        }
        let came = last_ledger(&mut commands, |command| match command {
            Command::Attach(ledger) => Some(ledger),
            _ => None,
        });
        let ledger = came.or(self.ledger.map(|(ledger, _)| ledger));
        if let (Some(ledger), false) = (ledger, self.over) {
            ledger.fail(lost);
        }
    }

    async fn follow(&mut self, commands: &mut mpsc::UnboundedReceiver<Command>) -> Result<()> {
        self.say().await?;
        loop {
            let news = self.ledger.as_mut().map(|(_, news)| news);
            match next(&mut self.wire, commands, news).await? {
                Next::Event(Event::Said(FromLead::Over)) => return Ok(()),
                Next::Event(Event::Said(said)) => self.hear(said)?,
                Next::Event(Event::Due) | Next::News => self.say().await?,
                Next::Command(Some(Command::Attach(ledger))) => {
                    if let Some(facts) = self.early.take() {
                        ledger.hear_run(&self.wire.peer, facts);
                    }
                    let news = ledger.news();
                    self.ledger = Some((ledger, news));
                    self.say().await?;
                }
                Next::Command(Some(Command::Fail(why))) => {
                    self.failure = Some(why);
                    self.say().await?;
                }
                Next::Command(Some(Command::Over)) => {
                    self.over = true;
                    self.say().await?;
                }
                // This process has given up.
                Next::Command(None) => return Ok(()),
            }
        }
    }

    fn hear(&mut self, said: FromLead) -> Result<()> {
        match said {
            FromLead::Over => {}
            FromLead::Waiting { may_write } => self.grant(may_write),
            FromLead::Refused(why) => return Err(why.heard_from(&self.wire.peer)),
            FromLead::Begin {
                generation,
                may_write,
                plan,
            } => {
                let (since, span) = self.granted(may_write);
                let fence = Fence::until(since, span);
                self.fence = Some(fence.clone());
                if let Some(begin) = self.begin.take() {
                    let begun = Begun {
                        generation,
                        fence,
                        plan,
                    };
                    // Nobody waits for it any more when this process has given up.
                    let _ = begin.send(Ok(begun));
                }
            }
            FromLead::Run { may_write, facts } => {
                self.grant(may_write);
                match &self.ledger {
                    Some((ledger, _)) => ledger.hear_run(&self.wire.peer, facts),
                    None => self.early = Some(facts),
                }
            }
        }
        Ok(())
    }

    /// This process may write for longer, once it may at all.
    fn grant(&mut self, may_write: MayWrite) {
        let (since, span) = self.granted(may_write);
        if let Some(fence) = &self.fence {
            // One that has closed stays closed; whoever writes next finds out.
            let _ = fence.extend(since, span);
        }
    }

    /// Since when, and for how long, this process may write.
    fn granted(&mut self, may_write: MayWrite) -> (Renewal, Duration) {
        while self.words.len() > 1 && self.words[1].0 <= may_write.heard {
            self.words.pop_front();
        }
        let since = self.words[0].1;
        (since, Duration::from_millis(may_write.for_ms))
    }

    async fn say(&mut self) -> Result<()> {
        self.number += 1;
        self.words.push_back((self.number, Renewal::begin()));
        let mut facts = match &self.ledger {
            Some((ledger, _)) => ledger.member_facts(),
            None => MemberFacts::default(),
        };
        facts.failure = facts.failure.or(self.failure.clone());
        let ledger = self.ledger.as_ref();
        let report = ledger.and_then(|(ledger, _)| ledger.report_to_tell());
        let word = FromMember {
            number: self.number,
            facts,
            over: self.over,
            report,
        };
        self.wire.say(&word).await
    }
}
