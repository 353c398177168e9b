//! What a request to an object store has come to: which kind of error it is, and whether it may have been carried out.
//!
//! Of an answer only its status and its code are told, never its text: S3 repeats session tokens and signed requests there.

use std::error::Error as StdError;

use crate::ErrorKind;

/// Where a client without credentials asks the machine for an identity; no path of an object store.
const IDENTITY: [&str; 2] = ["/latest/api/token", "/metadata/identity/oauth2/token"];

/// A request that a remote store has refused, or that did not reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) kind: ErrorKind,
    /// What happened, and what to do about it.
    pub(super) why: String,
    /// It may have been carried out, and nobody has tried it again.
    pub(super) in_doubt: bool,
}

impl Failure {
    /// `None` for what is no failure of a remote store, as an error of the local disk.
    pub(super) fn of(error: &object_store::Error) -> Option<Failure> {
        let mut next: Option<&(dyn StdError + 'static)> = Some(error);
        let mut transport = None;
        while let Some(error) = next {
            let text = error.to_string();
            if IDENTITY.iter().any(|path| text.contains(path)) {
                return Some(unidentified());
            }
            if let Some((status, code)) = parse_answer(&text) {
                return Some(answered(status, &code));
            }
            transport = transport.or_else(|| interrupted(error));
            next = error.source();
        }
        transport
    }

    /// Whether what is missing is the bucket or container, not an object in it.
    pub(super) fn store_missing(&self) -> bool {
        self.kind == ErrorKind::NotFound
            && ["NoSuchBucket", "ContainerNotFound"]
                .iter()
                .any(|code| self.why.contains(code))
    }
}

fn unidentified() -> Failure {
    Failure {
        kind: ErrorKind::Denied,
        why: "there are no credentials in the environment, and this machine has no identity that would do: set \
              AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AZURE_STORAGE_ACCOUNT_KEY"
            .to_owned(),
        in_doubt: false,
    }
}

fn answered(status: u16, code: &str) -> Failure {
    let kind = match (status, code) {
        (401 | 403, _) => ErrorKind::Denied,
        (_, "AccessDenied" | "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired") => {
            ErrorKind::Denied
        }
        (404, _) => ErrorKind::NotFound,
        // S3 answers with a redirection what another region has.
        (300..=399, _) | (_, "AuthorizationHeaderMalformed") => ErrorKind::Config,
        // An error in an answer of success is S3's way to say that it gave up midway.
        (200..=299 | 408 | 429 | 500.., _) => ErrorKind::Unreachable,
        _ => ErrorKind::Rejected,
    };
    let advice = match kind {
        ErrorKind::Denied => ": check the credentials in the environment and what they permit",
        ErrorKind::NotFound => ": create the bucket or container, or correct its name",
        ErrorKind::Config => ": set AWS_REGION to the region of the bucket",
        ErrorKind::Unreachable => ": start again when the store is well",
        _ => "",
    };
    let code = if code.is_empty() {
        ""
    } else {
        &format!(" {code}")
    };
    Failure {
        kind,
        why: format!("the store answered {status}{code}{advice}"),
        in_doubt: false,
    }
}

/// Status and code of an answer that is no success, from the text of the client's error, which is all that it gives away.
fn parse_answer(text: &str) -> Option<(u16, String)> {
    let between = |open: &str, close: &str| Some(text.split_once(open)?.1.split_once(close)?.0);
    let code = between("<Code>", "</Code>")
        .or_else(|| between("(code: ", ")"))
        .unwrap_or_default();
    let plain = !code.is_empty() && code.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let code = if plain { code } else { "" };
    if text.contains("Server returned error response: ") || text.contains("request failed for key ")
    {
        return Some((200, code.to_owned()));
    }
    if text.contains("Received redirect without LOCATION") {
        return Some((301, code.to_owned()));
    }
    let after = text.split_once("Server returned non-2xx status code: ")?.1;
    Some((after.get(..3)?.parse().ok()?, code.to_owned()))
}

#[cfg(not(feature = "cloud"))]
fn interrupted(_: &(dyn StdError + 'static)) -> Option<Failure> {
    None
}

/// What kept a request from its answer.
#[cfg(feature = "cloud")]
fn interrupted(error: &(dyn StdError + 'static)) -> Option<Failure> {
    use object_store::client::{HttpError, HttpErrorKind};

    let error = error.downcast_ref::<HttpError>()?;
    // The last cause says most, as `connection refused`; none of them has the URL in it.
    let mut cause: &dyn StdError = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    Some(Failure {
        kind: ErrorKind::Unreachable,
        why: format!(
            "the store did not answer ({cause}): check that the endpoint is right and reachable"
        ),
        // The other kinds were tried again by the client already.
        in_doubt: !matches!(
            error.kind(),
            HttpErrorKind::Connect | HttpErrorKind::Request
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(text: &str) -> object_store::Error {
        object_store::Error::Generic {
            store: "test",
            source: text.into(),
        }
    }

    #[test]
    fn an_answer_is_told_by_status_and_code_alone() {
        let body = "<Error><Code>SignatureDoesNotMatch</Code><CanonicalRequest>x-amz-security-token:hidden</CanonicalRequest>";
        let text = format!(
            "Error performing PUT http://a/b in 3ms - Server returned non-2xx status code: 403 Forbidden: {body}"
        );
        let failure = Failure::of(&generic(&text)).unwrap();
        assert_eq!(failure.kind, ErrorKind::Denied);
        assert_eq!(
            failure.why,
            "the store answered 403 SignatureDoesNotMatch: check the credentials in the environment and what they permit"
        );
    }

    #[test]
    fn answers_have_the_kind_that_says_what_to_do() {
        let answer = |status: &str, code: &str| {
            format!("Server returned non-2xx status code: {status}: <Code>{code}</Code>")
        };
        for (text, kind) in [
            (answer("401 Unauthorized", ""), ErrorKind::Denied),
            (answer("400 Bad Request", "ExpiredToken"), ErrorKind::Denied),
            (
                answer("400 Bad Request", "InvalidArgument"),
                ErrorKind::Rejected,
            ),
            (answer("404 Not Found", "NoSuchBucket"), ErrorKind::NotFound),
            (answer("301 Moved", "PermanentRedirect"), ErrorKind::Config),
            (answer("503 Slow Down", "SlowDown"), ErrorKind::Unreachable),
            (answer("429 Too Many", ""), ErrorKind::Unreachable),
            (
                "Server returned error response: <Code>InternalError</Code>".into(),
                ErrorKind::Unreachable,
            ),
            (
                "DeleteObjects request failed for key a/b: Access Denied (code: AccessDenied)"
                    .into(),
                ErrorKind::Denied,
            ),
            (
                "Received redirect without LOCATION, this normally".into(),
                ErrorKind::Config,
            ),
            (
                "Error performing PUT http://169.254.169.254/latest/api/token in 3s".into(),
                ErrorKind::Denied,
            ),
        ] {
            assert_eq!(
                Failure::of(&generic(&text)).map(|f| f.kind),
                Some(kind),
                "{text}"
            );
        }
        assert_eq!(Failure::of(&generic("disk full")), None);
    }

    #[test]
    fn a_missing_store_is_told_from_a_missing_object() {
        for (code, missing) in [
            ("NoSuchBucket", true),
            ("ContainerNotFound", true),
            ("NoSuchKey", false),
            ("BlobNotFound", false),
        ] {
            let text =
                format!("Server returned non-2xx status code: 404 Not Found: <Code>{code}</Code>");
            assert_eq!(
                Failure::of(&generic(&text)).unwrap().store_missing(),
                missing
            );
        }
    }

    #[cfg(feature = "cloud")]
    #[test]
    fn what_was_not_answered_is_in_doubt_unless_the_client_tries_again_itself() {
        use object_store::client::{HttpError, HttpErrorKind};
        for (kind, in_doubt) in [
            (HttpErrorKind::Timeout, true),
            (HttpErrorKind::Interrupted, true),
            (HttpErrorKind::Connect, false),
        ] {
            let error = object_store::Error::Generic {
                store: "test",
                source: Box::new(HttpError::new(kind, std::io::Error::other("cut off"))),
            };
            let failure = Failure::of(&error).unwrap();
            assert_eq!(
                (failure.kind, failure.in_doubt),
                (ErrorKind::Unreachable, in_doubt)
            );
            assert!(failure.why.contains("(cut off)"), "{}", failure.why);
        }
    }
}
