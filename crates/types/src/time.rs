//! Time as a number, so that deciding code takes it as an argument.

use std::fmt;
use std::ops::{Add, Sub};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Nanoseconds since 1970-01-01T00:00:00Z. Written as RFC 3339 with nine decimals, as Docker does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Time(pub u64);

const NANOS: u64 = 1_000_000_000;

impl Time {
    /// Docker's way to say "never": the zero time of Go.
    pub const GO_ZERO: &'static str = "0001-01-01T00:00:00Z";

    /// Whole seconds since the epoch.
    pub fn as_secs(self) -> u64 {
        self.0 / NANOS
    }

    /// Nanoseconds past the whole second.
    pub fn subsec_nanos(self) -> u32 {
        (self.0 % NANOS) as u32
    }

    /// The time passed since `earlier`; zero if that lies ahead.
    pub fn since(self, earlier: Time) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Time;
    fn add(self, duration: Duration) -> Time {
        Time(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Time {
    type Output = Time;
    fn sub(self, duration: Duration) -> Time {
        Time(self.0.saturating_sub(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

#[expect(clippy::disallowed_types, reason = "whoever may read a clock hands its time over here")]
impl From<std::time::SystemTime> for Time {
    fn from(time: std::time::SystemTime) -> Time {
        Time(0) + time.duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
    }
}

/// Days since the epoch to year, month, day (Howard Hinnant, "chrono-Compatible Low-Level Date
/// Algorithms").
fn civil(days: i64) -> (i64, u32, u32) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_shifted = (5 * day_of_year + 2) / 153;
    let day = (day_of_year - (153 * month_shifted + 2) / 5 + 1) as u32;
    let month = if month_shifted < 10 { month_shifted + 3 } else { month_shifted - 9 } as u32;
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// The inverse of [`civil`].
fn days(year: i64, month: u32, day: u32) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_shifted = (i64::from(month) + 9) % 12;
    let day_of_year = (153 * month_shifted + 2) / 5 + i64::from(day) - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.as_secs();
        let (year, month, day) = civil((seconds / 86_400) as i64);
        let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        let nanos = self.subsec_nanos();
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
    }
}

/// A text that is no point in time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a time: expected RFC 3339 or seconds since 1970, such as 1700000000.5")]
pub struct ParseTimeError(String);

impl FromStr for Time {
    type Err = ParseTimeError;

    /// Reads what Docker's API takes for `since` and `until`: RFC 3339 with an offset or `Z`, or seconds
    /// since the epoch with an optional fraction.
    fn from_str(text: &str) -> Result<Time, ParseTimeError> {
        let parsed = if text.get(4..5) == Some("-") { parse_rfc3339(text) } else { parse_seconds(text) };
        parsed.ok_or_else(|| ParseTimeError(text.to_owned()))
    }
}

fn parse_fraction(digits: &str) -> Option<u64> {
    if digits.len() > 9 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    format!("{digits:0<9}").parse().ok()
}

fn parse_seconds(text: &str) -> Option<Time> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: u64 = whole.parse().ok()?;
    Some(Time(seconds.checked_mul(NANOS)?.checked_add(parse_fraction(fraction)?)?))
}

fn parse_rfc3339(text: &str) -> Option<Time> {
    let number = |range: std::ops::Range<usize>| -> Option<u32> {
        let digits = text.get(range)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let punctuated = text.get(7..8)? == "-"
        && matches!(text.get(10..11)?, "T" | "t" | " ")
        && text.get(13..14)? == ":"
        && text.get(16..17)? == ":";
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let in_range =
        (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second <= 60;
    if !punctuated || !in_range {
        return None;
    }
    let rest = text.get(19..)?;
    let (fraction, zone) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?),
        None => ("", rest),
    };
    let offset_minutes: i64 = match zone.as_bytes() {
        b"Z" | b"z" => 0,
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let minutes = zone.get(1..3)?.parse::<i64>().ok()? * 60 + zone.get(4..6)?.parse::<i64>().ok()?;
            if *sign == b'+' { minutes } else { -minutes }
        }
        _ => return None,
    };
    let seconds = days(i64::from(year), month, day) * 86_400
        + i64::from(hour) * 3600
        + i64::from(minute) * 60
        + i64::from(second)
        - offset_minutes * 60;
    let nanos = u64::try_from(seconds).ok()?.checked_mul(NANOS)?;
    Some(Time(nanos.checked_add(parse_fraction(fraction)?)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_survives_its_text() {
        for nanos in [0, 1, 951_782_400_000_000_000, 1_700_000_000_123_456_789, 4_102_444_799_999_999_999] {
            let time = Time(nanos);
            assert_eq!(time.to_string().parse(), Ok(time), "{time}");
        }
        assert_eq!(Time(1_700_000_000_123_456_789).to_string(), "2023-11-14T22:13:20.123456789Z");
    }

    #[test]
    fn docker_s_other_forms_are_read() {
        assert_eq!("1700000000".parse(), Ok(Time(1_700_000_000_000_000_000)));
        assert_eq!("1700000000.5".parse(), Ok(Time(1_700_000_000_500_000_000)));
        assert_eq!("2023-11-14T23:13:20+01:00".parse(), Ok(Time(1_700_000_000_000_000_000)));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in
            ["", "yesterday", "2023-13-01T00:00:00Z", "2023-01-01", "1.2.3", "-5", "2023-01-01T00:00:00"]
        {
            assert!(text.parse::<Time>().is_err(), "{text}");
        }
    }
}
