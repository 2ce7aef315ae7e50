//! `docker create`.

use std::path::Path;
use std::sync::Arc;

use skep_images::{FindError, Image, Reference};
use skep_types::container::{ContainerConfig, NetworkMode};
use skep_types::{ContainerId, Ids};

use super::merge;
use super::record::{Home, MountedFrom, Record, State};
use super::registry::Container;
use crate::clock::now;
use crate::copy_up::copy_up;
use crate::images::from_find;
use crate::options::Created;
use crate::view::Status;
use crate::volumes::ANONYMOUS_LABEL;
use crate::{Engine, Error, ErrorKind, Result, blocking, info, names};

impl Engine {
    /// Makes a container; nothing runs yet. `None` draws a name.
    ///
    /// # Errors
    /// 404 `No such image: x:latest`; 409 for a name in use; 400 for a configuration that makes no sense.
    pub async fn create(&self, name: Option<String>, config: ContainerConfig) -> Result<Created> {
        let engine = self.clone();
        let create = async move {
            let mut config = config;
            engine.settle_networks(&mut config).await?;
            blocking(move || engine.create_blocking(name, config)).await?
        };
        self.shared.tasks.run(create).await
    }

    fn create_blocking(&self, name: Option<String>, config: ContainerConfig) -> Result<Created> {
        let image = self.shared.images.find(&config.image).map_err(from_find)?;
        let mut config = merge::merge(config, &image.config)?;
        self.settle_shared(&mut config)?;
        merge::check(&config, info::cpus())?;
        let warnings = warnings(&config);
        let id = self.draw(Ids::container);
        if config.hostname.is_empty() {
            config.hostname = default_hostname(&config, id);
        }
        let mounts = merge::mounts(&config.host.mounts, &image.config.volumes, &|| self.draw_id())?;
        let name = self.reserve_name(name, id)?;
        let record = Record::new(id, name, now(), image.id, config, mounts);
        let container = self.furnish(record, &image).inspect_err(|_| self.undo_create(id))?;
        self.register(&container)?;
        self.container_event(&container, "create");
        Ok(Created { id, warnings })
    }

    /// A container that shares another's network has that one's host name, and nothing of its own (moby's
    /// `validateNetMode`).
    fn settle_shared(&self, config: &mut ContainerConfig) -> Result<()> {
        let NetworkMode::Container(name) = &config.host.network else { return Ok(()) };
        let other = self.find(name).map_err(|error| Error { kind: ErrorKind::InvalidParameter, ..error })?;
        let refuse =
            |what: &str| Err(Error::invalid(format!("conflicting options: {what} and the network mode")));
        if !config.hostname.is_empty() {
            return refuse("hostname");
        }
        if !config.host.dns.servers.is_empty() {
            return refuse("dns");
        }
        if !config.host.extra_hosts.is_empty() {
            return Err(Error::invalid(
                "conflicting options: custom host-to-IP mapping and the network mode",
            ));
        }
        if !config.host.ports.is_empty() || config.host.publish_all {
            return Err(Error::invalid(
                "conflicting options: port publishing and the container type network mode",
            ));
        }
        config.hostname.clone_from(&other.record.config.hostname);
        config.domainname.clone_from(&other.record.config.domainname);
        config.host.network = NetworkMode::Container(other.id().to_string());
        Ok(())
    }

    fn reserve_name(&self, name: Option<String>, id: ContainerId) -> Result<String> {
        let registry = &self.shared.containers;
        if let Some(name) = name {
            let name = names::container_name(&name)?.to_owned();
            registry.reserve(&name, id)?;
            return Ok(name);
        }
        loop {
            // Another creation may reserve what was free a moment ago; then another name is drawn. When luck runs
            // out, the id serves, which nobody else has.
            let drawn = self.draw(|ids| names::draw(ids, |name| registry.is_free(name)));
            let name = drawn.unwrap_or_else(|| id.short());
            if registry.reserve(&name, id).is_ok() {
                return Ok(name);
            }
        }
    }

    /// Makes volumes and folders. What was made before a failure is undone by the caller.
    fn furnish(&self, record: Record, image: &Image) -> Result<Arc<Container>> {
        let failed = |what: &str, error: std::io::Error| Error::failed(what, &error);
        let layers = self.shared.images.layer_paths(&image.id);
        let layers = layers.map_err(|error| gone(&record.config.image, error))?;
        for mount in &record.mounts {
            let MountedFrom::Volume { name, anonymous, no_copy, labels } = &mount.source else { continue };
            let mut labels = labels.clone();
            labels.extend(anonymous.then(|| (ANONYMOUS_LABEL.to_owned(), String::new())));
            let fill = |into: &Path| if *no_copy { Ok(()) } else { copy_up(&layers, &mount.target, into) };
            let made = self.shared.volumes.take(name, labels, Some(record.id), &fill);
            if made.map_err(|error| failed(&format!("create {name}"), error))? {
                self.volume_event("create", name);
            }
        }
        let home = Home::new(&self.containers_dir(), record.id);
        home.found(&record).map_err(|error| failed("creating the container's folder", error))?;
        Ok(Arc::new(Container::new(record, home, State::created())))
    }

    /// Makes a container known, and only then makes sure that its image is there still: from here on it keeps the image
    /// from being removed, and a removal that did not see it yet is seen here.
    fn register(&self, container: &Arc<Container>) -> Result<()> {
        // Until that is sure nobody starts or removes it.
        let _life = container.life.try_lock().expect("nobody else has the container yet");
        self.shared.containers.insert(Arc::clone(container));
        let image = self.shared.images.find(&container.record.image_id.to_string());
        if let Err(error) = image {
            container.state.send_modify(|state| {
                state.status = Status::Removing;
                state.gone = true;
            });
            self.undo_create(container.id());
            self.shared.containers.remove(container);
            return Err(gone(&container.record.config.image, error));
        }
        Ok(())
    }

    /// Undoes a creation that failed half-way: its folder, its hold on volumes, anonymous volumes, its name.
    fn undo_create(&self, id: ContainerId) {
        let home = Home::new(&self.containers_dir(), id);
        if let Err(error) = crate::disk::remove_tree(&home.0) {
            tracing::error!("cannot remove {} of a failed creation: {error}", home.0.display());
        }
        for name in self.shared.volumes.used_by(id) {
            self.shared.volumes.release(&name, id);
            self.remove_if_anonymous(&name);
        }
        self.shared.containers.release_id(id);
    }
}

/// An image that was removed since it was found, by the name that the client knows.
fn gone(name: &str, error: FindError) -> Error {
    match error {
        FindError::NotFound(_) => {
            let familiar = name.parse::<Reference>().map(|reference| reference.familiar());
            from_find(FindError::NotFound(familiar.unwrap_or_else(|_| name.to_owned())))
        }
        error => from_find(error),
    }
}

/// The first twelve digits of the id; the host's own name on the host's network.
fn default_hostname(config: &ContainerConfig, id: ContainerId) -> String {
    match config.host.network {
        NetworkMode::Host => info::hostname(),
        NetworkMode::Bridge
        | NetworkMode::None
        | NetworkMode::Cluster(_)
        | NetworkMode::Named(_)
        | NetworkMode::Container(_) => id.short(),
    }
}

fn warnings(config: &ContainerConfig) -> Vec<String> {
    let ports = !config.host.ports.is_empty() || config.host.publish_all;
    let discarded = ports && matches!(config.host.network, NetworkMode::Host);
    discarded
        .then(|| "Published ports are discarded when using host network mode".to_owned())
        .into_iter()
        .collect()
}
