//! How a command asks a running job.

use std::net::SocketAddr;

use tidefeed_runtime::{Error, ErrorKind, Result};

use crate::config::{HttpConfig, Token};
use crate::http;

/// Where a job is, and what it wants to hear.
pub(crate) struct Asking {
    at: SocketAddr,
    token: Option<Token>,
    token_env: String,
}

impl Asking {
    /// # Errors
    /// `Config` when the job is not to be asked, or the token cannot be read.
    pub(crate) fn new(config: &HttpConfig) -> Result<Self> {
        Ok(Asking {
            at: config.asked()?,
            token: config.token()?,
            token_env: config.token_env.clone(),
        })
    }

    /// What the job answers.
    ///
    /// # Errors
    /// `Unreachable` when nobody answers, or something else does; `Denied` when the token is not the job's.
    pub(crate) fn ask(&self, path: &str) -> Result<Vec<u8>> {
        let Asking { at, token_env, .. } = self;
        let (status, body) = http::ask(*at, path, self.token.as_ref())?;
        match status {
            200 => Ok(body),
            401 => {
                let what = format!(
                    "the job at {at} wants its token: give it in http.token_file or in the variable {token_env}"
                );
                Err(Error::new(ErrorKind::Denied, what))
            }
            _ => {
                let what = format!("{at} answers {status}: it is no job of this version");
                Err(Error::new(ErrorKind::Unreachable, what))
            }
        }
    }

    /// What to say of an answer in another form.
    pub(crate) fn other_version(&self) -> String {
        let at = self.at;
        format!("what {at} answers is not understood: it is a job of another version")
    }
}
