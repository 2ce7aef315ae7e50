//! The arguments of a line: words, lists in JSON, names with values, here documents.

use crate::error::Fault;
use crate::instruction::Heredoc;
use crate::quote::quote;

/// A line's first word, its flags and the rest.
pub(crate) fn split(line: &str, escape: char) -> (&str, Vec<String>, &str) {
    let line = line.trim();
    let (keyword, rest) = line.split_once(is_blank).unwrap_or((line, ""));
    let (flags, rest) = split_flags(rest.trim_start(), escape);
    (keyword, flags, rest.trim())
}

fn is_blank(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\r' | '\u{b}' | '\u{c}')
}

/// The words at the start that begin with `--`, up to one that is `--` alone. Quotes and escapes keep spaces and go.
fn split_flags(text: &str, escape: char) -> (Vec<String>, &str) {
    let (mut flags, mut left) = (Vec::new(), text);
    loop {
        left = left.trim_start();
        if !left.starts_with("--") {
            return (flags, left);
        }
        let (mut flag, mut quoted, mut end) = (String::new(), None, left.len());
        let mut characters = left.char_indices();
        while let Some((index, character)) = characters.next() {
            match (character, quoted) {
                (_, None) if character.is_whitespace() => {
                    end = index;
                    break;
                }
                ('\'' | '"', None) => quoted = Some(character),
                (_, Some(quote)) if character == quote => quoted = None,
                (_, Some('\'')) => flag.push(character),
                (_, _) if character == escape => flag.extend(characters.next().map(|(_, escaped)| escaped)),
                _ => flag.push(character),
            }
        }
        left = &left[end..];
        if flag == "--" {
            return (flags, left.trim_start());
        }
        flags.push(flag);
    }
}

/// Words between white space.
pub(crate) fn blanks(text: &str) -> Vec<String> {
    text.split(is_blank).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// A list in JSON; `None` for what is none.
pub(crate) fn json(text: &str) -> Result<Option<Vec<String>>, Fault> {
    if !text.starts_with('[') {
        return Ok(None);
    }
    match serde_json::from_str::<Vec<serde_json::Value>>(text) {
        Ok(values) => {
            let words = values.into_iter().map(|value| match value {
                serde_json::Value::String(text) => Ok(text),
                _ => Err(Fault::NotStrings),
            });
            words.collect::<Result<_, _>>().map(Some)
        }
        // As moby: a list that is not quite one is text for the shell.
        Err(_) => Ok(None),
    }
}

/// Words between spaces, where quotes and escapes keep spaces and stay in the words.
pub(crate) fn quoted(text: &str, escape: char) -> Vec<String> {
    let (mut words, mut word, mut quote, mut begun) = (Vec::new(), String::new(), None, false);
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if quote.is_none() && character.is_whitespace() {
            if begun {
                words.push(std::mem::take(&mut word));
            }
            begun = false;
            continue;
        }
        begun = true;
        match quote {
            None if matches!(character, '\'' | '"') => quote = Some(character),
            Some(open) if character == open => quote = None,
            _ => {}
        }
        word.push(character);
        if character == escape && quote != Some('\'') {
            match characters.next() {
                Some(escaped) => word.push(escaped),
                // One at the end is nothing.
                None => drop(word.pop()),
            }
        }
    }
    if begun && !word.is_empty() {
        words.push(word);
    }
    words
}

/// `name=value ...`, or the old `name the whole rest`.
pub(crate) fn pairs(keyword: &'static str, text: &str, escape: char) -> Result<Vec<(String, String)>, Fault> {
    let words = quoted(text, escape);
    let Some(first) = words.first() else { return Err(Fault::NoArgument(keyword)) };
    let pairs = if first.contains('=') {
        let pair = |word: &String| match word.split_once('=') {
            Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
            None => Err(Fault::NoEquals(quote(word))),
        };
        words.iter().map(pair).collect::<Result<Vec<_>, _>>()?
    } else {
        let (name, value) = text.split_once(is_blank).ok_or(Fault::OneWord(keyword))?;
        vec![(name.to_owned(), value.trim_start_matches(is_blank).to_owned())]
    };
    if pairs.iter().any(|(name, _)| name.is_empty()) {
        return Err(Fault::BlankName(keyword));
    }
    Ok(pairs)
}

/// The here documents that a line announces, their content still missing.
pub(crate) fn heredocs(line: &str, escape: char) -> Vec<Heredoc> {
    let (keyword, _, rest) = split(line, escape);
    let (keyword, rest) = if keyword.eq_ignore_ascii_case("onbuild") {
        let (keyword, _, rest) = split(rest, escape);
        (keyword, rest)
    } else {
        (keyword, rest)
    };
    let may = ["add", "copy", "run"].iter().any(|known| keyword.eq_ignore_ascii_case(known));
    if !may || !rest.contains("<<") || json(rest).is_ok_and(|list| list.is_some()) {
        return Vec::new();
    }
    quoted(rest, escape).iter().filter_map(|word| heredoc(word)).collect()
}

/// `<<EOF`, `<<-EOF`, `<<"EOF"`; nothing may stand before but the number of a stream.
pub(crate) fn heredoc(word: &str) -> Option<Heredoc> {
    let rest = word.trim_start_matches(|character: char| character.is_ascii_digit()).strip_prefix("<<")?;
    let (rest, chomp) = rest.strip_prefix('-').map_or((rest, false), |rest| (rest, true));
    if rest.is_empty() || rest.contains('<') {
        return None;
    }
    let name: String = rest.chars().filter(|character| !matches!(character, '"' | '\'')).collect();
    let expand = name == rest;
    (!name.is_empty()).then_some(Heredoc { name, content: String::new(), expand, chomp })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_come_before_the_rest() {
        let (keyword, flags, rest) = split("COPY --from=x --chown=\"a b\" -- --y /z ", '\\');
        assert_eq!((keyword, rest), ("COPY", "--y /z"));
        assert_eq!(flags, ["--from=x", "--chown=a b"]);
        assert_eq!(split("RUN\tx", '\\'), ("RUN", vec![], "x"));
    }

    #[test]
    fn quotes_stay_in_words() {
        assert_eq!(quoted("a=\"b c\" d='e f' g\\ h i\\", '\\'), ["a=\"b c\"", "d='e f'", "g\\ h", "i"]);
        assert_eq!(quoted("  ", '\\'), Vec::<String>::new());
    }

    #[test]
    fn pairs_are_of_two_forms() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(pairs("ENV", "a=1 b=\"2 3\"", '\\'), Ok(vec![pair("a", "1"), pair("b", "\"2 3\"")]));
        assert_eq!(pairs("ENV", "a  b c=d", '\\'), Ok(vec![pair("a", "b c=d")]));
        assert_eq!(pairs("ENV", "a", '\\'), Err(Fault::OneWord("ENV")));
        assert_eq!(pairs("ENV", "", '\\'), Err(Fault::NoArgument("ENV")));
        assert_eq!(pairs("ENV", "=x", '\\'), Err(Fault::BlankName("ENV")));
        assert_eq!(pairs("LABEL", "a=b c", '\\'), Err(Fault::NoEquals("\"c\"".to_owned())));
    }

    #[test]
    fn lists_are_of_texts() {
        assert_eq!(json("[\"a\", \"b\"]"), Ok(Some(vec!["a".to_owned(), "b".to_owned()])));
        assert_eq!(json("[ \"a\", ]"), Ok(None));
        assert_eq!(json("[1]"), Err(Fault::NotStrings));
        assert_eq!(json("a"), Ok(None));
    }
}
