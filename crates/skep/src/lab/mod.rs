//! `skep lab`: a whole cluster on one machine, for trying Skep and for its tests.
//!
//! Each node is a network namespace with an address of its own, linked to one switch, in which a real daemon
//! runs with its own folders, socket and host name. Nothing of it touches the machine's own network. What is
//! true is read from the kernel each time: only the nodes' roles are kept.

mod daemon;
mod folder;
mod links;
mod up;

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};

use folder::Lab;

/// What `skep lab` can do.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Name of the lab, when there are several.
    #[arg(long, default_value = "lab", global = true)]
    name: String,
    /// Folder of the labs.
    #[arg(long, default_value = "/var/lib/skep-lab", global = true)]
    dir: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make the nodes, start their daemons, and join them into a cluster
    Up(up::Options),
    /// Show the nodes
    Ls,
    /// Run the docker client with a node's daemon: skep lab docker 2 -- node ls
    Docker {
        /// The node's number, from 1.
        node: u16,
        /// Arguments of the client.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Run a program in a node's network; node 0 is a machine outside of the cluster
    Exec {
        /// The node's number, or 0.
        node: u16,
        /// The program and its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<OsString>,
    },
    /// Show what a node's daemon wrote
    Logs {
        /// The node's number.
        node: u16,
    },
    /// Kill a node's daemon; its containers go on, unless --power
    Kill {
        /// The nodes' numbers.
        #[arg(required = true)]
        nodes: Vec<u16>,
        /// Take the power away: containers end as well, and memory is lost.
        #[arg(long)]
        power: bool,
    },
    /// Stop a node's daemon in order
    Stop {
        /// The nodes' numbers.
        #[arg(required = true)]
        nodes: Vec<u16>,
    },
    /// Start a node's daemon again
    Start {
        /// The nodes' numbers.
        #[arg(required = true)]
        nodes: Vec<u16>,
    },
    /// Freeze a node's daemon
    Pause {
        /// The nodes' numbers.
        #[arg(required = true)]
        nodes: Vec<u16>,
    },
    /// Let a frozen daemon go on
    Resume {
        /// The nodes' numbers.
        #[arg(required = true)]
        nodes: Vec<u16>,
    },
    /// Cut the link between two nodes, or between one node and all others
    Cut {
        /// One node.
        node: u16,
        /// The other; all others if it is not named. 0 is the machine outside.
        other: Option<u16>,
        /// Lose only what goes from the first to the second.
        #[arg(long, requires = "other")]
        one_way: bool,
    },
    /// Mend all links
    Heal,
    /// End everything and leave nothing behind
    Down,
}

/// Runs one of the commands.
pub fn main(arguments: Arguments) -> ExitCode {
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("skep lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<()> {
    let Arguments { name, dir, command } = arguments;
    // The daemons' own folders are not this process's.
    let dir = std::path::absolute(dir).context("cannot tell the lab's folder")?;
    if !rustix::process::geteuid().is_root() {
        bail!("a lab is made of network namespaces: run it as root");
    }
    if let Command::Up(options) = command {
        return up::up(&name, dir.join(&name), options);
    }
    let lab = Lab::open(&name, dir.join(&name))?;
    match command {
        Command::Up(_) => unreachable!("it was carried out above"),
        Command::Ls => list(&lab),
        Command::Docker { node, arguments } => {
            let mut client = std::process::Command::new("docker");
            client.arg("--host").arg(format!("unix://{}", lab.node(node)?.socket().display()));
            Err(client.args(arguments).exec()).context("cannot run docker")
        }
        Command::Exec { node, command } => {
            let mut inside = links::command_in(&lab.namespace(node)?);
            Err(inside.args(command).exec()).context("cannot run nsenter")
        }
        Command::Logs { node } => {
            let mut log = std::fs::File::open(lab.node(node)?.log()).context("there is no log")?;
            std::io::copy(&mut log, &mut std::io::stdout().lock())?;
            Ok(())
        }
        Command::Kill { nodes, power } => lab.each(&nodes, |node| {
            daemon::kill(node)?;
            if power { daemon::lose_power(node) } else { Ok(()) }
        }),
        Command::Stop { nodes } => lab.each(&nodes, daemon::stop),
        Command::Start { nodes } => lab.each(&nodes, |node| {
            daemon::start(node, &lab.daemon_flags)?;
            daemon::await_ready(node)
        }),
        Command::Pause { nodes } => lab.each(&nodes, daemon::pause),
        Command::Resume { nodes } => lab.each(&nodes, daemon::resume),
        Command::Cut { node, other, one_way } => links::cut(&lab, node, other, one_way),
        Command::Heal => links::heal(&lab),
        Command::Down => down(&lab),
    }
}

fn list(lab: &Lab) -> Result<()> {
    println!("{:<5}{:<16}{:<14}{:<9}DAEMON", "NODE", "HOSTNAME", "ADDRESS", "JOINED");
    for node in lab.nodes() {
        let (hostname, address) = (node.hostname(), node.address().to_string());
        let (joined, state) = (node.joined(), daemon::state(&node));
        println!("{:<5}{hostname:<16}{address:<14}{joined:<9}{state}", node.number);
    }
    for (from, to) in links::cuts(lab)? {
        println!("nothing passes from {from} to {to}");
    }
    Ok(())
}

fn down(lab: &Lab) -> Result<()> {
    for node in lab.nodes() {
        daemon::kill(&node)?;
        daemon::lose_power(&node)?;
        daemon::unmount_below(node.dir());
    }
    links::remove(lab)?;
    lab.remove()
}
