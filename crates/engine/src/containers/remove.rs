//! `docker rm`.

use std::sync::Arc;

use super::registry::Container;
use crate::options::RemoveOptions;
use crate::view::Status;
use crate::{Engine, Error, Result, blocking, disk};

/// In front of the id, the name of a container's folder while it is being removed: one that a crash left is removed
/// by the next start.
pub(crate) const REMOVED_PREFIX: &str = ".removed-";

/// The same where its nameless volumes go with it. They go before the folder, whose record names them: so a start
/// after a crash finds those that are left.
pub(crate) const REMOVED_WITH_VOLUMES_PREFIX: &str = ".removed-with-volumes-";

impl Engine {
    /// Removes a container.
    ///
    /// # Errors
    /// 409 when it runs and `force` is not set, or when it is being removed.
    pub async fn remove(&self, name: &str, options: RemoveOptions) -> Result<()> {
        let (engine, container) = (self.clone(), self.find(name)?);
        if container.status() == Status::Removing {
            return Err(Error::conflict(format!("removal of container {name} is already in progress")));
        }
        check_stopped(&container, options)?;
        let name = name.to_owned();
        let remove = async move {
            if options.force && container.is_running() {
                // Before `life` is taken: a stop that waits for a stubborn process holds it.
                engine.kill_now(&container).await?;
            }
            let _life = container.life.lock().await;
            if container.state.borrow().gone {
                // `--rm` was faster.
                return if options.force {
                    Ok(())
                } else {
                    Err(Error::not_found(format!("No such container: {name}")))
                };
            }
            engine.remove_alone(&container, options).await
        };
        self.shared.tasks.run(remove).await
    }

    /// Removes a container whose `life` the caller holds.
    pub(crate) async fn remove_alone(
        &self,
        container: &Arc<Container>,
        options: RemoveOptions,
    ) -> Result<()> {
        check_stopped(container, options)?;
        if container.is_running() {
            self.kill_now(container).await?;
        }
        container.state.send_modify(|state| state.status = Status::Removing);
        // Whoever attached and waited for a start sees the end.
        drop(container.take_waiting());
        let (engine, doomed) = (self.clone(), Arc::clone(container));
        let removed = match blocking(move || engine.erase(&doomed, options)).await {
            Ok(removed) => removed,
            Err(error) => Err(error),
        };
        if let Err(error) = removed {
            container.state.send_modify(|state| {
                state.status = Status::Dead;
                state.error.clone_from(&error.message);
            });
            return Err(error);
        }
        self.forget_unsaved_end(container).await;
        container.state.send_modify(|state| {
            state.gone = true;
            self.container_event(container, "destroy");
        });
        Ok(())
    }

    /// Takes a container off the disk and out of the books.
    fn erase(&self, container: &Container, options: RemoveOptions) -> Result<()> {
        let id = container.id();
        let failed =
            |error: &std::io::Error| Error::failed(format!("unable to remove filesystem for {id}"), error);
        let doomed = |prefix: &str| self.containers_dir().join(format!("{prefix}{id}"));
        let prefix = if options.volumes { REMOVED_WITH_VOLUMES_PREFIX } else { REMOVED_PREFIX };
        // One rename makes it gone for every later start; deleting what it wrote may take long and may be cut off.
        match std::fs::rename(&container.home.0, doomed(prefix)) {
            Ok(()) => {}
            // A second try after a failed one.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(&error)),
        }
        for name in container.record.volumes() {
            self.shared.volumes.release(name, id);
            if options.volumes {
                self.remove_if_anonymous(name);
            }
        }
        // A first try may have been asked for the other.
        for prefix in [REMOVED_PREFIX, REMOVED_WITH_VOLUMES_PREFIX] {
            disk::remove_tree(&doomed(prefix)).map_err(|error| failed(&error))?;
        }
        self.shared.execs.container_removed(id);
        self.shared.containers.remove(container);
        Ok(())
    }
}

/// Refuses to remove what runs, in the words of Docker 28.
fn check_stopped(container: &Container, options: RemoveOptions) -> Result<()> {
    let status = container.status();
    if options.force || status != Status::Running {
        return Ok(());
    }
    let name = &container.record.name;
    Err(Error::conflict(format!(
        "cannot remove container \"/{name}\": container is {}: stop the container before removing or force remove",
        status.name()
    )))
}
