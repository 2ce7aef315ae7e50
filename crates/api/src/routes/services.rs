//! `/services`.

use std::collections::BTreeMap;
use std::sync::Arc;

use bollard_stubs::models;
use hyper::StatusCode;
use hyper::header::HeaderMap;
use skep_engine::images::Reference;
use skep_engine::view::NetworkView;
use skep_types::NetworkId;
use skep_types::service::{Service, ServiceMode, ServiceSpec};
use skep_types::swarm::Secret;

use super::{networks, not_built, registries, unknown};
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

/// Pins a service's image to the content that its registry has by that name, for older clients; what their users are told when
/// that cannot be had.
async fn pin(context: &Context, spec: &mut ServiceSpec, client: Version) -> Option<Vec<String>> {
    let container = &spec.task.container;
    let warning = service::digest_warning(&container.image).filter(|_| client < CLIENTS_RESOLVE_SINCE)?;
    let reference: Reference = container.image.parse().ok()?;
    let credentials = container.registry_auth.as_ref().and_then(|auth| registries::parse_auth(&auth.0));
    match context.engine.inspect_remote(&reference, credentials.as_ref()).await {
        Ok((found, _)) => {
            let pinned = format!("{}@{}", reference.familiar(), found.digest);
            Arc::make_mut(&mut spec.task).container.image = pinned;
            None
        }
        Err(error) => {
            tracing::warn!("cannot pin the image of service {}: {error}", spec.name);
            Some(vec![warning])
        }
    }
}

/// Puts the credentials of a request into a service's specification.
fn authorize(spec: &mut ServiceSpec, auth: Option<Secret>) {
    if spec.task.container.registry_auth != auth {
        Arc::make_mut(&mut spec.task).container.registry_auth = auth;
    }
}

/// The specification of an update keeps the credentials that the service has, unless others come along. As moby's
/// `UpdateService`.
pub fn keep_auth(spec: &mut ServiceSpec, before: &ServiceSpec) {
    authorize(spec, before.task.container.registry_auth.clone());
}

fn sent_auth(headers: &HeaderMap) -> Option<Secret> {
    registries::auth_header(headers).map(|header| Secret(header.to_owned()))
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
    let (client, auth) = (call.version, sent_auth(&call.headers));
    let text = body::read_text(&call.headers, call.body).await?;
    let known = networks::all(context).await;
    let mut spec = service::parse(&text, &|name| usable(&known, name))?;
    if spec.name.is_empty() {
        // As moby's `ServiceSpecToGRPC`: clients leave the naming to the daemon.
        let services = context.swarm.services().await?;
        let free = |name: &str| services.iter().all(|service| service.spec.name != name);
        spec.name = context.engine.draw_name(free).unwrap_or_default();
    }
    authorize(&mut spec, auth);
    let warnings = pin(context, &mut spec, client).await;
    let id = context.swarm.create_service(spec).await?;
    created(&models::ServiceCreateResponse { id: Some(id.to_string()), warnings })
}

async fn update(context: &Context, name: &str, call: Call) -> Answer {
    let version = skep_types::Version(call.query.required_number("version")?);
    let rolls_back = match call.query.text("rollback") {
        "" | "none" => false,
        "previous" => true,
        other => return Err(ApiError::invalid(format!("unrecognized rollback option {other}"))),
    };
    let from_previous = match call.query.text("registryAuthFrom") {
        "" | "spec" => false,
        "previous-spec" => true,
        _ => return Err(ApiError::invalid("unsupported registryAuthFrom value")),
    };
    let (client, auth) = (call.version, sent_auth(&call.headers));
    let text = body::read_text(&call.headers, call.body).await?;
    let known = networks::all(context).await;
    let mut spec = service::parse(&text, &|name| usable(&known, name))?;
    if rolls_back {
        // As moby: the body has to make sense, and does not matter.
        context.swarm.roll_back_service(name, version).await?;
        return ok(&models::ServiceUpdateResponse { warnings: None });
    }
    let Service { spec: current, previous_spec, .. } = context.swarm.service(name).await?;
    if auth.is_some() {
        authorize(&mut spec, auth);
    } else if from_previous {
        let previous =
            previous_spec.ok_or_else(|| ApiError::invalid("service does not have a previous spec"))?;
        keep_auth(&mut spec, &previous);
    } else {
        keep_auth(&mut spec, &current);
    }
    // As Docker: the image is looked up again only when it changes.
    let is_same = spec.task.container.image == current.task.container.image;
    let warnings = if is_same { None } else { pin(context, &mut spec, client).await };
    context.swarm.update_service(name, version, spec).await?;
    ok(&models::ServiceUpdateResponse { warnings })
}
