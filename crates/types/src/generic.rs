//! Generic resources: things that a node has some of and that only their users understand, such as GPUs.
//!
//! Grammar, rules and messages are SwarmKit's (api/genericresource).

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// What asks for generic resources: so many of each kind.
pub type GenericRequest = BTreeMap<String, u64>;

/// What a node has, or what a task was given of it, by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GenericResources(pub BTreeMap<String, Generic>);

/// What there is of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Generic {
    /// So many, that nobody tells apart.
    Discrete(u64),
    /// These, each with its name.
    Named(BTreeSet<String>),
}

/// A text that is no list of generic resources, in SwarmKit's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseGenericError {
    /// A term is not `kind=value`.
    #[error("could not parse GenericResource: incorrect term {0}, missing '=' or malformed expression")]
    Term(String),
    /// Fewer than none.
    #[error("could not parse GenericResource: cannot ask for negative resource {0}")]
    Negative(String),
    /// A kind is counted and named at once.
    #[error("could not parse GenericResource: malformed expression '{kind}=[{values}]'")]
    Mixed {
        /// Which kind.
        kind: String,
        /// All that was said of it.
        values: String,
    },
}

impl Generic {
    /// How many there are.
    pub fn count(&self) -> u64 {
        match self {
            Generic::Discrete(count) => *count,
            Generic::Named(names) => names.len() as u64,
        }
    }
}

impl GenericResources {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads terms as dockerd's `--node-generic-resource` takes them: `gpu=uuid1`, `gpu=uuid2`, `apple=3`.
    pub fn parse<'t>(terms: impl IntoIterator<Item = &'t str>) -> Result<Self, ParseGenericError> {
        let mut said: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for term in terms {
            let sides = term.split_once('=').filter(|(_, value)| !value.contains('='));
            let (kind, value) = sides.ok_or_else(|| ParseGenericError::Term(term.to_owned()))?;
            said.entry(kind.trim()).or_default().push(value.trim());
        }
        let read = |(kind, values): (&str, Vec<&str>)| Ok((kind.to_owned(), generic(kind, &values)?));
        Ok(GenericResources(said.into_iter().map(read).collect::<Result<_, _>>()?))
    }

    /// Of what is here and not `used`, what a task that asks for `wanted` is given; `None` where there is not
    /// enough. Of named ones those that come first.
    pub fn claim(&self, used: &GenericResources, wanted: &GenericRequest) -> Option<GenericResources> {
        let mut given = BTreeMap::new();
        for (kind, count) in wanted.iter().filter(|(_, count)| **count > 0) {
            let held = used.0.get(kind);
            let share = match self.0.get(kind)? {
                Generic::Discrete(total) => {
                    let left = total.saturating_sub(held.map_or(0, Generic::count));
                    (left >= *count).then_some(Generic::Discrete(*count))?
                }
                Generic::Named(names) => {
                    let free = names.iter().filter(|name| !held.is_some_and(|held| held.has(name)));
                    let wanted = usize::try_from(*count).unwrap_or(usize::MAX);
                    let names: BTreeSet<String> = free.take(wanted).cloned().collect();
                    (names.len() as u64 == *count).then_some(Generic::Named(names))?
                }
            };
            given.insert(kind.clone(), share);
        }
        Some(GenericResources(given))
    }

    /// Adds what a task was given.
    pub fn add(&mut self, given: &GenericResources) {
        for (kind, share) in &given.0 {
            match (self.0.get_mut(kind), share) {
                (Some(Generic::Discrete(count)), share) => *count += share.count(),
                (Some(Generic::Named(names)), Generic::Named(more)) => names.extend(more.iter().cloned()),
                // The kind was named once and is counted now: what is left of the old way only counts.
                (Some(held @ Generic::Named(_)), Generic::Discrete(more)) => {
                    *held = Generic::Discrete(held.count() + more);
                }
                (None, share) => {
                    self.0.insert(kind.clone(), share.clone());
                }
            }
        }
    }

    /// As environment variables of a task that was given this: `DOCKER_RESOURCE_GPU=uuid1,uuid2`.
    pub fn env(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|(kind, share)| {
            let value = match share {
                Generic::Discrete(count) => count.to_string(),
                Generic::Named(names) => names.iter().map(String::as_str).collect::<Vec<_>>().join(","),
            };
            format!("DOCKER_RESOURCE_{}={value}", kind.to_uppercase())
        })
    }
}

impl Generic {
    fn has(&self, name: &str) -> bool {
        matches!(self, Generic::Named(names) if names.contains(name))
    }
}

/// All that was said of one kind.
fn generic(kind: &str, values: &[&str]) -> Result<Generic, ParseGenericError> {
    match values {
        [value] if value.parse::<i64>().is_ok() => match value.parse::<u64>() {
            Ok(count) => Ok(Generic::Discrete(count)),
            Err(_) => Err(ParseGenericError::Negative(kind.to_owned())),
        },
        values if values.iter().all(|value| value.parse::<i64>().is_err()) => {
            Ok(Generic::Named(values.iter().map(|&value| value.to_owned()).collect()))
        }
        values => Err(ParseGenericError::Mixed { kind: kind.to_owned(), values: values.join(" ") }),
    }
}

#[cfg(test)]
mod tests;
