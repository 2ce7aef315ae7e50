//! The last steps of a process inside its container: limits, working directory, user, capabilities, filter, program.
//!
//! The order is runc's. Messages are runc's too: Docker's clients know them.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags};
use rustix::process::Signal;
use rustix::thread::{CapabilitySet as KernelSet, CapabilitySets};

use super::{protect, user};
use crate::capability::Capability;
use crate::protocol::{Failure, exit_code_of, words};
use crate::spec::{Process, RlimitResource};
use crate::sys::{self, Instruction};

/// Bytes of a file of users that are looked at: more than anybody's, and little enough to be held.
const USERS_LIMIT: u64 = 16 << 20;

/// The text of a file of users; empty when it cannot be read. It is the image's: a pipe that nobody writes or a
/// device that never ends must not hold the start up, and no limit of the container bounds its memory yet.
fn read_users(path: &str) -> String {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let mut text = Vec::new();
    if let Ok(file) = rustix::fs::open(path, flags, Mode::empty())
        && rustix::fs::fstat(&file)
            .is_ok_and(|status| rustix::fs::FileType::from_raw_mode(status.st_mode).is_file())
    {
        // As much as could be read is as good as it gets.
        let _ = std::fs::File::from(file).take(USERS_LIMIT).read_to_end(&mut text);
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// Gives up everything that the process must not have. Returns its environment, with `HOME`.
pub fn restrict(process: &Process, filter: &[Instruction]) -> Result<Vec<String>, Failure> {
    for limit in &process.rlimits {
        sys::set_rlimit(number_of(limit.resource), limit.soft, limit.hard).map_err(|error| {
            Failure::new(format_args!("error setting rlimit {:?}", limit.resource), error)
        })?;
    }
    // What the C library and runc set for programs.
    rustix::process::umask(Mode::from_raw_mode(0o022));
    let (passwd, group) = (read_users("/etc/passwd"), read_users("/etc/group"));
    let identity = user::resolve(&process.user, &process.groups, &passwd, &group)
        .map_err(|message| Failure { code: 126, message })?;
    change_folder(&process.cwd)?;
    give_streams(&identity)?;
    drop_bounding(process)?;
    if process.no_new_privileges {
        rustix::thread::set_no_new_privs(true).map_err(|error| Failure::new("no_new_privs", error))?;
    } else {
        // Needs CAP_SYS_ADMIN, which is about to go.
        install(filter)?;
    }
    become_user(&identity, process)?;
    if process.no_new_privileges {
        install(filter)?;
    }
    // Without its shim, a container has no streams and no exit code: it ends, too.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| Failure::new("setting the parent death signal", error))?;
    let mut environment = process.env.clone();
    if !environment.iter().any(|variable| variable.starts_with("HOME=")) {
        environment.push(format!("HOME={}", identity.home));
    }
    Ok(environment)
}

fn number_of(resource: RlimitResource) -> u32 {
    // The order of the enum is not the kernel's.
    match resource {
        RlimitResource::Cpu => libc::RLIMIT_CPU,
        RlimitResource::Fsize => libc::RLIMIT_FSIZE,
        RlimitResource::Data => libc::RLIMIT_DATA,
        RlimitResource::Stack => libc::RLIMIT_STACK,
        RlimitResource::Core => libc::RLIMIT_CORE,
        RlimitResource::Rss => libc::RLIMIT_RSS,
        RlimitResource::Nproc => libc::RLIMIT_NPROC,
        RlimitResource::Nofile => libc::RLIMIT_NOFILE,
        RlimitResource::Memlock => libc::RLIMIT_MEMLOCK,
        RlimitResource::As => libc::RLIMIT_AS,
        RlimitResource::Locks => libc::RLIMIT_LOCKS,
        RlimitResource::Sigpending => libc::RLIMIT_SIGPENDING,
        RlimitResource::Msgqueue => libc::RLIMIT_MSGQUEUE,
        RlimitResource::Nice => libc::RLIMIT_NICE,
        RlimitResource::Rtprio => libc::RLIMIT_RTPRIO,
        RlimitResource::Rttime => libc::RLIMIT_RTTIME,
    }
}

fn change_folder(cwd: &str) -> Result<(), Failure> {
    let cwd = if cwd.is_empty() { "/" } else { cwd };
    rustix::process::chdir(cwd).map_err(|error| {
        Failure::new(format_args!("chdir to cwd ({cwd:?}) set in config.json failed"), error)
    })?;
    // A folder outside of the root has no path from it (CVE-2024-21626).
    let reached = rustix::process::getcwd(Vec::new()).map_err(|error| Failure::new("getcwd", error))?;
    if reached.to_bytes().starts_with(b"/") {
        return Ok(());
    }
    let message = "current working directory is outside of container mount namespace root -- possible \
                   container breakout detected";
    Err(Failure { code: 128, message: message.to_owned() })
}

/// Lets the user open /dev/stdin, /dev/stdout and /dev/stderr anew.
fn give_streams(identity: &user::Identity) -> Result<(), Failure> {
    if identity.uid == 0 {
        return Ok(());
    }
    let owner = Some(rustix::fs::Uid::from_raw(identity.uid));
    let streams: [BorrowedFd<'_>; 3] =
        [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
    for stream in streams {
        let give = || -> io::Result<()> {
            let copy = stream.try_clone_to_owned()?;
            if !protect::is_null(&copy)? {
                rustix::fs::fchown(copy.as_fd(), owner, None)?;
            }
            Ok(())
        };
        give().map_err(|error| Failure::new("fixing permissions of standard streams", error))?;
    }
    Ok(())
}

fn kernel_set(bits: u64) -> KernelSet {
    KernelSet::from_bits_retain(bits)
}

fn drop_bounding(process: &Process) -> Result<(), Failure> {
    // Also those that are newer than this program: the kernel says where they end.
    for number in 0..64 {
        let known = Capability::all().find(|capability| capability.number() == number);
        if known.is_some_and(|capability| process.capabilities.contains(capability)) {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(kernel_set(1 << number)) {
            Err(rustix::io::Errno::INVAL) => break,
            removed => removed.map_err(|error| Failure::new("dropping capabilities", error))?,
        }
    }
    Ok(())
}

fn become_user(identity: &user::Identity, process: &Process) -> Result<(), Failure> {
    let become_user = || -> io::Result<()> {
        rustix::thread::set_keep_capabilities(true)?;
        let groups: Vec<_> = identity.groups.iter().map(|gid| rustix::fs::Gid::from_raw(*gid)).collect();
        rustix::thread::set_thread_groups(&groups)?;
        let (uid, gid) = (rustix::fs::Uid::from_raw(identity.uid), rustix::fs::Gid::from_raw(identity.gid));
        rustix::thread::set_thread_res_gid(gid, gid, gid)?;
        rustix::thread::set_thread_res_uid(uid, uid, uid)?;
        rustix::thread::set_keep_capabilities(false)?;
        // What the daemon itself was not given (in a container, say) it cannot give; as Docker, that is no error.
        let held = kernel_set(process.capabilities.bits()) & rustix::thread::capabilities(None)?.permitted;
        let sets = CapabilitySets { effective: held, permitted: held, inheritable: KernelSet::empty() };
        Ok(rustix::thread::set_capabilities(None, sets)?)
    };
    become_user().map_err(|error| Failure::new("changing user and capabilities", error))
}

fn install(filter: &[Instruction]) -> Result<(), Failure> {
    if filter.is_empty() {
        return Ok(());
    }
    sys::install_filter(filter).map_err(|error| Failure::new("error loading seccomp filter", error))
}

/// Becomes the program. Returns only when that cannot be found.
pub fn execute(process: &Process, environment: &[String]) -> Failure {
    let Some(name) = process.args.first().filter(|name| !name.is_empty()) else {
        return Failure { code: 127, message: "exec: \"\": executable file not found in $PATH".to_owned() };
    };
    let path = match find(name, environment) {
        Ok(path) => path,
        Err(failure) => return failure,
    };
    // Every descriptor of ours has the flag already; this is for those that the daemon may have leaked.
    let _ = sys::close_from_on_exec(3);
    let error = sys::execute(&path, &process.args, environment);
    // From here on runc's container counts as started: the error is its output, 255 its exit code.
    let message = format!("exec {path}: {}\n", words(&error));
    let _ = rustix::io::write(rustix::stdio::stderr(), message.as_bytes());
    sys::exit(255)
}

/// Finds a program as Go's exec.LookPath does.
fn find(name: &str, environment: &[String]) -> Result<String, Failure> {
    let refused = |code: i32, why: &str| Failure { code, message: format!("exec: {name:?}: {why}") };
    if name.contains('/') {
        return match executable(name) {
            Ok(()) => Ok(name.to_owned()),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Err(refused(126, "permission denied"))
            }
            Err(error) if error.kind() == io::ErrorKind::IsADirectory => Err(refused(126, "is a directory")),
            Err(error) => Err(refused(exit_code_of(&error), &format!("stat {name}: {}", words(&error)))),
        };
    }
    let path =
        environment.iter().rev().find_map(|variable| variable.strip_prefix("PATH=")).unwrap_or_default();
    let found = path
        .split(':')
        .map(|folder| format!("{}/{name}", if folder.is_empty() { "." } else { folder }))
        .find(|candidate| executable(candidate).is_ok());
    found.ok_or_else(|| refused(127, "executable file not found in $PATH"))
}

fn executable(path: &str) -> io::Result<()> {
    let status = rustix::fs::stat(path)?;
    if rustix::fs::FileType::from_raw_mode(status.st_mode).is_dir() {
        return Err(rustix::io::Errno::ISDIR.into());
    }
    rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS)?;
    // Root may execute what anybody may; without any bit set, the kernel refuses even it.
    if status.st_mode & 0o111 == 0 { Err(rustix::io::Errno::ACCESS.into()) } else { Ok(()) }
}
