//! Questions and answers as packets.
//!
//! Whatever comes in a packet, there is an answer or none: nothing here panics, and nothing is larger than what came or
//! [`MESSAGE_LIMIT`].

use std::net::IpAddr;

use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{self, DNSClass, RData, RecordType};

use crate::name::Name;
use crate::resolve::{Answer, Kind};

/// The longest message, in bytes: its length has 16 bits on TCP.
pub(crate) const MESSAGE_LIMIT: usize = 65_535;
/// The longest answer by UDP to who does not say what it can take (RFC 1035), in bytes.
const PLAIN_LIMIT: usize = 512;
/// The longest datagram, in bytes: questions that we take, which we say, and answers that we give.
pub(crate) const DATAGRAM_LIMIT: usize = 4096;
/// A header, in bytes.
const HEADER: usize = 12;
/// For how long an answer of ours may be remembered, in seconds.
///
/// Docker's 600 are what makes clients talk to containers that are gone. Tables change everywhere before a task is
/// stopped, and it is stopped no sooner than its connections have ended: one second of memory is over by then. None at all would make
/// clients that honour it ask for every connection, and some take 0 for a mistake.
const TTL: u32 = 1;

/// What a message came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

/// What a packet turned out to be.
#[derive(Debug)]
pub(crate) enum Received {
    /// A question.
    Question(Question),
    /// Something that is refused with this packet.
    Refused(Vec<u8>),
    /// Nothing that may be answered.
    Noise,
}

/// A question, and all that its answer depends on.
#[derive(Debug)]
pub(crate) struct Question {
    /// As it came.
    pub(crate) packet: Vec<u8>,
    /// Its name; `None` for the root, and for names that no table can have.
    pub(crate) name: Option<Name>,
    pub(crate) kind: Kind,
    message: Message,
    /// Where its question section ends.
    end: usize,
    /// The longest answer, in bytes.
    limit: usize,
}

/// What came back from a resolver.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// An answer to the question.
    Good(Vec<u8>),
    /// The resolver could not answer; another may.
    Failed(Vec<u8>),
    /// No answer to that question.
    Foreign,
}

/// Reads a packet of a client.
pub(crate) fn receive(packet: &[u8], transport: Transport) -> Received {
    let Some(header) = packet.first_chunk::<HEADER>() else { return Received::Noise };
    // Answering an answer is how two servers talk for ever.
    if header[2] & 0x80 != 0 {
        return Received::Noise;
    }
    let (id, op_code) = (u16::from_be_bytes([header[0], header[1]]), OpCode::from_u8(header[2] >> 3 & 0xf));
    let refuse = |code| Received::Refused(encode(&Message::error_msg(id, op_code, code)));
    if op_code != OpCode::Query {
        return refuse(ResponseCode::NotImp);
    }
    let (Ok(message), Some(end)) = (Message::from_vec(packet), question_end(packet)) else {
        return refuse(ResponseCode::FormErr);
    };
    let [asked] = message.queries.as_slice() else { return refuse(ResponseCode::FormErr) };
    let (name, kind) = match asked.query_class {
        DNSClass::IN | DNSClass::ANY => (table_name(&asked.name), kind_of(asked.query_type)),
        _ => (None, Kind::Other),
    };
    let limit = match (transport, &message.edns) {
        (Transport::Tcp, _) => MESSAGE_LIMIT,
        (Transport::Udp, Some(edns)) => usize::from(edns.max_payload()).clamp(PLAIN_LIMIT, DATAGRAM_LIMIT),
        (Transport::Udp, None) => PLAIN_LIMIT,
    };
    let is_later_edns = message.edns.as_ref().is_some_and(|edns| edns.version() > 0);
    let question = Question { packet: packet.to_vec(), name, kind, end, limit, message };
    if is_later_edns {
        return Received::Refused(question.failure(ResponseCode::BADVERS));
    }
    Received::Question(question)
}

impl Question {
    /// The packet that says `answer`. Its order is the answer's.
    pub(crate) fn answer(&self, answer: &Answer) -> Vec<u8> {
        let mut message = self.response(ResponseCode::NoError);
        let owner = &self.message.queries[0].name;
        let record = |data| rr::Record::from_rdata(owner.clone(), TTL, data);
        message.answers = match answer {
            Answer::Addresses(addresses) => {
                addresses.iter().map(|address| record(address_data(*address))).collect()
            }
            Answer::Names(names) => {
                names.iter().filter_map(|name| Some(record(pointer_data(name)?))).collect()
            }
            Answer::Missing => {
                message.metadata.response_code = ResponseCode::NXDomain;
                Vec::new()
            }
            Answer::Forward => {
                message.metadata.response_code = ResponseCode::ServFail;
                Vec::new()
            }
        };
        self.fitting(message)
    }

    /// The packet that says that there will be no answer.
    pub(crate) fn failed(&self) -> Vec<u8> {
        self.failure(ResponseCode::ServFail)
    }

    fn failure(&self, code: ResponseCode) -> Vec<u8> {
        encode(&self.response(code))
    }

    /// The question as it is asked of a resolver, under a number of our own.
    pub(crate) fn under(&self, id: u16) -> Vec<u8> {
        let mut packet = self.packet.clone();
        packet[..2].copy_from_slice(&id.to_be_bytes());
        packet
    }

    /// What a packet says that a resolver sent when asked under `id`. What is good is as the client gets it.
    pub(crate) fn reply(&self, id: u16, mut packet: Vec<u8>) -> Reply {
        let Some(header) = packet.first_chunk::<HEADER>() else { return Reply::Foreign };
        let code = header[3] & 0xf;
        let is_without_question = header[4..6] == [0, 0];
        // Some resolvers leave out of a refusal what they could not read.
        let is_ours = packet.get(HEADER..self.end) == Some(&self.packet[HEADER..self.end])
            || is_without_question && code != 0;
        if header[..2] != id.to_be_bytes() || header[2] & 0x80 == 0 || !is_ours {
            return Reply::Foreign;
        }
        if packet.len() > self.limit {
            let mut message = self.response(ResponseCode::from_low(code));
            message.metadata.truncation = true;
            return Reply::Good(encode(&message));
        }
        packet[..2].copy_from_slice(&self.packet[..2]);
        // Success and NXDOMAIN are what a name is; all else is what a resolver is.
        if matches!(code, 0 | 3) { Reply::Good(packet) } else { Reply::Failed(packet) }
    }

    fn response(&self, code: ResponseCode) -> Message {
        let mut metadata = Metadata::response_from_request(&self.message.metadata);
        metadata.recursion_available = true;
        metadata.response_code = code;
        let mut message = Message::new(metadata.id, MessageType::Response, metadata.op_code);
        message.metadata = metadata;
        message.queries = self.message.queries.clone();
        if let Some(asked) = &self.message.edns {
            let mut edns = Edns::new();
            let limit = u16::try_from(DATAGRAM_LIMIT).expect("it is less than 2^16");
            edns.set_max_payload(limit).set_dnssec_ok(asked.flags().dnssec_ok);
            message.edns = Some(edns);
        }
        message
    }

    /// The packet, with as many answers as fit. What is left out of a datagram can be asked for by TCP.
    fn fitting(&self, mut message: Message) -> Vec<u8> {
        let mut packet = encode(&message);
        while packet.len() > self.limit && !message.answers.is_empty() {
            // All are about equally long: nearly always this is right at once.
            let each = packet.len().div_ceil(message.answers.len() + 1);
            let surplus = (packet.len() - self.limit).div_ceil(each).max(1);
            message.answers.truncate(message.answers.len().saturating_sub(surplus));
            message.metadata.truncation = self.limit < MESSAGE_LIMIT;
            packet = encode(&message);
        }
        packet
    }
}

/// Whether an answer says that the name exists.
pub(crate) fn is_success(answer: &[u8]) -> bool {
    answer.get(3).is_some_and(|byte| byte & 0xf == 0)
}

fn encode(message: &Message) -> Vec<u8> {
    message.to_vec().expect("names and numbers of records come from packets and tables, which are shorter")
}

fn address_data(address: IpAddr) -> RData {
    match address {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    }
}

fn pointer_data(name: &Name) -> Option<RData> {
    let name = rr::Name::from_labels(name.as_str().split('.').map(str::as_bytes)).ok()?;
    Some(RData::PTR(PTR(name)))
}

fn kind_of(asked: RecordType) -> Kind {
    match asked {
        RecordType::A => Kind::A,
        RecordType::AAAA => Kind::Aaaa,
        RecordType::PTR => Kind::Ptr,
        RecordType::SVCB | RecordType::HTTPS => Kind::Service,
        RecordType::ANY => Kind::Any,
        _ => Kind::Other,
    }
}

/// The name as tables would have it.
fn table_name(name: &rr::Name) -> Option<Name> {
    let mut text = String::with_capacity(name.len());
    for label in name {
        // A dot inside a label is no border between two.
        if label.contains(&b'.') {
            return None;
        }
        if !text.is_empty() {
            text.push('.');
        }
        text.push_str(std::str::from_utf8(label).ok()?);
    }
    Name::new(&text)
}

/// Where the only question of a packet ends.
fn question_end(packet: &[u8]) -> Option<usize> {
    let mut at = HEADER;
    loop {
        match usize::from(*packet.get(at)?) {
            0 => break,
            length @ 1..=63 => at += 1 + length,
            // Nothing comes before it that it could point to.
            _ => return None,
        }
    }
    let end = at + 1 + 4;
    (end <= packet.len()).then_some(end)
}

#[cfg(test)]
mod tests;
