//! Who is asking: the `authorization` header of a request.
//!
//! An account key signs method, resource and date, and the date has a resolution of one second: within a second, requests to
//! one resource have the same signature, which is computed once. A Microsoft Entra token is good for any request until it
//! expires; it is asked for by one request at a time, and again some minutes before its end.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use azure_core::credentials::{AccessToken, Secret, TokenCredential};
use azure_core::hmac::hmac_sha256;
use azure_core::time::{OffsetDateTime, to_rfc7231};
use hyper::header::HeaderValue;
use parking_lot::Mutex;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tidefeed_runtime::{Context, Error, ErrorKind, Result};

/// What a token must be good for.
const SCOPE: &str = "https://cosmos.azure.com/.default";

/// A token is renewed this long before it expires.
const RENEW_BEFORE_EXPIRY: Duration = Duration::from_secs(300);

/// What is escaped in a signature: base64 has `+`, `/` and `=`, tokens have none of them.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_');

/// What a request is about, as signatures name it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Resource<'a> {
    /// Its type, `docs` for example; empty for the account.
    pub(crate) kind: &'static str,
    /// The path of the resource, or of its parent if it is a feed, without slashes at the ends and not percent-encoded.
    pub(crate) link: &'a str,
}

/// The headers by which the service knows who is asking.
#[derive(Clone, Debug)]
pub(crate) struct Authorization {
    /// `x-ms-date`.
    pub(crate) date: HeaderValue,
    /// `authorization`; it is not printed.
    pub(crate) value: HeaderValue,
}

/// Signs requests.
pub(crate) struct Signer(Proof);

enum Proof {
    Key {
        key: Secret,
        last: Mutex<Option<Signed>>,
    },
    Token {
        credential: Arc<dyn TokenCredential>,
        /// Held while a token is being asked for, so that only one request asks.
        held: tokio::sync::Mutex<Option<AccessToken>>,
    },
}

/// The last signature.
struct Signed {
    second: i64,
    method: &'static str,
    kind: &'static str,
    link: Box<str>,
    authorization: Authorization,
}

impl Signer {
    /// Signs with an account key, in base64.
    pub(crate) fn with_key(key: Secret) -> Self {
        Signer(Proof::Key {
            key,
            last: Mutex::default(),
        })
    }

    /// Shows tokens of a Microsoft Entra identity.
    pub(crate) fn with_token(credential: Arc<dyn TokenCredential>) -> Self {
        Signer(Proof::Token {
            credential,
            held: tokio::sync::Mutex::default(),
        })
    }

    /// The headers of a request that is sent at `now`. `method` is in lower case.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`] when the identity gets no token; [`ErrorKind::Config`] when the account key is no base64.
    pub(crate) async fn authorize(
        &self,
        now: OffsetDateTime,
        method: &'static str,
        resource: Resource<'_>,
    ) -> Result<Authorization> {
        match &self.0 {
            Proof::Key { key, last } => {
                let mut last = last.lock();
                if let Some(signed) = &*last
                    && signed.covers(now, method, resource)
                {
                    return Ok(signed.authorization.clone());
                }
                let authorization = sign(key, now, method, resource)?;
                *last = Some(Signed {
                    second: now.unix_timestamp(),
                    method,
                    kind: resource.kind,
                    link: resource.link.into(),
                    authorization: authorization.clone(),
                });
                Ok(authorization)
            }
            Proof::Token { credential, held } => {
                let mut held = held.lock().await;
                let token = match held.take() {
                    Some(token) if now + RENEW_BEFORE_EXPIRY < token.expires_on => token,
                    _ => credential
                        .get_token(&[SCOPE], None)
                        .await
                        .context(ErrorKind::Denied, || {
                            "cannot get a token for Cosmos DB: check the identity and its role assignment"
                        })?,
                };
                let authorization = headers(&to_rfc7231(&now), "aad", token.token.secret());
                *held = Some(token);
                authorization
            }
        }
    }

    /// Forgets what the service has refused: the next request is signed, or gets a token, anew.
    pub(crate) async fn renew(&self) {
        match &self.0 {
            Proof::Key { last, .. } => *last.lock() = None,
            Proof::Token { held, .. } => *held.lock().await = None,
        }
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Proof::Key { .. } => "Signer(Key)",
            Proof::Token { .. } => "Signer(Token)",
        })
    }
}

impl Signed {
    fn covers(&self, now: OffsetDateTime, method: &str, resource: Resource<'_>) -> bool {
        self.second == now.unix_timestamp()
            && self.method == method
            && self.kind == resource.kind
            && *self.link == *resource.link
    }
}

fn sign(
    key: &Secret,
    now: OffsetDateTime,
    method: &str,
    resource: Resource<'_>,
) -> Result<Authorization> {
    let date = to_rfc7231(&now);
    let Resource { kind, link } = resource;
    let text = format!(
        "{method}\n{kind}\n{link}\n{}\n\n",
        date.to_ascii_lowercase()
    );
    // The cause is left out: it quotes a byte of the key.
    let signature = hmac_sha256(&text, key).map_err(|_| {
        let what = "the account key is malformed: it must be base64, copied whole from the account";
        Error::new(ErrorKind::Config, what)
    })?;
    headers(&date, "master", &signature)
}

fn headers(date: &str, scheme: &str, signature: &str) -> Result<Authorization> {
    let signature = utf8_percent_encode(signature, ESCAPED);
    let text = format!("type%3D{scheme}%26ver%3D1.0%26sig%3D{signature}");
    let what = || "a signature or date is no possible header";
    let mut value = HeaderValue::from_maybe_shared(bytes::Bytes::from(text))
        .map_err(|_| Error::internal(what()))?;
    value.set_sensitive(true);
    let date = HeaderValue::from_str(date).context(ErrorKind::Internal, what)?;
    Ok(Authorization { date, value })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use async_trait::async_trait;
    use azure_core::credentials::TokenRequestOptions;

    use super::*;

    const DOCUMENTS: Resource<'static> = Resource {
        kind: "docs",
        link: "dbs/shop/colls/orders",
    };

    fn at(second: i64) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(second).unwrap()
    }

    fn key(text: &'static str) -> Signer {
        Signer::with_key(Secret::new(text))
    }

    /// The expected signature is computed elsewhere: `openssl dgst -sha256 -hmac secret -binary | base64`.
    #[tokio::test]
    async fn a_signature_is_the_documented_one() {
        let signer = key("c2VjcmV0");
        let signed = signer
            .authorize(at(1_767_225_600), "post", DOCUMENTS)
            .await
            .unwrap();
        assert_eq!(signed.date, "Thu, 01 Jan 2026 00:00:00 GMT");
        assert_eq!(
            signed.value,
            "type%3Dmaster%26ver%3D1.0%26sig%3DVuT3g4SkK6HhQMFEmDUEegRDsk8b1FCQxASx7v3YwO8%3D"
        );
    }

    #[tokio::test]
    async fn a_signature_is_good_for_its_second_and_resource() {
        let signer = key("c2VjcmV0");
        let sign = async |second, method, resource| {
            let oracle = key("c2VjcmV0")
                .authorize(at(second), method, resource)
                .await
                .unwrap();
            for _ in 0..2 {
                let signed = signer
                    .authorize(at(second), method, resource)
                    .await
                    .unwrap();
                assert_eq!(signed.value, oracle.value);
                assert_eq!(signed.date, oracle.date);
            }
            oracle.value
        };
        let ranges = Resource {
            kind: "pkranges",
            ..DOCUMENTS
        };
        let other = Resource {
            link: "dbs/shop/colls/other",
            ..DOCUMENTS
        };
        let values = [
            sign(1, "post", DOCUMENTS).await,
            sign(2, "post", DOCUMENTS).await,
            sign(2, "get", DOCUMENTS).await,
            sign(2, "get", ranges).await,
            sign(2, "get", other).await,
        ];
        let different: std::collections::HashSet<_> = values.iter().map(|v| v.as_bytes()).collect();
        assert_eq!(different.len(), values.len());
    }

    #[tokio::test]
    async fn nothing_prints_a_secret() {
        let signer = key("c2VjcmV0");
        let signed = signer.authorize(at(0), "post", DOCUMENTS).await.unwrap();
        assert!(!format!("{signer:?}").contains("c2V"));
        assert!(!format!("{signed:?}").contains("sig"), "{signed:?}");
        let error = key("not*base64*key")
            .authorize(at(0), "post", DOCUMENTS)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(!format!("{error:?}").contains("base64*key"));
        let tokens = Signer::with_token(Arc::new(Tokens::default()));
        let signed = tokens.authorize(at(0), "post", DOCUMENTS).await.unwrap();
        assert!(!format!("{tokens:?} {signed:?}").contains("token-"));
    }

    /// Gives out `token-1`, `token-2`, and so on, each good for an hour from the epoch on.
    #[derive(Debug, Default)]
    struct Tokens {
        asked: AtomicU64,
        refuse: bool,
    }

    #[async_trait]
    impl TokenCredential for Tokens {
        async fn get_token(
            &self,
            scopes: &[&str],
            _: Option<TokenRequestOptions<'_>>,
        ) -> azure_core::Result<AccessToken> {
            assert_eq!(scopes, [SCOPE]);
            tokio::task::yield_now().await;
            let number = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
            if self.refuse {
                let kind = azure_core::error::ErrorKind::Credential;
                return Err(azure_core::Error::with_message(kind, "no such identity"));
            }
            let expires = at(3_600 * number as i64);
            Ok(AccessToken::new(format!("token-{number}"), expires))
        }
    }

    #[tokio::test]
    async fn a_token_is_kept_until_shortly_before_its_end() {
        let tokens = Arc::new(Tokens::default());
        let signer = Signer::with_token(tokens.clone());
        let value = async |second| {
            let signed = signer
                .authorize(at(second), "post", DOCUMENTS)
                .await
                .unwrap();
            signed.value.to_str().unwrap().to_owned()
        };
        let expected = "type%3Daad%26ver%3D1.0%26sig%3Dtoken-1";
        let (a, b, c) = tokio::join!(value(0), value(1), value(3_299));
        assert_eq!([a, b, c], [expected; 3]);
        assert_eq!(
            tokens.asked.load(Ordering::SeqCst),
            1,
            "only one request asked"
        );
        assert!(value(3_300).await.ends_with("token-2"));
        signer.renew().await;
        assert!(value(3_301).await.ends_with("token-3"));
    }

    #[tokio::test]
    async fn an_identity_without_a_token_is_denied() {
        let tokens = Tokens {
            refuse: true,
            ..Tokens::default()
        };
        let signer = Signer::with_token(Arc::new(tokens));
        let error = signer
            .authorize(at(0), "post", DOCUMENTS)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert!(
            error.report().contains("role assignment: "),
            "{}",
            error.report()
        );
    }
}
