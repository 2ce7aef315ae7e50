//! The least of an HTTP client: one request to a daemon, one JSON answer.

use std::fmt;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::config::DEFAULT_HOST;

/// A join may take a while.
const LIMIT: Duration = Duration::from_secs(60);

/// Where a daemon answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Daemon {
    /// At a socket of this machine.
    Unix(PathBuf),
    /// At `address:port`.
    Tcp(String),
}

/// How the command line says which daemon is meant.
#[derive(clap::Args, Debug)]
pub struct Host {
    /// The daemon's socket, unix:///... or tcp://address:port; otherwise what DOCKER_HOST says, or Docker's own.
    #[arg(short = 'H', long, global = true)]
    host: Option<String>,
}

impl Host {
    /// The daemon that is meant.
    ///
    /// # Errors
    /// For hosts that are neither unix:// nor tcp://.
    pub fn daemon(&self) -> Result<Daemon> {
        let said = self.host.clone().or_else(|| std::env::var("DOCKER_HOST").ok());
        parse(&said.filter(|host| !host.is_empty()).unwrap_or_else(|| DEFAULT_HOST.to_owned()))
    }
}

fn parse(host: &str) -> Result<Daemon> {
    if let Some(path) = host.strip_prefix("unix://") {
        return Ok(Daemon::Unix(PathBuf::from(path)));
    }
    let address = host.strip_prefix("tcp://").map(|address| address.trim_end_matches('/'));
    let Some(address) = address.filter(|address| !address.is_empty() && !address.contains('/')) else {
        bail!("{host}: only unix://<path> and tcp://<address>:<port> are spoken here");
    };
    // As Docker's client: the port that it has been since ever.
    let has_port = address.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    Ok(Daemon::Tcp(if has_port { address.to_owned() } else { format!("{address}:2375") }))
}

impl fmt::Display for Daemon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Daemon::Unix(path) => write!(f, "{}", path.display()),
            Daemon::Tcp(address) => write!(f, "{address}"),
        }
    }
}

/// Asks for something.
pub fn get(daemon: &Daemon, path: &str) -> Result<Value> {
    request(daemon, "GET", path, "")
}

/// Asks for a change.
pub fn post(daemon: &Daemon, path: &str, body: &Value) -> Result<Value> {
    request(daemon, "POST", path, &body.to_string())
}

/// Hands a file over.
pub fn load(daemon: &Daemon, file: &Path) -> Result<()> {
    let mut content = std::fs::File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
    let length = content.metadata()?.len();
    let mut stream = connect(daemon)?;
    write!(
        stream,
        "POST /images/load?quiet=1 HTTP/1.1\r\nHost: skep\r\nConnection: close\r\n\
         Content-Type: application/x-tar\r\nContent-Length: {length}\r\n\r\n"
    )?;
    std::io::copy(&mut content, &mut stream)?;
    answer(stream).map(|_| ())
}

/// A name as a segment of a path, or as a parameter's value.
pub fn encoded(name: &str) -> String {
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    name.bytes()
        .map(|byte| if keep(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// A connection of either kind.
trait Stream: Read + Write {}
impl<S: Read + Write> Stream for S {}

fn connect(daemon: &Daemon) -> Result<Box<dyn Stream>> {
    let silent = || format!("the daemon does not answer at {daemon}");
    Ok(match daemon {
        Daemon::Unix(path) => {
            let stream = UnixStream::connect(path).with_context(silent)?;
            stream.set_read_timeout(Some(LIMIT))?;
            Box::new(stream)
        }
        Daemon::Tcp(address) => {
            let stream = TcpStream::connect(address).with_context(silent)?;
            stream.set_read_timeout(Some(LIMIT))?;
            Box::new(stream)
        }
    })
}

fn request(daemon: &Daemon, method: &str, path: &str, body: &str) -> Result<Value> {
    let mut stream = connect(daemon)?;
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: skep\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )?;
    let text = answer(stream)?;
    // `/_ping` answers plain text.
    Ok(serde_json::from_str(&text).unwrap_or(Value::Null))
}

fn answer(mut stream: Box<dyn Stream>) -> Result<String> {
    let mut text = String::new();
    stream.read_to_string(&mut text).context("the daemon's answer broke off")?;
    let (head, body) = text.split_once("\r\n\r\n").context("the daemon's answer is not HTTP")?;
    let status: u16 = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    if !(200..300).contains(&status) {
        let said: Option<Value> = serde_json::from_str(body).ok();
        let message = said.as_ref().and_then(|said| said["message"].as_str()).unwrap_or(body);
        bail!("{message} (status {status})");
    }
    Ok(body.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_sockets_or_addresses() {
        let unix = |path: &str| Some(Daemon::Unix(PathBuf::from(path)));
        let tcp = |address: &str| Some(Daemon::Tcp(address.to_owned()));
        assert_eq!(parse("unix:///run/d.sock").ok(), unix("/run/d.sock"));
        assert_eq!(parse("tcp://10.0.0.1:99").ok(), tcp("10.0.0.1:99"));
        assert_eq!(parse("tcp://[::1]:99/").ok(), tcp("[::1]:99"));
        assert_eq!(parse("tcp://manager").ok(), tcp("manager:2375"));
        for bad in ["ssh://a", "tcp://", "tcp://a/b", "npipe:////./pipe", ""] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
