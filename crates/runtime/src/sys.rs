//! System calls that neither the standard library nor rustix offers, each behind a safe function.

#![expect(unsafe_code, reason = "raw system calls; each block says why it is sound")]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// One instruction of a classic BPF programme, as the kernel has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    pub code: u16,
    pub jump_true: u8,
    pub jump_false: u8,
    pub value: u32,
}

/// Which side of a fork or clone the caller is on.
#[derive(Debug)]
pub enum Side {
    /// The new process.
    Child,
    /// The old one.
    Parent {
        /// The child, as the caller counts.
        pid: u32,
        /// Becomes readable when it ends.
        pidfd: OwnedFd,
    },
}

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// linux/sched.h; libc's constant is too narrow for it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// clone3(2) without shared memory. `into_cgroup` places the child there; `flags` are those for namespaces.
///
/// The caller must have one thread only: the child would find other threads' locks held for ever.
pub fn clone(flags: u64, into_cgroup: Option<BorrowedFd<'_>>) -> io::Result<Side> {
    let mut pidfd: libc::c_int = -1;
    // SAFETY: clone_args is plain data, for which zero is valid.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = flags | libc::CLONE_PIDFD as u64;
    arguments.pidfd = (&raw mut pidfd) as u64;
    arguments.exit_signal = libc::SIGCHLD as u64;
    if let Some(cgroup) = into_cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: no memory is shared and no stack is given, so this is fork(2) with namespaces; this process has
    // one thread. The kernel writes one int to `pidfd`, which outlives the call.
    let pid = check(unsafe {
        libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<libc::clone_args>())
    })?;
    if pid == 0 {
        return Ok(Side::Child);
    }
    // SAFETY: the kernel has just opened this descriptor for us.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Side::Parent { pid: pid as u32, pidfd })
}

/// fork(2): the child's pid, and `None` in the child. The caller must have one thread only.
pub fn fork() -> io::Result<Option<i32>> {
    // SAFETY: this process has one thread, so the child finds every lock free.
    let pid = check(libc::c_long::from(unsafe { libc::fork() }))? as i32;
    Ok((pid != 0).then_some(pid))
}

/// Ends this process at once, without running destructors or handlers inherited from a parent.
pub fn exit(code: i32) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(code) }
}

/// execve(2); returns only the error.
pub fn execute(path: &str, arguments: &[String], environment: &[String]) -> io::Error {
    let texts = |texts: &[String]| -> io::Result<Vec<CString>> {
        texts.iter().map(|text| CString::new(text.as_str()).map_err(io::Error::other)).collect()
    };
    let prepared = (|| io::Result::Ok((CString::new(path)?, texts(arguments)?, texts(environment)?)))();
    let (path, arguments, environment) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return error,
    };
    let pointers = |texts: &[CString]| -> Vec<*const libc::c_char> {
        texts.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (argument_pointers, environment_pointers) = (pointers(&arguments), pointers(&environment));
    // SAFETY: three valid strings or null-terminated arrays of them, alive across the call.
    unsafe { libc::execve(path.as_ptr(), argument_pointers.as_ptr(), environment_pointers.as_ptr()) };
    io::Error::last_os_error()
}

/// What mount_setattr(2) changes.
#[derive(Default)]
#[repr(C)]
pub struct MountAttributes {
    pub set: u64,
    pub clear: u64,
    pub propagation: u64,
    pub user_namespace: u64,
}

/// mount_setattr(2) on the mount that `mount` refers to, and with `recursive` on all below.
pub fn mount_setattr(mount: BorrowedFd<'_>, recursive: bool, attributes: &MountAttributes) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: an empty path, and a structure of the size that is given, both alive across the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attributes),
            size_of::<MountAttributes>(),
        )
    })
    .map(drop)
}

/// Marks every descriptor from `first` on close-on-exec.
pub fn close_from_on_exec(first: u32) -> io::Result<()> {
    // SAFETY: only flags of descriptors change.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) })
        .map(drop)
}

/// Closes every descriptor from `first` on. Only for a process that uses none of them any more.
pub fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: the callers are about to loop without any descriptor, so no owner is left to be surprised.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) }).map(drop)
}

/// Installs a seccomp filter for this process. Needs CAP_SYS_ADMIN or no_new_privs.
pub fn install_filter(programme: &[Instruction]) -> io::Result<()> {
    let length = u16::try_from(programme.len()).map_err(io::Error::other)?;
    let description = libc::sock_fprog { len: length, filter: programme.as_ptr().cast_mut().cast() };
    // SAFETY: `Instruction` has the layout of sock_filter; the kernel copies `length` of them and writes none.
    check(unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const description)
    })
    .map(drop)
}

/// Sets every signal's action to the default and blocks none, so that a program starts as from a shell.
pub fn reset_signals() {
    // The kernel's own structure, all zero: default action, no flags, no mask. The C library's call would refuse the
    // two signals that it keeps for itself, which a daemon's parent may have left ignored.
    let default = [0u64; 4];
    for signal in 1..=64 {
        // SAFETY: restoring a default action installs no code; the kernel reads 32 bytes at most.
        unsafe {
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), std::ptr::null::<u64>(), 8);
        }
    }
    set_signal_mask(libc::SIG_SETMASK, &[]);
}

/// Ignores a signal.
pub fn ignore_signal(signal: i32) {
    // SAFETY: ignoring installs no code.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// Restores a signal's default action.
pub fn reset_signal(signal: i32) {
    // SAFETY: restoring a default action installs no code.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}

/// Blocks no signal.
pub fn unblock_all_signals() {
    set_signal_mask(libc::SIG_SETMASK, &[]);
}

fn set_signal_mask(how: i32, signals: &[i32]) {
    // SAFETY: the set is initialised before use, and sigprocmask only reads it.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in signals {
            libc::sigaddset(&raw mut set, *signal);
        }
        libc::sigprocmask(how, &raw const set, std::ptr::null_mut());
    }
}

/// Blocks all signals, so that [`wait_signal`] collects them.
pub fn block_all_signals() {
    // SAFETY: the set is filled before use, and sigprocmask only reads it.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
    }
}

/// Waits for any blocked signal.
pub fn wait_signal() -> i32 {
    loop {
        // SAFETY: the set is filled before use, and no information structure is asked for.
        let signal = unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigfillset(&raw mut set);
            libc::sigwaitinfo(&raw const set, std::ptr::null_mut())
        };
        if signal > 0 {
            return signal;
        }
    }
}

/// kill(2) with a plain number, which may be a real-time signal.
pub fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: sending a signal touches no memory of ours.
    check(libc::c_long::from(unsafe { libc::kill(pid, signal) })).map(drop)
}

/// pidfd_send_signal(2) with a plain number.
pub fn signal_pidfd(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: no information structure is passed.
    check(unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, std::ptr::null::<u8>(), 0)
    })
    .map(drop)
}

/// Reaps any child that has ended: its pid and exit code (128 + n for a signal). `None` if none has.
pub fn reap_any() -> Option<(i32, i32)> {
    let mut status = 0;
    // SAFETY: the kernel writes one int.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    (pid > 0).then(|| (pid, exit_code(status)))
}

/// Reaps the child with this pid, which has ended.
pub fn reap(pid: u32) -> i32 {
    let mut status = 0;
    loop {
        // SAFETY: the kernel writes one int.
        let result = unsafe { libc::waitpid(pid as libc::pid_t, &raw mut status, 0) };
        if result >= 0 {
            return exit_code(status);
        }
        if io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return 255;
        }
    }
}

fn exit_code(status: i32) -> i32 {
    if libc::WIFSIGNALED(status) { 128 + libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) }
}

/// Gives this process a session keyring of its own, without a name. A kernel without keyrings has none to share.
pub fn join_new_session_keyring() -> io::Result<()> {
    let anonymous = std::ptr::null::<libc::c_char>();
    // SAFETY: no name is given, so the kernel reads nothing.
    match check(unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, anonymous) }) {
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
        joined => joined.map(drop),
    }
}

/// Shows these arguments, as far as there is room, in place of those that this process was executed with.
pub fn show_arguments(arguments: &[&str]) -> io::Result<()> {
    let text = std::fs::read_to_string("/proc/self/stat")?;
    // proc_pid_stat(5): the arguments' start and end are fields 48 and 49; the second field may hold spaces.
    let fields = text.rsplit_once(')').map_or("", |(_, fields)| fields);
    let mut fields = fields.split_whitespace().skip(45).map_while(|field| field.parse::<usize>().ok());
    let (Some(start), Some(end)) = (fields.next(), fields.next()) else {
        return Err(io::Error::other("no arguments in /proc/self/stat"));
    };
    if start == 0 || end <= start {
        return Err(io::Error::other("no arguments in /proc/self/stat"));
    }
    let mut shown: Vec<u8> = arguments.iter().flat_map(|text| text.bytes().chain([0])).collect();
    shown.resize(end - start, 0);
    // SAFETY: the kernel names this range of our own stack, which is writable and outlives us; nobody holds a reference
    // into it, as the standard library copied the arguments.
    unsafe { std::ptr::copy_nonoverlapping(shown.as_ptr(), start as *mut u8, shown.len()) };
    Ok(())
}

/// Sets a resource limit of this process.
pub fn set_rlimit(resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: the kernel reads one structure.
    check(libc::c_long::from(unsafe {
        libc::prlimit64(0, resource as libc::__rlimit_resource_t, &raw const limit, std::ptr::null_mut())
    }))
    .map(drop)
}

/// Returns freed memory to the kernel.
pub fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim has no preconditions.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// bpf(2). `attributes` is the union that the command takes.
pub fn bpf(command: u32, attributes: &[u64]) -> io::Result<i32> {
    // SAFETY: the callers fill `attributes` with pointers to data that outlives the call; the kernel reads
    // no further than the size that is given.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), size_of_val(attributes)) };
    check(result).map(|descriptor| descriptor as i32)
}

/// Takes over a descriptor that the kernel has just opened for this process.
pub fn own(descriptor: i32) -> OwnedFd {
    // SAFETY: the callers pass what a system call returned to them, once.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

/// Lets tokio say when a descriptor can be read.
pub fn watch(descriptor: OwnedFd) -> io::Result<tokio::io::unix::AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is the same descriptor, and open, for as long as it lives.
    unsafe { tokio::io::unix::AsyncFd::register_with_interest(descriptor, tokio::io::Interest::READABLE) }
        .map_err(io::Error::other)
}
