//! What Docker's API does not have: `/skep/...`, for `skep` itself.

use serde::Serialize;
use skep_swarm::Convergence;

use super::{rehearse, unknown};
use crate::context::{Call, Context};
use crate::http::{Answer, no_content, ok};

/// Why something is where it is.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Explanation {
    lines: Vec<String>,
}

/// How far a service is.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Progress {
    /// `converged`, `waiting` or `failed`.
    state: &'static str,
    message: String,
}

/// `/skep/...`
pub async fn route(context: &Context, method: &str, path: &[&str], call: Call) -> Answer {
    match (method, path) {
        ("GET", ["why", name]) => ok(&Explanation { lines: context.swarm.why(name).await? }),
        ("GET", ["services", name, "progress"]) => {
            let (state, message) = match context.swarm.convergence(name).await? {
                Convergence::Converged => ("converged", String::new()),
                Convergence::Waiting(message) => ("waiting", message),
                Convergence::Failed(message) => ("failed", message),
            };
            ok(&Progress { state, message })
        }
        ("POST", ["services", name, "rebalance"]) => {
            context.swarm.rebalance(name).await?;
            no_content()
        }
        ("POST", ["rehearse"]) => rehearse::answer(context, call).await,
        _ => Err(unknown()),
    }
}
