//! Texts without what differs from run to run: ids, times, ages, and the width of columns.

/// How many characters ids of a swarm have, ids of containers, and both when they are shown short.
const ID_LENGTHS: [usize; 3] = [25, 64, 12];

/// A client's output. Of lines that follow progress, `name: state`, only the last of each name counts.
pub fn output(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for part in text.split(['\n', '\r']) {
        let fresh = line(part);
        let progress = fresh.split_once(": ").map(|(name, _)| name).filter(|name| is_progress(name));
        if let Some(name) = progress {
            lines.retain(|before| before.split_once(": ").is_none_or(|(former, _)| former != name));
        }
        if !fresh.is_empty() {
            lines.push(fresh);
        }
    }
    lines
}

/// The names of lines that follow progress: `overall progress`, `verify`, `job progress`, `active tasks`, `1/2`, a node's id.
fn is_progress(name: &str) -> bool {
    let fraction = name.split_once(" out of ").map_or(name, |(first, _)| first);
    let fraction = fraction.split_once('/');
    matches!(name, "overall progress" | "verify" | "job progress" | "active tasks" | "<id>")
        || fraction.is_some_and(|(one, all)| [one, all].iter().all(|part| part.parse::<u64>().is_ok()))
}

/// One line, or a string of JSON.
pub fn line(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut normal = Vec::new();
    let mut rest = &words[..];
    while let [first, after @ ..] = rest {
        if let Some(age) = age(rest) {
            normal.push("<age>".to_owned());
            rest = &rest[age..];
        } else {
            normal.push(if is_time(first) { "<time>".to_owned() } else { without_ids(first) });
            rest = after;
        }
    }
    normal.join(" ")
}

/// How many words at the beginning are a time that passed.
fn age(words: &[&str]) -> Option<usize> {
    let unit = |word: &str| {
        ["second", "minute", "hour"].iter().any(|unit| word.trim_end_matches(['s', ',', ')']) == *unit)
    };
    match words {
        ["Less" | "less", "than", "a", next, ..] if unit(next) => Some(4),
        ["About" | "about", "a" | "an", next, ..] if unit(next) => Some(3),
        [number, next, ..] if number.parse::<u64>().is_ok() && unit(next) => Some(2),
        _ => None,
    }
}

/// Whether this is a time of RFC 3339 that is not the zero of Go.
fn is_time(word: &str) -> bool {
    let bytes = word.as_bytes();
    let form = b"0000-00-00T00:00:00";
    bytes.len() > form.len()
        && !word.starts_with("0001")
        && form.iter().zip(bytes).all(|(form, byte)| match form {
            b'0' => byte.is_ascii_digit(),
            form => form == byte,
        })
}

fn without_ids(word: &str) -> String {
    let mut normal = String::new();
    let mut run = String::new();
    for character in word.chars().map(Some).chain([None]) {
        match character {
            Some(letter) if letter.is_ascii_alphanumeric() => run.push(letter),
            other => {
                let id = ID_LENGTHS.contains(&run.len()) && !run.chars().any(|it| it.is_ascii_uppercase());
                normal.push_str(if id { "<id>" } else { &run });
                run.clear();
                normal.extend(other);
            }
        }
    }
    normal
}
