//! Dockerfiles: from text to instructions, as the classic builder of Docker reads them.
//!
//! [`parse`] gives stages of typed [`Instruction`]s with the lines they stand on; [`Lex`] puts variables into their words,
//! which a builder does when it comes to an instruction, since only then the variables are known. Beside them stand what a
//! builder needs of Go's ways: patterns of file names ([`glob`]), `.dockerignore` ([`Ignore`]) and quoted text ([`quote`]).
//!
//! The language is that of BuildKit's parser in moby 28, which the classic builder shares; what only BuildKit carries out
//! (`RUN --mount`, `COPY --link`) is refused by name. Here documents, which the classic builder passes over, are read.
//!
//! What is absent: files, clocks, the network, and any panic or recursion without bound that hostile text could drive.

#![cfg_attr(test, expect(clippy::unwrap_used, reason = "a test that cannot go on fails"))]

mod duration;
mod error;
mod flags;
pub mod glob;
mod ignore;
mod instruction;
mod lex;
mod lines;
mod parse;
mod quote;
mod words;

pub use error::{Error, Fault, LexError};
pub use ignore::Ignore;
pub use instruction::{
    Arg, Command, Copy, Dockerfile, Healthcheck, Heredoc, Instruction, Run, Stage, Step, check_chmod,
};
pub use lex::Lex;
pub use parse::{parse, parse_changes, parse_trigger};
pub use quote::{quote, quote_list};
