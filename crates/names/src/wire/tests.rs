use std::net::Ipv4Addr;

use hickory_proto::op::Query;
use proptest::prelude::*;

use super::*;

fn packet(name: &str, kind: RecordType, edns: Option<u16>) -> Vec<u8> {
    let mut message = Message::query();
    message.metadata.id = 77;
    message.metadata.recursion_desired = true;
    let labels = name.split('.').filter(|label| !label.is_empty()).map(str::as_bytes);
    message.add_query(Query::query(rr::Name::from_labels(labels).expect("a name"), kind));
    if let Some(limit) = edns {
        let mut edns = Edns::new();
        edns.set_max_payload(limit).set_dnssec_ok(true);
        message.set_edns(edns);
    }
    message.to_vec().expect("a packet")
}

fn question(packet: &[u8], transport: Transport) -> Question {
    match receive(packet, transport) {
        Received::Question(question) => question,
        other => panic!("{other:?}"),
    }
}

fn refusal(packet: &[u8]) -> ResponseCode {
    match receive(packet, Transport::Udp) {
        Received::Refused(packet) => Message::from_vec(&packet).expect("an answer").metadata.response_code,
        other => panic!("{other:?}"),
    }
}

fn addresses(count: u32) -> Answer {
    Answer::Addresses((1..=count).map(|number| Ipv4Addr::from_bits(0x0a00_0000 + number).into()).collect())
}

#[test]
fn a_question_is_read_in_any_case() {
    let question = question(&packet("Tasks.WEB.", RecordType::AAAA, None), Transport::Udp);
    assert_eq!(question.name, Name::new("tasks.web"));
    assert_eq!(question.kind, Kind::Aaaa);
}

#[test]
fn an_answer_repeats_the_question_as_it_was_written() {
    let question = question(&packet("wEb.", RecordType::A, None), Transport::Udp);
    let answer = Message::from_vec(&question.answer(&addresses(2))).expect("an answer");
    assert_eq!(answer.metadata.id, 77);
    assert_eq!(answer.metadata.message_type, MessageType::Response);
    assert!(answer.metadata.recursion_desired && answer.metadata.recursion_available);
    assert!(!answer.metadata.truncation);
    assert!(answer.queries[0].name.eq_case(&rr::Name::from_ascii("wEb.").expect("a name")));
    assert_eq!(answer.answers.len(), 2);
    assert!(answer.answers.iter().all(|record| record.ttl == TTL));
    assert!(answer.edns.is_none(), "who did not ask for it may not understand it");
}

#[test]
fn a_missing_name_and_a_missing_type_differ() {
    let question = question(&packet("web.", RecordType::AAAA, None), Transport::Udp);
    let code =
        |answer| Message::from_vec(&question.answer(&answer)).expect("an answer").metadata.response_code;
    assert_eq!(code(Answer::Missing), ResponseCode::NXDomain);
    assert_eq!(code(Answer::Addresses(Vec::new())), ResponseCode::NoError);
}

#[test]
fn an_address_has_its_names() {
    let question = question(&packet("2.1.0.10.in-addr.arpa.", RecordType::PTR, None), Transport::Udp);
    let names = Answer::Names(vec![Name::new("web.1.x_y.shop").expect("a name")]);
    let answer = Message::from_vec(&question.answer(&names)).expect("an answer");
    assert_eq!(answer.answers[0].data.to_string(), "web.1.x_y.shop.");
}

#[test]
fn a_long_answer_is_cut_for_datagrams_only() {
    let answer_to = |edns, transport| {
        let question = question(&packet("web.", RecordType::A, edns), transport);
        let packet = question.answer(&addresses(400));
        let answer = Message::from_vec(&packet).expect("an answer");
        (packet.len(), answer.answers.len(), answer.metadata.truncation)
    };
    let (length, count, cut) = answer_to(None, Transport::Udp);
    assert!(cut && length <= 512 && count == 30, "{length} {count}: what old clients take must fit well");
    let (length, count, cut) = answer_to(Some(1232), Transport::Udp);
    assert!(cut && length <= 1232 && count > 70, "{length} {count}");
    let (length, count, cut) = answer_to(Some(65_535), Transport::Udp);
    assert!(cut && length <= DATAGRAM_LIMIT && count > 200, "{length} {count}");
    assert_eq!(answer_to(None, Transport::Tcp).1, 400);
    assert!(!answer_to(None, Transport::Tcp).2);
}

#[test]
fn edns_is_answered_with_what_we_take() {
    let question = question(&packet("web.", RecordType::A, Some(1232)), Transport::Udp);
    let answer = Message::from_vec(&question.answer(&addresses(1))).expect("an answer");
    let edns = answer.edns.expect("edns");
    assert_eq!(edns.max_payload(), 4096);
    assert!(edns.flags().dnssec_ok);
}

#[test]
fn what_is_no_question_is_refused_by_its_fault() {
    let mut update = packet("web.", RecordType::A, None);
    update[2] = 5 << 3;
    assert_eq!(refusal(&update), ResponseCode::NotImp);
    let mut none = packet("web.", RecordType::A, None);
    none.truncate(12);
    none[5] = 0;
    assert_eq!(refusal(&none), ResponseCode::FormErr);
    let mut cut = packet("web.", RecordType::A, None);
    cut.truncate(15);
    assert_eq!(refusal(&cut), ResponseCode::FormErr);
    let mut later = packet("web.", RecordType::A, Some(512));
    let version = later.len() - 5;
    later[version] = 1;
    assert_eq!(u16::from(refusal(&later)), 16, "BADVERS, a number that BADSIG has too");
    assert!(matches!(receive(&[0; 5], Transport::Udp), Received::Noise));
    let mut answer = packet("web.", RecordType::A, None);
    answer[2] |= 0x80;
    assert!(matches!(receive(&answer, Transport::Udp), Received::Noise));
}

#[test]
fn only_the_answer_to_the_question_counts() {
    let question = question(&packet("example.com.", RecordType::A, None), Transport::Udp);
    let asked = question.under(500);
    assert_eq!(asked[..2], [1, 244]);
    let reply = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut packet = asked.clone();
        packet[2] |= 0x80;
        change(&mut packet);
        question.reply(500, packet)
    };
    assert!(matches!(reply(&|_| {}), Reply::Good(packet) if packet[..2] == [0, 77]));
    assert!(matches!(reply(&|packet| packet[3] |= 3), Reply::Good(_)), "no such name");
    assert!(matches!(reply(&|packet| packet[3] |= 2), Reply::Failed(_)), "server failure");
    assert!(matches!(reply(&|packet| packet[3] |= 5), Reply::Failed(_)), "refused");
    assert_eq!(reply(&|packet| packet[1] = 0), Reply::Foreign, "another number");
    assert_eq!(reply(&|packet| packet[2] &= 0x7f), Reply::Foreign, "a question");
    assert_eq!(reply(&|packet| packet[14] ^= 0x20), Reply::Foreign, "another question");
    assert_eq!(reply(&|packet| packet.truncate(11)), Reply::Foreign);
    let bare = |code: u8| {
        reply(&|packet| {
            packet.truncate(12);
            packet[5] = 0;
            packet[3] |= code;
        })
    };
    assert!(matches!(bare(1), Reply::Failed(_)), "what it could not read it does not repeat");
    assert_eq!(bare(0), Reply::Foreign);
}

#[test]
fn an_answer_that_is_too_long_for_the_client_says_so() {
    let question = question(&packet("example.com.", RecordType::A, None), Transport::Udp);
    let mut packet = question.under(500);
    packet[2] |= 0x80;
    packet.resize(600, 0);
    let Reply::Good(answer) = question.reply(500, packet) else { panic!("it is good") };
    let answer = Message::from_vec(&answer).expect("an answer");
    assert!(answer.metadata.truncation && answer.metadata.id == 77);
}

#[test]
fn names_that_no_table_has_are_still_questions() {
    assert_eq!(question(&packet(".", RecordType::NS, None), Transport::Udp).name, None);
    let dotted = rr::Name::from_labels([&b"a.b"[..], b"c"]).expect("a name");
    let mut message = Message::query();
    message.add_query(Query::query(dotted, RecordType::A));
    let packet = message.to_vec().expect("a packet");
    assert_eq!(question(&packet, Transport::Udp).name, None);
}

/// Whatever happens to a packet, reading it ends, and what is answered is an answer within its limits.
fn survives(packet: &[u8], transport: Transport) {
    match receive(packet, transport) {
        Received::Noise => {}
        Received::Refused(answer) => assert!(answer[2] & 0x80 != 0 && answer.len() <= packet.len() + 64),
        Received::Question(question) => {
            for answer in [addresses(0), addresses(300), Answer::Missing, Answer::Forward] {
                let answer = question.answer(&answer);
                assert!(answer[2] & 0x80 != 0 && answer.len() <= question.limit.max(packet.len() + 64));
                assert_eq!(answer[..2], packet[..2]);
            }
            assert!(question.failed().len() <= packet.len() + 64);
        }
    }
}

proptest! {
    #[test]
    fn noise_is_survived(packet in prop::collection::vec(any::<u8>(), 0..600)) {
        survives(&packet, Transport::Udp);
        survives(&packet, Transport::Tcp);
    }

    #[test]
    fn damaged_questions_are_survived(
        name in "([a-z0-9_-]{1,20}\\.){1,6}",
        kind in any::<u16>(),
        edns in any::<Option<u16>>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
        cuts in any::<bool>(),
    ) {
        let mut packet = packet(&name, RecordType::from(kind), edns);
        for (at, byte) in damage {
            let at = at.index(packet.len());
            packet[at] = byte;
        }
        if cuts {
            packet.truncate(cut.index(packet.len()));
        }
        survives(&packet, Transport::Udp);
        survives(&packet, Transport::Tcp);
    }

    #[test]
    fn any_reply_is_survived(
        packet in prop::collection::vec(any::<u8>(), 0..600),
        id in any::<u16>(),
        like in any::<bool>(),
    ) {
        let question = question(&self::packet("example.com.", RecordType::A, None), Transport::Udp);
        let mut packet = packet;
        if like && packet.len() > 12 {
            packet[..2].copy_from_slice(&id.to_be_bytes());
            packet[2] |= 0x80;
        }
        if let Reply::Good(answer) | Reply::Failed(answer) = question.reply(id, packet) {
            assert!(answer.len() <= question.limit);
        }
    }
}
