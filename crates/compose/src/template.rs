//! `$NAME` and `${NAME:-default}` in values, from the environment of whoever deploys: with the stock client's pattern, the
//! order in which it looks for operators included.

use std::collections::BTreeMap;

use crate::error::{Fault, Position};
use crate::yaml::{Node, Value};

/// What a value must become where variables took part in it: all other text stays text.
#[derive(Clone, Copy)]
enum Cast {
    Integer,
    Float,
    Boolean,
}

/// Where values are cast, by path; `*` is any name, `[]` any item of a list.
const CASTS: &[(&str, Cast)] = &[
    ("services.*.configs.[].mode", Cast::Integer),
    ("services.*.secrets.[].mode", Cast::Integer),
    ("services.*.healthcheck.retries", Cast::Integer),
    ("services.*.healthcheck.disable", Cast::Boolean),
    ("services.*.deploy.replicas", Cast::Integer),
    ("services.*.deploy.update_config.parallelism", Cast::Integer),
    ("services.*.deploy.update_config.max_failure_ratio", Cast::Float),
    ("services.*.deploy.rollback_config.parallelism", Cast::Integer),
    ("services.*.deploy.rollback_config.max_failure_ratio", Cast::Float),
    ("services.*.deploy.restart_policy.max_attempts", Cast::Integer),
    ("services.*.deploy.placement.max_replicas_per_node", Cast::Integer),
    ("services.*.ports.[].target", Cast::Integer),
    ("services.*.ports.[].published", Cast::Integer),
    ("services.*.ulimits.*", Cast::Integer),
    ("services.*.ulimits.*.hard", Cast::Integer),
    ("services.*.ulimits.*.soft", Cast::Integer),
    ("services.*.privileged", Cast::Boolean),
    ("services.*.oom_score_adj", Cast::Integer),
    ("services.*.read_only", Cast::Boolean),
    ("services.*.stdin_open", Cast::Boolean),
    ("services.*.tty", Cast::Boolean),
    ("services.*.volumes.[].read_only", Cast::Boolean),
    ("services.*.volumes.[].volume.nocopy", Cast::Boolean),
    ("networks.*.external", Cast::Boolean),
    ("networks.*.internal", Cast::Boolean),
    ("networks.*.attachable", Cast::Boolean),
    ("volumes.*.external", Cast::Boolean),
    ("secrets.*.external", Cast::Boolean),
    ("configs.*.external", Cast::Boolean),
];

/// The most bytes that one value may grow to: variables may be as long as the machine lets them.
const MAX_BYTES: usize = 1 << 20;

/// Fills in the variables of every value.
pub(crate) fn interpolate(
    node: &mut Node,
    path: &str,
    environment: &BTreeMap<String, String>,
) -> Result<(), Fault> {
    let below = |part: &str| if path.is_empty() { part.to_owned() } else { format!("{path}.{part}") };
    match &mut node.value {
        Value::Text(text) if text.contains('$') => {
            let filled = fill(text, environment).map_err(|problem| fault(node.at, path, &problem))?;
            node.value = cast(filled, path).map_err(|problem| {
                Fault::at(
                    node.at,
                    format!("error while interpolating {path}: failed to cast to expected type: {problem}"),
                )
            })?;
            Ok(())
        }
        Value::List(list) => {
            let path = below("[]");
            list.iter_mut().try_for_each(|node| interpolate(node, &path, environment))
        }
        Value::Mapping(entries) => {
            entries.iter_mut().try_for_each(|(key, node)| interpolate(node, &below(key), environment))
        }
        Value::Null | Value::Boolean(_) | Value::Integer(_) | Value::Float(_) | Value::Text(_) => Ok(()),
    }
}

enum Problem {
    Malformed(String),
    Missing { name: String, message: String },
    TooLong,
}

fn fault(at: Position, path: &str, problem: &Problem) -> Fault {
    let message = match problem {
        Problem::Malformed(text) => format!(
            "invalid interpolation format for {path}: {text:?}; you may need to escape any $ with another $"
        ),
        Problem::Missing { name, message } => {
            format!(
                "error while interpolating {path}: required variable {name} is missing a value: {message}"
            )
        }
        Problem::TooLong => format!("error while interpolating {path}: more than {MAX_BYTES} bytes"),
    };
    Fault::at(at, message)
}

/// Fills in the variables of a text.
fn fill(text: &str, environment: &BTreeMap<String, String>) -> Result<String, Problem> {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        filled.push_str(before);
        if let Some(left) = after.strip_prefix('$') {
            filled.push('$');
            rest = left;
            continue;
        }
        let malformed = || Problem::Malformed(text.to_owned());
        let (expression, left) = match after.strip_prefix('{') {
            Some(inside) => {
                let (expression, left) = expression(inside).ok_or_else(malformed)?;
                (expression, left.strip_prefix('}').ok_or_else(malformed)?)
            }
            None => expression(after).ok_or_else(malformed)?,
        };
        filled.push_str(&value(expression, environment)?);
        if filled.len() > MAX_BYTES {
            return Err(Problem::TooLong);
        }
        rest = left;
    }
    filled.push_str(rest);
    Ok(filled)
}

/// A name, perhaps with an operator and all that follows up to a brace, braces around it or not; and what is left.
fn expression(text: &str) -> Option<(&str, &str)> {
    let ends =
        text.find(|letter: char| letter != '_' && !letter.is_ascii_alphanumeric()).unwrap_or(text.len());
    if ends == 0 || text.starts_with(|first: char| first.is_ascii_digit()) {
        return None;
    }
    let after = &text[ends..];
    let operator = after.strip_prefix(':').unwrap_or(after);
    let ends = if operator.starts_with(['-', '?']) { text.find('}').unwrap_or(text.len()) } else { ends };
    Some(text.split_at(ends))
}

/// What an expression stands for. The stock client looks for `:-`, `-`, `:?` and `?` in this order, anywhere.
fn value(expression: &str, environment: &BTreeMap<String, String>) -> Result<String, Problem> {
    let known = |name: &str| environment.get(name).cloned();
    if let Some((name, default)) = expression.split_once(":-") {
        return Ok(known(name).filter(|value| !value.is_empty()).unwrap_or_else(|| default.to_owned()));
    }
    if let Some((name, default)) = expression.split_once('-') {
        return Ok(known(name).unwrap_or_else(|| default.to_owned()));
    }
    let missing =
        |name: &str, message: &str| Problem::Missing { name: name.to_owned(), message: message.to_owned() };
    if let Some((name, message)) = expression.split_once(":?") {
        return known(name).filter(|value| !value.is_empty()).ok_or_else(|| missing(name, message));
    }
    if let Some((name, message)) = expression.split_once('?') {
        return known(name).ok_or_else(|| missing(name, message));
    }
    Ok(known(expression).unwrap_or_default())
}

fn cast(text: String, path: &str) -> Result<Value, String> {
    let fits = |pattern: &str| {
        let (mut wanted, mut parts) = (pattern.split('.'), path.split('.'));
        loop {
            match (wanted.next(), parts.next()) {
                (None, None) => return true,
                (Some(wanted), Some(part)) if wanted == "*" || wanted == part => {}
                _ => return false,
            }
        }
    };
    match CASTS.iter().find(|(pattern, _)| fits(pattern)).map(|(_, cast)| cast) {
        None => Ok(Value::Text(text)),
        Some(Cast::Integer) => {
            text.parse().map(Value::Integer).map_err(|_| format!("{text:?} is not an integer"))
        }
        Some(Cast::Float) => text.parse().map(Value::Float).map_err(|_| format!("{text:?} is not a number")),
        Some(Cast::Boolean) => match text.to_ascii_lowercase().as_str() {
            "y" | "yes" | "true" | "on" => Ok(Value::Boolean(true)),
            "n" | "no" | "false" | "off" => Ok(Value::Boolean(false)),
            _ => Err(format!("invalid boolean: {text}")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str) -> String {
        let environment =
            [("A", "1"), ("EMPTY", "")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        match fill(text, &environment.into()) {
            Ok(text) => text,
            Err(Problem::Malformed(_)) => "malformed".to_owned(),
            Err(Problem::Missing { name, message }) => format!("missing {name}: {message}"),
            Err(Problem::TooLong) => "too long".to_owned(),
        }
    }

    #[test]
    fn variables_are_filled_in_as_the_stock_client_does() {
        for (text, expected) in [
            ("a $A ${A} $$A $$$A", "a 1 1 $A $1"),
            ("$NONE.${NONE}", "."),
            ("${NONE:-x y}${EMPTY:-z}${A:-q}", "x yz1"),
            ("${NONE-x}[${EMPTY-z}]", "x[]"),
            ("${A:?no}${EMPTY?no}", "1"),
            ("${EMPTY:?not set}", "missing EMPTY: not set"),
            ("${NONE?not set}", "missing NONE: not set"),
            ("$A-x} y", "1} y"),
            ("${A", "malformed"),
            ("${}", "malformed"),
            ("$1", "malformed"),
            ("${A!x}", "malformed"),
            ("a$", "malformed"),
            ("", ""),
        ] {
            assert_eq!(filled(text), expected, "{text}");
        }
    }

    #[test]
    fn variables_become_numbers_where_numbers_are_wanted() {
        assert_eq!(cast("3".to_owned(), "services.web.deploy.replicas"), Ok(Value::Integer(3)));
        assert_eq!(cast("On".to_owned(), "services.web.tty"), Ok(Value::Boolean(true)));
        assert_eq!(cast("3".to_owned(), "services.web.image"), Ok(Value::Text("3".to_owned())));
        assert!(cast("many".to_owned(), "services.web.deploy.replicas").is_err());
    }
}
