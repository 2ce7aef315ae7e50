//! The container of a task, compared with what moby makes of the same specification.

use std::sync::Arc;
use std::time::Duration;

use skep_types::container::DnsConfig;
use skep_types::network::Network;
use skep_types::resources::Resources;
use skep_types::service::{RestartPolicy, ServiceContainer, TaskSpec};
use skep_types::ulimit::{Rlimit, RlimitResource};
use skep_types::{Meta, NetworkId, NodeId, ServiceId, TaskId, TaskState, TaskStatus, Time, Version};

use super::*;

/// A task of a service.
pub(crate) fn task(container: ServiceContainer, limits: Resources) -> Task {
    let status = TaskStatus {
        state: TaskState::Assigned,
        since: Time(0),
        message: String::new(),
        error: String::new(),
        container: None,
    };
    Task {
        id: TaskId(1),
        meta: Meta::default(),
        service: ServiceId(2),
        slot: 3,
        node: Some(NodeId(4)),
        spec: Arc::new(TaskSpec {
            container,
            limits,
            reservations: Resources::default(),
            generic: Default::default(),
            restart: RestartPolicy::default(),
            placement: Default::default(),
            force_update: 0,
            networks: Vec::new(),
            log: None,
        }),
        spec_version: Version(1),
        service_name: "web".to_owned(),
        service_labels: Default::default(),
        desired: TaskState::Running,
        status,
        attachments: Vec::new(),
        not_before: None,
        host_ports: Vec::new(),
        generic: Default::default(),
        moves: false,
        pinned: None,
        iteration: None,
    }
}

fn texts(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

fn machine() -> Machine {
    Machine { hostname: "bee".to_owned(), architecture: "x86_64".to_owned(), os: "linux".to_owned() }
}

#[test]
fn labels_name_the_task_and_cannot_be_overridden() {
    let labels =
        [("a", "b"), (LABEL_TASK_ID, "forged")].map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let task =
        task(ServiceContainer { image: "web".into(), labels, ..Default::default() }, Resources::default());
    let config = config(&task, Vec::new(), &machine()).expect("it has no templates");
    let expected = [
        ("a", "b"),
        ("com.docker.swarm.node.id", "0000000000000000000000004"),
        ("com.docker.swarm.service.id", "0000000000000000000000002"),
        ("com.docker.swarm.service.name", "web"),
        ("com.docker.swarm.task", ""),
        ("com.docker.swarm.task.id", "0000000000000000000000001"),
        ("com.docker.swarm.task.name", "web.3.0000000000000000000000001"),
    ];
    let labels: Vec<(&str, &str)> =
        config.labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    assert_eq!(labels, expected);
    assert_eq!(config.image, "web:latest");
    assert_eq!(config.host.network, NetworkMode::Bridge);
}

#[test]
fn the_specification_reaches_the_container() {
    let container = ServiceContainer {
        image: "registry:5000/web@sha256:00".into(),
        command: Some(texts(&["server"])),
        args: Some(Vec::new()),
        env: texts(&["A=b\nc"]),
        dir: "/srv".into(),
        user: "1000".into(),
        groups: texts(&["adm"]),
        hostname: "h".into(),
        init: true,
        tty: true,
        open_stdin: true,
        read_only: true,
        hosts: texts(&["10.1.1.1 db database", "broken"]),
        cap_add: ["NET_ADMIN".to_owned()].into(),
        cap_drop: ["MKNOD".to_owned()].into(),
        stop_signal: "SIGINT".into(),
        stop_grace: Some(Duration::from_secs(3)),
        dns: dns(),
        sysctls: [("kernel.shmmax".to_owned(), "1".to_owned())].into(),
        ulimits: vec![ULIMIT],
        oom_score_adj: -5,
        privileges: Some(Privileges {
            no_new_privileges: true,
            seccomp: Some(Seccomp::Unconfined),
            app_armor: Some(AppArmor::Disabled),
        }),
        ..Default::default()
    };
    let limits = Resources { nano_cpus: 500_000_000, memory_bytes: 64 << 20, pids: 9 };
    let network = Network {
        ingress: true,
        ..Network::new(NetworkId(5), "ingress", "10.0.0.0/24".parse().expect("a subnet"), 4096)
    };
    let attachment = ClusterAttachment { network, address: [10, 0, 0, 7].into(), aliases: Vec::new() };
    let expected = ContainerConfig {
        image: "registry:5000/web@sha256:00".into(),
        entrypoint: Some(texts(&["server"])),
        env: texts(&["A=b\nc"]),
        labels: labels(&task(ServiceContainer::default(), limits)),
        working_dir: "/srv".into(),
        user: "1000".into(),
        hostname: "h".into(),
        tty: true,
        open_stdin: true,
        stop_signal: "SIGINT".into(),
        stop_timeout: Some(Duration::from_secs(3)),
        host: HostConfig {
            network: NetworkMode::Cluster(vec![attachment.clone()]),
            resources: ContainerResources {
                memory: 64 << 20,
                nano_cpus: 500_000_000,
                pids: 9,
                ..Default::default()
            },
            cap_add: ["NET_ADMIN".to_owned()].into(),
            cap_drop: ["MKNOD".to_owned()].into(),
            group_add: texts(&["adm"]),
            extra_hosts: texts(&["db:10.1.1.1"]),
            init: Some(true),
            read_only: true,
            dns: dns(),
            sysctls: [("kernel.shmmax".to_owned(), "1".to_owned())].into(),
            ulimits: vec![ULIMIT],
            oom_score_adj: -5,
            security: Security { no_new_privileges: true, seccomp: Seccomp::Unconfined },
            security_opt: texts(&["no-new-privileges=true", "seccomp=unconfined", "apparmor=unconfined"]),
            ..Default::default()
        },
        ..Default::default()
    };
    assert_eq!(config(&task(container, limits), vec![attachment], &machine()), Ok(expected));
}

const ULIMIT: Rlimit = Rlimit { resource: RlimitResource::Nofile, soft: 1, hard: 2 };

fn dns() -> DnsConfig {
    DnsConfig { servers: texts(&["10.1.1.1"]), search: texts(&["a.b"]), options: texts(&["ndots:2"]) }
}

#[test]
fn templates_are_those_of_the_task_and_its_node() {
    let container = ServiceContainer {
        image: "web".into(),
        env: texts(&["WHO={{.Service.Name}}.{{.Task.Slot}} on {{.Node.Hostname}} {{.Node.ID}}"]),
        hostname: "{{.Service.Labels.tier}}-{{.Task.Slot}}".into(),
        ..Default::default()
    };
    let mut task = task(container, Resources::default());
    task.service_labels = [("tier".to_owned(), "front".to_owned())].into();
    let made = config(&task, Vec::new(), &machine()).expect("its templates make sense");
    assert_eq!(made.env, ["WHO=web.3 on bee 0000000000000000000000004"]);
    assert_eq!(made.hostname, "front-3");
    task.service_labels.clear();
    let error = config(&task, Vec::new(), &machine()).expect_err("its label is missing").to_string();
    assert_eq!(error, "expanding hostname failed: template: map has no entry for key \"tier\"");
    // A task of every node has no slot.
    task.slot = 0;
    task.spec = Arc::new(TaskSpec {
        container: ServiceContainer { env: texts(&["S={{.Task.Slot}}"]), ..Default::default() },
        ..TaskSpec::clone(&task.spec)
    });
    let made = config(&task, Vec::new(), &machine()).expect("its template makes sense");
    assert_eq!(made.env, ["S=0000000000000000000000004"]);
}

#[test]
fn only_a_bare_name_gets_a_tag() {
    let id = "ab".repeat(32);
    for (given, shown) in [
        ("web", "web:latest"),
        ("web:1", "web:1"),
        ("localhost:5000/web", "localhost:5000/web:latest"),
        ("a/b@sha256:1", "a/b@sha256:1"),
        (id.as_str(), id.as_str()),
    ] {
        assert_eq!(familiar_image(given), shown);
    }
}
