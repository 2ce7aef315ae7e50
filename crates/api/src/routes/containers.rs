//! `/containers`.

use std::collections::BTreeSet;
use std::time::SystemTime;

use bollard_stubs::models;
use bytes::Bytes;
use futures_util::stream;
use hyper::StatusCode;
use skep_engine::options::{AttachOptions, ContainerFilter, RemoveOptions, WaitCondition};
use skep_engine::view::Status;
use skep_types::Time;

use super::{exec, logs, not_built, unknown};
use crate::body;
use crate::context::{Call, Context};
use crate::error::ApiError;
use crate::filters::Filters;
use crate::hijack::{self, Join};
use crate::http::{Answer, created, empty, no_content, ok, streamed, with_type};
use crate::pruning::Pruning;
use crate::query::Query;
use crate::translate;

/// Paths below `/containers`.
pub async fn route(context: &Context, method: &str, path: &[&str], call: Call) -> Answer {
    match (method, path) {
        ("GET", ["json"]) => list(context, &call.query).await,
        ("POST", ["create"]) => create(context, call).await,
        ("GET", [name, "json"]) => inspect(context, name, &call.query).await,
        ("POST", [name, "start"]) => start(context, name, call).await,
        ("POST", [name, "stop"]) => stop(context, name, &call.query).await,
        ("POST", [name, "restart"]) => restart(context, name, &call.query).await,
        ("POST", [name, "kill"]) => kill(context, name, &call.query).await,
        ("DELETE", [name]) => remove(context, name, &call.query).await,
        ("POST", [name, "wait"]) => wait(context, name, &call.query).await,
        ("POST", [name, "resize"]) => {
            let (rows, columns) = size(&call.query)?;
            context.engine.resize(name, rows, columns).await?;
            empty(StatusCode::OK)
        }
        ("GET", [name, "logs"]) => logs::container(context, name, call).await,
        ("POST", [name, "attach"]) => attach(context, name, call).await,
        ("POST", [name, "exec"]) => exec::create(context, name, call).await,
        ("POST", ["prune"]) => prune(context, &call.query).await,
        ("POST", [_, action @ ("pause" | "unpause" | "rename" | "update")])
        | ("GET", [_, action @ ("top" | "stats" | "changes" | "export" | "archive")])
        | ("PUT" | "HEAD", [_, action @ "archive"]) => {
            not_built(method, &format!("/containers/{{id}}/{action}"))
        }
        ("GET", [_, "attach", "ws"]) => not_built(method, "/containers/{id}/attach/ws"),
        _ => Err(unknown()),
    }
}

/// Removes the containers that do not run.
async fn prune(context: &Context, query: &Query) -> Answer {
    let pruning = Pruning::parse(query, &[])?;
    let (removed, bytes) = context
        .engine
        .prune_containers(|created, labels| {
            pruning.admits(created, |key| labels.get(key).map(String::as_str))
        })
        .await?;
    ok(&models::ContainerPruneResponse {
        containers_deleted: Some(removed),
        space_reclaimed: i64::try_from(bytes).ok(),
    })
}

async fn create(context: &Context, call: Call) -> Answer {
    let name = call.query.get("name").filter(|name| !name.is_empty()).map(str::to_owned);
    match call.query.text("platform") {
        "" => {}
        // The client names this machine's own platform where DOCKER_DEFAULT_PLATFORM is set.
        platform if platform.starts_with("linux") => {}
        platform => {
            return Err(ApiError::invalid(format!("platform {platform}: only linux images run here")));
        }
    }
    let text = body::read_text(&call.headers, call.body).await?;
    let made = context.engine.create(name, translate::container::parse(&text)?).await?;
    created(&models::ContainerCreateResponse { id: made.id.to_string(), warnings: made.warnings })
}

async fn inspect(context: &Context, name: &str, query: &Query) -> Answer {
    let view = context.engine.inspect(name)?;
    let sizes = if query.flag("size") { Some(context.engine.size(name).await?) } else { None };
    ok(&translate::container_view::inspect(view, sizes))
}

async fn start(context: &Context, name: &str, call: Call) -> Answer {
    if !call.query.text("checkpoint").is_empty() {
        return Err(ApiError::not_built("option checkpoint"));
    }
    // Old clients sent a HostConfig here, Docker ignores it since API 1.24; the body is not even read.
    context.engine.start(name).await?;
    no_content()
}

async fn stop(context: &Context, name: &str, query: &Query) -> Answer {
    context.engine.stop(name, signal(query), query.number("t")?).await?;
    no_content()
}

async fn restart(context: &Context, name: &str, query: &Query) -> Answer {
    context.engine.restart(name, signal(query), query.number("t")?).await?;
    no_content()
}

async fn kill(context: &Context, name: &str, query: &Query) -> Answer {
    context.engine.kill(name, signal(query).unwrap_or("SIGKILL")).await?;
    no_content()
}

fn signal(query: &Query) -> Option<&str> {
    query.get("signal").filter(|signal| !signal.is_empty())
}

async fn remove(context: &Context, name: &str, query: &Query) -> Answer {
    if query.flag("link") {
        return Err(ApiError::not_built("option link (docker rm --link)"));
    }
    let options = RemoveOptions { force: query.flag("force"), volumes: query.flag("v") };
    context.engine.remove(name, options).await?;
    no_content()
}

/// The head of the answer leaves as soon as the wait is registered: `docker run` starts the container only
/// after it has seen it, and so misses no exit.
async fn wait(context: &Context, name: &str, query: &Query) -> Answer {
    let condition = match query.text("condition") {
        "" | "not-running" => WaitCondition::NotRunning,
        "next-exit" => WaitCondition::NextExit,
        "removed" => WaitCondition::Removed,
        other => return Err(ApiError::invalid(format!("invalid condition: {other:?}"))),
    };
    let waiting = context.engine.wait(name, condition).await?;
    let body = stream::once(async move {
        let result = waiting.await;
        let response = models::ContainerWaitResponse {
            status_code: i64::from(result.code),
            error: result.error.map(|message| models::ContainerWaitExitError { message: Some(message) }),
        };
        let mut bytes = serde_json::to_vec(&response).unwrap_or_default();
        bytes.push(b'\n');
        Bytes::from(bytes)
    });
    Ok(with_type(StatusCode::OK, "application/json", streamed(body)))
}

async fn attach(context: &Context, name: &str, call: Call) -> Answer {
    let query = &call.query;
    let options = AttachOptions {
        stdin: query.flag("stdin"),
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
        logs: query.flag("logs"),
        stream: query.flag("stream"),
    };
    // Checked before anything is attached.
    hijack::detach_keys(query.text("detachKeys"), true)?;
    let (tty, stream) = context.engine.attach(name, options).await?;
    let detach = hijack::detach_keys(query.text("detachKeys"), tty && options.stdin)?;
    let media_type = hijack::stream_type(call.version, tty);
    hijack::join(Join { stream, media_type, stdin: options.stdin, detach }, call.upgrade, Some(call.body))
}

/// A terminal's rows and columns.
pub fn size(query: &Query) -> Result<(u16, u16), ApiError> {
    Ok((query.required_number("h")?, query.required_number("w")?))
}

/// The filters of `docker ps`; see [`filter`].
const FILTERS: [&str; 15] = [
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
];

async fn list(context: &Context, query: &Query) -> Answer {
    let filter = filter(query)?;
    let now = Time::from(SystemTime::now());
    let containers = context.engine.list(&filter).await?;
    let summaries: Vec<_> =
        containers.into_iter().map(|container| translate::container_view::summary(container, now)).collect();
    ok(&summaries)
}

fn filter(query: &Query) -> Result<ContainerFilter, ApiError> {
    let filters = Filters::parse(query, &FILTERS)?;
    let list = |name: &str| filters.values(name).map(str::to_owned).collect::<Vec<_>>();
    let known = ["none", "starting", "healthy", "unhealthy"];
    if let Some(unknown) = filters.values("health").find(|health| !known.contains(health)) {
        return Err(ApiError::invalid(format!("invalid filter 'health={unknown}'")));
    }
    let exited = filters
        .values("exited")
        .map(|code| code.parse().map_err(|_| ApiError::invalid(format!("invalid filter 'exited={code}'"))));
    let label = |text: &str| match text.split_once('=') {
        Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
        None => (text.to_owned(), None),
    };
    Ok(ContainerFilter {
        all: query.flag("all"),
        size: query.flag("size"),
        // Docker takes anything below 1 as "no limit".
        limit: query
            .number::<i64>("limit")?
            .and_then(|limit| usize::try_from(limit).ok())
            .filter(|limit| *limit > 0),
        id: list("id"),
        name: list("name"),
        label: filters.values("label").map(label).collect(),
        status: statuses(&filters)?,
        exited: exited.collect::<Result<_, _>>()?,
        ancestor: list("ancestor"),
        before: filters.values("before").next().map(str::to_owned),
        since: filters.values("since").next().map(str::to_owned),
        volume: list("volume"),
        network: list("network"),
        publish: list("publish"),
        expose: list("expose"),
        is_task: filters.truth("is-task")?,
        health: filters.values("health").map(str::to_owned).collect(),
    })
}

fn statuses(filters: &Filters) -> Result<BTreeSet<Status>, ApiError> {
    let mut statuses = BTreeSet::new();
    for name in filters.values("status") {
        match name {
            "created" => statuses.insert(Status::Created),
            "running" => statuses.insert(Status::Running),
            "exited" => statuses.insert(Status::Exited),
            "removing" => statuses.insert(Status::Removing),
            "dead" => statuses.insert(Status::Dead),
            // States that no container of Skep's is ever in.
            "paused" | "restarting" => false,
            _ => return Err(ApiError::invalid(format!("invalid filter 'status={name}'"))),
        };
    }
    if filters.has("status") && statuses.is_empty() {
        return Err(ApiError::not_built("filter status=paused and status=restarting"));
    }
    Ok(statuses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ps_filters_are_read() {
        let query = Query::parse(
            r#"all=1&limit=3&filters={"name":{"x":true},"label":["a","b=c"],"status":["exited"],"exited":["137"],"is-task":["false"]}"#,
        );
        let expected = ContainerFilter {
            all: true,
            limit: Some(3),
            name: vec!["x".to_owned()],
            label: vec![("a".to_owned(), None), ("b".to_owned(), Some("c".to_owned()))],
            status: [Status::Exited].into(),
            exited: [137].into(),
            is_task: Some(false),
            ..Default::default()
        };
        assert_eq!(filter(&query), Ok(expected));
    }

    #[test]
    fn wrong_ps_filters_are_refused() {
        for filters in
            [r#"{"status":["asleep"]}"#, r#"{"exited":["x"]}"#, r#"{"colour":["x"]}"#, r#"{"is-task":["x"]}"#]
        {
            assert!(filter(&Query::parse(&format!("filters={filters}"))).is_err(), "{filters}");
        }
        assert!(filter(&Query::parse("limit=x")).is_err());
        assert_eq!(filter(&Query::parse("limit=-1")).map(|filter| filter.limit), Ok(None));
    }
}
