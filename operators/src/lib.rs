//! Operators and connectors: change feeds in, views out.
//!
//! | verb | what it does | where |
//! |---|---|---|
//! | read | one task per feed range pulls pages | [`reader`] |
//! | source | pages become records of an epoch, held until sealed | [`mod@source`] |
//! | upsert to collection | the newest value of each document, as a differential collection | [`upsert`] |
//! | stateful | state by key that is stepped by each epoch's changes, and checkpointed | [`stateful`], [`keyed`] |
//! | sum by | sums by key, kept up to date | [`sum_by`](mod@sum_by) |
//! | top k | the first values of each key, kept up to date | [`top_k`](mod@top_k) |
//! | valid, window | rows that come and go by time, and windows over the times that rows carry | [`time`] |
//! | encode | rows become JSON documents with their keys | [`document`] |
//! | fold | epochs become one net change per document | [`mod@fold`] |
//! | one row | of several rows under one key one stays, the others are dead letters | [`one_row`] |
//! | keep letters | documents that go no further become dead letters behind the frontier | [`letters`] |
//! | move | a row's new document is there before its old one goes | [`moves`] |
//! | write | a net change becomes an upsert, create, replace, patch or delete | [`strategy`] |
//! | upsert documents | writes behind the frontier, held until acknowledged | [`sink`] |
//! | reconcile | a container that holds something else is brought in line with its view | [`mod@reconcile`] |
//!
//! The ports to the outside are [`feed`] and [`target`], [`dead_letter`] for what a target refuses for good, and [`progress`] for
//! how far the views are. `cosmos` implements them on Azure Cosmos DB and is the only place that names Azure; `memory` implements
//! the first three in memory, for tests. [`files`] and [`ingest`] bring in what is in no container: lines of files, and documents that
//! producers post.

pub mod arranged;
mod by_epoch;
pub mod cosmos;
pub mod dead_letter;
pub mod decode;
pub mod document;
pub mod enumerator;
pub mod feed;
pub mod files;
pub mod fold;
pub mod ingest;
pub mod json;
pub mod keyed;
pub mod letters;
pub mod memory;
pub mod moves;
pub mod one_row;
pub mod portable;
pub mod progress;
mod projection;
mod properties;
pub mod reader;
pub mod reconcile;
pub mod record_key;
mod scan;
pub mod sink;
pub mod source;
pub mod stateful;
pub mod strategy;
pub mod sum_by;
pub mod target;
#[cfg(test)]
mod test_support;
pub mod time;
pub mod top_k;
pub mod traffic;
pub mod unique;
pub mod upsert;
