//! `/images`, and what else is made of images: `/distribution`; `/build` and `/commit` stand beside this.

use std::collections::BTreeSet;
use std::io::{self, BufWriter, Write};
use std::time::SystemTime;

use bollard_stubs::models;
use bytes::Bytes;
use futures_util::stream;
use hyper::StatusCode;
use skep_dockerfile::glob;
use skep_engine::build::apply_changes;
use skep_engine::images::{Image, ImageConfig, ImageId, Import, LoadedImage, Progress, Prune, Reference};
use skep_types::Time;
use tokio::sync::mpsc;

use super::{build, not_built, registries, unknown};
use crate::body::BlockingReader;
use crate::context::{Call, Context};
use crate::error::ApiError;
use crate::filters::Filters;
use crate::http::{Answer, empty, ok, streamed, streamed_or_cut, with_type};
use crate::pruning::{self, Pruning};
use crate::query::Query;
use crate::translate::image;
use crate::translate::refuse::refuse_if;

/// Progress messages on their way to a client; the load waits for a client that is slower.
const PROGRESS_QUEUE: usize = 16;

/// Pieces of an archive on their way to a client, and their size; the save waits for a client that is slower.
const SAVE_QUEUE: usize = 4;
const SAVE_PIECE: usize = 256 * 1024;

/// Paths that begin with one of the areas.
pub async fn route(context: &Context, method: &str, path: &[&str], call: Call) -> Answer {
    match (method, path) {
        ("GET", ["images", "json"]) => list(context, &call).await,
        ("POST", ["images", "load"]) => load(context, call).await,
        ("POST", ["images", "create"]) => create(context, call).await,
        ("POST", ["images", "prune"]) => prune(context, &call.query).await,
        ("GET", ["images", "get"]) => {
            save(context, &call.query, call.query.all("names").map(str::to_owned).collect()).await
        }
        ("GET", ["images", "search"]) => Err(ApiError::new(
            StatusCode::NOT_IMPLEMENTED,
            "docker search (GET /images/search) is not built: it asks Docker's hub, by an interface that other registries do not have",
        )),
        ("GET", ["images", name @ .., "json"]) => inspect(context, &name.join("/"), &call).await,
        ("GET", ["images", name @ .., "history"]) => history(context, &name.join("/")).await,
        ("POST", ["images", name @ .., "tag"]) => tag(context, &name.join("/"), &call.query).await,
        ("POST", ["images", name @ .., "push"]) => registries::push(context, &name.join("/"), &call).await,
        ("GET", ["images", name @ .., "get"]) => save(context, &call.query, vec![name.join("/")]).await,
        ("DELETE", ["images", name @ ..]) if !name.is_empty() => {
            let removed = context.engine.remove_image(&name.join("/"), call.query.flag("force")).await?;
            ok(&removed.iter().map(image::removed).collect::<Vec<_>>())
        }
        ("GET", ["distribution", name @ .., "json"]) => {
            registries::distribution(context, &name.join("/"), &call).await
        }
        ("POST", ["build"]) => build::build(context, call).await,
        ("POST", ["build", "prune"]) => build::prune(context, &call.query).await,
        ("POST", ["build", "cancel"]) => not_built(method, "/build/cancel"),
        ("POST", ["commit"]) => build::commit(context, call).await,
        ("POST", [area @ ("session" | "grpc")]) => Err(ApiError::not_built(format!(
            "POST /{area} (BuildKit); the classic builder is: DOCKER_BUILDKIT=0 docker build"
        ))),
        _ => Err(unknown()),
    }
}

/// Removes images without a tag, or with `dangling=false` all that nobody needs.
async fn prune(context: &Context, query: &Query) -> Answer {
    let pruning = Pruning::parse(query, &["dangling"])?;
    let which = match pruning.filters().truth("dangling")? {
        None | Some(true) => Prune::Dangling,
        Some(false) => Prune::Unused,
    };
    let (removed, bytes) = context.engine.prune_images(which, move |found| admits(&pruning, found)).await?;
    ok(&models::ImagePruneResponse {
        images_deleted: Some(removed.iter().map(image::removed).collect()),
        space_reclaimed: i64::try_from(bytes).ok(),
    })
}

/// Whether an image may be pruned.
pub fn admits(pruning: &Pruning, image: &Image) -> bool {
    let label = |key: &str| image.config.labels.get(key).map(String::as_str);
    pruning.admits(image.created.unwrap_or_default(), label)
}

async fn inspect(context: &Context, name: &str, call: &Call) -> Answer {
    let found = context.engine.inspect_image(name).await?;
    let layers = context.engine.image_layers(found.id).await?;
    ok(&image::inspect(&found, &layers, call.version))
}

async fn history(context: &Context, name: &str) -> Answer {
    let mut line = vec![context.engine.inspect_image(name).await?];
    while let Some(parent) = line.last().and_then(|image| image.parent) {
        match context.engine.inspect_image(&parent.to_string()).await {
            Ok(image) => line.push(image),
            // Removed meanwhile.
            Err(_) => break,
        }
    }
    ok(&image::history(&line))
}

async fn tag(context: &Context, source: &str, query: &Query) -> Answer {
    let target = reference(query.text("repo"), query.text("tag"))?;
    context.engine.tag_image(source, target).await?;
    empty(StatusCode::CREATED)
}

/// A reference from a repository and a tag, which may be empty.
pub fn reference(repository: &str, tag: &str) -> Result<Reference, ApiError> {
    let text = if tag.is_empty() { repository.to_owned() } else { format!("{repository}:{tag}") };
    text.parse()
        .map_err(|error: skep_engine::images::ParseReferenceError| ApiError::invalid(error.to_string()))
}

const FILTERS: [&str; 6] = ["before", "dangling", "label", "reference", "since", "until"];

async fn list(context: &Context, call: &Call) -> Answer {
    let filters = Filters::parse(&call.query, &FILTERS)?;
    let dangling = filters.truth("dangling")?;
    let bound = async |name: &str| -> Result<Option<Time>, ApiError> {
        match filters.values(name).next() {
            Some(image) => Ok(context.engine.inspect_image(image).await?.created),
            None => Ok(None),
        }
    };
    let (before, since) = (bound("before").await?, bound("since").await?);
    let now = Time::from(SystemTime::now());
    let until = filters.values("until").next().map(|text| pruning::moment("until", text, now)).transpose()?;
    let mut images = context.engine.images().await?;
    if !call.query.flag("all") {
        images = without_steps(images);
    }
    let shown = images.iter().filter_map(|found| {
        let created = found.created.unwrap_or_default();
        let tags = matching_tags(found, &filters)?;
        let is_dangling = found.tags.is_empty();
        let fits = dangling.is_none_or(|wanted| wanted == is_dangling)
            && before.is_none_or(|before| created < before)
            && since.is_none_or(|since| created > since)
            && until.is_none_or(|until| created < until)
            && filters.labels("label", |key| found.config.labels.get(key).map(String::as_str));
        fits.then(|| image::summary(found, tags, call.version))
    });
    ok(&shown.collect::<Vec<_>>())
}

/// The images that are more than a step of a build without a name.
pub fn without_steps(mut images: Vec<Image>) -> Vec<Image> {
    let parents: BTreeSet<ImageId> = images.iter().filter_map(|image| image.parent).collect();
    images
        .retain(|image| !(image.tags.is_empty() && image.digests.is_empty() && parents.contains(&image.id)));
    images
}

/// The tags that the `reference` filter lets through; `None` when it lets nothing of the image through.
fn matching_tags(image: &Image, filters: &Filters) -> Option<Vec<String>> {
    if !filters.has("reference") {
        return Some(image.tags.clone());
    }
    // As `reference.FamiliarMatch`: with the tag or without.
    let matches = |tag: &&String| {
        let name = tag.rsplit_once(':').map_or(tag.as_str(), |(name, _)| name);
        // A pattern that is none fits nothing.
        let fits = |pattern: &str, text: &str| glob::matches(pattern, text) == Some(true);
        filters.any("reference", |pattern| fits(pattern, tag) || fits(pattern, name))
    };
    let tags: Vec<String> = image.tags.iter().filter(matches).cloned().collect();
    (!tags.is_empty()).then_some(tags)
}

async fn create(context: &Context, call: Call) -> Answer {
    let query = &call.query;
    if !query.text("fromImage").is_empty() {
        return registries::pull(context, &call).await;
    }
    if query.text("fromSrc") != "-" {
        return Err(ApiError::not_built("importing from a URL (fromSrc)"));
    }
    let name = query.text("repo");
    let import = Import {
        reference: if name.is_empty() { None } else { Some(reference(name, query.text("tag"))?) },
        message: match query.text("message") {
            "" => "Imported from -".to_owned(),
            message => message.to_owned(),
        },
        created: Time::from(SystemTime::now()),
        config: apply_changes(ImageConfig::default(), query.all("changes"))?,
        architecture: architecture(query.text("platform"))?,
    };
    let id = context.engine.import_image(BlockingReader::new(call.body), import).await?;
    let status = line(&serde_json::json!({ "status": id.to_string() }));
    Ok(with_type(StatusCode::OK, "application/json", crate::http::full(status)))
}

/// The architecture that `--platform` names; empty means this machine's.
fn architecture(platform: &str) -> Result<String, ApiError> {
    match platform.split('/').collect::<Vec<_>>().as_slice() {
        [""] | ["linux"] => Ok(String::new()),
        ["linux", architecture, ..] => Ok((*architecture).to_owned()),
        _ => Err(ApiError::invalid(format!("platform {platform}: only linux images run here"))),
    }
}

/// `docker save`: an archive that is made as it is read.
async fn save(context: &Context, query: &Query, names: Vec<String>) -> Answer {
    refuse_if("platform", !query.text("platform").is_empty())?;
    if names.is_empty() {
        return Err(ApiError::invalid("no image to save was named (names)"));
    }
    let saving = context.engine.export_images(names).await?;
    let (sender, parts) = mpsc::channel(SAVE_QUEUE);
    tokio::spawn(async move {
        let writer = BufWriter::with_capacity(SAVE_PIECE, Parts(sender.clone()));
        if let Err(error) = saving.write(writer).await {
            // A client that has gone does not hear it.
            let _ = sender.send(Err(error)).await;
        }
    });
    let parts = stream::unfold(parts, |mut parts| async move { Some((parts.recv().await?, parts)) });
    Ok(with_type(StatusCode::OK, "application/x-tar", streamed_or_cut(parts)))
}

/// Hands what is written to the stream that answers a save.
struct Parts(mpsc::Sender<io::Result<Bytes>>);

impl Write for Parts {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let part = Bytes::copy_from_slice(bytes);
        self.0.blocking_send(Ok(part)).map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A message of the stream that answers a load.
enum Message {
    Progress(Progress),
    Ended(Result<Vec<LoadedImage>, ApiError>),
}

async fn load(context: &Context, call: Call) -> Answer {
    let quiet = call.query.flag_or("quiet", true);
    let (sender, mut messages) = mpsc::channel(PROGRESS_QUEUE);
    let (engine, reader, to_client) =
        (context.engine.clone(), BlockingReader::new(call.body), sender.clone());
    let progress = move |progress| {
        if !quiet {
            // A client that left is noticed when its archive breaks off.
            let _ = to_client.blocking_send(Message::Progress(progress));
        }
    };
    tokio::spawn(async move {
        let loaded = engine.load_images(reader, progress).await.map_err(ApiError::from);
        let _ = sender.send(Message::Ended(loaded)).await;
    });
    // Until something went well, a failure still has a status of its own.
    let first = match messages.recv().await {
        Some(Message::Ended(Err(error))) => return Err(error),
        Some(message) => render(message),
        None => {
            return Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the load ended without a result"));
        }
    };
    let parts = stream::unfold((Some(first), messages), |(first, mut messages)| async move {
        let part = match first {
            Some(first) => first,
            None => render(messages.recv().await?),
        };
        Some((part, (None, messages)))
    });
    Ok(with_type(StatusCode::OK, "application/json", streamed(parts)))
}

fn render(message: Message) -> Bytes {
    match message {
        Message::Progress(Progress { layer, current, total }) => line(&models::CreateImageInfo {
            id: Some(layer),
            status: Some("Loading layer".to_owned()),
            progress_detail: Some(models::ProgressDetail {
                current: i64::try_from(current).ok(),
                total: i64::try_from(total).ok(),
            }),
            ..Default::default()
        }),
        Message::Ended(Ok(images)) => {
            let lines = images.iter().flat_map(LoadedImage::lines);
            lines
                .map(|text| line(&serde_json::json!({ "stream": format!("{text}\n") })))
                .collect::<Vec<_>>()
                .concat()
                .into()
        }
        Message::Ended(Err(error)) => {
            let message = error.to_string();
            line(&serde_json::json!({ "errorDetail": { "message": message }, "error": message }))
        }
    }
}

/// One value of a stream of JSON.
pub fn line(value: &impl serde::Serialize) -> Bytes {
    let mut bytes = serde_json::to_vec(value).unwrap_or_default();
    bytes.extend_from_slice(b"\r\n");
    bytes.into()
}
