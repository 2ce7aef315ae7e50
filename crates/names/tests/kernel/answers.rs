//! What the tables say is what clients hear.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use skep_names::{ADDRESS, Forwarding, Name, PORT, ZoneConfig};

use crate::support::{World, entry, exchange, exchange_by_tcp, question};

const A: RecordType = RecordType::A;
const AAAA: RecordType = RecordType::AAAA;

/// An answer that needs nobody else comes within that, on a busy machine too.
const AT_ONCE: Duration = Duration::from_millis(500);

pub async fn a_service_has_its_address_and_its_tasks_theirs() {
    let world = World::with_shop();
    let sandbox = world.sandbox("one", &["shop-id"], Forwarding::Host).await;
    for name in ["web", "WEB.", "web.shop", "shop-front", "Shop-Front.SHOP"] {
        assert_eq!(sandbox.addresses(name, A), ["10.0.1.2"], "{name}");
        assert_eq!(sandbox.addresses(name, AAAA), ["fd00:1::a00:102"], "{name}");
    }
    assert_eq!(sandbox.addresses("tasks.web", A), ["10.0.1.3", "10.0.1.4"]);
    assert_eq!(sandbox.addresses("tasks.web.shop", A), ["10.0.1.3", "10.0.1.4"]);
    assert_eq!(sandbox.addresses("web.2.def", A), ["10.0.1.4"]);
    assert_eq!(sandbox.addresses("db", A), ["10.0.1.5", "10.0.1.6", "10.0.1.7"]);
    assert_eq!(sandbox.addresses("box_1", A), ["10.0.1.9"]);
    assert_eq!(sandbox.addresses("0123456789ab", A), ["10.0.1.9"]);
    assert_eq!(sandbox.addresses("2.1.0.10.in-addr.arpa", RecordType::PTR), ["web.shop."]);
    assert_eq!(sandbox.addresses("4.1.0.10.in-addr.arpa", RecordType::PTR), ["web.2.def.shop."]);
    assert_eq!(sandbox.addresses("9.1.0.10.in-addr.arpa", RecordType::PTR), ["box_1.shop."]);
    let six = "2.0.1.0.0.0.a.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.0.0.d.f.ip6.arpa";
    assert_eq!(sandbox.addresses(six, RecordType::PTR), ["web.shop."]);
    for (name, kind) in
        [("db", AAAA), ("web", RecordType::MX), ("web", RecordType::TXT), ("web", RecordType::HTTPS)]
    {
        let answer = sandbox.ask(name, kind).unwrap();
        assert_eq!((answer.code, answer.data.len()), (ResponseCode::NoError, 0), "{name} {kind}");
    }
    for (name, kind) in [("nobody", A), ("nobody", AAAA), ("99.1.0.10.in-addr.arpa", RecordType::PTR)] {
        let answer = sandbox.ask(name, kind).unwrap();
        assert_eq!(answer.code, ResponseCode::NXDomain, "{name} {kind}");
        assert!(answer.after < AT_ONCE, "{name} {kind}: after {:?}", answer.after);
    }
}

pub async fn addresses_are_shuffled() {
    let world = World::with_shop();
    let sandbox = world.sandbox("one", &["shop-id"], Forwarding::Host).await;
    let client = sandbox.client();
    let firsts: BTreeSet<String> =
        (0..200).map(|_| exchange(&client, "tasks.db", A).unwrap().data[0].clone()).collect();
    assert_eq!(firsts.len(), 3, "each is first at times");
}

pub async fn networks_answer_in_the_sandboxs_order() {
    let world = World::with_shop();
    world.names.set_zone("back-id", ZoneConfig { domain: Name::new("back"), subnets: Vec::new() });
    world.names.set_entry("back-id", "web-id", entry(&[("web", &["10.0.2.2"], true)]));
    world.names.set_entry("back-id", "log-id", entry(&[("log", &["10.0.2.3"], true)]));
    let front = world.sandbox("front", &["shop-id", "back-id"], Forwarding::Host).await;
    let back = world.sandbox("back", &["back-id", "shop-id"], Forwarding::Host).await;
    let apart = world.sandbox("apart", &["shop-id"], Forwarding::Host).await;
    assert_eq!(front.addresses("web", A), ["10.0.1.2"]);
    assert_eq!(back.addresses("web", A), ["10.0.2.2"]);
    assert_eq!(back.addresses("web.shop", A), ["10.0.1.2"]);
    assert_eq!(front.addresses("log", A), ["10.0.2.3"]);
    assert_eq!(apart.code("log", A), ResponseCode::NXDomain);
}

pub async fn changes_are_answered_at_once() {
    let world = World::with_shop();
    let sandbox = world.sandbox("one", &["shop-id"], Forwarding::Host).await;
    let client = sandbox.client();
    for round in 0..50 {
        let address = format!("10.0.1.{}", 100 + round);
        world.names.set_entry("shop-id", "web-id", entry(&[("web", &[&address], true)]));
        assert!(world.names.settled().await);
        assert_eq!(exchange(&client, "web", A).unwrap().data, [address]);
    }
    world.names.remove_entry("shop-id", "web-id");
    assert!(world.names.settled().await);
    assert_eq!(sandbox.code("web", A), ResponseCode::NXDomain);
    world.names.remove_zone("shop-id");
    assert!(world.names.settled().await);
    assert_eq!(sandbox.code("db", A), ResponseCode::NXDomain);
}

pub async fn a_long_answer_goes_on_by_tcp() {
    let world = World::with_shop();
    let addresses: Vec<String> =
        (0..300).map(|number| format!("10.0.{}.{}", number / 250, number % 250)).collect();
    let texts: Vec<&str> = addresses.iter().map(String::as_str).collect();
    world.names.set_entry("shop-id", "big-id", entry(&[("tasks.big", &texts, false)]));
    let sandbox = world.sandbox("one", &["shop-id"], Forwarding::Host).await;
    let by_udp = sandbox.ask("tasks.big", A).unwrap();
    assert!(by_udp.is_cut && by_udp.data.len() > 20, "{by_udp:?}");
    let by_tcp = exchange_by_tcp(&mut sandbox.connection(), "tasks.big", A).unwrap();
    assert_eq!((by_tcp.data.len(), by_tcp.is_cut), (300, false));
    // As a client does it by itself.
    let (at, port) = (format!("@{ADDRESS}"), PORT.to_string());
    let dig = |options: &[&str]| {
        let words = [&["dig", &at, "-p", &port, "+time=5", "+tries=1", "tasks.big"], options].concat();
        String::from_utf8(sandbox.command(&words).stdout).unwrap()
    };
    let short = dig(&["+short"]);
    assert_eq!(short.lines().filter(|line| line.starts_with("10.0.")).count(), 300, "{short}");
    let whole = dig(&["+ignore", "+bufsize=4096"]);
    assert!(whole.contains("flags: qr tc rd ra") && whole.contains("udp: 4096"), "{whole}");
}

pub async fn several_questions_on_one_connection() {
    let world = World::with_shop();
    let sandbox = world.sandbox("one", &["shop-id"], Forwarding::Host).await;
    let mut stream = sandbox.connection();
    for _ in 0..5 {
        assert_eq!(exchange_by_tcp(&mut stream, "web", A).unwrap().data, ["10.0.1.2"]);
    }
    // At once, and in pieces.
    let packet = question(9, "web.1.abc", A);
    let framed = [&(packet.len() as u16).to_be_bytes(), packet.as_slice()].concat();
    for piece in [framed.clone(), framed].concat().chunks(7) {
        stream.write_all(piece).unwrap();
    }
    for _ in 0..2 {
        let mut length = [0; 2];
        stream.read_exact(&mut length).unwrap();
        let mut packet = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut packet).unwrap();
        assert_eq!(packet[..2], [0, 9]);
    }
}

pub async fn noise_harms_nobody() {
    let world = World::with_shop();
    let sandbox = world.sandbox("one", &["shop-id"], Forwarding::Host).await;
    let neighbour = world.sandbox("two", &["shop-id"], Forwarding::Host).await;
    let (server, client) = (world.server(), sandbox.client());
    let mut state = 1u64;
    for length in (0..2000).map(|number| number % 600) {
        let noise: Vec<u8> = (0..length)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 33) as u8
            })
            .collect();
        // A full queue refuses some; that is the kernel's answer to noise.
        let _ = client.send(&noise);
    }
    sandbox.connection().write_all(&[0xff; 300]).unwrap();
    sandbox.connection().write_all(&[0, 3, 1, 2, 3]).unwrap();
    assert_eq!(neighbour.addresses("web", A), ["10.0.1.2"]);
    assert_eq!(sandbox.addresses("web", A), ["10.0.1.2"]);
    assert_eq!(world.server(), server, "it is the same process");
}

pub async fn connections_are_limited() {
    let world = World::with_shop();
    let sandbox = world.sandbox("one", &["shop-id"], Forwarding::Host).await;
    let mut idle: Vec<_> = (0..32).map(|_| sandbox.connection()).collect();
    for stream in &mut idle {
        exchange_by_tcp(stream, "web", A).unwrap();
    }
    let one_more = exchange_by_tcp(&mut sandbox.connection(), "web", A);
    assert!(one_more.is_err(), "{one_more:?}");
    assert_eq!(sandbox.addresses("web", A), ["10.0.1.2"], "datagrams do not wait for connections");
    drop(idle);
    crate::support::until("a connection is free again", Duration::from_secs(5), || {
        exchange_by_tcp(&mut sandbox.connection(), "web", A).is_ok()
    })
    .await;
}
