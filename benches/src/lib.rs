//! Parts of the benchmarks.
//!
//! | bench | measures |
//! |---|---|
//! | `main_job` | the `flight-delays` job on a month and on a year of flights; the embedded server's feed pages and memory |
//! | `emulator` | the embedded server: upserts beside a server that does nothing, bulk, feed pages, memory |
//! | `sink` | bulk writes: speed beside point upserts, use of a limited container, fairness, a hot partition, memory |
//! | `cosmos_rates` | the Cosmos DB adapter's writes and reads beside bare loops over the SDK |
//! | `checkpoint_store` | seals, commits, rehydration and compaction in a local directory |
//! | `exchange` | what a record costs that travels between processes |
//! | `recovery` | loading a checkpoint, restarting, and what sealing, committing and compacting cost |
//! | `cluster` | how soon a cluster commits again after a kill, what several processes achieve, and what crosses between them costs |
//!
//! Each prints what it finds in lines for people, and one line of JSON at the end. They need Linux: memory is read from
//! `/proc`. Nothing else should run on the machine meanwhile; what is compared with each other is measured in turns, so
//! that noise hits both alike.

pub mod bulk_load;
pub mod cluster;
pub mod control;
pub mod cpu;
pub mod documents;
pub mod feed_pages;
pub mod figures;
pub mod flight_delays;
pub mod flights;
pub mod full_year;
pub mod memory;
pub mod noop_server;
pub mod pipeline;
pub mod process;
pub mod raw_batches;
pub mod raw_feed;
pub mod raw_http;
pub mod server;
pub mod stats;
pub mod throughput_log;
pub mod totals;
pub mod upserts;

/// What a step of a benchmark returns; an error ends the benchmark with its text.
pub type Outcome<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;
