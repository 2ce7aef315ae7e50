//! `docker events`: what is told, in which order, and how it is filtered.
#![expect(clippy::unwrap_used, reason = "a broken expectation should stop the test where it broke")]

use skep_conformance::Host;

fn events(host: &Host, options: &[&str]) -> Vec<String> {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let until = (since.as_secs() + 1).to_string();
    let command = ["events", "--since", "1", "--until", &until];
    let printed = host.docker(&[&command[..], options].concat()).ok();
    printed.lines().map(str::to_owned).collect()
}

#[test]
fn the_life_of_a_container_in_order() {
    let host = Host::with_busybox();
    let id = host.run_detached("told", &[], "exit 3");
    host.docker(&["wait", "told"]).ok();
    host.docker(&["start", "--attach", "told"]).fails(3, "");
    host.docker(&["rm", "told"]).ok();
    let filter = format!("container={id}");
    let lines = events(&host, &["--filter", &filter, "--format", "{{.Type}} {{.Action}}"]);
    let lines: Vec<&str> =
        lines.iter().map(String::as_str).filter(|line| line.starts_with("container")).collect();
    let wanted = ["create", "start", "die", "attach", "start", "die", "destroy"]
        .map(|action| format!("container {action}"));
    assert_eq!(lines, wanted);
    let format =
        "{{.Action}} {{.Actor.Attributes.name}} {{.Actor.Attributes.image}} {{.Actor.Attributes.exitCode}}";
    let died = events(&host, &["--filter", "event=die", "--format", format]);
    assert_eq!(died, ["die told busybox 3", "die told busybox 3"]);
    let network =
        events(&host, &["--filter", "type=network", "--format", "{{.Action}} {{.Actor.Attributes.name}}"]);
    let pair = ["connect bridge", "disconnect bridge"];
    assert_eq!(network, [pair, pair].concat());
}

#[test]
fn stops_kills_and_execs_are_told() {
    let host = Host::with_busybox();
    host.run_detached("told", &["--label", "colour=red"], "trap 'exit 0' TERM; while :; do sleep 0.05; done");
    host.docker(&["exec", "told", "sh", "-c", "exit 6"]).fails(6, "");
    // PID 1 ignores a signal that it does not handle.
    host.docker(&["kill", "--signal", "HUP", "told"]).ok();
    host.docker(&["stop", "--time", "5", "told"]).ok();
    let lines = events(
        &host,
        &[
            "--filter",
            "container=told",
            "--filter",
            "type=container",
            "--format",
            "{{.Action}} {{.Actor.Attributes.signal}} {{.Actor.Attributes.colour}}",
        ],
    );
    let find = |start: &str| {
        lines
            .iter()
            .position(|line| line.starts_with(start))
            .unwrap_or_else(|| panic!("{start} in {lines:?}"))
    };
    assert!(find("exec_create: sh -c exit 6 ") < find("exec_start: sh -c exit 6 "));
    assert!(find("exec_start") < find("exec_die"));
    assert!(find("kill 1 red") < find("kill 15 red"));
    assert!(find("kill 15 red") < find("die"));
    assert!(find("die") < find("stop"));
    let exec = events(&host, &["--filter", "event=exec_die", "--format", "{{.Actor.Attributes.exitCode}}"]);
    assert_eq!(exec, ["6"]);
}

#[test]
fn images_and_volumes_are_told() {
    let host = Host::with_busybox();
    host.docker(&["tag", "busybox", "hive:1"]).ok();
    host.docker(&["rmi", "hive:1"]).ok();
    host.docker(&["volume", "create", "nest"]).ok();
    host.docker(&["volume", "rm", "nest"]).ok();
    let images =
        events(&host, &["--filter", "type=image", "--format", "{{.Action}} {{.Actor.Attributes.name}}"]);
    assert!(images[0].starts_with("load "), "{images:?}");
    assert!(images.contains(&"tag hive:1".to_owned()), "{images:?}");
    assert!(images.last().unwrap().starts_with("untag "), "{images:?}");
    let volumes = events(&host, &["--filter", "type=volume", "--format", "{{.Action}} {{.Actor.ID}}"]);
    assert_eq!(volumes, ["create nest", "destroy nest"]);
}

#[test]
fn they_are_followed_live_and_filtered() {
    let host = Host::with_busybox();
    host.docker(&["create", "--name", "before", "busybox"]).ok();
    let format = "{{.Action}} {{.Actor.Attributes.name}}";
    // Past events first, so that the follower is known to listen.
    let filters = [
        "--since",
        "1",
        "--filter",
        "type=container",
        "--filter",
        "label=kind=bee",
        "--filter",
        "event=create",
    ];
    let mut live = host.session(&[&["events", "--format", format], &filters[..]].concat());
    host.docker(&["create", "--name", "wasp", "--label", "kind=wasp", "busybox"]).ok();
    host.docker(&["create", "--name", "bee", "--label", "kind=bee", "busybox"]).ok();
    live.expect("create bee\n");
    host.docker(&["create", "--name", "second", "--label", "kind=bee", "busybox"]).ok();
    live.expect("create second\n");
    assert_eq!(live.output(), "create bee\ncreate second\n");
    host.docker(&["events", "--since", "soon", "--until", "1"]).fails(1, "soon");
}

#[test]
fn volumes_are_told_of_between_the_network_and_the_start() {
    let host = Host::with_busybox();
    host.docker(&["run", "--rm", "--name", "told", "--volume", "kept:/kept:ro", "busybox", "true"]).ok();
    let format =
        "{{.Type}} {{.Action}} {{.Actor.Attributes.destination}} {{index .Actor.Attributes \"read/write\"}}";
    let lines = events(&host, &["--format", format]);
    let find = |start: &str| lines.iter().position(|line| line.starts_with(start)).unwrap_or(usize::MAX);
    let order = [
        "network connect",
        "volume mount /kept false",
        "container start",
        "container die",
        "network disconnect",
        "volume unmount",
        "container destroy",
    ];
    let places = order.map(find);
    assert!(places.is_sorted() && places.iter().all(|place| *place < lines.len()), "{lines:?}");
}
