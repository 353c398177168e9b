//! Parts of the HTTP fuzz test: numbers, requests, broken bytes, replies, and what must hold whatever was sent.

pub mod bodies;
pub mod health;
pub mod raw_bytes;
pub mod requests;
pub mod values;
pub mod wire;

/// A small deterministic source of numbers; the same seed replays a run.
pub struct Random(fastrand::Rng);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    pub fn next(&mut self) -> u64 {
        self.0.u64(..)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        self.0.usize(..limit.max(1))
    }

    /// True once in `times`.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }

    pub fn choose<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }
}

/// Breaks bytes: flips, cuts, repeats, and puts in what parsers dislike.
pub fn mutate(random: &mut Random, bytes: &mut Vec<u8>) {
    const DISLIKED: [&[u8]; 16] = [
        b"\0",
        b"\xff\xfe",
        b"\xed\xa0\x80",
        b"\\ud800",
        b"\\udc00\\ud800",
        b"1e999",
        b"-0",
        b"18446744073709551616",
        b"99999999999999999999999999999999999999",
        b"[[[[[[[[[[[[[[[[",
        b"{\"\":{\"\":{\"\":",
        b"\"",
        b"\\",
        b"%",
        b",,",
        b"\xf4\x90\x80\x80",
    ];
    for _ in 0..1 + random.below(3) {
        let at = random.below(bytes.len() + 1);
        match random.below(7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 if at < bytes.len() => bytes[at] = random.next() as u8,
            2 => bytes.truncate(at),
            3 => {
                let end = (at + random.below(16)).min(bytes.len());
                let part = bytes[at..end].to_vec();
                let times = 1 + random.below(4);
                bytes.splice(at..at, part.repeat(times));
            }
            4 if !bytes.is_empty() => {
                let end = (at + 1 + random.below(8)).min(bytes.len());
                bytes.drain(at.min(end)..end);
            }
            5 if at < bytes.len() && bytes[at].is_ascii_digit() => {
                let number = random.pick(&values::NUMBERS).as_bytes().to_vec();
                bytes.splice(at..=at, number);
            }
            _ => {
                let what = random.pick(&DISLIKED).to_vec();
                bytes.splice(at..at, what);
            }
        }
    }
}
