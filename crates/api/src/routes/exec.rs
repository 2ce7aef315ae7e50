//! `/exec`, and `/containers/{id}/exec`.

use bollard_stubs::models;
use hyper::StatusCode;
use serde::Deserialize;
use skep_engine::ErrorKind;
use skep_engine::options::ExecStart;

use super::{containers, unknown};
use crate::context::{Call, Context};
use crate::error::ApiError;
use crate::hijack::{self, Join, JoinLater};
use crate::http::{Answer, created, empty, ok};
use crate::translate;

/// Paths below `/exec`.
pub async fn route(context: &Context, method: &str, path: &[&str], call: Call) -> Answer {
    match (method, path) {
        ("POST", [id, "start"]) => start(context, id, call).await,
        ("GET", [id, "json"]) => ok(&translate::container_view::exec(context.engine.exec_inspect(id).await?)),
        ("POST", [id, "resize"]) => {
            let (rows, columns) = containers::size(&call.query)?;
            context.engine.exec_resize(id, rows, columns).await?;
            empty(StatusCode::OK)
        }
        _ => Err(unknown()),
    }
}

/// `POST /containers/{id}/exec`.
pub async fn create(context: &Context, container: &str, call: Call) -> Answer {
    let body: models::ExecConfig = call.json_or_default().await?;
    if body.cmd.as_ref().is_none_or(Vec::is_empty) {
        return Err(ApiError::invalid("No exec command specified"));
    }
    if let Some(keys) = &body.detach_keys {
        hijack::detach_keys(keys, true)?;
    }
    let id = context.engine.exec_create(container, translate::container::exec(body)).await?;
    // The models write this field in small letters, which only Go's clients forgive.
    created(&serde_json::json!({ "Id": id }))
}

/// The body of `POST /exec/{id}/start`; the models have it only as a query of their client.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct StartBody {
    detach: Option<bool>,
    console_size: Option<(u16, u16)>,
}

async fn start(context: &Context, id: &str, mut call: Call) -> Answer {
    let exec = context.engine.exec_inspect(id).await?;
    let (version, upgrade, tty) = (call.version, call.upgrade.take(), exec.config.tty);
    let detach = hijack::detach_keys(call.query.text("detachKeys"), tty && exec.config.attach_stdin)?;
    let start: StartBody = call.json_or_default().await?;
    let options = ExecStart {
        detach: start.detach.unwrap_or_default(),
        console_size: start.console_size.filter(|(rows, columns)| *rows != 0 && *columns != 0),
    };
    let media_type = hijack::stream_type(version, tty);
    if !options.detach
        && let Some(upgrade) = upgrade
    {
        let (engine, claimed) = (context.engine.clone(), context.engine.exec_claim(id)?);
        let streams =
            async move { engine.exec_start_claimed(claimed, options).await.map_err(|error| error.message) };
        let how = JoinLater { media_type, tty, stdin: exec.config.attach_stdin, detach };
        return hijack::join_later(upgrade, how, streams);
    }
    match context.engine.exec_start(id, options).await {
        Ok(None) => empty(StatusCode::OK),
        Ok(Some(stream)) => {
            // The request's body was the JSON: without an upgrade there is no input.
            hijack::join(Join { stream, media_type, stdin: false, detach }, None, None)
        }
        // By now Docker has given up HTTP already: the reason comes as output, and the exit code (126, 127)
        // by inspection. Clients rely on that to end with that code.
        Err(error) if !options.detach && is_start_failure(error.kind) => {
            hijack::say(&error.message, tty, version)
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether the program could not be started, rather than the request being out of place.
fn is_start_failure(kind: ErrorKind) -> bool {
    match kind {
        ErrorKind::InvalidParameter | ErrorKind::Remote | ErrorKind::Internal | ErrorKind::Forbidden => true,
        ErrorKind::NotFound
        | ErrorKind::Conflict
        | ErrorKind::NotModified
        | ErrorKind::Unsupported
        | ErrorKind::Unauthorized => false,
    }
}
