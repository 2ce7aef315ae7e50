//! What the leader tells nodes besides their duties: themselves, who the managers are, and the authority.

use std::collections::BTreeSet;

use skep_cluster::{Change, Objects, Request};
use skep_types::node::{Member, Node, NodeDescription, NodeState};
use skep_types::swarm::ClusterObject;
use skep_types::{NodeId, ServiceId, Version};
use tracing::warn;

use crate::authority::{self, Advance};
use crate::error::chain;
use crate::session::{News, Sessions};

/// What an entry of the log touches that nodes are told of.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Touched {
    nodes: BTreeSet<NodeId>,
    services: bool,
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
            Change::PutService(_) | Change::RemoveService(_) => touched.services = true,
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
    roots: String,
    /// Services whose tasks are measured.
    measured: BTreeSet<ServiceId>,
    /// Nodes that have to renew their certificates.
    renew: BTreeSet<NodeId>,
    /// The version of the cluster for which the end of the root's rotation was asked for already.
    finished: Option<Version>,
}

impl Teller {
    /// A leader that just became one has told nobody anything: sessions begin with everything. Returns what the
    /// rotation of the root waits for, if anything.
    pub(super) fn begin(&mut self, objects: &Objects) -> Option<Request> {
        let measured = objects.autoscaled().clone();
        *self = Teller { managers: managers(objects), measured, ..Teller::default() };
        let cluster = objects.cluster()?;
        self.roots = roots(cluster);
        self.advance(cluster, objects)
    }

    /// Tells a node that opened a session everything.
    pub(super) fn greet(&self, objects: &Objects, sessions: &Sessions, node: NodeId) {
        let Some(known) = objects.node(node) else { return };
        sessions.tell(node, News::Node(Box::new(known.clone())));
        sessions.tell(node, News::Managers(self.managers.clone()));
        sessions.tell(node, self.authority(node));
        if !self.measured.is_empty() {
            sessions.measure(node, &self.measured);
        }
    }

    fn authority(&self, node: NodeId) -> News {
        News::Authority { roots: self.roots.clone(), renew: self.renew.contains(&node) }
    }

    /// Tells those concerned what an entry of the log changed. Returns what the rotation of the root waits for, if
    /// anything.
    pub(super) fn tell(
        &mut self,
        objects: &Objects,
        sessions: &Sessions,
        touched: &Touched,
    ) -> Option<Request> {
        for node in &touched.nodes {
            match objects.node(*node) {
                Some(known) => {
                    if never_came(known) {
                        sessions.expect(*node);
                    }
                    sessions.tell(*node, News::Node(Box::new(known.clone())));
                }
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
        if touched.services && *objects.autoscaled() != self.measured {
            self.measured.clone_from(objects.autoscaled());
            sessions.measure_all(&self.measured);
        }
        let cluster = objects.cluster()?;
        if touched.cluster {
            sessions.set_period(cluster.spec.heartbeat);
        }
        if !touched.cluster && (touched.nodes.is_empty() || cluster.authority.rotation.is_none()) {
            return None;
        }
        let roots = roots(cluster);
        let all = self.roots != roots;
        self.roots = roots;
        let before = std::mem::take(&mut self.renew);
        let request = self.advance(cluster, objects);
        for node in objects.nodes().map(|node| node.id) {
            if all || (self.renew.contains(&node) && !before.contains(&node)) {
                sessions.tell(node, self.authority(node));
            }
        }
        request
    }

    /// Looks how far the rotation of the root has come.
    fn advance(&mut self, cluster: &ClusterObject, objects: &Objects) -> Option<Request> {
        match authority::advance(cluster, objects.nodes()) {
            Ok(Advance::Idle) => None,
            Ok(Advance::Renew(nodes)) => {
                self.renew = nodes.into_iter().collect();
                None
            }
            Ok(Advance::Finish(request)) => {
                let asked = self.finished.replace(cluster.meta.version) == Some(cluster.meta.version);
                (!asked).then_some(*request)
            }
            Err(error) => {
                warn!(%error, "the rotation of the cluster's root does not go on");
                None
            }
        }
    }
}

/// Whether a node was let in and has not been heard of since: its first session is where it tells of itself.
pub(super) fn never_came(node: &Node) -> bool {
    node.state != NodeState::Ready && node.manager.is_none() && node.description == NodeDescription::default()
}

/// The roots that nodes trust now. Those of a cluster without an authority are none.
fn roots(cluster: &ClusterObject) -> String {
    authority::roots(&cluster.authority).unwrap_or_else(|error| {
        warn!(error = chain(&error), "the cluster's roots cannot be read");
        String::new()
    })
}

/// Everybody who has a seat.
fn managers(objects: &Objects) -> Vec<(NodeId, Member)> {
    objects.nodes().filter_map(|node| Some((node.id, node.manager.clone()?))).collect()
}
