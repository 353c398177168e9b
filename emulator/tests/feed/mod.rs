//! Parts of the feed's property test: readers, and the world that they read.

pub mod reader;
pub mod world;
