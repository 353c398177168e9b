//! Against the embedded server, and against one that answers as it is told.

mod emulator;
mod scripted;

use std::sync::Arc;

use azure_core::credentials::Secret;
use azure_core::http::Url;
use bytes::Bytes;

use super::*;
use crate::cosmos::bulk::operation::{Action, DocumentKey};
use crate::cosmos::bulk::routing::RoutingKey;

/// A name that must be escaped in a path, and must not be in a signature.
const DATABASE: &str = "shop é";
const CONTAINER: &str = "all orders+";

fn wire_with(endpoint: &str, key: &str, gate: Gate, timeouts: Timeouts) -> Wire {
    let config = WireConfig {
        timeouts,
        ..WireConfig::default()
    };
    let signer = Signer::with_key(Secret::new(key.to_owned()));
    let account = Url::parse(endpoint).unwrap();
    Wire::new(&account, DATABASE, CONTAINER, signer, gate, config).unwrap()
}

fn open_gate() -> Gate {
    Gate::of(Arc::default())
}

fn operation(partition_key: &str, id: &str, action: Action) -> Arc<Operation> {
    routed(partition_key, id, action, RoutingKey::new(Vec::new()))
}

fn routed(partition_key: &str, id: &str, action: Action, to: RoutingKey) -> Arc<Operation> {
    let key = DocumentKey {
        partition_key: partition_key.into(),
        id: id.into(),
    };
    Arc::new(Operation::new(key, action, to))
}

fn bytes(value: serde_json::Value) -> Bytes {
    value.to_string().into()
}
