//! At most once.

use dunlin_core::{Publish, PublishError, QoS};
use dunlin_testkit::Seen::{self, Connected};
use dunlin_testkit::{CLIENT, Message, PUBLISH, Packet, Pair, Split};

#[test]
fn a_message_leaves_once_without_an_identifier() {
    // [MQTT-2.3.1-5] [MQTT-4.3.1-1] [MQTT-3.3.1-2]
    let mut pair = Pair::resuming();
    assert_eq!(pair.publish(&Publish::new("a/b", b"x")), Ok(None));
    let mut out = [0; 64];
    let now = dunlin_core::Instant::from_millis(0);
    let dunlin_core::Transmit::Bytes(count) = pair.client.transmit(now, &mut out) else {
        panic!("PUBLISH is to leave")
    };
    assert_eq!(out[..count], b"\x30\x06\x00\x03a/bx"[..]);
    let dunlin_core::Transmit::Idle = pair.client.transmit(now, &mut out) else { panic!("and nothing else") };
}

#[test]
fn a_message_that_was_cut_off_is_not_sent_again() {
    // [MQTT-4.3.1-1]
    for sent in 0..8 {
        let mut pair = Pair::resuming();
        pair.out = 1;
        pair.wire.up.cut_after = Some(sent);
        pair.publish(&Publish::new("a/b", b"x")).unwrap();
        pair.run();
        assert_eq!(pair.broker.received(), [] as [(&str, &[u8; 1]); 0], "cut after {sent} bytes");
        assert!(pair.sent_of(PUBLISH).len() <= 1, "not again on the next connection");
        assert_eq!(pair.client_events(), [Connected { resumed: true }]);
    }
}

#[test]
fn without_a_connection_it_is_refused() {
    let mut pair = Pair::new(dunlin_testkit::RESUMING);
    assert_eq!(pair.publish(&Publish::new("a", b"1")), Err(PublishError::Offline));
    pair.broker.on_next(dunlin_testkit::CONNACK, dunlin_testkit::Then::Hold);
    pair.run();
    assert_eq!(pair.publish(&Publish::new("a", b"1")), Err(PublishError::Offline));
    pair.broker.release_all();
    pair.run();
    assert_eq!(pair.publish(&Publish::new("a", b"1")), Ok(None));
}

#[test]
fn an_incoming_message_is_shown_and_not_acknowledged() {
    // [MQTT-3.3.4-1] [MQTT-3.3.1-9] [U311-14]
    let mut pair = Pair::clean();
    pair.subscribe("#", QoS::ExactlyOnce).unwrap();
    pair.run();
    pair.clear();
    pair.broker.publish(Message::new("a", "1"));
    pair.broker.publish(Message::new("a", ""));
    pair.run();
    assert_eq!(pair.client_events(), [Seen::Message(Message::new("a", "1")), Seen::Message(Message::new("a", ""))]);
    assert_eq!(pair.sent(), []);
}

#[test]
fn payload_may_be_empty() {
    // [U311-14]
    let mut pair = Pair::clean();
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        pair.publish(&Publish::new("a", b"").with_qos(qos)).unwrap();
    }
    pair.run();
    assert_eq!(pair.broker.received(), [("a", b""), ("a", b""), ("a", b"")]);
}

#[test]
fn retain_leaves_as_the_application_set_it() {
    let mut pair = Pair::clean();
    pair.publish(&Publish::new("kept", b"1").retain()).unwrap();
    pair.publish(&Publish::new("seen", b"2")).unwrap();
    pair.run();
    assert_eq!(pair.broker.received(), [("kept", b"1"), ("seen", b"2")]);
    assert!(pair.broker.retained("kept").is_some() && pair.broker.retained("seen").is_none());
}

#[test]
fn topic_and_payload_pass_unchanged_in_both_directions() {
    // [MQTT-1.5.3-1] [MQTT-1.5.3-3] [MQTT-3.3.2-1] [MQTT-4.7.3-4] [C12]
    let mut pair = Pair::clean();
    pair.subscribe("#", QoS::AtMostOnce).unwrap();
    pair.run();
    let topics = ["\u{feff}a", "a\u{feff}", "/", "//", "a b/ü/日本/🦆", "A", "a", "\u{1}\u{7f}\u{ffff}"];
    for topic in topics {
        pair.clear();
        pair.publish(&Publish::new(topic, b"\x00\xff\xc0\x80")).unwrap();
        pair.run();
        let message = Message::new(topic, b"\x00\xff\xc0\x80");
        assert_eq!(pair.sent(), [Packet::publish(0, message.clone())]);
        assert_eq!(pair.client_events(), [Seen::Message(message)]);
    }
}

#[test]
fn control_characters_in_a_topic_are_accepted() {
    // [C13] [U311-11]
    let mut pair = Pair::clean();
    for code in (1..0x20).chain(0x7f..0xa0).chain([0xfdd0, 0xfffe, 0x1_ffff, 0x10_ffff]) {
        let topic = char::from_u32(code).unwrap().to_string();
        pair.clear();
        pair.broker.inject(CLIENT, Packet::publish(0, Message::new(&topic, "x")));
        pair.run();
        assert_eq!(pair.messages(), [(topic, "x".to_string())]);
    }
}

#[test]
fn several_packets_leave_in_one_piece_and_each_whole_where_it_fits() {
    let mut pair = Pair::clean();
    for _ in 0..3 {
        pair.publish(&Publish::new("a", b"12345").at_least_once()).unwrap(); // 12 bytes each
    }
    let now = dunlin_core::Instant::from_millis(0);
    let mut out = [0; 30];
    assert_eq!(pair.client.transmit(now, &mut out), dunlin_core::Transmit::Bytes(24));
    assert_eq!(pair.client.transmit(now, &mut out), dunlin_core::Transmit::Bytes(12));
}

#[test]
fn one_byte_at_a_time_arrives_as_well_as_all_at_once() {
    // [A24]
    let mut pair = Pair::clean();
    pair.wire.down.split = Split::Every(1);
    pair.wire.up.split = Split::Every(1);
    pair.out = 1;
    pair.subscribe("#", QoS::AtMostOnce).unwrap();
    pair.publish(&Publish::new("a", &[7; 200])).unwrap();
    pair.run();
    assert_eq!(pair.messages(), [("a", &[7; 200])]);
}

#[test]
fn a_message_passes_the_memory_only_if_it_overtakes_nothing() {
    let now = dunlin_core::Instant::from_millis(0);
    let message = Publish::new("a/b", b"x");
    let mut out = [0; 64];
    let mut pair = Pair::new(dunlin_testkit::RESUMING);
    assert_eq!(pair.client.publish_past(&message, &mut out), Err(PublishError::Offline));
    let mut pair = Pair::resuming();
    assert_eq!(pair.client.publish_past(&Publish::new("a/+", b""), &mut out), Err(PublishError::InvalidTopic));
    assert_eq!(pair.client.publish_past(&message.at_least_once(), &mut out), Ok(None));
    assert_eq!(pair.client.publish_past(&message, &mut out[..7]), Ok(None));
    assert_eq!(pair.client.publish_past(&message, &mut out), Ok(Some(8)));
    assert_eq!(out[..8], b"\x30\x06\x00\x03a/bx"[..]);

    // A message or a request that has not left whole, or waits for the window, goes first.
    let waits: [fn(&mut Pair); 4] = [
        |pair| {
            pair.publish(&Publish::new("first", b"")).unwrap();
        },
        |pair| {
            pair.publish(&Publish::new("first", b"").exactly_once()).unwrap();
        },
        |pair| {
            pair.subscribe("first", QoS::AtMostOnce).unwrap();
        },
        |pair| {
            pair.unsubscribe("first").unwrap();
        },
    ];
    for wait in waits {
        wait(&mut pair);
        assert_eq!(pair.client.publish_past(&message, &mut out), Ok(None));
        let _ = pair.client.transmit(now, &mut [0; 3]);
        assert_eq!(pair.client.publish_past(&message, &mut out), Ok(None));
        while pair.client.transmit(now, &mut [0; 3]) != dunlin_core::Transmit::Idle {}
        assert_eq!(pair.client.publish_past(&message, &mut out), Ok(Some(8)));
    }
}

#[test]
fn a_message_that_passes_the_memory_does_not_break_into_a_packet() {
    let message = Publish::new("a/b", b"x");
    let mut out = [0; 64];
    let mut pair = Pair::resuming();
    let now = dunlin_core::Instant::from_millis(pair.now + 59_000); // a ping is due
    assert_eq!(pair.client.transmit(now, &mut out[..1]), dunlin_core::Transmit::Bytes(1));
    assert_eq!(pair.client.publish_past(&message, &mut out), Ok(None), "PINGREQ has begun to leave");
    assert_eq!(pair.client.transmit(now, &mut out[..1]), dunlin_core::Transmit::Bytes(1));
    assert_eq!(pair.client.publish_past(&message, &mut out), Ok(Some(8)));
}
