//! `/swarm`.

use bollard_stubs::models;
use hyper::StatusCode;
use skep_swarm::ClusterUpdate;
use skep_types::Version;

use super::unknown;
use crate::context::{Call, Context};
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
        ("POST", ["join"]) => {
            let request = translate::swarm::join(call.json().await?)?;
            context.swarm.join(request).await?;
            empty(StatusCode::OK)
        }
        ("POST", ["unlock"]) => {
            let models::SwarmUnlockRequest { unlock_key } = call.json().await?;
            context.swarm.unlock(&unlock_key.unwrap_or_default()).await?;
            empty(StatusCode::OK)
        }
        ("GET", ["unlockkey"]) => {
            // As Docker where autolock is off: the key is empty.
            let key = context.swarm.inspect().await?.unlock_key.map_or_else(String::new, |key| key.0);
            ok(&models::UnlockKeyResponse { unlock_key: Some(key) })
        }
        _ => Err(unknown()),
    }
}

async fn update(context: &Context, call: Call) -> Answer {
    let version = Version(call.query.required_number("version")?);
    let rotate_worker_token = call.query.flag("rotateWorkerToken");
    let rotate_manager_token = call.query.flag("rotateManagerToken");
    let rotate_unlock_key = call.query.flag("rotateManagerUnlockKey");
    let current = context.swarm.inspect().await?.spec;
    let translate::swarm::Settings { spec, signing } =
        translate::swarm::settings(call.json().await?, current)?;
    let update = ClusterUpdate {
        version,
        spec,
        rotate_worker_token,
        rotate_manager_token,
        rotate_unlock_key,
        signing,
    };
    context.swarm.update_cluster(update).await?;
    empty(StatusCode::OK)
}
