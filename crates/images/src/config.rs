//! An image's configuration as it is stored and exchanged.

use serde::{Deserialize, Serialize};
use skep_types::Time;

use crate::image::or_default;
use crate::state::Record;
use crate::{DiffId, History, Image, ImageConfig, ImageId};

/// The configuration file, as Docker and OCI write it. What is not named here is kept only in the stored
/// bytes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ConfigFile {
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) architecture: String,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub(crate) variant: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) os: String,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub(crate) created: String,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub(crate) author: String,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub(crate) comment: String,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub(crate) docker_version: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) config: ImageConfig,
    pub(crate) rootfs: RootFs,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) history: Vec<HistoryEntry>,
}

/// The layers of an image.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct RootFs {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// Lowest first.
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) diff_ids: Vec<DiffId>,
}

/// A step in the making of an image.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct HistoryEntry {
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    created: String,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    created_by: String,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    author: String,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    comment: String,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "std::ops::Not::not")]
    empty_layer: bool,
}

impl ConfigFile {
    /// Reads one; the message says what is wrong with it.
    pub(crate) fn parse(bytes: &[u8]) -> Result<ConfigFile, String> {
        let config: ConfigFile = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if config.rootfs.kind != "layers" {
            return Err(format!("root file system of type {:?}: expected \"layers\"", config.rootfs.kind));
        }
        match config.os.as_str() {
            "" | "linux" => Ok(config),
            // As Docker.
            other => Err(format!("cannot load {other} image on linux")),
        }
    }

    /// The configuration of an image with one layer that was not built but imported.
    pub(crate) fn imported(diff_id: DiffId, import: &crate::Import) -> ConfigFile {
        let created = import.created.to_string();
        let architecture =
            if import.architecture.is_empty() { architecture() } else { import.architecture.as_str() };
        ConfigFile {
            architecture: architecture.to_owned(),
            os: "linux".to_owned(),
            created: created.clone(),
            comment: import.message.clone(),
            config: import.config.clone(),
            rootfs: RootFs { kind: "layers".to_owned(), diff_ids: vec![diff_id] },
            history: vec![HistoryEntry {
                created,
                comment: import.message.clone(),
                ..HistoryEntry::default()
            }],
            ..ConfigFile::default()
        }
    }

    /// The configuration of an image that a step makes on top of another, as moby's `NewChildImage`.
    pub(crate) fn step(
        parent: Option<ConfigFile>,
        new: &crate::NewImage,
        layer: Option<DiffId>,
    ) -> ConfigFile {
        let mut config = parent.unwrap_or_else(|| ConfigFile {
            architecture: architecture().to_owned(),
            os: "linux".to_owned(),
            rootfs: RootFs { kind: "layers".to_owned(), diff_ids: Vec::new() },
            ..ConfigFile::default()
        });
        let created = new.created.to_string();
        config.history.push(HistoryEntry {
            created: created.clone(),
            created_by: new.created_by.clone(),
            author: new.author.clone(),
            comment: new.comment.clone(),
            empty_layer: layer.is_none(),
        });
        config.rootfs.diff_ids.extend(layer);
        ConfigFile {
            created,
            author: new.author.clone(),
            comment: new.comment.clone(),
            docker_version: String::new(),
            config: new.config.clone(),
            ..config
        }
    }

    /// The image that this configuration and the store's record of it make.
    pub(crate) fn into_image(
        self,
        id: ImageId,
        record: &Record,
        tags: Vec<String>,
        digests: Vec<String>,
    ) -> Image {
        let mut sizes = record.layers.iter().map(|layer| layer.size);
        let history = self.history.into_iter().map(|entry| History {
            created: entry.created.parse().ok(),
            size: if entry.empty_layer { 0 } else { sizes.next().unwrap_or_default() },
            created_by: entry.created_by,
            author: entry.author,
            comment: entry.comment,
            empty_layer: entry.empty_layer,
        });
        Image {
            id,
            parent: record.parent,
            history: history.collect(),
            config: self.config,
            architecture: self.architecture,
            variant: self.variant,
            os: if self.os.is_empty() { "linux".to_owned() } else { self.os },
            // Go's zero time, as reproducible builds write, is before all that `Time` knows.
            created: self.created.parse::<Time>().ok(),
            author: self.author,
            comment: self.comment,
            docker_version: self.docker_version,
            layers: self.rootfs.diff_ids,
            size: record.size(),
            tags,
            digests,
            tagged_at: record.tagged_at,
        }
    }
}

/// Go's name of this machine's processor.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "x86" => "386",
        "aarch64" => "arm64",
        "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
        "powerpc64" => "ppc64",
        "loongarch64" => "loong64",
        other => other,
    }
}
