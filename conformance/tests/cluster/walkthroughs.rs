//! W1 on two machines and the first step of W5 on seven.

use std::time::Duration;

use skep_conformance::{Lab, eventually};

use crate::{SOON, ask, await_answer, containers, leader, try_ask};

/// W1, all steps.
#[test]
fn w1_whoami_on_two_machines() {
    let lab = Lab::machines(2, &["simple_server"]);
    for node in lab.nodes() {
        lab.docker(node, &["tag", "simple_server", "whoami"]).ok();
    }
    let first = lab.address(1).to_string();

    let init = lab.docker(1, &["swarm", "init", "--advertise-addr", &first]).ok();
    let token = init.split_whitespace().find(|word| word.starts_with("SWMTKN-1-")).expect("a token");
    let info = lab.docker(1, &["info"]).ok();
    for line in [" Swarm: active", "  NodeID: ", "  Is Manager: true", "  Managers: 1", "  Nodes: 1"] {
        assert!(info.lines().any(|shown| shown.starts_with(line)), "{line:?} in {info}");
    }

    let joined = lab.docker(2, &["swarm", "join", "--token", token, &format!("{first}:2377")]).ok();
    assert_eq!(joined, "This node joined a swarm as a worker.");
    let info = lab.docker(2, &["info"]).ok();
    for line in [" Swarm: active", "  Is Manager: false", "  Manager Addresses:", "   192.0.2.1:2377"] {
        assert!(info.lines().any(|shown| shown == line), "{line:?} in {info}");
    }
    let info = lab.docker(1, &["info"]).ok();
    assert!(info.lines().any(|line| line == "  Nodes: 2"), "{info}");

    let create = ["service", "create", "--detach", "--name", "whoami", "-p", "80:8000", "whoami"];
    assert_eq!(lab.docker(1, &create).ok().len(), 25);
    lab.until_replicas(1, "whoami", "1/1", SOON);
    let running = [containers(&lab, 1), containers(&lab, 2)].concat();
    assert_eq!(running.len(), 1);
    for node in lab.nodes() {
        assert_eq!(await_answer(&lab, node, 80), running[0], "node {node} reaches the only container");
    }

    lab.docker(1, &["service", "scale", "--detach", "whoami=5"]).ok();
    lab.until_replicas(1, "whoami", "5/5", SOON);
    for node in lab.nodes() {
        let all_five = || {
            let answers = try_ask(&lab, node, 80, 50)?;
            if answers.len() == 5 { Ok(answers) } else { Err(format!("{answers:?}")) }
        };
        eventually("all five are served", SOON, all_five);
        let answers = ask(&lab, node, 80, 50);
        assert!(answers.values().all(|count| *count == 10), "node {node} reaches them evenly: {answers:?}");
    }

    own_tasks_are_listed(&lab);

    assert_eq!(lab.docker(2, &["swarm", "leave"]).ok(), "Node left the swarm.");
    eventually("all five run on the first", SOON, || match containers(&lab, 1).len() {
        5 => Ok(()),
        other => Err(format!("{other} run")),
    });
    assert_eq!(containers(&lab, 2), Vec::<String>::new());
    lab.until_replicas(1, "whoami", "5/5", SOON);
    lab.until(
        1,
        "the node is down",
        SOON,
        &["node", "ls", "--format", "{{.Hostname}} {{.Status}}"],
        |nodes| nodes.lines().any(|line| line.ends_with("-2 Down")),
    );
}

/// W1, step 6.
#[track_caller]
fn own_tasks_are_listed(lab: &Lab) {
    let mut all = Vec::new();
    for node in lab.nodes() {
        let tasks = ["node", "ps", "--filter", "desired-state=running", "--no-trunc"];
        let name = lab.docker(node, &["info", "--format", "{{.Swarm.NodeID}}"]).ok();
        let tasks = [&tasks[..], &["--format", "{{.Name}}.{{.ID}}", &name]].concat();
        let mut tasks: Vec<String> = lab.docker(1, &tasks).ok().lines().map(str::to_owned).collect();
        let names = lab.docker(node, &["ps", "--no-trunc", "--format", "{{.Names}}"]).ok();
        let mut names: Vec<String> = names.lines().map(str::to_owned).collect();
        tasks.sort_unstable();
        names.sort_unstable();
        assert_eq!(names, tasks, "node {node} runs its own tasks");
        assert!(names.iter().all(|name| name.starts_with("whoami.")), "{names:?}");
        all.extend(names);
    }
    assert_eq!(all.len(), 5);
}

/// W1, step 7: "the same when host 2's daemon is killed or its link cut".
#[test]
fn w1_a_lost_machine_is_replaced_and_gives_up_its_tasks_when_it_returns() {
    let lab = Lab::up(1, 1, &["simple_server"]);
    let create = ["service", "create", "--detach", "--name", "whoami", "--replicas", "4", "-p", "80:8000"];
    lab.docker(1, &[&create[..], &["simple_server"]].concat()).ok();
    lab.until_replicas(1, "whoami", "4/4", SOON);
    assert_eq!(containers(&lab, 2).len(), 2, "they are spread");

    for loss in ["kill", "cut"] {
        match loss {
            "kill" => lab.run(&["kill", "2", "--power"]).ok(),
            _ => lab.run(&["cut", "2"]).ok(),
        };
        eventually(&format!("after the {loss} all four run on the first"), SOON, || {
            match containers(&lab, 1).len() {
                4 => Ok(()),
                other => Err(format!("{other} run")),
            }
        });
        let limit = Duration::from_secs(30);
        eventually("every answer comes from the first machine", limit, || {
            let here = containers(&lab, 1);
            let answers = try_ask(&lab, 1, 80, 8)?;
            if answers.keys().all(|name| here.contains(name)) { Ok(()) } else { Err(format!("{answers:?}")) }
        });
        match loss {
            "kill" => lab.run(&["start", "2"]).ok(),
            _ => lab.run(&["heal"]).ok(),
        };
        lab.until(1, "the second is ready again", SOON, &["node", "ls", "--format", "{{.Status}}"], |all| {
            all.lines().all(|status| status == "Ready")
        });
        eventually("it gives up what is not its own", SOON, || match containers(&lab, 2).len() {
            0 => Ok(()),
            other => Err(format!("{other} still run")),
        });
        // Spread them again for the next loss.
        lab.docker(1, &["service", "update", "--force", "--detach", "whoami"]).ok();
        eventually("they are spread again", SOON, || {
            match (containers(&lab, 1).len(), containers(&lab, 2).len()) {
                (2, 2) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
        lab.until_replicas(1, "whoami", "4/4", SOON);
    }
}

/// W5, step 1.
#[test]
fn w5_three_managers_four_workers_any_manager_may_die() {
    let lab = Lab::up(3, 4, &["simple_server"]);
    lab.until(1, "all seven are ready", SOON, &["node", "ls", "--format", "{{.Status}}"], |all| {
        all.lines().filter(|status| *status == "Ready").count() == 7
    });
    let create = ["service", "create", "--detach", "--name", "web", "--replicas", "7", "-p", "8080:8000"];
    let create = [&create[..], &["--constraint", "node.role==worker", "simple_server"]].concat();
    lab.docker(2, &create).ok();
    lab.until_replicas(3, "web", "7/7", SOON);
    for node in lab.nodes() {
        await_answer(&lab, node, 8080);
    }

    // Any manager may die: here the one that leads.
    let first = leader(&lab, 1).expect("one leads");
    lab.run(&["kill", &first.to_string()]).ok();
    let alive: Vec<u16> = (1..=3).filter(|node| *node != first).collect();
    for node in 4..=7 {
        lab.fetch(node, 8080).unwrap();
    }
    lab.docker(alive[0], &["service", "scale", "--detach", "web=9"]).ok();
    lab.until_replicas(alive[1], "web", "9/9", SOON);
    let second = leader(&lab, alive[0]).expect("another leads");
    assert!(alive.contains(&second), "{second} is alive");

    // Two may die, this one with its whole machine: services keep answering, and what asks for a change is told why
    // it cannot be. All tasks are known to all workers, also to one whose daemon begins anew without managers.
    lab.run(&["kill", "--power", &alive[1].to_string()]).ok();
    let all_answer = || {
        for node in 4..=7 {
            assert_eq!(ask(&lab, node, 8080, 18).len(), 9, "by node {node}");
        }
    };
    all_answer();
    lab.run(&["kill", "4"]).ok();
    all_answer();
    lab.run(&["start", "4"]).ok();
    all_answer();
    let refused = lab.docker(alive[0], &["service", "scale", "--detach", "web=3"]);
    refused.fails(1, "The swarm does not have a leader");

    lab.run(&["start", &first.to_string(), &alive[1].to_string()]).ok();
    eventually("they agree again", SOON, || {
        let scaled = lab.docker(alive[0], &["service", "scale", "--detach", "web=3"]);
        if scaled.code == 0 { Ok(()) } else { Err(scaled.to_string()) }
    });
    lab.until_replicas(first, "web", "3/3", SOON);
    eventually("six tasks are gone everywhere", SOON, || {
        let count: usize = lab.nodes().map(|node| containers(&lab, node).len()).sum();
        if count == 3 { Ok(()) } else { Err(format!("{count} run")) }
    });
}
