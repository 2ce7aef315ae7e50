//! `/volumes`.

use bollard_stubs::models;

use super::{not_built, unknown};
use crate::context::{Call, Context};
use crate::filters::Filters;
use crate::http::{Answer, created, no_content, ok};
use crate::query::Query;
use crate::translate;

/// Paths below `/volumes`.
pub async fn route(context: &Context, method: &str, path: &[&str], call: Call) -> Answer {
    match (method, path) {
        ("GET", []) => list(context, &call.query),
        ("POST", ["create"]) => {
            let body: models::VolumeCreateOptions = call.json_or_default().await?;
            let volume = context.engine.create_volume(translate::volume::create(body)?).await?;
            created(&translate::volume::to_model(&volume))
        }
        ("POST", ["prune"]) => not_built(method, "/volumes/prune"),
        ("GET", [name]) => ok(&translate::volume::to_model(&context.engine.inspect_volume(name)?)),
        ("PUT", [_]) => not_built(method, "/volumes/{name}"),
        ("DELETE", [name]) => {
            context.engine.remove_volume(name, call.query.flag("force")).await?;
            no_content()
        }
        _ => Err(unknown()),
    }
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
