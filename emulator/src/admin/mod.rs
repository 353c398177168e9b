//! The admin API, beside the data API: faults, the state of the server, its clock.
//!
//! Its paths begin with `/_emulator/`. Requests need no signature and meet no faults, so that rules can always be taken
//! back; they are answered to clients on the same machine only. The table of routes below is the list of what exists.

mod clock;
mod faults;
mod status;
mod topology;

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use hyper::Method;

use crate::http::dispatch::split;
use crate::http::service::Service;
use crate::http::{ApiError, ApiResult};
use crate::store::Container;

/// What a handler is called with.
struct Admin<'a> {
    service: &'a Service,
    /// What stands in the path for the names in braces, in their order.
    names: Vec<Cow<'a, str>>,
    body: &'a [u8],
}

struct Route {
    method: Method,
    path: &'static str,
    handler: fn(&Admin<'_>) -> ApiResult,
}

const fn route(method: Method, path: &'static str, handler: fn(&Admin<'_>) -> ApiResult) -> Route {
    Route {
        method,
        path,
        handler,
    }
}

static ROUTES: [Route; 10] = [
    route(Method::GET, "/_emulator/status", status::read),
    route(Method::GET, "/_emulator/faults", faults::read),
    route(Method::PUT, "/_emulator/faults", faults::replace),
    route(Method::DELETE, "/_emulator/faults", faults::clear),
    route(Method::GET, "/_emulator/clock", clock::read),
    route(Method::POST, "/_emulator/clock", clock::advance),
    route(
        Method::GET,
        "/_emulator/dbs/{db}/colls/{coll}",
        status::read_container,
    ),
    route(
        Method::POST,
        "/_emulator/dbs/{db}/colls/{coll}/ranges/{id}/split",
        topology::split,
    ),
    route(
        Method::PUT,
        "/_emulator/dbs/{db}/colls/{coll}/ranges/{id}/throughput",
        topology::limit,
    ),
    route(
        Method::POST,
        "/_emulator/dbs/{db}/colls/{coll}/merge",
        topology::merge,
    ),
];

impl Route {
    /// The names that `segments` give to this path's braces, if they fit.
    fn matched<'a>(&self, segments: &[Cow<'a, str>]) -> Option<Vec<Cow<'a, str>>> {
        let own = self.path[1..].split('/');
        if own.clone().count() != segments.len() {
            return None;
        }
        let mut names = Vec::new();
        for (own, given) in own.zip(segments) {
            if own.starts_with('{') {
                names.push(given.clone());
            } else if own != given {
                return None;
            }
        }
        Some(names)
    }
}

/// Whether a path belongs to the admin API.
pub fn owns(path: &str) -> bool {
    path.strip_prefix("/_emulator")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Carries out an admin request of a client at `peer`.
///
/// # Errors
/// 403 for a client on another machine, 404 and 405 for what does not exist, 400 for a bad body.
pub fn answer(
    service: &Service,
    peer: IpAddr,
    method: &Method,
    path: &str,
    body: &[u8],
) -> ApiResult {
    if !peer.to_canonical().is_loopback() {
        return Err(ApiError::forbidden(
            "the admin API answers clients on the same machine only: connect over loopback",
        ));
    }
    let segments = split(path)?;
    let matching = || {
        ROUTES
            .iter()
            .filter_map(|route| Some((route, route.matched(&segments)?)))
    };
    match matching().find(|(route, _)| route.method == *method) {
        Some((route, names)) => (route.handler)(&Admin {
            service,
            names,
            body,
        }),
        None if matching().next().is_some() => {
            let mut error = ApiError::method_not_allowed(method.as_str(), path);
            let methods: Vec<&str> = matching().map(|(route, _)| route.method.as_str()).collect();
            error.message = format!("{path} takes {}, not {method}", methods.join(", "));
            Err(error)
        }
        None => {
            let mut error = ApiError::not_found(path);
            let known: Vec<String> = ROUTES
                .iter()
                .map(|route| format!("{} {}", route.method, route.path))
                .collect();
            error.message = format!("{path} does not exist, but these do: {}", known.join(", "));
            Err(error)
        }
    }
}

impl Admin<'_> {
    /// The container that the path names first and second.
    fn container(&self) -> Result<Arc<Container>, ApiError> {
        let [db, name, ..] = self.names.as_slice() else {
            return Err(ApiError::not_found("a container without a name"));
        };
        let database = self
            .service
            .account
            .database(db)
            .ok_or_else(|| ApiError::not_found(format!("database {db}")))?;
        database
            .container(name)
            .ok_or_else(|| ApiError::not_found(format!("container {name}")))
    }

    /// The body, which must be exactly a `T`.
    fn parse<'de, T: serde::Deserialize<'de>>(&'de self) -> Result<T, ApiError> {
        serde_json::from_slice(self.body).map_err(|error| {
            ApiError::bad_request(format!("the body is not what this request takes: {error}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(peer: &str, method: Method, path: &str) -> (u16, String) {
        let peer = peer.parse().unwrap();
        let error = answer(&Service::for_tests(1), peer, &method, path, b"").unwrap_err();
        (error.status.as_u16(), error.message)
    }

    #[test]
    fn only_loopback_clients_are_answered() {
        let service = Service::for_tests(1);
        for (peer, allowed) in [
            ("127.0.0.1", true),
            ("127.8.9.1", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("10.0.0.1", false),
            ("::ffff:10.0.0.1", false),
            ("fe80::1", false),
        ] {
            let reply = answer(
                &service,
                peer.parse().unwrap(),
                &Method::GET,
                "/_emulator/status",
                b"",
            );
            assert_eq!(reply.is_ok(), allowed, "{peer}");
        }
        assert_eq!(refused("10.0.0.1", Method::GET, "/_emulator/x").0, 403);
    }

    #[test]
    fn what_does_not_exist_names_what_does() {
        let (status, message) = refused("::1", Method::GET, "/_emulator/fault");
        assert_eq!(status, 404);
        assert!(message.contains("PUT /_emulator/faults"), "{message}");
        let (status, message) = refused("::1", Method::POST, "/_emulator/faults/");
        assert_eq!(status, 405);
        assert!(message.contains("GET, PUT, DELETE"), "{message}");
    }

    #[test]
    fn its_paths_are_told_from_those_of_data() {
        assert!(owns("/_emulator") && owns("/_emulator/faults"));
        assert!(!owns("/_emulators") && !owns("/dbs/_emulator") && !owns("/"));
    }
}
