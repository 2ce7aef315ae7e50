//! Containers: from `create` to `rm`.
//!
//! In all of these, `name` is a container's id, a unique prefix of its id, or its name; what fits none is
//! 404 `No such container: x`.

mod attach;
mod create;
mod devices;
mod draining;
mod etc;
pub(crate) mod exec;
mod exit;
mod filter;
pub mod health;
mod inspect;
mod kernel;
mod list;
mod listening;
mod logs;
mod merge;
mod prune;
pub(crate) mod record;
mod recover;
pub(crate) mod registry;
mod remove;
mod size;
mod sockets;
mod spec;
mod start;
mod stop;
mod usage;
mod wait;

pub use usage::Usage;

use std::collections::BTreeMap;
use std::sync::Arc;

use skep_types::events::EventKind;

use crate::events::attributes;
use crate::networks::place::Place;
use crate::{Engine, Result};

pub use exec::ClaimedExec;
pub use logs::{LogLine, LogSource, LogStream};
use record::MountedFrom;
use registry::Container;

/// Network modes as inspect names them; Docker says `bridge` for `default` since version 26.
pub(crate) fn network_mode(container: &Container) -> String {
    use skep_types::container::NetworkMode;
    match &container.record.config.host.network {
        NetworkMode::Bridge => "bridge".to_owned(),
        NetworkMode::Host => "host".to_owned(),
        NetworkMode::None => "none".to_owned(),
        NetworkMode::Cluster(attachments) => {
            attachments.first().map_or_else(|| "none".to_owned(), |first| first.network.name.clone())
        }
        NetworkMode::Named(name) => name.clone(),
        NetworkMode::Container(id) => format!("container:{id}"),
    }
}

impl Engine {
    pub(crate) fn find(&self, name: &str) -> Result<Arc<Container>> {
        self.shared.containers.find(name)
    }

    /// Tells of something that happened to a container: with its labels, image and name, as Docker does.
    pub(crate) fn container_event(&self, container: &Container, action: impl Into<String>) {
        self.container_event_with(container, action, BTreeMap::new());
    }

    pub(crate) fn container_event_with(
        &self,
        container: &Container,
        action: impl Into<String>,
        more: BTreeMap<String, String>,
    ) {
        let record = &container.record;
        let mut all = record.config.labels.clone();
        all.extend(more);
        all.insert("image".to_owned(), record.config.image.clone());
        all.insert("name".to_owned(), record.name.clone());
        self.shared.events.emit(EventKind::Container, action, record.id.to_string(), all);
    }

    /// Tells that a container took its volumes into use (`mount`) or gave them up (`unmount`).
    pub(crate) fn mount_events(&self, container: &Container, action: &str) {
        for mount in &container.record.mounts {
            let MountedFrom::Volume { name, .. } = &mount.source else { continue };
            let mut about =
                attributes([("container", container.id().to_string()), ("driver", "local".to_owned())]);
            if action == "mount" {
                about.extend(attributes([
                    ("destination", mount.target.display().to_string()),
                    ("propagation", String::new()),
                    ("read/write", (!mount.read_only).to_string()),
                ]));
            }
            self.shared.events.emit(EventKind::Volume, action, name.clone(), about);
        }
    }

    /// Tells that a container joined or left its networks.
    pub(crate) fn network_events<'a>(
        &self,
        container: &Container,
        action: &str,
        places: impl IntoIterator<Item = &'a Place>,
    ) {
        for place in places {
            let attributes = attributes([
                ("container", container.id().to_string()),
                ("name", place.network.clone()),
                ("type", place.driver.clone()),
            ]);
            self.shared.events.emit(EventKind::Network, action, place.network_id.clone(), attributes);
        }
    }
}
