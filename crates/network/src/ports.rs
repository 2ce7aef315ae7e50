//! Who has which port of the host: the publications of every key and their reservations.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::error::PublishError;
use crate::model::{Publication, PublicationKey};
use crate::plan::{Backend, Front, Services};
use crate::reservation::Reservation;

/// The fronts of one publication, maybe all with port 0 for any that each of them can have, and who shall answer there.
pub(crate) type Wanted = Vec<(Front, Vec<Backend>)>;

/// How many ports that the kernel calls free are tried where several fronts need the same.
const FREE_PORTS_TRIED: u32 = 16;

/// All publications.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    published: BTreeMap<PublicationKey, Published>,
    owners: BTreeMap<Front, PublicationKey>,
}

/// The publications of one key.
#[derive(Debug, Default)]
pub(crate) struct Published {
    /// The ports of the publications, in the order in which they were asked for.
    order: Vec<u16>,
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
        let fronts: Vec<&Front> = wanted.iter().flatten().map(|(front, _)| front).collect();
        for (place, front) in fronts.iter().enumerate() {
            if front.port == 0 {
                continue;
            }
            let repeated = fronts[..place].iter().any(|earlier| earlier.overlaps(front));
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
        for fronts in wanted {
            let has_all = |port| {
                fronts.iter().all(|(front, _)| {
                    has.is_some_and(|it| it.services.contains_key(&Front { port, ..*front }))
                })
            };
            let Some((first, _)) = fronts.first() else { continue };
            let (port, reservations) = match has_all(first.port) {
                true => (first.port, BTreeMap::new()),
                false => reserve_together(fronts, has)?,
            };
            taken.reservations.extend(reservations);
            taken.order.push(port);
            let services =
                fronts.iter().map(|(front, backends)| (Front { port, ..*front }, backends.clone()));
            taken.services.extend(services);
        }
        Ok(taken)
    }

    /// Lets go of the key's own reservations that stand in the way of what it wants now, such as 0.0.0.0:80 in that of
    /// 192.0.2.1:80.
    fn release_overlapped(&mut self, key: &PublicationKey, wanted: &[Wanted]) {
        if let Some(published) = self.published.get_mut(key) {
            published.reservations.retain(|held, _| {
                !wanted.iter().flatten().any(|(front, _)| front != held && front.overlaps(held))
            });
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
    pub(crate) fn adopt(&mut self, key: &PublicationKey, wanted: Wanted) -> Result<(), PublishError> {
        for (front, backends) in wanted {
            self.adopt_front(key, front, backends)?;
        }
        Ok(())
    }

    fn adopt_front(
        &mut self,
        key: &PublicationKey,
        front: Front,
        backends: Vec<Backend>,
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
        published.services.insert(front, backends);
        published.reservations.insert(front, reserved?.0);
        Ok(())
    }

    /// Who has the port at some address of the front.
    fn owner(&self, front: &Front) -> Option<&PublicationKey> {
        self.owners
            .range(Front { address: every_address_like(front), ..*front }..)
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
    for (publication, port) in asked.iter_mut().zip(order) {
        publication.host_port = *port;
    }
    asked
}

fn already_allocated(front: &Front, holder: &PublicationKey) -> PublishError {
    PublishError::AlreadyAllocated { address: front.address, port: front.port, holder: holder.clone() }
}

fn refused(front: &Front, backends: &[Backend], cause: io::Error) -> PublishError {
    PublishError::Bind {
        address: front.address,
        port: front.port,
        backend: backends.first().copied(),
        protocol: front.protocol,
        cause,
    }
}

fn every_address_like(front: &Front) -> IpAddr {
    match front.address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// Reserves one port for all fronts of a publication, but for those that are had already; any that is free for all where
/// they ask for 0.
fn reserve_together(
    fronts: &Wanted,
    has: Option<&Published>,
) -> Result<(u16, BTreeMap<Front, Reservation>), PublishError> {
    let mut tried = 0;
    loop {
        tried += 1;
        let (mut given, mut reservations, mut taken_since) = (0, BTreeMap::new(), None);
        for (front, backends) in fronts {
            let asked = Front { port: if front.port == 0 { given } else { front.port }, ..*front };
            given = asked.port;
            if has.is_some_and(|it| it.services.contains_key(&asked)) {
                continue;
            }
            match Reservation::take(&asked) {
                Ok((reservation, port)) => {
                    given = port;
                    reservations.insert(Front { port, ..asked }, reservation);
                }
                Err(cause) => {
                    taken_since = Some((front.port, refused(&asked, backends, cause)));
                    break;
                }
            }
        }
        match taken_since {
            None => return Ok((given, reservations)),
            // What was free over one family may be taken over the other.
            Some((0, _)) if given != 0 && tried < FREE_PORTS_TRIED => {}
            Some((_, error)) => return Err(error),
        }
    }
}
