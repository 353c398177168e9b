//! Header names, requests' and replies'.

use hyper::header::HeaderName;

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        $($(#[$doc])* pub static $name: HeaderName = HeaderName::from_static($text);)*
    };
}

names! {
    /// Correlates a call across logs; echoed.
    ACTIVITY_ID = "x-ms-activity-id";
    /// Feed mode of a read feed.
    A_IM = "a-im";
    /// Whether a batch is all or nothing.
    BATCH_ATOMIC = "x-ms-cosmos-batch-atomic";
    /// Whether a batch that is not atomic goes on behind an operation that failed.
    BATCH_CONTINUE = "x-ms-cosmos-batch-continue-on-error";
    /// Consistency that a read asks for.
    CONSISTENCY_LEVEL = "x-ms-consistency-level";
    /// Page hint; -1 leaves it to the server.
    MAX_ITEM_COUNT = "x-ms-max-item-count";
    /// Position in a paged result.
    CONTINUATION = "x-ms-continuation";
    /// Asks for a write's document in the reply, or not.
    CONTENT_RESPONSE = "x-ms-cosmos-populate-content-response-on-write";
    /// Allows a query that is not addressed to one partition key.
    ENABLE_CROSS_PARTITION = "x-ms-documentdb-query-enablecrosspartition";
    /// Upper end of a key interval.
    END_EPK = "x-ms-end-epk";
    /// Resource id of the container the client believes it talks to.
    INTENDED_RID = "x-ms-cosmos-intended-collection-rid";
    /// Marks a transactional batch.
    IS_BATCH = "x-ms-cosmos-is-batch-request";
    /// Marks a query.
    IS_QUERY = "x-ms-documentdb-isquery";
    /// Marks a query, older spelling.
    IS_QUERY_OLD = "x-ms-documentdb-query";
    /// Marks a request for the plan of a query.
    IS_QUERY_PLAN = "x-ms-cosmos-is-query-plan-request";
    /// Marks an upsert.
    IS_UPSERT = "x-ms-documentdb-is-upsert";
    /// Number of items in a page.
    ITEM_COUNT = "x-ms-item-count";
    /// LSN that wrote an item.
    ITEM_LSN = "x-ms-item-lsn";
    /// Newest LSN of a partition.
    LSN = "lsn";
    /// Date that was signed.
    MS_DATE = "x-ms-date";
    /// Autoscale settings of a new container.
    OFFER_AUTOPILOT = "x-ms-cosmos-offer-autopilot-settings";
    /// Whether an offer change is still being applied.
    OFFER_REPLACE_PENDING = "x-ms-offer-replace-pending";
    /// Throughput of a new container.
    OFFER_THROUGHPUT = "x-ms-offer-throughput";
    /// Name link of the container of an item.
    OWNER_NAME = "x-ms-alt-content-path";
    /// Resource id of the container of an item.
    OWNER_RID = "x-ms-content-path";
    /// Partition key of an item.
    PARTITION_KEY = "x-ms-documentdb-partitionkey";
    /// Physical partition addressed.
    PARTITION_KEY_RANGE_ID = "x-ms-documentdb-partitionkeyrangeid";
    /// Asks for the metrics of a query.
    POPULATE_QUERY_METRICS = "x-ms-documentdb-populatequerymetrics";
    /// Whether a request goes before others when throughput is short.
    PRIORITY_LEVEL = "x-ms-cosmos-priority-level";
    /// Whether a write shall be answered with the document.
    PREFER = "prefer";
    /// Metrics of a query.
    QUERY_METRICS = "x-ms-documentdb-query-metrics";
    /// Cost of the call.
    REQUEST_CHARGE = "x-ms-request-charge";
    /// Milliseconds to wait before the next try.
    RETRY_AFTER_MS = "x-ms-retry-after-ms";
    /// Session token.
    SESSION_TOKEN = "x-ms-session-token";
    /// Lower end of a key interval.
    START_EPK = "x-ms-start-epk";
    /// Finer status.
    SUBSTATUS = "x-ms-substatus";
    /// What the client can merge when it runs a query over several partitions.
    SUPPORTED_QUERY_FEATURES = "x-ms-cosmos-supported-query-features";
    /// Part of a container's throughput that a request belongs to.
    THROUGHPUT_BUCKET = "x-ms-cosmos-throughput-bucket";
    /// Shape of change feed items.
    WIRE_FORMAT = "x-ms-cosmos-changefeed-wire-format-version";
}
