//! The pages of one feed range.
//!
//! A start at "now" is *resolved* before the stream is handed out: the service has answered for every part of the range, and
//! what it had for some parts meanwhile is kept for the first page. The SDK's token only then says where each part stands; of a part
//! that it has not polled it would say "now" again, and a run that resumed there would miss what came in between. The same is
//! done before a load, for the position in the feed of all versions that the load is to be followed from.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use azure_data_cosmos::feed::FeedRange;
use azure_data_cosmos::options::ChangeFeedStartFrom;
use tidefeed_runtime::{Records, Result};

use super::asker::Asker;
use super::cursor::{Cursor, Place};
use super::phases::{Answer, Feed, Phases, Resume};
use super::position::Position;
use super::token::{Saved, SavedPhase};
use crate::feed::{Page, PageStream, Spent, Troubles};

/// How old the time in a token may become before the token is delivered again although nothing else in it is new. Longer
/// makes fewer seals of an idle source; shorter knows the age of a position better, which matters within hours.
const AGE_STEP: Duration = Duration::from_secs(60);

/// The pages of one feed range in LatestVersion mode.
pub(super) struct LatestStream {
    asker: Asker,
    cursor: Cursor,
    /// What came while the start was resolved.
    first: Option<Page>,
}

/// The pages of one feed range in AllVersionsAndDeletes mode.
pub(super) struct FullStream {
    asker: Asker,
    phases: Phases,
    latest: Cursor,
    all: Cursor,
    /// When the position in the feed of all versions was current, in seconds since 1970, as in the last token.
    at: u64,
    first: Option<Page>,
}

impl LatestStream {
    /// At `place`; "now" is resolved.
    pub(super) async fn open(mut asker: Asker, range: &FeedRange, place: Place) -> Result<Self> {
        let now = matches!(place, Place::Start(ChangeFeedStartFrom::Now));
        let mut cursor = asker.cursor(range, Feed::Latest, place);
        let mut first = None;
        if now {
            let mut spent = Spent::default();
            let (position, records) = asker.resolve(&mut cursor, &mut spent).await?;
            let saved = Saved::Latest(position.token);
            first = Some(asker.page(records, &saved, spent, None, false));
        }
        Ok(LatestStream {
            asker,
            cursor,
            first,
        })
    }
}

#[async_trait]
impl PageStream for LatestStream {
    async fn next_page(&mut self) -> Result<Page> {
        if let Some(first) = self.first.take() {
            return Ok(first);
        }
        // Whoever asks wants to know who is quiet from here on.
        self.cursor.listen_anew();
        let mut spent = Spent::default();
        loop {
            let polled = self.asker.ask(&mut self.cursor, None, &mut spent).await?;
            let records = self.asker.readable(polled.records)?;
            if polled.quiet || !records.is_empty() {
                let saved = Saved::Latest(polled.token);
                let (remaining, quiet) = (polled.remaining, polled.quiet);
                return Ok(self.asker.page(records, &saved, spent, remaining, quiet));
            }
        }
    }

    fn watched_by(&mut self, troubles: Troubles) {
        self.asker.troubles = troubles;
    }

    fn partitions(&self) -> usize {
        self.cursor.partitions()
    }
}

impl FullStream {
    /// From now on.
    pub(super) async fn now(mut asker: Asker, range: &FeedRange) -> Result<Self> {
        let mut spent = Spent::default();
        let mut all = asker.cursor(range, Feed::All, Place::Start(ChangeFeedStartFrom::Now));
        let at = now();
        let (position, records) = asker.resolve(&mut all, &mut spent).await?;
        let phases = Phases::stream(asker.id.clone(), position);
        let mut stream = Self::at(asker, range, phases, all, Place::never(), at);
        stream.first = Some(stream.page(records, spent, None, false));
        Ok(stream)
    }

    /// From the beginning: a position in the feed of all versions, and then the latest versions.
    pub(super) async fn beginning(mut asker: Asker, range: &FeedRange) -> Result<Self> {
        let mut spent = Spent::default();
        let mut all = asker.cursor(range, Feed::All, Place::Start(ChangeFeedStartFrom::Now));
        let at = now();
        // What comes meanwhile is in the latest versions as well, which are read after it.
        let (position, _) = asker.resolve(&mut all, &mut spent).await?;
        let phases = Phases::load(asker.id.clone(), position, None);
        let latest = Place::Start(ChangeFeedStartFrom::Beginning);
        let mut stream = Self::at(asker, range, phases, all, latest, at);
        // The position is worth keeping before anything is loaded.
        stream.first = Some(stream.page(Records::new(), spent, None, false));
        Ok(stream)
    }

    /// Where a run before this one was.
    pub(super) fn resumed(asker: Asker, range: &FeedRange, saved: SavedPhase) -> Result<Self> {
        let id = asker.id.clone();
        let at = saved.at();
        let (phases, all, latest) = match saved {
            SavedPhase::Stream { full, .. } => {
                let all = Position::of(full)?;
                (Phases::stream(id, all.clone()), all.token, Place::never())
            }
            SavedPhase::Load { full, latest, .. } => {
                let pinned = Position::of(full)?;
                let place = match &latest {
                    None => Place::Start(ChangeFeedStartFrom::Beginning),
                    Some(token) => Place::Token(token.clone()),
                };
                let latest = latest.map(Position::of).transpose()?;
                let phases = Phases::load(id, pinned.clone(), latest);
                (phases, pinned.token, place)
            }
        };
        let all = asker.cursor(range, Feed::All, Place::Token(all));
        Ok(Self::at(asker, range, phases, all, latest, at))
    }

    fn at(
        asker: Asker,
        range: &FeedRange,
        phases: Phases,
        all: Cursor,
        latest: Place,
        at: u64,
    ) -> Self {
        FullStream {
            latest: asker.cursor(range, Feed::Latest, latest),
            asker,
            phases,
            all,
            at,
            first: None,
        }
    }

    /// A page whose token is where the phases are.
    fn page(
        &self,
        records: Records,
        spent: Spent,
        remaining: Option<u64>,
        caught_up: bool,
    ) -> Page {
        let at = self.at;
        let saved = match self.phases.resume() {
            Resume::Load { pinned, latest } => SavedPhase::Load {
                full: pinned.token.clone(),
                latest: latest.map(|latest| latest.token.clone()),
                at,
            },
            Resume::Stream { all } => SavedPhase::Stream {
                full: all.token.clone(),
                at,
            },
        };
        self.asker
            .page(records, &Saved::Full(saved), spent, remaining, caught_up)
    }

    /// Takes the time for the next token: of its last change, or now where there is nothing newer.
    fn age(&mut self, moved: bool, quiet: bool, written_at: Option<u64>) {
        let now = now();
        let current = if quiet {
            now
        } else {
            written_at.unwrap_or(now)
        };
        if moved || current.saturating_sub(self.at) >= AGE_STEP.as_secs() {
            self.at = current;
        }
    }
}

#[async_trait]
impl PageStream for FullStream {
    async fn next_page(&mut self) -> Result<Page> {
        if let Some(first) = self.first.take() {
            return Ok(first);
        }
        // Whoever asks wants to know who is quiet from here on.
        self.latest.listen_anew();
        self.all.listen_anew();
        let mut spent = Spent::default();
        loop {
            let feed = self.phases.asks();
            let (cursor, at) = match feed {
                Feed::Latest => (&mut self.latest, None),
                Feed::All => (&mut self.all, Some(self.at)),
            };
            let polled = self.asker.ask(cursor, at, &mut spent).await?;
            let records = self.asker.readable(polled.records)?;
            let position = Position::of(polled.token)?;
            let moved = match self.phases.resume() {
                Resume::Stream { all } => *all != position,
                Resume::Load { .. } => true,
            };
            let taken = self.phases.take(Answer {
                records,
                position,
                quiet: polled.quiet,
            });
            if self.phases.asks() != feed {
                // What was quiet before the load is no answer to what is asked after it.
                self.all.listen_anew();
            }
            let Some(delivery) = taken else { continue };
            // While the load goes on, the position that is pinned ages.
            if matches!(self.phases.resume(), Resume::Stream { .. }) {
                self.age(moved, polled.quiet, polled.written_at);
            }
            // While the load goes on, the feed that answered is not the one that is to be caught up with.
            let remaining = match self.phases.resume() {
                Resume::Stream { .. } => polled.remaining,
                Resume::Load { .. } => None,
            };
            return Ok(self.page(delivery.records, spent, remaining, delivery.caught_up));
        }
    }

    fn watched_by(&mut self, troubles: Troubles) {
        self.asker.troubles = troubles;
    }

    fn partitions(&self) -> usize {
        self.latest.partitions().max(self.all.partitions())
    }
}

impl Place {
    /// Of a cursor that nobody will ask.
    fn never() -> Self {
        Place::Start(ChangeFeedStartFrom::Beginning)
    }
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs())
}
