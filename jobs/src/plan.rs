//! What a job's code uses: sources, sinks, tables, keyed state and temporal filters, found by building its dataflow once without running it.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use tidefeed_operators::strategy::WriteRule;
use tidefeed_runtime::checkpoint::Fingerprint;
use tidefeed_runtime::dataflow::SinkStart;
use tidefeed_runtime::states::state_source;
use tidefeed_runtime::{Error, ErrorKind, Result};

use crate::config::{JobConfig, Place};
use crate::graph::{Graph, sink_name};

/// The names that a job's code uses, in no order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Sources, each with the type that its documents decode to.
    pub sources: BTreeMap<String, &'static str>,
    /// Sinks, each with the type of its rows.
    pub sinks: BTreeMap<String, &'static str>,
    /// What sinks write that do not keep their containers equal to a view.
    pub strategies: BTreeMap<String, WriteRule>,
    /// Tables, each with the hash of its rows.
    pub tables: BTreeMap<String, String>,
    /// Keyed state, each with the types of key, value, state and output.
    pub states: BTreeMap<String, &'static str>,
    /// Sources whose watermark is used.
    pub watermarks: BTreeSet<String>,
    /// How many temporal filters there are.
    pub temporal_filters: usize,
    /// Sinks, each with the fingerprint of the operators that it depends on (`graph.rs`).
    pub graphs: BTreeMap<String, String>,
    /// The operators of the code, in the order in which it made them.
    pub operators: Vec<String>,
}

impl Plan {
    /// Notes a use. Each name can be used once: a collection can be cloned and used many times.
    ///
    /// # Errors
    /// `Config` when the name is used already.
    pub(crate) fn note<V>(
        kind: &str,
        uses: &mut BTreeMap<String, V>,
        name: &str,
        what: V,
    ) -> Result<()> {
        if uses.insert(name.to_owned(), what).is_some() {
            return Err(Error::new(
                ErrorKind::Config,
                format!("the job uses {kind} {name} twice: clone the collection instead"),
            ));
        }
        Ok(())
    }

    /// Notes a sink, the type of its rows, and what it writes for them.
    ///
    /// # Errors
    /// `Config` when the name is used already, or the strategy cannot be carried out.
    pub(crate) fn note_sink(
        &mut self,
        name: &str,
        rows: &'static str,
        rule: WriteRule,
    ) -> Result<()> {
        let valid = rule.validate();
        valid.map_err(|error| error.wrap(format!("sink {name}")))?;
        if !rule.keeps_view() {
            self.strategies.insert(name.to_owned(), rule);
        }
        Plan::note("sink", &mut self.sinks, name, rows)
    }

    /// Takes note of what each sink depends on.
    ///
    /// # Errors
    /// `Internal` when a sink does not show in the graph.
    pub(crate) fn see(&mut self, graph: &Graph) -> Result<()> {
        for sink in self.sinks.keys() {
            let fingerprint = graph.fingerprint(&sink_name(sink)).ok_or_else(|| {
                Error::internal(format!("sink {sink} does not show in the job's dataflow"))
            })?;
            self.graphs.insert(sink.clone(), fingerprint);
        }
        self.operators = graph.outermost();
        Ok(())
    }

    /// Every source and sink needs its section in the configuration.
    ///
    /// # Errors
    /// `Config`, naming the missing section.
    pub fn check(&self, config: &JobConfig) -> Result<()> {
        let missing = |section: &str, name: &str, there: Vec<&String>| {
            Error::new(
                ErrorKind::Config,
                format!(
                    "the job uses {section} {name}, but the configuration has no [{section}.{name}]; it has {there:?}"
                ),
            )
        };
        let unknown = |name: &&String| !config.source.contains_key(*name);
        if let Some(name) = self.sources.keys().find(unknown) {
            return Err(missing("source", name, config.source.keys().collect()));
        }
        let unknown = |name: &&String| !config.sink.contains_key(*name);
        if let Some(name) = self.sinks.keys().find(unknown) {
            return Err(missing("sink", name, config.sink.keys().collect()));
        }
        if self.sources.is_empty() {
            return Err(Error::new(
                ErrorKind::Config,
                "the job reads no source: call flow.change_feed",
            ));
        }
        self.check_event_times(config)?;
        self.check_stamps(config)
    }

    fn check_event_times(&self, config: &JobConfig) -> Result<()> {
        let without = |name: &&String| config.source[*name].event_time.is_none();
        match self.watermarks.iter().find(without) {
            None => Ok(()),
            Some(name) => Err(Error::new(
                ErrorKind::Config,
                format!(
                    "the job uses the watermark of source {name}, and the configuration does not say where its event time is: \
                     set source.{name}.event_time, as in {{ path = \"/placed_ms\" }}"
                ),
            )),
        }
    }

    /// A stamp is one more operation of a patch, and only the configuration knows of it.
    fn check_stamps(&self, config: &JobConfig) -> Result<()> {
        for (name, rule) in &self.strategies {
            let rule = WriteRule {
                stamp_epoch: config.sink[name].stamp_epoch,
                ..rule.clone()
            };
            let valid = rule.validate();
            valid.map_err(|error| error.wrap(format!("sink {name}")))?;
        }
        Ok(())
    }

    /// How a run starts with the job's keyed state, as far as commits are concerned. It is not part of the job's fingerprint:
    /// whether it was there before, and whether its input is what it was, is for the last commit to say.
    pub(crate) fn state_starts(&self) -> impl Iterator<Item = (String, SinkStart)> {
        self.states.keys().map(|name| {
            let start = SinkStart {
                fingerprint: "the input of keyed state".to_owned(),
                rebuilding: false,
                checked: true,
            };
            (state_source(name), start)
        })
    }

    /// Whether the sink's container is to be equal to a view.
    pub(crate) fn keeps_view(&self, sink: &str) -> bool {
        !self.strategies.contains_key(sink)
    }

    /// What a run is compared by with the one that it resumes from: sources by their containers, sinks by their containers,
    /// strategies and the operators that they depend on, tables by their rows.
    ///
    /// Row types are left out, so that a job may be recompiled and its types renamed; that the views still come out the
    /// same is checked by their hashes (I8), and that is also what finds a changed closure.
    pub fn fingerprint(&self, config: &JobConfig) -> Fingerprint {
        // A container of the default account is known without an account: jobs had no other once.
        let place = |account: &Option<String>, database: &str, container: &str| match account {
            Some(account) => format!("{account}:{database}/{container}"),
            None => format!("{database}/{container}"),
        };
        let source = |name: &String| {
            let Some(source) = config.source.get(name) else {
                return String::new();
            };
            let from = match source.place() {
                Place::Container => place(&source.account, &source.database, &source.container),
                // Wherever they are now: the key is what documents are known by.
                Place::Files => format!("files by {}", source.key_fields().join(",")),
                Place::Posts => format!("posts by {}", source.key_fields().join(",")),
            };
            match source.kept_fields() {
                Some(fields) => format!("{from}, of it {}", fields.join(",")),
                None => from,
            }
        };
        let sink = |name: &String| {
            let graph = self.graphs.get(name).map_or("", String::as_str);
            let strategy = self.strategies.get(name);
            let strategy = strategy.map_or(String::new(), |strategy| format!(", {strategy}"));
            config.sink.get(name).map_or(String::new(), |s| {
                format!(
                    "{} by {}{strategy}, graph {graph}",
                    place(&s.account, &s.database, &s.container),
                    s.partition_key.join(",")
                )
            })
        };
        Fingerprint {
            sources: self
                .sources
                .keys()
                .map(|name| (name.clone(), source(name)))
                .collect(),
            sinks: self
                .sinks
                .keys()
                .map(|name| (name.clone(), sink(name)))
                .collect(),
            tables: self.tables.clone(),
        }
    }
}

/// A hash of a table's rows, in their order.
///
/// # Errors
/// `Data` when a row has no JSON form.
pub(crate) fn table_hash<T: Serialize>(name: &str, rows: &[T]) -> Result<String> {
    let bytes = serde_json::to_vec(rows).map_err(|error| {
        Error::new(
            ErrorKind::Data,
            format!("table {name} has a row without JSON form"),
        )
        .with_source(error)
    })?;
    Ok(format!(
        "{} rows, {:032x}",
        rows.len(),
        xxhash_rust::xxh3::xxh3_128(&bytes)
    ))
}
