//! How many documents to ask for, by what the service could answer. Pure.

use std::num::NonZeroU32;

use crate::cosmos::failure::Failure;

/// Pages in a row that must come before more is asked for: a burst of large documents should be over by then.
const PAGES_BEFORE_GROWTH: u32 = 16;

/// The page size of one feed range: halved by every refusal, down to one, and a quarter larger after every few pages.
#[derive(Clone, Debug)]
pub(super) struct PageSize {
    most: NonZeroU32,
    now: NonZeroU32,
    good: u32,
}

impl PageSize {
    pub(super) fn new(most: NonZeroU32) -> Self {
        PageSize {
            most,
            now: most,
            good: 0,
        }
    }

    /// What to ask for next.
    pub(super) fn now(&self) -> NonZeroU32 {
        self.now
    }

    /// A page came.
    pub(super) fn accepted(&mut self) {
        if self.now == self.most {
            return;
        }
        self.good += 1;
        if self.good == PAGES_BEFORE_GROWTH {
            self.good = 0;
            let step = (self.now.get() / 4).max(1);
            self.now = self.now.saturating_add(step).min(self.most);
        }
    }

    /// A page was too large, or took too long. False when it cannot be smaller.
    pub(super) fn refused(&mut self) -> bool {
        self.good = 0;
        let halved = NonZeroU32::new(self.now.get() / 2);
        self.now = halved.unwrap_or(NonZeroU32::MIN);
        halved.is_some()
    }
}

/// What a smaller page may mend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TooMuch {
    /// The answer would be too large; the same request never succeeds.
    Large,
    /// It took too long, this time.
    Slow,
}

impl TooMuch {
    /// What of that, if anything, is the cause of `failure`.
    pub(super) fn of(failure: &Failure) -> Option<Self> {
        match failure.status {
            413 => Some(TooMuch::Large),
            // So says the service of a page that it cannot put together; it has no status for that.
            400 if failure.message.contains("Reduce page size") => Some(TooMuch::Large),
            408 => Some(TooMuch::Slow),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_halve_it_to_one_and_no_further() {
        let mut size = PageSize::new(NonZeroU32::new(10).unwrap());
        let mut sizes = Vec::new();
        while size.refused() {
            sizes.push(size.now().get());
        }
        assert_eq!(sizes, [5, 2, 1]);
        assert!(!size.refused());
        assert_eq!(size.now().get(), 1);
    }

    #[test]
    fn it_grows_back_slowly_to_what_was_asked_for() {
        let mut size = PageSize::new(NonZeroU32::new(100).unwrap());
        size.accepted();
        assert_eq!(size.now().get(), 100);
        for _ in 0..10 {
            size.refused();
        }
        let mut pages = 0;
        let mut before = 1;
        while size.now().get() < 100 {
            size.accepted();
            pages += 1;
            let now = size.now().get();
            assert!(now <= before + (before / 4).max(1), "{before} to {now}");
            before = now;
        }
        assert_eq!(pages % PAGES_BEFORE_GROWTH, 0);
        assert!((200..500).contains(&pages), "{pages} pages");
        for _ in 0..100 {
            size.accepted();
        }
        assert_eq!(size.now().get(), 100);
    }

    #[test]
    fn a_refusal_begins_the_count_anew() {
        let mut size = PageSize::new(NonZeroU32::new(100).unwrap());
        size.refused();
        for _ in 0..PAGES_BEFORE_GROWTH - 1 {
            size.accepted();
        }
        size.refused();
        size.accepted();
        assert_eq!(size.now().get(), 25);
    }

    #[test]
    fn what_a_smaller_page_may_mend() {
        let failure = |status, message: &str| Failure {
            status,
            ..Failure::transient(message)
        };
        for (failure, expected) in [
            (failure(413, ""), Some(TooMuch::Large)),
            (failure(408, ""), Some(TooMuch::Slow)),
            (
                failure(400, "BadRequest: Reduce page size and try again."),
                Some(TooMuch::Large),
            ),
            (failure(400, "malformed"), None),
            (failure(429, ""), None),
            (failure(503, ""), None),
        ] {
            assert_eq!(TooMuch::of(&failure), expected, "{failure:?}");
        }
    }
}
