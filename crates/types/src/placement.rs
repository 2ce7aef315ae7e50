//! Placement: which nodes may run a service's tasks.
//!
//! Grammar, matching rules and messages are SwarmKit's (manager/constraint, manager/scheduler/filter.go).

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::node::{Node, NodeRole};

/// Where a service's tasks may run: on nodes that satisfy every constraint and are of one of the platforms.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// All of them hold.
    pub constraints: Vec<Constraint>,
    /// One of them fits; none says that any does.
    #[serde(default)]
    pub platforms: Vec<Platform>,
    /// What tasks are spread over, the coarsest first.
    #[serde(default)]
    pub preferences: Vec<Preference>,
    /// The most tasks of the service that a node may have; 0 is no bound.
    #[serde(default)]
    pub max_replicas: u64,
}

/// A label that tasks are spread over: as many on nodes with one value of it as on those with another.
///
/// As in SwarmKit, one that names no label is kept and has no effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Preference {
    /// As it was written: `node.labels.rack`.
    pub spread: String,
}

/// What an image was built for. An empty field fits everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// `amd64` or uname's `x86_64`.
    pub architecture: String,
    /// `linux`.
    pub os: String,
}

/// One condition on a node, `node.labels.disk == ssd`. Kept as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Constraint {
    text: String,
    subject: Subject,
    operator: Operator,
    value: String,
}

/// What of a node a constraint speaks of.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Subject {
    Id,
    Hostname,
    Ip,
    Role,
    Os,
    Architecture,
    /// A label that the cluster's users gave it.
    Label(String),
    /// A label that its daemon was started with.
    EngineLabel(String),
    /// Nothing that is known: no node satisfies it.
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
}

/// A text that is no constraint, in SwarmKit's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseConstraintError {
    /// Nothing is compared.
    #[error("constraint expected one operator from ==, !=")]
    Operator,
    /// The left side is no key.
    #[error("key '{0}' is invalid")]
    Key(String),
    /// The right side is no value.
    #[error("value '{0}' is invalid")]
    Value(String),
}

impl Placement {
    /// Whether any node may run the tasks.
    pub fn is_open(&self) -> bool {
        let Placement { constraints, platforms, preferences, max_replicas } = self;
        constraints.is_empty() && platforms.is_empty() && preferences.is_empty() && *max_replicas == 0
    }

    /// Whether a node satisfies every constraint.
    pub fn allows(&self, node: &Node) -> bool {
        self.constraints.iter().all(|constraint| constraint.holds(node))
    }

    /// Whether a node is of one of the platforms.
    pub fn fits_platform(&self, node: &Node) -> bool {
        self.platforms.is_empty() || self.platforms.iter().any(|platform| platform.fits(node))
    }
}

impl Preference {
    /// What a node has of the label: empty where it has none. `None` where no label is named.
    pub fn value<'n>(&self, node: &'n Node) -> Option<&'n str> {
        let labels = match subject(&self.spread) {
            Subject::Label(name) => node.spec.labels.get(&name),
            Subject::EngineLabel(name) => node.description.engine_labels.get(&name),
            _ => return None,
        };
        Some(labels.map_or("", String::as_str))
    }
}

impl Platform {
    fn fits(&self, node: &Node) -> bool {
        let architecture = docker_architecture(&self.architecture);
        let same_architecture =
            architecture.is_empty() || architecture == docker_architecture(&node.description.architecture);
        same_architecture && (self.os.is_empty() || self.os == node.description.os)
    }
}

/// The one name of an architecture that has two.
fn docker_architecture(name: &str) -> &str {
    match name {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        name => name,
    }
}

impl Constraint {
    /// Whether a node satisfies it.
    pub fn holds(&self, node: &Node) -> bool {
        let label = |labels: &std::collections::BTreeMap<String, String>, name: &str| {
            self.compare(labels.get(name).map_or("", String::as_str))
        };
        match &self.subject {
            Subject::Id => self.compare(&node.id.to_string()),
            Subject::Hostname => self.compare(&node.description.hostname),
            Subject::Ip => self.holds_of_address(node.address),
            Subject::Role => self.compare(match node.role() {
                NodeRole::Worker => "worker",
                NodeRole::Manager => "manager",
            }),
            Subject::Os => self.compare(&node.description.os),
            Subject::Architecture => self.compare(&node.description.architecture),
            Subject::Label(name) => label(&node.spec.labels, name),
            Subject::EngineLabel(name) => label(&node.description.engine_labels, name),
            Subject::Unknown => false,
        }
    }

    fn compare(&self, actual: &str) -> bool {
        self.value.eq_ignore_ascii_case(actual) == (self.operator == Operator::Equal)
    }

    /// An address or a subnet; anything else holds of no node, whatever the operator.
    fn holds_of_address(&self, actual: IpAddr) -> bool {
        let inside = match self.value.split_once('/') {
            None => self.value.parse().ok().map(|wanted: IpAddr| same_subnet(wanted, actual, 128)),
            Some((address, prefix)) => {
                let plain = !prefix.is_empty() && prefix.bytes().all(|byte| byte.is_ascii_digit());
                let parsed = address.parse::<IpAddr>().ok().zip(prefix.parse::<u8>().ok());
                let fits = |(address, prefix): &(IpAddr, u8)| {
                    plain && *prefix <= if address.is_ipv4() { 32 } else { 128 }
                };
                parsed.filter(fits).map(|(address, prefix)| same_subnet(address, actual, prefix))
            }
        };
        inside.is_some_and(|inside| inside == (self.operator == Operator::Equal))
    }
}

/// Whether the first `prefix` bits of two addresses of one family agree.
fn same_subnet(one: IpAddr, other: IpAddr, prefix: u8) -> bool {
    match (one.to_canonical(), other.to_canonical()) {
        (IpAddr::V4(one), IpAddr::V4(other)) => {
            let differing = (u32::from(one) ^ u32::from(other)).leading_zeros();
            differing >= u32::from(prefix.min(32))
        }
        (IpAddr::V6(one), IpAddr::V6(other)) => {
            let differing = (u128::from(one) ^ u128::from(other)).leading_zeros();
            differing >= u32::from(prefix)
        }
        _ => false,
    }
}

impl FromStr for Constraint {
    type Err = ParseConstraintError;

    fn from_str(text: &str) -> Result<Constraint, ParseConstraintError> {
        let equal = text.split_once("==").map(|sides| (sides, Operator::Equal));
        let sides = equal.or_else(|| text.split_once("!=").map(|sides| (sides, Operator::NotEqual)));
        let Some(((key, value), operator)) = sides else { return Err(ParseConstraintError::Operator) };
        let (key, value) = (key.trim(), value.trim());
        if !is_key(key) {
            return Err(ParseConstraintError::Key(key.to_owned()));
        }
        if !is_value(value) {
            return Err(ParseConstraintError::Value(value.to_owned()));
        }
        Ok(Constraint { text: text.to_owned(), subject: subject(key), operator, value: value.to_owned() })
    }
}

/// Two characters at least.
fn is_key(key: &str) -> bool {
    let mut bytes = key.bytes();
    let first = bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    first && key.len() > 1 && bytes.all(inner)
}

/// Nothing that may become an operator one day.
fn is_value(value: &str) -> bool {
    let allowed = |byte: u8| {
        byte.is_ascii_alphanumeric() || byte.is_ascii_whitespace() || b":-_.*()?+[]\\^$|/".contains(&byte)
    };
    !value.is_empty() && value.bytes().all(allowed)
}

/// Keys are read in any case, labels' names only in their own.
fn subject(key: &str) -> Subject {
    let label = |prefix: &str| {
        let (head, name) = key.split_at_checked(prefix.len())?;
        (head.eq_ignore_ascii_case(prefix) && !name.is_empty()).then(|| name.to_owned())
    };
    match key.to_ascii_lowercase().as_str() {
        "node.id" => Subject::Id,
        "node.hostname" => Subject::Hostname,
        "node.ip" => Subject::Ip,
        "node.role" => Subject::Role,
        "node.platform.os" => Subject::Os,
        "node.platform.arch" => Subject::Architecture,
        _ => label("node.labels.")
            .map(Subject::Label)
            .or_else(|| label("engine.labels.").map(Subject::EngineLabel))
            .unwrap_or(Subject::Unknown),
    }
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for Constraint {
    type Error = ParseConstraintError;

    fn try_from(text: String) -> Result<Constraint, ParseConstraintError> {
        text.parse()
    }
}

impl From<Constraint> for String {
    fn from(constraint: Constraint) -> String {
        constraint.text
    }
}

#[cfg(test)]
mod tests;
