//! What the jobs read of the documents, and what they write.

use std::cmp::Reverse;

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

/// Of an order, where it counts and how much.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Regional {
    pub region: CompactString,
    pub amount: i64,
}

/// Of an order, whose it is and how much.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Bought {
    pub customer: CompactString,
    pub amount: i64,
}

/// A customer, as far as segments go.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Customer {
    pub id: CompactString,
    pub segment: CompactString,
}

/// An order that may be one of the largest of its region.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Order {
    pub id: CompactString,
    pub region: CompactString,
    pub amount: i64,
}

/// A sum and a count.
#[derive(Clone, Serialize, Deserialize)]
pub struct Total {
    pub id: CompactString,
    pub sum: isize,
    pub count: isize,
}

impl Total {
    pub fn of((id, (sum, count)): (CompactString, (isize, isize))) -> Total {
        Total { id, sum, count }
    }
}

/// One of the largest orders of a region; by its place in the order of the results first.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Large {
    pub region: CompactString,
    pub amount: Reverse<i64>,
    pub id: CompactString,
}
