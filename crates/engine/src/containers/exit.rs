//! The end of a container: noticed by the one task that watches it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use skep_runtime::{Exit, RuntimeError};
use skep_types::ContainerId;

use super::record::State;
use super::registry::Container;
use crate::clock::now;
use crate::error::chain;
use crate::events::{attributes, whole_seconds};
use crate::options::RemoveOptions;
use crate::view::Status;
use crate::{Engine, Error, blocking};

/// How long apart a shim is asked that could not be asked.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

impl Engine {
    /// Watches a running container until it has ended or the engine shuts down.
    pub(crate) fn watch(&self, container: Arc<Container>) {
        self.probe_while_running(&container);
        let engine = self.clone();
        let closing = self.shared.tasks.closing();
        self.shared.tasks.spawn(async move {
            let id = container.id();
            // Here, and not before the start is acknowledged: it only tells an end that came with a loss of power
            // from a start that never happened.
            engine.save_state(&container).await;
            let exit = tokio::select! {
                exit = engine.learn_end(id) => exit,
                () = closing => return,
            };
            engine.has_ended(&container, exit).await;
        });
    }

    /// Waits for the end of a container. That its shim cannot be asked just now, as descriptors or memory are short, says
    /// nothing about the container: one that runs must not be taken for dead.
    async fn learn_end(&self, id: ContainerId) -> Exit {
        let mut told = false;
        loop {
            match self.shared.runtime.wait(id).await {
                Ok(exit) => return exit,
                Err(RuntimeError::NotRunning(_)) => {
                    tracing::error!(
                        "container {id} ended, and how is not known: its shim's records are gone"
                    );
                    return lost();
                }
                Err(error) => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::error!("cannot wait for container {id}, trying on: {}", chain(&error));
                    }
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
            }
        }
    }

    /// Writes the state for the next daemon. What fails is logged: the container goes on all the same.
    pub(crate) async fn save_state(&self, container: &Arc<Container>) {
        let (home, state) = (container.home.clone(), container.state.borrow().clone());
        let written = blocking(move || home.write_state(&state)).await;
        if let Err(error) =
            written.and_then(|it| it.map_err(|error| Error::failed("writing its state", &error)))
        {
            tracing::error!("container {}: {error}", container.id());
        }
    }

    /// Takes back what a container had, and tells everybody; with `--rm` removes it then.
    pub(crate) async fn has_ended(&self, container: &Arc<Container>, exit: Exit) {
        let id = container.id();
        // Before anything else: every connection that still comes here is refused.
        self.withdraw(container).await;
        let before = container.state.borrow().clone();
        let connection = before.connection.clone().unwrap_or_default();
        let after = State {
            status: Status::Exited,
            pid: 0,
            exit_code: exit.code,
            oom_killed: exit.oom_killed,
            finished_at: Some(exit.finished_at),
            connection: None,
            ends: before.ends + 1,
            ..before
        };
        // The state is written before the shim's own record of the end is deleted: one of them is always there.
        let (home, networks) = (container.home.clone(), self.shared.networks.clone());
        let (state, taken) = (after.clone(), connection.clone());
        let taken_back = blocking(move || {
            let saved = home.write_state(&state);
            networks.disconnect(id, &taken);
            saved.map_err(|error| Error::failed("writing its state", &error))
        });
        match taken_back.await.and_then(|saved| saved) {
            Ok(()) => self.forget_in_runtime(id).await,
            Err(error) => {
                tracing::error!("container {id}: {error}");
                container.end_is_unsaved.store(true, Ordering::Relaxed);
            }
        }
        self.forget_container(container, &connection);
        self.leave(container, container.guest.all());
        self.shared.execs.container_ended(id);
        let duration = whole_seconds(after.started_at, exit.finished_at);
        container.state.send_modify(|state| {
            *state = after;
            // Inside, so that whoever sees an event sees the state that goes with it, and in Docker's order.
            if exit.oom_killed {
                self.container_event(container, "oom");
            }
            let ended = attributes([("exitCode", exit.code.to_string()), ("execDuration", duration)]);
            self.container_event_with(container, "die", ended);
            self.network_events(container, "disconnect", &connection.places);
            self.mount_events(container, "unmount");
        });
        if container.record.config.host.auto_remove {
            self.auto_remove(Arc::clone(container));
        }
    }

    /// Deletes what the runtime has of a container that ended, if that was put off.
    pub(crate) async fn forget_unsaved_end(&self, container: &Container) {
        if container.end_is_unsaved.swap(false, Ordering::Relaxed) {
            self.forget_in_runtime(container.id()).await;
        }
    }

    async fn forget_in_runtime(&self, id: ContainerId) {
        if let Err(error) = self.shared.runtime.delete(id).await {
            tracing::error!("cleaning up after container {id}: {}", chain(&error));
        }
    }

    /// Removes a `--rm` container as soon as no operation is under way on it.
    pub(crate) fn auto_remove(&self, container: Arc<Container>) {
        let engine = self.clone();
        self.shared.tasks.spawn(async move {
            let _life = container.life.lock().await;
            // A restart is the one operation that may have begun a new life of it.
            if container.is_running() || container.state.borrow().gone {
                return;
            }
            let options = RemoveOptions { force: true, volumes: true };
            if let Err(error) = engine.remove_alone(&container, options).await {
                tracing::error!("cannot remove container {}: {error}", container.id());
            }
        });
    }
}

/// An end that nobody saw.
pub(crate) fn lost() -> Exit {
    Exit { code: 255, oom_killed: false, finished_at: now(), lost: true }
}
