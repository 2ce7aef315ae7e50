//! Several machines with the stock client: joining, the nodes' commands, and what survives which loss.

#![expect(clippy::unwrap_used, reason = "a broken test should stop where it broke")]

mod authority;
mod autoscale;
mod external;
mod loss;
mod mesh;
mod modes;
mod networks;
mod nodes;
mod papers;
mod placement;
mod quotes;
mod redis;
mod refusals;
mod registries;
mod replay;
mod walkthroughs;
mod words;
mod zero_loss;

use std::collections::BTreeMap;
use std::time::Duration;

use skep_conformance::{Lab, eventually};

/// How long something may take that takes a second or so on an idle machine.
const SOON: Duration = Duration::from_secs(30);

/// The container that an answer of the `simple_server` image names.
fn who(answer: &str) -> String {
    let name = answer.strip_prefix("I'm ").and_then(|rest| rest.split(',').next());
    name.unwrap_or_else(|| panic!("who answered {answer:?}?")).to_owned()
}

/// Waits until a node's port answers; tells which container did.
#[track_caller]
fn await_answer(lab: &Lab, node: u16, port: u16) -> String {
    eventually(&format!("node {node} answers on {port}"), SOON, || lab.fetch(node, port).map(|it| who(&it)))
}

/// Asks a node's port so often; how often which container answered.
#[track_caller]
fn ask(lab: &Lab, node: u16, port: u16, times: usize) -> BTreeMap<String, usize> {
    try_ask(lab, node, port, times).unwrap_or_else(|error| panic!("node {node}: {error}"))
}

/// The same where not all may answer yet.
fn try_ask(lab: &Lab, node: u16, port: u16, times: usize) -> Result<BTreeMap<String, usize>, String> {
    let mut answers = BTreeMap::new();
    for _ in 0..times {
        *answers.entry(who(&lab.fetch(node, port)?)).or_default() += 1;
    }
    Ok(answers)
}

/// The short ids of the containers that run on a node.
#[track_caller]
fn containers(lab: &Lab, node: u16) -> Vec<String> {
    lab.docker(node, &["ps", "--quiet"]).ok().lines().map(str::to_owned).collect()
}

/// The numbers of the nodes that lead, as a manager sees it.
fn leader(lab: &Lab, manager: u16) -> Option<u16> {
    let shown = lab.docker(manager, &["node", "ls", "--format", "{{.Hostname}} {{.ManagerStatus}}"]);
    let line = shown.stdout.lines().find(|line| line.ends_with(" Leader"))?.to_owned();
    line.split(' ').next()?.rsplit('-').next()?.parse().ok()
}
