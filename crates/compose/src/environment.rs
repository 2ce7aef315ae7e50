//! A service's environment: files of it, then its own, with the environment of whoever deploys for what has no value.

use std::collections::BTreeMap;

use crate::Surroundings;
use crate::error::Fault;
use crate::yaml::Node;

/// `NAME=value`, sorted; `NAME` alone where nobody knows a value.
pub(crate) fn read(service: &Node, surroundings: &Surroundings<'_>) -> Result<Vec<String>, Fault> {
    let mut environment = BTreeMap::new();
    for file in service.texts("env_file") {
        let path = surroundings.absolute(&file);
        let text = (surroundings.read)(&path).map_err(|problem| service.fault("env_file", problem))?;
        let pairs = parse(&text, surroundings.environment)
            .map_err(|problem| service.fault("env_file", format!("invalid env file ({path}): {problem}")))?;
        overlay(&mut environment, pairs, surroundings);
    }
    overlay(&mut environment, service.pairs("environment"), surroundings);
    let text = |(name, value): (String, Option<String>)| match value {
        Some(value) => format!("{name}={value}"),
        None => name,
    };
    let mut lines: Vec<String> = environment.into_iter().map(text).collect();
    lines.sort();
    Ok(lines)
}

/// As the stock client: what has no value, or an empty one, takes that of the environment around.
fn overlay(
    environment: &mut BTreeMap<String, Option<String>>,
    pairs: BTreeMap<String, Option<String>>,
    surroundings: &Surroundings<'_>,
) {
    for (name, value) in pairs {
        let value = match (value, surroundings.environment.get(&name)) {
            (Some(value), _) if !value.is_empty() => Some(value),
            (_, Some(around)) => Some(around.clone()),
            (value, None) => value,
        };
        environment.insert(name, value);
    }
}

/// The lines of an environment file, as Docker's `kvfile`: no quotes, no variables, no comments after values.
fn parse(text: &str, around: &BTreeMap<String, String>) -> Result<BTreeMap<String, Option<String>>, String> {
    let mut pairs = BTreeMap::new();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for line in text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line).trim_start()) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = match line.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (line, None),
        };
        if name.is_empty() {
            return Err(format!("no variable name on line '{line}'"));
        }
        if name.contains([' ', '\t']) {
            return Err(format!("variable '{name}' contains whitespaces"));
        }
        // A name alone that nobody knows is left out.
        if let Some(value) = value.or_else(|| around.get(name).cloned()) {
            pairs.insert(name.to_owned(), Some(value));
        }
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_files_are_read_as_docker_reads_them() {
        let around = BTreeMap::from([("KNOWN".to_owned(), "yes".to_owned())]);
        let text = "\u{feff}# comment\nA=1 # kept\r\n  B=\"q\"\n\nC=\nKNOWN\nUNKNOWN\nD=a=b\n";
        let pairs = parse(text, &around).map(|pairs| {
            let line =
                |(name, value): (String, Option<String>)| format!("{name}={}", value.unwrap_or_default());
            pairs.into_iter().map(line).collect::<Vec<_>>().join("|")
        });
        assert_eq!(pairs.as_deref(), Ok("A=1 # kept|B=\"q\"|C=|D=a=b|KNOWN=yes"));
        assert_eq!(parse("=x", &around), Err("no variable name on line '=x'".to_owned()));
        assert_eq!(parse("a b=x", &around), Err("variable 'a b' contains whitespaces".to_owned()));
    }
}
