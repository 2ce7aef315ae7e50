//! The OCI image layout: `index.json` points at manifests, or at indexes with one manifest a platform.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Contents, Planned, plan_image};
use crate::config::architecture;
use crate::error::{ArchiveError, Failure};
use crate::image::or_default;
use crate::{Digest, Reference};

/// How deep indexes may point at indexes.
const DEPTH_LIMIT: usize = 8;
/// Set by containerd and Docker: the full reference.
const NAME_CONTAINERD: &str = "io.containerd.image.name";
/// OCI's own: a tag, or what its writer pleased.
const NAME_OCI: &str = "org.opencontainers.image.ref.name";

#[derive(Clone, Deserialize)]
struct Descriptor {
    digest: Digest,
    size: u64,
    platform: Option<Platform>,
    #[serde(default, deserialize_with = "or_default")]
    annotations: BTreeMap<String, String>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct Platform {
    os: String,
    architecture: String,
    #[serde(deserialize_with = "or_default")]
    variant: String,
}

/// An index or a manifest: which one, only its fields tell reliably.
#[derive(Deserialize)]
struct Node {
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
}

pub(super) fn plan(contents: &Contents) -> Result<Vec<Planned>, Failure> {
    let Node { manifests, .. } = super::parse_json(contents, "index.json")?;
    let manifests = manifests.unwrap_or_default();
    let (fitting, others): (Vec<_>, Vec<_>) = manifests
        .into_iter()
        .partition(|descriptor| descriptor.platform.as_ref().is_none_or(|platform| rank(platform).is_some()));
    if fitting.is_empty() && !others.is_empty() {
        return Err(no_platform().into());
    }
    fitting.into_iter().map(|descriptor| plan_named(contents, &descriptor)).collect()
}

fn plan_named(contents: &Contents, descriptor: &Descriptor) -> Result<Planned, Failure> {
    let references = name(descriptor).into_iter().collect();
    let mut descriptor = descriptor.clone();
    for _ in 0..DEPTH_LIMIT {
        let path = verify(contents, &descriptor)?;
        let node: Node = super::parse_json(contents, &path)?;
        descriptor = match (node.manifests, node.config) {
            (Some(manifests), None) => choose(manifests)?,
            (None, Some(config)) => {
                let layers = node.layers.unwrap_or_default();
                let layers = layers.iter().map(|layer| verify(contents, layer)).collect::<Result<_, _>>()?;
                return plan_image(contents, &verify(contents, &config)?, layers, references);
            }
            // Of a document that could be either, two readers would see two images.
            _ => {
                let problem = "it is neither an index nor a manifest".to_owned();
                return Err(ArchiveError::Json { name: path, problem }.into());
            }
        };
    }
    Err(ArchiveError::Limit { what: "indexes within indexes", limit: DEPTH_LIMIT as u64 }.into())
}

/// The reference that a descriptor carries; a tag alone is none.
fn name(descriptor: &Descriptor) -> Option<Reference> {
    if let Some(name) = descriptor.annotations.get(NAME_CONTAINERD) {
        return name.parse().ok();
    }
    let name = descriptor.annotations.get(NAME_OCI)?;
    name.contains([':', '/']).then(|| name.parse().ok())?
}

/// This machine's manifest of an index.
fn choose(manifests: Vec<Descriptor>) -> Result<Descriptor, ArchiveError> {
    if let [only] = manifests.as_slice()
        && only.platform.is_none()
    {
        return Ok(only.clone());
    }
    let ranked = manifests.into_iter().filter_map(|descriptor| {
        let rank = rank(descriptor.platform.as_ref()?)?;
        Some((rank, descriptor))
    });
    ranked.min_by_key(|(rank, _)| *rank).map(|(_, descriptor)| descriptor).ok_or_else(no_platform)
}

/// How well a platform fits this machine, the best first; `None` if not at all.
fn rank(platform: &Platform) -> Option<u32> {
    if platform.os != "linux" || platform.architecture != architecture() {
        return None;
    }
    let version = platform.variant.trim_start_matches('v').parse().unwrap_or(0);
    // Newer processors of the 32-bit ARM run older variants; of the others the base variant is safe.
    Some(if platform.architecture == "arm" { 7u32.abs_diff(version) } else { version })
}

fn no_platform() -> ArchiveError {
    ArchiveError::Platform(format!("linux/{}", architecture()))
}

/// Checks that the archive holds what a descriptor announces; its path.
fn verify(contents: &Contents, descriptor: &Descriptor) -> Result<String, Failure> {
    let path = format!("blobs/sha256/{}", descriptor.digest.hex());
    let (digest, size) = contents.measured(&path)?;
    if digest != descriptor.digest {
        return Err(ArchiveError::Digest { name: path, actual: digest, expected: descriptor.digest }.into());
    }
    if size != descriptor.size {
        return Err(ArchiveError::Size { name: path, actual: size, expected: descriptor.size }.into());
    }
    Ok(path)
}
