//! What the job prints after its run.

use std::fmt;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tidefeed_runtime::{Context, ErrorKind, Result};

use crate::rows::{Airborne, CarrierDelays, RouteDelays, WeatherDelays};
use crate::text_table::Align::{Left, Right};
use crate::text_table::{TextTable, clipped, grouped};
use crate::verify::Verdict;

/// Rows of the top of a view.
const TOP: usize = 10;
/// Departures that a route needs to be among the worst: one late flight makes no bad route.
const ROUTE_DEPARTED_MIN: i64 = 50;

/// What `--summary-json` writes.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Summary {
    /// Flights of the data.
    pub flights: u64,
    /// Writes to the source container that were acknowledged.
    pub writes: u64,
    /// Changes that were read from its change feed.
    pub changes_read: u64,
    /// By view.
    pub views: ViewSummaries,
    /// Epochs made durable.
    pub epochs_sealed: u64,
    /// Epochs of which every view has everything.
    pub epochs_committed: u64,
    /// From the first write to the commit of the last change, in seconds.
    pub elapsed_s: f64,
    /// `changes_read` in `elapsed_s`.
    pub changes_per_s: f64,
    /// From the tick of an epoch to its durable commit, in milliseconds.
    pub commit_latency_ms: Percentiles,
    /// True when every row of every view is right.
    pub verified: bool,
}

/// One [`ViewSummary`] for each view.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ViewSummaries {
    /// Of `carrier_delays`.
    pub carrier_delays: ViewSummary,
    /// Of `route_delays`.
    pub route_delays: ViewSummary,
    /// Of `weather_delays`.
    pub weather_delays: ViewSummary,
    /// Of `airborne`.
    pub airborne: ViewSummary,
}

/// What was done for one view.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct ViewSummary {
    /// Documents written, each time that they were.
    pub updates_written: u64,
    /// Documents deleted.
    pub deletes_written: u64,
    /// Documents in the view's container at the end.
    pub rows: u64,
    /// Of these, equal to the recomputation.
    pub verified: u64,
}

/// Middle and tail of a distribution.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Percentiles {
    /// Half are at most this.
    pub p50: f64,
    /// 99 of 100 are at most this.
    pub p99: f64,
}

impl ViewSummaries {
    /// The summary of a view by its name.
    pub fn view_mut(&mut self, name: &str) -> Option<&mut ViewSummary> {
        match name {
            "carrier_delays" => Some(&mut self.carrier_delays),
            "route_delays" => Some(&mut self.route_delays),
            "weather_delays" => Some(&mut self.weather_delays),
            "airborne" => Some(&mut self.airborne),
            _ => None,
        }
    }
}

impl Summary {
    /// Takes over what the comparison of each view found.
    pub fn set_verdicts(&mut self, verdicts: &[Verdict]) {
        self.verified = verdicts.iter().all(Verdict::is_right);
        for verdict in verdicts {
            if let Some(view) = self.views.view_mut(&verdict.view) {
                view.rows = verdict.rows;
                view.verified = verdict.verified;
            }
        }
    }

    /// Writes the summary as JSON.
    ///
    /// # Errors
    /// `Config` when the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let context = || format!("cannot write {}", path.display());
        let mut json = serde_json::to_vec_pretty(self).context(ErrorKind::Internal, context)?;
        json.push(b'\n');
        std::fs::write(path, json).context(ErrorKind::Config, context)
    }
}

/// The figures of the run in two lines.
impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} flights, {} writes, {} changes read in {:.1} s: {} changes/s",
            grouped(self.flights),
            grouped(self.writes),
            grouped(self.changes_read),
            self.elapsed_s,
            grouped(self.changes_per_s.round() as u64),
        )?;
        write!(
            f,
            "{} epochs sealed, {} committed; from tick to commit {:.1} ms (p50), {:.1} ms (p99)",
            grouped(self.epochs_sealed),
            grouped(self.epochs_committed),
            self.commit_latency_ms.p50,
            self.commit_latency_ms.p99,
        )
    }
}

/// One line for each view, its differences if it has any, and the verdict on all of them.
pub fn verdict_lines(verdicts: &[Verdict]) -> String {
    let mut lines: Vec<String> = verdicts.iter().map(Verdict::to_string).collect();
    let rows: u64 = verdicts.iter().map(|verdict| verdict.rows).sum();
    let differences: u64 = verdicts.iter().map(|verdict| verdict.differences).sum();
    lines.push(if differences == 0 {
        format!(
            "verdict: all {} rows equal the recomputation from the source container",
            grouped(rows)
        )
    } else {
        format!(
            "verdict: WRONG, {} differences from the recomputation",
            grouped(differences)
        )
    });
    lines.join("\n")
}

/// The top of a view as a table, with a title; empty for a view that is not one of the four.
pub fn top_of_view(name: &str, documents: &[Value]) -> String {
    let (title, table) = match name {
        "carrier_delays" => carriers(rows(documents)),
        "route_delays" => routes(rows(documents)),
        "weather_delays" => weather(rows(documents)),
        "airborne" => airborne(rows(documents)),
        _ => return String::new(),
    };
    let lines: Vec<String> = table.lines().collect();
    format!(
        "{name}: {} rows; {title}\n{}\n",
        grouped(documents.len() as u64),
        lines.join("\n")
    )
}

/// The documents as rows; one that is none is left to the verdict.
fn rows<R: DeserializeOwned>(documents: &[Value]) -> Vec<R> {
    documents
        .iter()
        .filter_map(|document| R::deserialize(document).ok())
        .collect()
}

fn carriers(mut rows: Vec<CarrierDelays>) -> (String, TextTable) {
    rows.sort_by(|a, b| {
        descending(a.mean_dep_delay_min, b.mean_dep_delay_min).then_with(|| a.id.cmp(&b.id))
    });
    let mut table = TextTable::new(&[
        ("", Left),
        ("name", Left),
        ("flights", Right),
        ("cancel", Right),
        ("depart", Right),
        ("landed", Right),
        ("late", Right),
        ("dep", Right),
        ("worst", Right),
        ("arr", Right),
        ("worst", Right),
    ]);
    for row in rows.iter().take(TOP) {
        table.push([
            row.id.clone(),
            clipped(row.name.as_deref().unwrap_or("-"), 27),
            count(row.flights),
            count(row.cancelled),
            count(row.departed),
            count(row.landed),
            percent(row.late_share),
            minutes(row.mean_dep_delay_min),
            optional(row.worst_dep_delay_min),
            minutes(row.mean_arr_delay_min),
            optional(row.worst_arr_delay_min),
        ]);
    }
    (
        "the largest mean delay at departure, in minutes".to_owned(),
        table,
    )
}

fn routes(mut rows: Vec<RouteDelays>) -> (String, TextTable) {
    let busy = rows
        .iter()
        .filter(|row| row.departed >= ROUTE_DEPARTED_MIN)
        .count();
    let departed_min = if busy > 0 { ROUTE_DEPARTED_MIN } else { 1 };
    rows.retain(|row| row.departed >= departed_min);
    rows.sort_by(|a, b| {
        descending(a.mean_dep_delay_min, b.mean_dep_delay_min).then_with(|| a.id.cmp(&b.id))
    });
    let mut table = TextTable::new(&[
        ("", Left),
        ("from", Left),
        ("to", Left),
        ("flights", Right),
        ("late", Right),
        ("dep", Right),
        ("worst", Right),
        ("arr", Right),
        ("worst", Right),
    ]);
    for row in rows.iter().take(TOP) {
        table.push([
            row.id.clone(),
            clipped(row.origin_name.as_deref().unwrap_or("-"), 19),
            clipped(row.dest_name.as_deref().unwrap_or("-"), 19),
            count(row.flights),
            percent(row.late_share),
            minutes(row.mean_dep_delay_min),
            optional(row.worst_dep_delay_min),
            minutes(row.mean_arr_delay_min),
            optional(row.worst_arr_delay_min),
        ]);
    }
    let title = match departed_min {
        1 => "the largest mean delay at departure, in minutes".to_owned(),
        _ => format!("the largest mean delay at departure, with {departed_min} departures or more"),
    };
    (title, table)
}

/// The hours of one pair of bands.
#[derive(Default)]
struct Band {
    hours: i64,
    flights: i64,
    cancelled: i64,
    departed: i64,
    late: i64,
    delay_min: f64,
}

fn weather(rows: Vec<WeatherDelays>) -> (String, TextTable) {
    let mut bands = std::collections::BTreeMap::new();
    for row in &rows {
        let band: &mut Band = bands
            .entry((row.visibility_band, row.wind_band))
            .or_default();
        band.hours += 1;
        band.flights += row.flights;
        band.cancelled += row.cancelled;
        band.departed += row.departed;
        band.late += row.late;
        band.delay_min += row.mean_dep_delay_min.unwrap_or(0.0) * row.departed as f64;
    }
    let mut table = TextTable::new(&[
        ("visibility", Left),
        ("wind", Left),
        ("hours", Right),
        ("flights", Right),
        ("cancelled", Right),
        ("departed", Right),
        ("late", Right),
        ("mean delay", Right),
    ]);
    for ((visibility, wind), band) in bands {
        let of_departed = |value: f64| (band.departed > 0).then(|| value / band.departed as f64);
        table.push([
            visibility.to_string(),
            wind.to_string(),
            count(band.hours),
            count(band.flights),
            count(band.cancelled),
            count(band.departed),
            percent(of_departed(band.late as f64)),
            minutes(of_departed(band.delay_min)),
        ]);
    }
    (
        "by band of visibility and wind, delay at departure in minutes".to_owned(),
        table,
    )
}

fn airborne(mut rows: Vec<Airborne>) -> (String, TextTable) {
    rows.sort_by(|a, b| {
        b.departed_at
            .cmp(&a.departed_at)
            .then_with(|| a.id.cmp(&b.id))
    });
    let mut table = TextTable::new(&[
        ("flight", Left),
        ("to", Left),
        ("departed (UTC)", Left),
        ("delay", Right),
        ("tail", Left),
        ("aircraft", Left),
        ("seats", Right),
    ]);
    for row in rows.iter().take(TOP) {
        table.push([
            clipped(&row.id, 28),
            row.dest.to_string(),
            row.departed_at.to_string()[..16].replace('T', " "),
            optional(row.dep_delay_min),
            optional(row.tailnum),
            clipped(row.aircraft.as_deref().unwrap_or("-"), 24),
            optional(row.seats),
        ]);
    }
    ("the last that departed".to_owned(), table)
}

fn descending(a: Option<f64>, b: Option<f64>) -> std::cmp::Ordering {
    let value = |value: Option<f64>| value.unwrap_or(f64::NEG_INFINITY);
    value(b).total_cmp(&value(a))
}

fn count(count: i64) -> String {
    grouped(count.unsigned_abs())
}

fn optional<T: ToString>(value: Option<T>) -> String {
    value.map_or("-".to_owned(), |value| value.to_string())
}

fn minutes(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), |value| format!("{value:.1}"))
}

fn percent(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), |value| format!("{:.1}%", value * 100.0))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::data::{bundled_flights, bundled_tables};
    use crate::lifecycle::Timeline;
    use crate::model::Status;
    use crate::oracle::Expected;
    use crate::rows::VIEWS;
    use crate::verify::compare;

    fn january() -> Expected {
        let timeline = Timeline::new(bundled_flights().expect("flights"));
        // The last event of each flight: what the container holds at the end.
        let mut last = vec![None; timeline.flights().len()];
        for event in timeline.events() {
            last[event.flight as usize] = Some(*event);
        }
        let documents: Vec<_> = last
            .iter()
            .flatten()
            .map(|event| timeline.document(event))
            .collect();
        assert!(
            documents
                .iter()
                .all(|document| document.status != Status::Scheduled)
        );
        Expected::of(&documents, &bundled_tables().expect("tables"))
    }

    /// Counted independently, with Python's `csv` and `decimal` modules in the package's own files.
    #[test]
    fn january_ends_as_its_rows_say() {
        let expected = january();
        let rows = VIEWS.map(|view| expected.view(view.name).map_or(0, |rows| rows.len()));
        assert_eq!(rows, [16, 186, 1_642, 15]);
        assert_eq!(
            expected.carrier_delays["UA"],
            json!({
                "id": "UA", "view": "carrier_delays", "carrier": "UA", "name": "United Air Lines Inc.",
                "flights": 4637, "cancelled": 32, "departed": 4605, "landed": 4604,
                "late": 735, "late_share": 0.1596,
                "mean_dep_delay_min": 8.33, "worst_dep_delay_min": 385,
                "mean_arr_delay_min": 3.18, "worst_arr_delay_min": 394,
            })
        );
        assert_eq!(
            expected.route_delays["EWR-IAH"],
            json!({
                "id": "EWR-IAH", "origin": "EWR", "origin_name": "Newark Liberty Intl",
                "dest": "IAH", "dest_name": "George Bush Intercontinental",
                "flights": 309, "cancelled": 0, "departed": 309, "landed": 309,
                "late": 37, "late_share": 0.1197,
                "mean_dep_delay_min": 6.09, "worst_dep_delay_min": 307,
                "mean_arr_delay_min": 4.54, "worst_arr_delay_min": 292,
            })
        );
        assert_eq!(expected.route_delays["JFK-SJU"]["dest_name"], Value::Null);
        assert_eq!(
            expected.weather_delays["JFK-2013-01-31T11Z"],
            json!({
                "id": "JFK-2013-01-31T11Z", "origin": "JFK", "time_hour": "2013-01-31T11:00:00Z",
                "wind_band": "strong", "visibility_band": "clear", "wind_speed_mph": 28.8, "visibility_mi": 8.0,
                "flights": 19, "cancelled": 1, "departed": 18, "landed": 18,
                "late": 1, "late_share": 0.0556, "mean_dep_delay_min": 5.89, "mean_arr_delay_min": 12.61,
            })
        );
        let in_air = &expected.airborne["2013-01-25-EV4702-EWR-1630"];
        assert_eq!(in_air["departed_at"], json!("2013-01-26T01:10:00Z"));
        assert_eq!(
            (&in_air["aircraft"], &in_air["seats"]),
            (&json!("EMBRAER EMB-145LR"), &json!(55))
        );
    }

    #[test]
    fn tables_fit_100_columns() {
        let expected = january();
        for view in VIEWS {
            let documents: Vec<Value> = expected
                .view(view.name)
                .expect("a view")
                .values()
                .cloned()
                .collect();
            let text = top_of_view(view.name, &documents);
            println!("{text}");
            assert!(text.lines().count() > 10, "{text}");
            assert!(
                text.lines().all(|line| line.chars().count() <= 100),
                "{text}"
            );
            // No row at all is no failure.
            assert_eq!(top_of_view(view.name, &[]).lines().count(), 2);
        }
    }

    #[test]
    fn the_verdict_and_the_summary_say_what_was_found() {
        let expected = january();
        let airborne: Vec<Value> = expected.airborne.values().cloned().collect();
        let right = compare("airborne", &expected.airborne, &airborne);
        let wrong = compare("airborne", &expected.airborne, &airborne[1..]);
        let lines = verdict_lines(std::slice::from_ref(&right));
        assert_eq!(
            lines,
            "airborne        right: 15 rows verified\n\
             verdict: all 15 rows equal the recomputation from the source container"
        );
        assert!(
            verdict_lines(&[right.clone(), wrong.clone()])
                .ends_with("verdict: WRONG, 1 differences from the recomputation")
        );

        let mut summary = Summary {
            flights: 27_004,
            changes_per_s: 6_543.21,
            ..Summary::default()
        };
        summary.set_verdicts(&[right]);
        assert!(summary.verified);
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("summary.json");
        summary.write(&file).expect("written");
        let json: Value =
            serde_json::from_slice(&std::fs::read(&file).expect("read")).expect("json");
        assert_eq!(json["views"]["airborne"]["verified"], json!(15));
        assert_eq!(json["commit_latency_ms"]["p99"], json!(0.0));
        assert!(summary.to_string().contains("27,004 flights"));
        summary.set_verdicts(&[wrong]);
        assert!(!summary.verified);
        assert!(summary.write(directory.path()).is_err());
    }
}
