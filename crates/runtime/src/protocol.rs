//! What daemon and shim say to each other: JSON in frames of a little-endian u32 length and as many bytes.

use serde::{Deserialize, Serialize};
use skep_types::Time;

use crate::cgroup::Layout;
use crate::runtime::{Attach, ExecState, Exit, Started};
use crate::spec::{ContainerSpec, Process};
use crate::sys::Instruction;

/// The longest frame that either side accepts, in bytes.
pub const FRAME_LIMIT: usize = 8 << 20;

/// The most clients that can be attached before a start (what one control message can carry).
pub const ATTACHED_LIMIT: usize = 64;

/// The first frame to a new shim; the seccomp programme follows in a frame of its own. The descriptors of
/// `attached` come with the first byte.
#[derive(Debug, Serialize, Deserialize)]
pub struct StartRequest<'a> {
    /// The container.
    pub spec: std::borrow::Cow<'a, ContainerSpec>,
    /// Where the cgroups are.
    pub layout: std::borrow::Cow<'a, Layout>,
    /// The folder below exec-root that is the container's.
    pub folder: String,
    /// Streams of each client that is attached already.
    pub attached: Vec<Attach>,
}

/// What a connection to a shim's socket asks, once.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// Answered by `Exit` when the container ended.
    Wait,
    /// Answered by `Started`.
    State,
    /// A signal for the first process.
    Signal(i32),
    /// After `Done` the connection is the stream.
    Attach(Attach),
    /// The size of a terminal.
    Resize { exec: Option<String>, rows: u16, columns: u16 },
    /// After `Started` the connection is the stream, if `streams` names any. The seccomp programme is in `filter`.
    Exec { exec: String, process: Process, streams: Attach, filter: Vec<u64> },
    /// Answered by `ExecExit`.
    ExecWait(String),
    /// Answered by `Exec`.
    ExecState(String),
}

/// A shim's answer.
#[derive(Debug, Serialize, Deserialize)]
pub enum Response {
    /// The first word of a shim that was forked: from here on, what becomes of the container is its to say.
    Forked,
    /// Done as asked.
    Done,
    /// The process runs.
    Started(Started),
    /// It was not started.
    Failed(Failure),
    /// The container has ended.
    Exit(Exit),
    /// The exec has ended.
    ExecExit(i32),
    /// What became of the exec.
    Exec(ExecState),
    /// Not done; the kernel's error number.
    Error(i32),
}

/// Why a process was not started, in the words that runc uses after "unable to start container process: ".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// 126, 127 or 128.
    pub code: i32,
    /// The words.
    pub message: String,
}

impl Failure {
    /// A failure of the kernel while `what` was tried.
    pub fn new(what: impl std::fmt::Display, error: impl Into<std::io::Error>) -> Failure {
        let error: std::io::Error = error.into();
        Failure { code: exit_code_of(&error), message: format!("{what}: {}", words(&error)) }
    }
}

impl Failure {
    /// The same in at most about `limit` bytes: its end, where the reason is, and what fits of its beginning.
    pub fn shortened(&self, limit: usize) -> Failure {
        if self.message.len() <= limit {
            return self.clone();
        }
        let (half, text) = (limit / 2, &self.message);
        let head = &text[..text.floor_char_boundary(half)];
        let tail = &text[text.ceil_char_boundary(text.len() - half)..];
        Failure { code: self.code, message: format!("{head}...{tail}") }
    }
}

/// Docker's exit code for a container that this error kept from starting.
pub fn exit_code_of(error: &std::io::Error) -> i32 {
    match error.raw_os_error() {
        Some(libc::EACCES | libc::EISDIR) => 126,
        Some(libc::ENOENT | libc::ENOTDIR) => 127,
        _ => 128,
    }
}

/// An error in the words that Go uses for it, which clients compare: lower case, without the number.
pub fn words(error: &std::io::Error) -> String {
    let mut text = error.to_string();
    if let Some(end) = text.find(" (os error") {
        text.truncate(end);
    }
    if error.raw_os_error().is_some() { text.to_ascii_lowercase() } else { text }
}

/// What a shim leaves on disk when its container has ended.
#[derive(Debug, Serialize, Deserialize)]
pub struct ExitRecord {
    /// The container's end.
    pub exit: Exit,
    /// Ends of execs that nobody had asked for yet.
    #[serde(default)]
    pub execs: Vec<(String, i32)>,
}

/// What a shim leaves on disk while its container runs.
#[derive(Debug, Serialize, Deserialize)]
pub struct RunRecord {
    /// Path below each hierarchy's root.
    pub cgroup: String,
    /// Its first process.
    pub pid: u32,
    /// When that was started.
    pub started_at: Time,
}

/// Name of the file of an [`ExitRecord`] in a container's folder.
pub const EXIT_FILE: &str = "exit.json";
/// Name of the file of a [`RunRecord`].
pub const RUN_FILE: &str = "run.json";
/// Name of the shim's socket.
pub const SOCKET_FILE: &str = "shim.sock";

/// A frame with this body.
pub fn frame(body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(4 + body.len());
    frame.extend_from_slice(&(body.len() as u32).to_le_bytes());
    frame.extend_from_slice(body);
    frame
}

/// A frame with this value.
pub fn frame_of<T: Serialize>(value: &T) -> Vec<u8> {
    frame(&serde_json::to_vec(value).expect("our own messages have only string keys"))
}

/// An instruction of a filter as a number.
pub fn pack(instruction: Instruction) -> u64 {
    u64::from(instruction.code)
        | u64::from(instruction.jump_true) << 16
        | u64::from(instruction.jump_false) << 24
        | u64::from(instruction.value) << 32
}

/// An instruction of a filter from its number.
pub fn unpack(word: u64) -> Instruction {
    Instruction {
        code: word as u16,
        jump_true: (word >> 16) as u8,
        jump_false: (word >> 24) as u8,
        value: (word >> 32) as u32,
    }
}
