//! The operations, one noun per file. Each is a function from a call to a reply; none knows of sockets.

pub mod account;
pub mod batch;
pub mod change_feed;
pub mod containers;
pub mod databases;
pub mod items;
pub mod offers;
pub mod queries;
pub mod ranges;
pub mod read_feed;
pub mod scope;
