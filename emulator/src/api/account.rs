//! The account read: where to find the account, and what it promises.

use hyper::StatusCode;
use serde_json::json;

use crate::http::Reply;
use crate::ru::Charge;

/// The only region; the name is the first that clients would guess.
const REGION: &str = "South Central US";

/// `GET /`.
pub fn read(endpoint: &str) -> Reply {
    let location = json!([{"name": REGION, "databaseAccountEndpoint": format!("{endpoint}/")}]);
    let policy = json!({"asyncReplication": false, "minReplicaSetSize": 1, "maxReplicasetSize": 4});
    let body = json!({
        "id": "localhost",
        "_rid": "localhost",
        "_self": "",
        "media": "//media/",
        "addresses": "//addresses/",
        "_dbs": "//dbs/",
        "writableLocations": location,
        "readableLocations": location,
        "enableMultipleWriteLocations": false,
        "continuousBackupEnabled": false,
        "enableNRegionSynchronousCommit": false,
        "enablePerPartitionFailoverBehavior": false,
        "userReplicationPolicy": policy,
        "systemReplicationPolicy": policy,
        "userConsistencyPolicy": {"defaultConsistencyLevel": "Session"},
        "readPolicy": {"primaryReadCoefficient": 1, "secondaryReadCoefficient": 1},
        "queryEngineConfiguration": "{}",
    });
    Reply::json(StatusCode::OK, &body).charge(Charge::METADATA)
}
