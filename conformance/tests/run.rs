//! `docker run`: what its options change, seen from inside the container.
#![expect(clippy::unwrap_used, reason = "a broken expectation should stop the test where it broke")]

use std::time::Duration;

use skep_conformance::archive::{Image, busybox_layer};
use skep_conformance::{Host, eventually};

#[test]
fn output_streams_and_exit_code_reach_the_caller() {
    let host = Host::with_busybox();
    let output = host.run(&[], "echo to stdout; echo to stderr >&2; exit 7");
    assert_eq!(output.code, 7, "{output}");
    assert_eq!(output.stdout, "to stdout\n");
    assert_eq!(output.stderr, "to stderr\n");
    assert_eq!(host.docker(&["ps", "--all", "--quiet"]).ok(), "", "--rm removes the container");
}

#[test]
fn standard_input_is_passed_to_its_end() {
    let host = Host::with_busybox();
    let text = "line\n".repeat(50_000);
    let output =
        host.docker_with_input(&["run", "--rm", "--interactive", "busybox", "wc", "-c"], text.as_bytes());
    assert_eq!(output.ok(), text.len().to_string());
    let nothing = host.docker_with_input(&["run", "--rm", "busybox", "cat"], b"not for the container");
    assert_eq!(nothing.ok(), "", "without --interactive there is no input");
}

#[test]
fn much_output_arrives_whole_and_in_order() {
    let host = Host::with_busybox();
    let printed = host.run(&[], "seq 1 200000").ok();
    assert_eq!(printed.lines().count(), 200_000);
    assert!(printed.lines().zip(1..).all(|(line, number)| line == number.to_string()));
}

#[test]
fn environment_folder_hostname_and_labels_are_as_asked() {
    let host = Host::with_busybox();
    let options = [
        "--env",
        "GREETING=hello world",
        "--env",
        "EMPTY=",
        "--workdir",
        "/made/on/the/way",
        "--hostname",
        "beehive",
        "--label",
        "colour=yellow",
        "--label",
        "bare",
    ];
    let script = "echo \"$GREETING|$EMPTY|$HOSTNAME|$HOME|$PATH\"; pwd; hostname; cat /etc/hostname";
    let printed = host.run(&options, script).ok();
    assert_eq!(
        printed.lines().collect::<Vec<_>>(),
        ["hello world||beehive|/root|/bin", "/made/on/the/way", "beehive", "beehive"]
    );
    host.run_detached("labelled", &options, "true");
    assert_eq!(host.inspect("labelled", "{{index .Config.Labels \"colour\"}}"), "yellow");
    assert_eq!(host.inspect("labelled", "{{json .Config.Labels.bare}}"), "\"\"");
}

#[test]
fn hostname_is_the_short_id_unless_given() {
    let host = Host::with_busybox();
    let id = host.run_detached("named", &[], "hostname");
    host.docker(&["wait", "named"]).ok();
    assert_eq!(id.len(), 64);
    assert_eq!(host.docker(&["logs", "named"]).ok(), &id[..12]);
}

#[test]
fn hosts_file_names_the_container() {
    let host = Host::with_busybox();
    let options = ["--hostname", "beehive", "--add-host", "flower:10.1.2.3"];
    let hosts = host.run(&options, "cat /etc/hosts; hostname -i").ok();
    assert!(hosts.contains("127.0.0.1\tlocalhost"), "{hosts}");
    assert!(hosts.contains("10.1.2.3\tflower"), "{hosts}");
    assert!(hosts.lines().any(|line| line.ends_with("\tbeehive")), "{hosts}");
}

#[test]
fn user_by_name_by_number_and_unknown() {
    let host = Host::with_busybox();
    let id = "id -u; id -g";
    assert_eq!(host.run(&["--user", "nobody"], id).ok(), "65534\n65534");
    assert_eq!(host.run(&["--user", "1234:99"], id).ok(), "1234\n99");
    assert_eq!(host.run(&["--user", "1234"], id).ok(), "1234\n0");
    assert_eq!(host.run(&["--user", "nobody:root"], id).ok(), "65534\n0");
    host.run(&["--user", "queen"], id)
        .fails(125, "unable to find user queen: no matching entries in passwd file");
    host.run(&["--user", "nobody:drones"], id)
        .fails(125, "unable to find group drones: no matching entries in group file");
}

#[test]
fn image_settings_apply_and_options_override_them() {
    let host = Host::new();
    let image = Image {
        tag: Some("configured:1"),
        layers: vec![busybox_layer()],
        config: serde_json::json!({
            "Env": ["PATH=/bin", "FROM_IMAGE=yes", "BOTH=image"], "Entrypoint": ["/bin/echo", "from entrypoint"],
            "Cmd": ["default"], "WorkingDir": "/tmp", "User": "nobody", "Labels": {"origin": "image"},
            "Hostname": "ignored",
        }),
    };
    host.docker_with_input(&["load"], &image.docker_archive()).ok();
    let run = |arguments: &[&str]| host.docker(&[&["run", "--rm"], arguments].concat()).ok();
    assert_eq!(run(&["configured:1"]), "from entrypoint default");
    assert_eq!(run(&["configured:1", "given", "twice"]), "from entrypoint given twice");
    assert_eq!(run(&["--entrypoint", "pwd", "configured:1"]), "/tmp");
    let script = "echo $FROM_IMAGE $BOTH; id -u";
    let printed = run(&["--env", "BOTH=option", "--entrypoint", "sh", "configured:1", "-c", script]);
    assert_eq!(printed, "yes option\n65534");
    host.docker(&["create", "--name", "made", "--label", "own=1", "configured:1"]).ok();
    assert_eq!(host.inspect("made", "{{.Config.Labels.origin}} {{.Config.Labels.own}}"), "image 1");
}

#[test]
fn exit_codes_say_what_went_wrong() {
    let host = Host::with_busybox();
    let run = |command: &[&str]| host.docker(&[&["run", "--rm", "busybox"], command].concat());
    run(&["no-such-command"]).fails(127, "exec: \"no-such-command\": executable file not found in $PATH");
    run(&["/no/such/file"])
        .fails(127, "exec: \"/no/such/file\": stat /no/such/file: no such file or directory");
    run(&["/etc/passwd"]).fails(126, "exec: \"/etc/passwd\": permission denied");
    // Clients since 23 make 126 of it, older ones 125.
    let folder = run(&["/tmp"]);
    assert!(folder.stderr.contains("exec: \"/tmp\": is a directory"), "{folder}");
    assert_eq!(run(&["sh", "-c", "exit 42"]).code, 42);
    // The init that --init brings tells how its child ended; without it PID 1 ignores what it does not handle.
    assert_eq!(host.run(&["--init"], "kill -TERM $$; sleep 5").code, 128 + libc::SIGTERM);
    host.docker(&["run", "--rm", "--pull", "never", "absent"]).fails(125, "No such image: absent:latest");
    host.docker(&["run", "--memory", "1k", "busybox"]).fails(125, "Minimum memory limit allowed is 6MB");
    assert_eq!(host.docker(&["ps", "--all", "--quiet", "--filter", "status=running"]).ok(), "");
}

#[test]
fn a_container_that_could_not_start_is_left_as_created() {
    let host = Host::with_busybox();
    host.docker(&["run", "--name", "broken", "busybox", "no-such-command"]).fails(127, "no-such-command");
    let state = host.inspect_json("broken")["State"].clone();
    assert_eq!(state["Status"], "created", "{state}");
    assert_eq!(state["ExitCode"], 127, "{state}");
    assert!(state["Error"].as_str().unwrap().contains("no-such-command"), "{state}");
    host.docker(&["rm", "broken"]).ok();
}

#[test]
fn a_name_is_given_once() {
    let host = Host::with_busybox();
    let id = host.run_detached("only", &[], "true");
    let message = format!("Conflict. The container name \"/only\" is already in use by container \"{id}\"");
    host.docker(&["run", "--name", "only", "busybox", "true"]).fails(125, &message);
    host.docker(&["run", "--name", "not/allowed", "busybox", "true"])
        .fails(125, "Invalid container name (not/allowed), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed");
    host.docker(&["wait", "only"]).ok();
    host.docker(&["rm", "only"]).ok();
    host.run_detached("only", &[], "true");
    // Without a name one is made up: two words.
    let id = host.docker(&["create", "busybox"]).ok();
    let name = host.inspect(&id, "{{.Name}}");
    assert!(name.starts_with('/') && name.contains('_'), "{name}");
}

#[test]
fn rm_removes_a_detached_container_when_it_ends() {
    let host = Host::with_busybox();
    host.run_detached("short", &["--rm"], "read line < /tmp/pipe 2>/dev/null; exit 3");
    eventually("it is gone", Duration::from_secs(10), || {
        let left = host.docker(&["ps", "--all", "--quiet"]).ok();
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
    host.docker(&["inspect", "--type", "container", "short"]).fails(1, "No such container: short");
}

#[test]
fn init_reaps_orphans_and_forwards_signals() {
    let host = Host::with_busybox();
    let script = "trap 'echo got it; exit 5' TERM; (sleep 0.1 &) ; echo ready; while :; do sleep 0.05; done";
    host.run_detached("tended", &["--init"], script);
    host.until_logged("tended", "ready");
    let processes = host.docker(&["exec", "tended", "ps", "-o", "pid,args"]).ok();
    let first = processes.lines().find(|line| line.trim_start().starts_with("1 ")).unwrap();
    assert!(!first.trim_start().starts_with("1 sh"), "the script is not PID 1: {processes}");
    eventually("orphans are reaped", Duration::from_secs(10), || {
        let processes = host.docker(&["exec", "tended", "ps", "-o", "stat,args"]).ok();
        if processes.lines().any(|line| line.starts_with('Z')) { Err(processes) } else { Ok(()) }
    });
    host.docker(&["stop", "tended"]).ok();
    assert_eq!(host.inspect("tended", "{{.State.ExitCode}}"), "5");
    assert!(host.docker(&["logs", "tended"]).ok().ends_with("got it"));
}

#[test]
fn a_terminal_is_a_terminal_with_a_size() {
    let host = Host::with_busybox();
    let mut session = host.at_terminal(&["run", "--rm", "-it", "busybox", "sh"]);
    session.expect("# ");
    session.send("tty; echo TERM=$TERM; [ -t 0 -a -t 1 -a -t 2 ] && echo all three\n");
    session.expect("/dev/");
    session.expect("TERM=xterm");
    session.expect("all three");
    session.send("while [ \"$(stty size)\" != '24 80' ]; do sleep 0.05; done; echo first size\n");
    session.expect("\nfirst size");
    session.resize(50, 132);
    session.send("while [ \"$(stty size)\" != '50 132' ]; do sleep 0.05; done; echo second size\n");
    session.expect("\nsecond size");
    session.send("exit 9\n");
    assert_eq!(session.finish().code, 9);
    assert_eq!(host.docker(&["ps", "--all", "--quiet"]).ok(), "");
}

#[test]
fn control_c_at_the_terminal_interrupts_the_process() {
    let host = Host::with_busybox();
    let script = "trap 'echo interrupted; exit 4' INT; echo ready; while :; do sleep 0.05; done";
    let mut session = host.at_terminal(&["run", "--rm", "-it", "busybox", "sh", "-c", script]);
    session.expect("ready");
    session.send("\x03");
    session.expect("interrupted");
    assert_eq!(session.finish().code, 4);
}

#[test]
fn signals_to_the_client_reach_the_container() {
    let host = Host::with_busybox();
    let script = "trap 'echo terminated; exit 6' TERM; echo ready; while :; do sleep 0.05; done";
    let mut session = host.session(&["run", "--rm", "busybox", "sh", "-c", script]);
    session.expect("ready");
    session.signal(libc::SIGTERM);
    session.expect("terminated");
    assert_eq!(session.finish().code, 6);
}

#[test]
fn shm_size_tmpfs_and_read_only_root() {
    let host = Host::with_busybox();
    let options = ["--read-only", "--tmpfs", "/scratch:size=1m", "--shm-size", "8m"];
    let script = "touch /refused 2>&1; touch /scratch/written && echo written; df -k /dev/shm /scratch";
    let printed = host.run(&options, script).ok();
    assert!(printed.contains("/refused: Read-only file system"), "{printed}");
    assert!(printed.contains("written"), "{printed}");
    let size = |path: &str| {
        let line = printed.lines().find(|line| line.ends_with(path)).unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    assert_eq!(size("/dev/shm"), "8192");
    assert_eq!(size("/scratch"), "1024");
}
