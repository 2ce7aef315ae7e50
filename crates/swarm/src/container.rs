//! From a task to the container that runs it. Moby's daemon/cluster/executor/container/container.go.

use std::collections::BTreeMap;

use skep_types::Task;
use skep_types::container::{
    ClusterAttachment, ContainerConfig, ContainerResources, HostConfig, NetworkMode,
};
use skep_types::device::Privileged;
use skep_types::port::{ContainerPort, PortBinding};
use skep_types::security::{AppArmor, Privileges, Seccomp, Security};
use skep_types::service::{PortSpec, ServiceContainer};
use skep_types::template::{Context, TemplateError};

/// Marks a container as a task's.
pub(crate) const LABEL_TASK: &str = "com.docker.swarm.task";
/// The task's id.
pub(crate) const LABEL_TASK_ID: &str = "com.docker.swarm.task.id";
const LABEL_TASK_NAME: &str = "com.docker.swarm.task.name";
const LABEL_NODE_ID: &str = "com.docker.swarm.node.id";
const LABEL_SERVICE_ID: &str = "com.docker.swarm.service.id";
const LABEL_SERVICE_NAME: &str = "com.docker.swarm.service.name";

/// The machine that a task runs on, as its templates see it.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) hostname: String,
    pub(crate) architecture: String,
    pub(crate) os: String,
}

/// What the engine is to create for `task`. `attachments` are its networks, the first with the default
/// route; without any the container is on the default bridge.
///
/// # Errors
/// When a template of the task's specification cannot be expanded.
pub(crate) fn config(
    task: &Task,
    attachments: Vec<ClusterAttachment>,
    machine: &Machine,
) -> Result<ContainerConfig, TemplateError> {
    let spec = &expanded(task, machine)?;
    // Labels that make no sense are refused when the service is made.
    let privileged = Privileged::of(&spec.labels).unwrap_or_default();
    let network =
        if attachments.is_empty() { NetworkMode::Bridge } else { NetworkMode::Cluster(attachments) };
    Ok(ContainerConfig {
        image: familiar_image(&spec.image),
        cmd: spec.args.clone().filter(|args| !args.is_empty()),
        entrypoint: spec.command.clone().filter(|command| !command.is_empty()),
        env: spec.env.iter().cloned().chain(task.generic.env()).collect(),
        labels: labels(task),
        working_dir: spec.dir.clone(),
        user: spec.user.clone(),
        hostname: spec.hostname.clone(),
        tty: spec.tty,
        open_stdin: spec.open_stdin,
        stop_signal: spec.stop_signal.clone(),
        stop_timeout: spec.stop_grace,
        health: spec.health.clone(),
        host: HostConfig {
            mounts: spec.mounts.clone(),
            network,
            ports: host_ports(task),
            resources: ContainerResources {
                memory: task.spec.limits.memory_bytes,
                nano_cpus: task.spec.limits.nano_cpus,
                pids: task.spec.limits.pids,
                ..ContainerResources::default()
            },
            cap_add: spec.cap_add.clone(),
            cap_drop: spec.cap_drop.clone(),
            group_add: spec.groups.clone(),
            extra_hosts: spec.hosts.iter().filter_map(|entry| extra_host(entry)).collect(),
            init: spec.init.then_some(true),
            read_only: spec.read_only,
            dns: spec.dns.clone(),
            sysctls: spec.sysctls.clone(),
            ulimits: spec.ulimits.clone(),
            oom_score_adj: spec.oom_score_adj,
            security: spec.privileges.as_ref().map(security).unwrap_or_default(),
            security_opt: spec.privileges.as_ref().map(security_texts).unwrap_or_default(),
            log: task.spec.log.unwrap_or_default(),
            privileged: privileged.all,
            devices: privileged.devices,
            ..HostConfig::default()
        },
        ..ContainerConfig::default()
    })
}

/// The container's specification without templates.
fn expanded(task: &Task, machine: &Machine) -> Result<ServiceContainer, TemplateError> {
    let node = task.node.map(|node| node.to_string()).unwrap_or_default();
    let (service, id, name) = (task.service.to_string(), task.id.to_string(), task.container_name());
    // As SwarmKit: what has no slot has its node's id for one.
    let slot = if task.slot == 0 { node.clone() } else { task.slot.to_string() };
    task.spec.container.expanded(&Context {
        service_id: &service,
        service_name: &task.service_name,
        service_labels: &task.service_labels,
        node_id: &node,
        node_hostname: &machine.hostname,
        node_architecture: &machine.architecture,
        node_os: &machine.os,
        task_id: &id,
        task_name: &name,
        task_slot: &slot,
    })
}

fn security(privileges: &Privileges) -> Security {
    // AppArmor is not used, which is the same as disabled.
    let Privileges { no_new_privileges, seccomp, app_armor: _ } = privileges;
    Security { no_new_privileges: *no_new_privileges, seccomp: seccomp.clone().unwrap_or_default() }
}

/// The options that moby makes of a service's privileges.
fn security_texts(privileges: &Privileges) -> Vec<String> {
    let Privileges { no_new_privileges, seccomp, app_armor } = privileges;
    let seccomp = match seccomp {
        None | Some(Seccomp::Default) => None,
        Some(Seccomp::Unconfined) => Some("seccomp=unconfined".to_owned()),
        Some(Seccomp::Custom(text)) => Some(format!("seccomp={text}")),
    };
    let no_new = no_new_privileges.then(|| "no-new-privileges=true".to_owned());
    let app_armor = (*app_armor == Some(AppArmor::Disabled)).then(|| "apparmor=unconfined".to_owned());
    [no_new, seccomp, app_armor].into_iter().flatten().collect()
}

/// The ports that a task publishes on its own node.
fn host_ports(task: &Task) -> Vec<PortBinding> {
    let binding = |port: &PortSpec| PortBinding {
        container: ContainerPort { port: port.target_port, protocol: port.protocol },
        host_ip: port.address,
        host_port: port.published_port,
    };
    task.host_ports.iter().map(binding).collect()
}

/// The service's labels for its containers, overridden by the system's.
fn labels(task: &Task) -> BTreeMap<String, String> {
    let mut labels = task.spec.container.labels.clone();
    let node = task.node.map(|node| node.to_string()).unwrap_or_default();
    let system = [
        (LABEL_TASK, String::new()),
        (LABEL_TASK_ID, task.id.to_string()),
        (LABEL_TASK_NAME, task.container_name()),
        (LABEL_NODE_ID, node),
        (LABEL_SERVICE_ID, task.service.to_string()),
        (LABEL_SERVICE_NAME, task.service_name.clone()),
    ];
    labels.extend(system.map(|(key, value)| (key.to_owned(), value)));
    labels
}

/// Services have hosts(5) lines, `address name...`; containers have `name:address`. As moby, of several
/// names only the first is kept.
fn extra_host(entry: &str) -> Option<String> {
    let mut words = entry.split_whitespace();
    let (address, name) = (words.next()?, words.next()?);
    Some(format!("{name}:{address}"))
}

/// Adds `:latest` to a name that has neither tag nor digest, as `docker ps` shows tasks' images.
fn familiar_image(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    let is_id = image.len() == 64 && image.bytes().all(|byte| byte.is_ascii_hexdigit());
    if last.contains([':', '@']) || is_id { image.to_owned() } else { format!("{image}:latest") }
}

#[cfg(test)]
pub(crate) mod tests;
