//! The request-unit model: what a call is said to cost.
//!
//! Read off the published figures, linear in the size of the document and rounded to hundredths:
//!
//! | call | 1 KB | 100 KB |
//! |---|---|---|
//! | point read | 1 | 10 |
//! | create, delete | 5.5 | 55 |
//! | replace, upsert of a document that exists | 11 | 110 |
//! | change feed page | 2, and a point read for each document | |
//! | feed or query page | 2, and a tenth of a point read for each document looked at | |
//! | anything else | 1 | |
//!
//! Indexing, consistency and the shape of a query do not count.

/// A charge in hundredths of a request unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Charge(u64);

impl Charge {
    /// A call with no documents.
    pub const METADATA: Self = Self(100);

    /// A change feed, feed or query page before its documents.
    pub const PAGE: Self = Self(200);

    /// Reading a document of `bytes`.
    pub fn read(bytes: usize) -> Self {
        Self(100 + above_first_kilobyte(bytes) * 900 / (99 * 1024))
    }

    /// Creating or deleting a document of `bytes`.
    pub fn write(bytes: usize) -> Self {
        Self(550 + above_first_kilobyte(bytes) * 4950 / (99 * 1024))
    }

    /// Replacing a document by one of `bytes`.
    pub fn replace(bytes: usize) -> Self {
        Self(Self::write(bytes).0 * 2)
    }

    /// Looking at a document of `bytes` in a query.
    pub fn scan(bytes: usize) -> Self {
        Self(Self::read(bytes).0 / 10)
    }

    /// The charge in hundredths of a request unit.
    pub fn hundredths(self) -> u64 {
        self.0
    }

    /// Decimal text with two digits.
    pub fn to_text(self) -> String {
        let mut text = Vec::with_capacity(8);
        crate::json::write_number(&mut text, self.0 / 100);
        text.push(b'.');
        text.push(b'0' + (self.0 / 10 % 10) as u8);
        text.push(b'0' + (self.0 % 10) as u8);
        String::from_utf8(text).unwrap_or_default()
    }
}

impl std::ops::AddAssign for Charge {
    fn add_assign(&mut self, other: Self) {
        self.0 += other.0;
    }
}

impl std::ops::Sub for Charge {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

fn above_first_kilobyte(bytes: usize) -> u64 {
    bytes.saturating_sub(1024) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_figures_are_met() {
        assert_eq!(Charge::read(200).to_text(), "1.00");
        assert_eq!(Charge::read(100 * 1024).to_text(), "10.00");
        assert_eq!(Charge::write(1024).to_text(), "5.50");
        assert_eq!(Charge::write(100 * 1024).to_text(), "55.00");
        assert_eq!(Charge::replace(1024).to_text(), "11.00");
        assert_eq!(Charge::scan(10).to_text(), "0.10");
    }
}
