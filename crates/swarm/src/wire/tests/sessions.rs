//! Sessions over the network.

use skep_cluster::Event;
use skep_types::assignment::{Assignment, DutyId};
use tokio::time::timeout;

use super::*;
use crate::session::{FromAgent, News, ToAgent};

async fn event(scene: &mut Scene) -> Event {
    match timeout(LIMIT, scene.inputs.recv()).await.unwrap().unwrap() {
        Input::Event(event) => event,
        other => panic!("{other:?}"),
    }
}

async fn told(link: &mut Link) -> Option<ToAgent> {
    timeout(LIMIT, link.from_manager.recv()).await.unwrap()
}

fn step(number: u128) -> Assignment {
    Assignment::Incremental { update: Vec::new(), remove: vec![DutyId::Endpoint(ServiceId(number))] }
}

#[tokio::test]
async fn assignments_arrive_in_order_and_reports_come_back() {
    let mut scene = Scene::new().await;
    let worker = scene.of(WORKER, Role::Worker);
    let mut link = worker.session(&scene.address(), hello()).await.unwrap();
    assert!(matches!(event(&mut scene).await, Event::NodeReady { node: WORKER, .. }));
    assert_eq!(told(&mut link).await, Some(ToAgent::Beat(BEAT)));
    let sessions = scene.desk.sessions.clone();
    sessions.send(WORKER, 1, step(0));
    sessions.send(WORKER, 1, Assignment::Complete(Vec::new()));
    let managers = News::Managers(vec![(
        MANAGER,
        skep_types::node::Member { raft: 4, address: "192.0.2.1:2377".to_owned() },
    )]);
    sessions.tell_all(&managers);
    for number in 1..500 {
        sessions.send(WORKER, 1 + number as u64, step(number));
    }
    // Differences to what only a former session was told are not for this one.
    let whole = ToAgent::Assignment { number: 1, assignment: Assignment::Complete(Vec::new()) };
    assert_eq!(told(&mut link).await, Some(whole));
    assert_eq!(told(&mut link).await, Some(ToAgent::News(managers)));
    for number in 1..500 {
        let difference = ToAgent::Assignment { number: 1 + number as u64, assignment: step(number) };
        assert_eq!(told(&mut link).await, Some(difference));
    }
    let report = skep_types::assignment::StatusReport {
        task: skep_types::TaskId(4),
        status: skep_types::TaskStatus {
            state: skep_types::TaskState::Running,
            since: skep_types::Time(1),
            message: "started".to_owned(),
            error: String::new(),
            container: None,
        },
    };
    link.to_manager.send(FromAgent::Reports(vec![report.clone()])).await.unwrap();
    assert_eq!(event(&mut scene).await, Event::Reports(WORKER, vec![report]));
    link.to_manager.send(FromAgent::Acknowledged(500)).await.unwrap();
    assert_eq!(event(&mut scene).await, Event::Acknowledged { node: WORKER, number: 500 });
}

#[tokio::test]
async fn an_agent_that_vanishes_is_lost_after_its_grace_and_one_that_comes_again_is_not() {
    let mut scene = Scene::new().await;
    let worker = scene.of(WORKER, Role::Worker);
    let link = worker.session(&scene.address(), hello()).await.unwrap();
    assert!(matches!(event(&mut scene).await, Event::NodeReady { .. }));
    drop(link);
    let again = worker.session(&scene.address(), hello()).await.unwrap();
    assert!(matches!(event(&mut scene).await, Event::NodeReady { .. }));
    let beats = again.to_manager.clone();
    for _ in 0..8 {
        tokio::time::sleep(BEAT / 2).await;
        beats.send(FromAgent::Beat).await.unwrap();
    }
    assert!(scene.inputs.try_recv().is_err(), "the first session's end means nothing");
    drop((again, beats));
    let reason = "heartbeat failure".to_owned();
    assert_eq!(event(&mut scene).await, Event::NodeLost { node: WORKER, reason });
}

#[tokio::test]
async fn a_deposed_leader_ends_its_sessions() {
    let mut scene = Scene::new().await;
    let worker = scene.of(WORKER, Role::Worker);
    let mut link = worker.session(&scene.address(), hello()).await.unwrap();
    assert!(matches!(event(&mut scene).await, Event::NodeReady { .. }));
    scene.desk.sessions.depose();
    while told(&mut link).await.is_some() {}
    let refused = worker.session(&scene.address(), hello()).await.unwrap_err();
    assert_eq!(refused, CallError::NotLeader { leader: None });
    tokio::time::sleep(BEAT * 4).await;
    assert!(scene.inputs.try_recv().is_err(), "nobody is told as lost");
}

#[tokio::test]
async fn the_session_of_a_removed_node_ends() {
    let mut scene = Scene::new().await;
    let worker = scene.of(WORKER, Role::Worker);
    let mut link = worker.session(&scene.address(), hello()).await.unwrap();
    assert!(matches!(event(&mut scene).await, Event::NodeReady { .. }));
    scene.listener.disconnect(WORKER);
    while told(&mut link).await.is_some() {}
    let mut link = worker.session(&scene.address(), hello()).await.unwrap();
    assert!(matches!(event(&mut scene).await, Event::NodeReady { .. }));
    scene.desk.sessions.end(WORKER);
    while told(&mut link).await.is_some() {}
}

#[tokio::test]
async fn a_node_that_does_not_read_is_cut_and_hinders_nobody() {
    let mut scene = Scene::new().await;
    let worker = scene.of(WORKER, Role::Worker);
    let link = worker.session(&scene.address(), hello()).await.unwrap();
    assert!(matches!(event(&mut scene).await, Event::NodeReady { .. }));
    let sessions = scene.desk.sessions.clone();
    sessions.send(WORKER, 1, Assignment::Complete(Vec::new()));
    let ids = (0..2000).map(|number| DutyId::Endpoint(ServiceId(number))).collect();
    let large = Assignment::Incremental { update: Vec::new(), remove: ids };
    // Nobody reads. First the connection fills, then the queue; from then on nothing is kept for the node.
    until("the session is cut", || {
        for _ in 0..64 {
            sessions.send(WORKER, 2, large.clone());
        }
        link.to_manager.is_closed() || !sessions.is_open(WORKER)
    })
    .await;
    let reason = "heartbeat failure".to_owned();
    assert_eq!(event(&mut scene).await, Event::NodeLost { node: WORKER, reason });
    let other = scene.of(OTHER, Role::Manager);
    assert!(other.barrier(&scene.address()).await.is_ok());
}
