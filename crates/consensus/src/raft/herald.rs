//! Tells the owner what happened, in order.
//!
//! An owner that does not listen for a while holds up what is committed, and nothing else: telling never waits, and
//! only who tells of entries and states asks for room first ([`Herald::room`]).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

use super::disk::Failure;
use crate::log::{Index, Snapshot, Term};
use crate::notice::{Notice, ProposalId, RaftId, Standing};

/// Who leads, as openraft sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct View {
    /// The term that this member leads in.
    pub(crate) leads: Option<Term>,
    pub(crate) leader: Option<(RaftId, String)>,
}

struct Told {
    /// Told by [`Notice::Leads`] and not taken back.
    leads: Option<Term>,
    leader: Option<(RaftId, String)>,
    /// The term of the last leader's first entry that was told.
    begun: Term,
    /// Until it is closed. The permit is room that the notice takes until the owner has it.
    queue: Option<mpsc::UnboundedSender<(Notice, Option<OwnedSemaphorePermit>)>>,
}

pub(crate) struct Herald {
    /// Held while telling: it is what keeps the order between the tasks that tell.
    told: Mutex<Told>,
    room: Arc<Semaphore>,
    /// The term of [`Told::leads`], or 0.
    leads: AtomicU64,
    standing: watch::Sender<Standing>,
}

impl Herald {
    /// A herald, and the task that carries what it tells to the owner. At most `room` entries wait in between.
    pub(crate) fn new(room: usize, notices: mpsc::Sender<Notice>) -> (Herald, impl Future<Output = ()>) {
        let (queue, mut queued) = mpsc::unbounded_channel();
        let told = Told { leads: None, leader: None, begun: 0, queue: Some(queue) };
        let herald = Herald {
            told: Mutex::new(told),
            room: Arc::new(Semaphore::new(room)),
            leads: AtomicU64::new(0),
            standing: watch::Sender::new(Standing::default()),
        };
        let carry = async move {
            while let Some((notice, _room)) = queued.recv().await {
                // An owner that is gone needs no news.
                let _ = notices.send(notice).await;
            }
        };
        (herald, carry)
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the owner has taken enough. Nothing when nothing is told any more.
    async fn room(&self) -> Option<OwnedSemaphorePermit> {
        self.room.clone().acquire_owned().await.ok()
    }

    pub(crate) fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// The term that the owner was told to lead in.
    pub(crate) fn leads(&self) -> Option<Term> {
        Some(self.leads.load(Ordering::Acquire)).filter(|term| *term != 0)
    }

    pub(crate) async fn restored(&self, snapshot: Snapshot) {
        let room = self.room().await;
        self.told().tell(Notice::Restored(snapshot), room);
    }

    pub(crate) async fn committed(&self, index: Index, payload: Option<Vec<u8>>, own: Option<ProposalId>) {
        let room = self.room().await;
        self.told().tell(Notice::Committed { index, payload, own }, room);
    }

    pub(crate) fn refused(&self, id: ProposalId, reason: String) {
        self.told().tell(Notice::Refused { id, reason }, None);
    }

    /// The first entry of the leader of `term` was told.
    pub(crate) fn begun(&self, term: Term, view: &View) {
        self.told().begun = term;
        self.settle(view);
    }

    /// Tells what changed about the lead.
    pub(crate) fn settle(&self, view: &View) {
        let mut told = self.told();
        let was_leading = told.leads.is_some();
        if told.leads.is_some() && told.leads != view.leads {
            told.leads = None;
            self.leads.store(0, Ordering::Release);
        }
        match view.leads {
            Some(term) if told.leads.is_none() && told.begun == term => {
                told.leads = Some(term);
                told.leader.clone_from(&view.leader);
                told.tell(Notice::Leads { term }, None);
                // Only now: a proposal made before could not have been decided in this term.
                self.leads.store(term, Ordering::Release);
            }
            Some(_) if was_leading && told.leads.is_none() => {
                told.leader = None;
                told.tell(Notice::Follows { leader: None }, None);
            }
            Some(_) => {}
            None if was_leading || told.leader != view.leader => {
                told.leader.clone_from(&view.leader);
                told.tell(Notice::Follows { leader: view.leader.clone() }, None);
            }
            None => {}
        }
    }

    /// Publishes how things stand. `leads` is set here: never before the owner was told.
    pub(crate) fn publish(&self, standing: Standing) {
        let standing = Standing { leads: self.leads() == Some(standing.term), ..standing };
        self.standing.send_if_modified(|old| {
            let changed = *old != standing;
            *old = standing;
            changed
        });
    }

    /// Tells nothing more.
    pub(crate) fn close(&self) {
        self.end(None);
    }

    /// Tells that the disk failed, as the last of all.
    pub(crate) fn fail(&self, failure: Failure) {
        let Failure { reason, damaged } = failure;
        self.end(Some(Notice::Failed { reason, damaged }));
    }

    fn end(&self, last: Option<Notice>) {
        self.leads.store(0, Ordering::Release);
        {
            let mut told = self.told();
            if let Some(notice) = last {
                told.tell(notice, None);
            }
            told.queue = None;
        }
        // Who waits for room need not wait any longer.
        self.room.close();
        self.publish(Standing::default());
    }
}

impl Told {
    fn tell(&self, notice: Notice, room: Option<OwnedSemaphorePermit>) {
        if let Some(queue) = &self.queue {
            // Its other end goes when the consensus is stopped.
            let _ = queue.send((notice, room));
        }
    }
}
