//! Writing what is sealed, with the keyed state, until the sink has acknowledged it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::future::join_all;
use tokio::time::{sleep, timeout};

use super::super::feed::to_record;
use super::super::network::send;
use super::super::oracle::Write;
use super::super::world::{FAULT, SETTLE};
use super::*;

impl Run {
    pub(super) async fn write(
        &self,
        (mut states, mut view, replayed_through): (SealWriter, BTreeMap<u64, u64>, Option<Epoch>),
        settle: Duration,
        mut sealed: Received<Sealed>,
        out: Sender<Acked>,
    ) {
        if self.pause(settle).await {
            return;
        }
        let seen = self.world.ask(|oracle, _| Ok(oracle.seen()));
        let drain = self.world.dice(0..10) < self.world.knobs.drain;
        while let Some(first) = sealed.recv().await {
            if self.has_failed() || (*self.told.borrow() && !drain) {
                return;
            }
            let mut batch = vec![first];
            while self.world.dice(0..2) == 0
                && let Ok(more) = sealed.try_recv()
            {
                batch.push(more);
            }
            let last = batch.last().expect("not empty");
            let (epoch, position) = (last.epoch, last.position);
            match self.write_batch(&mut states, &mut view, &batch).await {
                Ok(state_seals) => {
                    if replayed_through.is_some_and(|through| epoch >= through) {
                        self.world.ask(|oracle, _| oracle.replayed(&seen));
                    }
                    let inputs = batch.iter().filter_map(|sealed| sealed.seal);
                    let acked = Acked {
                        epoch,
                        position,
                        seals: inputs.chain(state_seals).collect(),
                        sink: sink_state(&view),
                    };
                    self.in_flight.fetch_sub(batch.len(), Ordering::Relaxed);
                    let _ = out.send(acked);
                }
                Err(error) => return self.fail(error),
            }
        }
    }

    /// Writes the newest version of each document of some epochs, and how the keyed state changes.
    async fn write_batch(
        &self,
        states: &mut SealWriter,
        view: &mut BTreeMap<u64, u64>,
        batch: &[Sealed],
    ) -> Result<Option<SealRef>> {
        let mut newest = BTreeMap::new();
        for sealed in batch {
            for change in &sealed.changes {
                newest.insert(change.key, (sealed.epoch, *change));
                match change.live {
                    true => view.insert(change.key, change.version),
                    false => view.remove(&change.key),
                };
            }
        }
        let writes = newest.values().map(|(epoch, change)| Write {
            generation: self.generation,
            epoch: *epoch,
            change: *change,
        });
        let written = join_all(writes.map(|write| self.write_document(write))).await;
        written.into_iter().collect::<Result<()>>()?;
        let epoch = batch.last().expect("not empty").epoch;
        let state = SealPart {
            source: State::NAME.to_owned(),
            ranges: Vec::new(),
            records: newest
                .values()
                .map(|(_, change)| to_record(change))
                .collect(),
            marks: Default::default(),
        };
        states.write(epoch, vec![state]).await.map(Some)
    }

    /// Writes one document until the sink has acknowledged it.
    async fn write_document(&self, write: Write) -> Result<()> {
        loop {
            let sent = self.fence.guard(timeout(SETTLE, self.send(write))).await?;
            match sent {
                Ok(true) => return Ok(()),
                Ok(false) => sleep(Duration::from_millis(100)).await,
                Err(_) => {
                    self.abandoned.store(true, Ordering::Relaxed);
                    let what = format!("{FAULT}: the sink does not answer");
                    return Err(Error::new(ErrorKind::Unreachable, what));
                }
            }
            // As a sink that lost its batch half way: the rest is written no more.
            if self.has_failed() {
                return Err(Error::new(ErrorKind::Unreachable, FAULT));
            }
        }
    }

    /// One request to the sink. False if it failed.
    async fn send(&self, write: Write) -> bool {
        let number = self.world.ask(|oracle, _| oracle.begin_write(&write));
        let Write { epoch, change, .. } = write;
        let line = format!("p{} sink {epoch} {change:?}", self.process);
        self.world.trace(line.clone());
        let world = Arc::clone(&self.world);
        let about = line.clone();
        let effect = async move {
            world.trace(format!("{about}: done"));
            world.ask(|oracle, _| oracle.carry_out(&write, number));
        };
        let (moments, plan) = (
            self.world.moments.clone(),
            self.world.plan_sink(self.process),
        );
        let answer = send(moments, plan, effect).await;
        self.world
            .trace(format!("{line}: answered {}", answer.is_ok()));
        self.world.count("writes");
        answer.is_ok()
    }
}
