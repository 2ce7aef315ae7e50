#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use hyper::StatusCode;
use skep_types::container::LogDriver;
use skep_types::mount::{Mount, MountSource};
use skep_types::security::{AppArmor, Privileges, Seccomp};
use skep_types::ulimit::{Rlimit, RlimitResource};

use super::super::service_view;
use super::*;

/// `docker service create --detach --name web -p 80:8000 img` by the stock client 28.2.2.
const PLAIN: &str = include_str!("../../../tests/data/service-plain.json");
/// `docker service create --detach --name web2 --replicas 3 --mount type=volume,source=v,target=/d --env A=b
/// --limit-memory 64m --restart-delay 0s --update-delay 1s img cmd arg` by the same, its constraint left out.
const FULL: &str = include_str!("../../../tests/data/service-full.json");

fn read(text: &str) -> Result<ServiceSpec, ApiError> {
    parse(text.as_bytes(), &|name| Err(ApiError::not_found(format!("network {name} not found"))))
}

fn plain() -> ServiceSpec {
    ServiceSpec {
        name: "web".to_owned(),
        labels: [].into(),
        task: Arc::new(TaskSpec {
            container: ServiceContainer { image: "img:latest".to_owned(), ..Default::default() },
            limits: Resources::default(),
            reservations: Resources::default(),
            generic: Default::default(),
            restart: RestartPolicy::default(),
            placement: Default::default(),
            force_update: 0,
            networks: Vec::new(),
            log: None,
        }),
        mode: ServiceMode::Replicated { replicas: 1 },
        update: UpdateConfig::default(),
        rollback: UpdateConfig::default(),
        ports: vec![PortSpec {
            name: String::new(),
            protocol: Protocol::Tcp,
            target_port: 8000,
            published_port: 80,
            mode: PublishMode::Ingress,
            address: None,
        }],
        endpoint_mode: EndpointMode::Vip,
    }
}

#[test]
fn the_stock_client_s_plain_service_means_the_defaults() {
    assert_eq!(read(PLAIN), Ok(plain()));
}

#[test]
fn the_stock_client_s_options_arrive() {
    let mut expected = plain();
    expected.name = "web2".to_owned();
    expected.ports.clear();
    expected.mode = ServiceMode::Replicated { replicas: 3 };
    expected.update.delay = Duration::from_secs(1);
    let task = Arc::make_mut(&mut expected.task);
    task.restart.delay = Duration::ZERO;
    task.limits.memory_bytes = 64 << 20;
    task.container.env = vec!["A=b".to_owned()];
    task.container.args = Some(vec!["cmd".to_owned(), "arg".to_owned()]);
    task.container.mounts = vec![Mount {
        target: "/d".into(),
        source: MountSource::Volume { name: "v".to_owned(), no_copy: false, labels: Default::default() },
        read_only: false,
    }];
    assert_eq!(read(FULL), Ok(expected));
}

#[test]
fn a_specification_survives_the_round_trip() {
    for text in [PLAIN, FULL] {
        let once = read(text).unwrap();
        let shown = serde_json::to_string(&service_view::spec(&once, false)).unwrap();
        assert_eq!(read(&shown).as_ref(), Ok(&once), "{shown}");
        // With defaults filled in it says more, all of which is understood.
        let shown = serde_json::to_string(&service_view::spec(&once, true)).unwrap();
        assert!(read(&shown).is_ok(), "{shown}");
    }
}

#[test]
fn updates_and_rollbacks_are_configured_alike() {
    let text = r#"{"TaskTemplate":{"ContainerSpec":{"Image":"x"}},
        "UpdateConfig":{"Parallelism":0,"FailureAction":"rollback","Monitor":30000000000,"MaxFailureRatio":0.25,"Order":"start-first"},
        "RollbackConfig":{"Parallelism":2,"Delay":1000000000,"FailureAction":"continue","Order":"start-first"}}"#;
    let spec = read(text).unwrap();
    let update = UpdateConfig {
        parallelism: 0,
        delay: Duration::ZERO,
        failure_action: FailureAction::Rollback,
        monitor: Duration::from_secs(30),
        max_failure_permille: 250,
        order: UpdateOrder::StartFirst,
    };
    let rollback = UpdateConfig {
        parallelism: 2,
        delay: Duration::from_secs(1),
        failure_action: FailureAction::Continue,
        order: UpdateOrder::StartFirst,
        ..UpdateConfig::default()
    };
    assert_eq!((spec.update, spec.rollback), (update, rollback));
    let shown = serde_json::to_string(&service_view::spec(&spec, false)).unwrap();
    assert_eq!(read(&shown), Ok(spec));
    let none = service_view::spec(&read(PLAIN).unwrap(), false);
    assert_eq!(none.rollback_config, None);
}

#[test]
fn placement_is_read_and_shown_as_it_was_written() {
    let text = r#"{"TaskTemplate":{"ContainerSpec":{"Image":"x"},"Placement":{"Constraints":["node.role == manager",
        "node.labels.disk!=ssd"],"Platforms":[{"Architecture":"amd64","OS":"linux"}]}}}"#;
    let spec = read(text).unwrap();
    let placement = &spec.task.placement;
    assert_eq!(placement.platforms, [Platform { architecture: "amd64".to_owned(), os: "linux".to_owned() }]);
    let shown = service_view::spec(&spec, false).task_template.unwrap().placement.unwrap();
    assert_eq!(shown.constraints.unwrap(), ["node.role == manager", "node.labels.disk!=ssd"]);
    let error = read(&text.replace("==", "=")).unwrap_err();
    assert_eq!(
        (error.status(), error.to_string().as_str()),
        (StatusCode::BAD_REQUEST, "constraint expected one operator from ==, !=")
    );
}

/// What the rest of the specification says of a container, as clients write it and as it is shown.
#[test]
fn what_is_asked_of_the_kernel_is_read_and_shown_as_it_was_written() {
    let container = serde_json::json!({
        "Image": "x", "Init": false, "Isolation": "default",
        "Env": ["WHO={{.Task.Name}}"], "Hostname": "{{.Node.Hostname}}",
        "DNSConfig": { "Nameservers": ["10.1.1.1"], "Search": ["a.b"], "Options": ["ndots:2"] },
        "Sysctls": { "net.ipv4.ip_forward": "1" },
        "Ulimits": [{ "Name": "nofile", "Soft": 10, "Hard": -1 }],
        "OomScoreAdj": 100,
        "Privileges": {
            "NoNewPrivileges": true,
            "Seccomp": { "Mode": "custom", "Profile": "e30=" },
            "AppArmor": { "Mode": "disabled" },
        },
        "Mounts": [
            { "Type": "bind", "Source": "{{.Service.Name}}", "Target": "/b" },
            { "Type": "volume", "Source": "v{{.Task.Slot}}", "Target": "/v", "VolumeOptions": { "Labels": { "a": "b" } } },
        ],
    });
    let text = serde_json::json!({
        "TaskTemplate": { "ContainerSpec": container, "LogDriver": { "Name": "none" } },
    });
    let read = read(&text.to_string()).unwrap();
    let expected = ServiceContainer {
        image: "x".to_owned(),
        env: vec!["WHO={{.Task.Name}}".to_owned()],
        hostname: "{{.Node.Hostname}}".to_owned(),
        dns: DnsConfig {
            servers: vec!["10.1.1.1".to_owned()],
            search: vec!["a.b".to_owned()],
            options: vec!["ndots:2".to_owned()],
        },
        sysctls: [("net.ipv4.ip_forward".to_owned(), "1".to_owned())].into(),
        ulimits: vec![Rlimit { resource: RlimitResource::Nofile, soft: 10, hard: u64::MAX }],
        oom_score_adj: 100,
        privileges: Some(Privileges {
            no_new_privileges: true,
            seccomp: Some(Seccomp::Custom("{}".to_owned())),
            app_armor: Some(AppArmor::Disabled),
        }),
        mounts: read.task.container.mounts.clone(),
        ..Default::default()
    };
    assert_eq!((&read.task.container, read.task.log), (&expected, Some(LogDriver::None)));
    let shown = serde_json::to_value(service_view::spec(&read, false)).unwrap();
    assert_eq!(shown["TaskTemplate"]["ContainerSpec"], container);
    assert_eq!(shown["TaskTemplate"]["LogDriver"], serde_json::json!({ "Name": "none" }));
}

#[test]
fn preferences_bounds_and_generic_resources_survive_the_round_trip() {
    let placement =
        r#"{"Preferences":[{"Spread":{"SpreadDescriptor":"node.labels.rack"}},{}],"MaxReplicas":2}"#;
    let reserved = r#"{"GenericResources":[{"DiscreteResourceSpec":{"Kind":"gpu","Value":2}}]}"#;
    let text = format!(
        r#"{{"TaskTemplate":{{"ContainerSpec":{{"Image":"x"}},"Placement":{placement},"Resources":{{"Reservations":{reserved}}}}}}}"#
    );
    let spec = read(&text).unwrap();
    assert_eq!(spec.task.placement.preferences, [Preference { spread: "node.labels.rack".to_owned() }]);
    assert_eq!((spec.task.placement.max_replicas, spec.task.generic["gpu"]), (2, 2));
    let shown = serde_json::to_string(&service_view::spec(&spec, false)).unwrap();
    assert_eq!(read(&shown), Ok(spec));
    let named = r#"{"NamedResourceSpec":{"Kind":"gpu","Value":"a"}}"#;
    let error =
        read(&text.replace(r#"{"DiscreteResourceSpec":{"Kind":"gpu","Value":2}}"#, named)).unwrap_err();
    assert_eq!(
        (error.status(), error.to_string().as_str()),
        (StatusCode::BAD_REQUEST, "invalid argument for resource gpu")
    );
}

#[test]
fn what_is_not_built_is_refused_by_its_name() {
    for (part, named) in [
        (r#""TaskTemplate":{"ContainerSpec":{"Image":"x","Secrets":[{}]}}"#, "--secret"),
        (r#""TaskTemplate":{"ContainerSpec":{"Image":"x","Configs":[{}]}}"#, "--config"),
        (r#""TaskTemplate":{"ContainerSpec":{"Image":"x","Isolation":"hyperv"}}"#, "--isolation"),
        (
            r#""TaskTemplate":{"ContainerSpec":{"Image":"x","Privileges":{"SELinuxContext":{"Disable":true}}}}"#,
            "Privileges.SELinuxContext",
        ),
        (r#""TaskTemplate":{"ContainerSpec":{"Image":"x"},"LogDriver":{"Name":"syslog"}}"#, "--log-driver"),
        (
            r#""TaskTemplate":{"ContainerSpec":{"Image":"x"},"LogDriver":{"Name":"json-file","Options":{"max-size":"1m"}}}"#,
            "--log-opt",
        ),
    ] {
        let whole = if part.contains("TaskTemplate") {
            format!("{{{part}}}")
        } else {
            format!(r#"{{"TaskTemplate":{{"ContainerSpec":{{"Image":"x"}}}},{part}}}"#)
        };
        let error = read(&whole).unwrap_err();
        assert_eq!(error.status(), StatusCode::NOT_IMPLEMENTED, "{part}: {error}");
        assert!(error.to_string().contains(named), "{part}: {error}");
    }
}

#[test]
fn every_mode_is_read_and_shown() {
    let replicated_job =
        |max_concurrent, total_completions| ServiceMode::ReplicatedJob { max_concurrent, total_completions };
    for (text, mode) in [
        (r#"{"Replicated":{"Replicas":3}}"#, ServiceMode::Replicated { replicas: 3 }),
        (r#"{"Replicated":{}}"#, ServiceMode::Replicated { replicas: 1 }),
        (r#"{"Global":{}}"#, ServiceMode::Global),
        (r#"{"ReplicatedJob":{}}"#, replicated_job(1, 1)),
        (r#"{"ReplicatedJob":{"MaxConcurrent":4}}"#, replicated_job(4, 4)),
        (r#"{"ReplicatedJob":{"MaxConcurrent":2,"TotalCompletions":9}}"#, replicated_job(2, 9)),
        (r#"{"GlobalJob":{}}"#, ServiceMode::GlobalJob),
    ] {
        let once = read(&format!(r#"{{"TaskTemplate":{{"ContainerSpec":{{"Image":"x"}}}},"Mode":{text}}}"#));
        let once = once.unwrap();
        assert_eq!(once.mode, mode, "{text}");
        let shown = service_view::spec(&once, false);
        assert_eq!(shown.update_config, None, "nobody set it");
        assert_eq!(read(&serde_json::to_string(&shown).unwrap()), Ok(once), "{text}");
    }
}

#[test]
fn modes_that_make_no_sense_are_refused_in_mobys_words() {
    for (part, message) in [
        (r#""Mode":{"Global":{},"Replicated":{}}"#, "must specify only one service mode"),
        (r#""Mode":{"ReplicatedJob":{"MaxConcurrent":-1}}"#, "Maximum concurrent jobs must not be negative"),
        (r#""Mode":{"ReplicatedJob":{"TotalCompletions":-1}}"#, "Total completed jobs must not be negative"),
        (r#""Mode":{"GlobalJob":{}},"UpdateConfig":{}"#, "Jobs may not have an update config"),
    ] {
        let error = read(&format!(r#"{{"TaskTemplate":{{"ContainerSpec":{{"Image":"x"}}}},{part}}}"#));
        let error = error.unwrap_err();
        assert_eq!((error.status(), error.to_string().as_str()), (StatusCode::BAD_REQUEST, message));
    }
}

#[test]
fn nonsense_is_a_bad_request() {
    for text in [
        "{}",
        r#"{"TaskTemplate":{"ContainerSpec":{}}}"#,
        r#"{"TaskTemplate":{"ContainerSpec":{"Image":"No/Reference"}}}"#,
        r#"{"TaskTemplate":{"ContainerSpec":{"Image":"x"}},"Mode":{"Replicated":{"Replicas":-1}}}"#,
        r#"{"TaskTemplate":{"ContainerSpec":{"Image":"x"}},"EndpointSpec":{"Ports":[{"TargetPort":70000}]}}"#,
        r#"{"TaskTemplate":{"ContainerSpec":{"Image":"x"}},"EndpointSpec":{"Ports":[{"PublishedPort":80}]}}"#,
        r#"{"TaskTemplate":{"ContainerSpec":{"Image":"x"}},"UpdateConfig":{"MaxFailureRatio":2}}"#,
        r#"{"TaskTemplate":{"ContainerSpec":{"Image":"x"}},"RollbackConfig":{"MaxFailureRatio":-1}}"#,
        r#"{"TaskTemplate":{"ContainerSpec":{"Image":"x"},"Resources":{"Limits":{"Pids":-1}}}}"#,
    ] {
        assert_eq!(read(text).unwrap_err().status(), StatusCode::BAD_REQUEST, "{text}");
    }
}

#[test]
fn only_an_image_that_can_change_is_warned_of() {
    assert!(
        digest_warning("web:latest")
            .unwrap()
            .starts_with("image web:latest could not be accessed on a registry")
    );
    let id = "ab".repeat(32);
    for pinned in [format!("web@sha256:{id}"), format!("sha256:{id}"), id] {
        assert_eq!(digest_warning(&pinned), None);
    }
}
