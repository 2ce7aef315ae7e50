//! Which devices a container may use: Docker's default list and those that it was given, as v1's text and as v2's eBPF
//! programme.

use std::fmt;
use std::io;
use std::os::fd::AsRawFd;

use crate::spec::DeviceNode;
use crate::sys;

const MKNOD: u8 = 1;
const READ: u8 = 2;
const WRITE: u8 = 4;

/// Devices that are allowed.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    block: bool,
    /// `None` is every one.
    major: Option<u32>,
    minor: Option<u32>,
    access: u8,
}

const fn character(major: u32, minor: Option<u32>) -> Rule {
    Rule { block: false, major: Some(major), minor, access: MKNOD | READ | WRITE }
}

/// Docker's: nodes of any kind can be made, these can be opened; all else is refused.
pub const DOCKER_DEFAULT: [Rule; 11] = [
    Rule { block: false, major: None, minor: None, access: MKNOD },
    Rule { block: true, major: None, minor: None, access: MKNOD },
    character(1, Some(3)), // null
    character(1, Some(5)), // zero
    character(1, Some(7)), // full
    character(1, Some(8)), // random
    character(1, Some(9)), // urandom
    character(5, Some(0)), // tty
    character(5, Some(1)), // console
    character(5, Some(2)), // ptmx
    character(136, None),  // pts
];

/// The rules of a container that was given these devices.
pub fn rules(devices: &[DeviceNode]) -> Vec<Rule> {
    let given = devices.iter().map(|device| {
        let bits = [(device.access.read, READ), (device.access.write, WRITE), (device.access.make, MKNOD)];
        let access = bits.iter().filter(|(has, _)| *has).fold(0, |access, (_, bit)| access | bit);
        Rule { block: device.block, major: Some(device.major), minor: Some(device.minor), access }
    });
    DOCKER_DEFAULT.into_iter().chain(given).collect()
}

impl fmt::Display for Rule {
    /// As v1's devices.allow takes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |number: Option<u32>| number.map_or_else(|| "*".to_owned(), |number| number.to_string());
        write!(f, "{} {}:{} ", if self.block { 'b' } else { 'c' }, number(self.major), number(self.minor))?;
        let letters = [(READ, "r"), (WRITE, "w"), (MKNOD, "m")];
        letters
            .iter()
            .filter(|(bit, _)| self.access & bit != 0)
            .try_for_each(|(_, letter)| f.write_str(letter))
    }
}

/// One eBPF instruction: opcode, registers, offset, immediate (linux/bpf.h).
const fn instruction(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> u64 {
    code as u64
        | (destination as u64) << 8
        | (source as u64) << 12
        | (offset as u16 as u64) << 16
        | (immediate as u32 as u64) << 32
}

const LOAD_WORD: u8 = 0x61;
const MOVE: u8 = 0xb7;
const MOVE_REGISTER: u8 = 0xbf;
const AND: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
const JUMP_NOT_EQUAL: u8 = 0x55;
const EXIT: u8 = 0x95;

/// The programme for these rules. Its argument points to {access << 16 | type, major, minor}; it answers 1 to allow.
fn programme(rules: &[Rule]) -> Vec<u64> {
    let mut code = vec![
        instruction(LOAD_WORD, 2, 1, 0, 0),
        instruction(MOVE_REGISTER, 3, 2, 0, 0),
        instruction(AND, 2, 0, 0, 0xffff),
        instruction(SHIFT_RIGHT, 3, 0, 0, 16),
        instruction(LOAD_WORD, 4, 1, 4, 0),
        instruction(LOAD_WORD, 5, 1, 8, 0),
    ];
    for rule in rules {
        // Each test jumps over the rest of its rule; the last two instructions allow.
        let mut tests = vec![(JUMP_NOT_EQUAL, 2, if rule.block { 1 } else { 2 })];
        tests.extend(rule.major.map(|major| (JUMP_NOT_EQUAL, 4, major as i32)));
        tests.extend(rule.minor.map(|minor| (JUMP_NOT_EQUAL, 5, minor as i32)));
        let beyond = i32::from(!rule.access & (MKNOD | READ | WRITE));
        let mut length = tests.len() + 2;
        let start = code.len();
        if beyond != 0 {
            length += 3;
            code.push(instruction(MOVE_REGISTER, 0, 3, 0, 0));
            code.push(instruction(AND, 0, 0, 0, beyond));
            code.push(instruction(JUMP_NOT_EQUAL, 0, 0, (length - 3) as i16, 0));
        }
        for (operation, register, value) in tests {
            let skip = start + length - code.len() - 1;
            code.push(instruction(operation, register, 0, skip as i16, value));
        }
        code.push(instruction(MOVE, 0, 0, 0, 1));
        code.push(instruction(EXIT, 0, 0, 0, 0));
    }
    code.push(instruction(MOVE, 0, 0, 0, 0));
    code.push(instruction(EXIT, 0, 0, 0, 0));
    code
}

/// Restricts the v2 cgroup whose folder is open.
pub fn attach(folder: &std::fs::File, rules: &[Rule]) -> io::Result<()> {
    const PROG_LOAD: u32 = 5;
    const PROG_ATTACH: u32 = 8;
    const TYPE_CGROUP_DEVICE: u64 = 15;
    const ATTACH_CGROUP_DEVICE: u64 = 6;
    const ALLOW_MULTI: u64 = 2;
    let code = programme(rules);
    let license = c"Apache-2.0";
    // union bpf_attr, for PROG_LOAD: {type, count}, instructions, license, {log level, log size}, log, {version, flags}.
    let load = [
        TYPE_CGROUP_DEVICE | (code.len() as u64) << 32,
        code.as_ptr() as u64,
        license.as_ptr() as u64,
        0,
        0,
        0,
    ];
    let programme = sys::own(sys::bpf(PROG_LOAD, &load)?);
    // For PROG_ATTACH: {target, programme}, {type, flags}.
    let attach = [
        folder.as_raw_fd() as u64 | (programme.as_raw_fd() as u64) << 32,
        ATTACH_CGROUP_DEVICE | ALLOW_MULTI << 32,
    ];
    sys::bpf(PROG_ATTACH, &attach).map(drop)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::spec::DeviceAccess;

    /// What the programme answers, by a small interpreter.
    fn allows(block: bool, major: u32, minor: u32, access: u8) -> bool {
        let code = programme(&DOCKER_DEFAULT);
        let context = [u32::from(access) << 16 | if block { 1 } else { 2 }, major, minor];
        let (mut registers, mut at) = ([0u64; 11], 0);
        loop {
            let word = code[at];
            let (code, to, from) = (word as u8, (word >> 8 & 15) as usize, (word >> 12 & 15) as usize);
            let (offset, immediate) = ((word >> 16) as i16, (word >> 32) as u32);
            at += 1;
            match code {
                LOAD_WORD => registers[to] = u64::from(context[offset as usize / 4]),
                MOVE => registers[to] = u64::from(immediate),
                MOVE_REGISTER => registers[to] = registers[from],
                AND => registers[to] &= u64::from(immediate),
                SHIFT_RIGHT => registers[to] >>= immediate,
                JUMP_NOT_EQUAL if registers[to] != u64::from(immediate) => at += offset as usize,
                JUMP_NOT_EQUAL => {}
                EXIT => return registers[0] == 1,
                _ => panic!("unknown instruction {code:#x}"),
            }
        }
    }

    #[test]
    fn the_programme_follows_the_list() {
        assert!(allows(false, 1, 3, READ | WRITE));
        assert!(allows(false, 136, 77, READ | WRITE | MKNOD));
        assert!(allows(false, 5, 2, READ));
        assert!(!allows(false, 5, 3, READ));
        assert!(!allows(false, 1, 1, READ), "/dev/mem");
        assert!(allows(false, 1, 1, MKNOD));
        assert!(!allows(false, 1, 1, MKNOD | READ));
        assert!(allows(true, 8, 0, MKNOD));
        assert!(!allows(true, 8, 0, READ));
        assert!(!allows(true, 1, 3, READ), "a block device is no character device");
    }

    #[test]
    fn rules_read_as_v1_takes_them() {
        let access = DeviceAccess { read: true, write: false, make: false };
        let (path, mode) = ("disk/one".into(), 0o660);
        let disk = DeviceNode { path, block: true, major: 8, minor: 1, mode, user: 0, group: 6, access };
        let texts: Vec<String> = rules(&[disk]).iter().map(Rule::to_string).collect();
        assert_eq!(texts[..3], ["c *:* m", "b *:* m", "c 1:3 rwm"]);
        assert_eq!(texts[10..], ["c 136:* rwm", "b 8:1 r"]);
    }
}
