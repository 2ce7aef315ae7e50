//! What belongs to no kind of object: `/_ping`, `/version`, `/info`, `/events`, `/system/df`, `/auth`.

use std::time::SystemTime;

use bollard_stubs::models;
use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, HeaderValue, PRAGMA};
use serde::Serialize;
use skep_engine::images::Image;
use skep_engine::options::ContainerFilter;
use skep_swarm::LocalState;
use skep_types::Time;

use super::images::without_steps;
use super::{events, registries, unknown};
use crate::context::{Call, Context};
use crate::error::ApiError;
use crate::http::{Answer, full, ok, with_type};
use crate::query::Query;
use crate::translate::{self, container_view, image, size, volume};

/// Paths that begin with none of the objects' names.
pub async fn route(context: &Context, method: &str, path: &[&str], call: Call) -> Answer {
    match (method, path) {
        ("GET", ["_ping"]) => ping(context, "OK"),
        ("HEAD", ["_ping"]) => ping(context, ""),
        ("GET", ["version"]) => {
            ok(&translate::system::version(&context.daemon, &context.engine.info().await))
        }
        ("GET", ["info"]) => {
            let swarm = translate::swarm::info(context.swarm.info());
            let now = Time::from(SystemTime::now());
            ok(&translate::system::info(context.engine.info().await, &context.daemon, swarm, now))
        }
        ("GET", ["events"]) => events::follow(context, &call),
        ("GET", ["system", "df"]) => disk_usage(context, &call).await,
        ("POST", ["auth"]) => registries::log_in(context, call).await,
        _ => Err(unknown()),
    }
}

/// What clients ask first: the headers tell what they talk to.
fn ping(context: &Context, body: &'static str) -> Answer {
    let mut response = with_type(StatusCode::OK, "text/plain; charset=utf-8", full(body));
    let headers = response.headers_mut();
    let info = context.swarm.info();
    let swarm = match (info.state, info.control_available) {
        (LocalState::Inactive, _) => "inactive",
        (LocalState::Pending, _) => "pending",
        (LocalState::Error, _) => "error",
        (LocalState::Locked, _) => "locked",
        (LocalState::Active, true) => "active/manager",
        (LocalState::Active, false) => "active/worker",
    };
    headers.insert("Swarm", HeaderValue::from_static(swarm));
    // The classic builder; the client would look for BuildKit behind 2.
    headers.insert("Builder-Version", HeaderValue::from_static("1"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store, must-revalidate"));
    headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
    Ok(response)
}

/// Whether `df` is to tell of `kind`: all kinds unless some are named.
fn wants(query: &Query, kind: &str) -> bool {
    let mut named = query.all("type").peekable();
    named.peek().is_none() || named.any(|named| named == kind)
}

/// The body of `GET /system/df`, whose containers are those of `docker ps`.
#[derive(Serialize)]
struct DiskUsage {
    #[serde(flatten)]
    usage: models::SystemDataUsageResponse,
    #[serde(rename = "Containers", skip_serializing_if = "Option::is_none")]
    containers: Option<Vec<container_view::Summary>>,
}

async fn disk_usage(context: &Context, call: &Call) -> Answer {
    let known = ["container", "image", "volume", "build-cache"];
    if let Some(kind) = call.query.all("type").find(|kind| !known.contains(kind)) {
        return Err(ApiError::invalid(format!("unknown object type: {kind}")));
    }
    let engine = &context.engine;
    let now = Time::from(SystemTime::now());
    let containers = engine.list(&ContainerFilter { all: true, size: true, ..Default::default() }).await?;
    let images = if wants(&call.query, "image") {
        let users = |id: &str| containers.iter().filter(|container| container.image_id == id).count();
        let found = without_steps(engine.images().await?);
        let ids: Vec<_> = found.iter().map(|image| image.id).collect();
        let summarise = |(found, shared): (&Image, u64)| models::ImageSummary {
            containers: translate::count(users(&found.id.to_string())),
            shared_size: size(shared),
            ..image::summary(found, found.tags.clone(), call.version)
        };
        Some(found.iter().zip(engine.shared_sizes(&ids)).map(summarise).collect())
    } else {
        None
    };
    let volumes = if wants(&call.query, "volume") {
        let volumes = engine.volumes();
        let sizes = engine.volume_sizes(&volumes).await?;
        Some(volumes.iter().zip(sizes).map(|(view, bytes)| volume::with_usage(view, bytes)).collect())
    } else {
        None
    };
    let containers = wants(&call.query, "container")
        .then(|| containers.into_iter().map(|container| container_view::summary(container, now)).collect());
    let usage = models::SystemDataUsageResponse {
        layers_size: Some(size(engine.image_usage().size)),
        images,
        containers: None,
        volumes,
        build_cache: wants(&call.query, "build-cache").then(Vec::new),
    };
    ok(&DiskUsage { usage, containers })
}
