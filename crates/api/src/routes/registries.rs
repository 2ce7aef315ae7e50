//! What goes between this machine and registries: pull, push, `/auth`, `/distribution`.

use std::collections::HashMap;
use std::future::Future;

use bollard_stubs::models;
use bytes::Bytes;
use futures_util::stream;
use hyper::StatusCode;
use hyper::header::HeaderMap;
use serde::{Deserialize, Serialize};
use skep_engine::images::{Credentials, Platform, Pull, Pushed, Reference, Step, own_platform};
use tokio::sync::{mpsc, oneshot};

use crate::context::{Call, Context};
use crate::error::ApiError;
use crate::http::{Answer, ok, streamed, with_type};

/// Messages on their way to a client.
const STEP_QUEUE: usize = 64;
/// The header of credentials.
const AUTH_HEADER: &str = "X-Registry-Auth";

/// The header of credentials as it came, if it is there and not empty.
pub fn auth_header(headers: &HeaderMap) -> Option<&str> {
    let header = headers.get(AUTH_HEADER).and_then(|value| value.to_str().ok())?;
    Some(header).filter(|header| !header.is_empty())
}

/// The credentials that a header holds. As moby: what cannot be read counts as none.
pub fn parse_auth(header: &str) -> Option<Credentials> {
    Credentials::from_header(header).unwrap_or_else(|error| {
        tracing::debug!("{error}");
        None
    })
}

fn credentials(headers: &HeaderMap) -> Option<Credentials> {
    parse_auth(auth_header(headers)?)
}

/// `POST /images/create?fromImage=`
pub async fn pull(context: &Context, call: &Call) -> Answer {
    let (name, tag) = (call.query.text("fromImage"), call.query.text("tag"));
    let text = match tag {
        "" => name.to_owned(),
        digest if digest.starts_with("sha256:") => format!("{name}@{digest}"),
        tag => format!("{name}:{tag}"),
    };
    let reference: Reference = text.parse().map_err(invalid)?;
    let pull = Pull {
        reference,
        all_tags: tag.is_empty() && is_name_only(name),
        platform: platform(call.query.text("platform"))?,
        credentials: credentials(&call.headers),
    };
    let (sender, steps) = mpsc::channel(STEP_QUEUE);
    let engine = context.engine.clone();
    follow(async move { engine.pull_image(pull, sender).await }, steps).await
}

/// `POST /images/{name}/push`
pub async fn push(context: &Context, name: &str, call: &Call) -> Answer {
    if !call.query.text("platform").is_empty() {
        return Err(ApiError::not_built("pushing one platform of an image (platform)"));
    }
    let tag = call.query.text("tag");
    let all_tags = tag.is_empty() && is_name_only(name);
    let text = if tag.is_empty() { name.to_owned() } else { format!("{name}:{tag}") };
    let reference: Reference = text.parse().map_err(invalid)?;
    if reference.digest().is_some() {
        return Err(ApiError::invalid("cannot push a digest reference"));
    }
    let credentials = credentials(&call.headers);
    let (sender, steps) = mpsc::channel(STEP_QUEUE);
    let engine = context.engine.clone();
    follow(async move { engine.push_image(reference, all_tags, credentials, sender).await }, steps).await
}

/// Whether a name has neither a tag nor a digest.
fn is_name_only(name: &str) -> bool {
    !name.contains('@') && !name.rsplit('/').next().unwrap_or_default().contains(':')
}

fn invalid(error: skep_engine::images::ParseReferenceError) -> ApiError {
    ApiError::invalid(error.to_string())
}

/// The platform that `--platform` names, as containerd reads it; `None` is this machine's.
pub fn platform(text: &str) -> Result<Option<Platform>, ApiError> {
    if text.is_empty() {
        return Ok(None);
    }
    let own = own_platform();
    // Names of processors that other tools use.
    let normal = |architecture: &str| match architecture {
        "x86_64" | "x86-64" => "amd64".to_owned(),
        "aarch64" => "arm64".to_owned(),
        other => other.to_owned(),
    };
    let parts: Vec<&str> = text.split('/').collect();
    let of = |os: &str, architecture: String, variant: &str| {
        Some(Platform { architecture, os: os.to_owned(), variant: variant.to_owned() })
    };
    match parts.as_slice() {
        ["linux"] => Ok(of("linux", own.architecture, "")),
        [architecture] if !architecture.is_empty() => Ok(of("linux", normal(architecture), "")),
        ["linux", architecture] => Ok(of("linux", normal(architecture), "")),
        ["linux", architecture, variant] => Ok(of("linux", normal(architecture), variant)),
        _ => Err(ApiError::invalid(format!("platform {text}: only linux images run here"))),
    }
}

/// Answers with what a transfer says, as it says it. Until it has said something, a failure has a status of its own.
async fn follow(
    work: impl Future<Output = skep_engine::Result<()>> + Send + 'static,
    mut steps: mpsc::Receiver<Step>,
) -> Answer {
    let (end, ended) = oneshot::channel();
    tokio::spawn(async move {
        // A client that has gone does not hear how it ended.
        let _ = end.send(work.await);
    });
    let Some(first) = steps.recv().await else {
        return match ended.await {
            Ok(Err(error)) => Err(error.into()),
            _ => Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the transfer ended without a result")),
        };
    };
    let first = Some(line(&render(first)));
    let parts = stream::unfold((first, steps, Some(ended)), |(first, mut steps, ended)| async move {
        if let Some(first) = first {
            return Some((first, (None, steps, ended)));
        }
        match steps.recv().await {
            Some(step) => Some((line(&render(step)), (None, steps, ended))),
            None => match ended?.await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some((failure(&error.to_string()), (None, steps, None))),
                Err(_) => Some((failure("the transfer was cut off"), (None, steps, None))),
            },
        }
    });
    Ok(with_type(StatusCode::OK, "application/json", streamed(parts)))
}

/// A message as clients know it.
#[derive(Serialize)]
struct Line {
    #[serde(skip_serializing_if = "String::is_empty")]
    status: String,
    #[serde(rename = "progressDetail", skip_serializing_if = "Option::is_none")]
    progress: Option<HashMap<&'static str, u64>>,
    #[serde(skip_serializing_if = "String::is_empty")]
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    aux: Option<Aux>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Aux {
    tag: String,
    digest: String,
    size: u64,
}

/// What a transfer says, as a part of a stream.
pub fn told(step: Step) -> Bytes {
    line(&render(step))
}

fn render(step: Step) -> Vec<Line> {
    let Step { id, status, progress, pushed } = step;
    // As moby: what is said of a layer has details, be they empty.
    let progress = match progress {
        Some((current, total)) => Some(HashMap::from([("current", current), ("total", total)])),
        None => (!id.is_empty()).then(HashMap::new),
    };
    let mut lines = vec![Line { status, progress, id, aux: None }];
    if let Some(Pushed { tag, digest, size }) = pushed {
        let aux = Some(Aux { tag, digest, size });
        lines.push(Line { status: String::new(), progress: Some(HashMap::new()), id: String::new(), aux });
    }
    lines
}

fn line(values: &[impl Serialize]) -> Bytes {
    let mut bytes = Vec::new();
    for value in values {
        bytes.extend(serde_json::to_vec(value).unwrap_or_default());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.into()
}

fn failure(message: &str) -> Bytes {
    line(&[serde_json::json!({ "errorDetail": { "message": message }, "error": message })])
}

/// `GET /distribution/{name}/json`
pub async fn distribution(context: &Context, name: &str, call: &Call) -> Answer {
    let reference: Reference = name.parse().map_err(invalid)?;
    let credentials = credentials(&call.headers);
    let (descriptor, platforms) = context.engine.inspect_remote(&reference, credentials.as_ref()).await?;
    let platforms = platforms.into_iter().map(|platform| models::OciPlatform {
        architecture: Some(platform.architecture),
        os: Some(platform.os),
        variant: (!platform.variant.is_empty()).then_some(platform.variant),
        ..Default::default()
    });
    ok(&models::DistributionInspect {
        descriptor: models::OciDescriptor {
            media_type: Some(descriptor.media_type),
            digest: Some(descriptor.digest.to_string()),
            size: i64::try_from(descriptor.size).ok(),
            ..Default::default()
        },
        platforms: platforms.collect(),
    })
}

/// What a client that logs in sends.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Login {
    #[serde(flatten)]
    credentials: Credentials,
}

/// `POST /auth`
pub async fn log_in(context: &Context, call: Call) -> Answer {
    let Login { credentials } = call.json().await?;
    let credentials = credentials.split();
    let registry = registry_of(&credentials.server_address);
    let identity = context.engine.log_in(&registry, &credentials).await?;
    ok(&models::SystemAuthResponse { status: "Login Succeeded".to_owned(), identity_token: Some(identity) })
}

/// The registry that an address of a login means: Docker's own where there is none.
pub fn registry_of(address: &str) -> String {
    let bare =
        address.strip_prefix("https://").or_else(|| address.strip_prefix("http://")).unwrap_or(address);
    match bare.split('/').next().unwrap_or_default() {
        "" | "index.docker.io" | "docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
        host => host.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_as_docker_s() {
        let texts = |step| -> String {
            render(step).iter().map(|line| serde_json::to_string(line).expect("it is JSON") + "\n").collect()
        };
        let step = |id: &str, status: &str| Step {
            id: id.to_owned(),
            status: status.to_owned(),
            progress: None,
            pushed: None,
        };
        assert_eq!(texts(step("", "Digest: x")), "{\"status\":\"Digest: x\"}\n");
        assert_eq!(
            texts(step("ab", "Pull complete")),
            "{\"status\":\"Pull complete\",\"progressDetail\":{},\"id\":\"ab\"}\n"
        );
        let pushed = Some(Pushed { tag: "1".into(), digest: "sha256:x".into(), size: 3 });
        assert_eq!(
            texts(Step { pushed, ..step("", "1: digest") }),
            "{\"status\":\"1: digest\"}\n{\"progressDetail\":{},\"aux\":{\"Tag\":\"1\",\"Digest\":\"sha256:x\",\"Size\":3}}\n"
        );
    }

    #[test]
    fn platforms_and_addresses_are_read() {
        let text = |name| platform(name).map(|found| found.map(|found| found.to_string()));
        assert_eq!(text(""), Ok(None));
        assert_eq!(text("linux/arm64/v8"), Ok(Some("linux/arm64/v8".to_owned())));
        assert_eq!(text("aarch64"), Ok(Some("linux/arm64".to_owned())));
        assert!(text("windows/amd64").is_err());
        assert_eq!(registry_of("https://index.docker.io/v1/"), "docker.io");
        assert_eq!(registry_of("http://localhost:5000/v2/"), "localhost:5000");
        assert!(
            is_name_only("localhost:5000/x") && !is_name_only("localhost:5000/x:1") && !is_name_only("x@y")
        );
    }
}
