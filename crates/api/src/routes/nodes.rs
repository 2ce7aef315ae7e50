//! `/nodes`.

use hyper::StatusCode;
use skep_types::Version;
use skep_types::node::{Node, NodeRole};

use super::{not_built, unknown};
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
        ("GET", [name]) => {
            let root_ca = context.swarm.inspect().await?.authority.certificate;
            ok(&translate::node::to_model(&context.swarm.node(name).await?, &root_ca))
        }
        ("POST", [name, "update"]) => {
            let version = Version(call.query.required_number("version")?);
            let spec = translate::node::spec(call.json().await?)?;
            context.swarm.update_node(name, version, spec).await?;
            empty(StatusCode::OK)
        }
        ("DELETE", [_]) => not_built(method, "/nodes/{id}"),
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
    let root_ca = context.swarm.inspect().await?.authority.certificate;
    let shown = nodes.iter().filter(|view| matches(&view.node, &filters));
    ok(&shown.map(|node| translate::node::to_model(node, &root_ca)).collect::<Vec<_>>())
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
