//! Stack files: what `docker stack deploy` makes of a Compose file of versions 3.0 to 3.13, and how that differs from what is
//! there.
//!
//! [`load`] reads as the stock client (docker/cli's `compose` packages) does: variables, the schema of the file's version,
//! short and long ways of writing, environment files, and then the very JSON that the client would send to the Engine API.
//! [`differences`] names what differs between two specifications, in the stack file's words.
//!
//! What is absent: files, the environment, sockets (all of it comes in [`Surroundings`]); any panic, recursion or memory that
//! hostile text could drive without bound; several files laid over each other; anything that a stack passes over (`build`,
//! `links`...), which is told in [`Stack::ignored`].

mod check;
mod deploy;
mod difference;
mod environment;
mod error;
mod mounts;
mod ports;
mod read;
mod scalar;
mod schema;
mod service;
mod stack;
mod template;
mod units;
mod yaml;

use std::collections::BTreeMap;

pub use difference::{Difference, Part, differences};
pub use error::{Error, Position};
pub use stack::{IMAGE_LABEL, NAMESPACE_LABEL, Stack};

/// The longest stack file that is read, in bytes.
const MAX_FILE: usize = 4 << 20;

/// What is around a stack file.
pub struct Surroundings<'a> {
    /// The environment of whoever deploys.
    pub environment: &'a BTreeMap<String, String>,
    /// The absolute folder that relative paths in the file start from.
    pub folder: &'a str,
    /// Reads a file at an absolute path as text, or says why it cannot.
    pub read: &'a dyn Fn(&str) -> Result<String, String>,
}

impl Surroundings<'_> {
    /// A path, from the file's folder on; cleaned only where it is joined, as the stock client does.
    fn absolute(&self, path: &str) -> String {
        if path.starts_with('/') {
            return path.to_owned();
        }
        let mut parts: Vec<&str> = Vec::new();
        for part in self.folder.split('/').chain(path.split('/')) {
            match part {
                "" | "." => {}
                ".." => drop(parts.pop()),
                part => parts.push(part),
            }
        }
        format!("/{}", parts.join("/"))
    }
}

/// Reads a stack file.
///
/// # Errors
/// What is wrong with the file, with the place of it where there is one.
pub fn load(file: &str, text: &str, stack: &str, surroundings: &Surroundings<'_>) -> Result<Stack, Error> {
    let in_file = |fault: error::Fault| fault.in_file(file);
    if text.len() > MAX_FILE {
        return Err(in_file(error::Fault::nowhere(format!("longer than {MAX_FILE} bytes"))));
    }
    let mut root = yaml::parse(text).map_err(in_file)?;
    if root.entries().is_none() {
        return Err(in_file(error::Fault::at(root.at, "top-level object must be a mapping")));
    }
    let version = check::version(&root).map_err(in_file)?;
    check::refuse_forbidden(&root).map_err(in_file)?;
    template::interpolate(&mut root, "", surroundings.environment).map_err(in_file)?;
    check::check(&root, version).map_err(in_file)?;
    stack::build(&root, stack, surroundings).map_err(in_file)
}

#[cfg(test)]
mod tests;
