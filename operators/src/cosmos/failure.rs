//! One failed request in our terms.

use std::time::Duration;

use azure_data_cosmos::CosmosError;
use tidefeed_runtime::{Error, ErrorKind};

use super::status::{Disposition, classify};

/// What is known about a request that did not succeed.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) disposition: Disposition,
    pub(crate) retry_after: Option<Duration>,
    /// The HTTP status, or what the SDK put in its place.
    pub(crate) status: u16,
    /// The service's sub-status, 0 for none.
    pub(crate) sub_status: u32,
    /// The name of the attempt, for support.
    pub(crate) activity_id: String,
    /// Requests that the SDK has made, its own retries included.
    pub(crate) requests: usize,
    /// True when a server said so, false when the SDK concluded it.
    pub(crate) from_service: bool,
    /// One line: status, its name, and what the server said.
    pub(crate) message: String,
    /// Request units charged for the failed request.
    pub(crate) charge_ru: f64,
}

impl Failure {
    pub(crate) fn of(error: &CosmosError) -> Self {
        let status = error.status();
        let code = u16::from(status.status_code());
        let sub_status = status.sub_status().map(|sub_status| sub_status.value());
        let headers = error.response().map(|response| response.headers());
        Failure {
            disposition: classify(code, sub_status),
            retry_after: headers
                .and_then(|headers| headers.retry_after_ms)
                .map(Duration::from_millis),
            status: code,
            sub_status: sub_status.map_or(0, u32::from),
            activity_id: activity_id(error),
            requests: error.diagnostics().map_or(1, |seen| seen.request_count()),
            from_service: error.is_from_wire(),
            message: one_line(&error.to_string()),
            charge_ru: headers
                .and_then(|headers| headers.request_charge)
                .map_or(0.0, |charge| charge.value()),
        }
    }

    /// A fault that only we see.
    pub(crate) fn transient(message: &str) -> Self {
        Failure {
            disposition: Disposition::Transient,
            retry_after: None,
            status: 0,
            sub_status: 0,
            activity_id: String::new(),
            requests: 1,
            from_service: false,
            message: message.to_owned(),
            charge_ru: 0.0,
        }
    }

    /// Why, in a log: what the service says may have a document's id or more in it.
    pub(crate) fn cause(&self) -> String {
        match (self.from_service, self.sub_status) {
            (false, _) => self.message.chars().take(MOST_OF_A_CAUSE).collect(),
            (true, 0) => format!("status {}", self.status),
            (true, sub_status) => format!("status {}/{sub_status}", self.status),
        }
    }

    pub(crate) fn is_passing(&self) -> bool {
        self.disposition.is_passing()
    }

    pub(crate) fn is_throttled(&self) -> bool {
        self.disposition == Disposition::Throttled
    }

    pub(crate) fn is_unauthorized(&self) -> bool {
        self.status == 401
    }

    /// The error kind of a failure that no retry can mend.
    pub(crate) fn kind(&self) -> ErrorKind {
        match self.disposition {
            Disposition::Denied => ErrorKind::Denied,
            Disposition::NoContainer | Disposition::NoDocument => ErrorKind::NotFound,
            Disposition::TooLarge | Disposition::Rejected => ErrorKind::Rejected,
            Disposition::Broken => ErrorKind::Internal,
            Disposition::Throttled | Disposition::Transient => ErrorKind::Unreachable,
        }
    }

    pub(crate) fn into_error(self, context: impl Into<String>) -> Error {
        Error::new(self.kind(), context).with_source(self.message)
    }
}

/// Letters of a cause in a log.
const MOST_OF_A_CAUSE: usize = 300;

fn activity_id(error: &CosmosError) -> String {
    let of_response = error.response().and_then(|response| {
        let headers = response.headers();
        headers.activity_id.as_ref().map(ToString::to_string)
    });
    let of_operation = || Some(error.diagnostics()?.activity_id().to_string());
    of_response.or_else(of_operation).unwrap_or_default()
}

/// The SDK says everything twice, `400 (X): Cosmos DB returned HTTP 400: X. Details: why`; this keeps `400 (X): why`.
fn one_line(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match (text.split_once(": "), text.split_once(". Details: ")) {
        (Some((status, _)), Some((_, details))) => format!("{status}: {details}"),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_and_says_things_once() {
        assert_eq!(
            one_line(
                "400/1001 (PartitionKeyMismatch): Cosmos DB returned HTTP 400/1001: PartitionKeyMismatch. Details: key\r\n differs"
            ),
            "400/1001 (PartitionKeyMismatch): key differs"
        );
        assert_eq!(one_line("503: gone\naway"), "503: gone away");
    }
}
