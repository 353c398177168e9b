//! From a directory to an account.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use xxhash_rust::xxh3::xxh3_64;

use super::codec::{self, Record, Target, Written};
use super::file::{DirectoryLock, FRAME_BYTES, LogFile, MAGIC, sync_directory, unframe};
use super::{ContainerState, Event, Journal, PartitionState, snapshot};
use crate::config::FsyncPolicy;
use crate::epk::{EpkRange, from_hex};
use crate::ids;
use crate::json::Members;
use crate::store::account::{Account, Database};
use crate::store::container::{Container, Definition};
use crate::store::history::{Change, History};
use crate::store::map::PartitionMap;
use crate::store::partition::Partition;
use crate::store::shard::{Draft, Shard, Stamp};

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

fn lock(directory: &Path) -> Result<DirectoryLock, OpenError> {
    let path = directory.join("lock");
    match DirectoryLock::take(&path) {
        Ok(lock) => Ok(lock),
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
    let Some((first, Record::Events(opened))) = reader.next()? else {
        return Err(damaged(0, "it does not begin as a journal does"));
    };
    let [Event::Opened { salt, numbers }] = opened[..] else {
        return Err(damaged(first, "it does not begin as a journal does"));
    };
    let account = build(salt);
    account.numbers().reach(numbers);
    let mut replay = Replay {
        account: &account,
        databases: HashMap::new(),
        containers: HashMap::new(),
        is_complete: false,
    };
    while let Some((offset, record)) = reader.next()? {
        replay
            .record(record)
            .ok_or_else(|| damaged(offset, "a record that does not fit the ones before it"))?;
    }
    if !replay.is_complete {
        // The beginning was on disk before the journal got its name, so no crash cuts it short.
        return Err(damaged(reader.offset, "its beginning is cut short"));
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
            reader.offset = 0;
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
        let Some((length, checksum)) = unframe(&head) else {
            return self.torn_or_damaged("no record begins there");
        };
        let end = FRAME_BYTES as u64 + u64::from(length);
        if end > left {
            return Ok(None);
        }
        let mut payload = vec![0; length as usize];
        self.read(&mut payload)?;
        if xxh3_64(&payload) != checksum {
            return self.torn_or_damaged("its checksum does not match");
        }
        let record = codec::decode(&payload)
            .ok_or_else(|| self.damaged("a record that this version does not know"))?;
        let offset = self.offset;
        self.offset += end;
        Ok(Some((offset, record)))
    }

    /// After a power cut the last appends may be there in part, with zeros or nothing behind. Anything else is damage.
    fn torn_or_damaged(&mut self, what: &'static str) -> Result<Option<(u64, Record)>, OpenError> {
        loop {
            let rest = self.input.fill_buf().map_err(failed(&self.path))?;
            if rest.is_empty() {
                return Ok(None);
            }
            if rest.iter().any(|byte| *byte != 0) {
                return Err(self.damaged(what));
            }
            let count = rest.len();
            self.input.consume(count);
        }
    }

    fn read(&mut self, bytes: &mut [u8]) -> Result<(), OpenError> {
        self.input.read_exact(bytes).map_err(failed(&self.path))
    }
}

struct Replay<'a> {
    account: &'a Account,
    /// By number; `None` when it is gone. Requests that were under way at its end may have left records behind it.
    databases: HashMap<u32, Option<Arc<Database>>>,
    /// As `databases`.
    containers: HashMap<u32, Option<Arc<Container>>>,
    is_complete: bool,
}

impl Replay<'_> {
    /// Carries a record out; `None` if it makes no sense here.
    fn record(&mut self, record: Record) -> Option<()> {
        match record {
            Record::Events(events) => events.into_iter().try_for_each(|event| self.event(event)),
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
        match event {
            Event::Opened { .. } => return None,
            Event::Complete => self.is_complete = true,
            Event::DatabaseCreated {
                id,
                number,
                etag,
                ts,
            } => {
                let database = account.restore_database(&id, number, etag, ts);
                self.databases.insert(number, Some(database));
            }
            Event::DatabaseDeleted { number } => {
                let database = self.databases.insert(number, None)??;
                for container in database.containers() {
                    self.containers.insert(container.number, None);
                }
                account.delete_database(&database).ok()?;
            }
            Event::ContainerCreated {
                database,
                number,
                partitions,
                properties,
                ts,
            } => {
                let container = match self.databases.get(&database)? {
                    None => None,
                    Some(database) => {
                        let definition = definition(properties)?;
                        let map = PartitionMap::even(partitions);
                        Some(account.restore_container(database, number, definition, map, ts))
                    }
                };
                self.containers.insert(number, container);
            }
            Event::ContainerReplaced {
                container,
                properties,
                etag,
                ts,
            } => self.with(container, |container| {
                container.replace_properties(properties, etag, ts);
                Some(())
            })?,
            Event::ContainerDeleted { container } => {
                if let Some(container) = self.containers.insert(container, None)? {
                    let database = account.database(&container.database)?;
                    account.delete_container(&database, &container).ok()?;
                }
            }
            Event::ContainerState(state) => self.restore_container(state)?,
            Event::OfferSet(offer) => account.restore_offer(offer),
            Event::Split {
                container,
                partition,
                at,
            } => {
                let at = u128::from_str_radix(&at, 16).ok()?;
                self.with(container, |container| {
                    container.split(partition, Some(at)).ok().map(drop)
                })?;
            }
            Event::Merged {
                container,
                partitions: [a, b],
            } => self.with(container, |container| container.merge(a, b).ok().map(drop))?,
            Event::HistoryStarted { container } => self.with(container, |container| {
                container.map().start_history();
                Some(())
            })?,
        }
        Some(())
    }

    /// Does something to a container, unless it is gone.
    fn with(&self, number: u32, work: impl FnOnce(&Container) -> Option<()>) -> Option<()> {
        match self.containers.get(&number)? {
            Some(container) => work(container),
            None => Some(()),
        }
    }

    fn with_shard(
        &self,
        target: Target,
        work: impl FnOnce(&Container, &mut Shard) -> Option<()>,
    ) -> Option<()> {
        self.with(target.container, |container| {
            let map = container.map();
            let partition = map.by_id(target.partition)?;
            let mut shard = partition.shard.write();
            work(container, &mut shard)?;
            partition.note_expiry(&shard);
            Some(())
        })
    }

    fn restore_container(&mut self, state: ContainerState) -> Option<()> {
        let database = self.databases.get(&state.database)?.as_ref()?;
        let partitions = state
            .partitions
            .into_iter()
            .map(partition)
            .collect::<Option<_>>()?;
        let map = PartitionMap::restore(partitions, state.map_version, state.next_partition);
        let definition = definition(state.properties)?;
        let account = self.account;
        let container =
            account.restore_container(database, state.number, definition, map, state.ts);
        container.rids.reach(state.rids);
        container.etags.reach(state.etags);
        self.containers.insert(state.number, Some(container));
        Some(())
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

fn partition(state: PartitionState) -> Option<Partition> {
    let range = |min: &str, max: &str| {
        Some(EpkRange {
            min: from_hex(min)?,
            max: from_hex(max)?,
        })
    };
    let floors = state
        .floors
        .iter()
        .map(|(min, max, lsn)| Some((range(min, max)?, *lsn)))
        .collect::<Option<_>>()?;
    let stamp = Stamp {
        lsn: state.lsn,
        ts: state.ts,
    };
    let shard = Shard::at(stamp, History::restore(floors));
    let keys = range(&state.min, &state.max)?;
    Some(Partition::new(state.id, keys, state.parents, shard))
}
