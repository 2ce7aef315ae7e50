//! `/nodes`.

use hyper::StatusCode;
use skep_swarm::Force;
use skep_types::Version;
use skep_types::node::{Node, NodeRole};

use super::unknown;
use crate::context::{Call, Context};
use crate::error::ApiError;
use crate::filters::Filters;
use crate::http::{Answer, empty, ok};
use crate::query::Query;
use crate::translate;

/// Paths below `/nodes`.
pub async fn route(context: &Context, method: &str, path: &[&str], call: Call) -> Answer {
    match (method, path) {
        ("GET", []) => list(context, &call.query).await,
        ("GET", [name]) => ok(&translate::node::to_model(&context.swarm.node(name).await?)),
        ("POST", [name, "update"]) => {
            let version = Version(call.query.required_number("version")?);
            let spec = translate::node::spec(call.json().await?)?;
            context.swarm.update_node(name, version, spec).await?;
            empty(StatusCode::OK)
        }
        ("DELETE", [name]) => {
            let force = if call.query.flag("force") { Force::Yes } else { Force::No };
            context.swarm.remove_node(name, force).await?;
            empty(StatusCode::OK)
        }
        _ => Err(unknown()),
    }
}

async fn list(context: &Context, query: &Query) -> Answer {
    let nodes = context.swarm.nodes().await?;
    let filters = Filters::parse(query, &["id", "label", "membership", "name", "node.label", "role"])?;
    for (name, known) in [("role", ["worker", "manager"]), ("membership", ["accepted", "pending"])] {
        if let Some(value) = filters.values(name).find(|value| !known.contains(value)) {
            return Err(ApiError::invalid(format!("invalid filter '{name}={value}'")));
        }
    }
    let shown = nodes.iter().filter(|view| matches(&view.node, &filters));
    ok(&shown.map(translate::node::to_model).collect::<Vec<_>>())
}

fn matches(node: &Node, filters: &Filters) -> bool {
    let role = match node.spec.role {
        NodeRole::Worker => "worker",
        NodeRole::Manager => "manager",
    };
    filters.any("id", |prefix| node.id.to_string().starts_with(prefix))
        && filters.any("name", |prefix| node.description.hostname.starts_with(prefix))
        && filters.any("role", |wanted| wanted == role)
        && filters.any("membership", |wanted| wanted == "accepted")
        && filters.labels("label", |key| node.description.engine_labels.get(key).map(String::as_str))
        && filters.labels("node.label", |key| node.spec.labels.get(key).map(String::as_str))
}
