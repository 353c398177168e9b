//! From a directory to an account.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;
use xxhash_rust::xxh3::xxh3_64;

use super::codec::{self, Record, Target, Written};
use super::file::{FRAME_BYTES, LogFile, MAGIC, sync_directory};
use super::{ContainerState, Event, Journal, snapshot};
use crate::config::FsyncPolicy;
use crate::epk::{EpkRange, from_hex};
use crate::ids;
use crate::json::Members;
use crate::store::account::Account;
use crate::store::container::{Container, Definition};
use crate::store::history::{Change, History};
use crate::store::map::{PartitionMap, shard_at};
use crate::store::partition::Partition;
use crate::store::shard::{Draft, Shard};

/// Largest payload that is believed: a request's body, with room for its frame.
const MAX_PAYLOAD_BYTES: u32 = 256 * 1024 * 1024;

/// Why a directory could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// What was opened, read or written.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another server uses the directory.
    #[error("{} is in use by another server: stop it, or choose another directory", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// A journal holds what no server wrote.
    #[error("{} is damaged at byte {offset} ({what}): restore it from a copy, or remove the directory to start empty", path.display())]
    Damaged {
        /// The journal.
        path: PathBuf,
        /// Where the bad record begins.
        offset: u64,
        /// What is wrong with it.
        what: &'static str,
    },
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Io { path, source }
}

pub(super) fn open(
    directory: &Path,
    policy: FsyncPolicy,
    build: impl FnOnce(u32) -> Account,
) -> Result<Account, OpenError> {
    fs::create_dir_all(directory).map_err(failed(directory))?;
    let lock = lock(directory)?;
    let journals = journals(directory)?;
    let (account, number) = match journals.last() {
        None => (build(ids::salt()), 0),
        Some((number, path)) => (replay(path, build)?, *number),
    };
    account.enforce_all();
    let fresh = directory.join(format!("journal-{:08}.log", number + 1));
    let (file, length) = begin(&account, directory, &fresh).map_err(failed(&fresh))?;
    for (_, path) in journals {
        fs::remove_file(&path).map_err(failed(&path))?;
    }
    let file = LogFile::new(file, length, policy).map_err(failed(&fresh))?;
    let journal = Journal { file, _lock: lock };
    // Nobody else has the account yet.
    let _ = account.environment().journal.set(journal);
    Ok(account)
}

fn lock(directory: &Path) -> Result<File, OpenError> {
    let path = directory.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(failed(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(OpenError::InUse {
            path: directory.to_owned(),
        }),
        Err(fs::TryLockError::Error(error)) => Err(failed(&path)(error)),
    }
}

/// The journals of a directory by number. What was being written when a server died has another ending.
fn journals(directory: &Path) -> Result<Vec<(u64, PathBuf)>, OpenError> {
    let mut journals = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed(directory))? {
        let path = entry.map_err(failed(directory))?.path();
        let number = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.strip_prefix("journal-")?.strip_suffix(".log"))
            .and_then(|number| number.parse().ok());
        journals.extend(number.map(|number| (number, path)));
    }
    journals.sort();
    Ok(journals)
}

/// Writes a fresh journal that holds everything, and gives it its name when it is on disk.
fn begin(account: &Account, directory: &Path, path: &Path) -> io::Result<(File, u64)> {
    let unfinished = path.with_extension("new");
    let mut out = BufWriter::with_capacity(1 << 20, File::create(&unfinished)?);
    out.write_all(MAGIC)?;
    let length = MAGIC.len() as u64 + snapshot::write(account, &mut out)?;
    let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    sync_directory(directory)?;
    Ok((file, length))
}

fn replay(path: &Path, build: impl FnOnce(u32) -> Account) -> Result<Account, OpenError> {
    let mut reader = Reader::open(path)?;
    let damaged = |offset, what| OpenError::Damaged {
        path: path.to_owned(),
        offset,
        what,
    };
    let Some((_, Record::Event(Event::Opened { salt, numbers }))) = reader.next()? else {
        return Err(damaged(0, "it does not begin as a journal does"));
    };
    let account = build(salt);
    account.numbers().reach(numbers);
    let mut replay = Replay {
        account: &account,
        last: None,
        gone: HashSet::new(),
    };
    while let Some((offset, record)) = reader.next()? {
        replay
            .record(record)
            .ok_or_else(|| damaged(offset, "a record that does not fit the ones before it"))?;
    }
    Ok(account)
}

/// Reads the records of a journal.
struct Reader {
    path: PathBuf,
    input: BufReader<File>,
    size: u64,
    offset: u64,
}

impl Reader {
    fn open(path: &Path) -> Result<Self, OpenError> {
        let file = File::open(path).map_err(failed(path))?;
        let size = file.metadata().map_err(failed(path))?.len();
        let mut reader = Self {
            path: path.to_owned(),
            input: BufReader::with_capacity(1 << 20, file),
            size,
            offset: MAGIC.len() as u64,
        };
        let mut magic = [0; MAGIC.len()];
        let read = reader.input.read_exact(&mut magic);
        if read.is_err() || magic != *MAGIC {
            return Err(reader.damaged("it is no journal of this version"));
        }
        Ok(reader)
    }

    fn damaged(&self, what: &'static str) -> OpenError {
        OpenError::Damaged {
            path: self.path.clone(),
            offset: self.offset,
            what,
        }
    }

    /// The next record and where it begins; `None` at the end, or where the last append was cut short.
    fn next(&mut self) -> Result<Option<(u64, Record)>, OpenError> {
        let left = self.size - self.offset;
        if left < FRAME_BYTES as u64 {
            return Ok(None);
        }
        let mut head = [0; FRAME_BYTES];
        self.read(&mut head)?;
        let (length, checksum) = head.split_at(4);
        let length = u32::from_le_bytes(length.try_into().unwrap_or_default());
        let checksum = u64::from_le_bytes(checksum.try_into().unwrap_or_default());
        let end = FRAME_BYTES as u64 + u64::from(length);
        if end > left {
            return Ok(None);
        }
        if length == 0 || length > MAX_PAYLOAD_BYTES {
            return self.torn_or_damaged(&[], "a length that no record has");
        }
        let mut payload = vec![0; length as usize];
        self.read(&mut payload)?;
        if xxh3_64(&payload) != checksum {
            return self.torn_or_damaged(&payload, "its checksum does not match");
        }
        let record = codec::decode(&payload)
            .ok_or_else(|| self.damaged("a record that this version does not know"))?;
        let offset = self.offset;
        self.offset += end;
        Ok(Some((offset, record)))
    }

    /// The end of an append that a power cut left: nothing good comes after it. Anything else is damage.
    fn torn_or_damaged(
        &mut self,
        payload: &[u8],
        what: &'static str,
    ) -> Result<Option<(u64, Record)>, OpenError> {
        let consumed = self.offset + (FRAME_BYTES + payload.len()) as u64;
        if !payload.is_empty() && consumed == self.size {
            return Ok(None);
        }
        let mut rest = Vec::new();
        self.input
            .read_to_end(&mut rest)
            .map_err(failed(&self.path))?;
        if payload.iter().chain(&rest).all(|byte| *byte == 0) {
            return Ok(None);
        }
        Err(self.damaged(what))
    }

    fn read(&mut self, bytes: &mut [u8]) -> Result<(), OpenError> {
        self.input.read_exact(bytes).map_err(failed(&self.path))
    }
}

struct Replay<'a> {
    account: &'a Account,
    /// The container of the last record: most records are about the same as the one before.
    last: Option<std::sync::Arc<Container>>,
    /// Numbers of containers that were deleted. Requests that had found one before may have written after.
    gone: HashSet<u32>,
}

impl Replay<'_> {
    /// Carries a record out; `None` if it makes no sense here.
    fn record(&mut self, record: Record) -> Option<()> {
        match record {
            Record::Event(event) => self.event(event),
            Record::Writes(target, writes) => self.with_shard(target, |container, shard| {
                for write in writes {
                    replay_write(container, shard, write)?;
                }
                Some(())
            }),
            Record::Documents(target, documents) => self.with_shard(target, |container, shard| {
                for document in documents {
                    let version = document.outcome.ok()?;
                    let draft = draft(container, document.id, document.epk, &version)?;
                    shard.adopt(draft, version);
                }
                Some(())
            }),
            Record::Changes(target, changes) => self.with_shard(target, |_, shard| {
                let restore = |change: Change| shard.history_mut().restore_change(change);
                changes.into_iter().for_each(restore);
                Some(())
            }),
        }
    }

    fn event(&mut self, event: Event) -> Option<()> {
        let account = self.account;
        self.last = None;
        if container_of(&event).is_some_and(|number| self.gone.contains(&number)) {
            return Some(());
        }
        match event {
            Event::Opened { .. } => return None,
            Event::DatabaseCreated {
                id,
                number,
                etag,
                ts,
            } => account.restore_database(&id, number, etag, ts),
            Event::DatabaseDeleted { id } => {
                let database = account.database(&id)?;
                let containers = database.containers();
                self.gone
                    .extend(containers.iter().map(|container| container.number));
                account.delete_database(&database).ok()?;
            }
            Event::ContainerCreated {
                database,
                number,
                partitions,
                properties,
                ts,
            } => {
                let database = account.database(&database)?;
                let definition = definition(properties)?;
                let map = PartitionMap::even(partitions);
                account.restore_container(&database, number, definition, map, ts);
            }
            Event::ContainerReplaced {
                container,
                properties,
                ts,
            } => {
                let (_, container) = account.container_by_number(container)?;
                container.replace_properties(properties, ts);
            }
            Event::ContainerDeleted { container } => {
                let (database, container) = account.container_by_number(container)?;
                account.delete_container(&database, &container).ok()?;
                self.gone.insert(container.number);
            }
            Event::ContainerState(state) => restore_container(account, state)?,
            Event::OfferSet(offer) => account.restore_offer(offer),
            Event::Split {
                container,
                partition,
                at,
            } => {
                let at = u128::from_str_radix(&at, 16).ok()?;
                let (_, container) = account.container_by_number(container)?;
                container.split(partition, Some(at)).ok()?;
            }
            Event::Merged {
                container,
                partitions: [a, b],
            } => {
                let (_, container) = account.container_by_number(container)?;
                container.merge(a, b).ok()?;
            }
            Event::HistoryStarted {
                container,
                partition,
                lsn,
            } => {
                let (_, container) = account.container_by_number(container)?;
                let map = container.map();
                let partition = map.by_id(partition)?;
                let mut shard = partition.shard.write();
                shard.history_mut().start(&partition.range, lsn);
            }
        }
        Some(())
    }

    fn with_shard(
        &mut self,
        target: Target,
        work: impl FnOnce(&Container, &mut Shard) -> Option<()>,
    ) -> Option<()> {
        if self.gone.contains(&target.container) {
            return Some(());
        }
        if self
            .last
            .as_ref()
            .is_none_or(|container| container.number != target.container)
        {
            self.last = Some(self.account.container_by_number(target.container)?.1);
        }
        let container = self.last.as_ref()?;
        let map = container.map();
        let partition = map.by_id(target.partition)?;
        let mut shard = partition.shard.write();
        work(container, &mut shard)?;
        partition.note_expiry(&shard);
        Some(())
    }
}

/// The number of the container that an event changes.
fn container_of(event: &Event) -> Option<u32> {
    match event {
        Event::ContainerReplaced { container, .. }
        | Event::ContainerDeleted { container }
        | Event::Split { container, .. }
        | Event::Merged { container, .. }
        | Event::HistoryStarted { container, .. } => Some(*container),
        _ => None,
    }
}

fn replay_write(container: &Container, shard: &mut Shard, write: Written) -> Option<()> {
    match write.outcome {
        Ok(version) => {
            container.rids.reach(version.rid);
            container.etags.reach(version.etag);
            let draft = draft(container, write.id, write.epk, &version)?;
            shard.put(draft, version);
        }
        Err((kind, stamp)) => {
            shard.remove(&write.epk, &write.id, kind, stamp)?;
        }
    }
    Some(())
}

/// What follows from a document's text: when it expires, and its unique values.
fn draft(
    container: &Container,
    id: Box<str>,
    epk: crate::epk::Epk,
    version: &crate::store::document::Version,
) -> Option<Draft> {
    let (mut ttl, mut unique) = (None, Box::default());
    if container.needs_text() {
        let text = version.to_json_text();
        let members = Members::parse(&text).ok()?;
        // A property of this name may be older than the container's time to live.
        ttl = container.ttl_of(&members).ok().flatten();
        if !container.unique.is_empty() {
            unique = container
                .unique
                .hashes(&epk, &serde_json::from_slice(&text).ok()?);
        }
    }
    Some(Draft {
        id,
        epk,
        text: version.text.clone(),
        ttl,
        unique,
    })
}

fn definition(properties: Value) -> Option<Definition> {
    Definition::from_properties(properties).ok()
}

fn restore_container(account: &Account, state: ContainerState) -> Option<()> {
    let database = account.database(&state.database)?;
    let range = |min: &str, max: &str| {
        Some(EpkRange {
            min: from_hex(min)?,
            max: from_hex(max)?,
        })
    };
    let partitions = state
        .partitions
        .into_iter()
        .map(|partition| {
            let floors = partition
                .floors
                .iter()
                .map(|(min, max, lsn)| Some((range(min, max)?, *lsn)))
                .collect::<Option<_>>()?;
            let shard = shard_at(partition.lsn, partition.ts, History::restore(floors));
            let keys = range(&partition.min, &partition.max)?;
            Some(Partition::new(partition.id, keys, partition.parents, shard))
        })
        .collect::<Option<_>>()?;
    let map = PartitionMap::restore(partitions, state.map_version, state.next_partition);
    let definition = definition(state.properties)?;
    let container = account.restore_container(&database, state.number, definition, map, state.ts);
    container.rids.reach(state.rids);
    container.etags.reach(state.etags);
    Some(())
}
