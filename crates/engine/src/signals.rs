//! Signals by name and number.

use crate::{Error, Result};

/// SIGTERM
pub const TERM: i32 = 15;
/// SIGKILL
pub const KILL: i32 = 9;

/// The real-time signals that the C library leaves to programs.
const REAL_TIME: std::ops::RangeInclusive<i32> = 34..=64;

/// Linux's numbers on x86-64 and 64-bit ARM; signal(7).
const NAMES: [(&str, i32); 35] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
    ("UNUSED", 31),
];

/// The number of a signal given as `SIGTERM`, `term`, `15` or `RTMIN+3`.
///
/// # Errors
/// 400 `invalid signal: x`.
pub fn parse(text: &str) -> Result<i32> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let number = name.parse::<i32>().ok().filter(|number| (1..=*REAL_TIME.end()).contains(number));
    let named = || NAMES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number);
    number
        .or_else(named)
        .or_else(|| real_time(name))
        .ok_or_else(|| Error::invalid(format!("invalid signal: {text}")))
}

fn real_time(name: &str) -> Option<i32> {
    let offset = |rest: &str, sign: char| -> Option<i32> {
        if rest.is_empty() { Some(0) } else { rest.strip_prefix(sign)?.parse().ok() }
    };
    let number = match name.strip_prefix("RTMIN") {
        Some(rest) => REAL_TIME.start().checked_add(offset(rest, '+')?)?,
        None => REAL_TIME.end().checked_sub(offset(name.strip_prefix("RTMAX")?, '-')?)?,
    };
    REAL_TIME.contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_read_in_every_form() {
        for (text, number) in [
            ("SIGTERM", 15),
            ("term", 15),
            ("15", 15),
            ("KILL", 9),
            ("SIGRTMIN+3", 37),
            ("rtmax-1", 63),
            ("RTMIN", 34),
        ] {
            assert_eq!(parse(text), Ok(number), "{text}");
        }
        for text in ["", "0", "65", "-9", "SIG", "NOPE", "RTMIN+99", "RTMIN-1", "RTMIN+-1"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
