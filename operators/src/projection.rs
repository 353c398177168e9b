//! What is kept of a document: all of it, or a few of its properties.
//!
//! A job that reads three properties of twenty need not seal and compress the others. What was not kept is not in the checkpoint
//! either, so a later run that wants more of a document starts over.

use tidefeed_runtime::{Error, ErrorKind, Result};

use crate::properties::{properties, write_some};
use crate::scan::{Name, Scanned};

/// The properties that are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Projection(Option<Vec<Name>>);

impl Projection {
    /// Keeps these, or with `None` everything. `what` is what they are called where they are wrong.
    ///
    /// # Errors
    /// Those of [`check_fields`].
    pub(crate) fn new(what: &str, fields: Option<&[String]>) -> Result<Self> {
        check_fields(what, fields)?;
        let names = |fields: &[String]| fields.iter().map(|field| Name::new(field)).collect();
        Ok(Projection(fields.map(names)))
    }

    /// Whether a property is kept.
    pub(crate) fn keeps(&self, name: &str) -> bool {
        let fields = self.0.as_ref();
        fields.is_none_or(|fields| fields.iter().any(|field| field.as_str() == name))
    }

    /// Begins to write what is kept of a document that is scanned.
    pub(crate) fn begin<'p, 't>(&'p self, document: &[u8], to: &'t mut Vec<u8>) -> Writing<'p, 't> {
        let from = to.len();
        match &self.0 {
            None => to.extend_from_slice(document),
            Some(_) => to.push(b'{'),
        }
        Writing {
            fields: self.0.as_deref(),
            to,
            from,
        }
    }

    /// Writes what is kept of a document, and says how many bytes that is.
    ///
    /// # Errors
    /// `Data` when it is no JSON object.
    pub(crate) fn write(&self, document: &[u8], to: &mut Vec<u8>) -> Result<usize> {
        let from = to.len();
        match &self.0 {
            None => to.extend_from_slice(document),
            Some(_) => {
                let properties = properties(document).map_err(|error| {
                    Error::new(ErrorKind::Data, "it is no JSON object").with_source(error)
                })?;
                write_some(to, &properties, |name| self.keeps(name));
            }
        }
        Ok(to.len() - from)
    }
}

/// Checks the properties to keep of a document. `what` is what they are called where they are wrong.
///
/// # Errors
/// `Config` when there are some and none is named: then nothing of any document would be kept.
pub fn check_fields(what: &str, fields: Option<&[String]>) -> Result<()> {
    if !fields.is_some_and(<[String]>::is_empty) {
        return Ok(());
    }
    let why = format!("{what} is empty: name the properties to keep, or leave it out to keep all");
    Err(Error::new(ErrorKind::Config, why))
}

/// A document that is being written as it is scanned.
pub(crate) struct Writing<'p, 't> {
    fields: Option<&'p [Name]>,
    to: &'t mut Vec<u8>,
    from: usize,
}

impl Writing<'_, '_> {
    /// Writes a property, if it is kept.
    #[inline(always)]
    pub(crate) fn see(&mut self, property: Scanned<'_>) {
        let Some(fields) = self.fields else { return };
        if !fields.iter().any(|field| property.is(field)) {
            return;
        }
        let Scanned {
            name, value, whole, ..
        } = property;
        if self.to.len() > self.from + 1 {
            self.to.push(b',');
        }
        // Two quotes and a colon: there is no space between them.
        if whole.len() == name.len() + value.text.len() + 3 {
            return self.to.extend_from_slice(whole);
        }
        self.to.push(b'"');
        self.to.extend_from_slice(name);
        self.to.extend_from_slice(b"\":");
        self.to.extend_from_slice(value.text);
    }

    /// Ends it, and says how many bytes it is.
    pub(crate) fn end(self) -> usize {
        if self.fields.is_some() {
            self.to.push(b'}');
        }
        self.to.len() - self.from
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::{Scan, scan};

    fn projection(fields: &[&str]) -> Projection {
        let fields: Vec<_> = fields.iter().map(|field| (*field).to_owned()).collect();
        Projection::new("fields", Some(&fields)).expect("some are named")
    }

    #[test]
    fn keeping_nothing_is_refused() {
        let error = Projection::new("source.orders.fields", Some(&[])).expect_err("none");
        assert_eq!(error.kind(), ErrorKind::Config);
        let text = error.to_string();
        assert!(text.starts_with("source.orders.fields is empty"), "{text}");
        let all = Projection::new("source.orders.fields", None).expect("all");
        assert!(all.keeps("anything"));
    }

    fn scanned(projection: &Projection, document: &[u8]) -> Option<Vec<u8>> {
        let mut to = b"before".to_vec();
        let mut writing = projection.begin(document, &mut to);
        let end = scan(document, |property| writing.see(property));
        let length = writing.end();
        assert_eq!(to.len(), 6 + length);
        (end == Scan::Whole).then(|| to.split_off(6))
    }

    #[test]
    fn what_is_kept_is_the_same_by_a_scan_and_by_a_parser() {
        for (document, kept) in [
            (
                r#"{"id":"a","x":[1,{"b":2}],"n": 1.50 ,"b":{}}"#,
                r#"{"id":"a","n":1.50,"b":{}}"#,
            ),
            (r#"{"x":1}"#, "{}"),
            (r#"{"b":"\"\\","b":2}"#, r#"{"b":"\"\\","b":2}"#),
        ] {
            let projection = projection(&["id", "b", "n"]);
            let mut parsed = Vec::new();
            let length = projection
                .write(document.as_bytes(), &mut parsed)
                .expect("an object");
            assert_eq!(String::from_utf8_lossy(&parsed), kept);
            assert_eq!(length, kept.len());
            assert_eq!(scanned(&projection, document.as_bytes()), Some(parsed));
        }
        let all = Projection::default();
        let document = br#"{ "x" : 1 }"#;
        assert_eq!(scanned(&all, document).as_deref(), Some(&document[..]));
    }
}
