//! Where a source's documents come from, and the keys that go with each place.

use std::time::Duration;

use serde::Deserialize;
use tidefeed_operators::files::FilesOptions;
use tidefeed_operators::ingest::{BearerToken, IngestOptions};
use tidefeed_runtime::{Error, ErrorKind, Result};

use super::account::{Variable, is_variable};
use super::source::SourceConfig;
use super::{StartAt, within};

/// Where a source's documents come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A container's change feed.
    Container,
    /// Files of JSON lines or CSV.
    Files,
    /// Producers that post them over HTTP.
    Posts,
}

/// Files by name.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "a path, or a list of paths")]
pub enum FileNames {
    /// One path or pattern.
    One(String),
    /// Several.
    Several(Vec<String>),
}

const DEFAULT_PATH: &str = "/ingest";
const DEFAULT_MAX_BODY_BYTES: u64 = 4 << 20;
const DEFAULT_MAX_UNSEALED_BYTES: u64 = 32 << 20;
const DEFAULT_ANSWER_MS: u64 = 30_000;

impl SourceConfig {
    /// Where the documents come from.
    pub fn place(&self) -> Place {
        match (&self.files, &self.listen) {
            (Some(_), _) => Place::Files,
            (None, Some(_)) => Place::Posts,
            (None, None) => Place::Container,
        }
    }

    /// Whether the keys that are set go together.
    pub(super) fn validate_place(&self, name: &str) -> Result<()> {
        let wrong = |what: String| {
            Err(Error::new(
                ErrorKind::Config,
                format!("source.{name}{what}"),
            ))
        };
        use Place::{Container, Files, Posts};
        let place = self.place();
        let keys: [(&str, bool, &[Place]); 23] = [
            ("account", self.account.is_some(), &[Container]),
            ("database", !self.database.is_empty(), &[Container]),
            ("container", !self.container.is_empty(), &[Container]),
            ("feed_ranges", self.feed_ranges.is_some(), &[Container]),
            ("start", self.start != StartAt::default(), &[Container]),
            ("mode", self.mode != Default::default(), &[Container]),
            ("deleted", self.deleted.is_some(), &[Container]),
            (
                "on_expired",
                self.on_expired != Default::default(),
                &[Container],
            ),
            ("ru_per_second", self.ru_per_second.is_some(), &[Container]),
            (
                "keep_system_properties",
                !self.keep_system_properties.is_empty(),
                &[Container],
            ),
            ("files", self.files.is_some(), &[Files]),
            ("format", self.format.is_some(), &[Files]),
            ("types", !self.types.is_empty(), &[Files]),
            ("follow", self.follow, &[Files]),
            ("partitioned", self.partitioned, &[Files]),
            ("listen", self.listen.is_some(), &[Posts]),
            ("path", self.path.is_some(), &[Posts]),
            ("token_env", self.token_env.is_some(), &[Posts]),
            ("max_body_bytes", self.max_body_bytes.is_some(), &[Posts]),
            (
                "max_unsealed_bytes",
                self.max_unsealed_bytes.is_some(),
                &[Posts],
            ),
            ("answer_ms", self.answer_ms.is_some(), &[Posts]),
            ("key", self.key.is_some(), &[Files, Posts]),
            ("fields", self.fields.is_some(), &[Container, Files]),
        ];
        for (key, set, places) in keys {
            if set && !places.contains(&place) {
                return wrong(format!(
                    ".{key} is set, and the source is {}: it goes with another place",
                    match place {
                        Container => "a container (database, container)",
                        Files => "files",
                        Posts => "what producers post (listen)",
                    }
                ));
            }
        }
        match place {
            Container if self.database.is_empty() => wrong(
                " has no database: a source is database and container, or files, or listen"
                    .to_owned(),
            ),
            Container if self.container.is_empty() => wrong(
                " has no container: a source is database and container, or files, or listen"
                    .to_owned(),
            ),
            Container => Ok(()),
            Files => Ok(()),
            Posts => self.validate_posts(name),
        }
    }

    fn validate_posts(&self, name: &str) -> Result<()> {
        let key = |key: &str| format!("source.{name}.{key}");
        let body = self.max_body_bytes.unwrap_or(DEFAULT_MAX_BODY_BYTES);
        within(&key("max_body_bytes"), body, 1 << 10, 256 << 20, "bytes")?;
        let unsealed = self
            .max_unsealed_bytes
            .unwrap_or(DEFAULT_MAX_UNSEALED_BYTES);
        within(
            &key("max_unsealed_bytes"),
            unsealed,
            body,
            64 << 30,
            "bytes",
        )?;
        let answer = self.answer_ms.unwrap_or(DEFAULT_ANSWER_MS);
        within(&key("answer_ms"), answer, 1, 3_600_000, "milliseconds")?;
        match &self.token_env {
            // Not repeated: it may be the token.
            Some(Variable(name)) if !is_variable(name) => Err(Error::new(
                ErrorKind::Config,
                format!(
                    "{} is no name of an environment variable: the token itself belongs into that variable",
                    key("token_env")
                ),
            )),
            _ => Ok(()),
        }
    }

    /// The fields that identify a document of files or posts.
    pub(crate) fn key_fields(&self) -> Vec<String> {
        self.key.clone().unwrap_or_else(|| vec!["/id".to_owned()])
    }

    /// How files are read.
    pub(crate) fn files_options(&self) -> FilesOptions {
        FilesOptions {
            files: match &self.files {
                None => Vec::new(),
                Some(FileNames::One(file)) => vec![file.clone()],
                Some(FileNames::Several(files)) => files.clone(),
            },
            format: self.format,
            key: self.key_fields(),
            fields: self.kept_fields(),
            types: self.types.clone(),
            follow: self.follow,
            partitioned: self.partitioned,
            page_size: self.page_size as usize,
        }
    }

    /// Where producers post.
    ///
    /// # Errors
    /// `Config` when the token is not in the environment, or no address is configured.
    pub(crate) fn ingest_options(&self, section: &str) -> Result<IngestOptions> {
        let wrong = |what: String| Error::new(ErrorKind::Config, format!("{section}.{what}"));
        let token = self.token_env.as_ref().map(|Variable(variable)| {
            let missing = |_| {
                wrong(format!(
                    "token_env names {variable}, which is not in the environment"
                ))
            };
            let token = std::env::var(variable).map_err(missing)?;
            BearerToken::new(&token)
                .map_err(|error| error.wrap(wrong(format!("token_env names {variable}")).report()))
        });
        Ok(IngestOptions {
            listen: self
                .listen
                .ok_or_else(|| wrong("listen is not set".to_owned()))?,
            path: self.path.clone().unwrap_or_else(|| DEFAULT_PATH.to_owned()),
            key: self.key_fields(),
            token: token.transpose()?,
            max_body_bytes: self.max_body_bytes.unwrap_or(DEFAULT_MAX_BODY_BYTES),
            max_unsealed_bytes: self
                .max_unsealed_bytes
                .unwrap_or(DEFAULT_MAX_UNSEALED_BYTES),
            answer_within: Duration::from_millis(self.answer_ms.unwrap_or(DEFAULT_ANSWER_MS)),
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::config::JobConfig;

    use super::*;

    fn source(text: &str) -> Result<SourceConfig> {
        let config = JobConfig::parse(&format!("[source.s]\n{text}"))?;
        config.validate().map(|()| config.source["s"].clone())
    }

    #[test]
    fn a_source_is_a_container_files_or_posts() {
        let files = source(
            "files = [\"a/*.csv\", \"b.csv\"]\nkey = [\"/x\", \"/id\"]\ntypes = { n = \"integer\" }\n",
        );
        let files = files.expect("sound");
        assert_eq!(files.place(), Place::Files);
        let options = files.files_options();
        assert_eq!(
            (options.files.len(), options.key.join(",")),
            (2, "/x,/id".to_owned())
        );
        let posts = source("listen = \"127.0.0.1:8090\"\n").expect("sound");
        assert_eq!(posts.place(), Place::Posts);
        let options = posts
            .ingest_options("source.s")
            .expect("no token is needed");
        assert_eq!(
            (options.path.as_str(), options.key.join(",")),
            ("/ingest", "/id".to_owned())
        );
    }

    #[test]
    fn what_does_not_go_together_is_named() {
        for (text, says) in [
            ("", "source.s has no database: a source is"),
            ("database = \"d\"", "source.s has no container: a source is"),
            (
                "files = \"a\"\ndatabase = \"d\"",
                "source.s.database is set, and the source is files",
            ),
            (
                "files = \"a\"\nlisten = \"127.0.0.1:1\"",
                "source.s.listen is set, and the source is files",
            ),
            (
                "files = \"a\"\nstart = \"now\"",
                "source.s.start is set, and the source is files",
            ),
            (
                "listen = \"127.0.0.1:1\"\nfollow = true",
                "source.s.follow is set, and the source is what",
            ),
            (
                "database = \"d\"\ncontainer = \"c\"\nkey = [\"/id\"]",
                "source.s.key is set, and the source is a container",
            ),
            (
                "listen = \"127.0.0.1:1\"\nmax_body_bytes = 10",
                "source.s.max_body_bytes is 10: allowed is 1024 to",
            ),
            (
                "listen = \"127.0.0.1:1\"\nmax_unsealed_bytes = 10",
                "source.s.max_unsealed_bytes is 10: allowed is 4194304 to",
            ),
            (
                "listen = \"127.0.0.1:1\"\ntoken_env = \"my secret\"",
                "source.s.token_env is no name of an environment variable: the",
            ),
            ("listen = \"here\"", "line 2: invalid socket address"),
            ("files = 3", "line 2: a path, or a list of paths"),
        ] {
            let report = source(text).expect_err("wrong").report();
            assert!(report.starts_with(says), "{text}: {report}");
        }
        let absent = source("listen = \"127.0.0.1:1\"\ntoken_env = \"NO_SUCH_VARIABLE_HERE\"")
            .expect("sound");
        let report = absent
            .ingest_options("source.s")
            .expect_err("no token")
            .report();
        assert!(
            report.starts_with("source.s.token_env names NO_SUCH_VARIABLE_HERE, which is not"),
            "{report}"
        );
    }
}
