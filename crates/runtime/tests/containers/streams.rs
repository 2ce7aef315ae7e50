//! Output, input, terminals, logs.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::world::{ALL, World, read_all, read_until, split};

#[tokio::test]
async fn output_reaches_log_and_clients_in_order() {
    let world = World::new();
    let spec = world.script("for i in 1 2 3; do echo out $i; echo err $i >&2; done; printf tail");
    let mut client = world.start_attached(&spec, ALL).await;
    let (out, err) = split(&read_all(&mut client).await);
    assert_eq!(out, "out 1\nout 2\nout 3\ntail");
    assert_eq!(err, "err 1\nerr 2\nerr 3\n");
    world.runtime.wait(spec.id).await.unwrap();
    assert_eq!(world.log(&spec).await, (out, err));
}

#[tokio::test]
async fn a_client_gets_only_the_streams_it_asked_for() {
    let world = World::new();
    let spec = world.script("echo out; echo err >&2");
    let streams = skep_runtime::Attach { stdin: false, stdout: false, stderr: true };
    let mut client = world.start_attached(&spec, streams).await;
    assert_eq!(split(&read_all(&mut client).await), (String::new(), "err\n".to_owned()));
}

#[tokio::test]
async fn no_byte_is_lost_and_no_memory_grows_when_a_client_does_not_read() {
    let world = World::new();
    let lines = 200_000;
    let spec = world.script(&format!("seq 1 {lines}; echo done >&2"));
    let mut client = world.start_attached(&spec, ALL).await;
    // A second client reads; the first does not yet, and so holds up the container.
    let mut other = world.runtime.attach(spec.id, ALL).await.unwrap();
    let mut few = vec![0; 1000];
    other.read_exact(&mut few).await.unwrap();
    let state = world.runtime.state(spec.id).await.unwrap();
    assert!(matches!(state, skep_runtime::State::Running(_)), "{state:?}");
    let reads = async { tokio::join!(read_all(&mut client), read_all(&mut other)) };
    let (first, _) = reads.await;
    let (out, err) = split(&first);
    assert_eq!(err, "done\n");
    let expected: String = (1..=lines).map(|line| format!("{line}\n")).collect();
    assert!(out == expected, "{} bytes of {}", out.len(), expected.len());
    world.runtime.wait(spec.id).await.unwrap();
    assert!(world.log(&spec).await.0 == expected);
}

#[tokio::test]
async fn input_is_closed_open_or_ends_once() {
    let world = World::new();
    let (_, out, _) = world.run(&world.script("cat; readlink /proc/self/fd/0")).await;
    assert_eq!(out, "/dev/null\n");
    let mut spec = world.script("cat; echo end");
    (spec.process.stdin, spec.process.stdin_once) = (true, true);
    let mut client = world.start_attached(&spec, ALL).await;
    let sent = "x".repeat(300_000);
    let (mut reader, mut writer) = client.split();
    let write = async {
        writer.write_all(sent.as_bytes()).await.unwrap();
        writer.shutdown().await.unwrap();
    };
    let mut bytes = Vec::new();
    let (_, read) = tokio::join!(write, reader.read_to_end(&mut bytes));
    read.unwrap();
    let (out, _) = split(&bytes);
    assert!(out == format!("{sent}end\n"), "{}", out.len());
}

#[tokio::test]
async fn without_stdin_once_input_survives_its_clients() {
    let world = World::new();
    let mut spec = world.script("read a; read b; echo $a $b");
    spec.process.stdin = true;
    let mut client = world.start_attached(&spec, ALL).await;
    client.write_all(b"one\n").await.unwrap();
    client.shutdown().await.unwrap();
    // As Docker: its input's end lets it go.
    assert!(read_all(&mut client).await.is_empty());
    let mut client = world.runtime.attach(spec.id, ALL).await.unwrap();
    client.write_all(b"two\n").await.unwrap();
    assert_eq!(split(&read_all(&mut client).await).0, "one two\n");
}

#[tokio::test]
async fn a_terminal_is_one() {
    let world = World::new();
    let mut spec = world.script(
        "tty; stat -c %n /dev/console; stty size; read line; stty size; echo got $line; echo err >&2",
    );
    (spec.process.tty, spec.process.stdin, spec.process.tty_size) = (true, true, Some((30, 90)));
    let mut client = world.start_attached(&spec, ALL).await;
    let text = read_until(&mut client, "30 90").await;
    assert!(text.starts_with("/dev/pts/0\r\n/dev/console\r\n"), "{text}");
    world.runtime.resize(spec.id, None, 50, 132).await.unwrap();
    client.write_all(b"hello\n").await.unwrap();
    let text = String::from_utf8(read_all(&mut client).await).unwrap();
    assert!(text.contains("50 132\r\n") && text.ends_with("got hello\r\nerr\r\n"), "{text}");
    world.runtime.wait(spec.id).await.unwrap();
    let (out, err) = world.log(&spec).await;
    assert!(out.ends_with("err\r\n") && err.is_empty(), "{out}{err}");
    let error = world.runtime.resize(spec.id, None, 1, 1).await.unwrap_err();
    assert_eq!(error.to_string(), format!("container {} is not running", spec.id));
}

#[tokio::test]
async fn control_c_interrupts_a_terminal() {
    let world = World::new();
    for init in [false, true] {
        let mut spec =
            world.script("trap 'echo stopped; exit 9' INT; echo ready; while :; do sleep 0.05; done");
        (spec.process.tty, spec.process.stdin, spec.init) = (true, true, init);
        let mut client = world.start_attached(&spec, ALL).await;
        read_until(&mut client, "ready").await;
        client.write_all(&[3]).await.unwrap();
        read_until(&mut client, "stopped").await;
        assert_eq!(world.runtime.wait(spec.id).await.unwrap().code, 9, "init: {init}");
    }
}

#[tokio::test]
async fn long_lines_come_in_docker_s_parts() {
    let world = World::new();
    let spec = world.script("head -c 40000 /dev/zero | busybox tr '\\0' x; echo; echo next");
    let (_, out, _) = world.run(&spec).await;
    assert_eq!(out.len(), 40_001 + 5);
    let text = std::fs::read_to_string(&spec.log.path).unwrap();
    let lengths: Vec<usize> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["log"].as_str().unwrap().len())
        .collect();
    assert_eq!(lengths, [16_384, 16_384, 7_233, 5]);
}

#[tokio::test]
async fn without_a_log_there_is_none() {
    let world = World::new();
    let mut spec = world.script("echo unheard");
    spec.log.driver = skep_runtime::spec::LogDriver::None;
    world.run(&spec).await;
    assert!(!spec.log.path.exists());
}

#[tokio::test]
async fn a_shim_that_wrote_much_is_still_small() {
    let world = World::new();
    let spec =
        world.script("seq 1 200000; head -c 3000000 /dev/urandom; echo; echo done >&2; exec sleep 1000");
    let streams = skep_runtime::Attach { stdin: false, stdout: false, stderr: true };
    let mut client = world.start_attached(&spec, streams).await;
    read_until(&mut client, "done").await;
    let skep_runtime::State::Running(started) = world.runtime.state(spec.id).await.unwrap() else { panic!() };
    let status = std::fs::read_to_string(format!("/proc/{}/status", started.pid)).unwrap();
    let shim = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().to_owned();
    let memory = std::fs::read_to_string(format!("/proc/{shim}/smaps_rollup")).unwrap();
    let dirty = memory.lines().find_map(|line| line.strip_prefix("Private_Dirty:")).unwrap();
    let kilobytes: u64 = dirty.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(kilobytes < 1024, "{kilobytes} kB");
}

#[tokio::test]
async fn clients_beyond_the_limit_are_refused_and_the_container_is_still_in_hand() {
    let world = World::new();
    let spec = world.spec(&["sleep", "1000"]);
    world.start(&spec).await;
    let mut clients = Vec::new();
    for _ in 0..256 {
        clients.push(world.runtime.attach(spec.id, ALL).await.unwrap());
    }
    world.runtime.attach(spec.id, ALL).await.unwrap_err();
    drop(clients.pop());
    world.runtime.signal(spec.id, libc::SIGKILL).await.unwrap();
    assert_eq!(world.runtime.wait(spec.id).await.unwrap().code, 137);
}
