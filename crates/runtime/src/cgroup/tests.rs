#![expect(clippy::unwrap_used, reason = "a test may panic")]

use super::*;

const HYBRID: &str = "\
24 1 0:22 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
25 24 0:23 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
26 24 0:24 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
27 24 0:25 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,release_agent=/lib/x,name=systemd
28 24 0:26 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

#[test]
fn layouts_are_told_apart() {
    let Some(Layout::V1 { hierarchies, unified }) = Layout::detect(HYBRID) else { panic!("hybrid") };
    assert_eq!(unified.as_deref(), Some(Path::new("/sys/fs/cgroup/unified")));
    let controllers: Vec<_> = hierarchies.iter().map(|hierarchy| hierarchy.controllers.join(",")).collect();
    assert_eq!(controllers, ["cpu,cpuacct", "memory", "name=systemd"]);
    let v2 = "28 24 0:26 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw\n";
    assert_eq!(Layout::detect(v2), Some(Layout::V2 { mount: "/sys/fs/cgroup".into() }));
    let v1: String =
        HYBRID.lines().filter(|line| !line.contains("cgroup2")).map(|l| format!("{l}\n")).collect();
    assert!(matches!(Layout::detect(&v1), Some(Layout::V1 { unified: None, .. })));
    assert_eq!(Layout::detect("24 1 0:22 / / rw - ext4 /dev/vda rw\n"), None);
}

/// A folder with these files, as cgroupfs would have made them.
fn fake(root: &Path, files: &[&str]) {
    std::fs::create_dir_all(root).unwrap();
    for file in files {
        std::fs::write(root.join(file), "").unwrap();
    }
}

const LIMITS: ContainerResources = ContainerResources {
    memory: 1 << 26,
    memory_swap: 0,
    nano_cpus: 1_500_000_000,
    cpu_shares: 512,
    pids: 33,
};

#[test]
fn v2_limits_are_written_and_controllers_passed_down() {
    let folder = tempfile::tempdir().unwrap();
    let mount = folder.path();
    std::fs::write(mount.join("cgroup.controllers"), "cpu memory pids hugetlb\n").unwrap();
    std::fs::write(mount.join("cgroup.subtree_control"), "memory\n").unwrap();
    let parent = mount.join("docker");
    fake(&parent, &["cgroup.subtree_control"]);
    std::fs::write(parent.join("cgroup.controllers"), "cpu memory pids").unwrap();
    let leaf = parent.join("x");
    fake(&leaf, &["memory.max", "memory.swap.max", "cpu.max", "cpu.weight", "pids.max", "memory.events"]);
    // Only the device programme cannot be attached to a folder that is no cgroup.
    let error = v2::create(mount, "docker/x", &LIMITS, Some(&devices::DOCKER_DEFAULT)).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EBADF), "{error}");
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    assert_eq!(read(&mount.join("cgroup.subtree_control")), "+cpu +pids");
    assert_eq!(read(&parent.join("cgroup.subtree_control")), "+cpu +memory +pids");
    assert_eq!(read(&leaf.join("memory.max")), "67108864");
    assert_eq!(read(&leaf.join("memory.swap.max")), "67108864");
    assert_eq!(read(&leaf.join("cpu.max")), "150000 100000");
    assert_eq!(read(&leaf.join("cpu.weight")), "20");
    assert_eq!(read(&leaf.join("pids.max")), "33");
    let layout = Layout::V2 { mount: mount.into() };
    std::fs::write(leaf.join("memory.events"), "low 0\noom 3\noom_kill 2\n").unwrap();
    assert_eq!(layout.group("/docker/x").oom_kills(), 2);
    assert_eq!(layout.group("/docker/x").cpu_nanos(), None);
    std::fs::write(leaf.join("cpu.stat"), "usage_usec 1234\nuser_usec 1000\n").unwrap();
    assert_eq!(layout.group("/docker/x").cpu_nanos(), Some(1_234_000));
}

#[test]
fn v1_counts_processor_time_where_cpuacct_is() {
    let folder = tempfile::tempdir().unwrap();
    let hierarchy = |controller: &str| Hierarchy {
        controllers: vec![controller.to_owned()],
        mount: folder.path().join(controller),
    };
    fake(&folder.path().join("cpuacct/docker/x"), &[]);
    std::fs::write(folder.path().join("cpuacct/docker/x/cpuacct.usage"), "987654\n").unwrap();
    let layout = |names: [&str; 2]| Layout::V1 { hierarchies: names.map(hierarchy).into(), unified: None };
    assert_eq!(layout(["memory", "cpuacct"]).group("docker/x").cpu_nanos(), Some(987_654));
    assert_eq!(layout(["memory", "cpu"]).group("docker/x").cpu_nanos(), None);
}

#[test]
fn shares_become_weights() {
    assert_eq!([2, 1024, 262_144].map(v2::weight), [1, 39, 10_000]);
}

/// Removes a real cgroup when a test ends, however it ends.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = remove_tree(&self.0);
    }
}

#[test]
fn a_real_v2_tree_takes_the_device_programme() {
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let layout = Layout::detect(&text).unwrap();
    let mount = match &layout {
        Layout::V1 { unified, .. } => unified.clone().unwrap(),
        Layout::V2 { mount } => mount.clone(),
    };
    let parent = format!("skep-test-{}", std::process::id());
    let _scratch = Scratch(mount.join(&parent));
    v2::create(
        &mount,
        &format!("{parent}/a"),
        &ContainerResources::default(),
        Some(&devices::DOCKER_DEFAULT),
    )
    .unwrap();
    let v2 = Layout::V2 { mount };
    let group = v2.group(&format!("{parent}/a"));
    let mut sleeper = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    write(&group.unified().unwrap().join("cgroup.procs"), &sleeper.id().to_string()).unwrap();
    assert_eq!(group.processes().unwrap(), [sleeper.id()]);
    group.kill().unwrap();
    sleeper.wait().unwrap();
    group.remove().unwrap();
    group.remove().unwrap();
}
