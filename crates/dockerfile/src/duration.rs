//! Durations as Go reads and writes them: `1m30s`, `1.5h`, `250ms`.

/// Nanoseconds of a unit, the largest last: what `parse` looks for.
const UNITS: [(&str, u64); 7] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Nanoseconds; `None` for text that is no duration, or one that is negative or beyond Go's 292 years.
pub(crate) fn parse(text: &str) -> Option<i64> {
    if text == "0" {
        return Some(0);
    }
    let (mut left, mut total) = (text.strip_prefix('+').unwrap_or(text), 0u64);
    if left.is_empty() {
        return None;
    }
    while !left.is_empty() {
        let digits = left.find(|character: char| !character.is_ascii_digit() && character != '.')?;
        let (number, rest) = left.split_at(digits);
        let unit = rest.find(|character: char| character.is_ascii_digit() || character == '.');
        let (unit, rest) = rest.split_at(unit.unwrap_or(rest.len()));
        let (_, nanos) = UNITS.iter().find(|(name, _)| *name == unit)?;
        total = total.checked_add(amount(number, *nanos)?)?;
        left = rest;
    }
    i64::try_from(total).ok()
}

/// `number`, perhaps with a fraction, of a unit.
fn amount(number: &str, nanos: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut sum = whole.checked_mul(nanos)?;
    let mut place = nanos;
    for digit in fraction.bytes() {
        let digit = u64::from(digit.is_ascii_digit().then(|| digit - b'0')?);
        place /= 10;
        sum = sum.checked_add(digit * place)?;
    }
    Some(sum)
}

/// As Go's `Duration.String`.
pub(crate) fn show(nanos: i64) -> String {
    let nanos = nanos.unsigned_abs();
    let fraction = |value: u64, unit: u64, digits: usize| {
        let (whole, rest) = (value / unit, value % unit);
        let rest = format!("{rest:0digits$}");
        let rest = rest.trim_end_matches('0');
        if rest.is_empty() { whole.to_string() } else { format!("{whole}.{rest}") }
    };
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => format!("{}µs", fraction(nanos, 1_000, 3)),
        1_000_000..1_000_000_000 => format!("{}ms", fraction(nanos, 1_000_000, 6)),
        _ => {
            let (minutes, rest) = (nanos / 60_000_000_000, nanos % 60_000_000_000);
            let seconds = fraction(rest, 1_000_000_000, 9);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{seconds}s"),
                (0, minutes) => format!("{minutes}m{seconds}s"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_go_s() {
        for (text, nanos, shown) in [
            ("5s", 5_000_000_000, "5s"),
            ("1m30s", 90_000_000_000, "1m30s"),
            ("1.5h", 5_400_000_000_000, "1h30m0s"),
            ("250ms", 250_000_000, "250ms"),
            ("0", 0, "0s"),
            ("1.5s", 1_500_000_000, "1.5s"),
            ("2us", 2_000, "2µs"),
        ] {
            assert_eq!(parse(text), Some(nanos), "{text}");
            assert_eq!(show(nanos), shown);
        }
        for text in ["", "5", "s", "-1s", "1x", "1s2", ".s", "99999999h"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
