//! One page of the change feed under construction.

use crate::api::page_body::{PAGE_BYTES, PageBody};
use crate::json::{Members, write_number, write_text};
use crate::ru::Charge;
use crate::store::{Change, ChangeKind, Container, Document, Version};

/// A page, filled in LSN order from one partition after the other.
pub struct Page<'a> {
    container: &'a Container,
    most: usize,
    envelope: bool,
    /// What it has cost so far.
    pub charge: Charge,
    body: PageBody,
}

impl<'a> Page<'a> {
    /// An empty page.
    pub fn new(container: &'a Container, most: usize, envelope: bool) -> Self {
        Self {
            container,
            most,
            envelope,
            charge: Charge::PAGE,
            body: PageBody::new(&container.rid),
        }
    }

    /// Whether no LSN may be begun any more.
    pub fn is_full(&self) -> bool {
        self.body.is_full(self.most)
    }

    /// Changes so far.
    pub fn items(&self) -> usize {
        self.body.items()
    }

    /// Adds current documents. Returns the LSN of the last one, if the page is full before they end.
    pub fn fill<'d>(&mut self, documents: impl Iterator<Item = &'d Document>) -> Option<u64> {
        let mut last = 0;
        for document in documents {
            let version = &document.version;
            if version.lsn != last && self.is_full() {
                return Some(last);
            }
            last = version.lsn;
            self.begin_item(version.size());
            if self.envelope {
                self.body.text().extend_from_slice(b"{\"current\":");
                self.render(version);
                self.body.text().extend_from_slice(b",\"metadata\":{");
                self.stamp(version.lsn, version.ts);
                self.body.text().extend_from_slice(b"}}");
            } else {
                self.render(version);
            }
        }
        None
    }

    /// Adds changes, as [`Self::fill`] does.
    pub fn fill_changes<'d>(&mut self, changes: impl Iterator<Item = &'d Change>) -> Option<u64> {
        let mut last = 0;
        for change in changes {
            if change.stamp.lsn != last && self.is_full() {
                return Some(last);
            }
            last = change.stamp.lsn;
            self.push_change(change);
        }
        None
    }

    fn push_change(&mut self, change: &Change) {
        let newest = change.current.as_ref().or(change.previous.as_ref());
        self.begin_item(newest.map_or(0, Version::size));
        self.body.text().extend_from_slice(b"{\"current\":");
        match &change.current {
            Some(version) => self.render(version),
            None => self.body.text().extend_from_slice(b"{}"),
        }
        if let Some(previous) = &change.previous {
            self.body.text().extend_from_slice(b",\"previous\":");
            self.render(previous);
        }
        self.body.text().extend_from_slice(b",\"metadata\":{");
        self.stamp(change.stamp.lsn, change.stamp.ts);
        self.body.text().extend_from_slice(match change.kind {
            ChangeKind::Create => b",\"operationType\":\"create\"".as_slice(),
            ChangeKind::Replace => b",\"operationType\":\"replace\"",
            ChangeKind::Delete => b",\"operationType\":\"delete\",\"timeToLiveExpired\":false",
            ChangeKind::Expire => b",\"operationType\":\"delete\",\"timeToLiveExpired\":true",
        });
        if let Some(previous) = &change.previous {
            self.body
                .text()
                .extend_from_slice(b",\"previousImageLSN\":");
            write_number(self.body.text(), previous.lsn);
            if change.current.is_none() {
                self.key(change, previous);
            }
        }
        self.body.text().extend_from_slice(b"}}");
    }

    /// `id` and partition key of a document that is gone.
    fn key(&mut self, change: &Change, previous: &Version) {
        let body = self.body.text();
        body.extend_from_slice(b",\"id\":");
        write_text(body, &change.id);
        body.extend_from_slice(b",\"partitionKey\":{");
        let text = previous.to_json_text();
        let members = Members::parse(&text).ok();
        for (index, path) in self.container.key.paths().iter().enumerate() {
            if index > 0 {
                body.push(b',');
            }
            write_text(body, &path.join("/"));
            body.push(b':');
            let value = members.as_ref().and_then(|members| members.at(path));
            body.extend_from_slice(value.as_deref().unwrap_or("null").as_bytes());
        }
        body.push(b'}');
    }

    fn begin_item(&mut self, size: usize) {
        if self.body.items() == 0 {
            // Room for as many like the first, but not for more bytes than a page has.
            let expected = (size + 320).saturating_mul(self.most);
            self.body.text().reserve(expected.min(PAGE_BYTES + size));
        }
        self.body.next();
        self.charge += Charge::read(size);
    }

    fn render(&mut self, version: &Version) {
        version.render(&self.container.rendering, true, self.body.text());
    }

    fn stamp(&mut self, lsn: u64, ts: u32) {
        self.body.text().extend_from_slice(b"\"lsn\":");
        write_number(self.body.text(), lsn);
        self.body.text().extend_from_slice(b",\"crts\":");
        write_number(self.body.text(), ts);
    }

    /// The finished page; none if nothing is on it.
    pub fn into_body(self) -> Option<Vec<u8>> {
        (self.body.items() > 0).then(|| self.body.finish())
    }
}
