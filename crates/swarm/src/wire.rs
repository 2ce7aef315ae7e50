//! What nodes say to each other on port 2377: gRPC over mutual TLS.
//!
//! [`Listener`] answers and [`Connections`] asks; both translate between protobuf and the types here, and
//! decide nothing. Who is asked is on every call held against the caller's certificate and against
//! [`Answers::admits`], before anything of the call is looked at.

mod answers;
mod calls;
mod client;
mod server;

pub(crate) use answers::Answers;
pub(crate) use calls::{
    Barrier, CallError, JoinAnswer, JoinCall, Peer, RaftId, RenewAnswer, RenewCall, SeatCall,
};
pub(crate) use client::Connections;
pub(crate) use server::Listener;

/// Stands in for `skep_identity::Credentials` until that is there.
#[derive(Clone, Debug)]
pub(crate) struct Credentials;
