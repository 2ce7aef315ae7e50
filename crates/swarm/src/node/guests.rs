//! What the managers are told of this node's guests: containers that are no tasks, on networks of the cluster.

use super::shared::Shared;
use crate::SwarmError;
use crate::wire::{CallError, GuestAnswer, GuestCall};

impl Shared {
    /// Asks the leader with this node's certificate, which says whose containers it is about.
    pub(crate) async fn ask_about_guests(&self, call: GuestCall) -> Result<GuestAnswer, SwarmError> {
        let _together = self.guests.read().await;
        self.tell_of_guests(call).await
    }

    /// Takes all containers of this node off their networks that are guests no longer: those that went without a word
    /// while the daemon was down.
    pub(crate) async fn keep_guests(&self) -> Result<(), SwarmError> {
        // Nobody arrives between the count and the word: he would be taken for one who left.
        let _alone = self.guests.write().await;
        self.tell_of_guests(GuestCall::Keep(self.engine.guests())).await.map(drop)
    }

    async fn tell_of_guests(&self, call: GuestCall) -> Result<GuestAnswer, SwarmError> {
        let own = match self.office() {
            Some(office) => office.desk.serve_guest(self.node(), call.clone()).await,
            None => Err(CallError::NotLeader { leader: None }),
        };
        let answer = match own {
            Err(CallError::NotLeader { leader }) => {
                self.managers.follow(leader);
                let ask = |address: String| {
                    let (connections, call) = (self.connections.clone(), call.clone());
                    async move { connections.guest(&address, &call).await }
                };
                self.managers.ask_leader(ask).await
            }
            own => own,
        };
        answer.map_err(SwarmError::from)
    }
}
