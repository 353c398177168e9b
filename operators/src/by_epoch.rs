//! What came of each epoch, until no more of it can come.

use std::collections::BTreeMap;

use timely::dataflow::operators::{Capability, InputCapability};
use timely::progress::frontier::MutableAntichain;

/// What came, by epoch, with the capability to answer in it.
pub(crate) struct ByEpoch<C>(BTreeMap<u64, (Capability<u64>, C)>);

impl<C: Default> ByEpoch<C> {
    pub(crate) fn new() -> Self {
        ByEpoch(BTreeMap::new())
    }

    /// What came of an epoch.
    pub(crate) fn at(&mut self, epoch: u64, cap: &InputCapability<u64>) -> &mut C {
        let new = || (cap.delayed(&epoch, 0), C::default());
        &mut self.0.entry(epoch).or_insert_with(new).1
    }

    /// Adds updates, each to what came of its epoch.
    pub(crate) fn add<D, R>(
        &mut self,
        cap: &InputCapability<u64>,
        updates: impl IntoIterator<Item = (D, u64, R)>,
        mut add: impl FnMut(&mut C, D, R),
    ) {
        let mut updates = updates.into_iter().peekable();
        while let Some((_, epoch, _)) = updates.peek() {
            let epoch = *epoch;
            let came = self.at(epoch, cap);
            while let Some((data, _, diff)) = updates.next_if(|(_, at, _)| *at == epoch) {
                add(came, data, diff);
            }
        }
    }

    /// The oldest epoch, if nothing more of it can come.
    pub(crate) fn next_complete(
        &mut self,
        frontier: &MutableAntichain<u64>,
    ) -> Option<(u64, Capability<u64>, C)> {
        let oldest = self.0.first_entry()?;
        if frontier.less_equal(oldest.key()) {
            return None;
        }
        let (epoch, (cap, came)) = oldest.remove_entry();
        Some((epoch, cap, came))
    }
}
