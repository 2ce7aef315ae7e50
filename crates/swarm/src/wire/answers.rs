//! What a manager has to be able to answer.

use std::future::Future;
use std::net::SocketAddr;

use bytes::Bytes;
use skep_cluster::{Answer, Request};
use skep_identity::Role;
use skep_types::NodeId;

use super::calls::{
    Barrier, CallError, GuestAnswer, GuestCall, JoinAnswer, JoinCall, Peer, RenewAnswer, RenewCall, SeatCall,
};
use crate::session::{Hello, Link};

/// A manager's answers. An implementor may write each method as `async fn`.
///
/// A call is cut off when its caller goes away: what must not stop half-way has to run in a task of its own.
pub(crate) trait Answers: Send + Sync + 'static {
    /// Whether `node` is a node of the cluster (still) that may act as `role`, which the call asks for;
    /// otherwise why not. Asked before every call but `root` and `join`, so it must be quick. A manager that holds
    /// no state yet, because it has just been let in, admits all whose certificate is the cluster's.
    fn admits(&self, node: NodeId, role: Role) -> Result<(), String>;

    /// The cluster's root certificate, PEM. For anybody.
    fn root(&self) -> impl Future<Output = Result<String, CallError>> + Send;

    /// Lets a machine in. For anybody: the token is the only proof. A follower passes it on to the leader.
    fn join(
        &self,
        from: SocketAddr,
        call: JoinCall,
    ) -> impl Future<Output = Result<JoinAnswer, CallError>> + Send;

    /// Gives a node a new certificate. For every node.
    fn renew(
        &self,
        peer: Peer,
        call: RenewCall,
    ) -> impl Future<Output = Result<RenewAnswer, CallError>> + Send;

    /// Takes a message of another member of the consensus. For managers.
    fn consensus(&self, peer: Peer, message: Bytes) -> impl Future<Output = Result<Bytes, CallError>> + Send;

    /// Does for another manager what one of its users asked. For managers; leader only.
    fn forward(&self, peer: Peer, request: Request)
    -> impl Future<Output = Result<Answer, CallError>> + Send;

    /// Gives a point to read at. For managers; leader only.
    fn barrier(&self, peer: Peer) -> impl Future<Output = Result<Barrier, CallError>> + Send;

    /// Gives a manager a seat. For managers; leader only.
    fn take_seat(&self, peer: Peer, call: SeatCall) -> impl Future<Output = Result<(), CallError>> + Send;

    /// Takes the caller's seat back. For managers; leader only.
    fn give_up_seat(&self, peer: Peer) -> impl Future<Output = Result<(), CallError>> + Send;

    /// Does what a node asks about its own containers that are no tasks. For every node; leader only.
    fn guest(
        &self,
        peer: Peer,
        call: GuestCall,
    ) -> impl Future<Output = Result<GuestAnswer, CallError>> + Send;

    /// Opens a session of a node's agent: [`crate::session::Sessions::open`]. For every node; leader only.
    fn session(&self, peer: Peer, hello: Hello) -> impl Future<Output = Result<Link, CallError>> + Send;
}
