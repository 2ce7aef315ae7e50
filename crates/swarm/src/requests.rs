//! What users read and change in the cluster.

use skep_cluster::{Answer, Request};
use skep_identity::RootName;
use skep_types::network::Network;
use skep_types::node::{Node, NodeSpec};
use skep_types::service::{Service, ServiceSpec};
use skep_types::swarm::ClusterObject;
use skep_types::{ServiceId, Task, Version};

use crate::founding::join_token;
use crate::lookup::find;
use crate::status::{Managers, NodeView};
use crate::{ClusterUpdate, Swarm, SwarmError};

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

    /// Changes the cluster's settings, rotates join tokens.
    ///
    /// # Errors
    /// 503 when this node is no manager; 500 `update out of sequence`; 400 for settings that make no sense.
    pub async fn update_cluster(&self, update: ClusterUpdate) -> Result<(), SwarmError> {
        let root_ca = self.inspect().await?.authority.certificate;
        let token = |rotate: bool| rotate.then(|| join_token(&root_ca)).transpose();
        let request = Request::UpdateCluster {
            version: update.version,
            worker_token: token(update.rotate_worker_token)?,
            manager_token: token(update.rotate_manager_token)?,
            spec: Box::new(update.spec),
            unlock_key: None,
            authority: None,
        };
        self.manager()?.request(request).await.map(|_| ())
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
            Answer::Done => Err(SwarmError::Internal("a created service has no id".to_owned())),
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
        let managers = alone();
        self.read(|objects| objects.nodes().map(|node| managers.view(node)).collect()).await
    }

    /// The node with this id, host name or unique id prefix; `self` is this node.
    ///
    /// # Errors
    /// 404 `node x not found`; 400 when several match; 503 when this node is no manager.
    pub async fn node(&self, name: &str) -> Result<NodeView, SwarmError> {
        let own = self.own_id().filter(|_| name == "self").map(|id| id.to_string());
        let name = own.as_deref().unwrap_or(name);
        self.read(|objects| {
            let nodes: Vec<&Node> = objects.nodes().collect();
            find("node", name, nodes.iter(), |node| node.id, |node| node.description.hostname.clone())
                .map(|node| alone().view(node))
        })
        .await?
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

    /// The cluster-wide networks, ordered by id; none outside a swarm.
    pub async fn networks(&self) -> Vec<Network> {
        self.read(|objects| objects.networks().cloned().collect()).await.unwrap_or_default()
    }

    /// What the API's `TLSInfo` tells of the cluster's authority.
    ///
    /// # Errors
    /// 503 when this node is no manager; 500 when the root cannot be read.
    pub async fn tls_info(&self) -> Result<TlsInfo, SwarmError> {
        let trust_root = self.inspect().await?.authority.certificate;
        let root = RootName::of(&trust_root)
            .map_err(|error| SwarmError::Internal(crate::log_worker::chain(&error)))?;
        Ok(TlsInfo { trust_root, issuer_subject: root.subject_der, issuer_public_key: root.public_key_der })
    }
}

/// How the managers of a cluster of one stand.
fn alone() -> Managers {
    Managers { leader: Some(1), reachable: Some([1].into()) }
}

/// The cluster's authority, as `docker info` and `docker node inspect` show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsInfo {
    /// The root certificate in PEM.
    pub trust_root: String,
    /// The issuer's name in DER; base 64 at the API.
    pub issuer_subject: Vec<u8>,
    /// The issuer's public key in DER; base 64 at the API.
    pub issuer_public_key: Vec<u8>,
}
