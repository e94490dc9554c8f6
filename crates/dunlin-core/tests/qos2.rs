//! Exactly once.

use dunlin_core::{Publish, QoS};
use dunlin_testkit::Seen::{self, Connected, Delivered, Forgotten};
use dunlin_testkit::{CLIENT, Kind, Message, PUBCOMP, PUBLISH, PUBREC, PUBREL, Packet, Pair, Persistence, Then};

use crate::id;
use crate::qos1::permutations;

fn first(id: u16, text: &str) -> Packet {
    Packet::publish(id, Message::new("a", text).qos(2))
}

fn again(id: u16, text: &str) -> Packet {
    Packet::Publish { dup: true, id, message: Message::new("a", text).qos(2) }
}

fn exactly_once(text: &str) -> Publish<'_> {
    Publish::new("a", text.as_bytes()).exactly_once()
}

#[test]
fn a_message_takes_four_packets() {
    // [MQTT-4.3.3-1] [MQTT-3.6.1-1] [MQTT-2.3.1-6]
    let mut pair = Pair::resuming();
    assert_eq!(pair.publish(&exactly_once("1")), Ok(Some(id(1))));
    pair.run();
    assert_eq!(pair.sent(), [first(1, "1"), Packet::Pubrel(1)]);
    assert_eq!(pair.heard(), [Packet::Pubrec(1), Packet::Pubcomp(1)]);
    assert_eq!(pair.client_events(), [Delivered(id(1))]);
}

#[test]
fn a_message_is_sent_again_after_a_cut_before_pubrec() {
    // [MQTT-4.4.0-1] [MQTT-3.3.1-1]
    let mut pair = Pair::resuming();
    pair.drop_next(PUBREC);
    pair.publish(&exactly_once("1")).unwrap();
    pair.run();
    pair.cut();
    pair.run();
    assert_eq!(pair.sent_of(PUBLISH), [first(1, "1"), again(1, "1")]);
    assert_eq!(pair.broker.received(), [("a", b"1")], "once, although sent twice");
    assert_eq!(pair.client_events(), [Connected { resumed: true }, Delivered(id(1))]);
}

#[test]
fn after_pubrec_only_pubrel_is_sent_again() {
    // [MQTT-4.3.3-1] [MQTT-4.4.0-1]
    let mut pair = Pair::resuming();
    pair.drop_next(PUBCOMP);
    pair.publish(&exactly_once("1")).unwrap();
    pair.run();
    pair.cut();
    pair.run();
    assert_eq!(pair.sent_of(PUBLISH), [first(1, "1")]);
    assert_eq!(pair.sent_of(PUBREL), [Packet::Pubrel(1), Packet::Pubrel(1)]);
    assert_eq!(pair.client_events(), [Connected { resumed: true }, Delivered(id(1))]);
}

#[test]
fn the_identifier_stays_in_use_until_pubcomp() {
    // [MQTT-2.3.1-3] [MQTT-2.3.1-2]
    let mut pair = Pair::resuming();
    pair.broker.always(PUBCOMP, Then::Hold);
    pair.publish(&exactly_once("1")).unwrap();
    pair.run();
    assert_eq!(pair.client.outgoing_count(), 1);
    pair.broker.release_all();
    pair.run();
    assert_eq!(pair.client.outgoing_count(), 0);
}

#[test]
fn pubrec_again_is_answered_by_pubrel_and_never_by_publish() {
    // [D07] [MQTT-4.3.3-1]
    let mut pair = Pair::resuming();
    pair.drop_next(PUBCOMP);
    pair.publish(&exactly_once("1")).unwrap();
    pair.run();
    pair.broker.inject(CLIENT, Packet::Pubrec(1));
    pair.run();
    assert_eq!(pair.sent(), [first(1, "1"), Packet::Pubrel(1), Packet::Pubrel(1)]);
    assert_eq!(pair.client_events(), [Delivered(id(1))]);
}

#[test]
fn pubrec_twice_in_one_segment_completes_once() {
    // [D07]
    let mut pair = Pair::resuming();
    pair.broker.on_next(PUBREC, Then::Twice);
    pair.publish(&exactly_once("1")).unwrap();
    pair.run();
    assert_eq!(pair.client_events(), [Delivered(id(1))]);
    assert_eq!(pair.sent_of(PUBLISH).len(), 1);
}

/// Lets the broker send the held packets of one type in this order of identifiers.
fn release_held(pair: &mut Pair, kind: Kind, order: &[u16]) {
    for &which in order {
        let is_it = |packet: &Packet| packet.id() == Some(which) && packet.kind() == kind;
        let at = pair.broker.held().iter().position(is_it).unwrap();
        pair.broker.release(at);
    }
    pair.run();
}

#[test]
fn pubrels_leave_in_the_order_of_the_pubrecs_whatever_order_that_is() {
    // [MQTT-4.6.0-4] [D22] [D21]
    for recs in permutations(4) {
        for comps in permutations(4) {
            let mut pair = Pair::resuming();
            pair.broker.always(PUBREC, Then::Hold);
            pair.broker.always(PUBCOMP, Then::Hold);
            for text in ["1", "2", "3", "4"] {
                pair.publish(&exactly_once(text)).unwrap();
            }
            pair.run();
            release_held(&mut pair, PUBREC, &recs);
            release_held(&mut pair, PUBCOMP, &comps);
            let released: Vec<u16> = pair.sent_of(PUBREL).iter().filter_map(Packet::id).collect();
            assert_eq!(released, recs);
            let delivered: Vec<Seen> = comps.iter().map(|&which| Delivered(id(which))).collect();
            assert_eq!(pair.client_events(), delivered);
            assert_eq!(pair.broker.received(), [("a", b"1"), ("a", b"2"), ("a", b"3"), ("a", b"4")]);
        }
    }
}

#[test]
fn the_order_of_the_pubrecs_outlives_a_cut_in_every_mixture_of_stages() {
    // [MQTT-4.6.0-4] [MQTT-4.6.0-1] [MQTT-4.4.0-1] [F04]
    for order in permutations(4) {
        for recs in 0..=4 {
            for comps in 0..=recs {
                let mut pair = Pair::resuming();
                pair.broker.always(PUBREC, Then::Hold);
                pair.broker.always(PUBCOMP, Then::Hold);
                for text in ["1", "2", "3", "4"] {
                    pair.publish(&exactly_once(text)).unwrap();
                }
                pair.run();
                release_held(&mut pair, PUBREC, &order[..recs]);
                release_held(&mut pair, PUBCOMP, &order[..comps]);
                pair.cut();
                pair.broker.behave();
                let before = pair.sent().len();
                pair.run();
                let released: Vec<u16> = order[comps..recs].to_vec();
                let sent = &pair.sent()[before + 1..];
                let releases: Vec<u16> = sent.iter().take(released.len()).filter_map(Packet::id).collect();
                assert_eq!(releases, released, "PUBRELs first, in the order of the PUBRECs");
                assert!(pair.client.is_idle());
                assert_eq!(pair.broker.received(), [("a", b"1"), ("a", b"2"), ("a", b"3"), ("a", b"4")]);
            }
        }
    }
}

#[test]
fn a_server_that_forgot_a_released_message_leaves_its_outcome_unknown() {
    // [B09] [MQTT-3.2.2-3] [MQTT-3.1.2-6]
    let mut pair = Pair::resuming();
    pair.drop_next(PUBCOMP);
    pair.publish(&exactly_once("1")).unwrap();
    pair.run();
    pair.drop_next(PUBREC);
    pair.publish(&exactly_once("2")).unwrap();
    pair.run();
    pair.broker.restart(Persistence::Lost);
    pair.clear();
    pair.run();
    assert_eq!(pair.client_events(), [Connected { resumed: false }, Forgotten(id(1)), Delivered(id(2))]);
    assert_eq!(pair.sent_of(PUBLISH), [first(2, "2")], "as a new message");
}

#[test]
fn an_incoming_message_takes_four_packets_and_is_shown_once() {
    // [MQTT-4.3.3-2] [MQTT-3.3.4-1] [MQTT-2.3.1-6] [U311-16]
    for number in [1, 256, 65_535] {
        let mut pair = Pair::resuming();
        pair.broker.first_id = number;
        pair.subscribe("a", QoS::ExactlyOnce).unwrap();
        pair.run();
        pair.clear();
        pair.broker.publish(Message::new("a", "1").qos(2));
        pair.run();
        assert_eq!(pair.messages(), [("a", b"1")]);
        assert_eq!(pair.sent(), [Packet::Pubrec(number), Packet::Pubcomp(number)]);
        assert_eq!(pair.broker.unfinished(CLIENT), 0);
    }
}

#[test]
fn the_same_message_before_pubrel_is_shown_once_and_answered_twice() {
    // [C18] [MQTT-4.3.3-2]
    let mut pair = Pair::resuming();
    pair.broker.always(PUBREL, Then::Drop);
    pair.broker.inject(CLIENT, first(7, "1"));
    pair.run();
    pair.broker.inject(CLIENT, again(7, "1"));
    pair.run();
    assert_eq!(pair.messages(), [("a", b"1")]);
    assert_eq!(pair.sent(), [Packet::Pubrec(7), Packet::Pubrec(7)]);
}

#[test]
fn the_same_message_twice_in_one_segment_is_shown_once_and_answered_twice() {
    // [C18]
    let mut pair = Pair::resuming();
    pair.broker.always(PUBREL, Then::Drop);
    pair.broker.inject(CLIENT, first(7, "1"));
    pair.broker.inject(CLIENT, again(7, "1"));
    pair.run();
    assert_eq!(pair.messages(), [("a", b"1")]);
    assert_eq!(pair.sent(), [Packet::Pubrec(7), Packet::Pubrec(7)]);
}

#[test]
fn other_contents_under_an_open_identifier_are_not_shown() {
    // [C19] [MQTT-2.3.1-4]
    let mut pair = Pair::resuming();
    pair.broker.always(PUBREL, Then::Drop);
    pair.broker.inject(CLIENT, first(7, "1"));
    pair.run();
    pair.broker.inject(CLIENT, Packet::publish(7, Message::new("b", "2").qos(2)));
    pair.run();
    assert_eq!(pair.messages(), [("a", b"1")]);
    assert_eq!(pair.sent(), [Packet::Pubrec(7), Packet::Pubrec(7)]);
    pair.broker.inject(CLIENT, Packet::Pubrel(7));
    pair.run();
    pair.broker.inject(CLIENT, Packet::publish(7, Message::new("b", "2").qos(2)));
    pair.run();
    assert_eq!(pair.messages(), [("a", b"1"), ("b", b"2")], "after PUBCOMP the identifier is new");
}

#[test]
fn pubrel_twice_is_answered_twice() {
    // [MQTT-4.3.3-2] [D05]
    let mut pair = Pair::resuming();
    pair.broker.always(PUBREL, Then::Drop);
    pair.broker.inject(CLIENT, first(7, "1"));
    pair.run();
    pair.broker.inject(CLIENT, Packet::Pubrel(7));
    pair.broker.inject(CLIENT, Packet::Pubrel(7));
    pair.run();
    assert_eq!(pair.sent(), [Packet::Pubrec(7), Packet::Pubcomp(7), Packet::Pubcomp(7)]);
}

#[test]
fn an_incoming_message_is_shown_once_across_a_cut_at_each_stage() {
    // [MQTT-4.3.3-2] [MQTT-4.1.0-1] [U311-09]
    for lost in [PUBREL, PUBLISH] {
        let mut pair = Pair::resuming();
        pair.subscribe("a", QoS::ExactlyOnce).unwrap();
        pair.run();
        pair.clear();
        if lost == PUBREL {
            pair.drop_next(PUBREL); // PUBREC has arrived
        } else {
            pair.wire.up.cut_after = Some(0); // PUBREC has not
        }
        pair.broker.publish(Message::new("a", "1").qos(2));
        pair.run();
        pair.cut();
        pair.run();
        assert_eq!(pair.messages(), [("a", b"1")]);
        assert_eq!(pair.broker.unfinished(CLIENT), 0);
    }
}

#[test]
fn a_message_shown_before_a_cut_is_not_shown_again_although_pubrec_had_not_left() {
    // [MQTT-4.3.3-2]
    let mut pair = Pair::resuming();
    pair.subscribe("a", QoS::ExactlyOnce).unwrap();
    pair.run();
    pair.clear();
    pair.broker.publish(Message::new("a", "1").qos(2));
    pair.step(); // shown; PUBREC has not left
    assert_eq!(pair.sent(), []);
    pair.cut();
    pair.run();
    assert_eq!(pair.messages(), [("a", b"1")]);
    assert_eq!(pair.sent_of(PUBREC), [Packet::Pubrec(1)]);
}

#[test]
fn pubrecs_leave_in_the_order_of_the_messages() {
    // [MQTT-4.6.0-3] [MQTT-4.6.0-6]
    let mut pair = Pair::resuming();
    pair.broker.always(PUBREL, Then::Drop);
    for number in [9, 3, 65_535, 1] {
        pair.broker.inject(CLIENT, first(number, "1"));
    }
    pair.run();
    let answered: Vec<u16> = pair.sent_of(PUBREC).iter().filter_map(Packet::id).collect();
    assert_eq!(answered, [9, 3, 65_535, 1]);
}

#[test]
fn qos1_and_qos2_under_one_incoming_identifier_do_not_disturb_each_other() {
    // [C29]
    let mut pair = Pair::resuming();
    pair.broker.always(PUBREL, Then::Drop);
    let at_least_once = Packet::publish(7, Message::new("b", "2").qos(1));
    pair.broker.inject(CLIENT, first(7, "1"));
    pair.run();
    pair.broker.inject(CLIENT, at_least_once.clone());
    pair.run();
    pair.broker.inject(CLIENT, again(7, "1"));
    pair.run();
    assert_eq!(pair.messages(), [("a", b"1"), ("b", b"2")]);
    assert_eq!(pair.sent(), [Packet::Pubrec(7), Packet::Puback(7), Packet::Pubrec(7)]);
    // All in one segment as well.
    let mut pair = Pair::resuming();
    pair.broker.always(PUBREL, Then::Drop);
    for packet in [first(7, "1"), at_least_once, again(7, "1"), Packet::Pubrel(7)] {
        pair.broker.inject(CLIENT, packet);
    }
    pair.run();
    assert_eq!(pair.messages(), [("a", b"1"), ("b", b"2")]);
    assert_eq!(pair.sent_of(dunlin_testkit::PUBACK), [Packet::Puback(7)]);
    assert_eq!(pair.sent_of(PUBCOMP), [Packet::Pubcomp(7)]);
}

#[test]
fn the_identifiers_of_a_lost_session_are_forgotten_in_both_directions() {
    // [MQTT-3.1.2-6] [B09]
    let mut pair = Pair::resuming();
    pair.broker.always(PUBREL, Then::Drop);
    pair.broker.inject(CLIENT, first(7, "1"));
    pair.run();
    pair.broker.restart(Persistence::Lost);
    pair.run();
    pair.broker.inject(CLIENT, first(7, "2"));
    pair.run();
    assert_eq!(pair.messages(), [("a", b"1"), ("a", b"2")]);
}

#[test]
fn the_last_word_decides_and_not_the_order_of_arrival() {
    // [D10] PUBCOMP before PUBREC ends nothing.
    let mut pair = Pair::resuming();
    pair.broker.on_next(PUBREC, Then::Hold);
    pair.publish(&exactly_once("1")).unwrap();
    pair.run();
    pair.broker.inject(CLIENT, Packet::Pubcomp(1));
    pair.run();
    assert_eq!(pair.client_events(), []);
    pair.broker.release_all();
    pair.run();
    assert_eq!(pair.client_events(), [Delivered(id(1))]);
}

#[test]
fn a_message_leaves_when_the_one_that_held_it_up_has_been_reported() {
    let mut pair = Pair::connected(dunlin_testkit::RESUMING.window(1));
    let now = dunlin_core::Instant::from_millis(pair.now);
    let (session, inbox) = (&mut pair.client, &mut pair.inbox);
    let mut out = [0; 128];
    let message = Publish::new("a", b"1").exactly_once();
    let first = session.publish(&message).unwrap().unwrap();
    session.publish(&message).unwrap();
    assert!(matches!(session.transmit(now, &mut out), dunlin_core::Transmit::Bytes(_)));
    let [high, low] = first.get().to_be_bytes();
    inbox.push(&[0x50, 2, high, low]);
    assert_eq!(session.poll(now, inbox), Ok(None));
    assert_eq!(session.transmit(now, &mut out), dunlin_core::Transmit::Bytes(4)); // PUBREL
    session.open(now, inbox);
    assert!(matches!(session.transmit(now, &mut out), dunlin_core::Transmit::Bytes(_)));
    inbox.push(b"\x20\x02\x00\x00"); // the server has lost the session
    assert_eq!(session.poll(now, inbox), Ok(Some(dunlin_core::Event::Connected { resumed: false })));
    assert_eq!(session.transmit(now, &mut out), dunlin_core::Transmit::Idle);
    assert_eq!(session.poll(now, inbox), Ok(Some(dunlin_core::Event::Forgotten(first))));
    assert_eq!(session.transmit(now, &mut out), dunlin_core::Transmit::Bytes(8));
    assert_eq!(out[0], 0x34);
}
