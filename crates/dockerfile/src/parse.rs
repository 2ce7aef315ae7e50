//! From lines to instructions.

use crate::error::{Error, Fault};
use crate::instruction::{
    Arg, Command, Copy, Dockerfile, Healthcheck, Heredoc, Instruction, Run, Stage, Step,
};
use crate::lines::{self, Line};
use crate::quote::quote;
use crate::{duration, flags, words};

/// The shortest time that a health check may name, in nanoseconds.
const SHORTEST: i64 = 1_000_000;

/// What `docker commit --change` and `docker import --change` may say.
const CHANGES: [&str; 10] =
    ["cmd", "entrypoint", "healthcheck", "env", "expose", "label", "onbuild", "user", "volume", "workdir"];

/// A line is a stage's first one, or one of its others.
enum Parsed {
    Stage(Stage),
    Step(Step),
}

/// Reads a Dockerfile.
///
/// # Errors
/// The first fault, with its line.
pub fn parse(text: &str) -> Result<Dockerfile, Error> {
    let lines::Lines { lines, escape, warnings } = lines::read(text)?;
    let (mut meta, mut stages) = (Vec::new(), Vec::<Stage>::new());
    for line in &lines {
        match (parse_line(line, escape)?, stages.last_mut()) {
            (Parsed::Stage(stage), _) => stages.push(stage),
            (Parsed::Step(step), Some(stage)) => stage.steps.push(step),
            (Parsed::Step(Step { instruction: Instruction::Arg(args), .. }), None) => meta.extend(args),
            (Parsed::Step(_), None) => return Err(Error::NoStage),
        }
    }
    if stages.is_empty() {
        return Err(Error::NoStage);
    }
    Ok(Dockerfile { meta, stages, escape, warnings })
}

/// Reads a line that an image kept for those who build from it.
///
/// # Errors
/// As [`parse`], and where it is not one instruction.
pub fn parse_trigger(text: &str) -> Result<Step, Error> {
    let lines::Lines { lines, escape, .. } = lines::read(text)?;
    let [line] = lines.as_slice() else { return Err(Error::Trigger) };
    match parse_line(line, escape)? {
        Parsed::Step(step) => Ok(step),
        Parsed::Stage(_) => Err(Error::Line { line: 1, fault: Fault::Trigger("FROM".to_owned()) }),
    }
}

/// Reads instructions that change what a container starts with: `--change`.
///
/// # Errors
/// As [`parse`], and for instructions that do something else.
pub fn parse_changes(text: &str) -> Result<Vec<Step>, Error> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let lines::Lines { lines, escape, .. } = lines::read(text)?;
    let step = |line: &Line| {
        let keyword = words::split(&line.text, escape).0;
        let refuse = || Error::Change(keyword.to_owned());
        if !CHANGES.iter().any(|known| known.eq_ignore_ascii_case(keyword)) {
            return Err(refuse());
        }
        match parse_line(line, escape)? {
            Parsed::Step(step) => Ok(step),
            Parsed::Stage(_) => Err(refuse()),
        }
    };
    lines.iter().map(step).collect()
}

fn parse_line(line: &Line, escape: char) -> Result<Parsed, Error> {
    let (keyword, flags, rest) = words::split(&line.text, escape);
    let request = Request { flags, rest, line, escape };
    let parsed = match keyword.to_ascii_lowercase().as_str() {
        "from" => request.from().map(Parsed::Stage),
        keyword => request
            .instruction(keyword)
            .map(|instruction| Parsed::Step(Step { source: line.text.trim().to_owned(), instruction })),
    };
    parsed.map_err(|fault| Error::Line { line: line.number, fault })
}

/// A line taken apart.
struct Request<'a> {
    flags: Vec<String>,
    rest: &'a str,
    line: &'a Line,
    escape: char,
}

impl Request<'_> {
    fn instruction(&self, keyword: &str) -> Result<Instruction, Fault> {
        match keyword {
            "add" => self.copy("ADD").map(Instruction::Add),
            "arg" => self.args().map(Instruction::Arg),
            "cmd" => self.command().map(Instruction::Cmd),
            "copy" => self.copy("COPY").map(Instruction::Copy),
            "entrypoint" => self.command().map(Instruction::Entrypoint),
            "env" => self.pairs("ENV").map(Instruction::Env),
            "expose" => self.words("EXPOSE").map(|mut ports| {
                ports.sort();
                Instruction::Expose(ports)
            }),
            "healthcheck" => self.healthcheck().map(Instruction::Healthcheck),
            "label" => self.pairs("LABEL").map(|pairs| Instruction::Label(pairs, false)),
            "maintainer" => self.text("MAINTAINER").map(Instruction::Maintainer),
            "onbuild" => self.onbuild().map(Instruction::Onbuild),
            "run" => self.run().map(Instruction::Run),
            "shell" => self.shell().map(Instruction::Shell),
            "stopsignal" => self.text("STOPSIGNAL").map(Instruction::Stopsignal),
            "user" => self.text("USER").map(Instruction::User),
            "volume" => self.volumes().map(Instruction::Volume),
            "workdir" => self.text("WORKDIR").map(Instruction::Workdir),
            unknown => Err(Fault::Unknown(unknown.to_ascii_uppercase())),
        }
    }

    fn no_flags(&self) -> Result<(), Fault> {
        flags::read(&self.flags, []).map(|_| ())
    }

    /// The whole rest as it is.
    fn text(&self, keyword: &'static str) -> Result<String, Fault> {
        self.no_flags()?;
        if self.rest.is_empty() { Err(Fault::NotOneArgument(keyword)) } else { Ok(self.rest.to_owned()) }
    }

    fn words(&self, keyword: &'static str) -> Result<Vec<String>, Fault> {
        self.no_flags()?;
        let words = words::blanks(self.rest);
        if words.is_empty() { Err(Fault::NoArgument(keyword)) } else { Ok(words) }
    }

    fn pairs(&self, keyword: &'static str) -> Result<Vec<(String, String)>, Fault> {
        self.no_flags()?;
        words::pairs(keyword, self.rest, self.escape)
    }

    /// A list in JSON, or words.
    fn list(&self) -> Result<Vec<String>, Fault> {
        Ok(words::json(self.rest)?.unwrap_or_else(|| words::blanks(self.rest)))
    }

    fn command(&self) -> Result<Command, Fault> {
        self.no_flags()?;
        command(self.rest)
    }

    fn run(&self) -> Result<Run, Fault> {
        Ok(Run { command: self.command()?, heredocs: self.line.heredocs.clone() })
    }

    fn from(&self) -> Result<Stage, Fault> {
        let words = words::blanks(self.rest);
        let (base, name) = match words.as_slice() {
            [base] => (base, ""),
            [base, word, name] if word.eq_ignore_ascii_case("as") => (base, name.as_str()),
            _ => return Err(Fault::From),
        };
        let lower = name.to_ascii_lowercase();
        let is_name = |name: &str| {
            name.starts_with(|first: char| first.is_ascii_lowercase())
                && name.chars().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || "-_.".contains(it))
        };
        if !name.is_empty() && !is_name(&lower) {
            return Err(Fault::StageName(quote(name)));
        }
        let [platform] = flags::read(&self.flags, ["platform"])?;
        Ok(Stage {
            base: base.clone(),
            name: lower,
            platform: platform.unwrap_or_default(),
            source: self.line.text.trim().to_owned(),
            steps: Vec::new(),
        })
    }

    fn args(&self) -> Result<Vec<Arg>, Fault> {
        self.no_flags()?;
        let words = words::quoted(self.rest, self.escape);
        if words.is_empty() {
            return Err(Fault::NoArgument("ARG"));
        }
        let arg = |word: String| match word.split_once('=') {
            Some(("", _)) => Err(Fault::BlankName("ARG")),
            Some((name, value)) => Ok(Arg { name: name.to_owned(), default: Some(value.to_owned()) }),
            None => Ok(Arg { name: word, default: None }),
        };
        words.into_iter().map(arg).collect()
    }

    fn copy(&self, keyword: &'static str) -> Result<Copy, Fault> {
        let mut words = self.list()?;
        if words.len() < 2 {
            return Err(Fault::NoDestination(keyword));
        }
        let destination = words.pop().unwrap_or_default();
        let [chown, chmod, from] = if keyword == "COPY" {
            flags::read(&self.flags, ["chown", "chmod", "from"])?
        } else {
            let [chown, chmod] = flags::read(&self.flags, ["chown", "chmod"])?;
            [chown, chmod, None]
        };
        let mut heredocs = self.line.heredocs.clone();
        if !heredocs.is_empty() && words::heredoc(&destination).is_some() {
            return Err(Fault::HeredocDestination(keyword));
        }
        words.retain(|word| heredocs.is_empty() || words::heredoc(word).is_none());
        // A name that is announced twice is the last one's.
        let mut seen = std::collections::BTreeSet::new();
        heredocs.reverse();
        heredocs.retain(|heredoc: &Heredoc| seen.insert(heredoc.name.clone()));
        heredocs.reverse();
        Ok(Copy {
            sources: words,
            heredocs,
            destination,
            from: from.unwrap_or_default(),
            chown: chown.unwrap_or_default(),
            chmod: chmod.unwrap_or_default(),
        })
    }

    fn onbuild(&self) -> Result<String, Fault> {
        self.no_flags()?;
        let (keyword, ..) = words::split(self.rest, self.escape);
        match keyword.to_ascii_uppercase().as_str() {
            "" => return Err(Fault::NoArgument("ONBUILD")),
            "ONBUILD" => return Err(Fault::Chain),
            forbidden @ ("MAINTAINER" | "FROM") => return Err(Fault::Trigger(forbidden.to_owned())),
            _ => {}
        }
        // Faults of the line itself are told when it is carried out; as moby.
        let mut text = self.rest.to_owned();
        for heredoc in &self.line.heredocs {
            text.push_str(&format!("\n{}{}", heredoc.content, heredoc.name));
        }
        Ok(text)
    }

    fn shell(&self) -> Result<Vec<String>, Fault> {
        self.no_flags()?;
        match words::json(self.rest)? {
            Some(words) if words.is_empty() => Err(Fault::NoArgument("SHELL")),
            Some(words) => Ok(words),
            None if self.rest.is_empty() => Err(Fault::NoArgument("SHELL")),
            None => Err(Fault::NotJson("SHELL")),
        }
    }

    fn volumes(&self) -> Result<Vec<String>, Fault> {
        self.no_flags()?;
        let volumes: Vec<String> = self.list()?.iter().map(|volume| volume.trim().to_owned()).collect();
        match volumes.iter().any(String::is_empty) {
            _ if volumes.is_empty() => Err(Fault::NoArgument("VOLUME")),
            true => Err(Fault::EmptyVolume),
            false => Ok(volumes),
        }
    }

    fn healthcheck(&self) -> Result<Healthcheck, Fault> {
        let (kind, rest) = self.rest.split_once(char::is_whitespace).unwrap_or((self.rest, ""));
        let rest = rest.trim_start();
        let test = match kind.to_ascii_uppercase().as_str() {
            "" => return Err(Fault::NoArgument("HEALTHCHECK")),
            "NONE" if rest.is_empty() => {
                return Ok(Healthcheck { test: vec!["NONE".to_owned()], ..Healthcheck::default() });
            }
            "NONE" => return Err(Fault::HealthNone),
            "CMD" => {
                let Command { words, shell } = command(rest)?;
                if words.is_empty() {
                    return Err(Fault::HealthCommand);
                }
                let kind = if shell { "CMD-SHELL" } else { "CMD" };
                std::iter::once(kind.to_owned()).chain(words).collect()
            }
            other => return Err(Fault::HealthType(quote(other))),
        };
        let names = ["interval", "timeout", "start-period", "start-interval", "retries"];
        let [interval, timeout, start_period, start_interval, retries] = flags::read(&self.flags, names)?;
        let retries = match retries.as_deref() {
            None | Some("") => 0,
            Some(text) => text.parse::<i32>().map_err(|_| Fault::NoNumber(quote(text)))?,
        };
        if retries < 0 {
            return Err(Fault::Retries(retries.into()));
        }
        Ok(Healthcheck {
            test,
            interval: time("interval", interval)?,
            timeout: time("timeout", timeout)?,
            start_period: time("start-period", start_period)?,
            start_interval: time("start-interval", start_interval)?,
            retries,
        })
    }
}

fn command(text: &str) -> Result<Command, Fault> {
    match words::json(text)? {
        Some(words) => Ok(Command { words, shell: false }),
        None if text.is_empty() => Ok(Command { words: Vec::new(), shell: true }),
        None => Ok(Command { words: vec![text.to_owned()], shell: true }),
    }
}

fn time(name: &str, text: Option<String>) -> Result<i64, Fault> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(0) };
    match duration::parse(&text) {
        None => Err(Fault::Duration(quote(&text))),
        Some(nanos @ 1..SHORTEST) => {
            let _ = nanos;
            Err(Fault::Interval { name: quote(name) })
        }
        Some(nanos) => Ok(nanos),
    }
}

#[cfg(test)]
mod tests;
