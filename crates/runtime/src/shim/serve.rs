//! A shim's work: starts its container, then serves whoever asks until that has ended and all is told.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use skep_types::Time;

use super::log::Log;
use super::streams::{READ_LIMIT, Ready};
use super::task::{self, Stage, Sync, Task};
use crate::cgroup::{Group, Layout};
use crate::container::{self, Launch};
use crate::protocol::{
    self, EXIT_FILE, ExitRecord, FRAME_LIMIT, Failure, RUN_FILE, Request, Response, RunRecord, SOCKET_FILE,
    StartRequest,
};
use crate::runtime::{Attach, Exit, Started};
use crate::spec::{LogDriver, LogSpec};
use crate::sys::{self, Instruction, Side};

/// Ends of execs that are kept until somebody asks; the oldest are forgotten first.
const ENDED_EXECS_LIMIT: usize = 256;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 64;

/// A connection whose request has not arrived whole.
#[derive(Debug)]
struct Connection {
    socket: OwnedFd,
    received: Vec<u8>,
    gone: bool,
}

/// What poll(2) said is ready.
#[derive(Clone, Copy, Debug)]
enum Token {
    Listener,
    Connection(usize),
    Sync(usize),
    Ended(usize),
    Streams(usize, Ready),
}

/// A shim that serves its container.
#[derive(Debug)]
pub struct Shim {
    pub(super) layout: Layout,
    pub(super) cgroup: String,
    pub(super) oom_score_adj: i32,
    /// Our own pid namespace, to come back to after a clone into the container's.
    pub(super) pid_namespace: OwnedFd,
    listener: OwnedFd,
    connections: Vec<Connection>,
    /// The container's first process, then execs.
    pub(super) tasks: Vec<Task>,
    pub(super) ended_execs: VecDeque<(String, i32)>,
    pub(super) exit: Option<Exit>,
    buffer: Vec<u8>,
}

/// The time.
pub fn now() -> Time {
    Time::from(std::time::SystemTime::now())
}

/// Sends an answer. It is short, and the asker reads: it never waits; an asker that is gone needs none.
pub fn answer(socket: &OwnedFd, response: &Response) {
    let frame = protocol::frame_of(response);
    let _ = rustix::net::send(socket, &frame, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
}

/// Serves the container that the first frames on `connection` describe. Returns the shim's exit code.
pub fn serve(connection: OwnedFd) -> i32 {
    answer(&connection, &Response::Forked);
    let Ok((body, attached)) = super::receive_frame(&connection) else { return 1 };
    let Ok((filter, _)) = super::receive_frame(&connection) else { return 1 };
    let started = serde_json::from_slice::<StartRequest<'_>>(&body)
        .map_err(|error| Failure { code: 128, message: format!("reading the specification: {error}") })
        .and_then(|request| {
            let reply = connection.try_clone().map_err(|error| Failure::new("duplicating", error))?;
            start(request, &decode_filter(&filter), attached, reply)
        });
    drop((body, filter));
    let mut shim = match started {
        Ok(shim) => shim,
        Err(failure) => {
            answer(&connection, &Response::Failed(failure));
            return 1;
        }
    };
    drop(connection);
    sys::trim_heap();
    while !shim.is_done() {
        shim.turn();
    }
    0
}

fn decode_filter(bytes: &[u8]) -> Vec<Instruction> {
    bytes
        .chunks_exact(8)
        .map(|word| protocol::unpack(u64::from_le_bytes(word.try_into().expect("eight bytes"))))
        .collect()
}

fn open_log(log: &LogSpec) -> io::Result<Option<Log>> {
    use std::os::unix::fs::OpenOptionsExt;
    match log.driver {
        LogDriver::None => Ok(None),
        LogDriver::JsonFile => {
            let mut options = std::fs::OpenOptions::new();
            let file = options.append(true).create(true).mode(0o640).open(&log.path)?;
            Ok(Some(Log::new(file.into())))
        }
    }
}

/// Makes the cgroups and the first process.
fn start(
    request: StartRequest<'_>,
    filter: &[Instruction],
    attached: Vec<OwnedFd>,
    reply: OwnedFd,
) -> Result<Shim, Failure> {
    let (spec, layout) = (request.spec.into_owned(), request.layout.into_owned());
    let folder = &request.folder;
    // For people who look at a list of processes; nothing depends on it.
    let _ = sys::show_arguments(&["skep", "shim", &spec.id.to_string()]);
    rustix::process::chdir(folder.as_str())
        .map_err(|error| Failure::new(format_args!("chdir {folder}"), error))?;
    let log = open_log(&spec.log)
        .map_err(|error| Failure::new(format_args!("opening the log {:?}", spec.log.path), error))?;
    let listener = listen().map_err(|error| Failure::new("listening", error))?;
    let pid_namespace = std::fs::File::open("/proc/self/ns/pid")
        .map_err(|error| Failure::new("opening the pid namespace", error))?;
    let mut ends = task::ends(&spec.process).map_err(|error| Failure::new("making streams", error))?;
    ends.streams.log = log;
    for (socket, streams) in attached.into_iter().zip(request.attached) {
        ends.streams.attach(socket, streams);
    }
    let group = layout.group(&spec.cgroup);
    let create = || -> Result<(Side, bool), Failure> {
        group
            .create(&spec.resources, (!spec.privileged).then_some(&spec.devices[..]))
            .map_err(|error| Failure::new("unable to apply cgroup configuration", error))?;
        let flags = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
        clone(&group, flags as u64).map_err(|error| Failure::new("clone", error))
    };
    let (side, born_into_unified) = create().inspect_err(|_| drop(group.remove()))?;
    let (pid, pidfd) = match side {
        Side::Parent { pid, pidfd } => (pid, pidfd),
        Side::Child => container::start(
            &spec,
            &layout,
            Launch {
                group: layout.group(&spec.cgroup),
                born_into_unified,
                oom_score_adj: spec.oom_score_adj,
                filter,
                stdio: ends.stdio,
                sync: ends.child_sync,
            },
        ),
    };
    let stage = Stage::Starting { sync: ends.shim_sync, reply, streams: Attach::default() };
    let started = Started { pid, started_at: now() };
    // Without this record a later daemon would know neither the container nor its cgroup: then nothing may run. It
    // cannot be written where a new daemon, which saw no socket yet, has removed the folder.
    let record = RunRecord { cgroup: spec.cgroup.clone(), pid, started_at: started.started_at };
    if let Err(error) = write_whole(RUN_FILE, &record) {
        let _ = sys::signal_pidfd(pidfd.as_fd(), libc::SIGKILL);
        sys::reap(pid);
        let _ = group.remove();
        return Err(Failure::new(format_args!("writing {folder}/{RUN_FILE}"), error));
    }
    let first = Task { exec: None, started, pidfd, streams: ends.streams, stage, waiters: Vec::new() };
    Ok(Shim {
        cgroup: spec.cgroup,
        oom_score_adj: spec.oom_score_adj,
        layout,
        pid_namespace: pid_namespace.into(),
        listener,
        connections: Vec::new(),
        tasks: vec![first],
        ended_execs: VecDeque::new(),
        exit: None,
        buffer: vec![0; READ_LIMIT],
    })
}

/// Clones, into the cgroup of the v2 tree where the kernel lets us: joining later is dearer, but passes a full pids limit.
pub fn clone(group: &Group<'_>, flags: u64) -> io::Result<(Side, bool)> {
    if let Some(folder) = group.open_unified()
        && let Ok(side) = sys::clone(flags, Some(folder.as_fd()))
    {
        return Ok((side, true));
    }
    sys::clone(flags, None).map(|side| (side, false))
}

/// Opens the socket in the current folder.
fn listen() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(SOCKET_FILE)?)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// Writes a file whole or not at all. exec-root is on a memory file system, so there is nothing to be synchronised.
fn write_whole<T: serde::Serialize>(name: &str, value: &T) -> io::Result<()> {
    let new = format!("{name}.new");
    std::fs::write(&new, serde_json::to_vec(value)?)?;
    std::fs::rename(new, name)
}

impl Shim {
    /// Whether there is nothing left to do.
    fn is_done(&self) -> bool {
        self.exit.is_some() && self.tasks.iter().all(|task| task.has_ended() && task.streams.is_delivered())
    }

    /// Waits for something, and does it.
    fn turn(&mut self) {
        let ready = self.wait();
        for (token, flags) in ready {
            match token {
                Token::Listener => self.accept(),
                Token::Connection(index) => self.receive(index),
                Token::Sync(index) => self.synchronise(index),
                Token::Ended(index) => self.end(index),
                Token::Streams(index, ready) => {
                    self.tasks[index].streams.handle(ready, flags, &mut self.buffer, now());
                }
            }
        }
        self.connections.retain(|connection| !connection.gone);
        self.tasks.iter_mut().for_each(|task| task.streams.sweep());
        let mut index = 0;
        self.tasks.retain(|task| {
            index += 1;
            index == 1 || !task.has_ended() || !task.streams.is_delivered()
        });
    }

    fn wait(&self) -> Vec<(Token, PollFlags)> {
        let mut descriptors = Vec::new();
        let mut tokens = Vec::new();
        let mut add = |descriptor, flags, token| {
            descriptors.push(PollFd::from_borrowed_fd(descriptor, flags));
            tokens.push(token);
        };
        add(self.listener.as_fd(), PollFlags::IN, Token::Listener);
        for (index, connection) in self.connections.iter().enumerate() {
            add(connection.socket.as_fd(), PollFlags::IN, Token::Connection(index));
        }
        for (index, task) in self.tasks.iter().enumerate() {
            if let Some(sync) = task.sync() {
                // Its output waits in its pipes for the client that is about to be attached.
                add(sync, PollFlags::IN, Token::Sync(index));
                continue;
            }
            // Streams before the end: what a process wrote last is read before its end is told.
            task.streams.interests(&mut |descriptor, flags, ready| {
                add(descriptor, flags, Token::Streams(index, ready));
            });
            if !task.has_ended() {
                add(task.pidfd.as_fd(), PollFlags::IN, Token::Ended(index));
            }
        }
        // Only a signal can interrupt it, and none is handled: then nothing is ready.
        let _ = rustix::event::poll(&mut descriptors, None);
        let ready = descriptors.iter().map(PollFd::revents).zip(tokens);
        ready.filter(|(flags, _)| !flags.is_empty()).map(|(flags, token)| (token, flags)).collect()
    }

    fn accept(&mut self) {
        // One at a time: poll says when there are more.
        if let Ok(socket) = rustix::net::accept_with(&self.listener, SocketFlags::CLOEXEC) {
            self.connections.push(Connection { socket, received: Vec::new(), gone: false });
        }
    }

    fn receive(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        match rustix::net::recv(&connection.socket, &mut self.buffer[..], RecvFlags::DONTWAIT) {
            Ok((0, _)) => connection.gone = true,
            Ok((length, _)) => connection.received.extend_from_slice(&self.buffer[..length]),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => connection.gone = true,
        }
        let Some((length, body)) = connection.received.split_first_chunk() else { return };
        let length = u32::from_le_bytes(*length) as usize;
        if length > FRAME_LIMIT {
            connection.gone = true;
        } else if body.len() >= length {
            connection.gone = true;
            let Ok(socket) = connection.socket.try_clone() else { return };
            match serde_json::from_slice(&body[..length]) {
                Ok(request) => self.handle(request, socket),
                Err(_) => answer(&socket, &Response::Error(libc::EINVAL)),
            }
        }
    }

    fn handle(&mut self, request: Request, socket: OwnedFd) {
        let result = match request {
            Request::Wait => match self.exit {
                Some(exit) => Ok(Some(Response::Exit(exit))),
                None => {
                    self.tasks[0].waiters.push(socket);
                    return;
                }
            },
            Request::State => Ok(Some(Response::Started(self.tasks[0].started))),
            Request::Signal(signal) => self.signal(signal).map(Some),
            Request::Attach(_) if self.exit.is_some() => Err(Errno::SRCH.into()),
            Request::Attach(_) if self.tasks[0].streams.is_crowded() => Err(Errno::USERS.into()),
            Request::Attach(streams) => {
                answer(&socket, &Response::Done);
                self.tasks[0].streams.attach(socket, streams);
                return;
            }
            Request::Resize { exec, rows, columns } => self.resize(exec.as_deref(), rows, columns).map(Some),
            Request::Exec { exec, process, streams, filter } => {
                self.exec(exec, &process, streams, &filter, socket);
                return;
            }
            Request::ExecWait(exec) => match self.find_exec(&exec) {
                Some(task) if !task.has_ended() => {
                    task.waiters.push(socket);
                    return;
                }
                _ => self.ended_exec(&exec).map(|code| Some(Response::ExecExit(code))),
            },
            Request::ExecState(exec) => Ok(Some(Response::Exec(self.exec_state(&exec)))),
        };
        match result {
            Ok(Some(response)) => answer(&socket, &response),
            Ok(None) => {}
            Err(error) => answer(&socket, &Response::Error(error.raw_os_error().unwrap_or(libc::EIO))),
        }
    }

    fn signal(&self, signal: i32) -> io::Result<Response> {
        if self.exit.is_some() {
            return Err(Errno::SRCH.into());
        }
        sys::signal_pidfd(self.tasks[0].pidfd.as_fd(), signal).map(|()| Response::Done)
    }

    fn resize(&mut self, exec: Option<&str>, rows: u16, columns: u16) -> io::Result<Response> {
        let task = match exec {
            None => Some(&mut self.tasks[0]),
            Some(exec) => self.find_exec(exec),
        };
        let terminal = task.ok_or(Errno::SRCH)?.streams.terminal.as_ref().ok_or(Errno::NOTTY)?;
        let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(terminal, size)?;
        Ok(Response::Done)
    }

    /// A starting process has something to say.
    fn synchronise(&mut self, index: usize) {
        let task = &mut self.tasks[index];
        let result = match task.synchronise() {
            Sync::Pending => return,
            Sync::Running => Ok(()),
            Sync::Failed(failure) => Err(failure),
        };
        let started = task.started;
        let Stage::Starting { reply, streams, .. } = std::mem::replace(&mut task.stage, Stage::Running)
        else {
            return;
        };
        let first = task.exec.is_none();
        match result {
            Ok(()) if first => answer(&reply, &Response::Started(started)),
            Ok(()) => {
                answer(&reply, &Response::Started(started));
                if streams.stdin || streams.stdout || streams.stderr {
                    task.streams.attach(reply, streams);
                } else if !task.streams.tty {
                    // Nobody will ever write to it.
                    task.streams.stdin = None;
                }
            }
            Err(failure) => {
                let _ = sys::signal_pidfd(task.pidfd.as_fd(), libc::SIGKILL);
                let code = sys::reap(started.pid);
                task.stage = Stage::Ended;
                task.streams.end(&mut self.buffer, now());
                if first {
                    let _ = self.layout.group(&self.cgroup).remove();
                    self.exit = Some(Exit { code, oom_killed: false, finished_at: now(), lost: false });
                    // For a daemon that died meanwhile; one that lives removes all.
                    self.store_exit();
                }
                answer(&reply, &Response::Failed(failure));
            }
        }
    }

    /// A process has ended.
    fn end(&mut self, index: usize) {
        let task = &mut self.tasks[index];
        let code = sys::reap(task.started.pid);
        task.stage = Stage::Ended;
        task.streams.end(&mut self.buffer, now());
        let waiters = std::mem::take(&mut task.waiters);
        let Some(exec) = task.exec.clone() else {
            self.end_container(code, &waiters);
            return;
        };
        waiters.iter().for_each(|waiter| answer(waiter, &Response::ExecExit(code)));
        if self.ended_execs.len() == ENDED_EXECS_LIMIT {
            self.ended_execs.pop_front();
        }
        self.ended_execs.push_back((exec, code));
        self.store_late_end();
    }

    fn end_container(&mut self, code: i32, waiters: &[OwnedFd]) {
        let group = self.layout.group(&self.cgroup);
        let exit = Exit { code, oom_killed: group.oom_kills() > 0, finished_at: now(), lost: false };
        // The pid namespace has killed all of its own; this is for what got into the cgroup from outside.
        let _ = group.kill();
        self.exit = Some(exit);
        self.store_exit();
        waiters.iter().for_each(|waiter| answer(waiter, &Response::Exit(exit)));
    }

    /// An exec's end is told after the container's, when both end at once.
    fn store_late_end(&self) {
        if self.exit.is_some() {
            self.store_exit();
        }
    }

    fn store_exit(&self) {
        let Some(exit) = self.exit else { return };
        let record = ExitRecord { exit, execs: self.ended_execs.iter().cloned().collect() };
        // If it cannot be written, the waiters still hear of it; a later daemon finds the container lost.
        let _ = write_whole(EXIT_FILE, &record);
    }
}
