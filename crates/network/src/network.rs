//! The one handle that callers hold.

use std::path::PathBuf;

use crate::error::{KernelError, LinkError, OpenError, PublishError};
use crate::model::{Bridge, Config, Desired, Endpoint, Publication, PublicationKey, Report};

/// The network of one daemon, in the network namespace of the thread that opened it.
pub struct Network {}

impl Network {
    /// Opens the kernel's sockets, turns IPv4 forwarding on and puts the table of rules in place unless it is there.
    ///
    /// Nothing that a predecessor left is changed before [`Network::reconcile`].
    pub fn open(config: Config) -> Result<Network, OpenError> {
        let _ = config;
        todo!()
    }

    /// Makes the bridge be there as described, up, with its address and rules. Idempotent.
    pub fn ensure_bridge(&mut self, bridge: &Bridge) -> Result<(), LinkError> {
        let _ = bridge;
        todo!()
    }

    /// Removes a bridge and its rules. Idempotent. A bridge that this instance did not create keeps existing.
    pub fn remove_bridge(&mut self, name: &str) -> Result<(), LinkError> {
        let _ = name;
        todo!()
    }

    /// Creates a network namespace with its loopback up, and returns the path under which it can be entered.
    /// A sandbox that exists already is kept as it is.
    pub fn create_sandbox(&mut self, sandbox: &str) -> Result<PathBuf, LinkError> {
        let _ = sandbox;
        todo!()
    }

    /// Removes a sandbox with all interfaces in it, even while processes live in it. Idempotent.
    pub fn remove_sandbox(&mut self, sandbox: &str) -> Result<(), LinkError> {
        let _ = sandbox;
        todo!()
    }

    /// Gives a sandbox an interface on a bridge, up, with address, routes and hardware address. An interface of that
    /// name that is there already is replaced.
    pub fn attach(&mut self, sandbox: &str, endpoint: &Endpoint) -> Result<(), LinkError> {
        let _ = (sandbox, endpoint);
        todo!()
    }

    /// Takes an interface away from a sandbox. Idempotent.
    pub fn detach(&mut self, sandbox: &str, interface: &str) -> Result<(), LinkError> {
        let _ = (sandbox, interface);
        todo!()
    }

    /// Makes `ports` the publications of `key`, in the place of those it had, in one atomic change of the rules.
    /// Returns them with every `host_port` filled in. On an error nothing has changed.
    ///
    /// Connections to backends that stay are not disturbed; what is known of UDP flows to others is forgotten, so that
    /// their next packet is answered by a backend that is there.
    pub fn publish(
        &mut self,
        key: PublicationKey,
        ports: Vec<Publication>,
    ) -> Result<Vec<Publication>, PublishError> {
        let _ = (key, ports);
        todo!()
    }

    /// Withdraws all publications of `key`. Idempotent.
    pub fn unpublish(&mut self, key: &PublicationKey) -> Result<(), KernelError> {
        let _ = key;
        todo!()
    }

    /// At daemon start: makes the kernel hold `desired` and nothing else of ours. Sandboxes that are right are not
    /// touched, and established connections survive. What fails is reported and does not stop the rest.
    pub fn reconcile(&mut self, desired: &Desired) -> Result<Report, KernelError> {
        let _ = desired;
        todo!()
    }
}
