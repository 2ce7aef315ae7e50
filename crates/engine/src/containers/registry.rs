//! The containers of a machine, by id and by name.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use skep_runtime::Attached;
use skep_types::ContainerId;
use skep_types::container::{EndpointRequest, NetworkMode};
use tokio::sync::watch;

use super::health::Probes;
use super::record::{Home, Record, State};
use crate::networks::guests::Guest;
use crate::view::Status;
use crate::{Error, Result};

/// A container.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) record: Record,
    pub(crate) home: Home,
    /// Its state, and what waits for it. From the moment it runs, only the task that watches it changes it until it
    /// has ended; before and after, only the holder of `life` does.
    pub(crate) state: watch::Sender<State>,
    /// Serialises changes of its life: start, stop, restart, remove.
    pub(crate) life: tokio::sync::Mutex<()>,
    /// Held while it starts and while a client attaches: an attachment goes either to the start or to what runs.
    pub(crate) gate: tokio::sync::Mutex<()>,
    /// Clients that attached before its start.
    pub(crate) waiting: Mutex<Vec<Attached>>,
    /// Whether the runtime still has the record of its last end, as ours could not be written: the disk was full.
    pub(crate) end_is_unsaved: AtomicBool,
    /// What the last probes of its health said.
    pub(crate) probes: Mutex<Probes>,
    /// The networks that it is to be on, in order. Changed by the holder of `life` only.
    wishes: Mutex<Vec<EndpointRequest>>,
    /// Its standing on networks of the cluster, where it is no task.
    pub(crate) guest: Guest,
}

impl Container {
    pub(crate) fn new(record: Record, home: Home, state: State) -> Container {
        let wishes = Mutex::new(initial_wishes(&record));
        Container {
            wishes,
            guest: Guest::default(),
            record,
            home,
            state: watch::Sender::new(state),
            life: tokio::sync::Mutex::default(),
            gate: tokio::sync::Mutex::default(),
            waiting: Mutex::default(),
            end_is_unsaved: AtomicBool::default(),
            probes: Mutex::default(),
        }
    }

    pub(crate) fn id(&self) -> ContainerId {
        self.record.id
    }

    pub(crate) fn status(&self) -> Status {
        self.state.borrow().status
    }

    pub(crate) fn is_running(&self) -> bool {
        self.status() == Status::Running
    }

    pub(crate) fn wishes(&self) -> Vec<EndpointRequest> {
        self.wishes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_wishes(&self, wishes: Vec<EndpointRequest>) {
        *self.wishes.lock().unwrap_or_else(PoisonError::into_inner) = wishes;
    }

    /// What it is called on a network, its own name first. As moby's `buildEndpointDNSNames`.
    pub(crate) fn dns_names(&self, aliases: &[String]) -> Vec<String> {
        let record = &self.record;
        let mut names = vec![record.name.clone()];
        names.extend(aliases.iter().cloned());
        names.extend([record.id.short(), record.config.hostname.clone()]);
        let mut known = std::collections::BTreeSet::new();
        names.retain(|name| !name.is_empty() && known.insert(name.clone()));
        names
    }

    pub(crate) fn take_waiting(&self) -> Vec<Attached> {
        std::mem::take(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The networks that a container was created for.
fn initial_wishes(record: &Record) -> Vec<EndpointRequest> {
    let host = &record.config.host;
    let network = match &host.network {
        NetworkMode::Bridge => "bridge",
        NetworkMode::Named(name) => name,
        NetworkMode::Host | NetworkMode::None | NetworkMode::Cluster(_) | NetworkMode::Container(_) => {
            return Vec::new();
        }
    };
    if host.endpoints.is_empty() {
        // As containers of earlier versions were written down.
        return vec![EndpointRequest { network: network.to_owned(), ..EndpointRequest::default() }];
    }
    host.endpoints.clone()
}

#[derive(Debug, Default)]
struct Known {
    by_id: BTreeMap<ContainerId, Arc<Container>>,
    /// Names, also of containers that are being created.
    names: BTreeMap<String, ContainerId>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    known: RwLock<Known>,
}

impl Registry {
    fn read(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Known> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reserves a name for a container that is being created.
    ///
    /// # Errors
    /// 409, in Docker's words.
    pub(crate) fn reserve(&self, name: &str, id: ContainerId) -> Result<()> {
        let mut known = self.write();
        if let Some(holder) = known.names.get(name) {
            return Err(Error::conflict(format!(
                "Conflict. The container name \"/{name}\" is already in use by container \"{holder}\". \
                 You have to remove (or rename) that container to be able to reuse that name."
            )));
        }
        known.names.insert(name.to_owned(), id);
        Ok(())
    }

    pub(crate) fn is_free(&self, name: &str) -> bool {
        !self.read().names.contains_key(name)
    }

    /// Gives back the name that was reserved for a container.
    pub(crate) fn release_id(&self, id: ContainerId) {
        self.write().names.retain(|_, holder| *holder != id);
    }

    /// Makes a container known, under the name that was reserved for it.
    pub(crate) fn insert(&self, container: Arc<Container>) {
        self.write().by_id.insert(container.id(), container);
    }

    /// Forgets a container and its name.
    pub(crate) fn remove(&self, container: &Container) {
        let mut known = self.write();
        known.by_id.remove(&container.id());
        known.names.remove(&container.record.name);
    }

    /// All containers, by id.
    pub(crate) fn all(&self) -> Vec<Arc<Container>> {
        self.read().by_id.values().cloned().collect()
    }

    pub(crate) fn get(&self, id: ContainerId) -> Option<Arc<Container>> {
        self.read().by_id.get(&id).cloned()
    }

    /// The container that is meant by an id, a name, or a unique prefix of an id, in this order.
    ///
    /// # Errors
    /// 404 `No such container: x`; 400 for a prefix that several ids have.
    pub(crate) fn find(&self, name: &str) -> Result<Arc<Container>> {
        let known = self.read();
        let bare = name.strip_prefix('/').unwrap_or(name);
        let exact = name.parse().ok().or_else(|| known.names.get(bare).copied());
        if let Some(container) = exact.and_then(|id| known.by_id.get(&id)) {
            return Ok(Arc::clone(container));
        }
        let missing = || Error::not_found(format!("No such container: {name}"));
        if name.is_empty()
            || name.len() > 64
            || !name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        {
            return Err(missing());
        }
        let mut fitting =
            known.by_id.values().filter(|container| container.id().to_string().starts_with(name));
        let first = fitting.next().ok_or_else(missing)?;
        if fitting.next().is_some() {
            return Err(Error::invalid(format!("multiple IDs found with provided prefix: {name}")));
        }
        Ok(Arc::clone(first))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use skep_types::Time;
    use skep_types::container::ContainerConfig;

    use super::*;

    fn registry() -> Registry {
        let registry = Registry::default();
        for (first, name) in [(0xaa, "web"), (0xab, "db"), (0xcd, "cafe")] {
            let id = ContainerId([first; 32]);
            registry.reserve(name, id).unwrap();
            let image = format!("sha256:{}", "0".repeat(64)).parse().unwrap();
            let record =
                Record::new(id, name.to_owned(), Time(0), image, ContainerConfig::default(), Vec::new());
            registry.insert(Arc::new(Container::new(record, Home("/nowhere".into()), State::created())));
        }
        registry
    }

    #[test]
    fn containers_are_found_by_id_name_and_prefix() {
        let registry = registry();
        for (name, found) in [("web", 0xaa), ("/db", 0xab), ("ab", 0xab), ("cd", 0xcd), ("cafe", 0xcd)] {
            assert_eq!(registry.find(name).unwrap().id(), ContainerId([found; 32]), "{name}");
        }
        assert_eq!(registry.find(&"ab".repeat(32)).unwrap().record.name, "db");
        assert_eq!(registry.find("a").unwrap_err().message, "multiple IDs found with provided prefix: a");
        for name in ["", "x", "ff", "we"] {
            assert_eq!(registry.find(name).unwrap_err().message, format!("No such container: {name}"));
        }
    }

    #[test]
    fn a_name_has_one_holder() {
        let registry = registry();
        let holder = "aa".repeat(32);
        assert_eq!(
            registry.reserve("web", ContainerId([1; 32])).unwrap_err().message,
            format!(
                "Conflict. The container name \"/web\" is already in use by container \"{holder}\". \
                 You have to remove (or rename) that container to be able to reuse that name."
            )
        );
        registry.remove(&registry.find("web").unwrap());
        assert!(registry.is_free("web"));
    }
}
