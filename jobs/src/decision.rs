//! What becomes of each sink when a job starts: decided before anything is claimed or written.
//!
//! | the sink | its container | becomes |
//! |---|---|---|
//! | named by `--rebuild` | any | rebuilt |
//! | is still to be rebuilt, from an earlier start | any | rebuilt: that start was allowed to |
//! | is the same as in the checkpoint | any | carried on |
//! | has changed, or is new to a job with a checkpoint | empty | rebuilt: there is nothing to lose |
//! | has changed, or is new to a job with a checkpoint | holds documents | refused, until `--rebuild` names it |
//! | of a run that starts from nothing | empty | started: written as the load goes on |
//! | of a run that starts from nothing, with `--fresh` | holds documents | rebuilt |
//! | of a run that starts from nothing, without `--fresh` | holds documents | refused, until `--rebuild` names it |
//!
//! That is for sinks that keep their containers equal to a view. A sink with another strategy, or of a plain stream, writes into a
//! container that holds documents of its own. So what it holds is nothing to lose and nothing to bring in line:
//!
//! | the sink, of another strategy | its container | becomes |
//! |---|---|---|
//! | named by `--rebuild`, but not by `--rebuild all` | any | an error: there is nothing to bring it in line with |
//! | is the same as in the checkpoint | any | carried on |
//! | has changed, or is new to a job with a checkpoint | any | begun: written from the commit on, rows of before are not |
//! | of a run that starts from nothing | any | started: written as the load goes on |
//!
//! A sink of the checkpoint that the job no longer has is left alone, and so is its container. Should it come back, it is new.
//! "The same" is the fingerprint's word (`graph.rs`): a changed closure shows only when the rebuilt view is compared with
//! the commit (I8).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use tidefeed_runtime::checkpoint::CommitRecord;
use tidefeed_runtime::dataflow::SinkStart;
use tidefeed_runtime::{Error, ErrorKind, Result};

/// Sinks to rebuild because the person who starts the job said so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked(BTreeSet<String>);

/// The word that names every sink.
const ALL: &str = "all";

impl Asked {
    /// Sinks by name, or `all`.
    pub(crate) fn new(names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Asked(names.into_iter().map(Into::into).collect())
    }

    fn names(&self, sink: &str) -> bool {
        self.0.contains(sink) || self.0.contains(ALL)
    }

    /// # Errors
    /// `Config` when a name is of no sink of the job, or of one without a view.
    pub(crate) fn check<'a>(
        &self,
        sinks: impl Iterator<Item = &'a String>,
        keeps_view: impl Fn(&str) -> bool,
    ) -> Result<()> {
        let sinks: BTreeSet<&str> = sinks.map(String::as_str).collect();
        let without_view = |name: &&String| sinks.contains(name.as_str()) && !keeps_view(name);
        if let Some(name) = self.0.iter().find(without_view) {
            return Err(Error::new(
                ErrorKind::Config,
                format!(
                    "--rebuild {name}: the sink does not keep its container equal to a view, so there is nothing to bring it \
                     in line with; leave it out, or, if its code has changed, give the sink another name: then it is written \
                     from the last commit on"
                ),
            ));
        }
        let unknown = |name: &&String| *name != ALL && !sinks.contains(name.as_str());
        match self.0.iter().find(unknown) {
            None => Ok(()),
            Some(name) => Err(Error::new(
                ErrorKind::Config,
                format!(
                    "--rebuild {name}: the job has no such sink; it has {sinks:?}, and {ALL} names every one"
                ),
            )),
        }
    }
}

/// What a start finds of the run before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Before {
    /// Whether nothing was sealed or committed, or it is not to count.
    pub(crate) nothing: bool,
    /// The sinks of the run that the checkpoint describes, with their fingerprints.
    pub(crate) sinks: BTreeMap<String, String>,
    /// Those that are still to be rebuilt.
    pub(crate) pending: BTreeSet<String>,
}

impl Before {
    /// Whether it matters what the sink's container holds.
    pub(crate) fn needs_look(&self, sink: &str, now: &str) -> bool {
        self.nothing || self.sinks.get(sink).is_none_or(|then| then != now)
    }
}

/// What is known of one sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Facts<'a> {
    from_nothing: bool,
    fresh: bool,
    then: Option<&'a str>,
    now: &'a str,
    pending: bool,
    asked: bool,
    empty: bool,
    keeps_view: bool,
}

/// A sink of the job that starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SinkNow {
    pub(crate) fingerprint: String,
    /// Whether its container is empty, as far as that matters.
    pub(crate) empty: bool,
    /// Whether its container is to be equal to a view.
    pub(crate) keeps_view: bool,
}

/// What becomes of a sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Its container holds the view as of the checkpoint.
    Continue,
    /// Its container is empty or holds documents of its own, and the run starts from nothing.
    Start,
    /// It writes into documents of the container's own, from the commit on.
    Begin(Reason),
    /// Its container is brought in line with the view.
    Rebuild(Reason),
    /// The job does not start.
    Refuse(Reason),
}

/// Why a container may hold something else than its view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// `--rebuild` named it.
    Asked,
    /// An earlier start was to rebuild it and did not come to the end of that.
    Pending,
    /// The checkpoint knows nothing of it.
    New,
    /// It is written to another container, from then to now.
    Moved(String, String),
    /// Other operators or tables are above it.
    Changed,
    /// The run starts from nothing.
    FromNothing,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Asked => f.write_str("as asked for"),
            Reason::Pending => f.write_str("an earlier run did not finish rebuilding it"),
            Reason::New => f.write_str("the checkpoint does not have it"),
            Reason::Moved(then, now) => write!(f, "it was written to {then} and now is to {now}"),
            Reason::Changed => f.write_str("its operators or tables have changed"),
            Reason::FromNothing => f.write_str("the run starts from nothing"),
        }
    }
}

fn decide(facts: Facts<'_>) -> Decision {
    use Decision::{Begin, Continue, Rebuild, Refuse, Start};
    if !facts.keeps_view {
        return match facts.then {
            _ if facts.from_nothing => Start,
            Some(then) if then == facts.now => Continue,
            Some(then) => Begin(change(then, facts.now)),
            None => Begin(Reason::New),
        };
    }
    if facts.asked {
        return Rebuild(Reason::Asked);
    }
    if facts.pending {
        return Rebuild(Reason::Pending);
    }
    if facts.from_nothing {
        return match (facts.empty, facts.fresh) {
            (true, _) => Start,
            (false, true) => Rebuild(Reason::FromNothing),
            (false, false) => Refuse(Reason::FromNothing),
        };
    }
    let reason = match facts.then {
        Some(then) if then == facts.now => return Continue,
        Some(then) => change(then, facts.now),
        None => Reason::New,
    };
    match facts.empty {
        true => Rebuild(reason),
        false => Refuse(reason),
    }
}

/// What differs between two fingerprints (see [`Plan::fingerprint`](crate::plan::Plan::fingerprint)).
fn change(then: &str, now: &str) -> Reason {
    let container = |text: &str| text.split(", graph ").next().unwrap_or(text).to_owned();
    match (container(then), container(now)) {
        (then, now) if then == now => Reason::Changed,
        (then, now) => Reason::Moved(then, now),
    }
}

/// What becomes of the sinks of a job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Decisions {
    /// The job's sinks.
    pub(crate) sinks: BTreeMap<String, Decision>,
    /// Sinks of the checkpoint that the job no longer has.
    pub(crate) gone: BTreeSet<String>,
}

impl Decisions {
    /// Decides on every sink of `now`, given with its fingerprint and whether its container is empty.
    pub(crate) fn of(
        now: &BTreeMap<String, SinkNow>,
        before: &Before,
        asked: &Asked,
        fresh: bool,
    ) -> Self {
        let decision = |name: &String, now: &SinkNow| {
            decide(Facts {
                from_nothing: before.nothing,
                fresh,
                then: before.sinks.get(name).map(String::as_str),
                now: &now.fingerprint,
                pending: before.pending.contains(name),
                asked: asked.names(name),
                empty: now.empty,
                keeps_view: now.keeps_view,
            })
        };
        Decisions {
            sinks: now
                .iter()
                .map(|(name, now)| (name.clone(), decision(name, now)))
                .collect(),
            gone: before
                .sinks
                .keys()
                .filter(|name| !now.contains_key(*name))
                .cloned()
                .collect(),
        }
    }

    /// How the run starts with each sink, by its fingerprint. A sink that is rebuilt because it may differ from the commit
    /// is not compared with it; one whose rebuild goes on is, if the commit was written in the course of that.
    pub(crate) fn starts(
        &self,
        fingerprints: &BTreeMap<String, String>,
        commit: Option<&CommitRecord>,
    ) -> BTreeMap<String, SinkStart> {
        let under_way = |sink: &String| {
            let state = commit.and_then(|commit| commit.sinks.get(sink));
            state.is_some_and(|state| state.rebuilding)
        };
        let start = |(sink, decision): (&String, &Decision)| {
            let start = SinkStart {
                fingerprint: fingerprints.get(sink).cloned().unwrap_or_default(),
                rebuilding: matches!(decision, Decision::Rebuild(_)),
                checked: match decision {
                    Decision::Rebuild(Reason::Pending) => under_way(sink),
                    Decision::Rebuild(_) | Decision::Begin(_) => false,
                    Decision::Continue | Decision::Start | Decision::Refuse(_) => true,
                },
            };
            (sink.clone(), start)
        };
        self.sinks.iter().map(start).collect()
    }

    /// The sinks to rebuild.
    ///
    /// # Errors
    /// `Checkpoint`, or `Config` when the run starts from nothing, if a sink is refused; it names all of them and what to add
    /// to the command line.
    pub(crate) fn rebuild(&self) -> Result<BTreeSet<String>> {
        let refused: Vec<_> = self
            .sinks
            .iter()
            .filter_map(|(name, decision)| match decision {
                Decision::Refuse(reason) => Some((name, reason)),
                _ => None,
            })
            .collect();
        if !refused.is_empty() {
            return Err(refusal(&refused));
        }
        Ok(self
            .sinks
            .iter()
            .filter(|(_, decision)| matches!(decision, Decision::Rebuild(_)))
            .map(|(name, _)| name.clone())
            .collect())
    }
}

fn refusal(refused: &[(&String, &Reason)]) -> Error {
    let sinks: Vec<_> = refused
        .iter()
        .map(|(name, reason)| format!("sink {name} ({reason})"))
        .collect();
    let from_nothing = refused
        .iter()
        .any(|(_, reason)| **reason == Reason::FromNothing);
    let (kind, otherwise) = match from_nothing {
        true => (ErrorKind::Config, "use the checkpoint that belongs to them"),
        false => (
            ErrorKind::Checkpoint,
            "run the version that wrote the checkpoint",
        ),
    };
    Error::new(
        kind,
        format!(
            "the container holds documents that may not be those of the view: {}; to bring it in line with the view start \
             with {}, or {otherwise}",
            sinks.join(", "),
            flags(refused.iter().map(|(name, _)| name.as_str())),
        ),
    )
}

/// What to add to the command line to have these sinks rebuilt.
pub(crate) fn flags<'a>(sinks: impl Iterator<Item = &'a str>) -> String {
    sinks
        .map(|sink| format!("--rebuild {sink}"))
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "db/view by /id, graph 2";
    const OTHER_GRAPH: &str = "db/view by /id, graph 1";
    const OTHER_CONTAINER: &str = "db/old by /id, graph 2";

    /// The table of the module's head, spelled out for every combination of facts.
    #[test]
    fn every_combination_is_decided_as_the_table_says() {
        let thens = [None, Some(NOW), Some(OTHER_GRAPH), Some(OTHER_CONTAINER)];
        let mut seen = 0;
        for bits in 0..64u32 {
            let bit = |at: u32| bits >> at & 1 == 1;
            for then in thens {
                let facts = Facts {
                    from_nothing: bit(0),
                    fresh: bit(1),
                    then,
                    now: NOW,
                    pending: bit(2),
                    asked: bit(3),
                    empty: bit(4),
                    keeps_view: !bit(5),
                };
                let same = !facts.from_nothing && then == Some(NOW);
                let consent = facts.asked || facts.pending;
                let decided = decide(facts);
                seen += 1;
                if !facts.keeps_view {
                    let expected = match (facts.from_nothing, same) {
                        (true, _) => "Start",
                        (false, true) => "Continue",
                        (false, false) => "Begin",
                    };
                    assert!(format!("{decided:?}").starts_with(expected), "{facts:?}");
                    continue;
                }
                // Documents that may be others than the view's are touched only by consent, or by starting over.
                let refused = matches!(decided, Decision::Refuse(_));
                let over = facts.from_nothing && facts.fresh;
                assert_eq!(
                    refused,
                    !consent && !same && !facts.empty && !over,
                    "{facts:?}"
                );
                let plain = matches!(decided, Decision::Continue | Decision::Start);
                let fills = facts.from_nothing && facts.empty;
                assert_eq!(plain, !consent && (same || fills), "{facts:?}");
                assert_eq!(decided == Decision::Continue, !consent && same, "{facts:?}");
            }
        }
        assert_eq!(seen, 256);
    }

    #[test]
    fn reasons_say_what_happened() {
        let facts = Facts {
            from_nothing: false,
            fresh: false,
            then: Some(OTHER_GRAPH),
            now: NOW,
            pending: false,
            asked: false,
            empty: false,
            keeps_view: true,
        };
        let refused = |then| match decide(Facts { then, ..facts }) {
            Decision::Refuse(reason) => reason,
            other => panic!("{other:?}"),
        };
        assert_eq!(refused(Some(OTHER_GRAPH)), Reason::Changed);
        assert_eq!(refused(None), Reason::New);
        assert_eq!(
            refused(Some(OTHER_CONTAINER)).to_string(),
            "it was written to db/old by /id and now is to db/view by /id"
        );
    }

    #[test]
    fn a_refusal_names_every_sink_and_what_to_type() {
        let now = ["a", "b", "c"].map(|sink| {
            let now = SinkNow {
                fingerprint: NOW.to_owned(),
                empty: false,
                keeps_view: true,
            };
            (sink.to_owned(), now)
        });
        let before = Before {
            nothing: false,
            sinks: [("a", OTHER_GRAPH), ("b", NOW), ("d", NOW)]
                .map(|(sink, then)| (sink.to_owned(), then.to_owned()))
                .into(),
            pending: BTreeSet::new(),
        };
        let decisions = |asked: &[&str]| {
            Decisions::of(
                &now.clone().into(),
                &before,
                &Asked::new(asked.iter().copied()),
                false,
            )
        };
        let error = decisions(&[]).rebuild().expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Checkpoint);
        assert!(
            error.report().contains("--rebuild a --rebuild c,"),
            "{}",
            error.report()
        );
        assert!(decisions(&["a"]).rebuild().is_err());
        let rebuilt = decisions(&["a", "c"]).rebuild().expect("allowed");
        assert_eq!(rebuilt.into_iter().collect::<Vec<_>>(), ["a", "c"]);
        assert_eq!(decisions(&["all"]).rebuild().expect("allowed").len(), 3);
        assert_eq!(decisions(&[]).gone.into_iter().collect::<Vec<_>>(), ["d"]);
    }

    #[test]
    fn a_sink_that_is_not_there_cannot_be_asked_for() {
        let sinks = ["a".to_owned()];
        let check = |name: &str| Asked::new([name]).check(sinks.iter(), |_| true);
        assert!(check("a").is_ok() && check("all").is_ok());
        assert_eq!(check("b").expect_err("unknown").kind(), ErrorKind::Config);
        let check = |name: &str| Asked::new([name]).check(sinks.iter(), |_| false);
        assert!(check("all").is_ok());
        let error = check("a").expect_err("nothing to rebuild").report();
        assert!(
            error.contains("--rebuild a: the sink does not keep"),
            "{error}"
        );
    }
}
