//! Images as clients see them.

use std::collections::HashMap;
use std::path::PathBuf;

use bollard_stubs::models;
use skep_engine::images::{Image, ImageConfig, Removed};

use super::{seconds, size, time_text, unordered};
use crate::version::Version;

/// Clients older than this read a total that includes parents; it is the size.
const VIRTUAL_SIZE_UNTIL: Version = Version { major: 1, minor: 43 };
/// Clients older than this want a placeholder where an image has no name.
const PLACEHOLDERS_UNTIL: Version = Version { major: 1, minor: 42 };

/// An image as `GET /images/{name}/json` shows it; `layers` are its folders, topmost first.
pub fn inspect(image: &Image, layers: &[PathBuf], version: Version) -> models::ImageInspect {
    let paths: Vec<String> = layers.iter().map(|path| path.display().to_string()).collect();
    let mut data = HashMap::new();
    if let Some((top, lower)) = paths.split_first() {
        data.insert("UpperDir".to_owned(), top.clone());
        if !lower.is_empty() {
            data.insert("LowerDir".to_owned(), lower.join(":"));
        }
    }
    models::ImageInspect {
        id: Some(image.id.to_string()),
        repo_tags: Some(image.tags.clone()),
        repo_digests: Some(image.digests.clone()),
        parent: Some(parent(image)),
        comment: Some(image.comment.clone()),
        created: Some(time_text(image.created)),
        docker_version: Some(image.docker_version.clone()),
        author: Some(image.author.clone()),
        config: Some(config(&image.config)),
        architecture: Some(image.architecture.clone()),
        variant: (!image.variant.is_empty()).then(|| image.variant.clone()),
        os: Some(image.os.clone()),
        size: Some(size(image.size)),
        virtual_size: (version <= VIRTUAL_SIZE_UNTIL).then_some(size(image.size)),
        graph_driver: Some(models::DriverData { name: "overlay2".to_owned(), data }),
        root_fs: Some(models::ImageInspectRootFs {
            typ: "layers".to_owned(),
            layers: Some(image.layers.iter().map(ToString::to_string).collect()),
        }),
        metadata: Some(models::ImageInspectMetadata { last_tag_time: Some(time_text(image.tagged_at)) }),
        ..Default::default()
    }
}

/// The image that it was made from; empty where that was elsewhere.
fn parent(image: &Image) -> String {
    image.parent.map(|id| id.to_string()).unwrap_or_default()
}

fn config(config: &ImageConfig) -> models::ImageConfig {
    let ImageConfig {
        user,
        exposed_ports,
        env,
        entrypoint,
        cmd,
        volumes,
        working_dir,
        labels,
        stop_signal,
        healthcheck,
        on_build,
        shell,
    } = config;
    let set =
        |set: &std::collections::BTreeSet<String>| (!set.is_empty()).then(|| set.iter().cloned().collect());
    models::ImageConfig {
        hostname: Some(String::new()),
        domainname: Some(String::new()),
        user: Some(user.clone()),
        attach_stdin: Some(false),
        attach_stdout: Some(false),
        attach_stderr: Some(false),
        exposed_ports: set(exposed_ports),
        tty: Some(false),
        open_stdin: Some(false),
        stdin_once: Some(false),
        env: Some(env.clone()),
        cmd: cmd.clone(),
        // It came out of JSON; what does not fit the model is not worth failing an inspection for.
        healthcheck: healthcheck.clone().and_then(|check| serde_json::from_value(check).ok()),
        image: Some(String::new()),
        volumes: set(volumes),
        working_dir: Some(working_dir.clone()),
        entrypoint: entrypoint.clone(),
        on_build: (!on_build.is_empty()).then(|| on_build.clone()),
        labels: Some(unordered(labels)),
        stop_signal: (!stop_signal.is_empty()).then(|| stop_signal.clone()),
        shell: shell.clone(),
        ..Default::default()
    }
}

/// An image as a line of `GET /images/json`; `tags` are those that the filters let through.
pub fn summary(image: &Image, tags: Vec<String>, version: Version) -> models::ImageSummary {
    let nameless = version <= PLACEHOLDERS_UNTIL && tags.is_empty();
    models::ImageSummary {
        id: image.id.to_string(),
        parent_id: parent(image),
        repo_tags: if nameless { vec!["<none>:<none>".to_owned()] } else { tags },
        repo_digests: if nameless && image.digests.is_empty() {
            vec!["<none>@<none>".to_owned()]
        } else {
            image.digests.clone()
        },
        created: image.created.map_or(0, seconds),
        size: size(image.size),
        shared_size: -1,
        virtual_size: (version <= VIRTUAL_SIZE_UNTIL).then_some(size(image.size)),
        labels: unordered(&image.config.labels),
        containers: -1,
        manifests: None,
        descriptor: None,
    }
}

/// An image's making, the last step first. `line` is the image, then what it was made from here, as far as that is known: the steps
/// that can be named.
pub fn history(line: &[Image]) -> Vec<models::HistoryResponseItem> {
    let Some(image) = line.first() else { return Vec::new() };
    let steps = image.history.iter().rev().enumerate().map(|(index, step)| {
        let named = line.get(index);
        models::HistoryResponseItem {
            id: named.map_or_else(|| "<missing>".to_owned(), |image| image.id.to_string()),
            created: step.created.map_or(0, seconds),
            created_by: step.created_by.clone(),
            tags: named.map(|image| image.tags.clone()).unwrap_or_default(),
            size: size(step.size),
            comment: step.comment.clone(),
        }
    });
    steps.collect()
}

/// One step of a removal.
pub fn removed(step: &Removed) -> models::ImageDeleteResponseItem {
    match step {
        Removed::Untagged { name, .. } => {
            models::ImageDeleteResponseItem { untagged: Some(name.clone()), deleted: None }
        }
        Removed::Deleted(id) => deleted(id.to_string()),
        Removed::Layer(id) => deleted(id.to_string()),
    }
}

fn deleted(id: String) -> models::ImageDeleteResponseItem {
    models::ImageDeleteResponseItem { untagged: None, deleted: Some(id) }
}
