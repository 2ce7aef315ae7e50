//! `/secrets`, `/configs` and `/plugins`: what clients look for along the way, and do not find yet.

use super::{not_built, unknown};
use crate::context::{Call, Context};
use crate::error::ApiError;
use crate::filters::Filters;
use crate::http::{Answer, ok};

/// Paths that begin with one of the three.
pub async fn route(context: &Context, method: &str, path: &[&str], call: Call) -> Answer {
    match (method, path) {
        ("GET", ["plugins"]) => {
            Filters::parse(&call.query, &["capability", "enabled"])?;
            ok(&NOTHING)
        }
        ("GET", ["plugins", name @ .., "json"]) => {
            Err(ApiError::not_found(format!("plugin {:?} not found", name.join("/"))))
        }
        (_, ["plugins", ..]) => not_built(method, "/plugins/..."),
        // Outside a swarm these answer 503, as everything of the swarm does.
        ("GET", ["secrets" | "configs"]) => {
            context.swarm.inspect().await?;
            Filters::parse(&call.query, &["id", "label", "name", "names"])?;
            ok(&NOTHING)
        }
        ("GET", [kind @ ("secrets" | "configs"), name]) => {
            context.swarm.inspect().await?;
            let kind = kind.trim_end_matches('s');
            Err(ApiError::not_found(format!("{kind} {name} not found")))
        }
        (_, [kind @ ("secrets" | "configs"), ..]) => not_built(method, &format!("/{kind}/...")),
        _ => Err(unknown()),
    }
}

/// An empty list, as JSON.
const NOTHING: [(); 0] = [];
