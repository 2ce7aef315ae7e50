//! Visitors: requests at a steady rate, each of which must be answered, on kept connections and on new ones.
//!
//! A kept connection that ends before the first byte of an answer is replaced and the request repeated once, as every
//! client does for what it may repeat (RFC 9112, 9.3.1). Nothing else is forgiven.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The longest that a visitor waits for anything.
const PATIENCE: Duration = Duration::from_secs(5);
/// Visitors of each manner; together they ask at the wanted rate.
const VISITORS: u32 = 4;
/// Failures that are told in words.
const TOLD: usize = 20;

/// How a visitor connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// One connection for all requests.
    Kept,
    /// A connection a request; a name is looked up for each.
    New,
}

/// How visits went.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Visits {
    /// Requests that were answered.
    pub answered: u64,
    /// Requests that were not.
    pub failed: u64,
    /// The first failures, with the time since the visits began.
    pub failures: Vec<String>,
    /// The longest that an answer took.
    pub slowest: Duration,
    /// Who answered how often, by the second word of the answers: `I'm NAME, ...`.
    pub by: BTreeMap<String, u64>,
}

/// Visits under way: asks each of some targets (`host:port`) in turn at a rate, in either manner.
pub struct Load {
    visits: Mutex<Visits>,
    stop: AtomicBool,
    begun: Instant,
}

impl Load {
    /// None yet.
    pub fn new() -> Load {
        Load { visits: Mutex::default(), stop: AtomicBool::new(false), begun: Instant::now() }
    }

    /// How they went until now.
    pub fn visits(&self) -> Visits {
        self.visits.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends [`Load::run`].
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Asks `targets`, `rate` requests a second in all in each manner, until told to stop.
    pub fn run(&self, targets: &[String], rate: u32) {
        let pause = Duration::from_secs(1) * VISITORS / rate.max(1);
        std::thread::scope(|scope| {
            for number in 0..VISITORS * 2 {
                let manner = if number < VISITORS { Manner::Kept } else { Manner::New };
                let target = targets[number as usize % targets.len()].clone();
                let visitor = Visitor { load: self, target, targets, manner, connection: None };
                scope.spawn(move || visitor.run(pause));
            }
        });
    }

    fn answered(&self, who: String, took: Duration) {
        let mut visits = self.visits.lock().unwrap_or_else(PoisonError::into_inner);
        visits.answered += 1;
        visits.slowest = visits.slowest.max(took);
        *visits.by.entry(who).or_default() += 1;
    }

    fn failed(&self, what: &str) {
        let mut visits = self.visits.lock().unwrap_or_else(PoisonError::into_inner);
        visits.failed += 1;
        if visits.failures.len() < TOLD {
            visits.failures.push(format!("{:.1?} {what}", self.begun.elapsed()));
        }
    }
}

impl Default for Load {
    fn default() -> Load {
        Load::new()
    }
}

struct Visitor<'a> {
    load: &'a Load,
    /// Where a kept connection leads.
    target: String,
    /// Where new connections go, in turn.
    targets: &'a [String],
    manner: Manner,
    connection: Option<BufReader<TcpStream>>,
}

/// Why there is no answer.
enum Failure {
    /// The connection was no longer there when it was used again.
    Stale,
    Other(String),
}

impl Visitor<'_> {
    fn run(mut self, pause: Duration) {
        let mut next = Instant::now();
        let mut turn = 0;
        while !self.load.stop.load(Ordering::Relaxed) {
            next += pause;
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
            if self.manner == Manner::New {
                self.connection = None;
                self.target.clone_from(&self.targets[turn % self.targets.len()]);
                turn += 1;
            }
            self.ask();
            // A visitor that was held up does not make up for it with a rush.
            next = next.max(Instant::now() - pause);
        }
    }

    fn ask(&mut self) {
        let asked = Instant::now();
        let answer = match self.exchange() {
            Err(Failure::Stale) => self.exchange(),
            other => other,
        };
        let reason = match answer {
            Ok(who) => return self.load.answered(who, asked.elapsed()),
            Err(Failure::Stale) => "closed again".to_owned(),
            Err(Failure::Other(reason)) => reason,
        };
        self.connection = None;
        let (manner, target) = (self.manner, &self.target);
        self.load.failed(&format!("{manner:?} {target} after {:.1?}: {reason}", asked.elapsed()));
    }

    /// One request; tells who answered.
    fn exchange(&mut self) -> Result<String, Failure> {
        let reused = self.connection.is_some();
        let failed = |what: &str, error: &std::io::Error| Failure::Other(format!("{what}: {error}"));
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => connect(&self.target).map_err(Failure::Other)?,
        };
        let request = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", self.target);
        let gone = |error: &std::io::Error| {
            reused
                && matches!(
                    error.kind(),
                    ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof
                )
        };
        if let Err(error) = connection.get_mut().write_all(request.as_bytes()) {
            return Err(if gone(&error) { Failure::Stale } else { failed("sending", &error) });
        }
        let mut line = String::new();
        match connection.read_line(&mut line) {
            Ok(0) if reused => return Err(Failure::Stale),
            Ok(0) => return Err(Failure::Other("closed without an answer".to_owned())),
            Ok(_) => {}
            Err(error) if line.is_empty() && gone(&error) => return Err(Failure::Stale),
            Err(error) => return Err(failed("receiving", &error)),
        }
        if line.split(' ').nth(1) != Some("200") {
            return Err(Failure::Other(format!("answered {}", line.trim_end())));
        }
        let (body, closes) = rest(&mut connection).map_err(|error| failed("receiving", &error))?;
        if !closes {
            self.connection = Some(connection);
        }
        let who = body.split([' ', ',']).nth(1).unwrap_or_default();
        Ok(who.to_owned())
    }
}

/// Reads the head after its first line, and the body; says whether the connection closes.
fn rest(connection: &mut BufReader<TcpStream>) -> std::io::Result<(String, bool)> {
    let (mut length, mut closes) = (0, false);
    loop {
        let mut line = String::new();
        if connection.read_line(&mut line)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().map_err(|_| ErrorKind::InvalidData)?;
        }
        closes |= line == "connection: close";
    }
    let mut body = vec![0; length];
    connection.read_exact(&mut body)?;
    Ok((String::from_utf8_lossy(&body).into_owned(), closes))
}

fn connect(target: &str) -> Result<BufReader<TcpStream>, String> {
    let mut addresses = target.to_socket_addrs().map_err(|error| format!("looking {target} up: {error}"))?;
    let address = addresses.next().ok_or_else(|| format!("{target} has no address"))?;
    let stream = TcpStream::connect_timeout(&address, PATIENCE)
        .map_err(|error| format!("connecting to {address}: {error}"))?;
    let prepared = stream.set_read_timeout(Some(PATIENCE)).and_then(|()| stream.set_nodelay(true));
    prepared.map_err(|error| error.to_string())?;
    Ok(BufReader::new(stream))
}
