//! Which differences there are, and which there may be.
//!
//! `differences.txt` has blocks: lines with `#` say why, then lines say what, in four columns between ` | `: the step, as
//! `file: line`; where; what Docker says; what Skep says. `*` stands for anything, and `{name}` for anything that is the same wherever
//! the name occurs in a line. A line for steps of one file must occur there; one that begins with `*` need not in each.

use std::collections::BTreeMap;

/// Something that is not the same.
#[derive(Debug)]
pub struct Difference {
    /// The step.
    pub step: String,
    /// `exit code`, `stdout`, `stderr`, `status`, or the path of a field.
    pub place: String,
    /// Docker's, `absent` where it has none.
    pub docker: String,
    /// Skep's.
    pub skep: String,
}

/// A line of the file.
pub struct Allowed {
    line: String,
    /// Step, place, Docker's, Skep's.
    columns: [String; 4],
}

/// Between the columns, where a `*` ends.
const SEPARATOR: char = '\u{1}';

/// Reads the file.
///
/// # Errors
/// When a line has no reason.
pub fn parse(text: &str) -> Result<Vec<Allowed>, String> {
    let mut allowed = Vec::new();
    let mut reason = false;
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            reason = !line.is_empty();
            continue;
        }
        if !reason {
            return Err(format!("no reason for {line}"));
        }
        let columns: Vec<String> = line.split(" | ").map(|column| column.trim().to_owned()).collect();
        let columns = columns.try_into().map_err(|_| format!("not four columns: {line}"))?;
        allowed.push(Allowed { line: line.to_owned(), columns });
    }
    Ok(allowed)
}

/// What is wrong with the differences of a file: those that may not be, and those that should be and are not.
pub fn judge(file: &str, found: &[Difference], allowed: &[Allowed]) -> Vec<String> {
    let mut used = vec![false; allowed.len()];
    let mut faults = Vec::new();
    for difference in found {
        let step = format!("{file}: {}", difference.step);
        let texts = [&step, &difference.place, &difference.docker, &difference.skep];
        let text: Vec<char> = joined(texts.map(String::as_str)).collect();
        let mut any = false;
        for (index, rule) in allowed.iter().enumerate() {
            let pattern: Vec<char> = joined(rule.columns.each_ref().map(String::as_str)).collect();
            if matches(&pattern, &text, &BTreeMap::new()) {
                used[index] = true;
                any = true;
            }
        }
        if !any {
            let Difference { place, docker, skep, .. } = difference;
            faults.push(format!("{step} | {place} | {docker} | {skep}"));
        }
    }
    let of_this_file = |rule: &Allowed| rule.columns[0].starts_with(&format!("{file}: "));
    let unused = allowed.iter().zip(used).filter(|(rule, used)| !used && of_this_file(rule));
    faults.extend(unused.map(|(rule, _)| format!("no longer differs: {}", rule.line)));
    faults
}

fn joined<'a>(columns: [&'a str; 4]) -> impl Iterator<Item = char> + use<'a> {
    columns.into_iter().flat_map(|column| column.chars().chain([SEPARATOR]))
}

/// Whether a text fits a pattern with `*` and `{name}`, given what the names stood for so far.
fn matches(pattern: &[char], text: &[char], names: &BTreeMap<String, Vec<char>>) -> bool {
    match pattern {
        [] => text.is_empty(),
        ['*', rest @ ..] => ends(text).any(|end| matches(rest, &text[end..], names)),
        ['{', rest @ ..] if name(rest).is_some() => {
            let (name, rest) = name(rest).expect("it was looked at");
            if let Some(known) = names.get(&name) {
                return text.starts_with(known) && matches(rest, &text[known.len()..], names);
            }
            ends(text).any(|end| {
                let mut names = names.clone();
                names.insert(name.clone(), text[..end].to_vec());
                matches(rest, &text[end..], &names)
            })
        }
        [first, rest @ ..] => text.first() == Some(first) && matches(rest, &text[1..], names),
    }
}

/// Where something that stands for anything may end: not beyond its column.
fn ends(text: &[char]) -> impl Iterator<Item = usize> + use<> {
    0..=text.iter().position(|character| *character == SEPARATOR).unwrap_or(text.len())
}

/// The name at the beginning, up to its brace, and what follows. JSON's braces hold more than letters.
fn name(pattern: &[char]) -> Option<(String, &[char])> {
    let end = pattern.iter().position(|character| *character == '}')?;
    let name = &pattern[..end];
    let word = !name.is_empty() && name.iter().all(char::is_ascii_lowercase);
    word.then(|| (name.iter().collect(), &pattern[end + 1..]))
}
