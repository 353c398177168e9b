//! Committing what is acknowledged, compacting, and collecting garbage.

use super::*;

impl Run {
    pub(super) async fn commit(
        &self,
        mut commits: CommitWriter,
        mut acked: Received<Acked>,
        (compactions, mut bases): (Sender<Compaction>, Received<Option<BaseRef>>),
        collections: Sender<Collection>,
    ) {
        let mut compacting = false;
        let mut last = None;
        while let Some(mut next) = acked.recv().await {
            while let Ok(newer) = acked.try_recv() {
                let mut seals = std::mem::take(&mut next.seals);
                seals.extend(newer.seals);
                next = Acked { seals, ..newer };
            }
            if self.has_failed() {
                return;
            }
            if let Ok(base) = bases.try_recv() {
                compacting = false;
                if let Some(Err(error)) = base.map(|base| commits.set_base(base)) {
                    return self.fail(error);
                }
            }
            let position = next.position;
            match commits.commit(request(next)).await {
                Ok(commit) => last = Some(commit),
                Err(error) => return self.fail(error),
            }
            self.world.ask(|oracle, _| oracle.told_committed(position));
            self.world.count("commits");
            let due = |percent| self.world.dice(0..100) < percent;
            if !compacting && due(self.world.knobs.compact) {
                compacting = true;
                // Gone only after a failure.
                if let Some(compaction) = commits.compaction() {
                    let _ = compactions.send(compaction);
                }
            }
            if due(self.world.knobs.collect)
                && let Some(collection) = commits.collection()
            {
                let _ = collections.send(collection);
            }
        }
        if let (Goal::CaughtUp, Some(last)) = (self.goal, last)
            && let Err(error) = self.tidy_up(&mut commits, last).await
        {
            self.fail(error);
        }
    }

    /// Compacts, commits until no older commit is kept, and collects garbage: nothing of the past is left.
    async fn tidy_up(&self, commits: &mut CommitWriter, last: CommitRecord) -> Result<()> {
        let compaction = commits.compaction().expect("this run has committed");
        if let Some(base) = compaction.run().await? {
            commits.set_base(base)?;
        }
        for later in 1..=self.world.knobs.retain_commits as u64 {
            let request = CommitRequest {
                epoch: Epoch(last.epoch.0 + later),
                loading: false,
                tokens: last.tokens.clone(),
                seals: Vec::new(),
                sinks: last.sinks.clone(),
                marks: Default::default(),
            };
            commits.commit(request).await?;
        }
        commits.collect_garbage().await.map(drop)
    }

    pub(super) async fn compact(
        &self,
        mut due: Received<Compaction>,
        out: Sender<Option<BaseRef>>,
    ) {
        while let Some(compaction) = due.recv().await {
            match compaction.run().await {
                Ok(base) => {
                    self.world.count(match base {
                        Some(_) => "bases",
                        None => "compactions without need",
                    });
                    let _ = out.send(base);
                }
                Err(error) => return self.fail(error),
            }
        }
    }

    /// A collection that failed is tried again later.
    pub(super) async fn collect(&self, mut due: Received<Collection>) {
        while let Some(collection) = due.recv().await {
            match collection.run().await {
                Ok(_) => self.world.count("collections"),
                Err(error) => judge(&self.world, &error),
            }
        }
    }
}

fn request(acked: Acked) -> CommitRequest {
    CommitRequest {
        epoch: acked.epoch,
        loading: false,
        tokens: tokens_of(acked.position),
        seals: acked.seals,
        sinks: BTreeMap::from([("view".to_owned(), acked.sink)]),
        marks: Default::default(),
    }
}
