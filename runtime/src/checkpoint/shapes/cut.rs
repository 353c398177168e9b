//! Where the slots of a record are.

use std::ops::Range;

use super::MOST_SLOTS;
use super::word::{Text, Wanted, write_number};
use crate::RecordRef;

/// Where the slots of a record are.
#[derive(Default)]
pub(super) struct Slots {
    pub(super) key: Vec<Range<usize>>,
    pub(super) body: Vec<Range<usize>>,
}

impl Slots {
    /// Finds them; `false` if there are too many.
    pub(super) fn find(&mut self, record: &RecordRef<'_>) -> bool {
        slots(record.key, &mut self.key);
        slots(record.body.unwrap_or_default(), &mut self.body);
        self.key.len().max(self.body.len()) <= MOST_SLOTS
    }

    /// The shape of the record, as it is written: what has the same bytes is the same shape.
    pub(super) fn shape(&self, record: &RecordRef<'_>) -> Vec<u8> {
        let mut to = Vec::new();
        let body_slots = record.body.map_or(0, |_| self.body.len() + 1);
        write_number(self.key.len(), |byte| to.push(byte));
        write_number(body_slots, |byte| to.push(byte));
        let body = record.body.map(|body| fixed(body, &self.body));
        for text in fixed(record.key, &self.key).chain(body.into_iter().flatten()) {
            write_number(text.len(), |byte| to.push(byte));
            to.extend_from_slice(text);
        }
        to
    }
}

/// What of a text is not in the slots: one more than there are slots.
pub(super) fn fixed<'t>(text: &'t [u8], slots: &[Range<usize>]) -> impl Iterator<Item = &'t [u8]> {
    let starts = [0].into_iter().chain(slots.iter().map(|slot| slot.end));
    let ends = slots.iter().map(|slot| slot.start).chain([text.len()]);
    starts.zip(ends).map(|(start, end)| &text[start..end])
}

/// The slots of a text: its strings that are no names, and its words and numbers. Between two is always something else.
fn slots(text: &[u8], slots: &mut Vec<Range<usize>>) {
    slots.clear();
    let quote = Wanted::new(b'"');
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        let from = at;
        match *byte {
            b'"' => {
                let Some(end) = Text::new(text).find_far(at + 1, quote) else {
                    return;
                };
                at = end + 1;
                let mut rest = text[at..].iter();
                if rest.find(|byte| !byte.is_ascii_whitespace()) != Some(&b':') {
                    slots.push(from + 1..end);
                }
            }
            byte if in_word(byte) => {
                at += text[at..].iter().take_while(|byte| in_word(**byte)).count();
                slots.push(from..at);
            }
            _ => at += 1,
        }
        if slots.len() > MOST_SLOTS {
            return;
        }
    }
}

/// Whether a byte can be in a number or a word outside of strings.
fn in_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.' | b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(text: &str) -> (Vec<&str>, Vec<&str>) {
        let mut found = Vec::new();
        slots(text.as_bytes(), &mut found);
        let values = found.iter().map(|slot| &text[slot.clone()]).collect();
        let mut between = Vec::new();
        for fixed in fixed(text.as_bytes(), &found) {
            between.push(std::str::from_utf8(fixed).expect("text"));
        }
        (values, between)
    }

    #[test]
    fn values_are_slots_and_names_are_fixed() {
        let (values, fixed) = cut(r#"{"a": "x\"y","b" :-1.5e+3,"c":[true,null,{"d":""}]}"#);
        assert_eq!(values, [r#"x\"y"#, "-1.5e+3", "true", "null", ""]);
        let between = [
            r#"{"a": ""#,
            r#"","b" :"#,
            r#","c":["#,
            ",",
            r#",{"d":""#,
            r#""}]}"#,
        ];
        assert_eq!(fixed, between);
        assert_eq!(cut(r#"["o-1"]"#), (vec!["o-1"], vec!["[\"", "\"]"]));
    }

    #[test]
    fn other_texts_have_slots_too() {
        assert_eq!(cut(""), (vec![], vec![""]));
        assert_eq!(cut("abc"), (vec!["abc"], vec!["", ""]));
        assert_eq!(cut("\"open"), (vec![], vec!["\"open"]));
        assert_eq!(cut("{{{"), (vec![], vec!["{{{"]));
    }
}
