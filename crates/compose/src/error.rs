//! What is wrong with a stack file, and where.

use std::fmt;

/// A place in a file; both count from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line.
    pub line: usize,
    /// Column, in characters.
    pub column: usize,
}

/// What is wrong, and where where that is known: the file is added by whoever knows its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub at: Option<Position>,
    pub message: String,
}

impl Fault {
    pub fn at(at: Position, message: impl Into<String>) -> Fault {
        Fault { at: Some(at), message: message.into() }
    }

    pub fn nowhere(message: impl Into<String>) -> Fault {
        Fault { at: None, message: message.into() }
    }

    pub fn in_file(self, file: &str) -> Error {
        Error { file: file.to_owned(), at: self.at, message: self.message }
    }
}

/// Why a stack file cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Error {
    /// The file, as it was named.
    pub file: String,
    /// Where in it; `None` for what no one line is to blame for.
    pub at: Option<Position>,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Error { file, at, message } = self;
        match at {
            Some(Position { line, column }) => write!(f, "{file}:{line}:{column}: {message}"),
            None => write!(f, "{file}: {message}"),
        }
    }
}
