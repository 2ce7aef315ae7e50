//! A service of a file as the body of `POST /services/create`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value as Json, json};

use crate::error::Fault;
use crate::read::{Object, json_mapping};
use crate::scalar::sprint;
use crate::stack::{IMAGE_LABEL, Names, Sections};
use crate::yaml::{Node, Value};
use crate::{Surroundings, deploy, environment, mounts, ports};

/// The network that a service is on where it names none.
const DEFAULT_NETWORK: &str = "default";

/// The keys of the networks that a service is on.
pub(crate) fn network_keys(service: &Node) -> BTreeSet<String> {
    let named: BTreeSet<String> = match service.get("networks").and_then(Node::entries) {
        Some(entries) => entries.keys().cloned().collect(),
        None => service.texts("networks").into_iter().collect(),
    };
    if named.is_empty() { BTreeSet::from([DEFAULT_NETWORK.to_owned()]) } else { named }
}

/// The body that makes a service.
pub(crate) fn spec(
    key: &str,
    node: &Node,
    sections: &Sections<'_>,
    names: &Names<'_>,
    surroundings: &Surroundings<'_>,
) -> Result<Json, Fault> {
    let image = node.text("image");
    if image.is_empty() {
        return Err(
            node.fault("image", format!("invalid image reference for service {key}: no image specified"))
        );
    }
    // Every field of it is absent where there is no such section.
    let nothing = Node { at: node.at, value: Value::Null };
    let deploy = node.get("deploy").unwrap_or(&nothing);
    let mut labels = names.labels(deploy.mapping("labels"));
    labels.insert(IMAGE_LABEL.to_owned(), image);
    let task = Object::default()
        .keep("ContainerSpec", Some(container(node, sections, names, surroundings)?))
        .keep("LogDriver", node.get("logging").map(log_driver))
        .keep("Resources", Some(deploy::resources(deploy)?))
        .keep("RestartPolicy", deploy::restart(node, deploy)?)
        .keep("Placement", Some(deploy::placement(deploy)?))
        .add("Networks", networks(key, node, sections.networks, names)?);
    let endpoint = Object::default()
        .add("Mode", deploy.text("endpoint_mode").to_lowercase())
        .add("Ports", ports::read(node)?);
    Ok(Object::default()
        .add("Name", names.scoped(key))
        .keep("Labels", Some(json_mapping(labels)))
        .keep("TaskTemplate", Some(task.build()))
        .keep("EndpointSpec", Some(endpoint.build()))
        .keep("Mode", Some(deploy::mode(deploy)?))
        .keep("UpdateConfig", deploy::update(deploy, "update_config")?)
        .keep("RollbackConfig", deploy::update(deploy, "rollback_config")?)
        .build())
}

fn container(
    node: &Node,
    sections: &Sections<'_>,
    names: &Names<'_>,
    surroundings: &Surroundings<'_>,
) -> Result<Json, Fault> {
    let (add, drop) = capabilities(node);
    let init = node.get("init").map(|_| node.is_set("init"));
    let dns = Object::default().add("Nameservers", node.texts("dns")).add("Search", node.texts("dns_search"));
    let has_dns = !node.texts("dns").is_empty() || !node.texts("dns_search").is_empty();
    let references = |key, section, kind| files(node, key, section, kind, names);
    Ok(Object::default()
        .add("Image", tagged(&node.text("image")))
        .add("Command", node.words("entrypoint")?)
        .add("Args", node.words("command")?)
        .add("Hostname", node.text("hostname"))
        .add("Hosts", hosts(node))
        .keep("DNSConfig", has_dns.then(|| dns.build()))
        .keep("Healthcheck", healthcheck(node)?)
        .add("Env", environment::read(node, surroundings)?)
        .keep("Labels", Some(json_mapping(names.labels(node.mapping("labels")))))
        .add("Dir", node.text("working_dir"))
        .add("User", node.text("user"))
        .add("Mounts", mounts::read(node, sections.volumes, names, surroundings)?)
        .keep("StopGracePeriod", node.duration("stop_grace_period"))
        .add("StopSignal", node.text("stop_signal"))
        .add("TTY", node.is_set("tty"))
        .add("OpenStdin", node.is_set("stdin_open"))
        .add("ReadOnly", node.is_set("read_only"))
        .add("Secrets", references("secrets", sections.secrets, "Secret")?)
        .add("Configs", references("configs", sections.configs, "Config")?)
        .keep("Privileges", Some(privileges(node)))
        .add("Isolation", node.text("isolation"))
        .keep("Init", init)
        .add_mapping("Sysctls", node.mapping("sysctls"))
        .add("CapabilityAdd", add)
        .add("CapabilityDrop", drop)
        .add("Ulimits", ulimits(node))
        .build())
}

/// An image in the client's words: with a tag, and without the registry and folder that everyone means. What is no reference
/// is left to the daemon to refuse.
fn tagged(image: &str) -> String {
    if image.len() == 64 && image.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return image.to_owned();
    }
    let hub = ["docker.io/", "index.docker.io/"].into_iter().find_map(|domain| image.strip_prefix(domain));
    let is_domain = |part: &str| part.contains(['.', ':']) || part == "localhost";
    let elsewhere = hub.is_none() && image.split_once('/').is_some_and(|(first, _)| is_domain(first));
    let short = hub.unwrap_or(image);
    let official = short.strip_prefix("library/").filter(|rest| !elsewhere && !rest.contains('/'));
    let short = official.unwrap_or(short);
    let last = short.rsplit('/').next().unwrap_or(short);
    if last.contains([':', '@']) { short.to_owned() } else { format!("{short}:latest") }
}

/// The stock client always sends them.
fn privileges(node: &Node) -> Json {
    let credentials = node.get("credential_spec").map(|spec| {
        Object::default()
            .add("Config", spec.text("config"))
            .add("File", spec.text("file"))
            .add("Registry", spec.text("registry"))
            .build()
    });
    json!({ "CredentialSpec": credentials, "SELinuxContext": null, "NoNewPrivileges": false })
}

/// `host:address` or `host=address`, as lines of a hosts file.
fn hosts(node: &Node) -> Vec<String> {
    let pairs: Vec<(String, String)> = match node.get("extra_hosts").map(|hosts| &hosts.value) {
        Some(Value::Mapping(entries)) => {
            let pair = |(host, node): (&String, &Node)| Some((host.clone(), sprint(&node.value)?));
            entries.iter().filter_map(pair).collect()
        }
        _ => {
            let split = |text: String| {
                let (host, address) = text.split_once('=').or_else(|| text.split_once(':'))?;
                Some((host.to_owned(), address.to_owned()))
            };
            node.texts("extra_hosts").into_iter().filter_map(split).collect()
        }
    };
    let line = |(host, address): (String, String)| {
        let bare = address.strip_prefix('[').and_then(|address| address.strip_suffix(']'));
        format!("{} {host}", bare.filter(|address| !address.is_empty()).unwrap_or(&address))
    };
    pairs.into_iter().map(line).collect()
}

fn healthcheck(service: &Node) -> Result<Option<Json>, Fault> {
    let Some(node) = service.get("healthcheck") else { return Ok(None) };
    let test = match node.get("test").map(|test| &test.value) {
        Some(Value::Text(command)) => vec!["CMD-SHELL".to_owned(), command.clone()],
        _ => node.texts("test"),
    };
    if node.is_set("disable") {
        if !test.is_empty() {
            return Err(node.fault("disable", "test and disable can't be set at the same time"));
        }
        return Ok(Some(json!({ "Test": ["NONE"] })));
    }
    let nanoseconds = |key| node.duration(key).unwrap_or_default();
    Ok(Some(
        Object::default()
            .add("Test", test)
            .add("Interval", nanoseconds("interval"))
            .add("Timeout", nanoseconds("timeout"))
            .add("StartPeriod", nanoseconds("start_period"))
            .add("StartInterval", nanoseconds("start_interval"))
            .add("Retries", node.count("retries")?.unwrap_or_default())
            .build(),
    ))
}

fn log_driver(node: &Node) -> Json {
    Object::default().add("Name", node.text("driver")).add_mapping("Options", node.mapping("options")).build()
}

/// Added and dropped capabilities; what is added is not dropped, and all of them are all.
fn capabilities(node: &Node) -> (Vec<String>, Vec<String>) {
    let normal = |key: &str| {
        let names = node.texts(key).into_iter().map(|name| {
            let name = name.trim().to_uppercase();
            if name == "ALL" || name == "RESET" || name.starts_with("CAP_") {
                name
            } else {
                format!("CAP_{name}")
            }
        });
        let names: BTreeSet<String> = names.collect();
        if names.contains("ALL") { BTreeSet::from(["ALL".to_owned()]) } else { names }
    };
    let (add, drop) = (normal("cap_add"), normal("cap_drop"));
    let counts = |name: &String| name != "RESET";
    let drop = drop.difference(&add).filter(|name| counts(name)).cloned().collect();
    (add.into_iter().filter(counts).collect(), drop)
}

fn ulimits(node: &Node) -> Vec<Json> {
    let entries = node.get("ulimits").and_then(Node::entries).into_iter().flatten();
    let limit = |(name, node): (&String, &Node)| {
        let (soft, hard) = match node.value {
            Value::Integer(both) => (both, both),
            _ => (node.integer("soft").unwrap_or_default(), node.integer("hard").unwrap_or_default()),
        };
        json!({ "Name": name, "Soft": soft, "Hard": hard })
    };
    entries.map(limit).collect()
}

/// The secrets or configs that a service sees; whoever sends them has to find their ids.
fn files(
    service: &Node,
    key: &str,
    section: Option<&Node>,
    kind: &str,
    names: &Names<'_>,
) -> Result<Vec<Json>, Fault> {
    let mut references = BTreeMap::new();
    for node in service.items(key) {
        let source = sprint(&node.value).unwrap_or_else(|| node.text("source"));
        let known = section.and_then(|section| section.get(&source));
        let singular = key.trim_end_matches('s');
        let known = known.ok_or_else(|| Fault::at(node.at, format!("undefined {singular} {source:?}")))?;
        let or = |key, default: &str| {
            Some(node.text(key)).filter(|it| !it.is_empty()).unwrap_or(default.to_owned())
        };
        let file = json!({
            "Name": or("target", &source),
            "UID": or("uid", "0"),
            "GID": or("gid", "0"),
            "Mode": node.count("mode")?.unwrap_or(0o444),
        });
        let name = names.of(&source, known);
        let reference = Object::default().keep("File", Some(file)).add(&format!("{kind}Name"), name.clone());
        references.insert((name, references.len()), reference.build());
    }
    Ok(references.into_values().collect())
}

/// The networks of a service by name; on those of users it answers to its key.
fn networks(
    key: &str,
    service: &Node,
    section: Option<&Node>,
    names: &Names<'_>,
) -> Result<Vec<Json>, Fault> {
    let mut attached = BTreeMap::new();
    for network in network_keys(service) {
        let known = section.and_then(|networks| networks.get(&network));
        if known.is_none() && network != DEFAULT_NETWORK {
            return Err(service.fault("networks", format!("undefined network {network:?}")));
        }
        let own = service.get("networks").and_then(|networks| networks.get(&network));
        let target = known.map_or_else(|| names.scoped(&network), |known| names.of(&network, known));
        let mut aliases = own.map(|own| own.texts("aliases")).unwrap_or_default();
        if !["default", "bridge", "host", "none"].contains(&target.as_str()) {
            aliases.push(key.to_owned());
        }
        let options = own.map(|own| own.mapping("driver_opts")).unwrap_or_default();
        let attachment = Object::default()
            .add("Target", target.clone())
            .add("Aliases", aliases)
            .add_mapping("DriverOpts", options);
        attached.insert(target, attachment.build());
    }
    Ok(attached.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_named_as_the_client_does() {
        for (image, expected) in [
            ("busybox", "busybox:latest"),
            ("docker.io/library/busybox:1", "busybox:1"),
            ("library/busybox", "busybox:latest"),
            ("docker.io/a/b", "a/b:latest"),
            ("localhost/library/b", "localhost/library/b:latest"),
            ("r.example:5000/b", "r.example:5000/b:latest"),
            ("busybox@sha256:00", "busybox@sha256:00"),
            (&"0".repeat(64), &"0".repeat(64)),
        ] {
            assert_eq!(tagged(image), expected, "{image}");
        }
    }
}
