//! `docker start`.

use std::path::Path;
use std::sync::Arc;

use skep_runtime::spec::ContainerSpec;
use skep_runtime::{Attached, StartError, Started};
use skep_types::container::NetworkMode;
use skep_types::health::{Health, HealthCheck};

use super::record::{MountedFrom, State};
use super::registry::Container;
use crate::images::from_find;
use crate::networks::place::Connection;
use crate::networks::wishes::Planned;
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
        let planned = self.plan(container).await?;
        let (engine, prepared) = (self.clone(), Arc::clone(container));
        let (spec, connection) = blocking(move || engine.prepare(&prepared, &planned)).await??;
        // Ours of the next end will take its place.
        self.forget_unsaved_end(container).await;
        if connection.has_names() {
            // Its first question may come at once.
            self.names().settled().await;
        }
        match self.shared.runtime.start(&spec, attached).await {
            Ok(started) => Ok((started, connection)),
            Err(error) => {
                let (engine, failed) = (self.clone(), Arc::clone(container));
                blocking(move || engine.withdraw_connection(&failed, &connection)).await?;
                Err(error.into())
            }
        }
    }

    /// Everything before the runtime's part. After an error nothing of it is left but folders that `-v` made.
    fn prepare(&self, container: &Container, planned: &[Planned]) -> Result<(ContainerSpec, Connection)> {
        let record = &container.record;
        let layers = self.shared.images.layer_paths(&record.image_id).map_err(from_find)?;
        self.check_sources(container)?;
        let connection = self.connect(container, planned)?;
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
            Ok(spec) => {
                self.tell_container(container, &connection);
                Ok((spec, connection))
            }
            Err(error) => {
                self.shared.networks.disconnect(record.id, &connection);
                Err(error)
            }
        }
    }

    /// Gives a container its network: the host's, another container's, or one of its own.
    fn connect(&self, container: &Container, planned: &[Planned]) -> Result<Connection> {
        let networks = &self.shared.networks;
        let draw_id = || self.draw_id();
        let who = self.who(container, &draw_id);
        match &container.record.config.host.network {
            NetworkMode::Host => Ok(networks.host_connection(&who)),
            NetworkMode::Container(other) => self.borrow(container, other),
            NetworkMode::Bridge | NetworkMode::None | NetworkMode::Cluster(_) | NetworkMode::Named(_) => {
                networks.connect(&who, planned)
            }
        }
    }

    /// The network of another container, which must run. In moby's words (`getNetworkedContainer`).
    fn borrow(&self, container: &Container, other: &str) -> Result<Connection> {
        let other = self.find(other).map_err(|error| {
            Error::internal(format!("joining network namespace of container: {}", error.message))
        })?;
        if other.id() == container.id() {
            return Err(Error::internal("cannot join own network namespace"));
        }
        let state = other.state.borrow();
        let connection = state.connection.as_ref().filter(|_| state.status == Status::Running);
        let connection = connection.ok_or_else(|| {
            Error::conflict(format!(
                "cannot join network namespace of a non running container: container {} is {}",
                other.record.name,
                state.status.name()
            ))
        })?;
        Ok(Connection { sandbox: connection.sandbox.clone(), borrowed: true, ..Connection::default() })
    }

    /// Takes back what a container was given that did not start.
    fn withdraw_connection(&self, container: &Container, connection: &Connection) {
        self.forget_container(container, connection);
        self.shared.networks.disconnect(container.id(), connection);
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
            self.network_events(container, "connect", &connection.places);
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
        self.leave(container, container.guest.all());
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
