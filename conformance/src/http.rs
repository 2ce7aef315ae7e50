//! The smallest HTTP client: one request a connection, the whole answer.

use std::io::{Read, Write};
use std::time::Duration;

/// Status and body of an answer.
#[derive(Debug)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Head, as sent.
    pub head: String,
    /// Body, chunks joined.
    pub body: String,
}

/// Sends `request` (head and body) over `stream` and reads the answer to its end.
///
/// # Errors
/// A text that says what went wrong, for [`crate::eventually`].
pub fn exchange(stream: &mut (impl Read + Write), request: &[u8]) -> Result<Answer, String> {
    stream.write_all(request).map_err(|error| format!("sending the request: {error}"))?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).map_err(|error| format!("reading the answer: {error}"))?;
    parse(&bytes).ok_or_else(|| format!("not an HTTP answer: {:?}", String::from_utf8_lossy(&bytes)))
}

/// `GET path` over `stream`, which closes afterwards.
///
/// # Errors
/// As [`exchange`].
pub fn get(stream: &mut (impl Read + Write), path: &str) -> Result<Answer, String> {
    exchange(stream, format!("GET {path} HTTP/1.1\r\nHost: skep\r\nConnection: close\r\n\r\n").as_bytes())
}

/// Sends a request with a JSON body over `stream`, which closes afterwards.
///
/// # Errors
/// As [`exchange`].
pub fn request(
    stream: &mut (impl Read + Write),
    method: &str,
    path: &str,
    body: &str,
) -> Result<Answer, String> {
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: skep\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    exchange(stream, request.as_bytes())
}

/// Connects to `address` within two seconds and GETs `/`; the body of a 200 answer.
///
/// # Errors
/// As [`exchange`], and when the answer is not 200.
pub fn fetch(address: std::net::SocketAddr) -> Result<String, String> {
    let timeout = Duration::from_secs(2);
    let mut stream = std::net::TcpStream::connect_timeout(&address, timeout)
        .map_err(|error| format!("connecting to {address}: {error}"))?;
    stream.set_read_timeout(Some(timeout)).map_err(|error| error.to_string())?;
    let answer = get(&mut stream, "/")?;
    if answer.status == 200 { Ok(answer.body) } else { Err(format!("status {}", answer.status)) }
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let body = if chunked { unchunk(body)? } else { body.to_owned() };
    Some(Answer { status, head: head.to_owned(), body })
}

fn unchunk(mut body: &str) -> Option<String> {
    let mut whole = String::new();
    loop {
        let (size, rest) = body.split_once("\r\n")?;
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        if size == 0 {
            return Some(whole);
        }
        whole.push_str(rest.get(..size)?);
        body = rest.get(size..)?.strip_prefix("\r\n")?;
    }
}
