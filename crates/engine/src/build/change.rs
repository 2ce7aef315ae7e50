//! Instructions that change what containers start with, and nothing else. Also `docker commit --change`.

use serde_json::{Map, Value};
use skep_dockerfile::{Command, Healthcheck, Instruction, Lex, parse_changes, quote_list};
use skep_images::ImageConfig;
use skep_types::port::{ContainerPort, Protocol};

use crate::{Error, Result, signals};

/// What shell lines are given to unless SHELL says otherwise.
const DEFAULT_SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// The shell of an image.
pub(super) fn shell(config: &ImageConfig) -> Vec<String> {
    match &config.shell {
        Some(shell) if !shell.is_empty() => shell.clone(),
        _ => DEFAULT_SHELL.map(str::to_owned).to_vec(),
    }
}

/// What instructions need to know of those before them.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    /// Whether this build set CMD: then ENTRYPOINT leaves it.
    pub(super) cmd_set: bool,
    /// MAINTAINER
    pub(super) author: String,
    /// What the user is told of the last instruction.
    pub(super) note: Option<String>,
}

/// Carries out an instruction, its variables put in; what stands in the image's history. `None` for one that does more than
/// change the configuration.
///
/// # Errors
/// In moby's words.
pub(super) fn apply(
    config: &mut ImageConfig,
    memory: &mut Memory,
    instruction: &Instruction,
) -> Result<Option<String>> {
    let pairs = |pairs: &[(String, String)]| {
        pairs.iter().map(|(name, value)| format!(" {name}={value}")).collect::<String>()
    };
    Ok(Some(match instruction {
        Instruction::Cmd(command) => {
            let words = command.resolve(&shell(config));
            memory.cmd_set |= !command.words.is_empty();
            let text = format!("CMD {}", quote_list(&words));
            config.cmd = Some(words);
            text
        }
        Instruction::Entrypoint(command) => entrypoint(config, memory, command),
        Instruction::Env(variables) => {
            for (name, value) in variables {
                set_variable(&mut config.env, name, value);
            }
            format!("ENV{}", pairs(variables))
        }
        Instruction::Expose(ports) => {
            for text in ports {
                config.exposed_ports.extend(parse_ports(text)?.iter().map(ToString::to_string));
            }
            format!("EXPOSE {}", ports.join(" "))
        }
        Instruction::Healthcheck(check) => {
            memory.note = overridden(config.healthcheck.as_ref());
            config.healthcheck = Some(health(check));
            format!("HEALTHCHECK {}", check.text())
        }
        Instruction::Label(labels, _) => {
            config.labels.extend(labels.iter().cloned());
            format!("LABEL{}", pairs(labels))
        }
        Instruction::Maintainer(author) => {
            memory.author.clone_from(author);
            format!("MAINTAINER {author}")
        }
        Instruction::Onbuild(line) => {
            config.on_build.push(line.clone());
            format!("ONBUILD {line}")
        }
        Instruction::Shell(words) => {
            config.shell = Some(words.clone());
            format!("SHELL [{}]", words.join(" "))
        }
        Instruction::Stopsignal(signal) => {
            signals::parse(signal)?;
            config.stop_signal.clone_from(signal);
            format!("STOPSIGNAL {signal}")
        }
        Instruction::User(user) => {
            config.user.clone_from(user);
            format!("USER {user}")
        }
        Instruction::Volume(volumes) => {
            config.volumes.extend(volumes.iter().cloned());
            format!("VOLUME [{}]", volumes.join(" "))
        }
        Instruction::Workdir(path) => {
            config.working_dir = working_dir(&config.working_dir, path)?;
            format!("WORKDIR {}", config.working_dir)
        }
        Instruction::Add(_) | Instruction::Arg(_) | Instruction::Copy(_) | Instruction::Run(_) => {
            return Ok(None);
        }
    }))
}

/// Applies the lines of `--change` to a configuration.
///
/// # Errors
/// 400 for lines that are no instructions, or others.
pub fn apply_changes<'a>(
    mut config: ImageConfig,
    changes: impl Iterator<Item = &'a str>,
) -> Result<ImageConfig> {
    let text = changes.collect::<Vec<_>>().join("\n");
    let steps = parse_changes(&text).map_err(|error| Error::invalid(error.to_string()))?;
    let (lex, mut memory) = (Lex::new('\\'), Memory::default());
    for mut step in steps {
        expand(&mut step.instruction, &lex, &config.env.clone())?;
        apply(&mut config, &mut memory, &step.instruction)?;
    }
    Ok(config)
}

/// Puts variables into an instruction's words.
///
/// # Errors
/// 400.
pub(super) fn expand(instruction: &mut Instruction, lex: &Lex, env: &[String]) -> Result<()> {
    let refuse = |error: skep_dockerfile::LexError| Error::invalid(error.to_string());
    instruction.expand(&|word| lex.word(word, env)).map_err(refuse)?;
    if let Instruction::Expose(ports) = instruction {
        let words = ports.iter().map(|port| lex.words(port, env)).collect::<Result<Vec<_>, _>>();
        *ports = words.map_err(refuse)?.concat();
    }
    Ok(())
}

/// Sets a variable in a list of `NAME=value`, in its place if it is there.
pub(super) fn set_variable(env: &mut Vec<String>, name: &str, value: &str) {
    let is_it = |entry: &&mut String| entry.split_once('=').map_or(entry.as_str(), |(key, _)| key) == name;
    let entry = format!("{name}={value}");
    match env.iter_mut().find(is_it) {
        Some(known) => *known = entry,
        None => env.push(entry),
    }
}

fn entrypoint(config: &mut ImageConfig, memory: &Memory, command: &Command) -> String {
    let words = command.resolve(&shell(config));
    let text = format!("ENTRYPOINT {}", quote_list(&words));
    let is_nothing = command.words.is_empty() && !command.shell;
    config.entrypoint = (!is_nothing).then_some(words);
    if !memory.cmd_set {
        config.cmd = None;
    }
    text
}

/// What is told where a health check takes the place of another.
fn overridden(check: Option<&Value>) -> Option<String> {
    let test = check?.get("Test")?.as_array()?;
    let words: Vec<&str> = test.iter().filter_map(Value::as_str).collect();
    let told = || format!("Note: overriding previous HEALTHCHECK: [{}]\n", words.join(" "));
    words.first().is_some_and(|first| *first != "NONE").then(told)
}

/// The path that WORKDIR makes of the one before. As moby: an absolute one is taken as it is.
fn working_dir(before: &str, path: &str) -> Result<String> {
    if path.is_empty() {
        return Err(Error::invalid("cannot normalize nothing"));
    }
    if path.starts_with('/') {
        return Ok(path.to_owned());
    }
    let joined = format!("{before}/{path}");
    let mut parts: Vec<&str> = Vec::new();
    for part in joined.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    Ok(format!("/{}", parts.join("/")))
}

/// Docker's JSON of a health check; what is zero is left out, as Go does.
fn health(check: &Healthcheck) -> Value {
    let mut object = Map::new();
    object.insert("Test".to_owned(), check.test.clone().into());
    for (name, value) in [
        ("Interval", check.interval),
        ("Timeout", check.timeout),
        ("StartPeriod", check.start_period),
        ("StartInterval", check.start_interval),
        ("Retries", check.retries.into()),
    ] {
        if value != 0 {
            object.insert(name.to_owned(), value.into());
        }
    }
    Value::Object(object)
}

/// The ports of `80`, `80/udp`, `8000-8010` and `80:80`, of which only the container's counts (nat's `ParsePortSpec`).
fn parse_ports(text: &str) -> Result<Vec<ContainerPort>> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol: Protocol = match protocol.to_ascii_lowercase().as_str() {
        "sctp" => return Err(Error::unsupported(format!("port {text}: protocol sctp is not built yet"))),
        name => name.parse().map_err(|_| Error::invalid(format!("invalid proto: {protocol}")))?,
    };
    let ports = ports.rsplit_once(':').map_or(ports, |(_, container)| container);
    let refuse = || Error::invalid(format!("invalid containerPort: {ports}"));
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let number = |text: &str| text.parse::<u16>().map_err(|_| refuse());
    let (first, last) = (number(first)?, number(last)?);
    if first > last {
        return Err(refuse());
    }
    Ok((first..=last).map(|port| ContainerPort { port, protocol }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(lines: &[&str]) -> Result<ImageConfig> {
        apply_changes(ImageConfig::default(), lines.iter().copied())
    }

    #[test]
    fn changes_are_applied_in_order() {
        let config = changed(&[
            r#"CMD ["sh", "-c", "x"]"#,
            "ENV A=1 B=\"two words\"\nENV A=2 C=$A",
            "ENV OLD form of $B",
            "EXPOSE 80 53/udp 8000-8001",
            "LABEL a=b",
            "WORKDIR /w",
            "WORKDIR ../x/./y",
            "USER 1:1",
            "VOLUME [\"/data\"]",
            "HEALTHCHECK --interval=1s CMD [\"true\"]",
            "ONBUILD RUN x",
        ])
        .expect("good instructions");
        assert_eq!(config.cmd, Some(["sh", "-c", "x"].map(str::to_owned).to_vec()));
        assert_eq!(config.env, ["A=2", "B=two words", "C=1", "OLD=form of two words"]);
        let ports = ["53/udp", "80/tcp", "8000/tcp", "8001/tcp"].map(str::to_owned);
        assert_eq!(config.exposed_ports, ports.into());
        assert_eq!((config.working_dir.as_str(), config.user.as_str()), ("/x/y", "1:1"));
        assert_eq!(config.volumes, ["/data".to_owned()].into());
        let check = serde_json::json!({"Test": ["CMD", "true"], "Interval": 1_000_000_000});
        assert_eq!(config.healthcheck, Some(check));
        assert_eq!(config.on_build, ["RUN x"]);
        let shell = changed(&["ENTRYPOINT run it"]).expect("a good instruction");
        assert_eq!(shell.entrypoint, Some(["/bin/sh", "-c", "run it"].map(str::to_owned).to_vec()));
    }

    #[test]
    fn an_entrypoint_takes_an_inherited_command_away() {
        let config = ImageConfig { cmd: Some(vec!["old".to_owned()]), ..ImageConfig::default() };
        let changed = apply_changes(config.clone(), ["ENTRYPOINT [\"x\"]"].into_iter()).expect("good");
        assert_eq!(changed.cmd, None);
        let both = ["CMD [\"new\"]", "ENTRYPOINT [\"x\"]"];
        let changed = apply_changes(config, both.into_iter()).expect("good");
        assert_eq!(changed.cmd, Some(vec!["new".to_owned()]));
    }

    #[test]
    fn others_are_refused() {
        for (line, words) in [
            ("RUN x", "RUN is not a valid change command"),
            ("CMDS x", "CMDS is not a valid change command"),
            ("EXPOSE http", "invalid containerPort: http"),
            ("EXPOSE 80/foo", "invalid proto: foo"),
            ("ENV A", "dockerfile parse error on line 1: ENV must have two arguments"),
        ] {
            assert_eq!(changed(&[line]).expect_err(line).message, words);
        }
    }
}
