//! From a checked file to what a deployment sends.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value as Json, json};

use crate::error::Fault;
use crate::read::{Object, json_mapping};
use crate::yaml::{Node, Value};
use crate::{Surroundings, check, service};

/// The label by which the things of a stack are known.
pub const NAMESPACE_LABEL: &str = "com.docker.stack.namespace";
/// The label that keeps a service's image as the file had it.
pub const IMAGE_LABEL: &str = "com.docker.stack.image";

/// What a stack file asks for, in the words of the Engine API.
#[derive(Clone, Debug, PartialEq)]
pub struct Stack {
    /// Its name.
    pub name: String,
    /// Bodies of `POST /networks/create`, by name: those that services are on.
    pub networks: BTreeMap<String, Json>,
    /// Networks that must be there already.
    pub external_networks: BTreeSet<String>,
    /// Names of the secrets and configs that the file makes, each with its kind: `secret` or `config`.
    pub objects: BTreeSet<(&'static str, String)>,
    /// Bodies of `POST /services/create`, by name.
    pub services: BTreeMap<String, Json>,
    /// Options that a stack passes over.
    pub ignored: Vec<String>,
}

/// How the things of a stack are called.
pub(crate) struct Names<'a> {
    pub stack: &'a str,
}

impl Names<'_> {
    /// What a network, volume, secret or config is called: as it says, or by the stack and its key.
    pub fn of(&self, key: &str, node: &Node) -> String {
        let external = node.get("external").map(|external| external.text("name")).unwrap_or_default();
        [external, node.text("name")]
            .into_iter()
            .find(|name| !name.is_empty())
            .unwrap_or_else(|| if self.is_external(node) { key.to_owned() } else { self.scoped(key) })
    }

    /// A key with the stack's name before it.
    pub fn scoped(&self, key: &str) -> String {
        format!("{}_{key}", self.stack)
    }

    /// Whether a network or its like must be there already.
    pub fn is_external(&self, node: &Node) -> bool {
        match node.get("external").map(|external| &external.value) {
            Some(Value::Boolean(external)) => *external,
            Some(Value::Mapping(_)) => true,
            _ => false,
        }
    }

    /// Labels with that of the stack.
    pub fn labels(&self, mut labels: BTreeMap<String, String>) -> BTreeMap<String, String> {
        labels.insert(NAMESPACE_LABEL.to_owned(), self.stack.to_owned());
        labels
    }
}

/// The sections of a file.
pub(crate) struct Sections<'a> {
    pub networks: Option<&'a Node>,
    pub volumes: Option<&'a Node>,
    pub secrets: Option<&'a Node>,
    pub configs: Option<&'a Node>,
}

pub(crate) fn build(root: &Node, stack: &str, surroundings: &Surroundings<'_>) -> Result<Stack, Fault> {
    let quotes = |letter: char| letter.is_whitespace() || letter == '"' || letter == '\'';
    if stack.trim_matches(quotes).is_empty() {
        return Err(Fault::nowhere(format!("invalid stack name: {stack:?}")));
    }
    let names = Names { stack };
    let sections = Sections {
        networks: root.get("networks"),
        volumes: root.get("volumes"),
        secrets: root.get("secrets"),
        configs: root.get("configs"),
    };
    for (kind, section) in [
        ("network", sections.networks),
        ("volume", sections.volumes),
        ("secret", sections.secrets),
        ("config", sections.configs),
    ] {
        for (key, node) in section.and_then(Node::entries).into_iter().flatten() {
            refuse_conflicts(kind, key, node)?;
        }
    }
    let none = BTreeMap::new();
    let services = root.get("services").and_then(Node::entries).unwrap_or(&none);
    let mut stack = Stack {
        name: stack.to_owned(),
        networks: BTreeMap::new(),
        external_networks: BTreeSet::new(),
        objects: objects(&sections, &names),
        services: BTreeMap::new(),
        ignored: check::ignored(root),
    };
    for (key, node) in services {
        for network in service::network_keys(node) {
            let known = sections.networks.and_then(|networks| networks.get(&network));
            match known {
                Some(known) if names.is_external(known) => {
                    stack.external_networks.insert(names.of(&network, known));
                }
                Some(known) => {
                    stack.networks.insert(names.of(&network, known), network_body(known, &names));
                }
                None => {
                    let absent = Node { at: node.at, value: Value::Null };
                    stack.networks.insert(names.scoped(&network), network_body(&absent, &names));
                }
            }
        }
        stack.services.insert(names.scoped(key), service::spec(key, node, &sections, &names, surroundings)?);
    }
    for (name, body) in &mut stack.networks {
        body["Name"] = json!(name);
    }
    Ok(stack)
}

/// Refuses what says two things of one.
fn refuse_conflicts(kind: &str, key: &str, node: &Node) -> Result<(), Fault> {
    let external = node.get("external").filter(|external| external.value != Value::Boolean(false));
    let Some(external) = external else {
        if !node.text("driver").is_empty() && !node.text("file").is_empty() {
            let message =
                format!("{kind} {key}: {kind}.driver and {kind}.file conflict; only use {kind}.driver");
            return Err(Fault::at(node.at, message));
        }
        return Ok(());
    };
    if !external.text("name").is_empty() && !node.text("name").is_empty() {
        let message =
            format!("{kind} {key}: {kind}.external.name and {kind}.name conflict; only use {kind}.name");
        return Err(Fault::at(node.at, message));
    }
    if kind == "volume"
        && let Some(other) =
            ["driver", "driver_opts", "labels"].into_iter().find(|key| node.get(key).is_some())
    {
        let message =
            format!("conflicting parameters \"external\" and {other:?} specified for volume {key:?}");
        return Err(node.fault(other, message));
    }
    Ok(())
}

fn objects(sections: &Sections<'_>, names: &Names<'_>) -> BTreeSet<(&'static str, String)> {
    let of = |kind, section: Option<&Node>| {
        let entries = section.and_then(Node::entries).into_iter().flatten();
        let own = entries.filter(|(_, node)| !names.is_external(node));
        own.map(|(key, node)| (kind, names.of(key, node))).collect::<Vec<_>>()
    };
    let mut objects = BTreeSet::from_iter(of("secret", sections.secrets));
    objects.extend(of("config", sections.configs));
    objects
}

/// The body that makes a network; the stock client's driver is `overlay`.
fn network_body(node: &Node, names: &Names<'_>) -> Json {
    let driver = Some(node.text("driver")).filter(|driver| !driver.is_empty());
    let ipam = node.get("ipam").and_then(|ipam| {
        let (driver, config) = (ipam.text("driver"), ipam.items("config"));
        let subnet = |node: &Node| Object::default().add("Subnet", node.text("subnet")).build();
        let config: Vec<Json> = config.iter().map(subnet).collect();
        let is_empty = driver.is_empty() && config.is_empty();
        (!is_empty).then(|| Object::default().add("Driver", driver).add("Config", config).build())
    });
    Object::default()
        .add("Driver", driver.unwrap_or_else(|| "overlay".to_owned()))
        .add_mapping("Options", node.mapping("driver_opts"))
        .add("Internal", node.is_set("internal"))
        .add("Attachable", node.is_set("attachable"))
        .keep("IPAM", ipam)
        .keep("Labels", Some(json_mapping(names.labels(node.mapping("labels")))))
        .build()
}
