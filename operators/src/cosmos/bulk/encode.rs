//! Batches as the service reads and writes them: operations to a request's body, a reply's body to results. No I/O.
//!
//! A request is an array of `{"operationType", "partitionKey", "id"?, "ifMatch"?, "resourceBody"?}`; the partition key is JSON
//! text in a string, and documents are spliced in as they are. The `id` goes along only where the body does not have it. A
//! reply is an array of results in the order of the request.
//!
//! A reply is believed only as a whole: it has one result for each operation, and no success that its operation cannot have.
//! Results carry no name, so two that changed places and fit both ways cannot be told: the order is the service's promise.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::operation::{Action, Operation, OperationResult};

/// The body of a batch request.
pub(crate) fn body(operations: &[Arc<Operation>]) -> Vec<u8> {
    let size: usize = operations.iter().map(|one| one.size_bytes()).sum();
    let mut out = Vec::with_capacity(size + 2);
    out.push(b'[');
    for (at, operation) in operations.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        push_operation(&mut out, operation);
    }
    out.push(b']');
    out
}

fn push_operation(out: &mut Vec<u8>, operation: &Operation) {
    out.extend_from_slice(b"{\"operationType\":\"");
    out.extend_from_slice(operation.action.name().as_bytes());
    out.extend_from_slice(b"\",\"partitionKey\":");
    push_text(out, &operation.key.partition_key);
    if needs_id(&operation.action) {
        out.extend_from_slice(b",\"id\":");
        push_text(out, &operation.key.id);
    }
    if let Some(etag) = &operation.if_match {
        out.extend_from_slice(b",\"ifMatch\":");
        push_text(out, etag);
    }
    if let Some(body) = operation.action.body() {
        out.extend_from_slice(b",\"resourceBody\":");
        out.extend_from_slice(body);
    }
    out.push(b'}');
}

/// Whether the service takes the document's name from the operation and not from its body.
fn needs_id(action: &Action) -> bool {
    match action {
        Action::Upsert(_) | Action::Create(_) => false,
        Action::Replace(_) | Action::Delete | Action::Patch { .. } => true,
    }
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("text becomes JSON, and memory takes it");
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawResult {
    status_code: u16,
    #[serde(default)]
    sub_status_code: Option<u32>,
    #[serde(default)]
    request_charge: Option<f64>,
    #[serde(default)]
    retry_after_milliseconds: Option<u64>,
    #[serde(default)]
    e_tag: Option<Box<str>>,
    #[serde(default)]
    message: Option<Box<str>>,
}

impl From<RawResult> for OperationResult {
    fn from(raw: RawResult) -> Self {
        OperationResult {
            status: raw.status_code,
            sub_status: raw.sub_status_code.unwrap_or(0),
            charge_ru: raw.request_charge.unwrap_or(0.0),
            retry_after: raw.retry_after_milliseconds.map(Duration::from_millis),
            etag: raw.e_tag,
            message: raw.message,
        }
    }
}

/// The results in a reply to `operations`.
///
/// # Errors
/// Why the reply is not to be believed, any of it.
pub(crate) fn results(
    operations: &[Arc<Operation>],
    reply: &[u8],
) -> Result<Vec<OperationResult>, String> {
    let raw: Vec<RawResult> = serde_json::from_slice(reply)
        // The parser's own message can quote the reply.
        .map_err(|error| format!("it is no array of results, see byte {}", error.column()))?;
    if raw.len() != operations.len() {
        return Err(format!(
            "it has {} results for {} operations",
            raw.len(),
            operations.len()
        ));
    }
    let pairs = raw.iter().zip(operations);
    for (at, (result, operation)) in pairs.enumerate() {
        if !is_possible(&operation.action, result) {
            return Err(format!(
                "its result {at} is {}, which a {} cannot have",
                result.status_code,
                operation.action.name()
            ));
        }
    }
    Ok(raw.into_iter().map(OperationResult::from).collect())
}

/// Whether this can be the result of such an operation. Only successes are looked at: anything can fail.
fn is_possible(action: &Action, result: &RawResult) -> bool {
    match (result.status_code, action) {
        (200 | 201, Action::Delete) => false,
        (201, Action::Replace(_) | Action::Patch { .. }) => false,
        (204, Action::Delete) => result.e_tag.is_none(),
        // Whatever was written has a version.
        (204, _) => result.e_tag.is_some(),
        (100..=199 | 0, _) => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::{Value, json};

    use super::super::operation::Write;
    use super::super::routing::RoutingKey;
    use super::*;

    fn operation(partition_key: &str, id: &str, action: Action) -> Arc<Operation> {
        let write = Write::new(partition_key, id, action);
        Arc::new(Operation::new(write, RoutingKey::new(Vec::new())))
    }

    fn json_bytes(value: &Value) -> Bytes {
        value.to_string().into()
    }

    #[test]
    fn a_body_is_what_the_service_reads() {
        let document = json!({"id": "a", "n": 1.50});
        let patch = json!({"operations": [{"op": "set", "path": "/n", "value": 2}]});
        let mut guarded = operation("[\"x\\\"\",null]", "q\"\u{1}ä", Action::Delete);
        Arc::make_mut(&mut guarded).if_match = Some("\"e\"".into());
        let patch_action = Action::Patch {
            body: json_bytes(&patch),
            guarded: false,
        };
        let operations = [
            operation("[1]", "a", Action::Upsert(json_bytes(&document))),
            operation("[{}]", "a", Action::Create(json_bytes(&document))),
            operation("[true]", "a", Action::Replace(json_bytes(&document))),
            guarded,
            operation("[2]", "p", patch_action),
        ];
        let encoded = body(&operations);
        let expected = json!([
            {"operationType": "Upsert", "partitionKey": "[1]", "resourceBody": document},
            {"operationType": "Create", "partitionKey": "[{}]", "resourceBody": document},
            {"operationType": "Replace", "partitionKey": "[true]", "id": "a", "resourceBody": document},
            {"operationType": "Delete", "partitionKey": "[\"x\\\"\",null]", "id": "q\"\u{1}ä", "ifMatch": "\"e\""},
            {"operationType": "Patch", "partitionKey": "[2]", "id": "p", "resourceBody": patch},
        ]);
        assert_eq!(serde_json::from_slice::<Value>(&encoded).unwrap(), expected);
        let bound: usize = operations.iter().map(|one| one.size_bytes()).sum();
        assert!(encoded.len() <= bound + 2, "the buffer never grows");
    }

    fn two() -> [Arc<Operation>; 2] {
        let document = Bytes::from_static(b"{}");
        [
            operation("[1]", "a", Action::Upsert(document)),
            operation("[1]", "b", Action::Delete),
        ]
    }

    #[test]
    fn results_come_in_the_order_of_the_request() {
        let reply = r#"[{"statusCode":201,"requestCharge":5.5,"eTag":"\"1\"","resourceBody":{"id":"a"},"new":[1]},
            {"statusCode":429,"subStatusCode":3200,"requestCharge":0,"retryAfterMilliseconds":17,"message":"slow"}]"#;
        let results = results(&two(), reply.as_bytes()).unwrap();
        let written = OperationResult {
            status: 201,
            charge_ru: 5.5,
            etag: Some("\"1\"".into()),
            ..OperationResult::default()
        };
        let throttled = OperationResult {
            status: 429,
            sub_status: 3200,
            retry_after: Some(Duration::from_millis(17)),
            message: Some("slow".into()),
            ..OperationResult::default()
        };
        assert_eq!(results, [written, throttled]);
    }

    #[test]
    fn a_reply_that_does_not_fit_is_not_believed() {
        let good = r#"[{"statusCode":201,"eTag":"1"},{"statusCode":204}]"#;
        assert!(results(&two(), good.as_bytes()).is_ok());
        for end in 0..good.len() {
            let truncated = results(&two(), &good.as_bytes()[..end]);
            assert!(truncated.is_err(), "cut at {end}");
        }
        let wrong = [
            // Too few, too many, of another kind.
            (r#"[{"statusCode":201,"eTag":"1"}]"#, "1 results"),
            (
                r#"[{"statusCode":201},{"statusCode":204},{"statusCode":204}]"#,
                "3 results",
            ),
            ("[]", "0 results"),
            ("{}", "no array"),
            ("", "no array"),
            (
                r#"[{"statusCode":201,"eTag":"1"},{"statusCode":204}]]"#,
                "no array",
            ),
            (
                r#"[{"statusCode":201,"eTag":"1"},{"status":204}]"#,
                "no array",
            ),
            (
                r#"[{"statusCode":201,"eTag":"1"},{"statusCode":-1}]"#,
                "no array",
            ),
            (
                r#"[{"statusCode":201,"eTag":"1"},{"statusCode":0}]"#,
                "result 1 is 0",
            ),
            // Another order.
            (
                r#"[{"statusCode":204},{"statusCode":201,"eTag":"1"}]"#,
                "result 0 is 204",
            ),
            (
                r#"[{"statusCode":200},{"statusCode":200}]"#,
                "result 1 is 200",
            ),
            (
                r#"[{"statusCode":201,"eTag":"1"},{"statusCode":204,"eTag":"1"}]"#,
                "result 1 is 204",
            ),
        ];
        for (reply, why) in wrong {
            let said = results(&two(), reply.as_bytes()).unwrap_err();
            assert!(said.contains(why), "{reply}: {said}");
        }
    }
}
