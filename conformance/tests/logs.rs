//! `docker logs`: both streams, following, tails and times.
#![expect(clippy::unwrap_used, reason = "a broken expectation should stop the test where it broke")]

use skep_conformance::Host;

#[test]
fn streams_stay_apart_and_bytes_stay_whole() {
    let host = Host::with_busybox();
    host.run_detached(
        "said",
        &[],
        "echo out; echo err >&2; printf 'tab\\there \"quoted\" \\\\ ünï\\n'; printf unfinished",
    );
    host.docker(&["wait", "said"]).ok();
    let output = host.docker(&["logs", "said"]);
    assert_eq!(output.stdout, "out\ntab\there \"quoted\" \\ ünï\nunfinished");
    assert_eq!(output.stderr, "err\n");
    host.docker(&["logs", "unsaid"]).fails(1, "No such container: unsaid");
}

#[test]
fn a_line_longer_than_a_log_record_is_put_together_again() {
    let host = Host::with_busybox();
    let script = "head -c 100000 /dev/zero | tr '\\0' x; echo; echo after";
    host.run_detached("long", &[], script);
    host.docker(&["wait", "long"]).ok();
    let printed = host.docker(&["logs", "long"]).ok();
    assert_eq!(printed, format!("{}\nafter", "x".repeat(100_000)));
}

#[test]
fn tail_counts_lines_from_the_end() {
    let host = Host::with_busybox();
    host.run_detached("counted", &[], "seq 1 1000");
    host.docker(&["wait", "counted"]).ok();
    let tail = |count: &str| host.docker(&["logs", "--tail", count, "counted"]).ok();
    assert_eq!(tail("3"), "998\n999\n1000");
    assert_eq!(tail("0"), "");
    assert_eq!(tail("all").lines().count(), 1000);
    assert_eq!(tail("5000").lines().count(), 1000);
}

// Where a file ends a container, that waits a moment: whoever made the file is to end before its container does.

#[test]
fn follow_prints_old_and_new_lines_until_the_end() {
    let host = Host::with_busybox();
    host.run_detached(
        "live",
        &[],
        "echo one; while [ ! -e /go ]; do sleep 0.05; done; sleep 0.3; echo two; exit 3",
    );
    host.until_logged("live", "one");
    let mut following = host.session(&["logs", "--follow", "live"]);
    following.expect("one\n");
    host.docker(&["exec", "live", "touch", "/go"]).ok();
    following.expect("two\n");
    assert_eq!(following.finish().ok(), "one\ntwo", "following ends with the container");
    assert_eq!(host.docker(&["logs", "--follow", "live"]).ok(), "one\ntwo");
}

#[test]
fn follow_from_a_tail_misses_and_repeats_nothing() {
    let host = Host::with_busybox();
    let script = "seq 1 100; while [ ! -e /go ]; do sleep 0.05; done; sleep 0.3; seq 101 5000";
    host.run_detached("stream", &[], script);
    host.until_logged("stream", "\n100\n");
    let mut following = host.session(&["logs", "--follow", "--tail", "2", "stream"]);
    following.expect("99\n100\n");
    host.docker(&["exec", "stream", "touch", "/go"]).ok();
    let printed = following.finish().ok();
    let wanted: Vec<String> = (99..=5000).map(|number| number.to_string()).collect();
    assert_eq!(printed.lines().collect::<Vec<_>>(), wanted);
}

#[test]
fn times_are_printed_and_bound_the_output() {
    let host = Host::with_busybox();
    host.run_detached(
        "timed",
        &[],
        "echo early; while [ ! -e /go ]; do sleep 0.05; done; sleep 0.3; echo late",
    );
    host.until_logged("timed", "early");
    host.docker(&["exec", "timed", "touch", "/go"]).ok();
    host.docker(&["wait", "timed"]).ok();
    let stamped = host.docker(&["logs", "--timestamps", "timed"]).ok();
    let times: Vec<&str> = stamped.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(times.len(), 2, "{stamped}");
    // RFC 3339 with nine digits, so that the times sort as text and bound exactly.
    assert!(times.iter().all(|time| time.len() == 30 && time.ends_with('Z')), "{stamped}");
    assert!(times[0] < times[1], "{stamped}");
    assert!(stamped.ends_with(" late"));
    let between = |option: &str| host.docker(&["logs", option, times[1], "timed"]).ok();
    assert_eq!(between("--since"), "late");
    assert_eq!(host.docker(&["logs", "--until", times[0], "timed"]).ok(), "early");
    assert_eq!(host.docker(&["logs", "--since", "1h", "timed"]).ok(), "early\nlate");
    assert_eq!(host.docker(&["logs", "--since", "2037-01-01T00:00:00Z", "timed"]).ok(), "");
    host.docker(&["logs", "--since", "yesterday", "timed"]).fails(1, "yesterday");
}

#[test]
fn details_and_the_file_itself_are_json_lines() {
    let host = Host::with_busybox();
    host.run_detached("filed", &[], "echo out; echo err >&2");
    host.docker(&["wait", "filed"]).ok();
    let path = host.inspect("filed", "{{.LogPath}}");
    let file = std::fs::read_to_string(&path).unwrap();
    let mut records: Vec<serde_json::Value> =
        file.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    records.sort_by_key(|record| record["stream"].to_string());
    assert_eq!((&records[0]["log"], &records[0]["stream"]), (&"err\n".into(), &"stderr".into()));
    assert_eq!((&records[1]["log"], &records[1]["stream"]), (&"out\n".into(), &"stdout".into()));
    assert!(records.iter().all(|record| record["time"].as_str().unwrap().ends_with('Z')), "{file}");
    assert_eq!(host.inspect("filed", "{{.HostConfig.LogConfig.Type}}"), "json-file");
}

#[test]
fn a_terminals_log_is_raw() {
    let host = Host::with_busybox();
    host.docker(&[
        "run",
        "--tty",
        "--detach",
        "--name",
        "screen",
        "busybox",
        "sh",
        "-c",
        "echo out; echo err >&2",
    ])
    .ok();
    host.docker(&["wait", "screen"]).ok();
    let output = host.docker(&["logs", "screen"]);
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("out\r\nerr\r\n", ""));
}

#[test]
fn rotation_keeps_the_newest_lines_within_its_bound_or_is_refused_by_name() {
    let host = Host::with_busybox();
    let run =
        ["run", "--detach", "--name", "rotated", "--log-opt", "max-size=10k", "--log-opt", "max-file=2"];
    let started = host.docker(&[&run[..], &["busybox", "seq", "1", "5000"]].concat());
    if started.code != 0 {
        started.fails(125, "--log-opt");
        return;
    }
    host.docker(&["wait", "rotated"]).ok();
    let printed = host.docker(&["logs", "rotated"]).ok();
    let lines: Vec<u32> = printed.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(lines.last(), Some(&5000));
    assert!(lines.len() < 1000, "{} lines are more than two files of 10 kB", lines.len());
    assert!(lines.windows(2).all(|pair| pair[0] + 1 == pair[1]), "a gap in {lines:?}");
}
