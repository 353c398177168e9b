//! A server without a socket, for fuzzing: no promise is made about it.

use std::net::{IpAddr, Ipv4Addr};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response};

use crate::admin;
use crate::config::EmulatorConfig;
use crate::http::service::Service;
use crate::http::{ApiError, Call, dispatch};
use crate::server::{StartError, service};

/// A server that is called instead of connected to.
#[derive(Debug)]
pub struct DirectServer(Service);

impl DirectServer {
    /// A server; what concerns threads and sockets in the configuration has no effect.
    ///
    /// # Errors
    /// As for [`crate::Emulator::start`].
    pub fn new(config: &EmulatorConfig) -> Result<Self, StartError> {
        config.validate().map_err(StartError::Config)?;
        service(config, "http://127.0.0.1:1".to_owned()).map(Self)
    }

    /// Answers a request as if it came from the same machine, was signed, and met no fault. An admin request for later
    /// needs a tokio runtime around the call.
    pub fn answer(&self, request: Request<Bytes>) -> Response<Full<Bytes>> {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path();
        let reply = if admin::owns(path) {
            let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
            admin::answer(&self.0, here, &parts.method, path, &body)
        } else {
            let call = Call {
                method: &parts.method,
                headers: &parts.headers,
                body,
            };
            dispatch::route(&self.0, &call, path)
        };
        self.0
            .respond(&parts, reply.unwrap_or_else(ApiError::into_reply))
    }
}
