//! Volumes of the local driver: folders `<data-root>/volumes/<name>/_data` with their metadata beside them.
//!
//! A volume appears by one rename, whole: with its metadata, and with what the image has at its mount point.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use skep_types::events::EventKind;
use skep_types::{ContainerId, Time};

use crate::clock::now;
use crate::disk::{self, Durability};
use crate::events::attributes;
use crate::options::VolumeCreate;
use crate::view::VolumeView;
use crate::{Engine, Error, ErrorKind, Result, blocking, names};

/// The label that Docker gives to volumes made without a name.
pub const ANONYMOUS_LABEL: &str = "com.docker.volume.anonymous";

const METADATA: &str = "volume.json";
const DATA: &str = "_data";

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Metadata {
    created_at: Time,
    labels: BTreeMap<String, String>,
}

#[derive(Debug)]
struct Volume {
    metadata: Metadata,
    users: BTreeSet<ContainerId>,
}

/// The volumes of a machine.
#[derive(Debug)]
pub(crate) struct Volumes {
    root: PathBuf,
    known: Mutex<BTreeMap<String, Volume>>,
    /// Held while an old but empty volume is filled, so that two containers do not both fill it.
    filling: Mutex<()>,
    /// How many volumes were staged, to name the next.
    staged: AtomicU64,
}

impl Volumes {
    /// Opens the volumes below `root`. What a crash left half made is removed.
    pub(crate) fn open(root: &Path) -> io::Result<Volumes> {
        disk::make_dir(root, 0o701)?;
        let mut known = BTreeMap::new();
        for entry in std::fs::read_dir(root)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with('.') {
                disk::remove_tree(&entry.path())?;
                continue;
            }
            if names::is_valid(&name) && entry.path().join(DATA).is_dir() {
                let metadata = read_metadata(&entry.path())?;
                known.insert(name, Volume { metadata, users: BTreeSet::new() });
            }
        }
        Ok(Volumes {
            root: root.to_owned(),
            known: Mutex::new(known),
            filling: Mutex::default(),
            staged: AtomicU64::default(),
        })
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Volume>> {
        // Nothing panics while it is held half-changed.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The folder that containers see.
    pub(crate) fn data(&self, name: &str) -> PathBuf {
        self.root.join(name).join(DATA)
    }

    /// Notes that a container uses a volume, and makes the volume unless it is there; tells whether it was made.
    /// `fill` writes into a volume that is empty.
    pub(crate) fn take(
        &self,
        name: &str,
        labels: BTreeMap<String, String>,
        user: Option<ContainerId>,
        fill: &dyn Fn(&Path) -> io::Result<()>,
    ) -> io::Result<bool> {
        if self.use_existing(name, user) {
            let filled = self.fill_if_empty(name, fill);
            if let (Err(_), Some(user)) = (&filled, user) {
                self.release(name, user);
            }
            return filled.map(|()| false);
        }
        let staged = self.root.join(format!(".new-{}", self.staged.fetch_add(1, Ordering::Relaxed)));
        let metadata = Metadata { created_at: now(), labels };
        let made =
            self.stage(&staged, &metadata, fill).and_then(|()| self.appear(name, &staged, metadata, user));
        if !matches!(made, Ok(true)) {
            // Another one was first, or the disk is full: what was staged is nobody's.
            disk::remove_tree(&staged)?;
        }
        let made = made?;
        if made && user.is_none() {
            // For a container, the flush of its record, which follows, carries the name of the volume with it.
            disk::sync_dir(&self.root)?;
        }
        Ok(made)
    }

    fn use_existing(&self, name: &str, user: Option<ContainerId>) -> bool {
        let mut known = self.known();
        let volume = known.get_mut(name);
        volume.map(|volume| volume.users.extend(user)).is_some()
    }

    fn fill_if_empty(&self, name: &str, fill: &dyn Fn(&Path) -> io::Result<()>) -> io::Result<()> {
        let data = self.data(name);
        let _alone = self.filling.lock().unwrap_or_else(PoisonError::into_inner);
        if std::fs::read_dir(&data)?.next().is_none() { fill(&data) } else { Ok(()) }
    }

    fn stage(
        &self,
        staged: &Path,
        metadata: &Metadata,
        fill: &dyn Fn(&Path) -> io::Result<()>,
    ) -> io::Result<()> {
        disk::remove_tree(staged)?;
        disk::make_dir(staged, 0o701)?;
        disk::make_dir(&staged.join(DATA), 0o755)?;
        fill(&staged.join(DATA))?;
        disk::write_json(&staged.join(METADATA), metadata, Durability::Content)
    }

    /// Makes a staged volume visible; false when one of its name appeared meanwhile, which is used instead.
    fn appear(
        &self,
        name: &str,
        staged: &Path,
        metadata: Metadata,
        user: Option<ContainerId>,
    ) -> io::Result<bool> {
        let mut known = self.known();
        if let Some(volume) = known.get_mut(name) {
            volume.users.extend(user);
            return Ok(false);
        }
        std::fs::rename(staged, self.root.join(name))?;
        known.insert(name.to_owned(), Volume { metadata, users: user.into_iter().collect() });
        Ok(true)
    }

    /// Notes that a container that was found at start uses a volume.
    pub(crate) fn found_user(&self, name: &str, user: ContainerId) {
        if !self.use_existing(name, Some(user)) {
            tracing::warn!("container {user} uses volume {name}, which is gone");
        }
    }

    /// Notes that a container uses a volume no longer.
    pub(crate) fn release(&self, name: &str, user: ContainerId) {
        if let Some(volume) = self.known().get_mut(name) {
            volume.users.remove(&user);
        }
    }

    /// The volumes that a container uses.
    pub(crate) fn used_by(&self, user: ContainerId) -> Vec<String> {
        let known = self.known();
        known
            .iter()
            .filter(|(_, volume)| volume.users.contains(&user))
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Removes a volume that nobody uses.
    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        let doomed = self.root.join(format!(".gone-{name}"));
        {
            let mut known = self.known();
            let volume = known.get(name).ok_or_else(|| no_such(name))?;
            if !volume.users.is_empty() {
                let users: Vec<String> = volume.users.iter().map(ContainerId::to_string).collect();
                let users = users.join(", ");
                return Err(Error::conflict(format!("remove {name}: volume is in use - [{users}]")));
            }
            let renamed =
                disk::remove_tree(&doomed).and_then(|()| std::fs::rename(self.root.join(name), &doomed));
            renamed.map_err(|error| Error::failed(format!("removing volume {name}"), &error))?;
            known.remove(name);
        }
        disk::remove_tree(&doomed).map_err(|error| Error::failed(format!("removing volume {name}"), &error))
    }

    fn view(&self, name: &str, volume: &Volume) -> VolumeView {
        VolumeView {
            name: name.to_owned(),
            mountpoint: self.data(name),
            created_at: volume.metadata.created_at,
            labels: volume.metadata.labels.clone(),
            anonymous: volume.metadata.labels.contains_key(ANONYMOUS_LABEL),
            containers: volume.users.len(),
        }
    }
}

/// Metadata of a volume; a folder without is one that another engine made.
fn read_metadata(volume: &Path) -> io::Result<Metadata> {
    match disk::read_json(&volume.join(METADATA)) {
        Ok(Some(metadata)) => Ok(metadata),
        Ok(None) => Ok(Metadata { created_at: modified(volume)?, labels: BTreeMap::new() }),
        Err(error) => {
            tracing::warn!(
                "the metadata of volume {} is damaged, its labels are lost: {error}",
                volume.display()
            );
            Ok(Metadata { created_at: modified(volume)?, labels: BTreeMap::new() })
        }
    }
}

fn modified(path: &Path) -> io::Result<Time> {
    Ok(std::fs::metadata(path)?.modified()?.into())
}

fn no_such(name: &str) -> Error {
    Error::not_found(format!("get {name}: no such volume"))
}

impl Engine {
    /// Makes a volume, or finds the one of that name.
    ///
    /// # Errors
    /// 400 for a name that Docker would refuse.
    pub async fn create_volume(&self, volume: VolumeCreate) -> Result<VolumeView> {
        let VolumeCreate { mut name, mut labels } = volume;
        if name.is_empty() {
            name = self.draw_id();
            labels.insert(ANONYMOUS_LABEL.to_owned(), String::new());
        }
        names::check_volume_name(&name)?;
        let engine = self.clone();
        let wanted = name.clone();
        let made = blocking(move || engine.shared.volumes.take(&wanted, labels, None, &|_| Ok(()))).await?;
        if made.map_err(|error| Error::failed(format!("create {name}"), &error))? {
            self.volume_event("create", &name);
        }
        self.inspect_volume(&name)
    }

    /// All volumes, by name.
    pub fn volumes(&self) -> Vec<VolumeView> {
        let volumes = &self.shared.volumes;
        volumes.known().iter().map(|(name, volume)| volumes.view(name, volume)).collect()
    }

    /// One volume.
    ///
    /// # Errors
    /// 404 `get x: no such volume`.
    pub fn inspect_volume(&self, name: &str) -> Result<VolumeView> {
        let volumes = &self.shared.volumes;
        let known = volumes.known();
        known.get(name).map(|volume| volumes.view(name, volume)).ok_or_else(|| no_such(name))
    }

    /// Removes a volume and its content. `force` forgives a name that is not there.
    ///
    /// # Errors
    /// 404, and 409 `remove x: volume is in use - [id]`.
    pub async fn remove_volume(&self, name: &str, force: bool) -> Result<()> {
        let (engine, wanted) = (self.clone(), name.to_owned());
        match blocking(move || engine.shared.volumes.remove(&wanted)).await? {
            Err(error) if force && error.kind == ErrorKind::NotFound => return Ok(()),
            result => result?,
        }
        self.volume_event("destroy", name);
        Ok(())
    }

    /// Removes the volumes that nobody uses and that `admits`: their names, and the bytes that were in them.
    ///
    /// # Errors
    /// Internal, when a walk panicked. What cannot be removed is logged, and stays.
    pub async fn prune_volumes(&self, admits: impl Fn(&VolumeView) -> bool) -> Result<(Vec<String>, u64)> {
        let (mut removed, mut bytes) = (Vec::new(), 0u64);
        for volume in self.volumes() {
            if volume.containers > 0 || !admits(&volume) {
                continue;
            }
            let size: u64 = self.volume_sizes(std::slice::from_ref(&volume)).await?.into_iter().sum();
            match self.remove_volume(&volume.name, false).await {
                Ok(()) => {
                    bytes = bytes.saturating_add(size);
                    removed.push(volume.name);
                }
                // Used meanwhile, or removed by somebody else.
                Err(error) if matches!(error.kind, ErrorKind::Conflict | ErrorKind::NotFound) => {}
                Err(error) => tracing::warn!("could not prune volume {}: {error}", volume.name),
            }
        }
        let reclaimed = attributes([("reclaimed", bytes.to_string())]);
        self.shared.events.emit(EventKind::Volume, "prune", "", reclaimed);
        Ok((removed, bytes))
    }

    /// Removes a volume that was made without a name, unless it is still used. What fails is logged.
    pub(crate) fn remove_if_anonymous(&self, name: &str) {
        if !self.inspect_volume(name).is_ok_and(|volume| volume.anonymous && volume.containers == 0) {
            return;
        }
        match self.shared.volumes.remove(name) {
            Ok(()) => self.volume_event("destroy", name),
            Err(error) => tracing::warn!("an anonymous volume stays: {error}"),
        }
    }

    pub(crate) fn volume_event(&self, action: &str, name: &str) {
        let driver = attributes([("driver", "local".to_owned())]);
        self.shared.events.emit(EventKind::Volume, action, name, driver);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    const NOBODY: &dyn Fn(&Path) -> io::Result<()> = &|_| Ok(());

    #[test]
    fn a_volume_in_use_stays() {
        let dir = tempfile::tempdir().unwrap();
        let volumes = Volumes::open(dir.path()).unwrap();
        let user = ContainerId([7; 32]);
        assert!(volumes.take("data", BTreeMap::new(), Some(user), NOBODY).unwrap());
        assert!(!volumes.take("data", BTreeMap::new(), Some(user), NOBODY).unwrap());
        let refused = volumes.remove("data").unwrap_err();
        assert_eq!(refused.message, format!("remove data: volume is in use - [{user}]"));
        volumes.release("data", user);
        volumes.remove("data").unwrap();
        assert_eq!(volumes.remove("data").unwrap_err().message, "get data: no such volume");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn volumes_are_found_again_and_half_made_ones_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let labels = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        Volumes::open(dir.path()).unwrap().take("kept", labels.clone(), None, NOBODY).unwrap();
        std::fs::create_dir_all(dir.path().join(".new-x/_data")).unwrap();
        std::fs::create_dir_all(dir.path().join("foreign/_data")).unwrap();
        let volumes = Volumes::open(dir.path()).unwrap();
        let known = volumes.known();
        assert_eq!(known.keys().collect::<Vec<_>>(), ["foreign", "kept"]);
        assert_eq!(known["kept"].metadata.labels, labels);
        assert!(!dir.path().join(".new-x").exists());
    }

    #[test]
    fn a_volume_that_cannot_be_filled_does_not_appear() {
        let dir = tempfile::tempdir().unwrap();
        let volumes = Volumes::open(dir.path()).unwrap();
        let full: &dyn Fn(&Path) -> io::Result<()> = &|_| Err(io::ErrorKind::StorageFull.into());
        assert!(volumes.take("data", BTreeMap::new(), None, full).is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        let fill: &dyn Fn(&Path) -> io::Result<()> = &|path| std::fs::write(path.join("seed"), "seed");
        assert!(volumes.take("data", BTreeMap::new(), None, fill).unwrap());
        let again: &dyn Fn(&Path) -> io::Result<()> = &|_| panic!("a volume with content is not filled");
        assert!(!volumes.take("data", BTreeMap::new(), None, again).unwrap());
    }
}
