//! What an end of a connection waits for.

use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};

use super::wire::{Event, Wire};
use crate::{Ledger, Result};

/// What comes next: from the other end, from this process, or from its ledger.
pub(super) enum Next<T, C> {
    Event(Event<T>),
    /// `None` when this process has given up.
    Command(Option<C>),
    News,
}

/// Waits for what comes next. Nothing is lost when the future is dropped.
///
/// # Errors
/// As [`Wire::event`].
pub(super) async fn next<T: DeserializeOwned, C>(
    wire: &mut Wire,
    commands: &mut mpsc::UnboundedReceiver<C>,
    news: Option<&mut watch::Receiver<()>>,
) -> Result<Next<T, C>> {
    Ok(tokio::select! {
        event = wire.event() => Next::Event(event?),
        command = commands.recv() => Next::Command(command),
        () = changed(news) => Next::News,
    })
}

/// Takes no more commands. Returns the ledger that one of those that had come brings.
pub(super) fn last_ledger<C>(
    commands: &mut mpsc::UnboundedReceiver<C>,
    ledger_of: impl Fn(C) -> Option<Ledger>,
) -> Option<Ledger> {
    commands.close();
    let left = std::iter::from_fn(|| commands.try_recv().ok());
    left.filter_map(ledger_of).last()
}

/// Resolves when there is news, if any can come.
async fn changed(news: Option<&mut watch::Receiver<()>>) {
    let came = match news {
        Some(news) => news.changed().await.is_ok(),
        None => false,
    };
    if !came {
        std::future::pending().await
    }
}
