//! `docker save`: images become an archive, written front to back.
//!
//! The archive has both layouts, OCI's and the `manifest.json` of Docker's own, over the same files, as Docker's since
//! version 25: old and new readers find theirs. Each layer is in it once. The same images make the same archive.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};

use serde::Serialize;
use serde_json::{Value, json};

use crate::diff::{Entry, write_entry, write_padding};
use crate::store::LayerArchive;
use crate::{DiffId, Digest, ImageId, Reference};

/// Bytes that are copied at once.
const PIECE: usize = 256 * 1024;
/// What ends an archive.
const END: [u8; 1024] = [0; 1024];

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// An image that is to be saved.
pub(crate) struct Saved {
    pub(crate) id: ImageId,
    /// The bytes of its configuration.
    pub(crate) config: Vec<u8>,
    /// The tags that the archive gives it.
    pub(crate) references: Vec<Reference>,
    /// Its layers, lowest first.
    pub(crate) layers: Vec<DiffId>,
}

/// Opens a layer's archive, and tells how many bytes it has.
pub(crate) type OpenLayer<'a> = dyn Fn(DiffId) -> io::Result<(LayerArchive, u64)> + 'a;

#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: &'static str,
    digest: String,
    size: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<&'static str, String>,
}

/// An item of `manifest.json`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    /// `null` where there is none, as Go writes it.
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// Writes the archive of `images`.
///
/// # Errors
/// A layer cannot be had again; `out` is closed.
pub(crate) fn write(images: &[Saved], open: &OpenLayer<'_>, out: &mut dyn Write) -> io::Result<()> {
    let mut archive = Archive { out, files: BTreeSet::new() };
    for folder in ["blobs/", "blobs/sha256/"] {
        archive.entry(folder, b'5', 0o755, 0)?;
    }
    let mut sizes = BTreeMap::new();
    for layer in images.iter().flat_map(|image| &image.layers) {
        if !sizes.contains_key(layer) {
            let (input, size) = open(*layer)?;
            archive.stream(&blob(layer.0), input, size)?;
            sizes.insert(*layer, size);
        }
    }
    let (mut index, mut items) = (Vec::new(), Vec::new());
    for image in images {
        index.extend(archive.image(image, &sizes)?);
        let tags = image.references.iter().map(Reference::familiar).collect::<Vec<_>>();
        items.push(Item {
            config: blob(image.id.0),
            repo_tags: (!tags.is_empty()).then_some(tags),
            layers: image.layers.iter().map(|layer| blob(layer.0)).collect(),
        });
    }
    archive.json("index.json", &json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": index}))?;
    archive.json("manifest.json", &items)?;
    archive.json("oci-layout", &json!({"imageLayoutVersion": "1.0.0"}))?;
    archive.out.write_all(&END)?;
    archive.out.flush()
}

fn blob(digest: Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

struct Archive<'a> {
    out: &'a mut dyn Write,
    /// What is in it already.
    files: BTreeSet<String>,
}

impl Archive<'_> {
    fn entry(&mut self, path: &str, flag: u8, mode: u32, size: u64) -> io::Result<()> {
        write_entry(self.out, &Entry { path: path.into(), flag, mode, size, ..Entry::default() })
    }

    fn file(&mut self, path: &str, bytes: &[u8]) -> io::Result<()> {
        if !self.files.insert(path.to_owned()) {
            return Ok(());
        }
        let size = bytes.len() as u64;
        self.entry(path, b'0', 0o644, size)?;
        self.out.write_all(bytes)?;
        write_padding(self.out, size)
    }

    fn json(&mut self, path: &str, value: &impl Serialize) -> io::Result<()> {
        self.file(path, &serde_json::to_vec(value)?)
    }

    fn stream(&mut self, path: &str, mut input: impl Read, size: u64) -> io::Result<()> {
        self.entry(path, b'0', 0o644, size)?;
        let (mut buffer, mut passed) = (vec![0; PIECE], 0);
        loop {
            // The end is read too: there the archive is held against its digest.
            let count = input.read(&mut buffer)?;
            passed += count as u64;
            if passed > size || (count == 0 && passed < size) {
                return Err(io::Error::other(format!("{path} has other than {size} bytes")));
            }
            if count == 0 {
                return write_padding(self.out, size);
            }
            self.out.write_all(&buffer[..count])?;
        }
    }

    /// Writes the documents of an image; what the index says of it, once a name.
    fn image(&mut self, image: &Saved, sizes: &BTreeMap<DiffId, u64>) -> io::Result<Vec<Value>> {
        self.file(&blob(image.id.0), &image.config)?;
        let plain = |media_type, digest: Digest, size| Descriptor {
            media_type,
            digest: digest.to_string(),
            size,
            annotations: BTreeMap::new(),
        };
        let layers: Vec<_> = image.layers.iter().map(|layer| plain(LAYER, layer.0, sizes[layer])).collect();
        let config = plain(CONFIG, image.id.0, image.config.len() as u64);
        let manifest = serde_json::to_vec(
            &json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}),
        )?;
        let digest = Digest::of(&manifest);
        self.file(&blob(digest), &manifest)?;
        let described = plain(MANIFEST, digest, manifest.len() as u64);
        if image.references.is_empty() {
            return Ok(vec![json!(described)]);
        }
        let named = image.references.iter().map(|reference| {
            let annotations = BTreeMap::from([
                ("io.containerd.image.name", reference.to_string()),
                ("org.opencontainers.image.ref.name", reference.tag().unwrap_or_default().to_owned()),
            ]);
            json!(Descriptor { annotations, ..described.clone() })
        });
        Ok(named.collect())
    }
}
