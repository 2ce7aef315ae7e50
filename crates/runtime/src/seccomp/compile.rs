//! From a policy to a programme: one binary search over ranges of numbers for each architecture.
//!
//! As runc does, a system call newer than all that the policy names fails with ENOSYS, so that programs fall back;
//! unless the policy allows what it does not name.

use std::collections::BTreeMap;

use super::{Action, Architecture, Comparison, Condition, Policy, Word, WordTest, numbers};
use crate::capability::CapabilitySet;
use crate::sys::Instruction;

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const JUMP: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;
const JUMP_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const JUMP_AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// Offsets in struct seccomp_data.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// The bit that marks x32 in a number (asm/unistd.h).
const X32_BIT: u32 = 0x4000_0000;

const fn instruction(code: u16, jump_true: u8, jump_false: u8, value: u32) -> Instruction {
    Instruction { code, jump_true, jump_false, value }
}

const fn give(action: Action) -> Instruction {
    let value = match action {
        Action::Allow => libc::SECCOMP_RET_ALLOW,
        Action::Errno(number) => libc::SECCOMP_RET_ERRNO | number as u32,
        Action::Kill => libc::SECCOMP_RET_KILL_PROCESS,
        Action::KillThread => libc::SECCOMP_RET_KILL_THREAD,
        Action::Trap => libc::SECCOMP_RET_TRAP,
        Action::Log => libc::SECCOMP_RET_LOG,
    };
    instruction(RETURN, 0, 0, value)
}

/// What becomes of one number: alternatives, tried in order, and what is done when none holds.
#[derive(Clone, Debug, PartialEq)]
struct Verdict {
    alternatives: Vec<(Vec<Condition>, Action)>,
    otherwise: Action,
}

impl Verdict {
    fn plain(action: Action) -> Verdict {
        Verdict { alternatives: Vec::new(), otherwise: action }
    }
}

/// The programme of `policy` for a process with these capabilities, on these architectures.
pub fn compile(
    policy: &Policy,
    capabilities: CapabilitySet,
    architectures: &[Architecture],
) -> Vec<Instruction> {
    let mut programme = vec![instruction(LOAD, 0, 0, ARCHITECTURE)];
    let mut audits: Vec<u32> = architectures.iter().map(|architecture| architecture.audit()).collect();
    audits.dedup();
    audits.sort_unstable();
    audits.dedup();
    for audit in audits {
        let mut part = vec![instruction(LOAD, 0, 0, NUMBER)];
        let of_audit = |architecture: &&Architecture| architecture.audit() == audit;
        part.extend(search(&ranges(policy, capabilities, architectures.iter().filter(of_audit))));
        programme.push(instruction(JUMP_EQUAL, 1, 0, audit));
        programme.push(instruction(JUMP, 0, 0, part.len() as u32));
        programme.append(&mut part);
    }
    programme.push(give(Action::Kill));
    programme
}

/// The first number of each range, with what becomes of all in it. Covers every number.
fn ranges<'a>(
    policy: &Policy,
    capabilities: CapabilitySet,
    architectures: impl Iterator<Item = &'a Architecture>,
) -> Vec<(u32, Verdict)> {
    let newer = Verdict::plain(match policy.default {
        named @ (Action::Allow | Action::Log) => named,
        Action::Errno(_) | Action::Kill | Action::KillThread | Action::Trap => {
            Action::Errno(libc::ENOSYS as u16)
        }
    });
    let mut ranges: Vec<(u32, Verdict)> = Vec::new();
    let mut push = |start: u32, verdict: Verdict| {
        if ranges.last().is_none_or(|(_, last)| *last != verdict) {
            ranges.push((start, verdict));
        }
    };
    for architecture in architectures {
        let base = if *architecture == Architecture::X32 { X32_BIT } else { 0 };
        let verdicts = verdicts(policy, capabilities, *architecture);
        let mut next = 0;
        for (number, verdict) in verdicts {
            if number > next {
                push(base + next, Verdict::plain(policy.default));
            }
            push(base + number, verdict);
            next = number + 1;
        }
        push(base + next, newer.clone());
    }
    ranges
}

fn verdicts(
    policy: &Policy,
    capabilities: CapabilitySet,
    architecture: Architecture,
) -> BTreeMap<u32, Verdict> {
    let mut verdicts: BTreeMap<u32, Verdict> = BTreeMap::new();
    let mut settled: Vec<u32> = Vec::new();
    for rule in policy.rules_for(capabilities) {
        for number in rule.names.split_whitespace().filter_map(|name| numbers::number(architecture, name)) {
            if settled.contains(&number) && !(rule.conditions.is_empty() && rule.action == Action::Allow) {
                continue;
            }
            if rule.conditions.is_empty() {
                settled.push(number);
                verdicts.insert(number, Verdict::plain(rule.action));
            } else {
                let verdict = verdicts.entry(number).or_insert_with(|| Verdict::plain(policy.default));
                verdict.alternatives.push((rule.conditions.to_vec(), rule.action));
            }
        }
    }
    verdicts
}

/// A binary search for the number in the accumulator.
fn search(ranges: &[(u32, Verdict)]) -> Vec<Instruction> {
    let (lower, upper) = ranges.split_at(ranges.len() / 2);
    let [(_, only)] = ranges else {
        let (lower, mut upper_code) = (search(lower), search(upper));
        // A conditional jump reaches 255 instructions; beyond, it hops over a long one.
        let mut code = match u8::try_from(lower.len()) {
            Ok(length) => vec![instruction(JUMP_AT_LEAST, length, 0, upper[0].0)],
            Err(_) => vec![
                instruction(JUMP_AT_LEAST, 0, 1, upper[0].0),
                instruction(JUMP, 0, 0, lower.len() as u32),
            ],
        };
        code.extend(lower);
        code.append(&mut upper_code);
        return code;
    };
    let mut code: Vec<Instruction> =
        only.alternatives.iter().flat_map(|(conditions, action)| alternative(conditions, *action)).collect();
    code.push(give(only.otherwise));
    code
}

/// Code that gives `action` if every condition holds, and falls through if one does not.
fn alternative(conditions: &[Condition], action: Action) -> Vec<Instruction> {
    let mut code = vec![give(action)];
    for condition in conditions.iter().rev() {
        let tests = tests(condition);
        // From the last test back, so that each knows how far the end is.
        for (setup, test, holds_if_true) in tests.into_iter().rev() {
            let skip = u8::try_from(code.len()).expect("a rule has at most six conditions");
            let (jump_true, jump_false) = if holds_if_true { (0, skip) } else { (skip, 0) };
            code.insert(0, Instruction { jump_true, jump_false, ..test });
            for instruction in setup.into_iter().rev() {
                code.insert(0, instruction);
            }
        }
    }
    code
}

/// Loads and a test each, with whether the condition holds when the test is true.
type Test = (Vec<Instruction>, Instruction, bool);

fn tests(condition: &Condition) -> Vec<Test> {
    let lower = ARGUMENTS + 8 * u32::from(condition.argument);
    let (lower, upper) = if cfg!(target_endian = "little") { (lower, lower + 4) } else { (lower + 4, lower) };
    let load = |offset| instruction(LOAD, 0, 0, offset);
    let equal = |value: u64| instruction(JUMP_EQUAL, 0, 0, value as u32);
    match condition.comparison {
        Comparison::Equal(value) => {
            vec![(vec![load(upper)], equal(value >> 32), true), (vec![load(lower)], equal(value), true)]
        }
        Comparison::NotEqualInt(value) => vec![(vec![load(lower)], equal(u64::from(value)), false)],
        Comparison::Masked { mask, value } => {
            let masked = |offset, mask: u64| vec![load(offset), instruction(AND, 0, 0, mask as u32)];
            let mut tests = vec![(masked(lower, mask), equal(value), true)];
            if mask >> 32 != 0 {
                tests.push((masked(upper, mask >> 32), equal(value >> 32), true));
            }
            tests
        }
        Comparison::Word(word, test) => {
            let load = load(if word == Word::Upper { upper } else { lower });
            let at_least = |value| instruction(JUMP_AT_LEAST, 0, 0, value);
            let (test, holds_if_true) = match test {
                WordTest::Equal(value) => (equal(u64::from(value)), true),
                WordTest::NotEqual(value) => (equal(u64::from(value)), false),
                WordTest::AtLeast(value) => (at_least(value), true),
                WordTest::Below(value) => (at_least(value), false),
            };
            vec![(vec![load], test, holds_if_true)]
        }
    }
}
