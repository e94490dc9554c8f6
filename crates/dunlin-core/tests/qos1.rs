//! At least once.

use dunlin_core::{Publish, QoS};
use dunlin_testkit::Seen::{self, Connected, Delivered};
use dunlin_testkit::{CLIENT, Message, PUBACK, PUBLISH, PUBREL, Packet, Pair, Persistence, Then};

use crate::id;

fn again(id: u16, text: &str) -> Packet {
    Packet::Publish { dup: true, id, message: Message::new("a", text).qos(1) }
}

fn first(id: u16, text: &str) -> Packet {
    Packet::publish(id, Message::new("a", text).qos(1))
}

#[test]
fn a_message_is_delivered_when_puback_comes_and_not_before() {
    // [MQTT-4.3.2-1] [MQTT-2.3.1-1] [MQTT-2.3.1-5]
    let mut pair = Pair::resuming();
    pair.broker.on_next(PUBACK, Then::Hold);
    assert_eq!(pair.publish(&Publish::new("a", b"1").at_least_once()), Ok(Some(id(1))));
    pair.run();
    assert_eq!(pair.sent(), [first(1, "1")]);
    assert_eq!(pair.client_events(), []);
    assert_eq!(pair.client.outgoing_count(), 1);
    pair.broker.release_all();
    pair.run();
    assert_eq!(pair.client_events(), [Delivered(id(1))]);
    assert_eq!(pair.client.outgoing_count(), 0);
}

#[test]
fn nothing_is_sent_again_on_a_connection_that_lives() {
    // [U311-10] [MQTT-4.4.0-1]
    let mut pair = Pair::resuming();
    pair.drop_next(PUBACK);
    pair.publish(&Publish::new("a", b"1").at_least_once()).unwrap();
    pair.run_for(600_000);
    assert_eq!(pair.sent_of(PUBLISH), [first(1, "1")]);
}

#[test]
fn a_message_is_sent_again_with_its_identifier_and_dup_after_a_cut() {
    // [MQTT-4.4.0-1] [MQTT-3.3.1-1] [MQTT-2.3.1-3]
    let mut pair = Pair::resuming();
    pair.drop_next(PUBACK);
    pair.publish(&Publish::new("a", b"1").at_least_once()).unwrap();
    pair.run();
    pair.cut();
    pair.run();
    assert_eq!(pair.sent_of(PUBLISH), [first(1, "1"), again(1, "1")]);
    assert_eq!(pair.client_events(), [Connected { resumed: true }, Delivered(id(1))]);
    assert_eq!(pair.broker.received(), [("a", b"1"), ("a", b"1")], "at least once");
}

#[test]
fn messages_are_sent_again_in_their_order() {
    // [MQTT-4.6.0-1] [F04]
    let mut pair = Pair::resuming();
    pair.broker.always(PUBACK, Then::Hold);
    for text in ["1", "2", "3", "4"] {
        pair.publish(&Publish::new("a", text.as_bytes()).at_least_once()).unwrap();
    }
    pair.run();
    pair.broker.release(1);
    pair.run();
    pair.cut();
    pair.publish(&Publish::new("a", b"5").at_least_once()).unwrap();
    pair.run();
    assert_eq!(pair.sent_of(PUBLISH)[4..], [again(1, "1"), again(3, "3"), again(4, "4"), first(5, "5")]);
}

#[test]
fn a_message_that_had_not_begun_to_leave_goes_out_without_dup() {
    // [MQTT-3.3.1-3] [MQTT-4.3.2-1]
    let mut pair = Pair::resuming();
    pair.cut();
    pair.publish(&Publish::new("a", b"1").at_least_once()).unwrap();
    pair.run();
    assert_eq!(pair.sent_of(PUBLISH), [first(1, "1")]);
}

#[test]
fn a_server_that_lost_the_session_gets_open_messages_as_new_ones() {
    // [MQTT-3.1.2-6] [MQTT-3.2.2-3] [B09]
    let mut pair = Pair::resuming();
    pair.drop_next(PUBACK);
    pair.publish(&Publish::new("a", b"1").at_least_once()).unwrap();
    pair.run();
    pair.broker.restart(Persistence::Lost);
    pair.run();
    assert_eq!(pair.sent_of(PUBLISH), [first(1, "1"), first(1, "1")]);
    assert_eq!(pair.client_events(), [Connected { resumed: false }, Delivered(id(1))]);
}

#[test]
fn a_second_puback_is_ignored_and_the_identifier_is_free() {
    // [D06] [MQTT-2.3.1-3]
    let mut pair = Pair::resuming();
    pair.broker.on_next(PUBACK, Then::Twice);
    pair.publish(&Publish::new("a", b"1").at_least_once()).unwrap();
    pair.run();
    assert_eq!(pair.client_events(), [Delivered(id(1))]);
    assert_eq!(pair.client.ignored_count(), 1);
    pair.publish(&Publish::new("a", b"2").at_least_once()).unwrap();
    pair.run();
    assert_eq!(pair.client_events(), [Delivered(id(1)), Delivered(id(2))]);
}

#[test]
fn pubacks_in_any_order_end_their_own_messages() {
    // [D21]
    for order in permutations(4) {
        let mut pair = Pair::resuming();
        pair.broker.always(PUBACK, Then::Hold);
        for text in ["1", "2", "3", "4"] {
            pair.publish(&Publish::new("a", text.as_bytes()).at_least_once()).unwrap();
        }
        pair.run();
        for &which in &order {
            let at = pair.broker.held().iter().position(|packet| packet.id() == Some(which)).unwrap();
            pair.broker.release(at);
        }
        pair.run();
        let expected: Vec<Seen> = order.iter().map(|&which| Delivered(id(which))).collect();
        assert_eq!(pair.client_events(), expected);
        assert!(pair.client.is_idle());
    }
}

/// All orders of the numbers 1 to `count`.
pub(crate) fn permutations(count: u16) -> Vec<Vec<u16>> {
    let Some(fewer) = count.checked_sub(1) else { return vec![Vec::new()] };
    let mut all = Vec::new();
    for shorter in permutations(fewer) {
        for at in 0..=shorter.len() {
            let mut longer = shorter.clone();
            longer.insert(at, count);
            all.push(longer);
        }
    }
    all
}

#[test]
fn puback_repeats_the_identifier_of_its_message() {
    // [MQTT-2.3.1-6] [MQTT-3.3.4-1]
    for number in [1, 255, 256, 32_768, 65_535] {
        let mut pair = Pair::resuming();
        pair.broker.first_id = number;
        pair.broker.inject(CLIENT, first(number, "1"));
        pair.run();
        assert_eq!(pair.sent(), [Packet::Puback(number)]);
    }
}

#[test]
fn pubacks_leave_in_the_order_of_the_messages() {
    // [MQTT-4.6.0-2] [A25]
    let mut pair = Pair::clean();
    pair.subscribe("a", QoS::AtLeastOnce).unwrap();
    pair.broker.first_id = 65_530;
    pair.broker.max_in_flight = 50;
    for number in 0..50 {
        pair.broker.publish(Message::new("a", number.to_string()).qos(1));
    }
    pair.run();
    pair.clear();
    for number in 0..50 {
        pair.broker.publish(Message::new("a", number.to_string()).qos(1));
    }
    pair.run();
    let acknowledged: Vec<u16> = pair.sent_of(PUBACK).iter().filter_map(Packet::id).collect();
    assert_eq!(acknowledged, (65_530..=65_535).chain(1..=44).collect::<Vec<_>>());
    assert_eq!(pair.messages().len(), 50);
}

#[test]
fn connack_suback_and_fifty_messages_in_one_segment_are_taken_in_order() {
    // [A25] [MQTT-4.6.0-2] [U311-08]
    const OPTIONS: dunlin_core::Options =
        dunlin_testkit::CLEAN.subscriptions(&[dunlin_core::Filter::literal("a", QoS::AtLeastOnce)]);
    let mut pair = Pair::with(OPTIONS, dunlin_testkit::Sizes { rx: 1024, ..Default::default() });
    pair.broker.on_next(dunlin_testkit::CONNACK, Then::Drop);
    pair.run();
    let mut segment = b"\x20\x02\x00\x00".to_vec();
    for number in 1..=50 {
        segment.extend(first(number, "x").encode());
    }
    pair.send_raw(&segment);
    pair.run();
    let acknowledged: Vec<u16> = pair.sent_of(PUBACK).iter().filter_map(Packet::id).collect();
    assert_eq!(acknowledged, (1..=50).collect::<Vec<_>>());
}

#[test]
fn the_same_identifier_after_puback_is_a_new_message_whatever_dup_says() {
    // [C17] [MQTT-4.3.2-2]
    let mut pair = Pair::resuming();
    pair.broker.inject(CLIENT, first(7, "1"));
    pair.run();
    pair.broker.inject(CLIENT, again(7, "1"));
    pair.run();
    let message = Message::new("a", "1").qos(1);
    assert_eq!(pair.client_events(), [Seen::Message(message.clone()), Seen::Again(message)]);
    assert_eq!(pair.sent(), [Packet::Puback(7), Packet::Puback(7)]);
}

#[test]
fn a_message_shown_before_a_cut_and_not_acknowledged_comes_again_with_dup() {
    let mut pair = Pair::resuming();
    pair.subscribe("a", QoS::AtLeastOnce).unwrap();
    pair.run();
    pair.clear();
    pair.broker.publish(Message::new("a", "1").qos(1));
    pair.step(); // shown; PUBACK has not left
    pair.cut();
    pair.run();
    let message = Message::new("a", "1").qos(1);
    assert_eq!(
        pair.client_events(),
        [Seen::Message(message.clone()), Connected { resumed: true }, Seen::Again(message)]
    );
    assert_eq!(pair.sent_of(PUBACK), [Packet::Puback(1)]);
}

#[test]
fn a_message_that_nobody_asked_for_is_acknowledged_all_the_same() {
    // [MQTT-4.5.0-2] [MQTT-3.3.2-3] [C22]
    let mut pair = Pair::resuming();
    pair.broker.always(PUBREL, Then::Drop);
    pair.broker.inject(CLIENT, first(3, "1"));
    pair.broker.inject(CLIENT, Packet::publish(4, Message::new("b", "2").qos(2)));
    pair.run();
    assert_eq!(pair.messages(), [("a", b"1"), ("b", b"2")]);
    assert_eq!(pair.sent(), [Packet::Puback(3), Packet::Pubrec(4)]);
}

#[test]
fn publishing_a_received_message_again_starts_without_dup() {
    // [MQTT-3.3.1-3]
    let mut pair = Pair::resuming();
    pair.broker.inject(CLIENT, again(7, "1"));
    pair.run();
    let Seen::Again(message) = &pair.client_events()[0] else { panic!("{:?}", pair.client_events()) };
    let (topic, payload) = (message.topic.clone(), message.payload.clone());
    pair.publish(&Publish::new(&topic, &payload).at_least_once()).unwrap();
    pair.run();
    assert_eq!(pair.sent_of(PUBLISH), [first(1, "1")]);
}

#[test]
fn the_server_may_use_the_same_identifiers_as_we_do() {
    // [C27]
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let mut pair = Pair::resuming();
        pair.subscribe("a", qos).unwrap();
        pair.run();
        pair.clear();
        pair.broker.first_id = 2;
        for text in ["1", "2"] {
            assert_eq!(
                pair.publish(&Publish::new("a", text.as_bytes()).with_qos(qos)).unwrap().unwrap(),
                id(text.parse::<u16>().unwrap() + 1)
            );
        }
        pair.run();
        assert_eq!(pair.messages(), [("a", b"1"), ("a", b"2")]);
        assert_eq!(pair.client.outgoing_count() + pair.broker.unfinished(CLIENT), 0);
    }
}

#[test]
fn an_acknowledgement_leaves_though_nothing_was_owed_while_the_message_was_shown() {
    // [MQTT-4.3.2-2]
    let mut pair = Pair::clean();
    let mut out = [0; 8];
    let now = dunlin_core::Instant::from_millis(pair.now);
    for _ in 0..3 {
        pair.inbox.push(b"\x32\x06\x00\x01a\x00\x07x");
        assert!(matches!(pair.client.poll(now, &mut pair.inbox), Ok(Some(dunlin_core::Event::Message(_)))));
        assert_eq!(pair.client.transmit(now, &mut out), dunlin_core::Transmit::Idle);
        assert_eq!(pair.client.poll(now, &mut pair.inbox), Ok(None));
        assert_eq!(pair.client.transmit(now, &mut out), dunlin_core::Transmit::Bytes(4));
        assert_eq!(out[..4], b"\x40\x02\x00\x07"[..]);
    }
}
