//! What a status from the service, or from the SDK in its place, means for the caller.

/// What to do about a request that did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Disposition {
    /// The service asks for a slower pace: wait as long as it says, then send the same request again.
    Throttled,
    /// It may pass: wait and send the same request again.
    Transient,
    /// The document does not exist. For a delete that is success.
    NoDocument,
    /// The container or database does not exist (any more).
    NoContainer,
    /// The credentials were refused.
    Denied,
    /// The request is over a size limit of the service: send less at once.
    TooLarge,
    /// The request can never succeed as it is.
    Rejected,
    /// The answer made no sense to the SDK.
    Broken,
}

impl Disposition {
    /// True when the same request may succeed later.
    pub fn is_passing(self) -> bool {
        matches!(self, Disposition::Throttled | Disposition::Transient)
    }
}

/// Sorts a status and sub-status into what to do about it.
///
/// | status | sub-status | disposition | why |
/// |---|---|---|---|
/// | 429 | any | `Throttled` | over the request units per second, of the container or of one partition |
/// | 408, 449 | any | `Transient` | timed out on the server; lost a race that the service asks to repeat |
/// | 410 | any | `Transient` | the partition is being split, merged or moved |
/// | 404 | 1002 | `Transient` | the replica has not caught up with the session yet |
/// | 404 | 1013 | `Transient` | the container is still being created |
/// | 404 | 1003 | `NoContainer` | the owner of the document does not exist |
/// | 404 | other | `NoDocument` | on a container operation the caller reads it as `NoContainer` |
/// | 403 | 3, 1008 | `Transient` | the region does not take writes just now; the account is failing over |
/// | 403 | 1014 | `Rejected` | the logical partition has reached its 20 GB |
/// | 401, 403 | other | `Denied` | wrong key, missing role, firewall |
/// | 413 | any | `TooLarge` | over 2 MB |
/// | 500 | 20020, 20200 and up, except 20206 | `Broken` | the SDK's own: an answer or a token that it cannot read |
/// | 5xx | other | `Transient` | includes what the SDK reports for lost connections (503/20003 to 20015) |
/// | other | any | `Rejected` | the request itself is wrong: 400, 405, 409, 412 |
pub fn classify(status: u16, sub_status: Option<u16>) -> Disposition {
    match (status, sub_status) {
        (429, _) => Disposition::Throttled,
        (408 | 410 | 449, _) => Disposition::Transient,
        (404, Some(1002 | 1013)) => Disposition::Transient,
        (404, Some(1003)) => Disposition::NoContainer,
        (404, _) => Disposition::NoDocument,
        (403, Some(3 | 1008)) => Disposition::Transient,
        (403, Some(1014)) => Disposition::Rejected,
        (401 | 403, _) => Disposition::Denied,
        (413, _) => Disposition::TooLarge,
        // 20206: the SDK ran out of its ten tries to follow a split; the next attempt starts from a fresh map.
        (500, Some(20206)) => Disposition::Transient,
        (500, Some(20020 | 20200..)) => Disposition::Broken,
        (500..=599, _) => Disposition::Transient,
        _ => Disposition::Rejected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_as_documented() {
        use Disposition::*;
        let cases = [
            (429, None, Throttled),
            (429, Some(3200), Throttled),
            (429, Some(3088), Throttled),
            (408, None, Transient),
            (408, Some(20008), Transient),
            (449, None, Transient),
            (410, Some(1000), Transient),
            (410, Some(1002), Transient),
            (410, Some(1007), Transient),
            (404, Some(1002), Transient),
            (404, Some(1013), Transient),
            (404, Some(1003), NoContainer),
            (404, Some(0), NoDocument),
            (404, None, NoDocument),
            (403, Some(3), Transient),
            (403, Some(1008), Transient),
            (403, Some(1014), Rejected),
            (403, None, Denied),
            (401, None, Denied),
            (401, Some(20401), Denied),
            (413, None, TooLarge),
            (500, None, Transient),
            (500, Some(20020), Broken),
            (500, Some(20206), Transient),
            (500, Some(20203), Broken),
            (502, None, Transient),
            (503, Some(20010), Transient),
            (503, Some(20011), Transient),
            (400, None, Rejected),
            (400, Some(1001), Rejected),
            (405, None, Rejected),
            (409, None, Rejected),
            (412, None, Rejected),
        ];
        for (status, sub_status, expected) in cases {
            assert_eq!(
                classify(status, sub_status),
                expected,
                "{status}/{sub_status:?}"
            );
        }
    }

    #[test]
    fn only_two_dispositions_pass() {
        let passing = |status| classify(status, None).is_passing();
        assert!([408, 410, 429, 449, 500, 503].into_iter().all(passing));
        assert!(![400, 401, 403, 404, 409, 412, 413].into_iter().any(passing));
    }
}
