//! As many replicas as share a service's load at what each is to carry.
//!
//! Agents measure the tasks; what they tell is never replicated. Every few seconds the leader works out how many replicas
//! are needed now. More come once more were needed throughout the up window, fewer once fewer were enough throughout the
//! down window. Both windows begin anew with every change of the number or of the labels, and with every leader: nobody
//! acts on what another saw, so a new leader does nothing hasty. As in Kubernetes, what is not measured counts as idle where
//! more may be needed, and as carrying its full share where fewer may be enough.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use skep_types::assignment::TaskUsage;
use skep_types::service::{Scaled, Service, ServiceMode};
use skep_types::{NodeId, ServiceId, Task, TaskId, TaskState, Time};

use crate::autoscale::{Autoscale, MAX, MIN, NANO_CPUS, hundredths};
use crate::objects::is_wanted;
use crate::plan::{Full, Plan};
use crate::{Change, Objects};

/// How often a service's load is weighed while its tasks are measured.
pub(crate) const PERIOD: Duration = Duration::from_secs(2);
/// How long a measure counts if none follows it.
const FRESH: Duration = Duration::from_secs(7);

/// What the leader knows of the loads of services.
#[derive(Debug, Default)]
pub(crate) struct Meters {
    of: BTreeMap<ServiceId, Meter>,
}

/// What is known of one service's load.
#[derive(Debug, Default)]
struct Meter {
    tasks: BTreeMap<TaskId, Measure>,
    /// The settings and the number of replicas that the rest is about.
    about: Option<(Autoscale, u64)>,
    /// How many replicas were needed when, since the windows began.
    needs: VecDeque<(Time, u64)>,
    began: Time,
}

#[derive(Clone, Copy, Debug)]
struct Measure {
    first: Time,
    last: Time,
    usage: TaskUsage,
}

/// How many replicas are needed, and which load says so.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Need {
    replicas: u64,
    why: String,
}

impl Meters {
    /// Notes what tasks on a node use. Gives the services concerned.
    pub fn note(
        &mut self,
        objects: &Objects,
        node: NodeId,
        usages: &[TaskUsage],
        now: Time,
    ) -> Vec<ServiceId> {
        let mut services = Vec::new();
        for usage in usages {
            let task = objects.task(usage.task).filter(|task| task.node == Some(node) && runs(task));
            let Some(service) = task.map(|task| task.service) else { continue };
            if !objects.autoscaled().contains(&service) {
                continue;
            }
            let tasks = &mut self.of.entry(service).or_default().tasks;
            let measure = tasks.entry(usage.task).or_insert(Measure { first: now, last: now, usage: *usage });
            (measure.last, measure.usage) = (now, *usage);
            if services.last() != Some(&service) {
                services.push(service);
            }
        }
        services
    }

    /// Sees that a service was changed.
    pub fn see(&mut self, objects: &Objects, id: ServiceId) {
        if let Some(meter) = self.of.get_mut(&id)
            && let Some((settings, replicas)) = objects.service(id).and_then(asked)
        {
            meter.see(&settings, replicas);
        }
    }

    /// Scales a service if its load was other than its replicas are to carry, for long enough. Says whether there is
    /// something to weigh in a while.
    pub fn weigh(&mut self, plan: &mut Plan, id: ServiceId) -> Result<bool, Full> {
        let service = plan.objects.service(id);
        let known = service.and_then(|service| Some((service, asked(service)?)));
        let (Some((service, (settings, replicas))), Some(meter)) = (known, self.of.get_mut(&id)) else {
            self.of.remove(&id);
            return Ok(false);
        };
        if replicas > 0 && !plan.requested.contains(&id) {
            meter.weigh(plan, service, &settings, replicas)?;
        }
        if meter.tasks.is_empty() {
            self.of.remove(&id);
            return Ok(false);
        }
        Ok(true)
    }

    /// Forgets all, when the clock was set back: what is remembered lies ahead.
    pub fn clear(&mut self) {
        self.of.clear();
    }
}

impl Meter {
    /// Begins the windows anew where they are about other settings or another number.
    fn see(&mut self, settings: &Autoscale, replicas: u64) {
        if self.about.as_ref().is_none_or(|(of, number)| (of, *number) != (settings, replicas)) {
            self.about = Some((settings.clone(), replicas));
            self.needs.clear();
        }
    }

    fn weigh(
        &mut self,
        plan: &mut Plan,
        service: &Service,
        settings: &Autoscale,
        replicas: u64,
    ) -> Result<(), Full> {
        let now = plan.now;
        self.see(settings, replicas);
        self.tasks.retain(|task, measure| {
            now.since(measure.last) <= FRESH && plan.objects.task(*task).is_some_and(runs)
        });
        let Some(need) = self.need(plan.objects, settings, replicas, now) else {
            self.needs.clear();
            return Ok(());
        };
        if self.needs.is_empty() {
            self.began = now;
        }
        self.needs.push_back((now, need.replicas));
        let longest = settings.up_window.max(settings.down_window);
        while self.needs.front().is_some_and(|(at, _)| now.since(*at) > longest) {
            self.needs.pop_front();
        }
        let over = |window: Duration| {
            // The first measures after a change may still be of the number before it.
            let window = window.max(PERIOD);
            let lasted = now.since(self.began) >= window;
            let within = self.needs.iter().filter(move |(at, _)| now.since(*at) <= window);
            within.map(|(_, need)| *need).filter(move |_| lasted)
        };
        let (more, fewer) = (over(settings.up_window).min(), over(settings.down_window).max());
        // What an update is making is not taken away under its hands.
        let updating = plan.objects.rollout(service.id).is_some();
        let (to, window, words) = match (more, fewer.filter(|_| !updating)) {
            (Some(more), _) if more > replicas => (more, settings.up_window, "at least"),
            (_, Some(fewer)) if fewer < replicas => (fewer, settings.down_window, "at most"),
            _ => return Ok(()),
        };
        let reason = format!("{}; {words} {to} were needed for {window:?}", need.why);
        scale(plan, service, replicas, to, reason)
    }

    /// How many replicas are needed now; nothing while nothing is measured.
    fn need(&self, objects: &Objects, settings: &Autoscale, replicas: u64, now: Time) -> Option<Need> {
        // A task that has just started may be busy with that.
        let warm = self.tasks.values().filter(|measure| now.since(measure.first) >= settings.up_window);
        let stays = |usage: &TaskUsage| objects.task(usage.task).is_some_and(is_wanted);
        let usages = warm.map(|measure| (stays(&measure.usage), measure.usage));
        let cpus = usages.clone().map(|(stays, usage)| (stays, usage.nano_cpus));
        let connections = usages.filter_map(|(stays, usage)| Some((stays, usage.milli_connections?)));
        let by_cpu = settings.nano_cpus.map(|target| {
            let load = Load::of(cpus, target);
            let (sum, each) = (hundredths(load.sum, NANO_CPUS), hundredths(target, NANO_CPUS));
            let why = format!("{} tasks use {sum} CPUs, and each is to use {each}", load.measured);
            load.need(replicas).map(|replicas| Need { replicas, why })
        });
        let by_connections = settings.milli_connections.map(|target| {
            let load = Load::of(connections, target);
            let (sum, each) = (hundredths(load.sum, 1000), target / 1000);
            let why = format!(
                "{} tasks accept {sum} connections a second, and each is to accept {each}",
                load.measured
            );
            load.need(replicas).map(|replicas| Need { replicas, why })
        });
        let asked = [by_cpu, by_connections];
        let unknown = asked.iter().flatten().any(Option::is_none);
        let mut need = asked.into_iter().flatten().flatten().max_by_key(|need| need.replicas)?;
        if unknown {
            // The other load may need them.
            need.replicas = need.replicas.max(replicas);
        }
        need.replicas = need.replicas.clamp(settings.min, settings.max);
        Some(need)
    }
}

/// One kind of load.
struct Load {
    /// What tasks that end carry still, others will have to.
    sum: u64,
    /// Tasks in it that stay.
    measured: u64,
    /// What each is to carry.
    target: u64,
}

impl Load {
    /// Adds up what tasks carry, each with whether it stays.
    fn of(usages: impl Iterator<Item = (bool, u64)>, target: u64) -> Load {
        usages.fold(Load { sum: 0, measured: 0, target }, |load, (stays, usage)| Load {
            sum: load.sum.saturating_add(usage),
            measured: load.measured + u64::from(stays),
            target,
        })
    }

    /// How many are to share it, where there are so many now. A tenth too much is borne, as in Kubernetes: else those who
    /// are just enough would be more and fewer in turn.
    fn need(&self, replicas: u64) -> Option<u64> {
        if self.measured == 0 {
            return None;
        }
        let share = self.sum.div_ceil(self.target);
        let borne = u128::from(self.target) * u128::from(replicas) * 11 / 10;
        let fewer = share.saturating_add(replicas.saturating_sub(self.measured));
        Some(if u128::from(self.sum) > borne { share.max(replicas) } else { fewer.min(replicas) })
    }
}

/// Brings the number of replicas within its bounds, whatever the load. A service that is scaled to none stays there.
pub(crate) fn bound(plan: &mut Plan, service: &Service) -> Result<(), Full> {
    let Some((settings, replicas)) = asked(service).filter(|(_, replicas)| *replicas > 0) else {
        return Ok(());
    };
    let to = replicas.clamp(settings.min, settings.max);
    if to == replicas {
        return Ok(());
    }
    let reason = if to > replicas { format!("{MIN} is {to}") } else { format!("{MAX} is {to}") };
    scale(plan, service, replicas, to, reason)
}

/// What a service's labels ask for, and how many replicas it is to have now.
fn asked(service: &Service) -> Option<(Autoscale, u64)> {
    let ServiceMode::Replicated { replicas } = service.spec.mode else { return None };
    // Labels that make no sense were refused.
    Some((Autoscale::of(&service.spec.labels, &service.spec.task).ok()??, replicas))
}

fn scale(plan: &mut Plan, service: &Service, from: u64, to: u64, reason: String) -> Result<(), Full> {
    plan.reserve(1)?;
    plan.requested.insert(service.id);
    let scaled = Box::new(Scaled { at: plan.now, from, to, reason });
    plan.changes.push(Change::Scale { service: service.id, scaled });
    Ok(())
}

fn runs(task: &Task) -> bool {
    task.status.state == TaskState::Running
}
