//! What nodes say to each other on port 2377: gRPC over mutual TLS.
//!
//! [`Listener`] answers and [`Connections`] asks; both translate between protobuf and the types here, and
//! decide nothing. Who is asked is on every call held against the caller's certificate and against
//! [`Answers::admits`], before anything of the call is looked at.

mod answers;
mod calls;
mod channel;
mod client;
mod gate;
mod places;
mod pool;
mod serve;
mod server;
mod status;
mod translate;

#[expect(clippy::all, clippy::allow_attributes, reason = "it is generated")]
mod proto {
    tonic::include_proto!("skep.v1");
}

pub(crate) use answers::Answers;
pub(crate) use calls::{
    Barrier, CallError, GuestAnswer, GuestCall, JoinAnswer, JoinCall, Peer, RenewAnswer, RenewCall, SeatCall,
};
pub(crate) use client::Connections;
pub(crate) use server::Listener;

/// The header that says which version of the protocol a caller speaks.
const VERSION_HEADER: &str = "skep-protocol";
/// The version spoken here.
const VERSION: u32 = 1;
/// The oldest version that is still answered.
const OLDEST_VERSION: u32 = 1;

/// A machine that is no node yet, or a node that asks about certificates: a token, a request, a chain.
const AUTHORITY_LIMIT: usize = 64 * 1024;
/// A request to the cluster: configurations of services, at most.
const CONTROL_LIMIT: usize = 8 * 1024 * 1024;
/// Entries of the log, and parts of snapshots.
const CONSENSUS_LIMIT: usize = 64 * 1024 * 1024;
/// Reports of an agent.
const FROM_AGENT_LIMIT: usize = 8 * 1024 * 1024;
/// All duties of a node.
const TO_AGENT_LIMIT: usize = 64 * 1024 * 1024;
/// Words of one side of a session that wait for the other in one process; more than one wait in the connection.
const SESSION_QUEUE: usize = 16;

#[cfg(test)]
mod tests;
