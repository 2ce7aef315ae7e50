//! Several nodes in one cluster, each with an address of its own on this machine.

use std::time::{Duration, Instant};

use skep_swarm::{ClusterUpdate, Force, JoinRequest, LocalState, SwarmError, SwarmInfo};
use skep_types::node::{Availability, NodeRole, NodeState};
use skep_types::swarm::ClusterSpec;

use crate::house::House;

/// What must have happened by then has not.
const PATIENCE: Duration = Duration::from_secs(20);

async fn eventually<F: Future<Output = bool>>(what: &str, holds: impl Fn() -> F) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "{what}: not in time");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// `docker swarm join --token <token> <manager>`, as the stock client sends it.
fn join(house: &House, token: &str, manager: &House) -> JoinRequest {
    JoinRequest {
        listen_addr: format!("{}:2377", house.address()),
        advertise_addr: house.address().to_string(),
        data_path_addr: String::new(),
        remote_addrs: vec![format!("{}:2377", manager.address())],
        join_token: token.to_owned(),
        availability: Availability::Drain,
    }
}

/// A cluster of one, and its tokens for workers and managers.
async fn founded() -> (House, String, String) {
    let house = House::in_swarm().await;
    let cluster = house.swarm.inspect().await.unwrap();
    (house, cluster.worker_token, cluster.manager_token)
}

async fn joined(token: &str, manager: &House) -> House {
    let house = House::new().await;
    house.swarm.join(join(&house, token, manager)).await.unwrap();
    house
}

async fn state_of(of: &House, seen_by: &House) -> Option<NodeState> {
    let id = of.swarm.info().node_id?;
    Some(seen_by.swarm.node(&id.to_string()).await.ok()?.node.state)
}

/// Wants another role of a node, through any manager.
async fn give_role(of: &House, role: NodeRole, through: &House) -> Result<(), SwarmError> {
    let id = of.swarm.info().node_id.unwrap().to_string();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let node = through.swarm.node(&id).await?.node;
        let spec = skep_types::node::NodeSpec { role, ..node.spec };
        match through.swarm.update_node(&id, node.meta.version, spec).await {
            Err(SwarmError::Internal(text))
                if text.contains("out of sequence") && Instant::now() < deadline => {}
            done => return done,
        }
    }
}

/// Waits until so many managers answer the leader: until then the guards of the quorum hold.
async fn all_reached(through: &House, count: usize) {
    eventually("all managers are reached", || async {
        let seen = through.swarm.nodes().await.unwrap_or_default();
        let managers = seen.iter().filter_map(|view| view.manager.as_ref());
        managers.filter(|it| it.reachability == skep_swarm::Reachability::Reachable).count() == count
    })
    .await;
}

fn is_manager(info: &SwarmInfo) -> bool {
    info.state == LocalState::Active && info.control_available && info.error.is_empty()
}

pub async fn nodes_join_change_roles_and_leave() {
    let (first, worker_token, manager_token) = founded().await;
    let second = joined(&worker_token, &first).await;
    let third = joined(&manager_token, &first).await;

    let told = second.swarm.info();
    assert_eq!((told.state, told.control_available), (LocalState::Active, false));
    assert_eq!(told.node_addr, second.address().to_string());
    let refused = second.swarm.nodes().await.unwrap_err().to_string();
    assert!(refused.contains("Worker nodes can't be used to view or modify cluster state."), "{refused}");
    let told = third.swarm.info();
    assert!(is_manager(&told), "{told:?}");
    assert_eq!((told.nodes, told.managers), (3, 2));
    // Any manager answers, and both tell the same.
    let seen = first.swarm.nodes().await.unwrap();
    assert_eq!(seen.iter().filter(|view| view.manager.is_some()).count(), 2);
    assert_eq!(seen.iter().filter(|view| view.manager.as_ref().is_some_and(|it| it.leads)).count(), 1);
    eventually("all are ready", || async {
        third.swarm.nodes().await.is_ok_and(|seen| seen.iter().all(|it| it.node.state == NodeState::Ready))
    })
    .await;

    give_role(&second, NodeRole::Manager, &third).await.unwrap();
    eventually("the second is a manager", || async { is_manager(&second.swarm.info()) }).await;
    eventually("it has its seat", || async { second.swarm.info().managers == 3 }).await;
    all_reached(&second, 3).await;
    give_role(&third, NodeRole::Worker, &second).await.unwrap();
    eventually("the third is a worker", || async {
        let told = third.swarm.info();
        told.state == LocalState::Active && !told.control_available
    })
    .await;
    eventually("its seat is gone", || async { first.swarm.info().managers == 2 }).await;
    // And back: in a new seat.
    give_role(&third, NodeRole::Manager, &first).await.unwrap();
    eventually("the third is a manager again", || async { is_manager(&third.swarm.info()) }).await;
    all_reached(&first, 3).await;
    give_role(&third, NodeRole::Worker, &first).await.unwrap();
    eventually("the third is a worker again", || async { !third.swarm.info().control_available }).await;

    let id = third.swarm.info().node_id.unwrap().to_string();
    let refused = first.swarm.remove_node(&id, Force::No).await.unwrap_err().to_string();
    assert_eq!(refused, format!("node {id} is not down and can't be removed"));
    let begun = Instant::now();
    third.swarm.leave(false).await.unwrap();
    eventually("the third is down", || async {
        first.swarm.node(&id).await.is_ok_and(|view| view.node.state == NodeState::Down)
    })
    .await;
    assert!(begun.elapsed() < Duration::from_secs(3), "an orderly end is told, not missed");
    first.swarm.remove_node(&id, Force::No).await.unwrap();
    assert_eq!(third.swarm.info().state, LocalState::Inactive);

    let refused = second.swarm.leave(false).await.unwrap_err().to_string();
    assert!(
        refused.starts_with(
            "You are attempting to leave the swarm on a node that is participating as a manager."
        )
    );
    second.close().await;
    eventually("the first decides alone", || async { first.swarm.info().managers == 1 }).await;
    first.close().await;
    third.engine.shutdown().await;
}

/// Why a machine is not let in. Nothing is left of the attempt.
async fn refusal(house: &House, request: JoinRequest) -> String {
    let refused = house.swarm.join(request).await.unwrap_err();
    assert_eq!(house.swarm.info().state, LocalState::Inactive, "{refused}");
    assert_eq!(house.kept(), Vec::<String>::new(), "a failed join leaves nothing: {refused}");
    refused.to_string()
}

pub async fn nobody_is_let_in_who_does_not_belong() {
    let (first, worker_token, _) = founded().await;
    let (other, other_token, _) = founded().await;
    let house = House::new().await;
    let told = refusal(&house, join(&house, &other_token, &first)).await;
    assert!(told.starts_with("remote CA does not match fingerprint. Expected: "), "{told}");
    let told = refusal(&house, join(&house, "SWMTKN-1-nothing", &first)).await;
    assert_eq!(told, "invalid join token");
    let wrong = format!(
        "{}{}",
        &worker_token[..worker_token.len() - 1],
        if worker_token.ends_with('0') { '1' } else { '0' }
    );
    let told = refusal(&house, join(&house, &wrong, &first)).await;
    assert_eq!(told, "A valid join token is necessary to join this cluster");
    let nowhere = JoinRequest {
        remote_addrs: vec!["127.97.250.1:2377".to_owned()],
        ..join(&house, &worker_token, &first)
    };
    refusal(&house, nowhere).await;
    let none = JoinRequest { remote_addrs: Vec::new(), ..join(&house, &worker_token, &first) };
    assert_eq!(refusal(&house, none).await, "at least 1 RemoteAddr is required to join");

    // A token that was replaced lets nobody in any more.
    let cluster = first.swarm.inspect().await.unwrap();
    let update = ClusterUpdate {
        version: cluster.meta.version,
        spec: cluster.spec,
        rotate_worker_token: true,
        rotate_manager_token: false,
        rotate_unlock_key: false,
        signing: Default::default(),
    };
    first.swarm.update_cluster(update).await.unwrap();
    let told = refusal(&house, join(&house, &worker_token, &first)).await;
    assert_eq!(told, "A valid join token is necessary to join this cluster");
    let token = first.swarm.inspect().await.unwrap().worker_token;
    house.swarm.join(join(&house, &token, &first)).await.unwrap();
    let again = house.swarm.join(join(&house, &token, &first)).await.unwrap_err().to_string();
    assert!(again.starts_with("This node is already part of a swarm."), "{again}");
    house.close().await;
    first.close().await;
    other.close().await;
}

pub async fn nodes_come_back_after_a_restart() {
    let (first, worker_token, manager_token) = founded().await;
    let second = joined(&manager_token, &first).await;
    let third = joined(&manager_token, &first).await;
    let worker = joined(&worker_token, &second).await;
    let ids = [&first, &second, &third, &worker].map(|house| house.swarm.info().node_id);

    let worker = worker.reopen(async |_| {}).await;
    eventually("the worker is back", || async { state_of(&worker, &first).await == Some(NodeState::Ready) })
        .await;
    let first = first.reopen(async |_| {}).await;
    eventually("the first is back", || async { is_manager(&first.swarm.info()) }).await;
    let third = third.reopen(async |_| {}).await;
    eventually("the third is back", || async { is_manager(&third.swarm.info()) }).await;
    eventually("all are ready", || async {
        second
            .swarm
            .nodes()
            .await
            .is_ok_and(|seen| seen.len() == 4 && seen.iter().all(|it| it.node.state == NodeState::Ready))
    })
    .await;
    assert_eq!([&first, &second, &third, &worker].map(|house| house.swarm.info().node_id), ids);
    worker.close().await;
    third.close().await;
    second.close().await;
    first.close().await;
}

pub async fn a_removed_node_says_so() {
    let (first, worker_token, _) = founded().await;
    let worker = joined(&worker_token, &first).await;
    let id = worker.swarm.info().node_id.unwrap().to_string();
    first.swarm.remove_node(&id, Force::Yes).await.unwrap();
    eventually("it says so", || async { worker.swarm.info().state == LocalState::Error }).await;
    assert!(worker.swarm.info().error.contains("not part of the swarm"), "{}", worker.swarm.info().error);
    worker.close().await;
    first.close().await;
}

pub async fn a_locked_manager_waits_for_its_key() {
    let house = House::new().await;
    let spec = ClusterSpec { autolock: true, ..ClusterSpec::default() };
    house.swarm.init(skep_swarm::InitRequest { spec, ..house.init() }).await.unwrap();
    let key = house.swarm.inspect().await.unwrap().unlock_key.unwrap().0;
    assert!(key.starts_with("SWMKEY-1-"));
    assert_eq!(house.swarm.unlock(&key).await, Err(SwarmError::Conflict("swarm is not locked".to_owned())));

    let house = house.reopen(async |_| {}).await;
    assert_eq!(house.swarm.info().state, LocalState::Locked);
    let refused = house.swarm.services().await.unwrap_err().to_string();
    assert!(refused.starts_with("Swarm is encrypted and needs to be unlocked"), "{refused}");
    let wrong = "SWMKEY-1-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    assert_eq!(
        house.swarm.unlock(wrong).await,
        Err(SwarmError::Unauthorized("swarm could not be unlocked: invalid key provided".to_owned()))
    );
    assert!(house.swarm.unlock("nonsense").await.is_err());
    house.swarm.unlock(&key).await.unwrap();
    eventually("it works again", || async { is_manager(&house.swarm.info()) }).await;

    // Rotated, only the new key opens it.
    let cluster = house.swarm.inspect().await.unwrap();
    let update = ClusterUpdate {
        version: cluster.meta.version,
        spec: cluster.spec,
        rotate_worker_token: false,
        rotate_manager_token: false,
        rotate_unlock_key: true,
        signing: Default::default(),
    };
    let locked = house.key_file();
    house.swarm.update_cluster(update).await.unwrap();
    eventually("the key file follows", || async { house.key_file() != locked }).await;
    let new = house.swarm.inspect().await.unwrap().unlock_key.unwrap().0;
    assert_ne!(new, key);
    let house = house.reopen(async |_| {}).await;
    assert!(house.swarm.unlock(&key).await.is_err());
    house.swarm.unlock(&new).await.unwrap();
    house.close().await;
}

pub async fn one_manager_makes_a_cluster_anew() {
    let (first, worker_token, manager_token) = founded().await;
    let second = joined(&manager_token, &first).await;
    let worker = joined(&worker_token, &first).await;
    let node = first.swarm.info().node_id;
    // The second is lost for good: with it the majority.
    second.swarm.shutdown().await;
    let request = skep_swarm::InitRequest { force_new_cluster: true, ..first.init() };
    assert_eq!(first.swarm.init(request).await.ok(), node);
    let seen = first.swarm.nodes().await.unwrap();
    assert_eq!(seen.len(), 3, "nodes are kept");
    assert_eq!(seen.iter().filter(|view| view.manager.is_some()).count(), 1);
    eventually("the worker found it", || async { state_of(&worker, &first).await == Some(NodeState::Ready) })
        .await;
    worker.close().await;
    first.close().await;
    second.engine.shutdown().await;
}
