use super::*;

/// A large frame as the kernel gives it: Ethernet, IP and transport headers, then `payload` bytes.
fn large(gso_type: u8, payload: usize, segment: u16) -> (Virtio, Vec<u8>) {
    let is_ipv6 = gso_type & !GSO_ECN == GSO_TCP6;
    let mut frame = vec![0x02, 0x42, 10, 9, 0, 3, 0x02, 0x42, 10, 9, 0, 2];
    frame.extend(if is_ipv6 { [0x86, 0xdd] } else { [0x08, 0x00] });
    let (transport_len, protocol, place) = match is_tcp(gso_type) {
        true => (32, 6, 16),
        false => (8, 17, 6),
    };
    let len = (transport_len + payload) as u16;
    if is_ipv6 {
        frame.extend([0x60, 0, 0, 0]);
        frame.extend(len.to_be_bytes());
        frame.extend([protocol, 64]);
        frame.extend((0..32).map(|at| at as u8));
    } else {
        frame.extend([0x45, 0]);
        frame.extend((20 + len).to_be_bytes());
        frame.extend([0xff, 0xfe, 0x40, 0, 64, protocol, 0, 0, 10, 9, 0, 2, 10, 9, 0, 3]);
        let sum = !fold(sum(&frame[14..34]));
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
    }
    let start = frame.len();
    frame.extend(vec![0; transport_len]);
    if is_tcp(gso_type) {
        frame[start + 4..start + 8].copy_from_slice(&0xffff_f000u32.to_be_bytes());
        frame[start + 12] = 0x80;
        frame[start + 13] = 0x10 | TCP_FIN_PSH | TCP_CWR;
    } else {
        frame[start + 4..start + 6].copy_from_slice(&len.to_be_bytes());
    }
    let addresses = if is_ipv6 { 22..54 } else { 26..34 };
    let pseudo = fold(sum(&frame[addresses]) + u64::from(protocol) + u64::from(len));
    frame[start + place..start + place + 2].copy_from_slice(&pseudo.to_be_bytes());
    let header_len = frame.len();
    frame.extend((0..payload).map(|at| (at * 7 / 3) as u8));
    let virtio = Virtio {
        flags: NEEDS_CHECKSUM,
        gso_type,
        header_len: header_len as u16,
        gso_size: segment,
        checksum_start: start as u16,
        checksum_offset: place as u16,
    };
    (virtio, frame)
}

fn packets(virtio: Virtio, bytes: &[u8]) -> Vec<Vec<u8>> {
    let frame = Frame::new(4096, virtio, bytes).expect("a frame of the kernel's");
    let text = |number| {
        let mut text = vec![0; frame.text_len(number)];
        frame.write(number, &mut text);
        text
    };
    (0..frame.packets()).map(text).collect()
}

/// A packet's label, headers and payload.
fn parts(packet: &[u8]) -> (Label, &[u8], &[u8]) {
    let (label, payload) = Label::read(packet).expect("a label");
    (label, &packet[payload..packet.len() - LABEL_LEN], &packet[..payload])
}

/// What the receiver makes of packets that follow each other.
fn put_together(packets: &[Vec<u8>]) -> (Virtio, Vec<u8>) {
    let (label, headers, payload) = parts(&packets[0]);
    let (mut frame, mut payloads) = (headers.to_vec(), payload.to_vec());
    let mut gathered = Whole::new(label, headers, payload.len()).expect("a first segment");
    for packet in &packets[1..] {
        let (next, headers, payload) = parts(packet);
        assert!(next.continues(label));
        assert!(gathered.take(headers, payload.len()));
        payloads.extend(payload);
    }
    let virtio = gathered.finish(&mut frame);
    frame.extend(payloads);
    (virtio, frame)
}

#[test]
fn a_large_frame_comes_out_as_it_went_in() {
    for gso_type in [GSO_TCP4, GSO_TCP6, GSO_UDP, GSO_TCP4 | GSO_ECN] {
        for payload in [1367, 1366 * 2, 30_000, 65_000] {
            let (virtio, frame) = large(gso_type, payload, 1366);
            let packets = packets(virtio, &frame);
            assert_eq!(packets.len(), payload.div_ceil(1366));
            assert_eq!(put_together(&packets), (virtio, frame), "{gso_type} {payload}");
        }
    }
}

#[test]
fn what_came_after_a_lost_segment_is_a_frame_of_its_own() {
    let (virtio, frame) = large(GSO_TCP4, 5000, 1000);
    let packets = packets(virtio, &frame);
    let (before, first) = put_together(&packets[..2]);
    assert_eq!((before.gso_size, first.len()), (1000, 66 + 2000));
    assert_eq!(first[47] & (TCP_FIN_PSH | TCP_CWR), TCP_CWR, "the last segment alone ends");
    let (after, second) = put_together(&packets[3..]);
    assert_eq!((after.gso_size, second.len()), (1000, 66 + 2000));
    assert_eq!(second[38..42], 0xffff_f000u32.wrapping_add(3000).to_be_bytes());
    assert_eq!(second[18..20], 0xfffeu16.wrapping_add(3).to_be_bytes());
    assert_eq!(second[47] & (TCP_FIN_PSH | TCP_CWR), TCP_FIN_PSH);
    assert_eq!(second[66..], frame[66 + 3000..]);
    let (alone, third) = put_together(&packets[4..]);
    assert_eq!((alone.gso_type, alone.gso_size, third.len()), (GSO_NONE, 0, 66 + 1000));
    assert_eq!(alone.flags, NEEDS_CHECKSUM, "the kernel completes it");
}

#[test]
fn frames_that_are_one_packet_pass_unchanged() {
    let bytes = [9; 60];
    let virtio =
        Virtio { flags: NEEDS_CHECKSUM, checksum_start: 34, checksum_offset: 16, ..Virtio::default() };
    for virtio in [virtio, Virtio::default()] {
        let packets = packets(virtio, &bytes);
        let (label, headers, payload) = parts(&packets[0]);
        assert_eq!((packets.len(), label.vni, label.is_segment()), (1, 4096, false));
        assert_eq!((whole(label), headers.len(), payload), (virtio, 0, &bytes[..]));
    }
}

#[test]
fn segments_that_do_not_fit_are_not_put_together() {
    let (virtio, frame) = large(GSO_TCP4, 3500, 1000);
    let packets = packets(virtio, &frame);
    let (label, headers, payload) = parts(&packets[0]);
    let begin = || Whole::new(label, headers, payload.len()).expect("a segment");
    let mut gathered = begin();
    assert!(!gathered.take(headers, 0) && !gathered.take(headers, 1001), "none, or too long");
    assert!(gathered.take(headers, 500), "a short one");
    assert!(!gathered.take(headers, 1000), "ends it");
    let mut gathered = begin();
    let fitting = (1..).take_while(|_| gathered.take(headers, 1000)).count();
    assert_eq!(fitting, (MOST_FRAME - 66) / 1000 - 1, "an IP packet has a longest length");
}

#[test]
fn whatever_a_node_or_the_kernel_says_nothing_is_read_out_of_bounds() {
    let mut state = 1u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u32
    };
    for _ in 0..200_000 {
        let len = random() as usize % 120;
        let mut text: Vec<u8> = (0..len).map(|_| random() as u8).collect();
        if len > 40 {
            // What is likely to be looked into further: headers only, or some of them payload.
            let header_len = (len - LABEL_LEN - random() as usize % 20) as u8;
            let label = [0, 0, 9, random() as u8 & 3, 34, [16, 6][random() as usize % 2]];
            text[len - LABEL_LEN..len - 2].copy_from_slice(&label);
            (text[len - 2], text[len - 1]) = ([0, 1, 4, 5, 0x81][random() as usize % 5], header_len);
            let start = len - LABEL_LEN - usize::from(header_len);
            (text[start + 12], text[start + 13]) = (0x08, [0x00, 0x01][random() as usize % 2]);
        }
        let Some((label, payload)) = Label::read(&text) else { continue };
        let mut headers = text[payload..text.len() - LABEL_LEN].to_vec();
        if let Some(mut gathered) = Whole::new(label, &headers, payload) {
            gathered.take(&headers.clone(), random() as usize % 70_000);
            gathered.finish(&mut headers);
        }
        let bytes = &text[..text.len() - LABEL_LEN];
        let virtio = Virtio {
            flags: label.flags,
            gso_type: label.gso_type,
            header_len: random() as u16,
            gso_size: random() as u16 % 64,
            checksum_start: u16::from(label.checksum_start),
            checksum_offset: u16::from(label.checksum_offset),
        };
        if let Some(frame) = Frame::new(1, virtio, bytes) {
            for number in 0..frame.packets() {
                frame.write(number, &mut vec![0; frame.text_len(number)]);
            }
        }
    }
}
