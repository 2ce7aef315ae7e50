//! Making a lab.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::folder::{Lab, MOST_NODES, Node};
use super::{daemon, links};
use crate::client;

/// Port that managers listen on.
const PORT: u16 = skep_types::swarm::CLUSTER_PORT;

/// What to make.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Managers.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=i64::from(MOST_NODES)))]
    managers: u16,
    /// Workers.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=i64::from(MOST_NODES)))]
    workers: u16,
    /// Leave it to you to join the nodes into a cluster.
    #[arg(long)]
    no_swarm: bool,
    /// An archive of `docker save` to load on every node.
    #[arg(long, value_name = "FILE")]
    load: Vec<PathBuf>,
    /// Give every node's data root a disk of its own, of so many MiB.
    #[arg(long, value_name = "MIB")]
    disk: Option<u32>,
    /// A further flag of every daemon: --daemon-flag=--debug
    #[arg(long, value_name = "FLAG", allow_hyphen_values = true)]
    daemon_flag: Vec<String>,
}

/// Makes the lab; one that cannot be made whole is taken away again.
pub fn up(name: &str, dir: PathBuf, options: Options) -> Result<()> {
    let Options { managers, workers, no_swarm, load, disk, daemon_flag } = options;
    if managers + workers > MOST_NODES {
        bail!("a lab has at most {MOST_NODES} nodes");
    }
    let lab = Lab {
        name: String::new(),
        dir: PathBuf::new(),
        managers,
        workers,
        swarm: !no_swarm,
        daemon_flags: daemon_flag,
    };
    let lab = Lab::create(lab, name, dir)?;
    let made = make(&lab, &load, disk);
    if made.is_err()
        && let Err(error) = super::down(&lab)
    {
        eprintln!("skep lab: what was begun could not be taken away: {error:#}");
    }
    made?;
    println!("try: skep lab docker 1 -- node ls");
    Ok(())
}

fn make(lab: &Lab, images: &[PathBuf], disk: Option<u32>) -> Result<()> {
    links::make_switch(lab)?;
    let nodes: Vec<Node> = lab.nodes().collect();
    for node in &nodes {
        links::make_node(lab, node)?;
        disk.map_or(Ok(()), |size| daemon::make_disk(node, size))?;
        daemon::start(node, &lab.daemon_flags)?;
    }
    at_once(&nodes, |node| {
        daemon::await_ready(node)?;
        images.iter().try_for_each(|image| client::load(&node.client(), image))
    })?;
    if lab.swarm {
        join_all(lab, &nodes)?;
    }
    for node in &nodes {
        println!("node {}  {}  {}  {}", node.number, node.hostname(), node.address(), node.joined());
    }
    Ok(())
}

fn join_all(lab: &Lab, nodes: &[Node]) -> Result<()> {
    let (first, rest) = nodes.split_first().context("a lab has a node at least")?;
    let address = format!("{}:{PORT}", first.address());
    let init = json!({ "ListenAddr": format!("0.0.0.0:{PORT}"), "AdvertiseAddr": address });
    client::post(&first.client(), "/swarm/init", &init).context("node 1 cannot found a cluster")?;
    let swarm = client::get(&first.client(), "/swarm")?;
    let (managers, workers) = rest.split_at(usize::from(lab.managers) - 1);
    // One after the other: each changes who has to agree to the next.
    for node in managers {
        join(node, &swarm["JoinTokens"]["Manager"], &address)?;
    }
    at_once(workers, |node| join(node, &swarm["JoinTokens"]["Worker"], &address))
}

fn join(node: &Node, token: &Value, remote: &str) -> Result<()> {
    let request = json!({
        "ListenAddr": format!("0.0.0.0:{PORT}"),
        "AdvertiseAddr": format!("{}:{PORT}", node.address()),
        "RemoteAddrs": [remote],
        "JoinToken": token,
    });
    let joined = client::post(&node.client(), "/swarm/join", &request);
    joined.map(|_| ()).with_context(|| format!("node {} cannot join", node.number))
}

/// Does something to all nodes at the same time.
fn at_once(nodes: &[Node], work: impl Fn(&Node) -> Result<()> + Sync) -> Result<()> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = nodes.iter().map(|node| (node, scope.spawn(|| work(node)))).collect();
        threads.into_iter().try_for_each(|(node, thread)| {
            let result = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            result.with_context(|| format!("node {}", node.number))
        })
    })
}
