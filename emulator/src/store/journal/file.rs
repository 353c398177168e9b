//! The file of a journal: framed records, appended whole or not at all.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use xxhash_rust::xxh3::xxh3_64;

use crate::config::FsyncPolicy;

/// First bytes of every journal: what it is, and the version of its format.
pub const MAGIC: &[u8; 8] = b"TFEJRNL1";

/// Bytes before a payload: its length (4) and its checksum (8), little-endian.
pub const FRAME_BYTES: usize = 12;

/// Time between two syncs.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// Appends a frame whose payload `fill` writes.
pub fn frame(out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.resize(start + FRAME_BYTES, 0);
    fill(out);
    let payload = &out[start + FRAME_BYTES..];
    let (length, checksum) = (payload.len() as u32, xxh3_64(payload));
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    out[start + 4..start + FRAME_BYTES].copy_from_slice(&checksum.to_le_bytes());
}

#[derive(Debug)]
struct Tail {
    file: File,
    length: u64,
    buffer: Vec<u8>,
    /// An append failed and could not be taken back.
    broken: bool,
}

#[derive(Debug)]
struct Shared {
    tail: Mutex<Tail>,
    dirty: AtomicBool,
    stopping: Mutex<bool>,
    stop: Condvar,
}

/// A journal's file, open for appending.
#[derive(Debug)]
pub struct LogFile {
    shared: Arc<Shared>,
    policy: FsyncPolicy,
    syncer: Option<JoinHandle<()>>,
}

impl LogFile {
    /// Takes over a file whose first `length` bytes are good.
    pub fn new(mut file: File, length: u64, policy: FsyncPolicy) -> io::Result<Self> {
        file.seek(SeekFrom::Start(length))?;
        let shared = Arc::new(Shared {
            tail: Mutex::new(Tail {
                file,
                length,
                buffer: Vec::new(),
                broken: false,
            }),
            dirty: AtomicBool::new(false),
            stopping: Mutex::new(false),
            stop: Condvar::new(),
        });
        let syncer = match policy {
            FsyncPolicy::Always => None,
            FsyncPolicy::Interval => {
                let shared = Arc::clone(&shared);
                let name = "cosmos-journal".to_owned();
                Some(
                    std::thread::Builder::new()
                        .name(name)
                        .spawn(move || sync_until_stopped(&shared))?,
                )
            }
        };
        Ok(Self {
            shared,
            policy,
            syncer,
        })
    }

    /// Appends one record.
    pub fn append(&self, fill: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        let mut tail = self.shared.tail.lock();
        let tail = &mut *tail;
        if tail.broken {
            return Err(io::Error::other(
                "the journal could not be written before: restart the server",
            ));
        }
        tail.buffer.clear();
        frame(&mut tail.buffer, fill);
        let outcome = tail
            .file
            .write_all(&tail.buffer)
            .and_then(|()| match self.policy {
                FsyncPolicy::Always => tail.file.sync_data(),
                FsyncPolicy::Interval => Ok(()),
            });
        if let Err(error) = outcome {
            let undone = tail
                .file
                .set_len(tail.length)
                .and_then(|()| tail.file.seek(SeekFrom::Start(tail.length)));
            tail.broken = undone.is_err();
            return Err(error);
        }
        tail.length += tail.buffer.len() as u64;
        self.shared.dirty.store(true, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for LogFile {
    fn drop(&mut self) {
        *self.shared.stopping.lock() = true;
        self.shared.stop.notify_all();
        if let Some(syncer) = self.syncer.take() {
            // A panic there has been reported there.
            let _ = syncer.join();
        }
        sync(&self.shared);
    }
}

fn sync_until_stopped(shared: &Shared) {
    let mut stopping = shared.stopping.lock();
    while !*stopping {
        shared.stop.wait_for(&mut stopping, SYNC_INTERVAL);
        sync(shared);
    }
}

fn sync(shared: &Shared) {
    if !shared.dirty.swap(false, Ordering::Relaxed) {
        return;
    }
    // A second handle, so that appends do not wait for the disk.
    let handle = shared.tail.lock().file.try_clone();
    if let Err(error) = handle.and_then(|file| file.sync_data()) {
        tracing::error!(%error, "cannot force the journal to disk");
    }
}

/// Makes the names in a directory durable.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}
