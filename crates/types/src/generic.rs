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

/// What tasks hold of a node's generic resources, by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GenericUse(BTreeMap<String, KindUse>);

/// What tasks hold of one kind. A daemon may count today what it named yesterday, so both may be held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct KindUse {
    counted: u64,
    /// How many tasks hold each: one, or there is a bug.
    names: BTreeMap<String, u64>,
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

    /// So many of what is not in use; `None` where there are not so many.
    fn share(&self, used: Option<&KindUse>, wanted: u64) -> Option<Generic> {
        let left = self.count().saturating_sub(used.map_or(0, KindUse::count));
        if left < wanted {
            return None;
        }
        match self {
            Generic::Discrete(_) => Some(Generic::Discrete(wanted)),
            Generic::Named(names) => {
                let free =
                    names.iter().filter(|name| !used.is_some_and(|used| used.names.contains_key(*name)));
                let names = free.take(usize::try_from(wanted).unwrap_or(usize::MAX)).cloned();
                let names: BTreeSet<String> = names.collect();
                (names.len() as u64 == wanted).then_some(Generic::Named(names))
            }
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
    pub fn claim(&self, used: &GenericUse, wanted: &GenericRequest) -> Option<GenericResources> {
        let mut given = BTreeMap::new();
        for (kind, count) in wanted.iter().filter(|(_, count)| **count > 0) {
            let share = self.0.get(kind)?.share(used.0.get(kind), *count)?;
            given.insert(kind.clone(), share);
        }
        Some(GenericResources(given))
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

impl GenericUse {
    /// Adds what a task was given.
    pub fn add(&mut self, given: &GenericResources) {
        for (kind, share) in &given.0 {
            let held = self.0.entry(kind.clone()).or_default();
            match share {
                Generic::Discrete(count) => held.counted += count,
                Generic::Named(names) => {
                    names.iter().for_each(|name| *held.names.entry(name.clone()).or_default() += 1);
                }
            }
        }
    }

    /// Takes out what [`GenericUse::add`] entered.
    pub fn remove(&mut self, given: &GenericResources) {
        for (kind, share) in &given.0 {
            let Some(held) = self.0.get_mut(kind) else { continue };
            match share {
                Generic::Discrete(count) => held.counted = held.counted.saturating_sub(*count),
                Generic::Named(names) => {
                    for name in names {
                        let holders = held.names.get(name).copied().unwrap_or_default();
                        if holders > 1 {
                            held.names.insert(name.clone(), holders - 1);
                        } else {
                            held.names.remove(name);
                        }
                    }
                }
            }
            if *held == KindUse::default() {
                self.0.remove(kind);
            }
        }
    }

    /// Whether nothing is in use.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether no more is in use than `has`, and nothing by two.
    pub fn fits(&self, has: &GenericResources) -> bool {
        self.0.iter().all(|(kind, held)| {
            let shared = held.names.values().any(|holders| *holders > 1);
            !shared && held.count() <= has.0.get(kind).map_or(0, Generic::count)
        })
    }
}

impl KindUse {
    fn count(&self) -> u64 {
        self.counted + self.names.values().sum::<u64>()
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
