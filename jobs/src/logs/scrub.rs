//! Takes out of a text what URLs must not show: signatures are in their query, and passwords before their host.

/// The text without queries and users of URLs.
pub(super) fn scrubbed(text: String) -> String {
    const SCHEME: &str = "://";
    if !text.contains(SCHEME) {
        return text;
    }
    let mut clean = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(at) = rest.find(SCHEME) {
        let (before, url) = rest.split_at(at + SCHEME.len());
        clean.push_str(before);
        let ends = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ')' | '>' | '`');
        let (url, after) = url.split_at(url.find(ends).unwrap_or(url.len()));
        clean.push_str(&shown(url));
        rest = after;
    }
    clean.push_str(rest);
    clean
}

fn shown(url: &str) -> String {
    let authority = url.find(['/', '?']).unwrap_or(url.len());
    let (authority, path) = url.split_at(authority);
    let (user, host) = match authority.rsplit_once('@') {
        Some((_, host)) => ("***@", host),
        None => ("", authority),
    };
    match path.split_once('?') {
        Some((path, _)) => format!("{user}{host}{path}?***"),
        None => format!("{user}{host}{path}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_and_users_go() {
        for (text, clean) in [
            ("nothing: here?", "nothing: here?"),
            (
                "cannot get (https://a.b/c?sig=x%2F&se=1): closed",
                "cannot get (https://a.b/c?***): closed",
            ),
            (
                "\"https://u:p@a.b:443/c\" and http://d?e f?",
                "\"https://***@a.b:443/c\" and http://d?*** f?",
            ),
            ("s3://bucket/prefix", "s3://bucket/prefix"),
            ("ends with ://", "ends with ://"),
        ] {
            assert_eq!(scrubbed(text.to_owned()), clean);
        }
    }
}
