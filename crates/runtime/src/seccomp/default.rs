//! Docker's default policy, from its documentation and its published profile (28.x).

use std::borrow::Cow;

use super::{Action, Comparison, Condition, Policy, Rule, When};
use crate::capability::Capability;

const EPERM: u16 = libc::EPERM as u16;
const ENOSYS: u16 = libc::ENOSYS as u16;

/// Every flag of clone(2) that makes a namespace but CLONE_NEWTIME, whose bit clone reads as part of the signal.
const NAMESPACES: u64 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWCGROUP) as u64;

/// Allowed to every container.
const ALWAYS: &str = "\
    accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown chown32 \
    clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 \
    clock_nanosleep clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 dup3 \
    epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait \
    epoll_wait_old eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64 \
    fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl \
    fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstat64 fstatat64 \
    fstatfs fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue futex_time64 futex_wait \
    futex_waitv futex_wake futimesat getcpu getcwd getdents getdents64 getegid getegid32 geteuid \
    geteuid32 getgid getgid32 getgroups getgroups32 getitimer getpeername getpgid getpgrp getpid getppid \
    getpriority getrandom getresgid getresgid32 getresuid getresuid32 getrlimit get_robust_list \
    getrusage getsid getsockname getsockopt get_thread_area gettid gettimeofday getuid getuid32 getxattr \
    getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel ioctl io_destroy \
    io_getevents io_pgetevents io_pgetevents_time64 ioprio_get ioprio_set io_setup io_submit ipc kill \
    landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lchown32 lgetxattr link \
    linkat listen listxattr listxattrat llistxattr _llseek lremovexattr lseek lsetxattr lstat lstat64 \
    madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat \
    mlock mlock2 mlockall mmap mmap2 mprotect mq_getsetattr mq_notify mq_open mq_timedreceive \
    mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget msgrcv \
    msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat _newselect open openat \
    openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll \
    ppoll_time64 prctl pread64 preadv preadv2 prlimit64 process_mrelease pselect6 pselect6_time64 \
    pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv recv recvfrom recvmmsg \
    recvmmsg_time64 recvmsg remap_file_pages removexattr removexattrat rename renameat renameat2 \
    restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn \
    rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_getaffinity \
    sched_getattr sched_getparam sched_get_priority_max sched_get_priority_min sched_getscheduler \
    sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam \
    sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop semtimedop_time64 send \
    sendfile sendfile64 sendmmsg sendmsg sendto setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 \
    setgroups setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid setresgid32 \
    setresuid setresuid32 setreuid setreuid32 setrlimit set_robust_list setsid setsockopt \
    set_thread_area set_tid_address setuid setuid32 setxattr setxattrat shmat shmctl shmdt shmget \
    shutdown sigaltstack signalfd signalfd4 sigprocmask sigreturn socketcall socketpair splice stat \
    stat64 statfs statfs64 statx symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time \
    timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime \
    timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 \
    times tkill truncate truncate64 ugetrlimit umask uname unlink unlinkat uretprobe utime utimensat \
    utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write writev process_vm_readv \
    process_vm_writev ptrace arch_prctl modify_ldt";

/// Allowed to containers that may administer the system.
const ADMINISTRATION: &str = "\
    bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick listmount lookup_dcookie mount mount_setattr \
    move_mount open_tree open_tree_attr perf_event_open quotactl quotactl_fd setdomainname sethostname setns \
    statmount syslog umount umount2 unshare";

const fn allow(names: &'static str, when: When) -> Rule {
    Rule { names: Cow::Borrowed(names), action: Action::Allow, conditions: Cow::Borrowed(&[]), when }
}

const fn allow_if(names: &'static str, when: When, conditions: &'static [Condition]) -> Rule {
    Rule { names: Cow::Borrowed(names), action: Action::Allow, conditions: Cow::Borrowed(conditions), when }
}

const fn first(comparison: Comparison) -> Condition {
    Condition { argument: 0, comparison }
}

static RULES: [Rule; 23] = [
    allow(ALWAYS, When::Always),
    allow_if("socket", When::Always, &[first(Comparison::NotEqualInt(libc::AF_VSOCK as u32))]),
    // PER_LINUX, PER_LINUX32, UNAME26 with each, and the question which it is.
    allow_if("personality", When::Always, &[first(Comparison::Equal(0))]),
    allow_if("personality", When::Always, &[first(Comparison::Equal(0x8))]),
    allow_if("personality", When::Always, &[first(Comparison::Equal(0x2_0000))]),
    allow_if("personality", When::Always, &[first(Comparison::Equal(0x2_0008))]),
    allow_if("personality", When::Always, &[first(Comparison::Equal(0xffff_ffff))]),
    allow("open_by_handle_at", When::With(Capability::DAC_READ_SEARCH)),
    allow(ADMINISTRATION, When::With(Capability::SYS_ADMIN)),
    allow_if(
        "clone",
        When::Without(Capability::SYS_ADMIN),
        &[first(Comparison::Masked { mask: NAMESPACES, value: 0 })],
    ),
    // A filter cannot read clone3's flags; "not implemented" makes the C library fall back on clone.
    Rule {
        names: Cow::Borrowed("clone3"),
        action: Action::Errno(ENOSYS),
        conditions: Cow::Borrowed(&[]),
        when: When::Without(Capability::SYS_ADMIN),
    },
    allow("reboot", When::With(Capability::SYS_BOOT)),
    allow("chroot", When::With(Capability::SYS_CHROOT)),
    allow("delete_module init_module finit_module", When::With(Capability::SYS_MODULE)),
    allow("acct", When::With(Capability::SYS_PACCT)),
    allow("kcmp pidfd_getfd process_madvise", When::With(Capability::SYS_PTRACE)),
    allow("iopl ioperm", When::With(Capability::SYS_RAWIO)),
    allow("settimeofday stime clock_settime clock_settime64", When::With(Capability::SYS_TIME)),
    allow("vhangup", When::With(Capability::SYS_TTY_CONFIG)),
    allow("get_mempolicy mbind set_mempolicy set_mempolicy_home_node", When::With(Capability::SYS_NICE)),
    allow("syslog", When::With(Capability::SYSLOG)),
    allow("bpf", When::With(Capability::BPF)),
    allow("perf_event_open", When::With(Capability::PERFMON)),
];

/// Docker's default policy.
pub fn docker_default() -> Policy {
    Policy { default: Action::Errno(EPERM), rules: Cow::Borrowed(&RULES) }
}
