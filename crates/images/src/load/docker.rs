//! The layout of `docker save`: `manifest.json` names configurations, layers and tags.

use serde::Deserialize;

use super::{Contents, Planned, parse_json, plan_image};
use crate::Reference;
use crate::error::{ArchiveError, Failure};
use crate::image::or_default;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    #[serde(default, deserialize_with = "or_default")]
    repo_tags: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    layers: Vec<String>,
}

pub(super) fn plan(contents: &Contents) -> Result<Vec<Planned>, Failure> {
    let items: Vec<Item> = parse_json(contents, "manifest.json")?;
    items.into_iter().map(|item| plan_item(contents, item)).collect()
}

fn plan_item(contents: &Contents, item: Item) -> Result<Planned, Failure> {
    let read_reference = |text: String| -> Result<Reference, ArchiveError> {
        text.parse().map_err(|error| ArchiveError::Json {
            name: "manifest.json".to_owned(),
            problem: format!("invalid tag {text:?}: {error}"),
        })
    };
    let references = item.repo_tags.into_iter().map(read_reference).collect::<Result<_, _>>()?;
    plan_image(contents, &item.config, item.layers, references)
}
