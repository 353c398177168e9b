//! Tokens of a query.

use super::error::{QueryError, Span};

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

/// Most tokens of a query: what a hostile one can make the server hold.
const MAX_TOKENS: usize = 20_000;

/// Longest first, so that `<=` is not read as `<`.
const SYMBOLS: [&str; 30] = [
    "??", "<<", ">>", "||", "!=", "<>", "<=", ">=", "=", "<", ">", "(", ")", "[", "]", "{", "}",
    ",", ".", ":", "?", "*", "+", "-", "/", "%", "&", "|", "^", "~",
];

/// A token and where it stands.
#[derive(Clone, Debug)]
pub struct Lexeme {
    /// What it is.
    pub token: Token,
    /// Where it stands.
    pub span: Span,
}

/// Splits a query into tokens.
///
/// # Errors
/// Where the text is no token.
pub fn tokens(text: &str) -> Result<Vec<Lexeme>, QueryError> {
    let mut tokens = Vec::new();
    let mut rest = text;
    let place = |rest: &str| text.len() - rest.len();
    loop {
        rest = skip_blank(rest).map_err(|what| QueryError::token(what, place(rest)..text.len()))?;
        let Some(first) = rest.chars().next() else {
            return Ok(tokens);
        };
        let start = place(rest);
        if tokens.len() == MAX_TOKENS {
            return Err(QueryError::at(
                format!(
                    "the query has more than {MAX_TOKENS} words and symbols: ask for less at once"
                ),
                start..text.len(),
            ));
        }
        let (token, length) = one(rest, first)
            .map_err(|what| QueryError::token(&what, start..start + first.len_utf8()))?;
        let span = start..start + length;
        tokens.push(Lexeme { token, span });
        rest = &rest[length..];
    }
}

fn one(rest: &str, first: char) -> Result<(Token, usize), String> {
    match first {
        '\'' | '"' => quoted(rest, first),
        '@' => {
            let length = 1 + word_length(&rest[1..]);
            Ok((Token::Parameter(rest[..length].to_owned()), length))
        }
        _ if first.is_ascii_digit()
            || first == '.' && rest[1..].starts_with(|c: char| c.is_ascii_digit()) =>
        {
            number(rest)
        }
        _ if first.is_alphabetic() || first == '_' || first == '$' => {
            let length = word_length(rest);
            Ok((Token::Word(rest[..length].to_owned()), length))
        }
        _ => SYMBOLS
            .iter()
            .find(|symbol| rest.starts_with(**symbol))
            .map(|symbol| (Token::Symbol(symbol), symbol.len()))
            .ok_or_else(|| format!("the character {first:?}")),
    }
}

fn skip_blank(mut rest: &str) -> Result<&str, &'static str> {
    loop {
        rest = rest.trim_start();
        if let Some(comment) = rest.strip_prefix("--") {
            rest = comment.split_once('\n').map_or("", |(_, after)| after);
        } else if let Some(comment) = rest.strip_prefix("/*") {
            rest = comment.split_once("*/").ok_or("an unclosed comment")?.1;
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
        .ok_or_else(|| format!("the number {digits}"))
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
    Err("an unclosed string".to_owned())
}

fn escape(letters: &mut impl Iterator<Item = (usize, char)>) -> Result<char, String> {
    let bad = || "a string with an unknown escape".to_owned();
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
        let lexemes =
            tokens("SELECT c.a1,'it''s \\u00e6\\ud83d\\ude00', 1.5e-3 <= @p -- end\n/* x */ ??")
                .unwrap();
        assert_eq!(lexemes[1].span, 7..8);
        let tokens: Vec<Token> = lexemes.into_iter().map(|lexeme| lexeme.token).collect();
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
