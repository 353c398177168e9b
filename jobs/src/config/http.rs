//! Where a job tells how it is.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use tidefeed_runtime::{Context, Error, ErrorKind, Result};

use super::within;

/// The environment variable of the token, unless the configuration names another.
pub const TOKEN_VARIABLE: &str = "TIDEFEED_HTTP_TOKEN";

/// Where a job answers how it is, and what it takes for a stall. See `docs/health.md`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    /// Address and port, or `off`; default `127.0.0.1:9191`, or where something listens there already, any port that is free, which the
    /// log says. Any other address than one of the loopback needs a token. Port 0 is any that is free. Processes that `--processes` starts
    /// on one machine take this port and those after it, by their numbers.
    pub listen: Option<String>,
    /// How long something may take before it is named as what holds the run, milliseconds; default 2000, 1 to 3600000. Larger
    /// keeps slow stores and garbage collections of a service out of the answer; smaller names a stall sooner. Default: a guess, twice the
    /// default of `epoch.max_ms`, the longest that an idle job does nothing at all.
    pub stalled_after_ms: u64,
    /// How long nothing may move before `/healthz` says that the process should be started again, milliseconds; default 60000,
    /// 1000 to 86400000. Larger survives longer outages of what the job depends on; smaller mends a hang sooner. Default: the 60 s after
    /// which a writer warns that nothing gets through, and several times the longest request.
    pub stuck_after_ms: u64,
    /// How far a job that is ready may be behind, milliseconds; default none: it is ready when it runs. What it is behind is the age
    /// of the oldest epoch that is not written, and of the last moment at which a feed range had nothing more to give.
    pub ready_lag_ms: Option<u64>,
    /// The file with the bearer token; default none.
    pub token_file: Option<PathBuf>,
    /// The environment variable with the bearer token; default `TIDEFEED_HTTP_TOKEN`. Nothing else is asked for where neither is set.
    pub token_env: String,
}

/// Where a job listens of which nobody has said anything.
const DEFAULT_LISTEN: &str = "127.0.0.1:9191";
/// Nothing listens.
const OFF: &str = "off";

/// Where to listen.
pub(crate) struct ListenAt {
    pub(crate) at: SocketAddr,
    pub(crate) token: Option<Token>,
    /// Nobody has asked for this port, so another is as good.
    pub(crate) or_any: bool,
}

impl Default for HttpConfig {
    fn default() -> Self {
        HttpConfig {
            listen: None,
            stalled_after_ms: 2000,
            stuck_after_ms: 60_000,
            ready_lag_ms: None,
            token_file: None,
            token_env: TOKEN_VARIABLE.to_owned(),
        }
    }
}

/// What a bearer of the token says.
#[derive(Clone)]
pub(crate) struct Token(pub(crate) String);

impl HttpConfig {
    /// Checks every field against its range.
    ///
    /// # Errors
    /// `Config`, naming the field and what is allowed.
    pub fn validate(&self) -> Result<()> {
        let ms = "milliseconds";
        let day = 86_400_000;
        within(
            "http.stalled_after_ms",
            self.stalled_after_ms,
            1,
            3_600_000,
            ms,
        )?;
        within("http.stuck_after_ms", self.stuck_after_ms, 1000, day, ms)?;
        if let Some(lag) = self.ready_lag_ms {
            within("http.ready_lag_ms", lag, 1, day, ms)?;
        }
        match self.listens() {
            Some(listen) => address(listen).map(|_| ()),
            None => Ok(()),
        }
    }

    /// What is configured, or the default; `None` if nothing is to listen.
    fn listens(&self) -> Option<&str> {
        let listen = self.listen.as_deref().unwrap_or(DEFAULT_LISTEN);
        (listen != OFF).then_some(listen)
    }

    /// Whether anything is to listen.
    pub(crate) fn is_on(&self) -> bool {
        self.listens().is_some()
    }

    /// Where a job of this configuration is to be asked.
    ///
    /// # Errors
    /// `Config` when nothing listens, or the address means nothing.
    pub(crate) fn asked(&self) -> Result<SocketAddr> {
        let listen = self.listens().ok_or_else(|| {
            let what = "http.listen is \"off\", so the job cannot be asked: give --http ADDR if it listens elsewhere";
            Error::new(ErrorKind::Config, what)
        })?;
        address(listen)
    }

    /// From when on something is named.
    pub(crate) fn notice(&self) -> Duration {
        Duration::from_millis(self.stalled_after_ms)
    }

    /// The token, if there is one.
    ///
    /// # Errors
    /// `Config` when the file cannot be read, or holds nothing.
    pub(crate) fn token(&self) -> Result<Option<Token>> {
        let text = match &self.token_file {
            Some(path) => {
                let named = || format!("cannot read http.token_file {}", path.display());
                let text = std::fs::read_to_string(path).context(ErrorKind::Config, named)?;
                if text.trim().is_empty() {
                    let what = format!("http.token_file {} is empty", path.display());
                    return Err(Error::new(ErrorKind::Config, what));
                }
                text
            }
            None => std::env::var(&self.token_env).unwrap_or_default(),
        };
        let text = text.trim();
        Ok((!text.is_empty()).then(|| Token(text.to_owned())))
    }

    /// Where to listen, with the token; `port` is added to the port that is configured. `None` if nothing is to listen.
    ///
    /// # Errors
    /// `Config` when the address means nothing, or needs a token and there is none.
    pub(crate) fn place(&self, port: u16) -> Result<Option<ListenAt>> {
        let Some(listen) = self.listens() else {
            return Ok(None);
        };
        let mut at = address(listen)?;
        if at.port() != 0 {
            let sum = at.port().checked_add(port).ok_or_else(|| {
                let what = format!("http.listen is {listen}: there is no port for process {port}");
                Error::new(ErrorKind::Config, what)
            })?;
            at.set_port(sum);
        }
        let token = self.token()?;
        if !at.ip().is_loopback() && token.is_none() {
            return Err(Error::new(
                ErrorKind::Config,
                format!(
                    "http.listen is {listen}, which others can reach: give a token in http.token_file or in the variable {}, \
                     or listen at 127.0.0.1",
                    self.token_env
                ),
            ));
        }
        Ok(Some(ListenAt {
            at,
            token,
            or_any: self.listen.is_none(),
        }))
    }
}

/// The address that a text means.
///
/// # Errors
/// `Config` when it means none.
fn address(listen: &str) -> Result<SocketAddr> {
    let wrong =
        || format!("http.listen is {listen:?}: write an address and a port, as in 127.0.0.1:9191");
    let mut found = listen.to_socket_addrs().context(ErrorKind::Config, wrong)?;
    found
        .next()
        .ok_or_else(|| Error::new(ErrorKind::Config, wrong()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(listen: &str) -> HttpConfig {
        HttpConfig {
            listen: Some(listen.to_owned()),
            token_env: "TIDEFEED_NO_SUCH_VARIABLE".to_owned(),
            ..HttpConfig::default()
        }
    }

    #[test]
    fn what_others_can_reach_needs_a_token() {
        let place = |config: &HttpConfig, process| config.place(process);
        let loopback = config("127.0.0.1:9000");
        let found = place(&loopback, 2).expect("allowed").expect("on");
        assert_eq!(found.at.to_string(), "127.0.0.1:9002");
        assert!(found.token.is_none() && !found.or_any);
        let open = config("0.0.0.0:9000");
        let report = place(&open, 0).err().expect("refused").report();
        assert!(report.contains("give a token"), "{report}");
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("token");
        std::fs::write(&file, " secret\n").expect("written");
        let open = HttpConfig {
            token_file: Some(file.clone()),
            ..open
        };
        let found = place(&open, 0).expect("allowed").expect("on");
        assert_eq!(found.token.map(|token| token.0).as_deref(), Some("secret"));
        std::fs::write(&file, "\n").expect("written");
        assert!(place(&open, 0).is_err(), "an empty token is none");
        let default = place(&HttpConfig::default(), 1);
        let default = default.expect("allowed").expect("on");
        assert_eq!(default.at.to_string(), "127.0.0.1:9192");
        assert!(default.or_any);
        assert!(place(&config("off"), 0).expect("off").is_none());
        assert!(config("off").asked().is_err());
        assert!(place(&config("127.0.0.1:65535"), 1).is_err());
    }

    #[test]
    fn wrong_settings_name_the_field() {
        let report = |config: HttpConfig| config.validate().expect_err("wrong").report();
        assert!(report(config("here")).starts_with("http.listen is \"here\""));
        let default = HttpConfig::default;
        for (field, wrong) in [
            (
                "stuck_after_ms",
                HttpConfig {
                    stuck_after_ms: 5,
                    ..default()
                },
            ),
            (
                "stalled_after_ms",
                HttpConfig {
                    stalled_after_ms: 0,
                    ..default()
                },
            ),
            (
                "ready_lag_ms",
                HttpConfig {
                    ready_lag_ms: Some(0),
                    ..default()
                },
            ),
        ] {
            let report = report(wrong);
            assert!(report.starts_with(&format!("http.{field} is ")), "{report}");
        }
        default().validate().expect("right");
    }
}
