#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use hyper::StatusCode;

use super::*;

/// What the stock client 28.2.2 sends for `docker run -d --name x --rm -p 8080:80 -v /a:/b:ro -v vol:/v --mount
/// type=tmpfs,target=/t,tmpfs-size=1000 --tmpfs /q:size=1m -e A=b -w /w -u 1 --memory 64m --cpus 1.5
/// --pids-limit 5 --cap-add NET_ADMIN --cap-drop ALL --hostname h --label a=b --init --network host busybox sh`.
const FULL: &str = include_str!("../../../tests/data/create-full.json");
/// The same client's `docker create busybox true`.
const PLAIN: &str = include_str!("../../../tests/data/create-plain.json");

fn read(text: &str) -> Result<ContainerConfig, ApiError> {
    parse(text.as_bytes())
}

#[test]
fn the_stock_client_s_plain_create_asks_for_nothing_special() {
    let expected = ContainerConfig {
        image: "busybox".to_owned(),
        cmd: Some(vec!["true".to_owned()]),
        attach_stdout: true,
        attach_stderr: true,
        ..Default::default()
    };
    assert_eq!(read(PLAIN), Ok(expected));
}

#[test]
fn the_stock_client_s_options_arrive() {
    let web = ContainerPort { port: 80, protocol: Protocol::Tcp };
    let tmpfs = |target: &str, size_bytes| Mount {
        target: target.into(),
        source: MountSource::Tmpfs { size_bytes, mode: 0 },
        read_only: false,
    };
    let expected = ContainerConfig {
        image: "busybox".to_owned(),
        cmd: Some(vec!["sh".to_owned()]),
        env: vec!["A=b".to_owned()],
        labels: [("a".to_owned(), "b".to_owned())].into(),
        working_dir: "/w".to_owned(),
        user: "1".to_owned(),
        hostname: "h".to_owned(),
        exposed_ports: [web].into(),
        host: HostConfig {
            mounts: vec![
                Mount {
                    target: "/b".into(),
                    source: MountSource::Bind { path: "/a".into(), create_missing: true, propagation: None },
                    read_only: true,
                },
                Mount {
                    target: "/v".into(),
                    source: MountSource::Volume {
                        name: "vol".to_owned(),
                        no_copy: false,
                        labels: Default::default(),
                    },
                    read_only: false,
                },
                tmpfs("/t", 1000),
                tmpfs("/q", 1 << 20),
            ],
            binds: vec!["/a:/b:ro".to_owned(), "vol:/v".to_owned()],
            network: NetworkMode::Host,
            ports: vec![PortBinding { container: web, host_ip: None, host_port: 8080 }],
            auto_remove: true,
            resources: ContainerResources {
                memory: 64 << 20,
                nano_cpus: 1_500_000_000,
                pids: 5,
                ..Default::default()
            },
            cap_add: ["CAP_NET_ADMIN".to_owned()].into(),
            cap_drop: ["ALL".to_owned()].into(),
            init: Some(true),
            ..Default::default()
        },
        ..Default::default()
    };
    assert_eq!(read(FULL), Ok(expected));
}

#[test]
fn what_skep_cannot_honour_is_refused_by_its_name() {
    for (option, named) in [
        (r#""RestartPolicy":{"Name":"always"}"#, "--restart always"),
        (r#""LogConfig":{"Type":"syslog"}"#, "LogConfig.Type (--log-driver)=syslog"),
        (r#""LogConfig":{"Type":"","Config":{"max-size":"1m"}}"#, "--log-opt"),
        (r#""IpcMode":"host""#, "IpcMode"),
        (r#""MaskedPaths":[]"#, "MaskedPaths"),
        (r#""MemorySwappiness":60"#, "MemorySwappiness"),
        (r#""Mounts":[{"Type":"image","Target":"/x"}]"#, "--mount type=image"),
        (r#""PortBindings":{"80/sctp":[]}"#, "sctp"),
    ] {
        let error = read(&format!(r#"{{"Image":"x","HostConfig":{{{option}}}}}"#)).unwrap_err();
        assert_eq!(error.status(), StatusCode::NOT_IMPLEMENTED, "{option}");
        assert!(error.to_string().contains(named), "{option}: {error}");
    }
    let link = read(r#"{"NetworkingConfig":{"EndpointsConfig":{"bridge":{"Links":["x"]}}}}"#).unwrap_err();
    assert!(link.to_string().contains("bridge.Links"), "{link}");
}

#[test]
fn one_word_is_a_list_of_one() {
    let config = read(r#"{"Image":"x","Cmd":"true","Entrypoint":"env"}"#).unwrap();
    assert_eq!(config.cmd, Some(vec!["true".to_owned()]));
    assert_eq!(config.entrypoint, Some(vec!["env".to_owned()]));
}

#[test]
fn nonsense_is_a_bad_request() {
    for body in [
        "",
        "null",
        "[]",
        r#"{"Cmd":7}"#,
        r#"{"Cmd":"x","Env":"A=b"}"#,
        r#"{"ExposedPorts":{"0/tcp":{}}}"#,
        r#"{"ExposedPorts":{"http":{}}}"#,
        r#"{"Image":"x","HostConfig":{"Devices":[{"PathOnHost":"/dev/kvm","PathInContainer":"/kvm"}]}}"#,
        r#"{"Image":"x","HostConfig":{"Devices":[{"PathOnHost":"/dev/kvm","CgroupPermissions":"x"}]}}"#,
        r#"{"HostConfig":{"PortBindings":{"80/tcp":[{"HostPort":"70000"}]}}}"#,
        r#"{"HostConfig":{"PortBindings":{"80/tcp":[{"HostIp":"300.0.0.1"}]}}}"#,
        r#"{"HostConfig":{"Binds":["/a:b"]}}"#,
        r#"{"HostConfig":{"ShmSize":-1}}"#,
        r#"{"Volumes":{"relative":{}}}"#,
        r#"{"HostConfig":{"Binds":["/a:/b","/c:/b"]}}"#,
    ] {
        assert_eq!(read(body).unwrap_err().status(), StatusCode::BAD_REQUEST, "{body}");
    }
}

#[test]
fn networks_are_read_with_what_is_asked_of_them() {
    let text = r#"{"MacAddress":"02:42:ac:11:00:02","HostConfig":{"NetworkMode":"a"},
        "NetworkingConfig":{"EndpointsConfig":{"b":{"Aliases":["x"]},"a":{"IPAMConfig":{"IPv4Address":"10.1.0.7"}}}}}"#;
    let host = read(text).unwrap().host;
    assert_eq!(host.network, NetworkMode::Named("a".to_owned()));
    let places: Vec<_> = host.endpoints.iter().map(|it| (it.network.as_str(), it.mac.is_some())).collect();
    assert_eq!(places, [("a", true), ("b", false)]);
    assert_eq!(host.endpoints[0].address, Some(std::net::Ipv4Addr::new(10, 1, 0, 7)));
    let host = read(r#"{"HostConfig":{"NetworkMode":"container:x"}}"#).unwrap().host;
    assert_eq!(host.network, NetworkMode::Container("x".to_owned()));
}
