//! A model of a container with both feeds, read through phases while it changes, splits and the reader crashes.

use std::collections::BTreeMap;

use super::super::position::Part;
use super::*;

/// Documents are bytes, and a key's hash is the key: ranges are of two hexadecimal digits.
const RANGE: &str = "-FF";

/// One change: the key, and the version that it wrote.
type Change = (u8, Option<u64>);

/// A container: partitions with what happened in them, by LSN.
struct Container {
    partitions: Vec<Partition>,
    page_size: usize,
    /// Whether LSNs can be read from continuations.
    readable: bool,
    /// Whether "nothing new" moves a position to the end of its partition.
    moves_when_idle: bool,
}

#[derive(Clone)]
struct Partition {
    min: String,
    max: String,
    lsn: u64,
    changes: Vec<(u64, Change)>,
}

/// A cursor as the SDK's: leaves in turn, each with an LSN.
#[derive(Clone)]
struct Cursor {
    feed: Feed,
    leaves: Vec<(String, String, u64)>,
    next: usize,
    quiet_polls: usize,
}

fn hex(key: u8) -> String {
    format!("{key:02X}")
}

impl Container {
    /// One partition with nothing in it, whose positions can be read.
    fn new(page_size: usize, moves_when_idle: bool) -> Self {
        Container {
            partitions: vec![Partition {
                min: String::new(),
                max: "FF".to_owned(),
                lsn: 0,
                changes: Vec::new(),
            }],
            page_size,
            readable: true,
            moves_when_idle,
        }
    }

    fn write(&mut self, changes: &[Change]) {
        for partition in &mut self.partitions {
            let inside = |(key, _): &&Change| {
                let hash = hex(*key);
                partition.min <= hash && hash < partition.max
            };
            let here: Vec<_> = changes.iter().filter(inside).copied().collect();
            if !here.is_empty() {
                partition.lsn += 1;
                let lsn = partition.lsn;
                partition
                    .changes
                    .extend(here.into_iter().map(|change| (lsn, change)));
            }
        }
    }

    fn split(&mut self, index: usize, at: u8) {
        let at = hex(at);
        let whole = &self.partitions[index];
        if at <= whole.min || at >= whole.max {
            return;
        }
        let part = |min: &str, max: &str| {
            let inside = |(_, (key, _)): &&(u64, Change)| {
                let hash = hex(*key);
                min <= hash.as_str() && hash.as_str() < max
            };
            Partition {
                min: min.to_owned(),
                max: max.to_owned(),
                lsn: whole.lsn,
                changes: whole.changes.iter().filter(inside).copied().collect(),
            }
        };
        let children = [part(&whole.min, &at), part(&at, &whole.max)];
        self.partitions.splice(index..=index, children);
    }

    fn contents(&self) -> BTreeMap<u8, u64> {
        let mut contents = BTreeMap::new();
        for (_, (key, version)) in self.partitions.iter().flat_map(|part| &part.changes) {
            match version {
                Some(version) => contents.insert(*key, *version),
                None => contents.remove(key),
            };
        }
        contents
    }

    fn poll(&self, cursor: &mut Cursor) -> Answer {
        cursor.follow_splits(self);
        let (min, max, after) = &mut cursor.leaves[cursor.next];
        let found = self
            .partitions
            .iter()
            .find(|part| part.min <= *min && *max <= part.max);
        let partition = found.expect("splits are followed");
        let mut page: Vec<Change> = Vec::new();
        let (mut full, mut last) = (false, *after);
        for (lsn, (key, version)) in &partition.changes {
            let newer = partition
                .changes
                .iter()
                .any(|(other, (theirs, _))| theirs == key && other > lsn);
            let hidden = cursor.feed == Feed::Latest && (newer || version.is_none());
            let hash = hex(*key);
            if *lsn <= *after || hash < *min || hash >= *max || hidden {
                continue;
            }
            // What shares an LSN stays together.
            if page.len() >= self.page_size && *lsn != last {
                full = true;
                break;
            }
            page.push((*key, *version));
            last = *lsn;
        }
        *after = last;
        if !full && (self.moves_when_idle || !page.is_empty()) {
            *after = partition.lsn;
        }
        cursor.next = (cursor.next + 1) % cursor.leaves.len();
        cursor.quiet_polls = match page.is_empty() {
            true => cursor.quiet_polls + 1,
            false => 0,
        };
        let quiet = cursor.quiet_polls >= cursor.leaves.len();
        if quiet {
            cursor.quiet_polls = 0;
        }
        let record = |(key, version): Change| Record {
            key: vec![key].into(),
            body: version.map(|version| version.to_be_bytes().to_vec().into()),
        };
        Answer {
            records: page.into_iter().map(record).collect(),
            position: cursor.position(self.readable),
            quiet,
        }
    }

    /// A position in the feed of all versions, taken now.
    fn pin(&self) -> Position {
        let leaf = |part: &Partition| (part.min.clone(), part.max.clone(), part.lsn);
        let leaves = self.partitions.iter().map(leaf).collect();
        Cursor::at(Feed::All, leaves).position(self.readable)
    }
}

impl Cursor {
    fn at(feed: Feed, leaves: Vec<(String, String, u64)>) -> Self {
        Cursor {
            feed,
            leaves,
            next: 0,
            quiet_polls: 0,
        }
    }

    fn beginning() -> Self {
        Cursor::at(Feed::Latest, vec![(String::new(), "FF".to_owned(), 0)])
    }

    fn of(feed: Feed, position: &Position) -> Self {
        let leaf = |text: &str| {
            let mut fields = text.split(',').map(str::to_owned);
            let mut field = || fields.next().expect("three fields");
            (field(), field(), field().parse().expect("a number"))
        };
        Cursor::at(feed, position.token.split(';').map(leaf).collect())
    }

    fn follow_splits(&mut self, container: &Container) {
        let mut leaves = Vec::new();
        for (min, max, lsn) in &self.leaves {
            for part in &container.partitions {
                let (low, high) = (min.max(&part.min), max.min(&part.max));
                if low < high {
                    leaves.push((low.clone(), high.clone(), *lsn));
                }
            }
        }
        if leaves.len() != self.leaves.len() {
            self.quiet_polls = 0;
        }
        self.leaves = leaves;
        self.next %= self.leaves.len();
    }

    fn position(&self, readable: bool) -> Position {
        let text = |(min, max, lsn): &(String, String, u64)| format!("{min},{max},{lsn}");
        let token: Vec<_> = self.leaves.iter().map(text).collect();
        let part = |(min, max, lsn): &(String, String, u64)| Part {
            range: FeedRangeId::of(min, max),
            lsn: readable.then_some(*lsn),
        };
        let parts = self.leaves.iter().map(part).collect();
        Position::new(token.join(";"), parts)
    }
}

/// A reader with the cursors that its driver would have.
struct Reader {
    phases: Phases,
    latest: Cursor,
    all: Cursor,
}

#[derive(Clone)]
enum Durable {
    Load(Position, Option<Position>),
    Stream(Position),
}

impl Reader {
    fn resume(from: &Durable) -> Self {
        let range = FeedRangeId(RANGE.to_owned());
        match from.clone() {
            Durable::Load(pinned, latest) => Reader {
                latest: latest
                    .as_ref()
                    .map_or_else(Cursor::beginning, |at| Cursor::of(Feed::Latest, at)),
                all: Cursor::of(Feed::All, &pinned),
                phases: Phases::load(range, pinned, latest),
            },
            Durable::Stream(all) => Reader {
                latest: Cursor::beginning(),
                all: Cursor::of(Feed::All, &all),
                phases: Phases::stream(range, all),
            },
        }
    }

    fn poll(&mut self, container: &Container) -> Option<Delivery> {
        let feed = self.phases.asks();
        let cursor = match feed {
            Feed::Latest => &mut self.latest,
            Feed::All => &mut self.all,
        };
        let answer = container.poll(cursor);
        let delivery = self.phases.take(answer);
        if self.phases.asks() != feed {
            self.all.quiet_polls = 0;
        }
        delivery
    }

    fn durable(&self) -> Durable {
        match self.phases.resume() {
            Resume::Load { pinned, latest } => Durable::Load(pinned.clone(), latest.cloned()),
            Resume::Stream { all } => Durable::Stream(all.clone()),
        }
    }
}

/// What a view has shown.
#[derive(Default)]
struct View {
    rows: BTreeMap<u8, u64>,
    newest: BTreeMap<u8, u64>,
}

impl View {
    fn apply(&mut self, records: &Records) {
        // A page is applied at once: only the last change of a document is seen.
        let net: BTreeMap<u8, Option<u64>> = records
            .iter()
            .map(|record| {
                let version = record
                    .body
                    .map(|body| body.try_into().expect("eight bytes"));
                (record.key[0], version.map(u64::from_be_bytes))
            })
            .collect();
        for (key, version) in net {
            let Some(version) = version else {
                self.rows.remove(&key);
                continue;
            };
            let newest = self.newest.get(&key).copied().unwrap_or(0);
            let shown = self.rows.insert(key, version);
            assert!(
                version > newest || shown == Some(version),
                "{key} shows {version} after {newest}, and was {shown:?}"
            );
            self.newest.insert(key, version.max(newest));
        }
    }
}

fn change(random: &mut fastrand::Rng, container: &mut Container, version: &mut u64) {
    match random.u8(0..20) {
        0 => {
            let index = random.usize(0..container.partitions.len());
            if container.partitions.len() < 6 {
                container.split(index, random.u8(1..250));
            }
        }
        // A deletion or an expiry: of a document that is there.
        1..6 => {
            let there: Vec<u8> = container.contents().into_keys().collect();
            if !there.is_empty() {
                container.write(&[(there[random.usize(0..there.len())], None)]);
            }
        }
        _ => {
            *version += 1;
            let mut keys: Vec<u8> = (0..random.u8(1..4)).map(|_| random.u8(0..40) * 6).collect();
            keys.sort_unstable();
            keys.dedup();
            let changes: Vec<_> = keys.iter().map(|key| (*key, Some(*version))).collect();
            container.write(&changes);
        }
    }
}

/// Whatever happens while the load goes on, and however often the reader crashes and goes on from its last durable page: the view
/// ends equal to the container, and no document goes back in time on the way.
#[test]
fn the_view_never_goes_back_and_ends_right() {
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let (mut crashes, mut collected) = (0, 0);
    for round in 0..400 {
        let mut random = fastrand::Rng::with_seed(seed ^ round);
        let mut container = Container {
            readable: random.u8(0..4) > 0,
            ..Container::new(random.usize(1..5), random.bool())
        };
        let mut version = 0;
        for _ in 0..random.usize(0..80) {
            change(&mut random, &mut container, &mut version);
        }
        let mut durable = Durable::Load(container.pin(), None);
        let mut reader = Reader::resume(&durable);
        let mut view = View::default();
        let writes = random.usize(0..120);
        let crash_of_ten = random.u8(0..6);
        for _ in 0..writes {
            for _ in 0..random.usize(0..3) {
                change(&mut random, &mut container, &mut version);
            }
            for _ in 0..random.usize(0..4) {
                let collecting = reader.phases.asks() == Feed::All
                    && matches!(reader.durable(), Durable::Load(..));
                let delivery = reader.poll(&container);
                if random.u8(0..10) < crash_of_ten {
                    // What was delivered and is not durable was never seen.
                    crashes += 1;
                    reader = Reader::resume(&durable);
                } else if let Some(delivery) = delivery {
                    collected += usize::from(collecting && !delivery.records.is_empty());
                    view.apply(&delivery.records);
                    durable = reader.durable();
                }
            }
        }
        // Who was quiet while there were writes says nothing now.
        reader.latest.quiet_polls = 0;
        reader.all.quiet_polls = 0;
        let mut polls = 0;
        loop {
            polls += 1;
            assert!(polls < 10_000, "round {round} never catches up");
            let Some(delivery) = reader.poll(&container) else {
                continue;
            };
            view.apply(&delivery.records);
            if delivery.caught_up {
                break;
            }
        }
        assert_eq!(view.rows, container.contents(), "round {round}");
    }
    assert!(crashes > 1000, "only {crashes} crashes");
    assert!(collected > 100, "only {collected} loads had to catch up");
}

/// A container that is written for ever is never quiet; the load ends all the same.
#[test]
fn a_load_ends_while_writing_goes_on() {
    let mut container = Container::new(2, false);
    for key in 0..20 {
        container.write(&[(key, Some(1))]);
    }
    let mut reader = Reader::resume(&Durable::Load(container.pin(), None));
    for version in 2..1000 {
        container.write(&[((version % 7) as u8, Some(version))]);
        reader.poll(&container);
        if matches!(reader.durable(), Durable::Stream(_)) {
            assert!(version < 50, "after {version} writes");
            return;
        }
    }
    panic!("the load never ends");
}

/// The point of it all, step by step: a document that is deleted during the load goes away, one that was loaded in its newest version
/// does not show the versions before it, and nothing of that is caught up before it is there.
#[test]
fn what_happened_during_the_load_comes_as_one_page() {
    let mut container = Container::new(2, true);
    for key in 1..=4 {
        container.write(&[(key, Some(1))]);
    }
    let mut reader = Reader::resume(&Durable::Load(container.pin(), None));
    let first = reader.poll(&container).expect("a page of two");
    assert_eq!((first.records.len(), first.caught_up), (2, false));
    container.write(&[(1, None)]);
    container.write(&[(3, Some(2))]);
    container.write(&[(3, Some(3))]);
    let mut deliveries = Vec::new();
    for _ in 0..20 {
        deliveries.extend(reader.poll(&container));
        if matches!(reader.durable(), Durable::Stream(_)) {
            break;
        }
    }
    let page = deliveries.last().expect("the page of the changes");
    let body = |version: u64| Some(version.to_be_bytes().to_vec().into());
    let expected = [(1u8, None), (3, body(3))].map(|(key, body)| Record {
        key: vec![key].into(),
        body,
    });
    assert_eq!(page.records, expected.into_iter().collect());
    assert!(deliveries.iter().rev().skip(1).all(|page| !page.caught_up));
}
