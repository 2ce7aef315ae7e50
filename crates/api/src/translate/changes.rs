//! `docker import --change`: Dockerfile instructions that set what containers start with.

use skep_engine::images::ImageConfig;

use super::container;
use crate::error::ApiError;

/// Applies instructions such as `CMD ["sh"]` in their order.
pub fn apply<'a>(changes: impl Iterator<Item = &'a str>) -> Result<ImageConfig, ApiError> {
    let mut config = ImageConfig::default();
    for line in changes.flat_map(str::lines).map(str::trim).filter(|line| !line.is_empty()) {
        let (instruction, arguments) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        instruct(&mut config, &instruction.to_ascii_uppercase(), arguments.trim())?;
    }
    Ok(config)
}

fn instruct(config: &mut ImageConfig, instruction: &str, arguments: &str) -> Result<(), ApiError> {
    if arguments.is_empty() {
        return Err(ApiError::invalid(format!("{instruction} requires at least one argument")));
    }
    match instruction {
        "CMD" => config.cmd = Some(command(arguments)),
        "ENTRYPOINT" => config.entrypoint = Some(command(arguments)),
        "ENV" => {
            for (name, value) in pairs(instruction, arguments)? {
                config.env.retain(|old| old.split_once('=').is_none_or(|(old, _)| old != name));
                config.env.push(format!("{name}={value}"));
            }
        }
        "LABEL" => config.labels.extend(pairs(instruction, arguments)?),
        "EXPOSE" => {
            for word in words(arguments) {
                config.exposed_ports.insert(container::port(&word)?.to_string());
            }
        }
        "VOLUME" => config.volumes.extend(list(arguments).unwrap_or_else(|| words(arguments))),
        "USER" => config.user = arguments.to_owned(),
        "WORKDIR" => config.working_dir = arguments.to_owned(),
        "STOPSIGNAL" => config.stop_signal = arguments.to_owned(),
        "ONBUILD" => config.on_build.push(arguments.to_owned()),
        "HEALTHCHECK" => return Err(ApiError::not_built("change HEALTHCHECK")),
        _ => return Err(ApiError::invalid(format!("{instruction} is not a valid change command"))),
    }
    Ok(())
}

/// A JSON list of words, or a line for the shell.
fn command(text: &str) -> Vec<String> {
    list(text).unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned(), text.to_owned()])
}

fn list(text: &str) -> Option<Vec<String>> {
    serde_json::from_str(text).ok()
}

/// `a=b c="d e"`, or the old `name value with spaces`.
fn pairs(instruction: &str, text: &str) -> Result<Vec<(String, String)>, ApiError> {
    let words = words(text);
    let modern: Option<Vec<_>> = words
        .iter()
        .map(|word| word.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())))
        .collect();
    if let Some(pairs) = modern {
        return Ok(pairs);
    }
    match text.split_once(char::is_whitespace) {
        Some((name, value)) if !name.contains('=') => Ok(vec![(name.to_owned(), value.trim().to_owned())]),
        _ => Err(ApiError::invalid(format!(
            "Syntax error - can't find = in {text:?}. Must be of the form: name=value ({instruction})"
        ))),
    }
}

/// Words between spaces; quotes keep spaces, a backslash keeps the next character.
fn words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quote, mut begun) = (Vec::new(), String::new(), None, false);
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' if quote != Some('\'') => word.extend(characters.next()),
            '"' | '\'' if quote.is_none() => quote = Some(character),
            _ if quote == Some(character) => quote = None,
            _ if character.is_whitespace() && quote.is_none() => {
                if begun {
                    words.push(std::mem::take(&mut word));
                }
                begun = false;
                continue;
            }
            _ => word.push(character),
        }
        begun = true;
    }
    if begun {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_applied() {
        let config = apply(
            [
                r#"CMD ["sh", "-c", "x"]"#,
                "ENTRYPOINT run it",
                "ENV A=1 B=\"two words\"\nENV A=2",
                "env OLD form of it",
                "EXPOSE 80 53/udp",
                "LABEL a=b",
                "WORKDIR /w",
                "USER 1:1",
                "VOLUME [\"/data\"]",
            ]
            .into_iter(),
        )
        .expect("good instructions");
        assert_eq!(config.cmd, Some(vec!["sh".to_owned(), "-c".to_owned(), "x".to_owned()]));
        assert_eq!(config.entrypoint, Some(vec!["/bin/sh".to_owned(), "-c".to_owned(), "run it".to_owned()]));
        assert_eq!(config.env, ["B=two words", "A=2", "OLD=form of it"]);
        assert_eq!(config.exposed_ports, ["80/tcp".to_owned(), "53/udp".to_owned()].into());
        assert_eq!(config.labels, [("a".to_owned(), "b".to_owned())].into());
        assert_eq!((config.working_dir.as_str(), config.user.as_str()), ("/w", "1:1"));
        assert_eq!(config.volumes, ["/data".to_owned()].into());
    }

    #[test]
    fn other_instructions_are_refused() {
        for change in ["RUN x", "CMD", "EXPOSE http", "ENV A", "HEALTHCHECK CMD x"] {
            assert!(apply(std::iter::once(change)).is_err(), "{change}");
        }
    }
}
