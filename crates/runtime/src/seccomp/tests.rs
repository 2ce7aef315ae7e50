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
            0x06 if value == libc::SECCOMP_RET_KILL_THREAD => return Action::KillThread,
            0x06 if value == libc::SECCOMP_RET_TRAP => return Action::Trap,
            0x06 if value == libc::SECCOMP_RET_LOG => return Action::Log,
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

/// What a user's policy gives for `mkdir`, whose arguments it may look at.
fn custom(rule: &str, arguments: [u64; 6]) -> Action {
    let text = format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{rule}]}}"#);
    let (policy, architectures) = read(&text, CapabilitySet::DOCKER_DEFAULT).expect(rule);
    let programme = compile(&policy, CapabilitySet::DOCKER_DEFAULT, &architectures);
    let own = Architecture::NATIVE[0];
    run(&programme, own, numbers::number(own, "mkdir").expect("every architecture has it"), arguments)
}

#[test]
fn a_user_s_policy_is_read_as_docker_reads_it() {
    let refused = Action::Errno(13);
    let of = |rest: &str| format!(r#"{{"names":["mkdir"],"action":"SCMP_ACT_ERRNO","errnoRet":13{rest}}}"#);
    assert_eq!(custom(&of(""), [0; 6]), refused);
    for (rest, expected) in [
        (r#","includes":{"caps":["CAP_SYS_ADMIN"]}"#, Action::Allow),
        (r#","includes":{"caps":["CAP_CHOWN"],"minKernel":"4.8"}"#, refused),
        (r#","includes":{"minKernel":"999.0"}"#, Action::Allow),
        (r#","includes":{"arches":["s390"]}"#, Action::Allow),
        (r#","excludes":{"caps":["CAP_CHOWN"]}"#, Action::Allow),
        (r#","excludes":{"caps":["CAP_SYS_ADMIN"],"minKernel":"999.0"}"#, refused),
    ] {
        assert_eq!(custom(&of(rest), [0; 6]), expected, "{rest}");
    }
    for (action, expected) in [
        ("SCMP_ACT_KILL", Action::KillThread),
        ("SCMP_ACT_KILL_PROCESS", Action::Kill),
        ("SCMP_ACT_TRAP", Action::Trap),
        ("SCMP_ACT_LOG", Action::Log),
        ("SCMP_ACT_ERRNO", REFUSED),
    ] {
        assert_eq!(custom(&format!(r#"{{"name":"mkdir","action":"{action}"}}"#), [0; 6]), expected);
    }
}

/// Every comparison of 64 bits, around numbers whose halves matter.
#[test]
fn comparisons_are_of_whole_arguments() {
    let numbers: [u64; 9] =
        [0, 1, 7, u32::MAX as u64, 1 << 32, (1 << 32) + 7, (7 << 32) + 1, u64::MAX - 1, u64::MAX];
    type Holds = fn(u64, u64) -> bool;
    let compare: [(&str, Holds); 6] = [
        ("NE", |it, than| it != than),
        ("EQ", |it, than| it == than),
        ("LT", |it, than| it < than),
        ("LE", |it, than| it <= than),
        ("GT", |it, than| it > than),
        ("GE", |it, than| it >= than),
    ];
    for (name, holds) in compare {
        for than in numbers {
            let rule = format!(
                r#"{{"names":["mkdir"],"action":"SCMP_ACT_TRAP","args":[{{"index":1,"value":{than},"op":"SCMP_CMP_{name}"}}]}}"#
            );
            for it in numbers {
                let expected = if holds(it, than) { Action::Trap } else { Action::Allow };
                assert_eq!(custom(&rule, [0, it, 0, 0, 0, 0]), expected, "{it} {name} {than}");
            }
        }
    }
    let argument =
        |index: u8, value: u64| format!(r#"{{"index":{index},"value":{value},"op":"SCMP_CMP_NE"}}"#);
    let both = |first: String, second: String| {
        format!(r#"{{"names":["mkdir"],"action":"SCMP_ACT_TRAP","args":[{first},{second}]}}"#)
    };
    // Two arguments: both must hold. One twice: either.
    let two = both(argument(0, 1), argument(1, 2));
    assert_eq!(custom(&two, [0, 0, 0, 0, 0, 0]), Action::Trap);
    assert_eq!(custom(&two, [0, 2, 0, 0, 0, 0]), Action::Allow);
    assert_eq!(custom(&both(argument(0, 1), argument(0, 2)), [1, 0, 0, 0, 0, 0]), Action::Trap);
}

#[test]
fn a_policy_that_makes_no_sense_is_refused() {
    for (text, named) in [
        ("", "decoding seccomp profile failed"),
        ("{}", "unknown action \"\""),
        (r#"{"defaultAction":"SCMP_ACT_TRACE"}"#, "SCMP_ACT_TRACE is not built yet"),
        (r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/x"}"#, "listenerPath is not built yet"),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"a","names":["b"],"action":"SCMP_ACT_LOG"}]}"#,
            "both 'name' and 'names'",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],"archMap":[{}]}"#,
            "both 'architectures' and 'archMap'",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"a","action":"SCMP_ACT_LOG","args":[{"index":6,"op":"SCMP_CMP_EQ"}]}]}"#,
            "argument 6",
        ),
    ] {
        let error = read(text, CapabilitySet::EMPTY).map(|_| ()).expect_err(text).to_string();
        assert!(error.contains(named), "{text}: {error}");
    }
}
