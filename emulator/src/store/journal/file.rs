//! The file of a journal: framed records, appended whole or not at all.

use std::fs::{File, OpenOptions, TryLockError};
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

/// Bytes before a payload, little-endian: its length (4), the low half of the length's checksum (4), and the payload's
/// checksum (8). The length has a checksum of its own so that a record that was cut short can be told from a length that
/// was damaged: the one ends the journal, the other must not.
pub const FRAME_BYTES: usize = 16;

/// Largest payload. A bulk batch of patches can write 100 items of 2 MB.
pub const MAX_PAYLOAD_BYTES: u32 = 256 * 1024 * 1024;

/// Buffers that grew beyond this are not kept.
const KEPT_BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// Time between two syncs.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// Appends a frame whose payload `fill` writes.
///
/// # Errors
/// The payload is larger than a reader believes.
pub fn frame(out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
    let start = out.len();
    out.resize(start + FRAME_BYTES, 0);
    fill(out);
    let payload = &out[start + FRAME_BYTES..];
    let length = u32::try_from(payload.len())
        .ok()
        .filter(|length| *length <= MAX_PAYLOAD_BYTES)
        .ok_or_else(|| io::Error::other("too much in one request for the journal"))?;
    let checksum = xxh3_64(payload);
    let head = &mut out[start..start + FRAME_BYTES];
    head[..4].copy_from_slice(&length.to_le_bytes());
    head[4..8].copy_from_slice(&length_check(length).to_le_bytes());
    head[8..].copy_from_slice(&checksum.to_le_bytes());
    Ok(())
}

/// What a frame says about the payload behind it: its length and checksum; `None` if this is no frame.
pub fn unframe(head: &[u8; FRAME_BYTES]) -> Option<(u32, u64)> {
    let (length, rest) = head.split_first_chunk()?;
    let (check, checksum) = rest.split_first_chunk()?;
    let length = u32::from_le_bytes(*length);
    let sound = u32::from_le_bytes(*check) == length_check(length)
        && (1..=MAX_PAYLOAD_BYTES).contains(&length);
    sound.then_some((length, u64::from_le_bytes(checksum.try_into().ok()?)))
}

fn length_check(length: u32) -> u32 {
    xxh3_64(&length.to_le_bytes()) as u32
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
        tail.buffer.shrink_to(KEPT_BUFFER_BYTES);
        frame(&mut tail.buffer, fill)?;
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

/// The right to use a directory, given back when it is dropped.
#[derive(Debug)]
pub struct DirectoryLock(File);

impl DirectoryLock {
    /// Locks the file at `path`, which is created if it is missing.
    pub fn take(path: &Path) -> Result<Self, TryLockError> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .map_err(TryLockError::Error)?;
        file.try_lock()?;
        Ok(Self(file))
    }
}

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        // Closing the file is not enough while a child process that is being started has it too.
        if let Err(error) = self.0.unlock() {
            tracing::warn!(%error, "cannot unlock the data directory");
        }
    }
}

/// Makes the names in a directory durable.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> std::path::PathBuf {
        let name = format!("tidefeed-journal-{}-{name}", std::process::id());
        std::env::temp_dir().join(name)
    }

    #[test]
    fn a_frame_is_told_from_anything_else() {
        let mut out = vec![9];
        frame(&mut out, |out| out.extend_from_slice(b"payload")).unwrap();
        let head: [u8; FRAME_BYTES] = out[1..=FRAME_BYTES].try_into().unwrap();
        assert_eq!(unframe(&head), Some((7, xxh3_64(b"payload"))));
        assert_eq!(unframe(&[0; FRAME_BYTES]), None);
        for at in 0..8 {
            for bit in 0..8 {
                let mut damaged = head;
                damaged[at] ^= 1 << bit;
                assert_eq!(unframe(&damaged), None, "byte {at}, bit {bit}");
            }
        }
    }

    #[test]
    fn a_record_that_no_reader_would_believe_is_not_written() {
        let path = scratch("large");
        let file = File::create(&path).unwrap();
        let log = LogFile::new(file, 0, FsyncPolicy::Interval).unwrap();
        let large = |out: &mut Vec<u8>| out.resize(out.len() + MAX_PAYLOAD_BYTES as usize + 1, 1);
        assert!(log.append(large).is_err());
        log.append(|out| out.push(1)).unwrap();
        drop(log);
        let length = std::fs::metadata(&path).unwrap().len();
        assert_eq!(length, FRAME_BYTES as u64 + 1);
        std::fs::remove_file(&path).unwrap();
    }

    /// What was half written cannot be taken back here, so nothing may be appended behind it.
    #[test]
    fn after_a_failure_that_cannot_be_undone_nothing_is_written() {
        let path = scratch("read-only");
        File::create(&path).unwrap();
        let file = File::open(&path).unwrap();
        let log = LogFile::new(file, 0, FsyncPolicy::Always).unwrap();
        assert!(log.append(|out| out.push(1)).is_err());
        let again = log.append(|out| out.push(1)).unwrap_err();
        assert!(again.to_string().contains("restart the server"), "{again}");
        std::fs::remove_file(&path).unwrap();
    }
}
