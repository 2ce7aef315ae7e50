//! Scenes: hosts and sandboxes on several networks, told in sentences. Who answers whom, and from which address was it seen?

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use skep_network::{Bridge, Endpoint, Report, VirtualServices};

use crate::support::{Machine, World, bridge, endpoint};

/// One host with bridges and sandboxes. What is done is also what a daemon will be told after [`Scene::restart`].
pub struct Scene {
    pub world: World,
    /// Gateways by bridge.
    gateways: BTreeMap<String, Ipv4Addr>,
}

impl Scene {
    /// With bridges, each given as `name gateway`, of a /16.
    pub fn new(bridges: &[&str]) -> Scene {
        let mut scene = Scene { world: World::new(), gateways: BTreeMap::new() };
        for text in bridges {
            let (name, gateway) = text.split_once(' ').unwrap();
            scene.add(bridge(name, gateway));
        }
        scene
    }

    /// A bridge that is none of the usual ones.
    pub fn add(&mut self, bridge: Bridge) {
        self.gateways.insert(bridge.name.clone(), bridge.gateway);
        self.world.network(|network| network.ensure_bridge(&bridge)).unwrap();
        self.world.desired.bridges.retain(|known| known.name != bridge.name);
        self.world.desired.bridges.push(bridge);
    }

    /// A sandbox with interfaces `eth0`, `eth1`, ..., each given as `bridge address`.
    pub fn sandbox(&mut self, name: &str, places: &[&str]) -> Machine {
        let path = self.world.network(|network| network.create_sandbox(name)).unwrap();
        self.world.desired.sandboxes.insert(name.to_owned(), Vec::new());
        for (number, place) in places.iter().enumerate() {
            self.join(name, &format!("eth{number}"), place);
        }
        Machine::at(name, &path)
    }

    /// Connects a sandbox that runs.
    pub fn join(&mut self, sandbox: &str, interface: &str, place: &str) {
        let endpoint = self.endpoint(interface, place);
        self.attach(sandbox, endpoint);
    }

    pub fn attach(&mut self, sandbox: &str, endpoint: Endpoint) {
        self.world.network(|network| network.attach(sandbox, &endpoint)).unwrap();
        let endpoints = self.world.desired.sandboxes.get_mut(sandbox).unwrap();
        endpoints.retain(|known| known.interface != endpoint.interface);
        endpoints.push(endpoint);
    }

    /// An endpoint as `join` makes it: an internal bridge gives no gateway.
    pub fn endpoint(&self, interface: &str, place: &str) -> Endpoint {
        let (bridge, address) = place.split_once(' ').unwrap();
        let gateway = self.gateways[bridge];
        let known = self.world.desired.bridges.iter().find(|known| known.name == bridge).unwrap();
        let made = endpoint(bridge, &gateway.to_string(), address);
        let gateway = made.gateway.filter(|_| !known.internal);
        Endpoint { interface: interface.to_owned(), gateway, ..made }
    }

    /// Disconnects a sandbox that runs.
    pub fn leave(&mut self, sandbox: &str, interface: &str) {
        self.world.network(|network| network.detach(sandbox, interface)).unwrap();
        let endpoints = self.world.desired.sandboxes.get_mut(sandbox).unwrap();
        endpoints.retain(|known| known.interface != interface);
    }

    /// All services of a bridge, each given as `address: backend backend ...`.
    pub fn set_services(&mut self, bridge: &str, services: &[&str]) {
        let services = virtual_services(services);
        self.world.network(|network| network.set_services(bridge, &services)).unwrap();
        self.world.desired.services.insert(bridge.to_owned(), services);
    }

    /// A change of some services of a bridge.
    pub fn change_services(&mut self, bridge: &str, update: &[&str], remove: &[&str]) {
        let update = virtual_services(update);
        let remove: BTreeSet<Ipv4Addr> = remove.iter().map(|address| address.parse().unwrap()).collect();
        self.world.network(|network| network.change_services(bridge, &update, &remove)).unwrap();
        let known = self.world.desired.services.entry(bridge.to_owned()).or_default();
        known.retain(|address, _| !remove.contains(address));
        known.extend(update);
    }

    /// The daemon dies, and another one starts that is told what should exist.
    pub fn restart(&mut self) -> Report {
        self.world.crash();
        self.world.restart()
    }
}

/// Of lines `address: backend backend ...`.
pub fn virtual_services(lines: &[&str]) -> VirtualServices {
    let parse = |line: &&str| {
        let (address, backends) = line.split_once(':').unwrap();
        let backends = backends.split_whitespace().map(|backend| backend.parse().unwrap());
        (address.parse().unwrap(), backends.collect())
    };
    lines.iter().map(parse).collect()
}
