//! The operations, one noun per file. Each is a function from a call to a reply; none knows of sockets.

pub mod account;
pub mod batch;
pub mod change_feed;
pub mod containers;
pub mod databases;
mod draft;
pub mod items;
pub mod offers;
mod page_body;
mod patch;
pub mod queries;
pub mod ranges;
pub mod read_feed;
pub mod scope;
mod session;
mod write;
