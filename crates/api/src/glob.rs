//! Patterns as Go's `path.Match` has them, for `docker images --filter reference=`.

/// Whether all of `text` fits `pattern`: `*` is any run without `/`, `?` one character but `/`, `[a-z]` and
/// `[^a-z]` one of a set, `\` takes the next character as it is. A malformed pattern fits nothing.
pub fn matches(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    // The set of places in the pattern that the text so far can stand at: linear in both, whatever the input.
    let mut places = vec![false; pattern.len() + 1];
    if let Some(start) = places.first_mut() {
        *start = true;
    }
    skip_stars(&pattern, &mut places);
    for character in text {
        let mut next = vec![false; pattern.len() + 1];
        for (place, _) in places.iter().enumerate().filter(|(_, reached)| **reached) {
            match pattern.get(place) {
                Some('*') if character != '/' => mark(&mut next, place),
                Some(_) => {
                    if let Some(length) = one(pattern.get(place..).unwrap_or_default(), character) {
                        mark(&mut next, place + length);
                    }
                }
                None => {}
            }
        }
        skip_stars(&pattern, &mut next);
        places = next;
    }
    places.last() == Some(&true)
}

fn mark(places: &mut [bool], place: usize) {
    if let Some(reached) = places.get_mut(place) {
        *reached = true;
    }
}

/// A star may stand for nothing.
fn skip_stars(pattern: &[char], places: &mut [bool]) {
    for (place, character) in pattern.iter().enumerate() {
        if *character == '*' && places.get(place) == Some(&true) {
            mark(places, place + 1);
        }
    }
}

/// How many characters of the pattern's beginning fit one `character`, if they do.
fn one(pattern: &[char], character: char) -> Option<usize> {
    match pattern {
        ['*', ..] | [] => None,
        ['?', ..] => (character != '/').then_some(1),
        ['\\', escaped, ..] => (*escaped == character).then_some(2),
        ['[', rest @ ..] => {
            let end = rest.iter().skip(1).position(|it| *it == ']')? + 1;
            let (set, negated) = match rest.get(..end)? {
                ['^', set @ ..] => (set, true),
                set => (set, false),
            };
            (in_set(set, character) != negated).then_some(end + 2)
        }
        [literal, ..] => (*literal == character).then_some(1),
    }
}

fn in_set(set: &[char], character: char) -> bool {
    match set {
        [low, '-', high, rest @ ..] => (*low..=*high).contains(&character) || in_set(rest, character),
        [single, rest @ ..] => *single == character || in_set(rest, character),
        [] => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_as_in_go() {
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
            ("\\*", "*", true),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "aXbY", false),
            ("", "", true),
            ("", "a", false),
            ("[", "[", false),
            ("**", "abc", true),
        ] {
            assert_eq!(matches(pattern, text), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn a_hostile_pattern_takes_no_longer() {
        assert!(!matches(&"*a".repeat(500), &"a".repeat(499)));
    }
}
