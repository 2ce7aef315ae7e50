//! `/tasks`.

use std::collections::BTreeSet;

use skep_types::node::Node;
use skep_types::service::Service;
use skep_types::{NodeId, ServiceId, Task, TaskState};

use super::{not_built, unknown};
use crate::context::{Call, Context};
use crate::error::ApiError;
use crate::filters::Filters;
use crate::http::{Answer, ok};
use crate::query::Query;
use crate::translate;

/// Paths below `/tasks`.
pub async fn route(context: &Context, method: &str, path: &[&str], call: Call) -> Answer {
    match (method, path) {
        ("GET", []) => list(context, &call.query).await,
        ("GET", [name]) => {
            let task = context.swarm.task(name).await?;
            ok(&translate::task::to_model(&task, &context.swarm.networks().await))
        }
        ("GET", [_, "logs"]) => not_built(method, "/tasks/{id}/logs"),
        _ => Err(unknown()),
    }
}

const FILTERS: [&str; 8] =
    ["_up-to-date", "desired-state", "id", "label", "name", "node", "runtime", "service"];

async fn list(context: &Context, query: &Query) -> Answer {
    let tasks = context.swarm.tasks().await?;
    let filters = Filters::parse(query, &FILTERS)?;
    let wanted = Wanted {
        up_to_date: filters.truth("_up-to-date")?,
        states: filters.values("desired-state").map(state).collect::<Result<_, _>>()?,
        services: services(context, &filters).await?,
        nodes: nodes(context, &filters).await?,
        all_services: context.swarm.services().await?,
        all_nodes: context.swarm.nodes().await?.into_iter().map(|view| view.node).collect(),
        filters,
    };
    let networks = context.swarm.networks().await;
    let views: Vec<_> = tasks
        .iter()
        .filter(|task| wanted.lets_through(task))
        .map(|task| translate::task::to_model(task, &networks))
        .collect();
    ok(&views)
}

/// The services that the filter names; `None` when it does not narrow.
///
/// # Errors
/// 404 for what does not exist, as in Docker.
async fn services(context: &Context, filters: &Filters) -> Result<Option<BTreeSet<ServiceId>>, ApiError> {
    if !filters.has("service") {
        return Ok(None);
    }
    let names: Vec<&str> = filters.values("service").collect();
    let mut found = BTreeSet::new();
    for name in names {
        found.insert(context.swarm.service(name).await?.id);
    }
    Ok(Some(found))
}

/// The nodes that the filter names; see [`services`].
async fn nodes(context: &Context, filters: &Filters) -> Result<Option<BTreeSet<NodeId>>, ApiError> {
    if !filters.has("node") {
        return Ok(None);
    }
    let names: Vec<&str> = filters.values("node").collect();
    let mut found = BTreeSet::new();
    for name in names {
        found.insert(context.swarm.node(name).await?.node.id);
    }
    Ok(Some(found))
}

struct Wanted {
    filters: Filters,
    up_to_date: Option<bool>,
    states: BTreeSet<TaskState>,
    services: Option<BTreeSet<ServiceId>>,
    nodes: Option<BTreeSet<NodeId>>,
    all_services: Vec<Service>,
    all_nodes: Vec<Node>,
}

impl Wanted {
    fn lets_through(&self, task: &Task) -> bool {
        let is_current = |task: &Task| {
            let service = self.all_services.iter().find(|service| service.id == task.service);
            let node = self.all_nodes.iter().find(|node| Some(node.id) == task.node);
            service.is_some_and(|service| task.is_current(service, node))
        };
        self.filters.any("id", |prefix| task.id.to_string().starts_with(prefix))
            && self.filters.any("name", |prefix| task.container_name().starts_with(prefix))
            && self.filters.any("runtime", |runtime| runtime == "container")
            && self.filters.labels("label", |key| task.spec.container.labels.get(key).map(String::as_str))
            && (self.states.is_empty() || self.states.contains(&task.desired))
            && self.services.as_ref().is_none_or(|services| services.contains(&task.service))
            && self.nodes.as_ref().is_none_or(|nodes| task.node.is_some_and(|node| nodes.contains(&node)))
            && self.up_to_date.is_none_or(|wanted| wanted == is_current(task))
    }
}

fn state(name: &str) -> Result<TaskState, ApiError> {
    let states = [
        TaskState::New,
        TaskState::Pending,
        TaskState::Assigned,
        TaskState::Accepted,
        TaskState::Preparing,
        TaskState::Ready,
        TaskState::Starting,
        TaskState::Running,
        TaskState::Complete,
        TaskState::Shutdown,
        TaskState::Failed,
        TaskState::Rejected,
        TaskState::Remove,
        TaskState::Orphaned,
    ];
    let found = states.into_iter().find(|state| state.name().eq_ignore_ascii_case(name));
    found.ok_or_else(|| ApiError::invalid(format!("invalid filter 'desired-state={name}'")))
}
