//! Tokens of a query.

/// A token.
#[derive(Clone, Debug, PartialEq)]
pub enum Token {
    /// A keyword or identifier.
    Word(String),
    /// `@name`.
    Parameter(String),
    /// A number.
    Number(serde_json::Number),
    /// A string, unescaped.
    Text(String),
    /// Punctuation.
    Symbol(&'static str),
}

/// Most tokens of a query. It bounds the depth of the tree, and so the stack that a hostile query can use.
const MAX_TOKENS: usize = 20_000;

/// Longest first, so that `<=` is not read as `<`.
const SYMBOLS: [&str; 26] = [
    "??", "||", "!=", "<>", "<=", ">=", "=", "<", ">", "(", ")", "[", "]", "{", "}", ",", ".", ":",
    "?", "*", "+", "-", "/", "%", "&", "|",
];

/// Splits a query into tokens.
///
/// # Errors
/// One clause that says where the text makes no sense.
pub fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    loop {
        rest = skip_blank(rest)?;
        let Some(first) = rest.chars().next() else {
            return Ok(tokens);
        };
        if tokens.len() == MAX_TOKENS {
            return Err(format!(
                "the query has more than {MAX_TOKENS} words and symbols: ask for less at once"
            ));
        }
        let (token, length) = match first {
            '\'' | '"' => quoted(rest, first)?,
            '@' => {
                let length = 1 + word_length(&rest[1..]);
                (Token::Parameter(rest[..length].to_owned()), length)
            }
            _ if first.is_ascii_digit()
                || first == '.' && rest[1..].starts_with(|c: char| c.is_ascii_digit()) =>
            {
                number(rest)?
            }
            _ if first.is_alphabetic() || first == '_' || first == '$' => {
                let length = word_length(rest);
                (Token::Word(rest[..length].to_owned()), length)
            }
            _ => {
                let symbol = SYMBOLS
                    .iter()
                    .find(|symbol| rest.starts_with(**symbol))
                    .ok_or_else(|| format!("the query has an unexpected character {first:?}"))?;
                (Token::Symbol(symbol), symbol.len())
            }
        };
        tokens.push(token);
        rest = &rest[length..];
    }
}

fn skip_blank(mut rest: &str) -> Result<&str, String> {
    loop {
        rest = rest.trim_start();
        if let Some(comment) = rest.strip_prefix("--") {
            rest = comment.split_once('\n').map_or("", |(_, after)| after);
        } else if let Some(comment) = rest.strip_prefix("/*") {
            rest = comment
                .split_once("*/")
                .ok_or("the query has an unclosed comment")?
                .1;
        } else {
            return Ok(rest);
        }
    }
}

fn word_length(text: &str) -> usize {
    text.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '$')
        .unwrap_or(text.len())
}

fn number(text: &str) -> Result<(Token, usize), String> {
    let mut previous = ' ';
    let length = text
        .find(|c: char| {
            let sign = matches!(c, '+' | '-') && matches!(previous, 'e' | 'E');
            previous = c;
            !(c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E') || sign)
        })
        .unwrap_or(text.len());
    let digits = &text[..length];
    let parsed = match digits.parse::<i64>() {
        Ok(whole) => Some(serde_json::Number::from(whole)),
        Err(_) => digits
            .parse::<f64>()
            .ok()
            .and_then(serde_json::Number::from_f64),
    };
    parsed
        .map(|number| (Token::Number(number), length))
        .ok_or_else(|| format!("{digits} is not a number"))
}

fn quoted(text: &str, quote: char) -> Result<(Token, usize), String> {
    let mut value = String::new();
    let mut letters = text.char_indices().skip(1).peekable();
    while let Some((index, letter)) = letters.next() {
        match letter {
            '\\' => value.push(escape(&mut letters)?),
            _ if letter == quote => {
                if letters.next_if(|(_, next)| *next == quote).is_none() {
                    return Ok((Token::Text(value), index + 1));
                }
                value.push(quote);
            }
            _ => value.push(letter),
        }
    }
    Err("the query has an unclosed string".to_owned())
}

fn escape(letters: &mut impl Iterator<Item = (usize, char)>) -> Result<char, String> {
    let bad = || "the query has a string with an unknown escape".to_owned();
    let (_, letter) = letters.next().ok_or_else(bad)?;
    Ok(match letter {
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'b' => '\u{8}',
        'f' => '\u{c}',
        '"' | '\'' | '\\' | '/' => letter,
        'u' => {
            let mut unit = || {
                (0..4).try_fold(0, |code, _| {
                    let (_, digit) = letters.next().ok_or_else(bad)?;
                    Ok::<u32, String>(code * 16 + digit.to_digit(16).ok_or_else(bad)?)
                })
            };
            let mut code = unit()?;
            if (0xD800..0xDC00).contains(&code) {
                if letters.next().map(|(_, c)| c) != Some('\\')
                    || letters.next().map(|(_, c)| c) != Some('u')
                {
                    return Err(bad());
                }
                let low = (0..4).try_fold(0, |code, _| {
                    let (_, digit) = letters.next().ok_or_else(bad)?;
                    Ok::<u32, String>(code * 16 + digit.to_digit(16).ok_or_else(bad)?)
                })?;
                code = 0x10000
                    + ((code - 0xD800) << 10)
                    + low
                        .checked_sub(0xDC00)
                        .filter(|l| *l < 0x400)
                        .ok_or_else(bad)?;
            }
            char::from_u32(code).ok_or_else(bad)?
        }
        _ => return Err(bad()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_numbers_and_symbols_are_told_apart() {
        let tokens =
            tokens("SELECT c.a1,'it''s \\u00e6\\ud83d\\ude00', 1.5e-3 <= @p -- end\n/* x */ ??")
                .unwrap();
        assert_eq!(tokens.len(), 11);
        assert_eq!(tokens[5], Token::Text("it's \u{e6}\u{1F600}".to_owned()));
        assert_eq!(
            tokens[7],
            Token::Number(serde_json::Number::from_f64(0.0015).unwrap())
        );
        assert_eq!(tokens[8], Token::Symbol("<="));
        assert_eq!(tokens[9], Token::Parameter("@p".to_owned()));
        assert_eq!(tokens[10], Token::Symbol("??"));
    }

    #[test]
    fn nonsense_is_an_error() {
        for bad in [
            "'open",
            "/* open",
            "1.2.3",
            "'\\q'",
            "'\\ud83d'",
            "#",
            "'\\u12",
            "'\\ud83d\\u0041'",
        ] {
            assert!(tokens(bad).is_err(), "{bad}");
        }
    }
}
