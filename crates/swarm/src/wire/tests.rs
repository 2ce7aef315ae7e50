//! Calls between nodes over the loopback interface.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod calls;
mod hostile;
mod sessions;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use skep_cluster::{Answer, Request};
use skep_identity::{Credentials, JoinToken, Role, RootCa, Trust};
use skep_types::node::{Availability, NodeDescription};
use skep_types::{NodeId, ServiceId};
use tokio::sync::mpsc;

use super::*;
use crate::SwarmError;
use crate::manager::Input;
use crate::session::{Hello, Link, Sessions};

const HOUR: Duration = Duration::from_secs(3600);
const BEAT: Duration = Duration::from_millis(200);
/// No wait of these tests is longer.
const LIMIT: Duration = Duration::from_secs(15);

const MANAGER: NodeId = NodeId(1);
const OTHER: NodeId = NodeId(2);
const WORKER: NodeId = NodeId(3);

fn issue(root: &RootCa, node: NodeId, role: Role, now: SystemTime) -> Credentials {
    let issued = root.issue(&node.to_string(), role, "cluster", now, HOUR).unwrap();
    Credentials::unverified(issued, Trust::parse(root.certificate_pem()).unwrap()).unwrap()
}

/// Answers as a leader would, and remembers who asked.
struct Desk {
    root: String,
    sessions: Sessions,
    removed: Mutex<BTreeSet<NodeId>>,
    asked: Mutex<Vec<(NodeId, Role)>>,
}

impl Answers for Desk {
    fn admits(&self, node: NodeId, role: Role) -> Result<(), String> {
        self.asked.lock().unwrap().push((node, role));
        let removed = self.removed.lock().unwrap().contains(&node);
        if removed { Err(format!("node {node} is not in the cluster")) } else { Ok(()) }
    }

    async fn root(&self) -> Result<String, CallError> {
        Ok(self.root.clone())
    }

    async fn guest(&self, peer: Peer, call: GuestCall) -> Result<GuestAnswer, CallError> {
        let GuestCall::Attach { address, .. } = call else { return Ok(None) };
        // Whose containers it is about is nobody's word but the certificate's.
        Ok(address.map(|address| (skep_types::NetworkId(peer.node.0), address)))
    }

    async fn join(&self, from: SocketAddr, call: JoinCall) -> Result<JoinAnswer, CallError> {
        assert!(from.ip().is_loopback());
        let chain = format!("{} {} {:?}", call.token, call.csr, call.availability);
        Ok(JoinAnswer { node: WORKER, chain, roots: self.root.clone() })
    }

    async fn renew(&self, peer: Peer, call: RenewCall) -> Result<RenewAnswer, CallError> {
        Ok(RenewAnswer { chain: format!("{} {}", peer.node, call.csr), roots: self.root.clone() })
    }

    async fn consensus(&self, _: Peer, message: Bytes) -> Result<Bytes, CallError> {
        Ok(message)
    }

    async fn forward(&self, _: Peer, request: Request) -> Result<Answer, CallError> {
        match request {
            Request::RemoveService(service) => Ok(Answer::Service(service)),
            _ => Err(CallError::Refused(SwarmError::Conflict("name conflicts".to_owned()))),
        }
    }

    async fn barrier(&self, _: Peer) -> Result<Barrier, CallError> {
        Ok(Barrier { index: 7, leader: u64::MAX, reachable: BTreeSet::from([1, u64::MAX]) })
    }

    async fn take_seat(&self, _: Peer, call: SeatCall) -> Result<(), CallError> {
        assert_eq!(call, SeatCall { raft: 9, address: "192.0.2.9:2377".to_owned() });
        Ok(())
    }

    async fn give_up_seat(&self, _: Peer) -> Result<(), CallError> {
        Err(CallError::NotLeader { leader: Some("192.0.2.1:2377".to_owned()) })
    }

    async fn session(&self, peer: Peer, hello: Hello) -> Result<Link, CallError> {
        self.sessions.open(peer.node, hello).await
    }
}

/// A manager that leads, and what its brain would be told.
struct Scene {
    root: RootCa,
    desk: Arc<Desk>,
    credentials: Credentials,
    listener: Listener,
    inputs: mpsc::Receiver<Input>,
}

impl Scene {
    async fn new() -> Scene {
        let root = RootCa::generate(SystemTime::now()).unwrap();
        let credentials = issue(&root, MANAGER, Role::Manager, SystemTime::now());
        let (sender, inputs) = mpsc::channel(64);
        let sessions = Sessions::new(sender);
        sessions.lead(BEAT, []);
        let desk = Arc::new(Desk {
            root: root.certificate_pem().to_owned(),
            sessions,
            removed: Mutex::default(),
            asked: Mutex::default(),
        });
        let any = "127.0.0.1:0".parse().unwrap();
        let listener = Listener::start(any, credentials.clone(), Arc::clone(&desk)).await.unwrap();
        Scene { root, desk, credentials, listener, inputs }
    }

    fn address(&self) -> String {
        self.listener.address().to_string()
    }

    fn of(&self, node: NodeId, role: Role) -> Connections {
        Connections::new(issue(&self.root, node, role, SystemTime::now()))
    }

    /// Listens again where it did.
    async fn restart(&mut self) {
        let address = self.listener.address();
        let answers = Arc::clone(&self.desk);
        self.listener = Listener::start(address, self.credentials.clone(), answers).await.unwrap();
    }
}

fn hello() -> Hello {
    let description = NodeDescription { hostname: "worker".to_owned(), ..NodeDescription::default() };
    Hello { description, address: "192.0.2.3".parse().unwrap(), data_path: None }
}

fn join_call() -> JoinCall {
    JoinCall { token: "token".to_owned(), csr: "csr".to_owned(), availability: Availability::Drain }
}

/// Waits until `holds`, with a bound.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LIMIT, wait).await.unwrap_or_else(|_| panic!("{what} within {LIMIT:?}"));
}

fn token(root: &RootCa) -> JoinToken {
    JoinToken::new(root.certificate_pem(), [1; 16])
}

fn service() -> ServiceId {
    ServiceId(5)
}
