//! The walkthroughs of the source documents, as a user types them, on one machine.
#![expect(clippy::unwrap_used, reason = "a broken expectation should stop the test where it broke")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use skep_conformance::{ADDRESS, Host, eventually, http};

const SOON: Duration = Duration::from_secs(20);

/// Columns of the one line that `docker service ls` prints for a service.
fn service_line(host: &Host, name: &str) -> Vec<String> {
    let format = "{{.Name}}|{{.Mode}}|{{.Replicas}}|{{.Image}}|{{.Ports}}";
    let listed =
        host.docker(&["service", "ls", "--filter", &format!("name={name}"), "--format", format]).ok();
    listed.split('|').map(str::to_owned).collect()
}

fn wait_for_replicas(host: &Host, name: &str, replicas: &str) {
    eventually(&format!("{name} has {replicas} replicas"), SOON, || {
        let line = service_line(host, name);
        if line.get(2).is_some_and(|shown| shown == replicas) { Ok(()) } else { Err(format!("{line:?}")) }
    });
}

/// Which container answered, of "I'm <name>, and you are <address>".
fn who(answer: &str) -> String {
    let name = answer.strip_prefix("I'm ").and_then(|rest| rest.split(',').next());
    name.unwrap_or_else(|| panic!("not an answer of the server: {answer:?}")).to_owned()
}

fn wait_for_answer(host: &Host, port: u16) -> String {
    eventually(&format!("port {port} answers"), SOON, || host.curl(port))
}

/// W3, steps 1 to 5.
#[test]
fn w3_a_simple_server_is_created_scaled_healed_and_removed() {
    let host = Host::new();
    host.load_image("simple_server");

    let init = host.docker(&["swarm", "init"]).ok();
    assert!(init.contains("Swarm initialized: current node ("), "{init}");
    assert!(init.contains(&format!(" {ADDRESS}:2377")), "{init}");
    let token = init.split_whitespace().find(|word| word.starts_with("SWMTKN-1-")).expect("a token");
    assert_eq!(token.split('-').map(str::len).collect::<Vec<_>>(), [6, 1, 50, 25], "{token}");

    let nodes = host.docker(&["node", "ls"]);
    let columns: Vec<&str> = nodes.lines()[1].split_whitespace().collect();
    assert_eq!(columns[1], "*", "the current node is marked: {nodes}");
    assert_eq!(columns[3..6], ["Ready", "Active", "Leader"], "{nodes}");

    let created = host.docker(&[
        "service",
        "create",
        "--detach=true",
        "--name",
        "simple-server",
        "-p",
        "8000:8000",
        "simple_server",
    ]);
    assert!(created.stderr.contains("could not be accessed on a registry to record"), "{created}");
    let id = created.ok();
    assert_eq!(id.len(), 25, "{id}");
    wait_for_replicas(&host, "simple-server", "1/1");
    let line = service_line(&host, "simple-server");
    assert_eq!(line[1..], ["replicated", "1/1", "simple_server:latest", "*:8000->8000/tcp"]);

    let scaled = host.docker(&["service", "scale", "simple-server=3"]).ok();
    assert!(scaled.contains("simple-server scaled to 3"), "{scaled}");
    assert!(scaled.contains("overall progress: 3 out of 3 tasks"), "{scaled}");
    assert!(scaled.contains("converged"), "{scaled}");
    assert_eq!(service_line(&host, "simple-server")[2], "3/3");
    let format = "table {{.ID}}  {{.Image}}  {{.Ports}}";
    let listed = host.docker(&["ps", "--format", format]);
    assert_eq!(listed.lines().len(), 4, "{listed}");
    assert!(listed.lines()[1..].iter().all(|line| line.contains("simple_server:latest")), "{listed}");
    wait_for_answer(&host, 8000);

    killed_container_is_replaced_and_no_request_fails(&host);

    host.docker(&["service", "rm", "simple-server"]).ok();
    eventually("the containers are gone", SOON, || {
        let left = host.docker(&["ps", "--all", "--quiet"]).ok();
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
    host.curl(8000).expect_err("the port of a removed service is closed");

    host.docker(&["swarm", "leave"])
        .fails(1, "Removing the last manager erases all current state of the swarm");
    let left = host.docker(&["swarm", "leave", "--force"]).ok();
    assert!(left.contains("Node left the swarm."), "{left}");
    host.docker(&["node", "ls"]).fails(1, "This node is not a swarm manager");
}

/// W3, step 4: two remain, a new one takes the place, and clients notice nothing.
fn killed_container_is_replaced_and_no_request_fails(host: &Host) {
    let before = host.docker(&["ps", "--quiet", "--no-trunc"]).ok();
    let before: Vec<&str> = before.lines().collect();
    let done = AtomicBool::new(false);
    let failures = std::thread::scope(|scope| {
        let requests = scope.spawn(|| {
            let mut failures = Vec::new();
            while !done.load(Ordering::Relaxed) {
                failures.extend(host.curl(8000).err());
                std::thread::sleep(Duration::from_millis(5));
            }
            failures
        });
        host.docker(&["kill", before[0]]).ok();
        eventually("a replacement runs", SOON, || {
            let now = host.docker(&["ps", "--quiet", "--no-trunc"]).ok();
            let survivors = before.iter().filter(|id| now.contains(**id)).count();
            match (now.lines().count(), survivors) {
                (3, 2) => Ok(()),
                other => Err(format!("{other:?} containers and survivors")),
            }
        });
        wait_for_replicas(host, "simple-server", "3/3");
        done.store(true, Ordering::Relaxed);
        requests.join().unwrap()
    });
    assert_eq!(failures, Vec::<String>::new());
    let tasks =
        host.docker(&["service", "ps", "simple-server", "--format", "{{.CurrentState}}|{{.Error}}"]).ok();
    assert!(tasks.lines().any(|line| line.starts_with("Failed") && line.contains("(137)")), "{tasks}");
}

/// W1, steps 1, 3, 5 and 6, on one machine.
#[test]
fn w1_whoami_answers_and_spreads_over_its_replicas() {
    let host = Host::new();
    host.load_image("simple_server");
    host.docker(&["tag", "simple_server", "whoami"]).ok();

    host.docker(&["swarm", "init", "--advertise-addr", &ADDRESS.to_string()]).ok();
    let info = host.docker(&["info"]).ok();
    for line in [" Swarm: active", "  NodeID: ", "  Is Manager: true", "  Managers: 1", "  Nodes: 1"] {
        assert!(info.lines().any(|shown| shown.starts_with(line)), "{line:?} in {info}");
    }

    let id =
        host.docker(&["service", "create", "--detach", "--name", "whoami", "-p", "80:8000", "whoami"]).ok();
    assert_eq!(id.len(), 25, "{id}");
    wait_for_replicas(&host, "whoami", "1/1");
    let name = who(&wait_for_answer(&host, 80));
    let container = host.docker(&["ps", "--quiet"]).ok();
    assert_eq!(name, container, "the answer names the container");

    host.docker(&["service", "scale", "--detach", "whoami=5"]).ok();
    wait_for_replicas(&host, "whoami", "5/5");
    eventually("five containers listen", SOON, || {
        let logs: Vec<String> = running(&host).iter().map(|id| host.docker(&["logs", id]).stdout).collect();
        let listening = logs.iter().filter(|log| log.contains("listening")).count();
        if listening == 5 { Ok(()) } else { Err(format!("{listening} of 5")) }
    });
    for (who_asks, answers) in
        [("this machine", ask_often(|| host.curl(80))), ("outside", ask_often(|| host.curl_from_outside(80)))]
    {
        assert_eq!(answers.len(), 5, "{who_asks} reaches all five: {answers:?}");
        assert!(answers.values().all(|count| *count == 10), "{who_asks} reaches them evenly: {answers:?}");
    }
    let seen = host.curl_from_outside(80).unwrap();
    assert!(seen.contains("you are 192.0.2.2"), "the client's own address is seen: {seen}");

    let tasks = host.docker(&["service", "ps", "whoami", "--no-trunc", "--format", "{{.Name}}.{{.ID}}"]).ok();
    let mut expected: Vec<&str> = tasks.lines().collect();
    let names = host.docker(&["ps", "--format", "{{.Names}}"]).ok();
    let mut names: Vec<&str> = names.lines().collect();
    expected.sort_unstable();
    names.sort_unstable();
    assert_eq!(names, expected, "containers are named whoami.N.<task id>");
}

fn running(host: &Host) -> Vec<String> {
    host.docker(&["ps", "--quiet"]).ok().lines().map(str::to_owned).collect()
}

/// Fifty requests, counted by who answered.
fn ask_often(mut ask: impl FnMut() -> Result<String, String>) -> BTreeMap<String, u32> {
    let mut answers = BTreeMap::new();
    for _ in 0..50 {
        *answers.entry(who(&ask().unwrap())).or_default() += 1;
    }
    answers
}

/// `docker service update` replaces tasks one after the other, stopping each first.
#[test]
fn an_update_reaches_every_task_and_says_when_it_is_done() {
    let host = Host::new();
    host.load_image("busybox");
    host.docker(&["swarm", "init"]).ok();
    let create = ["service", "create", "--detach", "--name", "web", "--replicas", "2", "--env", "A=1"];
    host.docker(&[&create[..], &["--stop-grace-period", "1s", "busybox", "sleep", "1000"]].concat()).ok();
    wait_for_replicas(&host, "web", "2/2");

    host.docker(&["service", "update", "--env-add", "B=two words", "--args", "sleep 2000", "web"]).ok();
    let ids = running(&host);
    assert_eq!(ids.len(), 2);
    for id in &ids {
        assert_eq!(host.docker(&["exec", id, "sh", "-c", "echo $A $B"]).ok(), "1 two words");
        assert_eq!(host.docker(&["inspect", "--format", "{{.Args}}", id]).ok(), "[2000]");
    }
    let state = host.docker(&["service", "inspect", "--format", "{{.UpdateStatus.State}}", "web"]).ok();
    assert_eq!(state, "completed");
    let pretty = host.docker(&["service", "inspect", "--pretty", "web"]).ok();
    for line in ["Name:\t\tweb", " Replicas:\t2", " Image:\t\tbusybox:latest", " Message:\tupdate completed"]
    {
        assert!(pretty.contains(line), "{line:?} in {pretty}");
    }

    host.docker(&["tag", "busybox", "busybox:next"]).ok();
    let update =
        ["service", "update", "--image", "busybox:next", "--replicas", "3", "--update-parallelism", "0"];
    host.docker(&[&update[..], &["web"]].concat()).ok();
    let images = host.docker(&["ps", "--format", "{{.Image}}"]);
    assert_eq!(images.lines(), ["busybox:next"; 3], "{images}");
    host.docker(&["service", "update", "--detach", "--replicas", "2", "web"]).ok();
    eventually("a scaled-down replica is stopped", SOON, || {
        let now = running(&host);
        if now.len() == 2 { Ok(()) } else { Err(format!("{now:?}")) }
    });
    let ids = running(&host);

    host.docker(&["service", "update", "--force", "--detach", "web"]).ok();
    eventually("a forced update replaces both", SOON, || {
        let now = running(&host);
        if now.len() == 2 && now.iter().all(|id| !ids.contains(id)) {
            Ok(())
        } else {
            Err(format!("{now:?}"))
        }
    });
    host.docker(&["service", "create", "--name", "web", "busybox"])
        .fails(1, "name conflicts with an existing object");
    let stale = r#"{"Name":"web","TaskTemplate":{"ContainerSpec":{"Image":"busybox"}}}"#;
    let answer = host.api("POST", "/services/web/update?version=1", stale).unwrap();
    assert!(answer.body.contains("out of sequence"), "{answer:?}");
}

/// Secrets of the routing mesh: a port belongs to one service only.
#[test]
fn a_published_port_belongs_to_one_service() {
    let host = Host::new();
    host.load_image("busybox");
    host.docker(&["swarm", "init"]).ok();
    host.docker(&[
        "service", "create", "--detach", "--name", "one", "-p", "8080:80", "busybox", "sleep", "1000",
    ])
    .ok();
    let second =
        ["service", "create", "--detach", "--name", "two", "-p", "8080:80", "busybox", "sleep", "1000"];
    host.docker(&second).fails(1, "port '8080' is already in use by service 'one'");
    host.docker(&["service", "rm", "one"]).ok();
    host.docker(&second).ok();
    wait_for_replicas(&host, "two", "1/1");
}

/// A pending or failed task says why.
#[test]
fn a_task_that_cannot_run_says_why() {
    let host = Host::new();
    host.docker(&["swarm", "init"]).ok();
    host.docker(&["service", "create", "--detach", "--name", "ghost", "no-such-image"]).ok();
    eventually("the task is rejected with the reason", SOON, || {
        let tasks = host.docker(&[
            "service",
            "ps",
            "ghost",
            "--no-trunc",
            "--format",
            "{{.CurrentState}}|{{.Error}}",
        ]);
        let rejected = tasks
            .stdout
            .lines()
            .any(|line| line.starts_with("Rejected") && line.contains("No such image: no-such-image:latest"));
        if rejected { Ok(()) } else { Err(tasks.to_string()) }
    });
    host.load_image("busybox");
    let greedy = ["service", "create", "--detach", "--name", "greedy", "--reserve-memory", "1000g"];
    host.docker(&[&greedy[..], &["busybox", "sleep", "1000"]].concat()).ok();
    eventually("the task is pending with the reason", SOON, || {
        let tasks = host.docker(&[
            "service",
            "ps",
            "greedy",
            "--no-trunc",
            "--format",
            "{{.CurrentState}}|{{.Error}}",
        ]);
        let explained = tasks.stdout.starts_with("Pending")
            && tasks.stdout.contains("no suitable node (insufficient resources on 1 node)");
        if explained { Ok(()) } else { Err(tasks.to_string()) }
    });
}

/// The API over the socket, as a visualiser reads it.
#[test]
fn the_api_shows_services_tasks_and_nodes() {
    let host = Host::new();
    host.load_image("busybox");
    host.docker(&["swarm", "init"]).ok();
    host.docker(&["service", "create", "--detach", "--name", "seen", "busybox", "sleep", "1000"]).ok();
    wait_for_replicas(&host, "seen", "1/1");
    for prefix in ["", "/v1.24", "/v1.50"] {
        for path in ["/nodes", "/services", "/tasks", "/networks", "/containers/json"] {
            let answer: http::Answer = host.api_get(&format!("{prefix}{path}")).unwrap();
            assert_eq!(answer.status, 200, "{prefix}{path}: {answer:?}");
            let objects: Vec<serde_json::Value> = serde_json::from_str(&answer.body).unwrap();
            assert!(!objects.is_empty(), "{prefix}{path}");
        }
    }
    let task: serde_json::Value = serde_json::from_str(&host.api_get("/tasks").unwrap().body).unwrap();
    assert_eq!(task[0]["Status"]["State"], "running");
    assert_eq!(task[0]["DesiredState"], "running");
    assert_eq!(task[0]["Slot"], 1);
    assert_eq!(task[0]["Spec"]["ContainerSpec"]["Image"], "busybox:latest");
}
