//! The daemon as a drop-in for dockerd: socket, versions, flags, configuration file, signals.
#![expect(clippy::unwrap_used, reason = "a broken expectation should stop the test where it broke")]

use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use skep_conformance::{Host, Output, binary, eventually, finish, signal};

const FOREVER: &str = "while :; do sleep 0.05; done";

/// Runs the daemon with more flags; for those that are refused.
fn daemon(host: &Host, flags: &[&str]) -> Output {
    let mut command = host.daemon_command();
    command.args(flags);
    // `finish` replaces the streams that go to the log.
    finish(command, &format!("daemon {}", flags.join(" ")), b"")
}

#[test]
fn the_socket_is_for_root_and_the_group_docker() {
    let host = Host::new();
    let socket = std::fs::metadata(host.socket()).unwrap();
    assert!(socket.file_type().is_socket());
    assert_eq!(format!("{:o}", socket.mode() & 0o7777), "660");
    let groups = std::fs::read_to_string("/etc/group").unwrap();
    let group = groups.lines().find_map(|line| line.strip_prefix("docker:"));
    let id = group.map_or(0, |rest| rest.split(':').nth(1).unwrap().parse().unwrap());
    assert_eq!((socket.uid(), socket.gid()), (0, id));
}

#[test]
fn every_version_from_the_oldest_to_the_newest_is_spoken() {
    let host = Host::with_busybox();
    for minor in 24..=50 {
        let version = format!("1.{minor}");
        let mut command = host.docker_command();
        command.env("DOCKER_API_VERSION", &version).args(["version", "--format", "{{.Client.APIVersion}}"]);
        assert_eq!(finish(command, &version, b"").ok(), version);
        let answer = host.api_get(&format!("/v{version}/images/json")).unwrap();
        assert_eq!(answer.status, 200, "{version}: {answer:?}");
    }
    for version in ["1.24", "1.30", "1.41", "1.50"] {
        let mut command = host.docker_command();
        command.env("DOCKER_API_VERSION", version).args(["run", "--rm", "busybox", "echo", version]);
        assert_eq!(finish(command, version, b"").ok(), version);
        let mut command = host.docker_command();
        command.env("DOCKER_API_VERSION", version).args(["ps", "--all", "--quiet"]);
        assert_eq!(finish(command, version, b"").ok(), "");
    }
    assert_eq!(host.api_get("/images/json").unwrap().status, 200, "paths without a version are answered");
}

#[test]
fn versions_outside_are_refused_with_the_bounds() {
    let host = Host::new();
    let old = host.api_get("/v1.23/info").unwrap();
    assert_eq!(old.status, 400);
    let message = "client version 1.23 is too old. Minimum supported API version is 1.24, \
                   please upgrade your client to a newer version";
    assert_eq!(serde_json::from_str::<serde_json::Value>(&old.body).unwrap()["message"], message);
    let new = host.api_get("/v1.99/info").unwrap();
    assert_eq!(new.status, 400);
    let message = "client version 1.99 is too new. Maximum supported API version is 1.50";
    assert_eq!(serde_json::from_str::<serde_json::Value>(&new.body).unwrap()["message"], message);
    let mut command = host.docker_command();
    command.env("DOCKER_API_VERSION", "1.23").args(["info"]);
    let output = finish(command, "docker info", b"");
    assert!(
        format!("{}{}", output.stdout, output.stderr).contains("client version 1.23 is too old"),
        "{output}"
    );
}

#[test]
fn ping_negotiates() {
    let host = Host::new();
    for method in ["GET", "HEAD"] {
        let answer = host.api(method, "/_ping", "").unwrap();
        assert_eq!(answer.status, 200);
        let head = answer.head.to_ascii_lowercase();
        for line in [
            "api-version: 1.50",
            "ostype: linux",
            "docker-experimental: false",
            "swarm: inactive",
            "builder-version: 1",
        ] {
            assert!(head.contains(line), "{method}: {line} in {head}");
        }
        assert_eq!(answer.body, if method == "GET" { "OK" } else { "" });
    }
    assert_eq!(host.api_get("/v1.24/_ping").unwrap().status, 200);
}

#[test]
fn version_and_info_tell_about_this_machine() {
    let host = Host::with_busybox();
    let printed = host.docker(&["version", "--format", "{{json .Server}}"]).ok();
    let version: serde_json::Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(version["ApiVersion"], "1.50", "{printed}");
    assert_eq!(version["MinAPIVersion"], "1.24", "{printed}");
    assert_eq!(version["Os"], "linux", "{printed}");
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!(version["KernelVersion"], release.trim(), "{printed}");
    assert!(!version["Version"].as_str().unwrap().is_empty());
    host.run_detached("runs", &[], FOREVER);
    host.docker(&["create", "busybox"]).ok();
    let printed = host.docker(&["info", "--format", "{{json .}}"]).ok();
    let info: serde_json::Value = serde_json::from_str(&printed).unwrap();
    let processors = std::thread::available_parallelism().unwrap().get();
    for (field, value) in [
        ("Containers", serde_json::json!(2)),
        ("ContainersRunning", serde_json::json!(1)),
        ("ContainersStopped", serde_json::json!(1)),
        ("ContainersPaused", serde_json::json!(0)),
        ("Images", serde_json::json!(1)),
        ("Driver", serde_json::json!("overlay2")),
        ("LoggingDriver", serde_json::json!("json-file")),
        ("OSType", serde_json::json!("linux")),
        ("NCPU", serde_json::json!(processors)),
        ("KernelVersion", serde_json::json!(release.trim())),
        ("DockerRootDir", serde_json::json!(host.data_root().to_str().unwrap())),
        ("Debug", serde_json::json!(true)),
    ] {
        assert_eq!(info[field], value, "{field} in {printed}");
    }
    assert!(info["MemTotal"].as_u64().unwrap() > 64 << 20);
    let unified = std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    assert_eq!(info["CgroupVersion"], if unified { "2" } else { "1" });
    assert_eq!(info["Swarm"]["LocalNodeState"], "inactive");
    assert!(info["SecurityOptions"].to_string().contains("name=seccomp"), "{printed}");
    assert!(!info["ID"].as_str().unwrap().is_empty());
    let warnings = host.docker(&["info", "--format", "{{json .Warnings}}"]).ok();
    assert!(matches!(&*warnings, "null" | "[]"), "{warnings}");
}

#[test]
fn an_unknown_flag_is_refused() {
    let host = Host::without_daemon();
    let output = daemon(&host, &["--make-honey"]);
    assert_ne!(output.code, 0, "{output}");
    assert!(output.stderr.contains("--make-honey"), "{output}");
    assert!(!host.socket().exists());
}

#[test]
fn flags_without_a_meaning_here_are_accepted() {
    let flags = ["--containerd", "/run/nowhere.sock", "--userland-proxy=false", "--live-restore"];
    let host = Host::with_flags(&flags);
    assert_eq!(host.api_get("/_ping").unwrap().status, 200);
}

#[test]
fn the_configuration_file_is_read() {
    let mut host = Host::without_daemon();
    let file = host.folder().join("daemon.json");
    std::fs::write(&file, r#"{"labels": ["place=garden", "kind=box"], "bip": "10.77.0.1/24", "init": true}"#)
        .unwrap();
    host.set_flags(&["--config-file", file.to_str().unwrap()]);
    host.start_daemon();
    host.load_image("busybox");
    assert_eq!(host.docker(&["info", "--format", "{{json .Labels}}"]).ok(), r#"["place=garden","kind=box"]"#);
    let address = host.run(&[], "ip -o -4 addr show dev eth0 | awk '{print $4}'").ok();
    assert_eq!(address, "10.77.0.2/24");
    let first = host.run(&[], "ps -o pid,args | grep '^ *1 '").ok();
    assert!(!first.contains("sh -c"), "init is the default: {first}");
}

#[test]
fn a_faulty_configuration_is_refused() {
    let host = Host::without_daemon();
    let file = host.folder().join("daemon.json");
    let path = file.to_str().unwrap();
    let refused = |content: &str, flags: &[&str], said: &str| {
        std::fs::write(&file, content).unwrap();
        let output = daemon(&host, &[&["--config-file", path], flags].concat());
        assert_ne!(output.code, 0, "{content}: {output}");
        assert!(output.stderr.contains(said), "{content}: {output}");
    };
    let both = "the following directives are specified both as a flag and in the configuration file: ";
    refused(r#"{"label": ["a=b"], "labels": ["a=b"]}"#, &[], "label");
    refused(r#"{"labels": ["a=b"]}"#, &["--label", "c=d"], &format!("{both}labels"));
    refused(r#"{"data-root": "/nowhere"}"#, &[], &format!("{both}data-root"));
    refused(
        r#"{"honey": true}"#,
        &[],
        "the following directives don't match any configuration option: honey",
    );
    refused("{", &[], "daemon.json");
    refused(r#"{"labels": 5}"#, &[], "daemon.json");
    let output = daemon(&host, &["--config-file", "/no/such/file.json"]);
    assert_ne!(output.code, 0, "{output}");
    assert!(output.stderr.contains("/no/such/file.json"), "{output}");
}

#[test]
fn terminated_it_ends_well_and_containers_go_on() {
    let mut host = Host::with_busybox();
    host.run_detached("survivor", &[], FOREVER);
    let pid = host.inspect("survivor", "{{.State.Pid}}");
    for number in [libc::SIGTERM, libc::SIGINT] {
        let before = Instant::now();
        host.end_daemon(number);
        assert!(before.elapsed() < Duration::from_secs(5), "{:?}", before.elapsed());
        assert!(!host.socket().exists(), "the socket is removed");
        assert!(std::path::Path::new(&format!("/proc/{pid}")).exists(), "the container goes on");
        host.start_daemon();
        assert_eq!(host.inspect("survivor", "{{.State.Status}} {{.State.Pid}}"), format!("running {pid}"));
    }
    // A follower does not hold the daemon up.
    let mut following = host.session(&["events", "--since", "1"]);
    host.docker(&["kill", "survivor"]).ok();
    following.expect("container die");
    let before = Instant::now();
    host.stop_daemon();
    assert!(before.elapsed() < Duration::from_secs(5), "{:?}", before.elapsed());
    host.start_daemon();
}

#[test]
fn hang_up_reloads_the_configuration() {
    let mut host = Host::without_daemon();
    let file = host.folder().join("daemon.json");
    std::fs::write(&file, r#"{"labels": ["a=1"]}"#).unwrap();
    host.set_flags(&["--config-file", file.to_str().unwrap()]);
    host.start_daemon();
    let mut events = host.session(&["events", "--filter", "type=daemon"]);
    eventually("the client follows", Duration::from_secs(10), || {
        if host.open_connections() > 0 { Ok(()) } else { Err("not yet".to_owned()) }
    });
    std::fs::write(&file, r#"{"labels": ["a=2"]}"#).unwrap();
    // The connection is there before the subscription; the signal is repeated until it is seen.
    eventually("the reload is told", Duration::from_secs(10), || {
        signal(host.daemon_pid(), libc::SIGHUP);
        if events.output().contains("daemon reload") { Ok(()) } else { Err(events.output()) }
    });
    events.expect("daemon reload");
    assert_eq!(host.docker(&["info", "--format", "{{json .Labels}}"]).ok(), r#"["a=2"]"#);
    // A faulty file changes nothing and ends nothing.
    std::fs::write(&file, "{").unwrap();
    signal(host.daemon_pid(), libc::SIGHUP);
    assert_eq!(host.docker(&["info", "--format", "{{json .Labels}}"]).ok(), r#"["a=2"]"#);
}

#[test]
fn called_dockerd_it_is_the_daemon() {
    let host = Host::without_daemon();
    let link = host.folder().join("dockerd");
    symlink(binary(), &link).unwrap();
    let mut command = host.command(&link);
    for (flag, value) in [("--data-root", host.data_root()), ("--exec-root", host.exec_root())] {
        command.arg(flag).arg(value);
    }
    command.arg(format!("--host=unix://{}", host.socket().display()));
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    eventually("it answers", Duration::from_secs(20), || host.api_get("/_ping"));
    host.load_image("busybox");
    assert_eq!(host.run(&[], "echo works").ok(), "works", "containers start from the other name too");
    signal(child.id(), libc::SIGTERM);
    assert!(child.wait().unwrap().success());
    let printed = finish(host.command_with(&link, &["--version"]), "dockerd --version", b"").ok();
    assert!(printed.contains(|letter: char| letter.is_ascii_digit()), "{printed}");
}

#[test]
fn a_data_root_has_one_daemon() {
    let host = Host::with_busybox();
    let mut command = host.command(binary());
    command.arg("daemon").arg("--data-root").arg(host.data_root());
    command.arg("--exec-root").arg(host.folder().join("exec2"));
    command.arg(format!("--host=unix://{}", host.folder().join("second.sock").display()));
    let output = finish(command, "a second daemon", b"");
    assert_ne!(output.code, 0, "{output}");
    assert!(output.stderr.contains(host.data_root().to_str().unwrap()), "it names the folder: {output}");
    assert_eq!(host.run(&[], "echo first").ok(), "first");
    // The same command again: the first daemon keeps its socket.
    let output = daemon(&host, &[]);
    assert_ne!(output.code, 0, "{output}");
    assert_eq!(host.run(&[], "echo first").ok(), "first");
}

#[test]
fn an_exec_root_has_one_daemon() {
    let host = Host::new();
    let other = tempfile::tempdir().unwrap();
    let path = |name: &str| other.path().join(name).to_str().unwrap().to_owned();
    let mut command = host.command(binary());
    command.args(["daemon", "--data-root", &path("data"), "--pidfile", &path("pid")]);
    command.arg("--exec-root").arg(host.exec_root()).arg("--host").arg(format!("unix://{}", path("sock")));
    let second = finish(command, "a second daemon", b"");
    second.fails(1, "another daemon is running on the exec root");
    host.docker(&["version"]).ok();
}

#[test]
fn containers_have_the_open_files_that_the_daemon_was_given() {
    let mut host = Host::without_daemon();
    // What the daemon is started with; it raises its own soft limit.
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current = Some(1000);
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
    host.start_daemon();
    host.load_image("busybox");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", host.daemon_pid())).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let fields: Vec<&str> = files.split_whitespace().collect();
    assert_eq!(fields[3], fields[4], "{files}");
    let asked = "ulimit -Sn; ulimit -Hn";
    let expected = format!("1000\n{}", fields[4]);
    assert_eq!(host.run(&[], asked).ok(), expected);
    host.run_detached("one", &[], "sleep 1000");
    assert_eq!(host.docker(&["exec", "one", "sh", "-c", asked]).ok(), expected);
}

#[test]
fn modes_in_containers_are_not_the_daemon_s_umask_s() {
    let mut host = Host::without_daemon();
    let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    host.start_daemon();
    rustix::process::umask(before);
    host.load_image("busybox");
    assert_eq!(
        host.run(&["--user", "1000"], "stat -c %a / && ls / >/dev/null && echo seen").ok(),
        "755\nseen"
    );
}

#[test]
fn it_listens_on_tcp_too_and_writes_its_pid() {
    let mut host = Host::without_daemon();
    let pid_file = host.folder().join("own.pid");
    host.set_flags(&[
        "--host",
        "tcp://127.0.0.1:2375",
        "--tls=false",
        "--pidfile",
        pid_file.to_str().unwrap(),
    ]);
    host.start_daemon();
    let mut command: Command = host.command("docker");
    command.args(["--host", "tcp://127.0.0.1:2375", "version", "--format", "{{.Server.Os}}"]);
    assert_eq!(finish(command, "docker over tcp", b"").ok(), "linux");
    assert_eq!(std::fs::read_to_string(&pid_file).unwrap().trim(), host.daemon_pid().to_string());
    host.stop_daemon();
    assert!(!pid_file.exists());
    host.start_daemon();
}
