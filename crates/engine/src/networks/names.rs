//! What containers are told by name: each network's zone, and what each container sees.
//!
//! A zone has the key of its network. A container contributes its name, its aliases, its short id and its host name; a
//! service its name and aliases, which lead to its virtual address or to its tasks, `tasks.<service>`, and the names of
//! its tasks. The default bridge has no zone, as in Docker.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use skep_names::{Entry, Forwarding, Name, Names, Record, View, ZoneConfig};
use skep_network::VirtualServices;
use skep_types::assignment::ServiceRecord;
use skep_types::network::Network;
use skep_types::records::{RecordChange, Records};
use skep_types::task::slot_name;
use skep_types::{NetworkId, ServiceId};

use super::local::LocalNetwork;
use super::place::{Connection, Place};
use super::{Networks, bridge_name};
use crate::containers::registry::Container;
use crate::disk::{self, Durability};
use crate::{Engine, Error, Result, blocking};

/// How long changes of records gather before they are written.
const KEEP_DELAY: Duration = Duration::from_millis(300);

/// The port that resolvers listen on.
const DNS: u16 = 53;

/// A name with its addresses; `None` for what no question could ask for.
fn record(name: &str, addresses: Vec<IpAddr>, pointer: bool) -> Option<Record> {
    Some(Record { name: Name::new(name)?, addresses, pointer })
}

/// The addresses that go with one of a network's: itself, and its IPv6 one.
fn both(network: &Network, address: Ipv4Addr) -> Vec<IpAddr> {
    let address6 = network.address6(address).map(IpAddr::from);
    [IpAddr::from(address)].into_iter().chain(address6).collect()
}

/// What a service contributes to the names of a network.
fn service_entry(network: &Network, service: &ServiceRecord) -> Entry {
    let tasks: Vec<IpAddr> = service.tasks.iter().flat_map(|task| both(network, task.address)).collect();
    let leads_to = service.virtual_ip.map_or_else(|| tasks.clone(), |address| both(network, address));
    let mut records = Vec::new();
    for (index, name) in [&service.name].into_iter().chain(&service.aliases).enumerate() {
        // Tasks' own addresses point to the tasks.
        let pointer = index == 0 && service.virtual_ip.is_some();
        records.extend(record(name, leads_to.clone(), pointer));
        records.extend(record(&format!("tasks.{name}"), tasks.clone(), false));
    }
    for task in &service.tasks {
        let name = format!("{}.{}.{}", service.name, slot_name(task.slot, task.node), task.task);
        records.extend(record(&name, both(network, task.address), true));
    }
    Entry { records }
}

/// What a container contributes: its first name is what its addresses point to.
fn container_entry(names: &[String], addresses: &[IpAddr], pointers: bool) -> Entry {
    let records = names
        .iter()
        .enumerate()
        .filter_map(|(index, name)| record(name, addresses.to_vec(), pointers && index == 0));
    Entry { records: records.collect() }
}

fn addresses(place: &Place) -> Vec<IpAddr> {
    let endpoint = place.endpoint.iter();
    endpoint
        .flat_map(|it| [Some(IpAddr::from(it.address)), it.address6.map(|address| address.address.into())])
        .flatten()
        .collect()
}

/// Who answers for each virtual address of a network.
pub(crate) fn virtual_services(records: &Records) -> VirtualServices {
    let services = records.services.values();
    services
        .filter_map(|service| {
            Some((service.virtual_ip?, service.tasks.iter().map(|task| task.address).collect()))
        })
        .collect()
}

fn service_owner(id: ServiceId) -> String {
    format!("service-{id}")
}

/// The zone of a network that a user made here.
pub(super) fn local_zone(network: &LocalNetwork) -> Option<ZoneConfig> {
    let subnet = network.bridge.as_ref()?.subnet()?;
    let mut subnets = vec![(subnet.network().into(), subnet.prefix())];
    subnets.extend(network.ipam.subnet6.map(|subnet| (subnet.network().into(), subnet.prefix())));
    Some(ZoneConfig { domain: Name::new(&network.name), subnets })
}

fn cluster_zone(network: &Network) -> ZoneConfig {
    let mut subnets = vec![(network.subnet.network().into(), network.subnet.prefix())];
    subnets.extend(network.subnet6.map(|subnet| (subnet.network().into(), subnet.prefix())));
    ZoneConfig { domain: Name::new(&network.name), subnets }
}

impl Networks {
    /// Whether the agent has brought a network of the cluster up and told its names.
    pub(super) fn is_told(&self, id: NetworkId) -> bool {
        let cluster = self.cluster();
        cluster.networks.contains_key(&id) && cluster.records.contains_key(&id)
    }

    fn change_records(&self, names: &Names, id: NetworkId, change: RecordChange) -> Result<()> {
        let (network, mut records) = {
            let cluster = self.cluster();
            let network = cluster.networks.get(&id).cloned();
            let network = network.ok_or_else(|| Error::not_found(format!("network {id} not found")))?;
            (network, cluster.records.get(&id).cloned().unwrap_or_default())
        };
        let whole = matches!(change, RecordChange::All(_));
        let (zone, before) = (id.to_string(), virtual_services(&records));
        let (update, gone_services, gone_guests) = match change {
            RecordChange::Changed { update, services, guests } => (update, services, guests),
            RecordChange::All(all) => {
                names.set_zone(&zone, cluster_zone(&network));
                let services =
                    records.services.keys().filter(|id| !all.services.contains_key(id)).copied().collect();
                let guests =
                    records.guests.keys().filter(|id| !all.guests.contains_key(id)).copied().collect();
                (all, services, guests)
            }
        };
        for service in &gone_services {
            records.services.remove(service);
            names.remove_entry(&zone, &service_owner(*service));
        }
        for guest in &gone_guests {
            records.guests.remove(guest);
            names.remove_entry(&zone, &guest.to_string());
        }
        tell_names(names, &network, &update);
        records.services.extend(update.services);
        records.guests.extend(update.guests);
        let after = virtual_services(&records);
        self.cluster().records.insert(id, records);
        self.records_changed.notify_one();
        let bridge = bridge_name(id);
        let told = if whole {
            self.kernel().set_services(&bridge, &after)
        } else {
            let changed = after.iter().filter(|(address, backends)| before.get(*address) != Some(*backends));
            let update = changed.map(|(address, backends)| (*address, backends.clone())).collect();
            let remove = before.keys().filter(|address| !after.contains_key(address)).copied().collect();
            self.kernel().change_services(&bridge, &update, &remove)
        };
        told.map_err(|error| Error::failed(format!("telling network {} its services", network.name), &error))
    }

    /// Reads what was known when the last daemon ended.
    pub(super) fn restore_records(&self) {
        match disk::read_json(&self.records_file) {
            Ok(records) => self.cluster().records = records.unwrap_or_default(),
            Err(error) => tracing::warn!(
                "{} is damaged; the swarm will tell again: {error}",
                self.records_file.display()
            ),
        }
    }

    fn save_records(&self) {
        let records = self.cluster().records.clone();
        if let Err(error) = disk::write_json(&self.records_file, &records, Durability::Kernel) {
            tracing::warn!("cannot write {}: {error}", self.records_file.display());
        }
    }

    /// Tells all names of networks of the cluster and of this machine again, as after a start.
    pub(crate) fn tell_zones(&self, names: &Names) {
        for local in self.locals.all() {
            if let Some(zone) = local_zone(&local) {
                names.set_zone(&local.id, zone);
            }
        }
        let cluster = self.cluster();
        for (id, records) in &cluster.records {
            let Some(network) = cluster.networks.get(id) else { continue };
            names.set_zone(&id.to_string(), cluster_zone(network));
            tell_names(names, network, records);
        }
    }
}

fn tell_names(names: &Names, network: &Network, records: &Records) {
    let zone = network.id.to_string();
    for (id, service) in &records.services {
        names.set_entry(&zone, &service_owner(*id), service_entry(network, service));
    }
    for (id, guest) in &records.guests {
        let addresses = both(network, guest.address);
        names.set_entry(&zone, &id.to_string(), container_entry(&guest.names, &addresses, true));
    }
}

impl Engine {
    pub(crate) fn names(&self) -> &Names {
        &self.shared.names
    }

    /// Answers for names on a network of the cluster, and serves the virtual addresses that they lead to.
    ///
    /// # Errors
    /// 404 for a network that was not ensured; internal, when the kernel refuses.
    pub async fn change_records(&self, network: NetworkId, change: RecordChange) -> Result<()> {
        let engine = self.clone();
        blocking(move || engine.shared.networks.change_records(engine.names(), network, change)).await??;
        // Whoever waits for this takes it that nobody is told any more of what is gone.
        self.names().settled().await;
        Ok(())
    }

    /// Keeps what is called how on networks of the cluster for the next daemon, some time after each change: what it
    /// lacks then the managers tell again.
    pub(crate) fn keep_records(&self) {
        let (networks, closing) = (self.shared.networks.clone(), self.shared.tasks.closing());
        self.shared.tasks.spawn(async move {
            let keeping = async {
                loop {
                    networks.records_changed.notified().await;
                    tokio::time::sleep(KEEP_DELAY).await;
                    let networks = networks.clone();
                    if blocking(move || networks.save_records()).await.is_err() {
                        return;
                    }
                }
            };
            tokio::select! {
                () = keeping => {}
                () = closing => {}
            }
        });
    }

    /// Has a container that is about to start, or whose networks changed, asked by name and answered.
    pub(crate) fn tell_container(&self, container: &Container, connection: &Connection) {
        let names = self.names();
        let id = container.id().to_string();
        let Some(netns) = connection.sandbox.clone().filter(|_| !connection.borrowed) else { return };
        if !connection.has_names() {
            names.remove_sandbox(&id);
            return;
        }
        let named: Vec<&Place> = connection.places.iter().filter(|place| place.has_names()).collect();
        let mut own = Entry::default();
        for place in &named {
            let entry = self.entry_of(container, place);
            if place.is_clustered() {
                // The zone has what the managers say, which may be a moment late, and tasks have short ids too.
                own.records.extend(entry.records);
            } else {
                names.set_entry(&place.network_id, &id, entry);
            }
        }
        let settings = self.resolver(container);
        let servers = settings.servers.iter().filter_map(|server| server.parse::<IpAddr>().ok());
        let servers: Vec<SocketAddr> = servers.map(|server| (server, DNS).into()).collect();
        let leads_out =
            connection.places.iter().filter_map(|it| it.endpoint.as_ref()).any(|it| it.gateway.is_some());
        let forwarding = match (leads_out, servers.is_empty()) {
            (false, _) => Forwarding::None,
            (true, true) => Forwarding::Host,
            (true, false) => Forwarding::Given(servers),
        };
        let networks = named.iter().map(|place| place.network_id.clone()).collect();
        let given = settings.search;
        let search =
            (!given.is_empty()).then(|| given.iter().filter_map(|domain| Name::new(domain)).collect());
        names.set_sandbox(&id, View { netns, networks, own, search, forwarding });
    }

    fn entry_of(&self, container: &Container, place: &Place) -> Entry {
        let names = container.dns_names(&place.wish.aliases);
        container_entry(&names, &addresses(place), !place.is_clustered())
    }

    /// Takes the names of a container on one network back.
    pub(crate) fn forget_place(&self, container: &Container, place: &Place) {
        if place.has_names() && !place.is_clustered() {
            self.names().remove_entry(&place.network_id, &container.id().to_string());
        }
    }

    /// Takes all that is told of a container, and to it, back.
    pub(crate) fn forget_container(&self, container: &Container, connection: &Connection) {
        connection.places.iter().for_each(|place| self.forget_place(container, place));
        if connection.has_names() && !connection.borrowed {
            self.names().remove_sandbox(&container.id().to_string());
        }
    }

    /// Tells all there is, after the containers were found again.
    pub(crate) fn tell_everything(&self) {
        self.shared.networks.tell_zones(self.names());
        for container in self.shared.containers.all() {
            let connection = container.state.borrow().connection.clone();
            if let Some(connection) = connection.filter(|_| container.is_running()) {
                self.tell_container(&container, &connection);
            }
        }
        self.names().complete();
    }
}
