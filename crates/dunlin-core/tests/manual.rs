//! Acknowledgement by the application.

use dunlin_core::{Event, Fault, Instant, Options, QoS, Receipt, Session, Storage, Transmit};
use dunlin_testkit::Seen::{self, Connected};
use dunlin_testkit::{CLIENT, Message, PUBACK, PUBREC, PUBREL, Packet, Pair, Persistence, RESUMING, Then};

use crate::qos1::permutations;

const MANUAL: Options = RESUMING.manual_acks();

fn with_messages(qos: u8, count: u16) -> Pair {
    let mut pair = Pair::connected(MANUAL);
    pair.subscribe("a", QoS::ExactlyOnce).unwrap();
    pair.run();
    pair.clear();
    for number in 1..=count {
        pair.broker.publish(Message::new("a", number.to_string()).qos(qos));
    }
    pair.run();
    assert_eq!(pair.receipts.len(), usize::from(count));
    pair
}

#[test]
fn nothing_is_acknowledged_before_the_application_says_so() {
    // [MQTT-4.3.2-2] [MQTT-4.3.3-2]
    for (qos, answer) in [(1, Packet::Puback(1)), (2, Packet::Pubrec(1))] {
        let mut pair = with_messages(qos, 1);
        pair.run_for(30_000);
        assert_eq!(pair.sent(), []);
        assert!(pair.client.acknowledge(pair.receipts[0]));
        pair.run();
        assert_eq!(pair.sent()[0], answer);
        assert!(!pair.client.acknowledge(pair.receipts[0]), "once");
        assert_eq!(pair.broker.unfinished(CLIENT), 0);
    }
}

#[test]
fn acknowledgements_leave_in_the_order_of_the_messages_whatever_the_application_does_first() {
    // [MQTT-4.6.0-2] [MQTT-4.6.0-3]
    for (qos, kind) in [(1, PUBACK), (2, PUBREC)] {
        for order in permutations(4) {
            let mut pair = with_messages(qos, 4);
            for which in order {
                assert!(pair.client.acknowledge(pair.receipts[usize::from(which) - 1]));
                pair.run();
            }
            let sent: Vec<u16> = pair.sent_of(kind).iter().filter_map(Packet::id).collect();
            assert_eq!(sent, [1, 2, 3, 4]);
            assert_eq!(pair.broker.unfinished(CLIENT), 0);
        }
    }
}

#[test]
fn a_message_without_acknowledgement_holds_up_those_behind_it_and_nothing_else() {
    let mut pair = with_messages(1, 3);
    assert!(pair.client.acknowledge(pair.receipts[1]));
    assert!(pair.client.acknowledge(pair.receipts[2]));
    pair.run();
    assert_eq!(pair.sent(), []);
    pair.publish(&dunlin_core::Publish::new("b", b"").exactly_once()).unwrap();
    pair.run();
    assert!(pair.client.outgoing_count() == 0);
}

#[test]
fn a_receipt_of_an_earlier_connection_acknowledges_nothing_at_qos1() {
    let mut pair = with_messages(1, 1);
    let old = pair.receipts.remove(0);
    pair.cut();
    pair.run();
    let message = Message::new("a", "1").qos(1);
    let expected = [Seen::Message(message.clone()), Connected { resumed: true }, Seen::Again(message)];
    assert_eq!(pair.client_events(), expected);
    assert!(!pair.client.acknowledge(old));
    pair.run();
    assert_eq!(pair.sent_of(PUBACK), []);
    assert!(pair.client.acknowledge(pair.receipts[0]));
    pair.run();
    assert_eq!(pair.broker.unfinished(CLIENT), 0);
}

#[test]
fn a_receipt_of_an_earlier_connection_is_good_at_qos2_and_the_message_is_not_shown_again() {
    // [MQTT-4.3.3-2]
    let mut pair = with_messages(2, 1);
    pair.cut();
    pair.run();
    assert_eq!(pair.messages(), [("a", b"1")]);
    assert_eq!(pair.sent_of(PUBREC), []);
    assert!(pair.client.acknowledge(pair.receipts[0]));
    pair.run();
    assert_eq!(pair.sent_of(PUBREC), [Packet::Pubrec(1)]);
    assert_eq!(pair.broker.unfinished(CLIENT), 0);
}

#[test]
fn a_qos2_message_acknowledged_while_the_link_is_down_is_answered_when_it_comes_again() {
    let mut pair = with_messages(2, 1);
    pair.cut();
    assert!(pair.client.acknowledge(pair.receipts[0]));
    pair.run();
    assert_eq!(pair.messages(), [("a", b"1")]);
    assert_eq!(pair.broker.unfinished(CLIENT), 0);
}

#[test]
fn a_receipt_of_a_lost_session_acknowledges_nothing() {
    for qos in [1, 2] {
        let mut pair = with_messages(qos, 1);
        let old = pair.receipts.remove(0);
        pair.broker.restart(Persistence::Lost);
        pair.run();
        // The same identifier for another message.
        pair.broker.inject(CLIENT, Packet::publish(1, Message::new("a", "new").qos(qos)));
        pair.run();
        assert!(!pair.client.acknowledge(old));
        pair.run();
        assert_eq!((pair.sent_of(PUBACK), pair.sent_of(PUBREC)), (vec![], vec![]));
        assert!(pair.client.acknowledge(pair.receipts[0]));
        pair.run();
        assert_eq!(pair.sent_of(PUBACK).len() + pair.sent_of(PUBREC).len(), 1);
    }
}

#[test]
fn messages_at_qos0_have_no_receipt() {
    let mut pair = Pair::connected(MANUAL);
    pair.broker.inject(CLIENT, Packet::publish(0, Message::new("a", "1")));
    pair.run();
    assert_eq!(pair.messages(), [("a", b"1")]);
    assert!(pair.receipts.is_empty());
}

#[test]
fn without_manual_acknowledgement_a_receipt_does_no_harm() {
    let mut pair = Pair::resuming();
    pair.broker.inject(CLIENT, Packet::publish(5, Message::new("a", "1").qos(1)));
    pair.run();
    assert!(!pair.client.acknowledge(pair.receipts[0]));
    pair.run();
    assert_eq!(pair.sent(), [Packet::Puback(5)]);
}

fn copy(id: u16, dup: bool) -> Packet {
    Packet::Publish { dup, id, message: Message::new("a", id.to_string()).qos(2) }
}

#[test]
fn the_same_message_twice_before_it_is_acknowledged_is_shown_once_and_answered_twice() {
    // [C18] [MQTT-4.3.3-2]
    let mut pair = Pair::connected(MANUAL);
    pair.broker.always(PUBREL, Then::Drop);
    pair.broker.inject(CLIENT, copy(7, false));
    pair.broker.inject(CLIENT, copy(7, true));
    pair.run();
    assert_eq!(pair.messages(), [("a", b"7")]);
    assert_eq!(pair.sent(), []);
    assert!(pair.client.acknowledge(pair.receipts[0]));
    pair.run();
    assert_eq!(pair.sent(), [Packet::Pubrec(7), Packet::Pubrec(7)]);
    assert!(!pair.client.acknowledge(pair.receipts[0]), "once");
}

#[test]
fn copies_are_answered_in_the_order_in_which_they_came() {
    // [C18] [MQTT-4.6.0-3]
    for is_in_order in [true, false] {
        let mut pair = Pair::connected(MANUAL);
        pair.broker.always(PUBREL, Then::Drop);
        for (id, dup) in [(7, false), (8, false), (7, true), (8, true), (7, true)] {
            pair.broker.inject(CLIENT, copy(id, dup));
        }
        pair.run();
        assert_eq!(pair.messages(), [("a", b"7"), ("a", b"8")]);
        for receipt in if is_in_order { [0, 1] } else { [1, 0] } {
            assert!(pair.client.acknowledge(pair.receipts[receipt]));
            pair.run();
        }
        assert_eq!(pair.sent(), [7, 8, 7, 8, 7].map(Packet::Pubrec));
    }
}

#[test]
fn a_copy_that_is_not_answered_yet_is_not_answered_behind_pubcomp() {
    // [C18] [MQTT-4.3.3-2]
    let mut pair = Pair::connected(MANUAL);
    pair.broker.always(PUBREL, Then::Drop);
    pair.broker.inject(CLIENT, copy(7, false));
    pair.broker.inject(CLIENT, copy(8, false));
    pair.broker.inject(CLIENT, copy(7, true));
    pair.run();
    assert!(pair.client.acknowledge(pair.receipts[0]));
    pair.run();
    assert_eq!(pair.sent(), [Packet::Pubrec(7)]);
    pair.broker.inject(CLIENT, Packet::Pubrel(7));
    pair.run();
    assert_eq!(pair.sent(), [Packet::Pubrec(7), Packet::Pubcomp(7)]);
    pair.broker.inject(CLIENT, copy(7, false)); // another message
    pair.run();
    assert_eq!(pair.receipts.len(), 3);
    assert!(pair.client.acknowledge(pair.receipts[1]));
    pair.run();
    assert_eq!(pair.sent(), [Packet::Pubrec(7), Packet::Pubcomp(7), Packet::Pubrec(8)]);
}

#[test]
fn a_copy_of_a_message_whose_answer_is_held_up_holds_up_nothing_itself() {
    let mut pair = Pair::connected(MANUAL);
    pair.broker.always(PUBREL, Then::Drop);
    pair.broker.inject(CLIENT, copy(6, false));
    pair.broker.inject(CLIENT, copy(7, false));
    pair.run();
    assert!(pair.client.acknowledge(pair.receipts[1]));
    pair.broker.inject(CLIENT, copy(7, true));
    pair.broker.inject(CLIENT, copy(8, false));
    pair.run();
    assert_eq!(pair.messages(), [("a", b"6"), ("a", b"7"), ("a", b"8")]);
    assert_eq!(pair.sent(), []);
    assert!(pair.client.acknowledge(pair.receipts[0]));
    pair.run();
    assert_eq!(pair.sent(), [6, 7, 7].map(Packet::Pubrec));
}

#[test]
fn copies_from_before_a_cut_are_not_answered_after_it() {
    // [MQTT-2.3.1-6]
    let mut pair = Pair::connected(MANUAL);
    pair.broker.always(PUBREL, Then::Drop);
    pair.broker.inject(CLIENT, copy(7, false));
    pair.broker.inject(CLIENT, copy(7, true));
    pair.run();
    pair.cut();
    assert!(pair.client.acknowledge(pair.receipts[0]));
    pair.run();
    assert_eq!(pair.sent_of(PUBREC), []);
    pair.broker.inject(CLIENT, copy(7, true));
    pair.run();
    assert_eq!(pair.messages(), [("a", b"7")]);
    assert_eq!(pair.sent_of(PUBREC), [Packet::Pubrec(7)]);
}

#[test]
fn however_many_copies_come_no_more_are_remembered_than_there_is_room_for() {
    let sizes = dunlin_testkit::Sizes { received: 4, ..Default::default() };
    let mut pair = Pair::with(MANUAL, sizes).up();
    pair.broker.always(PUBREL, Then::Drop);
    for dup in [false, true, true, true, true, true] {
        pair.broker.inject(CLIENT, copy(7, dup));
    }
    pair.broker.inject(CLIENT, Packet::publish(0, Message::new("b", "")));
    pair.run();
    assert_eq!(pair.messages(), [("a", &b"7"[..]), ("b", b"")]);
    assert!(pair.client.acknowledge(pair.receipts[0]));
    pair.run();
    assert_eq!(pair.sent_of(PUBREC), [7, 7, 7].map(Packet::Pubrec));
}

#[test]
fn copies_take_no_place_that_a_message_needs() {
    let sizes = dunlin_testkit::Sizes { received: 5, ..Default::default() };
    let mut pair = Pair::with(MANUAL, sizes).up();
    pair.broker.always(PUBREL, Then::Drop);
    for (id, dup) in [(7, false), (7, true), (7, true), (8, false), (7, true), (9, false), (10, false)] {
        pair.broker.inject(CLIENT, copy(id, dup));
    }
    pair.run();
    assert_eq!(pair.messages().len(), 4);
    for receipt in 0..4 {
        assert!(pair.client.acknowledge(pair.receipts[receipt]));
    }
    pair.run();
    assert_eq!(pair.sent_of(PUBREC), [7, 8, 9, 10].map(Packet::Pubrec));
}

#[test]
fn a_copy_that_is_not_answered_yet_is_not_answered_in_another_session() {
    // [MQTT-3.3.1-1] [MQTT-3.1.2-6]
    let mut pair = Pair::connected(MANUAL);
    pair.broker.always(PUBREL, Then::Drop);
    pair.broker.inject(CLIENT, copy(7, false));
    pair.run();
    pair.cut();
    pair.wire.down.cut_after = Some(0); // CONNACK is lost: the session is in doubt
    pair.run();
    for (id, dup) in [(7, true), (6, false), (7, true)] {
        pair.broker.inject(CLIENT, copy(id, dup));
    }
    pair.run();
    assert_eq!(pair.receipts.len(), 2);
    assert!(pair.client.acknowledge(pair.receipts[0]));
    pair.broker.inject(CLIENT, copy(7, false)); // without DUP: another message, of another session
    pair.run();
    assert_eq!(pair.receipts.len(), 3);
    assert!(pair.client.acknowledge(pair.receipts[1]));
    pair.run();
    assert_eq!(pair.sent_of(PUBREC), [7, 6].map(Packet::Pubrec));
}

#[test]
fn a_receipt_passes_through_bytes() {
    for qos in [1, 2] {
        let mut pair = with_messages(qos, 1);
        let receipt = Receipt::from_bytes(pair.receipts[0].to_bytes());
        assert_eq!(receipt, Some(pair.receipts[0]));
        assert!(pair.client.acknowledge(receipt.unwrap()));
    }
    assert_eq!(Receipt::from_bytes([0, 0, 0, 0]), None);
    assert_eq!(Receipt::from_bytes([0, 1, 2, 0]), None);
}

#[test]
fn too_many_messages_are_too_many_whether_or_not_their_pubrecs_have_left() {
    let now = Instant::from_millis(1);
    for has_left in [true, false] {
        let mut storage: Storage<64, 64, 2, 3> = Storage::new();
        let (memory, mut inbox) = storage.split();
        let mut session = Session::new(Options::new("c").persistent().manual_acks().keep_alive(0), memory);
        let send = |session: &mut Session<'_>| while let Transmit::Bytes(_) = session.transmit(now, &mut [0; 64]) {};
        session.open(now, &mut inbox);
        send(&mut session);
        inbox.push(b"\x20\x02\x00\x00\x34\x06\x00\x01t\x00\x03x");
        assert!(matches!(session.poll(now, &mut inbox), Ok(Some(Event::Connected { .. }))));
        let Ok(Some(Event::Message(message))) = session.poll(now, &mut inbox) else { panic!("no message") };
        assert!(session.acknowledge(message.receipt().unwrap()));
        if has_left {
            send(&mut session);
        }
        // One that the application keeps, the first one again, behind it or not, and one more than there is room for.
        inbox.push(b"\x34\x06\x00\x01t\x00\x07y\x3c\x06\x00\x01t\x00\x03x\x34\x06\x00\x01t\x00\x05z");
        assert!(matches!(session.poll(now, &mut inbox), Ok(Some(Event::Message(_)))));
        if !has_left {
            assert_eq!(session.poll(now, &mut inbox), Ok(None), "it leaves, which may help");
            send(&mut session);
        }
        assert_eq!(session.poll(now, &mut inbox), Err(Fault::TooMany), "{has_left}");
    }
}
