//! From a text to its parts.

use super::{TemplateError, failed};

/// How deep `if`s and brackets may be in one another: users' texts must not exhaust our stack.
const DEPTH_LIMIT: usize = 32;

/// A part of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Text(String),
    /// What a pipe gives.
    Output(Pipe),
    /// The first whose condition holds, else the last.
    If {
        branches: Vec<(Pipe, Vec<Part>)>,
        otherwise: Vec<Part>,
    },
}

/// Commands, each given what the one before gives as its last argument.
pub(super) type Pipe = Vec<Vec<Word>>;

/// A word of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// `.A.B`; none at all is `.`.
    Field(Vec<String>),
    Text(String),
    Number(i64),
    Truth(bool),
    Function(String),
    /// In brackets.
    Pipe(Pipe),
}

/// A piece of the text: as it is, or what is between the braces.
enum Piece<'a> {
    Text(&'a str),
    Action(&'a str),
}

/// Reads a template.
pub(super) fn parse(text: &str) -> Result<Vec<Part>, TemplateError> {
    let pieces = pieces(text)?;
    let mut pieces = pieces.into_iter();
    match parts(&mut pieces, 0)? {
        (parts, None) => Ok(parts),
        (_, Some(stray)) => failed(format!("unexpected {{{{{stray}}}}}")),
    }
}

fn pieces(text: &str) -> Result<Vec<Piece<'_>>, TemplateError> {
    let (mut pieces, mut rest, mut trim) = (Vec::new(), text, false);
    loop {
        let (mut before, after) = match rest.split_once("{{") {
            Some((before, after)) => (before, Some(after)),
            None => (rest, None),
        };
        if trim {
            before = before.trim_start();
        }
        let Some(mut action) = after else {
            pieces.push(Piece::Text(before));
            return Ok(pieces);
        };
        if let Some(trimmed) = action.strip_prefix('-').filter(|it| it.starts_with(char::is_whitespace)) {
            (action, before) = (trimmed, before.trim_end());
        }
        pieces.push(Piece::Text(before));
        let Some(end) = action_end(action) else { return failed("unclosed action") };
        rest = &action[end + 2..];
        let mut inside = &action[..end];
        trim = inside.strip_suffix('-').is_some_and(|it| it.ends_with(char::is_whitespace) || it.is_empty());
        if trim {
            inside = &inside[..inside.len() - 1];
        }
        let inside = inside.trim();
        if !(inside.starts_with("/*") && inside.ends_with("*/")) {
            pieces.push(Piece::Action(inside));
        }
    }
}

/// Where the closing braces of an action are, those within its texts passed over.
fn action_end(action: &str) -> Option<usize> {
    let bytes = action.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'}' if bytes.get(at + 1) == Some(&b'}') => return Some(at),
            b'"' => {
                at += 1;
                while *bytes.get(at)? != b'"' {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
            }
            b'`' => at += 1 + action[at + 1..].find('`')?,
            _ => {}
        }
        at += 1;
    }
    None
}

/// Parts up to the end, or up to an `else` or `end` that is for the caller.
fn parts<'a>(
    pieces: &mut impl Iterator<Item = Piece<'a>>,
    depth: usize,
) -> Result<(Vec<Part>, Option<&'a str>), TemplateError> {
    if depth > DEPTH_LIMIT {
        return failed(format!("more than {DEPTH_LIMIT} conditions in one another"));
    }
    let mut parts = Vec::new();
    while let Some(piece) = pieces.next() {
        match piece {
            Piece::Text("") => {}
            Piece::Text(text) => parts.push(Part::Text(text.to_owned())),
            Piece::Action(action) => {
                let (word, rest) = action.split_once(char::is_whitespace).unwrap_or((action, ""));
                match word {
                    "end" | "else" => return Ok((parts, Some(action))),
                    "if" => parts.push(condition(rest, pieces, depth)?),
                    "range" | "with" | "define" | "template" | "block" | "break" | "continue" => {
                        return failed(format!("{word:?} is not built yet"));
                    }
                    _ => parts.push(Part::Output(pipe(action)?)),
                }
            }
        }
    }
    Ok((parts, None))
}

fn condition<'a>(
    first: &str,
    pieces: &mut impl Iterator<Item = Piece<'a>>,
    depth: usize,
) -> Result<Part, TemplateError> {
    let mut branches = Vec::new();
    let mut wanted = pipe(first)?;
    loop {
        let (then, end) = parts(pieces, depth + 1)?;
        let words: Vec<&str> = end.unwrap_or_default().splitn(3, char::is_whitespace).collect();
        branches.push((wanted, then));
        match words.as_slice() {
            ["end"] => return Ok(Part::If { branches, otherwise: Vec::new() }),
            ["else", "if", rest] => wanted = pipe(rest)?,
            ["else"] => {
                let (otherwise, end) = parts(pieces, depth + 1)?;
                return match end {
                    Some("end") => Ok(Part::If { branches, otherwise }),
                    _ => failed("expected {{end}}"),
                };
            }
            _ => return failed("unexpected EOF"),
        }
    }
}

fn pipe(text: &str) -> Result<Pipe, TemplateError> {
    let mut rest = text;
    let pipe = commands(&mut rest, 0)?;
    if rest.is_empty() { Ok(pipe) } else { failed(format!("unexpected {rest:?} in command")) }
}

/// Reads commands up to the end of the text, or to a closing bracket, which is left.
fn commands(rest: &mut &str, depth: usize) -> Result<Pipe, TemplateError> {
    if depth > DEPTH_LIMIT {
        return failed(format!("more than {DEPTH_LIMIT} brackets in one another"));
    }
    let (mut pipe, mut command) = (Vec::new(), Vec::new());
    loop {
        *rest = rest.trim_start();
        let Some(next) = rest.chars().next().filter(|next| *next != ')') else { break };
        if next == '|' {
            *rest = &rest[1..];
            if command.is_empty() {
                return failed("missing value for command");
            }
            pipe.push(std::mem::take(&mut command));
            continue;
        }
        command.push(word(rest, next, depth)?);
    }
    if command.is_empty() {
        return failed("missing value for command");
    }
    pipe.push(command);
    Ok(pipe)
}

fn word(rest: &mut &str, next: char, depth: usize) -> Result<Word, TemplateError> {
    match next {
        '(' => {
            *rest = &rest[1..];
            let inner = commands(rest, depth + 1)?;
            let Some(after) = rest.strip_prefix(')') else { return failed("unclosed left paren") };
            *rest = after;
            if rest.starts_with('.') {
                return failed("a field of what is in brackets is not built yet");
            }
            Ok(Word::Pipe(inner))
        }
        '"' => quoted(rest),
        '`' => {
            let Some((text, after)) = rest[1..].split_once('`') else { return failed("unterminated string") };
            *rest = after;
            Ok(Word::Text(text.to_owned()))
        }
        '$' => failed("variables ($) are not built yet"),
        _ => plain(rest),
    }
}

fn quoted(rest: &mut &str) -> Result<Word, TemplateError> {
    let mut text = String::new();
    let mut characters = rest[1..].char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => {
                *rest = &rest[1 + at + 1..];
                return Ok(Word::Text(text));
            }
            '\\' => text.push(match characters.next().map(|(_, escaped)| escaped) {
                Some('n') => '\n',
                Some('t') => '\t',
                Some('r') => '\r',
                Some(escaped @ ('"' | '\\')) => escaped,
                other => return failed(format!("the escape \\{} is not built yet", other.unwrap_or(' '))),
            }),
            character => text.push(character),
        }
    }
    failed("unterminated quoted string")
}

/// A field, a number, a truth or a function.
fn plain(rest: &mut &str) -> Result<Word, TemplateError> {
    let end = rest.find(|it: char| it.is_whitespace() || "|()\"`".contains(it)).unwrap_or(rest.len());
    let (word, after) = rest.split_at(end);
    *rest = after;
    let is_name = |name: &str| {
        name.starts_with(|first: char| first.is_alphabetic() || first == '_')
            && name.chars().all(|it| it.is_alphanumeric() || it == '_')
    };
    if let Some(path) = word.strip_prefix('.') {
        let names: Vec<String> = path.split('.').filter(|_| !path.is_empty()).map(str::to_owned).collect();
        return match names.iter().find(|name| !is_name(name)) {
            Some(bad) => failed(format!("bad character in field {bad:?} (use index for such a key)")),
            None => Ok(Word::Field(names)),
        };
    }
    match word {
        "true" | "false" => Ok(Word::Truth(word == "true")),
        _ if is_name(word) => Ok(Word::Function(word.to_owned())),
        _ => word.parse().map(Word::Number).or_else(|_| failed(format!("unexpected {word:?} in command"))),
    }
}
