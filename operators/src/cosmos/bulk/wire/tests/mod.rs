//! Against the embedded server, and against one that answers as it is told.

mod emulator;
mod scripted;

use std::sync::Arc;

use azure_core::credentials::Secret;
use azure_core::http::Url;
use bytes::Bytes;

use super::*;
use crate::cosmos::bulk::operation::{Action, Write};
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
    Gate::new(|| Ok(()))
}

fn operation(partition_key: &str, id: &str, action: Action) -> Arc<Operation> {
    routed(partition_key, id, action, RoutingKey::new(Vec::new()))
}

fn routed(partition_key: &str, id: &str, action: Action, to: RoutingKey) -> Arc<Operation> {
    let write = Write::new(partition_key, id, action);
    Arc::new(Operation::new(write, to))
}

fn bytes(value: serde_json::Value) -> Bytes {
    value.to_string().into()
}
