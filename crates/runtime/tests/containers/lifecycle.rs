//! Starts, ends, and a daemon that dies in between.

use skep_runtime::State;

use crate::world::{ALL, World, read_all, split};

#[tokio::test]
async fn exit_codes_are_docker_s() {
    let world = World::new();
    for (script, code) in [("exit 0", 0), ("exit 42", 42), ("kill -9 $$; sleep 9", 137), ("exit 255", 255)] {
        let mut spec = world.script(script);
        // PID 1 cannot kill itself.
        spec.init = script.contains("kill");
        let (exit, ..) = world.run(&spec).await;
        assert_eq!((exit.code, exit.oom_killed, exit.lost), (code, false, false), "{script}");
    }
}

#[tokio::test]
async fn what_cannot_be_executed_is_refused_in_docker_s_words() {
    let world = World::new();
    let (code, message) = world.refused(&world.spec(&["nonsense"])).await;
    assert_eq!(code, 127);
    assert!(message.starts_with("failed to create task for container: "), "{message}");
    assert!(
        message.ends_with("exec: \"nonsense\": executable file not found in $PATH: unknown"),
        "{message}"
    );
    let (code, message) = world.refused(&world.spec(&["/no/such"])).await;
    assert_eq!(code, 127);
    assert!(
        message.ends_with("exec: \"/no/such\": stat /no/such: no such file or directory: unknown"),
        "{message}"
    );
    let (code, message) = world.refused(&world.spec(&["/etc/passwd"])).await;
    assert_eq!(code, 126);
    assert!(message.ends_with("exec: \"/etc/passwd\": permission denied: unknown"), "{message}");
    let (code, message) = world.refused(&world.spec(&["/etc"])).await;
    assert_eq!(code, 126);
    assert!(message.ends_with("exec: \"/etc\": is a directory: unknown"), "{message}");
    let mut spec = world.spec(&["true"]);
    spec.process.user = "nobody-here".to_owned();
    let (code, message) = world.refused(&spec).await;
    assert_eq!(code, 126);
    assert!(
        message.contains("unable to find user nobody-here: no matching entries in passwd file"),
        "{message}"
    );
}

#[tokio::test]
async fn a_file_that_is_no_program_ends_with_255() {
    let world = World::new();
    let (exit, _, err) = world
        .run(&world.script("printf '\\177ELF' > /x; chmod +x /x 2>/dev/null; busybox chmod 755 /x; exec /x"))
        .await;
    assert_ne!(exit.code, 0, "{err}");
    let image = world.folder.path().join("image/bin/broken");
    std::fs::write(&image, [0x7f, b'E', b'L', b'F', 0, 0]).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&image, mode).unwrap();
    let (exit, _, err) = world.run(&world.spec(&["broken"])).await;
    assert_eq!(exit.code, 255);
    assert_eq!(err, "exec /bin/broken: exec format error\n");
}

#[tokio::test]
async fn a_bind_of_nothing_is_refused() {
    use skep_runtime::spec::{Mount, MountKind};
    let world = World::new();
    let mut spec = world.spec(&["true"]);
    let propagation = skep_types::mount::Propagation::Rprivate;
    let kind = MountKind::Bind { source: "/no/such/source".into(), propagation, populate: false };
    spec.mounts.push(Mount { target: "/mnt".into(), kind, read_only: false });
    let (code, message) = world.refused(&spec).await;
    assert_eq!(code, 127);
    assert!(
        message.contains("\"/no/such/source\"") && message.contains("no such file or directory"),
        "{message}"
    );
}

#[tokio::test]
async fn signals_reach_the_first_process() {
    let world = World::new();
    let spec = world.script("trap 'echo got; exit 3' TERM; echo ready; while :; do sleep 0.05; done");
    let mut client = world.start_attached(&spec, ALL).await;
    crate::world::read_until(&mut client, "ready").await;
    world.runtime.signal(spec.id, 15).await.unwrap();
    assert_eq!(world.runtime.wait(spec.id).await.unwrap().code, 3);
    assert!(world.runtime.signal(spec.id, 15).await.is_err());
    assert_eq!(world.log(&spec).await.0, "ready\ngot\n");
}

#[tokio::test]
async fn init_forwards_signals_reaps_orphans_and_keeps_the_exit_code() {
    let world = World::new();
    let mut spec = world.script(
        "trap 'exit 7' USR1; for i in 1 2 3; do (sleep 0.01 &) ; done; sleep 0.2; \
         cat /proc/1/comm; grep -l '^State:.Z' /proc/[0-9]*/status | wc -l; echo $$ ready; while :; do sleep 0.05; done",
    );
    spec.init = true;
    let mut client = world.start_attached(&spec, ALL).await;
    let text = crate::world::read_until(&mut client, "ready").await;
    assert!(text.contains("skep-shim"), "{text}");
    assert!(text.contains("0\n"), "no zombie is left: {text}");
    assert!(text.contains("2 ready"), "{text}");
    world.runtime.signal(spec.id, libc::SIGUSR1).await.unwrap();
    assert_eq!(world.runtime.wait(spec.id).await.unwrap().code, 7);
}

#[tokio::test]
async fn init_without_a_program_is_refused_as_ever() {
    let world = World::new();
    let mut spec = world.spec(&["nonsense"]);
    spec.init = true;
    assert_eq!(world.refused(&spec).await.0, 127);
}

#[tokio::test]
async fn a_container_outlives_the_daemon() {
    let mut world = World::new();
    let spec = world.script("echo before; read line; echo after $line; exit 5");
    let mut spec = spec;
    (spec.process.stdin, spec.process.stdin_once) = (true, true);
    let first = world.start_attached(&spec, ALL).await;
    let started = world.runtime.state(spec.id).await.unwrap();
    drop(first);
    // stdin_once: with its first client gone, its input ends; so this one is started anew without.
    assert_eq!(world.runtime.wait(spec.id).await.unwrap().code, 5);
    assert!(matches!(started, State::Running(_)));

    let mut spec = world.script("echo before; read line; echo after $line; exit 6");
    spec.process.stdin = true;
    let started = world.start(&spec).await;
    world.reopen();
    assert_eq!(world.runtime.state(spec.id).await.unwrap(), State::Running(started));
    assert!(world.runtime.list().unwrap().contains(&spec.id));
    let mut client = world.runtime.attach(spec.id, ALL).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut client, b"restart\n").await.unwrap();
    let (out, _) = split(&read_all(&mut client).await);
    assert!(out.ends_with("after restart\n"), "{out}");
    assert_eq!(world.runtime.wait(spec.id).await.unwrap().code, 6);
    world.reopen();
    let exit = world.runtime.wait(spec.id).await.unwrap();
    assert_eq!((exit.code, exit.lost), (6, false));
    assert_eq!(world.runtime.state(spec.id).await.unwrap(), State::Exited(exit));
    assert_eq!(world.log(&spec).await.0, "before\nafter restart\n");
}

#[tokio::test]
async fn a_killed_shim_takes_its_container_along_and_is_told() {
    let world = World::new();
    let spec = world.script("sleep 1000 & sleep 1000");
    let started = world.start(&spec).await;
    let status = std::fs::read_to_string(format!("/proc/{}/status", started.pid)).unwrap();
    let shim = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().to_owned();
    assert_eq!(std::fs::read_to_string(format!("/proc/{shim}/comm")).unwrap(), "skep-shim\n");
    let arguments = std::fs::read_to_string(format!("/proc/{shim}/cmdline")).unwrap();
    assert_eq!(arguments.trim_end_matches('\0'), format!("skep\0shim\0{}", spec.id));
    assert!(std::process::Command::new("kill").args(["-9", &shim]).status().unwrap().success());
    let exit = world.runtime.wait(spec.id).await.unwrap();
    assert_eq!((exit.code, exit.lost), (137, true));
    world.runtime.delete(spec.id).await.unwrap();
    // It was killed, and may need a moment to end; whoever is the host's init may not have reaped it yet.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        let status = std::fs::read_to_string(format!("/proc/{}/status", started.pid)).unwrap_or_default();
        if status.is_empty() || status.contains("State:\tZ") {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{status}");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn nothing_is_left_of_an_ended_container() {
    let world = World::new();
    let spec = world.script("sleep 1000 & sleep 1000 & sleep 0.05");
    let started = world.start(&spec).await;
    assert_eq!(world.runtime.pids(spec.id).unwrap().first(), Some(&started.pid));
    world.runtime.wait(spec.id).await.unwrap();
    assert!(world.runtime.pids(spec.id).unwrap().is_empty());
    world.runtime.delete(spec.id).await.unwrap();
    world.runtime.delete(spec.id).await.unwrap();
    for hierarchy in crate::world::hierarchies() {
        assert!(!hierarchy.join(&spec.cgroup).exists());
    }
    // The same id can be started again.
    assert_eq!(world.run(&spec).await.0.code, 0);
}

#[tokio::test]
async fn deleting_a_running_container_ends_it() {
    let world = World::new();
    let spec = world.spec(&["sleep", "1000"]);
    world.start(&spec).await;
    world.runtime.delete(spec.id).await.unwrap();
    assert_eq!(world.runtime.state(spec.id).await.unwrap(), State::Absent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_start_at_once() {
    let world = World::new();
    let mut running = tokio::task::JoinSet::new();
    for number in 0..40 {
        let spec = world.script(&format!("echo {number}; exit {number}"));
        let runtime = world.runtime.clone();
        running.spawn(async move {
            runtime.start(&spec, Vec::new()).await.unwrap();
            let code = runtime.wait(spec.id).await.unwrap().code;
            runtime.delete(spec.id).await.unwrap();
            (code, number, std::fs::read_to_string(&spec.log.path).unwrap())
        });
    }
    while let Some(ended) = running.join_next().await {
        let (code, number, log) = ended.unwrap();
        assert_eq!(code, number);
        assert!(log.starts_with(&format!("{{\"log\":\"{number}\\n\"")) && log.lines().count() == 1, "{log}");
    }
}

#[tokio::test]
async fn a_killed_nursery_is_replaced() {
    let world = World::new();
    let spec = world.spec(&["sleep", "1000"]);
    let first = world.start(&spec).await;
    let parent = |pid: u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse::<u32>().unwrap()
    };
    let nursery = parent(parent(first.pid));
    assert!(
        std::process::Command::new("kill").args(["-9", &nursery.to_string()]).status().unwrap().success()
    );
    // It may have ended, or be about to: nobody who starts a container is to notice.
    assert_eq!(world.output(&world.script("echo again")).await, "again\n");
    assert_eq!(world.runtime.state(spec.id).await.unwrap(), State::Running(first));
}

#[tokio::test]
async fn a_program_with_an_endless_name_is_refused_in_few_words() {
    let world = World::new();
    let name = "\u{1}x".repeat(500_000);
    let (code, message) = world.refused(&world.spec(&[&name])).await;
    assert_eq!(code, 127);
    assert!(message.ends_with("executable file not found in $PATH: unknown"), "{}", message.len());
    assert!(message.len() < 10_000, "{}", message.len());
}

#[tokio::test]
async fn a_shim_that_hangs_holds_up_nobody_else() {
    let world = World::new();
    let (stuck, other) = (world.spec(&["sleep", "1000"]), world.spec(&["sleep", "1000"]));
    let started = world.start(&stuck).await;
    world.start(&other).await;
    let status = std::fs::read_to_string(format!("/proc/{}/status", started.pid)).unwrap();
    let shim = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().to_owned();
    let signal = |name: &str| {
        assert!(std::process::Command::new("kill").args([name, &shim]).status().unwrap().success());
    };
    signal("-STOP");
    // More than its backlog holds.
    let asking: Vec<_> = (0..80)
        .map(|_| {
            let (runtime, id) = (world.runtime.clone(), stuck.id);
            tokio::spawn(async move { runtime.state(id).await })
        })
        .collect();
    tokio::task::yield_now().await;
    assert!(matches!(world.runtime.state(other.id).await.unwrap(), State::Running(_)));
    signal("-CONT");
    for answer in asking {
        assert_eq!(answer.await.unwrap().unwrap(), State::Running(started));
    }
}

#[tokio::test]
async fn shims_are_out_of_reach_of_everybody_else() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new();
    let mode = std::fs::metadata(world.folder.path().join("run/containers")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[tokio::test]
async fn a_record_that_is_none_is_as_good_as_none() {
    let mut world = World::new();
    let spec = world.spec(&["sleep", "1000"]);
    world.start(&spec).await;
    std::fs::write(world.folder.path().join(format!("run/containers/{}/exit.json", spec.id)), "{\"ex")
        .unwrap();
    world.reopen();
    assert!(matches!(world.runtime.state(spec.id).await.unwrap(), State::Running(_)));
    world.runtime.signal(spec.id, libc::SIGKILL).await.unwrap();
    assert_eq!(world.runtime.wait(spec.id).await.unwrap().code, 137);
}
