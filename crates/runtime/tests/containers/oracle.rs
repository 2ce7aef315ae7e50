//! runc as an oracle: the same configuration must give the same view from inside. Needs Debian's runc.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::world::{World, hierarchies};

/// What a process can find out about where it is; one fact a line.
const VIEW: &str = "grep -E '^(Cap|Seccomp:|NoNewPrivs|Uid|Gid|Groups|Umask|SigBlk)' /proc/self/status; \
    sed -E 's/^[^ ]+ //' /proc/mounts | grep -v '^/ ' | sort; \
    cat /proc/self/limits; env | sort; pwd; hostname; cat /proc/self/oom_score_adj; cat /proc/sys/kernel/domainname; \
    cat /proc/self/cgroup | sort; ls /sys/fs/cgroup; \
    cd /dev; stat -c '%A %u:%g %t:%T %N' *; ls -l /proc/self/fd | grep -c -- '->'; \
    for n in mnt pid ipc uts net cgroup user; do echo $n; readlink /proc/self/ns/$n; done; \
    for p in /proc/kcore /proc/keys /proc/timer_list /proc/interrupts; do wc -c $p; done; ls /proc/acpi /proc/scsi /sys/firmware; \
    touch /proc/sys/kernel/hostname /proc/irq/x /sys/x; unshare -m true; mknod /tmp/m c 1 1; cat /tmp/m; ps > /tmp/ps; wc -l < /tmp/ps";

/// Docker's configuration of that script, in the terms of the OCI runtime specification.
fn configuration(root: &Path, environment: &[String], cgroup: &str) -> Value {
    let capabilities =
        skep_runtime::CapabilitySet::DOCKER_DEFAULT.iter().map(|one| one.to_string()).collect::<Vec<_>>();
    let mount = |target: &str, kind: &str, options: &str| {
        let options: Vec<&str> = options.split(',').collect();
        json!({"destination": target, "type": kind, "source": kind, "options": options})
    };
    let mut namespaces = vec!["pid", "ipc", "uts", "mount"];
    if hierarchies().len() == 1 {
        namespaces.push("cgroup");
    }
    let devices = ["c 1:3", "c 1:5", "c 1:7", "c 1:8", "c 1:9", "c 5:0", "c 5:1", "c 5:2"].map(|rule| {
        let (major, minor) = rule[2..].split_once(':').unwrap();
        let number = |text: &str| text.parse::<i64>().unwrap();
        json!({"allow": true, "type": "c", "major": number(major), "minor": number(minor), "access": "rwm"})
    });
    let mut rules = vec![json!({"allow": false, "access": "rwm"})];
    rules.extend(devices);
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0, "additionalGids": [0, 10]},
            "args": ["sh", "-c", VIEW],
            "env": environment,
            "cwd": "/",
            "oomScoreAdj": 0,
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
        },
        "root": {"path": root},
        "hostname": "skep",
        "mounts": [
            mount("/proc", "proc", "nosuid,noexec,nodev"),
            mount("/dev", "tmpfs", "nosuid,strictatime,mode=755,size=65536k"),
            mount("/dev/pts", "devpts", "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5"),
            mount("/sys", "sysfs", "nosuid,noexec,nodev,ro"),
            mount("/sys/fs/cgroup", "cgroup", "ro,nosuid,noexec,nodev"),
            mount("/dev/mqueue", "mqueue", "nosuid,noexec,nodev"),
            mount("/dev/shm", "tmpfs", "nosuid,noexec,nodev,mode=1777,size=67108864"),
        ],
        "linux": {
            "cgroupsPath": format!("/{cgroup}"),
            "resources": {"devices": rules},
            "namespaces": namespaces.iter().map(|name| json!({"type": name})).collect::<Vec<_>>(),
            // Which calls are refused is tested elsewhere; here, that some filter is there and stops this one.
            "seccomp": {
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"names": ["unshare"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}],
            },
            "maskedPaths": [
                "/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
                "/sys/devices/virtual/powercap",
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}

/// Namespaces are new in each container: what counts is whether they are the host's.
fn normal(text: &str) -> Vec<String> {
    let host = |line: &&str| {
        let name = line.split_once(":[").map_or("", |(name, _)| name);
        std::fs::read_link(format!("/proc/self/ns/{name}")).is_ok_and(|link| link.to_str() == Some(line))
    };
    let line = |line: &str| match line.split_once(":[") {
        Some((name, _)) => format!("{name} {}", if host(&line) { "the host's" } else { "new" }),
        None => line.to_owned(),
    };
    // runc leaves the folder of the v1 hierarchies writable; ours is not, as it was in Docker before.
    let writable = "/sys/fs/cgroup tmpfs rw,";
    text.lines().map(line).map(|line| line.replace(writable, "/sys/fs/cgroup tmpfs ro,")).collect()
}

#[tokio::test]
async fn the_view_from_inside_is_runc_s() {
    let world = World::new();
    let mut spec = world.script(VIEW);
    spec.process.env.push("HOME=/root".to_owned());
    let (_, ours, our_errors) = world.run(&spec).await;

    let bundle = world.folder.path().join("bundle");
    std::fs::create_dir(&bundle).unwrap();
    let root = world.folder.path().join("image");
    let configuration = configuration(&root, &spec.process.env, &spec.cgroup);
    std::fs::write(bundle.join("config.json"), configuration.to_string()).unwrap();
    let name = format!("skep-oracle-{}", std::process::id());
    let state = world.folder.path().join("runc");
    let output = Command::new("runc")
        .args([
            Path::new("--root"),
            &state,
            Path::new("run"),
            Path::new("--bundle"),
            &bundle,
            Path::new(&name),
        ])
        .stdin(std::process::Stdio::null())
        .output()
        .expect("runc is installed (apt-get install runc)");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (theirs, their_errors) = (text(&output.stdout), text(&output.stderr));
    assert!(theirs.lines().count() > 50, "{theirs}{their_errors}");
    similar(&normal(&theirs), &normal(&ours));
    similar(&normal(&their_errors), &normal(&our_errors));
}

/// Compares line by line, and shows only what differs.
fn similar(theirs: &[String], ours: &[String]) {
    let missing = |from: &[String], other: &[String]| -> Vec<String> {
        from.iter().filter(|line| !other.contains(line)).cloned().collect()
    };
    let (only_theirs, only_ours) = (missing(theirs, ours), missing(ours, theirs));
    assert!(only_theirs.is_empty() && only_ours.is_empty(), "runc: {only_theirs:#?}\nours: {only_ours:#?}");
}
