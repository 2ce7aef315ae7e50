//! The managers' processes: what their brains are told, and what is done of what they say.

use std::time::Duration;

use skep_cluster::{Change, Cluster, Event, Objects, Output, Reply};
use skep_types::Time;

use super::{Happening, Verdict, World};
use crate::checks;
use crate::options::Flaw;
use crate::story::{brief, brief_refusal};

impl World {
    /// The objects of whoever leads, in truth and in its own eyes.
    pub fn leaders_objects(&self) -> Option<&Objects> {
        let manager = self.managers.get(&self.consensus.leader?)?;
        manager.objects().filter(|_| manager.leads == Some(self.consensus.term))
    }

    pub(super) fn step(&mut self, manager: usize, event: Event) -> Verdict {
        let true_now = self.now;
        let now = self.manager(manager).clock(true_now);
        self.step_at(manager, event, now)
    }

    fn step_at(&mut self, number: usize, event: Event, now: Time) -> Verdict {
        let manager = self.manager(number);
        let Some(cluster) = &mut manager.cluster else { return Ok(()) };
        let output = cluster.step(event, now, &mut manager.ids);
        self.perform(number, output)
    }

    fn perform(&mut self, manager: usize, output: Output) -> Verdict {
        let Output { propose, replies, sends, seats, wake_at } = output;
        if !propose.is_empty() {
            assert!(self.manager(manager).in_flight.is_none(), "one proposal at a time");
            for change in &propose {
                self.tell(|| format!("manager {manager} proposes {}", brief(change)));
            }
            if self.leads_newest(manager) {
                checks::scales(self, manager, &propose)?;
            }
            self.answer_early(manager, &propose);
            self.propose(manager, propose);
        }
        for reply in replies {
            self.reply(reply)?;
        }
        let index = self.manager(manager).objects().map_or(0, Objects::applied);
        for (id, assignment) in sends {
            self.send(manager, id, index, assignment);
        }
        for step in seats {
            self.change_seat(manager, step);
        }
        self.manager(manager).wake_at = wake_at;
        if let Some(at) = wake_at {
            let life = self.manager(manager).life;
            // Timers that ring early ring at once.
            let early = Duration::from_secs(if self.options.flaw == Flaw::TimersEarly { 10 } else { 0 });
            let rings = self.manager(manager).when(at) - early;
            self.at(rings.max(self.now), Happening::ManagerTick { manager, life, at });
        }
        Ok(())
    }

    fn reply(&mut self, reply: Reply) -> Verdict {
        let id = reply.to;
        let line = match &reply.result {
            Ok(answer) => format!("request {} granted: {answer:?}", id.0),
            Err(refusal) => format!("request {} refused: {}", id.0, brief_refusal(refusal)),
        };
        self.tell(|| line);
        if let Some(granted) = self.user.answered(id, &reply.result) {
            checks::granted(self, &granted)?;
            self.guest_answered(&granted)?;
        }
        Ok(())
    }

    /// Those who ask for something are told that it is done when it is only proposed. Now and then the leader dies
    /// right after that.
    fn answer_early(&mut self, manager: usize, changes: &[Change]) {
        if self.options.flaw != Flaw::AnswersEarly {
            return;
        }
        for change in changes {
            let Change::PutService(service) = change else { continue };
            if self.user.believe(manager, service) && self.chance.happens(100) {
                self.at(self.now, Happening::Crash { manager });
            }
        }
    }

    pub(super) fn manager_ticks(&mut self, number: usize, life: u64, at: Time) -> Verdict {
        let (now, early) = (self.now, self.options.flaw == Flaw::TimersEarly);
        let manager = self.manager(number);
        if manager.life != life || manager.wake_at != Some(at) || manager.cluster.is_none() {
            return Ok(());
        }
        if manager.paused_until > now {
            let until = manager.paused_until;
            self.at(until, Happening::ManagerTick { manager: number, life, at });
            return Ok(());
        }
        let claimed = if early { at + Duration::from_secs(10) } else { manager.clock(now) };
        self.step_at(number, Event::Tick, claimed)
    }

    pub(super) fn start_manager(&mut self, number: usize) -> Verdict {
        if self.manager(number).cluster.is_some() || self.manager(number).retired {
            return Ok(());
        }
        let skew = self.some_skew();
        let lag = if self.chance.happens(500) { self.chance.below(30) } else { 0 };
        let manager = self.manager(number);
        manager.skew = skew;
        manager.life += 1;
        let ahead = manager.skew / 1_000_000_000;
        let disk = manager.disk.clone();
        // It learns again from the others how much of its log is committed.
        let known =
            if self.consensus.voters.len() > 1 { disk.durable.saturating_sub(lag) } else { disk.durable };
        let objects = disk.replay(&self.consensus.log, known.max(disk.base()));
        let index = objects.applied();
        self.manager(number).cluster = Some(Cluster::new(objects));
        self.tell_fault(|| format!("manager {number} starts from entry {index}, its clock {ahead} s ahead"));
        checks::replica(self, number)
    }

    /// How wrong a manager's clock is, in nanoseconds ahead. Right in the end.
    fn some_skew(&mut self) -> i64 {
        let most = self.character.skew * 1_000_000_000;
        let ahead = if self.unsafe_phase { self.chance.below(2 * most + 1) } else { most };
        i64::try_from(ahead).unwrap_or(0) - i64::try_from(most).unwrap_or(0)
    }

    /// Somebody sets the clock of a manager while its process goes on.
    pub(super) fn set_clock(&mut self, number: usize) -> Verdict {
        let skew = self.some_skew();
        self.manager(number).skew = skew;
        let ahead = skew / 1_000_000_000;
        self.tell_fault(|| format!("the clock of manager {number} is set, and is {ahead} s ahead"));
        Ok(())
    }

    pub(super) fn crash_manager(&mut self, number: usize) -> Verdict {
        if self.manager(number).cluster.is_none() {
            return Ok(());
        }
        self.tell_fault(|| format!("manager {number} dies"));
        let led = self.manager(number).leads;
        if self.options.flaw == Flaw::LogForgets {
            self.consensus.log.forget_youngest();
        }
        self.manager(number).die();
        if self.consensus.leader == Some(number) && led == Some(self.consensus.term) {
            self.consensus.leader = None;
        }
        self.user.unanswered(number);
        self.end_sessions_with(number);
        self.after(50, 4000, Happening::ManagerUp { manager: number });
        Ok(())
    }

    /// The process stands still for a while: it takes in afterwards what was said to it meanwhile.
    pub(super) fn pause_manager(&mut self, number: usize) -> Verdict {
        if !self.runs(number) {
            return Ok(());
        }
        let pause = self.chance.millis(100, 8000);
        let until = self.now + pause;
        self.tell_fault(|| format!("manager {number} stands still for {pause:?}"));
        self.manager(number).paused_until = until;
        self.at(until, Happening::ManagerWakes { manager: number });
        let leading = self.manager(number).leads.is_some();
        if leading {
            // Its agents hear nothing any more, and some give it up.
            for (node, session) in self.manager(number).sessions.clone() {
                if pause > Duration::from_secs(2) {
                    self.after(1500, 2500, Happening::Broken { node, session });
                }
            }
        }
        Ok(())
    }

    pub(super) fn manager_wakes(&mut self, number: usize) -> Verdict {
        if self.runs(number) {
            self.tell_fault(|| format!("manager {number} goes on"));
        }
        Ok(())
    }
}
