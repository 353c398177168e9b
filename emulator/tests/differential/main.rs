//! The server against the Azure SDK's own in-memory emulator: one script of random operations for both, through the
//! SDK, and the same answers from both.
//!
//! Compared are status and sub-status, items without system properties, when entity tags change, results of batches,
//! rows of queries, and the change feed of every partition key as a sequence. Differences that are known are listed in
//! [`known`], with reasons.
//!
//! - `TIDEFEED_DIFFERENTIAL_SEED`: first seed; printed.
//! - `TIDEFEED_DIFFERENTIAL_SCRIPTS`: how many seeds, counting up from it.
//! - `TIDEFEED_DIFFERENTIAL_OPERATIONS`: operations in a script.

mod actions;
mod batches;
mod compare;
mod container;
mod feeds;
mod keys;
mod known;
mod odd;
mod oracle;
mod outcome;
mod points;
mod query;
mod routing;
mod script;
mod side;

use azure_data_cosmos::{AccountEndpoint, AccountReference, CosmosClient, RoutingStrategy};
use compare::{Pair, report};
use keys::Shape;
use oracle::Oracle;
use script::{Action, Operation};
use side::{Server, Side};
use tidefeed_emulator::{Emulator, EmulatorConfig};

/// What can go wrong besides a difference.
pub type Fallible<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// Partitions of a container that is created over the wire in the oracle.
const PARTITIONS: usize = 4;

/// Classes of outcomes of which there must be some, lest the scripts test little.
const EXPECTED: [&str; 17] = [
    "batch 0",
    "batch 200",
    "batch 207",
    "drained later",
    "drained none",
    "drained some",
    "failed 400",
    "failed 404",
    "failed 409",
    "failed 412",
    "moved",
    "point 200 some",
    "point 201 none",
    "point 204 none",
    "point 304 none",
    "rows none",
    "rows some",
];

/// Classes of outcomes of which there may be some.
const RARE: [&str; 6] = [
    "failed 400/1001",
    "point 200 none",
    "point 201 some",
    "ranges",
    "reshaped",
    "batch 400",
];

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

async fn pair(partitions: usize) -> Fallible<Pair> {
    let emulator = Emulator::start(EmulatorConfig {
        partitions,
        ..EmulatorConfig::default()
    })?;
    let endpoint: AccountEndpoint = emulator.endpoint().parse()?;
    let account = AccountReference::with_authentication_key(endpoint, emulator.key().to_owned());
    let region = RoutingStrategy::ProximityTo("South Central US".into());
    let ours = Side {
        client: CosmosClient::builder().build(account, region).await?,
        server: Server::Ours(emulator),
    };
    let oracle = Oracle::start()?;
    let oracle = Side {
        client: oracle.client().await?,
        server: Server::Oracle(oracle),
    };
    Ok(Pair::new(ours, oracle))
}

#[tokio::test]
async fn random_scripts_have_the_same_outcomes() -> Fallible {
    let first = setting("TIDEFEED_DIFFERENTIAL_SEED", 1);
    let scripts = setting("TIDEFEED_DIFFERENTIAL_SCRIPTS", 8);
    let operations = setting("TIDEFEED_DIFFERENTIAL_OPERATIONS", 300) as usize;
    let pair = pair(PARTITIONS).await?;
    for seed in first..first + scripts {
        println!("seed {seed}, {operations} operations");
        let script = script::generate(seed, operations);
        if let Some(difference) = pair.run(&script).await? {
            let (script, shrunk) = pair.shrink(script, difference.clone()).await?;
            panic!("{}", report(seed, &difference, &script, &shrunk));
        }
    }
    let classes = pair.classes();
    println!("{classes:?}");
    if scripts * operations as u64 >= 2_000 {
        for class in EXPECTED {
            assert!(
                classes.contains_key(class),
                "no operation had the outcome {class}"
            );
        }
    }
    for class in classes.keys() {
        assert!(
            EXPECTED.contains(&class.as_str()) || RARE.contains(&class.as_str()),
            "an outcome of class {class}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn every_known_difference_still_shows() -> Fallible {
    let pair = pair(PARTITIONS).await?;
    for known in known::KNOWN {
        let script = known.script();
        let found = pair.first_difference(&script, |_, _| {}).await?;
        let found = found.unwrap_or_else(|| panic!("{}: the servers agree now", known.name));
        assert_eq!(found.step, script.len() - 1, "{}: {found:?}", known.name);
        assert!(
            known.explains(&script[found.step].action, &found.ours, &found.oracle),
            "{}: {found:?}",
            known.name
        );
        println!("{}: {}", known.name, known.reason);
    }
    Ok(())
}

#[tokio::test]
async fn keys_hash_and_route_alike() -> Fallible {
    let seed = setting("TIDEFEED_DIFFERENTIAL_SEED", 1);
    println!("seed {seed}");
    let pair = pair(routing::PARTITIONS).await?;
    routing::check(&pair, seed).await
}

#[tokio::test]
async fn odd_requests_are_answered_alike() -> Fallible {
    let pair = pair(PARTITIONS).await?;
    let mut failures = Vec::new();
    for (odd, known) in odd::ALL {
        let operation = Operation {
            shape: Shape::Single,
            action: Action::Odd(*odd),
        };
        let found = pair.run(&[operation]).await?;
        let codes = found
            .as_ref()
            .map(|found| (found.ours.code(), found.oracle.code()));
        let expected = known.map(|(ours, oracle, _)| (ours.to_owned(), oracle.to_owned()));
        if codes != expected {
            failures.push(format!("{odd:?}: expected {expected:?}, found {found:?}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(())
}
