//! Control groups: where they are on this machine, and one container's place in them.
//!
//! Paths of hierarchies come from mountinfo and are passed in, so that tests can point at a folder of theirs.

mod devices;
mod v1;
mod v2;

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use skep_types::container::ContainerResources;

use crate::spec::DeviceNode;

/// A cgroup v1 hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hierarchy {
    /// Its controllers, or the one `name=` of a hierarchy without any.
    pub controllers: Vec<String>,
    /// Where its root is mounted.
    pub mount: PathBuf,
}

impl Hierarchy {
    fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|name| name == controller)
    }
}

/// The cgroups of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Layout {
    /// Controllers are in hierarchies of their own. With `unified`, "hybrid": a cgroup v2 tree without them.
    V1 {
        /// In the order of mountinfo.
        hierarchies: Vec<Hierarchy>,
        /// Where cgroup v2 is mounted.
        unified: Option<PathBuf>,
    },
    /// One tree.
    V2 {
        /// Where it is mounted.
        mount: PathBuf,
    },
}

/// Names that a v1 mount's options may hold and that are no controllers.
const OPTIONS: [&str; 12] = [
    "rw",
    "ro",
    "clone_children",
    "noprefix",
    "xattr",
    "cpuset_v2_mode",
    "favordynmods",
    "nofavordynmods",
    "none",
    "all",
    "relatime",
    "seclabel",
];

impl Layout {
    /// Reads the layout from the text of /proc/self/mountinfo. `None` where no cgroup is mounted.
    pub fn detect(mountinfo: &str) -> Option<Layout> {
        let mut hierarchies: Vec<Hierarchy> = Vec::new();
        let mut unified = None;
        for line in mountinfo.lines() {
            let (mount, filesystem) = line.split_once(" - ")?;
            let mut fields = mount.split(' ').skip(3);
            let (root, mount) = (fields.next()?, fields.next()?);
            let mut filesystem = filesystem.split(' ');
            let (kind, options) = (filesystem.next()?, filesystem.nth(1).unwrap_or_default());
            // A container's own view (root is not "/") is no hierarchy's root.
            match kind {
                "cgroup2" if root == "/" && unified.is_none() => unified = Some(PathBuf::from(mount)),
                "cgroup" if root == "/" => {
                    let controllers: Vec<String> = options
                        .split(',')
                        .filter(|option| !OPTIONS.contains(option) && !option.starts_with("release_agent="))
                        .map(str::to_owned)
                        .collect();
                    if !hierarchies.iter().any(|known| known.controllers == controllers) {
                        hierarchies.push(Hierarchy { controllers, mount: mount.into() });
                    }
                }
                _ => {}
            }
        }
        match (hierarchies.is_empty(), unified) {
            (true, None) => None,
            (true, Some(mount)) => Some(Layout::V2 { mount }),
            (false, unified) => Some(Layout::V1 { hierarchies, unified }),
        }
    }

    /// This container's place.
    pub fn group(&self, path: &str) -> Group<'_> {
        Group { layout: self, path: path.trim_matches('/').to_owned() }
    }

    /// Whether this is cgroup v2 alone.
    pub fn is_v2(&self) -> bool {
        matches!(self, Layout::V2 { .. })
    }
}

/// One container's place in every hierarchy.
#[derive(Debug)]
pub struct Group<'a> {
    layout: &'a Layout,
    path: String,
}

impl Group<'_> {
    /// Makes it, with its limits and with Docker's list of devices and those besides; `None` is every device.
    pub fn create(&self, resources: &ContainerResources, devices: Option<&[DeviceNode]>) -> io::Result<()> {
        let rules = devices.map(devices::rules);
        let rules = rules.as_deref();
        match self.layout {
            Layout::V1 { hierarchies, unified } => {
                for hierarchy in hierarchies {
                    v1::create(hierarchy, &self.path, resources, rules)?;
                }
                unified.as_ref().map_or(Ok(()), |mount| std::fs::create_dir_all(mount.join(&self.path)))
            }
            Layout::V2 { mount } => v2::create(mount, &self.path, resources, rules),
        }
    }

    /// Its folder in the v2 tree, if there is one: a new process can be born into it.
    pub fn unified(&self) -> Option<PathBuf> {
        match self.layout {
            Layout::V1 { unified, .. } => unified.as_ref().map(|mount| mount.join(&self.path)),
            Layout::V2 { mount } => Some(mount.join(&self.path)),
        }
    }

    /// Opens the folder in the v2 tree.
    pub fn open_unified(&self) -> Option<OwnedFd> {
        std::fs::File::open(self.unified()?).ok().map(OwnedFd::from)
    }

    /// Moves the calling process there; in the v2 tree only when it was not born into it.
    pub fn join(&self, born_into_unified: bool) -> io::Result<()> {
        if let Layout::V1 { hierarchies, .. } = self.layout {
            for hierarchy in hierarchies {
                write(&hierarchy.mount.join(&self.path).join("cgroup.procs"), "0")?;
            }
        }
        match self.unified() {
            Some(folder) if !born_into_unified => write(&folder.join("cgroup.procs"), "0"),
            _ => Ok(()),
        }
    }

    /// The folder whose list of processes is asked.
    fn processes_folder(&self) -> Option<PathBuf> {
        self.unified().or_else(|| match self.layout {
            Layout::V1 { hierarchies, .. } => hierarchies.first().map(|first| first.mount.join(&self.path)),
            Layout::V2 { .. } => None,
        })
    }

    /// Its processes, as the caller counts.
    pub fn processes(&self) -> io::Result<Vec<u32>> {
        let Some(folder) = self.processes_folder() else { return Ok(Vec::new()) };
        let text = std::fs::read_to_string(folder.join("cgroup.procs"))?;
        Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
    }

    /// Kills every process in it, also those that are being forked meanwhile.
    pub fn kill(&self) -> io::Result<()> {
        let processes = match self.processes() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            processes => processes?,
        };
        if processes.is_empty() {
            return Ok(());
        }
        if let Some(folder) = self.unified()
            && write(&folder.join("cgroup.kill"), "1").is_ok()
        {
            return Ok(());
        }
        // Without cgroup.kill (Linux 5.14) a fork can win once, not for ever: PID 1 of the namespace is among them.
        for _ in 0..16 {
            let processes = self.processes()?;
            if processes.is_empty() {
                break;
            }
            for pid in processes {
                let _ = crate::sys::kill(pid as i32, libc::SIGKILL);
            }
        }
        Ok(())
    }

    /// How many of its processes the kernel killed for want of memory.
    pub fn oom_kills(&self) -> u64 {
        let (folder, file) = match self.layout {
            Layout::V1 { hierarchies, .. } => {
                let memory = hierarchies.iter().find(|hierarchy| hierarchy.has("memory"));
                (memory.map(|hierarchy| hierarchy.mount.join(&self.path)), "memory.oom_control")
            }
            Layout::V2 { mount } => (Some(mount.join(&self.path)), "memory.events"),
        };
        let text =
            folder.and_then(|folder| std::fs::read_to_string(folder.join(file)).ok()).unwrap_or_default();
        text.lines()
            .find_map(|line| line.strip_prefix("oom_kill "))
            .and_then(|count| count.trim().parse().ok())
            .unwrap_or(0)
    }

    /// Processor time that its processes have used, in nanoseconds; `None` where nobody counts it.
    pub fn cpu_nanos(&self) -> Option<u64> {
        match self.layout {
            Layout::V1 { hierarchies, .. } => {
                let hierarchy = hierarchies.iter().find(|hierarchy| hierarchy.has("cpuacct"))?;
                let file = hierarchy.mount.join(&self.path).join("cpuacct.usage");
                std::fs::read_to_string(file).ok()?.trim().parse().ok()
            }
            Layout::V2 { mount } => {
                let text = std::fs::read_to_string(mount.join(&self.path).join("cpu.stat")).ok()?;
                let micros: u64 =
                    text.lines().find_map(|line| line.strip_prefix("usage_usec "))?.parse().ok()?;
                micros.checked_mul(1000)
            }
        }
    }

    /// Removes it from every hierarchy; carries on after a failure, and returns the first. One that is not there
    /// is no error.
    pub fn remove(&self) -> io::Result<()> {
        let mut folders: Vec<PathBuf> = match self.layout {
            Layout::V1 { hierarchies, .. } => {
                hierarchies.iter().map(|hierarchy| hierarchy.mount.join(&self.path)).collect()
            }
            Layout::V2 { .. } => Vec::new(),
        };
        folders.extend(self.unified());
        let mut result = Ok(());
        for folder in folders {
            let removed = remove_tree(&folder);
            if result.is_ok() {
                result = removed;
            }
        }
        result
    }

    /// Sources of the container's view of its own v1 cgroups: the hierarchy's name below /sys/fs/cgroup, and
    /// the folder on the host. As runc, without the v2 tree of a hybrid layout.
    pub fn v1_views(&self) -> Vec<(String, PathBuf)> {
        let Layout::V1 { hierarchies, .. } = self.layout else { return Vec::new() };
        let name = |mount: &Path| mount.file_name().map(|name| name.to_string_lossy().into_owned());
        hierarchies
            .iter()
            .map(|hierarchy| &hierarchy.mount)
            .filter_map(|mount| Some((name(mount)?, mount.join(&self.path))))
            .collect()
    }
}

/// Removes a cgroup and those that its processes made below it.
fn remove_tree(folder: &Path) -> io::Result<()> {
    let gone = |result: io::Result<()>| match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    };
    match std::fs::remove_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
            for entry in std::fs::read_dir(folder)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    gone(remove_tree(&entry.path()))?;
                }
            }
            gone(std::fs::remove_dir(folder))
        }
        result => result,
    }
}

/// Writes a control file, naming it in the error. In one call: the kernel takes a part for a whole value.
fn write(path: &Path, text: &str) -> io::Result<()> {
    use std::io::Write;
    std::fs::OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|error| named("write", path, error))
}

/// An error of an operation on a path, in Go's words.
fn named(operation: &str, path: &Path, error: io::Error) -> io::Error {
    let words = crate::protocol::words(&error);
    io::Error::new(error.kind(), format!("{operation} {}: {words}", path.display()))
}

/// CPU quota in microseconds a period of [`CPU_PERIOD_MICROSECONDS`], as Docker counts `--cpus`.
fn quota(nano_cpus: i64) -> i64 {
    nano_cpus.saturating_mul(CPU_PERIOD_MICROSECONDS) / 1_000_000_000
}

const CPU_PERIOD_MICROSECONDS: i64 = 100_000;

#[cfg(test)]
mod tests;
