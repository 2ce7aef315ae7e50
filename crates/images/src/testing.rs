//! Archives made from scratch, for tests.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

use crate::config::architecture;
use crate::{Digest, LoadError, LoadedImage, Store};

/// A store in a folder of its own, which goes with it.
pub(crate) struct TestStore {
    pub(crate) store: Store,
    pub(crate) folder: tempfile::TempDir,
}

impl TestStore {
    pub(crate) fn new() -> TestStore {
        let folder = memory_folder();
        TestStore { store: Store::open(&folder.path().join("images")).unwrap(), folder }
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.folder.path().join("images")
    }

    /// Opens it again, as after the end of the process.
    pub(crate) fn reopen(self) -> TestStore {
        let TestStore { store, folder } = self;
        drop(store);
        TestStore { store: Store::open(&folder.path().join("images")).unwrap(), folder }
    }

    pub(crate) fn load(&self, archive: &[u8]) -> Result<Vec<LoadedImage>, LoadError> {
        load(&self.store, archive)
    }

    /// Everything in the store is referred to, and everything referred to is there.
    pub(crate) fn check(&self) {
        check_store(&self.store, &self.root());
    }
}

/// A folder in memory: where a test is not about the disk, there is no reason to wait for it.
pub(crate) fn memory_folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap()
}

/// The one place that calls `load`.
pub(crate) fn load(store: &Store, archive: &[u8]) -> Result<Vec<LoadedImage>, LoadError> {
    store.load(&mut &archive[..], &mut |_| {})
}

/// See [`TestStore::check`].
pub(crate) fn check_store(store: &Store, root: &Path) {
    let names = |folder: &str| -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(root.join(folder))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names("tmp"), [""; 0], "nothing temporary stays");
    let images = store.list().unwrap();
    let mut configs: Vec<String> = images.iter().map(|image| image.id.0.hex()).collect();
    configs.sort();
    assert_eq!(names("configs"), configs);
    let mut layers: Vec<String> = images
        .iter()
        .flat_map(|image| store.layer_paths(&image.id).unwrap())
        .filter(|path| path.parent() == Some(&root.canonicalize().unwrap().join("layers")))
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    layers.sort();
    layers.dedup();
    assert_eq!(names("layers"), layers);
    let strays: Vec<String> = names("recipes").into_iter().filter(|name| !layers.contains(name)).collect();
    assert_eq!(strays, [""; 0], "recipes are of layers");
    for image in &images {
        for tag in &image.tags {
            assert_eq!(store.find(tag).unwrap().id, image.id);
        }
    }
}

/// A layer's archive that is being made.
pub(crate) struct Layer(Builder<Vec<u8>>);

impl Layer {
    pub(crate) fn new() -> Layer {
        Layer(Builder::new(Vec::new()))
    }

    pub(crate) fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }

    pub(crate) fn file(self, path: &str, content: &[u8]) -> Layer {
        self.entry(EntryType::Regular, path, "", content, |_| {})
    }

    pub(crate) fn folder(self, path: &str) -> Layer {
        self.entry(EntryType::Directory, path, "", b"", |header| header.set_mode(0o755))
    }

    pub(crate) fn symlink(self, path: &str, target: &str) -> Layer {
        self.entry(EntryType::Symlink, path, target, b"", |_| {})
    }

    pub(crate) fn hard_link(self, path: &str, target: &str) -> Layer {
        self.entry(EntryType::Link, path, target, b"", |_| {})
    }

    pub(crate) fn pax(mut self, records: &[(&str, &[u8])]) -> Layer {
        self.0.append_pax_extensions(records.iter().copied()).unwrap();
        self
    }

    /// Any entry: the path is written as it is.
    pub(crate) fn entry(
        mut self,
        kind: EntryType,
        path: &str,
        link: &str,
        content: &[u8],
        change: impl FnOnce(&mut Header),
    ) -> Layer {
        let mut header = Header::new_ustar();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(1_600_000_000);
        header.set_uid(0);
        header.set_gid(0);
        change(&mut header);
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }
}

/// A layer with one file.
pub(crate) fn simple_layer(name: &str) -> Vec<u8> {
    Layer::new().file(name, name.as_bytes()).bytes()
}

pub(crate) fn config_of(layers: &[Vec<u8>], extra: Value) -> Vec<u8> {
    let mut config = json!({
        "architecture": architecture(),
        "os": "linux",
        "created": "2024-01-02T03:04:05Z",
        "config": { "Cmd": ["true"], "Env": ["A=b"] },
        "rootfs": { "type": "layers", "diff_ids": layers.iter().map(|layer| Digest::of(layer).to_string()).collect::<Vec<_>>() },
        "history": layers.iter().map(|_| json!({ "created_by": "test" })).collect::<Vec<_>>(),
    });
    for (key, value) in extra.as_object().into_iter().flatten() {
        config[key] = value.clone();
    }
    serde_json::to_vec(&config).unwrap()
}

/// An archive as Docker before 25 saved it.
pub(crate) fn docker_archive(tags: &[&str], layers: &[Vec<u8>]) -> Vec<u8> {
    let config = config_of(layers, json!({}));
    let config_name = format!("{}.json", Digest::of(&config).hex());
    let paths: Vec<String> =
        layers.iter().map(|layer| format!("{}/layer.tar", Digest::of(layer).hex())).collect();
    let manifest = json!([{ "Config": config_name, "RepoTags": tags, "Layers": paths }]);
    let mut files: Vec<(String, Vec<u8>)> = paths.into_iter().zip(layers.iter().cloned()).collect();
    files.push((config_name, config));
    files.push(("manifest.json".to_owned(), serde_json::to_vec(&manifest).unwrap()));
    archive(&files)
}

/// Files of an OCI layout that is being made.
#[derive(Default)]
pub(crate) struct Oci {
    pub(crate) files: Vec<(String, Vec<u8>)>,
}

impl Oci {
    /// Adds a blob; its descriptor.
    pub(crate) fn blob(&mut self, bytes: &[u8]) -> Value {
        let digest = Digest::of(bytes);
        self.files.push((format!("blobs/sha256/{}", digest.hex()), bytes.to_vec()));
        json!({ "digest": digest.to_string(), "size": bytes.len(), "mediaType": "application/octet-stream" })
    }

    /// Adds an image whose layers are stored as `encode` makes them; its manifest's descriptor.
    pub(crate) fn image(&mut self, layers: &[Vec<u8>], encode: impl Fn(&[u8]) -> Vec<u8>) -> Value {
        let config = config_of(layers, json!({}));
        let config = self.blob(&config);
        let layers: Vec<Value> = layers.iter().map(|layer| self.blob(&encode(layer))).collect();
        let manifest = json!({ "schemaVersion": 2, "config": config, "layers": layers });
        self.blob(&serde_json::to_vec(&manifest).unwrap())
    }

    pub(crate) fn index(&mut self, manifests: &[Value]) -> Value {
        self.blob(&serde_json::to_vec(&json!({ "schemaVersion": 2, "manifests": manifests })).unwrap())
    }

    pub(crate) fn finish(mut self, manifests: &[Value]) -> Vec<u8> {
        let index = json!({ "schemaVersion": 2, "manifests": manifests });
        self.files.push(("index.json".to_owned(), serde_json::to_vec(&index).unwrap()));
        self.files.push(("oci-layout".to_owned(), b"{\"imageLayoutVersion\":\"1.0.0\"}".to_vec()));
        archive(&self.files)
    }
}

pub(crate) fn with(mut descriptor: Value, key: &str, value: Value) -> Value {
    descriptor[key] = value;
    descriptor
}

pub(crate) fn archive(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, path, content.as_slice()).unwrap();
    }
    builder.into_inner().unwrap()
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Compressed by a program.
pub(crate) fn piped(program: &str, bytes: &[u8]) -> Vec<u8> {
    use std::process::{Command, Stdio};
    let child = Command::new(program).arg("-c").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut child = child.unwrap();
    let mut input = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || input.write_all(bytes).unwrap());
        child.wait_with_output().unwrap()
    });
    assert!(output.status.success());
    output.stdout
}

pub(crate) fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}
