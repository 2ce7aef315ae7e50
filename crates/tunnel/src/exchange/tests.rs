use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::wire::{DATA_HEADER_LEN, DataHeader, TAG_LEN};

static NAMES: AtomicU32 = AtomicU32::new(1);

/// Nodes that speak with each other without a wire.
struct World {
    nodes: BTreeMap<Ipv4Addr, (Exchange, TunnelKey)>,
    now: Now,
    /// Packets that are on their way: from, to, what.
    wire: Vec<(Ipv4Addr, Ipv4Addr, Vec<u8>)>,
    greetings: Vec<(Ipv4Addr, Arc<Session>)>,
}

fn host(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, number)
}

fn keys(numbers: &[u64]) -> Vec<NetworkKey> {
    numbers.iter().map(|number| NetworkKey { number: *number, secret: [*number as u8; 32] }).collect()
}

impl World {
    fn new(count: u8) -> World {
        let mut world = World {
            nodes: BTreeMap::new(),
            now: Now { ms: 1_000_000, wall_ns: 1 << 60 },
            wire: Vec::new(),
            greetings: Vec::new(),
        };
        for number in 1..=count {
            world.nodes.insert(host(number), new_node());
        }
        for number in 1..=count {
            world.configure(number, &[1, 2]);
        }
        world
    }

    fn configure(&mut self, number: u8, numbers: &[u64]) {
        let hosts: BTreeMap<Ipv4Addr, TunnelKey> = self
            .nodes
            .iter()
            .filter(|(address, _)| **address != host(number))
            .map(|(address, (_, key))| (*address, *key))
            .collect();
        let node = self.node(number);
        node.configure(keys(numbers), &hosts);
        node.want(&hosts.keys().copied().collect());
    }

    fn node(&mut self, number: u8) -> &mut Exchange {
        &mut self.nodes.get_mut(&host(number)).expect("a node").0
    }

    fn note(&mut self, of: Ipv4Addr, output: Output) {
        self.wire.extend(output.send.into_iter().map(|(to, packet)| (of, to, packet)));
        self.greetings.extend(output.greet.into_iter().map(|session| (of, session)));
    }

    /// Lets time pass, every packet arrives.
    fn pass(&mut self, ms: u64) {
        let end = self.now.ms + ms;
        while self.now.ms < end {
            self.step(250, |_, _| true);
        }
    }

    /// Lets time pass, and packets arrive that `passes`.
    fn step(&mut self, ms: u64, passes: impl Fn(Ipv4Addr, Ipv4Addr) -> bool) {
        self.now.ms += ms;
        self.now.wall_ns += ms * 1_000_000;
        for number in 1..=self.nodes.len() as u8 {
            let now = self.now;
            let output = self.node(number).tick(now);
            self.note(host(number), output);
        }
        while !self.wire.is_empty() || !self.greetings.is_empty() {
            for (from, to, packet) in std::mem::take(&mut self.wire) {
                if passes(from, to) {
                    self.arrive(to, &packet);
                }
            }
            for (of, session) in std::mem::take(&mut self.greetings) {
                let to = session.identity.host;
                if passes(of, to) {
                    self.greet(of, &session);
                }
            }
        }
    }

    fn arrive(&mut self, to: Ipv4Addr, packet: &[u8]) {
        let now = self.now;
        let output = self.nodes.get_mut(&to).map(|(node, _)| node.receive(packet, now));
        self.note(to, output.unwrap_or_default());
    }

    /// An empty packet of a session arrives.
    fn greet(&mut self, of: Ipv4Addr, session: &Session) {
        let (to, now) = (session.identity.host, self.now.ms);
        let Some((node, _)) = self.nodes.get_mut(&to) else { return };
        let Some(theirs) = node.receiving().get(&session.identity.theirs).cloned() else { return };
        let mut packet = vec![0; DATA_HEADER_LEN + TAG_LEN];
        session.seal(session.counters(1).expect("a fresh session"), &mut packet);
        session.times().note_sent(now, false);
        let header = DataHeader::read(&packet).expect("a packet");
        assert_eq!(theirs.open(header.counter, &mut packet[DATA_HEADER_LEN..], 0), Ok(0), "{of} to {to}");
        theirs.times().note_received(now, false);
        if theirs.confirm() {
            node.confirmed(session.identity.theirs);
        }
    }

    /// Whether a frame gets from one to another.
    fn carries(&mut self, from: u8, to: u8) -> bool {
        let Some(session) = self.node(from).sending().get(&host(to)).cloned() else { return false };
        let now = self.now.ms;
        session.times().note_sent(now, true);
        let Some(theirs) = self.node(to).receiving().get(&session.identity.theirs).cloned() else {
            return false;
        };
        let mut packet = vec![7; DATA_HEADER_LEN + 5 + TAG_LEN];
        session.seal(session.counters(1).expect("a fresh session"), &mut packet);
        let header = DataHeader::read(&packet).expect("a packet");
        let opened = theirs.open(header.counter, &mut packet[DATA_HEADER_LEN..], 0);
        assert_eq!(opened, Ok(5));
        theirs.times().note_received(now, true);
        if theirs.confirm() {
            let name = session.identity.theirs;
            self.node(to).confirmed(name);
        }
        true
    }

    fn names(&mut self, number: u8) -> Vec<u32> {
        self.node(number).sending().values().map(|session| session.identity.ours).collect()
    }
}

fn new_node() -> (Exchange, TunnelKey) {
    let own = PrivateKey::generate();
    let key = own.public();
    (Exchange::new(own, || NAMES.fetch_add(1, Ordering::Relaxed)), key)
}

#[test]
fn hosts_with_networks_in_common_have_sessions_soon_and_for_ever() {
    let mut world = World::new(3);
    world.pass(500);
    for second in 0..200 {
        for (from, to) in [(1, 2), (2, 1), (1, 3), (3, 1), (2, 3), (3, 2)] {
            assert!(world.carries(from, to), "{from} to {to} after {} s", second * 2);
        }
        world.pass(2000);
    }
}

#[test]
fn sessions_are_replaced_by_age_and_by_use() {
    let mut world = World::new(2);
    world.pass(1000);
    let first = world.names(1);
    world.pass(100_000);
    assert_eq!(world.names(1), first);
    world.pass(60_000);
    let second = world.names(1);
    assert_ne!(second, first);
    let session = world.node(1).sending()[&host(2)].clone();
    session.counters(REKEY_AFTER_PACKETS).expect("a fresh session");
    world.pass(1000);
    assert_ne!(world.names(1), second);
    assert!(
        session.counters(REKEY_AFTER_PACKETS).is_some() && session.counters(1).is_none(),
        "it has an end"
    );
}

#[test]
fn nothing_is_used_that_is_too_old() {
    let mut world = World::new(2);
    world.pass(1000);
    for _ in 0..(REJECT_AFTER_MS / 250) {
        world.step(250, |_, _| false);
    }
    assert!(!world.carries(1, 2) && !world.carries(2, 1));
    assert!(world.node(1).receiving().is_empty());
    world.pass(LONGEST_RETRY_MS * 2);
    assert!(world.carries(1, 2) && world.carries(2, 1));
}

#[test]
fn the_old_session_works_until_the_new_one_does() {
    let mut world = World::new(2);
    world.pass(1000);
    let before = world.names(1);
    // Nothing gets through from the first, so no handshake ends.
    while world.now.ms < 1_000_000 + REKEY_ANSWERED_AFTER_MS + 5_000 {
        world.step(250, |from, _| from != host(1));
        assert!(world.carries(2, 1));
    }
    assert_eq!(world.names(1), before);
    world.pass(LONGEST_RETRY_MS * 2);
    assert_ne!(world.names(1), before);
    assert!(world.carries(1, 2) && world.carries(2, 1));
}

#[test]
fn keys_rotate_without_a_pause_although_nodes_hear_of_it_at_different_times() {
    let mut world = World::new(3);
    world.pass(1000);
    for newest in 3..5u64 {
        for number in 1..=3 {
            let kept: Vec<u64> = (newest.saturating_sub(2)..=newest).collect();
            world.configure(number, &kept);
            // More than a session's life.
            for _ in 0..65 {
                world.pass(2000);
                assert!(world.carries(1, 2) && world.carries(2, 3) && world.carries(3, 1), "key {newest}");
            }
        }
    }
}

#[test]
fn one_that_starts_anew_is_spoken_with_at_once() {
    let mut world = World::new(2);
    world.pass(30_000);
    let (mut fresh, key) = new_node();
    std::mem::swap(&mut fresh, &mut world.nodes.get_mut(&host(2)).expect("a node").0);
    // The same node, that is, with its key.
    world.node(2).own = fresh.own.clone();
    world.configure(2, &[1, 2]);
    world.step(250, |_, _| true);
    world.step(250, |_, _| true);
    assert!(world.carries(1, 2) && world.carries(2, 1), "{key}");
}

#[test]
fn a_peer_that_lost_the_session_and_cannot_begin_is_found_out_by_its_silence() {
    let mut world = World::new(2);
    world.pass(30_000);
    let (fresh, _) = new_node();
    let lost = std::mem::replace(world.node(2), fresh);
    world.node(2).own = lost.own.clone();
    world.configure(2, &[1, 2]);
    world.node(2).want(&BTreeSet::new());
    assert!(!world.carries(1, 2));
    world.pass(25_000);
    assert!(world.carries(1, 2));
}

#[test]
fn two_that_only_listen_to_each_other_keep_their_session() {
    let mut world = World::new(2);
    world.pass(1000);
    let before = world.names(1);
    for _ in 0..100 {
        // One sends, the other has nothing to say but that it hears.
        assert!(world.carries(1, 2));
        world.pass(1000);
        assert_eq!(world.names(1), before, "at {} s", world.now.ms / 1000 - 1000);
    }
}

#[test]
fn who_is_not_known_or_has_no_key_of_the_cluster_gets_no_answer() {
    let mut world = World::new(2);
    let own = PrivateKey::generate();
    let second = world.nodes[&host(2)].1;
    for key in keys(&[1, 2, 9]) {
        let (_, packet) = Begun::new(&own, &second, &key, (5, u64::MAX / 2)).expect("a beginning");
        world.arrive(host(2), &packet);
        assert!(world.wire.is_empty());
    }
    // One whose node was removed is not known any more, and its sessions end.
    world.pass(1000);
    assert!(world.carries(1, 2));
    world.nodes.get_mut(&host(2)).expect("a node").0.configure(keys(&[1, 2]), &BTreeMap::new());
    assert!(world.node(2).receiving().is_empty() && !world.carries(1, 2));
}

#[test]
fn recorded_handshakes_are_not_answered_again() {
    let mut world = World::new(2);
    let now = world.now;
    let output = world.node(1).tick(now);
    let (_, initiation) = output.send[0].clone();
    world.arrive(host(2), &initiation);
    let (_, _, answer) = world.wire.remove(0);
    world.arrive(host(2), &initiation);
    assert!(world.wire.is_empty(), "the same again");
    world.arrive(host(1), &answer);
    let session = world.node(1).sending()[&host(2)].identity;
    world.arrive(host(1), &answer);
    assert_eq!(world.node(1).sending()[&host(2)].identity, session);
}

#[test]
fn sessions_pass_to_the_next_process() {
    let mut world = World::new(2);
    world.pass(1000);
    assert!(world.carries(1, 2));
    let before = world.names(1);
    let frozen = world.node(1).freeze();
    let frozen: Vec<Frozen> =
        serde_json::from_slice(&serde_json::to_vec(&frozen).expect("JSON")).expect("the same");
    let (fresh, _) = new_node();
    let old = std::mem::replace(world.node(1), fresh);
    world.node(1).own = old.own.clone();
    world.configure(1, &[1, 2]);
    world.node(1).thaw(frozen);
    assert_eq!(world.names(1), before);
    assert!(world.carries(1, 2) && world.carries(2, 1));
    // Counters go on, so what was sent before is not taken again.
    let theirs = world.node(2).sending()[&host(1)].clone();
    let ours = world.node(1).receiving()[&theirs.identity.theirs].clone();
    let mut packet = vec![0; DATA_HEADER_LEN + TAG_LEN];
    theirs.seal(0, &mut packet);
    assert_eq!(ours.open(0, &mut packet[DATA_HEADER_LEN..], 0), Err(crate::session::Refused::Replayed));
}
