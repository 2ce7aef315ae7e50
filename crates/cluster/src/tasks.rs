//! Making tasks: with addresses and a node at once where there are any, so that a service is on its
//! nodes after a single entry of the log.

use skep_types::service::Service;
use skep_types::{TaskId, TaskState};

use crate::allocator::ipam;
use crate::plan::{Draft, Plan};
use crate::scheduler::{self, Candidates, Placed, Seat};
use crate::{Change, NewTask};

/// Creates the tasks that the batch has drafted.
pub(crate) fn create(plan: &mut Plan, placed: &mut Placed) {
    let objects = plan.objects;
    let mut drafts = std::mem::take(&mut plan.drafts);
    scheduler::by_service(&mut drafts);
    for drafts in drafts.chunk_by(|one, other| one.service == other.service) {
        let Some(service) = drafts.first().and_then(|draft| objects.service(draft.service)) else { continue };
        let spec = &service.spec.task;
        let mut candidates = Candidates::new(
            objects,
            service.id,
            (spec, service.spec_version),
            service.host_ports(),
            plan.now,
        );
        if candidates.is_held() {
            plan.held.insert(service.id);
        }
        for draft in drafts {
            let task = make(plan, placed, &mut candidates, service, draft);
            plan.changes.push(Change::CreateTask(Box::new(task)));
        }
    }
}

fn make(
    plan: &mut Plan,
    placed: &mut Placed,
    candidates: &mut Candidates,
    service: &Service,
    draft: &Draft,
) -> NewTask {
    let id = TaskId(plan.ids.next_u128());
    let mut task = NewTask {
        id,
        service: draft.service,
        slot: draft.slot,
        node: None,
        desired: draft.desired,
        status: plan.status(TaskState::New, "created", String::new()),
        attachments: Vec::new(),
        not_before: draft.not_before,
        cause: draft.cause,
        pinned: draft.pinned,
        at: plan.now,
        generic: Default::default(),
    };
    match ipam::attach(plan, service, &service.spec.task.networks) {
        Ok(attachments) => task.attachments = attachments,
        Err(error) => {
            task.status.error = error;
            return task;
        }
    }
    match candidates.seat(placed, draft.pinned) {
        Ok(Seat { node, generic }) => {
            task.node = Some(node);
            task.generic = generic;
            task.status = plan.status(TaskState::Assigned, scheduler::found(draft.pinned), String::new());
        }
        Err(error) => task.status = plan.status(TaskState::Pending, "pending task scheduling", error),
    }
    task
}
