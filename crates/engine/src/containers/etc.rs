//! The files in /etc that the engine writes for a container, at its start and when its networks change.

use std::io;
use std::net::Ipv4Addr;
use std::path::Path;

use skep_types::container::NetworkMode;

use super::registry::Container;
use crate::Engine;
use crate::files::{hosts, resolv};
use crate::networks::place::{Connection, Place};

impl Engine {
    /// Writes /etc/hostname, /etc/hosts and /etc/resolv.conf. They are written in place, as a stopped container's
    /// files have no reader, and not forced to the disk, as each start writes them again.
    pub(crate) fn write_files(&self, container: &Container, connection: &Connection) -> io::Result<()> {
        let (config, home) = (&container.record.config, &container.home);
        if let NetworkMode::Container(other) = &config.host.network {
            return self.copy_files(container, other);
        }
        let on_host = matches!(config.host.network, NetworkMode::Host);
        write(&home.hostname(), &format!("{}\n", config.hostname))?;
        let base = if on_host { Some(read_or_empty(Path::new("/etc/hosts"))?) } else { None };
        let gateway = self.shared.networks.bridge.gateway;
        let extra = &config.host.extra_hosts;
        let names = (&config.hostname, &config.domainname);
        let addresses = addresses(&connection.places);
        write(
            &home.hosts(),
            &hosts::content(base.as_deref(), extra, Some(gateway), &addresses, names.0, names.1),
        )?;
        write(&home.resolv_conf(), &self.resolv_conf(container, connection)?)
    }

    /// A container in another's network has that one's files.
    fn copy_files(&self, container: &Container, other: &str) -> io::Result<()> {
        let other = self.find(other).map_err(io::Error::other)?;
        let (from, to) = (&other.home, &container.home);
        write(&to.hostname(), &read_or_empty(&from.hostname())?)?;
        write(&to.hosts(), &read_or_empty(&from.hosts())?)?;
        write(&to.resolv_conf(), &read_or_empty(&from.resolv_conf())?)
    }

    /// What a container's resolver is told besides its networks' servers: its own settings before the daemon's.
    pub(crate) fn resolver<'a>(&'a self, container: &'a Container) -> resolv::Overrides<'a> {
        let (daemon, own) = (&self.shared.config, &container.record.config.host.dns);
        let or = |own: &'a Vec<String>, daemon: &'a Vec<String>| if own.is_empty() { daemon } else { own };
        resolv::Overrides {
            servers: or(&own.servers, &daemon.dns),
            search: or(&own.search, &daemon.dns_search),
            options: or(&own.options, &daemon.dns_options),
        }
    }

    fn resolv_conf(&self, container: &Container, connection: &Connection) -> io::Result<String> {
        let overrides = self.resolver(container);
        let host = read_or_empty(Path::new(resolv::HOST))?;
        if matches!(container.record.config.host.network, NetworkMode::Host) {
            return Ok(resolv::shared(&host, overrides));
        }
        if connection.has_names() {
            return Ok(resolv::internal(&host, overrides));
        }
        let source = resolv::source(&host);
        let host = if source == resolv::HOST { host } else { read_or_empty(Path::new(source))? };
        Ok(resolv::content(&host, overrides))
    }

    /// Follows a change of a running container's networks in its files: /etc/hosts line by line, /etc/resolv.conf unless
    /// somebody else has changed it. What fails is logged, as the change has happened.
    pub(crate) fn refresh_files(&self, container: &Container, before: &Connection, after: &Connection) {
        if let Err(error) = self.try_refresh(container, before, after) {
            tracing::warn!("files of container {} may not fit its networks: {error}", container.id());
        }
    }

    fn try_refresh(&self, container: &Container, before: &Connection, after: &Connection) -> io::Result<()> {
        let (config, home) = (&container.record.config, &container.home);
        let line = |address: &Ipv4Addr| hosts::own_line(*address, &config.hostname, &config.domainname);
        let (old, new) = (addresses(&before.places), addresses(&after.places));
        let mut text = read_or_empty(&home.hosts())?;
        for address in old.iter().filter(|address| !new.contains(address)) {
            text = text.replace(&line(address), "");
        }
        text.extend(new.iter().filter(|address| !old.contains(address)).map(line));
        write(&home.hosts(), &text)?;
        if before.has_names() != after.has_names() {
            let written = self.resolv_conf(container, before)?;
            if read_or_empty(&home.resolv_conf())? == written {
                write(&home.resolv_conf(), &self.resolv_conf(container, after)?)?;
            }
        }
        Ok(())
    }
}

fn addresses(places: &[Place]) -> Vec<Ipv4Addr> {
    places.iter().filter_map(|place| place.endpoint.as_ref()).map(|endpoint| endpoint.address).collect()
}

fn write(path: &Path, content: &str) -> io::Result<()> {
    std::fs::write(path, content)?;
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o644))
}

fn read_or_empty(path: &Path) -> io::Result<String> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error),
    }
}
