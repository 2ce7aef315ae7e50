//! One more process in a container.

use skep_runtime::{Attach, ExecState};
use tokio::io::AsyncWriteExt;

use crate::world::{ALL, World, process, read_all, read_until, split};

#[tokio::test]
async fn an_exec_lives_in_the_container() {
    let world = World::new();
    let spec = world.spec(&["sleep", "1000"]);
    let started = world.start(&spec).await;
    let script = "hostname; cat /proc/1/comm; grep -E '^(Seccomp|CapEff|CapBnd|CapInh|NoNewPrivs)' /proc/self/status; \
                  cat /proc/self/oom_score_adj; ls /proc/self/fd | wc -l; [ \"$(cat /proc/self/cgroup)\" = \"$(cat /proc/1/cgroup)\" ] && echo same cgroups; pwd; exit 3";
    let exec =
        world.runtime.exec(spec.id, "a", &process(&["sh", "-c", script]), &spec.seccomp, ALL).await.unwrap();
    let (out, err) = split(&read_all(&mut exec.stream.unwrap()).await);
    assert_eq!(err, "");
    assert!(out.starts_with("skep\nsleep\n"), "{out}");
    for line in
        ["CapEff:\t00000000a80425fb", "CapBnd:\t00000000a80425fb", "CapInh:\t0000000000000000", "Seccomp:\t2"]
    {
        assert!(out.contains(line), "{out}");
    }
    assert!(out.contains("same cgroups"), "{out}");
    let cgroup = std::fs::read_to_string(format!("/proc/{}/cgroup", started.pid)).unwrap();
    assert!(cgroup.contains(&spec.cgroup), "{cgroup}");
    assert!(out.ends_with("/\n"), "{out}");
    assert_eq!(world.runtime.exec_wait(spec.id, "a").await.unwrap(), 3);
    assert_eq!(world.runtime.exec_state(spec.id, "a").await.unwrap(), ExecState::Exited(3));
    assert_eq!(world.runtime.exec_state(spec.id, "b").await.unwrap(), ExecState::Absent);
    let error = world.runtime.exec_wait(spec.id, "b").await.unwrap_err();
    assert_eq!(error.to_string(), "No such exec instance: b");
}

#[tokio::test]
async fn what_cannot_be_executed_is_refused_in_docker_s_words() {
    let world = World::new();
    let spec = world.spec(&["sleep", "1000"]);
    world.start(&spec).await;
    let refused = async |process| {
        let error = world.runtime.exec(spec.id, "x", &process, &spec.seccomp, ALL).await.unwrap_err();
        (error.code, error.message)
    };
    let prefix = "OCI runtime exec failed: exec failed: unable to start container process: ";
    let not_found = format!("{prefix}exec: \"foo\": executable file not found in $PATH: unknown");
    assert_eq!(refused(process(&["foo"])).await, (127, not_found));
    let denied = format!("{prefix}exec: \"/etc/passwd\": permission denied: unknown");
    assert_eq!(refused(process(&["/etc/passwd"])).await, (126, denied));
    let mut nowhere = process(&["true"]);
    nowhere.cwd = "/nowhere".to_owned();
    let nowhere = refused(nowhere).await;
    assert_eq!(nowhere.0, 127);
    let text = "chdir to cwd (\"/nowhere\") set in config.json failed: no such file or directory: unknown";
    assert_eq!(nowhere.1, format!("{prefix}{text}"));
    assert_eq!(world.runtime.exec_state(spec.id, "x").await.unwrap(), ExecState::Absent);
}

#[tokio::test]
async fn input_ends_with_its_client_s() {
    let world = World::new();
    let spec = world.spec(&["sleep", "1000"]);
    world.start(&spec).await;
    let mut cat = process(&["sh", "-c", "cat; echo end"]);
    cat.stdin = true;
    let exec = world.runtime.exec(spec.id, "cat", &cat, &spec.seccomp, ALL).await.unwrap();
    let mut stream = exec.stream.unwrap();
    stream.write_all(b"through\n").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(split(&read_all(&mut stream).await).0, "through\nend\n");
}

#[tokio::test]
async fn a_terminal_of_its_own() {
    let world = World::new();
    let spec = world.spec(&["sleep", "1000"]);
    world.start(&spec).await;
    let mut shell = process(&["sh", "-c", "tty; stty size; read x; stty size"]);
    (shell.tty, shell.stdin, shell.tty_size) = (true, true, Some((24, 80)));
    let exec = world.runtime.exec(spec.id, "shell", &shell, &spec.seccomp, ALL).await.unwrap();
    let mut stream = exec.stream.unwrap();
    let text = read_until(&mut stream, "24 80").await;
    assert!(text.starts_with("/dev/pts/0\r\n"), "{text}");
    world.runtime.resize(spec.id, Some("shell"), 40, 100).await.unwrap();
    stream.write_all(b"\n").await.unwrap();
    read_until(&mut stream, "40 100").await;
    assert_eq!(world.runtime.exec_wait(spec.id, "shell").await.unwrap(), 0);
    assert!(world.runtime.resize(spec.id, Some("shell"), 1, 1).await.is_err());
}

#[tokio::test]
async fn detached_it_runs_unheard_and_survives_a_restart() {
    let mut world = World::new();
    let spec = world.script("while [ ! -e /tmp/done ]; do sleep 0.02; done; cat /tmp/done");
    world.start(&spec).await;
    let script = process(&[
        "sh",
        "-c",
        "echo unheard; sleep 0.1; echo heard > /tmp/done.new; busybox mv /tmp/done.new /tmp/done; exit 4",
    ]);
    let exec = world.runtime.exec(spec.id, "d", &script, &spec.seccomp, Attach::default()).await.unwrap();
    assert!(exec.stream.is_none());
    assert_eq!(world.runtime.exec_state(spec.id, "d").await.unwrap(), ExecState::Running { pid: exec.pid });
    world.reopen();
    world.runtime.wait(spec.id).await.unwrap();
    assert_eq!(world.log(&spec).await.0, "heard\n");
    // Its end may have been stored just before the container's or just after.
    assert!(matches!(world.runtime.exec_wait(spec.id, "d").await, Ok(4 | 137)));
}

#[tokio::test]
async fn it_ends_with_its_container() {
    let world = World::new();
    let spec = world.spec(&["sleep", "1000"]);
    world.start(&spec).await;
    world
        .runtime
        .exec(spec.id, "long", &process(&["sleep", "1000"]), &spec.seccomp, Attach::default())
        .await
        .unwrap();
    world.runtime.signal(spec.id, 9).await.unwrap();
    assert_eq!(world.runtime.wait(spec.id).await.unwrap().code, 137);
    assert_eq!(world.runtime.exec_wait(spec.id, "long").await.unwrap(), 137);
    let late =
        world.runtime.exec(spec.id, "late", &process(&["true"]), &spec.seccomp, ALL).await.unwrap_err();
    assert!(late.message.contains("is not running"), "{}", late.message);
}

#[tokio::test]
async fn users_and_environment_are_its_own() {
    let world = World::new();
    let spec = world.spec(&["sleep", "1000"]);
    world.start(&spec).await;
    let mut id = process(&["sh", "-c", "id; echo $HOME $X; pwd; echo kept > /dev/stdout"]);
    (id.user, id.cwd) = ("web".to_owned(), "/tmp".to_owned());
    id.env.push("X=y".to_owned());
    let exec = world.runtime.exec(spec.id, "id", &id, &spec.seccomp, ALL).await.unwrap();
    let (out, err) = split(&read_all(&mut exec.stream.unwrap()).await);
    assert_eq!(
        out, "uid=1000(web) gid=1001(web) groups=10(wheel),1001(web)\n/home/web y\n/tmp\nkept\n",
        "{err}"
    );
}

#[tokio::test]
async fn what_an_exec_leaves_writing_holds_up_nobody() {
    let world = World::new();
    let spec = world.spec(&["sleep", "1000"]);
    world.start(&spec).await;
    let script = "busybox yes & exit 3";
    let streams = Attach { stdout: true, ..Attach::default() };
    let mut exec = world
        .runtime
        .exec(spec.id, "a", &process(&["sh", "-c", script]), &spec.seccomp, streams)
        .await
        .unwrap();
    let patience = std::time::Duration::from_secs(20);
    let mut stream = exec.stream.take().unwrap();
    let reading = tokio::spawn(async move { tokio::io::copy(&mut stream, &mut tokio::io::sink()).await });
    let code = tokio::time::timeout(patience, world.runtime.exec_wait(spec.id, "a")).await;
    assert_eq!(code.expect("the end is told").unwrap(), 3);
    tokio::time::timeout(patience, reading).await.expect("the stream ends").unwrap().unwrap();
    world.runtime.signal(spec.id, libc::SIGKILL).await.unwrap();
    assert_eq!(world.runtime.wait(spec.id).await.unwrap().code, 137);
}
