//! Work per event follows what changed, not how much there is.

use skep_types::assignment::StatusReport;
use skep_types::node::Node;
use skep_types::{NodeId, TaskId, TaskState, TaskStatus};

use super::scene::{Scene, node, spec};
use crate::{Answer, Cluster, Event, Request, RequestId};

/// Commits until nothing is left to decide, without the checks that look at everything. Gives the
/// number of entries and of changes.
fn run(scene: &mut Scene, event: Event) -> (usize, usize) {
    let (mut entries, mut changes) = (0, 0);
    let mut output = scene.cluster.step(event, scene.now, &mut scene.ids);
    while !output.propose.is_empty() {
        assert!(output.propose.len() <= crate::plan::MAX_CHANGES);
        entries += 1;
        changes += output.propose.len();
        let index = scene.objects().applied() + 1;
        output = scene.cluster.step(Event::Committed { index }, scene.now, &mut scene.ids);
        for reply in &output.replies {
            assert!(matches!(reply.result, Ok(Answer::Service(_))));
        }
    }
    (entries, changes)
}

#[test]
fn a_new_leader_has_little_to_say_and_a_lost_node_s_tasks_move_in_two_entries() {
    let mut scene = Scene::of(20);
    let request = Request::CreateService(Box::new(spec("big", 2_000)));
    run(&mut scene, Event::Request(RequestId(900), request));
    scene.cluster = Cluster::new(scene.objects().clone());
    // Every node is to be heard of again; no task changes.
    assert_eq!(run(&mut scene, Event::Started), (1, 20));
    for number in 1..=20 {
        let Node { id, description, address, .. } = node(number);
        run(
            &mut scene,
            Event::NodeReady { node: id, description: Box::new(description), address, data_path: None },
        );
    }
    let lost = Event::NodeLost { node: NodeId(7), reason: "heartbeat failure".to_owned() };
    // A hundred tasks to stop and a hundred to take their place, after the node itself.
    assert_eq!(run(&mut scene, lost), (2, 201));
}

#[test]
fn ten_thousand_tasks_take_few_entries_and_one_failure_takes_two() {
    let mut scene = Scene::of(100);
    let request = Request::CreateService(Box::new(spec("big", 10_000)));
    let (entries, changes) = run(&mut scene, Event::Request(RequestId(900), request));
    assert_eq!((entries, changes), (11, 10_001));
    let tasks: Vec<(TaskId, _)> = scene.objects().tasks().map(|task| (task.id, task.node.unwrap())).collect();
    let running = |id: TaskId, state| StatusReport {
        task: id,
        status: TaskStatus {
            state,
            since: scene.now,
            message: String::new(),
            error: String::new(),
            container: None,
        },
    };
    let reports: Vec<_> = tasks.iter().map(|(id, node)| (*node, running(*id, TaskState::Running))).collect();
    let (id, node) = tasks[5000];
    let failure = running(id, TaskState::Failed);
    for (node, report) in reports {
        run(&mut scene, Event::Reports(node, vec![report]));
    }
    // The status, and then the replacement with the old task's new desired state.
    assert_eq!(run(&mut scene, Event::Reports(node, vec![failure])), (2, 3));
    assert_eq!(crate::check(scene.objects()), []);
    scene.cluster = Cluster::new(scene.objects().clone());
}
