//! What there is to be: the services, networks and guests that were asked for, and whether the cluster has come to rest.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::NODES;
use crate::Lab;

/// The networks that always are.
pub(crate) const NETWORKS: [&str; 2] = ["n0", "n1"];

/// A service as it was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    pub(crate) replicas: u64,
    pub(crate) networks: Vec<&'static str>,
    pub(crate) port: Option<u16>,
    pub(crate) has_address: bool,
}

/// All that was asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct World {
    pub(crate) services: BTreeMap<String, Service>,
    /// The names of services that were and are not.
    pub(crate) gone: BTreeSet<String>,
    /// Containers that are no tasks: the node and the network of each.
    pub(crate) guests: BTreeMap<String, (u16, &'static str)>,
    /// A network that comes and goes.
    pub(crate) extra_network: bool,
    pub(crate) drained: Option<u16>,
}

/// A running task, as a manager knows it.
#[derive(Clone, Debug)]
pub(crate) struct Running {
    /// What its server calls itself: the container's short id.
    pub(crate) name: String,
    /// Its addresses by the name of the network.
    pub(crate) addresses: BTreeMap<String, String>,
}

impl World {
    pub(crate) fn found(lab: &Lab) -> Result<World, String> {
        for network in NETWORKS {
            succeed(lab, 1, &["network", "create", "--driver", "overlay", "--attachable", network])?;
        }
        Ok(World::default())
    }

    /// Whether all services have their replicas and all nodes are ready.
    pub(crate) fn settled(&self, lab: &Lab) -> Result<(), String> {
        let nodes = list(lab, 1, "/nodes")?;
        let ready = nodes.iter().filter(|node| node["Status"]["State"] == "ready").count();
        if ready != usize::from(NODES) {
            return Err(format!("{ready} nodes are ready"));
        }
        let running = running(lab)?;
        for (name, service) in &self.services {
            let count = running.get(name).map_or(0, Vec::len);
            if count as u64 != service.replicas {
                return Err(format!("{name} has {count} of {} running tasks", service.replicas));
            }
        }
        // What is to end has ended, too: its containers are not only out of the tables.
        let tasks: usize = running.values().map(Vec::len).sum();
        let mut containers = 0;
        for node in 1..=NODES {
            containers += list(lab, node, "/containers/json")?.len();
        }
        let wanted = tasks + self.guests.len();
        if containers == wanted {
            Ok(())
        } else {
            Err(format!("{containers} containers run, {wanted} are wanted"))
        }
    }

    pub(crate) fn remove_everything(&mut self, lab: &Lab) -> Result<(), String> {
        for (guest, (node, _)) in std::mem::take(&mut self.guests) {
            succeed(lab, node, &["rm", "--force", &guest])?;
        }
        for service in std::mem::take(&mut self.services).into_keys() {
            succeed(lab, 1, &["service", "rm", &service])?;
        }
        super::within(super::SETTLE, || {
            let networks = if self.extra_network { &["n0", "n1", "n2"][..] } else { &NETWORKS };
            for network in networks {
                if lab.docker(1, &["network", "inspect", network]).code == 0 {
                    succeed(lab, 1, &["network", "rm", network])?;
                }
            }
            Ok(())
        })
    }
}

/// The tasks that run and are to run, by the name of their service, as the first node tells.
pub(crate) fn running(lab: &Lab) -> Result<BTreeMap<String, Vec<Running>>, String> {
    let services = list(lab, 1, "/services")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let names: BTreeMap<String, String> =
        services.iter().map(|service| (text(&service["ID"]), text(&service["Spec"]["Name"]))).collect();
    let mut running: BTreeMap<String, Vec<Running>> = BTreeMap::new();
    for task in list(lab, 1, "/tasks")? {
        let Some(service) = names.get(&text(&task["ServiceID"])) else { continue };
        if task["DesiredState"] != "running" || task["Status"]["State"] != "running" {
            continue;
        }
        let id = text(&task["Status"]["ContainerStatus"]["ContainerID"]);
        let attachments = task["NetworksAttachments"].as_array().cloned().unwrap_or_default();
        let address = |attachment: &Value| {
            let address = text(&attachment["Addresses"][0]);
            let address = address.split('/').next().unwrap_or_default().to_owned();
            (text(&attachment["Network"]["Spec"]["Name"]), address)
        };
        running.entry(service.clone()).or_default().push(Running {
            name: id.get(..12).unwrap_or_default().to_owned(),
            addresses: attachments.iter().map(address).collect(),
        });
    }
    Ok(running)
}

/// A list that a node's API answers with.
pub(crate) fn list(lab: &Lab, node: u16, path: &str) -> Result<Vec<Value>, String> {
    let answer = lab.api(node, "GET", path, "")?;
    if answer.status != 200 {
        return Err(format!("node {node}: GET {path}: {} {}", answer.status, answer.body.trim()));
    }
    serde_json::from_str(&answer.body).map_err(|error| error.to_string())
}

/// Runs the stock client, which must succeed.
pub(crate) fn succeed(lab: &Lab, node: u16, arguments: &[&str]) -> Result<(), String> {
    let output = lab.docker(node, arguments);
    if output.code == 0 { Ok(()) } else { Err(output.to_string()) }
}
