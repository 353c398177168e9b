//! Master-key signatures, and one Entra token.
//!
//! A client signs `method \n resource type \n resource link \n date \n \n` (method and date in lower case) with
//! HMAC-SHA256. The link is the path of the resource, or of its parent for a feed; clients differ in whether names are
//! percent-encoded and whether resource ids are in lower case, so a few readings of the same path are tried. The
//! comparison takes constant time.
//!
//! A client that writes or reads a feed sends the same signature over and over for a second, until the date changes: the
//! last right one of a path is remembered, and a request that repeats it is not computed again.
//!
//! An Entra token is no signature: it is compared with the one that the server was told, if it was, and allows everything
//! that the key does.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use hyper::Method;
use hyper::header::{AUTHORIZATION, DATE};
use parking_lot::Mutex;
use percent_encoding::percent_decode_str;
use sha2::Sha256;
use xxhash_rust::xxh3::xxh3_64;

use super::call::Call;
use super::error::ApiError;
use super::headers;

/// Paths whose last right signature is remembered, a power of two: more than a few clients use at a time.
const REMEMBERED: usize = 64;

/// The account key, ready to check signatures, and the Entra token that is as good as it.
pub struct Authorizer {
    mac: Hmac<Sha256>,
    entra_token: Option<String>,
    /// By path; two paths that share a place forget each other.
    remembered: Box<[Mutex<Option<Signed>>]>,
}

/// A request that was signed right, as far as the signature covers it.
struct Signed {
    method: Method,
    path: Box<str>,
    date: Box<str>,
    /// The authorization header.
    authorization: Box<str>,
}

impl Signed {
    /// Whether a request is the same; this takes as long for a wrong signature as for a right one.
    fn covers(&self, method: &Method, path: &str, date: &str, authorization: &str) -> bool {
        self.method == *method
            && *self.path == *path
            && *self.date == *date
            && same(&self.authorization, authorization)
    }
}

/// Whether a secret is what was given; this takes as long for a wrong one as for the right one of its length.
fn same(known: &str, given: &str) -> bool {
    let (known, given) = (known.as_bytes(), given.as_bytes());
    let differences = known
        .iter()
        .zip(given)
        .fold(0, |found, (known, given)| found | (known ^ given));
    known.len() == given.len() && differences == 0
}

impl std::fmt::Debug for Authorizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authorizer")
    }
}

impl Authorizer {
    /// Reads an account key; `None` if it is not base64 or empty.
    pub fn new(key: &str) -> Option<Self> {
        let bytes = STANDARD
            .decode(key)
            .ok()
            .filter(|bytes| !bytes.is_empty())?;
        Some(Self {
            mac: Hmac::new_from_slice(&bytes).ok()?,
            entra_token: None,
            remembered: (0..REMEMBERED).map(|_| Mutex::default()).collect(),
        })
    }

    /// Accepts this Entra token too.
    pub fn with_entra_token(self, entra_token: Option<String>) -> Self {
        Self {
            entra_token,
            ..self
        }
    }

    /// Checks a call for `path`.
    ///
    /// # Errors
    /// 401, with the reason.
    pub fn check(&self, call: &Call<'_>, path: &str) -> Result<(), ApiError> {
        let header = call.header(&AUTHORIZATION).ok_or_else(|| {
            ApiError::unauthorized(
                "the authorization header is missing: sign requests with the account key",
            )
        })?;
        let date = call
            .header(&headers::MS_DATE)
            .or_else(|| call.header(&DATE));
        // Paths of single items hardly recur within a second.
        let (Some(date), true) = (date, is_feed(path)) else {
            return self.check_signature(call.method, path, date, header);
        };
        let place = xxh3_64(path.as_bytes()) as usize % REMEMBERED;
        let repeats = |signed: &Signed| signed.covers(call.method, path, date, header);
        if self.remembered[place].lock().as_ref().is_some_and(repeats) {
            return Ok(());
        }
        self.check_signature(call.method, path, Some(date), header)?;
        *self.remembered[place].lock() = Some(Signed {
            method: call.method.clone(),
            path: path.into(),
            date: date.into(),
            authorization: header.into(),
        });
        Ok(())
    }

    fn check_signature(
        &self,
        method: &Method,
        path: &str,
        date: Option<&str>,
        header: &str,
    ) -> Result<(), ApiError> {
        let token = percent_decode_str(header).decode_utf8_lossy();
        let (mut kind, mut signature) = ("", "");
        for part in token.split('&') {
            match part.split_once('=') {
                Some(("type", value)) => kind = value,
                Some(("sig", value)) => signature = value,
                _ => {}
            }
        }
        if kind.eq_ignore_ascii_case("aad") {
            return self.check_entra_token(signature);
        }
        if !kind.eq_ignore_ascii_case("master") {
            return Err(ApiError::unauthorized(
                "the authorization token must be of type master or aad: use the account key",
            ));
        }
        let signature = STANDARD.decode(signature).map_err(|_| {
            ApiError::unauthorized("the signature in the authorization header is not base64")
        })?;
        let date = date.ok_or_else(|| {
            ApiError::unauthorized("the x-ms-date header is missing: it is part of the signature")
        })?;
        if self.signed(method.as_str(), path, date, &signature) {
            return Ok(());
        }
        Err(ApiError::unauthorized(
            "the signature does not match this server's account key: check the key that the client uses",
        ))
    }

    fn check_entra_token(&self, token: &str) -> Result<(), ApiError> {
        match &self.entra_token {
            Some(known) if same(known, token) => Ok(()),
            Some(_) => Err(ApiError::unauthorized(
                "the Entra token is not the one that this server was started with",
            )),
            None => Err(ApiError::unauthorized(
                "this server was started without an Entra token: use the account key, or start it with --entra-token",
            )),
        }
    }

    fn signed(&self, method: &str, path: &str, date: &str, signature: &[u8]) -> bool {
        let (method, date) = (method.to_ascii_lowercase(), date.to_ascii_lowercase());
        let verify = |kind: &str, link: &str| {
            let mut mac = self.mac.clone();
            for part in [&method, "\n", kind, "\n", link, "\n", &date, "\n\n"] {
                mac.update(part.as_bytes());
            }
            mac.verify_slice(signature).is_ok()
        };
        let path = path.trim_matches('/');
        let (parent, last) = path.rsplit_once('/').unwrap_or(("", path));
        let (kind, link) = if is_feed(path) {
            (last, parent)
        } else {
            (parent.rsplit('/').next().unwrap_or(""), path)
        };
        if verify(kind, link) {
            return true;
        }
        let decoded = percent_decode_str(link).decode_utf8_lossy();
        let leaf = decoded
            .rsplit('/')
            .next()
            .unwrap_or("")
            .to_ascii_lowercase();
        verify(kind, &decoded) || verify(kind, &leaf) || verify(kind, &decoded.to_ascii_lowercase())
    }
}

/// Whether a path is of a feed of resources, and not of one of them.
fn is_feed(path: &str) -> bool {
    path.trim_matches('/').split('/').count() % 2 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_depend_on_every_part() {
        let authorizer = Authorizer::new("a2V5").unwrap();
        let sign = |text: &str| {
            let mut mac = authorizer.mac.clone();
            mac.update(text.as_bytes());
            mac.finalize().into_bytes().to_vec()
        };
        let date = "Thu, 01 Jan 1970 00:00:00 GMT";
        let signature = sign("get\ndocs\ndbs/a/colls/b\nthu, 01 jan 1970 00:00:00 gmt\n\n");
        assert!(authorizer.signed("GET", "/dbs/a/colls/b/docs/", date, &signature));
        assert!(!authorizer.signed("POST", "/dbs/a/colls/b/docs", date, &signature));
        assert!(!authorizer.signed("GET", "/dbs/a/colls/c/docs", date, &signature));
        assert!(!authorizer.signed("GET", "/dbs/a/colls/b/docs", "x", &signature));
        assert!(!authorizer.signed("GET", "/dbs/a/colls/b/docs", date, &signature[1..]));
        let spaced = sign("get\ndocs\ndbs/a/colls/b/docs/x y\nd\n\n");
        assert!(authorizer.signed("GET", "/dbs/a/colls/b/docs/x%20y", "D", &spaced));
        let root = sign("get\n\n\nd\n\n");
        assert!(authorizer.signed("GET", "/", "d", &root));
        assert!(Authorizer::new("not base64!").is_none());
        assert!(Authorizer::new("").is_none());
    }

    #[test]
    fn a_remembered_signature_covers_nothing_else() {
        use bytes::Bytes;
        use hyper::header::{HeaderMap, HeaderValue};

        let authorizer = Authorizer::new("a2V5").unwrap();
        let check = |method: Method, path: &str, date: &str, authorization: &str| {
            let mut map = HeaderMap::new();
            map.insert(AUTHORIZATION, HeaderValue::from_str(authorization).unwrap());
            map.insert(&headers::MS_DATE, HeaderValue::from_str(date).unwrap());
            let call = Call {
                method: &method,
                headers: &map,
                body: Bytes::new(),
            };
            authorizer.check(&call, path).is_ok()
        };
        let sign = |text: &str| {
            let mut mac = authorizer.mac.clone();
            mac.update(text.as_bytes());
            let signature = STANDARD.encode(mac.finalize().into_bytes());
            format!("type=master&ver=1.0&sig={signature}")
        };
        let (path, right) = (
            "/dbs/a/colls/b/docs",
            sign("post\ndocs\ndbs/a/colls/b\nd\n\n"),
        );
        let longer = format!("{right}&x=");
        let wrong = right.replace("ver=1.0", "ver=1.1").replace("sig=", "sig=A");
        for _ in 0..3 {
            assert!(check(Method::POST, path, "d", &right));
            assert!(!check(Method::GET, path, "d", &right));
            assert!(!check(Method::POST, "/dbs/a/colls/c/docs", "d", &right));
            assert!(!check(Method::POST, path, "e", &right));
            assert!(!check(Method::POST, path, "d", &wrong));
            // Right as well, though it is not what is remembered.
            assert!(check(Method::POST, path, "d", &longer));
        }
    }
}
