//! What a daemon tells of itself: `/version`, `/info`, events.

use std::collections::HashMap;

use bollard_stubs::models;
use bytes::Bytes;
use models::{EventMessageScopeEnum, EventMessageTypeEnum};
use serde::Serialize;
use skep_engine::config::{Insecure, RegistrySettings};
use skep_engine::view::Info;
use skep_types::Time;
use skep_types::events::{Event, EventKind, Scope};

use super::{count, size, unordered};
use crate::context::{Daemon, Settings};
use crate::version::{NEWEST, OLDEST};

/// What keeps volumes.
pub const VOLUME_DRIVERS: [&str; 1] = ["local"];
/// What makes networks.
pub const NETWORK_DRIVERS: [&str; 4] = ["bridge", "host", "null", "overlay"];
/// What keeps logs.
pub const LOG_DRIVERS: [&str; 1] = ["json-file"];

/// Go's name of a processor, where users and tools expect that instead of the kernel's.
fn go_architecture(machine: &str) -> String {
    match machine {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "i686" | "i386" => "386",
        "armv7l" | "armv6l" => "arm",
        other => other,
    }
    .to_owned()
}

/// `GET /version`
pub fn version(daemon: &Daemon, info: &Info) -> models::SystemVersion {
    let architecture = go_architecture(&info.architecture);
    let details = [
        ("ApiVersion", NEWEST.to_string()),
        ("MinAPIVersion", OLDEST.to_string()),
        ("Arch", architecture.clone()),
        ("Experimental", "false".to_owned()),
        ("GitCommit", daemon.commit.to_owned()),
        ("GoVersion", "none: Rust".to_owned()),
        ("KernelVersion", info.kernel_version.clone()),
        ("Os", "linux".to_owned()),
    ];
    models::SystemVersion {
        platform: Some(models::SystemVersionPlatform { name: "Skep".to_owned() }),
        components: Some(vec![models::SystemVersionComponents {
            name: "Engine".to_owned(),
            version: daemon.version.to_owned(),
            details: Some(details.map(|(key, value)| (key.to_owned(), value)).into()),
        }]),
        version: Some(daemon.version.to_owned()),
        api_version: Some(NEWEST.to_string()),
        min_api_version: Some(OLDEST.to_string()),
        git_commit: Some(daemon.commit.to_owned()),
        go_version: Some("none: Rust".to_owned()),
        os: Some("linux".to_owned()),
        arch: Some(architecture),
        kernel_version: Some(info.kernel_version.clone()),
        experimental: None,
        build_time: None,
    }
}

/// `GET /info`
pub fn info(info: Info, daemon: &Daemon, swarm: models::SwarmInfo, now: Time) -> models::SystemInfo {
    let Settings { labels, debug } = daemon.settings();
    let names = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
    let status =
        [("Backing Filesystem", info.backing_filesystem.clone()), ("Supports d_type", "true".to_owned())];
    models::SystemInfo {
        id: Some(info.id),
        containers: Some(count(info.containers)),
        containers_running: Some(count(info.running)),
        containers_paused: Some(0),
        containers_stopped: Some(count(info.stopped)),
        images: Some(count(info.images)),
        driver: Some("overlay2".to_owned()),
        driver_status: Some(status.map(|(key, value)| vec![key.to_owned(), value]).into()),
        docker_root_dir: Some(info.data_root.display().to_string()),
        plugins: Some(models::PluginsInfo {
            volume: names(&VOLUME_DRIVERS),
            network: names(&NETWORK_DRIVERS),
            authorization: Some(Vec::new()),
            log: names(&LOG_DRIVERS),
        }),
        memory_limit: Some(true),
        swap_limit: Some(true),
        cpu_cfs_period: Some(true),
        cpu_cfs_quota: Some(true),
        cpu_shares: Some(true),
        cpu_set: Some(true),
        pids_limit: Some(true),
        oom_kill_disable: Some(false),
        ipv4_forwarding: Some(info.ipv4_forwarding),
        // Skep's rules see bridged traffic without these.
        bridge_nf_iptables: Some(true),
        bridge_nf_ip6tables: Some(true),
        debug: Some(debug),
        nfd: Some(count(info.file_descriptors)),
        n_goroutines: Some(0),
        system_time: Some(now.to_string()),
        logging_driver: Some("json-file".to_owned()),
        cgroup_driver: Some(models::SystemInfoCgroupDriverEnum::CGROUPFS),
        cgroup_version: Some(match info.cgroup_version {
            "2" => models::SystemInfoCgroupVersionEnum::_2,
            _ => models::SystemInfoCgroupVersionEnum::_1,
        }),
        n_events_listener: Some(count(info.event_listeners)),
        kernel_version: Some(info.kernel_version),
        operating_system: Some(info.operating_system),
        os_version: Some(info.os_version),
        os_type: Some("linux".to_owned()),
        architecture: Some(info.architecture),
        ncpu: Some(count(info.cpus)),
        mem_total: Some(size(info.memory_total)),
        index_server_address: Some("https://index.docker.io/v1/".to_owned()),
        registry_config: Some(registries(&info.registries)),
        http_proxy: Some(String::new()),
        https_proxy: Some(String::new()),
        no_proxy: Some(String::new()),
        name: Some(info.hostname),
        labels: Some(labels),
        experimental_build: Some(false),
        server_version: Some(daemon.version.to_owned()),
        runtimes: Some([("skep".to_owned(), models::Runtime::default())].into()),
        default_runtime: Some("skep".to_owned()),
        swarm: Some(swarm),
        // Containers outlive the daemon always.
        live_restore_enabled: Some(true),
        isolation: Some(models::SystemInfoIsolationEnum::EMPTY),
        generic_resources: Some(Vec::new()),
        init_binary: Some("skep".to_owned()),
        containerd_commit: Some(models::Commit { id: Some(String::new()) }),
        runc_commit: Some(models::Commit { id: Some(String::new()) }),
        init_commit: Some(models::Commit { id: Some(String::new()) }),
        security_options: Some(vec!["name=seccomp,profile=builtin".to_owned()]),
        firewall_backend: Some(models::FirewallInfo { driver: Some("nftables".to_owned()), info: None }),
        warnings: Some(Vec::new()),
        ..Default::default()
    }
}

/// How registries are reached, as moby's `registry.ServiceConfig`.
fn registries(settings: &RegistrySettings) -> models::RegistryServiceConfig {
    let index = |name: &str, mirrors: Vec<String>, secure: bool, official: bool| models::IndexInfo {
        name: Some(name.to_owned()),
        mirrors: Some(mirrors),
        secure: Some(secure),
        official: Some(official),
    };
    // As dockerd: an address ends with a slash.
    let mirrors: Vec<String> =
        settings.mirrors.iter().map(|mirror| format!("{}/", mirror.trim_end_matches('/'))).collect();
    let (nets, hosts): (Vec<&Insecure>, Vec<&Insecure>) =
        settings.insecure.iter().partition(|entry| entry.is_net());
    let mut cidrs: Vec<String> = nets.into_iter().map(ToString::to_string).collect();
    cidrs.extend(["::1/128".to_owned(), "127.0.0.0/8".to_owned()]);
    let mut indexes: HashMap<String, models::IndexInfo> = hosts
        .into_iter()
        .map(|host| (host.to_string(), index(&host.to_string(), Vec::new(), false, false)))
        .collect();
    indexes.insert("docker.io".to_owned(), index("docker.io", mirrors.clone(), true, true));
    models::RegistryServiceConfig {
        insecure_registry_cidrs: Some(cidrs),
        index_configs: Some(indexes),
        mirrors: Some(mirrors),
    }
}

/// An event, with the fields that clients of old know it by.
#[derive(Serialize)]
struct EventLine {
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    #[serde(flatten)]
    message: models::EventMessage,
}

/// An event as a line of `GET /events`.
pub fn event(event: &Event) -> Bytes {
    let is_old_kind = matches!(event.kind, EventKind::Container | EventKind::Image);
    let old = |text: &str| is_old_kind.then(|| text.to_owned());
    let line = EventLine {
        status: old(&event.action),
        id: old(&event.id),
        from: (event.kind == EventKind::Container).then(|| event.attributes.get("image").cloned()).flatten(),
        message: models::EventMessage {
            typ: Some(match event.kind {
                EventKind::Container => EventMessageTypeEnum::CONTAINER,
                EventKind::Image => EventMessageTypeEnum::IMAGE,
                EventKind::Volume => EventMessageTypeEnum::VOLUME,
                EventKind::Network => EventMessageTypeEnum::NETWORK,
                EventKind::Daemon => EventMessageTypeEnum::DAEMON,
                EventKind::Service => EventMessageTypeEnum::SERVICE,
                EventKind::Node => EventMessageTypeEnum::NODE,
            }),
            action: Some(event.action.clone()),
            actor: Some(models::EventActor {
                id: Some(event.id.clone()),
                attributes: Some(unordered(&event.attributes)),
            }),
            scope: Some(match event.scope {
                Scope::Local => EventMessageScopeEnum::LOCAL,
                Scope::Swarm => EventMessageScopeEnum::SWARM,
            }),
            time: i64::try_from(event.time.as_secs()).ok(),
            time_nano: i64::try_from(event.time.0).ok(),
        },
    };
    let mut bytes = serde_json::to_vec(&line).unwrap_or_default();
    bytes.push(b'\n');
    bytes.into()
}
