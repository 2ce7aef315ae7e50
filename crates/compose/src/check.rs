//! Holds a file against the schema, and tells the first thing that does not fit, with its place.

use std::collections::BTreeMap;

use crate::error::{Fault, Position};
use crate::schema::{FILE, Fields, NEWEST, Shape};
use crate::units;
use crate::yaml::{Node, Value};

/// What a service cannot have, and what to do instead; in the stock client's words.
const FORBIDDEN: &[(&str, &str)] = &[
    ("extends", "Support for `extends` is not implemented yet."),
    (
        "volume_driver",
        "Instead of setting the volume driver on the service, define a volume using the top-level `volumes` option and specify the driver there.",
    ),
    (
        "volumes_from",
        "To share a volume between services, define it using the top-level `volumes` option and reference it from each service that shares it using the service-level `volumes` option.",
    ),
    ("cpu_quota", "Set resource limits using deploy.resources"),
    ("cpu_shares", "Set resource limits using deploy.resources"),
    ("cpuset", "Set resource limits using deploy.resources"),
    ("mem_limit", "Set resource limits using deploy.resources"),
    ("memswap_limit", "Set resource limits using deploy.resources"),
];

/// What a stack passes over.
const IGNORED: &[&str] = &[
    "build",
    "cgroup_parent",
    "cgroupns_mode",
    "container_name",
    "depends_on",
    "devices",
    "domainname",
    "expose",
    "external_links",
    "ipc",
    "links",
    "mac_address",
    "network_mode",
    // The stock client's schema has it, and its reader forgets it.
    "oom_score_adj",
    "pid",
    "privileged",
    "security_opt",
    "shm_size",
    "tmpfs",
    "userns_mode",
];

/// The second number of the file's version, 3.0 to 3.13; what has none, or is just "3", is the newest.
pub(crate) fn version(file: &Node) -> Result<u8, Fault> {
    let Some(node) = file.get("version") else { return Ok(NEWEST) };
    let Value::Text(text) = &node.value else { return Err(Fault::at(node.at, "version must be a string")) };
    let minor = match text.as_str() {
        "" | "3" => Some(NEWEST),
        text => text
            .strip_prefix("3.")
            .filter(|minor| *minor == "0" || !minor.starts_with('0'))
            .and_then(|minor| minor.parse().ok().filter(|minor| *minor <= NEWEST)),
    };
    minor.ok_or_else(|| Fault::at(node.at, format!("unsupported Compose file version: {text}")))
}

/// Refuses options that a swarm never had.
pub(crate) fn refuse_forbidden(file: &Node) -> Result<(), Fault> {
    for service in services(file) {
        for (name, advice) in FORBIDDEN {
            if let Some(node) = service.get(name) {
                return Err(Fault::at(node.at, format!("unsupported option {name}: {advice}")));
            }
        }
    }
    Ok(())
}

/// Options of services that a stack passes over, in alphabetical order.
pub(crate) fn ignored(file: &Node) -> Vec<String> {
    let is_used = |name: &&&str| services(file).any(|service| service.get(name).is_some());
    IGNORED.iter().filter(is_used).map(|name| (*name).to_owned()).collect()
}

fn services(file: &Node) -> impl Iterator<Item = &Node> {
    file.get("services").and_then(Node::entries).into_iter().flat_map(BTreeMap::values)
}

/// Refuses what the schema of this version does not know.
pub(crate) fn check(file: &Node, version: u8) -> Result<(), Fault> {
    shape(file, &FILE, version, "")
}

fn shape(node: &Node, wanted: &Shape, version: u8, path: &str) -> Result<(), Fault> {
    let wrong = || Err(fault(node.at, path, &format!("must be a {}", kind(wanted))));
    match (wanted, &node.value) {
        (Shape::Any, _)
        | (Shape::Null, Value::Null)
        | (Shape::Text, Value::Text(_))
        | (Shape::Integer, Value::Integer(_))
        | (Shape::Number, Value::Integer(_) | Value::Float(_))
        | (Shape::Boolean, Value::Boolean(_)) => Ok(()),
        (Shape::Duration, Value::Text(text)) => match units::duration(text) {
            Some(_) => Ok(()),
            None => Err(fault(node.at, path, "Does not match format 'duration'")),
        },
        (Shape::OneOf(known), Value::Text(text)) => {
            if known.contains(&text.as_str()) {
                return Ok(());
            }
            Err(fault(node.at, path, &format!("must be one of {}", known.join(", "))))
        }
        (Shape::Set(items), Value::List(list)) => {
            for (index, node) in list.iter().enumerate() {
                if list[..index].iter().any(|other| other.value == node.value) {
                    return Err(fault(node.at, path, "array items must be unique"));
                }
            }
            each(list, items, version, path)
        }
        (Shape::List(items), Value::List(list)) => each(list, items, version, path),
        (Shape::Entries(items), Value::Mapping(entries)) => {
            entries.iter().try_for_each(|(key, node)| shape(node, items, version, &below(path, key)))
        }
        (Shape::Named(items), Value::Mapping(entries)) => entries.iter().try_for_each(|(key, node)| {
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
            if key.is_empty() || !key.bytes().all(fits) {
                return Err(fault(node.at, path, &format!("Additional property {key} is not allowed")));
            }
            shape(node, items, version, &below(path, key))
        }),
        (Shape::Fields(known), Value::Mapping(entries)) => fields(node.at, entries, known, version, path),
        (Shape::Either(shapes), _) => match shapes.iter().find(|shape| is_of(node, shape)) {
            Some(found) => shape(node, found, version, path),
            None => wrong(),
        },
        _ => wrong(),
    }
}

fn each(list: &[Node], items: &Shape, version: u8, path: &str) -> Result<(), Fault> {
    list.iter()
        .enumerate()
        .try_for_each(|(index, node)| shape(node, items, version, &below(path, &index.to_string())))
}

fn fields(
    at: Position,
    entries: &BTreeMap<String, Node>,
    fields: &Fields,
    version: u8,
    path: &str,
) -> Result<(), Fault> {
    for (key, node) in entries {
        let known = fields.known.iter().find(|field| field.name == key);
        match known.filter(|field| field.since <= version) {
            Some(field) => shape(node, field.shape, version, &below(path, key))?,
            None if fields.is_open => {}
            None if key.starts_with("x-") && fields.extensions.is_some_and(|since| since <= version) => {}
            None => {
                let newer =
                    known.map(|field| format!(" before version 3.{}", field.since)).unwrap_or_default();
                let message = format!("Additional property {key} is not allowed{newer}");
                return Err(fault(node.at, path, &message));
            }
        }
    }
    match fields.required {
        Some(required) if !entries.contains_key(required) => {
            Err(fault(at, path, &format!("{required} is required")))
        }
        _ => Ok(()),
    }
}

/// Whether a value is of a shape's kind, whatever is in it.
fn is_of(node: &Node, shape: &Shape) -> bool {
    match shape {
        Shape::Any => true,
        Shape::Null => node.value == Value::Null,
        Shape::Text | Shape::Duration | Shape::OneOf(_) => matches!(node.value, Value::Text(_)),
        Shape::Integer => matches!(node.value, Value::Integer(_)),
        Shape::Number => matches!(node.value, Value::Integer(_) | Value::Float(_)),
        Shape::Boolean => matches!(node.value, Value::Boolean(_)),
        Shape::Set(_) | Shape::List(_) => matches!(node.value, Value::List(_)),
        Shape::Entries(_) | Shape::Named(_) | Shape::Fields(_) => matches!(node.value, Value::Mapping(_)),
        Shape::Either(shapes) => shapes.iter().any(|shape| is_of(node, shape)),
    }
}

/// What a shape is called.
fn kind(shape: &Shape) -> String {
    match shape {
        Shape::Any => "value".to_owned(),
        Shape::Null => "null".to_owned(),
        Shape::Text | Shape::Duration | Shape::OneOf(_) => "string".to_owned(),
        Shape::Integer => "integer".to_owned(),
        Shape::Number => "number".to_owned(),
        Shape::Boolean => "boolean".to_owned(),
        Shape::Set(_) | Shape::List(_) => "list".to_owned(),
        Shape::Entries(_) | Shape::Named(_) | Shape::Fields(_) => "mapping".to_owned(),
        Shape::Either(shapes) => shapes.iter().map(|shape| kind(shape)).collect::<Vec<_>>().join(" or "),
    }
}

fn below(path: &str, part: &str) -> String {
    if path.is_empty() { part.to_owned() } else { format!("{path}.{part}") }
}

fn fault(at: Position, path: &str, message: &str) -> Fault {
    let path = if path.is_empty() { "(root)" } else { path };
    Fault::at(at, format!("{path} {message}"))
}
