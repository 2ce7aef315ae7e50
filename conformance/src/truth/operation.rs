//! What users do and what happens to machines.

use std::fmt;
use std::time::Duration;

use super::world::{NETWORKS, Service, World, list, succeed};
use super::{NODES, SETTLE, within};
use crate::Lab;
use crate::faults::Dice;

/// Services that may be.
const SERVICES: u64 = 6;
/// Guests that may be.
const GUESTS: u64 = 3;
/// Most replicas of a service.
const MOST: u64 = 4;
/// The lowest published port.
const PORT: u64 = 8000;
/// How long a link stays cut, or a daemon away.
const AWAY: Duration = Duration::from_millis(1500);

/// One of them.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    Create(String, Service),
    Remove(String),
    Scale(String, u64),
    /// All tasks are replaced.
    Renew(String),
    /// A container of a node is killed.
    KillContainer(u16),
    KillDaemon(u16),
    RestartDaemon(u16),
    Cut(u16),
    Drain(u16),
    Activate(u16),
    Welcome(String, u16, &'static str),
    Dismiss(String),
    /// A network comes, or goes.
    Network,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl Operation {
    /// Draws one that makes sense in this world.
    pub(crate) fn draw(dice: &mut Dice, world: &World) -> Operation {
        let node = 1 + dice.below(u64::from(NODES)) as u16;
        let name = format!("s{}", dice.below(SERVICES));
        let guest = format!("g{}", dice.below(GUESTS));
        let replicas = dice.below(MOST + 1);
        let there = world.services.contains_key(&name);
        match dice.below(20) {
            0..=5 if !there => Operation::Create(name, Operation::service(dice, replicas)),
            0..=1 => Operation::Remove(name),
            2..=6 if there => Operation::Scale(name, replicas),
            7..=8 if there => Operation::Renew(name),
            9 => Operation::KillDaemon(node),
            10 => Operation::RestartDaemon(node),
            11 => Operation::Cut(node),
            12..=13 => match world.drained {
                Some(node) => Operation::Activate(node),
                None => Operation::Drain(node),
            },
            14..=15 => match world.guests.get(&guest) {
                Some(_) => Operation::Dismiss(guest),
                None => Operation::Welcome(guest, node, dice.pick(&NETWORKS)),
            },
            16 => Operation::Network,
            _ => Operation::KillContainer(node),
        }
    }

    fn service(dice: &mut Dice, replicas: u64) -> Service {
        let networks = dice.pick(&[vec![], vec!["n0"], vec!["n1"], vec!["n0", "n1"]]);
        let port = (dice.below(2) == 0).then(|| (PORT + dice.below(1000)) as u16);
        // Without a virtual address nothing can be published on every node.
        let has_address = port.is_some() || dice.below(3) > 0;
        Service { replicas, networks, port, has_address }
    }

    /// Performs it.
    pub(crate) fn perform(&self, lab: &Lab, world: &mut World, dice: &mut Dice) -> Result<(), String> {
        match self {
            Operation::Create(name, service) => create(lab, world, name, service),
            Operation::Remove(name) => {
                world.services.remove(name);
                world.gone.insert(name.clone());
                succeed(lab, 1, &["service", "rm", name])
            }
            Operation::Scale(name, replicas) => {
                if let Some(service) = world.services.get_mut(name) {
                    service.replicas = *replicas;
                }
                succeed(lab, 1, &["service", "scale", "--detach", &format!("{name}={replicas}")])
            }
            Operation::Renew(name) => succeed(lab, 1, &["service", "update", "--detach", "--force", name]),
            Operation::KillContainer(node) => kill_container(lab, *node, dice),
            Operation::KillDaemon(node) => {
                lab_command(lab, &["kill", &node.to_string()])?;
                std::thread::sleep(AWAY);
                lab_command(lab, &["start", &node.to_string()])
            }
            Operation::RestartDaemon(node) => {
                lab_command(lab, &["stop", &node.to_string()])?;
                lab_command(lab, &["start", &node.to_string()])
            }
            Operation::Cut(node) => {
                lab_command(lab, &["cut", &node.to_string()])?;
                std::thread::sleep(AWAY);
                lab_command(lab, &["heal"])
            }
            Operation::Drain(node) => {
                world.drained = Some(*node);
                available(lab, *node, "drain")
            }
            Operation::Activate(node) => {
                world.drained = None;
                available(lab, *node, "active")
            }
            Operation::Welcome(name, node, network) => {
                world.guests.insert(name.clone(), (*node, network));
                let run = ["run", "--detach", "--name", name, "--network", network, "nginx"];
                within(SETTLE, || {
                    let output = lab.docker(*node, &run);
                    // A try that came too early may have left the container.
                    if output.code != 0 {
                        lab.docker(*node, &["rm", "--force", name]);
                        return Err(output.to_string());
                    }
                    Ok(())
                })
            }
            Operation::Dismiss(name) => match world.guests.remove(name) {
                Some((node, _)) => succeed(lab, node, &["rm", "--force", name]),
                None => Ok(()),
            },
            Operation::Network => {
                world.extra_network = !world.extra_network;
                match world.extra_network {
                    true => succeed(lab, 1, &["network", "create", "--driver", "overlay", "n2"]),
                    false => succeed(lab, 1, &["network", "rm", "n2"]),
                }
            }
        }
    }
}

fn create(lab: &Lab, world: &mut World, name: &str, service: &Service) -> Result<(), String> {
    let taken = |port| world.services.values().any(|other| other.port == port);
    let port = service.port.filter(|port| !taken(Some(*port)));
    let service = Service { port, has_address: service.has_address, ..service.clone() };
    let replicas = service.replicas.to_string();
    let mut words: Vec<String> =
        ["service", "create", "--detach", "--name", name, "--replicas", &replicas, "--restart-delay", "0s"]
            .map(str::to_owned)
            .to_vec();
    words.extend(["--stop-grace-period".to_owned(), "2s".to_owned()]);
    for network in &service.networks {
        words.extend(["--network".to_owned(), (*network).to_owned()]);
    }
    if let Some(port) = service.port {
        words.extend(["--publish".to_owned(), format!("{port}:80")]);
    }
    if !service.has_address {
        words.extend(["--endpoint-mode".to_owned(), "dnsrr".to_owned()]);
    }
    words.push("nginx".to_owned());
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    succeed(lab, 1, &words)?;
    world.gone.remove(name);
    world.services.insert(name.to_owned(), service);
    Ok(())
}

/// Kills a task's container of a node, if there is one.
fn kill_container(lab: &Lab, node: u16, dice: &mut Dice) -> Result<(), String> {
    let containers = list(lab, node, "/containers/json")?;
    let tasks: Vec<&str> = containers
        .iter()
        .filter(|container| container["Labels"]["com.docker.swarm.task.id"].is_string())
        .filter_map(|container| container["Id"].as_str())
        .collect();
    if tasks.is_empty() { Ok(()) } else { succeed(lab, node, &["kill", dice.pick(&tasks)]) }
}

fn available(lab: &Lab, node: u16, availability: &str) -> Result<(), String> {
    let name = lab.docker(node, &["info", "--format", "{{.Name}}"]);
    succeed(lab, 1, &["node", "update", "--availability", availability, name.stdout.trim()])
}

fn lab_command(lab: &Lab, words: &[&str]) -> Result<(), String> {
    let output = lab.run(words);
    if output.code == 0 { Ok(()) } else { Err(output.to_string()) }
}
