//! Labels by which services say when they run, what they wait for, and how many tasks their load asks for. Read here in the simulator's own
//! way, so that the brain is not judged by itself.

use std::collections::BTreeMap;
use std::time::Duration;

use skep_types::Time;
use skep_types::service::ServiceMode;

use super::wishes::NAMES;
use crate::chance::Chance;

const CRON: &str = "skep.cron";
const CONCURRENCY: &str = "skep.cron.concurrency";
const DEPENDS_ON: &str = "skep.depends_on";
const AUTOSCALE: &str = "skep.autoscale.";

/// Labels of a new service, or new ones of an old. Half of the jobs have a schedule.
pub(super) fn some(chance: &mut Chance, mode: ServiceMode) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    if mode.is_job() && chance.happens(500) {
        labels.insert(CRON.to_owned(), format!("*/{} * * * *", 1 + chance.below(3)));
        if chance.happens(500) {
            labels.insert(CONCURRENCY.to_owned(), "replace".to_owned());
        }
    }
    if matches!(mode, ServiceMode::Replicated { .. }) && chance.happens(300) {
        let min = 1 + chance.below(3);
        let load = if chance.happens(500) { ("cpu", "50".to_owned()) } else { ("rps", "100".to_owned()) };
        let settings = [
            ("min", min.to_string()),
            ("max", (min + chance.below(6)).to_string()),
            ("up_window", format!("{}s", 4 * chance.below(3))),
            ("down_window", format!("{}s", 5 + 5 * chance.below(4))),
            load,
        ];
        labels.extend(settings.map(|(name, value)| (format!("{AUTOSCALE}{name}"), value)));
    }
    if chance.happens(250) {
        let names: Vec<&str> = (0..=chance.below(2)).filter_map(|_| chance.pick(&NAMES).copied()).collect();
        labels.insert(DEPENDS_ON.to_owned(), names.join(","));
    }
    labels
}

/// When a job runs by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Schedule {
    /// Every so many minutes, on the minute; a divisor of an hour.
    minutes: u64,
    /// Whether a run that comes due ends the one before.
    pub replaces: bool,
}

impl Schedule {
    /// How many times have come due since the clocks' beginning.
    pub fn due(self, clock: Time) -> u64 {
        clock.as_secs() / (60 * self.minutes)
    }
}

/// The schedule in a service's labels.
pub(crate) fn schedule(labels: &BTreeMap<String, String>) -> Option<Schedule> {
    let minutes = labels.get(CRON)?.strip_prefix("*/")?.split(' ').next()?.parse().ok()?;
    Some(Schedule { minutes, replaces: labels.get(CONCURRENCY).is_some_and(|word| word == "replace") })
}

/// The same labels without a schedule.
pub(crate) fn unscheduled(labels: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut labels = labels.clone();
    labels.retain(|label, _| !label.starts_with(CRON));
    labels
}

/// What a service's load is to make of its number of replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scaling {
    pub min: u64,
    pub max: u64,
    pub up_window: Duration,
    pub down_window: Duration,
    /// Per cent of a core, or of what is reserved.
    pub cpu: Option<u64>,
    /// Connections a second.
    pub rps: Option<u64>,
}

/// What a service's labels say of its load.
pub(crate) fn scaling(labels: &BTreeMap<String, String>) -> Option<Scaling> {
    let text = |name: &str| labels.get(&format!("{AUTOSCALE}{name}"));
    let number = |name: &str| text(name)?.parse().ok();
    let window = |name: &str| Some(Duration::from_secs(text(name)?.strip_suffix('s')?.parse().ok()?));
    Some(Scaling {
        min: number("min")?,
        max: number("max")?,
        up_window: window("up_window")?,
        down_window: window("down_window")?,
        cpu: number("cpu"),
        rps: number("rps"),
    })
}

/// The names of the services that a service waits for.
pub(crate) fn depends_on(labels: &BTreeMap<String, String>) -> Vec<&str> {
    labels.get(DEPENDS_ON).map(|names| names.split(',').collect()).unwrap_or_default()
}
