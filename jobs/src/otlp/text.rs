//! Reads the text of OpenMetrics, as far as [`metrics`](crate::status::metrics) writes it.

use std::collections::BTreeMap;
use std::str::Chars;

use tidefeed_runtime::{Error, Result};

pub(super) type Labels = Vec<(String, String)>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// A metric with its series.
#[derive(Clone, Debug)]
pub(super) struct Family {
    /// Without the `_total` of counters.
    pub(super) name: String,
    pub(super) help: String,
    pub(super) kind: Kind,
    /// Of counters and gauges.
    pub(super) numbers: Vec<(Labels, f64)>,
    /// Of histograms.
    pub(super) buckets: BTreeMap<Labels, Buckets>,
}

/// A histogram.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Buckets {
    /// Upper bounds of the buckets, but for the last.
    pub(super) bounds: Vec<f64>,
    /// Of each bucket by itself.
    pub(super) counts: Vec<u64>,
    pub(super) sum: f64,
    pub(super) count: u64,
    /// Up to the last bucket.
    below: u64,
}

/// The metrics in a text.
///
/// # Errors
/// `Internal` when it is not of the form that is written here, naming the line.
pub(super) fn families(text: &str) -> Result<Vec<Family>> {
    let mut families: Vec<Family> = Vec::new();
    let mut help = "";
    for line in text.lines().filter(|line| !line.is_empty()) {
        let wrong = || Error::internal(format!("a line of the metrics cannot be read: {line}"));
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            let (what, name) = (words.next(), words.next());
            let rest = words.next().unwrap_or_default();
            match (what, name) {
                (Some("HELP"), Some(_)) => help = rest,
                (Some("TYPE"), Some(name)) => {
                    let kind = kind(rest).ok_or_else(wrong)?;
                    families.push(Family::new(name, std::mem::take(&mut help), kind));
                }
                _ => {}
            }
            continue;
        }
        let family = families.last_mut().ok_or_else(wrong)?;
        family.add(line).ok_or_else(wrong)?;
    }
    Ok(families)
}

fn kind(name: &str) -> Option<Kind> {
    match name {
        "counter" => Some(Kind::Counter),
        "gauge" => Some(Kind::Gauge),
        "histogram" => Some(Kind::Histogram),
        _ => None,
    }
}

impl Family {
    fn new(name: &str, help: &str, kind: Kind) -> Self {
        Family {
            name: name.to_owned(),
            help: help.to_owned(),
            kind,
            numbers: Vec::new(),
            buckets: BTreeMap::new(),
        }
    }

    fn add(&mut self, line: &str) -> Option<()> {
        let rest = line.strip_prefix(&self.name)?;
        let end = rest.find(['{', ' '])?;
        let (suffix, rest) = rest.split_at(end);
        let (mut labels, rest) = match rest.strip_prefix('{') {
            Some(rest) => labels(rest)?,
            None => (Labels::new(), rest),
        };
        let value: f64 = rest.split_whitespace().next()?.parse().ok()?;
        match (self.kind, suffix) {
            (Kind::Gauge, "") | (Kind::Counter, "_total") => self.numbers.push((labels, value)),
            (Kind::Histogram, "_bucket") => {
                let at = labels.iter().position(|(name, _)| name == "le")?;
                let bound: f64 = labels.remove(at).1.parse().ok()?;
                self.buckets.entry(labels).or_default().add(bound, value);
            }
            (Kind::Histogram, "_sum") => self.buckets.entry(labels).or_default().sum = value,
            (Kind::Histogram, "_count") => {
                self.buckets.entry(labels).or_default().count = value as u64;
            }
            _ => return None,
        }
        Some(())
    }
}

impl Buckets {
    /// The next bucket: how many were up to its bound, those of the ones before included.
    fn add(&mut self, bound: f64, up_to: f64) {
        let up_to = up_to as u64;
        self.counts.push(up_to.saturating_sub(self.below));
        self.below = up_to;
        if bound.is_finite() {
            self.bounds.push(bound);
        }
    }
}

/// The labels up to the closing bracket, and what follows.
fn labels(text: &str) -> Option<(Labels, &str)> {
    let mut labels = Labels::new();
    let mut chars = text.chars();
    loop {
        let rest = chars.as_str();
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, rest) = rest.split_once("=\"")?;
        chars = rest.chars();
        let value = quoted(&mut chars)?;
        labels.push((name.trim_start_matches(',').to_owned(), value));
    }
}

/// A value up to its closing quote.
fn quoted(chars: &mut Chars<'_>) -> Option<String> {
    let mut value = String::new();
    loop {
        match chars.next()? {
            '"' => return Some(value),
            '\\' => value.push(match chars.next()? {
                'n' => '\n',
                other => other,
            }),
            other => value.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_read_with_whatever_their_labels_hold() {
        let text = "# HELP a_b What, it is.\n# TYPE a_b counter\na_b_total 3\na_b_total{x=\"1,}\\\"=\",y=\"\\\\n\\n\"} 4.5\n\
                    # HELP h .\n# TYPE h histogram\nh_sum{s=\"w\"} 2.5\nh_count{s=\"w\"} 4\nh_bucket{le=\"0.5\",s=\"w\"} 1\n\
                    h_bucket{le=\"+Inf\",s=\"w\"} 4\n# TYPE g gauge\ng NaN\n# EOF\n";
        let read = families(text).expect("sound");
        assert_eq!((read.len(), read[0].help.as_str()), (3, "What, it is."));
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let labels = vec![pair("x", "1,}\"="), pair("y", "\\n\n")];
        assert_eq!(read[0].numbers, [(Labels::new(), 3.0), (labels, 4.5)]);
        let buckets = &read[1].buckets[&vec![pair("s", "w")]];
        assert_eq!(
            (&buckets.bounds[..], &buckets.counts[..]),
            (&[0.5][..], &[1, 3][..])
        );
        assert_eq!((buckets.sum, buckets.count), (2.5, 4));
        assert!(read[2].numbers[0].1.is_nan());
        for wrong in [
            "x 1\n",
            "# TYPE a gauge\nb 1\n",
            "# TYPE a gauge\na{b=\"} 1\n",
            "# TYPE a gauge\na one\n",
        ] {
            let error = families(wrong).expect_err(wrong).report();
            assert!(error.contains("cannot be read"), "{error}");
        }
    }
}
