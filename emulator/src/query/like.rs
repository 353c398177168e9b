//! `LIKE` patterns: `%` stands for any text, `_` for any character, `[abc]`, `[a-f]` and `[^a]` for one of a set.

/// Whether a text is like a pattern. The character behind `escape` in the pattern stands for itself.
pub fn like(text: &str, pattern: &str, escape: Option<char>) -> bool {
    matches(&text.chars().collect::<Vec<_>>(), &parts(pattern, escape))
}

enum Part {
    Any,
    One,
    Literal(char),
    Set {
        ranges: Vec<(char, char)>,
        negated: bool,
    },
}

impl Part {
    fn admits(&self, letter: char) -> bool {
        match self {
            Self::Any => false,
            Self::One => true,
            Self::Literal(wanted) => *wanted == letter,
            Self::Set { ranges, negated } => {
                let within = ranges
                    .iter()
                    .any(|(low, high)| (*low..=*high).contains(&letter));
                within != *negated
            }
        }
    }
}

fn parts(pattern: &str, escape: Option<char>) -> Vec<Part> {
    let letters: Vec<char> = pattern.chars().collect();
    let (mut parts, mut at) = (Vec::new(), 0);
    while let Some(letter) = letters.get(at) {
        at += 1;
        parts.push(match letter {
            _ if Some(*letter) == escape => {
                at += 1;
                Part::Literal(letters.get(at - 1).copied().unwrap_or(*letter))
            }
            '%' => Part::Any,
            '_' => Part::One,
            '[' => match letters[at..].iter().position(|letter| *letter == ']') {
                Some(length) => {
                    let set = set(&letters[at..at + length]);
                    at += length + 1;
                    set
                }
                None => Part::Literal('['),
            },
            _ => Part::Literal(*letter),
        });
    }
    parts
}

fn set(letters: &[char]) -> Part {
    let negated = letters.first() == Some(&'^');
    let mut rest = &letters[usize::from(negated)..];
    let mut ranges = Vec::new();
    loop {
        rest = match rest {
            [low, '-', high, after @ ..] => {
                ranges.push((*low, *high));
                after
            }
            [letter, after @ ..] => {
                ranges.push((*letter, *letter));
                after
            }
            [] => return Part::Set { ranges, negated },
        };
    }
}

/// On a mismatch only the last `%` has to take more, so the time is bounded by the product of the lengths.
fn matches(text: &[char], parts: &[Part]) -> bool {
    let (mut t, mut p) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        match parts.get(p) {
            Some(Part::Any) => {
                p += 1;
                retry = Some((t, p));
            }
            Some(part) if part.admits(text[t]) => {
                t += 1;
                p += 1;
            }
            _ => match retry {
                Some((from, behind)) => {
                    retry = Some((from + 1, behind));
                    (t, p) = (from + 1, behind);
                }
                None => return false,
            },
        }
    }
    parts[p..].iter().all(|part| matches!(part, Part::Any))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_sets_and_escapes() {
        for (text, pattern, escape, expected) in [
            ("", "", None, true),
            ("", "%", None, true),
            ("abc", "a%", None, true),
            ("abc", "%c", None, true),
            ("abc", "%b%", None, true),
            ("abc", "a_c", None, true),
            ("abc", "a_", None, false),
            ("abc", "abc%d", None, false),
            ("aXbXc", "a%X%c", None, true),
            ("cat", "[bc]at", None, true),
            ("dat", "[b-d]at", None, true),
            ("cat", "[^bc]at", None, false),
            ("[", "[", None, true),
            ("50%", "50!%", Some('!'), true),
            ("500", "50!%", Some('!'), false),
            ("a!", "a!!", Some('!'), true),
            ("\u{e6}\u{1F600}", "\u{e6}_", None, true),
        ] {
            assert_eq!(like(text, pattern, escape), expected, "{text} {pattern}");
        }
    }

    /// The obvious implementation: try every length for every `%`.
    fn naive(text: &[char], parts: &[Part]) -> bool {
        match parts.split_first() {
            None => text.is_empty(),
            Some((Part::Any, rest)) => (0..=text.len()).any(|skip| naive(&text[skip..], rest)),
            Some((part, rest)) => match text.split_first() {
                Some((letter, text)) => part.admits(*letter) && naive(text, rest),
                None => false,
            },
        }
    }

    #[test]
    fn every_short_text_and_pattern_equals_the_naive_way() {
        let words = |letters: &[char], most: usize| {
            let mut words = vec![String::new()];
            let mut from = 0;
            for _ in 0..most {
                let until = words.len();
                for index in from..until {
                    for letter in letters {
                        words.push(format!("{}{letter}", words[index]));
                    }
                }
                from = until;
            }
            words
        };
        for text in words(&['a', 'b'], 5) {
            for pattern in words(&['a', 'b', '%', '_'], 4) {
                let letters: Vec<char> = text.chars().collect();
                assert_eq!(
                    like(&text, &pattern, None),
                    naive(&letters, &parts(&pattern, None)),
                    "{text} {pattern}"
                );
            }
        }
    }
}
