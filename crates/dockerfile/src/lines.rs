//! From text to whole lines: parser directives, comments, continuations, and the here documents behind a line.

use crate::error::{Error, Fault};
use crate::instruction::Heredoc;
use crate::words;

/// An instruction as it stands in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// Where it begins, from 1.
    pub(crate) number: usize,
    /// Its text, continuations joined.
    pub(crate) text: String,
    pub(crate) heredocs: Vec<Heredoc>,
}

/// What a file is made of.
#[derive(Debug)]
pub(crate) struct Lines {
    pub(crate) lines: Vec<Line>,
    pub(crate) escape: char,
    pub(crate) warnings: Vec<String>,
}

/// Reads all lines of a file.
pub(crate) fn read(text: &str) -> Result<Lines, Error> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut source = text.lines().enumerate();
    let mut directives = Directives { escape: '\\', seen: Vec::new(), done: false };
    let (mut lines, mut warnings) = (Vec::new(), Vec::new());
    while let Some((index, raw)) = source.next() {
        let at = |fault| Error::Line { line: index + 1, fault };
        let raw = raw.trim_start();
        directives.look_at(raw).map_err(at)?;
        if raw.is_empty() || raw.starts_with('#') {
            continue;
        }
        let (first, mut goes_on) = continued(raw, directives.escape);
        let (mut whole, mut has_gap) = (first.to_owned(), false);
        while goes_on {
            let Some((_, next)) = source.next() else { break };
            if next.trim_start().starts_with('#') {
                continue;
            }
            if next.trim_start().is_empty() {
                has_gap = true;
                continue;
            }
            let (part, more) = continued(next, directives.escape);
            whole.push_str(part);
            goes_on = more;
        }
        if whole.trim().is_empty() {
            continue;
        }
        if has_gap {
            warnings.push(format!("[WARNING]: Empty continuation line found in:\n    {whole}"));
        }
        let mut heredocs = words::heredocs(&whole, directives.escape);
        for heredoc in &mut heredocs {
            heredoc.content = body(heredoc, &mut source).ok_or_else(|| at(Fault::Unterminated))?;
        }
        lines.push(Line { number: index + 1, text: whole, heredocs });
    }
    if !warnings.is_empty() {
        let end = "[WARNING]: Empty continuation lines will become errors in a future release.";
        warnings.push(end.to_owned());
    }
    if lines.is_empty() {
        Err(Error::Empty)
    } else {
        Ok(Lines { lines, escape: directives.escape, warnings })
    }
}

/// The line without the escape at its end, and whether there was one.
fn continued(line: &str, escape: char) -> (&str, bool) {
    match line.trim_end_matches([' ', '\t', '\r']).strip_suffix(escape) {
        Some(line) => (line, true),
        None => (line, false),
    }
}

/// The lines of a here document; `None` where it does not end.
fn body<'a>(heredoc: &Heredoc, source: &mut impl Iterator<Item = (usize, &'a str)>) -> Option<String> {
    let mut content = String::new();
    for (_, line) in source {
        let line = if heredoc.chomp { line.trim_start_matches('\t') } else { line };
        if line == heredoc.name {
            return Some(content);
        }
        content.push_str(line);
        content.push('\n');
    }
    None
}

/// `# escape=` and `# syntax=`: only before all else, each once.
struct Directives {
    escape: char,
    seen: Vec<&'static str>,
    done: bool,
}

impl Directives {
    fn look_at(&mut self, line: &str) -> Result<(), Fault> {
        if self.done {
            return Ok(());
        }
        let pair = line.strip_prefix('#').and_then(|rest| rest.split_once('='));
        let pair = pair.map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim()));
        let known = ["escape", "syntax", "check"];
        let directive = pair.and_then(|(name, value)| Some((*known.iter().find(|it| **it == name)?, value)));
        let Some((name, value)) = directive.filter(|(_, value)| !value.is_empty()) else {
            self.done = true;
            return Ok(());
        };
        if self.seen.contains(&name) {
            return Err(Fault::Directive(name.to_owned()));
        }
        self.seen.push(name);
        match (name, value) {
            ("escape", "\\") => self.escape = '\\',
            ("escape", "`") => self.escape = '`',
            ("escape", other) => return Err(Fault::Escape(other.to_owned())),
            // Another front end is BuildKit's to fetch; the classic builder passes over it too.
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<(usize, String)> {
        read(text).unwrap().lines.into_iter().map(|line| (line.number, line.text)).collect()
    }

    #[test]
    fn lines_are_joined() {
        let text = "\u{feff}# a comment\n\n FROM x\nRUN a \\\n  # within\n\n  b \\  \n\tc\r\nCMD d\\";
        let expected = [(3, "FROM x".to_owned()), (4, "RUN a   b \tc".to_owned()), (9, "CMD d".to_owned())];
        assert_eq!(texts(text), expected);
        assert_eq!(read(text).unwrap().warnings.len(), 2);
    }

    #[test]
    fn directives_come_first_and_once() {
        assert_eq!(texts("# escape=`\nRUN a `\nb\\"), [(2, "RUN a b\\".to_owned())]);
        assert_eq!(texts("# a comment\n# escape=`\nRUN a \\\nb"), [(3, "RUN a b".to_owned())]);
        assert_eq!(texts("#syntax=docker/dockerfile:1\n# ESCAPE = `\nRUN a`\nb"), [(3, "RUN ab".to_owned())]);
        let twice = read("# escape=`\n# escape=\\\nRUN a").unwrap_err();
        assert_eq!(twice, Error::Line { line: 2, fault: Fault::Directive("escape".to_owned()) });
        assert!(read("# escape=x\nRUN a").is_err());
        assert_eq!(read("# nothing\n").unwrap_err(), Error::Empty);
    }

    #[test]
    fn here_documents_follow_their_line() {
        let lines = read("RUN <<EOF cat\nFROM y\nEOF\nCOPY <<-\"A\" <<B /x/\n\t$one\n\tA\ntwo\nB\nCMD x")
            .unwrap()
            .lines;
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[0].heredocs[0].content, "FROM y\n");
        let names: Vec<_> = lines[1].heredocs.iter().map(|it| (it.name.as_str(), it.expand)).collect();
        assert_eq!(names, [("A", false), ("B", true)]);
        assert_eq!(lines[1].heredocs[0].content, "$one\n");
        assert_eq!(lines[2].number, 9);
        assert!(read("RUN <<EOF\nno end").is_err());
        // Of other instructions, and in lists, it is a word.
        assert!(read("RUN [\"<<EOF\"]\nCMD <<EOF\n").is_ok());
    }
}
