//! What is told about one container: `docker inspect`, and the parts that `docker ps` shows too.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use skep_types::ContainerId;
use skep_types::container::{ClusterAttachment, EndpointRequest, LogDriver, NetworkMode};
use skep_types::mount::Propagation;
use skep_types::port::ContainerPort;

use super::network_mode;
use super::record::{MountRecord, MountedFrom};
use super::registry::Container;
use crate::networks::place::Place;
use crate::view::{ContainerView, EndpointView, MountView, PortView};
use crate::{Engine, Result};

impl Engine {
    /// Everything about one container.
    ///
    /// # Errors
    /// 404.
    pub fn inspect(&self, name: &str) -> Result<ContainerView> {
        let container = self.find(name)?;
        let (record, home) = (&container.record, &container.home);
        let state = container.state.borrow().clone();
        let mut words = record.arguments().into_iter();
        let sandbox = state.connection.as_ref().and_then(|connection| connection.sandbox.clone());
        let started_once = |path: PathBuf| if state.started_at.is_some() { path } else { PathBuf::new() };
        Ok(ContainerView {
            id: record.id,
            name: record.name.clone(),
            created: record.created,
            config: record.config.clone(),
            image_id: record.image_id.to_string(),
            path: words.next().unwrap_or_default(),
            args: words.collect(),
            state: state.view(),
            mounts: self.mount_views(&container),
            network_mode: network_mode(&container),
            networks: self.places(&container),
            ports: self.ports(&container),
            sandbox_key: sandbox.unwrap_or_default(),
            log_path: match record.config.host.log {
                LogDriver::JsonFile => home.log(record.id),
                LogDriver::None => PathBuf::new(),
            },
            resolv_conf_path: started_once(home.resolv_conf()),
            hostname_path: started_once(home.hostname()),
            hosts_path: started_once(home.hosts()),
            upper_path: home.upper(),
            // An image that is gone leaves a container that can only be looked at and removed.
            lower_paths: self.shared.images.layer_paths(&record.image_id).unwrap_or_default(),
            exec_ids: self.shared.execs.running_in(record.id),
            probes: container.last_probes(),
        })
    }

    /// A container's networks: its places while it runs, else those that it will have.
    pub(crate) fn places(&self, container: &Container) -> Vec<EndpointView> {
        let connection = container.state.borrow().connection.clone();
        if let Some(connection) = connection {
            return connection.places.iter().map(|place| placed(container, place)).collect();
        }
        let networks = &self.shared.networks;
        let ids = &networks.ids;
        let one = |network: &str, id: &String| vec![idle(network, id.clone(), EndpointRequest::default())];
        match &container.record.config.host.network {
            NetworkMode::Host => one("host", &ids.host),
            NetworkMode::None => one("none", &ids.none),
            NetworkMode::Container(_) => Vec::new(),
            NetworkMode::Cluster(attachments) => {
                let view = |it: &ClusterAttachment| {
                    idle(&it.network.name, it.network.id.to_string(), EndpointRequest::default())
                };
                attachments.iter().map(view).collect()
            }
            NetworkMode::Bridge | NetworkMode::Named(_) => {
                let view = |wish: EndpointRequest| {
                    let id = networks.id_of(&wish.network).unwrap_or_default();
                    EndpointView {
                        dns_names: if wish.network == "bridge" {
                            Vec::new()
                        } else {
                            container.dns_names(&wish.aliases)
                        },
                        ..idle(&wish.network.clone(), id, wish)
                    }
                };
                container.wishes().into_iter().map(view).collect()
            }
        }
    }

    /// The ports of a container as [`ContainerView`] shows them; none of one that is not there.
    pub fn published_ports(&self, container: ContainerId) -> Vec<PortView> {
        let found = self.find(&container.to_string()).ok();
        found.map(|container| self.ports(&container)).unwrap_or_default()
    }

    /// Exposed and published ports; those of a container that does not run are published nowhere.
    pub(crate) fn ports(&self, container: &Container) -> Vec<PortView> {
        let state = container.state.borrow();
        let published = state.connection.iter().flat_map(|connection| &connection.published);
        let mut ports: Vec<PortView> = published
            .flat_map(|publication| {
                let every = |backend: IpAddr| match backend {
                    IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                    IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
                };
                let host = move |backend| publication.host_ip.unwrap_or(every(backend));
                let answers = move |backend: &IpAddr| host(*backend).is_ipv4() == backend.is_ipv4();
                let backends = publication.backends.iter().filter(move |(backend, _)| answers(backend));
                backends.map(move |(backend, port)| PortView {
                    container: ContainerPort { port: *port, protocol: publication.protocol },
                    host: Some((host(*backend), publication.host_port)),
                })
            })
            .collect();
        let exposed = container.record.config.exposed_ports.iter();
        let others: Vec<PortView> = exposed
            .filter(|port| !ports.iter().any(|known| known.container == **port))
            .map(|port| PortView { container: *port, host: None })
            .collect();
        ports.extend(others);
        ports.sort();
        ports
    }

    pub(crate) fn mount_views(&self, container: &Container) -> Vec<MountView> {
        container.record.mounts.iter().map(|mount| self.mount_view(mount)).collect()
    }

    fn mount_view(&self, mount: &MountRecord) -> MountView {
        let view = MountView {
            kind: "tmpfs",
            name: String::new(),
            source: PathBuf::new(),
            target: mount.target.clone(),
            driver: "",
            mode: String::new(),
            writable: !mount.read_only,
            propagation: String::new(),
            anonymous: false,
        };
        match &mount.source {
            MountedFrom::Bind { path, create_missing: _, propagation } => MountView {
                kind: "bind",
                source: path.clone(),
                mode: if mount.read_only { "ro".to_owned() } else { String::new() },
                propagation: propagation_name(*propagation).to_owned(),
                ..view
            },
            MountedFrom::Volume { name, anonymous, no_copy: _, labels: _ } => MountView {
                kind: "volume",
                name: name.clone(),
                source: self.shared.volumes.data(name),
                driver: "local",
                // As Docker: `z` is where it would relabel the volume that a user named.
                mode: match (mount.read_only, anonymous) {
                    (true, _) => "ro".to_owned(),
                    (false, false) => "z".to_owned(),
                    (false, true) => String::new(),
                },
                anonymous: *anonymous,
                ..view
            },
            MountedFrom::Tmpfs { .. } => view,
        }
    }
}

/// A place that the container will have once it runs.
fn idle(network: &str, network_id: String, wish: EndpointRequest) -> EndpointView {
    EndpointView {
        network: network.to_owned(),
        network_id,
        endpoint_id: String::new(),
        address: None,
        prefix: 0,
        gateway: None,
        mac: String::new(),
        address6: None,
        gateway6: None,
        wish,
        dns_names: Vec::new(),
    }
}

/// A place that it has.
fn placed(container: &Container, place: &Place) -> EndpointView {
    let view = idle(&place.network, place.network_id.clone(), place.wish.clone());
    let Some(endpoint) = &place.endpoint else {
        return EndpointView { endpoint_id: place.endpoint_id.clone(), ..view };
    };
    EndpointView {
        endpoint_id: place.endpoint_id.clone(),
        address: Some(endpoint.address),
        prefix: endpoint.prefix,
        gateway: endpoint.gateway,
        mac: endpoint.mac.to_string(),
        address6: endpoint.address6.map(|it| (it.address, it.prefix)),
        gateway6: endpoint.gateway6,
        dns_names: if place.has_names() { container.dns_names(&place.wish.aliases) } else { Vec::new() },
        ..view
    }
}

fn propagation_name(propagation: Propagation) -> &'static str {
    match propagation {
        Propagation::Private => "private",
        Propagation::Rprivate => "rprivate",
        Propagation::Shared => "shared",
        Propagation::Rshared => "rshared",
        Propagation::Slave => "slave",
        Propagation::Rslave => "rslave",
    }
}
