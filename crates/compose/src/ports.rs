//! Published ports: `[[address:]published:]target[/protocol]`, ranges of them, or a mapping.

use serde_json::Value as Json;

use crate::error::Fault;
use crate::read::Object;
use crate::scalar::sprint;
use crate::yaml::{Node, Value};

/// The most ports that one service may publish: a range is written out.
const MAX_PORTS: usize = 1000;

/// The ports of a service, by published port.
pub(crate) fn read(service: &Node) -> Result<Vec<Json>, Fault> {
    let mut ports = Vec::new();
    for node in service.items("ports") {
        match &node.value {
            Value::Mapping(_) => ports.push(Port {
                protocol: node.text("protocol"),
                target: number(node, "target")?,
                published: number(node, "published")?,
                mode: node.text("mode"),
            }),
            value => {
                let text = sprint(value).unwrap_or_default();
                let short = short(&text).map_err(|problem| Fault::at(node.at, problem))?;
                ports.extend(short);
            }
        }
        if ports.len() > MAX_PORTS {
            return Err(Fault::at(node.at, format!("more than {MAX_PORTS} ports")));
        }
    }
    ports.sort_by_key(|port| port.published);
    Ok(ports.into_iter().map(Port::json).collect())
}

#[derive(Debug, PartialEq)]
struct Port {
    protocol: String,
    target: u16,
    published: u16,
    mode: String,
}

impl Port {
    fn json(self) -> Json {
        Object::default()
            .add("Protocol", self.protocol)
            .add("TargetPort", self.target)
            .add("PublishedPort", self.published)
            .add("PublishMode", self.mode)
            .build()
    }
}

fn number(node: &Node, key: &str) -> Result<u16, Fault> {
    u16::try_from(node.integer(key).unwrap_or_default())
        .map_err(|_| node.fault(key, format!("{key}: a port is 0 to 65535")))
}

/// As `nat.ParsePortSpec`, and swarm's ingress mode. An address is passed over, as the stock client does.
fn short(text: &str) -> Result<Vec<Port>, String> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
        return Err(format!("invalid proto: {protocol}"));
    }
    let mut parts = ports.rsplitn(3, ':');
    let (target, published) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    if target.is_empty() {
        return Err(format!("no port specified: {text}<empty>"));
    }
    let targets = range(target).ok_or_else(|| format!("invalid containerPort: {target}"))?;
    let published = match published {
        "" => None,
        published => Some(range(published).ok_or_else(|| format!("invalid hostPort: {published}"))?),
    };
    let Some((first, last)) = published else {
        let port =
            |target| Port { protocol: protocol.clone(), target, published: 0, mode: "ingress".to_owned() };
        return Ok((targets.0..=targets.1).map(port).collect());
    };
    let is_one = targets.0 == targets.1;
    if targets.1 - targets.0 != last - first && !is_one {
        return Err(format!("invalid ranges specified for container and host Ports: {target} and {ports}"));
    }
    let port = |published: u16| Port {
        protocol: protocol.clone(),
        // One port that is published at several stays one.
        target: if is_one { targets.0 } else { targets.0 + (published - first) },
        published,
        mode: "ingress".to_owned(),
    };
    Ok((first..=last).map(port).collect())
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?;
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        match short(text) {
            Ok(ports) => {
                let ports =
                    ports.iter().map(|port| format!("{}:{}/{}", port.published, port.target, port.protocol));
                ports.collect::<Vec<_>>().join(" ")
            }
            Err(problem) => problem,
        }
    }

    #[test]
    fn short_ports_are_read_as_docker_reads_them() {
        for (text, expected) in [
            ("80", "0:80/tcp"),
            ("8080:80", "8080:80/tcp"),
            ("53:53/UDP", "53:53/udp"),
            ("127.0.0.1:8080:80", "8080:80/tcp"),
            ("[::1]:8080:80", "8080:80/tcp"),
            ("127.0.0.1::80", "0:80/tcp"),
            ("9000-9001:90-91", "9000:90/tcp 9001:91/tcp"),
            ("9000-9001:90", "9000:90/tcp 9001:90/tcp"),
            ("80-81", "0:80/tcp 0:81/tcp"),
            (
                "9000-9001:90-95",
                "invalid ranges specified for container and host Ports: 90-95 and 9000-9001:90-95",
            ),
            ("x:80", "invalid hostPort: x"),
            ("80:", "no port specified: 80:<empty>"),
            ("80/icmp", "invalid proto: icmp"),
            ("99999", "invalid containerPort: 99999"),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }
}
