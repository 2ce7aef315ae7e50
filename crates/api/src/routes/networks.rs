//! `/networks`.

use bollard_stubs::models;
use hyper::StatusCode;

use super::{not_built, unknown};
use crate::context::{Call, Context};
use crate::error::ApiError;
use crate::filters::{Filters, label_matches};
use crate::http::{Answer, ok};
use crate::query::Query;
use crate::translate;

/// Paths below `/networks`.
pub async fn route(context: &Context, method: &str, path: &[&str], call: Call) -> Answer {
    match (method, path) {
        ("GET", []) => list(context, &call.query).await,
        ("POST", ["create"]) => not_built(method, "/networks/create"),
        ("POST", ["prune"]) => not_built(method, "/networks/prune"),
        ("GET", [name]) => inspect(context, name, call.query.text("scope")).await,
        ("DELETE", [name]) => remove(context, name).await,
        ("POST", [_, action @ ("connect" | "disconnect")]) => {
            not_built(method, &format!("/networks/{{id}}/{action}"))
        }
        _ => Err(unknown()),
    }
}

/// Cluster-wide networks that this machine has not met yet: its managers know them all.
async fn known_to_managers_only(context: &Context) -> Vec<models::Network> {
    let here = context.engine.networks();
    let networks = context.swarm.networks().await;
    let unmet =
        networks.iter().filter(|network| !here.iter().any(|local| local.id == network.id.to_string()));
    unmet.map(translate::network::cluster).collect()
}

async fn inspect(context: &Context, name: &str, scope: &str) -> Answer {
    if scope != "swarm"
        && let Ok(network) = context.engine.inspect_network(name)
    {
        return ok(&translate::network::local_with_containers(&network));
    }
    let clustered = context.swarm.networks().await;
    let named = clustered.iter().find(|network| network.name == name);
    let meant = named.or_else(|| {
        let mut starting = clustered.iter().filter(|network| network.id.to_string().starts_with(name));
        starting.next().filter(|_| starting.next().is_none())
    });
    match meant {
        Some(network) if scope != "local" => ok(&translate::network::cluster(network)),
        _ => Err(ApiError::not_found(format!("network {name} not found"))),
    }
}

/// Only networks that cannot be removed exist so far.
async fn remove(context: &Context, name: &str) -> Answer {
    if let Ok(network) = context.engine.inspect_network(name)
        && ["bridge", "host", "none"].contains(&network.name.as_str())
    {
        let message = format!("{} is a pre-defined network and cannot be removed", network.name);
        return Err(ApiError::new(StatusCode::FORBIDDEN, message));
    }
    inspect(context, name, "").await?;
    not_built("DELETE", "/networks/{id}")
}

async fn list(context: &Context, query: &Query) -> Answer {
    let filters = Filters::parse(query, &["dangling", "driver", "id", "label", "name", "scope", "type"])?;
    if let Some(kind) = filters.values("type").find(|kind| !["builtin", "custom"].contains(kind)) {
        return Err(ApiError::invalid(format!("invalid filter: 'type'='{kind}'")));
    }
    let dangling = filters.truth("dangling")?;
    let mut networks: Vec<_> = context.engine.networks().iter().map(translate::network::local).collect();
    networks.extend(known_to_managers_only(context).await);
    networks.retain(|network| {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let (name, id) = (text(&network.name), text(&network.id));
        let label = |key: &str| network.labels.as_ref()?.get(key).map(String::as_str);
        // Nobody can make a network yet, so all of them are built in, and none is dangling.
        filters.any("name", |part| name.contains(part))
            && filters.any("id", |prefix| id.starts_with(prefix))
            && filters.any("driver", |driver| driver == text(&network.driver))
            && filters.any("scope", |scope| scope == text(&network.scope))
            && filters.any("type", |kind| kind == "builtin")
            && filters.values("label").all(|wanted| label_matches(wanted, &label))
            && dangling != Some(true)
    });
    ok(&networks)
}
