//! Whatever happens, in whatever order, nothing is ever wrong with the objects.

use std::time::Duration;

use proptest::prelude::*;
use skep_types::network::{NetworkSpec, Stay};
use skep_types::node::{Availability, Member, NodeRole};
use skep_types::placement::Preference;
use skep_types::service::{NetworkAttachment, UpdateOrder};
use skep_types::{ContainerId, NodeId, ServiceId, Task, TaskId, TaskState};

use super::scene::{Scene, node, port, spec, task_spec, update_cluster};
use crate::{Event, Force, Objects, Request, check};

mod modes;

/// Something that may happen. Numbers choose among what there is.
#[derive(Clone, Debug)]
enum Act {
    Create { name: u8, mode: u8, replicas: u8, ports: u8, cpus: u8, attempts: u8, bound: u8 },
    Scale { service: u8, replicas: u8 },
    Force { service: u8 },
    Rebalance { service: u8 },
    RollBack { service: u8 },
    Schedule { service: u8, minutes: u8 },
    Depend { service: u8, name: u8 },
    Order { service: u8, order: u8 },
    Join { service: u8, network: u8 },
    Network { name: u8, attachable: u8 },
    RemoveNetwork { network: u8 },
    Attach { node: u8, container: u8, network: u8 },
    Detach { guest: u8 },
    KeepGuests { node: u8, on: u8 },
    Publish { service: u8, port: u8 },
    Remove { service: u8 },
    Report { task: u8, state: u8 },
    Work,
    Pass { seconds: u8 },
    Lose { node: u8 },
    Ready { node: u8 },
    Available { node: u8, availability: u8 },
    RemoveNode { node: u8 },
    History { limit: u8 },
    Label { node: u8, value: u8 },
    Constrain { service: u8, constraint: u8 },
    Role { node: u8, role: u8 },
    Seat { node: u8, seat: u8 },
    Reach { managers: u8 },
    Restart,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        5 => (0u8..4, 0u8..4, 0u8..6, 0u8..3, 0u8..3, 0u8..3, 0u8..6)
            .prop_map(|(name, mode, replicas, ports, cpus, attempts, bound)| {
                Act::Create { name, mode, replicas, ports, cpus, attempts, bound }
            }),
        1 => any::<u8>().prop_map(|service| Act::Rebalance { service }),
        1 => any::<u8>().prop_map(|service| Act::RollBack { service }),
        1 => (any::<u8>(), 0u8..4).prop_map(|(service, minutes)| Act::Schedule { service, minutes }),
        1 => (any::<u8>(), 0u8..5).prop_map(|(service, name)| Act::Depend { service, name }),
        1 => (any::<u8>(), 0u8..2).prop_map(|(service, order)| Act::Order { service, order }),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(service, network)| Act::Join { service, network }),
        2 => (0u8..3, 0u8..3).prop_map(|(name, attachable)| Act::Network { name, attachable }),
        1 => any::<u8>().prop_map(|network| Act::RemoveNetwork { network }),
        2 => (1u8..4, 0u8..3, any::<u8>())
            .prop_map(|(node, container, network)| Act::Attach { node, container, network }),
        1 => any::<u8>().prop_map(|guest| Act::Detach { guest }),
        1 => (1u8..4, any::<u8>()).prop_map(|(node, on)| Act::KeepGuests { node, on }),
        3 => (any::<u8>(), 0u8..8).prop_map(|(service, replicas)| Act::Scale { service, replicas }),
        2 => any::<u8>().prop_map(|service| Act::Force { service }),
        1 => (any::<u8>(), 0u8..3).prop_map(|(service, port)| Act::Publish { service, port }),
        1 => any::<u8>().prop_map(|service| Act::Remove { service }),
        8 => (any::<u8>(), any::<u8>()).prop_map(|(task, state)| Act::Report { task, state }),
        3 => Just(Act::Work),
        3 => (0u8..20).prop_map(|seconds| Act::Pass { seconds }),
        1 => (1u8..4).prop_map(|node| Act::Lose { node }),
        1 => (1u8..4).prop_map(|node| Act::Ready { node }),
        1 => (1u8..4, 0u8..3).prop_map(|(node, availability)| Act::Available { node, availability }),
        1 => (2u8..4).prop_map(|node| Act::RemoveNode { node }),
        1 => (0u8..6).prop_map(|limit| Act::History { limit }),
        2 => (1u8..4, 0u8..3).prop_map(|(node, value)| Act::Label { node, value }),
        2 => (any::<u8>(), 0u8..5).prop_map(|(service, constraint)| Act::Constrain { service, constraint }),
        2 => (1u8..4, 0u8..2).prop_map(|(node, role)| Act::Role { node, role }),
        2 => (1u8..4, 0u8..3).prop_map(|(node, seat)| Act::Seat { node, seat }),
        1 => (0u8..8).prop_map(|managers| Act::Reach { managers }),
        1 => Just(Act::Restart),
    ]
}

fn some_service(scene: &Scene, number: u8) -> Option<ServiceId> {
    let services: Vec<ServiceId> = scene.objects().services().map(|service| service.id).collect();
    services.get(usize::from(number) % services.len().max(1)).copied()
}

fn some_task(scene: &Scene, number: u8) -> Option<TaskId> {
    let tasks: Vec<&Task> = scene.objects().tasks().filter(|task| task.node.is_some()).collect();
    tasks.get(usize::from(number) % tasks.len().max(1)).map(|task| task.id)
}

fn play(scene: &mut Scene, act: Act) {
    match act {
        Act::Create { name, mode, replicas, ports, cpus, attempts, bound } => {
            let mut spec = spec(&format!("service{name}"), 0);
            spec.mode = modes::some(mode, u64::from(replicas));
            spec.ports =
                (0..ports).map(|number| port(80 + u16::from(number), u16::from(number) * 8080)).collect();
            task_spec(&mut spec, |task| {
                task.reservations.nano_cpus = i64::from(cpus) * 1_000_000_000;
                task.restart.max_attempts = u64::from(attempts);
                task.placement.max_replicas = u64::from(bound / 2);
                if bound.is_multiple_of(2) {
                    task.placement.preferences = vec![Preference { spread: "node.labels.store".to_owned() }];
                } else {
                    task.generic = [("apple".to_owned(), u64::from(bound / 2))].into();
                }
                task.restart.delay = Duration::from_secs(u64::from(attempts));
            });
            // The name or a port may be taken.
            let _ = scene.ask(Request::CreateService(Box::new(spec)));
        }
        Act::Scale { service, replicas } => {
            if let Some(id) = some_service(scene, service) {
                scene.update(id, |spec| spec.mode = modes::scaled(spec.mode, u64::from(replicas)));
            }
        }
        Act::Force { service } => {
            if let Some(id) = some_service(scene, service) {
                scene.update(id, |spec| task_spec(spec, |task| task.force_update += 1));
            }
        }
        Act::Publish { service, port: number } => {
            if let Some(id) = some_service(scene, service) {
                scene.update(id, |spec| {
                    spec.ports = (0..number).map(|n| port(90 + u16::from(n), 0)).collect()
                });
            }
        }
        Act::Remove { service } => {
            if let Some(id) = some_service(scene, service) {
                scene.ask(Request::RemoveService(id)).unwrap();
            }
        }
        Act::Report { task, state } => {
            let states = [
                TaskState::Accepted,
                TaskState::Preparing,
                TaskState::Ready,
                TaskState::Starting,
                TaskState::Running,
                TaskState::Running,
                TaskState::Complete,
                TaskState::Failed,
                TaskState::Rejected,
                TaskState::Shutdown,
            ];
            if let Some(task) = some_task(scene, task) {
                scene.report(&[task], states[usize::from(state) % states.len()], "");
            }
        }
        Act::Constrain { service, constraint } => {
            if let Some(id) = some_service(scene, service) {
                let texts = [
                    "node.labels.store==1",
                    "node.labels.store!=1",
                    "node.role==worker",
                    "node.role==manager",
                ];
                let chosen = texts.get(usize::from(constraint)).map(|text| text.parse().unwrap());
                scene.update(id, |spec| {
                    task_spec(spec, |task| task.placement.constraints = chosen.into_iter().collect())
                });
            }
        }
        Act::Work => modes::work(scene),
        Act::Pass { seconds } => scene.pass(Duration::from_secs(u64::from(seconds))),
        act => play_network(scene, act),
    }
}

/// Networks and guests, and what services say of others.
fn play_network(scene: &mut Scene, act: Act) {
    match act {
        Act::Rebalance { service } => {
            // Of services of some modes it cannot be asked.
            some_service(scene, service).map(|id| scene.ask(Request::Rebalance(id)));
        }
        Act::RollBack { service } => {
            let known = some_service(scene, service).and_then(|id| scene.objects().service(id));
            let request = known.map(|it| Request::RollBackService { id: it.id, version: it.meta.version });
            request.map(|request| scene.ask(request));
        }
        Act::Schedule { service, minutes } => {
            let label = || ("skep.cron".to_owned(), format!("*/{minutes} * * * *"));
            modes::relabel(scene, service, (minutes > 0).then(label));
        }
        Act::Depend { service, name } => {
            let label = || ("skep.depends_on".to_owned(), format!("service{name}"));
            modes::relabel(scene, service, (name < 4).then(label));
        }
        Act::Order { service, order } => {
            if let Some(id) = some_service(scene, service) {
                let orders = [UpdateOrder::StopFirst, UpdateOrder::StartFirst];
                scene.update(id, |spec| spec.update.order = orders[usize::from(order)]);
            }
        }
        Act::Join { service, network } => {
            if let Some(id) = some_service(scene, service) {
                let on = modes::some_network(scene, network);
                let on = on.map(|network| NetworkAttachment { network, aliases: Vec::new() });
                scene.update(id, |spec| task_spec(spec, |task| task.networks = on.into_iter().collect()));
            }
        }
        Act::Network { name, attachable } => {
            let attachable = attachable > 0;
            let spec = NetworkSpec { name: format!("net{name}"), attachable, ..NetworkSpec::default() };
            let _ = scene.ask(Request::CreateNetwork(Box::new(spec)));
        }
        Act::RemoveNetwork { network } => {
            // Services or guests may be on it.
            modes::some_network(scene, network).map(|id| scene.ask(Request::RemoveNetwork(id)));
        }
        Act::Attach { node, container, network } => {
            if let Some(network) = modes::some_network(scene, network) {
                let (node, container) = (NodeId(u128::from(node)), ContainerId([container; 32]));
                let _ =
                    scene.ask(Request::Attach { node, container, network, names: Vec::new(), address: None });
            }
        }
        Act::Detach { guest } => {
            let guests: Vec<Request> = modes::guests(scene.objects())
                .map(|guest| Request::Detach {
                    node: guest.node,
                    container: guest.container,
                    network: guest.network,
                })
                .collect();
            let chosen = guests.get(usize::from(guest) % guests.len().max(1)).cloned();
            chosen.map(|request| scene.ask(request).unwrap());
        }
        Act::KeepGuests { node, on } => {
            let node = NodeId(u128::from(node));
            let of_node = modes::guests(scene.objects()).filter(|guest| guest.node == node);
            let kept = of_node
                .filter(|guest| guest.container.0[0] & on != 0)
                .map(|guest| (guest.container, Stay::On([guest.network].into())));
            let guests = kept.collect();
            let _ = scene.ask(Request::KeepGuests { node, guests });
        }
        act => play_node(scene, act),
    }
}

fn play_node(scene: &mut Scene, act: Act) {
    let id = |number: u8| NodeId(u128::from(number));
    match act {
        Act::Lose { node } => {
            scene.tell(Event::NodeLost { node: id(node), reason: "heartbeat failure".to_owned() });
        }
        Act::Ready { node: number } => {
            scene.ask(Request::AddNode(Box::new(node(u64::from(number))))).unwrap();
            scene.ready(u64::from(number));
        }
        Act::Available { node, availability } => {
            let all = [Availability::Active, Availability::Pause, Availability::Drain];
            if scene.objects().node(id(node)).is_some() {
                let availability = all[usize::from(availability) % all.len()];
                scene.change_node(u64::from(node), |spec| spec.availability = availability).unwrap();
            }
        }
        Act::Label { node, value } => {
            if scene.objects().node(id(node)).is_some() {
                let label = ("store".to_owned(), value.to_string());
                scene.change_node(u64::from(node), |spec| spec.labels = [label].into()).unwrap();
            }
        }
        Act::Role { node, role } => {
            let roles = [NodeRole::Worker, NodeRole::Manager];
            if scene.objects().node(id(node)).is_some() {
                // The last manager stays, and so does the quorum.
                let _ = scene.change_node(u64::from(node), |spec| spec.role = roles[usize::from(role)]);
            }
        }
        Act::Seat { node, seat } => {
            let seat = (seat > 0)
                .then(|| Member { raft: u64::from(node) + 8 * u64::from(seat), address: String::new() });
            let _ = scene.ask(Request::SetSeat { node: id(node), seat });
        }
        Act::Reach { managers } => {
            let seats = scene.objects().nodes().filter_map(|node| node.manager.as_ref()).enumerate();
            let reached = seats.filter(|(place, _)| managers & 1 << place != 0).map(|(_, seat)| seat.raft);
            let reached = reached.collect();
            scene.tell(Event::Reachable(reached));
        }
        Act::RemoveNode { node } => {
            let _ = scene.ask(Request::RemoveNode { id: id(node), force: Force::Yes });
        }
        Act::History { limit } => {
            let cluster = scene.objects().cluster().unwrap();
            let (version, mut spec) = (cluster.meta.version, cluster.spec.clone());
            spec.task_history_limit = u64::from(limit);
            scene.ask(update_cluster(version, spec)).unwrap();
        }
        _ => {
            let restored = Objects::restore(scene.objects().snapshot()).unwrap();
            assert_eq!(&restored, scene.objects());
            scene.cluster = crate::Cluster::new(restored);
            scene.tell(Event::Started);
        }
    }
}

/// Once all nodes serve and time passes, every service has what it asks for.
fn settle(scene: &mut Scene) {
    for number in 1..=3 {
        play_node(scene, Act::Ready { node: number });
        play_node(scene, Act::Available { node: number, availability: 0 });
    }
    for _ in 0..20 {
        modes::work(scene);
        scene.pass(Duration::from_secs(5));
    }
    modes::work(scene);
    let objects = scene.objects();
    for service in objects.services() {
        modes::settled(objects, service);
        // An update waits with its task where the nodes are too small for all that is asked.
        let waits = objects.tasks_of(service.id).any(|task| task.status.state == TaskState::Pending);
        assert!(objects.rollout(service.id).is_none() || waits, "{}", service.spec.name);
    }
    for task in objects.tasks().filter(|task| task.desired <= TaskState::Complete) {
        let waits = task.node.is_none() && !task.status.error.is_empty();
        let done = task.goal() == task.status.state || objects.is_past(task);
        assert!(done || waits, "{task:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_ever_wrong(acts in prop::collection::vec(act(), 1..60)) {
        let mut scene = Scene::of(3);
        for act in acts {
            // Every commit is checked by the scene.
            play(&mut scene, act);
            let managers = scene.objects().nodes().filter(|node| node.spec.role == NodeRole::Manager);
            prop_assert!(managers.count() > 0);
        }
        settle(&mut scene);
        prop_assert_eq!(check(scene.objects()), []);
    }
}
