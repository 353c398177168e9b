//! The checkpoint store.

mod commit_writer;
mod frame;
mod garbage;
mod ledger;
mod lock;
mod names;
mod objects;
mod open;
mod reader;
mod records;
mod recovery;
mod resume;
mod seal_writer;
mod store;
mod tokens;

pub use commit_writer::{CommitRequest, CommitWriter, GarbageReport};
pub use frame::Checksum;
pub use names::{BUCKETS, bucket_of};
pub use objects::{
    BaseRef, BucketRef, CommitRecord, CommitRef, Fingerprint, GenerationRecord, SealRef, SealRun,
    SinkState, StartRecord, Tokens,
};
pub use open::{Joined, Opened, Options, RunIdentity, join, open};
pub use records::SealPart;
pub use resume::{Rehydrated, Resume};
pub use seal_writer::SealWriter;
pub use store::CheckpointStore;
