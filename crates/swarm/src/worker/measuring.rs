//! What tasks use: of services that the leader names, every two seconds, as rates since the look before.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use skep_engine::Engine;
use skep_engine::containers::Usage;
use skep_types::assignment::TaskUsage;
use skep_types::{ContainerId, ServiceId, TaskId};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Between two looks: as often as the leader weighs what it is told.
const PERIOD: Duration = Duration::from_secs(2);

/// What each task had used, and when.
type Looks = BTreeMap<TaskId, (Instant, Usage)>;

/// Measures tasks.
#[derive(Debug, Default)]
pub(super) struct Measuring {
    services: BTreeSet<ServiceId>,
    /// The next look; none while nothing is to be measured, or a look is under way.
    due: Option<Instant>,
    looking: JoinSet<Looks>,
    before: Looks,
    /// What the leader has not been told.
    news: Vec<TaskUsage>,
}

impl Measuring {
    /// Measures the tasks of these services from now on, and of no others.
    pub(super) fn set(&mut self, services: BTreeSet<ServiceId>) {
        self.services = services;
        if self.services.is_empty() {
            // A look under way finds nobody who wants to know.
            *self = Measuring::default();
        } else if self.looking.is_empty() {
            self.due = self.due.or_else(|| Some(Instant::now()));
        }
    }

    pub(super) fn services(&self) -> &BTreeSet<ServiceId> {
        &self.services
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    pub(super) fn has_news(&self) -> bool {
        !self.news.is_empty()
    }

    /// What the leader is to be told.
    pub(super) fn take(&mut self) -> Vec<TaskUsage> {
        std::mem::take(&mut self.news)
    }

    /// Begins to look at these tasks.
    pub(super) fn look(&mut self, engine: &Engine, tasks: Vec<(TaskId, ContainerId)>) {
        self.due = None;
        let engine = engine.clone();
        self.looking.spawn(async move {
            let containers = tasks.iter().map(|(_, container)| *container).collect();
            // What cannot be measured is left out: the leader knows what to make of that.
            let used = engine.usage(containers).await.unwrap_or_default();
            let now = Instant::now();
            let look = |(task, container)| Some((task, (now, *used.get(&container)?)));
            tasks.into_iter().filter_map(look).collect()
        });
    }

    pub(super) fn is_looking(&self) -> bool {
        !self.looking.is_empty()
    }

    /// Takes in a look that has ended.
    pub(super) async fn looked(&mut self) {
        let Some(looks) = self.looking.join_next().await else { return };
        self.note(looks.expect("a look neither panics nor is aborted"));
        self.due = Some(Instant::now() + PERIOD);
    }

    fn note(&mut self, looks: Looks) {
        self.news =
            looks.iter().filter_map(|(task, look)| rate(*task, self.before.get(task)?, look)).collect();
        self.before = looks;
    }
}

/// What a task used in a second from one look to the next; nothing where the later tells less: another container.
fn rate(task: TaskId, before: &(Instant, Usage), look: &(Instant, Usage)) -> Option<TaskUsage> {
    let ((began, before), (ended, now)) = (before, look);
    let nanos = ended.duration_since(*began).as_nanos();
    let in_a_second =
        |amount: u64, parts: u128| u64::try_from((u128::from(amount) * parts).checked_div(nanos)?).ok();
    let nano_cpus = in_a_second(now.cpu_nanos.checked_sub(before.cpu_nanos)?, 1_000_000_000)?;
    let connections = match (now.connections, before.connections) {
        (Some(now), Some(before)) => Some(in_a_second(now.checked_sub(before)?, 1_000_000_000_000)?),
        _ => None,
    };
    Some(TaskUsage { task, nano_cpus, milli_connections: connections })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TASK: TaskId = TaskId(1);

    fn looks(at: Instant, cpu_nanos: u64, connections: Option<u64>) -> Looks {
        BTreeMap::from([(TASK, (at, Usage { cpu_nanos, connections }))])
    }

    #[tokio::test(start_paused = true)]
    async fn rates_are_between_two_looks() {
        let began = Instant::now();
        let mut measuring = Measuring::default();
        measuring.note(looks(began, 7_000_000_000, Some(5)));
        assert!(!measuring.has_news(), "one look is no rate");
        let later = began + Duration::from_millis(2500);
        measuring.note(looks(later, 8_000_000_000, Some(7)));
        let used = TaskUsage { task: TASK, nano_cpus: 400_000_000, milli_connections: Some(800) };
        assert_eq!(measuring.take(), [used]);
        // On the host's network, and then in another container.
        measuring.note(looks(later + PERIOD, 8_000_000_000, None));
        assert_eq!(measuring.take(), [TaskUsage { nano_cpus: 0, milli_connections: None, ..used }]);
        measuring.note(looks(later + 2 * PERIOD, 1, None));
        assert_eq!(measuring.take(), []);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_looked_at_unless_somebody_wants_to_know() {
        let mut measuring = Measuring::default();
        assert_eq!(measuring.due(), None);
        measuring.set(BTreeSet::from([ServiceId(1)]));
        assert_eq!(measuring.due(), Some(Instant::now()));
        measuring.looking.spawn(async { looks(Instant::now(), 1, None) });
        measuring.due = None;
        measuring.set(BTreeSet::from([ServiceId(1), ServiceId(2)]));
        assert_eq!(measuring.due(), None, "a look is under way");
        measuring.looked().await;
        assert_eq!(measuring.due(), Some(Instant::now() + PERIOD));
        measuring.set(BTreeSet::new());
        assert_eq!((measuring.due(), measuring.before.len()), (None, 0));
    }
}
