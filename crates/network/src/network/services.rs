//! What sandboxes on several networks have of them: services and default routes.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv4Addr;

use super::Network;
use crate::error::KernelError;
use crate::kernel::Attempt;
use crate::model::{Endpoint, Report, VirtualServices};
use crate::plan::Operation;
use crate::vip;

impl Network {
    /// Makes `services` all that sandboxes with an endpoint on `bridge` know of virtual addresses, now and when one is
    /// attached later. In each, whatever its processes send to a virtual address goes to one of the backends, evenly,
    /// under the sender's own address; a sandbox may be a backend of what it calls. An address without backends refuses
    /// at once. Connections are never cut by a change; what is known of flows without connection, and of connections
    /// not yet answered, to a backend that has gone is forgotten, so that the next packet finds another.
    ///
    /// One transaction a sandbox. An error names the sandboxes that could not be reached, the others are changed; what
    /// is to be is remembered, and the next change makes it so.
    pub fn set_services(&mut self, bridge: &str, services: &VirtualServices) -> Result<(), KernelError> {
        let change = self.services.set(bridge, services);
        self.apply_services(bridge, &change)
    }

    /// Changes what sandboxes with an endpoint on `bridge` know of virtual addresses: `update` are new or have other
    /// backends than before, `remove` are no longer. Otherwise as [`Network::set_services`]; the cost depends on the size
    /// of the change alone.
    pub fn change_services(
        &mut self,
        bridge: &str,
        update: &VirtualServices,
        remove: &BTreeSet<Ipv4Addr>,
    ) -> Result<(), KernelError> {
        let change = self.services.change(bridge, update, remove);
        self.apply_services(bridge, &change)
    }

    fn apply_services(&mut self, bridge: &str, change: &vip::Change) -> Result<(), KernelError> {
        let mut failed: Vec<(String, io::Error)> = Vec::new();
        for sandbox in self.attachments.on_bridge(bridge) {
            if !self.services.concerns(bridge, &sandbox) {
                continue;
            }
            let bridges = self.bridges_of(&sandbox);
            let open = || self.kernel.netfilter_of(&sandbox);
            if let Err(error) = self.services.apply((&sandbox, &bridges), bridge, change, open) {
                failed.push((sandbox, error));
            }
        }
        let sandboxes: Vec<&str> = failed.iter().map(|(sandbox, _)| &sandbox[..]).collect();
        let action = format!("change the services of {bridge} in sandbox {}", sandboxes.join(", "));
        match failed.into_iter().next() {
            Some((_, source)) => Err(KernelError { action, source }),
            None => Ok(()),
        }
    }

    /// Gives a sandbox what follows from its endpoints: default routes, when the endpoint that is `gone` may have had one,
    /// and the tables of services.
    pub(super) fn settle_sandbox(
        &mut self,
        sandbox: &str,
        gone: Option<Endpoint>,
    ) -> Result<(), KernelError> {
        let bridges = self.bridges_of(sandbox);
        if let Some(gone) = gone {
            for endpoint in self.attachments.ways_out(sandbox) {
                self.kernel.apply(&Operation::Configure { sandbox: sandbox.to_owned(), endpoint })?;
            }
            if !bridges.contains(&gone.bridge) {
                let left = self.services.leave(sandbox, &gone.bridge);
                left.attempt(|| format!("remove the services of {} from sandbox {sandbox}", gone.bridge))?;
            }
        }
        if bridges.iter().any(|bridge| self.services.concerns(bridge, sandbox)) {
            let laid = self.services.lay(sandbox, &bridges, || self.kernel.netfilter_of(sandbox));
            laid.attempt(|| format!("write the services of sandbox {sandbox}"))?;
        }
        Ok(())
    }

    /// Another part of this crate has just made one change of a sandbox's rules.
    pub(super) fn note_own_rules(&mut self, sandbox: &str) -> Result<(), KernelError> {
        let noted = self.services.note_own_rules(sandbox);
        noted.attempt(|| format!("look at the rules of sandbox {sandbox}"))
    }

    fn bridges_of(&self, sandbox: &str) -> BTreeSet<String> {
        self.attachments.endpoints(sandbox).map(|endpoint| endpoint.bridge.clone()).collect()
    }

    pub(super) fn reconcile_services(
        &mut self,
        services: &BTreeMap<String, VirtualServices>,
        report: &mut Report,
    ) {
        self.services.reset(services);
        for sandbox in self.attachments.sandboxes() {
            if let Err(error) = self.reconcile_services_of(&sandbox, services, report) {
                report.failed.push(format!("cannot write the services of sandbox {sandbox}: {error}"));
            }
            self.services.close_unused(&sandbox);
        }
    }

    fn reconcile_services_of(
        &mut self,
        sandbox: &str,
        services: &BTreeMap<String, VirtualServices>,
        report: &mut Report,
    ) -> io::Result<()> {
        let bridges = self.bridges_of(sandbox);
        let socket = self.kernel.netfilter_of(sandbox)?;
        for bridge in self.services.adopt(sandbox, &bridges, socket)? {
            report.removed.push(format!("remove services of {bridge} from sandbox {sandbox}"));
        }
        for bridge in self.services.lacks(sandbox, &bridges) {
            report.repaired.push(format!("write services of {bridge} in sandbox {sandbox}"));
        }
        let known = services.iter().filter(|(bridge, _)| bridges.contains(*bridge));
        let strays = known.flat_map(|(_, services)| services.clone()).collect();
        self.services.restore(sandbox, &bridges, &strays)
    }
}
