//! What an archive holds, collected as it passes.

use std::collections::BTreeMap;
use std::io::{BufReader, Read};
use std::path::PathBuf;

use crate::compression::{Compression, HEAD, read_full};
use crate::error::{ArchiveError, Failure, StoreError};
use crate::pipeline::{self, Unpacked};
use crate::store::{Pins, Staging};
use crate::tar::{self, Archive, Entry, Kind};
use crate::unpack::{Summary, clean};
use crate::{DiffId, Digest, Progress, Store};

/// Bytes read at once from the archive.
const BUFFER: usize = 256 * 1024;
/// Largest document (manifest, configuration, ...) that is read.
const DOCUMENT_LIMIT: u64 = 8 << 20;
/// Most bytes that documents and names together may have, since they are held in memory.
const HELD_LIMIT: u64 = 32 << 20;
/// Most files that an archive may hold.
const FILE_LIMIT: u64 = 100_000;
/// How many links may lead to a file.
const LINK_LIMIT: usize = 8;
/// Progress is told this often.
const PROGRESS_STEP: u64 = 1 << 20;

/// The files of an archive, by path.
pub(crate) struct Contents {
    files: BTreeMap<String, File>,
}

enum File {
    Layer(LayerFile),
    Document {
        bytes: Vec<u8>,
        digest: Digest,
    },
    Link(String),
    /// What could be neither unpacked nor kept, and why. It matters only if it is asked for.
    Unusable(ArchiveError),
}

impl File {
    /// Bytes of memory that it takes, but for small change.
    fn held(&self) -> u64 {
        let implicit = |path: &PathBuf| path.as_os_str().len();
        let bytes = match self {
            File::Document { bytes, .. } => bytes.len(),
            File::Link(target) => target.len(),
            File::Layer(LayerFile { origin: Origin::Staged { summary, .. }, .. }) => {
                summary.implicit.iter().map(implicit).sum()
            }
            File::Layer(_) | File::Unusable(_) => 0,
        };
        bytes as u64
    }
}

/// A layer of an archive.
pub(crate) struct LayerFile {
    pub(crate) diff_id: DiffId,
    blob: Digest,
    blob_size: u64,
    pub(crate) origin: Origin,
}

impl LayerFile {
    /// A layer with its blob's digest and length.
    pub(crate) fn new(diff_id: DiffId, blob: (Digest, u64), origin: Origin) -> LayerFile {
        LayerFile { diff_id, blob: blob.0, blob_size: blob.1, origin }
    }
}

/// Where a layer's files are.
pub(crate) enum Origin {
    /// In the store already, with this many bytes of files.
    Known { size: u64 },
    /// Unpacked into the staging folder.
    Staged { folder: PathBuf, summary: Summary },
}

/// All that collecting needs.
pub(crate) struct Source<'a> {
    pub(crate) store: &'a Store,
    pub(crate) staging: &'a Staging,
    /// Keeps the layers in the store that turn out to be known.
    pub(crate) pins: &'a mut Pins,
    pub(crate) progress: &'a mut dyn FnMut(Progress),
}

impl Contents {
    /// Reads an archive to its end.
    pub(crate) fn collect(input: &mut dyn Read, source: &mut Source<'_>) -> Result<Contents, Failure> {
        let mut head = [0; HEAD];
        let length = read_full(input, &mut head).map_err(Failure::from_read)?;
        let head = &head[..length];
        if head.is_empty() {
            return Err(ArchiveError::Truncated.into());
        }
        let decoded = Compression::sniff(head).decode(head.chain(input));
        let mut archive = Archive::new(BufReader::with_capacity(BUFFER, decoded));
        let mut contents = Contents { files: BTreeMap::new() };
        let (mut files, mut held) = (0, 0);
        while let Some(entry) = archive.next_entry()? {
            files += 1;
            if files > FILE_LIMIT {
                return Err(ArchiveError::Limit { what: "files", limit: FILE_LIMIT }.into());
            }
            let path = String::from_utf8_lossy(&clean(&entry.path)?).into_owned();
            let file = match entry.kind {
                Kind::File => read_file(&entry, &path, &mut archive, source)?,
                // `docker save` once wrote links for layers that images share.
                Kind::Symlink => File::Link(follow(&path, &entry.link)?),
                Kind::HardLink => File::Link(String::from_utf8_lossy(&clean(&entry.link)?).into_owned()),
                _ => continue,
            };
            held += path.len() as u64 + file.held();
            if held > HELD_LIMIT {
                let what = "bytes of documents and names";
                return Err(ArchiveError::Limit { what, limit: HELD_LIMIT }.into());
            }
            // As tar, the last entry of a name wins.
            contents.files.insert(path, file);
        }
        archive.drain()?;
        Ok(contents)
    }

    /// The contents of an archive that would hold nothing but these layers, by path.
    pub(crate) fn of_layers(layers: impl IntoIterator<Item = (String, LayerFile)>) -> Contents {
        Contents { files: layers.into_iter().map(|(path, layer)| (path, File::Layer(layer))).collect() }
    }

    pub(crate) fn has(&self, path: &str) -> bool {
        self.files.contains_key(path)
    }

    /// The layer at `path`.
    pub(crate) fn layer(&self, path: &str) -> Result<&LayerFile, Failure> {
        match self.file(path)? {
            (real, File::Layer(layer)) => check_name(real, layer.blob).map(|()| layer),
            _ => Err(ArchiveError::Header("a layer is not a tar archive").into()),
        }
    }

    /// The layer at `path`, to be taken out of the staging folder.
    pub(crate) fn layer_mut(&mut self, path: &str) -> Result<&mut LayerFile, Failure> {
        let real = self.file(path)?.0.to_owned();
        match self.files.get_mut(&real) {
            Some(File::Layer(layer)) => Ok(layer),
            _ => Err(ArchiveError::Missing(path.to_owned()).into()),
        }
    }

    /// The document at `path`.
    pub(crate) fn document(&self, path: &str) -> Result<&[u8], Failure> {
        match self.file(path)? {
            (real, File::Document { bytes, digest }) => check_name(real, *digest).map(|()| bytes.as_slice()),
            _ => Err(ArchiveError::Json { name: path.to_owned(), problem: "it is a tar archive".to_owned() }
                .into()),
        }
    }

    /// Digest and length of the file at `path`, as it is in the archive.
    pub(crate) fn measured(&self, path: &str) -> Result<(Digest, u64), Failure> {
        match self.file(path)?.1 {
            File::Layer(layer) => Ok((layer.blob, layer.blob_size)),
            File::Document { bytes, digest } => Ok((*digest, bytes.len() as u64)),
            File::Link(_) | File::Unusable(_) => unreachable!("links were followed and the rest refused"),
        }
    }

    /// The file that `path` leads to, and its own path.
    fn file(&self, path: &str) -> Result<(&str, &File), Failure> {
        let missing = || ArchiveError::Missing(path.to_owned());
        let mut real = String::from_utf8_lossy(&clean(path.as_bytes())?).into_owned();
        for _ in 0..LINK_LIMIT {
            match self.files.get_key_value(&real).ok_or_else(missing)? {
                (_, File::Link(target)) => real.clone_from(target),
                (_, File::Unusable(error)) => return Err(error.clone().into()),
                (real, file) => return Ok((real, file)),
            }
        }
        Err(missing().into())
    }
}

/// In the OCI layout a file's name is its digest.
fn check_name(path: &str, actual: Digest) -> Result<(), Failure> {
    match name_digest(path) {
        Some(expected) if expected != actual => {
            Err(ArchiveError::Digest { name: path.to_owned(), actual, expected }.into())
        }
        _ => Ok(()),
    }
}

fn name_digest(path: &str) -> Option<Digest> {
    path.strip_prefix("blobs/sha256/").and_then(Digest::from_hex)
}

/// The path that a symbolic link at `path` means; it must stay within the archive.
fn follow(path: &str, target: &[u8]) -> Result<String, ArchiveError> {
    let target = String::from_utf8_lossy(target);
    let mut components: Vec<&str> = path.split('/').collect();
    components.pop();
    for component in target.split('/') {
        match component {
            "" | "." => {}
            ".." => {
                let problem = "it is a link that leads out of the archive";
                components.pop().ok_or_else(|| ArchiveError::Path { path: path.to_owned(), problem })?;
            }
            name => components.push(name),
        }
    }
    Ok(components.join("/"))
}

fn read_file(
    entry: &Entry,
    path: &str,
    data: &mut dyn Read,
    source: &mut Source<'_>,
) -> Result<File, Failure> {
    if entry.segments.is_some() {
        return Ok(File::Unusable(ArchiveError::Unsupported("sparse files around layers")));
    }
    let mut head = [0; HEAD];
    let length = read_full(data, &mut head).map_err(Failure::from_read)?;
    let head = &head[..length];
    let is_layer = Compression::sniff(head) != Compression::Plain || tar::looks_like_tar(head);
    let mut data = head.chain(data);
    if is_layer {
        return read_layer(entry, path, &mut data, source);
    }
    if entry.size > DOCUMENT_LIMIT {
        return Ok(File::Unusable(ArchiveError::Limit {
            what: "bytes in a document",
            limit: DOCUMENT_LIMIT,
        }));
    }
    let mut bytes = Vec::new();
    data.read_to_end(&mut bytes).map_err(Failure::from_read)?;
    let digest = Digest::of(&bytes);
    Ok(File::Document { bytes, digest })
}

fn read_layer(
    entry: &Entry,
    path: &str,
    data: &mut dyn Read,
    source: &mut Source<'_>,
) -> Result<File, Failure> {
    let mut told = 0;
    let layer = short_name(path);
    let (progress, total) = (&mut *source.progress, entry.size);
    let mut passed = |current: u64| {
        if current >= told + PROGRESS_STEP || (current == total && told < total) {
            told = current;
            progress(Progress { layer: layer.clone(), current, total });
        }
    };
    // An uncompressed blob's name is its diff id: what is here already need not be unpacked again.
    if let Some(diff_id) = name_digest(path).map(DiffId)
        && let Some(size) = source.store.pin_layer(diff_id, source.pins)
    {
        let (blob, blob_size) = pipeline::measure(data, &mut passed)?;
        return Ok(File::Layer(LayerFile { diff_id, blob, blob_size, origin: Origin::Known { size } }));
    }
    let folder = source.staging.make_folder()?;
    match pipeline::unpack(data, &folder, &mut passed) {
        Ok(Unpacked { blob, blob_size, diff_id, summary }) => Ok(File::Layer(LayerFile {
            diff_id,
            blob,
            blob_size,
            origin: Origin::Staged { folder, summary },
        })),
        Err(Failure::Store(error)) => Err(error.into()),
        // It may be something that no image needs. If the archive itself is broken here, going on tells.
        Err(Failure::Archive(error)) => discard(&folder).map(|()| File::Unusable(error)),
        Err(Failure::Read(error)) => {
            discard(&folder).map(|()| File::Unusable(ArchiveError::Corrupt(error.to_string())))
        }
    }
}

fn discard(folder: &std::path::Path) -> Result<(), Failure> {
    crate::remove_tree::remove_tree(folder).map_err(|error: StoreError| error.into())
}

/// Twelve characters that tell a layer from the others: the start of the digest in its path, if it has one.
fn short_name(path: &str) -> String {
    let is_digest = |part: &&str| part.len() == 64 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let name = path.trim_end_matches(".tar").split('/').find(is_digest).unwrap_or(path);
    name.chars().take(12).collect()
}
