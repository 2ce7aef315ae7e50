//! After the mending: is the cluster what was acknowledged?

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::MANAGERS;
use super::users::Model;
use crate::Lab;

/// Time within which everything must be right. A worker that was frozen, or a disk that was full, takes a few
/// seconds to be noticed and a few to come back.
const BOUND: Duration = Duration::from_secs(90);

/// Waits until everything is right; afterwards the model is certain.
pub(crate) fn converged(lab: &Lab, model: &mut Model) -> Result<(), String> {
    let deadline = Instant::now() + BOUND;
    loop {
        match look(lab, model) {
            Ok(certain) => {
                *model = certain;
                return Ok(());
            }
            Err(Wrong::Forever(what)) => return Err(what),
            Err(Wrong::Now(what)) if Instant::now() > deadline => {
                return Err(format!("not right after {BOUND:?}: {what}"));
            }
            Err(Wrong::Now(_)) => std::thread::sleep(Duration::from_millis(200)),
        }
    }
}

enum Wrong {
    /// It may yet become right.
    Now(String),
    /// What a manager said after asking the others can never be taken back.
    Forever(String),
}

fn look(lab: &Lab, model: &Model) -> Result<Model, Wrong> {
    let mut seen = Vec::new();
    for manager in 1..=MANAGERS {
        seen.push(services(lab, manager)?);
    }
    if seen.iter().any(|services| *services != seen[0]) {
        // A request that nobody waits for any more may come through between two looks.
        return Err(Wrong::Now(format!("the managers do not agree: {seen:?}")));
    }
    let services = seen.swap_remove(0);
    let mut certain = Model::default();
    for (name, states) in &model.0 {
        let state = services.get(name).copied();
        if !states.contains(&state) {
            return Err(Wrong::Forever(format!("{name} is {state:?}, but only {states:?} was acknowledged")));
        }
        certain.0.insert(name.clone(), vec![state]);
    }
    if let Some(name) = services.keys().find(|name| !model.0.contains_key(*name)) {
        return Err(Wrong::Forever(format!("nobody asked for {name}")));
    }
    containers(lab, &services)?;
    Ok(certain)
}

fn services(lab: &Lab, manager: u16) -> Result<BTreeMap<String, u64>, Wrong> {
    let list = json(lab, manager, "/services")?;
    let list = list.as_array().cloned().unwrap_or_default();
    let pair = |service: &Value| {
        let name = service["Spec"]["Name"].as_str()?.to_owned();
        Some((name, service["Spec"]["Mode"]["Replicated"]["Replicas"].as_u64()?))
    };
    Ok(list.iter().filter_map(pair).collect())
}

fn json(lab: &Lab, node: u16, path: &str) -> Result<Value, Wrong> {
    let answer = lab.api(node, "GET", path, "").map_err(Wrong::Now)?;
    if answer.status != 200 {
        return Err(Wrong::Now(format!("node {node}: GET {path}: {} {}", answer.status, answer.body)));
    }
    serde_json::from_str(&answer.body).map_err(|error| Wrong::Now(error.to_string()))
}

/// Every service's containers, exactly; none that is nobody's; no address twice.
fn containers(lab: &Lab, services: &BTreeMap<String, u64>) -> Result<(), Wrong> {
    let mut running: BTreeMap<String, u64> = BTreeMap::new();
    let mut addresses: BTreeMap<String, String> = BTreeMap::new();
    let mut slots = BTreeSet::new();
    for node in lab.nodes() {
        let list = json(lab, node, "/containers/json")?;
        for container in list.as_array().into_iter().flatten() {
            let name = container["Names"][0].as_str().unwrap_or_default().trim_start_matches('/').to_owned();
            let service = name.split('.').next().unwrap_or_default().to_owned();
            let slot: Vec<&str> = name.splitn(3, '.').take(2).collect();
            if !slots.insert(slot.join(".")) {
                return Err(Wrong::Now(format!("slot {} runs twice", slot.join("."))));
            }
            *running.entry(service).or_default() += 1;
            let networks = container["NetworkSettings"]["Networks"].as_object().cloned().unwrap_or_default();
            for (network, at) in networks.iter().filter(|(network, _)| *network != "docker_gwbridge") {
                let address = at["IPAddress"].as_str().unwrap_or_default();
                if address.is_empty() || network == "bridge" {
                    continue;
                }
                if let Some(other) = addresses.insert(address.to_owned(), name.clone()) {
                    return Err(Wrong::Now(format!("{address} is held by {name} and {other}")));
                }
            }
        }
    }
    let wanted: BTreeMap<String, u64> = services
        .iter()
        .filter(|(_, replicas)| **replicas > 0)
        .map(|(name, it)| (name.clone(), *it))
        .collect();
    if running == wanted {
        Ok(())
    } else {
        Err(Wrong::Now(format!("{running:?} run, {wanted:?} are wanted")))
    }
}
