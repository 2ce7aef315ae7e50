//! One v1 hierarchy: its folder and its limits.

use std::io;
use std::path::Path;

use skep_types::container::ContainerResources;

use super::devices::Rule;
use super::{CPU_PERIOD_MICROSECONDS, Hierarchy, quota, write};

/// Makes the folder `path` in `hierarchy` and sets what its controllers limit. Without rules every device may be used.
pub fn create(
    hierarchy: &Hierarchy,
    path: &str,
    resources: &ContainerResources,
    rules: Option<&[Rule]>,
) -> io::Result<()> {
    let folder = hierarchy.mount.join(path);
    match std::fs::create_dir(&folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => create_parents(hierarchy, path)?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => made?,
    }
    if hierarchy.has("cpuset") {
        fill_cpuset(&folder)?;
    }
    if hierarchy.has("memory") {
        limit_memory(&folder, resources)?;
    }
    if hierarchy.has("cpu") {
        if resources.cpu_shares != 0 {
            write(&folder.join("cpu.shares"), &resources.cpu_shares.to_string())?;
        }
        if resources.nano_cpus != 0 {
            write(&folder.join("cpu.cfs_period_us"), &CPU_PERIOD_MICROSECONDS.to_string())?;
            write(&folder.join("cpu.cfs_quota_us"), &quota(resources.nano_cpus).to_string())?;
        }
    }
    if hierarchy.has("pids") && resources.pids > 0 {
        write(&folder.join("pids.max"), &resources.pids.to_string())?;
    }
    match rules {
        Some(rules) if hierarchy.has("devices") => restrict_devices(&folder, rules),
        _ => Ok(()),
    }
}

/// Makes every folder on the way.
fn create_parents(hierarchy: &Hierarchy, path: &str) -> io::Result<()> {
    let mut folder = hierarchy.mount.clone();
    for part in path.split('/') {
        folder.push(part);
        match std::fs::create_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            made => made?,
        }
        if hierarchy.has("cpuset") {
            fill_cpuset(&folder)?;
            // Those made below take over by themselves then, which saves two writes a container.
            write(&folder.join("cgroup.clone_children"), "1")?;
        }
    }
    Ok(())
}

/// A cpuset starts empty and takes no process then. Unless it was filled by its maker, or as its parent's clone, it
/// takes over its parent's; which another program may have left empty too, as runc leaves `docker` without clones.
fn fill_cpuset(folder: &Path) -> io::Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if !std::fs::read_to_string(folder.join(file))?.trim().is_empty() {
            continue;
        }
        let Some(parent) = folder.parent() else { continue };
        fill_cpuset(parent)?;
        let inherited = std::fs::read_to_string(parent.join(file))?;
        write(&folder.join(file), inherited.trim())?;
    }
    Ok(())
}

fn limit_memory(folder: &Path, resources: &ContainerResources) -> io::Result<()> {
    if resources.memory <= 0 {
        return Ok(());
    }
    write(&folder.join("memory.limit_in_bytes"), &resources.memory.to_string())?;
    let both = match resources.memory_swap {
        0 => resources.memory.saturating_mul(2),
        both => both,
    };
    match write(&folder.join("memory.memsw.limit_in_bytes"), &both.to_string()) {
        // The kernel may count no swap; Docker warns of it when the container is created.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        written => written,
    }
}

/// One rule a write, all through one opening.
fn restrict_devices(folder: &Path, rules: &[Rule]) -> io::Result<()> {
    write(&folder.join("devices.deny"), "a")?;
    let path = folder.join("devices.allow");
    let named = |error| super::named("write", &path, error);
    let allow = std::fs::OpenOptions::new().write(true).open(&path).map_err(named)?;
    rules.iter().try_for_each(|rule| {
        rustix::io::write(&allow, rule.to_string().as_bytes()).map(drop).map_err(|error| named(error.into()))
    })
}
