//! Start, stop, kill, wait, remove.

use std::time::{Duration, Instant};

use skep_engine::ErrorKind;
use skep_engine::options::{EventQuery, RemoveOptions, WaitCondition};
use skep_engine::view::Status;
use skep_types::Time;

use crate::house::{House, command, script, within};

/// A script that ends with 7 when it is asked to, and says when it is ready.
const POLITE: &str = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done";

pub async fn a_container_runs_to_its_end() {
    let house = House::new().await;
    let config = script("echo out; echo err >&2; echo $FROM; exit 3");
    let created = house.engine.create(Some("web".to_owned()), config).await.unwrap();
    assert_eq!(created.warnings, [""; 0]);
    let output = house.attach("web").await;
    let end = house.engine.wait("web", WaitCondition::NextExit).await.unwrap();
    house.engine.start("web").await.unwrap();
    assert_eq!(within(end).await.code, 3);
    let output = within(output).await;
    assert!(output.contains("out\n") && output.contains("err\n") && output.contains("image\n"), "{output}");
    let view = house.engine.inspect("web").unwrap();
    assert_eq!((view.state.status, view.state.exit_code, view.state.pid), (Status::Exited, 3, 0));
    assert!(view.state.started_at < view.state.finished_at);
    let log = house.logs(created.id).await;
    assert!(log.contains("out\n") && log.contains("err\n"), "{log}");

    house.engine.remove("web", RemoveOptions::default()).await.unwrap();
    assert_eq!(house.engine.inspect("web").unwrap_err().kind, ErrorKind::NotFound);
    let events = events(&house).await;
    let order = ["create", "attach", "network connect", "start", "die", "network disconnect", "destroy"]
        .map(str::to_owned);
    assert_eq!(events, order);
    house.close().await;
}

/// What happened to containers and networks.
async fn events(house: &House) -> Vec<String> {
    let now = std::time::SystemTime::now().into();
    let mut stream = house.engine.events(EventQuery { since: Some(Time(0)), until: Some(now) });
    let mut seen = Vec::new();
    while let Some(event) = stream.next().await {
        match event.kind.name() {
            "container" => seen.push(event.action),
            "network" => seen.push(format!("network {}", event.action)),
            _ => {}
        }
    }
    seen
}

pub async fn stop_asks_first_and_kills_then() {
    let house = House::new().await;
    let polite = house.start(script(POLITE)).await;
    crate::streams::says(&house, polite, "ready").await;
    house.engine.stop(&polite.to_string(), None, Some(10)).await.unwrap();
    assert_eq!(house.ended(polite).await.code, 7);
    let again = house.engine.stop(&polite.to_string(), None, None).await.unwrap_err();
    assert_eq!(again.kind, ErrorKind::NotModified);

    // A first process without a handler is not reached by SIGTERM.
    let stubborn = house.start(command(&["sleep", "1000"])).await;
    house.engine.stop(&stubborn.to_string(), None, Some(0)).await.unwrap();
    assert_eq!(house.ended(stubborn).await.code, 137);
    let events = events(&house).await;
    let tail = ["kill", "kill", "die", "network disconnect", "stop"].map(str::to_owned);
    assert_eq!(events[events.len() - 5..], tail);
    house.close().await;
}

pub async fn kill_needs_a_running_container() {
    let house = House::new().await;
    let id = house.start(command(&["sleep", "1000"])).await;
    house.engine.kill(&id.to_string(), "KILL").await.unwrap();
    assert_eq!(house.status(id), Status::Exited);
    assert_eq!(house.ended(id).await.code, 137);
    let refused = house.engine.kill(&id.short(), "TERM").await.unwrap_err();
    let (short, id) = (id.short(), id.to_string());
    assert_eq!(refused.message, format!("cannot kill container: {short}: container {id} is not running"));
    assert_eq!(refused.kind, ErrorKind::Conflict);
    house.close().await;
}

pub async fn a_container_starts_again() {
    let house = House::new().await;
    let id = house.engine.create(None, script("echo once >> /kept; cat /kept")).await.unwrap().id;
    for round in 1..=3 {
        let end = house.engine.wait(&id.to_string(), WaitCondition::NextExit).await.unwrap();
        house.engine.start(&id.to_string()).await.unwrap();
        assert_eq!(within(end).await.code, 0);
        assert_eq!(house.logs(id).await.lines().count(), (1..=round).sum::<usize>());
    }
    let id = house.start(command(&["sleep", "1000"])).await;
    let before = house.engine.inspect(&id.to_string()).unwrap();
    assert_eq!(house.engine.start(&id.to_string()).await.unwrap_err().kind, ErrorKind::NotModified);
    house.engine.restart(&id.to_string(), None, Some(0)).await.unwrap();
    let after = house.engine.inspect(&id.to_string()).unwrap();
    assert_eq!(after.state.status, Status::Running);
    assert_ne!(before.state.pid, after.state.pid);
    house.close().await;
}

pub async fn rm_makes_it_go_when_it_ends() {
    let house = House::new().await;
    let mut config = script("exit 5");
    config.host.auto_remove = true;
    let id = house.engine.create(None, config).await.unwrap().id.to_string();
    let gone = house.engine.wait(&id, WaitCondition::Removed).await.unwrap();
    house.engine.start(&id).await.unwrap();
    assert_eq!(within(gone).await.code, 5);
    assert_eq!(house.engine.inspect(&id).unwrap_err().message, format!("No such container: {id}"));
    house.assert_nothing_left();
    house.close().await;
}

pub async fn removal_follows_docker_s_rules() {
    let house = House::new().await;
    house.engine.create(Some("web".to_owned()), command(&["sleep", "1000"])).await.unwrap();
    house.engine.start("web").await.unwrap();
    let taken = house.engine.create(Some("web".to_owned()), script("true")).await.unwrap_err();
    assert!(
        taken.message.starts_with("Conflict. The container name \"/web\" is already in use by container \"")
    );
    let refused = house.engine.remove("web", RemoveOptions::default()).await.unwrap_err();
    assert_eq!(
        refused.message,
        "cannot remove container \"/web\": container is running: stop the container before removing or force remove"
    );
    house.engine.remove("web", RemoveOptions { force: true, volumes: false }).await.unwrap();
    assert_eq!(house.engine.create(None, command(&[])).await.map(|created| created.warnings), Ok(Vec::new()));
    let missing = house.engine.create(
        None,
        skep_types::container::ContainerConfig { image: "nothing".to_owned(), ..command(&["true"]) },
    );
    let missing = missing.await.unwrap_err();
    assert_eq!(
        (missing.kind, missing.message.as_str()),
        (ErrorKind::NotFound, "No such image: nothing:latest")
    );
    house.close().await;
}

pub async fn fifty_start_at_the_same_time() {
    let house = House::new().await;
    let began = Instant::now();
    let starts: Vec<_> = (0..50)
        .map(|number| {
            let engine = house.engine.clone();
            tokio::spawn(async move {
                let id = engine.create(None, script(&format!("exit {number}"))).await.unwrap().id.to_string();
                let end = engine.wait(&id, WaitCondition::NextExit).await.unwrap();
                engine.start(&id).await.unwrap();
                within(end).await.code
            })
        })
        .collect();
    let mut codes = Vec::new();
    for start in starts {
        codes.push(start.await.unwrap());
    }
    assert_eq!(codes, (0..50).collect::<Vec<i32>>());
    println!("     50 containers ran to their end in {} ms", began.elapsed().as_millis());
    assert!(began.elapsed() < Duration::from_secs(20));
    house.close().await;
}
