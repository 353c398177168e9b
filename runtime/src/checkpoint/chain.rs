//! Reading the chain of commits, each checked against what names it.

use super::frame::Damage;
use super::names::{CommitName, ObjectName};
use super::objects::{CommitRecord, CommitRef};
use super::store::CheckpointStore;
use crate::Result;

/// Reads the commit called `name`. If `named`, by a start record or by the commit after it, is of this name, it must be that
/// very one.
pub(super) async fn load_commit(
    store: &CheckpointStore,
    name: CommitName,
    named: Option<CommitRef>,
) -> Result<(CommitRef, CommitRecord)> {
    let (generation, number) = name;
    let object = ObjectName::Commit { generation, number };
    let (checksum, record): (_, CommitRecord) = store.load_json(object).await?;
    let reference = CommitRef {
        generation,
        number,
        checksum,
    };
    let another = named.is_some_and(|named| named.name() == name && named != reference);
    if another || (record.generation, record.number) != name {
        let damage = Damage::Content("it is not the one that was meant".to_owned());
        return Err(store.damaged(object, &damage));
    }
    Ok((reference, record))
}

/// Reads back along the chain from `from`, at most `most` commits, as far as `there` says that they are kept. The newest
/// comes first.
pub(super) async fn read_back(
    store: &CheckpointStore,
    from: Option<CommitRef>,
    there: impl Fn(CommitName) -> bool,
    most: usize,
) -> Result<Vec<(CommitRef, CommitRecord)>> {
    let mut commits = Vec::new();
    let mut next = from;
    while commits.len() < most
        && let Some(named) = next.filter(|named| there(named.name()))
    {
        let commit = load_commit(store, named.name(), Some(named)).await?;
        next = commit.1.previous;
        commits.push(commit);
    }
    Ok(commits)
}
