//! What a user does with a swarm of one.

use std::collections::BTreeSet;
use std::sync::Arc;

use skep_swarm::{LocalState, SwarmError};
use skep_types::service::ServiceMode;
use skep_types::{ServiceId, TaskState, Time};

use crate::house::{House, ask, web};

pub async fn a_node_enters_and_leaves() {
    let house = House::new().await;
    let unavailable = |text: &str| SwarmError::Unavailable(text.to_owned());
    assert_eq!(house.swarm.info().state, LocalState::Inactive);
    assert_eq!(
        house.swarm.inspect().await.unwrap_err(),
        unavailable(
            "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this \
             node to swarm and try again."
        )
    );
    assert_eq!(house.swarm.leave(true).await, Err(unavailable("This node is not part of a swarm")));
    // Only lo is up here, and moby never chooses it by itself.
    let detected =
        house.swarm.init(skep_swarm::InitRequest { advertise_addr: String::new(), ..house.init() }).await;
    assert_eq!(
        detected,
        Err(SwarmError::InvalidParameter("could not find the system's IP address".to_owned()))
    );

    let node = house.swarm.init(house.init()).await.unwrap();
    assert_eq!(
        house.swarm.init(house.init()).await,
        Err(unavailable(
            "This node is already part of a swarm. Use \"docker swarm leave\" to leave this swarm and join another \
             one."
        ))
    );
    let info = house.swarm.info();
    assert_eq!((info.state, info.node_id, info.nodes, info.managers), (LocalState::Active, Some(node), 1, 1));
    assert!(info.control_available && info.error.is_empty());
    let cluster = house.swarm.inspect().await.unwrap();
    assert!(cluster.worker_token.starts_with("SWMTKN-1-"));
    assert_eq!(
        house.swarm.networks().await.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(),
        ["ingress"]
    );
    assert_eq!(house.swarm.node("self").await.unwrap().node.id, node);
    assert_eq!(
        house.swarm.node("self").await.unwrap().node.description.tls.trust_root,
        cluster.authority.certificate
    );
    let refused = house.swarm.leave(false).await.unwrap_err();
    assert!(refused.to_string().ends_with("Use `--force` to ignore this message. "), "{refused}");
    house.close().await;
}

pub async fn a_service_answers_scales_and_heals() {
    let house = House::in_swarm().await;
    let port = house.port();
    let events = house.swarm.events(Some(Time(0)));
    let id = house.swarm.create_service(web(3, Some(port))).await.unwrap();
    let tasks = house.until_running(3).await;
    house.until("all answer", || async { answers(port, 6).len() == 3 }).await;

    // Killed, it is replaced, and nobody is sent to where it was.
    let victim = tasks[0].status.container.as_ref().unwrap().id.to_string();
    house.engine.kill(&victim, "KILL").await.unwrap();
    house
        .until("the task failed", || async { state_of(&house, tasks[0].id).await == TaskState::Failed })
        .await;
    let replaced = house.until_running(3).await;
    assert!(replaced.iter().all(|task| task.id != tasks[0].id));
    let failed = house.swarm.task(&tasks[0].id.to_string()).await.unwrap();
    assert_eq!(failed.status.error, "task: non-zero exit (137)");
    house.until("all answer", || async { answers(port, 6).len() == 3 }).await;

    let service = house.swarm.service("web").await.unwrap();
    let mut spec = service.spec;
    spec.mode = ServiceMode::Replicated { replicas: 1 };
    house.swarm.update_service("web", service.meta.version, spec).await.unwrap();
    house.until_running(1).await;
    house.until("one answers", || async { answers(port, 4).len() == 1 }).await;

    house.swarm.remove_service("web").await.unwrap();
    house.until("its tasks are forgotten", || async { house.tasks().await.is_empty() }).await;
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !house.containers().await.is_empty() {
        assert!(std::time::Instant::now() < deadline, "{:#?}", house.containers().await);
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(ask(port), None);
    let told: Vec<String> = house
        .swarm
        .events(Some(Time(0)))
        .past
        .into_iter()
        .filter(|event| event.id == ServiceId::to_string(&id))
        .map(|event| event.action)
        .collect();
    assert_eq!(told, ["create", "update", "remove"]);
    drop(events);
    house.close().await;
}

async fn state_of(house: &House, id: skep_types::TaskId) -> TaskState {
    house.swarm.task(&id.to_string()).await.unwrap().status.state
}

/// Who answers when asked so often.
fn answers(port: u16, times: usize) -> BTreeSet<String> {
    (0..times).filter_map(|_| ask(port)).collect()
}

pub async fn an_update_replaces_tasks() {
    let house = House::in_swarm().await;
    let port = house.port();
    house.swarm.create_service(web(2, Some(port))).await.unwrap();
    let before = house.until_running(2).await;
    let service = house.swarm.service("web").await.unwrap();
    let mut spec = service.spec.clone();
    Arc::make_mut(&mut spec.task).container.env = vec!["GREETING=goodbye".to_owned()];
    let stale = skep_types::Version(service.meta.version.0 - 1);
    let refused = house.swarm.update_service("web", stale, spec.clone()).await;
    assert_eq!(refused, Err(SwarmError::Internal("update out of sequence".to_owned())));
    house.swarm.update_service("web", service.meta.version, spec).await.unwrap();
    let updated = || async {
        let running = house.running().await;
        running.len() == 2 && running.iter().all(|task| before.iter().all(|old| old.id != task.id))
    };
    house.until("both tasks are new", || async { updated().await }).await;
    let new =
        |answers: BTreeSet<String>| answers.len() == 2 && answers.iter().all(|it| it.starts_with("goodbye "));
    house.until("both answer anew", || async { new(answers(port, 6)) }).await;
    house.close().await;
}

pub async fn a_missing_image_is_told() {
    let house = House::in_swarm().await;
    let mut spec = web(1, None);
    let task = Arc::make_mut(&mut spec.task);
    task.container.image = "nothing".to_owned();
    task.restart.condition = skep_types::service::RestartCondition::None;
    house.swarm.create_service(spec).await.unwrap();
    let rejected =
        || async { house.tasks().await.into_iter().find(|task| task.status.state == TaskState::Rejected) };
    house.until("the task is rejected", || async { rejected().await.is_some() }).await;
    assert_eq!(rejected().await.unwrap().status.error, "No such image: nothing:latest");
    house.close().await;
}

pub async fn leaving_takes_everything_along() {
    let house = House::in_swarm().await;
    // Some run, some are just being made.
    house.swarm.create_service(web(12, Some(house.port()))).await.unwrap();
    house.until("some run", || async { house.running().await.len() >= 2 }).await;
    house.swarm.leave(true).await.unwrap();
    assert_eq!(house.containers().await, []);
    // The next swarm knows nothing of the last one.
    house.swarm.init(house.init()).await.unwrap();
    assert_eq!(house.swarm.services().await.unwrap(), []);
    house.close().await;
}
