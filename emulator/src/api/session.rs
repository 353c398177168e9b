//! Session tokens and consistency levels.
//!
//! There is one replica, so a read sees every write that was acknowledged before it. A token that is ahead of the
//! partition can only come from another container or server; the service answers that like a replica that lags.

use crate::http::{ApiError, Call, headers};
use crate::store::Partition;

/// Checks what a read asks for.
///
/// # Errors
/// 400 for a malformed token or a consistency level stronger than the account's; 404/1002 for a token ahead of `lsn`.
pub fn check(call: &Call<'_>, partition: &Partition, lsn: u64) -> Result<(), ApiError> {
    if let Some(level) = call.header(&headers::CONSISTENCY_LEVEL) {
        let known = ["Session", "ConsistentPrefix", "Eventual"];
        if !known.iter().any(|known| level.eq_ignore_ascii_case(known)) {
            return Err(ApiError::bad_request(format!(
                "the consistency level {level} is stronger than the account's, which is Session"
            )));
        }
    }
    let Some(tokens) = call.header(&headers::SESSION_TOKEN) else {
        return Ok(());
    };
    for token in tokens.split(',').filter(|token| !token.trim().is_empty()) {
        let (id, wanted) = parse(token.trim()).ok_or_else(|| {
            ApiError::bad_request(format!("the session token {token} is malformed"))
        })?;
        // After a split the token of a parent speaks for its children.
        if wanted > lsn && (id == partition.id || partition.parents.contains(&id)) {
            return Err(ApiError::session_not_available());
        }
    }
    Ok(())
}

/// `{range id}:{version}#{lsn}[#{region}={lsn}...]`, or an older `{range id}:{lsn}`.
fn parse(token: &str) -> Option<(u32, u64)> {
    let (id, rest) = token.split_once(':')?;
    let mut parts = rest.split('#');
    let first = parts.next()?;
    let lsn = parts.next().unwrap_or(first);
    Some((id.parse().ok()?, lsn.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_a_token_are_read() {
        assert_eq!(parse("3:0#17#0=17"), Some((3, 17)));
        assert_eq!(parse("3:-1#17"), Some((3, 17)));
        assert_eq!(parse("3:17"), Some((3, 17)));
        for bad in ["", "3", "x:1", "3:x", "3:0#x"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
