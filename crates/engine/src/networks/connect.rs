//! `docker network connect` and `disconnect`.

use std::collections::BTreeSet;
use std::sync::Arc;

use skep_types::container::{EndpointRequest, NetworkMode};

use super::place::{Connection, Who};
use super::wishes::{Planned, Target};
use crate::containers::record::State;
use crate::containers::registry::Container;
use crate::view::Status;
use crate::{Engine, Error, ErrorKind, Result, blocking};

impl Engine {
    /// Connects a container, running or not, to a network.
    ///
    /// # Errors
    /// 404 for either; 403 when it is on that network; 400 and 409 when it cannot be on any.
    pub async fn connect_network(&self, container: &str, request: EndpointRequest) -> Result<()> {
        let (engine, container) = (self.clone(), self.find(container)?);
        let connect = async move {
            let _life = container.life.lock().await;
            refuse_removal(&container)?;
            refuse_shared(&container)?;
            let wish = engine.settle_wish(request).await?;
            let mut wishes = container.wishes();
            if wishes.iter().any(|known| known.network == wish.network) {
                return Err(Error::forbidden(format!(
                    "endpoint with name {} already exists in network {}",
                    container.record.name, wish.network
                )));
            }
            if container.is_running() {
                engine.connect_running(&container, &wish).await?;
            }
            wishes.push(wish);
            engine.keep_wishes(&container, wishes).await
        };
        self.shared.tasks.run(connect).await
    }

    /// Disconnects a container, running or not, from a network. With `force` also one that is not there any more.
    ///
    /// # Errors
    /// 404 for either; 403 when it is not on that network; 400 when it is on the host's.
    pub async fn disconnect_network(&self, container: &str, network: &str, force: bool) -> Result<()> {
        let (engine, container, network) = (self.clone(), self.find(container)?, network.to_owned());
        let disconnect = async move {
            let _life = container.life.lock().await;
            refuse_removal(&container)?;
            let network = engine.known_name(&container, &network).await;
            if matches!(container.record.config.host.network, NetworkMode::Host) && network == "host" {
                return Err(Error::invalid(
                    "cannot disconnect container from host network - container was created in host network mode",
                ));
            }
            let mut wishes = container.wishes();
            let before = wishes.len();
            wishes.retain(|wish| wish.network != network);
            if wishes.len() == before && !force {
                let id = container.id();
                return Err(Error::forbidden(format!(
                    "container {id} is not connected to network {network}"
                )));
            }
            if container.is_running() {
                engine.disconnect_running(&container, &network).await?;
            }
            engine.keep_wishes(&container, wishes).await
        };
        self.shared.tasks.run(disconnect).await
    }

    /// The name of a network as the container's wishes have it.
    async fn known_name(&self, container: &Container, typed: &str) -> String {
        let connection = container.state.borrow().connection.clone().unwrap_or_default();
        let by_id = connection.places.iter().find(|place| place.network_id == typed);
        match by_id {
            Some(place) => place.network.clone(),
            None => self.network_name(typed).await,
        }
    }

    async fn keep_wishes(&self, container: &Arc<Container>, wishes: Vec<EndpointRequest>) -> Result<()> {
        let (home, kept) = (container.home.clone(), wishes.clone());
        blocking(move || home.write_wishes(&kept))
            .await?
            .map_err(|error| Error::failed("writing down the container's networks", &error))?;
        container.set_wishes(wishes);
        Ok(())
    }

    async fn connect_running(&self, container: &Arc<Container>, wish: &EndpointRequest) -> Result<()> {
        let planned = self.plan_wish(container, wish).await?;
        let (engine, joining) = (self.clone(), Arc::clone(container));
        let joined = blocking(move || engine.join_running(&joining, &planned)).await?;
        if joined.is_err() {
            self.leave_absent(container);
        }
        let connection = joined?;
        self.names().settled().await;
        let place = connection.places.last().cloned();
        container.state.send_modify(|state| {
            if let Some(place) = place {
                self.network_events(container, "connect", [&place]);
            }
            state.connection = Some(connection);
        });
        self.save_state(container).await;
        Ok(())
    }

    fn join_running(&self, container: &Container, planned: &Planned) -> Result<Connection> {
        let networks = &self.shared.networks;
        let before = container.state.borrow().connection.clone().unwrap_or_default();
        let mut connection = before.clone();
        let draw_id = || self.draw_id();
        let who = self.who(container, &draw_id);
        // What stood for the absence of a network goes.
        connection.places.retain(|place| place.endpoint.is_some());
        let joined = networks.join(&who, planned, &mut connection).and_then(|()| {
            let state = State { connection: Some(connection.clone()), ..container.state.borrow().clone() };
            let written = container.home.write_state(&state);
            written.map_err(|error| Error::failed("writing the container's state", &error))
        });
        let joined = joined.and_then(|()| networks.redirect_names(&who, &connection));
        let joined = joined.and_then(|()| networks.publish(&who, &mut connection));
        if let Err(error) = joined {
            if connection.places.len() > before.places.len()
                && let Some(id) = connection.places.last().map(|place| place.network_id.clone())
            {
                networks.part(&who, &id, &mut connection);
            }
            return Err(error);
        }
        self.tell_container(container, &connection);
        self.refresh_files(container, &before, &connection);
        Ok(connection)
    }

    async fn disconnect_running(&self, container: &Arc<Container>, network: &str) -> Result<()> {
        let (engine, parting, name) = (self.clone(), Arc::clone(container), network.to_owned());
        let parted = blocking(move || engine.part_running(&parting, &name)).await??;
        let Some((connection, place)) = parted else { return Ok(()) };
        container.state.send_modify(|state| {
            state.connection = Some(connection);
            self.network_events(container, "disconnect", [&place]);
        });
        self.save_state(container).await;
        self.leave_absent(container);
        Ok(())
    }

    fn part_running(
        &self,
        container: &Container,
        network: &str,
    ) -> Result<Option<(Connection, super::place::Place)>> {
        let networks = &self.shared.networks;
        let before = container.state.borrow().connection.clone().unwrap_or_default();
        let mut connection = before.clone();
        let Some(id) = before.places.iter().find(|place| place.network == network) else { return Ok(None) };
        let draw_id = || self.draw_id();
        let who = self.who(container, &draw_id);
        let parted = networks.part(&who, &id.network_id, &mut connection);
        let published = networks.publish(&who, &mut connection);
        if let Some(place) = &parted {
            self.forget_place(container, place);
        }
        self.tell_container(container, &connection);
        self.refresh_files(container, &before, &connection);
        published?;
        Ok(parted.map(|place| (connection, place)))
    }

    /// Gives up the places on networks of the cluster that a container has no more.
    pub(crate) fn leave_absent(&self, container: &Arc<Container>) {
        let connection = container.state.borrow().connection.clone().unwrap_or_default();
        let present: BTreeSet<_> = connection.cluster_networks().collect();
        let left = container.guest.all().difference(&present).copied().collect();
        self.leave(container, left);
    }

    /// What a container's connections are made from: its networks in order.
    pub(crate) async fn plan(&self, container: &Arc<Container>) -> Result<Vec<Planned>> {
        if let NetworkMode::Cluster(attachments) = &container.record.config.host.network {
            return Ok(attachments.iter().map(Target::of_task).collect());
        }
        let mut planned = Vec::new();
        for wish in container.wishes() {
            planned.push(self.plan_wish(container, &wish).await?);
        }
        Ok(planned)
    }

    async fn plan_wish(&self, container: &Arc<Container>, wish: &EndpointRequest) -> Result<Planned> {
        let target = if wish.network == "bridge" {
            Target::Bridge
        } else if let Some(local) = self.shared.networks.locals.get(&wish.network) {
            Target::Local(Box::new(local))
        } else {
            Target::Cluster(Box::new(self.welcome(container, wish).await?))
        };
        Ok(Planned { target, wish: wish.clone() })
    }

    pub(crate) fn who<'a>(&self, container: &'a Container, draw_id: &'a dyn Fn() -> String) -> Who<'a> {
        Who {
            id: container.id(),
            name: &container.record.name,
            config: &container.record.config,
            draw_id,
            default_host_ip: self.shared.config.default_host_ip,
        }
    }
}

fn refuse_removal(container: &Container) -> Result<()> {
    match container.status() {
        Status::Created | Status::Running | Status::Exited => Ok(()),
        Status::Removing | Status::Dead => Err(Error::new(
            ErrorKind::Conflict,
            format!(
                "Container {} is marked for removal and cannot be connected or disconnected to the network",
                container.id()
            ),
        )),
    }
}

/// Refuses containers that have no namespace of their own, in moby's words.
fn refuse_shared(container: &Container) -> Result<()> {
    match container.record.config.host.network {
        NetworkMode::Host | NetworkMode::Container(_) => Err(Error::invalid(
            "container sharing network namespace with another container or host cannot be connected to any other network",
        )),
        NetworkMode::None => Err(Error::invalid(
            "container cannot be connected to multiple networks with one of the networks in private (none) mode",
        )),
        NetworkMode::Cluster(_) | NetworkMode::Bridge | NetworkMode::Named(_) => Ok(()),
    }
}
