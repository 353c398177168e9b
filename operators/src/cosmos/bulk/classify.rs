//! What a status of the service means for a write: one table, whose rows a sink can replace.
//!
//! | status | sub-status | operation | whole request | why |
//! |---|---|---|---|---|
//! | 200 201 204 304 | any | `Done` | - | a request's own 200 or 207 says: look at the results |
//! | 400 | 1024 | `Fatal` | `Fatal` | the container was created anew |
//! | 400 | other | `Refused` | `Refused` | malformed, or the key sent is not the document's (1001); of a request, one of its operations is to blame |
//! | 401 | any | `Renew(Token)` | `Renew(Token)` | an expired token or date; when it stays, a wrong key or role, or a clock that is off |
//! | 403 | 3, 1008 | `Reroute(Account)` | `Reroute(Account)` | the region takes no writes now |
//! | 403 | 1014 | `Refused` | `Refused` | the logical partition has reached its 20 GB |
//! | 403 | other | `Fatal` | `Fatal` | firewall, role |
//! | 404 | 1002, 1013 | `Retry` | `Retry` | a replica behind its session; a container still being created |
//! | 404 | 1003 | `Fatal` | `Fatal` | the container or database is gone |
//! | 404 | other | delete `Done`, with an etag `Ignored`; replace with an etag `Ignored`, else `Refused`; patch `Refused`; else as a request | `Renew(Container)` | no such document; a request names only the container |
//! | 405 | any | `Fatal` | `Fatal` | the server has no batches of this kind |
//! | 408 | 1900 | `Retry` | `Retry` | timed out before it was tried |
//! | 408 | other | `Retry`, ambiguous | `Retry`, ambiguous | timed out, perhaps after it took effect |
//! | 409 | 1006, 3302 | `Retry` | `Retry` | a lost race within the service |
//! | 409 | none | create `Ignored`, after an ambiguous attempt `Done`; else `Refused` | `Fatal` | the document is there already |
//! | 409 | other | `Refused` | `Fatal` | another document has the unique value (3301) |
//! | 410 | 1000 | `Reroute(Container)` | `Reroute(Container)` | the name of the container may mean another one now |
//! | 410 | other | `Reroute(Map)` | `Reroute(Map)` | the partition was split, merged or moved |
//! | 412 | 2000 to 2101 | `Retry` | `Retry` | locks of the service |
//! | 412 | other | guarded patch after an ambiguous attempt `Done`; patch or etag `Ignored`; else `Refused` | `Fatal` | a condition does not hold |
//! | 413 | any | `Smaller` | `Smaller` | the request or its reply is too large |
//! | 424 | any | `Again` | `Fatal` | another operation of the batch failed |
//! | 429 | 3200 to 3203, 3212, 3214, 3300, none | `Throttled`, cut | `Throttled`, cut | over the request units per second |
//! | 429 | other | `Throttled` | `Throttled` | over another limit |
//! | 449 | any | `Retry` | `Retry` | others write the same document |
//! | 5xx | any | `Retry`, ambiguous | `Retry`, ambiguous | a fault of the service |
//! | other | any | `Refused` | `Fatal` | unknown: never dropped, never repeated for ever |

use super::operation::{Action, Operation};

/// What must be read again before a write can succeed. A later one includes the earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refresh {
    /// The credentials: a new date and, with Entra, a new token.
    Token,
    /// The container's ranges.
    Map,
    /// The container itself. If it is another one now, the writer must stop.
    Container,
    /// The account, for the region that takes writes.
    Account,
}

/// What to do about an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The write is carried out and durable.
    Done,
    /// The write's own condition turned it away. That is an acknowledgement too.
    Ignored,
    /// Send it again when the partition takes more, without limit.
    Throttled {
        /// Whether the rate of request units is to be lowered, or sending only paused.
        cut: bool,
    },
    /// Send it again after a wait, without limit.
    Retry {
        /// Whether this attempt may have taken effect, or may still.
        ambiguous: bool,
    },
    /// Send it again at once: it was not to blame.
    Again,
    /// Send it again to wherever it belongs once this has been read, without limit.
    Reroute(Refresh),
    /// Send it again once this has been read, and stop if the answer stays.
    Renew(Refresh),
    /// Send it again in a smaller request; if it was alone, it is refused.
    Smaller,
    /// It can never succeed. Of a whole request: find the operation that is to blame.
    Refused,
    /// No write can succeed until somebody has done something: stop.
    Fatal,
}

/// What a status is about.
#[derive(Clone, Copy, Debug)]
pub enum Subject<'a> {
    /// A request as a whole.
    Request,
    /// One operation.
    Operation {
        /// The operation.
        operation: &'a Operation,
        /// Whether an earlier attempt at it may have taken effect.
        ambiguous: bool,
    },
}

/// The table, with the rows that were replaced.
#[derive(Clone, Debug, Default)]
pub struct Classifier {
    rows: Vec<(u16, Option<u32>, Verdict)>,
    ignores_missing: bool,
}

impl Classifier {
    /// This table with another verdict for a status, of operations and of requests. `sub_status` of `None` means any; later
    /// rows go before earlier ones. A status of a whole request never acknowledges its operations, so `Done` and `Ignored`
    /// are for operations only.
    pub fn with(mut self, status: u16, sub_status: Option<u32>, verdict: Verdict) -> Self {
        self.rows.push((status, sub_status, verdict));
        self
    }

    /// This table for a caller that means a replace or a patch only for documents that are there: with 404 they are `Ignored`, as
    /// with an etag, and not `Refused`.
    pub fn ignore_missing(mut self) -> Self {
        self.ignores_missing = true;
        self
    }

    /// What to do about a status.
    pub fn verdict(&self, status: u16, sub_status: u32, subject: Subject<'_>) -> Verdict {
        let is_request = matches!(subject, Subject::Request);
        let matches = |&&(of, sub, verdict): &&(u16, Option<u32>, Verdict)| {
            let acknowledges = matches!(verdict, Verdict::Done | Verdict::Ignored);
            of == status && sub.is_none_or(|sub| sub == sub_status) && !(is_request && acknowledges)
        };
        match self.rows.iter().rev().find(matches) {
            Some(&(.., verdict)) => verdict,
            None => match default_verdict(status, sub_status, subject) {
                Verdict::Refused if status == 404 && self.ignores_missing => Verdict::Ignored,
                verdict => verdict,
            },
        }
    }
}

fn default_verdict(status: u16, sub_status: u32, subject: Subject<'_>) -> Verdict {
    use Verdict::*;
    let retry = Retry { ambiguous: false };
    match (status, sub_status) {
        (200 | 201 | 204 | 304, _) => Done,
        (400, 1024) => Fatal,
        (400, _) => Refused,
        (401, _) => Renew(Refresh::Token),
        (403, 3 | 1008) => Reroute(Refresh::Account),
        (403, 1014) => Refused,
        (403, _) => Fatal,
        (404, 1002 | 1013) => retry,
        (404, 1003) => Fatal,
        (404, _) => no_document(subject),
        (405, _) => Fatal,
        (408, 1900) => retry,
        (408, _) => Retry { ambiguous: true },
        (409, 1006 | 3302) => retry,
        (409, 0) => document_exists(subject),
        (410, 1000) => Reroute(Refresh::Container),
        (410, _) => Reroute(Refresh::Map),
        (412, 2000..=2101) => retry,
        (412, _) => condition_failed(subject),
        (413, _) => Smaller,
        (429, 0 | 3200..=3203 | 3212 | 3214 | 3300) => Throttled { cut: true },
        (429, _) => Throttled { cut: false },
        (449, _) => retry,
        (500..=599, _) => Retry { ambiguous: true },
        _ => match subject {
            Subject::Operation { .. } if status == 424 => Again,
            Subject::Operation { .. } => Refused,
            Subject::Request => Fatal,
        },
    }
}

fn no_document(subject: Subject<'_>) -> Verdict {
    let Subject::Operation { operation, .. } = subject else {
        return Verdict::Renew(Refresh::Container);
    };
    match (&operation.action, &operation.if_match) {
        (Action::Delete, None) => Verdict::Done,
        (Action::Delete | Action::Replace(_), Some(_)) => Verdict::Ignored,
        (Action::Replace(_) | Action::Patch { .. }, _) => Verdict::Refused,
        (Action::Upsert(_) | Action::Create(_), _) => Verdict::Renew(Refresh::Container),
    }
}

fn document_exists(subject: Subject<'_>) -> Verdict {
    match subject {
        Subject::Request => Verdict::Fatal,
        Subject::Operation {
            operation,
            ambiguous,
        } => match operation.action {
            Action::Create(_) if ambiguous => Verdict::Done,
            Action::Create(_) => Verdict::Ignored,
            _ => Verdict::Refused,
        },
    }
}

fn condition_failed(subject: Subject<'_>) -> Verdict {
    match subject {
        Subject::Request => Verdict::Fatal,
        Subject::Operation {
            operation,
            ambiguous,
        } => match operation.action {
            Action::Patch { guarded: true, .. } if ambiguous => Verdict::Done,
            Action::Patch { .. } => Verdict::Ignored,
            _ if operation.if_match.is_some() => Verdict::Ignored,
            _ => Verdict::Refused,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::Verdict::*;
    use super::*;
    use crate::cosmos::bulk::operation::Write;
    use crate::cosmos::bulk::routing::RoutingKey;
    use bytes::Bytes;

    fn operation(action: Action) -> Operation {
        Operation::new(Write::new("[1]", "a", action), RoutingKey::new(vec![]))
    }

    fn with_etag(action: Action) -> Operation {
        Operation {
            if_match: Some("\"1\"".into()),
            ..operation(action)
        }
    }

    fn body() -> Bytes {
        Bytes::from_static(b"{}")
    }

    fn patch(guarded: bool) -> Operation {
        operation(Action::Patch {
            body: body(),
            guarded,
        })
    }

    fn of(operation: &Operation, status: u16, sub_status: u32, ambiguous: bool) -> Verdict {
        let subject = Subject::Operation {
            operation,
            ambiguous,
        };
        Classifier::default().verdict(status, sub_status, subject)
    }

    const RETRY: Verdict = Retry { ambiguous: false };
    const MAYBE: Verdict = Retry { ambiguous: true };
    const CUT: Verdict = Throttled { cut: true };
    const PAUSE: Verdict = Throttled { cut: false };

    /// Status, sub-status, verdict for an upsert, verdict for a request.
    const ROWS: &[(u16, u32, Verdict, Verdict)] = &[
        (200, 0, Done, Done),
        (201, 0, Done, Done),
        (204, 0, Done, Done),
        (304, 0, Done, Done),
        (400, 1024, Fatal, Fatal),
        (400, 0, Refused, Refused),
        (400, 1001, Refused, Refused),
        (401, 0, Renew(Refresh::Token), Renew(Refresh::Token)),
        (401, 5013, Renew(Refresh::Token), Renew(Refresh::Token)),
        (403, 3, Reroute(Refresh::Account), Reroute(Refresh::Account)),
        (
            403,
            1008,
            Reroute(Refresh::Account),
            Reroute(Refresh::Account),
        ),
        (403, 1014, Refused, Refused),
        (403, 0, Fatal, Fatal),
        (403, 5300, Fatal, Fatal),
        (404, 0, Renew(Refresh::Container), Renew(Refresh::Container)),
        (404, 1002, RETRY, RETRY),
        (404, 1003, Fatal, Fatal),
        (404, 1013, RETRY, RETRY),
        (405, 0, Fatal, Fatal),
        (408, 0, MAYBE, MAYBE),
        (408, 1900, RETRY, RETRY),
        (409, 0, Refused, Fatal),
        (409, 3301, Refused, Fatal),
        (409, 3302, RETRY, RETRY),
        (409, 1006, RETRY, RETRY),
        (410, 0, Reroute(Refresh::Map), Reroute(Refresh::Map)),
        (
            410,
            1000,
            Reroute(Refresh::Container),
            Reroute(Refresh::Container),
        ),
        (410, 1002, Reroute(Refresh::Map), Reroute(Refresh::Map)),
        (410, 1007, Reroute(Refresh::Map), Reroute(Refresh::Map)),
        (410, 1008, Reroute(Refresh::Map), Reroute(Refresh::Map)),
        (412, 0, Refused, Fatal),
        (412, 1999, Refused, Fatal),
        (412, 2000, RETRY, RETRY),
        (412, 2101, RETRY, RETRY),
        (412, 2102, Refused, Fatal),
        (413, 0, Smaller, Smaller),
        (413, 3402, Smaller, Smaller),
        (424, 0, Again, Fatal),
        (429, 0, CUT, CUT),
        (429, 3199, PAUSE, PAUSE),
        (429, 3200, CUT, CUT),
        (429, 3203, CUT, CUT),
        (429, 3204, PAUSE, PAUSE),
        (429, 3212, CUT, CUT),
        (429, 3214, CUT, CUT),
        (429, 3300, CUT, CUT),
        (429, 3088, PAUSE, PAUSE),
        (429, 3091, PAUSE, PAUSE),
        (449, 0, RETRY, RETRY),
        (500, 0, MAYBE, MAYBE),
        (502, 0, MAYBE, MAYBE),
        (503, 20003, MAYBE, MAYBE),
        (504, 0, MAYBE, MAYBE),
        (599, 0, MAYBE, MAYBE),
        (100, 0, Refused, Fatal),
        (302, 0, Refused, Fatal),
        (207, 0, Refused, Fatal),
        (418, 0, Refused, Fatal),
        (600, 0, Refused, Fatal),
    ];

    #[test]
    fn the_table_as_documented() {
        let upsert = operation(Action::Upsert(body()));
        for &(status, sub_status, expected, of_request) in ROWS {
            let name = format!("{status}/{sub_status}");
            assert_eq!(of(&upsert, status, sub_status, false), expected, "{name}");
            // What an ambiguous attempt changes is in the next test.
            assert_eq!(of(&upsert, status, sub_status, true), expected, "{name}");
            let request = Classifier::default().verdict(status, sub_status, Subject::Request);
            assert_eq!(request, of_request, "{name} of a request");
        }
    }

    #[test]
    fn what_depends_on_the_operation() {
        let create = operation(Action::Create(body()));
        let replace = operation(Action::Replace(body()));
        let delete = operation(Action::Delete);
        let replace_if = with_etag(Action::Replace(body()));
        let delete_if = with_etag(Action::Delete);
        let renew = Renew(Refresh::Container);
        // Operation, status, verdict, verdict after an ambiguous attempt.
        let rows = [
            (&create, 404, renew, renew),
            (&replace, 404, Refused, Refused),
            (&patch(false), 404, Refused, Refused),
            (&delete, 404, Done, Done),
            (&replace_if, 404, Ignored, Ignored),
            (&delete_if, 404, Ignored, Ignored),
            (&create, 409, Ignored, Done),
            (&replace, 409, Refused, Refused),
            (&delete, 409, Refused, Refused),
            (&patch(true), 409, Refused, Refused),
            (&create, 412, Refused, Refused),
            (&replace, 412, Refused, Refused),
            (&delete, 412, Refused, Refused),
            (&replace_if, 412, Ignored, Ignored),
            (&delete_if, 412, Ignored, Ignored),
            (&patch(false), 412, Ignored, Ignored),
            (&patch(true), 412, Ignored, Done),
        ];
        for (operation, status, expected, after) in rows {
            assert_eq!(
                of(operation, status, 0, false),
                expected,
                "{status} {operation:?}"
            );
            assert_eq!(
                of(operation, status, 0, true),
                after,
                "{status} {operation:?}"
            );
        }
        assert_eq!(of(&create, 409, 3301, true), Refused);
    }

    #[test]
    fn a_row_can_be_replaced_for_one_sub_status_or_all() {
        let classifier =
            Classifier::default()
                .with(404, None, Refused)
                .with(404, Some(1003), RETRY);
        let verdict = |status, sub| classifier.verdict(status, sub, Subject::Request);
        assert_eq!(verdict(404, 0), Refused);
        assert_eq!(verdict(404, 1002), Refused);
        assert_eq!(verdict(404, 1003), RETRY);
        assert_eq!(verdict(403, 1014), Refused);
    }

    #[test]
    fn what_is_not_there_can_be_ignored() {
        let classifier = Classifier::default().ignore_missing();
        let of = |action, status| {
            let operation = operation(action);
            let subject = Subject::Operation {
                operation: &operation,
                ambiguous: false,
            };
            classifier.verdict(status, 0, subject)
        };
        assert_eq!(of(Action::Replace(body()), 404), Ignored);
        assert_eq!(of(patch(true).action, 404), Ignored);
        assert_eq!(of(Action::Delete, 404), Done);
        assert_eq!(of(Action::Create(body()), 404), Renew(Refresh::Container));
        assert_eq!(of(Action::Replace(body()), 400), Refused);
        let request = classifier.verdict(404, 0, Subject::Request);
        assert_eq!(request, Renew(Refresh::Container));
    }

    #[test]
    fn no_row_makes_a_failed_request_an_acknowledgement() {
        let classifier = Classifier::default().with(404, None, Ignored);
        let request = classifier.verdict(404, 0, Subject::Request);
        assert_eq!(request, Renew(Refresh::Container));
        let operation = patch(false);
        let subject = Subject::Operation {
            operation: &operation,
            ambiguous: false,
        };
        assert_eq!(classifier.verdict(404, 0, subject), Ignored);
    }
}
