//! `/networks`.

use bollard_stubs::models;
use hyper::StatusCode;
use skep_engine::view::NetworkView;
use skep_types::NetworkId;
use skep_types::network::NetworkSpec;

use super::unknown;
use crate::context::{Call, Context};
use crate::error::ApiError;
use crate::filters::Filters;
use crate::http::{Answer, created, empty, no_content, ok};
use crate::pruning::Pruning;
use crate::query::Query;
use crate::translate::network::{self, Wanted};
use crate::translate::{endpoint, network_use};

/// The networks that every machine has, and the one that every cluster has: `type=builtin`.
const BUILTIN: [&str; 4] = ["bridge", "host", "none", "ingress"];

/// Paths below `/networks`.
pub async fn route(context: &Context, method: &str, path: &[&str], call: Call) -> Answer {
    match (method, path) {
        ("GET", []) => list(context, &call.query).await,
        ("POST", ["create"]) => create(context, call).await,
        ("POST", ["prune"]) => prune(context, &call.query).await,
        ("GET", [name]) => inspect(context, name, &call.query).await,
        ("DELETE", [name]) => remove(context, name).await,
        ("POST", [name, "connect"]) => connect(context, name, call).await,
        ("POST", [name, "disconnect"]) => disconnect(context, name, call).await,
        _ => Err(unknown()),
    }
}

/// All networks: those that this machine knows, and on a manager those of the cluster that it has not met yet.
pub async fn all(context: &Context) -> Vec<NetworkView> {
    let mut views = context.engine.networks();
    let clustered = context.swarm.networks().await;
    let unmet =
        clustered.iter().filter(|network| !views.iter().any(|view| view.id == network.id.to_string()));
    let unmet: Vec<_> = unmet.map(network::cluster).collect();
    views.extend(unmet);
    views
}

async fn find(context: &Context, name: &str, scope: &str) -> Result<NetworkView, ApiError> {
    let views: Vec<_> =
        all(context).await.into_iter().filter(|view| scope.is_empty() || view.scope == scope).collect();
    pick(&views, name)
}

/// The network that is meant by an id, a name or a unique prefix of an id, in this order. As moby's
/// `findUniqueNetwork`.
pub fn pick(views: &[NetworkView], name: &str) -> Result<NetworkView, ApiError> {
    let one = |fits: &dyn Fn(&NetworkView) -> bool, kind: &str| -> Result<Option<NetworkView>, ApiError> {
        let fitting: Vec<&NetworkView> = views.iter().filter(|view| fits(view)).collect();
        if fitting.len() > 1 {
            let count = fitting.len();
            return Err(ApiError::invalid(format!(
                "network {name} is ambiguous ({count} matches found based on {kind})"
            )));
        }
        Ok(fitting.first().map(|view| (*view).clone()))
    };
    if let Some(exact) = views.iter().find(|view| view.id == name) {
        return Ok(exact.clone());
    }
    if let Some(named) = one(&|view| view.name == name, "name")? {
        return Ok(named);
    }
    let starting = one(&|view| !name.is_empty() && view.id.starts_with(name), "ID prefix")?;
    starting.ok_or_else(|| ApiError::not_found(format!("network {name} not found")))
}

async fn inspect(context: &Context, name: &str, query: &Query) -> Answer {
    let verbose = query.flag("verbose");
    let view = find(context, name, query.text("scope")).await?;
    if view.scope != "swarm" {
        return ok(&network::inspected(&view, None, None));
    }
    let users = context.swarm.network_users(&view.id).await;
    let peers = network_use::peers(&users);
    let services = verbose.then(|| network_use::services(&users));
    ok(&network::inspected(&view, (!peers.is_empty()).then_some(peers), services))
}

async fn list(context: &Context, query: &Query) -> Answer {
    let filters = Filters::parse(query, &["dangling", "driver", "id", "label", "name", "scope", "type"])?;
    if let Some(kind) = filters.values("type").find(|kind| !["builtin", "custom"].contains(kind)) {
        return Err(ApiError::invalid(format!("invalid filter: 'type'='{kind}'")));
    }
    let dangling = filters.truth("dangling")?;
    let used = match dangling {
        Some(_) => context.swarm.networks_in_use().await,
        None => Default::default(),
    };
    let mut views = all(context).await;
    views.retain(|view| {
        let is_builtin = BUILTIN.contains(&view.name.as_str());
        // As Docker: what nobody can remove does not dangle.
        let dangles = view.containers.is_empty() && !is_builtin && !used.contains(&view.id);
        filters.any("name", |part| view.name.contains(part))
            && filters.any("id", |prefix| view.id.starts_with(prefix))
            && filters.any("driver", |driver| driver == view.driver)
            && filters.any("scope", |scope| scope == view.scope)
            && filters.any("type", |kind| (kind == "builtin") == is_builtin)
            && filters.labels("label", |key| view.labels.get(key).map(String::as_str))
            && dangling.is_none_or(|wanted| wanted == dangles)
    });
    ok(&views.iter().map(network::listed).collect::<Vec<_>>())
}

async fn create(context: &Context, call: Call) -> Answer {
    let request: models::NetworkCreateRequest = call.json().await?;
    let name = request.name.clone();
    let wanted = network::create(request)?;
    let taken = context.swarm.networks().await.iter().any(|network| network.name == name);
    if taken {
        return Err(ApiError::conflict(format!("network with name {name} already exists")));
    }
    let id = match wanted {
        Wanted::Local(asked) => context.engine.create_network(*asked).await?,
        Wanted::Cluster(spec, source) => create_in_cluster(context, *spec, source).await?,
    };
    created(&models::NetworkCreateResponse { id, warning: String::new() })
}

async fn create_in_cluster(
    context: &Context,
    mut spec: NetworkSpec,
    source: Option<String>,
) -> Result<String, ApiError> {
    if !context.swarm.info().control_available {
        // Moby's words, which differ from those of other requests.
        return Err(ApiError::forbidden(
            "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to \
             swarm and try again.",
        ));
    }
    if BUILTIN[..3].contains(&spec.name.as_str()) {
        return Err(ApiError::forbidden(format!(
            "operation is not permitted on predefined {} network ",
            spec.name
        )));
    }
    if context.engine.networks().iter().any(|view| view.scope == "local" && view.name == spec.name) {
        return Err(ApiError::conflict(format!("network with name {} already exists", spec.name)));
    }
    if let Some(source) = source {
        network::configured(&mut spec, context.engine.network_configuration(&source)?)?;
    }
    Ok(context.swarm.create_network(spec).await?.to_string())
}

async fn remove(context: &Context, name: &str) -> Answer {
    let view = find(context, name, "").await?;
    if view.scope == "swarm" {
        context.swarm.remove_network(cluster_id(&view)?).await?;
    } else {
        context.engine.delete_network(&view.id).await?;
    }
    no_content()
}

fn cluster_id(view: &NetworkView) -> Result<NetworkId, ApiError> {
    view.id.parse().map_err(|_| ApiError::not_found(format!("network {} not found", view.name)))
}

async fn connect(context: &Context, name: &str, call: Call) -> Answer {
    let models::NetworkConnectRequest { container, endpoint_config } = call.json().await?;
    let container = container.unwrap_or_default();
    let request = endpoint::request(name, "EndpointConfig", endpoint_config.unwrap_or_default())?;
    context.engine.connect_network(&container, request).await?;
    empty(StatusCode::OK)
}

async fn disconnect(context: &Context, name: &str, call: Call) -> Answer {
    let models::NetworkDisconnectRequest { container, force } = call.json().await?;
    let container = container.unwrap_or_default();
    context.engine.disconnect_network(&container, name, force.unwrap_or_default()).await?;
    empty(StatusCode::OK)
}

/// Removes the networks that nothing is on: of the cluster first, as Docker does.
async fn prune(context: &Context, query: &Query) -> Answer {
    let pruning = Pruning::parse(query, &[])?;
    let admits =
        |view: &NetworkView| pruning.admits(view.created, |key| view.labels.get(key).map(String::as_str));
    let mut deleted = Vec::new();
    let used = context.swarm.networks_in_use().await;
    for network in context.swarm.networks().await {
        let view = network::cluster(&network);
        if network.ingress || used.contains(&view.id) || !admits(&view) {
            continue;
        }
        match context.swarm.remove_network(network.id).await {
            Ok(()) => deleted.push(view.name),
            // Somebody began to use it.
            Err(error) => tracing::debug!("could not remove cluster network {}: {error}", view.name),
        }
    }
    deleted.extend(context.engine.prune_networks(admits).await);
    ok(&models::NetworkPruneResponse { networks_deleted: Some(deleted) })
}
