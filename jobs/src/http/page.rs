//! The page: files that are part of the program. They hold nothing of the job, so nobody needs a token for them.

use axum::Router;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

macro_rules! files {
    ($($kind:ident $name:literal)*) => {
        [$((concat!("/", $name), $kind, include_str!(concat!("../page/", $name)))),*]
    };
}

/// Where each is, of what kind, and its text.
const FILES: [(&str, &str, &str); 19] = files! {
    HTML "index.html"
    CSS "page.css"
    SCRIPT "dataflow.js" SCRIPT "details.js" SCRIPT "dom.js" SCRIPT "feed.js" SCRIPT "figures.js" SCRIPT "format.js"
    SCRIPT "graph.js" SCRIPT "holds.js" SCRIPT "layout.js" SCRIPT "machine.js" SCRIPT "operators.js" SCRIPT "page.js"
    SCRIPT "sinks.js" SCRIPT "sources.js" SCRIPT "table.js" SCRIPT "theme.js" SCRIPT "timeline.js"
};

/// Adds the page to what is answered.
pub(super) fn add<S: Clone + Send + Sync + 'static>(mut router: Router<S>) -> Router<S> {
    for (path, kind, text) in FILES {
        let path = if path == "/index.html" { "/" } else { path };
        let headers = [
            (header::CONTENT_TYPE, kind),
            // Another version of the program has another page.
            (header::CACHE_CONTROL, "no-cache"),
        ];
        router = router.route(
            path,
            get(move || async move { (headers, text).into_response() }),
        );
    }
    router
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_page_is_there_and_all_of_them_are_small() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/page");
        let mut there: Vec<_> = std::fs::read_dir(folder)
            .expect("a folder")
            .map(|file| format!("/{}", file.expect("a file").file_name().to_string_lossy()))
            .collect();
        let mut known: Vec<_> = FILES.iter().map(|(path, ..)| (*path).to_owned()).collect();
        there.sort();
        known.sort();
        assert_eq!(there, known);
        let bytes: usize = FILES.iter().map(|(.., text)| text.len()).sum();
        assert!(bytes < 500_000, "{bytes}");
    }
}
