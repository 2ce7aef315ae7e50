//! How many replicas a service's load asks for, as its labels say.
//!
//! | label | value |
//! | --- | --- |
//! | `skep.autoscale.max` | the most replicas; it turns autoscaling on |
//! | `skep.autoscale.min` | the fewest; 1 without it |
//! | `skep.autoscale.cpu` | per cent of its CPU limit, or else of its CPU reservation, or else of one core, that a task is to use |
//! | `skep.autoscale.rps` | new TCP connections a second that a task is to accept |
//! | `skep.autoscale.up_window` | how long more must be needed before there are more: `15s` without it, never less than 2 s. A task that runs for less counts as idle |
//! | `skep.autoscale.down_window` | how long fewer must be enough before there are fewer: `5m` without it |

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use skep_types::service::TaskSpec;

const PREFIX: &str = "skep.autoscale";
pub(crate) const MIN: &str = "skep.autoscale.min";
pub(crate) const MAX: &str = "skep.autoscale.max";
const CPU: &str = "skep.autoscale.cpu";
const RPS: &str = "skep.autoscale.rps";
const UP_WINDOW: &str = "skep.autoscale.up_window";
const DOWN_WINDOW: &str = "skep.autoscale.down_window";
const KNOWN: [&str; 6] = [MIN, MAX, CPU, RPS, UP_WINDOW, DOWN_WINDOW];

/// A window bounds what the leader remembers of a service.
const MAX_WINDOW: Duration = Duration::from_secs(3600);
const DEFAULT_UP_WINDOW: Duration = Duration::from_secs(15);
/// As Kubernetes' `--horizontal-pod-autoscaler-downscale-stabilization`.
const DEFAULT_DOWN_WINDOW: Duration = Duration::from_secs(5 * 60);
const MAX_CONNECTIONS: u64 = 1_000_000;
const MAX_PERCENT: u64 = 1000;
/// Parts of one core.
pub(crate) const NANO_CPUS: u64 = 1_000_000_000;
const CORE: i64 = NANO_CPUS.cast_signed();

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Autoscale {
    pub min: u64,
    pub max: u64,
    /// Thousand-millionths of a core that a task is to use; never 0.
    pub nano_cpus: Option<u64>,
    /// New connections that a task is to accept, in thousandths a second; never 0.
    pub milli_connections: Option<u64>,
    pub up_window: Duration,
    pub down_window: Duration,
}

impl Autoscale {
    /// Reads a service's labels.
    ///
    /// # Errors
    /// Which label is wrong, and why.
    pub fn of(labels: &BTreeMap<String, String>, task: &TaskSpec) -> Result<Option<Autoscale>, String> {
        let is_ours = |label: &str| {
            let rest = label.strip_prefix(PREFIX);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let mut ours = labels.keys().map(String::as_str).filter(|label| is_ours(label)).peekable();
        let Some(first) = ours.peek().copied() else { return Ok(None) };
        if let Some(unknown) = ours.find(|label| !KNOWN.contains(label)) {
            return Err(format!("label {unknown} is not known: there are {}", KNOWN.join(", ")));
        }
        let Some(max) = number(labels, MAX, 1..=u64::MAX)? else {
            return Err(format!("label {first} says nothing without {MAX}"));
        };
        let min = number(labels, MIN, 1..=u64::MAX)?.unwrap_or(1);
        if min > max {
            return Err(format!("label {MIN}: {min} is more than {MAX}, {max}"));
        }
        let nano_cpus =
            number(labels, CPU, 1..=MAX_PERCENT)?.map(|percent| cpu_target(percent, task)).transpose()?;
        let connections = number(labels, RPS, 1..=MAX_CONNECTIONS)?;
        if nano_cpus.is_none() && connections.is_none() {
            return Err(format!("label {MAX} says nothing without {CPU} or {RPS}"));
        }
        Ok(Some(Autoscale {
            min,
            max,
            nano_cpus,
            milli_connections: connections.map(|connections| connections * 1000),
            up_window: window(labels, UP_WINDOW)?.unwrap_or(DEFAULT_UP_WINDOW),
            down_window: window(labels, DOWN_WINDOW)?.unwrap_or(DEFAULT_DOWN_WINDOW),
        }))
    }
}

impl fmt::Display for Autoscale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "from {} to {}", self.min, self.max)?;
        if let Some(nano) = self.nano_cpus {
            write!(f, ", {} CPUs each", hundredths(nano, NANO_CPUS))?;
        }
        if let Some(milli) = self.milli_connections {
            write!(f, ", {} connections a second each", milli / 1000)?;
        }
        Ok(())
    }
}

/// A number of so many parts, with two decimals.
pub(crate) fn hundredths(number: u64, parts: u64) -> String {
    let hundredths = u128::from(number) * 100 / u128::from(parts);
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

/// Whether the load of a service with these labels decides how many replicas it has.
pub(crate) fn is_autoscaled(labels: &BTreeMap<String, String>) -> bool {
    labels.contains_key(MAX)
}

/// What a task is to use.
fn cpu_target(percent: u64, task: &TaskSpec) -> Result<u64, String> {
    let limit = task.limits.nano_cpus;
    if limit > 0 && percent > 100 {
        return Err(format!("label {CPU}: {percent} per cent of its CPU limit is more than a task can use"));
    }
    let whole = [limit, task.reservations.nano_cpus, CORE].into_iter().find(|nano| *nano > 0);
    let whole = whole.and_then(|nano| u64::try_from(nano).ok()).unwrap_or_default();
    Ok((u128::from(whole) * u128::from(percent) / 100).try_into().unwrap_or(u64::MAX).max(1))
}

fn number(
    labels: &BTreeMap<String, String>,
    label: &str,
    within: std::ops::RangeInclusive<u64>,
) -> Result<Option<u64>, String> {
    let Some(text) = labels.get(label) else { return Ok(None) };
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse().ok().filter(|number| digits && within.contains(number)) {
        Some(number) => Ok(Some(number)),
        None if *within.end() == u64::MAX => {
            Err(format!("label {label}: {text:?} is not a whole number from {}", within.start()))
        }
        None => {
            let (start, end) = (within.start(), within.end());
            Err(format!("label {label}: {text:?} is not a whole number from {start} to {end}"))
        }
    }
}

fn window(labels: &BTreeMap<String, String>, label: &str) -> Result<Option<Duration>, String> {
    let Some(text) = labels.get(label) else { return Ok(None) };
    match duration(text) {
        Some(window) if window <= MAX_WINDOW => Ok(Some(window)),
        Some(_) => Err(format!("label {label}: {text:?} is longer than 1h")),
        None => Err(format!("label {label}: {text:?} is not a time such as 30s, 5m or 1h")),
    }
}

/// Reads whole seconds, minutes and hours as Go writes them: `90s`, `1m30s`, `0s`.
fn duration(text: &str) -> Option<Duration> {
    let (mut total, mut rest) = (0u64, text);
    while !rest.is_empty() {
        let unit = rest.find(|byte: char| !byte.is_ascii_digit())?;
        let (digits, after) = rest.split_at(unit);
        let seconds = match after.as_bytes().first()? {
            b's' => 1,
            b'm' => 60,
            b'h' => 3600,
            _ => return None,
        };
        total = digits.parse::<u64>().ok()?.checked_mul(seconds)?.checked_add(total)?;
        rest = &after[1..];
    }
    (!text.is_empty()).then(|| Duration::from_secs(total))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::tests::scene::{spec, task_spec};

    fn read(labels: &[(&str, &str)], limit: i64, reservation: i64) -> Result<Option<Autoscale>, String> {
        let mut spec = spec("web", 1);
        task_spec(&mut spec, |task| {
            task.limits.nano_cpus = limit;
            task.reservations.nano_cpus = reservation;
        });
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Autoscale::of(&labels, &Arc::clone(&spec.task))
    }

    #[test]
    fn it_reads_what_is_asked_for() {
        assert_eq!(read(&[("other", "1"), ("skep.autoscaler", "1")], 0, 0), Ok(None));
        let all = [
            ("skep.autoscale.min", "2"),
            ("skep.autoscale.max", "10"),
            ("skep.autoscale.cpu", "50"),
            ("skep.autoscale.rps", "100"),
            ("skep.autoscale.up_window", "0s"),
            ("skep.autoscale.down_window", "1m30s"),
        ];
        let wanted = Autoscale {
            min: 2,
            max: 10,
            nano_cpus: Some(500_000_000),
            milli_connections: Some(100_000),
            up_window: Duration::ZERO,
            down_window: Duration::from_secs(90),
        };
        assert_eq!(read(&all, 0, 0), Ok(Some(wanted)));
        let few = [("skep.autoscale.max", "3"), ("skep.autoscale.cpu", "80")];
        let wanted = Autoscale {
            min: 1,
            max: 3,
            nano_cpus: Some(200_000_000),
            milli_connections: None,
            up_window: DEFAULT_UP_WINDOW,
            down_window: DEFAULT_DOWN_WINDOW,
        };
        assert_eq!(read(&few, 250_000_000, 100_000_000), Ok(Some(wanted.clone())));
        assert_eq!(read(&few, 0, 250_000_000), Ok(Some(wanted)));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let max = ("skep.autoscale.max", "5");
        let cpu = ("skep.autoscale.cpu", "50");
        for (labels, wanted) in [
            (&[max, cpu, ("skep.autoscale.memory", "1")][..], "label skep.autoscale.memory is not known"),
            (&[max, cpu, ("skep.autoscale", "on")], "label skep.autoscale is not known"),
            (&[cpu], "label skep.autoscale.cpu says nothing without skep.autoscale.max"),
            (&[max], "skep.autoscale.max says nothing without skep.autoscale.cpu or skep.autoscale.rps"),
            (&[max, cpu, ("skep.autoscale.min", "6")], "label skep.autoscale.min: 6 is more than"),
            (&[max, cpu, ("skep.autoscale.min", "0")], "\"0\" is not a whole number from 1"),
            (&[("skep.autoscale.max", "many"), cpu], "label skep.autoscale.max: \"many\" is not a whole"),
            (&[max, ("skep.autoscale.cpu", "+50")], "label skep.autoscale.cpu: \"+50\" is not a whole"),
            (&[max, ("skep.autoscale.cpu", "50%")], "\"50%\" is not a whole number from 1 to 1000"),
            (&[max, ("skep.autoscale.rps", "0")], "label skep.autoscale.rps: \"0\" is not a whole number"),
            (&[max, cpu, ("skep.autoscale.up_window", "5")], "label skep.autoscale.up_window: \"5\" is not"),
            (&[max, cpu, ("skep.autoscale.up_window", "")], "label skep.autoscale.up_window: \"\" is not"),
            (&[max, cpu, ("skep.autoscale.down_window", "2h")], "\"2h\" is longer than 1h"),
        ] {
            let refused = read(labels, 0, 0).unwrap_err();
            assert!(refused.contains(wanted), "{refused}");
        }
        let refused = read(&[max, ("skep.autoscale.cpu", "120")], CORE, 0).unwrap_err();
        assert_eq!(
            refused,
            "label skep.autoscale.cpu: 120 per cent of its CPU limit is more than a task can use"
        );
        assert!(read(&[max, ("skep.autoscale.cpu", "120")], 0, CORE).is_ok());
    }
}
