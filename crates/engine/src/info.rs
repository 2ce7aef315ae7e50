//! What `docker info` tells about the machine.

use std::path::Path;

use crate::view::{Info, Status};
use crate::{Engine, blocking};

impl Engine {
    /// What `docker info` tells about this machine.
    pub async fn info(&self) -> Info {
        let engine = self.clone();
        // Files below /proc do not block for long, but listing images may.
        blocking(move || engine.info_blocking()).await.unwrap_or_else(|error| {
            tracing::error!("cannot gather what is known of the machine: {error}");
            self.info_blocking()
        })
    }

    fn info_blocking(&self) -> Info {
        let containers = self.shared.containers.all();
        let running = containers.iter().filter(|container| container.status() == Status::Running).count();
        let system = rustix::system::uname();
        let release = read("/etc/os-release");
        let config = &self.shared.config;
        Info {
            id: self.shared.identity.id.clone(),
            containers: containers.len(),
            running,
            stopped: containers.len() - running,
            images: self.shared.images.usage().images,
            hostname: hostname(),
            kernel_version: system.release().to_string_lossy().into_owned(),
            operating_system: field(&release, "PRETTY_NAME=").unwrap_or_else(|| "Linux".to_owned()),
            os_version: field(&release, "VERSION_ID=").unwrap_or_default(),
            architecture: system.machine().to_string_lossy().into_owned(),
            cpus: cpus(),
            memory_total: memory_total(&read("/proc/meminfo")),
            cgroup_version: if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() { "2" } else { "1" },
            backing_filesystem: filesystem(&config.data_root),
            data_root: config.data_root.clone(),
            labels: config.labels.clone(),
            bridge_subnet: self
                .shared
                .networks
                .bridge
                .subnet()
                .map_or_else(String::new, |subnet| subnet.to_string()),
            ipv4_forwarding: read("/proc/sys/net/ipv4/ip_forward").trim() == "1",
            file_descriptors: std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count),
            event_listeners: self.shared.events.listeners(),
            registries: self.shared.registries.settings().clone(),
        }
    }
}

/// The machine's host name and architecture, as they are now.
pub fn machine() -> (String, String) {
    (hostname(), rustix::system::uname().machine().to_string_lossy().into_owned())
}

/// The machine's host name.
pub(crate) fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Processors that can be used.
pub(crate) fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// A value of /etc/os-release.
fn field(text: &str, key: &str) -> Option<String> {
    let value = text.lines().find_map(|line| line.strip_prefix(key))?;
    Some(value.trim_matches(['"', '\'']).to_owned())
}

/// Bytes of memory, from the text of /proc/meminfo.
fn memory_total(text: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

/// Docker's name of the file system under a folder (linux/magic.h).
fn filesystem(path: &Path) -> String {
    let kind = rustix::fs::statfs(path).map_or(0, |stat| stat.f_type);
    match kind {
        0xef53 => "extfs".to_owned(),
        0x5846_5342 => "xfs".to_owned(),
        0x9123_683e => "btrfs".to_owned(),
        0x0102_1994 => "tmpfs".to_owned(),
        0x794c_7630 => "overlayfs".to_owned(),
        0x2fc1_2fc1 => "zfs".to_owned(),
        _ => "<unknown>".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_s_files_are_read() {
        assert_eq!(memory_total("MemTotal:       16384 kB\nMemFree: 1 kB\n"), 16_777_216);
        assert_eq!(memory_total(""), 0);
        assert_eq!(field("A=1\nVERSION_ID=\"12\"\n", "VERSION_ID="), Some("12".to_owned()));
    }
}
