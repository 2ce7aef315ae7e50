//! What a service's specification says of its containers, seen from inside them; and the same of `docker run`.

#![expect(clippy::unwrap_used, reason = "a broken test should stop where it broke")]

use std::time::Duration;

use serde_json::{Value, json};
use skep_conformance::{Host, eventually};

const SOON: Duration = Duration::from_secs(60);

/// Forbids to make folders.
const NO_FOLDERS: &str = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":13}]}"#;

fn swarm() -> Host {
    let host = Host::with_busybox();
    host.docker(&["swarm", "init", "--advertise-addr", "127.0.0.1"]).ok();
    host
}

/// The service's container that runs and is not `former`.
#[track_caller]
fn container_after(host: &Host, former: &str) -> String {
    let mut found = String::new();
    eventually("a container of the service runs", SOON, || {
        found = host.docker(&["ps", "--quiet", "--filter", "label=com.docker.swarm.service.name=web"]).ok();
        let tasks = || host.docker(&["service", "ps", "--no-trunc", "web"]).ok();
        let one = !found.is_empty() && !found.contains('\n') && found != former;
        if one { Ok(()) } else { Err(format!("{found}: {}", tasks())) }
    });
    found
}

#[track_caller]
fn inside(host: &Host, container: &str, script: &str) -> String {
    host.docker(&["exec", container, "sh", "-c", script]).ok()
}

/// Runs every script inside and looks for its text.
#[track_caller]
fn look(host: &Host, container: &str, expected: &[(&str, &str)]) {
    for (script, text) in expected {
        let seen = inside(host, container, script);
        let seen = seen.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(seen.contains(text), "{script}: expected {text:?} in {seen:?}");
    }
}

fn inspect_service(host: &Host, defaults: bool) -> Value {
    let path = format!("/services/web?insertDefaults={defaults}");
    serde_json::from_str(&host.api_get(&path).unwrap().body).unwrap()
}

/// A limit of the container's own cgroup, on v1 or v2.
const MEMORY: &str =
    "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null; true";
const PIDS: &str = "cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null; true";
const CPU: &str = "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu.max 2>/dev/null; true";

#[test]
fn a_service_s_container_is_as_its_flags_say_and_follows_their_changes() {
    let host = swarm();
    let create = "service create --detach --name web --no-resolve-image --stop-grace-period 1s --update-monitor 1s \
        --dns 10.1.1.1 --dns 10.1.1.2 --dns-search a.example --dns-search b.example --dns-option ndots:3 \
        --dns-option timeout:2 --sysctl net.ipv4.ip_unprivileged_port_start=500 --sysctl kernel.shmmax=123456 \
        --ulimit nofile=100:200 --ulimit core=0 --oom-score-adj 123 --isolation default --cap-add NET_ADMIN \
        --cap-drop CHOWN --limit-memory 64m --limit-pids 77 --limit-cpu 0.5 --hostname {{.Service.Name}}-{{.Task.Slot}} \
        --env WHO={{.Service.Name}}.{{.Task.Slot}}@{{.Node.Hostname}} --env TIER={{.Service.Labels.tier}} --env GONE=1 \
        --label tier=front --container-label one=1 --host db:10.9.9.9 --group 4321 --workdir /srv --read-only --init \
        --mount type=volume,source=data-{{.Task.Slot}},target=/data,volume-label=who={{.Service.Name}} \
        --mount type=tmpfs,target=/scratch,tmpfs-size=1048576 --log-driver json-file --stop-signal SIGUSR1 \
        --health-cmd true --health-interval 5s --entrypoint sleep busybox 1000";
    host.docker(&create.split_whitespace().collect::<Vec<_>>()).ok();
    let first = container_after(&host, "");
    let own = host.docker(&["info", "--format", "{{.Name}}"]).ok();
    look(
        &host,
        &first,
        &[
            ("cat /etc/resolv.conf", "nameserver 10.1.1.1 nameserver 10.1.1.2"),
            ("cat /etc/resolv.conf", "search a.example b.example options ndots:3 timeout:2"),
            ("cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shmmax", "500 123456"),
            ("cat /proc/1/limits", "Max open files 100 200"),
            ("ulimit -n; ulimit -c", "100 0"),
            ("cat /proc/1/oom_score_adj /proc/self/oom_score_adj", "123 123"),
            ("grep CapEff /proc/1/status", "00000000a80435fa"),
            ("grep -E 'NoNewPrivs|Seccomp:' /proc/1/status", "NoNewPrivs: 0 Seccomp: 2"),
            (MEMORY, "67108864"),
            (PIDS, "77"),
            (CPU, "50000"),
            ("hostname", "web-1"),
            ("env", &format!("WHO=web.1@{own}")),
            ("env", "TIER=front"),
            ("cat /etc/hosts", "10.9.9.9 db"),
            ("id -G", "4321"),
            ("pwd; touch /file 2>&1 || true", "/srv touch: /file: Read-only file system"),
            ("mount", "/scratch type tmpfs"),
            ("touch /data/kept; mount", "on /data type"),
        ],
    );
    let labels = host.docker(&["volume", "inspect", "--format", "{{json .Labels}}", "data-1"]).ok();
    assert_eq!(labels, r#"{"who":"web"}"#);
    assert_eq!(host.inspect(&first, "{{.Config.StopSignal}} {{.HostConfig.Init}}"), "SIGUSR1 true");
    let spec = inspect_service(&host, false)["Spec"]["TaskTemplate"].clone();
    let container = &spec["ContainerSpec"];
    assert_eq!(container["Ulimits"][1], json!({ "Name": "nofile", "Soft": 100, "Hard": 200 }));
    assert_eq!(container["Sysctls"]["kernel.shmmax"], "123456");
    assert_eq!(container["OomScoreAdj"], 123);
    assert_eq!(
        container["Healthcheck"],
        json!({ "Test": ["CMD-SHELL", "true"], "Interval": 5_000_000_000_i64 })
    );
    assert_eq!(container["DNSConfig"]["Options"], json!(["ndots:3", "timeout:2"]));
    assert_eq!(container["Hostname"], "{{.Service.Name}}-{{.Task.Slot}}");
    assert_eq!(spec["LogDriver"]["Name"], "json-file");

    let update = "service update --detach --no-resolve-image --dns-add 10.1.1.3 --dns-rm 10.1.1.1 \
        --dns-search-add c.example --dns-search-rm a.example --dns-option-add attempts:1 --dns-option-rm ndots:3 \
        --sysctl-add kernel.shmmax=654321 --sysctl-rm net.ipv4.ip_unprivileged_port_start --ulimit-add nofile=300 \
        --ulimit-rm core --oom-score-adj 45 --cap-add SYS_TIME --cap-drop NET_RAW --limit-memory 32m --limit-pids 55 \
        --limit-cpu 0.25 --hostname other --env-add NEW=2 --env-rm GONE --container-label-add two=2 \
        --container-label-rm one --host-add web:10.9.9.8 --host-rm db:10.9.9.9 --group-add 1234 --group-rm 4321 \
        --workdir /tmp --read-only=false --mount-rm /scratch --mount-add type=tmpfs,target=/other \
        --stop-signal SIGTERM --log-driver none --init=false web";
    host.docker(&update.split_whitespace().collect::<Vec<_>>()).ok();
    let second = container_after(&host, &first);
    look(
        &host,
        &second,
        &[
            ("cat /etc/resolv.conf", "nameserver 10.1.1.2 nameserver 10.1.1.3"),
            ("grep -c 10.1.1.1 /etc/resolv.conf || true", "0"),
            ("cat /etc/resolv.conf", "search b.example c.example options"),
            ("cat /etc/resolv.conf", "timeout:2"),
            ("cat /etc/resolv.conf", "attempts:1"),
            ("grep -c ndots:3 /etc/resolv.conf || true", "0"),
            ("cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shmmax", "0 654321"),
            ("cat /proc/1/limits", "Max open files 300 300"),
            ("cat /proc/1/oom_score_adj", "45"),
            (MEMORY, "33554432"),
            (PIDS, "55"),
            (CPU, "25000"),
            ("hostname", "other"),
            ("env | grep -E '^(NEW|GONE)='", "NEW=2"),
            ("cat /etc/hosts", "10.9.9.8 web"),
            ("id -G", "1234"),
            ("pwd; touch /file && echo written", "/tmp written"),
            ("mount", "/other type tmpfs"),
            ("mount | grep -c /scratch || true", "0"),
            ("ls /data", "kept"),
        ],
    );
    let bounding = inside(&host, &second, "grep CapEff /proc/1/status");
    // CHOWN stays dropped, NET_ADMIN added; SYS_TIME is bit 25, NET_RAW bit 13.
    assert!(bounding.contains("00000000aa0415fa"), "{bounding}");
    let format = "{{.Config.StopSignal}} {{.HostConfig.LogConfig.Type}} {{.HostConfig.OomScoreAdj}} {{index .Config.Labels \"two\"}}";
    assert_eq!(host.inspect(&second, format), "SIGTERM none 45 2");
    host.docker(&["logs", &second]).fails(1, "configured logging driver does not support reading");
}

#[test]
fn privileges_are_those_of_the_service() {
    use std::io::Write;
    let host = swarm();
    let encode = || {
        let mut child = std::process::Command::new("base64")
            .arg("--wrap=0")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(NO_FOLDERS.as_bytes()).unwrap();
        String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
    };
    let mut spec = json!({
        "Name": "web",
        "UpdateConfig": { "Monitor": 1_000_000_000 },
        "TaskTemplate": { "ContainerSpec": {
            "Image": "busybox:latest", "Command": ["sleep", "1000"], "StopGracePeriod": 0,
            "Privileges": {
                "NoNewPrivileges": true,
                "Seccomp": { "Mode": "custom", "Profile": encode() },
                "AppArmor": { "Mode": "disabled" },
            },
        } },
    });
    let created = host.api("POST", "/services/create", &spec.to_string()).unwrap();
    assert_eq!(created.status, 201, "{}", created.body);
    let first = container_after(&host, "");
    let status = "grep -E 'NoNewPrivs|Seccomp:' /proc/1/status";
    look(
        &host,
        &first,
        &[(status, "NoNewPrivs: 1 Seccomp: 2"), ("mkdir /x 2>&1 || true", "Permission denied")],
    );
    let shown = inspect_service(&host, false);
    let privileges = |spec: &Value| spec["TaskTemplate"]["ContainerSpec"]["Privileges"].clone();
    assert_eq!(privileges(&shown["Spec"]), privileges(&spec));

    spec["TaskTemplate"]["ContainerSpec"]["Privileges"] = json!({ "Seccomp": { "Mode": "unconfined" } });
    let path = format!("/services/web/update?version={}", shown["Version"]["Index"]);
    let updated = host.api("POST", &path, &spec.to_string()).unwrap();
    assert_eq!(updated.status, 200, "{}", updated.body);
    let second = container_after(&host, &first);
    look(
        &host,
        &second,
        &[
            (status, "NoNewPrivs: 0 Seccomp: 0"),
            ("grep Seccomp: /proc/self/status", "Seccomp: 0"),
            ("mkdir /x && echo made", "made"),
        ],
    );
    assert_eq!(host.inspect(&second, "{{json .HostConfig.SecurityOpt}}"), r#"["seccomp=unconfined"]"#);
}

#[test]
fn what_cannot_be_expanded_or_honoured_is_refused() {
    let host = swarm();
    let create = |flags: &[&str]| {
        host.docker(&[&["service", "create", "--detach", "--no-resolve-image"], flags, &["busybox"]].concat())
    };
    create(&["--env", "A={{.Service.Nome}}"]).fails(1, "can't evaluate field .Service.Nome");
    create(&["--hostname", "{{.Service.Labels.none}}"]).fails(1, "map has no entry for key");
    create(&["--hostname", "{{range .Service.Labels}}{{end}}"]).fails(1, "\"range\" is not built yet");
    create(&["--log-driver", "syslog"]).fails(1, "--log-driver");
    create(&["--log-opt", "max-size=1m", "--log-driver", "json-file"]).fails(1, "--log-opt");
    create(&["--isolation", "hyperv"]).fails(1, "--isolation");
    create(&["--credential-spec", "file://x"]).fails(1, "CredentialSpec");
    // What only a node can tell is told by the task.
    create(&["--name", "web", "--sysctl", "kernel.core_pattern=x", "--restart-condition", "none"]).ok();
    eventually("the task is rejected", SOON, || {
        let tasks = host.docker(&["service", "ps", "--no-trunc", "web"]).ok();
        if tasks.contains("is not in a separate kernel namespace") { Ok(()) } else { Err(tasks) }
    });
}

#[test]
fn defaults_are_filled_in_where_asked_for() {
    let host = swarm();
    let body = r#"{"Name":"web","TaskTemplate":{"ContainerSpec":{"Image":"busybox:latest","Command":["sleep","1000"]}}}"#;
    assert_eq!(host.api("POST", "/services/create", body).unwrap().status, 201);
    let shown = inspect_service(&host, true)["Spec"].clone();
    assert_eq!(shown["TaskTemplate"]["ContainerSpec"]["StopGracePeriod"], 10_000_000_000_i64);
    assert_eq!(shown["TaskTemplate"]["ContainerSpec"]["DNSConfig"], json!({}));
    assert_eq!(shown["TaskTemplate"]["RestartPolicy"]["Condition"], "any");
    assert_eq!(shown["TaskTemplate"]["RestartPolicy"]["Delay"], 5_000_000_000_i64);
    for config in ["UpdateConfig", "RollbackConfig"] {
        let expected = json!({
            "Parallelism": 1, "FailureAction": "pause", "Monitor": 5_000_000_000_i64,
            "MaxFailureRatio": 0.0, "Order": "stop-first",
        });
        assert_eq!(shown[config], expected, "{config}");
    }
    assert_eq!(shown["EndpointSpec"]["Mode"], "vip");
}

#[test]
fn a_container_of_docker_run_is_as_its_flags_say() {
    let host = Host::with_busybox();
    let profile = host.folder().join("profile.json");
    std::fs::write(&profile, NO_FOLDERS).unwrap();
    let custom = format!("seccomp={}", profile.display());
    let status = "grep -E 'NoNewPrivs|Seccomp:' /proc/self/status | tr -s '\\t\\n' ' '";
    for (flags, script, expected) in [
        (
            &["--dns", "10.1.1.1", "--dns-search", "a.example", "--dns-option", "ndots:3"][..],
            "grep -E '^(nameserver|search|options)' /etc/resolv.conf | tr '\\n' ' '",
            "nameserver 10.1.1.1 search a.example options ndots:3",
        ),
        (&["--sysctl", "kernel.msgmax=4097"], "cat /proc/sys/kernel/msgmax", "4097"),
        (&["--sysctl", "net.ipv4.ip_forward=0"], "cat /proc/sys/net/ipv4/ip_forward", "0"),
        (&["--ulimit", "nofile=64:128"], "ulimit -Sn; ulimit -Hn", "64\n128"),
        (&["--oom-score-adj", "321"], "cat /proc/self/oom_score_adj", "321"),
        (&["--security-opt", "no-new-privileges"], status, "NoNewPrivs: 1 Seccomp: 2"),
        (&["--security-opt", "seccomp=unconfined"], status, "NoNewPrivs: 0 Seccomp: 0"),
        (
            &["--security-opt", &custom],
            "mkdir /x 2>&1; true",
            "mkdir: can't create directory '/x': Permission denied",
        ),
        (&["--security-opt", "apparmor=unconfined"], "echo fine", "fine"),
        (&["--log-driver", "none"], "echo seen", "seen"),
    ] {
        assert_eq!(host.run(flags, script).ok().trim(), expected, "{flags:?}");
    }
    for (flags, words) in [
        (
            &["--network", "host", "--sysctl", "net.ipv4.ip_forward=1"][..],
            "not allowed in host network namespace",
        ),
        (&["--oom-score-adj", "1001"], "range for oom score adj is [-1000, 1000]"),
        (&["--security-opt", "apparmor=docker-default"], "--security-opt apparmor=docker-default"),
        (&["--security-opt", "seccomp=/nowhere"], "seccomp"),
    ] {
        host.run(flags, "true").fails(125, words);
    }
    // The client has a list of its own; the daemon trusts nobody's.
    let body = r#"{"Image":"busybox","HostConfig":{"Sysctls":{"vm.swappiness":"1"}}}"#;
    let answer = host.api("POST", "/containers/create", body).unwrap();
    assert_eq!(answer.status, 400);
    assert!(answer.body.contains("is not in a separate kernel namespace"), "{}", answer.body);
    host.run_detached("kept", &["--ulimit", "nofile=64:128", "--sysctl", "kernel.msgmax=4097"], "sleep 1000");
    let config = &host.inspect_json("kept")["HostConfig"];
    assert_eq!(config["Ulimits"], json!([{ "Name": "nofile", "Hard": 128, "Soft": 64 }]));
    assert_eq!(config["Sysctls"], json!({ "kernel.msgmax": "4097" }));
    assert_eq!(inside(&host, "kept", "ulimit -n"), "64");
}

#[test]
fn a_node_chooses_the_port_that_a_task_leaves_open_and_says_which() {
    let host = swarm();
    let service = ["service", "create", "--detach", "--no-resolve-image", "--name", "web"];
    let publish = ["--publish", "mode=host,target=80"];
    let serve =
        ["busybox", "sh", "-c", "mkdir /www; echo here > /www/index.html; exec httpd -f -p 80 -h /www"];
    host.docker(&[&service[..], &publish, &serve].concat()).ok();
    let shown = || host.docker(&["service", "ps", "--format", "{{.Ports}}", "web"]).ok();
    let port: u16 = eventually("the task says its port", SOON, || {
        let text = shown();
        let port = text.strip_prefix("*:").and_then(|text| text.strip_suffix("->80/tcp"));
        port.and_then(|port| port.parse().ok()).ok_or(text)
    });
    assert_eq!(eventually("it answers", SOON, || host.curl(port)).trim(), "here");
    let task = host.docker(&["service", "ps", "--quiet", "--no-trunc", "web"]).ok();
    let status: Value = serde_json::from_str(
        &host.docker(&["inspect", "--format", "{{json .Status.PortStatus}}", &task]).ok(),
    )
    .unwrap();
    let expected = json!({"Ports": [
        {"Protocol": "tcp", "TargetPort": 80, "PublishedPort": port, "PublishMode": "host"}
    ]});
    assert_eq!(status, expected);
}

#[test]
fn labels_give_a_services_containers_devices_and_privileges() {
    let host = swarm();
    let create = ["service", "create", "--detach", "--name", "web", "--container-label"];
    let sleep = ["busybox", "sleep", "1000"];
    let refused = |label: &str, why: &str| {
        host.docker(&[&create[..], &[label], &sleep].concat()).fails(1, why);
    };
    refused("skep.privileged=yes", "label skep.privileged: \"yes\" is neither true nor false");
    refused("skep.devices=/dev/net/tun:/x", "label skep.devices: invalid device path \"/x\"");
    host.docker(&[&create[..], &["skep.devices=/dev/net/tun:/dev/tunnel:r"], &sleep].concat()).ok();
    let first = container_after(&host, "");
    look(
        &host,
        &first,
        &[
            ("head -c 0 /dev/tunnel && echo read", "read"),
            ("(echo x > /dev/tunnel) 2> /dev/null || echo refused", "refused"),
            ("mount -t tmpfs none /tmp 2>/dev/null || echo bound", "bound"),
        ],
    );
    let update = ["service", "update", "--detach", "--container-label-rm", "skep.devices"];
    host.docker(&[&update[..], &["--container-label-add", "skep.privileged=true", "web"]].concat()).ok();
    let second = container_after(&host, &first);
    look(
        &host,
        &second,
        &[("mount -t tmpfs none /tmp && echo free; ls /dev/tunnel 2>&1 || true", "free ls: /dev/tunnel")],
    );
    host.docker(&["service", "rm", "web"]).ok();
}
