//! Files in a temporary folder, read as a source reads them.

mod partitioned;

use std::io::Write;
use std::path::Path;

use tempfile::TempDir;

use super::*;

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Folder(tempfile::tempdir().expect("a folder"))
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().expect("UTF-8").to_owned()
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), encoded(name, text)).expect("written");
    }

    fn append(&self, name: &str, text: &str) {
        let file = std::fs::File::options().append(true).open(self.path(name));
        file.expect("there")
            .write_all(text.as_bytes())
            .expect("written");
    }

    fn feed(&self, with: impl FnOnce(&mut FilesOptions)) -> FileFeed {
        let mut options = FilesOptions {
            files: vec![self.path("*")],
            key: vec!["/id".to_owned()],
            page_size: 3,
            ..FilesOptions::default()
        };
        with(&mut options);
        FileFeed::new("source.s", options).expect("sound")
    }
}

#[test]
fn a_source_that_keeps_nothing_is_refused() {
    let options = FilesOptions {
        files: vec!["orders.jsonl".to_owned()],
        key: vec!["/id".to_owned()],
        fields: Some(Vec::new()),
        ..FilesOptions::default()
    };
    let error = FileFeed::new("source.orders", options)
        .err()
        .expect("refused");
    assert_eq!(error.kind(), ErrorKind::Config);
    let text = error.to_string();
    assert!(text.starts_with("source.orders.fields is empty"), "{text}");
}

fn encoded(name: &str, text: &str) -> Vec<u8> {
    match Path::new(name).extension().and_then(|end| end.to_str()) {
        Some("gz") => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Default::default());
            encoder.write_all(text.as_bytes()).expect("in memory");
            encoder.finish().expect("in memory")
        }
        Some("zst") => zstd::encode_all(text.as_bytes(), 1).expect("in memory"),
        _ => text.as_bytes().to_vec(),
    }
}

/// The pages from `start` on until there is nothing more, as texts of documents, and the last token.
async fn read(feed: &FileFeed, start: Start) -> Result<(Vec<String>, ContinuationToken)> {
    let range = feed.ranges().await?.remove(0);
    let mut stream = feed.open(&range, start).await?;
    let mut documents = Vec::new();
    loop {
        let page = stream.next_page().await?;
        documents.extend(bodies(&page));
        if page.caught_up {
            return Ok((documents, page.token));
        }
    }
}

fn bodies(page: &Page) -> Vec<String> {
    let bodies = page.records.iter();
    let bodies = bodies.map(|record| record.body.expect("no removals").to_vec());
    bodies
        .map(|body| String::from_utf8(body).expect("UTF-8"))
        .collect()
}

async fn report(feed: &FileFeed, start: Start) -> String {
    read(feed, start).await.expect_err("refused").report()
}

/// Every record once and in order, whatever the files are and however often the reading begins again at a token. The oracle is
/// the list from which the files were written.
#[tokio::test]
async fn every_record_is_read_once_and_in_the_order_of_names() {
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let ends = [
        "jsonl",
        "jsonl.gz",
        "ndjson.zst",
        "csv",
        "csv.gz",
        "csv.zst",
    ];
    for _ in 0..30 {
        let folder = Folder::new();
        let mut expected = Vec::new();
        for file in 0..random.usize(1..6) {
            let end = ends[random.usize(..ends.len())];
            let breaks = if random.bool() { "\n" } else { "\r\n" };
            let csv = end.starts_with("csv");
            let mut text = if csv {
                format!("id,n{breaks}")
            } else {
                String::new()
            };
            for _ in 0..random.usize(0..40) {
                let (id, n) = (expected.len(), "x".repeat(random.usize(0..600)));
                if random.u8(0..8) == 0 {
                    text += breaks;
                }
                text += &match csv {
                    true => format!("{id},\"{n}\""),
                    false => format!("{{\"id\":\"{id}\",\"n\":\"{n}\"}}"),
                };
                text += breaks;
                expected.push(format!("{{\"id\":\"{id}\",\"n\":\"{n}\"}}"));
            }
            if random.bool() && !text.is_empty() {
                text.truncate(text.trim_end().len());
            }
            folder.write(&format!("f{file}.{end}"), &text);
        }
        let feed = folder.feed(|options| options.page_size = random.usize(1..20));
        let range = feed.ranges().await.expect("one").remove(0);
        let (mut found, mut start) = (Vec::new(), Start::Beginning);
        'runs: loop {
            let mut stream = feed.open(&range, start.clone()).await.expect("opens");
            for _ in 0..random.usize(1..8) {
                let page = stream.next_page().await.expect("a page");
                found.extend(bodies(&page));
                start = Start::Token(page.token);
                if page.caught_up {
                    break 'runs;
                }
            }
        }
        assert_eq!(found, expected);
        let (again, _) = read(&feed, start).await.expect("nothing more");
        assert_eq!(again, Vec::<String>::new());
    }
}

#[tokio::test]
async fn what_is_appended_is_followed() {
    let folder = Folder::new();
    let feed = folder.feed(|options| options.follow = true);
    let range = feed.ranges().await.expect("one").remove(0);
    let mut stream = feed.open(&range, Start::Beginning).await.expect("opens");
    let mut next = async || {
        let page = stream.next_page().await.expect("a page");
        (bodies(&page).join(" "), page.caught_up, page.token)
    };
    let mut tokens = Vec::new();
    let mut expect = async |documents: &str| {
        let (found, caught_up, token) = next().await;
        assert_eq!(found, documents);
        assert!(caught_up);
        tokens.push(token);
    };
    expect("").await;
    folder.write("a.jsonl", "{\"id\":1}\n{\"id\":");
    expect("{\"id\":1}").await;
    folder.append("a.jsonl", "2}");
    expect("").await;
    folder.append("a.jsonl", "\n");
    expect("{\"id\":2}").await;
    // The line of a file that is done ends with it.
    folder.append("a.jsonl", "{\"id\":3}");
    expect("").await;
    folder.write("b.csv", "id,na");
    expect("{\"id\":3}").await;
    folder.append("b.csv", "me\n4,\"two\n");
    expect("").await;
    folder.append("b.csv", "lines\"\n");
    expect("{\"id\":\"4\",\"name\":\"two\\nlines\"}").await;
    folder.write("c.jsonl.gz", "{\"id\":5}");
    expect("{\"id\":5}").await;
    // Each token goes on where its page ended, also in files that are gone when they had ended.
    std::fs::remove_file(folder.path("c.jsonl.gz")).expect("there");
    let last = tokens.last().expect("many").clone();
    let (rest, _) = read(&feed, Start::Token(last)).await.expect("it had ended");
    assert_eq!(rest, Vec::<String>::new());
    let third = Start::Token(tokens[2].clone());
    let (rest, _) = read(&feed, third).await.expect("goes on");
    assert_eq!(
        rest.join(" "),
        "{\"id\":2} {\"id\":3} {\"id\":\"4\",\"name\":\"two\\nlines\"}"
    );
    let cut_off = "{\"id\":1}\n";
    folder.write("a.jsonl", cut_off);
    let report = report(&feed, Start::Token(tokens[3].clone())).await;
    assert!(
        report.contains("a.jsonl is not the file any more of which"),
        "{report}"
    );
}

#[tokio::test]
async fn a_file_that_is_another_now_is_an_error() {
    let folder = Folder::new();
    let long = |first: &str| {
        let lines = (0..2000).map(|n| format!("{{\"id\":\"{first}{n}\"}}\n"));
        lines.collect::<String>()
    };
    for name in ["a.jsonl", "a.jsonl.gz"] {
        folder.write(name, &long("x"));
        let feed = folder.feed(|_| {});
        let (documents, token) = read(&feed, Start::Beginning).await.expect("reads");
        assert_eq!(documents.len(), 2000);
        for other in [
            long("y"),
            long("x").replace("x1999", "z1999"),
            String::new(),
        ] {
            folder.write(name, &other);
            let report = report(&feed, Start::Token(token.clone())).await;
            assert!(
                report.contains("is not the file any more of which"),
                "{report}"
            );
        }
        folder.write(name, &(long("x") + "{\"id\":\"new\"}"));
        let more = read(&feed, Start::Token(token.clone()))
            .await
            .expect("it has grown");
        assert_eq!(more.0, ["{\"id\":\"new\"}"]);
        // The last line had no end, and gets another one.
        folder.write(name, &(long("x") + "{\"id\":\"new\"}{\"id\":\"newer\"}\n"));
        let report = report(&feed, Start::Token(more.1)).await;
        assert!(report.contains("has more now in line 2001"), "{report}");
        std::fs::remove_file(folder.path(name)).expect("there");
    }
}

#[tokio::test]
async fn a_file_that_is_gone_half_read_is_an_error() {
    let folder = Folder::new();
    folder.write(
        "a.jsonl",
        "{\"id\":1}\n{\"id\":2}\n{\"id\":3}\n{\"id\":4}\n",
    );
    let feed = folder.feed(|_| {});
    let range = feed.ranges().await.expect("one").remove(0);
    let mut stream = feed.open(&range, Start::Beginning).await.expect("opens");
    let page = stream.next_page().await.expect("a page");
    std::fs::remove_file(folder.path("a.jsonl")).expect("there");
    let report = report(&feed, Start::Token(page.token)).await;
    assert!(
        report.contains("a.jsonl is gone, and only 27 bytes of it were read"),
        "{report}"
    );
}

#[tokio::test]
async fn what_is_no_document_is_named_with_its_line() {
    let typed = |options: &mut FilesOptions| {
        options.types = [("id".to_owned(), ColumnType::Integer)].into();
    };
    for (name, text, says) in [
        (
            "a.jsonl",
            "{\"id\":1}\n\n{\"id\":2\n",
            "a.jsonl, line 3: it is no JSON object: ",
        ),
        (
            "a.jsonl",
            "{\"no\":1}\n",
            "a.jsonl, line 1: its field /id, which is part of the key, is missing",
        ),
        (
            "a.csv",
            "id,n\n1,\"a\nb\"\n2\n",
            "a.csv, line 4: it has 1 fields, and the header 2",
        ),
        (
            "a.csv",
            "id,n\n1,a\nx,b\n",
            "a.csv, line 3: \"x\" in column id does not fit its type",
        ),
        (
            "a.csv",
            "id,id\n",
            "a.csv, line 1: the header names \"id\" twice",
        ),
        (
            "a.csv",
            "n\n",
            "a.csv, line 1: the header has no column \"id\", which has a type",
        ),
        ("a.csv", "", "a.csv has no header"),
        ("a.txt", "", "says no format: set format to"),
    ] {
        let folder = Folder::new();
        folder.write(name, text);
        let report = report(&folder.feed(typed), Start::Beginning).await;
        assert!(report.contains(says), "{report}");
    }
    let folder = Folder::new();
    let none = report(&folder.feed(|_| {}), Start::Beginning).await;
    assert!(none.starts_with("there is no file "), "{none}");
    folder.write("a.jsonl", "");
    let now = report(&folder.feed(|_| {}), Start::Now).await;
    assert!(now.contains("read from the beginning only"), "{now}");
}

#[tokio::test]
async fn columns_have_types() {
    let folder = Folder::new();
    folder.write(
        "a.data",
        "\u{feff}id,cents,rate,paid,note\nx,12,1.50,true,\ny,,,,\"a, b\"\n",
    );
    let feed = folder.feed(|options| {
        options.format = Some(Format::Csv);
        let types = [
            ("cents", ColumnType::Integer),
            ("rate", ColumnType::Number),
            ("paid", ColumnType::Boolean),
        ];
        options.types = types.map(|(name, of)| (name.to_owned(), of)).into();
    });
    let (documents, _) = read(&feed, Start::Beginning).await.expect("reads");
    let expected = [
        r#"{"cents":12,"id":"x","note":"","paid":true,"rate":1.5}"#,
        r#"{"cents":null,"id":"y","note":"a, b","paid":null,"rate":null}"#,
    ];
    let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("JSON");
    let found: Vec<_> = documents.iter().map(|text| value(text)).collect();
    assert_eq!(found, expected.map(value));
}
