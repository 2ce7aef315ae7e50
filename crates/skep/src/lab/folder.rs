//! A lab's folder: which nodes there are, and where each keeps its things.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::client::Daemon;

/// Nodes that fit: their numbers are the last part of their addresses.
pub const MOST_NODES: u16 = 250;
/// The first three parts of all addresses: documentation addresses, that are nobody's.
const NETWORK: [u8; 3] = [192, 0, 2];
/// The last part of the address of the machine outside of the cluster.
const OUTSIDE: u8 = 254;
const FILE: &str = "lab.json";

/// A lab.
#[derive(Debug, Serialize, Deserialize)]
pub struct Lab {
    /// Its name.
    #[serde(skip)]
    pub name: String,
    /// Its folder.
    #[serde(skip)]
    pub dir: PathBuf,
    /// The first nodes: managers from the start.
    pub managers: u16,
    /// The nodes after them.
    pub workers: u16,
    /// Whether they were joined into a cluster.
    pub swarm: bool,
    /// Further flags of every daemon.
    pub daemon_flags: Vec<String>,
}

/// A node of a lab.
#[derive(Clone, Debug)]
pub struct Node {
    /// From 1.
    pub number: u16,
    joined: &'static str,
    lab: String,
    dir: PathBuf,
}

impl Lab {
    /// Begins a lab.
    ///
    /// # Errors
    /// When there is one of this name, or its folder cannot be made.
    pub fn create(mut lab: Lab, name: &str, dir: PathBuf) -> Result<Lab> {
        if dir.join(FILE).exists() {
            bail!("there is a lab `{name}` already: `skep lab down` ends it");
        }
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') || name.is_empty() {
            bail!("a lab's name consists of letters, digits and hyphens");
        }
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        lab.name = name.to_owned();
        lab.dir = dir;
        let text = serde_json::to_vec_pretty(&lab)?;
        std::fs::write(lab.dir.join(FILE), text).context("cannot write the lab's file")?;
        Ok(lab)
    }

    /// The lab that is there.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(name: &str, dir: PathBuf) -> Result<Lab> {
        let Ok(text) = std::fs::read(dir.join(FILE)) else {
            bail!("there is no lab `{name}`: `skep lab up` makes one");
        };
        let lab: Lab = serde_json::from_slice(&text).context("the lab's file is damaged")?;
        Ok(Lab { name: name.to_owned(), dir, ..lab })
    }

    /// Removes the folder.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub fn remove(&self) -> Result<()> {
        std::fs::remove_dir_all(&self.dir).with_context(|| format!("cannot remove {}", self.dir.display()))
    }

    /// All nodes, in order.
    pub fn nodes(&self) -> impl Iterator<Item = Node> {
        (1..=self.managers + self.workers).map(|number| Node {
            number,
            joined: match (self.swarm, number <= self.managers) {
                (true, true) => "manager",
                (true, false) => "worker",
                (false, _) => "-",
            },
            lab: self.name.clone(),
            dir: self.dir.join(number.to_string()),
        })
    }

    /// One node.
    ///
    /// # Errors
    /// When there is none of this number.
    pub fn node(&self, number: u16) -> Result<Node> {
        let found = self.nodes().find(|node| node.number == number);
        found.with_context(|| format!("there is no node {number}: {}", self.numbers()))
    }

    fn numbers(&self) -> String {
        format!("this lab has 1 to {}", self.managers + self.workers)
    }

    /// Does something to each of these nodes.
    ///
    /// # Errors
    /// The first failure; nothing is done when one of the nodes is not there.
    pub fn each(&self, numbers: &[u16], work: impl Fn(&Node) -> Result<()>) -> Result<()> {
        let nodes: Vec<Node> = numbers.iter().map(|number| self.node(*number)).collect::<Result<_>>()?;
        nodes.iter().try_for_each(|node| work(node).with_context(|| format!("node {}", node.number)))
    }

    /// The network namespace of the switch, in which the machine outside is as well.
    pub fn switch(&self) -> String {
        format!("skep-{}", self.name)
    }

    /// The network namespace of a node, or of the machine outside for 0.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn namespace(&self, number: u16) -> Result<String> {
        if number == 0 { Ok(self.switch()) } else { Ok(self.node(number)?.namespace()) }
    }

    /// The address of the machine outside.
    pub fn outside(&self) -> Ipv4Addr {
        let [a, b, c] = NETWORK;
        Ipv4Addr::new(a, b, c, OUTSIDE)
    }
}

impl Node {
    /// Its folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its network namespace.
    pub fn namespace(&self) -> String {
        format!("skep-{}-{}", self.lab, self.number)
    }

    /// Its host name.
    pub fn hostname(&self) -> String {
        format!("{}-{}", self.lab, self.number)
    }

    /// Its address on the switch.
    pub fn address(&self) -> Ipv4Addr {
        let [a, b, c] = NETWORK;
        let last = u8::try_from(self.number).expect("a lab has no more nodes than addresses");
        Ipv4Addr::new(a, b, c, last)
    }

    /// What it was joined as.
    pub fn joined(&self) -> &'static str {
        self.joined
    }

    /// Its daemon's socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("docker.sock")
    }

    /// Where clients find its daemon.
    pub fn client(&self) -> Daemon {
        Daemon::Unix(self.socket())
    }

    /// What its daemon writes.
    pub fn log(&self) -> PathBuf {
        self.dir.join("daemon.log")
    }

    /// Its daemon's `--data-root`.
    pub fn data_root(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Its daemon's `--exec-root`.
    pub fn exec_root(&self) -> PathBuf {
        self.dir.join("exec")
    }
}
