//! The change feed under any interleaving of writes, deletes, expiries, splits, merges and page reads.
//!
//! The test keeps the true list of changes of each logical partition. Readers walk the feed as the official clients do:
//! key ranges with a continuation each, cut when a range is gone. Two rules are checked for each logical partition:
//! AllVersionsAndDeletes delivers every change since its start exactly once and in order; LatestVersion delivers a
//! subsequence of the writes, none twice, that ends in the newest version of every document that is left.
//!
//! `TIDEFEED_FEED_SEEDS=n` runs n seeds instead of a few, `TIDEFEED_SEED=s` begins at another one.

pub mod reader;
mod world;

use self::world::World;
use crate::common::{from_environment, server};

#[test]
fn readers_see_what_happened_whatever_moves_in_between() {
    let first = from_environment("TIDEFEED_SEED", 1);
    let seeds = from_environment("TIDEFEED_FEED_SEEDS", 12);
    for seed in first..first + seeds {
        eprintln!("seed {seed}");
        let emulator = server(1 + (seed % 3) as usize);
        let mut world = World::new(&emulator, seed).unwrap();
        for _ in 0..300 {
            world.step().unwrap();
        }
        world.finish().unwrap();
    }
}
