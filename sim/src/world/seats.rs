//! Managers that are made and unmade.

use skep_cluster::{Request, SeatStep};

use super::World;

impl World {
    /// A manager's brain asks for a change of the consensus' members.
    pub(super) fn change_seat(&mut self, manager: usize, step: SeatStep) {
        let SeatStep::Remove { node, raft } = step;
        let _ = (manager, node, raft);
        let _: Option<Request> = None;
    }
}
