//! Manifests and indexes, of Docker's kind and of OCI's.

use std::io;

use serde::{Deserialize, Serialize};

use crate::{Digest, RegistryError};

/// Media types.
pub mod media {
    /// Docker's manifest of one image.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker's index.
    pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// OCI's manifest of one image.
    pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// OCI's index.
    pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// Docker's configuration of an image.
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    /// Docker's layer.
    pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    /// OCI's layer, as gzip.
    pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    /// All that is asked for.
    pub(crate) const ACCEPTED: [&str; 4] = [DOCKER_MANIFEST, DOCKER_LIST, OCI_MANIFEST, OCI_INDEX];
}

/// Most layers of one image. Docker makes 127 at most.
const LAYER_LIMIT: usize = 1024;
/// Most images of one index.
const ENTRY_LIMIT: usize = 4096;
/// Largest configuration that is fetched, in bytes.
pub(crate) const CONFIG_LIMIT: u64 = 8 << 20;
/// Largest manifest that is fetched, in bytes. As containerd and OCI recommend.
pub(crate) const MANIFEST_LIMIT: usize = 4 << 20;

/// What a blob or a manifest is, and how it is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Its media type.
    #[serde(default)]
    pub media_type: String,
    /// Its bytes.
    pub size: u64,
    /// Its digest.
    pub digest: Digest,
}

/// What a platform is, in Go's words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Platform {
    /// Processor, such as `amd64`.
    pub architecture: String,
    /// Operating system.
    pub os: String,
    /// Refinement of the processor, such as `v8`; empty mostly.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() { Ok(()) } else { write!(f, "/{}", self.variant) }
    }
}

impl Platform {
    /// How well an image for `offered` runs on this one, the best first; `None` if not at all.
    fn rank(&self, offered: &Platform) -> Option<u32> {
        if offered.os != self.os || offered.architecture != self.architecture {
            return None;
        }
        let version = |variant: &str| -> Option<u32> { variant.strip_prefix('v')?.parse().ok() };
        match (version(&self.variant), version(&offered.variant)) {
            (Some(wanted), Some(offered)) if offered > wanted => None,
            (Some(wanted), Some(offered)) => Some(wanted - offered),
            // 64-bit ARM is `v8` whether it says so or not.
            (None, Some(8)) if self.architecture == "arm64" => Some(0),
            // Newer processors of the 32-bit ARM run older variants; of the others the base variant is safe.
            (None, Some(offered)) if self.architecture == "arm" => Some(7u32.abs_diff(offered)),
            (None, Some(offered)) => Some(offered),
            (_, None) => Some(if offered.variant.is_empty() { 0 } else { 100 }),
        }
    }
}

/// A document that was fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// What it is.
    pub descriptor: Descriptor,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// What it says.
    pub document: Document,
}

/// A manifest of one image, or of several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// One image.
    Image(Manifest),
    /// Images for several platforms.
    Index(Vec<IndexEntry>),
}

/// The parts of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Its configuration.
    pub config: Descriptor,
    /// Its layers, lowest first.
    pub layers: Vec<Descriptor>,
}

/// One image of an index.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct IndexEntry {
    /// Its manifest.
    #[serde(flatten)]
    pub descriptor: Descriptor,
    /// What it runs on.
    #[serde(default)]
    pub platform: Option<Platform>,
}

/// What any of the documents may hold: which one it is, only its fields tell reliably.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: Option<u32>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<IndexEntry>>,
}

impl Document {
    /// Reads one.
    ///
    /// # Errors
    /// [`RegistryError::Document`]
    pub fn parse(bytes: &[u8]) -> Result<Document, RegistryError> {
        let refuse = |problem: String| RegistryError::Document(format!("invalid manifest: {problem}"));
        let raw: Raw = serde_json::from_slice(bytes).map_err(|error| refuse(error.to_string()))?;
        if raw.schema_version != Some(2) {
            let version = raw.schema_version.unwrap_or_default();
            return Err(refuse(format!("schema version {version} is not supported, only 2 is")));
        }
        match (raw.manifests, raw.config, raw.layers) {
            (Some(entries), None, None) if entries.len() <= ENTRY_LIMIT => Ok(Document::Index(entries)),
            (None, Some(config), layers) => {
                let layers = layers.unwrap_or_default();
                if layers.len() > LAYER_LIMIT {
                    return Err(refuse(format!("it has more than {LAYER_LIMIT} layers")));
                }
                if config.size > CONFIG_LIMIT {
                    return Err(refuse(format!("its configuration has more than {CONFIG_LIMIT} bytes")));
                }
                Ok(Document::Image(Manifest { config, layers }))
            }
            (Some(_), None, None) => Err(refuse(format!("it has more than {ENTRY_LIMIT} images"))),
            // Of a document that could be either, two readers would see two images.
            _ => Err(refuse("it is neither an index nor a manifest".to_owned())),
        }
    }

    pub(crate) fn default_media_type(&self) -> &'static str {
        match self {
            Document::Image(_) => media::DOCKER_MANIFEST,
            Document::Index(_) => media::DOCKER_LIST,
        }
    }
}

/// The image of an index that fits a platform best.
///
/// # Errors
/// [`RegistryError::Platform`]
pub(crate) fn choose<'a>(
    entries: &'a [IndexEntry],
    wanted: &Platform,
) -> Result<&'a IndexEntry, RegistryError> {
    let fitting = entries.iter().filter_map(|entry| match &entry.platform {
        Some(platform) => Some((wanted.rank(platform)?, entry)),
        None if entries.len() == 1 => Some((0, entry)),
        None => None,
    });
    let best = fitting.min_by_key(|(rank, _)| *rank).map(|(_, entry)| entry);
    best.ok_or_else(|| RegistryError::Platform(wanted.to_string()))
}

/// The manifest that Docker writes of an image, byte for byte, so that both push it under the same digest.
pub fn docker_manifest(config: Descriptor, layers: Vec<Descriptor>) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Written {
        schema_version: u32,
        media_type: &'static str,
        config: Descriptor,
        layers: Vec<Descriptor>,
    }
    let written = Written { schema_version: 2, media_type: media::DOCKER_MANIFEST, config, layers };
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"   ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes as &mut dyn io::Write, formatter);
    written.serialize(&mut serializer).expect("texts and numbers are valid JSON");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(platform: &str) -> IndexEntry {
        let parts: Vec<&str> = platform.split('/').collect();
        let text = |index: usize| parts.get(index).copied().unwrap_or_default().to_owned();
        IndexEntry {
            descriptor: Descriptor {
                media_type: String::new(),
                size: 1,
                digest: Digest::of(platform.as_bytes()),
            },
            platform: Some(Platform { os: text(0), architecture: text(1), variant: text(2) }),
        }
    }

    #[test]
    fn the_best_fitting_platform_is_chosen() {
        let entries: Vec<IndexEntry> = [
            "unknown/unknown",
            "linux/arm/v5",
            "linux/arm/v7",
            "linux/arm64/v8",
            "linux/amd64",
            "linux/amd64/v3",
        ]
        .map(entry)
        .into();
        for (wanted, expected) in [
            ("linux/amd64", Some("linux/amd64")),
            ("linux/arm64", Some("linux/arm64/v8")),
            ("linux/arm64/v8", Some("linux/arm64/v8")),
            ("linux/arm", Some("linux/arm/v7")),
            ("linux/arm/v6", Some("linux/arm/v5")),
            ("linux/s390x", None),
            ("windows/amd64", None),
        ] {
            let wanted = entry(wanted).platform.unwrap();
            let found = choose(&entries, &wanted);
            match expected {
                Some(expected) => assert_eq!(found.unwrap(), &entry(expected), "{wanted}"),
                None => {
                    let message = found.unwrap_err().to_string();
                    assert_eq!(
                        message,
                        format!("no matching manifest for {wanted} in the manifest list entries")
                    );
                }
            }
        }
    }

    #[test]
    fn a_manifest_is_written_as_docker_does() {
        let digest = Digest::of(b"");
        let descriptor =
            |media_type: &str| Descriptor { media_type: media_type.into(), size: 3, digest: digest.clone() };
        let bytes = docker_manifest(descriptor(media::DOCKER_CONFIG), vec![descriptor(media::DOCKER_LAYER)]);
        let text = String::from_utf8(bytes.clone()).unwrap();
        let start = "{\n   \"schemaVersion\": 2,\n   \"mediaType\": \"application/vnd.docker.distribution.manifest.v2+json\",\n   \"config\": {\n      \"mediaType\": \"application/vnd.docker.container.image.v1+json\",\n      \"size\": 3,\n      \"digest\": \"sha256:e3b0";
        assert!(text.starts_with(start), "{text}");
        assert!(matches!(Document::parse(&bytes), Ok(Document::Image(_))));
    }

    #[test]
    fn hostile_documents_are_refused() {
        let digest = Digest::of(b"");
        let part = format!(r#"{{"mediaType":"x","size":1,"digest":"{digest}"}}"#);
        let many = vec![part.as_str(); LAYER_LIMIT + 1].join(",");
        for text in [
            "",
            "[]",
            "{}",
            r#"{"schemaVersion":1}"#,
            r#"{"schemaVersion":2}"#,
            &format!(r#"{{"schemaVersion":2,"config":{part},"manifests":[]}}"#),
            &format!(r#"{{"schemaVersion":2,"config":{part},"layers":[{many}]}}"#),
            r#"{"schemaVersion":2,"config":{"size":1,"digest":"md5:1"}}"#,
            r#"{"schemaVersion":2,"config":{"size":-1,"digest":"sha256:1"}}"#,
            &"[".repeat(100_000),
        ] {
            assert!(
                matches!(Document::parse(text.as_bytes()), Err(RegistryError::Document(_))),
                "{text:.60}"
            );
        }
    }
}
