//! The v2 tree: its folders, controllers and limits.

use std::fs::File;
use std::io;
use std::path::Path;

use skep_types::container::ContainerResources;

use super::devices::{self, Rule};
use super::{CPU_PERIOD_MICROSECONDS, quota, write};

/// Controllers that a container's limits and statistics need.
const WANTED: [&str; 5] = ["cpu", "cpuset", "io", "memory", "pids"];

/// Makes the folder `path` below `mount`, with the controllers that there are, and sets its limits. Without rules every
/// device may be used.
pub fn create(
    mount: &Path,
    path: &str,
    resources: &ContainerResources,
    rules: Option<&[Rule]>,
) -> io::Result<()> {
    let mut folder = mount.to_path_buf();
    for part in path.split('/') {
        enable_controllers(mount, &folder)?;
        folder.push(part);
        match std::fs::create_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made?,
        }
    }
    set_limits(&folder, resources)?;
    rules.map_or(Ok(()), |rules| devices::attach(&File::open(&folder)?, rules))
}

/// Lets the children of `folder` have every wanted controller that it has.
fn enable_controllers(mount: &Path, folder: &Path) -> io::Result<()> {
    let words = |file: &str| -> io::Result<Vec<String>> {
        let text = std::fs::read_to_string(folder.join(file))?;
        Ok(text.split_whitespace().map(str::to_owned).collect())
    };
    let enabled = words("cgroup.subtree_control")?;
    let missing: Vec<String> = words("cgroup.controllers")?
        .into_iter()
        .filter(|name| WANTED.contains(&name.as_str()) && !enabled.contains(name))
        .map(|name| format!("+{name}"))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let control = folder.join("cgroup.subtree_control");
    match write(&control, &missing.join(" ")) {
        // "No internal process": a root that is not the machine's own (a container's) may hold processes, and
        // must not while its children have controllers. They move to a leaf, as in Docker's own image.
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy && folder == mount => {
            evacuate(folder)?;
            write(&control, &missing.join(" "))
        }
        written => written,
    }
}

fn evacuate(folder: &Path) -> io::Result<()> {
    let leaf = folder.join("init");
    std::fs::create_dir_all(&leaf)?;
    for pid in std::fs::read_to_string(folder.join("cgroup.procs"))?.lines() {
        // One that ends meanwhile is no obstacle any more.
        let _ = write(&leaf.join("cgroup.procs"), pid);
    }
    Ok(())
}

fn set_limits(folder: &Path, resources: &ContainerResources) -> io::Result<()> {
    let set = |file: &str, value: String| write(&folder.join(file), &value);
    if resources.memory > 0 {
        set("memory.max", resources.memory.to_string())?;
        let swap = match resources.memory_swap {
            0 => resources.memory.to_string(),
            -1 => "max".to_owned(),
            both => both.saturating_sub(resources.memory).max(0).to_string(),
        };
        match set("memory.swap.max", swap) {
            // The kernel may count no swap; Docker warns of it when the container is created.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            written => written?,
        }
    }
    if resources.nano_cpus != 0 {
        set("cpu.max", format!("{} {CPU_PERIOD_MICROSECONDS}", quota(resources.nano_cpus)))?;
    }
    if resources.cpu_shares != 0 {
        set("cpu.weight", weight(resources.cpu_shares).to_string())?;
    }
    if resources.pids > 0 {
        set("pids.max", resources.pids.to_string())?;
    }
    Ok(())
}

/// Docker's shares (2 to 262144, 1024 by default) as a weight (1 to 10000), by runc's formula.
pub fn weight(shares: i64) -> i64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}
