//! What a container is made of: the client's wishes merged with the image's configuration, checked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use skep_images::ImageConfig;
use skep_types::container::{ContainerConfig, ContainerResources};
use skep_types::mount::{Mount, MountSource, Propagation};

use super::record::{MountRecord, MountedFrom};
use super::{health, kernel};
use crate::{Error, Result, files, names, signals};

/// Docker's smallest memory limit, in bytes.
const MEMORY_MIN: i64 = 6 * 1024 * 1024;
/// What PATH is unless the image or the client says otherwise. Docker's.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Adds the image's configuration where the client left something open (as Docker's `merge`).
pub(crate) fn merge(mut config: ContainerConfig, image: &ImageConfig) -> Result<ContainerConfig> {
    if config.entrypoint.as_ref().is_none_or(Vec::is_empty) {
        if config.cmd.as_ref().is_none_or(Vec::is_empty) {
            config.cmd = image.cmd.clone();
        }
        config.entrypoint = config.entrypoint.or_else(|| image.entrypoint.clone());
    }
    // The client's way to ask for no entrypoint at all.
    if config.entrypoint.as_ref().is_some_and(|entrypoint| entrypoint.as_slice() == [""]) {
        config.entrypoint = None;
    }
    let is_empty = |words: &Option<Vec<String>>| words.as_ref().is_none_or(Vec::is_empty);
    if is_empty(&config.entrypoint) && is_empty(&config.cmd) {
        return Err(Error::invalid("no command specified"));
    }
    let named: BTreeSet<String> = config.env.iter().map(|entry| variable(entry).to_owned()).collect();
    config.env.extend(image.env.iter().filter(|entry| !named.contains(variable(entry))).cloned());
    for (name, value) in &image.labels {
        config.labels.entry(name.clone()).or_insert_with(|| value.clone());
    }
    let fill = |text: &mut String, default: &String| {
        if text.is_empty() {
            text.clone_from(default);
        }
    };
    fill(&mut config.working_dir, &image.working_dir);
    fill(&mut config.user, &image.user);
    fill(&mut config.stop_signal, &image.stop_signal);
    let inherited = health::of_image(image.healthcheck.as_ref());
    config.health = match config.health {
        Some(check) => Some(check.inheriting(inherited.as_ref())),
        None => inherited,
    };
    config.exposed_ports.extend(image.exposed_ports.iter().filter_map(|port| read_port(port)));
    config.exposed_ports.extend(config.host.ports.iter().map(|binding| binding.container));
    Ok(config)
}

fn variable(entry: &str) -> &str {
    entry.split_once('=').map_or(entry, |(name, _)| name)
}

fn read_port(text: &str) -> Option<skep_types::port::ContainerPort> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    Some(skep_types::port::ContainerPort { port: port.parse().ok()?, protocol: protocol.parse().ok()? })
}

/// Refuses what makes no sense, before anything is made.
pub(crate) fn check(config: &ContainerConfig, cpus: usize) -> Result<()> {
    if !config.working_dir.is_empty() && !config.working_dir.starts_with('/') {
        let dir = &config.working_dir;
        return Err(Error::invalid(format!(
            "the working directory '{dir}' is invalid, it needs to be an absolute path"
        )));
    }
    if let Some(entry) = config.env.iter().find(|entry| variable(entry).is_empty() || entry.contains('\0')) {
        return Err(Error::invalid(format!("invalid environment variable: {entry}")));
    }
    let texts = [
        ("hostname", &config.hostname),
        ("domain name", &config.domainname),
        ("user", &config.user),
        ("working directory", &config.working_dir),
    ];
    if let Some((what, text)) = texts.into_iter().find(|(_, text)| text.contains(['\0', '\n'])) {
        return Err(Error::invalid(format!(
            "invalid {what} {text:?}: it contains a zero byte or a line's end"
        )));
    }
    let words = [&config.entrypoint, &config.cmd].into_iter().flatten().flatten();
    if words.into_iter().any(|word| word.contains('\0')) {
        return Err(Error::invalid("invalid command: it contains a zero byte"));
    }
    if !config.stop_signal.is_empty() {
        signals::parse(&config.stop_signal)?;
    }
    for entry in &config.host.extra_hosts {
        files::hosts::check_extra(entry).map_err(Error::invalid)?;
    }
    kernel::check(&config.host)?;
    check_resources(&config.host.resources, cpus)
}

fn check_resources(resources: &ContainerResources, cpus: usize) -> Result<()> {
    let ContainerResources { memory, memory_swap, nano_cpus, cpu_shares, pids: _ } = *resources;
    let most = cpus as i64 * 1_000_000_000;
    if memory != 0 && memory < MEMORY_MIN {
        return Err(Error::invalid("Minimum memory limit allowed is 6MB"));
    }
    if memory == 0 && memory_swap > 0 {
        return Err(Error::invalid(
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        ));
    }
    if memory > 0 && memory_swap > 0 && memory_swap < memory {
        return Err(Error::invalid("Minimum memoryswap limit should be larger than memory limit, see usage"));
    }
    if nano_cpus < 0 || nano_cpus > most {
        return Err(Error::invalid(format!(
            "range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available"
        )));
    }
    if cpu_shares < 0 {
        return Err(Error::invalid(format!("invalid CPU shares ({cpu_shares}): must not be negative")));
    }
    Ok(())
}

/// The environment of a container's first process: Docker's own variables, then the merged configuration's. A name
/// alone removes a variable.
pub(crate) fn environment(config: &ContainerConfig, hostname: &str) -> Vec<String> {
    let mut environment = vec![DEFAULT_PATH.to_owned(), format!("HOSTNAME={hostname}")];
    if config.tty {
        environment.push("TERM=xterm".to_owned());
    }
    override_environment(&mut environment, &config.env);
    environment
}

/// Sets, replaces and removes variables.
pub(crate) fn override_environment(environment: &mut Vec<String>, entries: &[String]) {
    for entry in entries {
        let position = environment.iter().position(|known| variable(known) == variable(entry));
        match (position, entry.contains('=')) {
            (Some(position), true) => environment[position].clone_from(entry),
            (None, true) => environment.push(entry.clone()),
            (Some(position), false) => drop(environment.remove(position)),
            (None, false) => {}
        }
    }
}

/// The mounts of a container, checked, in the order in which they must be made: outer ones first. Volumes without a
/// name get one from `draw_name`; so do the image's own, unless the client mounted something there.
pub(crate) fn mounts(
    asked: &[Mount],
    image_volumes: &BTreeSet<String>,
    draw_name: &dyn Fn() -> String,
) -> Result<Vec<MountRecord>> {
    let mut mounts: BTreeMap<PathBuf, MountRecord> = BTreeMap::new();
    for mount in asked {
        let record = decide(mount, draw_name)?;
        let target = record.target.clone();
        if mounts.insert(target.clone(), record).is_some() {
            return Err(Error::invalid(format!("Duplicate mount point: {}", target.display())));
        }
    }
    for volume in image_volumes {
        let Some(target) = clean(Path::new(volume)) else { continue };
        mounts.entry(target.clone()).or_insert_with(|| MountRecord {
            target,
            source: MountedFrom::Volume {
                name: draw_name(),
                anonymous: true,
                no_copy: false,
                labels: BTreeMap::new(),
            },
            read_only: false,
        });
    }
    // In the order of paths, so that `/a` is there before `/a/b` is mounted in it.
    Ok(mounts.into_values().collect())
}

fn decide(mount: &Mount, draw_name: &dyn Fn() -> String) -> Result<MountRecord> {
    let kind = match &mount.source {
        MountSource::Bind { .. } => "bind",
        MountSource::Volume { .. } => "volume",
        MountSource::Tmpfs { .. } => "tmpfs",
    };
    let refuse = |why: String| Error::invalid(format!("invalid mount config for type \"{kind}\": {why}"));
    let shown = mount.target.display();
    if !mount.target.is_absolute() {
        return Err(refuse(format!("invalid mount path: '{shown}' mount path must be absolute")));
    }
    let target = clean(&mount.target)
        .ok_or_else(|| refuse("invalid specification: destination can't be '/'".to_owned()))?;
    let source = match &mount.source {
        MountSource::Bind { path, create_missing, propagation } => {
            if !path.is_absolute() {
                return Err(refuse(format!(
                    "invalid mount path: '{}' mount path must be absolute",
                    path.display()
                )));
            }
            if !create_missing && !path.exists() {
                return Err(refuse(format!("bind source path does not exist: {}", path.display())));
            }
            let propagation = propagation.unwrap_or(Propagation::Rprivate);
            MountedFrom::Bind { path: path.clone(), create_missing: *create_missing, propagation }
        }
        MountSource::Volume { name, no_copy, labels } => {
            let anonymous = name.is_empty();
            if !anonymous {
                names::check_volume_name(name)?;
            }
            let name = if anonymous { draw_name() } else { name.clone() };
            MountedFrom::Volume { name, anonymous, no_copy: *no_copy, labels: labels.clone() }
        }
        MountSource::Tmpfs { size_bytes, mode } => {
            MountedFrom::Tmpfs { size_bytes: *size_bytes, mode: *mode }
        }
    };
    Ok(MountRecord { target, source, read_only: mount.read_only })
}

/// An absolute path without `.`, `..` and doubled slashes; `None` for the root.
fn clean(path: &Path) -> Option<PathBuf> {
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => drop(clean.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    (clean != Path::new("/")).then_some(clean)
}

#[cfg(test)]
#[path = "merge/tests.rs"]
mod tests;
