//! A job as a Microsoft Entra identity: its code brings the credential, and no key is in sight.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use azure_core::credentials::{AccessToken, TokenRequestOptions};
use azure_core::time::{Duration, OffsetDateTime};
use tidefeed::config::JobConfig;
use tidefeed::{CheckpointStore, Cosmos, ErrorKind, Job};
use tidefeed_emulator::{Emulator, EmulatorConfig};
use tidefeed_operators::cosmos::TokenCredential;
use tidefeed_tests::orders::Orders;
use tidefeed_tests::place::{LOCAL, Place, differences};
use tidefeed_tests::{config_text, views};

const TOKEN: &str = "the-token-of-the-test";

/// Whoever holds a token.
#[derive(Debug)]
struct Bearer {
    token: &'static str,
    asked: AtomicU64,
}

#[async_trait]
impl TokenCredential for Bearer {
    async fn get_token(
        &self,
        scopes: &[&str],
        _options: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        assert_eq!(scopes.len(), 1, "{scopes:?}");
        self.asked.fetch_add(1, Ordering::Relaxed);
        let expires = OffsetDateTime::now_utc() + Duration::hours(1);
        Ok(AccessToken::new(self.token, expires))
    }
}

fn run(place: &Place, token: &'static str) -> (Arc<Bearer>, tidefeed::Result<()>) {
    let mut config = JobConfig::parse(&config_text(place.database(), LOCAL)).expect("parses");
    config.account.endpoint = place.server().endpoint().to_owned();
    let asked = AtomicU64::new(0);
    let bearer = Arc::new(Bearer { token, asked });
    let cosmos = Cosmos::with_credential(&config.account, bearer.clone()).expect("an endpoint");
    let job = Job::new("shop", config, cosmos, views)
        .checkpoint_store(CheckpointStore::in_memory("shop"))
        .start();
    let ended = job.and_then(|job| {
        job.finish_when_caught_up();
        job.join().map(drop)
    });
    (bearer, ended)
}

#[test]
fn a_job_runs_with_a_token() {
    let server = Emulator::start(EmulatorConfig {
        entra_token: Some(TOKEN.to_owned()),
        ..EmulatorConfig::default()
    });
    let place = Place::within(&Arc::new(server.expect("a free port")), "shop", LOCAL);
    let mut orders = Orders::new(1);
    place.write(orders.change(60));
    let (bearer, refused) = run(&place, "another-token");
    let error = refused.expect_err("another token");
    assert_eq!(error.kind(), ErrorKind::Denied, "{}", error.report());
    let says = "check the identity's role assignment";
    assert!(error.report().contains(says), "{}", error.report());
    assert!(bearer.asked.load(Ordering::Relaxed) > 0);

    let (bearer, ended) = run(&place, TOKEN);
    ended.unwrap_or_else(|error| panic!("{}", error.report()));
    // The SDK and our own requests.
    assert!(bearer.asked.load(Ordering::Relaxed) >= 2);
    let differences = differences(&place.found(), &orders.expected());
    assert_eq!(differences, Vec::<String>::new());
}
