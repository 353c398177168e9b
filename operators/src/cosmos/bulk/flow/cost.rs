//! What operations cost, learnt from what the service charged.

use super::Sent;

/// A running average of the charge of an operation.
#[derive(Debug)]
pub(super) struct Cost {
    per_unit: f64,
    units_per_op: f64,
}

impl Default for Cost {
    fn default() -> Self {
        Cost {
            per_unit: 8.0,
            units_per_op: 1.25,
        }
    }
}

fn units(ops: usize, bytes: usize) -> f64 {
    ops as f64 + bytes as f64 / 1024.0
}

impl Cost {
    pub(super) fn of(&self, ops: usize, bytes: usize) -> f64 {
        units(ops, bytes) * self.per_unit
    }

    pub(super) fn of_operation(&self) -> f64 {
        self.units_per_op * self.per_unit
    }

    pub(super) fn learn(&mut self, sent: &Sent, charge: f64, unpaid_ops: usize) {
        let paid = sent.ops.saturating_sub(unpaid_ops);
        if paid == 0 || charge <= 0.0 {
            return;
        }
        let all = units(sent.ops, sent.bytes);
        let per_op = all / sent.ops as f64;
        let per_unit = charge / (per_op * paid as f64);
        self.units_per_op += (per_op - self.units_per_op) / 8.0;
        self.per_unit = (self.per_unit + (per_unit - self.per_unit) / 8.0).clamp(0.01, 1e6);
    }
}
