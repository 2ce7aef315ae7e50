//! Each call, and who may make it.

use tokio::time::{Instant, timeout};

use super::*;

#[tokio::test]
async fn every_call_arrives_and_is_answered() {
    let scene = Scene::new().await;
    let (address, other) = (scene.address(), scene.of(OTHER, Role::Manager));
    let big = Bytes::from(vec![7; 5 * 1024 * 1024]);
    assert_eq!(other.consensus(&address, big.clone()).await, Ok(big));
    let request = Request::RemoveService(service());
    assert_eq!(other.forward(&address, &request).await, Ok(Answer::Service(service())));
    let barrier = other.barrier(&address).await.unwrap();
    assert_eq!((barrier.index, barrier.leader, barrier.reachable.len()), (7, u64::MAX, 2));
    let seat = SeatCall { raft: 9, address: "192.0.2.9:2377".to_owned() };
    assert_eq!(other.take_seat(&address, seat).await, Ok(()));
    let not_leader = CallError::NotLeader { leader: Some("192.0.2.1:2377".to_owned()) };
    assert_eq!(other.give_up_seat(&address).await, Err(not_leader));
    let renewed = other.renew(&address, RenewCall { csr: "csr".to_owned() }).await.unwrap();
    assert_eq!(renewed.chain, format!("{OTHER} csr"));
    let joined = other.pass_join_on(&address, join_call()).await.unwrap();
    assert_eq!((joined.node, joined.chain.as_str()), (WORKER, "token csr Drain"));
    scene.listener.stop().await;
}

#[tokio::test]
async fn a_machine_joins_a_manager_that_the_token_names() {
    let scene = Scene::new().await;
    let address = scene.address();
    let root = Connections::fetch_root(&address, &token(&scene.root)).await.unwrap();
    let joined = Connections::join(&address, &root, join_call()).await.unwrap();
    assert_eq!(joined.roots, scene.root.certificate_pem());

    let other = RootCa::generate(SystemTime::now()).unwrap();
    let refused = Connections::fetch_root(&address, &token(&other)).await.unwrap_err();
    assert!(refused.to_string().starts_with("remote CA does not match fingerprint"), "{refused}");
    let wrong = Trust::parse(other.certificate_pem()).unwrap();
    let refused = Connections::join(&address, &wrong, join_call()).await.unwrap_err();
    assert!(matches!(refused, CallError::Unauthenticated(_)), "{refused:?}");
}

#[tokio::test]
async fn a_worker_is_refused_what_managers_may() {
    let scene = Scene::new().await;
    let (address, worker) = (scene.address(), scene.of(WORKER, Role::Worker));
    let denied = Err(CallError::Denied(format!("node {WORKER} is no manager by its certificate")));
    assert_eq!(worker.consensus(&address, Bytes::new()).await.map(drop), denied);
    let request = Request::RemoveService(service());
    assert_eq!(worker.forward(&address, &request).await.map(drop), denied);
    assert_eq!(worker.barrier(&address).await.map(drop), denied);
    let seat = SeatCall { raft: 9, address: String::new() };
    assert_eq!(worker.take_seat(&address, seat).await, denied);
    assert_eq!(worker.give_up_seat(&address).await, denied);
    assert!(worker.renew(&address, RenewCall { csr: String::new() }).await.is_ok());
}

#[tokio::test]
async fn a_removed_node_is_refused_everything_but_to_join() {
    let scene = Scene::new().await;
    let (address, other) = (scene.address(), scene.of(OTHER, Role::Manager));
    assert!(other.barrier(&address).await.is_ok());
    scene.desk.removed.lock().unwrap().insert(OTHER);
    let denied = Err(CallError::Denied(format!("node {OTHER} is not in the cluster")));
    assert_eq!(other.barrier(&address).await.map(drop), denied, "on a connection that stood before");
    scene.listener.disconnect(OTHER);
    // The connection's end is on its way.
    while let Err(CallError::Lost(_) | CallError::Unreachable(_)) = other.barrier(&address).await {}
    assert_eq!(other.renew(&address, RenewCall { csr: String::new() }).await.map(drop), denied);
    assert_eq!(other.session(&address, hello()).await.map(drop), denied);
    assert!(other.pass_join_on(&address, join_call()).await.is_ok());
}

#[tokio::test]
async fn certificates_that_do_not_hold_are_refused() {
    let scene = Scene::new().await;
    let address = scene.address();
    let stranger = RootCa::generate(SystemTime::now()).unwrap();
    let issued = stranger.issue(&OTHER.to_string(), Role::Manager, "cluster", SystemTime::now(), HOUR);
    let trust = Trust::parse(scene.root.certificate_pem()).unwrap();
    let stranger = Connections::new(Credentials::unverified(issued.unwrap(), trust).unwrap());
    let refused = stranger.barrier(&address).await.unwrap_err();
    assert!(matches!(refused, CallError::Unauthenticated(_)), "of an unknown root: {refused:?}");

    let past = SystemTime::now() - 10 * HOUR;
    let expired = Connections::new(issue(&scene.root, OTHER, Role::Manager, past));
    let refused = expired.barrier(&address).await.unwrap_err();
    assert!(matches!(refused, CallError::Unauthenticated(_)), "expired: {refused:?}");
}

#[tokio::test]
async fn a_new_certificate_is_used_at_once() {
    let scene = Scene::new().await;
    let address = scene.address();
    let credentials = issue(&scene.root, OTHER, Role::Worker, SystemTime::now());
    let node = Connections::new(credentials.clone());
    assert!(node.barrier(&address).await.is_err());
    let promoted = issue(&scene.root, OTHER, Role::Manager, SystemTime::now());
    credentials.replace(promoted.node(), promoted.trust(), SystemTime::now()).unwrap();
    assert!(node.barrier(&address).await.is_ok());
}

#[tokio::test]
async fn a_manager_that_is_gone_is_told_at_once_and_found_when_it_is_back() {
    let mut scene = Scene::new().await;
    let (address, other) = (scene.address(), scene.of(OTHER, Role::Manager));
    assert!(other.barrier(&address).await.is_ok());
    scene.listener.task.abort();
    // The connection's end is on its way; from then on nobody is there.
    let gone = async { while !matches!(other.barrier(&address).await, Err(CallError::Unreachable(_))) {} };
    timeout(LIMIT, gone).await.unwrap();
    let asked = Instant::now();
    let refused = other.barrier(&address).await;
    assert!(matches!(refused, Err(CallError::Unreachable(_))), "{refused:?}");
    assert!(asked.elapsed() < Duration::from_millis(500), "{:?}", asked.elapsed());
    scene.restart().await;
    assert!(other.barrier(&address).await.is_ok(), "at once");
}
