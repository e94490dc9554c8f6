//! Full slots, full memory, out of one byte, the smallest inbox.

use dunlin_core::memory::{filter_len, rx_len, tx_len};
use dunlin_core::{Fault, PacketId, Publish, PublishError, QoS, Restored, SubscribeError};
use dunlin_testkit::Seen::{self, Connected, Delivered};
use dunlin_testkit::{CLIENT, DURABLE, Message, PUBACK, PUBREC, PUBREL, Packet, Pair, RESUMING, Sizes, Then};

use crate::id;

#[test]
fn as_many_messages_as_there_are_slots() {
    for slots in 1..10 {
        let mut pair = Pair::with(RESUMING, Sizes { slots, ..Default::default() });
        for _ in 0..slots {
            assert!(pair.publish(&Publish::new("a", b"x").at_least_once()).is_ok());
        }
        assert_eq!(pair.publish(&Publish::new("a", b"x").at_least_once()), Err(PublishError::Full));
        pair.run();
        assert!(pair.client.is_idle());
        assert_eq!(pair.broker.received().len(), slots);
    }
}

#[test]
fn as_many_bytes_as_there_is_memory() {
    // One byte less than is needed, as much, one byte less than twice as much, twice as much.
    for payload in 0..40 {
        let room = tx_len(3, payload);
        for (tx, fits) in [(room - 1, 0), (room, 1), (2 * room - 1, 1), (2 * room, 2)] {
            let mut pair = Pair::with(RESUMING, Sizes { tx, ..Default::default() });
            let bytes = vec![7; payload];
            let message = Publish::new("a/b", &bytes).exactly_once();
            for _ in 0..fits {
                assert!(pair.publish(&message).is_ok());
            }
            let refused = if fits == 0 { PublishError::TooLarge } else { PublishError::Full };
            assert_eq!(pair.publish(&message), Err(refused));
            pair.run();
            assert_eq!(pair.broker.received().len(), fits);
        }
    }
}

#[test]
fn room_is_free_again_after_each_acknowledgement() {
    let mut pair = Pair::with(RESUMING, Sizes { tx: 100, slots: 3, ..Default::default() }).up();
    for round in 0..500_u32 {
        let text = round.to_string();
        let payload = "x".repeat((round % 40) as usize) + &text;
        let qos = QoS::from_bits((round % 3) as u8).unwrap();
        pair.publish(&Publish::new("a", payload.as_bytes()).with_qos(qos))
            .unwrap_or_else(|error| panic!("{round}: {error}"));
        pair.run();
    }
    assert_eq!(pair.broker.received().len(), 500);
}

#[test]
fn room_in_the_middle_is_found_when_acknowledgements_come_out_of_order() {
    let mut pair = Pair::with(RESUMING, Sizes { tx: 100, slots: 4, ..Default::default() }).up();
    pair.broker.always(PUBACK, Then::Hold);
    for text in ["first message", "second message", "third message"] {
        pair.publish(&Publish::new("a", text.as_bytes()).at_least_once()).unwrap();
    }
    pair.run();
    let long = Publish::new("a", b"a message of quite some length, 40 bytes").at_least_once();
    assert_eq!(pair.publish(&long), Err(PublishError::Full));
    pair.broker.release(1);
    pair.run();
    pair.publish(&long).unwrap();
    pair.cut();
    pair.broker.behave();
    pair.clear();
    pair.run();
    let received: Vec<_> =
        pair.broker.received().iter().map(|m| String::from_utf8(m.payload.clone()).unwrap()).collect();
    assert_eq!(received, ["first message", "third message", "a message of quite some length, 40 bytes"]);
}

#[test]
fn a_qos0_message_needs_room_only_until_it_has_left() {
    let mut pair = Pair::with(RESUMING, Sizes { tx: 30, slots: 1, ..Default::default() }).up();
    pair.publish(&Publish::new("a", b"1")).unwrap();
    assert_eq!(pair.publish(&Publish::new("a", b"2")), Err(PublishError::Full));
    pair.run();
    pair.publish(&Publish::new("a", b"2")).unwrap();
    pair.run();
    assert_eq!(pair.broker.received(), [("a", b"1"), ("a", b"2")]);
}

#[test]
fn what_can_never_fit_is_told_apart_from_what_does_not_fit_now() {
    let mut pair = Pair::with(RESUMING, Sizes { tx: 0, ..Default::default() });
    assert_eq!(pair.publish(&Publish::new("a", b"").at_least_once()), Err(PublishError::TooLarge));
}

#[test]
fn as_many_filters_as_there_is_memory() {
    for filters in [2 * filter_len(3) - 1, 2 * filter_len(3)] {
        let mut pair = Pair::with(RESUMING, Sizes { filters, ..Default::default() }).up();
        assert!(pair.client.subscribe(&[dunlin_core::Filter::literal("a/b", QoS::AtMostOnce)]).is_ok());
        let second = pair.client.subscribe(&[dunlin_core::Filter::literal("c/d", QoS::AtMostOnce)]);
        assert_eq!(second.is_ok(), filters == 2 * filter_len(3));
        let third = pair.client.unsubscribe(&["a/b"]);
        assert_eq!(third, Err(SubscribeError::Full));
        pair.run();
        assert!(pair.client.is_idle());
    }
}

#[test]
fn whether_a_request_would_be_taken_can_be_asked_without_making_it() {
    let mut pair = Pair::with(DURABLE, Sizes { filters: filter_len(3), ..Default::default() });
    let filters = [dunlin_core::Filter::literal("a/b", QoS::AtMostOnce)];
    for _ in 0..3 {
        assert_eq!(pair.client.check_subscribe(&filters), Ok(()));
        assert_eq!(pair.client.check_unsubscribe(&["a/b"]), Ok(()));
    }
    assert!(pair.client.is_idle());
    assert_eq!(pair.client.subscribe(&filters), Ok(id(1)), "no identifier is used up by asking");
    assert_eq!(pair.client.check_subscribe(&filters), Err(SubscribeError::Full));
    assert_eq!(pair.client.check_unsubscribe(&["a/b"]), Err(SubscribeError::Full));
    assert_eq!(pair.client.check_subscribe(&[]), Err(SubscribeError::Empty));
    assert_eq!(pair.client.check_unsubscribe(&[]), Err(SubscribeError::Empty));
    assert_eq!(pair.client.check_unsubscribe(&["a/#/b"]), Err(SubscribeError::InvalidFilter));
}

#[test]
fn the_smallest_inbox_speaks_mqtt() {
    let mut pair = Pair::with(RESUMING, Sizes { rx: 16, ..Default::default() }).up();
    pair.subscribe("a", QoS::ExactlyOnce).unwrap();
    pair.run();
    for _ in 0..20 {
        for qos in 0..3 {
            pair.broker.publish(Message::new("a", "1234567").qos(qos));
        }
    }
    pair.publish(&Publish::new("b", b"x").exactly_once()).unwrap();
    pair.run();
    assert_eq!(pair.messages().len(), 60);
    assert!(pair.client.is_idle());
    assert_eq!(pair.broker.unfinished(CLIENT), 0);
}

#[test]
fn a_message_exactly_as_long_as_the_inbox_arrives() {
    // [C16]
    for payload in [0, 1, 100, 124, 125, 126, 300] {
        let message = Message::new("a/b", vec![7; payload]).qos(1);
        for (rx, fits) in [(rx_len(3, payload), true), (rx_len(3, payload) - 1, false)] {
            if rx < 16 {
                continue;
            }
            let mut pair = Pair::with(RESUMING, Sizes { rx, ..Default::default() }).up();
            pair.broker.inject(CLIENT, Packet::publish(7, message.clone()));
            pair.run();
            if fits {
                assert_eq!(pair.client_events(), [Seen::Message(message.clone())]);
            } else {
                assert_eq!(pair.fault(), Some(Fault::TooLarge { len: rx + 1 }));
            }
        }
    }
}

#[test]
fn any_packet_leaves_through_one_byte() {
    const OPTIONS: dunlin_core::Options = RESUMING
        .will(Publish::new("w", b"gone").at_least_once())
        .credentials("user", b"password")
        .subscriptions(&[dunlin_core::Filter::literal("s/+/t", QoS::ExactlyOnce)])
        .keep_alive(5);
    let mut pair = Pair::new(OPTIONS);
    pair.out = 1;
    pair.publish(&Publish::new("s/1/t", &[7; 150]).exactly_once()).unwrap();
    pair.subscribe("r", QoS::AtMostOnce).unwrap();
    pair.run();
    pair.unsubscribe("r").unwrap();
    pair.run_for(10_000);
    assert_eq!(pair.messages(), [("s/1/t", &[7; 150])]);
    pair.client.close();
    pair.run();
    assert_eq!(pair.sent().last(), Some(&Packet::Disconnect));
}

#[test]
fn more_qos2_messages_than_can_be_remembered_end_the_connection_and_none_is_forgotten() {
    // [C20]
    for received in [2, 5, 21] {
        let mut pair = Pair::with(RESUMING, Sizes { received, ..Default::default() }).up();
        pair.broker.always(PUBREL, Then::Drop);
        for number in 1..=u16::MAX {
            pair.broker.inject(CLIENT, Packet::publish(number, Message::new("a", "x").qos(2)));
            pair.run();
            if pair.fault().is_some() {
                break;
            }
        }
        assert_eq!(pair.fault(), Some(Fault::TooMany));
        assert_eq!(pair.messages().len(), received - 1);
        assert_eq!(pair.sent_of(PUBREC).len(), received - 1);
        pair.clear();
        pair.run();
        // Those that got PUBREC are known on the next connection.
        for number in 1..received as u16 {
            pair.broker
                .inject(CLIENT, Packet::Publish { dup: true, id: number, message: Message::new("a", "x").qos(2) });
        }
        pair.run();
        assert_eq!(pair.client_events(), [Connected { resumed: true }]);
    }
}

#[test]
fn a_full_table_waits_for_what_makes_room_and_does_not_lock_up() {
    // The server has 20 messages under way, as mosquitto does by default; 21 entries are enough.
    for (in_flight, received) in [(20, 21), (1, 2), (4, 5)] {
        let mut pair = Pair::with(RESUMING, Sizes { received, rx: 512, ..Default::default() }).up();
        pair.broker.max_in_flight = in_flight;
        pair.subscribe("a", QoS::ExactlyOnce).unwrap();
        pair.run();
        pair.clear();
        for number in 0..100 {
            pair.broker.publish(Message::new("a", number.to_string()).qos(1 + number % 2));
        }
        pair.run();
        assert_eq!(pair.messages().len(), 100);
        assert_eq!(pair.broker.unfinished(CLIENT), 0);
    }
}

#[test]
fn qos1_messages_beyond_the_table_wait_in_the_stream() {
    let mut pair = Pair::with(RESUMING, Sizes { received: 2, rx: 512, ..Default::default() }).up();
    for number in 1..=100 {
        pair.broker.inject(CLIENT, Packet::publish(number, Message::new("a", "x").qos(1)));
    }
    pair.run();
    assert_eq!(pair.messages().len(), 100);
    assert_eq!(pair.sent_of(PUBACK).len(), 100);
}

#[test]
fn more_pubrels_than_the_table_holds_are_all_answered() {
    // [D05]
    let mut pair = Pair::with(RESUMING, Sizes { received: 2, rx: 512, ..Default::default() }).up();
    for number in 1..=100 {
        pair.broker.inject(CLIENT, Packet::Pubrel(number));
    }
    pair.run();
    assert_eq!(pair.sent_of(dunlin_testkit::PUBCOMP).len(), 100);
}

#[test]
fn all_65535_identifiers_may_be_in_use_and_then_there_is_none_left() {
    // [F01] [MQTT-2.3.1-1] [MQTT-2.3.1-2]
    let sizes = Sizes { slots: 65_600, tx: 65_600 * tx_len(1, 0), ..Default::default() };
    let mut pair = Pair::with(RESUMING, sizes);
    let message = Publish::new("a", b"").at_least_once();
    for number in 1..=u16::MAX {
        assert_eq!(pair.client.publish(&message), Ok(PacketId::new(number)));
    }
    assert_eq!(pair.client.publish(&message), Err(PublishError::Full));
    assert_eq!(pair.client.outgoing_count(), 65_535);
}

#[test]
fn identifiers_wrap_around_those_that_are_open() {
    // [F02] [MQTT-2.3.1-1] [MQTT-2.3.1-2]
    let mut pair = Pair::new(DURABLE);
    pair.client.restore(Restored::NextId(id(65_533))).unwrap();
    pair.run();
    pair.clear();
    pair.broker.always(PUBACK, Then::Hold);
    let publish = |pair: &mut Pair| pair.publish(&Publish::new("a", b"x").at_least_once()).unwrap().unwrap().get();
    assert_eq!([publish(&mut pair), publish(&mut pair), publish(&mut pair)], [65_533, 65_534, 65_535]);
    assert_eq!(publish(&mut pair), 1, "never zero");
    pair.run();
    pair.broker.behave();
    pair.broker.release(0);
    pair.run();
    assert_eq!(pair.take_events(), [Delivered(id(65_533))]);
    let mut pair = Pair::new(DURABLE);
    pair.broker.always(PUBREC, Then::Hold);
    pair.broker.always(PUBREL, Then::Hold);
    for number in [65_534, 1, 2] {
        pair.client
            .restore(Restored::Message { id: id(number), publish: Publish::new("a", b"old").exactly_once() })
            .unwrap();
    }
    pair.client.restore(Restored::NextId(id(65_533))).unwrap();
    assert_eq!([publish(&mut pair), publish(&mut pair), publish(&mut pair)], [65_533, 65_535, 3]);
}

#[test]
fn a_full_store_of_messages_refuses_before_anything_is_sent() {
    // [F07] [MQTT-4.8.0-2]
    let mut pair = Pair::with(DURABLE, Sizes { slots: 2, ..Default::default() }).up();
    pair.marks = dunlin_testkit::Marks::Left;
    pair.publish(&Publish::new("a", b"1").exactly_once()).unwrap();
    pair.publish(&Publish::new("a", b"2").exactly_once()).unwrap();
    assert_eq!(pair.publish(&Publish::new("a", b"3").exactly_once()), Err(PublishError::Full));
    pair.run();
    assert_eq!(pair.sent(), []);
    pair.marks = dunlin_testkit::Marks::Stored;
    pair.run();
    assert_eq!(pair.broker.received(), [("a", b"1"), ("a", b"2")]);
}
