//! What a query may spend on one document.
//!
//! Joins multiply and functions build new values, so a short query over a small document can ask for more rows or bytes
//! than there is time or memory. Who exhausts the budget gets no further rows, and the request is refused.

use std::cell::Cell;

use serde_json::Value;

/// Combinations of sources that are looked at.
const MAX_STEPS: u64 = 2_000_000;

/// Bytes of new values, about.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// What is left for one document.
#[derive(Debug)]
pub struct Budget {
    steps: Cell<u64>,
    bytes: Cell<u64>,
    exhausted: Cell<bool>,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            steps: Cell::new(MAX_STEPS),
            bytes: Cell::new(MAX_BYTES),
            exhausted: Cell::new(false),
        }
    }
}

impl Budget {
    /// Whether more was asked for than there was.
    pub fn is_exhausted(&self) -> bool {
        self.exhausted.get()
    }

    /// Pays for one combination of sources.
    pub fn step(&self) -> Option<()> {
        self.pay(&self.steps, 1)
    }

    /// Pays for a new text.
    pub fn text(&self, length: usize) -> Option<()> {
        self.pay(&self.bytes, length as u64)
    }

    /// Pays for a copy of a value.
    pub fn copy(&self, value: &Value) -> Option<()> {
        self.pay(&self.bytes, weight(value))
    }

    fn pay(&self, purse: &Cell<u64>, price: u64) -> Option<()> {
        match purse.get().checked_sub(price) {
            Some(left) => {
                purse.set(left);
                Some(())
            }
            None => {
                self.exhausted.set(true);
                None
            }
        }
    }
}

fn weight(value: &Value) -> u64 {
    const NODE_BYTES: u64 = 32;
    NODE_BYTES
        + match value {
            Value::String(text) => text.len() as u64,
            Value::Array(items) => items.iter().map(weight).sum(),
            Value::Object(members) => members
                .iter()
                .map(|(name, member)| name.len() as u64 + weight(member))
                .sum(),
            _ => 0,
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn it_ends() {
        let budget = Budget::default();
        assert_eq!(budget.copy(&json!({"a": ["b", 1]})), Some(()));
        assert_eq!(budget.text(MAX_BYTES as usize), None);
        assert!(budget.is_exhausted());
        let budget = Budget::default();
        assert!((0..MAX_STEPS).all(|_| budget.step().is_some()));
        assert!(!budget.is_exhausted());
        assert_eq!(budget.step(), None);
        assert!(budget.is_exhausted());
    }
}
