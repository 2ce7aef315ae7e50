//! A resolver that does as it is told.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{self, RData};

/// How often a thread looks whether it is to end.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What it answers: packets to a question that came by TCP or not.
type Behaviour = dyn Fn(&Message, bool) -> Vec<Vec<u8>> + Send + Sync;

/// A resolver, which listens until it is dropped.
pub struct Resolver {
    asked: Arc<Mutex<Vec<String>>>,
    ended: Arc<Mutex<bool>>,
    threads: Vec<JoinHandle<()>>,
}

impl Resolver {
    /// One on the machine of the calling thread.
    pub fn start(
        address: SocketAddr,
        behaviour: impl Fn(&Message, bool) -> Vec<Vec<u8>> + Send + Sync + 'static,
    ) -> Resolver {
        let (asked, ended) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<Mutex<bool>>::default());
        let behaviour: Arc<Behaviour> = Arc::new(behaviour);
        let udp = UdpSocket::bind(address).unwrap();
        udp.set_read_timeout(Some(LOOK_EVERY)).unwrap();
        let tcp = TcpListener::bind(address).unwrap();
        tcp.set_nonblocking(true).unwrap();
        let by_udp = {
            let (asked, ended, behaviour) = (Arc::clone(&asked), Arc::clone(&ended), Arc::clone(&behaviour));
            move || {
                while !*ended.lock().unwrap() {
                    let mut packet = [0; 4096];
                    let Ok((length, client)) = udp.recv_from(&mut packet) else { continue };
                    for answer in answers(&packet[..length], false, &asked, &*behaviour) {
                        let _ = udp.send_to(&answer, client);
                    }
                }
            }
        };
        let by_tcp = {
            let (asked, ended) = (Arc::clone(&asked), Arc::clone(&ended));
            move || {
                while !*ended.lock().unwrap() {
                    match tcp.accept() {
                        Ok((stream, _)) => drop(converse(stream, &asked, &*behaviour)),
                        Err(_) => std::thread::sleep(LOOK_EVERY),
                    }
                }
            }
        };
        let threads = vec![std::thread::spawn(by_udp), std::thread::spawn(by_tcp)];
        Resolver { asked, ended, threads }
    }

    /// One that knows every name: by these addresses.
    pub fn knowing(address: SocketAddr, addresses: &'static [[u8; 4]]) -> Resolver {
        Resolver::start(address, move |question, _| vec![found(question, addresses)])
    }

    /// The names that it was asked for.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        *self.ended.lock().unwrap() = true;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn answers(packet: &[u8], tcp: bool, asked: &Mutex<Vec<String>>, behaviour: &Behaviour) -> Vec<Vec<u8>> {
    let question = Message::from_vec(packet).unwrap();
    asked.lock().unwrap().push(question.queries[0].name.to_ascii());
    behaviour(&question, tcp)
}

fn converse(mut stream: TcpStream, asked: &Mutex<Vec<String>>, behaviour: &Behaviour) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut packet = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut packet)?;
    for answer in answers(&packet, true, asked, behaviour) {
        stream.write_all(&(answer.len() as u16).to_be_bytes())?;
        stream.write_all(&answer)?;
    }
    Ok(())
}

/// The answer with these addresses; cut like a datagram's when there are many and `tcp` is false.
pub fn found(question: &Message, addresses: &[[u8; 4]]) -> Vec<u8> {
    let mut answer = response(question);
    let owner = question.queries[0].name.clone();
    let record =
        |address: &[u8; 4]| rr::Record::from_rdata(owner.clone(), 60, RData::A(A((*address).into())));
    answer.answers = addresses.iter().map(record).collect();
    answer.to_vec().unwrap()
}

/// The answer that is only a code.
pub fn code(question: &Message, code: ResponseCode) -> Vec<u8> {
    let mut answer = response(question);
    answer.metadata.response_code = code;
    answer.to_vec().unwrap()
}

/// The answer that there is more by TCP.
pub fn cut(question: &Message) -> Vec<u8> {
    let mut answer = response(question);
    answer.metadata.truncation = true;
    answer.to_vec().unwrap()
}

fn response(question: &Message) -> Message {
    let mut answer = question.clone();
    answer.metadata.message_type = MessageType::Response;
    answer
}
