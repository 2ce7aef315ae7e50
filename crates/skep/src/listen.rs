//! The sockets that clients come in by.

use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail, ensure};
use rustix::fs::Mode;
use rustix::process::{Gid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use skep_api::Listener;

use crate::config::{Config, DEFAULT_HOST};

/// The group that may use the socket where nobody named one.
const DEFAULT_GROUP: &str = "docker";
/// Only that group and root.
const SOCKET_MODE: u32 = 0o660;
/// The first file that systemd hands to a service (sd_listen_fds(3)).
const FIRST_PASSED_FD: i32 = 3;

/// Listening sockets, of which the unix ones are removed when this is dropped.
pub struct Sockets {
    /// What to accept on.
    pub listeners: Vec<Listener>,
    /// Files to remove.
    pub files: SocketFiles,
}

/// Files of unix sockets, gone when this is dropped.
#[derive(Debug, Default)]
pub struct SocketFiles(Vec<PathBuf>);

impl Drop for SocketFiles {
    fn drop(&mut self) {
        for path in &self.0 {
            // Somebody else may have removed it already.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Listens on every host of the configuration. Needs the runtime that will accept.
pub fn open(config: &Config) -> anyhow::Result<Sockets> {
    let mut sockets = Sockets { listeners: Vec::new(), files: SocketFiles::default() };
    for host in &config.hosts {
        let opened = open_one(host, config, &mut sockets);
        opened.with_context(|| format!("failed to load listeners: {host}"))?;
    }
    Ok(sockets)
}

fn open_one(host: &str, config: &Config, sockets: &mut Sockets) -> anyhow::Result<()> {
    let host = if host.is_empty() { DEFAULT_HOST } else { host };
    match host.split_once("://") {
        Some(("unix", path)) => {
            let path = PathBuf::from(if path.is_empty() { "/var/run/docker.sock" } else { path });
            sockets.listeners.push(unix(&path, config.group.as_deref())?);
            sockets.files.0.push(path);
            Ok(())
        }
        Some(("tcp", address)) => {
            sockets.listeners.push(tcp(address, config.tls)?);
            Ok(())
        }
        Some(("fd", _)) => {
            sockets.listeners.extend(passed()?);
            Ok(())
        }
        _ => {
            Err(anyhow!("invalid bind address ({host}): use unix://<path>, tcp://<address>:<port> or fd://"))
        }
    }
}

fn unix(path: &Path, group: Option<&str>) -> anyhow::Result<Listener> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {
            // Whoever crashed left its socket: nobody answers there. A living daemon's is not to be taken.
            ensure!(
                UnixStream::connect(path).is_err(),
                "{} is in use: a daemon answers there",
                path.display()
            );
            std::fs::remove_file(path).with_context(|| format!("removing the stale {}", path.display()))?;
        }
        Ok(_) => bail!("{} exists and is no socket", path.display()),
        Err(_) => {}
    }
    if let Some(folder) = path.parent() {
        crate::lock::make_folder(folder, 0o755)?;
    }
    // Nobody may connect between the bind and the change of mode.
    let before = rustix::process::umask(Mode::from_raw_mode(0o777));
    let bound = UnixListener::bind(path);
    rustix::process::umask(before);
    let listener = bound.with_context(|| format!("listening on {}", path.display()))?;
    let name = group.unwrap_or(DEFAULT_GROUP);
    match group_id(name) {
        Some(id) => rustix::fs::chown(path, None, Some(Gid::from_raw(id)))
            .with_context(|| format!("giving {} to the group {name}", path.display()))?,
        None if group.is_some() => bail!("group {name} not found"),
        None => tracing::warn!("could not change group {} to {name}: group {name} not found", path.display()),
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(SOCKET_MODE))
        .with_context(|| format!("setting the mode of {}", path.display()))?;
    into_unix(listener)
}

fn into_unix(listener: UnixListener) -> anyhow::Result<Listener> {
    listener.set_nonblocking(true)?;
    Ok(Listener::Unix(tokio::net::UnixListener::from_std(listener)?))
}

/// A group's number, by its name in /etc/group or by itself.
fn group_id(name: &str) -> Option<u32> {
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let named = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
    });
    named.or_else(|| name.parse().ok())
}

/// Whoever reaches a TCP port in clear is root on this machine: as dockerd 28, only who says so gets one.
fn tcp(address: &str, tls: Option<bool>) -> anyhow::Result<Listener> {
    match tls {
        Some(false) => {}
        Some(true) => bail!("TLS on tcp:// is not built yet: use a unix:// host and forward it with ssh"),
        None => bail!(
            "tcp://{address} without TLS gives everyone who reaches it root on this machine, and TLS is not built yet: \
             use a unix:// host, or say --tls=false to listen in clear all the same"
        ),
    }
    let resolved: Vec<SocketAddr> = with_port(address).to_socket_addrs()?.collect();
    let first = resolved.first().ok_or_else(|| anyhow!("{address} is no address"))?;
    tracing::warn!("binding to {first} without TLS: everyone who can reach it is root on this machine");
    let listener = std::net::TcpListener::bind(first)?;
    listener.set_nonblocking(true)?;
    Ok(Listener::Tcp(tokio::net::TcpListener::from_std(listener)?))
}

/// Docker's defaults: this machine, port 2375.
fn with_port(address: &str) -> String {
    match address.rsplit_once(':') {
        None | Some(("", "")) if address.is_empty() => "127.0.0.1:2375".to_owned(),
        Some(("", port)) => format!("127.0.0.1:{port}"),
        Some((_, port)) if port.parse::<u16>().is_ok() => address.to_owned(),
        _ => format!("{address}:2375"),
    }
}

/// Sockets that systemd opened.
fn passed() -> anyhow::Result<Vec<Listener>> {
    let variable = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<i32>().ok());
    let ours = variable("LISTEN_PID") == i32::try_from(std::process::id()).ok();
    let count = variable("LISTEN_FDS").filter(|count| ours && *count > 0);
    let count = count.ok_or_else(|| {
        anyhow!("no sockets found via socket activation: make sure the service was started by systemd")
    })?;
    let own = pidfd_open(rustix::process::getpid(), PidfdFlags::empty())?;
    let mut listeners = Vec::new();
    for number in FIRST_PASSED_FD..FIRST_PASSED_FD + count {
        // A copy of the file by its number, without taking anybody's word for who owns that.
        let file: OwnedFd = pidfd_getfd(&own, number, PidfdGetfdFlags::empty())?;
        let address = rustix::net::getsockname(&file)?;
        if address.address_family() == rustix::net::AddressFamily::UNIX {
            listeners.push(into_unix(UnixListener::from(file))?);
        } else {
            bail!("fd:// with a TCP socket is not built yet");
        }
    }
    Ok(listeners)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_added_where_none_is_named() {
        assert_eq!(with_port(""), "127.0.0.1:2375");
        assert_eq!(with_port(":80"), "127.0.0.1:80");
        assert_eq!(with_port("10.0.0.1"), "10.0.0.1:2375");
        assert_eq!(with_port("10.0.0.1:99"), "10.0.0.1:99");
        assert_eq!(with_port("[::1]:99"), "[::1]:99");
        assert_eq!(with_port("[::1]"), "[::1]:2375");
    }

    #[test]
    fn a_tcp_host_in_clear_must_be_asked_for() {
        let error = tcp("127.0.0.1:0", None).expect_err("not asked for");
        assert!(error.to_string().contains("--tls=false"), "{error}");
        assert!(tcp("127.0.0.1:0", Some(true)).is_err());
    }
}
