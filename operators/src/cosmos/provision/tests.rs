//! The specification by itself, and what comes of it on the embedded server.

use std::sync::Arc;

use azure_data_cosmos::models::{PartitionKeyKind, PartitionKeyVersion};
use azure_data_cosmos::options::{CreateDatabaseOptions, OperationOptionsBuilder};
use futures::future::join_all;
use parking_lot::Mutex;
use serde_json::json;
use tidefeed_emulator::{Emulator, EmulatorConfig};

use super::*;
use crate::cosmos::account_config::AccountConfig;
use crate::cosmos::bulk::config::BulkConfig;
use crate::cosmos::bulk::writer::BulkWriter;
use crate::cosmos::container::Container;

fn server() -> Emulator {
    Emulator::start(EmulatorConfig::default()).unwrap()
}

async fn connect(server: &Emulator) -> Account {
    let config = AccountConfig::with_key(server.endpoint(), server.key());
    Account::connect(&config).await.unwrap()
}

fn spec() -> ContainerSpec {
    ContainerSpec::new("shop", "orders", "/region")
}

fn keyed(paths: &[&str]) -> ContainerSpec {
    ContainerSpec {
        partition_key: paths.iter().map(|path| (*path).to_owned()).collect(),
        ..spec()
    }
}

fn paths(included: &[&str], excluded: &[&str]) -> Option<Indexing> {
    let owned = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect();
    Some(Indexing::Paths {
        included: owned(included),
        excluded: owned(excluded),
    })
}

async fn provisioned(account: &Account, container: &Container) -> Provisioned {
    throughput_of(account, container.client(), "reading")
        .await
        .unwrap()
}

#[test]
fn what_cannot_be_is_refused_by_field() {
    let throughput = |throughput| ContainerSpec {
        throughput_ru: Some(throughput),
        ..spec()
    };
    let ttl = |seconds| ContainerSpec {
        default_ttl: Some(DefaultTtl::Seconds(seconds)),
        ..spec()
    };
    for (spec, says) in [
        (ContainerSpec::new("", "orders", "/region"), "database \"\""),
        (
            ContainerSpec::new("shop", "a/b", "/region"),
            "container \"a/b\"",
        ),
        (keyed(&["region"]), "partition key path \"region\""),
        (keyed(&[]), "one to three paths, not 0"),
        (
            keyed(&["/a", "/b", "/c", "/d"]),
            "one to three paths, not 4",
        ),
        (keyed(&["/a", "/b", "/a"]), "partition_key names /a twice"),
        (
            throughput(Throughput::Manual(300)),
            "throughput_ru.manual is 300: it must be 400",
        ),
        (throughput(Throughput::Manual(450)), "in steps of 100"),
        (throughput(Throughput::Manual(1_000_100)), "to 1000000 RU/s"),
        (
            throughput(Throughput::Autoscale(400)),
            "throughput_ru.autoscale is 400",
        ),
        (throughput(Throughput::Autoscale(1500)), "in steps of 1000"),
        (
            ttl(0),
            "default_ttl.seconds is 0: it must be 1 to 2147483647",
        ),
        (ttl(1 << 31), "default_ttl.seconds is 2147483648"),
        (
            ContainerSpec {
                indexing: paths(&["/a/?"], &[]),
                ..spec()
            },
            "indexing has \"/*\" in neither list",
        ),
        (
            ContainerSpec {
                indexing: Some(Indexing::None),
                ..ttl(60)
            },
            "default_ttl needs an index",
        ),
    ] {
        let error = spec.validate().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{says}");
        assert!(error.report().contains(says), "{} / {says}", error.report());
    }
    for sound in [
        keyed(&["/a", "/b/c", "/id"]),
        throughput(Throughput::Manual(400)),
        throughput(Throughput::Autoscale(1000)),
        ttl(1),
    ] {
        sound.validate().unwrap();
    }
}

#[test]
fn a_specification_is_read_from_its_configuration() {
    let read: ContainerSpec = serde_json::from_value(json!({
        "database": "shop", "container": "orders", "partition_key": ["/region"],
        "throughput_ru": {"autoscale": 4000}, "default_ttl": {"seconds": 60},
        "indexing": {"paths": {"included": ["/a/?"], "excluded": ["/*"]}},
    }))
    .unwrap();
    let expected = ContainerSpec {
        throughput_ru: Some(Throughput::Autoscale(4000)),
        default_ttl: Some(DefaultTtl::Seconds(60)),
        indexing: paths(&["/a/?"], &["/*"]),
        ..spec()
    };
    assert_eq!(read, expected);
    let short: ContainerSpec = serde_json::from_value(json!({
        "database": "shop", "container": "orders", "partition_key": ["/region"],
        "default_ttl": "per_document", "indexing": "none",
    }))
    .unwrap();
    assert_eq!(short.default_ttl, Some(DefaultTtl::PerDocument));
    assert_eq!(short.indexing, Some(Indexing::None));
    for wrong in [
        json!({"indexing": {"paths": {"include": []}}}),
        json!({"throughput_ru": 400}),
        json!({"throughput_ru": {"manual": 400, "autoscale": 1000}}),
    ] {
        let mut value = json!({"database": "a", "container": "b", "partition_key": ["/c"]});
        let members = value.as_object_mut().unwrap();
        members.extend(wrong.as_object().unwrap().clone());
        assert!(
            serde_json::from_value::<ContainerSpec>(value).is_err(),
            "{wrong}"
        );
    }
}

#[test]
fn differences_name_what_is_and_what_was_asked_for() {
    let asked = ContainerSpec {
        throughput_ru: Some(Throughput::Autoscale(4000)),
        default_ttl: Some(DefaultTtl::Seconds(60)),
        indexing: Some(Indexing::None),
        ..spec()
    };
    let found = ContainerSpec {
        indexing: paths(&["/*"], &[]),
        ..spec()
    }
    .properties();
    let manual = Provisioned::Own(Throughput::Manual(400));
    assert_eq!(
        differences(&asked, &found, manual).unwrap(),
        "throughput_ru is 400 RU/s and not autoscale up to 4000 RU/s; default_ttl is off and not 60 s; \
         indexing is [/*] without [] and not none"
    );
    let shared = differences(&asked, &asked.properties(), Provisioned::NoneOfItsOwn).unwrap();
    assert_eq!(
        shared,
        "throughput_ru is none of its own and not autoscale up to 4000 RU/s"
    );
    let as_asked = Provisioned::Own(Throughput::Autoscale(4000));
    for provisioned in [as_asked, Provisioned::Unknown] {
        assert_eq!(differences(&asked, &asked.properties(), provisioned), None);
    }
    // What was not asked for may be anything.
    assert_eq!(differences(&spec(), &asked.properties(), manual), None);
}

#[tokio::test]
async fn a_container_is_created_as_specified() {
    let server = server();
    let account = connect(&server).await;
    let cases = [
        (
            keyed(&["/a"]),
            PartitionKeyKind::Hash,
            Throughput::Manual(800),
        ),
        (
            keyed(&["/a", "/b/c"]),
            PartitionKeyKind::MultiHash,
            Throughput::Autoscale(4000),
        ),
        (
            keyed(&["/a", "/b", "/id"]),
            PartitionKeyKind::MultiHash,
            Throughput::Manual(400),
        ),
    ];
    for (case, kind, throughput) in cases {
        let asked = ContainerSpec {
            container: format!("orders{}", case.partition_key.len()),
            throughput_ru: Some(throughput),
            default_ttl: Some(DefaultTtl::Seconds(3600)),
            indexing: paths(&["/a/?"], &["/*"]),
            ..case
        };
        let created = Container::create_if_absent(&account, &asked).await.unwrap();
        // As another process finds it.
        let found = Container::open(&account, "shop", &asked.container)
            .await
            .unwrap();
        let key = &found.properties().partition_key;
        assert_eq!((key.kind(), key.version()), (kind, PartitionKeyVersion::V2));
        assert_eq!(found.partition_key_paths(), asked.partition_key);
        let own = provisioned(&account, &created).await;
        assert_eq!(own, Provisioned::Own(throughput));
        assert_eq!(differences(&asked, found.properties(), own), None);
        assert!(differences(&spec(), found.properties(), own).is_none());
    }
    let asked = ContainerSpec {
        container: "bare".to_owned(),
        default_ttl: Some(DefaultTtl::PerDocument),
        ..spec()
    };
    let bare = Container::create_if_absent(&account, &asked).await.unwrap();
    assert_eq!(bare.properties().default_ttl, TimeToLive::NoDefault);
    let asked = ContainerSpec {
        container: "unindexed".to_owned(),
        indexing: Some(Indexing::None),
        ..spec()
    };
    let unindexed = Container::create_if_absent(&account, &asked).await.unwrap();
    let policy = unindexed.properties().indexing_policy.as_ref().unwrap();
    assert!(Indexing::None.is_in(policy));
}

#[tokio::test]
async fn an_existing_container_keeps_what_it_has() {
    let server = server();
    let account = connect(&server).await;
    let first = ContainerSpec {
        throughput_ru: Some(Throughput::Manual(400)),
        default_ttl: Some(DefaultTtl::Seconds(60)),
        ..spec()
    };
    let before = Container::create_if_absent(&account, &first).await.unwrap();
    let other = ContainerSpec {
        throughput_ru: Some(Throughput::Autoscale(1000)),
        default_ttl: Some(DefaultTtl::PerDocument),
        indexing: Some(Indexing::Paths {
            included: Vec::new(),
            excluded: vec!["/*".to_owned()],
        }),
        ..spec()
    };
    let after = Container::create_if_absent(&account, &other).await.unwrap();
    assert_eq!(after.properties(), before.properties());
    let own = provisioned(&account, &after).await;
    assert_eq!(
        differences(&other, after.properties(), own).unwrap(),
        "throughput_ru is 400 RU/s and not autoscale up to 1000 RU/s; default_ttl is 60 s and not per document; \
         indexing is [/*] without [] and not [] without [/*]"
    );
    for spec in [keyed(&["/region", "/id"]), keyed(&["/customer"])] {
        for opened in [
            Container::create_if_absent(&account, &spec).await,
            Container::open_as(&account, &spec).await,
        ] {
            let error = opened.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            let key = spec.partition_key.join(", ");
            let says = format!("is partitioned by /region, not by {key}:");
            assert!(error.report().contains(&says), "{}", error.report());
        }
    }
}

/// What is logged on this thread while the guard lives.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn capture(&self) -> tracing::subscriber::DefaultGuard {
        let log = self.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || log.clone())
            .finish();
        tracing::subscriber::set_default(subscriber)
    }

    fn lines_with(&self, part: &str) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().clone()).unwrap();
        let lines = text.lines().filter(|line| line.contains(part));
        lines.map(str::to_owned).collect()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_difference_is_one_warning_and_advice_is_given_once() {
    let server = server();
    let account = connect(&server).await;
    let log = Log::default();
    let _guard = log.capture();
    let asked = |seconds| ContainerSpec {
        default_ttl: Some(DefaultTtl::Seconds(seconds)),
        throughput_ru: Some(Throughput::Manual(seconds * 100)),
        ..spec()
    };
    for _ in 0..2 {
        Container::create_if_absent(&account, &asked(60))
            .await
            .unwrap();
    }
    assert_eq!(log.lines_with(" WARN "), Vec::<String>::new());
    let container = Container::create_if_absent(&account, &asked(70))
        .await
        .unwrap();
    let warnings = log.lines_with(" WARN ");
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(
        warnings[0].contains(
            "container shop/orders is left as it is: throughput_ru is 6000 RU/s and not 7000 RU/s; \
             default_ttl is 60 s and not 70 s"
        ),
        "{warnings:?}"
    );
    let members = (0..40).map(|n| (format!("field{n}"), json!(n)));
    let wide: serde_json::Map<_, _> = members.collect();
    let wide = serde_json::to_vec(&wide).unwrap();
    for _ in 0..2 {
        container.clone().advise(&wide);
    }
    let hints = log.lines_with("every write pays for 40 indexed paths");
    assert!(hints.len() == 1 && hints[0].contains(" INFO "), "{hints:?}");
}

/// A container that was empty at the start has no document to go by until something is written.
#[tokio::test]
async fn a_new_container_gets_advice_with_its_first_acknowledged_write() {
    let server = server();
    let account = connect(&server).await;
    let log = Log::default();
    let _guard = log.capture();
    let spec = keyed(&["/id"]);
    let container = Container::create_if_absent(&account, &spec).await.unwrap();
    let writer = BulkWriter::open(&container, BulkConfig::default());
    let writer = writer.await.unwrap();
    let hints = || log.lines_with("every write pays for 40 indexed paths");
    writer.delete("[\"a\"]", "a").await.unwrap().await.unwrap();
    assert_eq!(hints(), Vec::<String>::new());
    for id in ["a", "b", "c"] {
        let members = (0..40).map(|n| (format!("field{n}"), json!(n)));
        let mut document: serde_json::Map<_, _> = members.collect();
        document.insert("id".to_owned(), json!(id));
        writer.upsert(&document).await.unwrap().await.unwrap();
        assert_eq!(hints().len(), 1, "{:?}", hints());
    }
    writer.close().await.unwrap();
}

#[tokio::test]
async fn a_container_without_throughput_of_its_own_is_told_apart() {
    let server = server();
    let account = connect(&server).await;
    // The SDK has no option for it.
    let header = [("x-ms-offer-throughput".into(), "1000".into())];
    let operation = OperationOptionsBuilder::new().with_custom_headers(header.into());
    let options = CreateDatabaseOptions::default().with_operation_options(operation.build());
    let created = account.client().create_database("shop", Some(options));
    created.await.unwrap();
    let container = Container::create_if_absent(&account, &spec())
        .await
        .unwrap();
    let own = provisioned(&account, &container).await;
    assert_eq!(own, Provisioned::NoneOfItsOwn);
}

/// Every creator has a client of its own, as every process has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn creators_at_the_same_time_agree() {
    let server = server();
    let accounts = join_all((0..8).map(|_| connect(&server))).await;
    for round in 0..5 {
        let wanted = |at: usize| ContainerSpec {
            database: format!("shop{round}"),
            ..keyed(if at % 4 == 3 { &["/a", "/b"] } else { &["/a"] })
        };
        let specs: Vec<ContainerSpec> = (0..accounts.len()).map(wanted).collect();
        let creations = accounts.iter().zip(&specs);
        let opened =
            join_all(creations.map(|(account, spec)| Container::create_if_absent(account, spec)))
                .await;
        let real = Container::open(&accounts[0], &specs[0].database, "orders")
            .await
            .unwrap();
        for (opened, spec) in opened.into_iter().zip(&specs) {
            match opened {
                Ok(container) => assert_eq!(container.properties(), real.properties()),
                Err(error) => {
                    assert_ne!(spec.partition_key, real.partition_key_paths(), "{error:?}");
                    assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
                }
            }
        }
    }
}
