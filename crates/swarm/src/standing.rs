//! How this node stands in its swarm: `docker info`, and whether it may leave.

use skep_types::NodeId;

use crate::manager::NO_LEADER;
use crate::status::{NodeView, Reachability};
use crate::swarm::Membership;
use crate::{LocalState, Swarm, SwarmError, SwarmInfo};

// Moby's words (daemon/cluster/swarm.go, `Leave`).
const LEAVING: &str = "You are attempting to leave the swarm on a node that is participating as a manager. ";
const LAST: &str =
    "Removing the last manager erases all current state of the swarm. Use `--force` to ignore this message. ";
const BROKEN: &str = "Doing so may lose the consensus of your cluster. ";
const RESTORE: &str = "The only way to restore a swarm that has lost consensus is to reinitialize it with \
                       `--force-new-cluster`. Use `--force` to suppress this message.";
const LOCKED: &str =
    "Swarm is encrypted and locked. Please unlock it first or use `--force` to ignore this message.";

/// Refuses to leave without `--force`.
pub(crate) fn refuse_leave(membership: &Membership) -> Result<(), SwarmError> {
    let unavailable = |message: String| Err(SwarmError::Unavailable(message));
    match membership {
        Membership::None | Membership::Joining(_) => Ok(()),
        Membership::Locked(_) => unavailable(LOCKED.to_owned()),
        Membership::Broken(_) => unavailable(format!("{LEAVING}{BROKEN}{RESTORE}")),
        Membership::Active(resident) => match resident.shared.office() {
            None => Ok(()),
            Some(office) => {
                let led = office.manager.leads() || office.manager.leader().is_some();
                unavailable(refusal(led.then(|| office.manager.managers()).as_deref()))
            }
        },
    }
}

/// Why a manager should not leave; `managers` is `None` where there is no leader.
fn refusal(managers: Option<&[NodeView]>) -> String {
    let Some(managers) = managers else { return format!("{LEAVING}{BROKEN}{RESTORE}") };
    let count = |wanted: Reachability| {
        managers
            .iter()
            .filter_map(|view| view.manager.as_ref())
            .filter(|it| it.reachability == wanted)
            .count()
    };
    // A follower knows of a leader, and does not ask it for whom that one reaches.
    let reachable = count(Reachability::Reachable) + count(Reachability::Unknown);
    let unreachable = count(Reachability::Unreachable);
    // Moby's `removingManagerCausesLossOfQuorum` and `isLastManager`.
    let loses_quorum = reachable <= unreachable + 2;
    if loses_quorum && (reachable, unreachable) == (1, 0) {
        return format!("{LEAVING}{LAST}");
    }
    let warning = if loses_quorum {
        let (left, all) = (reachable.saturating_sub(1), reachable + unreachable);
        format!(
            "Removing this node leaves {left} managers out of {all}. Without a Raft quorum your swarm will be \
             inaccessible. "
        )
    } else {
        String::new()
    };
    format!("{LEAVING}{warning}{RESTORE}")
}

impl Swarm {
    /// The `Swarm` part of `docker info`. Asks nobody and never fails.
    pub fn info(&self) -> SwarmInfo {
        let mut info = SwarmInfo {
            state: LocalState::Inactive,
            node_id: self.own_id(),
            node_addr: String::new(),
            control_available: false,
            error: String::new(),
            remote_managers: Vec::new(),
            nodes: 0,
            managers: 0,
            cluster: None,
        };
        match self.membership() {
            Membership::None => {}
            Membership::Joining(_) => info.state = LocalState::Pending,
            Membership::Locked(record) => {
                info.state = LocalState::Locked;
                info.node_addr = record.address.to_string();
            }
            Membership::Broken(reason) => {
                info.state = LocalState::Error;
                info.error = reason;
            }
            Membership::Active(resident) => {
                let shared = &resident.shared;
                let trouble = shared.trouble();
                info.state = if trouble.is_some() { LocalState::Error } else { LocalState::Active };
                info.error = trouble.unwrap_or_default();
                info.node_addr = shared.record().address.to_string();
                info.remote_managers = shared.managers.all();
                if let Some(office) = shared.office() {
                    self.tell_of_cluster(&office.manager, &mut info);
                }
            }
        }
        info
    }

    fn tell_of_cluster(&self, manager: &crate::manager::Manager, info: &mut SwarmInfo) {
        let seats = manager.read(|objects| {
            info.cluster = objects.cluster().cloned();
            info.nodes = objects.nodes().count();
            let seats: Vec<(NodeId, String)> = objects
                .nodes()
                .filter_map(|node| Some((node.id, node.manager.as_ref()?.address.clone())))
                .collect();
            seats
        });
        info.managers = seats.len();
        info.control_available = info.cluster.is_some();
        info.remote_managers = seats;
        if let Some(trouble) = manager.trouble() {
            info.control_available = false;
            info.error = trouble;
        } else if !manager.leads() && manager.leader().is_none() {
            info.error = NO_LEADER.to_owned();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{ManagerStatus, tests};

    fn manager(reachability: Reachability) -> NodeView {
        let manager = ManagerStatus { leads: false, reachability, address: String::new() };
        NodeView { node: tests::manager(None), manager: Some(manager) }
    }

    #[test]
    fn leaving_is_refused_in_moby_s_words() {
        let told = |reachable: usize, unreachable: usize| {
            let all = std::iter::repeat_n(Reachability::Reachable, reachable)
                .chain(std::iter::repeat_n(Reachability::Unreachable, unreachable));
            refusal(Some(&all.map(manager).collect::<Vec<_>>()))
        };
        assert!(told(1, 0).ends_with("Use `--force` to ignore this message. "));
        assert!(told(2, 0).contains("Removing this node leaves 1 managers out of 2. "));
        assert!(told(2, 1).contains("Removing this node leaves 1 managers out of 3. "));
        assert_eq!(told(3, 0), format!("{LEAVING}{RESTORE}"));
        assert!(refusal(None).contains("may lose the consensus"));
    }
}
