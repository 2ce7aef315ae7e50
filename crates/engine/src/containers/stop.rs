//! `docker stop`, `restart` and `kill`.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use skep_runtime::RuntimeError;
use skep_types::container::NetworkMode;

use super::registry::Container;
use crate::error::chain;
use crate::events::attributes;
use crate::view::Status;
use crate::{Engine, Error, Result, blocking, signals};

/// Time between the stop signal and SIGKILL. Docker's.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a process may take to die of SIGKILL: one in the kernel's uninterruptible sleep does not.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// Time for requests under way between a container's withdrawal from the routing mesh and its end by our hand.
const DRAIN: Duration = Duration::from_millis(50);

impl Engine {
    /// Asks a container to end with `signal` (`None`: its own stop signal) and kills it after `timeout`
    /// seconds (`None`: its own; negative: never).
    ///
    /// # Errors
    /// 304 when it does not run; 400 for a signal that is none.
    pub async fn stop(&self, name: &str, signal: Option<&str>, timeout: Option<i64>) -> Result<()> {
        let (engine, container) = (self.clone(), self.find(name)?);
        let how = Manner::new(&container, signal, timeout)?;
        if !container.is_running() {
            return Err(Error::not_modified("Container is already stopped"));
        }
        let stop = async move {
            let _life = container.life.lock().await;
            if container.is_running() { engine.stop_alone(&container, how).await } else { Ok(()) }
        };
        self.shared.tasks.run(stop).await
    }

    /// Stops a container if it runs, then starts it.
    ///
    /// # Errors
    /// As [`Engine::stop`] and [`Engine::start`], without 304.
    pub async fn restart(&self, name: &str, signal: Option<&str>, timeout: Option<i64>) -> Result<()> {
        let (engine, container) = (self.clone(), self.find(name)?);
        let how = Manner::new(&container, signal, timeout)?;
        let restart = async move {
            let _life = container.life.lock().await;
            if container.is_running() {
                engine.stop_alone(&container, how).await?;
            }
            engine.start_alone(&container).await?;
            engine.container_event(&container, "restart");
            Ok(())
        };
        self.shared.tasks.run(restart).await
    }

    /// Sends a signal, by name or number, to a container's first process. SIGKILL returns when it is dead.
    ///
    /// # Errors
    /// 409 when it does not run; 400 for a signal that is none.
    pub async fn kill(&self, name: &str, signal: &str) -> Result<()> {
        let number = if signal.is_empty() { signals::KILL } else { signals::parse(signal)? };
        let unknown =
            |error: Error| Error { message: format!("cannot kill container: {name}: {error}"), ..error };
        let container = self.find(name).map_err(unknown)?;
        let not_running = || {
            let id = container.id();
            Error::conflict(format!("cannot kill container: {name}: container {id} is not running"))
        };
        // Without `life`: a stop that waits for a stubborn process holds it, and must not keep anyone from killing.
        if !container.is_running() {
            return Err(not_running());
        }
        if number == signals::KILL {
            return self.kill_now(&container).await;
        }
        match self.signal(&container, number).await {
            Ok(()) => Ok(()),
            Err(RuntimeError::NotRunning(_)) => Err(not_running()),
            Err(error) => Err(Error::failed(format!("cannot kill container: {name}"), &error)),
        }
    }

    /// Stops a running container whose `life` the caller holds.
    async fn stop_alone(&self, container: &Arc<Container>, how: Manner) -> Result<()> {
        self.let_drain(container).await;
        match self.signal(container, how.signal).await {
            // It ended by itself a moment ago.
            Ok(()) | Err(RuntimeError::NotRunning(_)) => {}
            Err(error) => {
                tracing::warn!("signal {} to container {}: {}", how.signal, container.id(), chain(&error));
            }
        }
        if !ends_within(container, how.timeout).await {
            self.kill_now(container).await?;
        }
        self.container_event(container, "stop");
        Ok(())
    }

    /// Kills a container and waits for its end.
    pub(crate) async fn kill_now(&self, container: &Container) -> Result<()> {
        self.let_drain(container).await;
        match self.signal(container, signals::KILL).await {
            Ok(()) | Err(RuntimeError::NotRunning(_)) => {}
            Err(error) => {
                return Err(Error::failed(format!("cannot kill container {}", container.id()), &error));
            }
        }
        if ends_within(container, Some(KILL_LIMIT)).await {
            return Ok(());
        }
        let (id, limit) = (container.id(), KILL_LIMIT.as_secs());
        Err(Error::internal(format!(
            "container {id}: tried to kill it, but it has not ended within {limit} s"
        )))
    }

    /// Keeps new connections of the routing mesh from a container that is about to end, and lets those that it has
    /// come to their end if they are short. A task that the managers stop was withdrawn by them before.
    async fn let_drain(&self, container: &Container) {
        if self.withdraw(container).await {
            tokio::time::sleep(DRAIN).await;
        }
    }

    /// Takes a container out of the endpoints that are served here; whether it was in one.
    pub(crate) async fn withdraw(&self, container: &Container) -> bool {
        let NetworkMode::Cluster(attachments) = &container.record.config.host.network else { return false };
        let addresses: Vec<Ipv4Addr> = attachments.iter().map(|attachment| attachment.address).collect();
        let networks = self.shared.networks.clone();
        let withdrawn = blocking(move || {
            let withdrawn = addresses.into_iter().map(|address| networks.withdraw(address));
            withdrawn.collect::<Result<Vec<bool>>>()
        });
        match withdrawn.await {
            Ok(Ok(withdrawn)) => withdrawn.contains(&true),
            Ok(Err(error)) | Err(error) => {
                tracing::warn!("container {} still answers for its service: {error}", container.id());
                false
            }
        }
    }

    /// Sends a signal. The event comes first, so that it never follows the death that it caused.
    async fn signal(&self, container: &Container, signal: i32) -> Result<(), RuntimeError> {
        self.container_event_with(container, "kill", attributes([("signal", signal.to_string())]));
        self.shared.runtime.signal(container.id(), signal).await
    }
}

/// How a container is stopped.
#[derive(Clone, Copy, Debug)]
struct Manner {
    signal: i32,
    /// `None` is never.
    timeout: Option<Duration>,
}

impl Manner {
    fn new(container: &Container, signal: Option<&str>, timeout: Option<i64>) -> Result<Manner> {
        let config = &container.record.config;
        let signal = match signal.filter(|signal| !signal.is_empty()) {
            Some(signal) => signals::parse(signal)?,
            None if config.stop_signal.is_empty() => signals::TERM,
            None => signals::parse(&config.stop_signal)?,
        };
        let timeout = match timeout {
            None => Some(config.stop_timeout.unwrap_or(DEFAULT_TIMEOUT)),
            Some(seconds) => u64::try_from(seconds).ok().map(Duration::from_secs),
        };
        Ok(Manner { signal, timeout })
    }
}

/// Waits until a container no longer runs; false when the time is over. `None` waits for as long as it takes.
async fn ends_within(container: &Container, limit: Option<Duration>) -> bool {
    let mut state = container.state.subscribe();
    // The sender lives in the container, which the caller holds: it is not closed.
    let ended = state.wait_for(|state| state.status != Status::Running);
    match limit {
        None => ended.await.is_ok(),
        Some(limit) => tokio::time::timeout(limit, ended).await.is_ok(),
    }
}
