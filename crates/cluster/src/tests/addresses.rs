//! Addresses: whose they are, and when they are given again.

use expect_test::expect;
use skep_types::service::ServiceMode;
use skep_types::{NodeId, TaskState};

use super::scene::{Scene, node, port, spec};
use crate::{Cluster, Event, Force, Objects, Request};

#[test]
fn a_node_gets_an_address_when_it_joins_and_gives_it_back_when_it_is_removed() {
    // A /29 has room for five beside the gateway.
    let mut scene = Scene::with_subnet(4, 29);
    let mut web = spec("web", 1);
    web.ports = vec![port(80, 8080)];
    let web = scene.create(web);
    scene.story();
    for number in [5, 6] {
        scene.ask(Request::AddNode(Box::new(node(number)))).unwrap();
    }
    expect![[r#"
          node n5 Ready Active, no available address on network ingress (10.0.0.0/29: 5 in use)
        commit
        reply: done
          node n6 Ready Active, no available address on network ingress (10.0.0.0/29: 5 in use)
        commit
        reply: done
    "#]]
    .assert_eq(&scene.story());
    scene.ready(6);
    expect![[r#"
        send n6: all[ingress, endpoint web 8080:80 -> []]
          node n6 Ready Active, no available address on network ingress (10.0.0.0/29: 5 in use)
        commit
    "#]]
    .assert_eq(&scene.story());
    scene.ask(Request::RemoveNode { id: NodeId(2), force: Force::Yes }).unwrap();
    expect![[r#"
          remove node n2
        commit
        reply: done
        send n2: all[]
          node n5 Ready Active 10.0.0.3
        commit
    "#]]
    .assert_eq(&scene.story());
    assert_eq!(scene.task(web, 1).attachments.len(), 0);
}

#[test]
fn an_address_that_was_freed_rests_under_a_new_leader_too() {
    let mut scene = Scene::of(1);
    let mut web = spec("web", 3);
    web.ports = vec![port(80, 8080)];
    let web = scene.create(web);
    scene.work();
    // The youngest address is freed, and the leader changes.
    scene.update(web, |spec| spec.mode = ServiceMode::Replicated { replicas: 0 });
    scene.work();
    let restored = Objects::restore(scene.objects().snapshot()).unwrap();
    assert_eq!(&restored, scene.objects());
    scene.cluster = Cluster::new(restored);
    scene.tell(Event::Started);
    scene.ready(1);
    scene.update(web, |spec| spec.mode = ServiceMode::Replicated { replicas: 1 });
    let address = scene.task(web, 1).attachments[0].address;
    expect!["10.0.0.7"].assert_eq(&address.to_string());
}

#[test]
fn a_lost_node_s_task_keeps_its_address_until_the_node_gave_it_up() {
    let mut scene = Scene::with_subnet(2, 29);
    let mut web = spec("web", 1);
    web.ports = vec![port(80, 8080)];
    let web = scene.create(web);
    scene.work();
    let first = scene.task(web, 1);
    let (id, lost, held) = (first.id, first.node.unwrap(), first.attachments[0].address);
    scene.tell(Event::NodeLost { node: lost, reason: "heartbeat failure".to_owned() });
    // The last free one; then there is none, although one is held by a task that nobody waits for.
    assert_ne!(scene.task(web, 1).attachments[0].address, held);
    scene.update(web, |spec| spec.mode = ServiceMode::Replicated { replicas: 2 });
    expect!["no available address on network ingress (10.0.0.0/29: 5 in use)"]
        .assert_eq(&scene.task(web, 2).status.error);
    scene.ready(lost.0 as u64);
    assert_eq!(scene.task(web, 2).attachments, []);
    scene.report(&[id], TaskState::Shutdown, "");
    assert_eq!(scene.task(web, 2).attachments[0].address, held);
}
