//! What a container asks of the kernel: capabilities, filter, parameters, limits of processes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use skep_runtime::{Capability, CapabilitySet, ProfileError, UnknownCapability};
use skep_types::container::{DnsConfig, HostConfig, NetworkMode};
use skep_types::security::Seccomp;
use skep_types::ulimit::Rlimit;

use crate::{Error, ErrorKind, Result};

/// Kernel parameters that a namespace of every container has for itself. runc's list.
const NAMESPACED: [&str; 9] = [
    "kernel.domainname",
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// Refuses what makes no sense, or is not the container's own to change.
pub(crate) fn check(host: &HostConfig) -> Result<()> {
    let capabilities = capabilities(host)?;
    if let Seccomp::Custom(text) = &host.security.seccomp {
        skep_runtime::check_profile(text, capabilities).map_err(refused_profile)?;
    }
    check_sysctls(&host.sysctls, &host.network)?;
    check_ulimits(&host.ulimits)?;
    check_dns(&host.dns)?;
    match host.oom_score_adj {
        -1000..=1000 => Ok(()),
        // In moby's words.
        other => {
            Err(Error::invalid(format!("Invalid value {other}, range for oom score adj is [-1000, 1000]")))
        }
    }
}

fn refused_profile(error: ProfileError) -> Error {
    let kind = match error {
        ProfileError::NotBuilt(_) => ErrorKind::Unsupported,
        ProfileError::Malformed(_) | ProfileError::Invalid(_) => ErrorKind::InvalidParameter,
    };
    Error::new(kind, error.to_string())
}

/// A parameter that is not a namespace's own would be changed for the whole machine.
fn check_sysctls(sysctls: &BTreeMap<String, String>, network: &NetworkMode) -> Result<()> {
    for (name, value) in sysctls {
        let plain = |it: u8| it.is_ascii_alphanumeric() || b"._-".contains(&it);
        // Its parts become a path below /proc/sys.
        if !name.bytes().all(plain) || name.split('.').any(str::is_empty) || value.contains('\0') {
            return Err(Error::invalid(format!("invalid sysctl {name:?}")));
        }
        let of_network = name.starts_with("net.");
        if of_network && matches!(network, NetworkMode::Host) {
            return Err(Error::invalid(format!("sysctl {name:?} not allowed in host network namespace")));
        }
        if !of_network && !name.starts_with("fs.mqueue.") && !NAMESPACED.contains(&name.as_str()) {
            return Err(Error::invalid(format!("sysctl {name:?} is not in a separate kernel namespace")));
        }
    }
    Ok(())
}

fn check_ulimits(ulimits: &[Rlimit]) -> Result<()> {
    let mut seen: Vec<_> = Vec::new();
    for Rlimit { resource, soft, hard } in ulimits {
        if soft > hard {
            return Err(Error::invalid(format!(
                "ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"
            )));
        }
        if seen.contains(resource) {
            return Err(Error::invalid(format!("ulimit {resource} is given twice")));
        }
        seen.push(*resource);
    }
    Ok(())
}

fn check_dns(dns: &DnsConfig) -> Result<()> {
    if let Some(server) = dns.servers.iter().find(|server| server.parse::<IpAddr>().is_err()) {
        return Err(Error::invalid(format!("invalid DNS address: {server}")));
    }
    let one_word =
        |text: &&String| text.is_empty() || text.contains(|it: char| it.is_whitespace() || it == '\0');
    if let Some(domain) = dns.search.iter().find(one_word) {
        return Err(Error::invalid(format!("invalid DNS search domain: {domain:?}")));
    }
    if let Some(option) = dns.options.iter().find(one_word) {
        return Err(Error::invalid(format!("invalid DNS option: {option:?}")));
    }
    Ok(())
}

/// Limits of processes: what was asked for, and the engine's own of what was not.
pub(crate) fn limits(asked: &[Rlimit], default: Vec<Rlimit>) -> Vec<Rlimit> {
    let mut limits = asked.to_vec();
    limits.extend(default.into_iter().filter(|own| asked.iter().all(|it| it.resource != own.resource)));
    limits
}

/// The container's system call filter. As Docker, a privileged one has none unless it asks for one of its own.
pub(crate) fn filter(host: &HostConfig) -> Seccomp {
    match &host.security.seccomp {
        Seccomp::Default if host.privileged => Seccomp::Unconfined,
        filter => filter.clone(),
    }
}

/// Docker's default capabilities with those added and dropped; a privileged container has all, whatever was dropped. As Docker, `ALL` stands for all, and what is both added and dropped is there only when all were dropped.
pub(crate) fn capabilities(host: &HostConfig) -> Result<CapabilitySet> {
    let HostConfig { cap_add: add, cap_drop: drop, .. } = host;
    let is_all = |name: &String| name.eq_ignore_ascii_case("ALL") || name.eq_ignore_ascii_case("CAP_ALL");
    let read = |field: &str, names: &BTreeSet<String>| -> Result<Vec<Capability>> {
        let named = names.iter().filter(|name| !is_all(name));
        let refused = |error| Error::invalid(format!("invalid {field}: {error}"));
        named.map(|name| name.parse().map_err(|error: UnknownCapability| refused(error))).collect()
    };
    let (added, dropped) = (read("CapAdd", add)?, read("CapDrop", drop)?);
    let (add_all, drop_all) = (add.iter().any(is_all), drop.iter().any(is_all));
    if host.privileged {
        return Ok(CapabilitySet::ALL);
    }
    let mut set = match (add_all, drop_all) {
        (true, _) => CapabilitySet::ALL,
        (false, true) => CapabilitySet::EMPTY,
        (false, false) => CapabilitySet::DOCKER_DEFAULT,
    };
    if drop_all || !add_all {
        added.into_iter().for_each(|capability| set.insert(capability));
    }
    if !drop_all {
        dropped.into_iter().for_each(|capability| set.remove(capability));
    }
    Ok(set)
}

#[cfg(test)]
#[path = "kernel/tests.rs"]
mod tests;
