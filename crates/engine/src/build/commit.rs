//! `docker commit`: an image of what a container wrote.

use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat};
use skep_images::{Above, Draft, Hold, ImageConfig, ImageId, NewImage, Reference};

use super::{change, tree};
use crate::clock::now;
use crate::containers::registry::Container;
use crate::error::chain;
use crate::{Engine, Error, Result, blocking};

/// Files that the daemon mounts over, so that the runtime makes them where an image has none.
const MOUNTED_FILES: [&str; 3] = ["etc/hostname", "etc/hosts", "etc/resolv.conf"];
/// Folders of the same kind, inner ones first.
const MOUNTED_FOLDERS: [&str; 4] = ["etc", "dev", "proc", "sys"];

/// How a container becomes an image.
#[derive(Clone, Debug, Default)]
pub struct CommitOptions {
    /// The image's name.
    pub reference: Option<Reference>,
    /// Who made it.
    pub author: String,
    /// A message.
    pub comment: String,
    /// Instructions that change its configuration.
    pub changes: Vec<String>,
}

impl Engine {
    /// Makes an image of a container. What its processes are writing meanwhile may be in it half.
    ///
    /// # Errors
    /// 404; 400 for changes that are none.
    pub async fn commit(&self, name: &str, options: CommitOptions) -> Result<ImageId> {
        let (engine, container) = (self.clone(), self.find(name)?);
        let reference = options.reference.clone();
        // Until it has its name.
        let hold = std::sync::Arc::new(self.shared.images.hold());
        let held = std::sync::Arc::clone(&hold);
        let commit = async move {
            let _life = container.life.lock().await;
            let (working, committed) = (engine.clone(), std::sync::Arc::clone(&container));
            let id = blocking(move || working.commit_alone(&committed, &options, &held)).await??;
            engine.container_event_with(
                &container,
                "commit",
                crate::events::attributes([("imageID", id.to_string()), ("comment", String::new())]),
            );
            Ok(id)
        };
        let id = self.shared.tasks.run(commit).await?;
        if let Some(reference) = reference {
            self.tag_image(&id.to_string(), reference).await?;
        }
        Ok(id)
    }

    fn commit_alone(&self, container: &Container, options: &CommitOptions, hold: &Hold) -> Result<ImageId> {
        let failed = |error: &dyn std::error::Error| Error::internal(chain(error));
        let (record, images) = (&container.record, &self.shared.images);
        let base = images.find(&record.image_id.to_string()).map_err(crate::images::from_find)?;
        let config = settled(&record.config, base.config);
        let config = change::apply_changes(config, options.changes.iter().map(String::as_str))?;
        let below = images.draft(Some(record.image_id)).map_err(|error| failed(&error))?;
        let new = NewImage {
            parent: Some(record.image_id),
            config,
            created: now(),
            created_by: record.arguments().join(" "),
            author: options.author.clone(),
            comment: options.comment.clone(),
            step: None,
        };
        // What is mounted over must not change under a container that runs: the copy is tidied.
        let tidy = |copy: &Path| remove_mount_points(&below, copy);
        let above = Above::Copied(container.home.upper(), Box::new(tidy));
        hold.make_image(&new, above).map_err(|error| failed(&error))
    }
}

/// The configuration that a container was started with, as an image's (moby's `CreateImageFromContainer`).
fn settled(config: &skep_types::container::ContainerConfig, image: ImageConfig) -> ImageConfig {
    ImageConfig {
        user: config.user.clone(),
        exposed_ports: config.exposed_ports.iter().map(ToString::to_string).collect(),
        env: config.env.clone(),
        entrypoint: config.entrypoint.clone(),
        cmd: config.cmd.clone(),
        working_dir: config.working_dir.clone(),
        labels: config.labels.clone(),
        stop_signal: config.stop_signal.clone(),
        ..image
    }
}

/// Removes from a container's own files what its start put there to mount on, where the image below has none of it and
/// nobody wrote to it. A folder that was only copied up for that goes too.
pub(super) fn remove_mount_points(below: &Draft, upper: &Path) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let upper = rustix::fs::openat(CWD, upper, flags, Mode::empty())?;
    let stat_below = |path: &str| -> Option<Stat> {
        let found = tree::open(below.root(), path, OFlags::PATH | OFlags::NOFOLLOW).ok()?;
        rustix::fs::fstat(found).ok()
    };
    let is = |stat: &Stat, kind| FileType::from_raw_mode(stat.st_mode) == kind;
    for path in MOUNTED_FILES {
        let (parent, name) = tree::split(path);
        let Ok(folder) = tree::open(upper.as_fd(), parent, OFlags::RDONLY | OFlags::DIRECTORY) else {
            continue;
        };
        let Ok(stat) = rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        if is(&stat, FileType::RegularFile) && stat.st_size == 0 && stat_below(path).is_none() {
            rustix::fs::unlinkat(&folder, name, AtFlags::empty())?;
        }
    }
    for path in MOUNTED_FOLDERS {
        let Ok(stat) = rustix::fs::statat(&upper, path, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        let same = match stat_below(path) {
            Some(old) => (old.st_mode, old.st_uid, old.st_gid) == (stat.st_mode, stat.st_uid, stat.st_gid),
            None => true,
        };
        if is(&stat, FileType::Directory) && same && !is_opaque(&upper, path) {
            // One that is not empty stays.
            let _ = rustix::fs::unlinkat(&upper, path, AtFlags::REMOVEDIR);
        }
    }
    Ok(())
}

fn is_opaque(upper: &std::os::fd::OwnedFd, path: &str) -> bool {
    let mut value = [0; 1];
    let path = tree::by_descriptor(upper).join(path);
    rustix::fs::lgetxattr(path, "trusted.overlay.opaque", &mut value[..]).is_ok()
}
