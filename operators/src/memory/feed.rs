//! The container as a change feed.

use async_trait::async_trait;
use tidefeed_runtime::{ContinuationToken, Error, ErrorKind, FeedRangeId, Result};

use super::{FailurePoint, MemoryContainer};
use crate::feed::{ChangeFeed, Page, PageStream, Spent, Start};

#[async_trait]
impl ChangeFeed for MemoryContainer {
    async fn ranges(&self) -> Result<Vec<FeedRangeId>> {
        Ok(self.shared.state.lock().partitions.clone())
    }

    async fn open(&self, range: &FeedRangeId, start: Start) -> Result<Box<dyn PageStream>> {
        let index = self.index_of(range)?;
        let after = match start {
            Start::Beginning => 0,
            Start::Now => self.shared.state.lock().logs[index].last,
            Start::Time(time) => self.shared.state.lock().logs[index].before(time),
            Start::Token(token) => decode_token(&token, range).ok_or_else(|| {
                Error::new(
                    ErrorKind::Checkpoint,
                    format!("the token for feed range {range} is not one of it"),
                )
            })?,
        };
        Ok(Box::new(MemoryStream {
            container: self.clone(),
            range: range.clone(),
            bounds: range.bounds().unwrap_or_default(),
            index,
            after,
        }))
    }

    fn divide(&self, range: &FeedRangeId, parts: usize) -> Vec<FeedRangeId> {
        range.divide(parts, u64::MAX)
    }
}

struct MemoryStream {
    container: MemoryContainer,
    range: FeedRangeId,
    bounds: (String, String),
    index: usize,
    /// The last position that has been delivered.
    after: u64,
}

#[async_trait]
impl PageStream for MemoryStream {
    async fn next_page(&mut self) -> Result<Page> {
        tokio::task::yield_now().await;
        let mut state = self.container.shared.state.lock();
        if let Some(kind) = state.take_failure(FailurePoint::NextPage) {
            let context = format!("cannot read feed range {}, as asked for", self.range);
            return Err(Error::new(kind, context));
        }
        let log = &state.logs[self.index];
        let page_size = self.container.shared.options.page_size;
        let records = log.page(&mut self.after, page_size, |hash| {
            let hash = format!("{hash:016X}");
            // Hashes fill the space, beyond the name of its end.
            self.bounds.0 <= hash && (hash < self.bounds.1 || self.bounds.1 == "FF")
        });
        Ok(Page {
            caught_up: records.is_empty(),
            records,
            spent: Spent {
                charge_ru: 1.0,
                throttled: 0,
            },
            ..Page::at(ContinuationToken(format!("{}@{}", self.range, self.after)))
        })
    }
}

fn decode_token(token: &ContinuationToken, range: &FeedRangeId) -> Option<u64> {
    let (of, position) = token.0.split_once('@')?;
    let covered = FeedRangeId(of.to_owned()).covers(range);
    covered.then(|| position.parse().ok())?
}
