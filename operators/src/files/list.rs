//! Which files there are.

use std::collections::BTreeSet;

use glob::Pattern;
use tidefeed_runtime::{Context, Error, ErrorKind, Result};

/// Files by name: paths, and patterns of paths with `*`, `?`, `[..]` and, for any folders, `**`.
#[derive(Clone, Debug)]
pub(super) struct FileList(Vec<String>);

impl FileList {
    /// # Errors
    /// `Config`, naming the setting, when there is none or one is malformed.
    pub(super) fn new(setting: &str, patterns: Vec<String>) -> Result<Self> {
        if patterns.is_empty() {
            let why = format!("{setting} is empty: name files, as in \"orders/*.jsonl\"");
            return Err(Error::new(ErrorKind::Config, why));
        }
        for pattern in &patterns {
            Pattern::new(pattern).context(ErrorKind::Config, || {
                format!("{setting} is {pattern:?}, which is no pattern of paths")
            })?;
        }
        Ok(FileList(patterns))
    }

    /// Just this file.
    pub(super) fn of(name: &str) -> Self {
        FileList(vec![Pattern::escape(name)])
    }

    /// The files that are there, each once, in the order of their names.
    ///
    /// # Errors
    /// `Data` when a folder cannot be read, or a name is no UTF-8 text.
    pub(super) fn names(&self) -> Result<Vec<String>> {
        let mut names = BTreeSet::new();
        for pattern in &self.0 {
            let paths = glob::glob(pattern);
            let paths =
                paths.context(ErrorKind::Config, || format!("{pattern:?} is no pattern"))?;
            for path in paths {
                let path = path.context(ErrorKind::Data, || format!("cannot list {pattern}"))?;
                if !path.is_file() {
                    continue;
                }
                let name = path.into_os_string().into_string().map_err(|name| {
                    let name = name.to_string_lossy();
                    Error::new(
                        ErrorKind::Data,
                        format!("the name of {name} is no UTF-8 text"),
                    )
                })?;
                names.insert(name);
            }
        }
        Ok(names.into_iter().collect())
    }

    /// Says that there is no file of these names.
    pub(super) fn none(&self) -> Error {
        let names = self.0.join(", ");
        Error::new(ErrorKind::NotFound, format!("there is no file {names}"))
    }
}
