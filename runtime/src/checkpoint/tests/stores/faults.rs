//! Remote stores that refuse, are not there, or lose an answer.

use std::net::TcpListener;

use super::proxy::{Fault, Proxy};
use super::server::KEY;
use super::*;
use crate::checkpoint::frame::Framed;
use crate::checkpoint::names::ObjectName;
use crate::{Error, ErrorKind, Generation};

/// A key like that of an account of Azure, and not Azurite's.
const WRONG_KEY: &str = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA==";

fn name(number: u64) -> ObjectName {
    ObjectName::Commit {
        generation: Generation(1),
        number,
    }
}

/// What a list, a read and a create come to.
async fn asked(store: &CheckpointStore) -> Vec<Error> {
    let object = Framed::new(name(1), Bytes::from_static(b"x"));
    vec![
        store.list().await.unwrap_err(),
        store.load(name(1)).await.unwrap_err(),
        store.create(&object).await.unwrap_err(),
    ]
}

fn check(errors: &[Error], kind: ErrorKind, says: &[&str]) {
    for error in errors {
        let report = format!("{error:?}");
        assert_eq!(error.kind(), kind, "{report}");
        assert_eq!(report.lines().count(), 1, "{report}");
        for text in says {
            assert!(report.contains(text), "{text} is not in {report}");
        }
        assert!(!report.contains(WRONG_KEY), "{report}");
    }
}

/// The answers of a server that refuses keys, and of one without the bucket.
async fn refusals(closed: Kind, open: Kind, place: &str) {
    let Some(server) = Server::start(closed).await else {
        return;
    };
    let settings = server.settings_with(WRONG_KEY, &server.endpoint);
    let store = server.open("job", &settings);
    check(
        &asked(&store).await,
        ErrorKind::Denied,
        &[
            "answered 403",
            &format!("{place}://bucket/some/prefix"),
            "credentials",
        ],
    );
    assert!(!format!("{store:?} {settings:?}").contains(WRONG_KEY));

    let server = match open == closed {
        true => server,
        false => Server::start(open).await.expect("not left out above"),
    };
    let elsewhere = server.location("elsewhere");
    let store = CheckpointStore::open_with(&elsewhere, "job", &server.settings()).unwrap();
    let says = ["answered 404", "create the bucket or container"];
    check(&asked(&store).await, ErrorKind::NotFound, &says);
}

#[tokio::test]
async fn azure_refuses() {
    refusals(Kind::Azure, Kind::Azure, "az").await;
}

#[tokio::test]
async fn s3_refuses() {
    refusals(Kind::ClosedS3, Kind::S3, "s3").await;
}

fn settings(variables: &[(&str, &str)]) -> Settings {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let mut settings = Settings::new(variables.iter().map(owned));
    settings.retry_for = Duration::ZERO;
    settings
}

#[tokio::test]
async fn nobody_listens() {
    // A port that was free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let endpoint = format!("http://127.0.0.1:{port}");
    for (url, settings) in [
        (
            "s3://bucket/a",
            settings(&[
                ("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE"),
                ("AWS_SECRET_ACCESS_KEY", WRONG_KEY),
                ("AWS_ENDPOINT_URL", &endpoint),
                ("AWS_ALLOW_HTTP", "true"),
            ]),
        ),
        (
            "az://container/a",
            settings(&[
                ("AZURE_STORAGE_ACCOUNT_NAME", "account"),
                ("AZURE_STORAGE_ACCOUNT_KEY", WRONG_KEY),
                ("AZURE_STORAGE_ENDPOINT", &endpoint),
                ("AZURE_ALLOW_HTTP", "true"),
            ]),
        ),
    ] {
        let location = url.parse().unwrap();
        let store = CheckpointStore::open_with(&location, "job", &settings).unwrap();
        let says = [url, "refused", "check that the endpoint is right"];
        check(&asked(&store).await, ErrorKind::Unreachable, &says);
    }
}

#[tokio::test]
async fn no_credentials() {
    let settings = settings(&[
        ("AWS_METADATA_ENDPOINT", "http://127.0.0.1:1"),
        ("AWS_ALLOW_HTTP", "true"),
    ]);
    let location = "s3://bucket/a".parse().unwrap();
    let store = CheckpointStore::open_with(&location, "job", &settings).unwrap();
    let says = ["no credentials", "AWS_ACCESS_KEY_ID"];
    check(&asked(&store).await, ErrorKind::Denied, &says);
}

#[test]
fn settings_that_cannot_be_are_refused_without_their_values() {
    for (url, variables, says) in [
        (
            "s3://bucket/a",
            vec![("AWS_SECRET_ACCESS_KEY", WRONG_KEY)],
            "Missing AccessKeyId",
        ),
        (
            "az://container/a",
            vec![("AZURE_STORAGE_ACCOUNT_KEY", WRONG_KEY)],
            "Account must be",
        ),
        (
            "az://container/a",
            vec![
                ("AZURE_STORAGE_ACCOUNT_NAME", "account"),
                ("AZURE_STORAGE_ENDPOINT", WRONG_KEY),
            ],
            "$AZURE_STORAGE_ENDPOINT",
        ),
    ] {
        let location = url.parse().unwrap();
        let error =
            CheckpointStore::open_with(&location, "job", &settings(&variables)).unwrap_err();
        check(
            &[error],
            ErrorKind::Config,
            &[url, says, "of the environment"],
        );
    }
}

/// A create whose answer never arrives is tried again, finds its own object, and counts.
async fn an_answer_is_lost(kind: Kind) {
    let Some(server) = Server::start(kind).await else {
        return;
    };
    let proxy = Proxy::start(&server.endpoint);
    let settings = server.settings_with(KEY, &proxy.endpoint);
    for (number, fault) in [(1, Fault::Close), (2, Fault::Hang)] {
        // A new client makes a new connection.
        let store = server.open("lost", &settings);
        let object = Framed::new(name(number), Bytes::from_static(b"mine"));
        proxy.lose_next(fault);
        store.create(&object).await.unwrap();
        let lost = proxy.lost();
        assert_eq!(lost.len(), number as usize, "{fault:?}");
        assert!(
            lost.iter().all(|line| line.starts_with("HTTP/1.1 20")),
            "{lost:?}"
        );
        let (checksum, _) = store.load(object.name).await.unwrap();
        assert_eq!(checksum, object.checksum);
        let theirs = Framed::new(object.name, Bytes::from_static(b"theirs"));
        let error = store.create(&theirs).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Fenced);
    }
    a_create_meets_another(&server.open("meets", &settings), &proxy).await;
}

/// "Exists" is believed only of what can be read: it is also the answer to one of two creates that meet.
async fn a_create_meets_another(store: &CheckpointStore, proxy: &Proxy) {
    let before = proxy.lost().len();
    proxy.lose_next(Fault::Conflict);
    let object = Framed::new(name(1), Bytes::from_static(b"mine"));
    store.create(&object).await.unwrap();
    assert_eq!(proxy.lost().len(), before + 1);
    let (checksum, _) = store.load(object.name).await.unwrap();
    assert_eq!(checksum, object.checksum);
}

#[tokio::test]
async fn azure_loses_an_answer() {
    an_answer_is_lost(Kind::Azure).await;
}

#[tokio::test]
async fn s3_loses_an_answer() {
    an_answer_is_lost(Kind::S3).await;
}
