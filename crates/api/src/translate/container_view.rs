//! Containers and execs as clients see them: `docker inspect`, `docker ps`.

use std::collections::HashMap;
use std::time::Duration;

use bollard_stubs::models;
use models::{ContainerStateStatusEnum, ContainerSummaryStateEnum, MountPointTypeEnum, PortTypeEnum};
use serde::Serialize;
use skep_engine::containers::health::Probe;
use skep_engine::view::{
    ContainerSize, ContainerSummary, ContainerView, ExecView, MountView, PortView, StateView, Status,
};
use skep_types::Time;
use skep_types::container::{ContainerConfig, HostConfig};
use skep_types::mount::MountSource;
use skep_types::port::{PortBinding, Protocol};

use super::container::{MASKED_PATHS, READONLY_PATHS};
use super::endpoint::{Endpoints, endpoint, endpoints};
use super::nulls::{WithNulls, with_nulls};
use super::{health, kernel, mount, seconds, size, time_text, unordered};

/// Bytes of /dev/shm where nobody said otherwise.
const DEFAULT_SHM_SIZE: u64 = 64 << 20;

/// A container as `GET /containers/{id}/json` shows it: the model, with its parts that carry `null`s.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Inspection {
    #[serde(flatten)]
    container: models::ContainerInspectResponse,
    #[serde(rename = "ExecIDs")]
    exec_ids: Option<Vec<String>>,
    host_config: WithNulls<models::HostConfig>,
    config: WithNulls<models::ContainerConfig>,
    network_settings: NetworkSettings,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct NetworkSettings {
    #[serde(flatten)]
    settings: WithNulls<models::NetworkSettings>,
    networks: Endpoints,
}

/// A container as a line of `GET /containers/json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Summary {
    #[serde(flatten)]
    container: models::ContainerSummary,
    network_settings: SummaryNetworks,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct SummaryNetworks {
    networks: Endpoints,
}

/// A container as `GET /containers/{id}/json` shows it.
pub fn inspect(view: ContainerView, sizes: Option<ContainerSize>) -> Inspection {
    Inspection {
        exec_ids: (!view.exec_ids.is_empty()).then(|| view.exec_ids.clone()),
        host_config: host_config(&view.config.host, &view.network_mode),
        config: config(&view.config, anonymous_volumes(&view.mounts)),
        network_settings: network_settings(&view),
        container: container(&view, sizes),
    }
}

fn container(view: &ContainerView, sizes: Option<ContainerSize>) -> models::ContainerInspectResponse {
    let driver_data = [
        ("ID", view.id.to_string()),
        ("WorkDir", view.upper_path.with_file_name("work").display().to_string()),
        (
            "LowerDir",
            view.lower_paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(":"),
        ),
        ("UpperDir", view.upper_path.display().to_string()),
    ];
    models::ContainerInspectResponse {
        id: Some(view.id.to_string()),
        created: Some(view.created.to_string()),
        path: Some(view.path.clone()),
        args: Some(view.args.clone()),
        state: Some(state(&view.state, &view.probes)),
        image: Some(view.image_id.clone()),
        resolv_conf_path: Some(view.resolv_conf_path.display().to_string()),
        hostname_path: Some(view.hostname_path.display().to_string()),
        hosts_path: Some(view.hosts_path.display().to_string()),
        log_path: Some(view.log_path.display().to_string()),
        name: Some(format!("/{}", view.name)),
        restart_count: Some(0),
        driver: Some("overlay2".to_owned()),
        platform: Some("linux".to_owned()),
        image_manifest_descriptor: None,
        mount_label: Some(String::new()),
        process_label: Some(String::new()),
        app_armor_profile: Some(String::new()),
        graph_driver: Some(models::DriverData {
            name: "overlay2".to_owned(),
            data: driver_data.map(|(key, value)| (key.to_owned(), value)).into(),
        }),
        size_rw: sizes.map(|sizes| size(sizes.writable)),
        size_root_fs: sizes.map(|sizes| size(sizes.root)),
        mounts: Some(view.mounts.iter().map(mount_point).collect()),
        // In `Inspection`.
        exec_ids: None,
        host_config: None,
        config: None,
        network_settings: None,
    }
}

/// The places of volumes that nobody named: those of the image and of `-v /path`.
fn anonymous_volumes(mounts: &[MountView]) -> Option<Vec<String>> {
    let places = mounts.iter().filter(|mount| mount.anonymous);
    let places: Vec<_> = places.map(|mount| mount.target.display().to_string()).collect();
    (!places.is_empty()).then_some(places)
}

fn state(state: &StateView, probes: &[Probe]) -> models::ContainerState {
    models::ContainerState {
        status: Some(match state.status {
            Status::Created => ContainerStateStatusEnum::CREATED,
            Status::Running => ContainerStateStatusEnum::RUNNING,
            Status::Exited => ContainerStateStatusEnum::EXITED,
            Status::Removing => ContainerStateStatusEnum::REMOVING,
            Status::Dead => ContainerStateStatusEnum::DEAD,
        }),
        running: Some(state.status == Status::Running),
        paused: Some(false),
        restarting: Some(false),
        oom_killed: Some(state.oom_killed),
        dead: Some(state.status == Status::Dead),
        pid: Some(i64::from(state.pid)),
        exit_code: Some(i64::from(state.exit_code)),
        error: Some(state.error.clone()),
        started_at: Some(time_text(state.started_at)),
        finished_at: Some(time_text(state.finished_at)),
        health: state.health.map(|health| health::state(health, probes)),
    }
}

fn config(config: &ContainerConfig, volumes: Option<Vec<String>>) -> WithNulls<models::ContainerConfig> {
    let exposed: Vec<String> = config.exposed_ports.iter().map(ToString::to_string).collect();
    let model = models::ContainerConfig {
        volumes,
        hostname: Some(config.hostname.clone()),
        domainname: Some(config.domainname.clone()),
        user: Some(config.user.clone()),
        attach_stdin: Some(config.attach_stdin),
        attach_stdout: Some(config.attach_stdout),
        attach_stderr: Some(config.attach_stderr),
        exposed_ports: (!exposed.is_empty()).then_some(exposed),
        tty: Some(config.tty),
        open_stdin: Some(config.open_stdin),
        stdin_once: Some(config.stdin_once),
        env: Some(config.env.clone()),
        cmd: config.cmd.clone(),
        image: Some(config.image.clone()),
        working_dir: Some(config.working_dir.clone()),
        entrypoint: config.entrypoint.clone(),
        labels: Some(unordered(&config.labels)),
        healthcheck: config.health.as_ref().map(health::to_model),
        stop_signal: (!config.stop_signal.is_empty()).then(|| config.stop_signal.clone()),
        stop_timeout: config.stop_timeout.map(|timeout| i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX)),
        ..Default::default()
    };
    let names = [
        ("Cmd", model.cmd.is_none()),
        ("Entrypoint", model.entrypoint.is_none()),
        ("OnBuild", model.on_build.is_none()),
        ("Volumes", model.volumes.is_none()),
    ];
    with_nulls(model, names)
}

fn host_config(host: &HostConfig, network_mode: &str) -> WithNulls<models::HostConfig> {
    let list = |names: &std::collections::BTreeSet<String>| {
        (!names.is_empty()).then(|| names.iter().cloned().collect())
    };
    let texts = |paths: &[&str]| Some(paths.iter().map(|path| (*path).to_owned()).collect());
    let model = models::HostConfig {
        binds: (!host.binds.is_empty()).then(|| host.binds.clone()),
        container_id_file: Some(String::new()),
        log_config: Some(models::HostConfigLogConfig {
            typ: Some(host.log.name().to_owned()),
            config: Some(HashMap::new()),
        }),
        network_mode: Some(network_mode.to_owned()),
        port_bindings: Some(bound_ports(&host.ports)),
        restart_policy: Some(models::RestartPolicy {
            name: Some(models::RestartPolicyNameEnum::NO),
            maximum_retry_count: Some(0),
        }),
        auto_remove: Some(host.auto_remove),
        volume_driver: Some(String::new()),
        console_size: Some(vec![0, 0]),
        cap_add: list(&host.cap_add),
        cap_drop: list(&host.cap_drop),
        cgroupns_mode: Some(models::HostConfigCgroupnsModeEnum::PRIVATE),
        dns: Some(host.dns.servers.clone()),
        dns_options: Some(host.dns.options.clone()),
        dns_search: Some(host.dns.search.clone()),
        extra_hosts: (!host.extra_hosts.is_empty()).then(|| host.extra_hosts.clone()),
        group_add: (!host.group_add.is_empty()).then(|| host.group_add.clone()),
        ipc_mode: Some("private".to_owned()),
        cgroup: Some(String::new()),
        oom_score_adj: Some(i64::from(host.oom_score_adj)),
        security_opt: security_opt(host),
        sysctls: (!host.sysctls.is_empty()).then(|| unordered(&host.sysctls)),
        ulimits: kernel::ulimit_models(&host.ulimits),
        pid_mode: Some(String::new()),
        privileged: Some(host.privileged),
        publish_all_ports: Some(host.publish_all),
        readonly_rootfs: Some(host.read_only),
        uts_mode: Some(String::new()),
        userns_mode: Some(String::new()),
        shm_size: Some(size(if host.shm_size == 0 { DEFAULT_SHM_SIZE } else { host.shm_size })),
        runtime: Some("skep".to_owned()),
        isolation: Some(models::HostConfigIsolationEnum::EMPTY),
        cpu_shares: Some(host.resources.cpu_shares),
        memory: Some(host.resources.memory),
        nano_cpus: Some(host.resources.nano_cpus),
        cgroup_parent: Some(String::new()),
        blkio_weight: Some(0),
        cpu_period: Some(0),
        cpu_quota: Some(0),
        cpuset_cpus: Some(String::new()),
        cpuset_mems: Some(String::new()),
        devices: Some(host.devices.iter().map(kernel::device_model).collect()),
        memory_reservation: Some(0),
        memory_swap: Some(match (host.resources.memory, host.resources.memory_swap) {
            // What holds where nobody said otherwise, as moby's `adaptContainerSettings` writes it down.
            (memory @ 1.., 0) => memory.saturating_mul(2),
            (_, swap) => swap,
        }),
        oom_kill_disable: Some(false),
        init: host.init,
        pids_limit: (host.resources.pids != 0).then_some(host.resources.pids),
        mounts: modern_mounts(host),
        masked_paths: texts(&MASKED_PATHS).filter(|_| !host.privileged),
        readonly_paths: texts(&READONLY_PATHS).filter(|_| !host.privileged),
        cpu_realtime_period: Some(0),
        cpu_realtime_runtime: Some(0),
        cpu_count: Some(0),
        cpu_percent: Some(0),
        io_maximum_iops: Some(0),
        io_maximum_bandwidth: Some(0),
        ..Default::default()
    };
    let names = [
        ("Binds", model.binds.is_none()),
        ("VolumesFrom", model.volumes_from.is_none()),
        ("CapAdd", model.cap_add.is_none()),
        ("CapDrop", model.cap_drop.is_none()),
        ("ExtraHosts", model.extra_hosts.is_none()),
        ("GroupAdd", model.group_add.is_none()),
        ("Links", model.links.is_none()),
        ("SecurityOpt", model.security_opt.is_none()),
        ("BlkioWeightDevice", model.blkio_weight_device.is_none()),
        ("BlkioDeviceReadBps", model.blkio_device_read_bps.is_none()),
        ("BlkioDeviceWriteBps", model.blkio_device_write_bps.is_none()),
        ("BlkioDeviceReadIOps", model.blkio_device_read_iops.is_none()),
        ("BlkioDeviceWriteIOps", model.blkio_device_write_iops.is_none()),
        ("DeviceCgroupRules", model.device_cgroup_rules.is_none()),
        ("DeviceRequests", model.device_requests.is_none()),
        ("MemorySwappiness", model.memory_swappiness.is_none()),
        ("PidsLimit", model.pids_limit.is_none()),
        ("Ulimits", model.ulimits.is_none()),
    ];
    with_nulls(model, names)
}

/// As given; Docker says of a privileged container that no labels of SELinux hold it.
fn security_opt(host: &HostConfig) -> Option<Vec<String>> {
    let unlabelled = "label=disable".to_owned();
    let missing = host.privileged && !host.security_opt.contains(&unlabelled);
    let texts: Vec<String> = host.security_opt.iter().cloned().chain(missing.then_some(unlabelled)).collect();
    (!texts.is_empty()).then_some(texts)
}

/// The mounts that did not come as `-v`; anonymous volumes are only listed under `Mounts` of the container.
fn modern_mounts(host: &HostConfig) -> Option<Vec<models::Mount>> {
    let bound: Vec<_> = host.binds.iter().filter_map(|text| mount::from_bind(text).ok()).collect();
    let mounts: Vec<_> = host
        .mounts
        .iter()
        .filter(|mount| !matches!(&mount.source, MountSource::Volume { name, .. } if name.is_empty()))
        .filter(|mount| !bound.iter().any(|bound| bound.target == mount.target))
        .map(mount::to_model)
        .collect();
    (!mounts.is_empty()).then_some(mounts)
}

fn bound_ports(bindings: &[PortBinding]) -> models::PortMap {
    let mut ports = models::PortMap::new();
    for binding in bindings {
        let places = ports.entry(binding.container.to_string()).or_default().get_or_insert_default();
        places.push(models::PortBinding {
            host_ip: Some(binding.host_ip.map_or_else(String::new, |address| address.to_string())),
            host_port: Some(if binding.host_port == 0 {
                String::new()
            } else {
                binding.host_port.to_string()
            }),
        });
    }
    ports
}

/// Exposed ports with the places that answer for them now; `null` for those that nobody published.
fn live_ports(ports: &[PortView]) -> models::PortMap {
    let mut map = models::PortMap::new();
    for port in ports {
        let places = map.entry(port.container.to_string()).or_default();
        if let Some((address, number)) = port.host {
            places.get_or_insert_default().push(models::PortBinding {
                host_ip: Some(address.to_string()),
                host_port: Some(number.to_string()),
            });
        }
    }
    map
}

fn network_settings(view: &ContainerView) -> NetworkSettings {
    let running = view.state.status == Status::Running;
    let sandbox_key = view.sandbox_key.display().to_string();
    let sandbox = sandbox_key.rsplit('/').next().unwrap_or_default().to_owned();
    // The top-level fields speak of the default bridge only, as Docker's legacy ones do.
    let bridge =
        view.networks.iter().find(|endpoint| endpoint.network == "bridge").map(endpoint).unwrap_or_default();
    let settings = models::NetworkSettings {
        bridge: Some(String::new()),
        sandbox_id: Some(sandbox),
        sandbox_key: Some(sandbox_key),
        ports: Some(if running { live_ports(&view.ports) } else { models::PortMap::new() }),
        hairpin_mode: Some(false),
        link_local_ipv6_address: Some(String::new()),
        link_local_ipv6_prefix_len: Some(0),
        secondary_ip_addresses: None,
        secondary_ipv6_addresses: None,
        endpoint_id: Some(bridge.endpoint_id.unwrap_or_default()),
        gateway: Some(bridge.gateway.unwrap_or_default()),
        global_ipv6_address: Some(String::new()),
        global_ipv6_prefix_len: Some(0),
        ip_address: Some(bridge.ip_address.unwrap_or_default()),
        ip_prefix_len: Some(bridge.ip_prefix_len.unwrap_or_default()),
        ipv6_gateway: Some(String::new()),
        mac_address: Some(bridge.mac_address.unwrap_or_default()),
        // In `NetworkSettings`.
        networks: None,
    };
    let names = [("SecondaryIPAddresses", true), ("SecondaryIPv6Addresses", true)];
    NetworkSettings { settings: with_nulls(settings, names), networks: endpoints(&view.networks) }
}

fn mount_point(view: &MountView) -> models::MountPoint {
    models::MountPoint {
        typ: Some(match view.kind {
            "bind" => MountPointTypeEnum::BIND,
            "tmpfs" => MountPointTypeEnum::TMPFS,
            _ => MountPointTypeEnum::VOLUME,
        }),
        name: (!view.name.is_empty()).then(|| view.name.clone()),
        source: Some(view.source.display().to_string()),
        destination: Some(view.target.display().to_string()),
        driver: (!view.driver.is_empty()).then(|| view.driver.to_owned()),
        mode: Some(view.mode.clone()),
        rw: Some(view.writable),
        propagation: Some(view.propagation.clone()),
    }
}

/// A container as a line of `GET /containers/json`.
pub fn summary(view: ContainerSummary, now: Time) -> Summary {
    // Only a network of its own gives a container ports to speak of.
    let has_ports = !["host", "none"].contains(&view.network_mode.as_str());
    let ports = view.ports.iter().filter(|_| has_ports);
    let container = models::ContainerSummary {
        id: Some(view.id.to_string()),
        names: Some(vec![format!("/{}", view.name)]),
        image: Some(view.image),
        image_id: Some(view.image_id),
        image_manifest_descriptor: None,
        command: Some(view.command),
        created: Some(seconds(view.created)),
        ports: Some(ports.map(port).collect()),
        // Go leaves out a size of zero here, and writes it in the inspection.
        size_rw: view.size.map(|sizes| size(sizes.writable)).filter(|size| *size != 0),
        size_root_fs: view.size.map(|sizes| size(sizes.root)).filter(|size| *size != 0),
        labels: Some(unordered(&view.labels)),
        state: Some(match view.state.status {
            Status::Created => ContainerSummaryStateEnum::CREATED,
            Status::Running => ContainerSummaryStateEnum::RUNNING,
            Status::Exited => ContainerSummaryStateEnum::EXITED,
            Status::Removing => ContainerSummaryStateEnum::REMOVING,
            Status::Dead => ContainerSummaryStateEnum::DEAD,
        }),
        status: Some(status_text(&view.state, now)),
        host_config: Some(models::ContainerSummaryHostConfig {
            network_mode: Some(view.network_mode),
            annotations: None,
        }),
        mounts: Some(view.mounts.iter().map(mount_point).collect()),
        // In `Summary`.
        network_settings: None,
    };
    Summary { container, network_settings: SummaryNetworks { networks: endpoints(&view.networks) } }
}

fn port(view: &PortView) -> models::Port {
    models::Port {
        ip: view.host.map(|(address, _)| address.to_string()),
        private_port: view.container.port,
        public_port: view.host.map(|(_, port)| port),
        typ: Some(match view.container.protocol {
            Protocol::Tcp => PortTypeEnum::TCP,
            Protocol::Udp => PortTypeEnum::UDP,
        }),
    }
}

/// ps's STATUS, in moby's words.
fn status_text(state: &StateView, now: Time) -> String {
    let ago = |time: Option<Time>| human_duration(time.map_or(Duration::ZERO, |time| now.since(time)));
    match state.status {
        Status::Created => "Created".to_owned(),
        Status::Running => format!("Up {}{}", ago(state.started_at), state.health.map_or("", health::remark)),
        Status::Exited => format!("Exited ({}) {} ago", state.exit_code, ago(state.finished_at)),
        Status::Removing => "Removal In Progress".to_owned(),
        Status::Dead => "Dead".to_owned(),
    }
}

/// A duration as people say it. As docker/go-units' `HumanDuration`.
pub fn human_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match (seconds, minutes, hours) {
        (0, ..) => "Less than a second".to_owned(),
        (1, ..) => "1 second".to_owned(),
        (2..60, ..) => format!("{seconds} seconds"),
        (_, 1, _) => "About a minute".to_owned(),
        (_, 2..60, _) => format!("{minutes} minutes"),
        (.., 1) => "About an hour".to_owned(),
        (.., 2..48) => format!("{hours} hours"),
        (.., 48..336) => format!("{} days", hours / 24),
        (.., 336..1440) => format!("{} weeks", hours / 24 / 7),
        (.., 1440..17520) => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

/// An exec as `GET /exec/{id}/json` shows it.
pub fn exec(view: ExecView) -> models::ExecInspectResponse {
    let mut words = view.config.cmd.into_iter();
    models::ExecInspectResponse {
        // Docker's mark for its own garbage collection, five minutes later.
        can_remove: Some(false),
        detach_keys: Some(String::new()),
        id: Some(view.id),
        running: Some(view.running),
        exit_code: view.exit_code.map(i64::from),
        process_config: Some(models::ProcessConfig {
            privileged: Some(view.config.privileged),
            user: Some(view.config.user),
            tty: Some(view.config.tty),
            entrypoint: Some(words.next().unwrap_or_default()),
            arguments: Some(words.collect()),
        }),
        open_stdin: Some(view.config.attach_stdin),
        open_stderr: Some(view.config.attach_stderr),
        open_stdout: Some(view.config.attach_stdout),
        container_id: Some(view.container.to_string()),
        pid: Some(i64::from(view.pid)),
    }
}

#[cfg(test)]
mod tests;
