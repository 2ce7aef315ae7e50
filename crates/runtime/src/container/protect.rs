//! Docker's masked and read-only paths.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{OFlags, ResolveFlags};
use rustix::mount::MountAttrFlags;

use super::mounts::{self, Root};

/// Hidden from containers: files below /proc. Docker's list.
const MASKED_PROC: [&str; 10] = [
    "acpi",
    "asound",
    "interrupts",
    "kcore",
    "keys",
    "latency_stats",
    "sched_debug",
    "scsi",
    "timer_list",
    "timer_stats",
];

/// Hidden from containers elsewhere.
const MASKED: [&str; 2] = ["/sys/devices/virtual/powercap", "/sys/firmware"];

/// Below /proc, these refuse writes.
const READ_ONLY_PROC: [&str; 5] = ["bus", "fs", "irq", "sys", "sysrq-trigger"];

/// Masks and protects. `proc` is the container's own proc; its paths are resolved in it alone and cross no link and no
/// mount, so that nothing that an image or a mount puts there can stand in for them (CVE-2025-52881).
pub fn protect(root: &Root, proc: &OwnedFd) -> io::Result<()> {
    for path in READ_ONLY_PROC {
        let Some(place) = open_proc(proc, path)? else { continue };
        let copy = mounts::copy(&place, Path::new(""), true)?;
        mounts::make_read_only(&copy, true)?;
        mounts::put(copy, place)?;
    }
    let null = null_device(root)?;
    let mut nothing = None;
    for path in MASKED_PROC {
        if let Some(place) = open_proc(proc, path)? {
            mask(&place, &null, &mut nothing)?;
        }
    }
    let mut mask_if_there = |path: &str| match root.open(Path::new(path), OFlags::PATH) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        place => mask(&place?, &null, &mut nothing).map(|()| true),
    };
    for path in MASKED {
        mask_if_there(path)?;
    }
    // Each processor's, where the first has one: it tells of the neighbours' load.
    for processor in 0..u32::MAX {
        if !mask_if_there(&format!("/sys/devices/system/cpu/cpu{processor}/thermal_throttle"))? {
            break;
        }
    }
    Ok(())
}

/// Hides a folder behind an empty one, anything else behind the null device.
fn mask(place: &OwnedFd, null: &OwnedFd, nothing: &mut Option<OwnedFd>) -> io::Result<()> {
    if !mounts::is_folder(place)? {
        return mounts::put(mounts::copy(null, Path::new(""), false)?, place);
    }
    // One empty file system serves for all: making one costs more than copying its mount.
    let empty = match nothing {
        Some(first) => mounts::copy(&*first, Path::new(""), false)?,
        None => {
            let empty = mounts::filesystem("tmpfs", &[], MountAttrFlags::MOUNT_ATTR_RDONLY)?;
            mounts::put(&empty, place)?;
            *nothing = Some(empty);
            return Ok(());
        }
    };
    mounts::put(empty, place)
}

/// Opens a path of proc itself. `None` where this kernel has none.
fn open_proc(proc: &OwnedFd, path: &str) -> io::Result<Option<OwnedFd>> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    match rustix::fs::openat2(proc, path, flags, rustix::fs::Mode::empty(), resolve) {
        Err(rustix::io::Errno::NOENT) => Ok(None),
        opened => Ok(Some(opened?)),
    }
}

/// The container's null device, made sure to be that one (CVE-2025-31133).
fn null_device(root: &Root) -> io::Result<OwnedFd> {
    let null = root.open(Path::new("/dev/null"), OFlags::PATH | OFlags::NOFOLLOW)?;
    if is_null(&null)? { Ok(null) } else { Err(io::Error::other("/dev/null is not the null device")) }
}

/// Whether this is the null device.
pub fn is_null(descriptor: &OwnedFd) -> io::Result<bool> {
    let status = rustix::fs::fstat(descriptor)?;
    let character = rustix::fs::FileType::from_raw_mode(status.st_mode).is_char_device();
    Ok(character && status.st_rdev == rustix::fs::makedev(1, 3))
}
