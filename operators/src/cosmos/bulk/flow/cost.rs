//! What operations cost, learnt from what the service charges.
//!
//! A write costs about so much for itself and so much for every KiB, so that is the unit: operations plus KiB. A mix of small
//! and large documents is then estimated from one average.

use super::Sent;

/// The share of a new observation in an average.
const NEW: f64 = 1.0 / 8.0;
/// Between these a unit costs, in request units, whatever the service says: nothing would be endless, and too much a standstill.
const PER_UNIT: (f64, f64) = (0.01, 1e6);
/// What of the peak an answer leaves.
const PEAK_LEFT: f64 = 0.995;

/// Running averages. The first are of a document of 250 bytes at 10 request units: a guess on the safe side.
#[derive(Debug)]
pub(super) struct Cost {
    /// Request units.
    per_unit: f64,
    units_per_operation: f64,
    /// The most that an operation cost lately, as far as requests of several show it.
    peak: f64,
}

impl Default for Cost {
    fn default() -> Self {
        Cost {
            per_unit: 8.0,
            units_per_operation: 1.25,
            peak: 15.0,
        }
    }
}

impl Cost {
    /// What a request will cost.
    pub(super) fn of(&self, ops: usize, bytes: usize) -> f64 {
        units(ops, bytes) * self.per_unit
    }

    /// What an average operation will cost.
    pub(super) fn of_operation(&self) -> f64 {
        self.units_per_operation * self.per_unit
    }

    /// What a dear operation will cost.
    pub(super) fn peak(&self) -> f64 {
        self.peak
    }

    /// Learns from a charge. `unpaid` operations were refused and cost nothing.
    pub(super) fn learn(&mut self, sent: &Sent, charge: f64, unpaid: usize) {
        let paid = sent.ops.saturating_sub(unpaid) as f64;
        if paid == 0.0 || charge <= 0.0 {
            return;
        }
        let units_per_operation = units(sent.ops, sent.bytes) / sent.ops as f64;
        let per_unit = charge / (units_per_operation * paid);
        self.units_per_operation += (units_per_operation - self.units_per_operation) * NEW;
        self.per_unit += (per_unit - self.per_unit) * NEW;
        self.per_unit = self.per_unit.clamp(PER_UNIT.0, PER_UNIT.1);
        self.peak = (self.peak * PEAK_LEFT).max(charge / paid);
    }
}

fn units(ops: usize, bytes: usize) -> f64 {
    ops as f64 + bytes as f64 / 1024.0
}
