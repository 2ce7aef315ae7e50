//! Asking other nodes.

use bytes::Bytes;
use skep_cluster::{Answer, Request};
use skep_identity::JoinToken;

use super::Credentials;
use super::calls::{Barrier, CallError, JoinAnswer, JoinCall, RenewAnswer, RenewCall, SeatCall};
use crate::session::{Hello, Link};

/// Connections to managers, one for each address, made when first used and kept. Clones share them.
///
/// A call to a manager that is gone fails at once with [`CallError::Unreachable`], and the next one tries to
/// connect anew. Addresses are `host:port`.
#[derive(Clone, Debug)]
pub(crate) struct Connections {
    _credentials: Credentials,
}

impl Connections {
    /// No connections yet. New ones are made with what `credentials` holds at that time.
    pub(crate) fn new(credentials: Credentials) -> Connections {
        Connections { _credentials: credentials }
    }

    /// Fetches the cluster's root from a manager that is not trusted yet, and holds it against the token's digest.
    /// No secret is sent.
    pub(crate) async fn fetch_root(_address: &str, _token: &JoinToken) -> Result<String, CallError> {
        todo!()
    }

    /// Asks a manager, verified against the `root` that [`Connections::fetch_root`] gave, to be let in.
    pub(crate) async fn join(_address: &str, _root: &str, _call: JoinCall) -> Result<JoinAnswer, CallError> {
        todo!()
    }

    /// Hands a join that came to a follower on to the leader.
    pub(crate) async fn pass_join_on(
        &self,
        _address: &str,
        _call: JoinCall,
    ) -> Result<JoinAnswer, CallError> {
        todo!()
    }

    /// Asks for a new certificate of this node.
    pub(crate) async fn renew(&self, _address: &str, _call: RenewCall) -> Result<RenewAnswer, CallError> {
        todo!()
    }

    /// Sends a message of the consensus.
    pub(crate) async fn consensus(&self, _address: &str, _message: Bytes) -> Result<Bytes, CallError> {
        todo!()
    }

    /// Has the leader do what a user of this manager asked.
    pub(crate) async fn forward(&self, _address: &str, _request: &Request) -> Result<Answer, CallError> {
        todo!()
    }

    /// Asks the leader for a point to read at.
    pub(crate) async fn barrier(&self, _address: &str) -> Result<Barrier, CallError> {
        todo!()
    }

    /// Asks the leader for a seat in the consensus.
    pub(crate) async fn take_seat(&self, _address: &str, _call: SeatCall) -> Result<(), CallError> {
        todo!()
    }

    /// Tells the leader that this node gives up its seat.
    pub(crate) async fn give_up_seat(&self, _address: &str) -> Result<(), CallError> {
        todo!()
    }

    /// Opens a session with the leader.
    pub(crate) async fn session(&self, _address: &str, _hello: Hello) -> Result<Link, CallError> {
        todo!()
    }
}
