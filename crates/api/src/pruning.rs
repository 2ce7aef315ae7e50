//! What `prune` of any kind is narrowed to: `until`, `label` and `label!`.

use std::time::{Duration, SystemTime};

use skep_types::Time;

use crate::error::ApiError;
use crate::filters::{Filters, label_matches};
use crate::query::Query;

/// Old enough, and of the right labels.
#[derive(Clone, Debug, Default)]
pub struct Pruning {
    until: Option<Time>,
    filters: Filters,
}

impl Pruning {
    /// Reads the parameter `filters`; further ones that it may have are `known`.
    pub fn parse(query: &Query, known: &[&str]) -> Result<Pruning, ApiError> {
        let filters = Filters::parse(query, &[&["label", "label!", "until"], known].concat())?;
        let mut bounds = filters.values("until");
        let until = match (bounds.next(), bounds.next()) {
            (None, _) => None,
            (Some(text), None) => Some(moment("until", text, Time::from(SystemTime::now()))?),
            (Some(_), Some(_)) => return Err(ApiError::invalid("more than one until filter specified")),
        };
        drop(bounds);
        Ok(Pruning { until, filters })
    }

    /// Whether a thing may go: when it was made, and its labels.
    pub fn admits<'a>(&self, created: Time, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        // As moby's `matchLabels`.
        let spared = self.filters.has("label!")
            && self.filters.values("label!").all(|wanted| label_matches(wanted, &label));
        self.until.is_none_or(|until| created <= until) && self.filters.labels("label", label) && !spared
    }

    /// The filters, for those that only one kind has.
    pub fn filters(&self) -> &Filters {
        &self.filters
    }
}

/// A moment as moby's `GetTimestamp` reads it: how long before `now` (`24h`, `1h30m`), seconds since the epoch, or a date,
/// which without an offset means UTC.
pub fn moment(name: &str, text: &str, now: Time) -> Result<Time, ApiError> {
    if let Some(before) = duration(text) {
        return Ok(now - before);
    }
    let rest = match text.len() {
        10 if text.as_bytes()[4] == b'-' => "T00:00:00Z",
        13 => ":00:00Z",
        16 => ":00Z",
        19 => "Z",
        _ => "",
    };
    let parsed: Result<Time, _> = text.parse();
    parsed
        .or_else(|_| format!("{text}{rest}").parse())
        .map_err(|error| ApiError::invalid(format!("invalid filter '{name}={text}': {error}")))
}

/// A duration as Go writes it, but none that is negative.
fn duration(text: &str) -> Option<Duration> {
    const UNITS: [(&str, f64); 7] =
        [("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    let (mut total, mut rest) = (Duration::ZERO, text);
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let value: f64 = rest[..number].parse().ok()?;
        let after = &rest[number..];
        let unit = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (_, seconds) = UNITS.iter().find(|(name, _)| *name == &after[..unit])?;
        total = total.checked_add(Duration::try_from_secs_f64(value * seconds).ok()?)?;
        rest = &after[unit..];
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_as_by_moby() {
        let now: Time = "2024-01-02T03:04:05Z".parse().expect("a time");
        for (text, wanted) in [
            ("1h30m", "2024-01-02T01:34:05Z"),
            ("1.5h", "2024-01-02T01:34:05Z"),
            ("0s", "2024-01-02T03:04:05Z"),
            ("2023-05-06", "2023-05-06T00:00:00Z"),
            ("2023-05-06T07:08", "2023-05-06T07:08:00Z"),
            ("2023-05-06T07:08:09", "2023-05-06T07:08:09Z"),
            ("2023-05-06T07:08:09+02:00", "2023-05-06T05:08:09Z"),
            ("1136073845", "2006-01-01T00:04:05Z"),
        ] {
            assert_eq!(moment("until", text, now), Ok(wanted.parse().expect("a time")), "{text}");
        }
        for text in ["", "h", "1x", "1h2", "yesterday", "-1h"] {
            assert!(moment("until", text, now).is_err(), "{text}");
        }
    }

    #[test]
    fn labels_let_through_or_spare() {
        let pruning = |text: &str| Pruning::parse(&Query::parse(&format!("filters={text}")), &[]);
        let of = |text: &str| {
            pruning(text).expect("good").admits(Time::default(), |key| (key == "a").then_some("b"))
        };
        assert!(
            of("{}") && of(r#"{"label":["a"]}"#) && of(r#"{"label!":["z"]}"#) && of(r#"{"label!":["a=c"]}"#)
        );
        assert!(!of(r#"{"label":["a=c"]}"#) && !of(r#"{"label!":["a"]}"#));
        assert!(pruning(r#"{"until":["1h","2h"]}"#).is_err() && pruning(r#"{"dangling":["1"]}"#).is_err());
    }
}
