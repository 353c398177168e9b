//! What a member tells process 0 of itself: a part of a report, as JSON, packed to be a short text.
//!
//! What does not fit into [`MAX_REPORT_BYTES`] is told without its operators, or without its feed ranges too, from then on: sums that
//! have a part at one moment and not at the next would go up and down.

use std::io::Read;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tidefeed_runtime::cluster::MAX_REPORT_BYTES;

use super::join::Part;
use super::look::Look;
use super::report::{FORM, Graph, Report};

/// Fast; reports come each second.
const LEVEL: i32 = 1;
/// The most that a text may unpack to.
const MOST_JSON_BYTES: u64 = 16 << 20;
/// What is left out, the one after the other.
const LEFT_OUT: [&str; 3] = ["", "its operators", "its operators and feed ranges"];

/// Makes what a member tells, each time it looks at itself.
#[derive(Default)]
pub(crate) struct Teller {
    before: Option<Look>,
    /// In [`LEFT_OUT`].
    left_out: usize,
}

impl Teller {
    /// What to tell after this look; none if it does not fit.
    pub(crate) fn told(&mut self, look: Look) -> Option<Arc<str>> {
        let report = Report::of(&look, self.before.as_ref());
        self.before = Some(look);
        self.fitted(&Part::of(report), MAX_REPORT_BYTES)
    }

    fn fitted(&mut self, part: &Part, most_bytes: usize) -> Option<Arc<str>> {
        while self.left_out < LEFT_OUT.len() {
            let text = text(&without(part.clone(), self.left_out));
            match text {
                Ok(text) if text.len() <= most_bytes => return Some(text.into()),
                Ok(_) => self.left_out += 1,
                Err(error) => {
                    tracing::debug!(%error, "a report cannot be packed");
                    return None;
                }
            }
        }
        None
    }
}

fn without(mut part: Part, left_out: usize) -> Part {
    if left_out > 0 {
        part.graph = Graph::default();
        let what = LEFT_OUT[left_out];
        part.process.missing = Some(format!("its report is too long with {what}"));
    }
    if left_out > 1 {
        for source in &mut part.sources {
            source.ranges.clear();
        }
    }
    part
}

fn text(part: &Part) -> std::io::Result<String> {
    let json = serde_json::to_vec(part)?;
    Ok(STANDARD.encode(zstd::bulk::compress(&json, LEVEL)?))
}

#[cfg(test)]
pub(super) fn text_of(part: &Part) -> String {
    text(part).expect("it can be packed")
}

/// What a member has told.
///
/// # Errors
/// Why it cannot be read, to show beside what is missing then.
pub(super) fn read(text: &str) -> Result<Part, String> {
    let part = unpacked(text)
        .map_err(|_| "its report is not understood: run one version everywhere".to_owned())?;
    match part.form {
        FORM => Ok(part),
        other => Err(format!(
            "it tells form {other} of its report, and this process reads form {FORM}: run one version everywhere"
        )),
    }
}

fn unpacked(text: &str) -> std::io::Result<Part> {
    let packed = STANDARD.decode(text).map_err(std::io::Error::other)?;
    let json = zstd::stream::Decoder::new(&*packed)?.take(MOST_JSON_BYTES);
    let mut bytes = Vec::new();
    { json }.read_to_end(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::report::{Operator, Range, Source};

    fn part(operators: u64, ranges: u64) -> Part {
        let mut random = fastrand::Rng::with_seed(7);
        // What cannot be packed.
        let mut name = || random.u64(..).to_string();
        let operator = |_| Operator {
            name: name(),
            ..Operator::default()
        };
        let operators = (0..operators).map(operator).collect();
        let range = |_| Range {
            range: name(),
            ..Range::default()
        };
        let source = Source {
            records: 7,
            ranges: (0..ranges).map(range).collect(),
            ..Source::default()
        };
        Part {
            form: FORM,
            sources: vec![source],
            graph: Graph {
                operators,
                channels: Vec::new(),
            },
            ..Part::default()
        }
    }

    #[test]
    fn what_is_told_is_read() {
        let part = part(40, 3);
        let told = Teller::default().fitted(&part, MAX_REPORT_BYTES);
        assert_eq!(read(&told.expect("fits")), Ok(part));
    }

    /// A thousand operators are a large job.
    #[test]
    fn large_jobs_fit() {
        let told = Teller::default().fitted(&part(1000, 500), MAX_REPORT_BYTES);
        let told = told.expect("fits");
        let part = read(&told).expect("understood");
        assert_eq!(
            (part.graph.operators.len(), part.process.missing),
            (1000, None)
        );
    }

    #[test]
    fn what_does_not_fit_once_is_left_out_from_then_on() {
        let mut teller = Teller::default();
        let read = |text: Option<Arc<str>>| read(&text.expect("fits")).expect("understood");
        let most = 4_000;
        let cut = read(teller.fitted(&part(1000, 3), most));
        assert_eq!(
            (cut.graph.operators.len(), cut.sources[0].ranges.len()),
            (0, 3)
        );
        let why = cut.process.missing.expect("said");
        assert!(why.ends_with("its operators"), "{why}");
        let again = read(teller.fitted(&part(1, 3), most));
        assert_eq!(again.graph.operators.len(), 0, "it would fit now");
        let cut = read(teller.fitted(&part(1, 1000), most));
        assert_eq!(
            (cut.sources[0].ranges.len(), cut.sources[0].records),
            (0, 7)
        );
        assert_eq!(teller.fitted(&part(1, 1), 10), None);
    }

    #[test]
    fn other_versions_are_read_as_far_as_they_go() {
        let packed = |json: &str| {
            let packed = zstd::bulk::compress(json.as_bytes(), LEVEL).expect("packed");
            STANDARD.encode(packed)
        };
        let newer = r#"{"form":1,"more":[1],"sinks":[{"name":"v","upserts":3,"more":{}}]}"#;
        let part = read(&packed(newer)).expect("understood");
        assert_eq!((part.sinks[0].upserts, part.sinks[0].requests), (3, 0));
        let other = read(&packed(r#"{"form":2}"#)).expect_err("another form");
        assert!(other.contains("form 2"), "{other}");
        for text in [
            "",
            "?",
            "AAAA",
            &packed("{"),
            &packed(r#"{"form":1,"sinks":7}"#),
        ] {
            let why = read(text).expect_err("no report");
            assert!(why.contains("not understood"), "{why}");
        }
    }
}
