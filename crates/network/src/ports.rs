//! Who has which port of the host: the publications of every key and their reservations.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;

use crate::error::PublishError;
use crate::model::{Publication, PublicationKey};
use crate::plan::{Backend, Front, Services};
use crate::reservation::Reservation;

/// A front that is asked for, maybe with port 0 for any, and who shall answer there.
pub(crate) type Wanted = (Front, Vec<Backend>);

/// All publications.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    published: BTreeMap<PublicationKey, Published>,
    owners: BTreeMap<Front, PublicationKey>,
}

/// The publications of one key.
#[derive(Debug, Default)]
pub(crate) struct Published {
    /// The fronts in the order in which they were asked for.
    order: Vec<Front>,
    services: Services,
    /// A front may lack its reservation only if it was lost while no daemon ran.
    reservations: BTreeMap<Front, Reservation>,
}

impl Published {
    pub(crate) fn services(&self) -> &Services {
        &self.services
    }
}

impl Ports {
    /// All services of all keys.
    pub(crate) fn services(&self) -> Services {
        self.published
            .values()
            .flat_map(|it| it.services.iter().map(|(front, backends)| (*front, backends.clone())))
            .collect()
    }

    /// Reserves what `key` asks for beyond what it has. Nothing is published by that; on an error nothing has changed.
    pub(crate) fn take(
        &mut self,
        key: &PublicationKey,
        wanted: &[Wanted],
    ) -> Result<Published, PublishError> {
        for (place, (front, _)) in wanted.iter().enumerate() {
            if front.port == 0 {
                continue;
            }
            let repeated = wanted[..place].iter().any(|(earlier, _)| earlier.overlaps(front));
            let other = self.owner(front).filter(|owner| *owner != key);
            if let Some(holder) = other.or_else(|| repeated.then_some(key)) {
                return Err(already_allocated(front, holder));
            }
        }
        self.release_overlapped(key, wanted);
        self.reserve(key, wanted).inspect_err(|_| self.regain(key, Reservation::take))
    }

    fn reserve(&self, key: &PublicationKey, wanted: &[Wanted]) -> Result<Published, PublishError> {
        let has = self.published.get(key);
        let mut taken = Published::default();
        for (front, backends) in wanted {
            let mut front = *front;
            if !has.is_some_and(|it| it.services.contains_key(&front)) {
                let (reservation, port) =
                    Reservation::take(&front).map_err(|cause| refused(&front, backends, cause))?;
                front.port = port;
                taken.reservations.insert(front, reservation);
            }
            taken.order.push(front);
            taken.services.insert(front, backends.clone());
        }
        Ok(taken)
    }

    /// Lets go of the key's own reservations that stand in the way of what it wants now, such as 0.0.0.0:80 in that of
    /// 192.0.2.1:80.
    fn release_overlapped(&mut self, key: &PublicationKey, wanted: &[Wanted]) {
        if let Some(published) = self.published.get_mut(key) {
            published
                .reservations
                .retain(|held, _| !wanted.iter().any(|(front, _)| front != held && front.overlaps(held)));
        }
    }

    /// Reserves what the key's publications lack: [`Ports::take`] let go of it, or a process had it when the daemon
    /// started. While one has it, rules come before it.
    pub(crate) fn regain(
        &mut self,
        key: &PublicationKey,
        take: fn(&Front) -> io::Result<(Reservation, u16)>,
    ) {
        let Some(published) = self.published.get_mut(key) else { return };
        for front in published.services.keys() {
            if !published.reservations.contains_key(front)
                && let Ok((reservation, _)) = take(front)
            {
                published.reservations.insert(*front, reservation);
            }
        }
    }

    /// Makes `next` the key's publications and returns those it had. Reservations of fronts that are in both go over.
    pub(crate) fn replace(&mut self, key: &PublicationKey, mut next: Published) -> Published {
        let mut before = self.published.remove(key).unwrap_or_default();
        for front in before.services.keys() {
            self.owners.remove(front);
        }
        for front in next.services.keys() {
            self.owners.insert(*front, key.clone());
            if let Some(reservation) = before.reservations.remove(front) {
                next.reservations.insert(*front, reservation);
            }
        }
        if !next.services.is_empty() {
            self.published.insert(key.clone(), next);
        }
        before
    }

    /// Takes over one publication of a predecessor. One that another key has is left out; one whose port a process has
    /// taken meanwhile is kept without reservation.
    pub(crate) fn adopt(
        &mut self,
        key: &PublicationKey,
        (front, backends): Wanted,
    ) -> Result<(), PublishError> {
        if let Some(holder) = self.owner(&front) {
            return Err(already_allocated(&front, holder));
        }
        if front.port == 0 {
            return Err(refused(&front, &backends, io::ErrorKind::InvalidInput.into()));
        }
        let reserved = Reservation::take(&front).map_err(|cause| refused(&front, &backends, cause));
        self.owners.insert(front, key.clone());
        let published = self.published.entry(key.clone()).or_default();
        published.order.push(front);
        published.services.insert(front, backends);
        published.reservations.insert(front, reserved?.0);
        Ok(())
    }

    /// Who has the port at some address of the front.
    fn owner(&self, front: &Front) -> Option<&PublicationKey> {
        self.owners
            .range(Front { address: None, ..*front }..)
            .take_while(|(other, _)| (other.protocol, other.port) == (front.protocol, front.port))
            .find(|(other, _)| other.overlaps(front))
            .map(|(_, owner)| owner)
    }
}

/// The publications as asked for, with the ports that were given out.
pub(crate) fn filled_in(
    mut asked: Vec<Publication>,
    ports: &Ports,
    key: &PublicationKey,
) -> Vec<Publication> {
    let order = ports.published.get(key).map(|it| it.order.as_slice()).unwrap_or_default();
    for (publication, front) in asked.iter_mut().zip(order) {
        publication.host_port = front.port;
    }
    asked
}

fn already_allocated(front: &Front, holder: &PublicationKey) -> PublishError {
    PublishError::AlreadyAllocated { address: shown(front), port: front.port, holder: holder.clone() }
}

fn refused(front: &Front, backends: &[Backend], cause: io::Error) -> PublishError {
    PublishError::Bind {
        address: shown(front),
        port: front.port,
        backend: backends.first().copied(),
        protocol: front.protocol,
        cause,
    }
}

/// Docker shows every address as 0.0.0.0.
fn shown(front: &Front) -> Ipv4Addr {
    front.address.unwrap_or(Ipv4Addr::UNSPECIFIED)
}
