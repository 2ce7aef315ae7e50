//! What somebody on the wire may do with a join that he has seen: nothing.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use skep_conformance::Lab;

use crate::SOON;

/// Where the one who listens in stands.
const RELAY: &str = "192.0.2.254:2377";
/// The longest that the manager may take to say something to a replay.
const PATIENCE: Duration = Duration::from_secs(10);

/// Passes connections on to a manager until told to stop; keeps what was sent to it.
fn relay(manager: SocketAddr, heard: &Mutex<Vec<Vec<u8>>>, stop: &AtomicBool, ready: &std::sync::Barrier) {
    let listener = TcpListener::bind(RELAY).unwrap();
    listener.set_nonblocking(true).unwrap();
    ready.wait();
    std::thread::scope(|scope| {
        while !stop.load(Ordering::Relaxed) {
            match listener.accept() {
                Ok((joiner, _)) => drop(scope.spawn(move || pass_on(&joiner, manager, heard, stop))),
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    });
}

fn pass_on(joiner: &TcpStream, manager: SocketAddr, heard: &Mutex<Vec<Vec<u8>>>, stop: &AtomicBool) {
    joiner.set_nonblocking(false).unwrap();
    let onward = TcpStream::connect(manager).unwrap();
    let sent = std::thread::scope(|scope| {
        let answers = scope.spawn(|| carry(&onward, joiner, stop));
        let sent = carry(joiner, &onward, stop);
        answers.join().unwrap();
        sent
    });
    heard.lock().unwrap().push(sent);
}

/// Carries bytes one way until they end, or the relay is told to stop; returns them.
fn carry(mut from: &TcpStream, mut to: &TcpStream, stop: &AtomicBool) -> Vec<u8> {
    from.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let (mut carried, mut part) = (Vec::new(), [0; 4096]);
    while !stop.load(Ordering::Relaxed) {
        match from.read(&mut part) {
            Ok(0) => break,
            Ok(length) => {
                carried.extend(&part[..length]);
                if to.write_all(&part[..length]).is_err() {
                    break;
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
    }
    let _ = to.shutdown(Shutdown::Write);
    carried
}

/// Says what was heard, and waits for the end that the manager puts to it.
fn say(manager: SocketAddr, words: &[u8]) {
    let mut stream = TcpStream::connect(manager).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // It may hang up before it has heard all.
    let _ = stream.write_all(words);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("the manager waits on and on"),
        Ok(_) | Err(_) => {}
    }
}

#[test]
fn a_join_that_is_replayed_or_cut_off_lets_nobody_in() {
    let lab = Lab::machines(2, &[]);
    let manager = SocketAddr::new(lab.address(1).into(), 2377);
    lab.docker(1, &["swarm", "init", "--advertise-addr", &lab.address(1).to_string()]).ok();
    let token = lab.token(1, "worker");
    let (heard, stop, ready) = (Mutex::default(), AtomicBool::new(false), std::sync::Barrier::new(2));
    std::thread::scope(|scope| {
        scope.spawn(|| lab.inside(0, || relay(manager, &heard, &stop, &ready)));
        ready.wait();
        let own = lab.address(2).to_string();
        lab.docker(2, &["swarm", "join", "--token", &token, "--advertise-addr", &own, RELAY]).ok();
        let count = ["node", "ls", "--quiet"];
        lab.until(1, "it is let in", SOON, &count, |nodes| nodes.lines().count() == 2);
        stop.store(true, Ordering::Relaxed);
    });
    let nodes = lab.docker(1, &["node", "ls", "--quiet"]).ok();

    let heard = heard.into_inner().unwrap();
    let whole: usize = heard.iter().map(Vec::len).sum();
    assert!(whole > 1000, "the join went through here: {whole} bytes");
    let secret = token.rsplit('-').next().unwrap();
    for words in &heard {
        let seen = words.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(!seen, "the token's secret is not to be seen on the wire");
        lab.inside(0, || {
            say(manager, words);
            say(manager, &words[..words.len() / 2]);
            say(manager, &words[words.len() / 2..]);
        });
    }
    assert_eq!(lab.docker(1, &["node", "ls", "--quiet"]).ok(), nodes);
    // And the door is still open for others.
    let told = lab.docker(2, &["info", "--format", "{{.Swarm.LocalNodeState}}"]).ok();
    assert_eq!(told, "active");
}
