//! Effective partition keys: where a partition key value lives in the hash space.
//!
//! A key component is encoded to bytes and hashed with MurmurHash3 (x64, 128 bit, seed 0). The hash is written
//! big-endian and its two top bits are cleared, so a component occupies `00..` to `3F..` and the literal `FF` is above
//! every key. A hierarchical key is the concatenation of its components' hashes. Bounds are compared as if padded with
//! zero bytes, because clients may trim trailing zeros.
//!
//! Physical partitions own `[min, max)` intervals of this space; a fresh container splits it evenly.

use std::cmp::Ordering;

/// Bytes of one hashed component.
pub const COMPONENT_BYTES: usize = 16;

/// The effective partition key of one document: one hashed component, and the rest for hierarchical keys.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Epk {
    head: [u8; COMPONENT_BYTES],
    tail: Option<Box<[u8]>>,
}

impl Epk {
    /// Builds a key from the concatenated hashes of its components (at least one).
    pub fn from_hashes(bytes: &[u8]) -> Self {
        let mut head = [0; COMPONENT_BYTES];
        let split = bytes.len().min(COMPONENT_BYTES);
        head[..split].copy_from_slice(&bytes[..split]);
        let tail = (bytes.len() > COMPONENT_BYTES).then(|| Box::from(&bytes[COMPONENT_BYTES..]));
        Self { head, tail }
    }

    /// The first component as a number: the order of the hash space.
    pub fn head(&self) -> u128 {
        u128::from_be_bytes(self.head)
    }

    /// Compares with a bound of any length.
    pub fn cmp_bound(&self, bound: &[u8]) -> Ordering {
        let split = bound.len().min(COMPONENT_BYTES);
        cmp_padded(&self.head, &bound[..split])
            .then_with(|| cmp_padded(self.tail.as_deref().unwrap_or_default(), &bound[split..]))
    }

    /// The key's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.head.to_vec();
        bytes.extend_from_slice(self.tail.as_deref().unwrap_or_default());
        bytes
    }

    /// Heap bytes behind the key.
    pub fn heap_bytes(&self) -> usize {
        self.tail.as_ref().map_or(0, |tail| tail.len())
    }
}

/// A half-open interval `[min, max)` of effective partition keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpkRange {
    /// Inclusive lower bound.
    pub min: Vec<u8>,
    /// Exclusive upper bound.
    pub max: Vec<u8>,
}

impl EpkRange {
    /// The whole space, `["", "FF")`.
    pub fn full() -> Self {
        Self {
            min: Vec::new(),
            max: vec![0xFF],
        }
    }

    /// Exactly the keys that start with `epk`: one logical partition, or every key below a hierarchical prefix.
    pub fn prefix(epk: &Epk) -> Self {
        let min = epk.to_bytes();
        let mut max = min.clone();
        max.push(0xFF);
        Self { min, max }
    }

    /// Splits the whole space evenly into `parts` intervals.
    pub fn split_evenly(parts: usize) -> Vec<Self> {
        let parts = parts.max(1);
        let width = (1u128 << 126) / parts as u128;
        let bound = |index: usize| match index {
            0 => Vec::new(),
            i if i == parts => vec![0xFF],
            i => (width * i as u128).to_be_bytes().to_vec(),
        };
        (0..parts)
            .map(|i| Self {
                min: bound(i),
                max: bound(i + 1),
            })
            .collect()
    }

    /// Whether the interval holds `epk`.
    pub fn contains(&self, epk: &Epk) -> bool {
        epk.cmp_bound(&self.min).is_ge() && epk.cmp_bound(&self.max).is_lt()
    }

    /// Whether `self` holds every key that `other` holds.
    pub fn covers(&self, other: &Self) -> bool {
        cmp_padded(&self.min, &other.min).is_le() && cmp_padded(&self.max, &other.max).is_ge()
    }

    /// The common part of two intervals, unless it is empty.
    pub fn intersect(&self, other: &Self) -> Option<Self> {
        let min = if cmp_padded(&self.min, &other.min).is_ge() {
            &self.min
        } else {
            &other.min
        };
        let max = if cmp_padded(&self.max, &other.max).is_le() {
            &self.max
        } else {
            &other.max
        };
        cmp_padded(min, max).is_lt().then(|| Self {
            min: min.clone(),
            max: max.clone(),
        })
    }

    /// The first components that keys of this interval can have, inclusive on both ends.
    pub fn heads(&self) -> (u128, u128) {
        (head_of(&self.min), head_of(&self.max))
    }
}

/// Lexicographic comparison in which trailing zero bytes do not count.
pub fn cmp_padded(a: &[u8], b: &[u8]) -> Ordering {
    let common = a.len().min(b.len());
    a[..common].cmp(&b[..common]).then_with(|| {
        if a[common..].iter().any(|byte| *byte != 0) {
            Ordering::Greater
        } else if b[common..].iter().any(|byte| *byte != 0) {
            Ordering::Less
        } else {
            Ordering::Equal
        }
    })
}

fn head_of(bound: &[u8]) -> u128 {
    let mut head = [0; COMPONENT_BYTES];
    let split = bound.len().min(COMPONENT_BYTES);
    head[..split].copy_from_slice(&bound[..split]);
    u128::from_be_bytes(head)
}

/// Upper-case hexadecimal, the form in which bounds travel.
pub fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// Reads a bound; `None` if it is not an even number of hexadecimal digits.
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let nibble = |c: u8| char::from(c).to_digit(16).map(|d| d as u8);
    digits
        .chunks_exact(2)
        .map(|pair| Some(nibble(pair[0])? << 4 | nibble(pair[1])?))
        .collect()
}

/// Hashes one encoded key component.
pub fn hash_component(encoded: &[u8]) -> [u8; COMPONENT_BYTES] {
    let mut bytes = murmur3_128(encoded).to_be_bytes();
    bytes[0] &= 0x3F;
    bytes
}

const C1: u64 = 0x87c3_7b91_1142_53d5;
const C2: u64 = 0x4cf5_ad43_2745_937f;

fn murmur3_128(data: &[u8]) -> u128 {
    let (mut h1, mut h2) = (0u64, 0u64);
    let mut blocks = data.chunks_exact(16);
    for block in &mut blocks {
        h1 ^= scramble_low(word(&block[..8]));
        h1 = h1
            .rotate_left(27)
            .wrapping_add(h2)
            .wrapping_mul(5)
            .wrapping_add(0x52dc_e729);
        h2 ^= scramble_high(word(&block[8..]));
        h2 = h2
            .rotate_left(31)
            .wrapping_add(h1)
            .wrapping_mul(5)
            .wrapping_add(0x3849_5ab5);
    }
    let rest = blocks.remainder();
    let split = rest.len().min(8);
    h1 ^= scramble_low(word(&rest[..split]));
    h2 ^= scramble_high(word(&rest[split..]));

    h1 ^= data.len() as u64;
    h2 ^= data.len() as u64;
    h1 = h1.wrapping_add(h2);
    h2 = h2.wrapping_add(h1);
    h1 = finish(h1);
    h2 = finish(h2);
    h1 = h1.wrapping_add(h2);
    h2 = h2.wrapping_add(h1);
    u128::from(h2) << 64 | u128::from(h1)
}

/// Up to eight bytes as a little-endian number.
fn word(bytes: &[u8]) -> u64 {
    let mut buffer = [0; 8];
    buffer[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(buffer)
}

fn scramble_low(k: u64) -> u64 {
    k.wrapping_mul(C1).rotate_left(31).wrapping_mul(C2)
}

fn scramble_high(k: u64) -> u64 {
    k.wrapping_mul(C2).rotate_left(33).wrapping_mul(C1)
}

fn finish(mut k: u64) -> u64 {
    k ^= k >> 33;
    k = k.wrapping_mul(0xff51_afd7_ed55_8ccd);
    k ^= k >> 33;
    k = k.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    k ^ k >> 33
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur_matches_published_vectors() {
        // Reference values of MurmurHash3_x64_128 with seed 0: (h1, h2).
        assert_eq!(murmur3_128(b""), 0);
        let hello = murmur3_128(b"hello");
        assert_eq!(hello as u64, 0xcbd8_a7b3_41bd_9b02);
        assert_eq!((hello >> 64) as u64, 0x5b1e_906a_48ae_1d19);
        let fox = murmur3_128(b"The quick brown fox jumps over the lazy dog");
        assert_eq!(fox as u64, 0xe34b_bc7b_bc07_1b6c);
        assert_eq!((fox >> 64) as u64, 0x7a43_3ca9_c49a_9347);
    }

    #[test]
    fn an_even_split_tiles_the_space() {
        for parts in 1..40 {
            let ranges = EpkRange::split_evenly(parts);
            assert_eq!(ranges.len(), parts);
            assert_eq!(ranges[0].min, Vec::<u8>::new());
            assert_eq!(ranges[parts - 1].max, vec![0xFF]);
            assert!(ranges.windows(2).all(|pair| pair[0].max == pair[1].min));
            for i in 0..500u32 {
                let epk = Epk::from_hashes(&hash_component(&i.to_le_bytes()));
                assert_eq!(
                    ranges.iter().filter(|range| range.contains(&epk)).count(),
                    1
                );
            }
        }
    }

    #[test]
    fn trailing_zeros_of_a_bound_do_not_count() {
        assert_eq!(cmp_padded(&[0x80], &[0x80, 0, 0]), Ordering::Equal);
        assert_eq!(cmp_padded(&[0x80], &[0x80, 0, 1]), Ordering::Less);
        assert_eq!(cmp_padded(&[], &[0]), Ordering::Equal);
        let epk = Epk::from_hashes(&[7; 32]);
        assert_eq!(epk.cmp_bound(&[7; 16]), Ordering::Greater);
        assert_eq!(epk.cmp_bound(&[7; 32]), Ordering::Equal);
        assert_eq!(epk.cmp_bound(&[0xFF]), Ordering::Less);
        assert!(EpkRange::prefix(&Epk::from_hashes(&[7; 16])).contains(&epk));
        assert!(!EpkRange::prefix(&Epk::from_hashes(&[8; 16])).contains(&epk));
    }

    #[test]
    fn hex_round_trips_and_refuses_other_text() {
        assert_eq!(
            from_hex(&to_hex(&[0, 0x1f, 0xff])),
            Some(vec![0, 0x1f, 0xff])
        );
        assert_eq!(from_hex("a"), None);
        assert_eq!(from_hex("+1"), None);
        assert_eq!(from_hex("zz"), None);
    }
}
