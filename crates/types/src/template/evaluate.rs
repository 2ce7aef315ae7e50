//! What a template's parts give for one task.

use std::collections::BTreeMap;

use super::parse::{Part, Pipe, Word};
use super::{Context, TemplateError, failed};

/// What a word or a command stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Value<'a> {
    Text(String),
    Number(i64),
    Truth(bool),
    Labels(&'a BTreeMap<String, String>),
    /// A group of fields: `.Service`.
    Group,
}

impl Value<'_> {
    /// Go's rule for `if`, `and`, `or` and `not`.
    fn holds(&self) -> bool {
        match self {
            Value::Text(text) => !text.is_empty(),
            Value::Number(number) => *number != 0,
            Value::Truth(truth) => *truth,
            Value::Labels(labels) => !labels.is_empty(),
            Value::Group => true,
        }
    }

    /// As Go prints it.
    fn print(&self) -> Result<String, TemplateError> {
        match self {
            Value::Text(text) => Ok(text.clone()),
            Value::Number(number) => Ok(number.to_string()),
            Value::Truth(truth) => Ok(truth.to_string()),
            Value::Labels(labels) => {
                let entries: Vec<String> =
                    labels.iter().map(|(name, value)| format!("{name}:{value}")).collect();
                Ok(format!("map[{}]", entries.join(" ")))
            }
            Value::Group => failed("a group of fields cannot be printed"),
        }
    }
}

/// What the parts give, up to `limit` bytes.
pub(super) fn evaluate(parts: &[Part], context: &Context<'_>, limit: usize) -> Result<String, TemplateError> {
    let mut out = String::new();
    write(parts, context, limit, &mut out)?;
    Ok(out)
}

fn write(parts: &[Part], context: &Context<'_>, limit: usize, out: &mut String) -> Result<(), TemplateError> {
    for part in parts {
        match part {
            Part::Text(text) => out.push_str(text),
            Part::Output(words) => out.push_str(&pipe(words, context, limit)?.print()?),
            Part::If { branches, otherwise } => {
                let mut chosen = otherwise;
                for (condition, then) in branches {
                    if pipe(condition, context, limit)?.holds() {
                        chosen = then;
                        break;
                    }
                }
                write(chosen, context, limit, out)?;
            }
        }
        if out.len() > limit {
            return too_long(limit);
        }
    }
    Ok(())
}

fn too_long<T>(limit: usize) -> Result<T, TemplateError> {
    failed(format!("it becomes more than {limit} bytes"))
}

fn pipe<'a>(pipe: &Pipe, context: &Context<'a>, limit: usize) -> Result<Value<'a>, TemplateError> {
    let mut given = None;
    for command in pipe {
        given = Some(run(command, given, context, limit)?);
    }
    given.map_or_else(|| failed("missing value for command"), Ok)
}

fn run<'a>(
    command: &[Word],
    given: Option<Value<'a>>,
    context: &Context<'a>,
    limit: usize,
) -> Result<Value<'a>, TemplateError> {
    let Some((first, rest)) = command.split_first() else { return failed("missing value for command") };
    let value = |word: &Word| match word {
        Word::Field(path) => field(path, context),
        Word::Text(text) => Ok(Value::Text(text.clone())),
        Word::Number(number) => Ok(Value::Number(*number)),
        Word::Truth(truth) => Ok(Value::Truth(*truth)),
        Word::Pipe(inner) => pipe(inner, context, limit),
        Word::Function(name) => call(name, &[]),
    };
    let Word::Function(name) = first else {
        let only = value(first)?;
        return if rest.is_empty() && given.is_none() {
            Ok(only)
        } else {
            failed(format!("can't give argument to non-function {first:?}"))
        };
    };
    let (mut arguments, mut size) = (Vec::new(), 0);
    for argument in rest.iter().map(value).chain(given.map(Ok)) {
        let argument = argument?;
        size += if let Value::Text(text) = &argument { text.len() } else { 0 };
        if size > limit {
            return too_long(limit);
        }
        arguments.push(argument);
    }
    call(name, &arguments)
}

fn field<'a>(path: &[String], context: &Context<'a>) -> Result<Value<'a>, TemplateError> {
    let names: Vec<&str> = path.iter().map(String::as_str).collect();
    let text = |text: &str| Ok(Value::Text(text.to_owned()));
    match names.as_slice() {
        [] | ["Service"] | ["Node"] | ["Node", "Platform"] | ["Task"] => Ok(Value::Group),
        ["Service", "ID"] => text(context.service_id),
        ["Service", "Name"] => text(context.service_name),
        ["Service", "Labels"] => Ok(Value::Labels(context.service_labels)),
        // As SwarmKit's `missingkey=error`.
        ["Service", "Labels", key] => match context.service_labels.get(*key) {
            Some(value) => text(value),
            None => failed(format!("map has no entry for key {key:?}")),
        },
        ["Node", "ID"] => text(context.node_id),
        ["Node", "Hostname"] => text(context.node_hostname),
        ["Node", "Platform", "Architecture"] => text(context.node_architecture),
        ["Node", "Platform", "OS"] => text(context.node_os),
        ["Task", "ID"] => text(context.task_id),
        ["Task", "Name"] => text(context.task_name),
        ["Task", "Slot"] => text(context.task_slot),
        names => failed(format!("can't evaluate field .{}", names.join("."))),
    }
}

fn call<'a>(name: &str, arguments: &[Value<'a>]) -> Result<Value<'a>, TemplateError> {
    let wrong = || failed(format!("wrong number or type of args for {name}"));
    let print = |values: &[Value<'_>]| values.iter().map(Value::print).collect::<Result<Vec<_>, _>>();
    match (name, arguments) {
        ("print", all) => Ok(Value::Text(print_all(all)?)),
        ("println", all) => Ok(Value::Text(format!("{}\n", print(all)?.join(" ")))),
        ("printf", [Value::Text(format), rest @ ..]) => printf(format, rest).map(Value::Text),
        // The first is what goes between the others. SwarmKit's own.
        ("join", [Value::Text(between), rest @ ..]) => Ok(Value::Text(print(rest)?.join(between))),
        // A label that is missing is empty here, as in Go.
        ("index", [Value::Labels(labels), Value::Text(key)]) => {
            Ok(Value::Text(labels.get(key).cloned().unwrap_or_default()))
        }
        ("len", [Value::Text(text)]) => Ok(Value::Number(text.len() as i64)),
        ("len", [Value::Labels(labels)]) => Ok(Value::Number(labels.len() as i64)),
        ("not", [value]) => Ok(Value::Truth(!value.holds())),
        ("eq", [first, rest @ ..]) if !rest.is_empty() => Ok(Value::Truth(rest.contains(first))),
        ("ne", [first, second]) => Ok(Value::Truth(first != second)),
        ("and", [.., last]) => Ok(arguments.iter().find(|value| !value.holds()).unwrap_or(last).clone()),
        ("or", [.., last]) => Ok(arguments.iter().find(|value| value.holds()).unwrap_or(last).clone()),
        ("printf" | "join" | "index" | "len" | "not" | "eq" | "ne" | "and" | "or", _) => wrong(),
        _ => failed(format!("function {name:?} not defined")),
    }
}

/// As Go's `Sprint`: a space between two of which neither is a text.
fn print_all(values: &[Value<'_>]) -> Result<String, TemplateError> {
    let mut out = String::new();
    for (index, value) in values.iter().enumerate() {
        let before = index.checked_sub(1).and_then(|before| values.get(before));
        let is_text = |value: &Value<'_>| matches!(value, Value::Text(_));
        if before.is_some_and(|before| !is_text(before) && !is_text(value)) {
            out.push(' ');
        }
        out.push_str(&value.print()?);
    }
    Ok(out)
}

fn printf(format: &str, values: &[Value<'_>]) -> Result<String, TemplateError> {
    let (mut out, mut values) = (String::new(), values.iter());
    let mut characters = format.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            out.push(character);
            continue;
        }
        let verb = characters.next();
        if verb == Some('%') {
            out.push('%');
            continue;
        }
        match (verb, values.next()) {
            (Some('v'), Some(value)) => out.push_str(&value.print()?),
            (Some('s'), Some(Value::Text(text))) => out.push_str(text),
            (Some('q'), Some(Value::Text(text))) => out.push_str(&format!("{text:?}")),
            (Some('d'), Some(Value::Number(number))) => out.push_str(&number.to_string()),
            (verb, _) => return failed(format!("printf of %{} is not built yet", verb.unwrap_or(' '))),
        }
    }
    if values.next().is_some() { failed("printf has too many arguments") } else { Ok(out) }
}
