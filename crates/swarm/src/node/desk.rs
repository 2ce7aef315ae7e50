//! What this node answers as a manager.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use skep_cluster::{Answer, Request};
use skep_identity::Role;
use skep_types::NodeId;
use skep_types::network::Network;
use skep_types::node::NodeRole;
use skep_types::swarm::ClusterObject;

use super::shared::Shared;
use crate::SwarmError;
use crate::authority::{self, Certified, Signer};
use crate::founding::random;
use crate::lookup::find;
use crate::manager::{Manager, NO_LEADER};
use crate::session::{Hello, Link};
use crate::wire::{
    Answers, Barrier, CallError, GuestAnswer, GuestCall, JoinAnswer, JoinCall, Peer, RenewAnswer, RenewCall,
    SeatCall,
};

/// The answers of one manager.
#[derive(Debug)]
pub(crate) struct Desk {
    shared: Arc<Shared>,
    manager: Manager,
}

impl Desk {
    /// Answers with this manager.
    pub(crate) fn new(shared: Arc<Shared>, manager: Manager) -> Desk {
        Desk { shared, manager }
    }

    fn not_leader(&self) -> CallError {
        CallError::NotLeader { leader: self.manager.leader() }
    }

    /// The cluster, where this manager leads.
    fn led(&self) -> Result<ClusterObject, CallError> {
        let cluster = self.manager.leads().then(|| self.manager.read(|objects| objects.cluster().cloned()));
        cluster.flatten().ok_or_else(|| self.not_leader())
    }

    /// Gives a node of the cluster a certificate in the role that the cluster wants of it. The certificate of a
    /// manager is taken away only after its seat.
    pub(crate) async fn certify(&self, node: NodeId, call: RenewCall) -> Result<RenewAnswer, CallError> {
        let cluster = self.led()?;
        let found = self.manager.read(|objects| objects.node(node).cloned());
        let Some(found) = found else { return Err(removed(node)) };
        let signer = Signer::of(&cluster, &self.shared.credentials)?;
        let Certified { chain, roots } =
            signer.sign(&call.csr, node, found.spec.role, SystemTime::now()).await?;
        Ok(RenewAnswer { chain, roots })
    }

    async fn let_in(&self, from: SocketAddr, call: JoinCall) -> Result<JoinAnswer, CallError> {
        let cluster = self.led()?;
        let role = authority::admit(&cluster, &call.token)?;
        let node =
            authority::new_node(NodeId(u128::from_be_bytes(random()?)), role, call.availability, from.ip());
        let id = node.id;
        let signer = Signer::of(&cluster, &self.shared.credentials)?;
        let Certified { chain, roots } = signer.sign(&call.csr, id, role, SystemTime::now()).await?;
        self.manager.handle(Request::AddNode(Box::new(node))).await?;
        Ok(JoinAnswer { node: id, chain, roots })
    }
}

impl Desk {
    /// Does what a node asks about its own containers that are no tasks, where this manager leads.
    pub(crate) async fn serve_guest(&self, node: NodeId, call: GuestCall) -> Result<GuestAnswer, CallError> {
        if !self.manager.leads() {
            return Err(self.not_leader());
        }
        let request = match call {
            GuestCall::Attach { container, network, names, address } => {
                let found = self.manager.read(|objects| {
                    let networks: Vec<&Network> = objects.networks().collect();
                    find("network", &network, networks.iter(), |it| it.id, |it| it.name.clone())
                        .map(|network| network.id)
                });
                Request::Attach { node, container, network: found?, names, address }
            }
            GuestCall::Detach { container, network } => Request::Detach { node, container, network },
            GuestCall::Keep(guests) => Request::KeepGuests { node, guests },
        };
        let on = match &request {
            Request::Attach { network, .. } => Some(*network),
            _ => None,
        };
        match (self.manager.handle(request).await?, on) {
            (Answer::Attached(address), Some(network)) => Ok(Some((network, address))),
            _ => Ok(None),
        }
    }
}

fn removed(node: NodeId) -> CallError {
    CallError::Denied(format!("node {node} is not part of the swarm: it was removed, or never joined"))
}

impl Answers for Desk {
    fn admits(&self, node: NodeId, role: Role) -> Result<(), String> {
        self.manager.read(|objects| {
            // Just let in, it holds nothing yet.
            if objects.cluster().is_none() {
                return Ok(());
            }
            let Some(found) = objects.node(node) else { return Err(removed(node).to_string()) };
            // One that is being demoted keeps its word while it has its seat.
            let manager = found.spec.role == NodeRole::Manager || found.manager.is_some();
            match role {
                Role::Manager if !manager => Err(format!("node {node} is not a manager any more")),
                Role::Manager | Role::Worker => Ok(()),
            }
        })
    }

    async fn root(&self) -> Result<String, CallError> {
        let root = self.manager.read(|objects| Some(objects.cluster()?.authority.certificate.clone()));
        Ok(root.unwrap_or_else(|| self.shared.credentials.trust().pem().to_owned()))
    }

    async fn join(&self, from: SocketAddr, call: JoinCall) -> Result<JoinAnswer, CallError> {
        match self.let_in(from, call.clone()).await {
            Err(CallError::NotLeader { leader: Some(leader) }) => {
                self.shared.connections.pass_join_on(&leader, call).await
            }
            answer => answer,
        }
    }

    async fn renew(&self, peer: Peer, call: RenewCall) -> Result<RenewAnswer, CallError> {
        self.certify(peer.node, call).await
    }

    async fn consensus(&self, _peer: Peer, message: Bytes) -> Result<Bytes, CallError> {
        self.manager.receive(message).await
    }

    async fn forward(&self, _peer: Peer, request: Request) -> Result<Answer, CallError> {
        self.manager.handle(request).await
    }

    async fn barrier(&self, _peer: Peer) -> Result<Barrier, CallError> {
        self.manager.give_barrier().await
    }

    async fn take_seat(&self, peer: Peer, call: SeatCall) -> Result<(), CallError> {
        self.manager.give_seat(peer.node, call).await
    }

    async fn give_up_seat(&self, peer: Peer) -> Result<(), CallError> {
        self.manager.take_seat_back(peer.node).await
    }

    async fn guest(&self, peer: Peer, call: GuestCall) -> Result<GuestAnswer, CallError> {
        self.serve_guest(peer.node, call).await
    }

    async fn session(&self, peer: Peer, hello: Hello) -> Result<Link, CallError> {
        if self.manager.read(|objects| objects.cluster().is_some() && objects.node(peer.node).is_none()) {
            return Err(removed(peer.node));
        }
        self.manager.open_session(peer.node, hello).await
    }
}

impl From<SwarmError> for CallError {
    fn from(error: SwarmError) -> CallError {
        CallError::Refused(error)
    }
}

impl From<CallError> for SwarmError {
    fn from(error: CallError) -> SwarmError {
        match error {
            CallError::Refused(error) => error,
            CallError::NotLeader { .. } => SwarmError::Unavailable(NO_LEADER.to_owned()),
            // What was asked makes no sense to the others, here and now.
            CallError::Unauthenticated(_) | CallError::Denied(_) | CallError::Version(_) => {
                SwarmError::InvalidParameter(error.to_string())
            }
            CallError::Unreachable(_) | CallError::Lost(_) => SwarmError::Unavailable(error.to_string()),
        }
    }
}
