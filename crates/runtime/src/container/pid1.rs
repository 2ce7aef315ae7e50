//! PID 1 of a container with `--init`: runs the program as its child, hands signals on, reaps orphans, and ends
//! with the program's exit code. As tini does.

use super::process;
use crate::protocol::Failure;
use crate::spec::Process;
use crate::sys;

/// Signals that tell this process about itself.
const KEPT: [i32; 4] = [libc::SIGCHLD, libc::SIGSEGV, libc::SIGFPE, libc::SIGILL];

/// Runs the program. Returns only a failure, and that only in the child that was to become it.
pub fn run(process: &Process, environment: &[String]) -> Failure {
    sys::block_all_signals();
    match sys::fork() {
        Ok(None) => {
            // The program leads the terminal's foreground group, as from a shell. Without a terminal there is none.
            let _ = rustix::process::setpgid(None, None);
            if process.tty {
                let _ = rustix::termios::tcsetpgrp(rustix::stdio::stdin(), rustix::process::getpid());
            }
            sys::unblock_all_signals();
            process::execute(process, environment)
        }
        Ok(Some(program)) => serve(program),
        Err(error) => Failure::new("fork", error),
    }
}

fn serve(program: i32) -> ! {
    // The sync socket among them: it must end with the program's exec.
    let _ = sys::close_from(3);
    loop {
        let signal = sys::wait_signal();
        while let Some((pid, code)) = sys::reap_any() {
            if pid == program {
                sys::exit(code);
            }
        }
        if !KEPT.contains(&signal) {
            // It may have ended just now; its SIGCHLD follows.
            let _ = sys::kill(program, signal);
        }
    }
}
