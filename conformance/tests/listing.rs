//! `docker ps` with its filters and formats, and what `docker inspect` shows of a running container.
#![expect(clippy::unwrap_used, reason = "a broken expectation should stop the test where it broke")]

use skep_conformance::Host;

const FOREVER: &str = "while :; do sleep 1; done";

fn names(host: &Host, filters: &[&str]) -> String {
    let mut arguments = vec!["ps", "--all", "--format", "{{.Names}}"];
    filters.iter().for_each(|filter| arguments.extend(["--filter", filter]));
    let printed = host.docker(&arguments).ok();
    let mut names: Vec<&str> = printed.lines().collect();
    names.sort_unstable();
    names.join(" ")
}

#[test]
fn ps_filters() {
    let host = Host::with_busybox();
    host.docker(&["tag", "busybox", "second:v1"]).ok();
    let bee = host.run_detached("bee", &["--label", "kind=worker", "--publish", "8080:80"], FOREVER);
    host.run_detached("wasp", &["--label", "kind=guest", "--volume", "nest:/nest"], "exit 4");
    host.docker(&["create", "--name", "beetle", "--label", "kind", "second:v1"]).ok();
    assert_eq!(host.docker(&["wait", "wasp"]).ok(), "4");
    assert_eq!(host.docker(&["ps", "--format", "{{.Names}}"]).ok(), "bee", "only what runs, by default");
    assert_eq!(names(&host, &[]), "bee beetle wasp");
    assert_eq!(names(&host, &["name=bee"]), "bee beetle");
    assert_eq!(names(&host, &["name=^/bee$"]), "bee");
    assert_eq!(names(&host, &["name=^wa"]), "wasp");
    assert_eq!(names(&host, &["label=kind"]), "bee beetle wasp");
    assert_eq!(names(&host, &["label=kind=worker"]), "bee");
    assert_eq!(names(&host, &["label=kind=worker", "label=kind"]), "bee", "labels must all match");
    assert_eq!(names(&host, &["status=exited", "status=created"]), "beetle wasp", "one status must match");
    assert_eq!(names(&host, &["status=running"]), "bee");
    assert_eq!(names(&host, &["exited=4"]), "wasp");
    assert_eq!(names(&host, &["exited=0"]), "");
    assert_eq!(names(&host, &["ancestor=second:v1", "status=created"]), "beetle");
    assert_eq!(names(&host, &[&format!("id={}", &bee[..20])]), "bee");
    assert_eq!(names(&host, &["before=wasp"]), "bee");
    assert_eq!(names(&host, &["since=bee"]), "beetle wasp");
    assert_eq!(names(&host, &["volume=nest"]), "wasp");
    assert_eq!(names(&host, &["volume=/nest"]), "wasp");
    assert_eq!(names(&host, &["network=bridge", "status=running"]), "bee");
    assert_eq!(names(&host, &["publish=8080"]), "bee");
    assert_eq!(names(&host, &["expose=80/tcp"]), "bee");
    host.docker(&["ps", "--filter", "colour=red"]).fails(1, "nvalid filter 'colour'");
    host.docker(&["ps", "--filter", "status=asleep"]).fails(1, "asleep");
}

#[test]
fn ps_order_limits_and_columns() {
    let host = Host::with_busybox();
    let first = host.run_detached("first", &["--publish", "127.0.0.1:8080:80", "--expose", "90"], FOREVER);
    host.run_detached("second", &[], "exit 3");
    host.docker(&["create", "--name", "third", "busybox", "echo", "a long command that is cut short"]).ok();
    host.docker(&["wait", "second"]).ok();
    let listed =
        |arguments: &[&str]| host.docker(&[&["ps", "--format", "{{.Names}}"], arguments].concat()).ok();
    assert_eq!(listed(&["--all"]), "third\nsecond\nfirst", "newest first");
    assert_eq!(listed(&["--latest"]), "third");
    assert_eq!(listed(&["--last", "2"]), "third\nsecond");
    let column = |column: &str, name: &str| {
        let filter = format!("name=^{name}$");
        host.docker(&["ps", "--all", "--filter", &filter, "--format", &format!("{{{{.{column}}}}}")]).ok()
    };
    assert_eq!(column("ID", "first"), &first[..12]);
    assert_eq!(column("Image", "first"), "busybox");
    assert_eq!(column("Ports", "first"), "90/tcp, 127.0.0.1:8080->80/tcp");
    assert_eq!(column("Networks", "first"), "bridge");
    assert_eq!(column("Command", "third"), "\"echo 'a long comman…\"");
    assert_eq!(column("State", "first"), "running");
    assert!(column("Status", "first").starts_with("Up "), "{}", column("Status", "first"));
    assert!(column("Status", "second").starts_with("Exited (3) "), "{}", column("Status", "second"));
    assert_eq!(column("Status", "third"), "Created");
    let header =
        host.docker(&["ps"]).ok().lines().next().unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(header, "CONTAINER ID IMAGE COMMAND CREATED STATUS PORTS NAMES");
    let whole = host.docker(&["ps", "--no-trunc", "--quiet", "--filter", "name=first"]).ok();
    assert_eq!(whole, first);
}

#[test]
fn an_image_that_lost_its_name_is_shown_by_id() {
    let host = Host::with_busybox();
    host.docker(&["tag", "busybox", "moved:1"]).ok();
    host.docker(&["create", "--name", "kept", "moved:1"]).ok();
    host.docker(&["rmi", "moved:1"]).ok();
    let id = host.inspect("kept", "{{.Image}}");
    assert!(id.starts_with("sha256:"));
    let image = host.docker(&["ps", "--all", "--format", "{{.Image}}"]).ok();
    assert!(image == "moved:1" || id["sha256:".len()..].starts_with(&image), "{image}");
}

#[test]
fn inspect_shows_network_mounts_and_state_of_a_running_container() {
    let host = Host::with_busybox();
    let options = ["--publish", "8080:80", "--publish", "127.0.0.1:9000:90/udp", "--volume", "nest:/nest:ro"];
    let id = host.run_detached("shown", &options, FOREVER);
    let container = host.inspect_json("shown");
    assert_eq!(container["Id"], id.as_str());
    let state = &container["State"];
    assert_eq!(state["Status"], "running");
    assert_eq!(
        (&state["Paused"], &state["Restarting"], &state["Dead"]),
        (&false.into(), &false.into(), &false.into())
    );
    assert_eq!(state["FinishedAt"], "0001-01-01T00:00:00Z");
    let pid = state["Pid"].as_u64().unwrap();
    assert!(std::path::Path::new(&format!("/proc/{pid}/root/bin/busybox")).exists());
    let network = &container["NetworkSettings"];
    let bridge = &network["Networks"]["bridge"];
    let address = bridge["IPAddress"].as_str().unwrap();
    assert!(address.starts_with("172.17.0."), "{bridge}");
    assert_eq!(bridge["Gateway"], "172.17.0.1");
    assert_eq!(bridge["IPPrefixLen"], 16);
    assert_eq!(bridge["MacAddress"].as_str().unwrap().len(), 17);
    assert_eq!(network["IPAddress"], address);
    let bound = &network["Ports"]["80/tcp"];
    assert!(
        bound.as_array().unwrap().contains(&serde_json::json!({"HostIp": "0.0.0.0", "HostPort": "8080"})),
        "{bound}"
    );
    assert_eq!(network["Ports"]["90/udp"], serde_json::json!([{"HostIp": "127.0.0.1", "HostPort": "9000"}]));
    let sandbox = network["SandboxKey"].as_str().unwrap();
    assert!(std::path::Path::new(sandbox).exists(), "{sandbox}");
    let mount = &container["Mounts"][0];
    assert_eq!(
        (&mount["Type"], &mount["Name"], &mount["Destination"], &mount["RW"], &mount["Driver"]),
        (&"volume".into(), &"nest".into(), &"/nest".into(), &false.into(), &"local".into())
    );
    assert!(mount["Source"].as_str().unwrap().ends_with("/volumes/nest/_data"), "{mount}");
    assert!(std::path::Path::new(container["LogPath"].as_str().unwrap()).exists());
    let hosts = container["HostsPath"].as_str().unwrap();
    assert!(std::fs::read_to_string(hosts).unwrap().contains(address));
    assert_eq!(host.docker(&["exec", "shown", "hostname", "-i"]).ok(), address);
}

#[test]
fn inspect_finds_each_kind_of_object_and_says_when_there_is_none() {
    let host = Host::with_busybox();
    host.docker(&["volume", "create", "nest"]).ok();
    host.docker(&["create", "--name", "bee", "busybox"]).ok();
    assert_eq!(host.inspect("busybox", "{{index .RepoTags 0}}"), "busybox:latest");
    assert_eq!(host.inspect("nest", "{{.Driver}}"), "local");
    assert_eq!(host.inspect("bridge", "{{.Driver}} {{.Scope}}"), "bridge local");
    assert_eq!(host.inspect("bee", "{{.Name}}"), "/bee");
    host.docker(&["inspect", "nothing"]).fails(1, "No such object: nothing");
    host.docker(&["inspect", "--type", "image", "nothing"]).fails(1, "No such image: nothing");
    host.docker(&["volume", "inspect", "nothing"]).fails(1, "nothing");
    let volume = host.api_get("/volumes/nothing").unwrap();
    assert_eq!((volume.status, volume.body.trim()), (404, r#"{"message":"get nothing: no such volume"}"#));
    host.docker(&["network", "inspect", "nothing"]).fails(1, "nothing");
    let network = host.api_get("/networks/nothing").unwrap();
    assert_eq!((network.status, network.body.trim()), (404, r#"{"message":"network nothing not found"}"#));
}
