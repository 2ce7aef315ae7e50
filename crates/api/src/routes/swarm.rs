//! `/swarm`.

use bollard_stubs::models;
use hyper::StatusCode;
use skep_swarm::ClusterUpdate;
use skep_types::Version;

use super::{not_built, unknown};
use crate::context::{Call, Context};
use crate::error::ApiError;
use crate::http::{Answer, empty, ok};
use crate::translate;

/// Paths below `/swarm`.
pub async fn route(context: &Context, method: &str, path: &[&str], call: Call) -> Answer {
    match (method, path) {
        ("GET", []) => ok(&translate::swarm::inspect(&context.swarm.inspect().await?)),
        ("POST", ["init"]) => {
            let request = translate::swarm::init(call.json().await?)?;
            ok(&context.swarm.init(request).await?.to_string())
        }
        ("POST", ["leave"]) => {
            context.swarm.leave(call.query.flag("force")).await?;
            empty(StatusCode::OK)
        }
        ("POST", ["update"]) => update(context, call).await,
        ("GET", ["unlockkey"]) => {
            // As Docker where autolock is off: there is no key.
            context.swarm.inspect().await?;
            ok(&models::UnlockKeyResponse { unlock_key: Some(String::new()) })
        }
        ("POST", ["join"]) => {
            context.swarm.refuse_second()?;
            not_built(method, "/swarm/join")
        }
        ("POST", [action @ "unlock"]) => not_built(method, &format!("/swarm/{action}")),
        _ => Err(unknown()),
    }
}

async fn update(context: &Context, call: Call) -> Answer {
    let version = Version(call.query.required_number("version")?);
    let rotate_worker_token = call.query.flag("rotateWorkerToken");
    let rotate_manager_token = call.query.flag("rotateManagerToken");
    if call.query.flag("rotateManagerUnlockKey") {
        return Err(ApiError::not_built("option rotateManagerUnlockKey (docker swarm unlock-key --rotate)"));
    }
    let current = context.swarm.inspect().await?.spec;
    let spec = translate::swarm::spec(call.json().await?, current)?;
    let update = ClusterUpdate { version, spec, rotate_worker_token, rotate_manager_token };
    context.swarm.update_cluster(update).await?;
    empty(StatusCode::OK)
}
