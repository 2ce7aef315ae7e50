use super::*;
use crate::sys::Instruction;

/// What the programme gives for a call, by a small interpreter of classic BPF.
fn run(programme: &[Instruction], architecture: Architecture, number: u32, arguments: [u64; 6]) -> Action {
    let word = |offset: u32| match offset {
        0 => number,
        4 => architecture.audit(),
        _ => {
            let argument = arguments[(offset as usize - 16) / 8];
            if offset.is_multiple_of(8) { argument as u32 } else { (argument >> 32) as u32 }
        }
    };
    let (mut accumulator, mut at) = (0, 0);
    loop {
        let Instruction { code, jump_true, jump_false, value } = programme[at];
        at += 1;
        let branch = |holds: bool| usize::from(if holds { jump_true } else { jump_false });
        match code {
            0x20 => accumulator = word(value),
            0x54 => accumulator &= value,
            0x05 => at += value as usize,
            0x15 => at += branch(accumulator == value),
            0x35 => at += branch(accumulator >= value),
            0x06 if value == libc::SECCOMP_RET_ALLOW => return Action::Allow,
            0x06 if value == libc::SECCOMP_RET_KILL_PROCESS => return Action::Kill,
            0x06 => return Action::Errno(value as u16),
            _ => panic!("unknown instruction {code:#x}"),
        }
    }
}

const ALL: [Architecture; 3] = [Architecture::X86_64, Architecture::X86, Architecture::X32];
const REFUSED: Action = Action::Errno(libc::EPERM as u16);
const UNKNOWN: Action = Action::Errno(libc::ENOSYS as u16);

/// What Docker's policy gives for a named call.
fn check(capabilities: CapabilitySet, name: &str, first: u64, expected: Action) {
    let programme = compile(&docker_default(), capabilities, &ALL);
    for architecture in ALL {
        let Some(number) = numbers::number(architecture, name) else { continue };
        let number = if architecture == Architecture::X32 { number | 0x4000_0000 } else { number };
        let given = run(&programme, architecture, number, [first, 0, 0, 0, 0, 0]);
        assert_eq!(given, expected, "{name} on {architecture:?}");
    }
}

#[test]
fn every_named_call_gets_its_action() {
    let docker = CapabilitySet::DOCKER_DEFAULT;
    for name in ["read", "write", "accept4", "execve", "futex", "statx", "rseq", "faccessat2", "vfork"] {
        check(docker, name, 0, Action::Allow);
    }
    for name in
        ["mount", "umount2", "unshare", "setns", "keyctl", "add_key", "kexec_load", "bpf", "init_module"]
    {
        check(docker, name, 0, REFUSED);
        check(docker, name, u64::MAX, REFUSED);
    }
    for name in ["io_uring_setup", "userfaultfd", "open_by_handle_at", "reboot", "swapon", "nfsservctl"] {
        check(docker, name, 0, REFUSED);
    }
    check(docker, "clone3", 0, UNKNOWN);
    check(docker, "chroot", 0, Action::Allow);
}

#[test]
fn arguments_decide() {
    let docker = CapabilitySet::DOCKER_DEFAULT;
    check(docker, "clone", libc::SIGCHLD as u64, Action::Allow);
    check(docker, "clone", libc::CLONE_NEWUSER as u64, REFUSED);
    check(docker, "clone", (libc::CLONE_NEWNS | libc::SIGCHLD) as u64, REFUSED);
    check(docker, "personality", 0, Action::Allow);
    check(docker, "personality", 0x2_0008, Action::Allow);
    check(docker, "personality", 0xffff_ffff, Action::Allow);
    check(docker, "personality", 0x4_0000, REFUSED);
    check(docker, "personality", 1 << 32, REFUSED);
    check(docker, "socket", libc::AF_INET as u64, Action::Allow);
    check(docker, "socket", libc::AF_VSOCK as u64, REFUSED);
    check(docker, "socket", 1 << 32 | libc::AF_VSOCK as u64, REFUSED);
}

#[test]
fn capabilities_open_calls() {
    let mut admin = CapabilitySet::DOCKER_DEFAULT;
    admin.insert(Capability::SYS_ADMIN);
    for name in ["mount", "clone", "clone3", "unshare", "setns"] {
        check(admin, name, libc::CLONE_NEWUSER as u64, Action::Allow);
    }
    check(admin, "reboot", 0, REFUSED);
    check(CapabilitySet::EMPTY, "chroot", 0, REFUSED);
    check(CapabilitySet::of(&[Capability::SYSLOG]), "syslog", 0, Action::Allow);
    check(CapabilitySet::of(&[Capability::BPF]), "bpf", 0, Action::Allow);
}

#[test]
fn calls_newer_than_the_policy_do_not_exist_and_foreign_ones_kill() {
    let programme = compile(&docker_default(), CapabilitySet::DOCKER_DEFAULT, &ALL);
    for (architecture, number) in
        [(Architecture::X86_64, 1000), (Architecture::X86, 1000), (Architecture::X32, 0x4000_0000 + 1000)]
    {
        assert_eq!(run(&programme, architecture, number, [0; 6]), UNKNOWN, "{architecture:?}");
    }
    assert_eq!(run(&programme, Architecture::Aarch64, 64, [0; 6]), Action::Kill);
    assert!(programme.len() < 1200, "{} instructions", programme.len());
}

/// Every call of every architecture, against the rules read one by one.
#[test]
fn the_search_agrees_with_the_rules() {
    let policy = docker_default();
    let capabilities = CapabilitySet::DOCKER_DEFAULT;
    let programme = compile(&policy, capabilities, &ALL);
    for rule in policy.rules_for(capabilities).filter(|rule| rule.conditions.is_empty()) {
        for name in rule.names.split_whitespace() {
            check(capabilities, name, 0, rule.action);
        }
    }
    let allowed = (0..1024)
        .filter(|number| run(&programme, Architecture::X86_64, *number, [0; 6]) == Action::Allow)
        .count();
    let named = policy
        .rules_for(capabilities)
        .filter(|rule| rule.action == Action::Allow)
        .flat_map(|rule| rule.names.split_whitespace())
        .filter_map(|name| numbers::number(Architecture::X86_64, name))
        .collect::<std::collections::BTreeSet<_>>();
    assert_eq!(allowed, named.len());
}
