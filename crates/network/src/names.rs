//! Names of interfaces and sandboxes: which are ours, and which are valid.

use crate::error::LinkError;

/// The kernel's limit for an interface name in bytes, without the terminating zero.
const INTERFACE_NAME_LEN: usize = 15;
/// Docker's ids have 64; a file name could have 255.
const SANDBOX_NAME_LEN: usize = 200;
/// The kernel takes 255; this leaves room in aliases.
const INSTANCE_LEN: usize = 64;

/// How one instance names its interfaces.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    instance: String,
    prefix: String,
}

impl Names {
    pub(crate) fn new(instance: &str) -> Names {
        let prefix = format!("sk{}", digits(hash(&[instance]), 3));
        Names { instance: instance.to_owned(), prefix }
    }

    /// The name of the host's end of a veth pair. The instance's part takes 15 bits, the endpoint's 50: with ten
    /// thousand endpoints on a host, two would share a name once in twenty million hosts.
    pub(crate) fn host_end(&self, sandbox: &str, interface: &str) -> String {
        format!("{}{}", self.prefix, digits(hash(&[&self.instance, sandbox, interface]), 10))
    }

    /// The name of the VXLAN device of a bridge.
    pub(crate) fn overlay(&self, bridge: &str) -> String {
        format!("{}{}", self.prefix, digits(hash(&[&self.instance, "overlay", bridge, "vxlan"]), 10))
    }

    /// The name of a host end whose sandbox is gone and which the kernel will delete, so that a new sandbox can have
    /// the old one's name. No host end in use is named so.
    pub(crate) fn dying_end(&self, index: u32) -> String {
        let mut name = format!("{}~{index:x}", self.prefix);
        name.truncate(INTERFACE_NAME_LEN);
        name
    }

    /// The name of the table that brings a sandbox's questions to their server.
    pub(crate) fn redirection(&self) -> String {
        format!("{}-names", self.instance)
    }

    /// Whether a veth of that name is one of this instance's.
    pub(crate) fn is_host_end(&self, name: &str) -> bool {
        name.len() == INTERFACE_NAME_LEN
            && name.strip_prefix(&self.prefix).is_some_and(|rest| rest.bytes().all(|it| DIGITS.contains(&it)))
    }

    /// What marks a bridge or a VXLAN device as made by this instance; `ip link` shows it.
    pub(crate) fn alias(&self) -> String {
        format!("skep:{}", self.instance)
    }
}

/// Crockford's base 32.
const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

fn digits(mut number: u64, len: usize) -> String {
    let mut text = String::with_capacity(len);
    for _ in 0..len {
        text.push(char::from(DIGITS[(number % 32) as usize]));
        number /= 32;
    }
    text
}

/// FNV-1a over the words and a byte between them that no word has. It must stay the same for ever: a daemon finds by
/// it the interfaces that an older one made.
fn hash(words: &[&str]) -> u64 {
    let bytes = words.iter().flat_map(|word| word.bytes().chain([0xff]));
    let state = bytes.fold(0xcbf2_9ce4_8422_2325, |state: u64, byte| {
        (state ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    // The low bits of FNV are its weakest.
    state ^ (state >> 32)
}

/// Refuses what the kernel would refuse as an interface's name, and what would be read as a format.
pub(crate) fn check_interface(name: &str) -> Result<(), LinkError> {
    let valid = (1..=INTERFACE_NAME_LEN).contains(&name.len())
        && name != "."
        && name != ".."
        && name.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':' | b'%'));
    valid.then_some(()).ok_or_else(|| LinkError::InterfaceName(name.to_owned()))
}

/// Refuses names that could leave the directory of namespaces.
pub(crate) fn check_sandbox(name: &str) -> Result<(), LinkError> {
    let valid = (1..=SANDBOX_NAME_LEN).contains(&name.len())
        && !name.starts_with('.')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    valid.then_some(()).ok_or_else(|| LinkError::SandboxName(name.to_owned()))
}

/// Whether a table may be named so.
pub(crate) fn is_instance(name: &str) -> bool {
    (1..=INSTANCE_LEN).contains(&name.len())
        && name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_ends_are_distinct_recognised_and_never_change() {
        let names = Names::new("skep");
        assert_eq!(names.host_end("a", "eth0"), names.host_end("a", "eth0"));
        assert_ne!(names.host_end("a", "eth0"), names.host_end("a", "eth1"));
        assert_ne!(names.host_end("ab", "c"), names.host_end("a", "bc"));
        assert!(names.is_host_end(&names.host_end("a", "eth0")));
        assert!(!names.is_host_end(&Names::new("skep-2").host_end("a", "eth0")));
        assert!(!names.is_host_end("skandalous-name"));
        assert!(!names.is_host_end("eth0") && !names.is_host_end(&names.dying_end(7)));
        assert!(names.dying_end(u32::MAX).len() <= INTERFACE_NAME_LEN);
    }

    #[test]
    fn names_that_would_do_harm_are_refused() {
        for name in ["", "a/b", "a b", "a:b", "..", "eth%d", "abcdefghijklmnop"] {
            assert!(check_interface(name).is_err(), "{name}");
        }
        for name in ["", "..", "../x", "a/b", ".hidden", "x y"] {
            assert!(check_sandbox(name).is_err(), "{name}");
        }
        assert!(check_interface("br-0123.5").is_ok() && check_sandbox("3f_a-b.c").is_ok());
        assert!(is_instance("skep-a1") && !is_instance("") && !is_instance("0a") && !is_instance("a b"));
    }
}
