//! Limits, as the kernel holds them.

use skep_types::container::ContainerResources;

use crate::world::{World, hierarchies};

/// A file of the container's cgroup, in whichever hierarchy has it.
fn control(cgroup: &str, file: &str) -> String {
    let found =
        hierarchies().into_iter().find_map(|root| std::fs::read_to_string(root.join(cgroup).join(file)).ok());
    found.unwrap_or_else(|| panic!("{file}")).trim().to_owned()
}

#[tokio::test]
async fn limits_are_set() {
    let world = World::new();
    let mut spec = world.spec(&["sleep", "1000"]);
    spec.resources = ContainerResources {
        memory: 64 << 20,
        memory_swap: 0,
        nano_cpus: 1_500_000_000,
        cpu_shares: 512,
        pids: 20,
    };
    world.start(&spec).await;
    if hierarchies().iter().any(|mount| mount.join("memory.limit_in_bytes").exists()) {
        assert_eq!(control(&spec.cgroup, "memory.limit_in_bytes"), (64 << 20).to_string());
        assert_eq!(control(&spec.cgroup, "cpu.cfs_quota_us"), "150000");
        assert_eq!(control(&spec.cgroup, "cpu.cfs_period_us"), "100000");
        assert_eq!(control(&spec.cgroup, "cpu.shares"), "512");
    } else {
        assert_eq!(control(&spec.cgroup, "memory.max"), (64 << 20).to_string());
        assert_eq!(control(&spec.cgroup, "cpu.max"), "150000 100000");
    }
    assert_eq!(control(&spec.cgroup, "pids.max"), "20");
}

#[tokio::test]
async fn too_many_processes_are_refused_but_an_exec_gets_in() {
    let world = World::new();
    let mut spec = world.script("(for i in 1 2 3 4 5 6 7 8 9; do sleep 1000 & done); exec sleep 1000");
    spec.resources.pids = 4;
    let mut client = world.start_attached(&spec, crate::world::ALL).await;
    crate::world::read_until(&mut client, "Resource temporarily unavailable").await;
    let process = crate::world::process(&["echo", "in"]);
    let exec = world.runtime.exec(spec.id, "e", &process, &spec.seccomp, crate::world::ALL).await.unwrap();
    let (out, _) = crate::world::split(&crate::world::read_all(&mut exec.stream.unwrap()).await);
    assert_eq!(out, "in\n");
}

#[tokio::test]
async fn want_of_memory_kills_and_is_told() {
    let world = World::new();
    let mut spec = world.script("busybox tail /dev/zero");
    spec.resources.memory = 16 << 20;
    let (exit, ..) = world.run(&spec).await;
    assert_eq!((exit.code, exit.oom_killed), (137, true));
}

#[tokio::test]
async fn devices_are_only_docker_s() {
    let world = World::new();
    let script = "mknod /tmp/mem c 1 1 && echo made; head -c1 /tmp/mem; mknod /tmp/zero c 1 5 && head -c2 /tmp/zero | wc -c";
    let (_, out, err) = world.run(&world.script(script)).await;
    assert_eq!(out, "made\n2\n");
    assert!(err.contains("/tmp/mem: Operation not permitted"), "{err}");
}

#[tokio::test]
async fn rlimits_are_set() {
    use skep_runtime::spec::{Rlimit, RlimitResource};
    let world = World::new();
    let mut spec = world.script("ulimit -n; ulimit -Hn; ulimit -c");
    spec.process.rlimits = vec![
        Rlimit { resource: RlimitResource::Nofile, soft: 100, hard: 200 },
        Rlimit { resource: RlimitResource::Core, soft: 0, hard: u64::MAX },
    ];
    assert_eq!(world.output(&spec).await, "100\n200\n0\n");
}
