//! A container's files: its layers, Docker's default mounts, its own mounts, in a mount namespace of its own.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_string, fsmount, fsopen,
};
use skep_types::mount::Propagation;

use super::mounts::{self, Root, filesystem};
use super::{populate, protect};
use crate::cgroup::Layout;
use crate::protocol::Failure;
use crate::spec::{ContainerSpec, DeviceNode, Mount, MountKind, NetworkNamespace, ProtectedPaths, Rootfs};
use crate::sys::{self, MountAttributes};

const NOSUID: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID;
const NODEV: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NODEV;
const NOEXEC: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOEXEC;
const RDONLY: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_RDONLY;
const PLAIN: MountAttrFlags = NOSUID.union(NODEV).union(NOEXEC);

/// Bytes of /dev/shm when none are asked for.
const SHM_SIZE: u64 = 64 << 20;

/// Character devices of /dev, with mode 666.
const DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// Links of /dev.
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

fn failed(target: &Path) -> impl Fn(io::Error) -> Failure {
    move |error| Failure::new(format_args!("error mounting to rootfs at {target:?}"), error)
}

/// Builds everything and makes it the calling process's root, which has a mount namespace of its own.
///
/// The current directory is a folder that the root can be mounted on.
pub fn set_up(spec: &ContainerSpec, layout: &Layout) -> Result<Root, Failure> {
    // Sources are taken before propagation is cut, so that a shared bind stays a peer of the host's mount.
    let sources = spec.mounts.iter().map(source).collect::<Result<Vec<_>, _>>()?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).map_err(|error| Failure::new("remount-private /", error))?;
    let root =
        root_file_system(&spec.rootfs).map_err(|error| Failure::new("error mounting rootfs", error))?;
    let replaced = |target: &str| spec.mounts.iter().any(|mount| mount.target == Path::new(target));
    let proc = default_mounts(spec, layout, &root, &replaced)?;
    for (mount, source) in spec.mounts.iter().zip(sources) {
        add(&root, &proc, mount, source).map_err(failed(&mount.target))?;
    }
    if !spec.process.cwd.is_empty() {
        root.folder(Path::new(&spec.process.cwd))
            .map_err(|error| Failure::new(format_args!("mkdir {}", spec.process.cwd), error))?;
    }
    set_sysctls(spec, &proc)?;
    if spec.protected_paths == ProtectedPaths::Default {
        protect::protect(&root, &proc).map_err(|error| Failure::new("masking paths", error))?;
    }
    enter(&root).map_err(|error| Failure::new("pivot_root", error))?;
    Ok(root)
}

/// Makes the root refuse writes, once everything in it is made.
pub fn seal(root: &Root) -> Result<(), Failure> {
    mounts::make_read_only(&root.0, false).map_err(|error| Failure::new("remounting / as readonly", error))
}

/// The layers, mounted on the current directory.
fn root_file_system(rootfs: &Rootfs) -> io::Result<Root> {
    let mount = if rootfs.lower.is_empty() {
        mounts::copy_host(&rootfs.upper, false)?
    } else {
        match overlay(rootfs) {
            // "lowerdir+" is Linux 6.8's.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                overlay_by_options(rootfs)?;
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                return Ok(Root(rustix::fs::open(std::env::current_dir()?, flags, Mode::empty())?));
            }
            mount => mount?,
        }
    };
    let here = rustix::fs::open(".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    mounts::put(&mount, here)?;
    Ok(Root(mount))
}

fn overlay(rootfs: &Rootfs) -> io::Result<OwnedFd> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", "overlay")?;
    for layer in &rootfs.lower {
        fsconfig_set_string(&context, "lowerdir+", layer.as_path())?;
    }
    fsconfig_set_string(&context, "upperdir", rootfs.upper.as_path())?;
    fsconfig_set_string(&context, "workdir", rootfs.work.as_path())?;
    // An index would refuse an upper folder whose layers were unpacked anew; and what is written must stand for itself, as it
    // may become a layer.
    for option in ["index", "redirect_dir", "metacopy"] {
        let _ = fsconfig_set_string(&context, option, "off");
    }
    fsconfig_create(&context).map_err(|error| mounts::explained(&context, error))?;
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?)
}

/// The same for older kernels: options of at most a page, so layers are named from the folder that holds them.
fn overlay_by_options(rootfs: &Rootfs) -> io::Result<()> {
    let target = std::env::current_dir()?;
    let base = rootfs.lower.iter().skip(1).fold(rootfs.lower[0].clone(), |base, layer| {
        base.ancestors().find(|ancestor| layer.starts_with(ancestor)).unwrap_or(Path::new("/")).to_path_buf()
    });
    let base = if rootfs.lower.len() == 1 { PathBuf::from("/") } else { base };
    let layers: Vec<_> = rootfs
        .lower
        .iter()
        .map(|layer| layer.strip_prefix(&base).unwrap_or(layer).to_string_lossy().into_owned())
        .collect();
    rustix::process::chdir(&base)?;
    let (upper, work) = (rootfs.upper.display(), rootfs.work.display());
    let options = format!(
        "index=off,redirect_dir=off,metacopy=off,lowerdir={},upperdir={upper},workdir={work}",
        layers.join(":")
    );
    let options = std::ffi::CString::new(options)?;
    let mounted =
        rustix::mount::mount("overlay", &target, "overlay", MountFlags::empty(), Some(options.as_c_str()));
    rustix::process::chdir(&target)?;
    Ok(mounted?)
}

/// Docker's mounts, in its order. Returns the new proc, whatever is later mounted over it.
fn default_mounts(
    spec: &ContainerSpec,
    layout: &Layout,
    root: &Root,
    replaced: &dyn Fn(&str) -> bool,
) -> Result<OwnedFd, Failure> {
    let at = |path: &str, make: &dyn Fn() -> io::Result<OwnedFd>| -> Result<(), Failure> {
        let put = || mounts::put(make()?, root.plain_folder(Path::new(path))?);
        if replaced(path) { Ok(()) } else { put().map_err(failed(Path::new(path))) }
    };
    let proc = filesystem("proc", &[], PLAIN)
        .and_then(|proc| mounts::put(&proc, root.plain_folder(Path::new("/proc"))?).map(|()| proc))
        .map_err(failed(Path::new("/proc")))?;
    at("/dev", &|| device_folder(&spec.devices))?;
    at("/dev/pts", &|| {
        let options = [("newinstance", ""), ("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")];
        filesystem("devpts", &options, NOSUID.union(NOEXEC))
    })?;
    at("/dev/mqueue", &|| filesystem("mqueue", &[], PLAIN))?;
    let size = if spec.shm_size == 0 { SHM_SIZE } else { spec.shm_size };
    at("/dev/shm", &|| filesystem("tmpfs", &[("mode", "1777"), ("size", &size.to_string())], PLAIN))?;
    let guarded = if spec.privileged { PLAIN } else { PLAIN.union(RDONLY) };
    at("/sys", &|| filesystem("sysfs", &[], guarded))?;
    let cgroups = "/sys/fs/cgroup";
    if !replaced("/sys") && !layout.is_v2() && !replaced(cgroups) {
        mount_v1_cgroups(root, layout, spec, guarded).map_err(failed(Path::new(cgroups)))?;
    } else if !replaced("/sys") {
        at(cgroups, &|| filesystem("cgroup2", &[], guarded))?;
    }
    Ok(proc)
}

/// /dev with its nodes, links and folders, and with what the container is given besides.
fn device_folder(given: &[DeviceNode]) -> io::Result<OwnedFd> {
    let attributes = NOSUID.union(MountAttrFlags::MOUNT_ATTR_STRICTATIME);
    let folder = filesystem("tmpfs", &[("mode", "755"), ("size", "65536k")], attributes)?;
    for (name, major, minor) in DEVICES {
        let device = rustix::fs::makedev(major, minor);
        rustix::fs::mknodat(&folder, name, FileType::CharacterDevice, Mode::from_raw_mode(0o666), device)?;
    }
    // Not every kernel has it; then runc makes no link.
    let core = Path::new("/proc/kcore").exists().then_some(("core", "/proc/kcore"));
    for (name, target) in LINKS.into_iter().chain(core) {
        rustix::fs::symlinkat(target, &folder, name)?;
    }
    for name in ["pts", "mqueue", "shm"] {
        rustix::fs::mkdirat(&folder, name, Mode::from_raw_mode(0o755))?;
    }
    for device in given {
        add_device(&folder, device)?;
    }
    Ok(folder)
}

/// Makes a device's node, unless its name is taken, and the folders that lead to it.
fn add_device(folder: &OwnedFd, device: &DeviceNode) -> io::Result<()> {
    let unless_there = |made: rustix::io::Result<()>| match made {
        Err(rustix::io::Errno::EXIST) => Ok(false),
        made => made.map(|()| true),
    };
    // Nothing but what is made here is in the folder, so that no link leads out of it.
    for parent in device.path.ancestors().skip(1).collect::<Vec<_>>().into_iter().rev() {
        if parent != Path::new("") {
            unless_there(rustix::fs::mkdirat(folder, parent, Mode::from_raw_mode(0o755)))?;
        }
    }
    let kind = if device.block { FileType::BlockDevice } else { FileType::CharacterDevice };
    let number = rustix::fs::makedev(device.major, device.minor);
    let mode = Mode::from_raw_mode(device.mode);
    if unless_there(rustix::fs::mknodat(folder, &device.path, kind, mode, number))? {
        let (user, group) = (rustix::fs::Uid::from_raw(device.user), rustix::fs::Gid::from_raw(device.group));
        rustix::fs::chownat(folder, &device.path, Some(user), Some(group), rustix::fs::AtFlags::empty())?;
    }
    Ok(())
}

/// A folder that shows the container's own place in each v1 hierarchy, with these attributes.
fn mount_v1_cgroups(
    root: &Root,
    layout: &Layout,
    spec: &ContainerSpec,
    attributes: MountAttrFlags,
) -> io::Result<()> {
    let folder = filesystem("tmpfs", &[("mode", "755")], PLAIN)?;
    mounts::put(&folder, root.plain_folder(Path::new("/sys/fs/cgroup"))?)?;
    for (name, source) in layout.group(&spec.cgroup).v1_views() {
        let view = mounts::copy_host(&source, false)?;
        let set = u64::from(attributes.bits());
        sys::mount_setattr(view.as_fd(), false, &MountAttributes { set, ..MountAttributes::default() })?;
        rustix::fs::mkdirat(&folder, &name, Mode::from_raw_mode(0o755))?;
        mounts::put(view, mounts::open_inside(&folder, Path::new(&name), OFlags::PATH)?)?;
        // The controllers of a common hierarchy are found by their own names, too.
        for alias in name.split(',').filter(|alias| *alias != name) {
            rustix::fs::symlinkat(&name, &folder, alias)?;
        }
    }
    if spec.privileged { Ok(()) } else { mounts::make_read_only(&folder, false) }
}

/// Opens a mount's source. `None` for what has none.
fn source(mount: &Mount) -> Result<Option<OwnedFd>, Failure> {
    let MountKind::Bind { source, .. } = &mount.kind else { return Ok(None) };
    mounts::copy_host(source, true).map(Some).map_err(|error| {
        Failure::new(format_args!("error mounting {source:?} to rootfs at {:?}", mount.target), error)
    })
}

fn add(root: &Root, proc: &OwnedFd, mount: &Mount, source: Option<OwnedFd>) -> io::Result<()> {
    let made = match &mount.kind {
        MountKind::Bind { propagation, populate, .. } => {
            let source = source.expect("a bind's source was opened");
            if *populate && mounts::is_folder(&source)? {
                populate::populate(root, &mount.target, &source)?;
            }
            let (flags, recursive) = match propagation {
                Propagation::Private => (libc::MS_PRIVATE, false),
                Propagation::Rprivate => (libc::MS_PRIVATE, true),
                Propagation::Slave => (libc::MS_SLAVE, false),
                Propagation::Rslave => (libc::MS_SLAVE, true),
                Propagation::Shared => (libc::MS_SHARED, false),
                Propagation::Rshared => (libc::MS_SHARED, true),
            };
            let propagate = |flags, recursive| {
                let attributes = MountAttributes { propagation: flags, ..MountAttributes::default() };
                sys::mount_setattr(source.as_fd(), recursive, &attributes)
            };
            if flags != libc::MS_SHARED && !recursive {
                // As under runc's root, whose mounts are slaves: those below the bind are no peers of the host's.
                propagate(libc::MS_SLAVE, true)?;
            }
            propagate(flags, recursive)?;
            source
        }
        MountKind::Tmpfs { size_bytes, mode } => {
            let mode = format!("{:o}", if *mode == 0 { 0o1777 } else { *mode });
            let size = size_bytes.to_string();
            let mut options = vec![("mode", mode.as_str())];
            if *size_bytes != 0 {
                options.push(("size", size.as_str()));
            }
            filesystem("tmpfs", &options, PLAIN)?
        }
    };
    if mount.read_only {
        mounts::make_read_only(&made, true)?;
    }
    let place = root.place_for(&made, &mount.target)?;
    refuse_proc(proc, &place)?;
    mounts::put(made, place)
}

/// Nothing is mounted inside /proc: a program could be made to write its label or limits to a file of the image's.
fn refuse_proc(proc: &OwnedFd, place: &OwnedFd) -> io::Result<()> {
    let (proc, place) = (rustix::fs::fstat(proc)?, rustix::fs::fstat(place)?);
    if proc.st_dev == place.st_dev {
        return Err(io::Error::other("cannot be mounted because it is inside /proc"));
    }
    Ok(())
}

/// What Docker lets everybody do where the network is the container's own: bind low ports, and ping.
const NETWORK_SYSCTLS: [(&str, &str); 2] =
    [("net.ipv4.ip_unprivileged_port_start", "0"), ("net.ipv4.ping_group_range", "0 2147483647")];

/// Writes kernel parameters through our own proc, so that nothing of the image's can stand in for it.
fn set_sysctls(spec: &ContainerSpec, proc: &OwnedFd) -> Result<(), Failure> {
    let failed = |name: &str, error| Failure::new(format_args!("open sysctl {name}"), error);
    if matches!(spec.network, NetworkNamespace::Path(_)) {
        for (name, value) in NETWORK_SYSCTLS.into_iter().filter(|(name, _)| !spec.sysctls.contains_key(*name))
        {
            match set_sysctl(proc, name, value) {
                // A kernel may have neither.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                set => set.map_err(|error| failed(name, error))?,
            }
        }
    }
    spec.sysctls
        .iter()
        .try_for_each(|(name, value)| set_sysctl(proc, name, value).map_err(|error| failed(name, error)))
}

fn set_sysctl(proc: &OwnedFd, name: &str, value: &str) -> io::Result<()> {
    let path = PathBuf::from(format!("sys/{}", name.replace('.', "/")));
    let file = mounts::open_inside(proc, &path, OFlags::WRONLY)?;
    rustix::io::write(&file, value.as_bytes())?;
    Ok(())
}

/// Makes `root` the root, and lets go of the host's.
fn enter(root: &Root) -> io::Result<()> {
    let old =
        rustix::fs::openat(CWD, "/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::process::fchdir(&root.0)?;
    rustix::process::pivot_root(".", ".")?;
    rustix::process::fchdir(&old)?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    Ok(rustix::process::chdir("/")?)
}
