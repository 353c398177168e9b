//! A page of rows under construction.

use std::time::Instant;

use hyper::StatusCode;

use super::super::page_body::PageBody;
use super::Job;
use super::documents::Seen;
use crate::http::{Reply, headers};
use crate::ru::Charge;

/// A page of rows.
pub struct Page<'a> {
    job: &'a Job<'a>,
    begun: Instant,
    body: PageBody,
    charge: Charge,
    documents: usize,
    document_bytes: usize,
}

impl<'a> Page<'a> {
    /// An empty page.
    pub fn new(job: &'a Job<'a>) -> Self {
        Self {
            job,
            begun: Instant::now(),
            body: PageBody::new(&job.container.rid),
            charge: Charge::PAGE,
            documents: 0,
            document_bytes: 0,
        }
    }

    /// Notes that a document was looked at, whether or not it has rows on the page.
    pub fn look_at(&mut self, document: &Seen<'_>) {
        self.charge += Charge::scan(document.size);
        self.documents += 1;
        self.document_bytes += document.size;
    }

    /// Whether the page takes no more rows.
    pub fn is_full(&self) -> bool {
        self.body.is_full(self.job.most)
    }

    /// Adds a row.
    pub fn push(&mut self, row: &[u8]) {
        self.push_with(|body| body.extend_from_slice(row));
    }

    /// Adds a row that `write` appends.
    pub fn push_with(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(self.body.next());
    }

    /// The finished page.
    pub fn into_reply(self, continuation: Option<String>) -> Reply {
        let rows = self.body.items();
        let metrics = self
            .job
            .call
            .flag(&headers::POPULATE_QUERY_METRICS)
            .then(|| self.metrics());
        let mut reply = Reply::text(StatusCode::OK, self.body.finish())
            .charge(self.charge)
            .put_number(&headers::ITEM_COUNT, rows as u64);
        if let Some(token) = continuation {
            reply = reply.put(&headers::CONTINUATION, token);
        }
        if let Some(metrics) = metrics {
            reply = reply.put(&headers::QUERY_METRICS, metrics);
        }
        reply
    }

    /// Times are whole: what was spent on which part is not measured.
    fn metrics(&self) -> String {
        let milliseconds = self.begun.elapsed().as_secs_f64() * 1e3;
        format!(
            "totalExecutionTimeInMs={milliseconds:.2};queryCompileTimeInMs=0.00;queryLogicalPlanBuildTimeInMs=0.00;\
             queryPhysicalPlanBuildTimeInMs=0.00;queryOptimizationTimeInMs=0.00;\
             VMExecutionTimeInMs={milliseconds:.2};indexLookupTimeInMs=0.00;documentLoadTimeInMs=0.00;\
             systemFunctionExecuteTimeInMs=0.00;userFunctionExecuteTimeInMs=0.00;\
             retrievedDocumentCount={};retrievedDocumentSize={};outputDocumentCount={};outputDocumentSize={};\
             writeOutputTimeInMs=0.00;indexUtilizationRatio=0.00",
            self.documents,
            self.document_bytes,
            self.body.items(),
            self.body.len()
        )
    }
}
