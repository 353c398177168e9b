//! The server over its socket: one program, because each that links the SDK takes long to build.

mod admin;
mod binary_json;
mod changes;
mod common;
mod durability;
mod faults;
mod feed_property;
mod hostile;
mod http;
mod port_in_use;
mod program;
mod queries;
mod sdk_change_feed;
mod sdk_faults;
mod sdk_items;
mod sdk_partition_keys;
mod sdk_queries;
mod seed_file;
mod size_splits;
mod stress;
mod throughput;
