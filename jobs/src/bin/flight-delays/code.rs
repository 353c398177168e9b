//! Short codes: carriers, airports and tail numbers.

use std::fmt;
use std::str::FromStr;

use crate::text::text_in_json;

/// One to eight ASCII letters and digits, such as `UA`, `EWR` or `N14228`.
///
/// It is eight bytes without a heap allocation, because codes are the keys of every aggregate of the job. Codes sort as
/// their text does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code(u64);

text_in_json!(Code, u64);

impl Code {
    /// The most characters that a code has.
    pub const MAX_LEN: usize = 8;

    /// The code as eight bytes, padded with zeros.
    pub fn to_bytes(self) -> [u8; Code::MAX_LEN] {
        self.0.to_be_bytes()
    }
}

impl FromStr for Code {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bytes = text.as_bytes();
        if bytes.is_empty()
            || bytes.len() > Code::MAX_LEN
            || !bytes.iter().all(u8::is_ascii_alphanumeric)
        {
            return Err(format!("{text:?} is not 1 to 8 letters and digits"));
        }
        let mut padded = [0; Code::MAX_LEN];
        padded[..bytes.len()].copy_from_slice(bytes);
        Ok(Code(u64::from_be_bytes(padded)))
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.to_bytes();
        let len = bytes.iter().position(|byte| *byte == 0);
        let text = std::str::from_utf8(&bytes[..len.unwrap_or(Code::MAX_LEN)]);
        f.pad(text.unwrap_or("?"))
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> Code {
        text.parse().expect("a code")
    }

    #[test]
    fn codes_keep_their_text_and_its_order() {
        for text in ["9E", "EWR", "N14228", "ABCDEFGH"] {
            assert_eq!(code(text).to_string(), text);
            let json = serde_json::to_string(&code(text)).expect("json");
            assert_eq!(json, format!("{text:?}"));
            assert_eq!(serde_json::from_str::<Code>(&json).ok(), Some(code(text)));
        }
        assert!(code("EWR") < code("EWRX"));
        assert!(code("EWRX") < code("JFK"));
    }

    #[test]
    fn what_is_not_a_code_is_refused() {
        for text in ["", "ABCDEFGHI", "E R", "é"] {
            assert!(text.parse::<Code>().is_err(), "{text:?}");
        }
    }
}
