//! Partition keys of all types must have the same place on both servers: the same hash, and the same physical partition.

use std::borrow::Cow;

use azure_data_cosmos::clients::ContainerClient;
use azure_data_cosmos::feed::{FeedRange, FeedScope};
use azure_data_cosmos::models::{ContainerProperties, PartitionKeyDefinition};
use azure_data_cosmos::options::ChangeFeedStartFrom;
use azure_data_cosmos_driver::models::EffectivePartitionKey;
use futures::StreamExt;
use serde_json::{Value, json};

use crate::Fallible;
use crate::compare::Pair;
use crate::keys::{Part, partition_key};
use crate::script::Random;
use crate::side::Server;

/// Partitions of each container: many, and not a power of two, so that a difference in the top bits shows.
pub const PARTITIONS: usize = 99;

const KEYS: usize = 200;
const DATABASE: &str = "routing";
const PATHS: [&str; 3] = ["a", "b", "c"];

/// Writes items with random keys to both servers and looks where they are.
pub async fn check(pair: &Pair, seed: u64) -> Fallible {
    let mut random = Random(fastrand::Rng::with_seed(seed));
    for side in [&pair.ours, &pair.oracle] {
        side.client.create_database(DATABASE, None).await?;
    }
    for levels in 1..=3 {
        let name = format!("levels{levels}");
        let definition = definition(levels);
        let (ours, oracle) = containers(pair, &name, &definition).await?;
        for number in 0..KEYS {
            let parts: Vec<Part> = (0..levels).map(|_| part(&mut random)).collect();
            let mut item = json!({"id": number.to_string()});
            for (path, part) in PATHS.iter().zip(&parts) {
                if let Some(value) = part.to_json() {
                    item[*path] = value;
                }
            }
            let range = owner(&ours, &parts, &item).await?;
            let expected = owner(&oracle, &parts, &item).await?;
            assert_eq!(range, expected, "owner of {parts:?}");
            let found = items_at(&ours, &definition, &parts).await?;
            assert!(
                found.contains(&item["id"]),
                "an item with the key {parts:?} is not at the key's hash"
            );
        }
    }
    Ok(())
}

fn definition(levels: usize) -> PartitionKeyDefinition {
    match levels {
        1 => "/a".into(),
        2 => ("/a", "/b").into(),
        _ => ("/a", "/b", "/c").into(),
    }
}

async fn containers(
    pair: &Pair,
    name: &str,
    definition: &PartitionKeyDefinition,
) -> Fallible<(ContainerClient, ContainerClient)> {
    let properties = ContainerProperties::new(name.to_owned(), definition.clone());
    let database = pair.ours.client.database_client(DATABASE);
    database.create_container(properties, None).await?;
    let Server::Oracle(oracle) = &pair.oracle.server else {
        return Err("the oracle is the other one".into());
    };
    oracle.create_container(DATABASE, name, definition.clone(), PARTITIONS as u32)?;
    let theirs = pair.oracle.client.database_client(DATABASE);
    let open = (
        database.container_client(name.to_owned(), None).await?,
        theirs.container_client(name.to_owned(), None).await?,
    );
    for container in [&open.0, &open.1] {
        assert_eq!(container.read_feed_ranges(None).await?.len(), PARTITIONS);
    }
    Ok(open)
}

/// The partition that says it wrote the item.
async fn owner(container: &ContainerClient, parts: &[Part], item: &Value) -> Fallible<String> {
    let id = item["id"].as_str().unwrap_or_default();
    let written = container
        .upsert_item(partition_key(parts)?, id, item, None)
        .await?;
    let range = written.headers().partition_key_range_id();
    Ok(range.ok_or("no partition key range id")?.to_owned())
}

/// Ids in the change feed of the narrowest interval that holds a key's hash, as the SDK computes it.
async fn items_at(
    container: &ContainerClient,
    definition: &PartitionKeyDefinition,
    parts: &[Part],
) -> Fallible<Vec<Value>> {
    let key = FeedRange::for_partition(partition_key(parts)?, definition);
    let min = key.min_inclusive().to_hex();
    let next = u128::from_str_radix(&min[min.len() - 16..], 16)? + 1;
    let max = format!("{}{next:016X}", &min[..min.len() - 16]);
    let range = FeedRange::new(
        EffectivePartitionKey::try_from(min)?,
        EffectivePartitionKey::try_from(max)?,
    )?;
    let start = ChangeFeedStartFrom::Beginning;
    let mut feed = container
        .query_change_feed::<Value>(FeedScope::range(range), start, None)
        .await?;
    let page = feed.next().await.ok_or("a change feed ended")??;
    let items = page.items().iter().filter_map(|item| item.current());
    Ok(items.map(|item| item["id"].clone()).collect())
}

/// A component of any type.
fn part(random: &mut Random) -> Part {
    match random.0.u32(..12) {
        0 => Part::Undefined,
        1 => Part::Null,
        2 => Part::Bool(random.0.bool()),
        3 | 4 => Part::Number(f64::from(random.0.i32(..))),
        5 => Part::Number(random.pick(&[
            0.0,
            -0.0,
            0.1,
            -1.5,
            1e300,
            -4.9e-324,
            9_007_199_254_740_993.0,
        ])),
        6 => Part::Number(random.0.f64() * 1e6),
        7 => Part::Text(Cow::Borrowed(
            random.pick(&["", "a", "\"", "\\", "/", "\u{0}", "\u{7f}", "\n\t"]),
        )),
        8 => Part::Text(Cow::Owned(
            "x".repeat(random.pick(&[15, 16, 17, 100, 101, 102, 1024, 2048])),
        )),
        9 => Part::Text(Cow::Owned("\u{e9}\u{1F30A}".repeat(random.0.usize(1..60)))),
        _ => {
            let letters = (0..random.0.usize(1..40)).map(|_| random.0.alphanumeric());
            Part::Text(Cow::Owned(letters.collect()))
        }
    }
}
