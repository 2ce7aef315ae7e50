//! Sessions with all hosts, and the handshakes that make them: decides, and neither sends nor reads a clock.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::sync::Arc;

use skep_types::tunnel::{NetworkKey, TunnelKey, key_in_use};

use crate::handshake::{Agreed, Begun, Heard, PrivateKey, answered};
use crate::session::{Frozen, Identity, REKEY_AFTER_PACKETS, Session, Times};

/// Age at which who began a session begins the next one, as in WireGuard.
const REKEY_AFTER_MS: u64 = 120_000;
/// Age at which the other one does, should the first not have.
const REKEY_ANSWERED_AFTER_MS: u64 = 150_000;
/// Age from which on a session is not used any more, as in WireGuard.
const REJECT_AFTER_MS: u64 = 180_000;
/// Time for an answer before a handshake is begun anew; it doubles up to the longest.
const RETRY_MS: u64 = 300;
const LONGEST_RETRY_MS: u64 = 5_000;
/// Initiations of one node that are answered within one [`RETRY_MS`].
const ANSWERS_PER_RETRY: u32 = 8;

/// The clocks, as the caller read them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    /// Milliseconds of a clock that does not jump.
    pub(crate) ms: u64,
    /// Nanoseconds since 1970.
    pub(crate) wall_ns: u64,
}

/// What the caller has to do.
#[derive(Debug, Default)]
pub(crate) struct Output {
    /// Handshakes' packets, for the tunnel's port of these hosts.
    pub(crate) send: Vec<(Ipv4Addr, Vec<u8>)>,
    /// Sessions that an empty packet is to be sent with.
    pub(crate) greet: Vec<Arc<Session>>,
    /// Whether other sessions than before are to be used.
    pub(crate) changed: bool,
}

/// All that this node has agreed on with others.
#[derive(Debug)]
pub(crate) struct Exchange {
    own: PrivateKey,
    keys: Vec<NetworkKey>,
    hosts: BTreeMap<Ipv4Addr, Host>,
    /// Hosts by what begins their handshakes.
    known: BTreeMap<TunnelKey, Ipv4Addr>,
    /// Names of sessions and of handshakes that may become ones.
    names: BTreeMap<u32, Ipv4Addr>,
    draw: fn() -> u32,
}

#[derive(Debug)]
struct Host {
    key: TunnelKey,
    /// Whether a network has addresses there.
    wanted: bool,
    begun: Option<Begun>,
    tries: u32,
    retry_ms: u64,
    /// The time that the last handshake from here said, and that from there.
    time_said: u64,
    time_heard: u64,
    answers: (u64, u32),
    times: Arc<Times>,
    current: Option<Arc<Session>>,
    previous: Option<Arc<Session>>,
    /// Answered by us, and not used by who began yet.
    next: Option<Arc<Session>>,
}

impl std::fmt::Debug for Begun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Begun({})", self.ours)
    }
}

impl Exchange {
    /// Nobody is known yet. `draw` gives random names.
    pub(crate) fn new(own: PrivateKey, draw: fn() -> u32) -> Exchange {
        Exchange {
            own,
            keys: Vec::new(),
            hosts: BTreeMap::new(),
            known: BTreeMap::new(),
            names: BTreeMap::new(),
            draw,
        }
    }

    /// Sets the keys and who is known. What was agreed on with hosts that are not, or that have another key, is gone.
    pub(crate) fn configure(&mut self, keys: Vec<NetworkKey>, hosts: &BTreeMap<Ipv4Addr, TunnelKey>) {
        self.keys = keys;
        self.hosts.retain(|host, state| hosts.get(host) == Some(&state.key));
        for (host, key) in hosts {
            self.hosts.entry(*host).or_insert_with(|| Host::new(*key));
        }
        self.known = hosts.iter().map(|(host, key)| (*key, *host)).collect();
        let of_hosts = |state: &Host| {
            let sessions = state.sessions().map(|session| session.identity.ours);
            sessions.chain(state.begun.as_ref().map(|begun| begun.ours)).collect::<Vec<u32>>()
        };
        self.names = self
            .hosts
            .iter()
            .flat_map(|(host, state)| of_hosts(state).into_iter().map(|name| (name, *host)))
            .collect();
    }

    /// Says which hosts there shall be sessions with.
    pub(crate) fn want(&mut self, wanted: &BTreeSet<Ipv4Addr>) {
        for (host, state) in &mut self.hosts {
            let is_new = wanted.contains(host) && !state.wanted;
            state.wanted = wanted.contains(host);
            if is_new {
                (state.tries, state.retry_ms) = (0, 0);
            }
        }
    }

    /// Sessions to send with, by host.
    pub(crate) fn sending(&self) -> BTreeMap<Ipv4Addr, Arc<Session>> {
        let current = |(host, state): (&Ipv4Addr, &Host)| Some((*host, state.current.clone()?));
        self.hosts.iter().filter_map(current).collect()
    }

    /// Sessions to receive with, by our names of them.
    pub(crate) fn receiving(&self) -> HashMap<u32, Arc<Session>> {
        let sessions = self.hosts.values().flat_map(Host::sessions);
        sessions.map(|session| (session.identity.ours, session.clone())).collect()
    }

    /// What the next process takes over.
    pub(crate) fn freeze(&self) -> Vec<Frozen> {
        // The one in use last, so that it is in use again.
        self.hosts.values().flat_map(Host::sessions).map(|session| session.freeze()).collect()
    }

    /// Takes over what another process agreed on, as far as it is with hosts that are known.
    pub(crate) fn thaw(&mut self, sessions: Vec<Frozen>) {
        for frozen in sessions {
            let identity = frozen.identity;
            let Some(host) = self.hosts.get_mut(&identity.host) else { continue };
            let session = Arc::new(Session::thawed(frozen, host.times.clone()));
            self.names.insert(identity.ours, identity.host);
            match session.is_confirmed() {
                true => host.use_from_now_on(session),
                false => host.next = Some(session),
            }
        }
    }

    /// Does what is due at this time.
    pub(crate) fn tick(&mut self, now: Now) -> Output {
        let mut output = Output::default();
        let due: Vec<Ipv4Addr> = self
            .hosts
            .iter_mut()
            .filter_map(|(host, state)| {
                output.changed |= state.forget_old(now.ms) | state.use_confirmed();
                output.greet.extend(state.current.clone().filter(|_| state.times.owes_answer(now.ms)));
                state.is_due(now.ms).then_some(*host)
            })
            .collect();
        self.names.retain(|name, host| self.hosts.get(host).is_some_and(|state| state.has_name(*name)));
        for host in due {
            output.send.extend(self.begin(host, now));
        }
        output
    }

    fn begin(&mut self, address: Ipv4Addr, now: Now) -> Option<(Ipv4Addr, Vec<u8>)> {
        let name = self.new_name();
        let key = key_in_use(&self.keys)?;
        let host = self.hosts.get_mut(&address)?;
        let time = now.wall_ns.max(host.time_said + 1);
        let (begun, packet) = Begun::new(&self.own, &host.key, key, (name, time))?;
        host.time_said = time;
        let wait = (RETRY_MS << host.tries.min(8)).min(LONGEST_RETRY_MS);
        // Two that wait for each other must not do so in step.
        host.retry_ms = now.ms + wait + u64::from(name % 128) * wait / 512;
        host.tries += 1;
        host.begun = Some(begun);
        self.names.insert(name, address);
        Some((address, packet))
    }

    /// A packet came that is part of a handshake, or may be anything.
    pub(crate) fn receive(&mut self, packet: &[u8], now: Now) -> Output {
        match answered(packet) {
            Some(name) => self.receive_answer(name, packet, now),
            None => self.receive_initiation(packet, now),
        }
    }

    fn receive_initiation(&mut self, packet: &[u8], now: Now) -> Output {
        let mut output = Output::default();
        let Some(heard) = Heard::read(&self.own, &self.keys, packet) else { return output };
        let Some(&address) = self.known.get(&heard.from) else { return output };
        let name = self.new_name();
        let Some(host) = self.hosts.get_mut(&address) else { return output };
        if !host.takes(heard.time, now.ms) {
            return output;
        }
        host.time_heard = heard.time;
        let Some((agreed, answer)) = heard.answer(name) else { return output };
        host.next = Some(host.session(address, name, agreed, (false, now.ms)));
        self.names.insert(name, address);
        output.send.push((address, answer));
        output.changed = true;
        output
    }

    fn receive_answer(&mut self, name: u32, packet: &[u8], now: Now) -> Output {
        let mut output = Output::default();
        let Some(&address) = self.names.get(&name) else { return output };
        let Some(host) = self.hosts.get_mut(&address) else { return output };
        let Some(begun) = host.begun.as_mut().filter(|begun| begun.ours == name) else { return output };
        let Some(agreed) = begun.finish(packet) else { return output };
        host.begun = None;
        (host.tries, host.retry_ms) = (0, now.ms + RETRY_MS);
        let session = host.session(address, name, agreed, (true, now.ms));
        // The other node sends with it once it has seen that we can.
        output.greet.push(session.clone());
        host.use_from_now_on(session);
        output.changed = true;
        output
    }

    /// The other node has sent with a session that it began; whether that changes what is used.
    pub(crate) fn confirmed(&mut self, name: u32) -> bool {
        let host = self.names.get(&name).and_then(|address| self.hosts.get_mut(address));
        host.is_some_and(Host::use_confirmed)
    }

    /// A name that nothing else has; zero is none.
    fn new_name(&self) -> u32 {
        loop {
            let name = (self.draw)();
            if name != 0 && !self.names.contains_key(&name) {
                return name;
            }
        }
    }
}

impl Host {
    fn new(key: TunnelKey) -> Host {
        Host {
            key,
            wanted: false,
            begun: None,
            tries: 0,
            retry_ms: 0,
            time_said: 0,
            time_heard: 0,
            answers: (0, 0),
            times: Arc::default(),
            current: None,
            previous: None,
            next: None,
        }
    }

    fn session(
        &self,
        host: Ipv4Addr,
        ours: u32,
        agreed: Agreed,
        (began, made_ms): (bool, u64),
    ) -> Arc<Session> {
        let identity = Identity { ours, theirs: agreed.theirs, host, began, made_ms };
        Arc::new(Session::new(identity, agreed.keys, self.times.clone()))
    }

    fn sessions(&self) -> impl Iterator<Item = &Arc<Session>> {
        [&self.previous, &self.current, &self.next].into_iter().flatten()
    }

    fn has_name(&self, name: u32) -> bool {
        self.begun.as_ref().is_some_and(|begun| begun.ours == name)
            || self.sessions().any(|session| session.identity.ours == name)
    }

    fn use_from_now_on(&mut self, session: Arc<Session>) {
        self.previous = self.current.replace(session);
    }

    /// Uses the next session if who began it has; whether that is so.
    fn use_confirmed(&mut self) -> bool {
        let next = self.next.take_if(|next| next.is_confirmed());
        let is_used = next.is_some();
        if let Some(next) = next {
            self.use_from_now_on(next);
        }
        is_used
    }

    /// Whether an initiation of this time is answered. An older one than the last was recorded by somebody and sent
    /// again; as many as a node would never send are not answered either.
    fn takes(&mut self, time: u64, now_ms: u64) -> bool {
        if time <= self.time_heard {
            return false;
        }
        if now_ms >= self.answers.0 + RETRY_MS {
            self.answers = (now_ms, 0);
        }
        self.answers.1 += 1;
        self.answers.1 <= ANSWERS_PER_RETRY
    }

    /// Ends sessions that are too old; whether there were any.
    fn forget_old(&mut self, now_ms: u64) -> bool {
        let is_old = |session: &mut Arc<Session>| now_ms >= session.identity.made_ms + REJECT_AFTER_MS;
        let mut places = [&mut self.previous, &mut self.current, &mut self.next];
        places.iter_mut().filter_map(|place| place.take_if(is_old)).count() > 0
    }

    fn is_due(&self, now_ms: u64) -> bool {
        let needs = match &self.current {
            None => true,
            Some(session) => {
                let life = if session.identity.began { REKEY_AFTER_MS } else { REKEY_ANSWERED_AFTER_MS };
                now_ms >= session.identity.made_ms + life
                    || session.sent() >= REKEY_AFTER_PACKETS
                    || self.times.is_silent(now_ms)
            }
        };
        self.wanted && needs && now_ms >= self.retry_ms
    }
}

#[cfg(test)]
mod tests;
