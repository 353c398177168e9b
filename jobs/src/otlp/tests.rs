use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use parking_lot::Mutex;

use super::*;
use crate::config::HttpConfig;

/// What a collector was sent.
type Received = Arc<Mutex<Vec<(HeaderMap, Bytes)>>>;

/// A collector that answers with this status.
async fn collector(status: StatusCode) -> (SocketAddr, Received) {
    let received = Received::default();
    let requests = received.clone();
    let take = move |headers: HeaderMap, body: Bytes| async move {
        requests.lock().push((headers, body));
        status
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.expect("a free port");
    let at = listener.local_addr().expect("an address");
    let router = Router::new().route("/v1/metrics", post(take));
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                return;
            };
            let service = hyper_util::service::TowerToHyperService::new(router.clone());
            let io = hyper_util::rt::TokioIo::new(stream);
            let serving = hyper::server::conn::http1::Builder::new().serve_connection(io, service);
            tokio::spawn(serving);
        }
    });
    (at, received)
}

fn place(at: SocketAddr) -> Place {
    let config = OtlpConfig {
        endpoint: Some(format!("http://{at}")),
    };
    let headers =
        |name: &str| (name == "OTEL_EXPORTER_OTLP_HEADERS").then(|| "api-key=a%20b".to_owned());
    Place::of(&config, headers).expect("sound").expect("one")
}

fn pushing(place: Place, health: Health) -> Pushing {
    Pushing {
        client: reqwest::Client::new(),
        place,
        job: "orders".to_owned(),
        health,
        refused: Episode::new(1, WELL_AFTER),
        began: Instant::now(),
    }
}

/// A field of a message, read by the format alone: this knows nothing of how requests are written.
#[derive(Clone, Debug)]
enum Field {
    Number(u64),
    Bytes(Vec<u8>),
}

impl Field {
    fn number(&self) -> u64 {
        let Field::Number(number) = self else {
            panic!("{self:?} is no number");
        };
        *number
    }

    fn bytes(&self) -> &[u8] {
        let Field::Bytes(bytes) = self else {
            panic!("{self:?} is no text and no message");
        };
        bytes
    }

    fn text(&self) -> String {
        String::from_utf8(self.bytes().to_vec()).expect("text")
    }

    fn double(&self) -> f64 {
        f64::from_bits(self.number())
    }

    fn packed(&self) -> Vec<u64> {
        let numbers = self.bytes().chunks(8);
        let numbers = numbers.map(|eight| u64::from_le_bytes(eight.try_into().expect("eight")));
        numbers.collect()
    }

    fn message(&self) -> Decoded {
        Decoded::of(self.bytes())
    }
}

#[derive(Clone, Debug, Default)]
struct Decoded(BTreeMap<u64, Vec<Field>>);

impl Decoded {
    fn of(mut bytes: &[u8]) -> Self {
        let mut decoded = Decoded::default();
        while !bytes.is_empty() {
            let tag = variable(&mut bytes);
            let field = match tag & 7 {
                0 => Field::Number(variable(&mut bytes)),
                1 => Field::Number(u64::from_le_bytes(
                    taken(&mut bytes, 8).try_into().expect("eight"),
                )),
                2 => {
                    let length = variable(&mut bytes) as usize;
                    Field::Bytes(taken(&mut bytes, length).to_vec())
                }
                other => panic!("wire type {other}"),
            };
            decoded.0.entry(tag >> 3).or_default().push(field);
        }
        decoded
    }

    fn all(&self, field: u64) -> &[Field] {
        self.0.get(&field).map_or(&[], Vec::as_slice)
    }

    fn one(&self, field: u64) -> &Field {
        let [one] = self.all(field) else {
            panic!("field {field} of {self:?}");
        };
        one
    }
}

fn taken<'a>(bytes: &mut &'a [u8], length: usize) -> &'a [u8] {
    let (taken, rest) = bytes.split_at(length);
    *bytes = rest;
    taken
}

fn variable(bytes: &mut &[u8]) -> u64 {
    let (mut value, mut shift) = (0, 0);
    loop {
        let byte = taken(bytes, 1)[0];
        value |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte < 0x80 {
            return value;
        }
    }
}

fn attributes(message: &Decoded, field: u64) -> BTreeMap<String, String> {
    let attribute = |field: &Field| {
        let pair = field.message();
        (pair.one(1).text(), pair.one(2).message().one(1).text())
    };
    message.all(field).iter().map(attribute).collect()
}

/// Series by what a line of the text has before its value, labels in their order by name.
type Series = BTreeMap<String, f64>;

fn name(name: &str, labels: &BTreeMap<String, String>) -> String {
    format!("{name}{labels:?}")
}

/// What the request has, put as the text puts it.
fn in_request(body: &[u8]) -> (Series, BTreeMap<String, String>) {
    let of_resource = Decoded::of(body).one(1).message();
    let resource = attributes(&of_resource.one(1).message(), 1);
    let mut series = Series::new();
    for metric in of_resource.one(2).message().all(2) {
        let metric = metric.message();
        let metric_name = metric.one(1).text();
        assert!(
            !metric.one(2).text().is_empty(),
            "{metric_name} has no description"
        );
        for gauge in metric.all(5) {
            for point in gauge.message().all(1) {
                let point = point.message();
                let labels = attributes(&point, 7);
                assert!(point.one(3).number() >= point.one(2).number());
                series.insert(name(&metric_name, &labels), point.one(4).double());
            }
        }
        for sum in metric.all(7) {
            let sum = sum.message();
            assert_eq!(
                (sum.one(2).number(), sum.one(3).number()),
                (2, 1),
                "{metric_name}"
            );
            for point in sum.all(1) {
                let labels = attributes(&point.message(), 7);
                let total = format!("{metric_name}_total");
                series.insert(name(&total, &labels), point.message().one(4).double());
            }
        }
        for histogram in metric.all(9) {
            let histogram = histogram.message();
            assert_eq!(histogram.one(2).number(), 2, "{metric_name}");
            for point in histogram.all(1) {
                add_histogram(&mut series, &metric_name, &point.message());
            }
        }
    }
    (series, resource)
}

fn add_histogram(series: &mut Series, metric: &str, point: &Decoded) {
    let mut labels = attributes(point, 9);
    series.insert(
        name(&format!("{metric}_count"), &labels),
        point.one(4).number() as f64,
    );
    series.insert(
        name(&format!("{metric}_sum"), &labels),
        point.one(5).double(),
    );
    let bounds = point.one(7).packed().into_iter().map(f64::from_bits);
    let mut up_to = 0;
    for (bound, count) in bounds.chain([f64::INFINITY]).zip(point.one(6).packed()) {
        up_to += count;
        labels.insert("le".to_owned(), bound.to_string());
        series.insert(name(&format!("{metric}_bucket"), &labels), up_to as f64);
    }
}

/// What the text has; of labels that hold neither a comma nor a quote.
fn in_text(text: &str) -> Series {
    let line = |line: &str| {
        let (series, value) = line.rsplit_once(' ').expect("a value");
        let (metric, labels) = series.split_once('{').unwrap_or((series, ""));
        let labels = labels.trim_end_matches('}').split(',');
        let labels = labels.filter_map(|label| label.split_once('='));
        let labels = labels.map(|(label, value)| {
            let value = value.trim_matches('"');
            let value = match label {
                "le" => value.parse::<f64>().expect("a bound").to_string(),
                _ => value.to_owned(),
            };
            (label.to_owned(), value)
        });
        (
            name(metric, &labels.collect()),
            value.parse().expect("a number"),
        )
    };
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(line).collect()
}

/// In a histogram of a job that has not run nothing is counted.
const HISTOGRAM: &str = "# HELP t_seconds Times.\n# TYPE t_seconds histogram\nt_seconds_sum{stage=\"x\"} 90.25\n\
    t_seconds_count{stage=\"x\"} 6\nt_seconds_bucket{le=\"0.001\",stage=\"x\"} 1\nt_seconds_bucket{le=\"0.5\",stage=\"x\"} 4\n\
    t_seconds_bucket{le=\"+Inf\",stage=\"x\"} 6\n# EOF\n";

#[tokio::test]
async fn a_collector_gets_what_metrics_says() {
    let (at, received) = collector(StatusCode::OK).await;
    let health = Health::new(HttpConfig::default());
    let pushing = pushing(place(at), health.clone());
    let look = health.look();
    let text = metrics::encoded(&look).expect("text");
    let text = text.replace("# EOF\n", HISTOGRAM);
    let origin = Origin {
        job: "orders".to_owned(),
        process: 3,
        started_at: look.started_at,
        at: SystemTime::now(),
    };
    let families = text::families(&text).expect("sound");
    let sent = pushing.send(request::encoded(&families, &origin)).await;
    sent.expect("taken");
    let (headers, body) = received.lock().remove(0);
    assert_eq!(headers["content-type"], "application/x-protobuf");
    assert_eq!(headers["api-key"], "a b");
    let (series, resource) = in_request(&body);
    assert_eq!(series, in_text(&text));
    assert!(series.len() > 20, "{series:?}");
    assert_eq!(
        (
            &*resource["service.name"],
            &*resource["service.instance.id"]
        ),
        ("orders", "3")
    );
    pushing.push().await.expect("taken");
    assert_eq!(received.lock().len(), 1);
}

#[tokio::test]
async fn a_collector_that_refuses_is_an_error_and_one_episode() {
    let (at, received) = collector(StatusCode::UNAUTHORIZED).await;
    let mut pushing = pushing(place(at), Health::new(HttpConfig::default()));
    let error = pushing.push().await.expect_err("refused").report();
    assert_eq!(error, "status 401");
    for _ in 0..3 {
        pushing.push_and_tell().await;
    }
    assert_eq!(received.lock().len(), 4);
    let over = pushing.refused.end();
    assert!(
        matches!(over, Some(Change::Over { count: 3, .. })),
        "{over:?}"
    );
}

#[test]
fn one_that_never_answers_does_not_keep_the_process() {
    // Whoever connects waits in the queue of the socket.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let at = listener.local_addr().expect("an address");
    let health = Health::new(HttpConfig::default());
    let pusher = Pusher::to(place(at), "orders", health).expect("starts");
    let began = std::time::Instant::now();
    drop(pusher);
    let took = began.elapsed();
    assert!(took < LAST + Duration::from_secs(3), "{took:?}");
}
