//! All that an account holds, as records: the beginning of a fresh journal.

use std::io::{self, Write};

use super::codec::{self, Target};
use super::file::frame;
use super::{ContainerState, Event, PartitionState};
use crate::epk::{EpkRange, to_hex};
use crate::store::account::Account;
use crate::store::container::Container;
use crate::store::document::Version;
use crate::store::partition::Partition;

/// Bytes of documents after which a record ends, about.
const RECORD_BYTES: usize = 1024 * 1024;

/// What a document or change takes besides its text, about.
const OVERHEAD_BYTES: usize = 64;

/// Writes everything.
pub fn write(account: &Account, out: &mut impl Write) -> io::Result<u64> {
    let mut sink = Sink {
        out,
        buffer: Vec::new(),
        length: 0,
    };
    sink.event(Event::Opened {
        salt: account.environment().salt,
        numbers: account.numbers().last(),
    })?;
    for database in account.databases() {
        sink.event(Event::DatabaseCreated {
            id: database.id.clone(),
            number: database.number,
            etag: database.etag().to_owned(),
            ts: database.ts(),
        })?;
        for container in database.containers() {
            sink.event(Event::ContainerState(state(database.number, &container)))?;
            for partition in container.map().partitions() {
                sink.partition(&container, partition)?;
            }
        }
    }
    for offer in account.offers() {
        sink.event(Event::OfferSet(offer))?;
    }
    sink.event(Event::Complete)?;
    Ok(sink.length)
}

fn state(database: u32, container: &Container) -> ContainerState {
    let map = container.map();
    let properties = container.properties();
    ContainerState {
        database,
        number: container.number,
        ts: properties["_ts"].as_u64().unwrap_or_default() as u32,
        properties,
        rids: container.rids.last(),
        etags: container.etags.last(),
        map_version: map.version(),
        next_partition: map.next_id(),
        partitions: map.partitions().iter().map(partition_state).collect(),
    }
}

fn partition_state(partition: &Partition) -> PartitionState {
    let floor = |(range, lsn): &(EpkRange, u64)| (to_hex(&range.min), to_hex(&range.max), *lsn);
    partition.inspect(|shard| PartitionState {
        id: partition.id,
        min: to_hex(&partition.range.min),
        max: to_hex(&partition.range.max),
        parents: partition.parents.clone(),
        lsn: shard.stamp().lsn,
        ts: shard.stamp().ts,
        floors: shard.history().parts().0.iter().map(floor).collect(),
    })
}

/// Divides items so that no part is much larger than a record should be.
fn chunks<T>(items: &[T], size: impl Fn(&T) -> usize) -> impl Iterator<Item = &[T]> {
    let mut rest = items;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let count = rest.iter().take_while(|item| {
            let begun = bytes;
            bytes += size(item) + OVERHEAD_BYTES;
            begun < RECORD_BYTES
        });
        let (chunk, behind) = rest.split_at(count.count());
        rest = behind;
        (!chunk.is_empty()).then_some(chunk)
    })
}

struct Sink<'a, W> {
    out: &'a mut W,
    buffer: Vec<u8>,
    length: u64,
}

impl<W: Write> Sink<'_, W> {
    fn event(&mut self, event: Event) -> io::Result<()> {
        let mut payload = Vec::new();
        codec::encode_events(&mut payload, &[event])?;
        self.record(|out| out.extend_from_slice(&payload))
    }

    fn partition(&mut self, container: &Container, partition: &Partition) -> io::Result<()> {
        let target = Target {
            container: container.number,
            partition: partition.id,
        };
        partition.inspect(|shard| {
            let documents: Vec<_> = shard.changes_after(0).collect();
            for chunk in chunks(&documents, |document| document.version.size()) {
                self.record(|out| codec::encode_documents(out, target, chunk))?;
            }
            let changes: Vec<_> = shard.history().parts().1.collect();
            let size = |version: &Option<Version>| version.as_ref().map_or(0, Version::size);
            for chunk in chunks(&changes, |change| {
                size(&change.current) + size(&change.previous)
            }) {
                self.record(|out| codec::encode_changes(out, target, chunk))?;
            }
            Ok(())
        })
    }

    fn record(&mut self, fill: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        self.buffer.clear();
        frame(&mut self.buffer, fill)?;
        self.length += self.buffer.len() as u64;
        self.out.write_all(&self.buffer)
    }
}
