//! Passes questions on to resolvers, and their answers back.
//!
//! One socket a try, connected, from a random port, under a random number: what comes back is from who was asked and for what was
//! asked. A resolver that does not answer soon is not waited for alone: the next one is asked as well, and the first good
//! answer counts. Clients give up after five seconds, so before that there is an answer, if only that there is none.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use rustix::net::SocketType;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpSocket, UdpSocket};
use tokio::time::{sleep_until, timeout};

use super::namespace::{Namespace, Visitor};
use crate::protocol::NamespaceId;
use crate::wire::{MESSAGE_LIMIT, Question, Reply, Transport};

/// How long the next resolver is spared.
const PATIENCE: Duration = Duration::from_millis(700);
/// When a question has no answer.
const DEADLINE: Duration = Duration::from_millis(4500);
/// How often one question is asked at most.
const TRIES: usize = 6;
/// How long one that did not answer is asked after all others.
const DISTRUST: Duration = Duration::from_secs(10);
/// About more resolvers nothing is remembered.
const REMEMBERED: usize = 256;

/// Whom, and from where: the same address is somebody else in another namespace.
type Asked = (Option<NamespaceId>, SocketAddr);

/// Passes questions on.
#[derive(Debug)]
pub(crate) struct Forwarder {
    visitor: Visitor,
    /// When a resolver last left a question unanswered.
    silent: RefCell<HashMap<Asked, Instant>>,
}

impl Forwarder {
    pub(crate) fn new(visitor: Visitor) -> Forwarder {
        Forwarder { visitor, silent: RefCell::default() }
    }

    /// The answer to a question, of whichever resolver has a good one first; they are asked from the namespace, or the
    /// host's own. Of answers that are not good, the last.
    pub(crate) async fn ask(
        &self,
        question: &Question,
        transport: Transport,
        resolvers: &[SocketAddr],
        namespace: Option<&Namespace>,
    ) -> Vec<u8> {
        let order = self.order(resolvers, namespace);
        let mut last = None;
        let tries = self.tries(question, transport, &order, namespace, &mut last);
        match timeout(DEADLINE, tries).await {
            Ok(Some(answer)) => answer,
            Ok(None) | Err(_) => last.unwrap_or_else(|| question.failed()),
        }
    }

    async fn tries(
        &self,
        question: &Question,
        transport: Transport,
        order: &[SocketAddr],
        namespace: Option<&Namespace>,
        last: &mut Option<Vec<u8>>,
    ) -> Option<Vec<u8>> {
        // By TCP nothing is lost on the way, so once is enough.
        let rounds = if transport == Transport::Udp { TRIES } else { order.len().min(TRIES) };
        let mut next = order.iter().copied().cycle().take(if order.is_empty() { 0 } else { rounds });
        let mut asked = FuturesUnordered::new();
        let mut failed = Vec::new();
        let mut due = tokio::time::Instant::now();
        loop {
            // One that has refused is not asked again.
            let resolver = next.find(|resolver| !failed.contains(resolver));
            if let Some(resolver) = resolver {
                asked.push(self.try_one(question, transport, resolver, namespace));
                due = tokio::time::Instant::now() + PATIENCE;
            }
            tokio::select! {
                biased;
                answer = asked.next() => match answer {
                    Some((_, Ok(Reply::Good(answer)))) => return Some(answer),
                    Some((resolver, result)) => {
                        failed.push(resolver);
                        if let Ok(Reply::Failed(answer)) = result {
                            *last = Some(answer);
                        }
                    }
                    None => return None,
                },
                () = sleep_until(due), if resolver.is_some() => {}
            }
        }
    }

    async fn try_one(
        &self,
        question: &Question,
        transport: Transport,
        resolver: SocketAddr,
        namespace: Option<&Namespace>,
    ) -> (SocketAddr, io::Result<Reply>) {
        let whom = (namespace.map(|namespace| namespace.id), resolver);
        let mut silence = Silence { forwarder: self, whom, since: Instant::now(), answered: false };
        let reply = match transport {
            Transport::Udp => self.by_udp(question, resolver, namespace).await,
            Transport::Tcp => self.by_tcp(question, resolver, namespace).await,
        };
        // A refusal is quick, and may be over as quickly.
        silence.answered = true;
        if matches!(reply, Ok(Reply::Good(_))) {
            self.silent.borrow_mut().remove(&whom);
        }
        (resolver, reply)
    }

    async fn by_udp(
        &self,
        question: &Question,
        resolver: SocketAddr,
        namespace: Option<&Namespace>,
    ) -> io::Result<Reply> {
        let socket = self.visitor.socket(namespace, resolver, SocketType::DGRAM).await?;
        let socket = UdpSocket::from_std(socket.into())?;
        socket.connect(resolver).await?;
        let id = random_id()?;
        socket.send(&question.under(id)).await?;
        loop {
            let mut packet = Vec::new();
            // Nobody listens there, which is no less worth knowing at once than an answer.
            let ready = socket.ready(Interest::READABLE | Interest::ERROR).await?;
            // Only now, so that nobody holds memory while waiting.
            packet.reserve_exact(MESSAGE_LIMIT);
            match socket.try_recv_buf(&mut packet) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && !ready.is_error() => continue,
                Err(error) => return Err(error),
            }
            packet.shrink_to_fit();
            match question.reply(id, packet) {
                Reply::Foreign => {}
                reply => return Ok(reply),
            }
        }
    }

    async fn by_tcp(
        &self,
        question: &Question,
        resolver: SocketAddr,
        namespace: Option<&Namespace>,
    ) -> io::Result<Reply> {
        let socket = self.visitor.socket(namespace, resolver, SocketType::STREAM).await?;
        let socket = TcpSocket::from_std_stream(socket.into());
        let mut stream = socket.connect(resolver).await?;
        let id = random_id()?;
        stream.write_all(&with_length(&question.under(id))).await?;
        let length = usize::from(stream.read_u16().await?);
        let mut packet = vec![0; length];
        stream.read_exact(&mut packet).await?;
        Ok(question.reply(id, packet))
    }

    /// Those that answered first.
    fn order(&self, resolvers: &[SocketAddr], namespace: Option<&Namespace>) -> Vec<SocketAddr> {
        let (silent, from) = (self.silent.borrow(), namespace.map(|namespace| namespace.id));
        let is_silent =
            |resolver: &SocketAddr| silent.get(&(from, *resolver)).is_some_and(|at| at.elapsed() < DISTRUST);
        let mut order = resolvers.to_vec();
        order.sort_by_key(is_silent);
        order
    }
}

/// Notes at its end that a resolver was given up on, unless it answered.
struct Silence<'a> {
    forwarder: &'a Forwarder,
    whom: Asked,
    since: Instant,
    answered: bool,
}

impl Drop for Silence<'_> {
    fn drop(&mut self) {
        // One that another overtook has not been silent for long enough to say anything.
        if !self.answered && self.since.elapsed() >= PATIENCE {
            let mut silent = self.forwarder.silent.borrow_mut();
            if silent.len() == REMEMBERED {
                silent.clear();
            }
            silent.insert(self.whom, Instant::now());
        }
    }
}

/// A message as it is on TCP.
pub(crate) fn with_length(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).expect("no message is longer than its length can say");
    [&length.to_be_bytes(), message].concat()
}

fn random_id() -> io::Result<u16> {
    let mut id = [0; 2];
    rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty())?;
    Ok(u16::from_ne_bytes(id))
}
