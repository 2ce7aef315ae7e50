//! Managers' seats: who takes one, who gives one up, and what is refused for the quorum's sake.

use std::time::Duration;

use expect_test::{Expect, expect};
use skep_types::node::{Member, NodeRole};
use skep_types::{NodeId, Version};

use super::scene::{Scene, node, update_cluster};
use crate::{Cluster, Event, Force, Refusal, Request};

fn seat(number: u64) -> Option<Member> {
    Some(Member { raft: number * 10, address: format!("10.9.0.{number}:2377") })
}

fn set_seat(number: u64, seat: Option<Member>) -> Request {
    Request::SetSeat { node: NodeId(u128::from(number)), seat }
}

/// A cluster of so many managers, all of whom the leader reaches.
fn managers(count: u64) -> Scene {
    let mut scene = Scene::of(count);
    for number in 1..=count {
        scene.change_node(number, |spec| spec.role = NodeRole::Manager).unwrap();
        scene.ask(set_seat(number, seat(number))).unwrap();
    }
    scene.tell(Event::Reachable((1..=count).map(|number| number * 10).collect()));
    scene.story();
    scene
}

fn demote(scene: &mut Scene, number: u64) -> Result<crate::Answer, Refusal> {
    scene.change_node(number, |spec| spec.role = NodeRole::Worker)
}

fn check(refusal: Refusal, expected: Expect) {
    expected.assert_eq(&format!("{:?}: {refusal}", refusal.kind));
}

#[test]
fn a_demoted_manager_s_seat_is_asked_for_until_it_is_given_up() {
    let mut scene = managers(3);
    demote(&mut scene, 3).unwrap();
    expect![[r#"
          node n3 Ready Active 10.0.0.4 seat 30
        commit
        reply: done
        take seat 30 from n3
    "#]]
    .assert_eq(&scene.story());
    scene.pass(Duration::from_secs(5));
    expect![[r#"
        take seat 30 from n3
    "#]]
    .assert_eq(&scene.story());
    // A new leader finds it in the objects.
    scene.cluster = Cluster::new(scene.objects().clone());
    scene.tell(Event::Started);
    for number in 1..=3 {
        scene.ready(number);
    }
    scene.story();
    scene.tell(Event::Reachable([10, 20, 30].into()));
    expect![[r#"
        take seat 30 from n3
    "#]]
    .assert_eq(&scene.story());
    scene.ask(set_seat(3, None)).unwrap();
    scene.pass(Duration::from_secs(60));
    expect![[r#"
          node n3 Ready Active 10.0.0.4
        commit
        reply: done
    "#]]
    .assert_eq(&scene.story());
}

#[test]
fn a_seat_is_not_taken_while_the_quorum_would_be_lost() {
    let mut scene = managers(3);
    demote(&mut scene, 3).unwrap();
    scene.story();
    // What was asked for did not succeed, and another manager fails.
    scene.tell(Event::Reachable([10, 30].into()));
    scene.pass(Duration::from_secs(20));
    assert_eq!(
        scene.story(),
        "
"
    );
    scene.tell(Event::Reachable([10, 20, 30].into()));
    expect![[r#"
        take seat 30 from n3
    "#]]
    .assert_eq(&scene.story());
}

#[test]
fn two_seats_are_taken_only_if_the_rest_can_decide() {
    let mut scene = managers(5);
    for number in [3, 4] {
        demote(&mut scene, number).unwrap();
    }
    expect![[r#"
          node n3 Ready Active 10.0.0.4 seat 30
        commit
        reply: done
        take seat 30 from n3
          node n4 Ready Active 10.0.0.5 seat 40
        commit
        reply: done
        take seat 40 from n4
    "#]]
    .assert_eq(&scene.story());
}

#[test]
fn demotions_that_lose_the_quorum_are_refused() {
    let mut scene = managers(3);
    scene.tell(Event::Reachable([10, 20].into()));
    check(
        demote(&mut scene, 2).unwrap_err(),
        expect!["Precondition: can't remove member from the raft: this would result in a loss of quorum"],
    );
    // The one that cannot be reached may go.
    demote(&mut scene, 3).unwrap();
    let mut scene = managers(1);
    check(
        demote(&mut scene, 1).unwrap_err(),
        expect!["Precondition: attempting to demote the last manager of the swarm"],
    );
}

#[test]
fn a_seat_belongs_to_a_manager_and_is_one_at_a_time() {
    let mut scene = managers(2);
    scene.ask(Request::AddNode(Box::new(node(7)))).unwrap();
    let mut ask = |request| format!("{:?}", scene.ask(request));
    let answers = [
        ask(set_seat(2, seat(2))),
        ask(set_seat(2, seat(3))),
        ask(set_seat(7, seat(7))),
        ask(set_seat(7, None)),
        ask(set_seat(9, None)),
    ];
    expect![[r#"
        Ok(Done)
        Err(Refusal { kind: Conflict, message: "node 0000000000000000000000002 has another seat among the managers" })
        Err(Refusal { kind: Precondition, message: "node 0000000000000000000000007 is not a manager" })
        Ok(Done)
        Err(Refusal { kind: NotFound, message: "node 0000000000000000000000009 not found" })"#]].assert_eq(&answers.join("\n"));
}

#[test]
fn removals_are_guarded() {
    let mut scene = managers(2);
    scene.ask(Request::AddNode(Box::new(node(7)))).unwrap();
    let remove = |number: u128, force| Request::RemoveNode { id: NodeId(number), force };
    check(
        scene.ask(remove(2, Force::Yes)).unwrap_err(),
        expect![
            "Precondition: node 0000000000000000000000002 is a cluster manager and is a member of the raft cluster. It must be demoted to worker before removal"
        ],
    );
    demote(&mut scene, 2).unwrap();
    check(
        scene.ask(remove(2, Force::Yes)).unwrap_err(),
        expect![
            "Precondition: node 0000000000000000000000002 is a cluster manager and is a member of the raft cluster. It must be demoted to worker before removal"
        ],
    );
    scene.ask(set_seat(2, None)).unwrap();
    check(
        scene.ask(remove(2, Force::No)).unwrap_err(),
        expect!["Precondition: node 0000000000000000000000002 is not down and can't be removed"],
    );
    scene.ask(remove(2, Force::Yes)).unwrap();
    check(
        scene.ask(remove(2, Force::Yes)).unwrap_err(),
        expect!["NotFound: node 0000000000000000000000002 not found"],
    );
    scene.ready(7);
    let lost = Event::NodeLost { node: NodeId(7), reason: "left the swarm".to_owned() };
    scene.tell(lost);
    scene.ask(remove(7, Force::No)).unwrap();
}

#[test]
fn names_of_nodes_are_unique_and_versions_in_sequence() {
    let mut scene = Scene::of(2);
    scene.change_node(1, |spec| spec.name = "one".to_owned()).unwrap();
    scene.change_node(1, |spec| spec.labels.extend([("a".to_owned(), "b".to_owned())])).unwrap();
    let taken = scene.change_node(2, |spec| spec.name = "one".to_owned());
    check(taken.unwrap_err(), expect!["Conflict: name conflicts with an existing object"]);
    let mut joining = node(3);
    joining.spec.name = "one".to_owned();
    check(
        scene.ask(Request::AddNode(Box::new(joining))).unwrap_err(),
        expect!["Conflict: name conflicts with an existing object"],
    );
    let spec = Box::new(scene.objects().node(NodeId(2)).unwrap().spec.clone());
    let stale = Request::UpdateNode { id: NodeId(2), version: Version(1), spec };
    check(scene.ask(stale).unwrap_err(), expect!["OutOfSequence: update out of sequence"]);
    scene.change_node(1, |spec| spec.name = "other".to_owned()).unwrap();
    scene.change_node(2, |spec| spec.name = "one".to_owned()).unwrap();
}

#[test]
fn the_unlock_key_is_there_while_managers_are_locked() {
    let mut scene = Scene::of(1);
    let change = |scene: &mut Scene, autolock: bool, key: Option<&str>| {
        let cluster = scene.objects().cluster().unwrap();
        let (version, mut spec) = (cluster.meta.version, cluster.spec.clone());
        spec.autolock = autolock;
        let mut request = update_cluster(version, spec);
        if let Request::UpdateCluster { unlock_key, .. } = &mut request {
            *unlock_key = key.map(|key| skep_types::swarm::Secret(key.to_owned()));
        }
        let result = scene.ask(request);
        let held = scene.objects().cluster().unwrap().unlock_key.as_ref().map(|key| key.0.clone());
        result.map(|_| held)
    };
    check(
        change(&mut scene, true, None).unwrap_err(),
        expect!["Invalid: managers cannot be locked without a key that unlocks them"],
    );
    assert_eq!(change(&mut scene, true, Some("one")).unwrap().as_deref(), Some("one"));
    assert_eq!(change(&mut scene, true, None).unwrap().as_deref(), Some("one"));
    assert_eq!(change(&mut scene, true, Some("two")).unwrap().as_deref(), Some("two"));
    assert_eq!(change(&mut scene, false, Some("three")).unwrap(), None);
}
