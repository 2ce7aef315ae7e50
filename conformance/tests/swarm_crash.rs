//! The daemon is killed at any moment; what it acknowledged is there when it is back.
#![expect(clippy::unwrap_used, reason = "a broken expectation should stop the test where it broke")]

use std::collections::BTreeMap;
use std::time::Duration;

use skep_conformance::{Host, eventually};

/// What the client was told has happened.
#[derive(Default)]
struct Acknowledged {
    /// Replicas of each service.
    services: BTreeMap<String, u64>,
    /// Services whose last request had no answer: either state may be true.
    unsure: Vec<String>,
}

fn create(host: &Host, name: &str, replicas: u64) -> bool {
    let body = format!(
        r#"{{"Name":"{name}","TaskTemplate":{{"ContainerSpec":{{"Image":"busybox:latest","Command":["sleep","1000"],"Init":true}}}},
            "Mode":{{"Replicated":{{"Replicas":{replicas}}}}}}}"#
    );
    host.api("POST", "/services/create", &body).is_ok_and(|answer| answer.status == 201)
}

fn remove(host: &Host, name: &str) -> bool {
    host.api("DELETE", &format!("/services/{name}"), "").is_ok_and(|answer| answer.status == 200)
}

fn scale(host: &Host, name: &str, replicas: u64) -> bool {
    let Ok(answer) = host.api_get(&format!("/services/{name}")) else { return false };
    let Ok(mut service) = serde_json::from_str::<serde_json::Value>(&answer.body) else { return false };
    service["Spec"]["Mode"]["Replicated"]["Replicas"] = replicas.into();
    let path = format!("/services/{name}/update?version={}", service["Version"]["Index"]);
    host.api("POST", &path, &service["Spec"].to_string()).is_ok_and(|answer| answer.status == 200)
}

/// A hundred creations, scalings and removals; the daemon is killed in the middle of some of them.
#[test]
fn a_killed_daemon_keeps_every_acknowledged_service() {
    let mut host = Host::new();
    host.load_image("busybox");
    host.docker(&["swarm", "init"]).ok();
    let mut acknowledged = Acknowledged::default();
    for number in 0..100u32 {
        let name = format!("service-{}", number % 15);
        let kill_now = number % 20 == 13;
        let known = acknowledged.services.get(&name).copied();
        let answered = std::thread::scope(|scope| {
            let request = scope.spawn(|| match known {
                None => create(&host, &name, 1),
                Some(_) if number % 4 == 3 => remove(&host, &name),
                Some(replicas) => scale(&host, &name, replicas % 3 + 1),
            });
            if kill_now {
                // Anywhere between the request's arrival and its answer.
                std::thread::sleep(Duration::from_micros(u64::from(number) * 37));
                skep_conformance::signal(host.daemon_pid(), libc::SIGKILL);
            }
            request.join().unwrap()
        });
        acknowledged.unsure.retain(|unsure| *unsure != name);
        match (answered, known) {
            (false, _) if kill_now => acknowledged.unsure.push(name),
            (false, _) => panic!("operation {number} on {name} was refused by a running daemon"),
            (true, None) => drop(acknowledged.services.insert(name, 1)),
            (true, Some(_)) if number % 4 == 3 => drop(acknowledged.services.remove(&name)),
            (true, Some(replicas)) => drop(acknowledged.services.insert(name, replicas % 3 + 1)),
        }
        if kill_now {
            host.kill_daemon();
            host.start_daemon();
            learn_unsure(&host, &mut acknowledged);
        }
    }
    host.kill_daemon();
    host.start_daemon();
    eventually("every acknowledged service has its replicas", Duration::from_secs(60), || {
        let shown = services(&host);
        if shown == wanted(&acknowledged) {
            Ok(())
        } else {
            Err(format!("{shown:?}, not {:?}", wanted(&acknowledged)))
        }
    });
    let total: u64 = acknowledged.services.values().sum();
    eventually("no container is left over", Duration::from_secs(60), || {
        let running = host.docker(&["ps", "--quiet"]).ok().lines().count() as u64;
        if running == total { Ok(()) } else { Err(format!("{running} containers for {total} replicas")) }
    });
}

/// Whatever became of a request without an answer, from here on it is settled.
fn learn_unsure(host: &Host, acknowledged: &mut Acknowledged) {
    for name in std::mem::take(&mut acknowledged.unsure) {
        let answer = host.api_get(&format!("/services/{name}")).unwrap();
        if answer.status == 404 {
            acknowledged.services.remove(&name);
        } else {
            let service: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
            let replicas = service["Spec"]["Mode"]["Replicated"]["Replicas"].as_u64().unwrap();
            acknowledged.services.insert(name, replicas);
        }
    }
}

fn wanted(acknowledged: &Acknowledged) -> BTreeMap<String, String> {
    acknowledged
        .services
        .iter()
        .map(|(name, replicas)| (name.clone(), format!("{replicas}/{replicas}")))
        .collect()
}

fn services(host: &Host) -> BTreeMap<String, String> {
    let listed = host.docker(&["service", "ls", "--format", "{{.Name}} {{.Replicas}}"]).ok();
    listed
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .collect()
}

/// Tasks go on without the daemon, their ports answer, and those that ended are replaced when it is back.
#[test]
fn tasks_survive_the_daemon_and_are_replaced_when_they_end_meanwhile() {
    let mut host = Host::new();
    host.load_image("simple_server");
    host.docker(&["swarm", "init"]).ok();
    let create =
        ["service", "create", "--detach", "--name", "web", "--replicas", "3", "--restart-delay", "0s"];
    host.docker(&[&create[..], &["-p", "8000:8000", "simple_server"]].concat()).ok();
    let three = |host: &Host| {
        let ids: Vec<String> = host.docker(&["ps", "--quiet"]).ok().lines().map(str::to_owned).collect();
        if ids.len() == 3 { Ok(ids) } else { Err(format!("{ids:?}")) }
    };
    let before = eventually("three run", Duration::from_secs(20), || three(&host));
    eventually("all three listen", Duration::from_secs(20), || {
        let logs: Vec<String> = before.iter().map(|id| host.docker(&["logs", id]).stdout).collect();
        let silent = logs.iter().filter(|log| !log.contains("listening")).count();
        if silent == 0 { Ok(()) } else { Err(format!("{silent} do not")) }
    });
    let victim = host.docker(&["inspect", "--format", "{{.State.Pid}}", &before[0]]).ok();

    host.kill_daemon();
    for _ in 0..6 {
        host.curl(8000).expect("the port answers without the daemon");
    }
    skep_conformance::signal(victim.parse().unwrap(), libc::SIGKILL);
    host.start_daemon();

    let after = eventually("one was replaced, two were kept", Duration::from_secs(20), || {
        let now = three(&host)?;
        let kept = before.iter().filter(|id| now.contains(id)).count();
        if kept == 2 && !now.contains(&before[0]) {
            Ok(now)
        } else {
            Err(format!("{now:?} after {before:?}"))
        }
    });
    assert_eq!(after.len(), 3);
    let tasks = host.docker(&["service", "ps", "web", "--format", "{{.CurrentState}}|{{.Error}}"]).ok();
    assert!(tasks.lines().any(|line| line.starts_with("Failed") && line.contains("(137)")), "{tasks}");
}

/// After a power failure containers have ended, services run again, and nothing of it is an error.
#[test]
fn a_machine_that_lost_its_power_serves_again() {
    let mut host = Host::new();
    host.load_image("simple_server");
    host.docker(&["swarm", "init"]).ok();
    let create =
        ["service", "create", "--detach", "--name", "web", "--replicas", "2", "--restart-delay", "0s"];
    host.docker(&[&create[..], &["-p", "8000:8000", "simple_server"]].concat()).ok();
    host.docker(&["run", "--detach", "--name", "plain", "-p", "9000:8000", "simple_server"]).ok();
    host.docker(&["run", "--detach", "--rm", "--name", "gone", "simple_server"]).ok();
    for port in [8000, 9000] {
        eventually("it answers", Duration::from_secs(20), || host.curl(port));
    }
    host.lose_power();
    host.start_daemon();

    eventually("the service answers again", Duration::from_secs(20), || host.curl(8000));
    eventually("both replicas run", Duration::from_secs(20), || {
        let shown = services(&host);
        if shown["web"] == "2/2" { Ok(()) } else { Err(format!("{shown:?}")) }
    });
    let state = host.docker(&["inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", "plain"]).ok();
    assert_eq!(state, "exited 255");
    host.docker(&["inspect", "gone"]).fails(1, "No such object");
    host.docker(&["start", "plain"]).ok();
    eventually("it answers again", Duration::from_secs(20), || host.curl(9000));
    let log = host.daemon_log();
    assert!(!log.contains("level=error"), "{log}");
}
