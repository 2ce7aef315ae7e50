//! What would follow from requests, without asking for anything: the requests are decided as the leader would decide them,
//! one after the other, and what is decided is thrown away.

use std::collections::BTreeSet;
use std::sync::Arc;

use skep_types::network::NetworkSpec;
use skep_types::service::{Service, ServiceMode, ServiceSpec};
use skep_types::{Ids, NetworkId, ServiceId, Time, Version};

use crate::objects::{is_live, is_wanted};
use crate::plan::Plan;
use crate::requests;
use crate::{Answer, Change, Objects, Refusal, Request};

/// Draws the ids of things that never come to be.
const SEED: u128 = 0x5245_4845_4152_5345;

/// A deployment that is only played.
#[derive(Debug)]
pub struct Rehearsal<'a> {
    plan: Plan<'a>,
    /// Networks that only this play knows.
    networks: BTreeSet<NetworkId>,
}

/// What an update would do to a service's tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effect {
    /// Tasks that the service has now.
    pub tasks: u64,
    /// Those among them that would be replaced: not those that would only be too many.
    pub replaced: u64,
    /// Whether a job would run anew.
    pub runs_again: bool,
}

/// Plays requests against what is committed.
pub fn rehearse<T>(objects: &Objects, now: Time, play: impl FnOnce(&mut Rehearsal<'_>) -> T) -> T {
    let mut ids = Ids::new(SEED);
    play(&mut Rehearsal { plan: Plan::new(objects, now, &mut ids), networks: BTreeSet::new() })
}

impl Rehearsal<'_> {
    /// Makes a network.
    ///
    /// # Errors
    /// As the request would be refused.
    pub fn create_network(&mut self, spec: NetworkSpec) -> Result<Option<NetworkId>, Refusal> {
        match self.decide(Request::CreateNetwork(Box::new(spec)))? {
            Answer::Network(id) => {
                self.networks.insert(id);
                Ok(Some(id))
            }
            Answer::Done | Answer::Service(_) | Answer::Attached(_) => Ok(None),
        }
    }

    /// Makes a service.
    ///
    /// # Errors
    /// As the request would be refused.
    pub fn create_service(&mut self, spec: ServiceSpec) -> Result<(), Refusal> {
        let spec = self.known(&spec);
        self.decide(Request::CreateService(Box::new(spec))).map(|_| ())
    }

    /// Removes a service.
    ///
    /// # Errors
    /// As the request would be refused.
    pub fn remove_service(&mut self, id: ServiceId) -> Result<Effect, Refusal> {
        let tasks = self.tasks(id);
        self.decide(Request::RemoveService(id))?;
        Ok(Effect { tasks, ..Effect::default() })
    }

    /// Gives a service another specification, and tells what would become of its tasks.
    ///
    /// # Errors
    /// As the request would be refused.
    pub fn update_service(&mut self, id: ServiceId, spec: ServiceSpec) -> Result<Effect, Refusal> {
        let objects = self.plan.objects;
        let version = objects.service(id).map(|service| service.meta.version).unwrap_or_default();
        let known = self.known(&spec);
        self.decide(Request::UpdateService { id, version, spec: Box::new(known) })?;
        let put = self.plan.changes.iter().rev().find_map(|change| match change {
            Change::PutService(service) if service.id == id => Some(service),
            _ => None,
        });
        let Some(put) = put else { return Ok(Effect::default()) };
        let raise = u64::from(put.spec.task != spec.task);
        let spec_version = Version(put.spec_version.0 + raise);
        Ok(effect(objects, &Service { spec, spec_version, ..Service::clone(put) }))
    }

    /// A specification without the networks that are not there yet: they have room for it, and requests know only
    /// what is committed.
    fn known(&self, spec: &ServiceSpec) -> ServiceSpec {
        let mut known = spec.clone();
        if spec.task.networks.iter().any(|on| self.networks.contains(&on.network)) {
            Arc::make_mut(&mut known.task).networks.retain(|on| !self.networks.contains(&on.network));
        }
        known
    }

    fn decide(&mut self, request: Request) -> Result<Answer, Refusal> {
        requests::decide(&mut self.plan, None, request)
    }

    fn tasks(&self, id: ServiceId) -> u64 {
        let tasks = self.plan.objects.tasks_of(id).filter(|task| is_live(task) && is_wanted(task));
        tasks.count() as u64
    }
}

fn effect(objects: &Objects, service: &Service) -> Effect {
    let mut effect = Effect::default();
    if service.spec.mode.is_job() {
        let iteration = objects.service(service.id).and_then(|before| before.job);
        effect.runs_again = service.job != iteration;
    }
    for task in objects.tasks_of(service.id).filter(|task| is_live(task) && is_wanted(task)) {
        effect.tasks += 1;
        let node = task.node.and_then(|node| objects.node(node));
        effect.replaced += u64::from(!task.is_current(service, node));
    }
    if let ServiceMode::Replicated { replicas } = service.spec.mode {
        effect.replaced = effect.replaced.min(replicas);
    }
    effect
}
