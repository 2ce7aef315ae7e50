//! `POST /build`, `/build/prune` and `/commit`: images that are made here.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE};
use bollard_stubs::models;
use bytes::Bytes;
use futures_util::stream;
use hyper::StatusCode;
use hyper::header::HeaderMap;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use skep_engine::build::{BuildMessage, BuildOptions, CommitOptions};
use skep_engine::images::{Credentials, Prune, Reference, Removed};
use skep_types::container::{ContainerResources, HostConfig, NetworkMode};
use tokio::sync::mpsc;

use super::images::{self, line, reference};
use super::registries;
use crate::body::{self, BlockingReader};
use crate::context::{Call, Context};
use crate::error::ApiError;
use crate::http::{Answer, created, ok, streamed, with_type};
use crate::pruning::Pruning;
use crate::query::Query;
use crate::translate::kernel;
use crate::translate::refuse::refuse_if;

/// Messages on their way to a client; the build waits for a client that is slower.
const MESSAGE_QUEUE: usize = 64;

/// `docker build`.
pub async fn build(context: &Context, call: Call) -> Answer {
    let mut options = options(&call.query)?;
    options.credentials = credentials(&call.headers);
    let mut rendering = Rendering { quiet: call.query.flag("q"), held: Vec::new() };
    let (sender, mut messages) = mpsc::channel(MESSAGE_QUEUE);
    let (engine, reader) = (context.engine.clone(), BlockingReader::new(call.body));
    tokio::spawn(async move { engine.build(reader, options, sender).await });
    // Until there was something to tell, a failure still has a status of its own.
    let first = loop {
        match messages.recv().await {
            Some(BuildMessage::Failed { error, .. }) if rendering.held.is_empty() => return Err(error.into()),
            Some(message) => {
                if let Some(part) = rendering.render(message) {
                    break part;
                }
            }
            None => {
                let why = "the build ended without a result";
                return Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, why));
            }
        }
    };
    let parts = stream::unfold(
        (Some(first), messages, rendering),
        |(first, mut messages, mut rendering)| async move {
            if let Some(first) = first {
                return Some((first, (None, messages, rendering)));
            }
            loop {
                if let Some(part) = rendering.render(messages.recv().await?) {
                    return Some((part, (None, messages, rendering)));
                }
            }
        },
    );
    Ok(with_type(StatusCode::OK, "application/json", streamed(parts)))
}

/// How messages become lines for a client.
struct Rendering {
    /// Whether only the image's id is told, and all else only if the build fails.
    quiet: bool,
    held: Vec<u8>,
}

impl Rendering {
    fn render(&mut self, message: BuildMessage) -> Option<Bytes> {
        let part = match message {
            BuildMessage::Text(text) => line(&json!({ "stream": text })),
            // In red, as moby's.
            BuildMessage::Stderr(text) => line(&json!({ "stream": format!("\u{1b}[91m{text}\u{1b}[0m") })),
            BuildMessage::Pulling(step) => registries::told(step),
            BuildMessage::Image(id) => line(&json!({ "aux": { "ID": id.to_string() } })),
            BuildMessage::Built(id) => {
                return self.quiet.then(|| line(&json!({ "stream": format!("{id}\n") })));
            }
            BuildMessage::Failed { error, code } => {
                let mut detail = json!({ "message": error.message });
                if let Some(code) = code {
                    detail["code"] = code.into();
                }
                let mut bytes = std::mem::take(&mut self.held);
                let last = line(&json!({ "errorDetail": detail, "error": error.message }));
                bytes.extend_from_slice(&last);
                return Some(bytes.into());
            }
        };
        if self.quiet {
            self.held.extend_from_slice(&part);
            return None;
        }
        Some(part)
    }
}

/// `docker builder prune`: the cache of builds is what they made and nobody named.
pub async fn prune(context: &Context, query: &Query) -> Answer {
    let asks = |name: &str| !matches!(query.text(name), "" | "0" | "null" | "{}");
    for option in ["keep-storage", "reserved-space", "max-used-space", "min-free-space"] {
        refuse_if(option, asks(option))?;
    }
    let pruning = Pruning::parse(query, &[])?;
    let (removed, bytes) =
        context.engine.prune_images(Prune::Steps, move |found| images::admits(&pruning, found)).await?;
    let images = removed.iter().filter_map(|removed| match removed {
        Removed::Deleted(id) => Some(id.to_string()),
        Removed::Untagged { .. } | Removed::Layer(_) => None,
    });
    ok(&models::BuildPruneResponse {
        caches_deleted: Some(images.collect()),
        space_reclaimed: i64::try_from(bytes).ok(),
    })
}

/// `docker commit`.
pub async fn commit(context: &Context, call: Call) -> Answer {
    let query = &call.query;
    let options = CommitOptions {
        reference: match query.text("repo") {
            "" => None,
            name => Some(reference(name, query.text("tag"))?),
        },
        author: query.text("author").to_owned(),
        comment: query.text("comment").to_owned(),
        changes: query.all("changes").map(str::to_owned).collect(),
    };
    let container = query.text("container").to_owned();
    let config: Option<Value> = body::read_json(&call.headers, call.body).await?;
    refuse_if("Config of a commit (use --change)", config.as_ref().is_some_and(says_something))?;
    let id = context.engine.commit(&container, options).await?;
    created(&json!({ "Id": id.to_string() }))
}

/// Whether there is anything in a value but Go's zeros.
fn says_something(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(values) => values.iter().any(says_something),
        Value::Object(values) => values.values().any(says_something),
    }
}

fn options(query: &Query) -> Result<BuildOptions, ApiError> {
    if query.text("version") == "2" {
        return Err(ApiError::not_built(
            "building with BuildKit (version=2); the classic builder is: DOCKER_BUILDKIT=0 docker build",
        ));
    }
    refuse_if("squash (--squash)", query.flag("squash"))?;
    refuse_if("remote (a context at a URL)", !query.text("remote").is_empty())?;
    refuse_if("session", !query.text("session").is_empty())?;
    let is_set = |name: &str| !matches!(query.text(name), "" | "0" | "null" | "[]");
    for (name, shown) in [
        ("cachefrom", "cachefrom (--cache-from)"),
        ("outputs", "outputs (--output)"),
        ("cgroupparent", "cgroupparent (--cgroup-parent)"),
        ("cpuperiod", "cpuperiod (--cpu-period)"),
        ("cpuquota", "cpuquota (--cpu-quota)"),
        ("cpusetcpus", "cpusetcpus (--cpuset-cpus)"),
        ("cpusetmems", "cpusetmems (--cpuset-mems)"),
    ] {
        refuse_if(shown, is_set(name))?;
    }
    if !matches!(query.text("isolation"), "" | "default") {
        return Err(ApiError::invalid(format!("invalid isolation: {}", query.text("isolation"))));
    }
    let platform = query.text("platform").to_ascii_lowercase();
    if !platform.is_empty() && platform != "linux" && !platform.starts_with("linux/") {
        return Err(ApiError::invalid(format!("platform {platform}: only linux images run here")));
    }
    Ok(BuildOptions {
        dockerfile: query.text("dockerfile").to_owned(),
        tags: tags(query)?,
        args: parse::<BTreeMap<String, Option<String>>>(query, "buildargs")?.unwrap_or_default(),
        labels: parse(query, "labels")?.unwrap_or_default(),
        target: query.text("target").to_owned(),
        platform,
        pull: query.flag("pull"),
        pull_platform: registries::platform(query.text("platform"))?,
        credentials: BTreeMap::new(),
        no_cache: query.flag("nocache"),
        // As moby: removed unless told otherwise.
        keep_containers: !query.flag("forcerm") && !query.flag_or("rm", true),
        force_remove: query.flag("forcerm"),
        host: host(query)?,
    })
}

/// Who asks registries: the client sends all that it knows, by their names. As moby: what cannot be read counts as none.
fn credentials(headers: &HeaderMap) -> BTreeMap<String, Credentials> {
    let header = headers.get("X-Registry-Config").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let decoded = BASE64_URL_SAFE.decode(header).or_else(|_| BASE64_STANDARD.decode(header));
    let known: BTreeMap<String, Value> =
        serde_json::from_slice(&decoded.unwrap_or_default()).unwrap_or_default();
    let one = |(name, value): (String, Value)| {
        let auth = registries::parse_auth(&BASE64_URL_SAFE.encode(value.to_string()))?;
        Some((registries::registry_of(&name), auth))
    };
    known.into_iter().filter_map(one).collect()
}

/// Names in their order, each once.
fn tags(query: &Query) -> Result<Vec<Reference>, ApiError> {
    let mut tags: Vec<Reference> = Vec::new();
    for text in query.all("t").filter(|text| !text.is_empty()) {
        let tag = reference(text, "")?;
        if tag.digest().is_some() {
            return Err(ApiError::invalid("build tag cannot contain a digest"));
        }
        if !tags.contains(&tag) {
            tags.push(tag);
        }
    }
    Ok(tags)
}

/// How the containers of RUN are served.
fn host(query: &Query) -> Result<HostConfig, ApiError> {
    let shm_size = query.number::<u64>("shmsize")?.unwrap_or_default();
    Ok(HostConfig {
        network: match query.text("networkmode") {
            "" | "default" | "bridge" => NetworkMode::Bridge,
            "host" => NetworkMode::Host,
            "none" => NetworkMode::None,
            name => match name.strip_prefix("container:") {
                Some(container) => NetworkMode::Container(container.to_owned()),
                None => NetworkMode::Named(name.to_owned()),
            },
        },
        extra_hosts: query.all("extrahosts").filter(|entry| !entry.is_empty()).map(str::to_owned).collect(),
        resources: ContainerResources {
            memory: query.number("memory")?.unwrap_or_default(),
            memory_swap: query.number("memswap")?.unwrap_or_default(),
            cpu_shares: query.number("cpushares")?.unwrap_or_default(),
            ..ContainerResources::default()
        },
        shm_size,
        ulimits: kernel::ulimits(parse(query, "ulimits")?)?,
        security: kernel::security(&parse::<Vec<String>>(query, "securityopt")?.unwrap_or_default())?,
        ..HostConfig::default()
    })
}

/// A parameter that is JSON; nothing where it is missing, empty or `null`.
fn parse<T: DeserializeOwned>(query: &Query, name: &str) -> Result<Option<T>, ApiError> {
    match query.text(name) {
        "" => Ok(None),
        text => serde_json::from_str(text)
            .map_err(|error| ApiError::invalid(format!("error reading {name}: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_as_the_client_sends_them() {
        let sent = "buildargs=%7B%22A%22%3A%221%22%2C%22B%22%3Anull%7D&cachefrom=%5B%5D&cgroupparent=&cpuperiod=0&cpuquota=0&\
                    cpusetcpus=&cpusetmems=&cpushares=0&dockerfile=d%2FDockerfile&extrahosts=a%3A1.2.3.4&forcerm=1&\
                    labels=%7B%22l%22%3A%22v%22%7D&memory=8000000&memswap=0&networkmode=none&nocache=1&rm=1&shmsize=0&\
                    t=x&t=y%3A1&t=x&target=t&ulimits=null&version=1";
        let options = options(&Query::parse(sent)).expect("good options");
        assert_eq!(options.args.len(), 2);
        assert_eq!(options.args["A"], Some("1".to_owned()));
        assert_eq!(options.tags.iter().map(Reference::familiar).collect::<Vec<_>>(), ["x:latest", "y:1"]);
        assert_eq!(options.host.network, NetworkMode::None);
        assert_eq!(options.host.resources.memory, 8_000_000);
        assert!(options.no_cache && options.force_remove && !options.keep_containers);
        assert_eq!(options.dockerfile, "d/Dockerfile");
    }

    #[test]
    fn what_is_not_built_is_named() {
        for (sent, name) in [
            ("version=2", "DOCKER_BUILDKIT=0"),
            ("squash=1", "squash"),
            ("remote=https%3A%2F%2Fx", "remote"),
            ("cachefrom=%5B%22x%22%5D", "--cache-from"),
            ("cpuquota=5", "--cpu-quota"),
            ("outputs=%5B%7B%7D%5D", "--output"),
        ] {
            let error = options(&Query::parse(sent)).expect_err(sent);
            assert_eq!(error.status(), StatusCode::NOT_IMPLEMENTED, "{sent}");
            assert!(error.to_string().contains(name), "{error}");
        }
        assert!(options(&Query::parse("t=X")).is_err());
        assert!(options(&Query::parse("buildargs=%7B")).is_err());
        assert!(
            says_something(&json!({ "Env": ["a"] }))
                && !says_something(&json!({ "Env": null, "Tty": false }))
        );
    }
}
