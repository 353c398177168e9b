//! What a request is about, for fault rules: the operation by name, and the database, container and partitions.
//!
//! This reads the same paths and headers as the routes, but refuses nothing: what it cannot read, it leaves out.

use hyper::Method;
use hyper::http::request::Parts;

use super::call::Call;
use super::dispatch::{is_query, split};
use super::headers;
use super::service::Service;
use crate::api::scope;
use crate::faults::{FaultOperation, Subject};
use crate::store::Container;

/// What a request is about.
#[derive(Debug, Default, PartialEq)]
pub struct Target {
    operation: Option<FaultOperation>,
    database: Option<String>,
    container: Option<String>,
    partitions: Vec<u32>,
}

impl Target {
    /// Reads a request; `with_partitions` asks for its partitions too.
    pub fn of(service: &Service, parts: &Parts, with_partitions: bool) -> Self {
        let call = Call {
            method: &parts.method,
            headers: &parts.headers,
            body: bytes::Bytes::new(),
        };
        let Ok(segments) = split(parts.uri.path()) else {
            return Self::default();
        };
        let segments: Vec<&str> = segments.iter().map(AsRef::as_ref).collect();
        let mut target = Self {
            operation: operation(&call, &segments),
            ..Self::default()
        };
        let ["dbs", db, rest @ ..] = segments.as_slice() else {
            return target;
        };
        // Paths may hold resource ids; rules hold names.
        let database = service.account.database(db);
        target.database = Some(match &database {
            Some(database) => database.id.clone(),
            None => (*db).to_owned(),
        });
        let ["colls", name, ..] = rest else {
            return target;
        };
        let container = database.and_then(|database| database.container(name));
        target.container = Some(match &container {
            Some(container) => container.id.clone(),
            None => (*name).to_owned(),
        });
        if with_partitions && let Some(container) = container {
            target.partitions = partitions(&container, &call, target.operation);
        }
        target
    }

    /// As rules look at it.
    pub fn subject(&self) -> Subject<'_> {
        Subject {
            operation: self.operation,
            database: self.database.as_deref(),
            container: self.container.as_deref(),
            partitions: &self.partitions,
        }
    }
}

fn operation(call: &Call<'_>, segments: &[&str]) -> Option<FaultOperation> {
    use FaultOperation as Op;
    Some(match (call.method, segments) {
        (_, []) => Op::Account,
        (_, ["dbs"] | ["dbs", _]) => Op::Databases,
        (_, ["dbs", _, "colls"] | ["dbs", _, "colls", _]) => Op::Containers,
        (_, ["offers", ..]) => Op::Offers,
        (method, ["dbs", _, "colls", _, rest @ ..]) => match (method, rest) {
            (_, ["pkranges"]) => Op::PkRanges,
            (&Method::POST, ["docs"]) => posted(call),
            (&Method::GET, ["docs"]) if call.header(&headers::A_IM).is_some() => Op::ChangeFeed,
            (&Method::GET, ["docs"]) => Op::ReadFeed,
            (&Method::GET, ["docs", _]) => Op::Read,
            (&Method::PUT, ["docs", _]) => Op::Replace,
            (&Method::PATCH, ["docs", _]) => Op::Patch,
            (&Method::DELETE, ["docs", _]) => Op::Delete,
            _ => return None,
        },
        _ => return None,
    })
}

fn posted(call: &Call<'_>) -> FaultOperation {
    if call.flag(&headers::IS_BATCH) {
        let atomic = call
            .header(&headers::BATCH_ATOMIC)
            .is_none_or(|value| value.eq_ignore_ascii_case("true"));
        if atomic {
            FaultOperation::Batch
        } else {
            FaultOperation::Bulk
        }
    } else if call.flag(&headers::IS_QUERY_PLAN) {
        FaultOperation::QueryPlan
    } else if is_query(call) {
        FaultOperation::Query
    } else if call.flag(&headers::IS_UPSERT) {
        FaultOperation::Upsert
    } else {
        FaultOperation::Create
    }
}

fn partitions(
    container: &Container,
    call: &Call<'_>,
    operation: Option<FaultOperation>,
) -> Vec<u32> {
    let addressed = call.header(&headers::PARTITION_KEY).is_some()
        || call.header(&headers::PARTITION_KEY_RANGE_ID).is_some();
    let feed = matches!(
        operation,
        Some(FaultOperation::Query | FaultOperation::ReadFeed | FaultOperation::ChangeFeed)
    );
    if !addressed && !feed {
        return Vec::new();
    }
    let map = container.map();
    scope::of(container, &map, call).map_or_else(
        |_| Vec::new(),
        |pieces| pieces.iter().map(|piece| piece.partition.id).collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(method: &str, path: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = hyper::Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn target(service: &Service, method: &str, path: &str, headers: &[(&str, &str)]) -> Target {
        Target::of(service, &parts(method, path, headers), true)
    }

    #[test]
    fn requests_have_the_names_of_their_routes() {
        let service = Service::for_tests(1);
        const DOCS: &str = "/dbs/a/colls/b/docs/";
        const DOC: &str = "/dbs/a/colls/b/docs/c";
        let batch = ("x-ms-cosmos-is-batch-request", "True");
        for (method, path, headers, name) in [
            ("GET", "/", vec![], "account"),
            ("POST", "/dbs", vec![], "databases"),
            ("DELETE", "/dbs/a", vec![], "databases"),
            ("POST", "/dbs/a/colls/", vec![], "containers"),
            ("PUT", "/dbs/a/colls/b", vec![], "containers"),
            ("GET", "/dbs/a/colls/b/pkranges", vec![], "pkranges"),
            ("POST", "/offers", vec![], "offers"),
            ("PUT", "/offers/o", vec![], "offers"),
            ("POST", DOCS, vec![], "create"),
            (
                "POST",
                DOCS,
                vec![("x-ms-documentdb-is-upsert", "true")],
                "upsert",
            ),
            ("PUT", DOC, vec![], "replace"),
            ("DELETE", DOC, vec![], "delete"),
            ("GET", DOC, vec![], "read"),
            ("PATCH", DOC, vec![], "patch"),
            (
                "POST",
                DOCS,
                vec![("x-ms-documentdb-isquery", "true")],
                "query",
            ),
            (
                "POST",
                DOCS,
                vec![("content-type", "application/query+json")],
                "query",
            ),
            (
                "POST",
                DOCS,
                vec![("x-ms-cosmos-is-query-plan-request", "true")],
                "query-plan",
            ),
            ("GET", DOCS, vec![], "read-feed"),
            (
                "GET",
                DOCS,
                vec![("a-im", "Incremental Feed")],
                "change-feed",
            ),
            ("POST", DOCS, vec![batch], "batch"),
            (
                "POST",
                DOCS,
                vec![batch, ("x-ms-cosmos-batch-atomic", "False")],
                "bulk",
            ),
        ] {
            let found = target(&service, method, path, &headers).operation;
            assert_eq!(
                found.map(FaultOperation::name),
                Some(name),
                "{method} {path}"
            );
        }
        for path in ["/other", "/dbs/a/users/u", "/dbs/a/colls/b/sprocs", "/%ff"] {
            assert_eq!(target(&service, "GET", path, &[]).operation, None, "{path}");
        }
    }

    #[test]
    fn names_and_partitions_are_those_of_the_container() {
        let service = Service::for_tests(4);
        let post = |path: &str, body: &'static str| {
            let reply = service
                .trusted(Method::POST, path, &[], body.into())
                .unwrap();
            serde_json::from_slice::<serde_json::Value>(reply.body()).unwrap()
        };
        post("/dbs", r#"{"id":"a b"}"#);
        let created = post(
            "/dbs/a%20b/colls",
            r#"{"id":"c","partitionKey":{"paths":["/pk"]}}"#,
        );
        let by_rid = created["_self"].as_str().unwrap();
        for path in ["/dbs/a%20b/colls/c/docs", &format!("/{by_rid}docs")] {
            let all = target(&service, "GET", path, &[]);
            assert_eq!(
                (all.database.as_deref(), all.container.as_deref()),
                (Some("a b"), Some("c"))
            );
            assert_eq!(all.partitions, [0, 1, 2, 3]);
            assert!(target(&service, "POST", path, &[]).partitions.is_empty());
            let by_id = [("x-ms-documentdb-partitionkeyrangeid", "2")];
            assert_eq!(target(&service, "GET", path, &by_id).partitions, [2]);
            let gone = [("x-ms-documentdb-partitionkeyrangeid", "9")];
            assert!(target(&service, "GET", path, &gone).partitions.is_empty());
            let by_key = [("x-ms-documentdb-partitionkey", "[\"x\"]")];
            let write = target(&service, "POST", path, &by_key).partitions;
            assert_eq!(write.len(), 1);
            assert_eq!(target(&service, "GET", path, &by_key).partitions, write);
        }
        let unknown = target(&service, "GET", "/dbs/x/colls/y/docs/z", &[]);
        assert_eq!(
            (unknown.database.as_deref(), unknown.container.as_deref()),
            (Some("x"), Some("y"))
        );
    }
}
