//! What users read and change in the cluster.

use skep_cluster::{Answer, Force, Objects, Request};
use skep_types::node::{Node, NodeSpec};
use skep_types::service::{Service, ServiceSpec};
use skep_types::swarm::ClusterObject;
use skep_types::{ServiceId, Task, Version};

use crate::lookup::find;
use crate::status::{Managers, NodeView};
use crate::{Swarm, SwarmError};

impl Swarm {
    /// The cluster with its join tokens.
    ///
    /// # Errors
    /// 503 when this node is no manager.
    pub async fn inspect(&self) -> Result<ClusterObject, SwarmError> {
        self.read(|objects| objects.cluster().cloned())
            .await?
            .ok_or_else(|| SwarmError::Internal("the cluster has no settings".to_owned()))
    }

    /// All services, ordered by id.
    ///
    /// # Errors
    /// 503 when this node is no manager.
    pub async fn services(&self) -> Result<Vec<Service>, SwarmError> {
        self.read(|objects| objects.services().cloned().collect()).await
    }

    /// The service with this id, name or unique id prefix.
    ///
    /// # Errors
    /// 404 `service x not found`; 400 when several match; 503 when this node is no manager.
    pub async fn service(&self, name: &str) -> Result<Service, SwarmError> {
        self.find_service(name, Service::clone).await
    }

    async fn find_service<T>(&self, name: &str, read: impl FnOnce(&Service) -> T) -> Result<T, SwarmError> {
        self.read(|objects| {
            if let Some(service) = name.parse().ok().and_then(|id| objects.service(id)) {
                return Ok(read(service));
            }
            if let Some(service) = objects.service_named(name) {
                return Ok(read(service));
            }
            let services: Vec<&Service> = objects.services().collect();
            let found = find("service", name, services.iter(), |it| it.id, |it| it.spec.name.clone());
            found.map(|service| read(service))
        })
        .await?
    }

    /// Creates a service; returns once it is durable.
    ///
    /// # Errors
    /// 409 for a name in use; 400 for a specification that makes no sense; 503 when this node is no manager.
    pub async fn create_service(&self, spec: ServiceSpec) -> Result<ServiceId, SwarmError> {
        match self.manager()?.request(Request::CreateService(Box::new(spec))).await? {
            Answer::Service(id) => Ok(id),
            Answer::Done | Answer::Network(_) | Answer::Attached(_) => {
                Err(SwarmError::Internal("a created service has no id".to_owned()))
            }
        }
    }

    /// Replaces the specification of the service with this id, name or unique id prefix.
    ///
    /// # Errors
    /// As [`Swarm::service`] and [`Swarm::create_service`]; 500 `update out of sequence`.
    pub async fn update_service(
        &self,
        name: &str,
        version: Version,
        spec: ServiceSpec,
    ) -> Result<(), SwarmError> {
        let id = self.find_service(name, |service| service.id).await?;
        let request = Request::UpdateService { id, version, spec: Box::new(spec) };
        self.manager()?.request(request).await.map(|_| ())
    }

    /// Takes the service with this id, name or unique id prefix back to the specification before its last change.
    ///
    /// # Errors
    /// As [`Swarm::update_service`]; 400 when there is no specification to go back to.
    pub async fn roll_back_service(&self, name: &str, version: Version) -> Result<(), SwarmError> {
        let id = self.find_service(name, |service| service.id).await?;
        self.manager()?.request(Request::RollBackService { id, version }).await.map(|_| ())
    }

    /// Removes the service with this id, name or unique id prefix.
    ///
    /// # Errors
    /// As [`Swarm::service`].
    pub async fn remove_service(&self, name: &str) -> Result<(), SwarmError> {
        let id = self.find_service(name, |service| service.id).await?;
        self.manager()?.request(Request::RemoveService(id)).await.map(|_| ())
    }

    /// All tasks, ordered by id.
    ///
    /// # Errors
    /// 503 when this node is no manager.
    pub async fn tasks(&self) -> Result<Vec<Task>, SwarmError> {
        self.read(|objects| objects.tasks().cloned().collect()).await
    }

    /// The task with this id, name (`service.slot.id`) or unique id prefix.
    ///
    /// # Errors
    /// 404 `task x not found`; 400 when several match; 503 when this node is no manager.
    pub async fn task(&self, name: &str) -> Result<Task, SwarmError> {
        self.read(|objects| {
            if let Some(task) = name.parse().ok().and_then(|id| objects.task(id)) {
                return Ok(task.clone());
            }
            let tasks: Vec<&Task> = objects.tasks().collect();
            find("task", name, tasks.iter(), |task| task.id, |task| task.container_name())
                .map(|task| Task::clone(task))
        })
        .await?
    }

    /// All nodes, ordered by id.
    ///
    /// # Errors
    /// 503 when this node is no manager.
    pub async fn nodes(&self) -> Result<Vec<NodeView>, SwarmError> {
        let manager = self.manager()?;
        manager
            .read_nodes(|objects, managers| objects.nodes().map(|node| managers.view(node)).collect())
            .await
    }

    /// The node with this id, host name or unique id prefix; `self` is this node.
    ///
    /// # Errors
    /// 404 `node x not found`; 400 when several match; 503 when this node is no manager.
    pub async fn node(&self, name: &str) -> Result<NodeView, SwarmError> {
        let own = self.own_id().filter(|_| name == "self").map(|id| id.to_string());
        let name = own.as_deref().unwrap_or(name);
        let manager = self.manager()?;
        let read = |objects: &Objects, managers: &Managers| {
            let nodes: Vec<&Node> = objects.nodes().collect();
            find("node", name, nodes.iter(), |node| node.id, |node| node.description.hostname.clone())
                .map(|node| managers.view(node))
        };
        manager.read_nodes(read).await?
    }

    /// Changes what the user wants of the node with this id, host name or unique id prefix.
    ///
    /// # Errors
    /// As [`Swarm::node`]; 500 `update out of sequence`; 400 when a guard forbids it.
    pub async fn update_node(&self, name: &str, version: Version, spec: NodeSpec) -> Result<(), SwarmError> {
        let id = self.node(name).await?.node.id;
        let request = Request::UpdateNode { id, version, spec: Box::new(spec) };
        self.manager()?.request(request).await.map(|_| ())
    }

    /// Takes a node that is gone out of the cluster; with `force` one that still answers.
    ///
    /// # Errors
    /// As [`Swarm::node`]; 400 for a manager, and without `force` for a node that answers.
    pub async fn remove_node(&self, name: &str, force: Force) -> Result<(), SwarmError> {
        let id = self.node(name).await?.node.id;
        self.manager()?.request(Request::RemoveNode { id, force }).await.map(|_| ())
    }
}
