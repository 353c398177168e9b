//! Pushes the metrics to a collector of OpenTelemetry: OTLP over HTTP, in protobuf, every [`EVERY`] and once more at the end.
//!
//! What is pushed is read from the text that `/metrics` gives, so that no metric is listed twice. It has a thread of its own, each
//! push a deadline, and a collector that fails costs the job two lines in its log: one when it begins, one when it is over.

mod place;
mod protobuf;
mod request;
mod text;

use std::sync::mpsc;
use std::time::{Duration, SystemTime};

use tidefeed_runtime::episode::{Change, Episode};
use tidefeed_runtime::{Context, Error, ErrorKind, Result};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::config::OtlpConfig;
use crate::health::Health;
use crate::status::metrics;
use place::Place;
use request::Origin;

/// How often metrics are pushed.
const EVERY: Duration = Duration::from_secs(10);
/// How long a push may take.
const DEADLINE: Duration = Duration::from_secs(5);
/// How long the end of the process waits for the last push.
const LAST: Duration = Duration::from_secs(1);
/// A collector takes metrics again when none was refused for so long: then it has taken two.
const WELL_AFTER: Duration = Duration::from_secs(15);

/// Pushes until it is dropped.
pub(crate) struct Pusher {
    end: Option<oneshot::Sender<()>>,
    ended: mpsc::Receiver<()>,
}

impl Pusher {
    /// Begins to push if the configuration or the environment say where to.
    ///
    /// # Errors
    /// `Config` when the endpoint or the headers are malformed.
    pub(crate) fn start(config: &OtlpConfig, job: &str, health: Health) -> Result<Option<Pusher>> {
        let variable = |name: &str| std::env::var(name).ok();
        let Some(place) = Place::of(config, variable)? else {
            return Ok(None);
        };
        Self::to(place, job, health).map(Some)
    }

    fn to(place: Place, job: &str, health: Health) -> Result<Pusher> {
        let cannot = || "cannot start the thread that pushes metrics";
        let client = reqwest::Client::builder()
            .timeout(DEADLINE)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .context(ErrorKind::Internal, cannot)?;
        let (end, asked) = oneshot::channel();
        let (tell, ended) = mpsc::channel();
        let pushing = Pushing {
            client,
            place,
            job: job.to_owned(),
            health,
            refused: Episode::new(1, WELL_AFTER),
            began: Instant::now(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context(ErrorKind::Internal, cannot)?;
        std::thread::Builder::new()
            .name("tidefeed-otlp".to_owned())
            .spawn(move || {
                runtime.block_on(pushing.run(asked));
                // Nobody waits for it where the process has ended in another way.
                let _ = tell.send(());
            })
            .context(ErrorKind::Internal, cannot)?;
        let end = Some(end);
        Ok(Pusher { end, ended })
    }
}

impl Drop for Pusher {
    fn drop(&mut self) {
        if let Some(end) = self.end.take() {
            // Whoever pushes may be gone already.
            let _ = end.send(());
        }
        // Late or not at all: the process ends.
        let _ = self.ended.recv_timeout(LAST);
    }
}

struct Pushing {
    client: reqwest::Client,
    place: Place,
    job: String,
    health: Health,
    refused: Episode,
    began: Instant,
}

impl Pushing {
    async fn run(mut self, mut asked: oneshot::Receiver<()>) {
        let mut look = tokio::time::interval(EVERY);
        loop {
            tokio::select! {
                _ = look.tick() => self.push_and_tell().await,
                // Also when whoever would ask is gone.
                _ = &mut asked => break,
            }
        }
        self.push_and_tell().await;
    }

    async fn push_and_tell(&mut self) {
        let pushed = self.push().await;
        let now = self.began.elapsed();
        let change = match &pushed {
            Ok(()) => self.refused.look(now),
            Err(_) => self.refused.happened(now),
        };
        match (change, pushed) {
            (Some(Change::Begun { .. }), Err(error)) => tracing::warn!(
                event = "otlp_failing",
                endpoint = self.place.shown(),
                error = error.report(),
                "the collector takes no metrics; the job goes on"
            ),
            (Some(Change::Over { lasted, count }), _) => tracing::info!(
                event = "otlp_again",
                endpoint = self.place.shown(),
                lasted_s = lasted.as_secs_f64(),
                count,
                "the collector takes metrics again"
            ),
            _ => {}
        }
    }

    async fn push(&self) -> Result<()> {
        let look = self.health.look();
        let text = metrics::encoded(&look)?;
        let origin = Origin {
            job: self.job.clone(),
            process: look.position.process,
            started_at: look.started_at,
            at: SystemTime::now(),
        };
        let families = text::families(&text)?;
        self.send(request::encoded(&families, &origin)).await
    }

    async fn send(&self, body: Vec<u8>) -> Result<()> {
        let request = self.client.post(self.place.url.clone());
        let request = request
            .headers(self.place.headers.clone())
            .header("content-type", "application/x-protobuf")
            .body(body);
        let answer = request.send().await.map_err(reqwest::Error::without_url);
        let answer = answer.context(ErrorKind::Unreachable, || "no answer")?;
        match answer.status().is_success() {
            true => Ok(()),
            false => Err(Error::new(
                ErrorKind::Rejected,
                format!("status {}", answer.status().as_u16()),
            )),
        }
    }
}

#[cfg(test)]
mod tests;
