//! `docker start`.

use std::io;
use std::path::Path;
use std::sync::Arc;

use skep_runtime::spec::ContainerSpec;
use skep_runtime::{Attached, StartError, Started};
use skep_types::container::NetworkMode;
use skep_types::health::{Health, HealthCheck};

use super::record::{MountedFrom, State};
use super::registry::Container;
use crate::files::{hosts, resolv};
use crate::images::from_find;
use crate::networks::place::{Connection, Who};
use crate::options::RemoveOptions;
use crate::view::Status;
use crate::{Engine, Error, ErrorKind, Result, blocking, disk};

/// Exit code of a container that the engine failed to start (docker-run(1)).
const ENGINE_FAILED: i32 = 125;

/// What goes in front of the runtime's words: clients look for it.
const TASK_FAILED: &str = "failed to create task for container: ";

/// What moby finds out before it makes a task.
const NO_USER: &str = "unable to find user";

/// Why a container did not start.
struct Failure {
    exit_code: i32,
    error: Error,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure { exit_code: ENGINE_FAILED, error }
    }
}

impl From<StartError> for Failure {
    fn from(refused: StartError) -> Failure {
        let StartError { code, message } = refused;
        // Docker blames the configuration for what cannot be executed (moby, daemon/errors.go).
        let kind = if matches!(code, 126 | 127) { ErrorKind::InvalidParameter } else { ErrorKind::Internal };
        let is_whole = message.starts_with(TASK_FAILED) || message.starts_with(NO_USER);
        let message = if is_whole { message } else { format!("{TASK_FAILED}{message}") };
        Failure { exit_code: code, error: Error::new(kind, message) }
    }
}

impl Engine {
    /// Starts a container.
    ///
    /// # Errors
    /// 304 when it runs; 409 when it is being removed; else Docker's words, by which clients tell 125, 126
    /// and 127 apart.
    pub async fn start(&self, name: &str) -> Result<()> {
        let (engine, container) = (self.clone(), self.find(name)?);
        let start = async move {
            let _life = container.life.lock().await;
            engine.start_alone(&container).await
        };
        self.shared.tasks.run(start).await
    }

    /// Starts a container whose `life` the caller holds.
    pub(crate) async fn start_alone(&self, container: &Arc<Container>) -> Result<()> {
        match container.status() {
            Status::Created | Status::Exited => {}
            Status::Running => return Err(Error::not_modified("Container is already started")),
            Status::Removing | Status::Dead => {
                return Err(Error::conflict("container is marked for removal and cannot be started"));
            }
        }
        let gate = container.gate.lock().await;
        let attached = container.take_waiting();
        let started = self.try_start(container, attached).await;
        match started {
            Ok((started, connection)) => {
                self.has_started(container, started, connection);
                drop(gate);
                self.watch(Arc::clone(container));
                Ok(())
            }
            Err(failure) => {
                drop(gate);
                Err(self.has_not_started(container, failure).await)
            }
        }
    }

    async fn try_start(
        &self,
        container: &Arc<Container>,
        attached: Vec<Attached>,
    ) -> Result<(Started, Connection), Failure> {
        let (engine, prepared) = (self.clone(), Arc::clone(container));
        let (spec, connection) = blocking(move || engine.prepare(&prepared)).await??;
        // Ours of the next end will take its place.
        self.forget_unsaved_end(container).await;
        match self.shared.runtime.start(&spec, attached).await {
            Ok(started) => Ok((started, connection)),
            Err(error) => {
                let (networks, id) = (self.shared.networks.clone(), container.id());
                blocking(move || networks.disconnect(id, &connection)).await?;
                Err(error.into())
            }
        }
    }

    /// Everything before the runtime's part. After an error nothing of it is left but folders that `-v` made.
    fn prepare(&self, container: &Container) -> Result<(ContainerSpec, Connection)> {
        let record = &container.record;
        let layers = self.shared.images.layer_paths(&record.image_id).map_err(from_find)?;
        self.check_sources(container)?;
        let who = Who {
            id: record.id,
            name: &record.name,
            config: &record.config,
            draw_id: &|| self.draw_id(),
            default_host_ip: self.shared.config.default_host_ip,
        };
        let connection = self.shared.networks.connect(&who)?;
        let ready = self.write_files(container, &connection).and_then(|()| {
            // Before the runtime is asked: whatever happens now, the next daemon knows what the kernel was given.
            let state = State { connection: Some(connection.clone()), ..container.state.borrow().clone() };
            container.home.write_state(&state)
        });
        let spec = match ready {
            Ok(()) => self.spec(container, layers, &connection),
            Err(error) => Err(Error::failed("writing the container's files", &error)),
        };
        match spec {
            Ok(spec) => Ok((spec, connection)),
            Err(error) => {
                self.shared.networks.disconnect(record.id, &connection);
                Err(error)
            }
        }
    }

    fn check_sources(&self, container: &Container) -> Result<()> {
        for mount in &container.record.mounts {
            match &mount.source {
                MountedFrom::Bind { path, create_missing, .. } => check_bind(path, *create_missing)?,
                MountedFrom::Volume { name, .. } => {
                    let data = self.shared.volumes.data(name);
                    if !data.is_dir() {
                        return Err(Error::internal(format!(
                            "the folder of volume {name} is gone: {}",
                            data.display()
                        )));
                    }
                }
                MountedFrom::Tmpfs { .. } => {}
            }
        }
        Ok(())
    }

    /// Writes /etc/hostname, /etc/hosts and /etc/resolv.conf. They are written in place, as a stopped container's
    /// files have no reader, and not forced to the disk, as each start writes them again.
    fn write_files(&self, container: &Container, connection: &Connection) -> io::Result<()> {
        let (config, home) = (&container.record.config, &container.home);
        let settings = &self.shared.config;
        let on_host = matches!(config.host.network, NetworkMode::Host);
        let write = |path: &Path, content: &str| -> io::Result<()> {
            std::fs::write(path, content)?;
            std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o644))
        };
        write(&home.hostname(), &format!("{}\n", config.hostname))?;
        let addresses: Vec<_> = connection
            .places
            .iter()
            .filter_map(|place| place.endpoint.as_ref())
            .map(|it| it.address)
            .collect();
        let base = if on_host { Some(read_or_empty(Path::new("/etc/hosts"))?) } else { None };
        let gateway = self.shared.networks.bridge.gateway;
        let extra = &config.host.extra_hosts;
        let names = (&config.hostname, &config.domainname);
        write(
            &home.hosts(),
            &hosts::content(base.as_deref(), extra, Some(gateway), &addresses, names.0, names.1),
        )?;
        let host = read_or_empty(Path::new(resolv::HOST))?;
        let overrides = resolv::Overrides {
            servers: &settings.dns,
            search: &settings.dns_search,
            options: &settings.dns_options,
        };
        let content = if on_host && settings.dns.is_empty() {
            host
        } else {
            let source = resolv::source(&host);
            let host = if source == resolv::HOST { host } else { read_or_empty(Path::new(source))? };
            resolv::content(&host, overrides)
        };
        write(&home.resolv_conf(), &content)
    }

    fn has_started(&self, container: &Container, started: Started, connection: Connection) {
        let check = container.record.config.health.as_ref().and_then(HealthCheck::in_force);
        let checked = check.is_some();
        container.state.send_modify(|state| {
            *state = State {
                status: Status::Running,
                pid: started.pid,
                exit_code: 0,
                error: String::new(),
                oom_killed: false,
                started_at: Some(started.started_at),
                finished_at: state.finished_at,
                health: checked.then_some(Health::STARTING),
                connection: Some(connection.clone()),
                ..*state
            };
            // Inside, so that whoever sees an event sees the state that goes with it.
            self.network_events(container, "connect", &connection);
            self.mount_events(container, "mount");
            self.container_event(container, "start");
        });
    }

    /// Records why a container did not start; with `--rm` removes it.
    async fn has_not_started(&self, container: &Arc<Container>, failure: Failure) -> Error {
        let Failure { exit_code, error } = failure;
        container.state.send_modify(|state| {
            state.exit_code = exit_code;
            state.error.clone_from(&error.message);
            state.connection = None;
            state.ends += 1;
        });
        self.save_state(container).await;
        if container.record.config.host.auto_remove {
            let options = RemoveOptions { force: true, volumes: true };
            if let Err(error) = self.remove_alone(container, options).await {
                tracing::error!("cannot remove container {}: {error}", container.id());
            }
        }
        error
    }
}

/// Checks the source of a bind, and makes the folder that `-v` names.
fn check_bind(path: &Path, create_missing: bool) -> Result<()> {
    match path.try_exists() {
        Ok(true) => Ok(()),
        Ok(false) if create_missing => disk::make_dir(path, 0o755).map_err(|error| {
            Error::failed(format!("error while creating mount source path '{}'", path.display()), &error)
        }),
        Ok(false) => Err(Error::invalid(format!(
            "invalid mount config for type \"bind\": bind source path does not exist: {}",
            path.display()
        ))),
        Err(error) => Err(Error::failed(format!("checking mount source path '{}'", path.display()), &error)),
    }
}

fn read_or_empty(path: &Path) -> io::Result<String> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error),
    }
}
