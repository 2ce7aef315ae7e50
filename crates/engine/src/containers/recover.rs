//! The start of an engine: containers that ran before are found again, and what happened meanwhile is told.
//!
//! Of every container one of three things is true: its shim runs, and it is adopted without being touched; its shim
//! left a record of its end, which is reported as if it had just happened; or the runtime knows nothing of it, and
//! if it ran it ended with the machine.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use skep_network::Desired;
use skep_runtime::{Exit, State as Found};
use skep_types::ContainerId;
use skep_types::container::NetworkMode;

use super::exit::lost;
use super::record::{Home, Record, State};
use super::registry::Container;
use super::remove::{REMOVED_PREFIX, REMOVED_WITH_VOLUMES_PREFIX};
use crate::disk;
use crate::error::chain;
use crate::networks::names::virtual_services;
use crate::networks::{bridge_name, cluster_bridge, place, publications, service_key};
use crate::view::Status;
use crate::{Engine, Error, Result, blocking};

/// In front of the id, the name of the folder of a container whose record cannot be read.
const DAMAGED_PREFIX: &str = ".damaged-";

/// A container that ended while no engine watched it.
struct Ended {
    container: Arc<Container>,
    exit: Exit,
}

impl Engine {
    /// Finds again what was there before.
    pub(crate) async fn recover(&self) -> Result<()> {
        let engine = self.clone();
        blocking(move || engine.read_containers()).await??;
        let ended = self.adopt().await;
        self.remove_orphans().await;
        let engine = self.clone();
        let over: BTreeSet<ContainerId> = ended.iter().map(|ended| ended.container.id()).collect();
        blocking(move || engine.reconcile(&over)).await??;
        for Ended { container, exit } in ended {
            self.has_ended(&container, exit).await;
        }
        self.tell_everything();
        self.keep_records();
        self.remove_unfinished();
        Ok(())
    }

    fn read_containers(&self) -> Result<()> {
        let dir = self.containers_dir();
        let failed = |error: &std::io::Error| Error::failed(format!("reading {}", dir.display()), error);
        let mut removed_with_volumes = Vec::new();
        for entry in std::fs::read_dir(&dir).map_err(|error| failed(&error))? {
            let entry = entry.map_err(|error| failed(&error))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(REMOVED_WITH_VOLUMES_PREFIX) {
                removed_with_volumes.push(Home(entry.path()));
            } else if name.starts_with(REMOVED_PREFIX) {
                remove_logged(&entry.path());
            } else if let Ok(id) = name.parse() {
                self.read_container(&dir, id);
            } else if !name.starts_with(DAMAGED_PREFIX) {
                tracing::warn!("{} belongs to no container", entry.path().display());
            }
        }
        // Only now are the volumes' other users known.
        removed_with_volumes.iter().for_each(|home| self.finish_removal(home));
        Ok(())
    }

    /// Finishes the removal of a container with its nameless volumes that the daemon's death cut off.
    fn finish_removal(&self, home: &Home) {
        match home.read_record() {
            Ok(Some(record)) => record.volumes().for_each(|name| self.remove_if_anonymous(name)),
            // The record goes with the folder, after the volumes.
            Ok(None) => {}
            Err(error) => tracing::warn!("volumes of {} may be left: {error}", home.0.display()),
        }
        remove_logged(&home.0);
    }

    /// Reads one container. Damage to it must not keep the others from being found.
    fn read_container(&self, dir: &Path, id: ContainerId) {
        let home = Home::new(dir, id);
        let record = match home.read_record() {
            // The creation was cut off before anyone was told of it.
            Ok(None) => return remove_logged(&home.0),
            Ok(Some(record)) if record.id == id => record,
            Ok(Some(record)) => {
                return set_aside(dir, &home, &format!("its record is that of {}", record.id));
            }
            Err(error) => return set_aside(dir, &home, &error.to_string()),
        };
        if let Err(error) = self.shared.containers.reserve(&record.name, id) {
            return set_aside(dir, &home, &error.message);
        }
        let wishes = home.read_wishes().unwrap_or_else(|error| {
            tracing::warn!(
                "the networks of container {id} are damaged; it has those it was created for: {error}"
            );
            None
        });
        let state = match home.read_state() {
            Ok(state) => state.unwrap_or_else(State::created),
            Err(error) => {
                tracing::warn!("the state of container {id} is damaged, its last exit code is lost: {error}");
                State { exit_code: lost().code, started_at: Some(record.created), ..State::created() }
            }
        };
        self.hold_volumes(&record);
        let container = Container::new(record, home, state);
        if let Some(wishes) = wishes {
            container.set_wishes(wishes);
        }
        self.shared.containers.insert(Arc::new(container));
    }

    fn hold_volumes(&self, record: &Record) {
        for name in record.volumes() {
            self.shared.volumes.found_user(name, record.id);
        }
    }

    /// Learns from the runtime what became of each container.
    async fn adopt(&self) -> Vec<Ended> {
        let mut ended = Vec::new();
        for container in self.shared.containers.all() {
            let id = container.id();
            let found = match self.shared.runtime.state(id).await {
                Ok(found) => found,
                Err(error) => {
                    tracing::error!("cannot learn what became of container {id}: {}", chain(&error));
                    if container.is_running() {
                        // Whoever watches it asks on. To take it for dead would be to kill it.
                        self.hold_addresses(&container);
                        self.watch(container);
                        continue;
                    }
                    Found::Absent
                }
            };
            let before = container.state.borrow().clone();
            match found {
                Found::Running(started) => {
                    container.state.send_modify(|state| {
                        state.status = Status::Running;
                        state.pid = started.pid;
                        state.started_at = Some(started.started_at);
                        state.error.clear();
                    });
                    self.hold_addresses(&container);
                    self.watch(container);
                }
                Found::Exited(exit) if before.finished_at != Some(exit.finished_at) => {
                    // The start of this run may have been told to nobody; its end says that there was one.
                    container.state.send_modify(|state| {
                        state.started_at.get_or_insert(exit.finished_at);
                    });
                    ended.push(Ended { container, exit });
                }
                // Its end was reported before the daemon died; what is left of it is removed with the orphans.
                Found::Exited(_) => idle(&container),
                Found::Absent if before.status == Status::Running => {
                    ended.push(Ended { container, exit: lost() });
                }
                Found::Absent => idle(&container),
            }
        }
        ended
    }

    fn hold_addresses(&self, container: &Container) {
        let state = container.state.borrow();
        let places = state.connection.iter().flat_map(|connection| &connection.places);
        let networks = &self.shared.networks;
        let is_task = matches!(container.record.config.host.network, NetworkMode::Cluster(_));
        for (place, endpoint) in places.filter_map(|place| Some((place, place.endpoint.as_ref()?))) {
            if place.is_clustered()
                && !is_task
                && let Ok(network) = place.network_id.parse()
            {
                container.guest.found(network);
            }
            if !networks.found_address(&place.network_id, endpoint.address) {
                tracing::warn!(
                    "container {} has the address {}, which is not to be had",
                    container.id(),
                    endpoint.address
                );
            }
        }
    }

    /// Deletes what the runtime has of containers that are none, or that are over.
    async fn remove_orphans(&self) {
        let known = self.shared.runtime.list().unwrap_or_else(|error| {
            tracing::error!("cannot list what the runtime has: {}", chain(&error));
            Vec::new()
        });
        for id in known {
            let container = self.shared.containers.get(id);
            let needed = container.is_some_and(|container| {
                let state = container.state.borrow();
                // Those that ended meanwhile are deleted when their end is reported.
                state.status == Status::Running || state.connection.is_some()
            });
            if !needed {
                tracing::warn!("removing what is left of container {id}");
                if let Err(error) = self.shared.runtime.delete(id).await {
                    tracing::error!("cannot remove what is left of container {id}: {}", chain(&error));
                }
            }
        }
    }

    /// Makes the kernel's side what it should be. Containers that are `over` need nothing, though that is not told yet.
    fn reconcile(&self, over: &BTreeSet<ContainerId>) -> Result<()> {
        let networks = &self.shared.networks;
        let mut desired = Desired { bridges: vec![networks.bridge.clone()], ..Desired::default() };
        desired.bridges.extend(networks.locals.all().into_iter().filter_map(|local| local.bridge));
        let lives = |container: &Arc<Container>| !over.contains(&container.id());
        for container in self.shared.containers.all().into_iter().filter(lives) {
            let state = container.state.borrow();
            let Some(connection) = state.connection.as_ref().filter(|_| state.status == Status::Running)
            else {
                continue;
            };
            if connection.sandbox.is_some() && !connection.borrowed {
                let endpoints = connection.places.iter().filter_map(|place| place.endpoint.clone());
                desired.sandboxes.insert(container.id().to_string(), endpoints.collect());
            }
            if !connection.published.is_empty() {
                desired
                    .publications
                    .insert(place::container_key(container.id()), connection.published.clone());
            }
        }
        {
            let cluster = networks.cluster();
            for (id, network) in &cluster.networks {
                let bridge = cluster_bridge(network, cluster.overlays.get(id), networks.bridge.mtu);
                desired.peers.extend(cluster.peers.get(id).map(|peers| (bridge.name.clone(), peers.clone())));
                desired.bridges.push(bridge);
            }
            for (id, records) in &cluster.records {
                desired.services.insert(bridge_name(*id), virtual_services(records));
            }
            for endpoint in cluster.endpoints.values() {
                desired
                    .publications
                    .insert(service_key(endpoint.service), publications(endpoint, cluster.networks.values()));
            }
        }
        let report = networks
            .kernel()
            .reconcile(&desired)
            .map_err(|error| Error::failed("reconciling the network", &error))?;
        report.repaired.iter().for_each(|what| tracing::info!("network repaired: {what}"));
        report.removed.iter().for_each(|what| tracing::info!("network removed: {what}"));
        report.failed.iter().for_each(|what| tracing::error!("network: {what}"));
        report.warnings.iter().for_each(|what| tracing::warn!("network: {what}"));
        for (key, error) in &report.contested {
            tracing::warn!("ports of {key}: {}", chain(error));
        }
        Ok(())
    }

    /// Removes `--rm` containers whose removal the daemon's death forestalled.
    fn remove_unfinished(&self) {
        for container in self.shared.containers.all() {
            let ended = container.status() == Status::Exited;
            if ended && container.record.config.host.auto_remove {
                self.auto_remove(container);
            }
        }
    }
}

/// A container that does not run. The network that it was given before a start that never happened is not among
/// what is desired, and so removed.
fn idle(container: &Container) {
    container.state.send_modify(|state| {
        state.status = state.idle_status();
        state.pid = 0;
        state.connection = None;
    });
}

fn set_aside(dir: &Path, home: &Home, why: &str) {
    let name = home.0.file_name().unwrap_or_default().to_string_lossy();
    let aside = dir.join(format!("{DAMAGED_PREFIX}{name}"));
    tracing::error!("container {name} cannot be read and is set aside as {}: {why}", aside.display());
    let moved = disk::remove_tree(&aside).and_then(|()| std::fs::rename(&home.0, &aside));
    if let Err(error) = moved {
        tracing::error!("cannot set {} aside: {error}", home.0.display());
    }
}

fn remove_logged(path: &Path) {
    if let Err(error) = disk::remove_tree(path) {
        tracing::error!("cannot remove {}: {error}", path.display());
    }
}
