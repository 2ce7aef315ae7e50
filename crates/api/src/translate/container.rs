//! `docker create` and `docker exec`: from JSON to what the engine takes.

use std::collections::BTreeSet;
use std::time::Duration;

use bollard_stubs::models;
use models::{
    HostConfigCgroupnsModeEnum as CgroupNamespace, HostConfigIsolationEnum as Isolation,
    RestartPolicyNameEnum,
};
use serde::Deserialize;
use skep_types::container::{
    ContainerConfig, ContainerResources, DnsConfig, EndpointRequest, ExecConfig, HostConfig, LogDriver,
    NetworkMode,
};
use skep_types::mount::{Mount, MountSource};
use skep_types::port::{ContainerPort, PortBinding, Protocol};

use super::refuse::{refuse, refuse_all, refuse_if, refuse_unless};
use super::{endpoint, health, kernel, mount, ordered, unsigned};
use crate::body;
use crate::error::ApiError;

/// Docker's default masked paths: what a client that copies another container's settings sends back.
pub const MASKED_PATHS: [&str; 11] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];
/// Docker's default read-only paths.
pub const READONLY_PATHS: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Reads the text of the body of `POST /containers/create`.
pub fn parse(text: &[u8]) -> Result<ContainerConfig, ApiError> {
    let words: Words = body::parse(text)?.unwrap_or_default();
    let model = if words.cmd.is_some_and(|it| it.is_string())
        || words.entrypoint.is_some_and(|it| it.is_string())
    {
        let mut value: serde_json::Value = body::parse(text)?.unwrap_or_default();
        for field in ["Cmd", "Entrypoint"] {
            if let Some(word) = value.get_mut(field).filter(|word| word.is_string()) {
                *word = serde_json::Value::Array(vec![word.take()]);
            }
        }
        serde_json::from_value(value).map_err(|error| ApiError::invalid(format!("invalid JSON: {error}")))?
    } else {
        body::parse(text)?
    };
    config(model.ok_or_else(|| ApiError::invalid("config cannot be empty in order to create a container"))?)
}

/// The two fields in which Docker takes one word for a list of one (moby's `strslice`).
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Words {
    cmd: Option<serde_json::Value>,
    entrypoint: Option<serde_json::Value>,
}

/// Reads the body of `POST /containers/create`.
pub fn config(body: models::ContainerCreateBody) -> Result<ContainerConfig, ApiError> {
    let models::ContainerCreateBody {
        hostname,
        domainname,
        user,
        attach_stdin,
        attach_stdout,
        attach_stderr,
        exposed_ports,
        tty,
        open_stdin,
        stdin_once,
        env,
        cmd,
        healthcheck,
        // Windows only.
        args_escaped: _,
        image,
        volumes,
        working_dir,
        entrypoint,
        network_disabled,
        mac_address,
        // Both speak to a builder; a container carries them without effect.
        on_build: _,
        shell: _,
        labels,
        stop_signal,
        stop_timeout,
        host_config,
        networking_config,
    } = body;
    let health = healthcheck.map(health::from_model).transpose()?;
    refuse("NetworkDisabled", &network_disabled)?;
    let mut host = host(host_config.unwrap_or_default())?;
    host.endpoints = endpoints(networking_config, &host.network, mac_address)?;
    let mut anonymous = volumes.unwrap_or_default();
    // The model forgets the order of the map; sorted is at least always the same.
    anonymous.sort();
    for target in anonymous {
        let target = mount::target_path(&target)?;
        // A named mount at the same place wins, as in Docker.
        if !host.mounts.iter().any(|mount| mount.target == target) {
            let source =
                MountSource::Volume { name: String::new(), no_copy: false, labels: Default::default() };
            host.mounts.push(Mount { target, source, read_only: false });
        }
    }
    Ok(ContainerConfig {
        image: image.unwrap_or_default(),
        cmd,
        entrypoint,
        env: env.unwrap_or_default(),
        labels: ordered(labels),
        working_dir: working_dir.unwrap_or_default(),
        user: user.unwrap_or_default(),
        hostname: hostname.unwrap_or_default(),
        domainname: domainname.unwrap_or_default(),
        tty: tty.unwrap_or_default(),
        open_stdin: open_stdin.unwrap_or_default(),
        stdin_once: stdin_once.unwrap_or_default(),
        attach_stdin: attach_stdin.unwrap_or_default(),
        attach_stdout: attach_stdout.unwrap_or_default(),
        attach_stderr: attach_stderr.unwrap_or_default(),
        exposed_ports: exposed_ports
            .unwrap_or_default()
            .iter()
            .map(|text| port(text))
            .collect::<Result<_, _>>()?,
        stop_signal: stop_signal.unwrap_or_default(),
        stop_timeout: stop_timeout
            .map(|seconds| unsigned("StopTimeout", seconds).map(Duration::from_secs))
            .transpose()?,
        health,
        host,
    })
}

/// Reads a container's port: `80`, `80/tcp`.
pub fn port(text: &str) -> Result<ContainerPort, ApiError> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol: Protocol = match protocol.to_ascii_lowercase().as_str() {
        "sctp" => return Err(ApiError::not_built(format!("port {text}: protocol sctp"))),
        protocol => {
            protocol.parse().map_err(|error| ApiError::invalid(format!("invalid port {text:?}: {error}")))?
        }
    };
    if number.contains('-') {
        return Err(ApiError::not_built(format!("port {text}: a range of container ports at the API")));
    }
    match number.parse() {
        Ok(0) | Err(_) => Err(ApiError::invalid(format!("invalid port {text:?}: must be 1 to 65535"))),
        Ok(port) => Ok(ContainerPort { port, protocol }),
    }
}

fn bindings(ports: models::PortMap) -> Result<Vec<PortBinding>, ApiError> {
    let mut bindings = Vec::new();
    for (container, hosts) in ports {
        let container = port(&container)?;
        // A port without any place on the host asks for a free one.
        let hosts =
            hosts.filter(|hosts| !hosts.is_empty()).unwrap_or_else(|| vec![models::PortBinding::default()]);
        for models::PortBinding { host_ip, host_port } in hosts {
            let host_ip = match host_ip.as_deref() {
                None | Some("") => None,
                Some(text) => Some(
                    text.parse().map_err(|_| ApiError::invalid(format!("invalid host address {text:?}")))?,
                ),
            };
            let host_port = match host_port.as_deref() {
                None | Some("") => 0,
                Some(text) if text.contains('-') => {
                    return Err(ApiError::not_built(format!("host port {text}: a range to choose from")));
                }
                Some(text) => text
                    .parse()
                    .map_err(|_| ApiError::invalid(format!("invalid port specification: {text:?}")))?,
            };
            bindings.push(PortBinding { container, host_ip, host_port });
        }
    }
    bindings.sort();
    Ok(bindings)
}

/// What clients say of the networks that a new container joins. `mac` is the address that older ones give the container
/// as a whole: it is for the network of its mode.
fn endpoints(
    config: Option<models::NetworkingConfig>,
    mode: &NetworkMode,
    mac: Option<String>,
) -> Result<Vec<EndpointRequest>, ApiError> {
    let models::NetworkingConfig { endpoints_config } = config.unwrap_or_default();
    let read = |(name, settings): (String, models::EndpointSettings)| {
        endpoint::request(&name, &format!("NetworkingConfig.EndpointsConfig.{name}"), settings)
    };
    let mut endpoints =
        endpoints_config.unwrap_or_default().into_iter().map(read).collect::<Result<Vec<_>, _>>()?;
    // The client names the default network where nobody named any.
    let implied = |it: &EndpointRequest| {
        let bare = EndpointRequest { network: it.network.clone(), ..Default::default() };
        ["default", "bridge"].contains(&it.network.as_str()) && *it == bare
    };
    endpoints.retain(|it| *mode != NetworkMode::Bridge || !implied(it));
    // The model forgets the order; by name it is at least always the same.
    endpoints.sort_by(|left, right| left.network.cmp(&right.network));
    let Some(mac) = mac.filter(|text| !text.is_empty()) else { return Ok(endpoints) };
    let first = match mode {
        NetworkMode::Named(name) => name,
        NetworkMode::Bridge => "default",
        NetworkMode::Host | NetworkMode::None | NetworkMode::Cluster(_) | NetworkMode::Container(_) => {
            return Err(ApiError::invalid("conflicting options: mac-address and the network mode"));
        }
    };
    let mac = Some(endpoint::mac(&mac)?);
    let is_first = |it: &&mut EndpointRequest| {
        it.network == *first || (it.network == "bridge" && *mode == NetworkMode::Bridge)
    };
    match endpoints.iter_mut().find(is_first) {
        Some(endpoint) => endpoint.mac = endpoint.mac.or(mac),
        None => endpoints.push(EndpointRequest { network: first.to_owned(), mac, ..Default::default() }),
    }
    Ok(endpoints)
}

fn network_mode(text: Option<&str>) -> NetworkMode {
    match text.unwrap_or_default() {
        "" | "default" | "bridge" => NetworkMode::Bridge,
        "host" => NetworkMode::Host,
        "none" => NetworkMode::None,
        text => match text.strip_prefix("container:") {
            Some(other) => NetworkMode::Container(other.to_owned()),
            None => NetworkMode::Named(text.to_owned()),
        },
    }
}

fn host(config: models::HostConfig) -> Result<HostConfig, ApiError> {
    refuse_unsupported(&config)?;
    // What is left out here is accounted for, field by field, in `refuse_unsupported`.
    let models::HostConfig {
        cpu_shares,
        memory,
        memory_swap,
        nano_cpus,
        init,
        pids_limit,
        binds,
        network_mode: mode,
        port_bindings,
        auto_remove,
        mounts,
        cap_add,
        cap_drop,
        extra_hosts,
        group_add,
        publish_all_ports,
        readonly_rootfs,
        tmpfs,
        shm_size,
        dns,
        dns_options,
        dns_search,
        oom_score_adj,
        security_opt,
        sysctls,
        ulimits,
        log_config,
        privileged,
        devices,
        ..
    } = config;
    let binds = binds.unwrap_or_default();
    let mut all = binds.iter().map(|text| mount::from_bind(text)).collect::<Result<Vec<_>, _>>()?;
    for mount in mounts.unwrap_or_default() {
        all.push(mount::from_model(mount)?);
    }
    all.extend(mount::from_tmpfs(tmpfs)?);
    mount::refuse_duplicates(&all)?;
    let set = |names: Option<Vec<String>>| names.unwrap_or_default().into_iter().collect::<BTreeSet<_>>();
    Ok(HostConfig {
        mounts: all,
        binds,
        network: network_mode(mode.as_deref()),
        endpoints: Vec::new(),
        ports: bindings(port_bindings.unwrap_or_default())?,
        publish_all: publish_all_ports.unwrap_or_default(),
        auto_remove: auto_remove.unwrap_or_default(),
        resources: ContainerResources {
            memory: memory.unwrap_or_default(),
            memory_swap: memory_swap.unwrap_or_default(),
            nano_cpus: nano_cpus.unwrap_or_default(),
            cpu_shares: cpu_shares.unwrap_or_default(),
            // Docker's ways to say "unlimited": 0, -1 and nothing.
            pids: pids_limit.unwrap_or_default().max(0),
        },
        cap_add: set(cap_add),
        cap_drop: set(cap_drop),
        group_add: group_add.unwrap_or_default(),
        extra_hosts: extra_hosts.unwrap_or_default(),
        init,
        read_only: readonly_rootfs.unwrap_or_default(),
        shm_size: unsigned("HostConfig.ShmSize", shm_size.unwrap_or_default())?,
        dns: DnsConfig {
            servers: dns.unwrap_or_default(),
            search: dns_search.unwrap_or_default(),
            options: dns_options.unwrap_or_default(),
        },
        sysctls: ordered(sysctls),
        ulimits: kernel::ulimits(ulimits)?,
        oom_score_adj: kernel::oom_score_adj(oom_score_adj)?,
        security: kernel::security(security_opt.as_deref().unwrap_or_default())?,
        security_opt: security_opt.unwrap_or_default(),
        log: log_driver(log_config)?,
        privileged: privileged.unwrap_or_default(),
        devices: kernel::devices(devices)?,
    })
}

/// Refuses what Skep cannot honour. A list rather than logic: every field of the model is in it, so that a new
/// one does not compile until somebody decides.
fn refuse_unsupported(config: &models::HostConfig) -> Result<(), ApiError> {
    let models::HostConfig {
        // Honoured by `host`.
        cpu_shares: _,
        memory: _,
        memory_swap: _,
        nano_cpus: _,
        init: _,
        pids_limit: _,
        binds: _,
        network_mode: _,
        port_bindings: _,
        auto_remove: _,
        mounts: _,
        cap_add: _,
        cap_drop: _,
        extra_hosts: _,
        group_add: _,
        publish_all_ports: _,
        readonly_rootfs: _,
        tmpfs: _,
        shm_size: _,
        dns: _,
        dns_options: _,
        dns_search: _,
        oom_score_adj: _,
        security_opt: _,
        sysctls: _,
        ulimits: _,
        log_config: _,
        privileged: _,
        devices: _,
        // Of the client only.
        container_id_file: _,
        console_size: _,
        // Docker ignores it too since kernels dropped it.
        kernel_memory_tcp: _,
        cgroup_parent,
        blkio_weight,
        blkio_weight_device,
        blkio_device_read_bps,
        blkio_device_write_bps,
        blkio_device_read_iops,
        blkio_device_write_iops,
        cpu_period,
        cpu_quota,
        cpu_realtime_period,
        cpu_realtime_runtime,
        cpuset_cpus,
        cpuset_mems,
        device_cgroup_rules,
        device_requests,
        memory_reservation,
        memory_swappiness,
        oom_kill_disable,
        cpu_count,
        cpu_percent,
        io_maximum_iops,
        io_maximum_bandwidth,
        restart_policy,
        volume_driver,
        volumes_from,
        annotations,
        cgroupns_mode,
        ipc_mode,
        cgroup,
        links,
        pid_mode,
        storage_opt,
        uts_mode,
        userns_mode,
        runtime,
        isolation,
        masked_paths,
        readonly_paths,
    } = config;
    refuse_all(&[
        ("HostConfig.CgroupParent (--cgroup-parent)", cgroup_parent),
        ("HostConfig.BlkioWeight (--blkio-weight)", blkio_weight),
        ("HostConfig.BlkioWeightDevice (--blkio-weight-device)", blkio_weight_device),
        ("HostConfig.BlkioDeviceReadBps (--device-read-bps)", blkio_device_read_bps),
        ("HostConfig.BlkioDeviceWriteBps (--device-write-bps)", blkio_device_write_bps),
        ("HostConfig.BlkioDeviceReadIOps (--device-read-iops)", blkio_device_read_iops),
        ("HostConfig.BlkioDeviceWriteIOps (--device-write-iops)", blkio_device_write_iops),
        ("HostConfig.CpuPeriod (--cpu-period; use --cpus)", cpu_period),
        ("HostConfig.CpuQuota (--cpu-quota; use --cpus)", cpu_quota),
        ("HostConfig.CpuRealtimePeriod (--cpu-rt-period)", cpu_realtime_period),
        ("HostConfig.CpuRealtimeRuntime (--cpu-rt-runtime)", cpu_realtime_runtime),
        ("HostConfig.CpusetCpus (--cpuset-cpus)", cpuset_cpus),
        ("HostConfig.CpusetMems (--cpuset-mems)", cpuset_mems),
        ("HostConfig.DeviceCgroupRules (--device-cgroup-rule)", device_cgroup_rules),
        ("HostConfig.DeviceRequests (--gpus)", device_requests),
        ("HostConfig.MemoryReservation (--memory-reservation)", memory_reservation),
        ("HostConfig.OomKillDisable (--oom-kill-disable)", oom_kill_disable),
        ("HostConfig.CpuCount (Windows)", cpu_count),
        ("HostConfig.CpuPercent (Windows)", cpu_percent),
        ("HostConfig.IOMaximumIOps (Windows)", io_maximum_iops),
        ("HostConfig.IOMaximumBandwidth (Windows)", io_maximum_bandwidth),
        ("HostConfig.VolumesFrom (--volumes-from)", volumes_from),
        ("HostConfig.Annotations (--annotation)", annotations),
        ("HostConfig.Cgroup", cgroup),
        ("HostConfig.Links (--link)", links),
        ("HostConfig.PidMode (--pid)", pid_mode),
        ("HostConfig.StorageOpt (--storage-opt)", storage_opt),
        ("HostConfig.UTSMode (--uts)", uts_mode),
    ])?;
    // -1 is the client's way to leave it alone.
    refuse_if(
        "HostConfig.MemorySwappiness (--memory-swappiness)",
        !matches!(memory_swappiness, None | Some(-1)),
    )?;
    refuse_unless("HostConfig.VolumeDriver (--volume-driver)", volume_driver.as_deref(), &["local"])?;
    refuse_unless("HostConfig.IpcMode (--ipc)", ipc_mode.as_deref(), &["private"])?;
    refuse_unless("HostConfig.UsernsMode (--userns)", userns_mode.as_deref(), &["host"])?;
    refuse_unless("HostConfig.Runtime (--runtime)", runtime.as_deref(), &["skep", "runc"])?;
    refuse_if("HostConfig.CgroupnsMode=host (--cgroupns)", *cgroupns_mode == Some(CgroupNamespace::HOST))?;
    let odd_isolation = !matches!(isolation, None | Some(Isolation::EMPTY | Isolation::DEFAULT));
    refuse_if("HostConfig.Isolation (--isolation)", odd_isolation)?;
    let same = |given: &Option<Vec<String>>, ours: &[&str]| {
        given.as_ref().is_none_or(|given| given.iter().eq(ours.iter().copied()))
    };
    refuse_if("HostConfig.MaskedPaths", !same(masked_paths, &MASKED_PATHS))?;
    refuse_if("HostConfig.ReadonlyPaths", !same(readonly_paths, &READONLY_PATHS))?;
    refuse_restart_policy(restart_policy.as_ref())
}

fn log_driver(config: Option<models::HostConfigLogConfig>) -> Result<LogDriver, ApiError> {
    let models::HostConfigLogConfig { typ, config } = config.unwrap_or_default();
    refuse("HostConfig.LogConfig.Config (--log-opt)", &config)?;
    let driver = kernel::log_driver("HostConfig.LogConfig.Type (--log-driver)", typ.as_deref())?;
    Ok(driver.unwrap_or_default())
}

fn refuse_restart_policy(policy: Option<&models::RestartPolicy>) -> Result<(), ApiError> {
    let Some(models::RestartPolicy { name, maximum_retry_count: _ }) = policy else { return Ok(()) };
    match name {
        None | Some(RestartPolicyNameEnum::EMPTY | RestartPolicyNameEnum::NO) => Ok(()),
        Some(
            name @ (RestartPolicyNameEnum::ALWAYS
            | RestartPolicyNameEnum::UNLESS_STOPPED
            | RestartPolicyNameEnum::ON_FAILURE),
        ) => Err(ApiError::not_built(format!("option HostConfig.RestartPolicy (--restart {name})"))),
    }
}

/// Reads the body of `POST /containers/{id}/exec`. The detach keys are the caller's.
pub fn exec(config: models::ExecConfig) -> ExecConfig {
    let models::ExecConfig {
        attach_stdin,
        attach_stdout,
        attach_stderr,
        // Given again, and then used, when the exec is started.
        console_size: _,
        detach_keys: _,
        tty,
        env,
        cmd,
        privileged,
        user,
        working_dir,
    } = config;
    ExecConfig {
        cmd: cmd.unwrap_or_default(),
        env: env.unwrap_or_default(),
        working_dir: working_dir.unwrap_or_default(),
        user: user.unwrap_or_default(),
        tty: tty.unwrap_or_default(),
        attach_stdin: attach_stdin.unwrap_or_default(),
        attach_stdout: attach_stdout.unwrap_or_default(),
        attach_stderr: attach_stderr.unwrap_or_default(),
        privileged: privileged.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests;
