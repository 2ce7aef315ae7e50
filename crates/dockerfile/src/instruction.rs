//! Instructions, typed.

use crate::error::LexError;
use crate::quote::quote;

/// A file, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dockerfile {
    /// ARGs before the first FROM: for the FROMs only.
    pub meta: Vec<Arg>,
    /// Stages, at least one.
    pub stages: Vec<Stage>,
    /// What escapes in its words.
    pub escape: char,
    /// What a user is told beside.
    pub warnings: Vec<String>,
}

/// From one FROM to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// The image, a stage before, or `scratch`; variables not yet put in.
    pub base: String,
    /// `AS name`, in lower case; empty without.
    pub name: String,
    /// `--platform`; empty without.
    pub platform: String,
    /// The line as a user reads it.
    pub source: String,
    /// What follows.
    pub steps: Vec<Step>,
}

/// An instruction with the line as a user reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The line, continuations joined.
    pub source: String,
    /// What it says.
    pub instruction: Instruction,
}

/// What a build does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Instruction {
    /// `ADD`
    Add(Copy),
    /// `ARG`, several in one.
    Arg(Vec<Arg>),
    /// `CMD`
    Cmd(Command),
    /// `COPY`
    Copy(Copy),
    /// `ENTRYPOINT`
    Entrypoint(Command),
    /// `ENV`
    Env(Vec<(String, String)>),
    /// `EXPOSE`
    Expose(Vec<String>),
    /// `HEALTHCHECK`
    Healthcheck(Healthcheck),
    /// `LABEL`; the flag says whether its words are taken as they are, as those of `--label`.
    Label(Vec<(String, String)>, bool),
    /// `MAINTAINER`
    Maintainer(String),
    /// `ONBUILD`, the line that waits.
    Onbuild(String),
    /// `RUN`
    Run(Run),
    /// `SHELL`
    Shell(Vec<String>),
    /// `STOPSIGNAL`
    Stopsignal(String),
    /// `USER`
    User(String),
    /// `VOLUME`
    Volume(Vec<String>),
    /// `WORKDIR`
    Workdir(String),
}

/// A name that a build may be given a value for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arg {
    /// The name.
    pub name: String,
    /// What it is unless the build is told.
    pub default: Option<String>,
}

impl Arg {
    /// As it is written.
    pub fn text(&self) -> String {
        match &self.default {
            Some(value) => format!("{}={value}", self.name),
            None => self.name.clone(),
        }
    }
}

/// Words, or a line for the shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The words; for the shell, at most one.
    pub words: Vec<String>,
    /// Whether the shell goes before them.
    pub shell: bool,
}

impl Command {
    /// The words to execute.
    pub fn resolve(&self, shell: &[String]) -> Vec<String> {
        let before = if self.shell { shell } else { &[] };
        before.iter().chain(&self.words).cloned().collect()
    }
}

/// `RUN`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// What is run.
    pub command: Command,
    /// The here documents in its line.
    pub heredocs: Vec<Heredoc>,
}

/// `COPY` or `ADD`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// Files, folders, patterns; of ADD also addresses.
    pub sources: Vec<String>,
    /// Files that stand in the Dockerfile itself.
    pub heredocs: Vec<Heredoc>,
    /// Where to.
    pub destination: String,
    /// The stage or image that the sources are in; empty is the context.
    pub from: String,
    /// Owner and group; empty is root, or with `from` as it was.
    pub chown: String,
    /// Mode in octal; empty is as it was.
    pub chmod: String,
}

/// A here document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heredoc {
    /// What ends it.
    pub name: String,
    /// Its lines.
    pub content: String,
    /// Whether variables are put in: no quotes around the name.
    pub expand: bool,
    /// `<<-`: tabs at the start of lines go.
    pub chomp: bool,
}

/// How a container's health is probed. Times are nanoseconds, 0 is the default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Healthcheck {
    /// `NONE`; `CMD` and words; `CMD-SHELL` and a line.
    pub test: Vec<String>,
    /// Between probes.
    pub interval: i64,
    /// For one.
    pub timeout: i64,
    /// In which failures do not count.
    pub start_period: i64,
    /// Between probes in that time.
    pub start_interval: i64,
    /// Failures in a row that make it unhealthy.
    pub retries: i32,
}

impl Healthcheck {
    /// As Go's `%q` shows moby's own, which is what stands in an image's history.
    pub fn text(&self) -> String {
        let time = |nanos| quote(&crate::duration::show(nanos));
        let times = [self.interval, self.timeout, self.start_period, self.start_interval].map(time).join(" ");
        let retries = u32::try_from(self.retries).ok().and_then(char::from_u32).unwrap_or_default();
        let retries = match retries {
            '\t' => "\\t".to_owned(),
            '\n' => "\\n".to_owned(),
            retries if u32::from(retries) < 0x20 => format!("\\x{:02x}", u32::from(retries)),
            retries => retries.to_string(),
        };
        format!("&{{{} {times} '{retries}'}}", crate::quote::quote_list(&self.test))
    }
}

/// Reads `--chmod`: bits in octal. `None` for what is none.
pub fn check_chmod(text: &str) -> Option<u32> {
    let is_octal = !text.is_empty() && text.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
    u32::from_str_radix(text, 8).ok().filter(|mode| is_octal && *mode <= 0o7777)
}

impl Instruction {
    /// Puts variables into the words that Docker puts them into; EXPOSE, whose words they may split, is left to the builder.
    ///
    /// # Errors
    /// Those of `expand`.
    pub fn expand(&mut self, expand: &dyn Fn(&str) -> Result<String, LexError>) -> Result<(), LexError> {
        let one = |text: &mut String| expand(text).map(|expanded| *text = expanded);
        match self {
            Instruction::Add(copy) | Instruction::Copy(copy) => {
                copy.sources.iter_mut().try_for_each(one)?;
                let contents = copy.heredocs.iter_mut().filter(|it| it.expand).map(|it| &mut it.content);
                contents.into_iter().try_for_each(one)?;
                one(&mut copy.destination)?;
                one(&mut copy.chown)?;
                one(&mut copy.chmod)
            }
            Instruction::Arg(args) => args.iter_mut().try_for_each(|arg| {
                one(&mut arg.name)?;
                arg.default.iter_mut().try_for_each(one)
            }),
            Instruction::Env(pairs) | Instruction::Label(pairs, false) => {
                pairs.iter_mut().try_for_each(|(name, value)| {
                    one(name)?;
                    one(value)
                })
            }
            Instruction::Volume(words) => words.iter_mut().try_for_each(one),
            Instruction::Stopsignal(text) | Instruction::User(text) | Instruction::Workdir(text) => one(text),
            Instruction::Cmd(_)
            | Instruction::Entrypoint(_)
            | Instruction::Expose(_)
            | Instruction::Healthcheck(_)
            | Instruction::Label(_, true)
            | Instruction::Maintainer(_)
            | Instruction::Onbuild(_)
            | Instruction::Run(_)
            | Instruction::Shell(_) => Ok(()),
        }
    }
}
