//! `/services`.

use std::collections::BTreeMap;

use bollard_stubs::models;
use hyper::StatusCode;
use skep_engine::view::NetworkView;
use skep_types::NetworkId;
use skep_types::service::{Service, ServiceMode};

use super::{networks, not_built, unknown};
use crate::body;
use crate::context::{Call, Context};
use crate::error::ApiError;
use crate::filters::Filters;
use crate::http::{Answer, created, empty, ok};
use crate::query::Query;
use crate::translate::{service, service_view};
use crate::version::Version;

/// Paths below `/services`.
pub async fn route(context: &Context, method: &str, path: &[&str], call: Call) -> Answer {
    match (method, path) {
        ("GET", []) => list(context, &call.query).await,
        ("POST", ["create"]) => create(context, call).await,
        ("GET", [name]) => inspect(context, name, &call.query).await,
        ("DELETE", [name]) => {
            context.swarm.remove_service(name).await?;
            empty(StatusCode::OK)
        }
        ("POST", [name, "update"]) => update(context, name, call).await,
        ("GET", [_, "logs"]) => not_built(method, "/services/{id}/logs"),
        _ => Err(unknown()),
    }
}

async fn inspect(context: &Context, name: &str, query: &Query) -> Answer {
    let found = context.swarm.service(name).await?;
    ok(&service_view::to_model(&found, &context.swarm.networks().await, query.flag("insertDefaults"), None))
}

async fn list(context: &Context, query: &Query) -> Answer {
    let services = context.swarm.services().await?;
    let filters = Filters::parse(query, &["id", "label", "mode", "name", "runtime"])?;
    let (networks, with_status) = (context.swarm.networks().await, query.flag("status"));
    let counts = if with_status {
        service_view::count_tasks(&services, &context.swarm.tasks().await?)
    } else {
        BTreeMap::new()
    };
    let views: Vec<_> = services
        .iter()
        .filter(|service| matches(service, &filters))
        .map(|service| {
            let count = counts.get(&service.id).copied().unwrap_or_default();
            let status = with_status.then(|| service_view::status(service, count));
            service_view::to_model(service, &networks, false, status)
        })
        .collect();
    ok(&views)
}

fn matches(service: &Service, filters: &Filters) -> bool {
    let mode = match service.spec.mode {
        ServiceMode::Replicated { .. } => "replicated",
        ServiceMode::Global => "global",
        ServiceMode::ReplicatedJob { .. } => "replicated-job",
        ServiceMode::GlobalJob => "global-job",
    };
    // SwarmKit's lists match ids and names by their beginning.
    filters.any("id", |prefix| service.id.to_string().starts_with(prefix))
        && filters.any("name", |prefix| service.spec.name.starts_with(prefix))
        && filters.any("mode", |wanted| wanted == mode)
        && filters.any("runtime", |runtime| runtime == "container")
        && filters.labels("label", |key| service.spec.labels.get(key).map(String::as_str))
}

/// Clients from here on ask a registry for the image's digest themselves, and warn themselves.
const CLIENTS_RESOLVE_SINCE: Version = Version { major: 1, minor: 30 };

/// What the user of an older client is told when an image is not pinned to one content. There is no registry
/// to ask yet, so the credentials that come in X-Registry-Auth are of no use.
fn warnings(image: &str, client: Version) -> Option<Vec<String>> {
    if client >= CLIENTS_RESOLVE_SINCE {
        return None;
    }
    service::digest_warning(image).map(|warning| vec![warning])
}

/// The network of the cluster that a service is to be on. As moby's `populateNetworkID`.
pub fn usable(known: &[NetworkView], name: &str) -> Result<NetworkId, ApiError> {
    let view = networks::pick(known, name)?;
    if view.scope != "swarm" {
        return Err(ApiError::forbidden(format!(
            "The network {name} cannot be used with services. Only networks scoped to the swarm can be used, such as \
             those created with the overlay driver."
        )));
    }
    view.id.parse().map_err(|_| ApiError::not_found(format!("network {name} not found")))
}

async fn create(context: &Context, call: Call) -> Answer {
    let client = call.version;
    let text = body::read_text(&call.headers, call.body).await?;
    let known = networks::all(context).await;
    let mut spec = service::parse(&text, &|name| usable(&known, name))?;
    if spec.name.is_empty() {
        // As moby's `ServiceSpecToGRPC`: clients leave the naming to the daemon.
        let services = context.swarm.services().await?;
        let free = |name: &str| services.iter().all(|service| service.spec.name != name);
        spec.name = context.engine.draw_name(free).unwrap_or_default();
    }
    let image = spec.task.container.image.clone();
    let id = context.swarm.create_service(spec).await?;
    created(&models::ServiceCreateResponse { id: Some(id.to_string()), warnings: warnings(&image, client) })
}

async fn update(context: &Context, name: &str, call: Call) -> Answer {
    let version = skep_types::Version(call.query.required_number("version")?);
    let rolls_back = match call.query.text("rollback") {
        "" | "none" => false,
        "previous" => true,
        other => return Err(ApiError::invalid(format!("unrecognized rollback option {other}"))),
    };
    let client = call.version;
    let text = body::read_text(&call.headers, call.body).await?;
    let known = networks::all(context).await;
    let spec = service::parse(&text, &|name| usable(&known, name))?;
    if rolls_back {
        // As moby: the body has to make sense, and does not matter.
        context.swarm.roll_back_service(name, version).await?;
        return ok(&models::ServiceUpdateResponse { warnings: None });
    }
    let image = spec.task.container.image.clone();
    let before = context.swarm.service(name).await?.spec.task.container.image.clone();
    context.swarm.update_service(name, version, spec).await?;
    // As Docker: the image is looked up again only when it changes.
    let warnings = if image == before { None } else { warnings(&image, client) };
    ok(&models::ServiceUpdateResponse { warnings })
}
