//! Messages larger than any buffer, both ways.

use dunlin_core::{
    Event, External, Fault, Inbox, Instant, Options, Oversize, Publish, PublishError, QoS, Session, Storage, Transmit,
    Violation,
};
use dunlin_testkit::Seen::{self, Chunk, Connected, Delivered, Fault as Faulted, Skipped};
use dunlin_testkit::{
    CLIENT, Message, PINGRESP, PUBACK, PUBCOMP, PUBREC, PUBREL, Packet, Pair, Persistence, RESUMING, Rng, Sizes, Split,
    Then, seeds,
};

use crate::id;

const STREAMING: Options = RESUMING.stream_large(4);
const SKIPPING: Options = RESUMING.oversize(Oversize::Skip);

/// An inbox of this many bytes.
fn inbox(rx: usize) -> Sizes {
    Sizes { rx, ..Default::default() }
}

fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 + at / 256) as u8).collect()
}

/// The chunks of one message put together, checked as they come: topic first, no gap, whole units but for the last.
fn assembled(events: &[Seen], align: usize) -> Vec<(String, Vec<u8>)> {
    let mut messages: Vec<(String, Vec<u8>)> = Vec::new();
    let mut open: Option<(String, Vec<u8>)> = None;
    for seen in events {
        match seen {
            Chunk { topic, offset, total, bytes } => {
                if let Some(topic) = topic {
                    assert_eq!(*offset, 0);
                    open = Some((topic.clone(), Vec::new()));
                }
                let (_, so_far) = open.as_mut().expect("a first chunk with the topic");
                assert_eq!(so_far.len(), *offset);
                so_far.extend(bytes);
                let is_last = so_far.len() == *total;
                assert!(is_last || bytes.len().is_multiple_of(align), "{} bytes", bytes.len());
                if is_last {
                    messages.extend(open.take());
                }
            }
            Connected { .. } => open = None,
            Seen::Message(message) => messages.push((message.topic.clone(), message.payload.clone())),
            other => panic!("{other:?}"),
        }
    }
    messages
}

#[test]
fn a_message_of_any_length_comes_in_chunks_whatever_the_pieces() {
    for len in [50, 51, 52, 53, 60, 100, 1000, 20_000] {
        for split in [Split::Whole, Split::Every(1), Split::Every(3), Split::Every(64)] {
            for qos in [0, 1, 2] {
                let mut pair = Pair::with(STREAMING, inbox(48)).up();
                pair.broker.always(PUBREL, Then::Drop);
                pair.wire.down.split = split.clone();
                let message = Message::new("fw/cam/image", payload(len)).qos(qos);
                pair.broker.inject(CLIENT, Packet::publish(7, message));
                pair.broker.inject(CLIENT, Packet::publish(0, Message::new("after", "x")));
                pair.run();
                let expected = [("fw/cam/image".to_string(), payload(len)), ("after".to_string(), b"x".to_vec())];
                assert_eq!(assembled(pair.client_events(), 4), expected, "{len} {split:?}");
                let answer: &[Packet] = match qos {
                    0 => &[],
                    1 => &[Packet::Puback(7)],
                    _ => &[Packet::Pubrec(7)],
                };
                assert_eq!(pair.sent(), answer);
            }
        }
    }
}

#[test]
fn a_message_in_pieces_may_take_longer_than_the_answer_to_a_ping_which_stands_behind_it() {
    // [A27]
    for (options, payloads) in [(STREAMING, 1), (SKIPPING, 0)] {
        let mut pair = Pair::with(options.keep_alive(8).answer_timeout(3), inbox(48)).up();
        pair.broker.always(PINGRESP, Then::Drop);
        let packet = Packet::publish(0, Message::new("fw/cam/image", payload(400))).encode();
        for piece in packet.chunks(20) {
            pair.send_raw(piece);
            pair.run_for(2_000);
            assert_eq!(pair.fault(), None);
        }
        let events = pair.take_events();
        assert_eq!(events.iter().filter(|event| matches!(event, Skipped { .. })).count(), 1 - payloads);
        assert_eq!(assembled(&events[..events.len() - (1 - payloads)], 4).len(), payloads);
        // One that stops coming does not.
        pair.send_raw(&packet[..100]);
        pair.run_for(20_000);
        assert_eq!(pair.fault(), Some(Fault::Silent));
    }
}

#[test]
fn a_message_that_fits_is_whole_and_one_byte_more_is_not() {
    // [C16]
    for rx in [32, 200] {
        for over in 0..3 {
            let mut pair = Pair::with(STREAMING, inbox(rx)).up();
            let head = if rx > 127 { 3 } else { 2 };
            let len = rx + over - head - 3;
            pair.broker.inject(CLIENT, Packet::publish(0, Message::new("a", payload(len))));
            pair.run();
            match pair.client_events() {
                [Seen::Message(message)] if over == 0 => assert_eq!(message.payload, payload(len)),
                events if over > 0 => assert_eq!(assembled(events, 4), [("a".to_string(), payload(len))]),
                other => panic!("{rx} {over}: {other:?}"),
            }
        }
    }
}

#[test]
fn a_chunked_message_is_acknowledged_after_its_last_chunk_was_handled() {
    let mut pair = Pair::with(STREAMING, inbox(48)).up();
    let message = Message::new("a", payload(100)).qos(1);
    let bytes = Packet::publish(7, message).encode();
    pair.send_raw(&bytes[..bytes.len() - 1]);
    pair.run();
    assert_eq!(pair.sent(), []);
    pair.send_raw(&bytes[bytes.len() - 1..]);
    pair.step();
    assert_eq!(pair.sent(), [], "the last chunk is being shown");
    while pair.step() && pair.sent().is_empty() {}
    assert_eq!(pair.sent(), [Packet::Puback(7)]);
    pair.reconnect = false;
}

#[test]
fn a_receipt_that_is_used_twice_does_not_acknowledge_a_message_that_is_still_coming() {
    // [MQTT-4.3.2-2] [MQTT-4.3.3-2]
    for qos in [1, 2] {
        for options in [STREAMING.manual_acks(), SKIPPING.manual_acks()] {
            let mut pair = Pair::with(options, inbox(48)).up();
            pair.send_raw(&Packet::publish(7, Message::new("a", "1").qos(qos)).encode());
            pair.run();
            let receipt = pair.receipts[0];
            assert!(pair.client.acknowledge(receipt));
            if qos == 2 {
                pair.run();
                pair.send_raw(&Packet::Pubrel(7).encode());
            }
            pair.run();
            pair.clear();
            // Another message under the same identifier.
            let bytes = Packet::publish(7, Message::new("a", payload(100)).qos(qos)).encode();
            pair.send_raw(&bytes[..bytes.len() - 1]);
            pair.run();
            assert!(!pair.client.acknowledge(receipt));
            pair.run();
            assert_eq!(pair.sent(), []);
            pair.reconnect = false;
            pair.cut();
            pair.run();
            assert_eq!(pair.client.outgoing_count(), 0);
        }
    }
}

#[test]
fn a_chunked_message_that_was_cut_starts_again_at_its_beginning() {
    for qos in [1, 2] {
        for cut in 1..130 {
            let mut pair = Pair::with(STREAMING, inbox(48)).up();
            pair.subscribe("a", QoS::ExactlyOnce).unwrap();
            pair.run();
            pair.clear();
            pair.wire.down.cut_after = Some(cut);
            pair.broker.publish(Message::new("a", payload(100)).qos(qos));
            pair.run();
            let messages = assembled(pair.client_events(), 4);
            let expected = ("a".to_string(), payload(100));
            assert!(messages.iter().all(|message| *message == expected));
            if qos == 2 {
                assert_eq!(messages.len(), 1, "cut after {cut}");
            }
            assert!(!messages.is_empty());
            assert_eq!(pair.broker.unfinished(CLIENT), 0);
        }
    }
}

#[test]
fn a_chunked_qos2_message_that_comes_again_is_not_shown_again() {
    // [MQTT-4.3.3-2]
    let mut pair = Pair::with(STREAMING, inbox(48)).up();
    pair.broker.always(PUBREL, Then::Drop);
    let message = Message::new("a", payload(100)).qos(2);
    pair.broker.inject(CLIENT, Packet::publish(7, message.clone()));
    pair.run();
    pair.broker.inject(CLIENT, Packet::Publish { dup: true, id: 7, message });
    pair.run();
    assert_eq!(assembled(pair.client_events(), 4).len(), 1);
    assert_eq!(pair.sent(), [Packet::Pubrec(7), Packet::Pubrec(7)]);
}

#[test]
fn a_message_that_is_too_large_ends_the_connection_by_default_and_once() {
    // [C15] [MQTT-4.8.0-2] [A12]
    for qos in [0, 1, 2] {
        let mut pair = Pair::with(RESUMING, inbox(48)).up();
        pair.subscribe("a", QoS::ExactlyOnce).unwrap();
        pair.run();
        pair.clear();
        let message = Message::new("a", payload(100)).qos(qos);
        let len = Packet::publish(1, message.clone()).encode().len();
        pair.broker.publish(message);
        pair.run();
        assert_eq!(pair.take_events(), [Faulted(Fault::TooLarge { len })]);
        assert_eq!(pair.sent(), [], "no acknowledgement for what was not delivered");
        // The server sends it again on each connection; ending each of them helps nobody.
        pair.run();
        let seen = pair.take_events();
        if qos == 0 {
            assert_eq!(seen, [Connected { resumed: true }]);
        } else {
            assert_eq!(seen, [Connected { resumed: true }, Skipped { qos: QoS::from_bits(qos).unwrap(), len }]);
            assert_eq!(pair.broker.unfinished(CLIENT), 0);
            assert_eq!(pair.client.skipped_count(), 1);
        }
    }
}

#[test]
fn a_message_that_is_too_large_is_skipped_on_request_and_the_stream_stays_in_step() {
    // [C15] [C16] [MQTT-4.5.0-2]
    for qos in [0, 1, 2] {
        for topic_len in [1, 20, 45, 60, 300] {
            for payload_len in [0, 1, 30, 50, 1000] {
                let message = Message::new(&"t".repeat(topic_len), payload(payload_len)).qos(qos);
                let packet = Packet::publish(7, message);
                let len = packet.encode().len();
                if len <= 48 {
                    continue;
                }
                for split in [Split::Whole, Split::Every(1), Split::Every(5)] {
                    let mut pair = Pair::with(SKIPPING, inbox(48)).up();
                    pair.broker.always(PUBREL, Then::Drop);
                    pair.wire.down.split = split;
                    pair.broker.inject(CLIENT, packet.clone());
                    pair.broker.inject(CLIENT, Packet::publish(0, Message::new("after", "x")));
                    pair.run();
                    let skipped = Skipped { qos: QoS::from_bits(qos).unwrap(), len };
                    assert_eq!(pair.client_events(), [skipped, Seen::Message(Message::new("after", "x"))]);
                    let answer: &[Packet] = match qos {
                        0 => &[],
                        1 => &[Packet::Puback(7)],
                        _ => &[Packet::Pubrec(7)],
                    };
                    assert_eq!(pair.sent(), answer);
                }
            }
        }
    }
}

#[test]
fn a_skipped_message_is_acknowledged_also_where_that_is_left_to_the_application() {
    // [MQTT-4.3.2-2] [MQTT-4.3.3-2]
    for (qos, answer) in [(1, Packet::Puback(7)), (2, Packet::Pubrec(7))] {
        let mut pair = Pair::with(SKIPPING.manual_acks(), inbox(48)).up();
        pair.send_raw(&Packet::publish(7, Message::new("a", payload(100)).qos(qos)).encode());
        pair.send_raw(&Packet::publish(8, Message::new("a", "1").qos(1)).encode());
        pair.run();
        assert_eq!(pair.sent().first(), Some(&answer));
        assert!(pair.client.acknowledge(pair.receipts[0]));
        pair.run();
        assert_eq!(pair.sent().last(), Some(&Packet::Puback(8)), "nothing is held up");
        pair.reconnect = false;
    }
}

#[test]
fn a_skipped_qos2_message_that_comes_again_is_reported_once() {
    let mut pair = Pair::with(SKIPPING, inbox(48)).up();
    pair.broker.always(PUBREL, Then::Drop);
    let message = Message::new("a", payload(100)).qos(2);
    pair.broker.inject(CLIENT, Packet::publish(7, message.clone()));
    pair.run();
    pair.broker.inject(CLIENT, Packet::Publish { dup: true, id: 7, message });
    pair.run();
    assert_eq!(pair.client_events().len(), 1);
    assert_eq!(pair.sent(), [Packet::Pubrec(7), Packet::Pubrec(7)]);
}

#[test]
fn the_largest_length_of_all_is_refused_or_waited_for_in_constant_memory() {
    // [A12]
    let mut pair = Pair::with(RESUMING, inbox(48)).up();
    pair.send_raw(b"\x30\xff\xff\xff\x7f\x00\x01a");
    pair.run();
    assert_eq!(pair.fault(), Some(Fault::TooLarge { len: 268_435_460 }));
    let mut pair = Pair::with(STREAMING, inbox(48)).up();
    pair.send_raw(b"\x30\xff\xff\xff\x7f\x00\x01axxxx");
    pair.run();
    let first = Chunk { topic: Some("a".into()), offset: 0, total: 268_435_452, bytes: b"xxxx".to_vec() };
    assert_eq!(pair.client_events(), [first]);
}

#[test]
fn only_publish_may_be_larger_than_the_inbox() {
    for options in [RESUMING, STREAMING, SKIPPING] {
        let mut pair = Pair::with(options, inbox(16)).up();
        pair.send_raw(&dunlin_testkit::raw(0x90, &[0; 40]));
        pair.run();
        assert_eq!(pair.fault(), Some(Fault::TooLarge { len: 42 }));
    }
}

#[test]
fn a_large_publish_is_checked_like_a_small_one() {
    // [C03] [C05] [C08] [MQTT-4.8.0-1]
    for (head, violation) in [
        (&b"\x36\x80\x08\x00\x01a\x00\x07"[..], Violation::QoS),
        (b"\x38\x80\x08\x00\x01a", Violation::Duplicate),
        (b"\x30\x80\x08\x00\x00a", Violation::Topic),
        (b"\x30\x80\x08\x00\x02a+", Violation::Topic),
        (b"\x30\x80\x08\x00\x02\xc0\x80", Violation::Text),
        (b"\x32\x80\x08\x00\x01a\x00\x00", Violation::PacketId),
        (b"\x30\x80\x01\xff\xffa", Violation::Length),
    ] {
        let mut pair = Pair::with(STREAMING, inbox(48)).up();
        pair.send_raw(head);
        pair.send_raw(&[b'x'; 30]);
        pair.run();
        assert_eq!(pair.client_events(), [Faulted(Fault::Malformed(violation))], "{head:02x?}");
        assert_eq!(pair.sent(), []);
    }
}

#[test]
fn a_payload_may_stay_with_the_application_and_is_asked_for_piece_by_piece() {
    for out in [1, 2, 3, 7, 64, 1024] {
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            for len in [0, 1, 100, 5000] {
                let mut pair = Pair::with(RESUMING, Sizes { tx: 64, ..Default::default() }).up();
                pair.out = out;
                pair.external = payload(len);
                let head = Publish::new("cam/picture", b"ignored").with_qos(qos);
                pair.client.publish_external(&head, External { key: 9, len: len as u32 }).unwrap();
                pair.run();
                let received = pair.broker.received();
                assert_eq!(received.len(), 1);
                assert_eq!((received[0].topic.as_str(), &received[0].payload), ("cam/picture", &payload(len)));
                assert!(pair.client.is_idle());
            }
        }
    }
}

#[test]
fn an_external_payload_is_asked_for_again_after_a_cut_at_any_byte() {
    // [MQTT-4.4.0-1]
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        for out in [1, 7, 1024] {
            for cut in 0..140 {
                let mut pair = Pair::resuming();
                pair.out = out;
                pair.external = payload(100);
                pair.wire.up.cut_after = Some(cut);
                let head = Publish::new("a", b"").with_qos(qos);
                let sent = pair.client.publish_external(&head, External { key: 1, len: 100 }).unwrap().unwrap();
                pair.publish(&Publish::new("a", b"after").with_qos(qos)).unwrap();
                pair.run();
                let received = pair.broker.received();
                assert!(received.iter().any(|message| message.payload == payload(100)));
                if qos == QoS::ExactlyOnce {
                    assert_eq!(received.len(), 2, "cut after {cut}");
                }
                assert!(pair.client_events().contains(&Delivered(sent)));
            }
        }
    }
}

#[test]
fn an_external_payload_is_not_asked_for_once_the_server_has_it() {
    // [MQTT-4.3.3-1]
    let mut pair = Pair::resuming();
    pair.external = payload(50);
    pair.drop_next(PUBCOMP);
    pair.client.publish_external(&Publish::new("a", b"").exactly_once(), External { key: 1, len: 50 }).unwrap();
    pair.run();
    pair.external.clear(); // asking for it now would fail the test
    pair.cut();
    pair.run();
    assert!(pair.client.is_idle());
}

#[test]
fn a_message_whose_payload_cannot_be_had_any_more_is_given_up_by_name_and_no_other() {
    const NOW: Instant = Instant::from_millis(1);
    let connect = |session: &mut Session<'_>, inbox: &mut Inbox<'_>, out: &mut [u8]| {
        session.open(NOW, inbox);
        assert!(matches!(session.transmit(NOW, out), Transmit::Bytes(_)));
        inbox.push(b"\x20\x02\x01\x00");
    };
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        for is_durable in [false, true] {
            let mut storage: Box<Storage<256, 64, 4>> = Box::default();
            let (memory, mut inbox) = storage.split();
            let options = if is_durable { RESUMING.durable() } else { RESUMING };
            let mut session = Session::new(options, memory);
            let mut out = [0; 200];
            let message = |topic| Publish::new(topic, b"").with_qos(qos);
            let external = |key| External { key, len: 5 };
            let ids = ["a", "b"].map(|topic| {
                let key = u32::from(topic.as_bytes()[0]);
                session.publish_external(&message(topic), external(key)).unwrap().unwrap()
            });
            while let Some(mark) = session.next_mark() {
                session.mark_stored(mark);
            }
            connect(&mut session, &mut inbox, &mut out);
            assert!(matches!(session.poll(NOW, &mut inbox), Ok(Some(Event::Connected { .. }))));
            // Its head leaves, and then the payload is not there.
            assert!(matches!(session.transmit(NOW, &mut out), Transmit::Bytes(_)));
            assert!(matches!(session.transmit(NOW, &mut out), Transmit::Payload { key: 97, .. }));
            assert!(session.give_up(97));
            assert!(!session.give_up(97) && !session.is_connected());
            session.invariant().unwrap();
            assert!(matches!(session.poll(NOW, &mut inbox), Ok(Some(Event::Forgotten(id))) if id == ids[0]));
            assert!(matches!(session.poll(NOW, &mut inbox), Ok(None)));
            let done = session.next_mark().map(|mark| mark.id);
            assert_eq!(done, is_durable.then_some(ids[0]));
            // The other one is next.
            connect(&mut session, &mut inbox, &mut out);
            assert!(matches!(session.poll(NOW, &mut inbox), Ok(Some(Event::Connected { .. }))));
            assert!(matches!(session.transmit(NOW, &mut out), Transmit::Bytes(_)));
            assert!(matches!(session.transmit(NOW, &mut out), Transmit::Payload { key: 98, .. }));
            assert!(!session.give_up(97) && session.is_connected());
            assert_eq!(session.outgoing_count(), 1);
        }
    }
    // At QoS 0 it is gone with the connection.
    let mut storage: Box<Storage<256, 64, 4>> = Box::default();
    let (memory, mut inbox) = storage.split();
    let mut session = Session::new(RESUMING, memory);
    let mut out = [0; 200];
    connect(&mut session, &mut inbox, &mut out);
    assert!(matches!(session.poll(NOW, &mut inbox), Ok(Some(Event::Connected { .. }))));
    session.publish_external(&Publish::new("a", b""), External { key: 9, len: 5 }).unwrap();
    assert!(!session.give_up(9), "it is not being sent");
    assert!(matches!(session.transmit(NOW, &mut out), Transmit::Bytes(_)));
    assert!(session.give_up(9));
    assert!(matches!(session.poll(NOW, &mut inbox), Ok(None)));
    assert_eq!(session.outgoing_count(), 0);
}

#[test]
fn an_external_head_that_does_not_fit_is_refused() {
    let mut pair = Pair::with(RESUMING, Sizes { tx: 20, ..Default::default() }).up();
    let refused = pair.client.publish_external(&Publish::new(&"t".repeat(30), b""), External { key: 1, len: 1 });
    assert_eq!(refused, Err(PublishError::TooLarge));
    let endless = External { key: 1, len: u32::MAX };
    assert_eq!(pair.client.publish_external(&Publish::new("a", b""), endless), Err(PublishError::TooLarge));
    let longest = External { key: 1, len: 268_435_455 - 5 };
    assert!(pair.client.publish_external(&Publish::new("a", b"").at_least_once(), longest).is_ok());
}

#[test]
fn a_server_that_lost_the_session_gets_the_external_payload_as_a_new_message() {
    let mut pair = Pair::resuming();
    pair.external = payload(50);
    pair.drop_next(PUBACK);
    pair.client.publish_external(&Publish::new("a", b"").at_least_once(), External { key: 1, len: 50 }).unwrap();
    pair.run();
    pair.broker.restart(Persistence::Lost);
    pair.run();
    assert_eq!(pair.broker.received().len(), 2);
    assert_eq!(pair.client_events(), [Connected { resumed: false }, Delivered(id(1))]);
}

#[test]
fn large_and_small_messages_mixed_at_random_come_whole_and_in_order() {
    // [A24]
    for seed in seeds(200) {
        let mut rng = Rng::new(seed);
        let mut pair = Pair::with(STREAMING, inbox(24 + rng.below(60))).up();
        pair.wire.down.split = Split::Random { most: 1 + rng.below(40), rng: Rng::new(rng.number()) };
        let mut expected = Vec::new();
        for number in 1..20 {
            let message = Message::new("some/topic", payload(rng.below(150))).qos(rng.below(3) as u8);
            expected.push((message.topic.clone(), message.payload.clone()));
            pair.broker.inject(CLIENT, Packet::publish(if message.qos == 0 { 0 } else { number }, message));
        }
        pair.run();
        assert_eq!(assembled(pair.client_events(), 4), expected);
        assert!(pair.sent_of(PUBREC).len() + pair.sent_of(PUBACK).len() <= 19);
    }
}
