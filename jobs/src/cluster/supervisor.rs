//! Starts all processes of a cluster on this machine, and starts them again when one has failed.
//!
//! 1. When one process ends with a failure, the others find out by themselves and end too. Those that do not in time are killed.
//! 2. All are started again, after a pause that doubles up to a bound, and begins anew after a run that has lasted.
//! 3. A failure that a start cannot mend, as a wrong setting, ends all with the code of that process.
//! 4. A run that was asked to go on in another shape (`JOB rescale`) is followed by one of that shape.
//! 5. SIGTERM and SIGINT are passed on, and the end of all is awaited.
//! 6. A run is started only when every process of the one before has been seen to end, and is told so: it need not wait out the
//!    lease of that run ([`Supervised`]). Nobody else gets into a run: its secret is new.
//!
//! Limits: if the supervisor itself is killed, the processes go on without it. `--fresh` and `--rebuild` are asked of each start.

use std::ffi::OsString;
use std::net::TcpListener;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tidefeed_runtime::checkpoint::request::asked_of_last;
use tidefeed_runtime::checkpoint::{CheckpointStore, SUPERVISED_VARIABLE, Supervised};
use tidefeed_runtime::cluster::{Hosts, SECRET_VARIABLE, Secret};
use tidefeed_runtime::{Context, Error, ErrorKind, Result};

use crate::asked::Signals;
use crate::rescale::RESHAPED;

/// How often to look whether a process has ended.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long all have to end when they are asked to: to let their last requests end, and some more.
const TO_END: Duration = Duration::from_secs(75);
/// How long the others have to end after one has failed: to notice it, as a rule, and some more. Whoever is frozen needs for ever,
/// and for what is on the wire the next run waits in any case.
const TO_FOLLOW: Duration = Duration::from_secs(20);
/// The pause before the first new start; it doubles up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LAST_PAUSE: Duration = Duration::from_secs(30);
/// After a run that has lasted so long, the next pause is the first again. A guess: what fails at a start does so sooner.
const LASTED: Duration = Duration::from_secs(10);

/// What a run of all processes has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// All have ended as they were asked to.
    Done,
    /// A new start may go better.
    Again,
    /// It is to go on in another shape.
    Reshape,
    /// A new start would end with this code too.
    GiveUp(u8),
}

/// How one process has ended: with a code, or without, by a signal.
type Ended = Option<u8>;

/// What becomes of the run. A lost peer is a consequence, and what it was lost by says more.
fn outcome(ended: &[Ended]) -> Outcome {
    // Only process 0 says so, and only when it has ended in order.
    if ended.first() == Some(&Some(RESHAPED)) {
        return Outcome::Reshape;
    }
    let code_of = |kind: ErrorKind| Some(kind.exit_code());
    let mendable = [
        ErrorKind::Internal,
        ErrorKind::Unreachable,
        ErrorKind::Fenced,
        ErrorKind::Rejected,
        ErrorKind::PeerLost,
    ];
    let mends = |ended: &Ended| ended.is_none() || mendable.iter().any(|m| code_of(*m) == *ended);
    let mut failed = ended.iter().filter(|ended| **ended != Some(0)).peekable();
    if failed.peek().is_none() {
        return Outcome::Done;
    }
    match failed.find(|ended| !mends(ended)) {
        Some(Some(code)) => Outcome::GiveUp(*code),
        _ => Outcome::Again,
    }
}

/// The pause before the next start.
fn pause_after(last: Option<Duration>, lasted: Duration) -> Duration {
    match last {
        Some(pause) if lasted < LASTED => (pause * 2).min(LAST_PAUSE),
        _ => FIRST_PAUSE,
    }
}

/// Runs this program with these arguments as so many processes, until they have ended for good. Returns the exit code.
///
/// # Errors
/// When the processes cannot be started.
pub(crate) fn supervise(
    processes: u32,
    arguments: &[OsString],
    store: impl Fn() -> Result<CheckpointStore>,
) -> Result<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context(ErrorKind::Internal, || "cannot wait for signals")?;
    runtime.block_on(async {
        // Before any process is started: one that nobody watches over would go on.
        let mut signals = Signals::listen()?;
        let mut terminate = std::pin::pin!(signals.come());
        let mut pause = None;
        let (mut processes, mut arguments) = (processes, arguments.to_vec());
        let mut supervised = Supervised {
            by: Secret::random_number()?,
            run: 0,
        };
        loop {
            let began = Instant::now();
            supervised.run += 1;
            let mut run = Run::start(processes, &arguments, supervised)?;
            let ended = tokio::select! {
                ended = run.ended() => ended?,
                () = &mut terminate => {
                    run.signal(Signal::TERM);
                    let ended = run.all_ended(TO_END).await?;
                    return Ok(worst(&ended));
                }
            };
            match outcome(&ended) {
                Outcome::Done => return Ok(0),
                Outcome::GiveUp(code) => return Ok(code),
                Outcome::Again => {}
                Outcome::Reshape => {
                    let shape = asked_of_last(&store()?).await?;
                    let none =
                        || Error::internal("a run ended for another shape that nobody asked for");
                    let shape = shape.ok_or_else(none)?;
                    tracing::info!(
                        event = "restart",
                        processes = shape.processes,
                        workers = shape.workers,
                        "starting all again as {shape}"
                    );
                    processes = shape.processes;
                    // Of options that are given twice, the last counts.
                    let options = format!("--processes {processes} --workers {}", shape.workers);
                    arguments.extend(options.split(' ').map(OsString::from));
                    continue;
                }
            }
            let next = pause_after(pause, began.elapsed());
            tracing::warn!(
                event = "restart",
                wait_s = next.as_secs_f64(),
                exit_codes = shown(&ended),
                "a process has failed (exit codes {}): starting all again in {} ms",
                shown(&ended),
                next.as_millis()
            );
            pause = Some(next);
            tokio::select! {
                () = tokio::time::sleep(next) => {}
                () = &mut terminate => return Ok(worst(&ended)),
            }
        }
    })
}

/// The code of whoever failed by itself, or of any, or 0.
fn worst(ended: &[Ended]) -> u8 {
    let lost = Some(ErrorKind::PeerLost.exit_code());
    let failed = |ended: &&Ended| **ended != Some(0);
    let own = ended.iter().filter(failed).find(|ended| **ended != lost);
    let any = own.or(ended.iter().find(failed));
    any.map_or(0, |ended| ended.unwrap_or(ErrorKind::Internal.exit_code()))
}

fn shown(ended: &[Ended]) -> String {
    let shown = ended
        .iter()
        .map(|ended| ended.map_or("killed".to_owned(), |code| code.to_string()));
    shown.collect::<Vec<_>>().join(", ")
}

/// Processes that run.
struct Run {
    children: Vec<Child>,
}

impl Run {
    fn start(processes: u32, arguments: &[OsString], supervised: Supervised) -> Result<Run> {
        let program = std::env::current_exe()
            .context(ErrorKind::Internal, || "cannot find this program again")?;
        let hosts = free_hosts(processes)?;
        let secret = Secret::random()?;
        let mut run = Run {
            children: Vec::new(),
        };
        for process in 0..processes {
            let mut command = Command::new(&program);
            command
                .args(arguments)
                .args(["--process", &process.to_string()])
                .args(["--hosts", &hosts.to_string()])
                .args(["--http-offset", &process.to_string()])
                .env(SECRET_VARIABLE, &secret)
                .env(SUPERVISED_VARIABLE, supervised.to_string());
            let child = command.spawn();
            run.children.push(child.context(ErrorKind::Internal, || {
                format!("cannot start process {process}")
            })?);
        }
        let pids: Vec<u32> = run.children.iter().map(Child::id).collect();
        tracing::info!(
            event = "processes_started",
            "started {processes} processes at {hosts}: {pids:?}"
        );
        Ok(run)
    }

    /// Resolves when all have ended; when one has failed, the others have to.
    async fn ended(&mut self) -> Result<Vec<Ended>> {
        loop {
            let ended = self.look()?;
            if ended
                .iter()
                .any(|e| e.is_some_and(|status| !status.success()))
            {
                return self.all_ended(TO_FOLLOW).await;
            }
            if ended.iter().all(Option::is_some) {
                return Ok(codes(&ended));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits for the end of all, and kills those that do not end.
    async fn all_ended(&mut self, within: Duration) -> Result<Vec<Ended>> {
        let deadline = Instant::now() + within;
        loop {
            let ended = self.look()?;
            if ended.iter().all(Option::is_some) {
                return Ok(codes(&ended));
            }
            if Instant::now() >= deadline {
                tracing::warn!(
                    event = "process_killed",
                    "a process does not end: killing it"
                );
                self.signal(Signal::KILL);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn look(&mut self) -> Result<Vec<Option<ExitStatus>>> {
        let waits = self.children.iter_mut().map(Child::try_wait);
        let waits = waits.collect::<std::io::Result<_>>();
        waits.context(ErrorKind::Internal, || "cannot wait for the processes")
    }

    fn signal(&mut self, signal: Signal) {
        for child in &mut self.children {
            // Whoever has ended and was waited for may have left its number to another.
            if matches!(child.try_wait(), Ok(None))
                && let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw)
            {
                // It may end this moment.
                let _ = kill_process(pid, signal);
            }
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        for child in &mut self.children {
            let _ = child.wait();
        }
    }
}

fn codes(ended: &[Option<ExitStatus>]) -> Vec<Ended> {
    let code = |status: ExitStatus| u8::try_from(status.code()?).ok();
    ended.iter().map(|ended| ended.and_then(code)).collect()
}

/// Ports of this machine that are free now. Somebody may take one before its process does; then all start again.
fn free_hosts(processes: u32) -> Result<Hosts> {
    let bound = (0..processes).map(|_| TcpListener::bind("127.0.0.1:0"));
    let bound: std::io::Result<Vec<_>> = bound.collect();
    let addresses = bound.and_then(|bound| bound.iter().map(TcpListener::local_addr).collect());
    let addresses: Vec<_> =
        addresses.context(ErrorKind::Unreachable, || "there are no free ports")?;
    Hosts::new(addresses.into_iter().map(|address| address.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_start_cannot_mend_ends_all_with_its_code() {
        for (ended, expected) in [
            (vec![Some(0), Some(0)], Outcome::Done),
            (vec![Some(0), None], Outcome::Again),
            (vec![Some(10), Some(1)], Outcome::Again),
            (vec![Some(8), Some(10)], Outcome::Again),
            (vec![Some(10), Some(3), Some(10)], Outcome::GiveUp(3)),
            (vec![Some(2), Some(10)], Outcome::GiveUp(2)),
            (vec![None, Some(7)], Outcome::GiveUp(7)),
        ] {
            assert_eq!(outcome(&ended), expected, "{ended:?}");
        }
        assert_eq!(worst(&[Some(10), Some(0), Some(4)]), 4);
        assert_eq!(worst(&[Some(10), Some(0)]), 10);
        assert_eq!((worst(&[Some(0)]), worst(&[None])), (0, 1));
        assert_eq!(shown(&[Some(10), None]), "10, killed");
    }

    #[test]
    fn pauses_double_until_a_run_lasts() {
        let short = Duration::from_secs(1);
        let mut pause = None;
        let mut pauses = Vec::new();
        for _ in 0..8 {
            let next = pause_after(pause, short);
            pauses.push(next.as_millis());
            pause = Some(next);
        }
        assert_eq!(
            pauses,
            [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]
        );
        assert_eq!(pause_after(pause, LASTED), FIRST_PAUSE);
    }
}
