//! Attach, logs, exec.

use skep_engine::options::{AttachOptions, ExecStart, LogQuery};
use skep_types::ContainerId;
use skep_types::container::{ContainerConfig, ExecConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::house::{House, command, script, unframe, within};

/// Waits until a container has written a line.
pub async fn says(house: &House, id: ContainerId, wanted: &str) {
    let query = LogQuery { stdout: true, stderr: true, since: None, until: None, tail: None, follow: true };
    let (_, mut log) = house.engine.logs(&id.to_string(), query).await.unwrap();
    let heard = async {
        while let Some(line) = log.next().await.unwrap() {
            if String::from_utf8_lossy(&line.bytes).contains(wanted) {
                return true;
            }
        }
        false
    };
    assert!(within(heard).await, "the container ended without a word of {wanted}");
}

pub async fn logs_are_replayed_and_followed() {
    let house = House::new().await;
    let id = house
        .start(script("echo one; echo two; trap 'echo three; exit 0' TERM; while :; do sleep 0.01; done"))
        .await;
    says(&house, id, "two").await;
    let replay = AttachOptions { stdout: true, stderr: true, logs: true, stream: true, stdin: false };
    let (_, mut stream) = house.engine.attach(&id.to_string(), replay).await.unwrap();
    let mut first = [0; 24];
    within(stream.read_exact(&mut first)).await.unwrap();
    assert_eq!(unframe(&first), "one\ntwo\n");
    let query =
        LogQuery { stdout: true, stderr: false, since: None, until: None, tail: Some(1), follow: true };
    let (tty, mut log) = house.engine.logs(&id.to_string(), query).await.unwrap();
    assert!(!tty);
    house.engine.stop(&id.to_string(), None, None).await.unwrap();
    let mut lines = Vec::new();
    while let Some(line) = within(log.next()).await.unwrap() {
        lines.push(String::from_utf8(line.bytes).unwrap());
    }
    assert_eq!(lines, ["two\n", "three\n"]);
    let mut rest = Vec::new();
    within(stream.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(unframe(&rest), "three\n");
    house.close().await;
}

pub async fn input_reaches_the_container() {
    let house = House::new().await;
    for tty in [false, true] {
        let config = ContainerConfig {
            open_stdin: true,
            stdin_once: true,
            attach_stdin: true,
            tty,
            ..script("read line; echo got $line")
        };
        let id = house.engine.create(None, config).await.unwrap().id.to_string();
        let all = AttachOptions { stdin: true, stdout: true, stderr: true, logs: false, stream: true };
        let (attached_tty, mut stream) = house.engine.attach(&id, all).await.unwrap();
        assert_eq!(attached_tty, tty);
        house.engine.start(&id).await.unwrap();
        if tty {
            house.engine.resize(&id, 40, 120).await.unwrap();
        }
        stream.write_all(b"hello\n").await.unwrap();
        let mut bytes = Vec::new();
        within(stream.read_to_end(&mut bytes)).await.unwrap();
        let text = if tty { String::from_utf8(bytes).unwrap() } else { unframe(&bytes) };
        assert!(text.contains("got hello"), "{text}");
    }
    house.close().await;
}

pub async fn execs_tell_their_exit_codes() {
    let house = House::new().await;
    let id = house.start(command(&["sleep", "1000"])).await;
    let exec = |words: &[&str]| ExecConfig {
        cmd: words.iter().map(|word| (*word).to_owned()).collect(),
        env: vec!["EXTRA=yes".to_owned()],
        attach_stdout: true,
        attach_stderr: true,
        ..ExecConfig::default()
    };
    let config = exec(&["sh", "-c", "echo $FROM $EXTRA; exit 4"]);
    let first = house.engine.exec_create(&id.to_string(), config).await.unwrap();
    let mut stream = house.engine.exec_start(&first, ExecStart::default()).await.unwrap().unwrap();
    let mut bytes = Vec::new();
    within(stream.read_to_end(&mut bytes)).await.unwrap();
    assert_eq!(unframe(&bytes), "image yes\n");
    // At once: the client asks for the exit code as soon as the stream has ended.
    let view = house.engine.exec_inspect(&first).await.unwrap();
    assert_eq!((view.running, view.exit_code), (false, Some(4)));

    let missing = house.engine.exec_create(&id.to_string(), exec(&["nothing"])).await.unwrap();
    let refused = house.engine.exec_start(&missing, ExecStart::default()).await.unwrap_err();
    assert!(refused.message.contains("executable file not found in $PATH"), "{}", refused.message);
    assert_eq!(house.engine.exec_inspect(&missing).await.unwrap().exit_code, Some(127));

    house.engine.kill(&id.to_string(), "KILL").await.unwrap();
    let late = house.engine.exec_create(&id.to_string(), exec(&["true"])).await.unwrap_err();
    assert_eq!(late.message, format!("container {id} is not running"));
    house.close().await;
}

pub async fn clients_that_left_before_the_start_take_no_place() {
    let house = House::new().await;
    let id = house.engine.create(None, script("echo here")).await.unwrap().id.to_string();
    let attach = || house.attach(&id);
    for _ in 0..100 {
        drop(attach().await);
    }
    let output = attach().await;
    house.engine.start(&id).await.unwrap();
    assert_eq!(within(output).await, "here\n");
    house.close().await;
}
