//! Loading archives of images.
//!
//! The stream cannot be rewound and its manifest comes last, so all that may be a layer is unpacked as it
//! passes, into a staging folder; documents are kept in memory. What the manifest then does not ask for is
//! thrown away.

mod contents;
mod docker;
mod oci;
#[cfg(test)]
mod tests;

use crate::config::ConfigFile;
use crate::error::{ArchiveError, Failure};
use crate::{Digest, ImageId, Reference};
pub(crate) use contents::{Contents, LayerFile, Origin, Source};

/// An image that an archive holds, verified.
#[derive(Debug)]
pub(crate) struct Planned {
    pub(crate) id: ImageId,
    /// The configuration's bytes as they arrived.
    pub(crate) config: Vec<u8>,
    pub(crate) references: Vec<Reference>,
    /// Paths of its layers in the archive, lowest first.
    pub(crate) layers: Vec<String>,
}

/// The images that an archive holds. All that belongs to them is verified.
pub(crate) fn plan(contents: &Contents) -> Result<Vec<Planned>, Failure> {
    // `docker save` writes both; Docker reads its own first.
    let planned = if contents.has("manifest.json") {
        docker::plan(contents)?
    } else if contents.has("index.json") {
        oci::plan(contents)?
    } else {
        return Err(ArchiveError::NoManifest.into());
    };
    let mut merged: Vec<Planned> = Vec::new();
    for image in planned {
        match merged.iter_mut().find(|known| known.id == image.id) {
            Some(known) => known.references.extend(image.references),
            None => merged.push(image),
        }
    }
    Ok(merged)
}

/// Verifies a configuration against the layers that are said to belong to it.
fn plan_image(
    contents: &Contents,
    config_path: &str,
    layers: Vec<String>,
    references: Vec<Reference>,
) -> Result<Planned, Failure> {
    let bytes = contents.document(config_path)?;
    let refuse = |problem: String| ArchiveError::Config { name: config_path.to_owned(), problem };
    let config = ConfigFile::parse(bytes).map_err(refuse)?;
    let expected = config.rootfs.diff_ids;
    if expected.len() != layers.len() {
        let problem = format!("it has {} layers; the manifest has {}", expected.len(), layers.len());
        return Err(refuse(problem).into());
    }
    for (path, expected) in layers.iter().zip(expected) {
        let actual = contents.layer(path)?.diff_id;
        if actual != expected {
            let name = path.clone();
            return Err(ArchiveError::Digest { name, actual: actual.0, expected: expected.0 }.into());
        }
    }
    Ok(Planned { id: ImageId(Digest::of(bytes)), config: bytes.to_vec(), references, layers })
}

/// Reads a JSON document of the archive.
fn parse_json<T: serde::de::DeserializeOwned>(contents: &Contents, path: &str) -> Result<T, Failure> {
    let malformed =
        |error: serde_json::Error| ArchiveError::Json { name: path.to_owned(), problem: error.to_string() };
    Ok(serde_json::from_slice(contents.document(path)?).map_err(malformed)?)
}
