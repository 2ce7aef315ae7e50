//! The user: asks for things, and remembers what was acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use skep_cluster::{Answer, Refusal, RefusalKind, Request, RequestId};
use skep_types::service::{Service, ServiceSpec};
use skep_types::{ContainerId, NetworkId, NodeId, ServiceId};

mod labels;
mod wishes;

pub(crate) use labels::{Scaling, depends_on, scaling, schedule, unscheduled};

/// What the user may rely on for a service.
#[derive(Clone, Debug)]
pub(crate) struct Promise {
    /// The newest specification that was acknowledged.
    pub spec: ServiceSpec,
    pub removal: Removal,
}

/// What is known of a service's removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Removal {
    No,
    Unknown,
    Acknowledged,
}

/// What a user was told is done.
#[derive(Clone, Debug)]
pub(crate) enum Granted {
    /// The service has this specification, or had it.
    Spec(ServiceId, Box<ServiceSpec>),
    /// The service is gone.
    Removal(ServiceId),
    /// The network is there.
    Network(NetworkId),
    /// It is gone.
    NetworkRemoval(NetworkId),
    /// A guest of a node is let onto a network.
    Attached { node: NodeId, container: ContainerId, network: NetworkId, address: Ipv4Addr },
    /// It has left it.
    Detached { node: NodeId, container: ContainerId, network: NetworkId },
    /// The managers know which guests a node has.
    Kept { node: NodeId },
}

/// The user's memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct User {
    /// What is asked, and of which manager.
    open: BTreeMap<RequestId, (usize, Request)>,
    next: u64,
    /// The most replicas that a service is asked for.
    most: u64,
    pub promises: BTreeMap<ServiceId, Promise>,
    /// Names of services that may or may not have been created.
    pub perhaps_created: BTreeSet<String>,
    /// The networks that were acknowledged.
    pub networks: BTreeMap<NetworkId, Removal>,
    pub perhaps_networks: BTreeSet<String>,
}

impl User {
    /// A user of a cluster of so many nodes.
    pub fn new(nodes: usize) -> User {
        User { most: (nodes as u64 / 4).max(8), ..User::default() }
    }

    /// Registers a request as asked of a manager.
    pub fn ask(&mut self, manager: usize, request: Request) -> (RequestId, Request) {
        self.next += 1;
        let id = RequestId(self.next);
        self.open.insert(id, (manager, request.clone()));
        (id, request)
    }

    /// Takes in an answer. Gives what was granted, if it can be checked.
    pub fn answered(&mut self, id: RequestId, result: &Result<Answer, Refusal>) -> Option<Granted> {
        let (_, request) = self.open.remove(&id)?;
        match result {
            Ok(answer) => self.granted(request, *answer),
            Err(refusal) => {
                if refusal.kind == RefusalKind::Unavailable {
                    self.fate_unknown(request);
                }
                None
            }
        }
    }

    /// A manager died: nobody will answer what it was asked.
    pub fn unanswered(&mut self, manager: usize) {
        let ids = self.open.iter().filter(|(_, (asked, _))| *asked == manager).map(|(id, _)| *id);
        for id in ids.collect::<Vec<_>>() {
            if let Some((_, request)) = self.open.remove(&id) {
                self.fate_unknown(request);
            }
        }
    }

    /// Whether a node waits for an answer about its guests.
    pub fn asks_of_guests(&self, id: NodeId) -> bool {
        self.open.values().any(|(_, request)| about_guests_of(request) == Some(id))
    }

    /// Nobody waits for answers about a node's guests any more.
    pub fn forget_guests(&mut self, id: NodeId) {
        self.open.retain(|_, (_, request)| about_guests_of(request) != Some(id));
    }

    /// A flawed manager says that a service is as asked. Gives whether anybody asked for that.
    pub fn believe(&mut self, manager: usize, service: &Service) -> bool {
        let asks = |request: &Request| match request {
            Request::CreateService(spec) => **spec == service.spec,
            Request::UpdateService { id, spec, .. } => *id == service.id && **spec == service.spec,
            _ => false,
        };
        let asked = self.open.iter().find(|(_, (of, request))| *of == manager && asks(request));
        let Some(id) = asked.map(|(id, _)| *id) else { return false };
        self.answered(id, &Ok(Answer::Service(service.id))).is_some()
    }

    fn granted(&mut self, request: Request, answer: Answer) -> Option<Granted> {
        match (request, answer) {
            (Request::CreateService(spec), Answer::Service(id)) => {
                let promise = Promise { spec: *spec.clone(), removal: Removal::No };
                self.promises.insert(id, promise);
                Some(Granted::Spec(id, spec))
            }
            (Request::UpdateService { id, spec, .. }, _) => {
                if let Some(promise) = self.promises.get_mut(&id) {
                    promise.spec = *spec.clone();
                }
                Some(Granted::Spec(id, spec))
            }
            (Request::RemoveService(id), _) => {
                if let Some(promise) = self.promises.get_mut(&id) {
                    promise.removal = Removal::Acknowledged;
                }
                Some(Granted::Removal(id))
            }
            (Request::CreateNetwork(_), Answer::Network(id)) => {
                self.networks.insert(id, Removal::No);
                Some(Granted::Network(id))
            }
            (Request::RemoveNetwork(id), _) => {
                self.networks.insert(id, Removal::Acknowledged);
                Some(Granted::NetworkRemoval(id))
            }
            (Request::Attach { node, container, network, .. }, Answer::Attached(address)) => {
                Some(Granted::Attached { node, container, network, address })
            }
            (Request::Detach { node, container, network }, _) => {
                Some(Granted::Detached { node, container, network })
            }
            (Request::KeepGuests { node, .. }, _) => Some(Granted::Kept { node }),
            _ => None,
        }
    }

    fn fate_unknown(&mut self, request: Request) {
        match request {
            Request::CreateService(spec) => {
                self.perhaps_created.insert(spec.name);
            }
            Request::RemoveService(id) => {
                if let Some(promise) = self.promises.get_mut(&id)
                    && promise.removal == Removal::No
                {
                    promise.removal = Removal::Unknown;
                }
            }
            Request::CreateNetwork(spec) => drop(self.perhaps_networks.insert(spec.name)),
            Request::RemoveNetwork(id) => {
                let removal = self.networks.entry(id).or_insert(Removal::Unknown);
                if *removal == Removal::No {
                    *removal = Removal::Unknown;
                }
            }
            _ => {}
        }
    }
}

/// The node that a request about guests is from.
fn about_guests_of(request: &Request) -> Option<NodeId> {
    match request {
        Request::Attach { node, .. } | Request::Detach { node, .. } | Request::KeepGuests { node, .. } => {
            Some(*node)
        }
        _ => None,
    }
}
