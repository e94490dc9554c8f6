//! A session outlives its connections, and ends when it must.

use dunlin_core::{Publish, QoS};
use dunlin_testkit::Seen::{Connected, Delivered};
use dunlin_testkit::{
    CLEAN, CLIENT, CONNACK, CONNECT, DURABLE, Message, PUBACK, PUBLISH, PUBREC, PUBREL, Packet, Pair, Persistence,
    RESUMING, SUBSCRIBE, Then, seeds,
};

use crate::id;

#[test]
fn a_resuming_client_says_so_and_a_clean_one_too() {
    // [MQTT-3.1.2-4] [MQTT-3.1.2-6] [MQTT-3.1.3-2]
    for (options, clean) in [(CLEAN, true), (RESUMING, false), (DURABLE, false)] {
        let mut pair = Pair::new(options);
        pair.run();
        pair.cut();
        pair.run();
        for packet in pair.sent_of(CONNECT) {
            let Packet::Connect(connect) = packet else { unreachable!() };
            assert_eq!((connect.client_id.as_str(), connect.clean), (CLIENT, clean));
        }
    }
}

#[test]
fn open_exchanges_of_every_kind_go_on_after_a_cut() {
    // [MQTT-3.1.2-4] [MQTT-4.1.0-1] [MQTT-4.1.0-2] [MQTT-4.4.0-1] [U311-09]
    let mut pair = Pair::resuming();
    pair.subscribe("in", QoS::ExactlyOnce).unwrap();
    pair.run();
    pair.clear();
    for kind in [PUBACK, PUBREC, PUBREL] {
        pair.broker.always(kind, Then::Drop);
    }
    pair.publish(&Publish::new("a", b"1").at_least_once()).unwrap();
    pair.publish(&Publish::new("a", b"2").exactly_once()).unwrap();
    pair.broker.publish(Message::new("in", "x").qos(2));
    pair.run();
    pair.broker.behave();
    pair.drop_next(dunlin_testkit::PUBCOMP);
    pair.publish(&Publish::new("a", b"3").exactly_once()).unwrap();
    pair.run();
    pair.clear();
    pair.cut();
    pair.run();
    let dup = |id, text: &str, qos| Packet::Publish { dup: true, id, message: Message::new("a", text).qos(qos) };
    assert_eq!(pair.sent_of(PUBLISH), [dup(2, "1", 1), dup(3, "2", 2)]);
    assert_eq!(pair.sent_of(PUBREL)[0], Packet::Pubrel(4));
    let at = |kind| pair.sent_kinds().iter().position(|sent| *sent == kind);
    assert!(at(PUBREL) < at(PUBLISH), "a released message goes first");
    assert_eq!(pair.messages(), [] as [(&str, &str); 0], "shown once");
    assert!(pair.client.is_idle());
    assert_eq!(pair.broker.unfinished(CLIENT), 0);
}

#[test]
fn what_a_clean_session_left_open_returns_neither_as_dup_nor_as_pubrel() {
    // [MQTT-3.1.2-6] The messages themselves are still the application's wish, so they go out as new ones.
    let mut pair = Pair::clean();
    pair.broker.always(PUBREL, Then::Drop);
    pair.drop_next(PUBREC);
    pair.publish(&Publish::new("a", b"1").exactly_once()).unwrap();
    pair.run();
    pair.cut();
    pair.run();
    let fresh = Packet::publish(1, Message::new("a", "1").qos(2));
    assert_eq!(pair.sent_of(PUBLISH), [fresh.clone(), fresh]);
    assert_eq!(pair.client_events(), [Connected { resumed: false }, Delivered(id(1))]);
    // Incoming identifiers are forgotten as well.
    pair.broker.inject(CLIENT, Packet::publish(7, Message::new("a", "x").qos(2)));
    pair.run();
    pair.cut();
    pair.run();
    pair.broker.inject(CLIENT, Packet::publish(7, Message::new("a", "y").qos(2)));
    pair.run();
    assert_eq!(pair.messages(), [("a", b"x"), ("a", b"y")]);
}

#[test]
fn nothing_of_a_session_returns_after_a_clean_one_in_between() {
    // [F08] [MQTT-3.1.2-6]
    let mut pair = Pair::resuming();
    pair.subscribe("in", QoS::ExactlyOnce).unwrap();
    pair.drop_next(PUBREC);
    pair.publish(&Publish::new("a", b"1").exactly_once()).unwrap();
    pair.run();
    pair.broker.publish(Message::new("in", "kept").qos(2));
    pair.replace_client(CLEAN);
    pair.run();
    pair.replace_client(RESUMING);
    pair.clear();
    pair.run();
    assert_eq!(pair.client_events(), [Connected { resumed: false }]);
    assert_eq!(pair.sent_kinds(), [CONNECT]);
    assert_eq!(pair.broker.subscriptions(CLIENT), []);
}

#[test]
fn twenty_open_messages_keep_order_identifiers_and_stage() {
    // [F04] [MQTT-4.6.0-1] [MQTT-4.3.3-1] [MQTT-2.3.1-3]
    let sizes = dunlin_testkit::Sizes { slots: 20, tx: 2000, ..Default::default() };
    let mut pair = Pair::with(RESUMING, sizes).up();
    for kind in [PUBACK, PUBREC, dunlin_testkit::PUBCOMP] {
        pair.broker.always(kind, Then::Hold);
    }
    let texts: Vec<String> = (1..=20).map(|n| n.to_string()).collect();
    for (at, text) in texts.iter().enumerate() {
        let qos = if at % 3 == 0 { QoS::AtLeastOnce } else { QoS::ExactlyOnce };
        pair.publish(&Publish::new("a", text.as_bytes()).with_qos(qos)).unwrap();
    }
    pair.run();
    // Some are past PUBREC, some are over.
    for which in [5, 2, 4, 19, 10] {
        let at = pair.broker.held().iter().position(|packet| packet.id() == Some(which)).unwrap();
        pair.broker.release(at);
    }
    pair.run();
    pair.cut();
    pair.clear();
    pair.run();
    let again: Vec<u16> = pair.sent_of(PUBLISH).iter().filter_map(Packet::id).collect();
    let expected: Vec<u16> = (1..=20).filter(|n| ![5, 2, 4, 19, 10].contains(n)).collect();
    assert_eq!(again, expected);
    let released: Vec<u16> = pair.sent_of(PUBREL).iter().filter_map(Packet::id).collect();
    assert_eq!(released, [5, 2], "4, 19 and 10 are QoS 1 and over");
}

#[test]
fn a_message_that_was_cut_in_the_middle_is_not_continued_on_the_next_connection() {
    // [E05]
    for sent in 1..12 {
        let mut pair = Pair::resuming();
        pair.out = 1;
        pair.wire.up.cut_after = Some(sent);
        pair.publish(&Publish::new("a/b", b"12345").at_least_once()).unwrap();
        pair.run();
        assert_eq!(pair.broker.received(), [("a/b", b"12345")], "cut after {sent} bytes");
    }
}

#[test]
fn a_subscribe_that_was_cut_in_the_middle_is_asked_again() {
    for sent in 0..14 {
        let mut pair = Pair::resuming();
        pair.out = 1;
        pair.wire.up.cut_after = Some(sent);
        pair.subscribe("a/b", QoS::AtLeastOnce).unwrap();
        pair.run();
        assert_eq!(pair.broker.subscriptions(CLIENT), [("a/b".to_string(), 1)], "cut after {sent} bytes");
        assert!(pair.sent_of(SUBSCRIBE).len() <= 2);
    }
}

#[test]
fn late_acknowledgements_of_a_clean_connection_are_unknown_to_the_next() {
    // [B21] [MQTT-2.3.1-2]
    let mut pair = Pair::clean();
    pair.drop_next(dunlin_testkit::SUBACK);
    pair.drop_next(PUBACK);
    pair.subscribe("a", QoS::AtMostOnce).unwrap();
    pair.publish(&Publish::new("a", b"1").at_least_once()).unwrap();
    pair.run();
    pair.cut();
    pair.broker.on_next(CONNACK, Then::Hold);
    pair.run();
    pair.broker.release_all();
    pair.send_raw(b"\x40\x02\x00\x09\x90\x03\x00\x0a\x00\x70\x02\x00\x0b\xb0\x02\x00\x0c");
    pair.run();
    assert_eq!(pair.client.ignored_count(), 4);
    assert!(pair.client.is_idle());
}

#[test]
fn a_lost_acknowledgement_of_any_kind_delays_and_never_loses_or_doubles() {
    // [MQTT-4.3.2-1] [MQTT-4.3.3-1] [MQTT-4.4.0-1]
    let kinds = [PUBACK, PUBREC, PUBREL, dunlin_testkit::PUBCOMP, dunlin_testkit::SUBACK, PUBLISH];
    for dropped in kinds {
        for nth in 0..4 {
            let mut pair = Pair::resuming();
            for _ in 0..nth {
                // The ones before it pass.
                pair.broker.on_next(dropped, Then::Delay(0));
            }
            pair.broker.on_next(dropped, Then::Drop);
            pair.subscribe("a", QoS::ExactlyOnce).unwrap();
            for (text, qos) in [("1", QoS::AtLeastOnce), ("2", QoS::ExactlyOnce), ("3", QoS::ExactlyOnce)] {
                pair.publish(&Publish::new("a", text.as_bytes()).with_qos(qos)).unwrap();
            }
            pair.run();
            pair.run_for(1);
            pair.broker.behave();
            pair.cut();
            pair.run();
            assert!(pair.client.is_idle(), "{dropped:?} {nth}");
            assert_eq!(pair.broker.unfinished(CLIENT), 0);
            let exactly_once: Vec<_> = pair.broker.received().into_iter().filter(|m| m.qos == 2).collect();
            assert_eq!(exactly_once, [("a", b"2"), ("a", b"3")]);
            let mut shown: Vec<_> = pair.messages().into_iter().filter(|m| m.qos == 2).collect();
            // A broker that drops a PUBLISH and goes on breaks the order itself.
            shown.sort();
            assert_eq!(shown, [("a", b"2"), ("a", b"3")]);
        }
    }
}

#[test]
fn two_rough_links_and_random_cuts_change_nothing_for_the_application() {
    // [MQTT-7.0.0-2] [MQTT-7.1.2-1]
    for seed in seeds(150) {
        let mut rng = dunlin_testkit::Rng::new(seed);
        let mut pair = Pair::new(RESUMING);
        pair.wire = dunlin_testkit::Wire::rough(rng.number());
        pair.out = 1 + rng.below(100);
        pair.broker.max_in_flight = 1 + rng.below(8);
        pair.subscribe("in", QoS::ExactlyOnce).unwrap();
        pair.run();
        pair.clear();
        let (mut outgoing, mut incoming, mut delivered) = (Vec::new(), Vec::new(), 0);
        for number in 0..40 {
            let text = number.to_string();
            if pair.publish(&Publish::new("out", text.as_bytes()).exactly_once()).is_ok() {
                outgoing.push(("out".to_string(), text.clone()));
            }
            if rng.chance(1, 2) {
                pair.broker.publish(Message::new("in", &text).qos(2));
                incoming.push(("in".to_string(), text));
            }
            if rng.chance(1, 3) {
                if rng.chance(1, 2) { &mut pair.wire.up } else { &mut pair.wire.down }.cut_after =
                    Some(rng.number() % 60);
            }
            if rng.chance(1, 2) {
                pair.run_for(rng.number() % 300);
            }
        }
        pair.run_for(5000);
        delivered += pair.client_events().iter().filter(|seen| matches!(seen, Delivered(_))).count();
        assert_eq!(pair.broker.received(), outgoing);
        assert_eq!(pair.messages(), incoming);
        assert_eq!(delivered, outgoing.len());
        assert!(pair.client.is_idle());
    }
}

/// The server loses the session, and the CONNACK that says so is lost as well.
fn lose_session_and_connack(pair: &mut Pair) {
    pair.clear();
    pair.broker.restart(Persistence::Lost);
    pair.drop_next(CONNACK);
    pair.run();
    pair.cut();
    pair.run();
    assert_eq!(pair.sent_of(CONNECT).len(), 2);
    assert_eq!(pair.client_events()[0], Connected { resumed: true });
}

/// A client with these options that has answered "1" with PUBREC when the server loses the session unheard.
fn doubtful(options: dunlin_core::Options<'static>) -> Pair {
    let mut pair = Pair::connected(options);
    pair.subscribe("a", QoS::ExactlyOnce).unwrap();
    pair.run();
    pair.clear();
    pair.drop_next(PUBREL);
    pair.broker.publish(Message::new("a", "1").qos(2));
    pair.run();
    for receipt in std::mem::take(&mut pair.receipts) {
        pair.client.acknowledge(receipt);
    }
    pair.run();
    assert_eq!(pair.sent_of(PUBREC), [Packet::Pubrec(1)]);
    lose_session_and_connack(&mut pair);
    pair
}

#[test]
fn a_new_message_under_an_identifier_of_a_session_whose_loss_was_never_heard_of_is_shown() {
    // [MQTT-3.3.1-1] [MQTT-3.1.2-6] [MQTT-4.3.3-2]
    for options in [RESUMING, RESUMING.manual_acks(), DURABLE] {
        let mut pair = doubtful(options);
        pair.broker.publish(Message::new("a", "2").qos(2));
        pair.run();
        assert_eq!(pair.messages(), [("a", b"2")]);
        for receipt in std::mem::take(&mut pair.receipts) {
            pair.client.acknowledge(receipt);
        }
        pair.run();
        assert_eq!(pair.broker.unfinished(CLIENT), 0);
        assert_eq!(pair.store.incoming(), []);
    }
}

#[test]
fn a_repeated_message_is_known_although_a_connack_was_lost() {
    // [MQTT-3.3.1-1] [MQTT-4.3.3-2] The same, and the server has lost nothing.
    for lost in [PUBREC, PUBREL] {
        for options in [RESUMING, DURABLE] {
            let mut pair = Pair::connected(options);
            pair.subscribe("a", QoS::ExactlyOnce).unwrap();
            pair.run();
            pair.broker.publish(Message::new("a", "1").qos(2));
            pair.step(); // shown; PUBREC has not left
            if lost == PUBREL {
                pair.drop_next(PUBREL);
                pair.run();
            }
            pair.cut();
            pair.wire.down.cut_after = Some(0); // CONNACK is lost
            let connects = pair.sent_of(CONNECT).len();
            pair.run();
            assert_eq!(pair.sent_of(CONNECT).len(), connects + 2);
            assert_eq!(pair.messages(), [("a", b"1")]);
            assert_eq!(pair.broker.unfinished(CLIENT), 0);
        }
    }
}

#[test]
fn identifiers_in_doubt_do_not_fill_the_memory_for_ever() {
    // [MQTT-3.1.2-6] Those of the lost session never come again; those of the new one need the room.
    for options in [RESUMING, DURABLE] {
        let sizes = dunlin_testkit::Sizes { received: 4, ..Default::default() };
        let mut pair = Pair::with(options, sizes).up();
        pair.subscribe("a", QoS::ExactlyOnce).unwrap();
        pair.run();
        pair.broker.always(PUBREL, Then::Drop);
        pair.broker.first_id = 700;
        for text in ["1", "2", "3"] {
            pair.broker.publish(Message::new("a", text).qos(2));
        }
        pair.run();
        pair.broker.behave();
        pair.broker.first_id = 1;
        lose_session_and_connack(&mut pair);
        pair.broker.publish(Message::new("a", "4").qos(2));
        pair.run();
        assert_eq!(pair.messages(), [("a", b"4")]);
        assert_eq!(pair.broker.unfinished(CLIENT), 0);
    }
}

#[test]
fn a_receipt_is_good_although_a_connack_was_lost() {
    let mut pair = Pair::connected(RESUMING.manual_acks());
    pair.subscribe("a", QoS::ExactlyOnce).unwrap();
    pair.run();
    pair.broker.publish(Message::new("a", "1").qos(2));
    pair.run();
    pair.cut();
    pair.wire.down.cut_after = Some(0); // CONNACK is lost
    pair.run();
    assert!(pair.client.acknowledge(pair.receipts[0]));
    pair.run();
    assert_eq!(pair.messages(), [("a", b"1")]);
    assert_eq!(pair.broker.unfinished(CLIENT), 0);
}
