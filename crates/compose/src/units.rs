//! Durations, sizes, shares of CPUs and command lines, as Go's packages read them for the stock client.

/// Nanoseconds of a text such as `1h2m3.5s`, as `time.ParseDuration`.
pub(crate) fn duration(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| letter != '.' && !letter.is_ascii_digit())?;
        let (number, after) = rest.split_at(digits);
        let unit = after.find(|letter: char| letter == '.' || letter.is_ascii_digit()).unwrap_or(after.len());
        let (unit, left) = after.split_at(unit);
        let scale: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        total = total.checked_add(scaled(number, scale)?)?;
        rest = left;
    }
    i64::try_from(sign * total).ok()
}

/// A decimal number times a scale, without what is below one.
fn scaled(number: &str, scale: i128) -> Option<i128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || whole.len() > 19 {
        return None;
    }
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    // What is beyond eighteen digits is below a nanosecond of any unit.
    let fraction: String = fraction.chars().take(18).collect();
    let below: i128 = match fraction.as_str() {
        "" => 0,
        digits => digits.parse().ok()?,
    };
    let length = u32::try_from(fraction.len()).ok()?;
    whole.checked_mul(scale)?.checked_add(below.checked_mul(scale)? / 10i128.pow(length))
}

/// Bytes of a text such as `64m` or `1.5 GiB`, as `units.RAMInBytes`: a kilobyte is 1024.
pub(crate) fn bytes(text: &str) -> Option<i64> {
    let ends = text.rfind(|letter: char| letter.is_ascii_digit() || letter == '.')? + 1;
    let (number, unit) = text.split_at(ends);
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let mut letters = unit.chars();
    let power = match letters.next() {
        None => 0,
        Some('b') => return letters.as_str().is_empty().then(|| i64::try_from(scaled(number, 1)?).ok())?,
        Some(letter) => 1 + u32::try_from("kmgtpezy".find(letter)?).ok()?,
    };
    if !["", "b", "ib"].contains(&letters.as_str()) {
        return None;
    }
    i64::try_from(scaled(number, 1i128.checked_shl(10 * power)?)?).ok()
}

/// Thousand-millionths of a CPU of a text such as `0.5`, as `opts.ParseCPUs`: what is finer is refused.
pub(crate) fn nano_cpus(text: &str) -> Option<i64> {
    let (sign, number) = text.strip_prefix('-').map_or((1, text), |number| (-1, number));
    let fraction = number.split_once('.').map_or("", |(_, fraction)| fraction);
    let is_exact = fraction.trim_end_matches('0').len() <= 9;
    let digits = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let nano = scaled(number, 1_000_000_000).filter(|_| is_exact && digits)?;
    i64::try_from(sign * nano).ok()
}

/// The words of a command line, as `github.com/google/shlex`; `None` where a quote is not closed.
pub(crate) fn words(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            ' ' | '\t' | '\r' | '\n' => words.extend(word.take()),
            '#' if word.is_none() => {
                // A comment goes on until the line ends.
                letters.by_ref().find(|letter| *letter == '\n');
            }
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match letters.next()? {
                        '\'' => break,
                        letter => word.push(letter),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match letters.next()? {
                        '"' => break,
                        '\\' => word.push(letters.next()?),
                        letter => word.push(letter),
                    }
                }
            }
            '\\' => word.get_or_insert_default().push(letters.next()?),
            letter => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_go_s() {
        for (text, expected) in [
            ("1m30s", Some(90_000_000_000)),
            ("1.5s", Some(1_500_000_000)),
            (".5h", Some(1_800_000_000_000)),
            ("-1ms", Some(-1_000_000)),
            ("0", Some(0)),
            ("10", None),
            ("", None),
            ("s", None),
            (".s", None),
            ("1.2.3s", None),
            ("9999999999999999999999h", None),
            ("3000000h", None),
            ("1d", None),
        ] {
            assert_eq!(duration(text), expected, "{text}");
        }
    }

    #[test]
    fn sizes_are_docker_s() {
        for (text, expected) in [
            ("64m", Some(64 << 20)),
            ("1.5G", Some(3 << 29)),
            ("10", Some(10)),
            ("10b", Some(10)),
            ("2 KiB", Some(2048)),
            ("2kb", Some(2048)),
            ("2kbb", None),
            ("m", None),
            ("", None),
            ("9999999999999999y", None),
        ] {
            assert_eq!(bytes(text), expected, "{text}");
        }
        assert_eq!(nano_cpus("0.5"), Some(500_000_000));
        assert_eq!(nano_cpus("0.00000000001"), None);
        assert_eq!(nano_cpus("half"), None);
    }

    #[test]
    fn command_lines_are_split_as_a_shell_does() {
        let split = |text: &str| words(text).map(|words| words.join("|"));
        assert_eq!(
            split(r#"sh -c "echo 'a b' \"c\"" d\ e 'f\g' # no"#).as_deref(),
            Some(r#"sh|-c|echo 'a b' "c"|d e|f\g"#)
        );
        assert_eq!(split("a#b ''").as_deref(), Some("a#b|"));
        assert_eq!(split("'open"), None);
        assert_eq!(split("\"open"), None);
        assert_eq!(words("").map(|words| words.len()), Some(0));
    }
}
