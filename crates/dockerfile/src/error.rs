//! What can be wrong with a Dockerfile, in the words of moby's builder.

/// A fault and where it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A line that is no instruction, or a wrong one.
    #[error("dockerfile parse error on line {line}: {fault}")]
    Line {
        /// The first line of the instruction, from 1.
        line: usize,
        /// What is wrong with it.
        fault: Fault,
    },
    /// Something stands before the first FROM.
    #[error("no build stage in current context")]
    NoStage,
    /// Nothing but comments.
    #[error("file with no instructions")]
    Empty,
    /// A trigger that is not one instruction.
    #[error("onbuild trigger should be a single expression")]
    Trigger,
    /// An instruction that says nothing about a container's configuration.
    #[error("{0} is not a valid change command")]
    Change(String),
}

/// What is wrong with an instruction.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each says what it is")]
pub enum Fault {
    #[error("unknown instruction: {0}")]
    Unknown(String),
    #[error("{0} requires at least one argument")]
    NoArgument(&'static str),
    #[error("{0} requires exactly one argument")]
    NotOneArgument(&'static str),
    #[error(
        "{0} requires at least two arguments, but only one was provided. Destination could not be determined"
    )]
    NoDestination(&'static str),
    #[error("{0} names can not be blank")]
    BlankName(&'static str),
    #[error("{0} must have two arguments")]
    OneWord(&'static str),
    #[error("Syntax error - can't find = in {0}. Must be of the form: name=value")]
    NoEquals(String),
    #[error("{0} requires the arguments to be in JSON form")]
    NotJson(&'static str),
    #[error("when using JSON array syntax, arrays must be comprised of strings only")]
    NotStrings,
    #[error("FROM requires either one or three arguments")]
    From,
    #[error("invalid name for build stage: {0}, name can't start with a number or contain symbols")]
    StageName(String),
    #[error("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")]
    Chain,
    #[error("{0} isn't allowed as an ONBUILD trigger")]
    Trigger(String),
    #[error("HEALTHCHECK NONE takes no arguments")]
    HealthNone,
    #[error("Missing command after HEALTHCHECK CMD")]
    HealthCommand,
    #[error("Unknown type {0} in HEALTHCHECK (try CMD)")]
    HealthType(String),
    #[error("Interval {name} cannot be less than 1ms")]
    Interval { name: String },
    #[error("invalid duration {0}")]
    Duration(String),
    #[error("--retries cannot be negative ({0})")]
    Retries(i64),
    #[error("invalid number of retries: {0}")]
    NoNumber(String),
    #[error("VOLUME specified can not be an empty string")]
    EmptyVolume,
    #[error("unknown flag: {0}")]
    UnknownFlag(String),
    #[error("duplicate flag specified: {0}")]
    DuplicateFlag(String),
    #[error("missing a value on flag: {0}")]
    FlagWithoutValue(String),
    #[error(
        "the --{0} option requires BuildKit. Refer to https://docs.docker.com/go/buildkit/ to learn how to build images with BuildKit enabled"
    )]
    BuildKit(String),
    #[error("{0} cannot accept a heredoc as a destination")]
    HeredocDestination(&'static str),
    #[error("unterminated heredoc")]
    Unterminated,
    #[error("only one {0} parser directive can be used")]
    Directive(String),
    #[error("invalid escape token '{0}' does not match ` or \\")]
    Escape(String),
    #[error(transparent)]
    Lex(#[from] LexError),
}

/// What is wrong with a word that has variables in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to process {word}: {problem}")]
pub struct LexError {
    /// The word, quoted as Go does.
    pub word: String,
    /// The problem.
    pub problem: String,
}
