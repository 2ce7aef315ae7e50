//! A name as the tables have it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A name without its final dot, in lower case: names are the same whatever the case of their ASCII letters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Name(Box<str>);

impl Name {
    /// The name, unless no question could ever ask for it: a label is 1 to 63 bytes long, all of it at most 253.
    pub fn new(text: &str) -> Option<Name> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let fits = text.len() <= 253 && text.split('.').all(|label| (1..=63).contains(&label.len()));
        fits.then(|| Name(text.to_ascii_lowercase().into()))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}
