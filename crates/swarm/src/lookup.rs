//! Finding an object by what a user typed: id, then name, then unique prefix of the id. Moby's
//! daemon/cluster/helpers.go.

use std::fmt::Display;

use crate::SwarmError;

/// The one object among `objects` that `text` names. `kind` is for the refusal.
pub(crate) fn find<'a, T, I: Display>(
    kind: &str,
    text: &str,
    objects: impl Iterator<Item = &'a T> + Clone,
    id: impl Fn(&T) -> I,
    name: impl Fn(&T) -> String,
) -> Result<&'a T, SwarmError> {
    let by_id = objects.clone().find(|object| id(object).to_string() == text);
    if let Some(found) = by_id {
        return Ok(found);
    }
    let mut found: Vec<&T> = objects.clone().filter(|object| name(object) == text).collect();
    if found.is_empty() && !text.is_empty() {
        found = objects.filter(|object| id(object).to_string().starts_with(text)).collect();
    }
    match found.as_slice() {
        [] => Err(SwarmError::NotFound(format!("{kind} {text} not found"))),
        [only] => Ok(only),
        several => {
            let count = several.len();
            Err(SwarmError::InvalidParameter(format!("{kind} {text} is ambiguous ({count} matches found)")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> String {
        let objects = [
            ("abc1", "web"),
            ("abc2", "db"),
            ("def3", "abc1"),
            ("web9", "x"),
            ("gh1", "twin"),
            ("gh2", "twin"),
        ];
        let found = find("service", text, objects.iter(), |object| object.0, |object| object.1.to_owned());
        found.map_or_else(|error| error.to_string(), |object| object.0.to_owned())
    }

    #[test]
    fn id_then_name_then_prefix() {
        for (text, expected) in [
            ("abc1", "abc1"),
            ("web", "abc1"),
            ("we", "web9"),
            ("d", "def3"),
            ("abc", "service abc is ambiguous (2 matches found)"),
            ("twin", "service twin is ambiguous (2 matches found)"),
            ("nothing", "service nothing not found"),
            ("", "service  not found"),
        ] {
            assert_eq!(found(text), expected, "{text}");
        }
    }
}
