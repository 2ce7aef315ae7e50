//! `.dockerignore`: which files of a context are left out (moby's `patternmatcher`).

use crate::glob;

/// Patterns in their order; the last that fits decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ignore {
    rules: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    parts: Vec<String>,
    /// `!pattern`: what fits is not left out after all.
    exception: bool,
}

impl Ignore {
    /// Reads the patterns of a file: one a line, `#` begins a comment, `!` an exception.
    pub fn parse(text: &str) -> Ignore {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let rules = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
            let line = line.trim();
            let (line, exception) = line.strip_prefix('!').map_or((line, false), |rest| (rest.trim(), true));
            let parts = clean(line);
            (!parts.is_empty()).then_some(Rule { parts, exception })
        });
        Ignore { rules: rules.collect() }
    }

    /// Whether a file or folder, or a folder that it is in, is left out.
    pub fn excludes(&self, path: &str) -> bool {
        let path: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let mut excluded = false;
        for rule in &self.rules {
            // One that says what holds already changes nothing.
            let matters = rule.exception == excluded;
            if matters && (1..=path.len()).any(|length| matches(&rule.parts, &path[..length])) {
                excluded = !rule.exception;
            }
        }
        excluded
    }
}

/// The parts of a path, without `.` and with `..` resolved as far as they can be.
fn clean(path: &str) -> Vec<String> {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part.to_owned()),
        }
    }
    parts
}

/// `**` stands for any number of folders. Filled in as a table, so that no pattern takes longer than the product of both lengths.
fn matches(pattern: &[String], path: &[&str]) -> bool {
    let mut reached = vec![false; path.len() + 1];
    reached[0] = true;
    for (index, part) in pattern.iter().enumerate() {
        let is_last = index + 1 == pattern.len();
        let mut next = vec![false; path.len() + 1];
        for place in 0..=path.len() {
            next[place] = if part == "**" {
                // At the end it stands for something.
                (reached[place] && !is_last) || (place > 0 && (next[place - 1] || reached[place - 1]))
            } else {
                place > 0 && reached[place - 1] && glob::matches(part, path[place - 1]) == Some(true)
            };
        }
        reached = next;
    }
    reached[path.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_leave_out_and_take_back() {
        let ignore = Ignore::parse("# no\n*.md\n!README.md\n/build/\n**/*.o\nsrc/**/tmp\n./a/../b\n");
        for (path, excluded) in [
            ("x.md", true),
            ("README.md", false),
            ("d/x.md", false),
            ("build/out", true),
            ("a.o", true),
            ("x/y/a.o", true),
            ("src/tmp", true),
            ("src/a/b/tmp/file", true),
            ("b", true),
            ("a", false),
        ] {
            assert_eq!(ignore.excludes(path), excluded, "{path}");
        }
        assert!(Ignore::parse("**").excludes("any/thing"));
        assert!(Ignore::parse("*\n!keep").excludes("other") && !Ignore::parse("*\n!keep").excludes("keep/x"));
    }
}
