//! Whole jobs, from their source to their views: one program, because each that links a job takes long to build.
//!
//! | tests | what they do to a job |
//! |---|---|
//! | `memory_job`, `first_load`, `contract`, `stateful`, `moves`, `duplicate_rows` | run it over containers in memory |
//! | `files` | read its orders from files |
//! | `accounts` | keep its views in another account |
//! | `entra` | run it as a Microsoft Entra identity |
//! | `changed_jobs` | change its code and its configuration between runs |
//! | `classified` | give a sink its own table of what a status means |
//! | `cluster` | run it as several processes in one, and go on in other shapes |
//! | `cluster_processes` | kill, freeze and mislead one process of several |
//! | `cluster_kills` | kill one process of a supervised cluster after the other, under load |
//! | `cluster_network` | cut, lose and delay what travels between processes of several, and freeze one |
//! | `cluster_status` | ask one process of several how all of them do, and freeze one |
//! | `exchanged` | let it exchange what cannot travel between processes |
//! | `rolling` | run two versions of it, end one of several processes, and let a newer version take over |
//! | `shutdown` | stop it, and let what it depends on fail |
//! | `kill_anywhere` | kill it at any moment, over a server that misbehaves |
//! | `killed_loads` | kill it while it loads what was there before it |
//! | `failpoints` | abort it before and after every step of its protocol |
//! | `posted` | kill it while producers post its orders |
//! | `zombie` | freeze it until another run has taken over |
//! | `patches` | let it add up by patches, and die |
//! | `feeds` | read all versions, let positions expire, end it in time |
//! | `expiring` | let time change its views, while it runs, while it is down and when it is killed |
//! | `final_windows` | let a watermark close its windows, while it fails and is killed |
//! | `mended` | damage its checkpoint, and mend it by hand |
//! | `progress` | kill it, and compare what it told readers with what was committed |
//! | `why_stalled` | hold back one thing, and ask what that is |
//! | `logs` | read what it says as JSON |
//! | `dead_letters` | leave it writes that were refused, and try them again by hand |
//!
//! `cargo test --profile quick -p tidefeed-tests kill_anywhere` runs those of one row.
//!
//! The last twelve, `rolling` and those of clusters but `cluster` run the job as a process, and have an embedded server in this one. The
//! leases of the clusters, `failpoints` and `zombie` are short, and lost by a run that gets too little of the machine, so those are not
//! run at the same time: [`alone`].

mod accounts;
mod changed_jobs;
mod classified;
mod cluster;
#[cfg(unix)]
mod cluster_kills;
#[cfg(target_os = "linux")]
mod cluster_network;
#[cfg(unix)]
mod cluster_processes;
#[cfg(unix)]
mod cluster_status;
mod contract;
#[cfg(unix)]
mod dead_letters;
mod decode_errors;
mod duplicate_rows;
mod elastic;
mod entra;
mod exchanged;
mod expiring;
#[cfg(unix)]
mod failpoints;
mod feeds;
mod files;
mod final_windows;
mod first_load;
#[cfg(unix)]
mod kill_anywhere;
#[cfg(unix)]
mod killed_loads;
#[cfg(unix)]
mod killing;
#[cfg(unix)]
mod logs;
mod memory_job;
#[cfg(unix)]
mod mended;
mod moves;
#[cfg(unix)]
mod patches;
#[cfg(unix)]
mod posted;
#[cfg(unix)]
mod progress;
#[cfg(unix)]
mod rolling;
mod shutdown;
#[cfg(target_os = "linux")]
mod soak;
mod stateful;
mod streams;
#[cfg(unix)]
mod why_stalled;
#[cfg(unix)]
mod zombie;

/// Waits until no other test has runs with short leases, and keeps them waiting until the guard is dropped.
#[cfg(unix)]
fn alone() -> parking_lot::MutexGuard<'static, ()> {
    // It is not poisoned by a test that fails: the others are still worth running.
    static ALONE: parking_lot::Mutex<()> = parking_lot::Mutex::new(());
    ALONE.lock()
}
