//! What the server knows, and how it answers by that.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use super::forward::Forwarder;
use super::namespace::{Namespace, Visitor};
use super::resolvers::HostResolvers;
use crate::name::Name;
use crate::protocol::Change;
use crate::resolve::{self, Answer, Zones};
use crate::tables::{Forwarding, View};
use crate::wire::{self, Question, Transport};
use crate::{ADDRESS, PORT};

/// How many questions wait for resolvers at most, of all sandboxes and of one. Whoever asks more is told that they failed.
const FORWARDED_LIMIT: usize = 4096;
const FORWARDED_OF_ONE_LIMIT: usize = 512;

/// What the server knows. All its parts run on one thread; no borrow lives across an await.
#[derive(Debug)]
pub(crate) struct Known {
    zones: RefCell<Zones>,
    pub(crate) host: HostResolvers,
    forwarder: Forwarder,
    forwarded: Cell<usize>,
    random: Cell<u64>,
    /// Counts the daemon's sessions.
    session: Cell<u64>,
    told: RefCell<HashMap<Box<str>, u64>>,
}

/// What belongs to a sandbox.
#[derive(Debug)]
pub(crate) struct Asker {
    pub(crate) view: RefCell<Rc<View>>,
    pub(crate) namespace: Namespace,
    forwarded: Cell<usize>,
}

impl Asker {
    pub(crate) fn new(view: Rc<View>, namespace: Namespace) -> Asker {
        Asker { view: RefCell::new(view), namespace, forwarded: Cell::new(0) }
    }
}

impl Known {
    pub(crate) fn new(visitor: Visitor, seed: u64) -> Known {
        Known {
            zones: RefCell::default(),
            host: HostResolvers::default(),
            forwarder: Forwarder::new(visitor),
            forwarded: Cell::new(0),
            random: Cell::new(seed | 1),
            session: Cell::new(0),
            told: RefCell::default(),
        }
    }

    /// The daemon begins to tell everything.
    pub(crate) fn begin(&self) {
        self.session.set(self.session.get() + 1);
    }

    /// Applies a change of what networks know.
    pub(crate) fn change(&self, change: Change) {
        let (mut zones, session) = (self.zones.borrow_mut(), self.session.get());
        match change {
            Change::Zone(network, Some(config)) => {
                zones.entry(network.as_str().into()).or_default().configure(config);
                self.told.borrow_mut().insert(network.into(), session);
            }
            Change::Zone(network, None) => {
                zones.remove(network.as_str());
                self.told.borrow_mut().remove(network.as_str());
            }
            Change::Entry(network, owner, Some(entry)) => {
                zones.entry(network.into()).or_default().set(&owner, Arc::unwrap_or_clone(entry), session);
            }
            Change::Entry(network, owner, None) => {
                if let Some(zone) = zones.get_mut(network.as_str()) {
                    zone.remove(&owner);
                }
            }
            // Not of networks.
            Change::Sandbox(..) => {}
        }
    }

    /// Forgets what the daemon has not told of since it began.
    pub(crate) fn sweep(&self) {
        let (mut zones, session) = (self.zones.borrow_mut(), self.session.get());
        let mut told = self.told.borrow_mut();
        told.retain(|_, last| *last == session);
        zones.retain(|network, _| told.contains_key(network));
        zones.values_mut().for_each(|zone| zone.sweep(session));
    }

    /// The answer to a question, or `None` when resolvers have it.
    pub(crate) fn answer(&self, asker: &Asker, question: &Question) -> Option<Vec<u8>> {
        let view = asker.view.borrow();
        let answer = match &question.name {
            Some(name) => resolve::resolve(&self.zones.borrow(), &view, name, question.kind),
            None if view.forwarding == Forwarding::None => Answer::Missing,
            None => Answer::Forward,
        };
        match answer {
            Answer::Forward => None,
            Answer::Missing => {
                self.answer_searched(&view, question).or_else(|| Some(question.answer(&Answer::Missing)))
            }
            answer => Some(self.packet(question, answer)),
        }
    }

    /// The answer of resolvers, or ours if they have none to a name below a search domain.
    pub(crate) async fn forward(&self, asker: &Asker, question: &Question, transport: Transport) -> Vec<u8> {
        let answer = self.ask(asker, question, transport).await;
        if wire::is_success(&answer) {
            return answer;
        }
        let view = Rc::clone(&asker.view.borrow());
        self.answer_searched(&view, question).unwrap_or(answer)
    }

    fn answer_searched(&self, view: &View, question: &Question) -> Option<Vec<u8>> {
        let (zones, name) = (self.zones.borrow(), question.name.as_ref()?);
        let search: Rc<[Name]> = match &view.search {
            Some(search) => search.as_slice().into(),
            None => self.host.now().search,
        };
        let answer = resolve::resolve_searched(&zones, view, &search, name, question.kind)?;
        Some(self.packet(question, answer))
    }

    fn packet(&self, question: &Question, mut answer: Answer) -> Vec<u8> {
        if let Answer::Addresses(addresses) = &mut answer {
            self.shuffle(addresses);
        }
        question.answer(&answer)
    }

    async fn ask(&self, asker: &Asker, question: &Question, transport: Transport) -> Vec<u8> {
        let of_all = Held::take(&self.forwarded, FORWARDED_LIMIT);
        let of_one = Held::take(&asker.forwarded, FORWARDED_OF_ONE_LIMIT);
        let (Some(_of_all), Some(_of_one)) = (of_all, of_one) else { return question.failed() };
        let view = Rc::clone(&asker.view.borrow());
        match &view.forwarding {
            Forwarding::None => question.failed(),
            Forwarding::Host => {
                let resolvers = self.host.now().resolvers;
                self.forwarder.ask(question, transport, &resolvers, None).await
            }
            Forwarding::Given(resolvers) => {
                let others: Vec<SocketAddr> = resolvers.iter().copied().filter(is_other).collect();
                self.forwarder.ask(question, transport, &others, Some(&asker.namespace)).await
            }
        }
    }

    /// Puts addresses into a random order, so that clients that take the first spread (Fisher and Yates).
    fn shuffle<T>(&self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let bound = u64::try_from(last + 1).expect("a slice is shorter than 2^64");
            let chosen = usize::try_from(self.random() % bound).expect("it is less than a slice's length");
            items.swap(last, chosen);
        }
    }

    /// Marsaglia's xorshift: nothing secret depends on it.
    fn random(&self) -> u64 {
        let mut state = self.random.get();
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        self.random.set(state);
        state
    }
}

/// Whether a resolver is not ourselves, whom asking would never end.
fn is_other(resolver: &SocketAddr) -> bool {
    resolver.ip() != ADDRESS || ![PORT, super::resolvers::PORT].contains(&resolver.port())
}

/// One of a limited number.
struct Held<'a>(&'a Cell<usize>);

impl Held<'_> {
    fn take(count: &Cell<usize>, limit: usize) -> Option<Held<'_>> {
        let taken = count.get();
        (taken < limit).then(|| {
            count.set(taken + 1);
            Held(count)
        })
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
