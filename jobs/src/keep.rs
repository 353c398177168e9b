//! Running a job from the command line to its end: one run, or as many as it takes.
//!
//! A run whose position in a feed has expired is followed by one that starts over, if the source's configuration says so, and a run
//! that was asked to go on with other workers by one that has them. Not in a cluster: that ends, and is started again by whoever
//! watches over it.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clap::ArgMatches;
use tidefeed_operators::feed::ExpiredPosition;
use tidefeed_runtime::checkpoint::request::Shape;
use tidefeed_runtime::failpoint::Failpoints;
use tidefeed_runtime::{Context, ErrorKind, Result};

use crate::asked::Asked;
use crate::build::Build;
use crate::cli::{configuration, job};
use crate::cluster::Member;
use crate::config::Workers;
use crate::health::Health;
use crate::http::{self, Answering};
use crate::job::Job;
use crate::logs::Identity;
#[cfg(feature = "otlp")]
use crate::otlp::Pusher;
use crate::rescale::RESHAPED;
use crate::running::RunningJob;

/// What the runs of a process have in common.
pub(crate) struct Keeper<'a> {
    name: &'a str,
    matches: &'a ArgMatches,
    failpoints: Failpoints,
    build: Build,
    asked: Asked,
    health: Health,
    /// Pushes metrics until it is dropped.
    #[cfg(feature = "otlp")]
    _pusher: Option<Pusher>,
    answering: Option<Answering>,
}

impl<'a> Keeper<'a> {
    /// Listens for signals from now on, and answers how the job is, if that is configured.
    ///
    /// # Errors
    /// `Config` when the configuration cannot be used.
    pub(crate) fn new(
        name: &'a str,
        matches: &'a ArgMatches,
        failpoints: Failpoints,
        build: Build,
        identity: Identity,
    ) -> Result<Self> {
        let asked = Asked::listen()?;
        let whole = configuration(name, matches)?;
        let config = whole.http;
        config.validate()?;
        whole.otlp.validate()?;
        let health = Health::new(config.clone()).with_identity(identity);
        let offset = matches.get_one::<u16>("http-offset").copied();
        let answering = http::serve(&config, offset.unwrap_or(0), health.clone())?;
        #[cfg(feature = "otlp")]
        let pusher = Pusher::start(&whole.otlp, name, health.clone())?;
        Ok(Keeper {
            name,
            matches,
            failpoints,
            build,
            asked,
            health,
            #[cfg(feature = "otlp")]
            _pusher: pusher,
            answering,
        })
    }

    /// Runs the job to its end: as one process of several, or alone. Whoever follows its reports is told how it has ended.
    ///
    /// # Errors
    /// What has ended the last run.
    pub(crate) fn keep_up(self, member: Option<Member>) -> Result<ExitCode> {
        let ended = match member {
            Some(member) => self.run_member(member),
            None => self.run_again_and_again(),
        };
        // Some ends are not those of a run: a configuration that cannot be read, or a run that does not end.
        if let Err(error) = &ended {
            self.health.ends_with(error);
        }
        if let Some(answering) = &self.answering {
            answering.farewell();
        }
        ended
    }

    fn run_member(&self, member: Member) -> Result<ExitCode> {
        let leads = member.position().leads();
        Ok(match self.run(self.job()?.member(member), leads)? {
            Some(_) => ExitCode::from(RESHAPED),
            None => ExitCode::SUCCESS,
        })
    }

    fn run_again_and_again(&self) -> Result<ExitCode> {
        let mut next = self.job()?;
        loop {
            self.asked.starting(true);
            match self.run(next, true) {
                Ok(None) => return Ok(ExitCode::SUCCESS),
                Ok(Some(shape)) if shape.processes == 1 => {
                    next = self.again()?;
                    next.config.workers = Workers(shape.workers as usize);
                }
                Ok(Some(_)) => return Ok(ExitCode::from(RESHAPED)),
                Err(error) if ExpiredPosition::of(&error).is_some_and(ExpiredPosition::reload) => {
                    tracing::warn!(
                        event = "reload",
                        "{}; on_expired is \"reload\", so the job starts over and brings its sinks in line",
                        error.report()
                    );
                    next = self.again()?.fresh(true);
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn job(&self) -> Result<Job> {
        job(self.name, self.matches, Arc::clone(&self.build))
    }

    /// The job once more: what the command line asks of its start is done.
    fn again(&self) -> Result<Job> {
        Ok(self.job()?.fresh(false).without_rebuild())
    }

    fn run(&self, job: Job, leads: bool) -> Result<Option<Shape>> {
        let job = job.with_health(self.health.clone());
        let running = job.failpoints(self.failpoints.clone()).start()?;
        wait(running, self.matches, leads, &self.asked)
    }
}

/// How long after the time of `--until` the changes made up to it are certain to be found: the service stamps them to the second,
/// and clocks differ a little.
const UNTIL_MARGIN: Duration = Duration::from_secs(2);

/// How long a run that is over may take to end, before the process ends without it: more than all that it waits for takes
/// together. Code of the job that never returns would keep it for ever.
const LAST_RESORT: Duration = Duration::from_secs(60);

/// Waits for the job's end, or for a signal to end it: in a cluster one process that is asked ends all. Whoever `leads` a run asks it
/// to end when that is wanted. Returns the shape in which it is to go on, if it was asked to in another one.
fn wait(
    job: RunningJob,
    matches: &ArgMatches,
    leads: bool,
    asked: &Asked,
) -> Result<Option<Shape>> {
    asked.starting(false);
    if leads && matches.get_flag("until-caught-up") {
        job.finish_when_caught_up();
    }
    let until = matches.get_one::<SystemTime>("until").copied();
    let until = until.filter(|_| leads);
    let signals = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context(ErrorKind::Internal, || "cannot wait for signals")?;
    signals.block_on(async {
        let ended = async {
            while !job.ended() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let finishing = async {
            if let Some(until) = until {
                past(until + UNTIL_MARGIN).await;
                job.finish_when_caught_up();
            }
            std::future::pending().await
        };
        tokio::pin!(ended);
        tokio::select! {
            () = &mut ended => return Ok(()),
            () = finishing => {}
            // What is not committed is repeated by the next run, so ending at once is safe.
            () = asked.wait() => job.stop(),
            () = job.over() => {}
        }
        tokio::time::timeout(LAST_RESORT, ended)
            .await
            .map_err(|_| job.stuck())
    })?;
    let shape = job.asked_shape();
    job.join().map(|_| shape)
}

/// Resolves when the machine's clock has passed `time`. It may be set meanwhile, so it is looked at again and again.
async fn past(time: SystemTime) {
    const LOOK: Duration = Duration::from_secs(1);
    while let Ok(left) = time.duration_since(SystemTime::now()) {
        tokio::time::sleep(left.min(LOOK)).await;
    }
}
