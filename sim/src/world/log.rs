//! The managers' consensus at work: proposals, what becomes of them, who leads.

use skep_cluster::{Change, Event};
use skep_types::Time;

use super::{Happening, MOST_AT_REST, Verdict, World};
use crate::checks;
use crate::disk;
use crate::options::Flaw;

/// A follower that is so many entries behind is sent a snapshot.
const FAR_BEHIND: usize = 150;

impl World {
    /// Whether a manager could lead: it runs, and talks with a quorum.
    fn has_quorum(&self, manager: usize) -> bool {
        let reached = self.consensus.voters.iter().filter(|other| self.runs(**other));
        let reached = reached.filter(|other| self.links.both(manager, **other)).count();
        let votes = self.consensus.voters.contains(&manager);
        votes && self.consensus.is_quorum(reached)
    }

    /// Whether a quorum confirms, now, that this manager leads.
    pub(super) fn is_confirmed(&self, manager: usize) -> bool {
        self.runs(manager) && self.consensus.leader == Some(manager) && self.has_quorum(manager)
    }

    /// A manager's brain proposes an entry.
    pub(super) fn propose(&mut self, manager: usize, changes: Vec<Change>) {
        let Some(term) = self.manager(manager).leads else { return };
        self.manager(manager).in_flight = Some(changes.clone());
        if self.consensus.leader == Some(manager) && self.consensus.term == term {
            self.consensus.pending = Some(changes);
        }
        let slow = if self.unsafe_phase && self.chance.happens(20) { 200 } else { 8 };
        self.after(0, slow, Happening::Commit { manager, term });
    }

    pub(super) fn commit(&mut self, manager: usize, term: u64) -> Verdict {
        if self.consensus.term != term || self.consensus.leader != Some(manager) {
            // Fenced: whoever leads now decided what became of it.
            return Ok(());
        }
        if self.consensus.pending.is_none() || self.manager(manager).cluster.is_none() {
            return Ok(());
        }
        if !self.has_quorum(manager) {
            self.after(20, 100, Happening::Commit { manager, term });
            return Ok(());
        }
        let started = self.now > super::BEGIN && self.unsafe_phase;
        if started && self.chance.happens(3) {
            return self.log_fails(manager);
        }
        let Some(changes) = self.consensus.pending.take() else { return Ok(()) };
        let index = self.append(&changes)?;
        self.manager(manager).in_flight = None;
        self.step(manager, Event::Committed { index })?;
        self.take_note(manager);
        self.spread(manager);
        Ok(())
    }

    /// The leader's disk is full or fails.
    fn log_fails(&mut self, manager: usize) -> Verdict {
        if self.chance.happens(500) {
            // Nobody knows whether the entry is on the disk: the manager steps down and reads its log anew.
            self.tell_fault(|| format!("the log of manager {manager} fails"));
            self.step(manager, Event::Deposed)?;
            return self.crash_manager(manager);
        }
        self.tell_fault(|| format!("the log of manager {manager} refuses: no space left on device"));
        self.consensus.pending = None;
        self.manager(manager).in_flight = None;
        self.step(manager, Event::Refused { reason: "no space left on device".to_owned() })
    }

    /// Commits an entry: from now on every manager will apply it.
    fn append(&mut self, changes: &[Change]) -> Result<u64, String> {
        self.commits += 1;
        if !self.busy && self.commits - self.commits_at_rest > MOST_AT_REST * self.machines.len() as u64 {
            return Err("the managers find no rest".to_owned());
        }
        let gap = self.chance.below(2);
        let index = self.consensus.log.append(changes, gap);
        self.tell(|| format!("entry {index} is committed"));
        checks::before(self, changes)?;
        self.truth.apply(index, changes);
        checks::committed(self, changes)?;
        Ok(index)
    }

    /// Lets the followers hear of what is committed.
    fn spread(&mut self, leader: usize) {
        let others: Vec<(usize, u64)> = self
            .managers
            .iter()
            .filter(|(number, _)| **number != leader && self.links.carries(leader, **number))
            .map(|(number, manager)| (*number, manager.life))
            .collect();
        for (manager, life) in others {
            let late = if self.unsafe_phase && self.chance.happens(30) { 3000 } else { 20 };
            self.after(1, late, Happening::Replicated { manager, life });
        }
    }

    pub(super) fn replicated(&mut self, manager: usize, life: u64) -> Verdict {
        let heard = self.consensus.leader.is_some_and(|leader| self.links.carries(leader, manager));
        let known = self.manager(manager);
        if known.life != life || known.leads.is_some() {
            return Ok(());
        }
        if heard && self.runs(manager) { self.catch_up(manager) } else { Ok(()) }
    }

    /// A manager that does not lead applies all that is committed.
    fn catch_up(&mut self, manager: usize) -> Verdict {
        let Some(applied) = self.manager(manager).objects().map(|objects| objects.applied()) else {
            return Ok(());
        };
        let last = self.consensus.log.last();
        let far = self.consensus.log.count_after(applied) > FAR_BEHIND || applied < self.consensus.log.base();
        if far {
            self.tell(|| format!("manager {manager} is sent a snapshot"));
            let snapshot = disk::encode(&self.truth.snapshot());
            let objects = disk::received(&snapshot);
            self.manager(manager).disk.install(&objects, &snapshot);
            self.manager(manager).cluster = Some(skep_cluster::Cluster::new(objects));
        } else {
            for (index, changes) in self.consensus.log.between(applied, last) {
                self.step(manager, Event::Applied { index, changes })?;
            }
        }
        self.take_note(manager);
        checks::replica(self, manager)
    }

    /// A manager's disk takes in what it applied.
    fn take_note(&mut self, manager: usize) {
        let Some(manager) = self.managers.get_mut(&manager) else { return };
        let Some(cluster) = &manager.cluster else { return };
        if manager.disk.note(cluster.objects()) {
            let managers = self.managers.values().filter(|manager| !manager.retired);
            self.consensus.log.compact(managers.map(|manager| &manager.disk));
        }
    }

    /// Every follower that hears the leader learns of what it missed.
    pub(super) fn beat(&mut self) -> Verdict {
        self.after(300, 400, Happening::Beat);
        let Some(leader) = self.consensus.leader.filter(|leader| self.is_confirmed(*leader)) else {
            return Ok(());
        };
        self.spread(leader);
        let reached: std::collections::BTreeSet<u64> = self
            .managers
            .iter()
            .filter(|(number, manager)| manager.runs(self.now) && self.links.both(leader, **number))
            .filter_map(|(number, _)| self.seat(*number))
            .collect();
        if self.leads_newest(leader) && self.consensus.reached != reached {
            self.consensus.reached.clone_from(&reached);
            return self.step(leader, Event::Reachable(reached));
        }
        Ok(())
    }

    fn seat(&self, number: usize) -> Option<u64> {
        let id = self.machines.get(number)?.id;
        self.truth.node(id)?.manager.as_ref().map(|member| member.raft)
    }

    /// Elects another leader where one is needed, or where somebody cannot hear it.
    pub(super) fn election(&mut self) -> Verdict {
        self.after(300, 900, Happening::Election);
        let able: Vec<usize> =
            self.managers.keys().copied().filter(|manager| self.can_stand(*manager)).collect();
        let Some(leader) = self.consensus.leader else { return self.elect(&able) };
        if self.is_confirmed(leader) {
            let deaf: Vec<usize> =
                able.into_iter().filter(|other| !self.links.carries(leader, *other)).collect();
            let voluntary = self.unsafe_phase && self.now > super::BEGIN && self.chance.happens(10);
            if voluntary {
                let others: Vec<usize> =
                    self.managers.keys().copied().filter(|other| self.can_stand(*other)).collect();
                self.tell_fault(|| format!("manager {leader} gives up its lead"));
                return self.elect(&others);
            }
            return if self.chance.happens(300) { self.elect(&deaf) } else { Ok(()) };
        }
        let term = self.consensus.term;
        if able.is_empty() {
            // It finds out that nobody answers it, or waits for them.
            if self.chance.happens(300) {
                self.after(0, 500, Happening::Follows { manager: leader, term });
            }
            return Ok(());
        }
        self.elect(&able)
    }

    fn can_stand(&self, manager: usize) -> bool {
        self.runs(manager) && self.has_quorum(manager)
    }

    fn elect(&mut self, candidates: &[usize]) -> Verdict {
        let Some(new) = self.chance.pick(candidates).copied() else { return Ok(()) };
        let (old, old_term) = (self.consensus.leader, self.consensus.term);
        if self.manager(new).leads.is_some() {
            // One that led before, and perhaps does not know that others did meanwhile, begins anew.
            self.depose(new)?;
        }
        if let Some(old) = old.filter(|old| *old != new) {
            // One that cannot be told finds out by itself.
            let hears = self.links.both(new, old) && self.runs(old);
            let longest = if hears { 30 } else { 1500 };
            self.after(0, longest, Happening::Follows { manager: old, term: old_term });
        }
        self.consensus.term += 1;
        self.consensus.leader = Some(new);
        self.consensus.reached.clear();
        let term = self.consensus.term;
        self.tell_fault(|| format!("manager {new} leads in term {term}"));
        if let Some(changes) = self.consensus.pending.take() {
            if self.chance.happens(500) {
                self.append(&changes)?;
            } else {
                self.tell(|| "what its predecessor proposed last is gone".to_owned());
            }
        }
        if self.options.flaw != Flaw::LeadsBehind {
            self.catch_up(new)?;
        }
        let now = self.now;
        self.manager(new).leads = Some(term);
        self.manager(new).leads_since = now;
        self.step(new, Event::Started)?;
        self.spread(new);
        Ok(())
    }

    pub(super) fn follows(&mut self, manager: usize, term: u64) -> Verdict {
        if !self.runs(manager) && self.manager(manager).cluster.is_some() {
            let at: Time = self.manager(manager).paused_until;
            self.at(at, Happening::Follows { manager, term });
            return Ok(());
        }
        if self.manager(manager).leads != Some(term) {
            return Ok(());
        }
        self.depose(manager)
    }

    /// A manager learns that it leads no longer. Its sessions end.
    pub(super) fn depose(&mut self, manager: usize) -> Verdict {
        self.tell_fault(|| format!("manager {manager} learns that it leads no longer"));
        if self.consensus.leader == Some(manager) && self.leads_newest(manager) {
            self.consensus.leader = None;
        }
        self.manager(manager).leads = None;
        self.manager(manager).in_flight = None;
        self.step(manager, Event::Deposed)?;
        self.end_sessions_with(manager);
        Ok(())
    }
}
