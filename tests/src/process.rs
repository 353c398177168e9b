//! A job in a process of its own, watched while it runs, killed when the time has come.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Nothing that a run is awaited for takes this long, even where it gets a tenth of a processor; then it hangs.
pub const DEADLINE: Duration = Duration::from_secs(300);
/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Number of the signal that no process can handle.
pub const SIGKILL: i32 = Signal::KILL.as_raw();
/// Number of the signal of a process that aborts.
pub const SIGABRT: i32 = Signal::ABORT.as_raw();

/// A run of a program. Dropping it kills it.
pub struct Run {
    child: Child,
    /// How it was started.
    program: String,
    stderr: Receiver<String>,
    /// What it has said on standard error so far.
    lines: Vec<String>,
    deadline: Instant,
}

impl Run {
    /// Starts the program.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(mut program: Command) -> Run {
        let mut child = program
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let pipe = child.stderr.take().expect("piped above");
        let (sender, stderr) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Run {
            child,
            program: format!("{program:?}"),
            stderr,
            lines: Vec::new(),
            deadline: Instant::now() + DEADLINE,
        }
    }

    /// Waits until `there`, or until the run has ended by itself; false then.
    ///
    /// # Panics
    /// When neither happens in time; the run is killed then.
    pub fn wait_until(&mut self, mut there: impl FnMut() -> bool) -> bool {
        while !there() {
            match self.stderr.recv_timeout(LOOK_EVERY) {
                Ok(line) => self.lines.push(line),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return false,
            }
            assert!(
                Instant::now() < self.deadline,
                "{} hangs; it said {:#?}",
                self.program,
                self.lines
            );
        }
        true
    }

    /// Waits this long, or until the run has ended by itself; false then.
    ///
    /// # Panics
    /// When the run hangs.
    pub fn wait_for(&mut self, time: Duration) -> bool {
        let at = Instant::now() + time;
        self.wait_until(|| Instant::now() >= at)
    }

    /// Waits until `there` is true of what the run has said, or until it has ended by itself; false then.
    ///
    /// # Panics
    /// When neither happens in time; the run is killed then.
    pub fn wait_until_says(&mut self, there: impl Fn(&Run) -> bool) -> bool {
        while !there(self) {
            let now = Instant::now();
            if !self.wait_until(|| now.elapsed() >= LOOK_EVERY) {
                return false;
            }
        }
        true
    }

    /// What it has said so far.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// When the run has ended already.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("the number of a process"), signal).expect("ours to signal");
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Kills it, and returns how it ended and what it had said.
    ///
    /// # Panics
    /// When it cannot be killed.
    pub fn kill(mut self) -> (ExitStatus, Vec<String>) {
        self.child.kill().expect("ours to kill");
        self.end()
    }

    /// Waits for its end, and returns how it ended and what it has said.
    ///
    /// # Panics
    /// When it hangs.
    pub fn end(mut self) -> (ExitStatus, Vec<String>) {
        // From here on, however long it has run.
        self.deadline = Instant::now() + DEADLINE;
        self.wait_until(|| false);
        let status = self.child.wait().expect("ours to wait for");
        (status, std::mem::take(&mut self.lines))
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The number in an environment variable.
///
/// # Panics
/// When it is no number.
pub fn from_environment(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().expect("the variable holds a number"))
}
