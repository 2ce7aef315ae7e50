//! Devices of the machine that containers are given.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Stat, major, minor, stat};
use skep_runtime::spec::DeviceNode;
use skep_types::container::HostConfig;
use skep_types::device::{Device, DeviceAccess};

use crate::{Error, ErrorKind, Result};

/// Below /dev, what is of the machine's own file systems or consoles; runc's list.
const NOT_SHARED: [&str; 9] =
    ["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev", "console", "ptmx"];
/// Folders of devices lie no deeper than this.
const DEEPEST: usize = 8;

/// The nodes that a container's /dev has besides the default ones: all of the machine's in a privileged container.
///
/// # Errors
/// When a device does not exist, or is none. In moby's words.
pub(crate) fn nodes(host: &HostConfig) -> Result<Vec<DeviceNode>> {
    let mut nodes = Vec::new();
    for device in &host.devices {
        let refused = |error: io::Error| {
            let path = &device.host;
            let what =
                format!("error gathering device information while adding custom device {path:?}: {error}");
            Error::new(ErrorKind::Internal, what)
        };
        gather(Path::new(&device.host), device, &mut nodes).map_err(refused)?;
    }
    if host.privileged {
        let (place, access) = ("/dev", DeviceAccess::ALL);
        let all = Device { host: place.to_owned(), container: place.to_owned(), access };
        let unreadable =
            |error| Error::new(ErrorKind::Internal, format!("reading the machine's /dev: {error}"));
        walk(Path::new(place), &all, &mut nodes, DEEPEST).map_err(unreadable)?;
    }
    Ok(nodes)
}

/// What a user named: a device, or a folder with some.
fn gather(path: &Path, device: &Device, nodes: &mut Vec<DeviceNode>) -> io::Result<()> {
    let status = stat(path).map_err(|error| match error {
        rustix::io::Errno::NOENT => io::Error::other("no such file or directory"),
        other => other.into(),
    })?;
    if FileType::from_raw_mode(status.st_mode) != FileType::Directory {
        let node = node(path, &status, device).ok_or_else(|| io::Error::other("not a device node"))?;
        nodes.push(node);
        return Ok(());
    }
    let before = nodes.len();
    walk(path, device, nodes, DEEPEST)?;
    if nodes.len() == before { Err(io::Error::other("not a device node")) } else { Ok(()) }
}

/// All devices below a folder. Links are not followed: they name what is there already, or lead elsewhere.
fn walk(folder: &Path, device: &Device, nodes: &mut Vec<DeviceNode>, depth: usize) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if NOT_SHARED.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        let (path, kind) = (entry.path(), entry.file_type()?);
        if kind.is_dir() && depth > 0 {
            walk(&path, device, nodes, depth - 1)?;
        } else if !kind.is_symlink() && !kind.is_dir() {
            // It may go away meanwhile.
            nodes.extend(stat(&path).ok().and_then(|status| node(&path, &status, device)));
        }
    }
    Ok(())
}

/// The node of a device of the machine. `None` for what is no device, and outside of the container's /dev.
fn node(path: &Path, status: &Stat, device: &Device) -> Option<DeviceNode> {
    let kind = FileType::from_raw_mode(status.st_mode);
    if !matches!(kind, FileType::BlockDevice | FileType::CharacterDevice) {
        return None;
    }
    let below = path.strip_prefix(&device.host).ok()?;
    let place: PathBuf = [Path::new(&device.container), below].iter().collect();
    Some(DeviceNode {
        path: place.strip_prefix("/dev").ok()?.components().collect(),
        block: kind == FileType::BlockDevice,
        major: major(status.st_rdev),
        minor: minor(status.st_rdev),
        mode: status.st_mode & 0o7777,
        user: status.st_uid,
        group: status.st_gid,
        access: device.access,
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn given(text: &str) -> Result<Vec<DeviceNode>> {
        nodes(&HostConfig { devices: vec![text.parse().unwrap()], ..HostConfig::default() })
    }

    #[test]
    fn a_device_is_found_by_its_name_and_one_that_is_none_is_refused() {
        let null = given("/dev/null:/dev/deep/nothing:r").unwrap();
        let [node] = null.as_slice() else { panic!("{null:?}") };
        assert_eq!((node.path.as_path(), node.major, node.minor), (Path::new("deep/nothing"), 1, 3));
        assert!(node.access.read && !node.access.write && !node.block);
        let error = given("/dev/nope").unwrap_err().to_string();
        assert!(error.ends_with("custom device \"/dev/nope\": no such file or directory"), "{error}");
        let error = given("/etc/hostname:/dev/x").unwrap_err().to_string();
        assert!(error.ends_with("not a device node"), "{error}");
    }

    #[test]
    fn a_privileged_container_has_all_of_the_machine_but_its_terminals() {
        let all = nodes(&HostConfig { privileged: true, ..HostConfig::default() }).unwrap();
        assert!(all.iter().any(|node| node.path == Path::new("kmsg")), "{all:?}");
        assert!(!all.iter().any(|node| node.path.starts_with("pts")));
        assert_eq!(given("/dev:/dev/host").unwrap().len(), all.len());
    }
}
