//! When a job runs by itself, as the labels of its service say.
//!
//! | label | value |
//! | --- | --- |
//! | `skep.cron` | five fields as crontab(5) has them, `*/5 * * * *`, or `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly` |
//! | `skep.cron.timezone` | a name of the IANA database, `Europe/Berlin`, or an offset, `+02:00`; without it UTC. A time of day that clocks skip does not come, and one that comes twice counts once |
//! | `skep.cron.concurrency` | `forbid` (default): a run that comes due while the former goes on begins when that has ended; `replace`: it ends the former |

use std::collections::BTreeMap;

use cronexpr::{Crontab, MakeTimestamp};
use jiff::Zoned;
use skep_types::Time;

const PREFIX: &str = "skep.cron";
const ZONE: &str = "skep.cron.timezone";
const CONCURRENCY: &str = "skep.cron.concurrency";

/// What crontab(5) calls its nicknames.
const NICKNAMES: [(&str, &str); 7] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];

/// The times at which a job runs.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    crontab: Crontab,
    /// It names hours, rather than every one or every so many.
    names_hours: bool,
    pub concurrency: Concurrency,
}

/// What happens to a run that comes due while the former goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Concurrency {
    /// It waits; several that wait are one.
    Forbid,
    /// It ends the former.
    Replace,
}

impl Schedule {
    /// Reads a service's labels.
    ///
    /// # Errors
    /// Which label is wrong, and why.
    pub fn of(labels: &BTreeMap<String, String>) -> Result<Option<Schedule>, String> {
        let known = [PREFIX, ZONE, CONCURRENCY];
        let ours = labels.keys().filter(|label| label.starts_with("skep.cron."));
        if let Some(unknown) = ours.clone().find(|label| !known.contains(&label.as_str())) {
            return Err(format!("label {unknown} is not known: there are {}", known.join(", ")));
        }
        let Some(text) = labels.get(PREFIX) else {
            return match ours.into_iter().next() {
                Some(label) => Err(format!("label {label} says nothing without {PREFIX}")),
                None => Ok(None),
            };
        };
        let fields = NICKNAMES.iter().find(|(nickname, _)| nickname == text).map_or(text.as_str(), |it| it.1);
        let zone = labels.get(ZONE).map_or("UTC", String::as_str);
        if fields.split_ascii_whitespace().count() != 5 {
            return Err(format!(
                "label {PREFIX}: {text:?} has not the five fields minute, hour, day, month, weekday"
            ));
        }
        let crontab = cronexpr::parse_crontab(&format!("{fields} {zone}"));
        let crontab =
            crontab.map_err(|error| format!("label {PREFIX}: {text:?} in time zone {zone:?}: {error}"))?;
        let concurrency = match labels.get(CONCURRENCY).map(String::as_str) {
            None | Some("forbid") => Concurrency::Forbid,
            Some("replace") => Concurrency::Replace,
            Some(other) => {
                return Err(format!("label {CONCURRENCY}: {other:?} is neither forbid nor replace"));
            }
        };
        let names_hours = fields.split_ascii_whitespace().nth(1).is_some_and(|hours| !hours.contains('*'));
        Ok(Some(Schedule { crontab, names_hours, concurrency }))
    }

    /// The next time after that one; none if there is none, as on the 30th of February.
    pub fn next(&self, after: Time) -> Option<Time> {
        let after = MakeTimestamp::from_second(i64::try_from(after.as_secs()).ok()?).ok()?;
        let mut next = self.crontab.find_next(after).ok()?;
        while self.names_hours && came_before(&next) {
            next = self.crontab.find_next(MakeTimestamp(next.timestamp())).ok()?;
        }
        Some(Time(u64::try_from(next.timestamp().as_nanosecond()).ok()?))
    }
}

/// Whether clocks showed the same a while ago, before they were put back.
fn came_before(time: &Zoned) -> bool {
    let shown = time.time_zone().to_ambiguous_zoned(time.datetime());
    shown.is_ambiguous() && shown.earlier().is_ok_and(|earlier| earlier < *time)
}

/// Whether the service with these labels runs by a schedule alone.
pub(crate) fn is_scheduled(labels: &BTreeMap<String, String>) -> bool {
    labels.contains_key(PREFIX)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    fn read(labels: &[(&str, &str)]) -> Result<Option<Schedule>, String> {
        Schedule::of(&labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    fn next(labels: &[(&str, &str)], after: &str) -> Option<String> {
        let schedule = read(labels).unwrap().unwrap();
        schedule.next(after.parse().unwrap()).map(|time| time.to_string())
    }

    #[test]
    fn it_finds_the_next_time() {
        let after = "2026-11-21T10:06:52Z";
        for (fields, zone, wanted) in [
            ("*/5 * * * *", "UTC", "2026-11-21T10:10:00.000000000Z"),
            ("@hourly", "UTC", "2026-11-21T11:00:00.000000000Z"),
            ("@daily", "Europe/Berlin", "2026-11-21T23:00:00.000000000Z"),
            ("30 2 * * Mon-Fri", "+02:00", "2026-11-23T00:30:00.000000000Z"),
            ("0 0 29 2 *", "UTC", "2028-02-29T00:00:00.000000000Z"),
        ] {
            let found = next(&[("skep.cron", fields), ("skep.cron.timezone", zone)], after);
            assert_eq!(found.as_deref(), Some(wanted), "{fields}");
        }
        // The time itself has passed.
        assert_eq!(
            next(&[("skep.cron", "* * * * *")], "2026-11-21T10:06:00Z").as_deref(),
            Some("2026-11-21T10:07:00.000000000Z")
        );
    }

    #[test]
    fn an_hour_that_clocks_skip_has_no_run_and_one_that_comes_twice_has_one() {
        // Clocks in Berlin went from 02:00 to 03:00 on 2026-03-29, and from 03:00 back to 02:00 on 2026-10-25.
        let at = |after: &str| {
            next(&[("skep.cron", "30 2 * * *"), ("skep.cron.timezone", "Europe/Berlin")], after)
        };
        assert_eq!(at("2026-03-28T02:00:00Z").as_deref(), Some("2026-03-30T00:30:00.000000000Z"));
        assert_eq!(at("2026-10-25T00:00:00Z").as_deref(), Some("2026-10-25T00:30:00.000000000Z"));
        assert_eq!(at("2026-10-25T00:30:00Z").as_deref(), Some("2026-10-26T01:30:00.000000000Z"));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert!(read(&[("other", "")]).unwrap().is_none());
        for (labels, wanted) in [
            (&[("skep.cron", "")][..], "has not the five fields"),
            (&[("skep.cron", "61 * * * *")], "label skep.cron: \"61 * * * *\""),
            (&[("skep.cron", "* * * * * UTC")], "has not the five fields"),
            (&[("skep.cron", "@reboot")], "has not the five fields"),
            (&[("skep.cron", "@daily"), ("skep.cron.timezone", "Europe/Atlantis")], "Europe/Atlantis"),
            (&[("skep.cron", "@daily"), ("skep.cron.concurrency", "allow")], "neither forbid nor replace"),
            (&[("skep.cron.timezone", "UTC")], "says nothing without skep.cron"),
            (&[("skep.cron", "@daily"), ("skep.cron.tz", "UTC")], "label skep.cron.tz is not known"),
        ] {
            let refused = read(labels).map(|it| it.is_some()).unwrap_err();
            assert!(refused.contains(wanted), "{refused}");
        }
    }
}
