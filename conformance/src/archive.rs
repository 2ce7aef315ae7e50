//! Image archives made by tests, sound ones and hostile ones.

use std::io::Read;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{EntryType, Header};

/// A layer's tar, or any other, entry by entry. Names and links are written as given, however hostile.
#[derive(Default)]
pub struct Layer {
    tar: Vec<u8>,
}

/// An image to be packed.
pub struct Image<'a> {
    /// `name:tag`, when it has one.
    pub tag: Option<&'a str>,
    /// Layers, the lowest first.
    pub layers: Vec<Vec<u8>>,
    /// The `config` section of its configuration.
    pub config: Value,
}

impl Layer {
    /// An empty layer.
    pub fn new() -> Layer {
        Layer::default()
    }

    /// A file of root's with `mode`.
    pub fn file(self, name: &str, mode: u32, content: &[u8]) -> Layer {
        self.entry(EntryType::Regular, name, "", mode, (0, 0), content)
    }

    /// A file of `owner` (user and group).
    pub fn file_of(self, name: &str, mode: u32, owner: (u64, u64), content: &[u8]) -> Layer {
        self.entry(EntryType::Regular, name, "", mode, owner, content)
    }

    /// A folder of root's with `mode`.
    pub fn folder(self, name: &str, mode: u32) -> Layer {
        self.entry(EntryType::Directory, name, "", mode, (0, 0), b"")
    }

    /// A symbolic link.
    pub fn symlink(self, name: &str, target: &str) -> Layer {
        self.entry(EntryType::Symlink, name, target, 0o777, (0, 0), b"")
    }

    /// A hard link to an entry of this archive.
    pub fn hard_link(self, name: &str, target: &str) -> Layer {
        self.entry(EntryType::Link, name, target, 0o644, (0, 0), b"")
    }

    /// Any entry.
    pub fn entry(
        mut self,
        kind: EntryType,
        name: &str,
        target: &str,
        mode: u32,
        owner: (u64, u64),
        content: &[u8],
    ) -> Layer {
        let mut header = Header::new_gnu();
        // Written by hand: the crate's own setters refuse what a hostile archive contains.
        let gnu = header.as_gnu_mut().expect("made as a GNU header");
        gnu.name[..name.len()].copy_from_slice(name.as_bytes());
        gnu.linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(owner.0);
        header.set_gid(owner.1);
        header.set_mtime(1_767_225_600);
        header.set_size(content.len() as u64);
        header.set_cksum();
        self.tar.extend_from_slice(header.as_bytes());
        self.tar.extend_from_slice(content);
        self.tar.resize(self.tar.len().next_multiple_of(512), 0);
        self
    }

    /// The tar with its end.
    pub fn finish(mut self) -> Vec<u8> {
        self.tar.resize(self.tar.len() + 1024, 0);
        self.tar
    }
}

impl Image<'_> {
    fn configuration(&self) -> Vec<u8> {
        let diff_ids: Vec<String> = self.layers.iter().map(|layer| digest(layer)).collect();
        let history: Vec<Value> =
            diff_ids.iter().map(|id| json!({"created": "2026-01-01T00:00:00Z", "created_by": id})).collect();
        let configuration = json!({
            "architecture": architecture(), "os": "linux", "created": "2026-01-01T00:00:00Z",
            "config": self.config, "rootfs": {"type": "layers", "diff_ids": diff_ids}, "history": history,
        });
        serde_json::to_vec(&configuration).unwrap()
    }

    /// The image's id: the digest of its configuration.
    pub fn id(&self) -> String {
        digest(&self.configuration())
    }

    /// As `docker save` packed it before Docker 25.
    pub fn docker_archive(&self) -> Vec<u8> {
        let configuration = self.configuration();
        let config_name = format!("{}.json", hex(&configuration));
        let names: Vec<String> = (0..self.layers.len()).map(|index| format!("{index}/layer.tar")).collect();
        let manifest = json!([{"Config": config_name, "RepoTags": self.tag.as_slice(), "Layers": names}]);
        let mut archive = Layer::new().file("manifest.json", 0o644, manifest.to_string().as_bytes()).file(
            &config_name,
            0o644,
            &configuration,
        );
        for (name, layer) in names.iter().zip(&self.layers) {
            archive = archive.file(name, 0o644, layer);
        }
        archive.finish()
    }

    /// As an OCI image layout. The tag is in the index's annotations, as containerd writes it.
    pub fn oci_archive(&self) -> Vec<u8> {
        let configuration = self.configuration();
        let layers: Vec<Value> = self
            .layers
            .iter()
            .map(|layer| descriptor("application/vnd.oci.image.layer.v1.tar", layer))
            .collect();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", &configuration), "layers": layers,
        });
        let manifest = serde_json::to_vec(&manifest).unwrap();
        let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
        if let Some(tag) = self.tag {
            entry["annotations"] = json!({
                "io.containerd.image.name": format!("docker.io/library/{tag}"),
                "org.opencontainers.image.ref.name": tag.rsplit(':').next(),
            });
        }
        let index = json!({"schemaVersion": 2, "manifests": [entry]});
        let mut archive = Layer::new().file("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#).file(
            "index.json",
            0o644,
            index.to_string().as_bytes(),
        );
        for blob in self.layers.iter().chain([&configuration, &manifest]) {
            archive = archive.file(&format!("blobs/sha256/{}", hex(blob)), 0o644, blob);
        }
        archive.finish()
    }
}

/// The one layer of the image `busybox` that `scripts/images` made.
pub fn busybox_layer() -> Vec<u8> {
    let archive = std::fs::File::open(crate::image_archive("busybox")).unwrap();
    let mut archive = tar::Archive::new(archive);
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.path().unwrap().ends_with("layer.tar") {
            let mut layer = Vec::new();
            entry.read_to_end(&mut layer).unwrap();
            return layer;
        }
    }
    panic!("busybox.tar has no layer.tar");
}

/// `sha256:` and the hexadecimal digest of `bytes`.
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(bytes))
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn descriptor(media_type: &str, blob: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(blob), "size": blob.len()})
}

fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}
