//! Which interfaces sandboxes have, and which of a sandbox's has the default route. Pure.

use std::collections::BTreeMap;

use crate::model::Endpoint;

/// The endpoints of all sandboxes.
#[derive(Debug, Default)]
pub(crate) struct Attachments {
    /// By sandbox and interface.
    endpoints: BTreeMap<String, BTreeMap<String, Endpoint>>,
}

impl Attachments {
    pub(crate) fn of(sandboxes: &BTreeMap<String, Vec<Endpoint>>) -> Attachments {
        let mut attachments = Attachments::default();
        for (sandbox, endpoints) in sandboxes {
            endpoints.iter().for_each(|endpoint| attachments.add(sandbox, endpoint.clone()));
        }
        attachments
    }

    /// In the place of one with that interface.
    pub(crate) fn add(&mut self, sandbox: &str, endpoint: Endpoint) {
        let endpoints = self.endpoints.entry(sandbox.to_owned()).or_default();
        endpoints.insert(endpoint.interface.clone(), endpoint);
    }

    pub(crate) fn remove(&mut self, sandbox: &str, interface: &str) -> Option<Endpoint> {
        let endpoints = self.endpoints.get_mut(sandbox)?;
        let removed = endpoints.remove(interface);
        if endpoints.is_empty() {
            self.endpoints.remove(sandbox);
        }
        removed
    }

    pub(crate) fn remove_sandbox(&mut self, sandbox: &str) {
        self.endpoints.remove(sandbox);
    }

    /// The sandboxes that have an endpoint on a bridge.
    pub(crate) fn on_bridge(&self, bridge: &str) -> Vec<String> {
        let has = |endpoints: &BTreeMap<String, Endpoint>| endpoints.values().any(|it| it.bridge == bridge);
        self.endpoints.iter().filter(|(_, it)| has(it)).map(|(sandbox, _)| sandbox.clone()).collect()
    }

    pub(crate) fn sandboxes(&self) -> Vec<String> {
        self.endpoints.keys().cloned().collect()
    }

    pub(crate) fn endpoints(&self, sandbox: &str) -> impl Iterator<Item = &Endpoint> {
        self.endpoints.get(sandbox).into_iter().flat_map(BTreeMap::values)
    }

    /// The endpoint as it is to be made: with its gateways if the default routes are its own.
    pub(crate) fn routed(&self, sandbox: &str, endpoint: &Endpoint) -> Endpoint {
        routed(&self.endpoints(sandbox).cloned().collect::<Vec<_>>(), endpoint)
    }

    /// The endpoints that have the default routes, one for each family.
    pub(crate) fn ways_out(&self, sandbox: &str) -> impl Iterator<Item = Endpoint> {
        let all: Vec<Endpoint> = self.endpoints(sandbox).cloned().collect();
        let routed: Vec<Endpoint> = all.iter().map(|endpoint| routed(&all, endpoint)).collect();
        routed.into_iter().filter(|it| it.gateway.is_some() || it.gateway6.is_some())
    }
}

/// One of a sandbox's endpoints as it is to be made: with its gateways if the default routes are its own.
pub(crate) fn routed(all: &[Endpoint], endpoint: &Endpoint) -> Endpoint {
    let first = |has: fn(&Endpoint) -> bool| {
        let ways = all.iter().filter(|it| has(it));
        ways.min_by_key(|it| (std::cmp::Reverse(it.priority), it.interface.len(), it.interface.clone()))
    };
    let is_its = |way: Option<&Endpoint>| way.is_some_and(|way| way.interface == endpoint.interface);
    Endpoint {
        gateway: endpoint.gateway.filter(|_| is_its(first(|it| it.gateway.is_some()))),
        gateway6: endpoint.gateway6.filter(|_| is_its(first(|it| it.gateway6.is_some()))),
        ..endpoint.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::model::MacAddress;

    fn endpoint(interface: &str, priority: i64, gateway: Option<[u8; 4]>) -> Endpoint {
        let address = Ipv4Addr::new(10, 0, 0, 2);
        Endpoint {
            bridge: format!("br-{interface}"),
            interface: interface.to_owned(),
            address,
            prefix: 24,
            gateway: gateway.map(Ipv4Addr::from),
            mac: MacAddress::of(address),
            priority,
            address6: None,
            gateway6: None,
        }
    }

    #[test]
    fn one_endpoint_has_the_default_route_and_the_next_one_inherits_it() {
        let mut attachments = Attachments::default();
        for (interface, priority, gateway) in [
            ("eth0", 0, None),
            ("eth10", 0, Some([10, 10, 0, 1])),
            ("eth2", 0, Some([10, 2, 0, 1])),
            ("eth3", 5, Some([10, 3, 0, 1])),
        ] {
            attachments.add("web", endpoint(interface, priority, gateway));
        }
        for way in ["eth3", "eth2", "eth10"] {
            let ways: Vec<String> = attachments.ways_out("web").map(|it| it.interface).collect();
            assert_eq!(ways, [way]);
            assert!(attachments.remove("web", way).is_some());
        }
        assert_eq!(attachments.ways_out("web").count(), 0);
        assert_eq!(attachments.on_bridge("br-eth0"), ["web"]);
        attachments.remove("web", "eth0");
        assert!(attachments.on_bridge("br-eth0").is_empty());
    }
}
