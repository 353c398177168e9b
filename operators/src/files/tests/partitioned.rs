//! Files that are ranges of their own.

use super::*;

#[tokio::test]
async fn each_file_may_be_a_range() {
    let folder = Folder::new();
    folder.write("ab-cd.jsonl", "{\"id\":1}\n");
    folder.write("b[1].jsonl", "{\"id\":2}\n");
    let feed = folder.feed(|options| options.partitioned = true);
    let ranges = feed.ranges().await.expect("two");
    let names: Vec<_> = ranges.iter().map(|range| range.0.clone()).collect();
    let expected = ["ab-cd.jsonl", "b[1].jsonl"].map(|name| format!("file:{}", folder.path(name)));
    assert_eq!(names, expected);
    let mut found = Vec::new();
    let mut tokens = Vec::new();
    for range in &ranges {
        let mut stream = feed.open(range, Start::Beginning).await.expect("opens");
        let page = stream.next_page().await.expect("a page");
        assert!(page.caught_up);
        found.extend(bodies(&page));
        tokens.push(page.token);
    }
    assert_eq!(found, ["{\"id\":1}", "{\"id\":2}"]);
    let crossed = feed.open(&ranges[0], Start::Token(tokens[1].clone())).await;
    let report = crossed.err().expect("another range's").report();
    assert!(report.contains("is not one of it"), "{report}");
}

/// Opens a file's range, and reads until there is nothing more for now.
async fn read_range(feed: &FileFeed, name: &str, start: Start) -> (String, ContinuationToken) {
    let range = FeedRangeId(format!("{ONE}{name}"));
    let mut stream = feed.open(&range, start).await.expect("opens");
    read_on(&mut *stream).await
}

async fn read_on(stream: &mut dyn PageStream) -> (String, ContinuationToken) {
    let mut documents = Vec::new();
    loop {
        let page = stream.next_page().await.expect("a page");
        documents.extend(bodies(&page));
        if page.caught_up {
            return (documents.join(" "), page.token);
        }
    }
}

/// Each file grows by itself, whatever comes after it, and a file that is gone was complete.
#[tokio::test]
async fn every_file_is_followed_by_itself() {
    let folder = Folder::new();
    let feed = folder.feed(|options| (options.partitioned, options.follow) = (true, true));
    assert!(feed.ranges_appear() && !feed.ranges_tile());
    assert_eq!(feed.ranges().await.expect("none yet"), []);
    folder.write("a.jsonl", "{\"id\":1}\n{\"id\":");
    folder.write("b.jsonl", "{\"id\":3}\n");
    folder.write("c.jsonl.gz", "{\"id\":6}");
    let ranges = feed.ranges().await.expect("three");
    assert_eq!(ranges.len(), 3);
    let mut streams = Vec::new();
    for range in &ranges {
        streams.push(feed.open(range, Start::Beginning).await.expect("opens"));
    }
    let [a, b, c] = &mut streams[..] else {
        panic!("three")
    };
    let (documents, token) = read_on(&mut **a).await;
    assert_eq!(documents, "{\"id\":1}", "a later name says nothing");
    assert_eq!(read_on(&mut **b).await.0, "{\"id\":3}");
    assert_eq!(read_on(&mut **c).await.0, "{\"id\":6}", "it is whole");
    folder.append("a.jsonl", "2}\n{\"id\":4}");
    assert_eq!(read_on(&mut **a).await.0, "{\"id\":2}");
    let resumed = read_range(&feed, &folder.path("a.jsonl"), Start::Token(token)).await;
    assert_eq!(resumed.0, "{\"id\":2}");
    // What was written last is read, also when the name is gone by then, and the last line needs no end.
    folder.append("b.jsonl", "{\"id\":5}\n");
    for name in ["a.jsonl", "b.jsonl"] {
        std::fs::remove_file(folder.path(name)).expect("there");
    }
    assert_eq!(read_on(&mut **a).await.0, "{\"id\":4}");
    let (documents, token) = read_on(&mut **b).await;
    assert_eq!(documents, "{\"id\":5}");
    assert_eq!(read_on(&mut **b).await.0, "");
    // It comes back as it was, and a little longer.
    folder.write("b.jsonl", "{\"id\":3}\n{\"id\":5}\n{\"id\":7}\n");
    let resumed = read_range(&feed, &folder.path("b.jsonl"), Start::Token(token)).await;
    assert_eq!(resumed.0, "{\"id\":7}");
    // Not even its header is whole.
    let name = folder.path("d.csv");
    folder.write("d.csv", "id,na");
    let (documents, token) = read_range(&feed, &name, Start::Beginning).await;
    assert_eq!(documents, "");
    folder.append("d.csv", "me\n8,\n");
    let (documents, _) = read_range(&feed, &name, Start::Token(token)).await;
    assert_eq!(documents, "{\"id\":\"8\",\"name\":\"\"}");
}
