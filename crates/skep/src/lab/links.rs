//! The lab's network: a switch in a namespace of its own, and one cable to each node.

use std::ffi::OsStr;
use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::folder::{Lab, Node};

const BRIDGE: &str = "switch";

/// A command whose program is still to be named, in a network namespace.
pub fn command_in(namespace: &str) -> Command {
    let mut command = Command::new("nsenter");
    // Not `ip netns exec`: that hides the control groups.
    command.arg(format!("--net=/run/netns/{namespace}")).arg("--");
    command
}

/// Runs a program to its end; what it says of a failure is the error.
pub fn run<S: AsRef<OsStr>>(program: &str, arguments: &[S]) -> Result<()> {
    let mut command = Command::new(program);
    let output = command.args(arguments).output().with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        bail!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

fn nft(lab: &Lab, script: &str) -> Result<String> {
    let mut command = command_in(&lab.switch());
    command.args(["nft", "-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("cannot run nft")?;
    child.stdin.take().expect("it was asked for").write_all(script.as_bytes())?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("nft failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The switch, and the machine outside that sits at it.
pub fn make_switch(lab: &Lab) -> Result<()> {
    let switch = lab.switch();
    run("ip", &["netns", "add", &switch])?;
    run("ip", &["-n", &switch, "link", "set", "lo", "up"])?;
    run("ip", &["-n", &switch, "link", "add", BRIDGE, "type", "bridge"])?;
    run("ip", &["-n", &switch, "addr", "add", &format!("{}/24", lab.outside()), "dev", BRIDGE])?;
    run("ip", &["-n", &switch, "link", "set", BRIDGE, "up"])?;
    // There is nothing further out, and nodes are told so at once, as often as they ask. Otherwise whoever asks the host's
    // name server (for a registry, say) would wait for ten seconds.
    run("ip", &["-n", &switch, "route", "add", "local", "default", "dev", "lo"])?;
    let unlimited = "echo 0 > /proc/sys/net/ipv4/icmp_ratelimit";
    run("nsenter", &[&format!("--net=/run/netns/{switch}"), "--", "sh", "-c", unlimited])?;
    let hooks = ["forward", "input", "output"].map(|hook| {
        format!("add chain bridge lab {hook} {{ type filter hook {hook} priority 0; policy accept; }}\n")
    });
    nft(lab, &format!("add table bridge lab\n{}", hooks.concat()))?;
    Ok(())
}

/// A node's namespace and its cable to the switch.
pub fn make_node(lab: &Lab, node: &Node) -> Result<()> {
    let (namespace, switch, port) = (node.namespace(), lab.switch(), port(node.number));
    run("ip", &["netns", "add", &namespace])?;
    run("ip", &["-n", &namespace, "link", "set", "lo", "up"])?;
    let cable = ["link", "add", "eth0", "type", "veth", "peer", &port, "netns", &switch];
    run("ip", &[&["-n", &namespace], &cable[..]].concat())?;
    run("ip", &["-n", &switch, "link", "set", &port, "master", BRIDGE])?;
    run("ip", &["-n", &switch, "link", "set", &port, "up"])?;
    run("ip", &["-n", &namespace, "addr", "add", &format!("{}/24", node.address()), "dev", "eth0"])?;
    run("ip", &["-n", &namespace, "link", "set", "eth0", "up"])?;
    run("ip", &["-n", &namespace, "route", "add", "default", "via", &lab.outside().to_string()])
}

fn port(number: u16) -> String {
    format!("node{number}")
}

/// Removes all namespaces, and with them what is inside.
pub fn remove(lab: &Lab) -> Result<()> {
    for namespace in lab.nodes().map(|node| node.namespace()).chain([lab.switch()]) {
        if std::path::Path::new("/run/netns").join(&namespace).exists() {
            run("ip", &["netns", "delete", &namespace])?;
        }
    }
    Ok(())
}

/// Loses what goes between two nodes, or between one and all others.
pub fn cut(lab: &Lab, node: u16, other: Option<u16>, one_way: bool) -> Result<()> {
    lab.namespace(node)?;
    let others: Vec<u16> = match other {
        Some(other) if other == node => bail!("a node has no link to itself"),
        Some(other) => vec![other],
        None => lab.nodes().map(|other| other.number).filter(|other| *other != node).chain([0]).collect(),
    };
    let mut script = String::new();
    for other in others {
        lab.namespace(other)?;
        script.push_str(&rule(node, other));
        if !one_way {
            script.push_str(&rule(other, node));
        }
    }
    nft(lab, &script).map(|_| ())
}

fn rule(from: u16, to: u16) -> String {
    match (from, to) {
        (0, to) => format!("add rule bridge lab output oifname \"{}\" drop\n", port(to)),
        (from, 0) => format!("add rule bridge lab input iifname \"{}\" drop\n", port(from)),
        (from, to) => {
            format!("add rule bridge lab forward iifname \"{}\" oifname \"{}\" drop\n", port(from), port(to))
        }
    }
}

/// Mends all links.
pub fn heal(lab: &Lab) -> Result<()> {
    nft(lab, "flush table bridge lab\n").map(|_| ())
}

/// The pairs of nodes between which everything is lost.
pub fn cuts(lab: &Lab) -> Result<Vec<(u16, u16)>> {
    let listed = nft(lab, "list table bridge lab\n")?;
    let end = |line: &str, word: &str| -> u16 {
        let name = line.split_once(word).and_then(|(_, rest)| rest.split('"').nth(1));
        name.and_then(|name| name.strip_prefix("node")?.parse().ok()).unwrap_or(0)
    };
    let rules = listed.lines().filter(|line| line.trim_end().ends_with("drop"));
    Ok(rules.map(|line| (end(line, "iifname"), end(line, "oifname"))).collect())
}
