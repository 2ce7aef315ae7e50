//! `docker attach` and `docker exec`, with and without a terminal.
#![expect(clippy::unwrap_used, reason = "a broken expectation should stop the test where it broke")]

use std::time::Duration;

use skep_conformance::{Host, eventually};

const FOREVER: &str = "echo ready; while :; do sleep 0.05; done";

#[test]
fn attach_prints_what_comes_and_ends_with_the_exit_code() {
    let host = Host::with_busybox();
    let script = "echo before; while [ ! -e /go ]; do echo beat; sleep 0.05; done; echo after >&2; exit 11";
    host.run_detached("heart", &[], script);
    host.until_logged("heart", "before");
    let mut attached = host.session(&["attach", "--no-stdin", "heart"]);
    attached.expect("beat\n");
    host.docker(&["exec", "heart", "touch", "/go"]).ok();
    let output = attached.finish();
    assert_eq!(output.code, 11, "{output}");
    assert_eq!(output.stderr, "after\n");
    assert!(!output.stdout.contains("before"), "attach shows only what comes: {output}");
    host.docker(&["attach", "heart"]).fails(1, "annot attach to a stopped container, start it first");
}

#[test]
fn start_attached_with_input_is_a_conversation() {
    let host = Host::with_busybox();
    let script = "while read line; do echo \"heard $line\"; done; echo silence; exit 2";
    host.docker(&["create", "--name", "talk", "--interactive", "busybox", "sh", "-c", script]).ok();
    let mut session = host.session(&["start", "--attach", "--interactive", "talk"]);
    session.send("hello\n");
    session.expect("heard hello\n");
    session.send("goodbye\n");
    session.expect("heard goodbye\n");
    session.end_input();
    session.expect("silence\n");
    assert_eq!(session.finish().code, 2);
}

#[test]
fn input_stays_open_when_a_client_leaves_a_detached_container() {
    let host = Host::with_busybox();
    let script = "while read line; do echo \"heard $line\"; done; echo silence";
    host.run_detached("open", &["--interactive"], script);
    for word in ["first", "second"] {
        let mut session = host.session(&["attach", "open"]);
        session.send(&format!("{word}\n"));
        session.expect(&format!("heard {word}\n"));
        // A client that is killed leaves no end of input behind.
        session.signal(libc::SIGKILL);
        session.finish();
    }
    assert_eq!(host.inspect("open", "{{.State.Running}}"), "true");
    assert_eq!(host.docker(&["logs", "open"]).ok(), "heard first\nheard second");
}

#[test]
fn two_attached_clients_see_the_same() {
    let host = Host::with_busybox();
    let script = "while [ ! -e /go ]; do sleep 0.05; done; sleep 0.3; seq 1 1000";
    host.run_detached("shared", &[], script);
    let start = || {
        let session = host.session(&["attach", "--no-stdin", "shared"]);
        // The client gives no sign once it is attached; its wait request comes after.
        session
    };
    let (one, two) = (start(), start());
    eventually("both are attached", Duration::from_secs(10), || {
        let open = host.open_connections();
        if open >= 4 { Ok(()) } else { Err(format!("{open} connections")) }
    });
    host.docker(&["exec", "shared", "touch", "/go"]).ok();
    let wanted: String = (1..=1000).map(|number| format!("{number}\n")).collect();
    assert_eq!(one.finish().stdout, wanted);
    assert_eq!(two.finish().stdout, wanted);
}

#[test]
fn detach_keys_leave_the_container_running() {
    let host = Host::with_busybox();
    let mut session = host.at_terminal(&["run", "-it", "--name", "left", "busybox", "sh"]);
    session.expect("# ");
    session.send("\x10\x11");
    let output = session.finish();
    assert!(output.code == 0 || output.stdout.contains("read escape sequence"), "{output}");
    assert_eq!(host.inspect("left", "{{.State.Running}}"), "true");
    let mut session = host.at_terminal(&["attach", "left"]);
    session.send("echo $((6*7)) again\n");
    session.expect("42 again");
    session.send("exit 8\n");
    assert_eq!(session.finish().code, 8);
}

#[test]
fn a_reader_that_stops_reading_holds_up_nobody_else() {
    let host = Host::with_busybox();
    let script = "while [ ! -e /go ]; do sleep 0.05; done; sleep 0.3; seq 1 2000000";
    host.run_detached("flood", &[], script);
    // An attached client that never reads: its output stops, the daemon goes on.
    let mut lazy = host.api_connect().unwrap();
    let request = "POST /containers/flood/attach?stream=1&stdout=1 HTTP/1.1\r\nHost: skep\r\n\
                   Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n";
    std::io::Write::write_all(&mut lazy, request.as_bytes()).unwrap();
    let mut head = [0; 12];
    std::io::Read::read_exact(&mut lazy, &mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 101");
    host.docker(&["exec", "flood", "touch", "/go"]).ok();
    assert_eq!(host.docker(&["exec", "flood", "echo", "still here"]).ok(), "still here");
    assert_eq!(host.run(&[], "echo others too").ok(), "others too");
    host.docker(&["kill", "flood"]).ok();
    host.until("flood", "{{.State.Status}}", "exited");
}

#[test]
fn exec_runs_beside_the_main_process() {
    let host = Host::with_busybox();
    host.run_detached("body", &["--env", "A=1", "--workdir", "/tmp"], FOREVER);
    let exec = |arguments: &[&str]| host.docker(&[&["exec"], arguments].concat());
    let output = exec(&["body", "sh", "-c", "echo out; echo err >&2; exit 5"]);
    assert_eq!((output.code, output.stdout.as_str(), output.stderr.as_str()), (5, "out\n", "err\n"));
    assert_eq!(exec(&["body", "sh", "-c", "echo $A; pwd"]).ok(), "1\n/tmp");
    let options = ["--env", "A=2", "--workdir", "/bin", "--user", "nobody", "body"];
    assert_eq!(exec(&[&options[..], &["sh", "-c", "echo $A; pwd; id -u"]].concat()).ok(), "2\n/bin\n65534");
    let capabilities = "grep -E 'CapEff|CapBnd|Seccomp:' /proc/self/status";
    let printed = exec(&["body", "sh", "-c", capabilities]).ok();
    let values: Vec<&str> = printed.lines().map(|line| line.split_whitespace().nth(1).unwrap()).collect();
    assert_eq!(values, ["00000000a80425fb", "00000000a80425fb", "2"], "exec is confined as the container");
    let namespaces = "for process in 1 self; do for name in pid mnt net uts ipc; do \
                      readlink /proc/$process/ns/$name; done | md5sum; done";
    let printed = exec(&["body", "sh", "-c", namespaces]).ok();
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines[0], lines[1], "exec joins every namespace");
    let groups = "cat /proc/1/cgroup > /tmp/one; cat /proc/self/cgroup | cmp /tmp/one - && echo same";
    assert_eq!(exec(&["body", "sh", "-c", groups]).ok(), "same");
}

#[test]
fn exec_says_what_went_wrong() {
    let host = Host::with_busybox();
    host.run_detached("body", &[], FOREVER);
    let exec = |arguments: &[&str]| host.docker(&[&["exec"], arguments].concat());
    let missing = exec(&["body", "no-such-command"]);
    assert_eq!(missing.code, 127, "{missing}");
    let said = format!("{}{}", missing.stdout, missing.stderr);
    assert!(said.contains("exec: \"no-such-command\": executable file not found in $PATH"), "{missing}");
    let refused = exec(&["body", "/etc/passwd"]);
    assert_eq!(refused.code, 126, "{refused}");
    assert!(format!("{}{}", refused.stdout, refused.stderr).contains("permission denied"), "{refused}");
    assert_eq!(exec(&["body", "sh", "-c", "kill -KILL $$"]).code, 137);
    exec(&["nobody", "true"]).fails(1, "No such container: nobody");
    host.docker(&["kill", "body"]).ok();
    host.until("body", "{{.State.Status}}", "exited");
    exec(&["body", "true"]).fails(1, "is not running");
}

#[test]
fn exec_takes_input() {
    let host = Host::with_busybox();
    host.run_detached("body", &[], FOREVER);
    let text = "0123456789\n".repeat(20_000);
    let output = host.docker_with_input(&["exec", "--interactive", "body", "md5sum"], text.as_bytes());
    let direct = host.docker_with_input(&["run", "--rm", "-i", "busybox", "md5sum"], text.as_bytes());
    assert_eq!(output.ok(), direct.ok());
}

#[test]
fn exec_at_a_terminal_with_its_size() {
    let host = Host::with_busybox();
    host.run_detached("body", &[], FOREVER);
    let mut session = host.at_terminal(&["exec", "-it", "body", "sh"]);
    session.expect("# ");
    session.send("while [ \"$(stty size)\" != '24 80' ]; do sleep 0.05; done; echo first size\n");
    session.expect("\nfirst size");
    session.resize(33, 99);
    session.send("while [ \"$(stty size)\" != '33 99' ]; do sleep 0.05; done; echo second size\n");
    session.expect("\nsecond size");
    session.send("tty; exit 14\n");
    session.expect("/dev/pts/");
    assert_eq!(session.finish().code, 14);
}

#[test]
fn exec_detached_goes_on_alone() {
    let host = Host::with_busybox();
    host.run_detached("body", &[], FOREVER);
    let printed = host.docker(&["exec", "--detach", "body", "sh", "-c", "echo done > /tmp/mark"]).ok();
    assert_eq!(printed, "");
    eventually("the detached process has run", Duration::from_secs(10), || {
        let output = host.docker(&["exec", "body", "cat", "/tmp/mark"]);
        if output.stdout == "done\n" { Ok(()) } else { Err(output.to_string()) }
    });
    assert_eq!(host.docker(&["logs", "body"]).ok(), "ready", "exec's output is not the container's log");
}

#[test]
fn many_execs_at_once_each_get_their_own_output() {
    let host = Host::with_busybox();
    host.run_detached("body", &[], FOREVER);
    std::thread::scope(|scope| {
        for number in 0..16 {
            let host = &host;
            scope.spawn(move || {
                let script = format!("echo {number}; exit {number}");
                let output = host.docker(&["exec", "body", "sh", "-c", &script]);
                assert_eq!((output.code, output.stdout.trim()), (number, &*number.to_string()), "{output}");
            });
        }
    });
}
