//! Reading a user's policy: Docker's profiles, JSON, whose words are libseccomp's.

use std::borrow::Cow;

use serde::Deserialize;

use super::{Action, Architecture, Comparison, Condition, Policy, Rule, When, Word, WordTest};
use crate::capability::CapabilitySet;

/// The most alternatives that one rule's comparisons may become.
const ALTERNATIVES_LIMIT: usize = 256;

/// Why a policy cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// It is no JSON, or not of this shape.
    #[error("decoding seccomp profile failed: {0}")]
    Malformed(String),
    /// It says something that makes no sense.
    #[error("invalid seccomp profile: {0}")]
    Invalid(String),
    /// It asks for what Skep cannot do.
    #[error("seccomp profile: {0} is not built yet")]
    NotBuilt(String),
}

fn invalid<T>(why: impl Into<String>) -> Result<T, ProfileError> {
    Err(ProfileError::Invalid(why.into()))
}

/// The file. Fields that say nothing of what is allowed (comments, flags of libseccomp) are passed over.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct File {
    default_action: String,
    default_errno_ret: Option<u32>,
    architectures: Option<Vec<String>>,
    arch_map: Option<Vec<ArchMap>>,
    listener_path: String,
    syscalls: Option<Vec<Call>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ArchMap {
    architecture: String,
    sub_architectures: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Call {
    name: String,
    names: Option<Vec<String>>,
    action: String,
    errno_ret: Option<u32>,
    args: Option<Vec<Argument>>,
    includes: Option<Filter>,
    excludes: Option<Filter>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Argument {
    index: u32,
    value: u64,
    value_two: u64,
    op: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Filter {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

/// Reads a policy for a container with these capabilities, and the architectures that it speaks of.
pub fn read(text: &str, capabilities: CapabilitySet) -> Result<(Policy, Vec<Architecture>), ProfileError> {
    let file: File =
        serde_json::from_str(text).map_err(|error| ProfileError::Malformed(error.to_string()))?;
    if !file.listener_path.is_empty() {
        return Err(ProfileError::NotBuilt("listenerPath".to_owned()));
    }
    let default = action(&file.default_action, file.default_errno_ret)?;
    let mut rules = Vec::new();
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    for call in file.syscalls.iter().flatten() {
        if applies(call, capabilities, &kernel)? {
            rules.extend(call_rules(call, default)?);
        }
    }
    Ok((Policy { default, rules: Cow::Owned(rules) }, architectures(&file)?))
}

/// Those of the file that programs can run as here; our own alone where it names none, as libseccomp's.
fn architectures(file: &File) -> Result<Vec<Architecture>, ProfileError> {
    let listed = file.architectures.iter().flatten();
    let mapped = file.arch_map.iter().flatten();
    if listed.clone().next().is_some() && mapped.clone().next().is_some() {
        return invalid(
            "both 'architectures' and 'archMap' are specified in the seccomp profile, use only one",
        );
    }
    let native = Architecture::NATIVE[0];
    let own = mapped.filter(|map| named(&map.architecture) == Some(native));
    let names = listed.chain(own.flat_map(|map| map.sub_architectures.iter().flatten()));
    let mut found: Vec<Architecture> =
        [native].into_iter().chain(names.filter_map(|name| named(name))).collect();
    found.retain(|architecture| Architecture::NATIVE.contains(architecture));
    // In the order of the table: that of the numbers that mark them.
    found.sort_by_key(|one| Architecture::NATIVE.iter().position(|other| other == one));
    found.dedup();
    Ok(found)
}

fn named(name: &str) -> Option<Architecture> {
    match name {
        "SCMP_ARCH_X86_64" => Some(Architecture::X86_64),
        "SCMP_ARCH_X86" => Some(Architecture::X86),
        "SCMP_ARCH_X32" => Some(Architecture::X32),
        "SCMP_ARCH_AARCH64" => Some(Architecture::Aarch64),
        _ => None,
    }
}

fn action(name: &str, errno: Option<u32>) -> Result<Action, ProfileError> {
    match name {
        "SCMP_ACT_ALLOW" => Ok(Action::Allow),
        "SCMP_ACT_ERRNO" => match u16::try_from(errno.unwrap_or(libc::EPERM as u32)) {
            Ok(number) if number < 4096 => Ok(Action::Errno(number)),
            _ => invalid("errnoRet is no error number"),
        },
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Ok(Action::KillThread),
        "SCMP_ACT_KILL_PROCESS" => Ok(Action::Kill),
        "SCMP_ACT_TRAP" => Ok(Action::Trap),
        "SCMP_ACT_LOG" => Ok(Action::Log),
        "SCMP_ACT_TRACE" | "SCMP_ACT_NOTIFY" => Err(ProfileError::NotBuilt(name.to_owned())),
        _ => invalid(format!("unknown action {name:?}")),
    }
}

/// Whether a rule is for this container, by Docker's rules.
fn applies(call: &Call, capabilities: CapabilitySet, kernel: &str) -> Result<bool, ProfileError> {
    let has = |name: &String| name.parse().is_ok_and(|capability| capabilities.contains(capability));
    let own = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
    if let Some(Filter { caps, arches, min_kernel }) = &call.excludes {
        let is_newer = min_kernel.as_deref().map(|least| at_least(kernel, least)).transpose()?;
        if caps.iter().flatten().any(has) || arches.iter().flatten().any(|arch| arch == own) {
            return Ok(false);
        }
        if is_newer == Some(true) {
            return Ok(false);
        }
    }
    let Some(Filter { caps, arches, min_kernel }) = &call.includes else { return Ok(true) };
    let is_newer = min_kernel.as_deref().map(|least| at_least(kernel, least)).transpose()?;
    let arches: Vec<_> = arches.iter().flatten().collect();
    Ok(caps.iter().flatten().all(has)
        && (arches.is_empty() || arches.iter().any(|arch| *arch == own))
        && is_newer != Some(false))
}

/// Compares versions of kernels by their first two numbers, which is all that profiles name.
fn at_least(kernel: &str, least: &str) -> Result<bool, ProfileError> {
    let numbers = |text: &str| {
        let mut parts = text.split(|it: char| !it.is_ascii_digit()).map(str::parse::<u32>);
        Some((parts.next()?.ok()?, parts.next()?.ok()?))
    };
    match (numbers(kernel), numbers(least)) {
        (Some(kernel), Some(least)) => Ok(kernel >= least),
        (_, None) => invalid(format!("minKernel {least:?} is no version")),
        (None, _) => Ok(true),
    }
}

fn call_rules(call: &Call, default: Action) -> Result<Vec<Rule>, ProfileError> {
    let names: Vec<&str> = call.names.iter().flatten().map(String::as_str).collect();
    let names = match (call.name.as_str(), names.is_empty()) {
        ("", _) => names.join(" "),
        (name, true) => name.to_owned(),
        _ => return invalid("both 'name' and 'names' are specified, use only one"),
    };
    let action = action(&call.action, call.errno_ret)?;
    if action == default {
        // It says what holds anyway; with conditions it must not outweigh others.
        return Ok(Vec::new());
    }
    let rule = |conditions: Vec<Condition>| Rule {
        names: Cow::Owned(names.clone()),
        action,
        conditions: Cow::Owned(conditions),
        when: When::Always,
    };
    let arguments: Vec<&Argument> = call.args.iter().flatten().collect();
    let twice = |argument: &&&Argument| arguments.iter().filter(|it| it.index == argument.index).count() > 1;
    if arguments.iter().any(|argument| twice(&argument)) {
        // As runc: of several comparisons with one argument, each alone decides.
        let each = arguments.iter().map(|argument| comparisons(argument));
        return Ok(each.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().map(rule).collect());
    }
    let mut alternatives: Vec<Vec<Condition>> = vec![Vec::new()];
    for argument in arguments {
        let further = comparisons(argument)?;
        let together = |one: &Vec<Condition>| {
            let one = one.clone();
            further.iter().map(move |more| [one.clone(), more.clone()].concat()).collect::<Vec<_>>()
        };
        alternatives = alternatives.iter().flat_map(together).collect();
        if alternatives.len() > ALTERNATIVES_LIMIT {
            return Err(ProfileError::NotBuilt(format!("a rule with that many comparisons ({names})")));
        }
    }
    Ok(alternatives.into_iter().map(rule).collect())
}

/// A comparison as alternatives, each of conditions that all hold: the filter's machine has words of 32 bits.
fn comparisons(argument: &Argument) -> Result<Vec<Vec<Condition>>, ProfileError> {
    let Argument { index, value, value_two, op } = argument;
    let number = u8::try_from(*index).ok().filter(|number| *number < 6);
    let Some(number) = number else { return invalid(format!("argument {index} of a system call")) };
    let (upper, lower) = ((value >> 32) as u32, *value as u32);
    let on = |comparison| Condition { argument: number, comparison };
    let word = |word, test| on(Comparison::Word(word, test));
    let upper_is = || word(Word::Upper, WordTest::Equal(upper));
    // What is above `number`, in words: none is above the highest.
    let above = |number: u32| number.checked_add(1).map(WordTest::AtLeast);
    let mut alternatives = Vec::new();
    match op.as_str() {
        "SCMP_CMP_EQ" => alternatives.push(vec![on(Comparison::Equal(*value))]),
        "SCMP_CMP_MASKED_EQ" => {
            let (mask, value) = (*value, value & value_two);
            alternatives.push(vec![on(Comparison::Masked { mask, value })]);
        }
        "SCMP_CMP_NE" => {
            alternatives.push(vec![word(Word::Upper, WordTest::NotEqual(upper))]);
            alternatives.push(vec![word(Word::Lower, WordTest::NotEqual(lower))]);
        }
        "SCMP_CMP_GT" | "SCMP_CMP_GE" => {
            alternatives.extend(above(upper).map(|test| vec![word(Word::Upper, test)]));
            let test = if op == "SCMP_CMP_GT" { above(lower) } else { Some(WordTest::AtLeast(lower)) };
            alternatives.extend(test.map(|test| vec![upper_is(), word(Word::Lower, test)]));
        }
        "SCMP_CMP_LT" | "SCMP_CMP_LE" => {
            alternatives.push(vec![word(Word::Upper, WordTest::Below(upper))]);
            let below = if op == "SCMP_CMP_LT" { Some(lower) } else { lower.checked_add(1) };
            alternatives.push(match below {
                Some(below) => vec![upper_is(), word(Word::Lower, WordTest::Below(below))],
                None => vec![upper_is()],
            });
        }
        op => return invalid(format!("unknown comparison {op:?}")),
    }
    Ok(alternatives)
}
