//! The checkpoint store: what a job has read, how far its sinks are, and how a run takes over from the one before it.
//!
//! Every epoch's inputs are *sealed*: records and the continuation tokens that they lead to, in one object (I2). When all
//! sinks have acknowledged an epoch, it is *committed*. A run that starts takes the last commit and the seals beyond it,
//! pins both in a start record, and goes on from there.
//!
//! # Objects
//!
//! ```text
//! <job>/lock                            locked while a run lives (local store); not an object
//! <job>/lease/<n>                       who holds the checkpoint: taken, renewed, given back                JSON
//! <job>/request/<g>                     in which other shape the job is to go on after g (`request.rs`)             JSON
//! <job>/generation/<g>                  who runs: job, cluster size, fingerprint                            JSON
//! <job>/start/<g>                       what g starts from: a commit, and the exact seals beyond it         JSON
//! <job>/seal/<g>/<process>/<sequence>   inputs of one epoch of one process: a line of JSON, then packed records
//! <job>/state/<g>/<process>/<sequence>  how keyed state changed in an epoch; same form as a seal
//! <job>/base/<g>/<epoch>/<bucket>       the collection as of a commit, in 64 buckets of keys; same form as a seal
//! <job>/commit/<g>/<n>                  the chain of commits: tokens, base, runs of seals, state of the sinks  JSON
//! <job>/deadletters/<name>              what a sink could not write; no part of the protocol (`letters.rs`)
//! ```
//!
//! - Objects are created if absent and never changed. Around each is a frame (`frame.rs`): a readable line with magic, format
//!   version, name, length and checksum, so a damaged, truncated or misplaced object is an error that names it.
//! - A process numbers its seals 1, 2, 3, … and each names the checksum of the one before. Naming by sequence and not by
//!   epoch makes a lost seal visible in a listing; the epoch is inside. Because checksums chain, a commit or start
//!   record that names the last seal of a run has pinned all of it.
//! - A large seal keeps its records by bucket, each with a checksum of its own, so that a bucket is read by range (`records.rs`).
//! - Numbers in names are zero-padded, so that listings sort. [`bucket_of`] decides the bucket of a key, for ever.
//!
//! # Protocol
//!
//! 1. **Take the lease** (`lease.rs`): at once where a lock or a supervisor proves that nobody else lives or the run before has given it back,
//!    else after waiting it out. It says which generation g this is. Another run lives: [`Fenced`](crate::ErrorKind::Fenced).
//! 2. **Observe**: list the names; read the newest start record S, its generation record, and the last commit C that is
//!    not older than S.
//! 3. **Decide** (pure functions, `recovery.rs`): the seals beyond C are those that S pins and C does not contain, then
//!    those that S's own generation sealed. Read and check them all. A source is another container, an object is damaged or
//!    missing, there is a gap in the seals: [`Checkpoint`](crate::ErrorKind::Checkpoint), and the lease is given back. Whoever
//!    runs the job decides which sinks are to be rebuilt; those that S was to rebuild and did not are among them.
//! 4. **Claim** the generation: create its generation record.
//! 5. **Pin**: create start record g with C, the seals found and the sinks to rebuild. From here on S and every listing are
//!    history (I3).
//! 6. **Rehydrate** the collection as of C from base and runs; **replay** the pinned seals at their own epochs:
//!    bucket by bucket (`buckets.rs`), and no faster than the workers take it (the [`loader`](crate::loader)). No sink writes before requests of a run that did not give its lease back have settled (I7).
//! 7. **Seal** epochs above every epoch sealed before, one object after the other. Durable when the write returns; only
//!    then may a sink write the epoch (I1).
//! 8. **Commit** when every sink has acknowledged and every change of keyed state is durable (I4): create commit n+1. It takes in
//!    the pinned seals up to its epoch and the new seals of all processes, and names a new base if there is one.
//!    Now and then **compact** beside the dataflow, so that the next commit names a base.
//! 9. **Collect garbage** now and then: delete what neither the last few commits, nor start record g, nor seals to come
//!    can reach.
//! 10. **Give the lease back** when nothing that the run has begun is under way any more.
//!
//! Before each write and delete the [`Fence`](crate::Fence) of the lease is asked. What slips through all the same harms
//! nobody: every name carries the generation, and a commit of a generation that is not the newest to have started is never
//! looked at.
//!
//! A create that answers "exists" is compared with what is there: equal is a repeated try of our own, different is another
//! run. A write that failed or was abandoned ends its writer: whether the object exists is for the next generation to find.
//!
//! # Crashes
//!
//! | a crash | leaves | and the next run |
//! |---|---|---|
//! | before 4 | a lease that is not renewed | waits it out, unless a lock or a supervisor proves the death, and starts as if this one had not been |
//! | between 4 and 5 | a generation record without a start record | skips the number; the state is still described by S, also when the dead run meant to start over |
//! | after 5, before the first seal | start record g | starts from what g pins, which is what g started from |
//! | while a base is written | bucket objects that no commit names | does not see them; garbage |
//! | in 7, before the seal exists | the sources' positions as they were | reads those inputs again; they were never visible (I1) |
//! | in 7, after the seal exists | a seal beyond C, of perhaps not all processes | replays it and goes on from its tokens; the processes without one read again |
//! | in 8, before the commit exists | everything is beyond C still | replays; the sinks write the same content again |
//! | in 8, after the commit exists | commit n+1 | starts from it, whether or not the writer had its answer |
//! | in 9 | fewer objects that nobody reaches; commits go before what they name, oldest first | collects the rest |
//! | in 10 | a lease that looks held | waits, for nothing |
//!
//! The test module `tests/crash.rs` walks this table at every write and delete, before and after its effect.
//!
//! # Where it is
//!
//! In a directory, on S3, on Azure Blob Storage, or in memory; see [`Location`]. Of a store the protocol needs no more than
//! create if absent, read, delete, and a listing that shows what was created before it began. Nothing is ever overwritten or
//! renamed. `tests/stores` runs one contract on all of them.
//!
//! # Example
//!
//! ```
//! use tidefeed_runtime::checkpoint::{self, CheckpointStore, CommitRequest, Options, RunIdentity, SealPart, Share};
//! use tidefeed_runtime::{ContinuationToken, Epoch, FeedRangeId, Record};
//!
//! # fn main() -> tidefeed_runtime::Result<()> {
//! # let tokio = tokio::runtime::Runtime::new().expect("a runtime");
//! # tokio.block_on(async {
//! let store = CheckpointStore::in_memory("flights");
//! let identity = RunIdentity {
//!     job: "flights".into(),
//!     fingerprint: Default::default(),
//!     processes: 1,
//!     workers_per_process: 1,
//! };
//! let mut run = checkpoint::open(&store, &identity, Options::default()).await?;
//! let part = |token: &str| SealPart {
//!     source: "departures".into(),
//!     ranges: vec![(FeedRangeId("-FF".into()), ContinuationToken(token.into()))],
//!     records: vec![Record { key: "AA1".into(), body: Some("{}".into()) }].into(),
//!     marks: Default::default(),
//! };
//! let seal = run.seals.write(Epoch(1), vec![part("t1")]).await?;
//! let tokens = [("departures".into(), part("t1").ranges.into_iter().collect())].into();
//! let request = CommitRequest {
//!     epoch: Epoch(1),
//!     loading: false,
//!     tokens,
//!     seals: vec![seal],
//!     sinks: Default::default(),
//!     marks: Default::default(),
//! };
//! run.commits.commit(request).await?;
//! run.seals.write(Epoch(2), vec![part("t2")]).await?;
//! drop(run); // or the machine fails
//!
//! let run = checkpoint::open(&store, &identity, Options::default()).await?;
//! let mut buckets = run.resume.buckets(&store, Share::WHOLE).await?;
//! assert_eq!(buckets.next().await?.expect("the one document's").sources["departures"].len(), 1);
//! assert_eq!(run.resume.replay(&store, Share::WHOLE).next().await?, Some((Epoch(2), vec![part("t2")])));
//! assert_eq!(run.resume.tokens["departures"][&FeedRangeId("-FF".into())].0, "t2");
//! # Ok(())
//! # })
//! # }
//! ```
//!
//! # What is an error, and what cannot be noticed
//!
//! A gap in the seals of a process refuses to start. Seals are written one after the other, so a hole means that a seal was
//! lost after it may have been visible; reading its inputs again would not undo what the sinks wrote from it.
//! The newest seal of a process, and the newest commit, can be lost without a trace: a run that died just before them
//! leaves the same. A lost commit only means more to replay, as long as `retain_commits` is at least 2.
//! The checksums find damage, not malice.
//!
//! # Limits
//!
//! - The store neither compacts nor collects garbage by itself: [`CommitWriter::compaction`] and
//!   [`CommitWriter::collection`] are called by its [`committer`](crate::committer).
//! - Reading the state holds in memory the newest record of each key in the small seals since the base, and about three
//!   buckets. Between two compactions that can be as much as the collection, if all of it changes in small epochs.
//! - A base is written by one process.
//! - Collecting garbage lists the whole store each time.
//! - Deleting leaves empty folders behind on a local disk.

mod buckets;
mod chain;
mod commit_writer;
mod compaction;
mod connect;
mod failure;
mod figures;
mod frame;
mod garbage;
pub mod inspect;
mod lease;
mod ledger;
mod letters;
mod location;
mod lock;
mod names;
mod objects;
mod open;
mod reader;
mod records;
mod recovery;
pub mod request;
mod resume;
mod seal_writer;
mod settings;
mod shapes;
mod store;
mod supervised;
#[cfg(test)]
mod tests;

pub use buckets::{Buckets, LiveBucket, Share};
pub use commit_writer::{Collection, CommitRequest, CommitWriter, GarbageReport};
pub use compaction::Compaction;
pub use figures::StoreFigures;
pub use frame::Checksum;
pub use lease::{Lease, LeaseConfig, LeaseRecord};
pub use letters::{LetterName, Letters};
pub use location::{Location, RemoteLocation};
pub use names::{BUCKETS, bucket_of};
pub use objects::{
    BaseRef, BucketRef, CommitRecord, CommitRef, Fingerprint, GenerationRecord, SealKind, SealRef,
    SealRun, SinkState, StartRecord, Tokens,
};
pub use open::{Joined, Opened, Options, RunIdentity, TakenOver, join, look, open, take_over};
pub use records::SealPart;
pub use resume::{Replay, Resume};
pub use seal_writer::{PackedSeal, SealPacker, SealPutter, SealWriter};
pub use settings::Settings;
pub use store::CheckpointStore;
pub use supervised::{SUPERVISED_VARIABLE, Supervised};
