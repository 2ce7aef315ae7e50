//! What the leader tells nodes besides their duties: themselves, who the managers are, and the authority.

use std::collections::BTreeSet;

use skep_cluster::{Change, Objects};
use skep_types::NodeId;
use skep_types::node::Member;

use crate::session::{News, Sessions};

/// What an entry of the log touches that nodes are told of.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Touched {
    nodes: BTreeSet<NodeId>,
    cluster: bool,
}

/// What these changes touch.
pub(super) fn touched(changes: &[Change]) -> Touched {
    let mut touched = Touched::default();
    for change in changes {
        match change {
            Change::PutNode(node) => {
                touched.nodes.insert(node.id);
            }
            Change::RemoveNode(node) => {
                touched.nodes.insert(*node);
            }
            Change::PutCluster(_) => touched.cluster = true,
            _ => {}
        }
    }
    touched
}

/// The leader's memory of what all nodes were told.
#[derive(Debug, Default)]
pub(super) struct Teller {
    managers: Vec<(NodeId, Member)>,
}

impl Teller {
    /// Nobody was told anything by a leader that just became one; sessions begin with everything.
    pub(super) fn begin(&mut self, objects: &Objects) {
        self.managers = managers(objects);
    }

    /// Tells a node that opened a session everything.
    pub(super) fn greet(&self, objects: &Objects, sessions: &Sessions, node: NodeId) {
        let Some(known) = objects.node(node) else { return };
        sessions.tell(node, News::Node(Box::new(known.clone())));
        sessions.tell(node, News::Managers(self.managers.clone()));
    }

    /// Tells those concerned what an entry of the log changed.
    pub(super) fn tell(&mut self, objects: &Objects, sessions: &Sessions, touched: &Touched) {
        for node in &touched.nodes {
            match objects.node(*node) {
                Some(known) => sessions.tell(*node, News::Node(Box::new(known.clone()))),
                // It was told that it has no duties any more.
                None => sessions.end(*node),
            }
        }
        if !touched.nodes.is_empty() {
            let managers = managers(objects);
            if managers != self.managers {
                sessions.tell_all(&News::Managers(managers.clone()));
                self.managers = managers;
            }
        }
        if touched.cluster
            && let Some(cluster) = objects.cluster()
        {
            sessions.set_period(cluster.spec.heartbeat);
        }
    }
}

/// Everybody who has a seat.
fn managers(objects: &Objects) -> Vec<(NodeId, Member)> {
    objects.nodes().filter_map(|node| Some((node.id, node.manager.clone()?))).collect()
}
