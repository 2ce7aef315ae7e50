//! The walls of a container: capabilities, seccomp, masked paths, namespaces, limits; and options that
//! are refused by name.
#![expect(clippy::unwrap_used, reason = "a broken expectation should stop the test where it broke")]

use std::path::{Path, PathBuf};

use skep_conformance::Host;

const FOREVER: &str = "while :; do sleep 0.05; done";

/// The value of a line of /proc/self/status as the container sees it.
fn status(host: &Host, options: &[&str], field: &str) -> String {
    let printed = host.run(options, &format!("grep '^{field}:' /proc/self/status")).ok();
    printed.split_whitespace().nth(1).unwrap_or_default().to_owned()
}

#[test]
fn default_capabilities_are_dockers_fourteen() {
    let host = Host::with_busybox();
    let printed = host.run(&[], "grep ^Cap /proc/self/status").ok();
    let values: Vec<&str> = printed.lines().map(|line| line.split_whitespace().nth(1).unwrap()).collect();
    let (none, default) = ("0000000000000000", "00000000a80425fb");
    assert_eq!(values, [none, default, default, default, none], "Inh, Prm, Eff, Bnd, Amb");
    let printed = host.run(&["--user", "nobody"], "grep ^Cap /proc/self/status").ok();
    let values: Vec<&str> = printed.lines().map(|line| line.split_whitespace().nth(1).unwrap()).collect();
    assert_eq!(values, [none, none, none, default, none], "another user than root has none");
}

#[test]
fn capabilities_are_added_and_dropped() {
    let host = Host::with_busybox();
    assert_eq!(status(&host, &["--cap-drop", "ALL"], "CapEff"), "0000000000000000");
    assert_eq!(status(&host, &["--cap-drop", "ALL", "--cap-add", "NET_ADMIN"], "CapEff"), "0000000000001000");
    assert_eq!(status(&host, &["--cap-add", "SYS_TIME"], "CapEff"), "00000000aa0425fb");
    assert_eq!(status(&host, &["--cap-drop", "CAP_CHOWN"], "CapEff"), "00000000a80425fa");
    assert_eq!(status(&host, &["--cap-drop", "chown"], "CapBnd"), "00000000a80425fa");
    host.run(&["--cap-add", "FLY"], "true").fails(125, "FLY");
    host.run(&["--cap-drop", "chown"], "chown nobody /tmp").fails(1, "Operation not permitted");
    host.run(&[], "ip link add dummy0 type dummy; hostname other").fails(1, "");
}

#[test]
fn seccomp_filters_system_calls() {
    let host = Host::with_busybox();
    assert_eq!(status(&host, &[], "Seccomp"), "2");
    // As root with CAP_SYS_ADMIN missing the kernel would refuse too: unshare of a user namespace needs none.
    host.run(&[], "unshare -U true").fails(1, "Operation not permitted");
    assert_eq!(status(&host, &[], "NoNewPrivs"), "0");
}

#[test]
fn kernel_paths_are_masked_or_read_only() {
    let host = Host::with_busybox();
    let script = "for file in kcore keys timer_list; do [ ! -e /proc/$file ] || wc -c < /proc/$file; done; \
                  ls -A /sys/firmware; [ ! -e /proc/scsi ] || ls -A /proc/scsi";
    let printed = host.run(&[], script).ok();
    assert!(printed.lines().count() > 0 && printed.lines().all(|line| line.trim() == "0"), "{printed}");
    for path in ["/proc/sys/kernel/domainname", "/proc/sysrq-trigger", "/proc/irq/default_smp_affinity"] {
        let output = host.run(&[], &format!("[ ! -e {path} ] || echo 1 > {path}"));
        let absent = output.code == 0 && !Path::new(path).exists();
        assert!(absent || output.stderr.contains("Read-only file system"), "{path}: {output}");
    }
    host.run(&[], "cd /sys/fs/cgroup/pids 2>/dev/null || cd /sys/fs/cgroup; mkdir mine")
        .fails(1, "Read-only file system");
    host.run(&[], "mount -t tmpfs none /tmp").fails(1, "ermission denied");
}

#[test]
fn devices_are_the_harmless_ones() {
    let host = Host::with_busybox();
    let printed = host.run(&[], "ls /dev").ok();
    // /dev/core is there only on kernels with /proc/kcore.
    let mut devices: Vec<&str> = printed.lines().filter(|name| *name != "core").collect();
    devices.sort_unstable();
    let usual = [
        "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty",
        "urandom", "zero",
    ];
    assert_eq!(devices, usual);
    let script = "echo x > /dev/null && head -c 4 /dev/zero | wc -c && head -c 4 /dev/urandom | wc -c; \
                  echo x > /dev/full || echo full; mknod /tmp/disk b 7 0 && cat /tmp/disk";
    let output = host.run(&[], script);
    assert!(output.stdout.starts_with("4\n4\nfull\n"), "{output}");
    assert!(
        output.stderr.contains("/tmp/disk") && output.stderr.contains("Operation not permitted"),
        "{output}"
    );
}

#[test]
fn a_device_is_given_and_no_more_of_it_than_was_asked_for() {
    let host = Host::with_busybox();
    let script = "stat -c '%t:%T %a' /dev/deep/tunnel; head -c 0 /dev/deep/tunnel && echo read; \
                  (echo x > /dev/deep/tunnel) 2> /dev/null || echo refused; head -c 0 /dev/net/tun 2>&1";
    let output = host.run(&["--device", "/dev/net/tun:/dev/deep/tunnel:r"], script);
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata("/dev/net/tun").unwrap().permissions());
    let expected = format!("a:c8 {:o}\nread\nrefused\n", mode & 0o777);
    assert!(output.stdout.starts_with(&expected), "{output}");
    assert!(output.stdout.contains("No such file"), "{output}");
    host.run(&["--device", "/dev/nope"], "true").fails(
        127,
        "error gathering device information while adding custom device \"/dev/nope\": no such file",
    );
    host.run(&["--device", "/etc/hostname:/dev/x"], "true").fails(125, "not a device node");
    host.run(&["--device", "/dev/net/tun:/x"], "true").fails(125, "below /dev");
    let id = host.docker(&["create", "--device", "/dev/net/tun:/dev/deep/tunnel:r", "busybox", "true"]).ok();
    let shown = host.docker(&["inspect", "--format", "{{json .HostConfig.Devices}}", &id]).ok();
    let expected =
        r#"[{"PathOnHost":"/dev/net/tun","PathInContainer":"/dev/deep/tunnel","CgroupPermissions":"r"}]"#;
    assert_eq!(shown, expected);
}

#[test]
fn a_privileged_container_may_what_the_machine_may() {
    let host = Host::with_busybox();
    let bounds = std::fs::read_to_string("/proc/self/status").unwrap();
    let all = bounds.lines().find_map(|line| line.strip_prefix("CapBnd:")).unwrap().trim().to_owned();
    for field in ["CapEff", "CapBnd"] {
        assert_eq!(status(&host, &["--privileged"], field), all, "{field}");
    }
    assert_eq!(status(&host, &["--privileged", "--cap-drop", "chown"], "CapEff"), all, "as Docker's");
    assert_eq!(status(&host, &["--privileged"], "Seccomp"), "0");
    let script = "head -c 0 /dev/kmsg && mount -t tmpfs none /tmp && echo mounts; \
                  grep -c ' /proc/sys ' /proc/mounts; \
                  grep ' /sys sysfs ' /proc/mounts | cut -d ' ' -f 4 | cut -d , -f 1; \
                  cd /sys/fs/cgroup/pids 2>/dev/null || cd /sys/fs/cgroup; mkdir mine && rmdir mine && echo groups";
    assert_eq!(host.run(&["--privileged"], script).ok(), "mounts\n0\nrw\ngroups");
    // What runs besides is as free.
    let id = host.docker(&["run", "--detach", "--privileged", "busybox", "sh", "-c", FOREVER]).ok();
    let script = "grep CapEff /proc/self/status | cut -f 2; grep Seccomp: /proc/self/status | cut -f 2";
    assert_eq!(host.docker(&["exec", &id, "sh", "-c", script]).ok(), format!("{all}\n0"));
    let format = "{{.HostConfig.Privileged}} {{.HostConfig.SecurityOpt}} {{json .HostConfig.MaskedPaths}}";
    assert_eq!(host.docker(&["inspect", "--format", format, &id]).ok(), "true [label=disable] null");
    host.docker(&["rm", "--force", &id]).ok();
}

#[test]
fn namespaces_are_the_containers_own() {
    let host = Host::with_busybox();
    let printed = host
        .run(
            &[],
            "for name in pid mnt net uts ipc; do readlink /proc/self/ns/$name; done; ps -o pid | wc -l; id -u",
        )
        .ok();
    let lines: Vec<&str> = printed.lines().collect();
    for (name, inside) in ["pid", "mnt", "net", "uts", "ipc"].iter().zip(&lines) {
        let ours = std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        assert_ne!(Path::new(inside), ours, "{name}");
    }
    assert!(lines[5].trim().parse::<u32>().unwrap() < 6, "only its own processes are seen: {printed}");
    let mounts = host.run(&[], "cat /proc/self/mounts").ok();
    assert!(mounts.lines().any(|line| line.starts_with("overlay / overlay rw")), "{mounts}");
    for (target, kind) in [
        ("/proc", "proc"),
        ("/dev", "tmpfs"),
        ("/dev/pts", "devpts"),
        ("/sys", "sysfs"),
        ("/dev/mqueue", "mqueue"),
        ("/dev/shm", "tmpfs"),
    ] {
        let mounted = mounts
            .lines()
            .any(|line| line.split(' ').nth(1) == Some(target) && line.split(' ').nth(2) == Some(kind));
        assert!(mounted, "{kind} at {target} in {mounts}");
    }
}

#[test]
fn memory_cpu_and_pids_limits_are_in_the_control_groups() {
    let host = Host::with_busybox();
    let options = [
        "--memory",
        "64m",
        "--memory-swap",
        "128m",
        "--cpus",
        "0.5",
        "--pids-limit",
        "20",
        "--cpu-shares",
        "512",
    ];
    host.run_detached("bound", &options, FOREVER);
    let pid = host.inspect("bound", "{{.State.Pid}}");
    let group = |controller: &str| control_group(&pid, controller);
    let read = |controller: &str, file: &str| {
        std::fs::read_to_string(group(controller).join(file)).unwrap_or_default().trim().to_owned()
    };
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        assert_eq!(read("", "memory.max"), (64 << 20).to_string());
        assert_eq!(read("", "memory.swap.max"), (64 << 20).to_string());
        assert_eq!(read("", "cpu.max"), "50000 100000");
        assert_eq!(read("", "pids.max"), "20");
    } else {
        assert_eq!(read("memory", "memory.limit_in_bytes"), (64 << 20).to_string());
        let swap = read("memory", "memory.memsw.limit_in_bytes");
        assert!(swap.is_empty() || swap == (128 << 20).to_string(), "{swap}");
        assert_eq!(read("cpu", "cpu.cfs_quota_us"), "50000");
        assert_eq!(read("cpu", "cpu.cfs_period_us"), "100000");
        assert_eq!(read("cpu", "cpu.shares"), "512");
        assert_eq!(read("pids", "pids.max"), "20");
    }
    // The container sees its limits in its own view of the groups.
    let script = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max 2>/dev/null || \
                  cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/pids/pids.max";
    assert_eq!(host.docker(&["exec", "bound", "sh", "-c", script]).ok(), "67108864\n20");
    let shown =
        "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}} {{.HostConfig.CpuShares}}";
    assert_eq!(host.inspect("bound", shown), "67108864 500000000 20 512");
}

#[test]
fn the_pids_limit_stops_a_fork_bomb() {
    let host = Host::with_busybox();
    let output = host.run(&["--pids-limit", "10"], "for i in $(seq 30); do sleep 3 & done; wait");
    assert!(output.stderr.contains("can't fork"), "{output}");
    assert_eq!(host.run(&[], "echo unharmed").ok(), "unharmed");
}

#[test]
fn limits_that_make_no_sense_are_refused() {
    let host = Host::with_busybox();
    host.run(&["--memory", "4m"], "true").fails(125, "Minimum memory limit allowed is 6MB");
    let processors = std::thread::available_parallelism().unwrap().get().to_string();
    host.run(&["--cpus", "1000"], "true").fails(
        125,
        &format!(
            "ange of CPUs is from 0.01 to {processors}.00, as there are only {processors} CPUs available"
        ),
    );
    host.run(&["--memory", "64m", "--memory-swap", "32m"], "true")
        .fails(125, "Minimum memoryswap limit should be larger than memory limit, see usage");
}

/// Either honoured, so that `script` prints `wanted`, or refused by its name: never ignored.
#[test]
fn options_of_later_issues_are_honoured_or_refused_by_name() {
    let host = Host::with_busybox();
    let seccomp = "awk '/^Seccomp:/ {print $2}' /proc/self/status";
    let privileges = "awk '/^NoNewPrivs:/ {print $2}' /proc/self/status";
    for (option, value, script, wanted) in [
        ("--security-opt", "seccomp=unconfined", seccomp, "0"),
        ("--security-opt", "no-new-privileges", privileges, "1"),
        ("--ulimit", "nofile=123:456", "ulimit -Sn; ulimit -Hn", "123\n456"),
        (
            "--sysctl",
            "net.ipv4.ip_unprivileged_port_start=77",
            "cat /proc/sys/net/ipv4/ip_unprivileged_port_start",
            "77",
        ),
        ("--group-add", "1234", "id -G", "0 1234"),
        ("--domainname", "garden.example", "cat /proc/sys/kernel/domainname", "garden.example"),
        ("--mac-address", "02:42:ac:11:00:99", "cat /sys/class/net/eth0/address", "02:42:ac:11:00:99"),
        ("--pid", "host", "[ $(ps | wc -l) -gt 20 ] && echo many", "many"),
        ("--userns", "host", "echo runs", "runs"),
        ("--cpuset-cpus", "0", "awk '/Cpus_allowed_list/ {print $2}' /proc/self/status", "0"),
        ("--oom-score-adj", "77", "cat /proc/self/oom_score_adj", "77"),
        ("--dns", "10.9.8.7", "grep -c 10.9.8.7 /etc/resolv.conf", "1"),
        ("--restart", "on-failure:2", "echo runs", ""),
    ] {
        let rest = ["busybox", "sh", "-c", script];
        let output = host.docker(&[&["run", option, value], &rest[..]].concat());
        let name = option.trim_start_matches('-').replace('-', "");
        let said = output.stderr.to_lowercase();
        let refused =
            output.code == 125 && (said.contains(option) || said.replace(['-', '_'], "").contains(&name));
        let honoured = output.code == 0 && (wanted.is_empty() || output.stdout.trim() == wanted);
        assert!(honoured || refused, "{option} {value}: {output}");
    }
}

#[test]
fn options_that_are_not_honoured_are_refused_by_name() {
    let host = Host::with_busybox();
    let refused = |body: &str, names: &[&str]| {
        let answer = host.api("POST", "/containers/create", body).unwrap();
        assert!(matches!(answer.status, 400 | 501), "{body}: {answer:?}");
        let message = serde_json::from_str::<serde_json::Value>(&answer.body).unwrap();
        let message = message["message"].as_str().unwrap().to_lowercase();
        assert!(names.iter().any(|name| message.contains(name)), "{body}: {message}");
    };
    refused(r#"{"Image":"busybox","HostConfig":{"Runtime":"kata"}}"#, &["runtime", "kata"]);
    refused(
        r#"{"Image":"busybox","HostConfig":{"LogConfig":{"Type":"carrier-pigeon"}}}"#,
        &["log", "carrier-pigeon"],
    );
    refused(r#"{"Image":"busybox","HostConfig":{"StorageOpt":{"size":"1G"}}}"#, &["storage"]);
    refused(r#"{"Image":"busybox","HostConfig":{"RestartPolicy":{"Name":"sometimes"}}}"#, &["sometimes"]);
    assert_eq!(host.docker(&["ps", "--all", "--quiet"]).ok(), "", "nothing half-made is left");
}

/// The folder of a process's control group for a controller (`""` in the unified hierarchy).
fn control_group(pid: &str, controller: &str) -> PathBuf {
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let path = groups.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let controllers = parts.nth(1)?;
        controllers.split(',').any(|one| one == controller).then(|| parts.next())?
    });
    let path = path.unwrap_or_else(|| panic!("no {controller:?} in {groups}"));
    Path::new("/sys/fs/cgroup").join(controller).join(path.trim_start_matches('/'))
}
