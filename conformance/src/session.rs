//! A client that goes on running while the test talks with it, over pipes or at a terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::{Output, eventually};

/// How long an expected text or end may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running client. Dropping it kills it.
pub struct Session {
    description: String,
    child: Child,
    input: Option<File>,
    /// Whether `input` is the controlling side of a terminal.
    at_terminal: bool,
    output: Transcript,
    error: Option<Transcript>,
}

/// What came out so far, collected by a thread.
struct Transcript {
    text: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
    /// How much of `text` earlier calls of [`Session::expect`] went past.
    seen: usize,
}

impl Session {
    /// Starts `command` with pipes for its three streams.
    pub fn piped(mut command: Command) -> Session {
        let description = format!("{command:?}");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("starting {description}: {error}"));
        let input = File::from(OwnedFd::from(child.stdin.take().unwrap()));
        let output = Transcript::of(File::from(OwnedFd::from(child.stdout.take().unwrap())));
        let error = Transcript::of(File::from(OwnedFd::from(child.stderr.take().unwrap())));
        Session { description, child, input: Some(input), at_terminal: false, output, error: Some(error) }
    }

    /// Starts `command` at a terminal of `rows` and `columns`, which is its controlling terminal.
    pub fn at_terminal(command: &Command, rows: u16, columns: u16) -> Session {
        let description = format!("{command:?}");
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&controller).unwrap();
        unlockpt(&controller).unwrap();
        set_size(&controller, rows, columns);
        let name = ptsname(&controller, Vec::new()).unwrap();
        let terminal = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        let mut session = Command::new("setsid");
        session.arg("--ctty").arg(command.get_program()).args(command.get_args());
        session.envs(command.get_envs().filter_map(|(name, value)| value.map(|value| (name, value))));
        session.stdin(terminal.try_clone().unwrap()).stdout(terminal.try_clone().unwrap()).stderr(terminal);
        let child = session.spawn().unwrap_or_else(|error| panic!("starting {description}: {error}"));
        // The parent's copies of the terminal are closed here, so that its end can be read.
        drop(session);
        let controller = File::from(controller);
        let output = Transcript::of(controller.try_clone().unwrap());
        Session { description, child, input: Some(controller), at_terminal: true, output, error: None }
    }

    /// Types, or writes to standard input.
    pub fn send(&mut self, text: &str) {
        self.input.as_mut().expect("an open input").write_all(text.as_bytes()).unwrap();
    }

    /// Writes bytes to standard input. A client that hangs up amid them is no fault.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        let _ = self.input.as_mut().expect("an open input").write_all(bytes);
    }

    /// Ends standard input.
    pub fn end_input(&mut self) {
        assert!(!self.at_terminal, "a terminal's input ends by control-D");
        self.input = None;
    }

    /// Changes the terminal's size, which the client notices by SIGWINCH.
    pub fn resize(&self, rows: u16, columns: u16) {
        set_size(self.input.as_ref().expect("a terminal"), rows, columns);
    }

    /// Waits until `text` is printed after what was expected before; returns what came until then.
    #[track_caller]
    pub fn expect(&mut self, text: &str) -> String {
        let (description, output) = (&self.description, &mut self.output);
        eventually(&format!("{description} prints {text:?}"), PATIENCE, || output.find(text))
    }

    /// Everything printed to standard output so far.
    pub fn output(&self) -> String {
        self.output.all()
    }

    /// Sends a signal to the client.
    pub fn signal(&self, number: i32) {
        crate::signal(self.child.id(), number);
    }

    /// Waits until the client ends, and returns what it left behind.
    #[track_caller]
    pub fn finish(mut self) -> Output {
        if !self.at_terminal {
            self.input = None;
        }
        let (child, output) = (&mut self.child, &self.output);
        let status = eventually(&format!("{} ends", self.description), PATIENCE, || {
            child.try_wait().unwrap().ok_or_else(|| format!("it runs; it printed:\n{}", output.all()))
        });
        Output {
            command: self.description.clone(),
            code: status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
            stdout: self.output.whole(),
            stderr: self.error.as_mut().map(Transcript::whole).unwrap_or_default(),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Transcript {
    fn of(mut source: File) -> Transcript {
        let text = Arc::new(Mutex::new(Vec::new()));
        let collected = Arc::clone(&text);
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // A terminal whose last user left answers EIO, which is its end of file.
            while let Ok(count @ 1..) = source.read(&mut buffer) {
                collected.lock().unwrap().extend_from_slice(&buffer[..count]);
            }
        });
        Transcript { text, reader: Some(reader), seen: 0 }
    }

    fn find(&mut self, wanted: &str) -> Result<String, String> {
        let text = self.text.lock().unwrap();
        let fresh = &text[self.seen..];
        let at = fresh.windows(wanted.len()).position(|window| window == wanted.as_bytes());
        let Some(at) = at else {
            return Err(format!("it printed {:?}", String::from_utf8_lossy(fresh)));
        };
        let before = String::from_utf8_lossy(&fresh[..at]).into_owned();
        self.seen += at + wanted.len();
        Ok(before)
    }

    fn all(&self) -> String {
        String::from_utf8_lossy(&self.text.lock().unwrap()).into_owned()
    }

    /// Everything up to the end of the stream.
    fn whole(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        self.all()
    }
}

fn set_size(terminal: impl std::os::fd::AsFd, rows: u16, columns: u16) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(terminal, size).unwrap();
}
