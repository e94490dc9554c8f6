//! A server that breaks the rules: one line per rule, and what is not forbidden beside it.

use dunlin_core::{Fault, Options, Publish, QoS, Violation};
use dunlin_testkit::Seen::{Delivered, Fault as Faulted};
use dunlin_testkit::{
    CLIENT, Message, PUBACK, PUBCOMP, PUBLISH, PUBREC, Packet, Pair, RESUMING, Rng, Sizes, Split, Then, raw, seeds,
};

use crate::id;

/// A connected client that waits for SUBACK (#1), UNSUBACK (#2), PUBACK (#3), PUBREC (#4) and PUBCOMP (#5).
fn busy() -> Pair {
    let mut pair = Pair::resuming();
    pair.drop_next(dunlin_testkit::SUBACK);
    pair.drop_next(dunlin_testkit::UNSUBACK);
    pair.drop_next(PUBACK);
    pair.drop_next(PUBREC);
    pair.drop_next(PUBCOMP);
    pair.subscribe("s", QoS::AtMostOnce).unwrap();
    pair.unsubscribe("u").unwrap();
    pair.publish(&Publish::new("a", b"3").at_least_once()).unwrap();
    pair.publish(&Publish::new("a", b"4").exactly_once()).unwrap();
    pair.publish(&Publish::new("a", b"5").exactly_once()).unwrap();
    pair.run();
    pair.clear();
    pair
}

/// These bytes end the connection: one fault, nothing shown, nothing sent, and the session goes on afterwards.
#[track_caller]
fn ends(bytes: &[u8], violation: Violation) {
    // [MQTT-4.8.0-1] [A31] Valid packets behind it, in the same segment, are not looked at.
    for behind in [&b""[..], b"\x40\x02\x00\x03\x30\x04\x00\x01ax"] {
        // In one piece and byte by byte.
        for split in [Split::Whole, Split::Every(1)] {
            let mut pair = busy();
            pair.wire.down.split = split;
            pair.send_raw(&[bytes, behind].concat());
            pair.run();
            assert_eq!(pair.client_events(), [Faulted(Fault::Malformed(violation))], "{bytes:02x?}");
            assert_eq!(pair.sent(), [], "{bytes:02x?}");
            assert!(!pair.is_open(), "{bytes:02x?}");
            pair.clear();
            pair.run();
            assert_eq!(
                pair.take_events()[1..].iter().filter(|seen| matches!(seen, Delivered(_))).count(),
                3,
                "{bytes:02x?}"
            );
            assert!(pair.client.is_idle(), "{bytes:02x?}");
        }
    }
}

#[test]
fn packet_types_that_no_server_sends() {
    // [A01] [A02] [B14] [B15] [B16] [B17] [B18] [U311-02]
    ends(b"\x00\x00", Violation::PacketType);
    ends(b"\xf0\x00", Violation::PacketType);
    ends(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01c", Violation::PacketType); // CONNECT
    ends(b"\x82\x06\x00\x01\x00\x01a\x00", Violation::PacketType); // SUBSCRIBE
    ends(b"\xa2\x05\x00\x01\x00\x01a", Violation::PacketType); // UNSUBSCRIBE
    ends(b"\xc0\x00", Violation::PacketType); // PINGREQ
    ends(b"\xe0\x00", Violation::PacketType); // DISCONNECT
    for first in 0..=255_u8 {
        if [0, 1, 8, 10, 12, 14, 15].contains(&(first >> 4)) {
            ends(&[first, 0], Violation::PacketType);
        }
    }
}

#[test]
fn wrong_flags_in_the_fixed_header() {
    // [MQTT-2.2.2-2] [MQTT-3.6.1-1] [A03] [A04] [A05] [A06] [A07] [A08] [A09] [A10]
    let packets: [(u8, &[u8]); 8] = [
        (0x20, b"\x00\x00"),
        (0x40, b"\x00\x03"),
        (0x50, b"\x00\x04"),
        (0x62, b"\x00\x09"),
        (0x70, b"\x00\x05"),
        (0x90, b"\x00\x01\x00"),
        (0xb0, b"\x00\x02"),
        (0xd0, b""),
    ];
    for (right, body) in packets {
        for flags in 0..16 {
            let first = right & 0xf0 | flags;
            if first != right {
                ends(&raw(first, body), Violation::Flags);
            }
        }
    }
}

#[test]
fn a_connack_with_flags_does_not_connect() {
    // [A03]
    let mut pair = Pair::new(RESUMING);
    pair.drop_next(dunlin_testkit::CONNACK);
    pair.run();
    pair.send_raw(b"\x21\x02\x00\x00");
    pair.run();
    assert_eq!(pair.client_events(), [Faulted(Fault::Malformed(Violation::Flags))]);
}

#[test]
fn lengths_that_a_packet_cannot_have() {
    // [A19] [A20] [A21] [A22] [A23] [U311-03]
    for first in [0x20, 0x40, 0x50, 0x62, 0x70, 0xb0] {
        for body in [&b""[..], b"\x00", b"\x00\x03\x00", b"\x00\x03\x00\x00"] {
            if first != 0x20 {
                ends(&raw(first, body), Violation::Length);
            }
        }
    }
    for body in [&b""[..], b"\x00", b"\x00\x01"] {
        ends(&raw(0x90, body), Violation::Length);
    }
    ends(b"\xd0\x01x", Violation::Length);
    for body in [&b""[..], b"\x00", b"\x00\x00\x00"] {
        let mut pair = Pair::new(RESUMING);
        pair.drop_next(dunlin_testkit::CONNACK);
        pair.run();
        pair.send_raw(&raw(0x20, body));
        pair.run();
        assert_eq!(pair.client_events(), [Faulted(Fault::Malformed(Violation::Length))]);
    }
}

#[test]
fn a_remaining_length_of_five_bytes_is_refused_at_the_fourth() {
    // [A11] [U311-01]
    ends(b"\x30\xff\xff\xff\xff\x7f", Violation::Length);
    ends(b"\x30\xff\xff\xff\xff", Violation::Length);
    ends(b"\xd0\x80\x80\x80\x80\x00", Violation::Length);
    ends(b"\x40\x82\x80\x80\x80\x00\x00\x03", Violation::Length);
}

#[test]
fn a_longer_form_of_a_length_than_needed_is_accepted() {
    // [A13]
    let mut pair = busy();
    pair.send_raw(b"\xd0\x80\x00\xd0\x80\x80\x80\x00\x40\x82\x80\x00\x00\x03\x30\x84\x80\x80\x00\x00\x01ax");
    pair.run();
    assert_eq!(pair.client_events()[0], Delivered(id(3)));
    assert_eq!(pair.messages(), [("a", b"x")]);
}

#[test]
fn publish_with_fields_that_run_over_its_end() {
    // [A14] [A15] [A16] [A18]
    ends(b"\x30\x00", Violation::Length);
    ends(b"\x30\x01\x00", Violation::Length);
    ends(b"\x30\x07\xff\xffAAAAA", Violation::Length);
    ends(b"\x30\x03\x00\x02a", Violation::Length);
    ends(b"\x32\x03\x00\x01a", Violation::Length);
    ends(b"\x32\x04\x00\x01a\x00", Violation::Length);
    ends(b"\x34\x04\x00\x01a\x00", Violation::Length);
}

#[test]
fn publish_with_an_impossible_quality_of_service_or_dup() {
    // [C01] [C02] [MQTT-3.3.1-2] [MQTT-3.3.1-4] The strict reading of DUP at QoS 0 is ours.
    for first in [0x36, 0x37, 0x3e, 0x3f] {
        ends(&raw(first, b"\x00\x01a\x00\x07x"), Violation::QoS);
    }
    ends(b"\x38\x04\x00\x01ax", Violation::Duplicate);
    ends(b"\x39\x04\x00\x01ax", Violation::Duplicate);
}

#[test]
fn packet_identifier_zero() {
    // [C03] [C04] [D02] [MQTT-2.3.1-1]
    ends(b"\x32\x06\x00\x01a\x00\x00x", Violation::PacketId);
    ends(b"\x34\x06\x00\x01a\x00\x00x", Violation::PacketId);
    for first in [0x40, 0x50, 0x62, 0x70, 0xb0] {
        ends(&raw(first, b"\x00\x00"), Violation::PacketId);
    }
    ends(b"\x90\x03\x00\x00\x00", Violation::PacketId);
}

#[test]
fn topic_names_that_are_none() {
    // [A17] [C05] [C06] [MQTT-3.3.2-2] [MQTT-4.7.1-1] [MQTT-4.7.3-1]
    ends(b"\x30\x03\x00\x00x", Violation::Topic);
    ends(b"\x32\x05\x00\x00\x00\x07x", Violation::Topic);
    for topic in ["+", "#", "a/+", "a/#", "a+b", "a#b"] {
        ends(&Packet::publish(7, Message::new(topic, "x").qos(1)).encode(), Violation::Topic);
    }
    // Nothing but an empty topic: too short to hold even that, by our check of lengths.
    let mut pair = busy();
    pair.send_raw(b"\x30\x02\x00\x00");
    pair.run();
    assert!(matches!(pair.client_events(), [Faulted(Fault::Malformed(_))]), "{:?}", pair.client_events());
}

#[test]
fn texts_that_are_not_utf8_or_hold_nul() {
    // [C07] [C08] [C09] [C10] [C11] [MQTT-1.5.3-1] [MQTT-1.5.3-2] [MQTT-3.3.2-1] [MQTT-4.7.3-2]
    for topic in [
        &b"\xc0\x80"[..],
        b"\xed\xa0\x80",
        b"\xed\xbf\xbf",
        b"a\xe2\x82",
        b"\xf0\x9f\xa6",
        b"\xf5\x80\x80\x80",
        b"\xff",
        b"\xfe",
        b"\x80",
        b"a\xbf",
        b"\xf4\x90\x80\x80",
        b"\xe0\x80\x80",
    ] {
        let mut body = vec![0, topic.len() as u8];
        body.extend(topic);
        body.extend(b"payload");
        ends(&raw(0x30, &body), Violation::Text);
    }
    ends(b"\x30\x03\x00\x01\x00", Violation::Topic);
    ends(b"\x30\x05\x00\x03a\x00b", Violation::Topic);
}

#[test]
fn another_protocol_on_the_port_is_refused_at_its_first_byte() {
    // [A28] [A29]
    for (greeting, violation) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], Violation::Flags),
        (b"\x15\x03\x01\x00\x02\x02\x0a", Violation::PacketType), // TLS alert
        (b"SSH-2.0-OpenSSH", Violation::Flags),
        (b"220 smtp\r\n", Violation::OutOfPlace),
    ] {
        let mut pair = Pair::new(RESUMING);
        pair.drop_next(dunlin_testkit::CONNACK);
        pair.run();
        pair.send_raw(&greeting[..1]);
        pair.run();
        if violation == Violation::OutOfPlace {
            pair.send_raw(&greeting[1..]);
            pair.run();
        }
        assert_eq!(pair.client_events(), [Faulted(Fault::Malformed(violation))], "{greeting:02x?}");
    }
}

#[test]
fn acknowledgements_of_unknown_identifiers_are_counted_and_ignored() {
    // [D01] [D04] [D24]
    let mut pair = busy();
    for unknown in [&b"\x40\x02\x00\x09"[..], b"\x40\x02\xff\xff", b"\x70\x02\x00\x09", b"\x70\x02\xff\xff"] {
        pair.send_raw(unknown);
    }
    pair.run();
    assert_eq!((pair.client_events(), pair.sent()), (&[][..], &[][..]));
    assert_eq!(pair.client.ignored_count(), 4);
    assert_eq!(pair.client.outgoing_count(), 3);
}

#[test]
fn pubrec_and_pubrel_of_unknown_identifiers_are_answered() {
    // [D03] [D05] [D11]
    let mut pair = Pair::resuming();
    pair.publish(&Publish::new("a", b"x").exactly_once()).unwrap();
    pair.run();
    pair.clear();
    pair.broker.inject(CLIENT, Packet::Pubrec(1)); // late: it is over
    pair.broker.inject(CLIENT, Packet::Pubrec(9));
    pair.broker.inject(CLIENT, Packet::Pubrel(8));
    pair.reconnect = true;
    // The broker knows nothing of these either; only the client's answer counts.
    while pair.step() && pair.sent().len() < 3 {}
    assert_eq!(pair.sent(), [Packet::Pubrel(1), Packet::Pubrel(9), Packet::Pubcomp(8)]);
    assert_eq!(pair.client_events(), []);
}

#[test]
fn an_acknowledgement_of_the_wrong_type_leaves_the_message_open() {
    // [D08] [D09] [D10]
    let mut pair = busy();
    pair.send_raw(b"\x40\x02\x00\x04"); // PUBACK for a QoS 2 message
    pair.send_raw(b"\x40\x02\x00\x05"); // ... that is released
    pair.send_raw(b"\x50\x02\x00\x03"); // PUBREC for a QoS 1 message
    pair.send_raw(b"\x70\x02\x00\x03"); // PUBCOMP for a QoS 1 message
    pair.send_raw(b"\x70\x02\x00\x04"); // PUBCOMP before PUBREC
    pair.run();
    assert_eq!(pair.client_events(), []);
    assert_eq!(pair.client.outgoing_count(), 3);
    pair.cut();
    pair.run();
    let delivered = pair.client_events().iter().filter(|seen| matches!(seen, Delivered(_))).count();
    assert_eq!(delivered, 3);
}

#[test]
fn an_ack_storm_costs_nothing() {
    // [D23]
    let mut pair = busy();
    let before = pair.snapshot();
    for first in [0x40, 0x70, 0xb0] {
        for number in (10..=65_535_u16).step_by(7) {
            let [high, low] = number.to_be_bytes();
            pair.inbox.push(&[first, 2, high, low]);
            assert_eq!(pair.poll(), None);
        }
    }
    assert_eq!(pair.client.ignored_count(), 3 * 9361);
    let after = pair.snapshot();
    assert_eq!((after.tx, after.slots, after.received), (before.tx, before.slots, before.received));
    assert_eq!(after.filters, before.filters);
    pair.send_raw(b"\x40\x02\x00\x03");
    pair.run();
    assert_eq!(pair.client_events(), [Delivered(id(3))]);
}

#[test]
fn a_topic_of_slashes_is_a_topic() {
    // [C26] [C14]
    let mut pair = Pair::with(RESUMING, Sizes { rx: 70_000, ..Default::default() }).up();
    for topic in ["/".repeat(65_000), "x".repeat(65_535)] {
        pair.clear();
        pair.broker.inject(CLIENT, Packet::publish(0, Message::new(&topic, "x")));
        pair.run();
        assert_eq!(pair.messages(), [(topic.clone(), "x".to_string())]);
        assert_eq!(dunlin_core::topic::Levels::of(&topic).len(), if topic.starts_with('/') { 8 } else { 1 });
        assert!(dunlin_core::Filter::new("#", QoS::AtMostOnce).unwrap().matches(&topic));
        assert!(!dunlin_core::Filter::new("+/+", QoS::AtMostOnce).unwrap().matches(&topic));
    }
}

#[test]
fn every_valid_packet_may_be_cut_anywhere() {
    // [A26] [A24]
    let packets = [
        Packet::publish(0, Message::new("a", "x")),
        Packet::publish(7, Message::new("a", "x").qos(1)),
        Packet::publish(8, Message::new("a", "x").qos(2)),
        Packet::Puback(3),
        Packet::Pubrec(4),
        Packet::Pubcomp(5),
        Packet::Pubrel(9),
        Packet::Suback { id: 1, codes: vec![0] },
        Packet::Unsuback(2),
        Packet::Pingresp,
    ];
    for packet in packets {
        let bytes = packet.encode();
        let mut whole = busy();
        whole.broker.inject(CLIENT, packet.clone());
        whole.run();
        for cut in 1..bytes.len() {
            let mut pair = busy();
            pair.wire.down.split = Split::Every(cut);
            pair.broker.inject(CLIENT, packet.clone());
            pair.run();
            assert_eq!(pair.client_events(), whole.client_events(), "{packet:?} cut at {cut}");
            assert_eq!(pair.sent(), whole.sent(), "{packet:?} cut at {cut}");
        }
    }
}

#[test]
fn random_bytes_and_bent_packets_end_the_connection_or_are_taken() {
    // [A30]
    const OPTIONS: Options = RESUMING.stream_large(1);
    for seed in seeds(3000) {
        let mut rng = Rng::new(seed);
        let options = if rng.chance(1, 2) { OPTIONS } else { RESUMING };
        let sizes = Sizes { rx: 16 + rng.below(100), received: 2 + rng.below(5), ..Default::default() };
        let mut pair = Pair::with(options, sizes);
        pair.reconnect = rng.chance(9, 10);
        pair.open();
        pair.step();
        let mut bytes = if rng.chance(9, 10) { b"\x20\x02\x00\x00".to_vec() } else { Vec::new() };
        for _ in 0..rng.below(20) {
            let mut packet = some_packet(&mut rng).encode();
            for _ in 0..rng.below(3) {
                let at = rng.below(packet.len());
                match rng.below(3) {
                    0 => packet[at] ^= 1 << rng.below(8),
                    1 => packet.insert(at, rng.number() as u8),
                    _ => drop(packet.remove(at)),
                }
                if packet.is_empty() {
                    break;
                }
            }
            bytes.extend(packet);
        }
        // Only the client is looked at here: no broker answers.
        let mut out = [0; 40];
        let now = dunlin_core::Instant::from_millis(0);
        let (mut rest, mut turns_without_progress) = (&bytes[..], 0);
        for _ in 0..10_000 {
            let taken = pair.inbox.push(&rest[..rest.len().min(1 + rng.below(30))]);
            rest = &rest[taken..];
            if rng.chance(1, 4) {
                let _ =
                    pair.client.publish(&Publish::new("a", b"x").with_qos(QoS::from_bits(rng.below(3) as u8).unwrap()));
            }
            let seen = pair.poll();
            let sent = pair.client.transmit(now, &mut out);
            if matches!(seen, Some(Faulted(_))) || sent == dunlin_core::Transmit::Close {
                pair.client.lost();
                break;
            }
            if rest.is_empty() && seen.is_none() && sent == dunlin_core::Transmit::Idle {
                break;
            }
            let goes_on = taken > 0 || seen.is_some() || sent != dunlin_core::Transmit::Idle;
            turns_without_progress = if goes_on { 0 } else { turns_without_progress + 1 };
            assert!(turns_without_progress < 3, "stuck with {:02x?}, {} more bytes", pair.inbox.pending(), rest.len());
        }
    }
}

fn some_packet(rng: &mut Rng) -> Packet {
    let number = 1 + rng.below(6) as u16;
    let text = "x".repeat(rng.below(60));
    let message = Message::new("a/b", text).qos(rng.below(3) as u8);
    match rng.below(9) {
        0 => Packet::Puback(number),
        1 => Packet::Pubrec(number),
        2 => Packet::Pubrel(number),
        3 => Packet::Pubcomp(number),
        4 => Packet::Suback { id: number, codes: vec![0; 1 + rng.below(3)] },
        5 => Packet::Unsuback(number),
        6 => Packet::Pingresp,
        _ => Packet::Publish { dup: message.qos > 0 && rng.chance(1, 3), id: number, message },
    }
}

#[test]
fn a_fault_is_told_until_the_stream_is_gone_and_nothing_is_sent_meanwhile() {
    // [MQTT-4.8.0-1]
    let mut pair = busy();
    pair.inbox.push(b"\x00\x00");
    let now = dunlin_core::Instant::from_millis(pair.now + 59_000);
    for _ in 0..3 {
        assert_eq!(pair.poll(), Some(Faulted(Fault::Malformed(Violation::PacketType))));
        assert_eq!(pair.client.transmit(now, &mut [0; 64]), dunlin_core::Transmit::Close);
        assert_eq!(pair.client.deadline(), None);
        assert_eq!(pair.client.fault(), Some(Fault::Malformed(Violation::PacketType)));
    }
    pair.cut();
    assert_eq!(pair.client.fault(), None);
    assert_eq!(pair.poll(), None);
    pair.broker.on_next(PUBLISH, Then::Drop);
    pair.run();
    assert!(pair.client.is_idle());
}
