use std::net::{IpAddr, Ipv4Addr};

use expect_test::expect_file;
use skep_types::ContainerId;
use skep_types::health::Health;
use skep_types::port::ContainerPort;

use skep_engine::view::EndpointView;

use super::*;

#[test]
fn durations_read_as_in_docker() {
    for (seconds, text) in [
        (0, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (120, "2 minutes"),
        (3599, "59 minutes"),
        (3600, "About an hour"),
        (2 * 3600, "2 hours"),
        (47 * 3600, "47 hours"),
        (48 * 3600, "2 days"),
        (14 * 24 * 3600, "2 weeks"),
        (60 * 24 * 3600, "2 months"),
        (800 * 24 * 3600, "2 years"),
    ] {
        assert_eq!(human_duration(Duration::from_secs(seconds)), text);
    }
}

#[test]
fn status_reads_as_in_docker() {
    let mut state = StateView {
        status: Status::Exited,
        pid: 0,
        exit_code: 137,
        error: String::new(),
        oom_killed: false,
        started_at: Some(Time(0)),
        finished_at: Some(Time(60_000_000_000)),
        health: None,
    };
    assert_eq!(status_text(&state, Time(180_000_000_000)), "Exited (137) 2 minutes ago");
    state.status = Status::Running;
    assert_eq!(status_text(&state, Time(5_000_000_000)), "Up 5 seconds");
    state.health = Some(Health::STARTING);
    assert_eq!(status_text(&state, Time(5_000_000_000)), "Up 5 seconds (health: starting)");
}

/// A container with something in every field.
fn view() -> ContainerView {
    let web = ContainerPort { port: 80, protocol: Protocol::Tcp };
    ContainerView {
        id: ContainerId([0xab; 32]),
        name: "web".to_owned(),
        created: Time(1_700_000_000_000_000_000),
        config: ContainerConfig {
            image: "busybox".to_owned(),
            cmd: Some(vec!["sleep".to_owned(), "9".to_owned()]),
            env: vec!["PATH=/bin".to_owned()],
            labels: [("a".to_owned(), "b".to_owned())].into(),
            hostname: "abababababab".to_owned(),
            exposed_ports: [web].into(),
            stop_timeout: Some(Duration::from_secs(3)),
            host: HostConfig {
                mounts: vec![mount::from_bind("/a:/b:ro").expect("a good bind")],
                binds: vec!["/a:/b:ro".to_owned()],
                ports: vec![PortBinding { container: web, host_ip: None, host_port: 8080 }],
                cap_add: ["CAP_NET_ADMIN".to_owned()].into(),
                init: Some(true),
                ..Default::default()
            },
            ..Default::default()
        },
        image_id: format!("sha256:{}", "cd".repeat(32)),
        path: "sleep".to_owned(),
        args: vec!["9".to_owned()],
        state: StateView {
            status: Status::Running,
            pid: 4711,
            exit_code: 0,
            error: String::new(),
            oom_killed: false,
            started_at: Some(Time(1_700_000_001_000_000_000)),
            finished_at: None,
            health: None,
        },
        mounts: vec![MountView {
            kind: "bind",
            name: String::new(),
            source: "/a".into(),
            target: "/b".into(),
            driver: "",
            mode: "ro".to_owned(),
            writable: false,
            propagation: "rprivate".to_owned(),
            anonymous: false,
        }],
        network_mode: "default".to_owned(),
        networks: vec![EndpointView {
            network: "bridge".to_owned(),
            network_id: "ef".repeat(32),
            endpoint_id: "01".repeat(32),
            address: Some(Ipv4Addr::new(172, 17, 0, 2)),
            prefix: 16,
            gateway: Some(Ipv4Addr::new(172, 17, 0, 1)),
            mac: "02:42:ac:11:00:02".to_owned(),
            address6: None,
            gateway6: None,
            wish: Default::default(),
            dns_names: Vec::new(),
        }],
        ports: vec![
            PortView { container: web, host: Some((IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8080)) },
            PortView { container: ContainerPort { port: 53, protocol: Protocol::Udp }, host: None },
        ],
        sandbox_key: "/run/skep/netns/abab".into(),
        log_path: "/data/abab-json.log".into(),
        resolv_conf_path: "/data/resolv.conf".into(),
        hostname_path: "/data/hostname".into(),
        hosts_path: "/data/hosts".into(),
        upper_path: "/data/upper".into(),
        lower_paths: vec!["/images/2".into(), "/images/1".into()],
        exec_ids: Vec::new(),
        probes: Vec::new(),
    }
}

#[test]
fn inspection_has_what_docker_s_has() {
    // By way of a value, whose keys are sorted: the models' maps are not.
    let value = serde_json::to_value(inspect(view(), None)).expect("a view is JSON");
    let text = serde_json::to_string_pretty(&value).expect("JSON is text") + "\n";
    expect_file!["../../../tests/data/inspect.json"].assert_eq(&text);
}

#[test]
fn a_container_can_be_made_again_from_its_inspection() {
    let shown = inspect(view(), None);
    let mut body = serde_json::to_value(shown.config).expect("JSON");
    body["HostConfig"] = serde_json::to_value(shown.host_config).expect("JSON");
    let again =
        super::super::container::config(serde_json::from_value(body).expect("a body of the right shape"));
    let mut expected = view().config;
    // What is shown is the number that holds, where nothing was said.
    expected.host.shm_size = DEFAULT_SHM_SIZE;
    assert_eq!(again, Ok(expected));
}
