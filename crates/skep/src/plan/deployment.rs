//! The requests of a deployment, in the order in which the stock client makes them, and what would come of each.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use serde::Deserialize;
use serde_json::{Value, json};
use skep_compose::{Difference, IMAGE_LABEL, NAMESPACE_LABEL, Part, Stack, differences};

use crate::client::{self, Daemon, encoded};

/// What would come of a deployment.
#[derive(Debug, Default)]
pub struct Deployment {
    /// Each thing of the stack, in the order of the requests.
    pub steps: Vec<Step>,
}

/// One thing of the stack.
#[derive(Debug)]
pub struct Step {
    /// `network`, `secret`, `config` or `service`.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// What would be done to it.
    pub action: Action,
}

/// What would be done to something.
#[derive(Debug)]
pub enum Action {
    /// Nothing.
    Leave,
    /// It would come to be.
    Create,
    /// It would go, with so many tasks.
    Remove {
        /// Tasks that it has.
        tasks: u64,
    },
    /// It would be another.
    Update(Update),
    /// The deployment would end here, for this reason.
    Refused(String),
}

/// A service that would be another.
#[derive(Debug)]
pub struct Update {
    /// What differs.
    pub differences: Vec<Difference>,
    /// Tasks that it has now.
    pub tasks: u64,
    /// Those of them that would be replaced.
    pub replaced: u64,
    /// Whether it is a job that would run anew.
    pub runs_again: bool,
}

impl Update {
    /// Whether the change of a field replaces tasks. Where a task's own specification differs, that does; a placement
    /// or a port does where nothing else can have.
    pub fn replaces(&self, part: Part) -> bool {
        let is_task = |difference: &Difference| difference.part == Part::Task;
        self.replaced > 0
            && match part {
                Part::Task => true,
                Part::Placement | Part::Ports => !self.differences.iter().any(is_task),
                Part::Service => false,
            }
    }
}

/// What the daemon says of a played request.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Outcome {
    error: String,
    tasks: u64,
    replaced: u64,
    runs_again: bool,
    same: bool,
    current: Value,
    planned: Value,
}

/// What the daemon says of all of them.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Played {
    removed: Vec<Outcome>,
    networks: Vec<Outcome>,
    created: Vec<Outcome>,
    updated: Vec<Outcome>,
}

impl Deployment {
    /// Asks the daemon what would come of a stack.
    ///
    /// # Errors
    /// When the daemon does not answer, or is no manager.
    pub fn rehearse(daemon: &Daemon, stack: &Stack, prune: bool) -> Result<Deployment> {
        if client::get(daemon, "/info")?["Swarm"]["ControlAvailable"] != true {
            bail!("this node is not a swarm manager: ask one, with --host or DOCKER_HOST");
        }
        let label = format!("{NAMESPACE_LABEL}={}", stack.name);
        let filter = encoded(&json!({ "label": [label] }).to_string());
        let networks = client::get(daemon, &format!("/networks?filters={filter}"))?;
        let named = |value: &Value, name: &Value| Some((name.as_str()?.to_owned(), value.clone()));
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let networks: BTreeMap<String, Value> =
            list(&networks).iter().filter_map(|it| named(it, &it["Name"])).collect();
        let services = client::get(daemon, &format!("/services?filters={filter}"))?;
        let services: BTreeMap<String, Value> =
            list(&services).iter().filter_map(|it| named(it, &it["Spec"]["Name"])).collect();

        let gone: Vec<&String> =
            services.keys().filter(|name| prune && !stack.services.contains_key(*name)).collect();
        let new_networks: Vec<&String> =
            stack.networks.keys().filter(|name| !networks.contains_key(*name)).collect();
        let (known, new): (Vec<&String>, Vec<&String>) =
            stack.services.keys().partition(|name| services.contains_key(*name));
        let update = |name: &&String| {
            let (there, planned) = (&services[*name], &stack.services[*name]);
            json!({ "Service": there["ID"], "Spec": kept(planned, &there["Spec"]) })
        };
        let script = json!({
            "RemoveServices": gone.iter().map(|name| &services[*name]["ID"]).collect::<Vec<_>>(),
            "CreateNetworks": new_networks.iter().map(|name| &stack.networks[*name]).collect::<Vec<_>>(),
            "CreateServices": new.iter().map(|name| &stack.services[*name]).collect::<Vec<_>>(),
            "UpdateServices": known.iter().map(update).collect::<Vec<_>>(),
        });
        let played: Played = serde_json::from_value(client::post(daemon, "/skep/rehearse", &script)?)?;

        let mut deployment = Deployment::default();
        deployment.add("service", gone, played.removed, |it| Action::Remove { tasks: it.tasks });
        deployment.externals(daemon, stack)?;
        deployment.add("network", new_networks, played.networks, |_| Action::Create);
        for name in stack.networks.keys().filter(|name| networks.contains_key(*name)) {
            deployment.steps.push(Step { kind: "network", name: name.clone(), action: Action::Leave });
        }
        deployment.objects(daemon, stack);
        deployment.add("service", new, played.created, |_| Action::Create);
        deployment.add("service", known, played.updated, updated);
        Ok(deployment)
    }

    /// Whether anything would change.
    pub fn changes(&self) -> bool {
        self.steps.iter().any(|step| !matches!(step.action, Action::Leave))
    }

    /// Whether the deployment would not come through.
    pub fn is_refused(&self) -> bool {
        self.steps.iter().any(|step| matches!(step.action, Action::Refused(_)))
    }

    fn add(
        &mut self,
        kind: &'static str,
        names: Vec<&String>,
        outcomes: Vec<Outcome>,
        action: impl Fn(Outcome) -> Action,
    ) {
        for (name, outcome) in names.into_iter().zip(outcomes) {
            let refused = !outcome.error.is_empty();
            let action = if refused { Action::Refused(outcome.error) } else { action(outcome) };
            self.steps.push(Step { kind, name: name.clone(), action });
        }
    }

    /// Networks that must be there, in the stock client's words.
    fn externals(&mut self, daemon: &Daemon, stack: &Stack) -> Result<()> {
        let all = client::get(daemon, "/networks")?;
        for name in &stack.external_networks {
            let found = all.as_array().into_iter().flatten().find(|network| network["Name"] == name.as_str());
            let scope = found.map(|network| network["Scope"].as_str().unwrap_or_default());
            let problem = match scope {
                _ if ["default", "bridge", "host", "none"].contains(&name.as_str()) => continue,
                Some("swarm") => continue,
                Some(scope) => format!("declared as external, but it is not in the right scope: {scope:?} instead of \"swarm\""),
                None => "declared as external, but could not be found. You need to create a swarm-scoped network before the stack is deployed".to_owned(),
            };
            self.steps.push(Step { kind: "network", name: name.clone(), action: Action::Refused(problem) });
        }
        Ok(())
    }

    /// Secrets and configs: the stock client looks for each before it makes it, and ends where that is refused.
    fn objects(&mut self, daemon: &Daemon, stack: &Stack) {
        for (kind, name) in &stack.objects {
            let action = match client::get(daemon, &format!("/{kind}s/{}", encoded(name))) {
                Ok(_) => Action::Leave,
                Err(error) => Action::Refused(format!("{error:#}")),
            };
            self.steps.push(Step { kind, name: name.clone(), action });
        }
    }
}

/// What the stock client takes over from a service that is there: the content that its image was pinned to, while the file's
/// image is the same, and how often it was forced.
fn kept(planned: &Value, there: &Value) -> Value {
    let mut planned = planned.clone();
    if planned["Labels"][IMAGE_LABEL] == there["Labels"][IMAGE_LABEL] {
        planned["TaskTemplate"]["ContainerSpec"]["Image"] =
            there["TaskTemplate"]["ContainerSpec"]["Image"].clone();
    }
    planned["TaskTemplate"]["ForceUpdate"] = there["TaskTemplate"]["ForceUpdate"].clone();
    planned
}

fn updated(outcome: Outcome) -> Action {
    let Outcome { tasks, replaced, runs_again, same, current, planned, .. } = outcome;
    if same && !runs_again {
        return Action::Leave;
    }
    let differences = differences(&current, &planned);
    Action::Update(Update { differences, tasks, replaced, runs_again })
}
