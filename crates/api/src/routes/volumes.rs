//! `/volumes`.

use bollard_stubs::models;
use skep_engine::view::VolumeView;

use super::{not_built, unknown};
use crate::context::{Call, Context};
use crate::error::ApiError;
use crate::filters::Filters;
use crate::http::{Answer, created, no_content, ok};
use crate::pruning::Pruning;
use crate::query::Query;
use crate::translate;
use crate::version::Version;

/// Clients older than this mean volumes with names too.
const ANONYMOUS_SINCE: Version = Version { major: 1, minor: 42 };

/// Paths below `/volumes`.
pub async fn route(context: &Context, method: &str, path: &[&str], call: Call) -> Answer {
    match (method, path) {
        ("GET", []) => list(context, &call.query),
        ("POST", ["create"]) => {
            let body: models::VolumeCreateOptions = call.json_or_default().await?;
            let volume = context.engine.create_volume(translate::volume::create(body)?).await?;
            created(&translate::volume::to_model(&volume))
        }
        ("POST", ["prune"]) => prune(context, &call).await,
        ("GET", [name]) => ok(&translate::volume::to_model(&context.engine.inspect_volume(name)?)),
        ("PUT", [_]) => not_built(method, "/volumes/{name}"),
        ("DELETE", [name]) => {
            context.engine.remove_volume(name, call.query.flag("force")).await?;
            no_content()
        }
        _ => Err(unknown()),
    }
}

/// Removes the volumes that no container names: those without a name of their own, unless `all` is asked for.
async fn prune(context: &Context, call: &Call) -> Answer {
    let pruning = Pruning::parse(&call.query, &["all"])?;
    if pruning.filters().has("until") {
        return Err(ApiError::invalid("invalid filter 'until'"));
    }
    let all = match pruning.filters().truth("all")? {
        Some(all) => all,
        None => call.version < ANONYMOUS_SINCE,
    };
    let admits = |view: &VolumeView| {
        (all || view.anonymous)
            && pruning.admits(view.created_at, |key| view.labels.get(key).map(String::as_str))
    };
    let (removed, bytes) = context.engine.prune_volumes(admits).await?;
    ok(&models::VolumePruneResponse {
        volumes_deleted: Some(removed),
        space_reclaimed: i64::try_from(bytes).ok(),
    })
}

fn list(context: &Context, query: &Query) -> Answer {
    let filters = Filters::parse(query, &["dangling", "driver", "label", "name"])?;
    let dangling = filters.truth("dangling")?;
    let volumes = context.engine.volumes().into_iter().filter(|volume| {
        filters.any("name", |part| volume.name.contains(part))
            && filters.any("driver", |driver| driver == "local")
            && filters.labels("label", |key| volume.labels.get(key).map(String::as_str))
            && dangling.is_none_or(|dangling| dangling == (volume.containers == 0))
    });
    let volumes = volumes.map(|volume| translate::volume::to_model(&volume)).collect();
    ok(&models::VolumeListResponse { volumes: Some(volumes), warnings: Some(Vec::new()) })
}
