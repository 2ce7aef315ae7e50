//! Patterns of names as Go's `path.Match`, for files and for `docker images --filter reference=`, and those of
//! substitutions (`${x#pattern}`).

/// Whether `name` is what `pattern` describes: `*` and `?` stand for anything but `/`, `[a-z]` and `[^a-z]` for one
/// character, as in Go also for `/`, a backslash takes the next one as it is. `None` for a pattern that is none.
pub fn matches(pattern: &str, name: &str) -> Option<bool> {
    let tokens = tokens(pattern)?;
    let name: Vec<char> = name.chars().collect();
    Some(matches_tokens(&tokens, &name))
}

/// Whether a path has to be matched rather than taken as it is.
pub fn is_pattern(path: &str) -> bool {
    let mut characters = path.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => drop(characters.next()),
            '*' | '?' | '[' => return true,
            _ => {}
        }
    }
    false
}

enum Token {
    One(char),
    Any,
    Star,
    Class { ranges: Vec<(char, char)>, negated: bool },
}

fn tokens(pattern: &str) -> Option<Vec<Token>> {
    let mut characters = pattern.chars().peekable();
    let mut tokens = Vec::new();
    while let Some(character) = characters.next() {
        tokens.push(match character {
            '*' => Token::Star,
            '?' => Token::Any,
            '\\' => Token::One(characters.next()?),
            '[' => {
                let negated = characters.next_if_eq(&'^').is_some();
                let mut ranges = Vec::new();
                loop {
                    match characters.next()? {
                        ']' if !ranges.is_empty() => break,
                        ']' | '-' => return None,
                        low => {
                            let low = if low == '\\' { characters.next()? } else { low };
                            let high = if characters.next_if_eq(&'-').is_some() {
                                match characters.next()? {
                                    '\\' => characters.next()?,
                                    '-' | ']' => return None,
                                    high => high,
                                }
                            } else {
                                low
                            };
                            ranges.push((low, high));
                        }
                    }
                }
                Token::Class { ranges, negated }
            }
            other => Token::One(other),
        });
    }
    Some(tokens)
}

/// Goes back to the last star only, which suffices, and so takes no more than the product of both lengths.
fn matches_tokens(tokens: &[Token], name: &[char]) -> bool {
    let (mut token, mut place) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    loop {
        let fits = match (tokens.get(token), name.get(place)) {
            (None, None) => return true,
            (Some(Token::Star), _) => {
                retry = Some((token + 1, place));
                token += 1;
                continue;
            }
            (Some(Token::One(wanted)), Some(character)) => wanted == character,
            (Some(Token::Any), Some(character)) => *character != '/',
            (Some(Token::Class { ranges, negated }), Some(character)) => {
                let within = ranges.iter().any(|(low, high)| (low..=high).contains(&character));
                within != *negated
            }
            _ => false,
        };
        if fits {
            (token, place) = (token + 1, place + 1);
            continue;
        }
        match retry {
            Some((after, from)) if name.get(from).is_some_and(|character| *character != '/') => {
                retry = Some((after, from + 1));
                (token, place) = (after, from + 1);
            }
            _ => return false,
        }
    }
}

/// A part of a substitution's pattern: there `*` and `?` stand for anything, `/` among it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Piece {
    One(char),
    Any,
    Star,
}

fn pieces(pattern: &str) -> Vec<Piece> {
    let mut characters = pattern.chars();
    let mut pieces = Vec::new();
    while let Some(character) = characters.next() {
        match character {
            '*' => pieces.push(Piece::Star),
            '?' => pieces.push(Piece::Any),
            '\\' => pieces.extend(characters.next().map(Piece::One)),
            other => pieces.push(Piece::One(other)),
        }
    }
    pieces
}

/// All ends of what the pattern matches from the start of `text`, as `ends[i]`: whether the first `i` characters do; no further
/// than anything can match, which for most patterns is not far.
fn ends(pieces: &[Piece], text: &[char]) -> Vec<bool> {
    // Which pieces may come next.
    let mut next = vec![false; pieces.len() + 1];
    next[0] = true;
    let mut ends = Vec::new();
    for place in 0..=text.len() {
        for (index, piece) in pieces.iter().enumerate() {
            next[index + 1] |= next[index] && *piece == Piece::Star;
        }
        ends.push(next[pieces.len()]);
        let Some(character) = text.get(place).filter(|_| next.contains(&true)) else { break };
        let mut after = vec![false; pieces.len() + 1];
        for (index, piece) in pieces.iter().enumerate().filter(|(index, _)| next[*index]) {
            match piece {
                Piece::Star => after[index] = true,
                Piece::Any => after[index + 1] = true,
                Piece::One(wanted) => after[index + 1] |= character == wanted,
            }
        }
        next = after;
    }
    ends
}

/// `value` without the shortest or the longest part at its start, or its end, that the pattern matches.
pub(crate) fn trim(value: &str, pattern: &str, at_start: bool, longest: bool) -> String {
    let (mut text, mut pieces): (Vec<char>, Vec<Piece>) = (value.chars().collect(), pieces(pattern));
    if !at_start {
        text.reverse();
        pieces.reverse();
    }
    let ends = ends(&pieces, &text);
    let end = if longest { ends.iter().rposition(|end| *end) } else { ends.iter().position(|end| *end) };
    let left = &text[end.unwrap_or(0)..];
    if at_start { left.iter().collect() } else { left.iter().rev().collect() }
}

/// `value` with the first, or every, longest part that the pattern matches replaced.
pub(crate) fn replace(value: &str, pattern: &str, replacement: &str, all: bool) -> String {
    let (text, pieces): (Vec<char>, Vec<Piece>) = (value.chars().collect(), pieces(pattern));
    let (mut result, mut place, mut replaced) = (String::new(), 0, false);
    while place < text.len() {
        let end =
            if replaced && !all { None } else { ends(&pieces, &text[place..]).iter().rposition(|end| *end) };
        match end.filter(|length| *length > 0) {
            Some(length) => {
                result.push_str(replacement);
                place += length;
                replaced = true;
            }
            None => {
                result.push(text[place]);
                place += 1;
            }
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_as_in_go() {
        for (pattern, name, expected) in [
            ("abc", "abc", Some(true)),
            ("*", "abc", Some(true)),
            ("*c", "abc", Some(true)),
            ("a*", "ab/c", Some(false)),
            ("a*/b", "abc/b", Some(true)),
            ("a*b*c*d*e*/f", "axbxcxdxe/xxx/f", Some(false)),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/f", Some(true)),
            ("ab[b-d]", "abc", Some(true)),
            ("ab[^b-d]", "abc", Some(false)),
            ("a\\*b", "a*b", Some(true)),
            ("a?b", "a/b", Some(false)),
            ("[]a]", "]", None),
            ("[a", "a", None),
            ("a[", "ab", None),
            ("[-x]", "x", None),
            ("a\\", "a", None),
            ("*x", "xxx", Some(true)),
            ("", "", Some(true)),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
        assert!(is_pattern("a*") && !is_pattern("a\\*"));
    }

    #[test]
    fn references_match_as_in_go() {
        for (pattern, text, fits) in [
            ("busybox", "busybox", true),
            ("busy*", "busybox", true),
            ("*:latest", "busybox:latest", true),
            ("*", "a/b", false),
            ("*/*", "a/b", true),
            ("b?x", "bax", true),
            ("b?x", "b/x", false),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("a[^b]c", "a/c", true),
            ("\\*", "*", true),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "aXbY", false),
            ("", "", true),
            ("", "a", false),
            ("[", "[", false),
            ("**", "abc", true),
        ] {
            assert_eq!(matches(pattern, text) == Some(true), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn a_hostile_pattern_takes_no_longer() {
        assert_eq!(matches(&"*a".repeat(500), &"a".repeat(499)), Some(false));
        let long = "ab".repeat(10_000);
        assert_eq!(replace(&long, "b", "c", true), "ac".repeat(10_000));
        assert_eq!(trim(&long, "?b", true, true).len(), long.len() - 2);
    }
}
