//! Tells the owner what happened, in order.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Mutex, mpsc, watch};

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
    closed: bool,
}

pub(crate) struct Herald {
    notices: mpsc::Sender<Notice>,
    /// Held while telling: it is what keeps the order between the tasks that tell.
    told: Mutex<Told>,
    /// The term of [`Told::leads`], or 0.
    leads: AtomicU64,
    standing: watch::Sender<Standing>,
}

impl Herald {
    pub(crate) fn new(notices: mpsc::Sender<Notice>) -> Herald {
        let told = Told { leads: None, leader: None, begun: 0, closed: false };
        let standing = watch::Sender::new(Standing::default());
        Herald { notices, told: Mutex::new(told), leads: AtomicU64::new(0), standing }
    }

    pub(crate) fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// The term that the owner was told to lead in.
    pub(crate) fn leads(&self) -> Option<Term> {
        Some(self.leads.load(Ordering::Acquire)).filter(|term| *term != 0)
    }

    async fn tell(&self, told: &Told, notice: Notice) {
        if !told.closed {
            // An owner that is gone needs no news.
            let _ = self.notices.send(notice).await;
        }
    }

    pub(crate) async fn restored(&self, snapshot: Snapshot) {
        let told = self.told.lock().await;
        self.tell(&told, Notice::Restored(snapshot)).await;
    }

    pub(crate) async fn committed(&self, index: Index, payload: Option<Vec<u8>>, own: Option<ProposalId>) {
        let told = self.told.lock().await;
        self.tell(&told, Notice::Committed { index, payload, own }).await;
    }

    pub(crate) async fn refused(&self, id: ProposalId, reason: String) {
        let told = self.told.lock().await;
        self.tell(&told, Notice::Refused { id, reason }).await;
    }

    /// The first entry of the leader of `term` was told.
    pub(crate) async fn begun(&self, term: Term, view: &View) {
        self.told.lock().await.begun = term;
        self.settle(view).await;
    }

    /// Tells what changed about the lead.
    pub(crate) async fn settle(&self, view: &View) {
        let mut told = self.told.lock().await;
        let was_leading = told.leads.is_some();
        if told.leads.is_some() && told.leads != view.leads {
            told.leads = None;
            self.leads.store(0, Ordering::Release);
        }
        match view.leads {
            Some(term) if told.leads.is_none() && told.begun == term => {
                told.leads = Some(term);
                told.leader.clone_from(&view.leader);
                self.tell(&told, Notice::Leads { term }).await;
                // Only now: a proposal made before could not have been decided in this term.
                self.leads.store(term, Ordering::Release);
            }
            Some(_) if was_leading && told.leads.is_none() => {
                told.leader = None;
                self.tell(&told, Notice::Follows { leader: None }).await;
            }
            Some(_) => {}
            None if was_leading || told.leader != view.leader => {
                told.leader.clone_from(&view.leader);
                self.tell(&told, Notice::Follows { leader: view.leader.clone() }).await;
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
    pub(crate) async fn close(&self) {
        self.leads.store(0, Ordering::Release);
        self.told.lock().await.closed = true;
        self.publish(Standing::default());
    }

    /// Tells that the disk failed, as the last of all.
    pub(crate) async fn fail(&self, reason: String) {
        self.leads.store(0, Ordering::Release);
        {
            let mut told = self.told.lock().await;
            self.tell(&told, Notice::Failed { reason }).await;
            told.closed = true;
        }
        self.publish(Standing::default());
    }
}
