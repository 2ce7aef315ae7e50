//! Whether a service's specification makes sense by itself. The messages are SwarmKit's control API's.

use std::collections::BTreeSet;

use skep_types::container::DnsConfig;
use skep_types::device::Privileged;
use skep_types::mount::MountSource;
use skep_types::network::NetworkSpec;
use skep_types::resources::Resources;
use skep_types::security::Seccomp;
use skep_types::service::{EndpointMode, PortSpec, PublishMode, ServiceContainer, ServiceMode, ServiceSpec};
use skep_types::template::Context;

use super::refuse;
use crate::autoscale::Autoscale;
use crate::schedule::Schedule;
use crate::{Refusal, RefusalKind};

/// The longest name of a service: the longest label of a DNS name.
const MAX_NAME: usize = 63;
/// The smallest share of a CPU that can be asked for, in thousand-millionths.
const MIN_NANO_CPUS: i64 = 1_000_000;
/// The smallest memory that can be asked for, in bytes.
const MIN_MEMORY: i64 = 4 * 1024 * 1024;
/// The most replicas of a service: a slip of the finger does not fill the managers' memory.
const MAX_REPLICAS: u64 = 100_000;
/// The most text in a specification, in bytes: what a client sends ends up in every manager's memory and
/// log, twice while an update may be undone.
const MAX_TEXT: usize = 1 << 20;

/// Refuses a specification that makes no sense.
pub(super) fn service(spec: &ServiceSpec) -> Result<(), Refusal> {
    name(&spec.name)?;
    let text = text(spec);
    if text > MAX_TEXT {
        return invalid(format!(
            "the specification holds {text} bytes of text, more than the {MAX_TEXT} it may"
        ));
    }
    resources(&spec.task.limits)?;
    resources(&spec.task.reservations)?;
    let container = &spec.task.container;
    if container.image.is_empty() {
        return invalid("ContainerSpec: image reference must be provided");
    }
    let expanded = expand(spec)?;
    let mut targets = BTreeSet::new();
    for mount in &expanded.mounts {
        if !targets.insert(&mount.target) {
            return invalid(format!("ContainerSpec: duplicate mount point: {}", mount.target.display()));
        }
    }
    if spec.update.max_failure_permille.max(spec.rollback.max_failure_permille) > 1000 {
        return invalid("TaskSpec: update-maxfailureratio cannot be less than 0 or bigger than 1");
    }
    if let Err(error) = Privileged::of(&container.labels) {
        return invalid(error);
    }
    mode(spec.mode)?;
    schedule(spec)?;
    autoscale(spec)?;
    ports(&spec.ports, spec.endpoint_mode)
}

/// Refuses labels that say nonsense of when the service runs.
fn schedule(spec: &ServiceSpec) -> Result<(), Refusal> {
    match Schedule::of(&spec.labels) {
        Ok(Some(_)) if !spec.mode.is_job() => {
            invalid("label skep.cron: only jobs run by a schedule (--mode replicated-job or global-job)")
        }
        Ok(_) => Ok(()),
        Err(error) => invalid(error),
    }
}

/// Refuses labels that say nonsense of how many replicas the service's load asks for.
fn autoscale(spec: &ServiceSpec) -> Result<(), Refusal> {
    let replicated = matches!(spec.mode, ServiceMode::Replicated { .. });
    match Autoscale::of(&spec.labels, &spec.task) {
        Ok(Some(_)) if !replicated => {
            invalid("label skep.autoscale.max: only a service with replicas is scaled (--mode replicated)")
        }
        Ok(Some(autoscale)) if autoscale.max > MAX_REPLICAS => {
            let message =
                format!("{} replicas are more than the {MAX_REPLICAS} of one service", autoscale.max);
            invalid(format!("label skep.autoscale.max: {message}"))
        }
        Ok(_) => Ok(()),
        Err(error) => invalid(error),
    }
}

fn mode(mode: ServiceMode) -> Result<(), Refusal> {
    let tasks = match mode {
        ServiceMode::Replicated { replicas } => replicas,
        ServiceMode::ReplicatedJob { total_completions, .. } => total_completions,
        ServiceMode::Global | ServiceMode::GlobalJob => return Ok(()),
    };
    if tasks > MAX_REPLICAS {
        return invalid(format!("Mode: {tasks} replicas are more than the {MAX_REPLICAS} of one service"));
    }
    Ok(())
}

/// A task's container as its templates would make it, of a task that does not exist: what fails here fails on every
/// node. As SwarmKit's `validateContainerSpec`, but with the service's own name and labels.
fn expand(spec: &ServiceSpec) -> Result<ServiceContainer, Refusal> {
    let context = Context {
        service_id: "serviceid",
        service_name: &spec.name,
        service_labels: &spec.labels,
        node_id: "nodeid",
        node_hostname: "nodeHostname",
        node_architecture: "architecture",
        node_os: "os",
        task_id: "taskid",
        task_name: "taskname",
        task_slot: "1",
    };
    spec.task.container.expanded(&context).or_else(|error| invalid(error.to_string()))
}

/// Refuses a network that makes no sense in itself.
pub(super) fn network(spec: &NetworkSpec) -> Result<(), Refusal> {
    name(&spec.name)?;
    let texts = spec.labels.iter().chain(&spec.options).flat_map(|(key, value)| [key, value]);
    let text: usize = texts.map(|text| text.len() + 16).sum();
    if text > MAX_TEXT {
        return invalid(format!(
            "the specification holds {text} bytes of text, more than the {MAX_TEXT} it may"
        ));
    }
    super::network::validate(spec)
}

/// About how many bytes a specification takes: its texts, and a little for each.
fn text(spec: &ServiceSpec) -> usize {
    let container = &spec.task.container;
    let labels = spec.labels.iter().chain(&container.labels).flat_map(|(key, value)| [key, value]);
    let words = container.command.iter().chain(&container.args).flatten();
    let lists = container.env.iter().chain(&container.groups).chain(&container.hosts);
    let capabilities = container.cap_add.iter().chain(&container.cap_drop);
    let single =
        [&container.image, &container.dir, &container.user, &container.hostname, &container.stop_signal];
    let sysctls = container.sysctls.iter().flat_map(|(key, value)| [key, value]);
    let DnsConfig { servers, search, options } = &container.dns;
    let dns = servers.iter().chain(search).chain(options);
    let profile = container.privileges.as_ref().and_then(|it| match &it.seccomp {
        Some(Seccomp::Custom(text)) => Some(text),
        None | Some(Seccomp::Default | Seccomp::Unconfined) => None,
    });
    let aliases = spec.task.networks.iter().flat_map(|on| &on.aliases);
    let texts = labels.chain(words).chain(lists).chain(capabilities).chain(single).chain(aliases);
    let texts = texts.chain(sysctls).chain(dns).chain(profile);
    let mounts = container.mounts.iter().map(|mount| {
        let source = match &mount.source {
            MountSource::Bind { path, .. } => path.as_os_str().len(),
            MountSource::Volume { name, labels, .. } => {
                name.len() + labels.iter().map(|(key, value)| key.len() + value.len() + 16).sum::<usize>()
            }
            MountSource::Tmpfs { .. } => 0,
        };
        mount.target.as_os_str().len() + source
    });
    let sizes = texts.map(String::len).chain(mounts).chain(spec.ports.iter().map(|port| port.name.len()));
    sizes.map(|size| size + 16).sum()
}

fn invalid<T>(message: impl Into<String>) -> Result<T, Refusal> {
    refuse(RefusalKind::Invalid, message)
}

fn name(name: &str) -> Result<(), Refusal> {
    if name.is_empty() {
        return invalid("meta: name must be provided");
    }
    let inner = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    let ends = [name.bytes().next(), name.bytes().next_back()];
    if !inner || !ends.iter().flatten().all(u8::is_ascii_alphanumeric) {
        return invalid("name must be valid as a DNS name component");
    }
    if name.len() > MAX_NAME {
        return invalid(format!("name must be {MAX_NAME} characters or fewer"));
    }
    Ok(())
}

fn resources(resources: &Resources) -> Result<(), Refusal> {
    if resources.nano_cpus != 0 && resources.nano_cpus < MIN_NANO_CPUS {
        let cpus = |nano: i64| nano as f64 / 1e9;
        let (asked, least) = (cpus(resources.nano_cpus), cpus(MIN_NANO_CPUS));
        return invalid(format!("invalid cpu value {asked}: Must be at least {least}"));
    }
    if resources.memory_bytes != 0 && resources.memory_bytes < MIN_MEMORY {
        return invalid(format!("invalid memory value {}: Must be at least 4MiB", resources.memory_bytes));
    }
    Ok(())
}

fn ports(ports: &[PortSpec], mode: EndpointMode) -> Result<(), Refusal> {
    let mut published = BTreeSet::new();
    for port in ports {
        if mode == EndpointMode::Dnsrr && port.mode == PublishMode::Ingress {
            return invalid("EndpointSpec: port published with ingress mode can't be used with dnsrr mode");
        }
        if port.target_port == 0 {
            return invalid("EndpointSpec: target port must be provided");
        }
        if port.published_port != 0 && !published.insert((port.protocol, port.published_port)) {
            return invalid("EndpointSpec: duplicate published ports provided");
        }
    }
    Ok(())
}
