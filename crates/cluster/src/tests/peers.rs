//! Which addresses are where, told to those who send to them: exactly what changed, and only to others.

use std::net::{IpAddr, Ipv4Addr};

use expect_test::expect;
use skep_types::node::Availability;
use skep_types::service::ServiceMode;
use skep_types::{NodeId, ServiceId};

use super::scene::{Scene, node, port, spec};
use crate::{Event, Force, Request};

/// A node makes itself heard at 192.0.2.`last`.
fn ready_at(scene: &mut Scene, number: u64, last: u8) {
    let node = node(number);
    let address = IpAddr::from(Ipv4Addr::new(192, 0, 2, last));
    scene.tell(Event::NodeReady {
        node: node.id,
        description: Box::new(node.description),
        address,
        data_path: node.data_path,
    });
}

/// So many nodes at 192.0.2.1 and so on. Their stories tell of peers.
fn scene(nodes: u8) -> Scene {
    let mut scene = Scene::of(u64::from(nodes));
    for number in 1..=nodes {
        ready_at(&mut scene, u64::from(number), number);
    }
    scene.shows_peers = true;
    scene.lines.clear();
    scene
}

/// The sends of a story, without what was decided.
fn sends(scene: &mut Scene) -> String {
    let story = scene.story();
    let lines = story.lines().filter(|line| line.starts_with("send"));
    lines.flat_map(|line| [line, "\n"]).collect()
}

fn published(scene: &mut Scene, replicas: u64) -> ServiceId {
    let mut web = spec("web", replicas);
    web.ports = vec![port(80, 8080)];
    scene.create(web)
}

#[test]
fn a_session_begins_with_the_node_s_own_place_and_all_addresses_on_others() {
    let mut scene = scene(3);
    published(&mut scene, 2);
    scene.work();
    scene.lines.clear();
    ready_at(&mut scene, 3, 3);
    ready_at(&mut scene, 1, 1);
    expect![[r#"
        send n3: all[ingress, overlay 10.0.0.4 on 192.0.2.3, peer 10.0.0.2 at 192.0.2.1, peer 10.0.0.3 at 192.0.2.2, peer 10.0.0.6 at 192.0.2.1, peer 10.0.0.7 at 192.0.2.2, endpoint web 8080:80 -> [10.0.0.6, 10.0.0.7]]
        send n1: all[ingress, overlay 10.0.0.2 on 192.0.2.1, peer 10.0.0.3 at 192.0.2.2, peer 10.0.0.4 at 192.0.2.3, peer 10.0.0.7 at 192.0.2.2, endpoint web 8080:80 -> [10.0.0.6, 10.0.0.7], web.1#1 running]
    "#]].assert_eq(&sends(&mut scene));
}

#[test]
fn a_node_is_reached_where_its_data_path_is() {
    let mut scene = scene(2);
    let second = node(2);
    scene.tell(Event::NodeReady {
        node: second.id,
        description: Box::new(second.description),
        address: Ipv4Addr::new(192, 0, 2, 2).into(),
        data_path: Some(Ipv4Addr::new(198, 51, 100, 2).into()),
    });
    expect![[r#"
        send n2: all[ingress, overlay 10.0.0.3 on 192.0.2.2, peer 10.0.0.2 at 192.0.2.1]
        send n1: [peer 10.0.0.3 at 198.51.100.2]
        send n2: [overlay 10.0.0.3 on 198.51.100.2]
    "#]]
    .assert_eq(&sends(&mut scene));
}

#[test]
fn a_task_s_address_is_told_to_others_from_its_assignment_until_it_has_ended() {
    let mut scene = scene(2);
    let web = published(&mut scene, 1);
    expect![[r#"
        send n1: [endpoint web 8080:80 -> []]
        send n2: [endpoint web 8080:80 -> []]
        send n1: [web.1#1 running]
        send n2: [peer 10.0.0.5 at 192.0.2.1]
    "#]]
    .assert_eq(&sends(&mut scene));
    scene.work();
    expect![[r#"
        send n1: [endpoint web 8080:80 -> [10.0.0.5]]
        send n2: [endpoint web 8080:80 -> [10.0.0.5]]
    "#]]
    .assert_eq(&sends(&mut scene));
    scene.update(web, |spec| spec.mode = ServiceMode::Replicated { replicas: 0 });
    expect![[r#"
        send n1: [endpoint web 8080:80 -> []]
        send n2: [endpoint web 8080:80 -> []]
    "#]]
    .assert_eq(&sends(&mut scene));
    scene.work();
    expect![[r#"
        send n2: [-peer 10.0.0.5]
        send n1: [web.1#1 remove]
        send n1: [-web.1#1]
    "#]]
    .assert_eq(&sends(&mut scene));
}

#[test]
fn a_service_without_addresses_concerns_no_peer() {
    let mut scene = scene(2);
    scene.create(spec("web", 1));
    scene.work();
    expect![[r#"
        send n1: [web.1#1 running]
    "#]]
    .assert_eq(&sends(&mut scene));
}

#[test]
fn a_node_that_moves_takes_its_addresses_with_it() {
    let mut scene = scene(3);
    published(&mut scene, 3);
    scene.work();
    scene.lines.clear();
    ready_at(&mut scene, 2, 22);
    expect![[r#"
        send n2: all[ingress, overlay 10.0.0.3 on 192.0.2.2, peer 10.0.0.2 at 192.0.2.1, peer 10.0.0.4 at 192.0.2.3, peer 10.0.0.6 at 192.0.2.1, peer 10.0.0.8 at 192.0.2.3, endpoint web 8080:80 -> [10.0.0.6, 10.0.0.7, 10.0.0.8], web.2#1 running]
        send n1: [peer 10.0.0.3 at 192.0.2.22, peer 10.0.0.7 at 192.0.2.22]
        send n2: [overlay 10.0.0.3 on 192.0.2.22]
        send n3: [peer 10.0.0.3 at 192.0.2.22, peer 10.0.0.7 at 192.0.2.22]
    "#]].assert_eq(&sends(&mut scene));
    // The same once more is no news.
    ready_at(&mut scene, 2, 22);
    expect![[r#"
        send n2: all[ingress, overlay 10.0.0.3 on 192.0.2.22, peer 10.0.0.2 at 192.0.2.1, peer 10.0.0.4 at 192.0.2.3, peer 10.0.0.6 at 192.0.2.1, peer 10.0.0.8 at 192.0.2.3, endpoint web 8080:80 -> [10.0.0.6, 10.0.0.7, 10.0.0.8], web.2#1 running]
    "#]].assert_eq(&sends(&mut scene));
}

#[test]
fn a_node_that_joins_is_a_peer_and_one_that_is_forgotten_is_none() {
    let mut scene = scene(2);
    scene.ask(Request::AddNode(Box::new(node(3)))).unwrap();
    ready_at(&mut scene, 3, 3);
    expect![[r#"
        send n1: [peer 10.0.0.4 at 127.0.0.1]
        send n2: [peer 10.0.0.4 at 127.0.0.1]
        send n3: all[ingress, overlay 10.0.0.4 on 127.0.0.1, peer 10.0.0.2 at 192.0.2.1, peer 10.0.0.3 at 192.0.2.2]
        send n1: [peer 10.0.0.4 at 192.0.2.3]
        send n2: [peer 10.0.0.4 at 192.0.2.3]
        send n3: [overlay 10.0.0.4 on 192.0.2.3]
    "#]].assert_eq(&sends(&mut scene));
    scene.tell(Event::NodeLost { node: NodeId(3), reason: "heartbeat failure".to_owned() });
    expect![[r#""#]].assert_eq(&sends(&mut scene));
    scene.ask(Request::RemoveNode { id: NodeId(3), force: Force::Yes }).unwrap();
    expect![[r#"
        send n1: [-peer 10.0.0.4]
        send n2: [-peer 10.0.0.4]
        send n3: all[]
    "#]]
    .assert_eq(&sends(&mut scene));
}

#[test]
fn a_lost_node_s_addresses_stay_where_they_are_until_its_tasks_are_given_up() {
    let mut scene = scene(2);
    published(&mut scene, 1);
    scene.work();
    let lost = scene.objects().tasks().next().unwrap().node.unwrap();
    scene.lines.clear();
    scene.tell(Event::NodeLost { node: lost, reason: "heartbeat failure".to_owned() });
    expect![[r#"
        send n2: [endpoint web 8080:80 -> [], web.1#2 running]
    "#]]
    .assert_eq(&sends(&mut scene));
    // A drained node's likewise.
    scene
        .change_node(if lost.0 == 1 { 2 } else { 1 }, |spec| spec.availability = Availability::Pause)
        .unwrap();
    expect![[r#""#]].assert_eq(&sends(&mut scene));
}
