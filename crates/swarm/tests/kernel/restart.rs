//! The daemon's end and its next start.

use std::process::Command;

use skep_swarm::LocalState;
use skep_types::TaskState;

use crate::house::{House, ask, web};

pub async fn containers_outlive_the_daemon() {
    let house = House::in_swarm().await;
    let port = house.port();
    let id = house.swarm.create_service(web(2, Some(port))).await.unwrap();
    let before = house.until_running(2).await;
    house.until("it answers", || async { ask(port).is_some() }).await;
    let pids: Vec<u32> = before.iter().map(|task| task.status.container.as_ref().unwrap().pid).collect();
    let house = house
        .reopen(async |_| {
            assert!(Command::new("kill").args(["-9", &pids[0].to_string()]).status().unwrap().success());
        })
        .await;
    assert_eq!(house.swarm.info().state, LocalState::Active);
    assert_eq!(house.swarm.service("web").await.unwrap().id, id);
    house
        .until("the exit is told", || async {
            house.swarm.task(&before[0].id.to_string()).await.unwrap().status.state == TaskState::Failed
        })
        .await;
    let told = house.swarm.task(&before[0].id.to_string()).await.unwrap().status;
    assert_eq!(told.error, "task: non-zero exit (137)");
    let after = house.until_running(2).await;
    let kept = after.iter().find(|task| task.id == before[1].id).expect("what ran is adopted");
    assert_eq!(kept.status.container, before[1].status.container, "without a restart");
    house.until("it answers", || async { ask(port).is_some() }).await;
    house.close().await;
}

pub async fn a_membership_survives_and_its_damage_is_told() {
    let house = House::in_swarm().await;
    let node = house.swarm.info().node_id;
    let house = house.reopen(async |_| {}).await;
    assert_eq!(house.swarm.info().node_id, node);
    let house = house
        .reopen(async |root| std::fs::write(root.join("data/swarm/log/log.redb"), b"rust and moths").unwrap())
        .await;
    let info = house.swarm.info();
    assert_eq!(info.state, LocalState::Error);
    assert!(info.error.contains("the log is damaged"), "{}", info.error);
    assert!(house.swarm.leave(false).await.is_err());
    house.close().await;
}
