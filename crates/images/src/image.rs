//! What is known of an image.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use skep_types::Time;

use crate::{DiffId, ImageId};

/// An image in the store.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// Digest of the configuration's bytes.
    pub id: ImageId,
    /// The image that it was made from, where that was here.
    pub parent: Option<ImageId>,
    /// What containers made from it start with.
    pub config: ImageConfig,
    /// Go's name of the processor, such as `amd64`.
    pub architecture: String,
    /// Refinement of the architecture, such as `v8`; empty mostly.
    pub variant: String,
    /// Operating system: `linux`.
    pub os: String,
    /// When it was built; `None` if its maker left that open.
    pub created: Option<Time>,
    /// Who built it.
    pub author: String,
    /// The message of a commit or an import.
    pub comment: String,
    /// Version of the Docker that built it; empty mostly.
    pub docker_version: String,
    /// Contents of its layers, lowest first.
    pub layers: Vec<DiffId>,
    /// The steps that made it, first one first.
    pub history: Vec<History>,
    /// Bytes of the files in all its layers.
    pub size: u64,
    /// References by tag, familiar form, sorted.
    pub tags: Vec<String>,
    /// References by digest, familiar form, sorted.
    pub digests: Vec<String>,
    /// When a tag was last set on it.
    pub tagged_at: Option<Time>,
}

/// A step in the making of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// When it was done.
    pub created: Option<Time>,
    /// The command.
    pub created_by: String,
    /// Who did it.
    pub author: String,
    /// A message.
    pub comment: String,
    /// Whether it made no layer.
    pub empty_layer: bool,
    /// Bytes of the files in its layer; 0 without one.
    pub size: u64,
}

/// What containers made from an image start with: the `config` section of an image's configuration, in
/// its JSON form.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageConfig {
    /// User and group; empty is root.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// Ports that the image says it listens on, such as `80/tcp`.
    #[serde(with = "set_as_map", skip_serializing_if = "BTreeSet::is_empty")]
    pub exposed_ports: BTreeSet<String>,
    /// Environment, `NAME=value`.
    #[serde(deserialize_with = "or_default")]
    pub env: Vec<String>,
    /// Program with its first arguments.
    pub entrypoint: Option<Vec<String>>,
    /// Default arguments, or program and arguments.
    pub cmd: Option<Vec<String>>,
    /// Paths that get anonymous volumes.
    #[serde(with = "set_as_map", skip_serializing_if = "BTreeSet::is_empty")]
    pub volumes: BTreeSet<String>,
    /// Working directory; empty is `/`.
    #[serde(deserialize_with = "or_default")]
    pub working_dir: String,
    /// Labels.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Signal that asks the process to end; empty is SIGTERM.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// How health is probed, as Docker's JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<serde_json::Value>,
    /// Steps that a build from this image starts with.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub on_build: Vec<String>,
    /// Shell for the shell form of commands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
}

/// Go writes `null` for an empty list or map.
pub(crate) fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Go's form of a set: a map to empty objects.
mod set_as_map {
    use std::collections::{BTreeMap, BTreeSet};

    use serde::de::IgnoredAny;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(set: &BTreeSet<String>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(set.iter().map(|key| (key, serde_json::Map::new())))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeSet<String>, D::Error> {
        let map = Option::<BTreeMap<String, IgnoredAny>>::deserialize(deserializer)?;
        Ok(map.unwrap_or_default().into_keys().collect())
    }
}
