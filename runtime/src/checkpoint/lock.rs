//! One run at a time on one machine: the lock on a job's folder, which dies with its process.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::{Context, Error, ErrorKind, Result};

/// Where the lock of a store is.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// The folder of the job; a file named `lock` in it.
    Folder(PathBuf),
    /// A store in memory; the flag is shared by its clones.
    Memory(Arc<AtomicBool>),
    /// Other machines may reach it: no lock proves anything, a lease decides.
    Shared,
}

/// Holds the lock until it is dropped.
#[derive(Debug)]
pub(super) enum Lock {
    File(File),
    Memory(Arc<AtomicBool>),
}

/// Keeps every other run of the job out until its last clone is dropped.
pub(super) type HeldLock = Arc<Lock>;

impl Place {
    /// Takes the lock where there is one, or says who has it.
    pub(super) fn lock(&self) -> Result<Option<HeldLock>> {
        let lock = match self {
            Place::Shared => return Ok(None),
            Place::Folder(folder) => Lock::File(lock_folder(folder)?),
            Place::Memory(flag) => {
                if flag.swap(true, Ordering::AcqRel) {
                    return Err(Error::new(
                        ErrorKind::Fenced,
                        "another run of this job uses the checkpoint in memory",
                    ));
                }
                Lock::Memory(Arc::clone(flag))
            }
        };
        Ok(Some(Arc::new(lock)))
    }
}

fn lock_folder(folder: &Path) -> Result<File> {
    let path = folder.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .context(ErrorKind::Config, || {
            format!("cannot open the lock file {}", path.display())
        })?;
    match file.try_lock() {
        Ok(()) => {
            sweep(folder);
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => Err(Error::new(
            ErrorKind::Fenced,
            format!(
                "another run of this job uses the checkpoint directory {}: stop one of the two",
                folder.display()
            ),
        )),
        Err(TryLockError::Error(error)) => Err(Error::new(
            ErrorKind::Config,
            format!("cannot lock {}", path.display()),
        )
        .with_source(error)),
    }
}

/// Removes what writes left that died before they published their object: files named `<object>#<number>`, which no
/// listing shows. Best effort; they only take space.
fn sweep(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_folder {
            sweep(&entry.path());
        } else if is_unpublished(&entry.file_name().to_string_lossy()) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

fn is_unpublished(name: &str) -> bool {
    name.rsplit_once('#').is_some_and(|(_, number)| {
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

impl Drop for Lock {
    fn drop(&mut self) {
        match self {
            Lock::Memory(flag) => flag.store(false, Ordering::Release),
            // Closing the file is not enough: a program that this process is just starting has it open as well, until it runs.
            Lock::File(file) => {
                let _ = file.unlock();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_ends_with_its_run_although_a_child_process_has_inherited_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = Place::Folder(folder.path().to_owned());
        let held = place.lock().expect("free").expect("a lock");
        let Lock::File(file) = &*held else {
            panic!("a lock in memory")
        };
        let inherited = file.try_clone().expect("a copy");
        assert_eq!(place.lock().unwrap_err().kind(), ErrorKind::Fenced);
        drop(held);
        place.lock().expect("free again");
        drop(inherited);
    }
}
