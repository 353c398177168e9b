//! A page of rows under construction.

use std::time::Instant;

use hyper::StatusCode;

use super::super::read_feed::PAGE_BYTES;
use super::Job;
use super::documents::Seen;
use crate::http::{Reply, headers};
use crate::json::write_number;
use crate::ru::Charge;

/// A page of rows.
pub struct Page<'a> {
    job: &'a Job<'a>,
    begun: Instant,
    rows: usize,
    body: Vec<u8>,
    charge: Charge,
    documents: usize,
    document_bytes: usize,
}

impl<'a> Page<'a> {
    /// An empty page.
    pub fn new(job: &'a Job<'a>) -> Self {
        let body = format!("{{\"_rid\":\"{}\",\"Documents\":[", job.container.rid).into_bytes();
        Self {
            job,
            begun: Instant::now(),
            rows: 0,
            body,
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
        self.rows >= self.job.most || self.body.len() >= PAGE_BYTES
    }

    /// Adds a row.
    pub fn push(&mut self, row: &[u8]) {
        self.push_with(|body| body.extend_from_slice(row));
    }

    /// Adds a row that `write` appends.
    pub fn push_with(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if self.rows > 0 {
            self.body.push(b',');
        }
        self.rows += 1;
        write(&mut self.body);
    }

    /// The finished page.
    pub fn into_reply(mut self, continuation: Option<String>) -> Reply {
        let output_bytes = self.body.len();
        self.body.extend_from_slice(b"],\"_count\":");
        write_number(&mut self.body, self.rows);
        self.body.push(b'}');
        let mut reply = Reply::text(StatusCode::OK, std::mem::take(&mut self.body))
            .charge(self.charge)
            .put_number(&headers::ITEM_COUNT, self.rows as u64);
        if let Some(token) = continuation {
            reply = reply.put(&headers::CONTINUATION, token);
        }
        if self.job.call.flag(&headers::POPULATE_QUERY_METRICS) {
            reply = reply.put(&headers::QUERY_METRICS, self.metrics(output_bytes));
        }
        reply
    }

    /// Times are whole: what was spent on which part is not measured.
    fn metrics(&self, output_bytes: usize) -> String {
        let milliseconds = self.begun.elapsed().as_secs_f64() * 1e3;
        format!(
            "totalExecutionTimeInMs={milliseconds:.2};queryCompileTimeInMs=0.00;queryLogicalPlanBuildTimeInMs=0.00;\
             queryPhysicalPlanBuildTimeInMs=0.00;queryOptimizationTimeInMs=0.00;\
             VMExecutionTimeInMs={milliseconds:.2};indexLookupTimeInMs=0.00;documentLoadTimeInMs=0.00;\
             systemFunctionExecuteTimeInMs=0.00;userFunctionExecuteTimeInMs=0.00;\
             retrievedDocumentCount={};retrievedDocumentSize={};outputDocumentCount={};outputDocumentSize={};\
             writeOutputTimeInMs=0.00;indexUtilizationRatio=0.00",
            self.documents, self.document_bytes, self.rows, output_bytes
        )
    }
}
