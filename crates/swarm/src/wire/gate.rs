//! What stands before every call: the versions, the caller's role, and whether it is (still) a node.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;
use skep_identity::Role;
use skep_types::NodeId;
use tonic::Status;
use tonic::body::Body;
use tower_service::Service;

use super::proto::authority_server::AuthorityServer;
use super::proto::consensus_server::ConsensusServer;
use super::proto::control_server::ControlServer;
use super::proto::dispatcher_server::DispatcherServer;
use super::serve::{Origin, Served};
use super::{
    AUTHORITY_LIMIT, Answers, CONSENSUS_LIMIT, CONTROL_LIMIT, CallError, FROM_AGENT_LIMIT, OLDEST_VERSION,
    Peer, VERSION, VERSION_HEADER,
};

/// Who may make a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Anybody,
    Node,
    Manager,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    Authority,
    Dispatcher,
    Consensus,
    Control,
}

/// Every call there is. What is not named here is refused.
fn find(path: &str) -> Option<(Room, Access)> {
    Some(match path {
        "/skep.v1.Authority/Root" | "/skep.v1.Authority/Join" => (Room::Authority, Access::Anybody),
        "/skep.v1.Authority/Renew" => (Room::Authority, Access::Node),
        "/skep.v1.Dispatcher/Session" | "/skep.v1.Dispatcher/Guest" => (Room::Dispatcher, Access::Node),
        "/skep.v1.Consensus/Message" => (Room::Consensus, Access::Manager),
        "/skep.v1.Control/Forward"
        | "/skep.v1.Control/Barrier"
        | "/skep.v1.Control/TakeSeat"
        | "/skep.v1.Control/GiveUpSeat" => (Room::Control, Access::Manager),
        _ => return None,
    })
}

/// Serves the calls of one connection.
pub(super) struct Gate<A> {
    answers: Arc<A>,
    from: SocketAddr,
    /// Whom the connection's certificate names.
    caller: Option<(NodeId, Role)>,
}

impl<A: Answers> Gate<A> {
    pub(super) fn new(answers: Arc<A>, from: SocketAddr, caller: Option<(NodeId, Role)>) -> Gate<A> {
        Gate { answers, from, caller }
    }

    fn admit(&self, access: Access) -> Result<Option<Peer>, CallError> {
        let Some((node, role)) = self.caller else {
            return match access {
                Access::Anybody => Ok(None),
                Access::Node | Access::Manager => {
                    Err(CallError::Unauthenticated("this call needs a node's certificate".to_owned()))
                }
            };
        };
        if access != Access::Anybody {
            // A manager that was demoted still asks for its new certificate with the old one.
            let acts_as = if access == Access::Manager { Role::Manager } else { Role::Worker };
            self.answers.admits(node, acts_as).map_err(CallError::Denied)?;
        }
        if access == Access::Manager && role != Role::Manager {
            return Err(CallError::Denied(format!("node {node} is no manager by its certificate")));
        }
        Ok(Some(Peer { address: self.from, node, role }))
    }

    fn check(&self, request: &Request<Incoming>) -> Result<(Room, Option<Peer>), Status> {
        check_version(request.headers().get(VERSION_HEADER))?;
        let (room, access) =
            find(request.uri().path()).ok_or_else(|| Status::unimplemented("there is no such call"))?;
        Ok((room, self.admit(access)?))
    }
}

fn check_version(header: Option<&http::HeaderValue>) -> Result<(), CallError> {
    let spoken = header.and_then(|value| value.to_str().ok()?.parse::<u32>().ok()).unwrap_or(0);
    let problem = if spoken < OLDEST_VERSION {
        "old"
    } else if spoken > VERSION {
        "new"
    } else {
        return Ok(());
    };
    let known = format!("this node speaks {OLDEST_VERSION} to {VERSION}");
    Err(CallError::Version(format!("version too {problem}: the caller speaks protocol {spoken}, {known}")))
}

type Answered = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

impl<A: Answers> hyper::service::Service<Request<Incoming>> for Gate<A> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answered;

    fn call(&self, mut request: Request<Incoming>) -> Answered {
        let (room, peer) = match self.check(&request) {
            Ok(checked) => checked,
            Err(status) => return Box::pin(std::future::ready(Ok(status.into_http()))),
        };
        request.extensions_mut().insert(Origin { from: self.from, peer });
        let served = Served(Arc::clone(&self.answers));
        match room {
            Room::Authority => {
                AuthorityServer::new(served).max_decoding_message_size(AUTHORITY_LIMIT).call(request)
            }
            Room::Dispatcher => {
                DispatcherServer::new(served).max_decoding_message_size(FROM_AGENT_LIMIT).call(request)
            }
            Room::Consensus => {
                ConsensusServer::new(served).max_decoding_message_size(CONSENSUS_LIMIT).call(request)
            }
            Room::Control => {
                ControlServer::new(served).max_decoding_message_size(CONTROL_LIMIT).call(request)
            }
        }
    }
}
