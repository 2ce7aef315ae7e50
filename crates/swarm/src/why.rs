//! Explanations for people, and what follows from them.

use std::time::SystemTime;

use skep_cluster::{Convergence, Rehearsal, Request, convergence, rehearse, why_node, why_service, why_task};
use skep_types::Time;

use crate::{Swarm, SwarmError};

impl Swarm {
    /// Why the task, service or node of this id, name or unique id prefix is where it is, in lines.
    ///
    /// # Errors
    /// 404 where there is none of that name; 400 when several match; 503 when this node is no manager.
    pub async fn why(&self, name: &str) -> Result<Vec<String>, SwarmError> {
        let now = Time::from(SystemTime::now());
        // A service's name is what people have in their heads; then a node's; a task's is the longest.
        match self.service(name).await {
            Ok(service) => return self.read(|objects| why_service(objects, service.id, now)).await,
            Err(SwarmError::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
        match self.node(name).await {
            Ok(view) => return self.read(|objects| why_node(objects, view.node.id, now)).await,
            Err(SwarmError::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
        match self.task(name).await {
            Ok(task) => self.read(|objects| why_task(objects, task.id, now)).await,
            Err(SwarmError::NotFound(_)) => {
                Err(SwarmError::NotFound(format!("no task, service or node is called {name}")))
            }
            Err(error) => Err(error),
        }
    }

    /// How far a service is from what its specification asks for.
    ///
    /// # Errors
    /// As [`Swarm::service`].
    pub async fn convergence(&self, name: &str) -> Result<Convergence, SwarmError> {
        let service = self.service(name).await?;
        let gone = || SwarmError::NotFound(format!("service {name} not found"));
        let read = |objects: &skep_cluster::Objects| {
            objects.service(service.id).map(|service| convergence(objects, service))
        };
        self.read(read).await?.ok_or_else(gone)
    }

    /// Plays requests without asking for them: see [`rehearse`].
    ///
    /// # Errors
    /// 503 when this node is no manager.
    pub async fn rehearse<T>(&self, play: impl FnOnce(&mut Rehearsal<'_>) -> T) -> Result<T, SwarmError> {
        let now = Time::from(SystemTime::now());
        self.read(|objects| rehearse(objects, now, play)).await
    }

    /// Lets tasks of a service that would be elsewhere if all were placed now move there, in the order of its updates.
    ///
    /// # Errors
    /// As [`Swarm::service`]; 400 for a service without replicas, or with an update that is paused.
    pub async fn rebalance(&self, name: &str) -> Result<(), SwarmError> {
        let id = self.service(name).await?.id;
        self.manager()?.request(Request::Rebalance(id)).await.map(|_| ())
    }
}
