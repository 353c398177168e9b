//! What lets a writer's bytes out.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use tidefeed_runtime::{Error, Fence};

use super::wire::Gate;

/// Open until the writer is halted or its run is fenced.
pub(super) fn gate(fence: Arc<OnceLock<Fence>>, is_halted: Arc<AtomicBool>) -> Gate {
    Gate::new(move || {
        if is_halted.load(Ordering::SeqCst) {
            return Err(Error::internal("the writer was closed"));
        }
        fence.get().map_or(Ok(()), Fence::check)
    })
}
