//! The smallest DNS client: one question of type A over UDP, the addresses of the answer.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

/// Where containers ask.
const SERVER: &str = "127.0.0.11:53";
/// Size of a DNS message's head.
const HEAD: usize = 12;
/// Response code of a name that does not exist.
const NXDOMAIN: u8 = 3;

/// Asks for the addresses of `name` from the thread's network namespace; `None` when there is no such name.
///
/// # Errors
/// When there is no answer within two seconds, or one that says that something went wrong.
pub fn addresses(name: &str) -> Result<Option<BTreeSet<Ipv4Addr>>, String> {
    let failed = |error: std::io::Error| format!("asking for {name}: {error}");
    let socket = UdpSocket::bind("0.0.0.0:0").map_err(failed)?;
    socket.set_read_timeout(Some(Duration::from_secs(2))).map_err(failed)?;
    socket.connect(SERVER).map_err(failed)?;
    socket.send(&question(name)).map_err(failed)?;
    let mut answer = [0; 4096];
    let length = socket.recv(&mut answer).map_err(failed)?;
    parse(&answer[..length])
        .ok_or_else(|| format!("asking for {name}: not an answer: {:?}", &answer[..length]))?
}

fn question(name: &str) -> Vec<u8> {
    // Recursion is desired; one question.
    let mut message = vec![0x12, 0x34, 0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).expect("a label is short"));
        message.extend(label.as_bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
    message
}

/// `None` for what is no DNS answer.
fn parse(answer: &[u8]) -> Option<Result<Option<BTreeSet<Ipv4Addr>>, String>> {
    let number = |at: usize| Some(u16::from_be_bytes([*answer.get(at)?, *answer.get(at + 1)?]));
    match answer.get(3)? & 0x0f {
        0 => {}
        NXDOMAIN => return Some(Ok(None)),
        code => return Some(Err(format!("the server answered with code {code}"))),
    }
    let mut at = after_name(answer, HEAD)? + 4;
    let mut addresses = BTreeSet::new();
    for _ in 0..number(6)? {
        at = after_name(answer, at)?;
        let (kind, length) = (number(at)?, usize::from(number(at + 8)?));
        let data = answer.get(at + 10..at + 10 + length)?;
        if kind == 1 {
            addresses.insert(Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?));
        }
        at += 10 + length;
    }
    Some(Ok(Some(addresses)))
}

/// Where a name ends that begins at `at`: at its zero, or after a pointer.
fn after_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            pointer if pointer >= 0xc0 => return Some(at + 2),
            length => at += 1 + usize::from(length),
        }
    }
}
