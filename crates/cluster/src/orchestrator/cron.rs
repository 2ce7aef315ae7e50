//! Starting jobs by their schedules: each run is an iteration.
//!
//! The time of the last run is replicated with the service, so a new leader neither repeats a run nor forgets one. What
//! came due while nobody led is made up for by one run. What came due before the user's last word on the service is not.

use skep_types::service::{JobStatus, Service};
use skep_types::{Meta, ServiceId, Time, Version};

use crate::objects::is_live;
use crate::plan::{Full, Plan};
use crate::requests::MAX_SPECS_OF_BATCH;
use crate::schedule::{Concurrency, Schedule, is_scheduled};
use crate::{Change, Objects};

/// Whether a job waits for a time of its schedule: for the first one, or since it was updated. What runs of it goes on to
/// its end; nothing is begun, nor tried again, before that time.
pub(crate) fn awaits_run(service: &Service) -> bool {
    service.job.is_some_and(|job| match job.spec_version {
        Some(version) => version != service.spec_version,
        None => job.iteration == 0 && is_scheduled(&service.spec.labels),
    })
}

/// Starts a job whose time has come. Gives the time at which to look again.
pub(crate) fn start(plan: &mut Plan, service: &Service) -> Result<Option<Time>, Full> {
    let Some(job) = service.job else { return Ok(None) };
    let Ok(Some(schedule)) = Schedule::of(&service.spec.labels) else { return Ok(None) };
    let Some(due) = schedule.next(job.last_execution.max(service.meta.updated_at)) else { return Ok(None) };
    if due > plan.now {
        return Ok(Some(due));
    }
    if schedule.concurrency == Concurrency::Forbid && goes_on(plan.objects, service.id) {
        // The end of its last task leads here again.
        return Ok(None);
    }
    if plan.requested.len() >= MAX_SPECS_OF_BATCH {
        return Err(Full);
    }
    plan.reserve(1)?;
    plan.requested.insert(service.id);
    let version = Version(service.spec_version.0 + 1);
    plan.changes.push(Change::PutService(Box::new(Service {
        meta: Meta { updated_at: plan.now, ..service.meta },
        spec_version: version,
        job: Some(JobStatus {
            iteration: job.iteration + 1,
            last_execution: plan.now,
            spec_version: Some(version),
        }),
        ..service.clone()
    })));
    Ok(None)
}

/// Whether a task of the job has not ended yet.
fn goes_on(objects: &Objects, service: ServiceId) -> bool {
    objects.tasks_of(service).any(is_live)
}
