//! The figures of `main_job` and `emulator`, for programs.

use serde::Serialize;

/// The last line of `main_job`, as JSON with exactly these keys.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Figures {
    /// Median time of a feed page of 1,000 documents from a container of 10,000, in milliseconds.
    pub feed_page_ms_10k: f64,
    /// The same from a container of 500,000.
    pub feed_page_ms_500k: f64,
    /// Resident memory of the server for each of 500,000 documents.
    pub server_bytes_per_doc: f64,
    /// Changes per second of the job over the flights of January.
    pub job_changes_per_s_january: f64,
    /// The same over the year; null when its data is not to be had.
    pub job_changes_per_s_full_year: Option<f64>,
    /// The most resident memory of the process of the year, in megabytes (10^6 bytes); null when its data is not to be had.
    pub peak_rss_mb_full_year: Option<f64>,
}

/// The last line of `emulator`, as JSON with exactly these keys. Rates are medians of rounds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct EmulatorFigures {
    /// Point upserts per second through the official SDK.
    pub upserts_per_s: f64,
    /// The same against a server that does nothing.
    pub noop_upserts_per_s: f64,
    /// Documents per second in bulk batches of 100, over plain HTTP; null when the server refuses them.
    pub bulk_docs_per_s: Option<f64>,
    /// Documents per second in change feed pages of 1,000, over plain HTTP, with 10,000 documents in the container.
    pub feed_docs_per_s_10k: f64,
    /// The same with 1,000,000.
    pub feed_docs_per_s_1m: f64,
    /// Growth of the server's resident memory for each of 1,000,000 documents, less the document's own bytes.
    pub overhead_bytes_per_doc: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_have_the_keys_that_readers_expect() {
        let figures = Figures {
            feed_page_ms_10k: 1.0,
            feed_page_ms_500k: 2.0,
            server_bytes_per_doc: 3.0,
            job_changes_per_s_january: 4.0,
            job_changes_per_s_full_year: None,
            peak_rss_mb_full_year: Some(5.5),
        };
        assert_eq!(
            serde_json::to_string(&figures).expect("json"),
            r#"{"feed_page_ms_10k":1.0,"feed_page_ms_500k":2.0,"server_bytes_per_doc":3.0,"job_changes_per_s_january":4.0,"job_changes_per_s_full_year":null,"peak_rss_mb_full_year":5.5}"#
        );
        let figures = EmulatorFigures {
            upserts_per_s: 1.0,
            noop_upserts_per_s: 2.0,
            bulk_docs_per_s: None,
            feed_docs_per_s_10k: 3.0,
            feed_docs_per_s_1m: 4.0,
            overhead_bytes_per_doc: 5.0,
        };
        assert_eq!(
            serde_json::to_string(&figures).expect("json"),
            r#"{"upserts_per_s":1.0,"noop_upserts_per_s":2.0,"bulk_docs_per_s":null,"feed_docs_per_s_10k":3.0,"feed_docs_per_s_1m":4.0,"overhead_bytes_per_doc":5.0}"#
        );
    }
}
