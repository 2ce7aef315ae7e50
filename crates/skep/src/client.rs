//! The least of an HTTP client: one request to a daemon's socket, one JSON answer.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// A join may take a while.
const LIMIT: Duration = Duration::from_secs(60);

/// Asks for something.
pub fn get(socket: &Path, path: &str) -> Result<Value> {
    request(socket, "GET", path, "")
}

/// Asks for a change.
pub fn post(socket: &Path, path: &str, body: &Value) -> Result<Value> {
    request(socket, "POST", path, &body.to_string())
}

/// Hands a file over.
pub fn load(socket: &Path, file: &Path) -> Result<()> {
    let mut content = std::fs::File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
    let length = content.metadata()?.len();
    let mut stream = connect(socket)?;
    write!(
        stream,
        "POST /images/load?quiet=1 HTTP/1.1\r\nHost: skep\r\nConnection: close\r\n\
         Content-Type: application/x-tar\r\nContent-Length: {length}\r\n\r\n"
    )?;
    std::io::copy(&mut content, &mut stream)?;
    answer(stream).map(|_| ())
}

fn connect(socket: &Path) -> Result<UnixStream> {
    let stream = UnixStream::connect(socket)
        .with_context(|| format!("the daemon does not answer at {}", socket.display()))?;
    stream.set_read_timeout(Some(LIMIT))?;
    Ok(stream)
}

fn request(socket: &Path, method: &str, path: &str, body: &str) -> Result<Value> {
    let mut stream = connect(socket)?;
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

fn answer(mut stream: UnixStream) -> Result<String> {
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
